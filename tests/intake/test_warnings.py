"""Warnings: chains in any order of arrival, HTTP, readiness, expiry, feeds, and what sitrep keeps of them."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import Point as At
from shapely.geometry import Polygon

from schemas.needs import NeedAmended, NeedDrafted, NeedWithdrawn
from schemas.operations import OperationOpened
from schemas.warnings import WarningCancelled, WarningExpired, WarningIssued, WarningState, WarningUpdated
from services.intake import cap, warnings
from services.intake.app import service
from services.intake.cap import Alert, Area, Circle, Info, Named, Reference
from services.intake.handlers import consumer
from services.intake.settings import IntakeSettings
from services.intake.warning_feeds import poll_all
from services.intake.warning_timer import tick
from services.intake.warnings import Key, Message, Shape
from services.runtime import clock
from services.runtime.db import Database
from tests.conftest import Wire, bearer, emitted, shared_file

OPERATOR = bearer("operator")
RING = ((106.7, -6.4), (107.0, -6.4), (107.0, -6.1), (106.7, -6.1), (106.7, -6.4))


# Chains, as a rule


def message(
    n: int, kind: str = "alert", refers: tuple[int, ...] = (), origin: str = "a", trusted: bool = True
) -> Message:
    return Message(key(n), kind, tuple(key(m) for m in refers), origin, trusted)  # type: ignore[arg-type]


def key(n: int) -> Key:
    return "bmkg", f"id-{n}", f"2026-11-24T{n:02}:00:00Z"


def the_chain(*messages: Message) -> warnings.Chain:
    [chain] = warnings.resolve(messages)
    return chain


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_arrival_does_not_matter(order):
    all_four = [
        message(1), message(2, "update", (1,)), message(3, "update", (2,)), message(4, "cancel", (1, 2, 3)),
    ]  # fmt: skip
    chain = the_chain(*(all_four[n] for n in order))
    assert chain.first == key(1)
    assert chain.current == all_four[3]
    assert list(chain.messages) == all_four


def test_an_update_that_names_only_the_first_message_replaces_the_last():
    chain = the_chain(message(1), message(2, "update", (1,)), message(3, "update", (1,)))
    assert chain.current.key == key(3)


def test_a_cancel_before_its_alert_is_already_the_alerts_chain():
    assert the_chain(message(3, "cancel", (1,))).first == key(1)


def test_unrelated_messages_are_chains_of_their_own():
    assert len(warnings.resolve([message(1), message(2), message(3, "update", (9,))])) == 3


def test_an_alert_does_not_join_what_it_refers_to():
    assert len(warnings.resolve([message(1), message(2, "alert", (1,))])) == 2


def test_a_partner_cannot_cancel_anothers_warning():
    first, second = warnings.resolve(
        [message(1), message(2, "cancel", (1,), origin="org:x", trusted=False)]
    )  # fmt: skip
    assert first.current.type == "alert"
    assert second.current.type == "cancel"


def test_a_partner_cancels_its_own_and_an_operator_anybodys():
    own = message(1, origin="org:x", trusted=False)
    assert the_chain(own, message(2, "cancel", (1,), origin="org:x", trusted=False)).current.type == "cancel"
    assert the_chain(own, message(2, "cancel", (1,), origin="operator")).current.type == "cancel"


def test_another_name_of_the_sender_in_a_reference_is_understood():
    named = Message(key(2), "update", (("PAAQ", *key(1)[1:]),), "a", True)
    assert the_chain(message(1), named).first == key(1)


def test_references_in_a_ring_end():
    assert the_chain(message(1, "update", (2,)), message(2, "update", (1,))).current.key == key(2)


_messages = st.lists(
    st.builds(
        message,
        st.integers(1, 7),
        st.sampled_from(["alert", "update", "cancel"]),
        st.lists(st.integers(0, 8), max_size=3).map(tuple),
        st.sampled_from(["a", "b"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=7,
    unique_by=lambda m: m.key,
)


@given(_messages, st.randoms(use_true_random=False))
def test_the_same_messages_give_the_same_chains(messages, random):
    shuffled = list(messages)
    random.shuffle(shuffled)
    chains = warnings.resolve(messages)
    assert chains == warnings.resolve(shuffled)
    held = sorted(m.key for chain in chains for m in (*chain.messages, *chain.ignored))
    assert held == sorted(m.key for m in messages), "none is lost and none is in two chains"
    assert all(chain.current == max(chain.messages, key=lambda m: (m.key[2], m.key)) for chain in chains)


# Areas, as a rule


@pytest.mark.parametrize(
    ("lon", "lat", "radius_km"), [(106.8, -6.2, 25.0), (0, 0, 500.0), (151.2, -33.9, 12.5), (20, 78, 100.0)]
)
def test_a_circle_keeps_its_radius_on_the_ground(lon, lat, radius_km):
    ring = warnings.circle_ring(Circle(lon, lat, radius_km))
    assert len(ring) == 73
    for east, north in ring:
        assert great_circle_km(lon, lat, east, north) == pytest.approx(radius_km, rel=0.006)  # the earth is no sphere


def great_circle_km(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    import math

    a, b, d = math.radians(lat1), math.radians(lat2), math.radians(lon2 - lon1)
    return 6371.0088 * math.acos(min(1, math.sin(a) * math.sin(b) + math.cos(a) * math.cos(b) * math.cos(d)))


def test_vincentys_formula_gives_the_published_example():
    # Flinders Peak to Buninyong, Geocentric Datum of Australia Technical Manual: GRS 80, the same to a tenth of a mm.
    lon, lat = -(-144 - 25 / 60 - 29.52440 / 3600), -37 - 57 / 60 - 3.72030 / 3600
    bearing = 306 + 52 / 60 + 5.37 / 3600
    found = warnings._direct(lon, lat, __import__("math").radians(bearing), 54972.271)
    assert found[0] == pytest.approx(143 + 55 / 60 + 35.38390 / 3600, abs=1e-7)
    assert found[1] == pytest.approx(-37 - 39 / 60 - 10.15610 / 3600, abs=1e-7)


def shape(*areas: Area) -> Shape:
    return warnings.shape_of([an_info(areas=areas)])


def an_info(**parts: Any) -> Info:
    given: dict[str, Any] = {
        "categories": ("Met",), "event": "Hujan lebat", "urgency": "Expected", "severity": "Severe", "certainty": "Likely",
    }  # fmt: skip
    return Info(**(given | parts))


def test_a_circle_over_the_date_line_is_cut_in_two():
    found = shape(Area("x", circles=(Circle(179.5, -17, 200),))).polygons
    assert len(found) == 2
    assert all(p.bounds[0] >= -180 and p.bounds[2] <= 180 for p in found)
    assert any(p.covers(At(-179.5, -17)) for p in found)
    assert any(p.covers(At(179.9, -17)) for p in found)


def test_a_circle_over_a_pole_covers_it():
    found = shape(Area("x", circles=(Circle(10, 88, 500),))).polygons
    assert any(p.covers(At(-170, 89.5)) for p in found)
    assert any(p.covers(At(10, 86)) for p in found)
    assert not any(p.covers(At(-170, 80)) for p in found)


def test_a_polygon_over_the_date_line_is_no_band_around_the_earth():
    found = shape(Area("x", polygons=(((179, -18), (-179, -18), (-179, -16), (179, -16), (179, -18)),))).polygons
    assert sum(p.area for p in found) == pytest.approx(4)


def test_a_circle_of_no_radius_is_a_point():
    assert shape(Area("x", circles=(Circle(106.8, -6.2, 0),))).points == ((106.8, -6.2),)


def test_a_polygon_that_crosses_itself_warns_all_that_it_may_mean():
    [found] = shape(Area("x", polygons=(((0, 0), (1, 1), (1, 0), (0, 1), (0, 0)),))).polygons
    assert found.area == pytest.approx(1)


@settings(deadline=None, max_examples=30)
@given(st.integers(4, 3000), st.integers(1, 40))
def test_what_is_published_is_small_and_covers_about_the_same(points, rings):
    import math

    polygons = tuple(
        Polygon(
            [
                (n * 3 + math.cos(a) * (1 + a % 0.01), math.sin(a))
                for a in (math.tau * k / points for k in range(points))
            ]
        )
        for n in range(rings)
    )
    found, simplified = warnings.published(Shape(polygons))
    count = sum(len(ring) for ring in found)
    assert count <= warnings.MOST_POINTS
    assert simplified == (count < sum(len(p.exterior.coords) for p in polygons))
    assert all(Polygon(ring).is_valid for ring in found)


def test_what_a_warning_is_about():
    assert warnings.hazard([an_info(event="Hujan Lebat dan Petir")]) == "thunderstorm"
    assert warnings.hazard([an_info(event="Tsunami Warning")]) == "tsunami"
    assert warnings.hazard([an_info(event="Peringatan", headline="Waspada banjir bandang di Garut")]) == "flash_flood"
    assert warnings.hazard([an_info(event="?")]) is None


def test_areas_are_known_by_code_with_scheme_or_by_a_provinces_name():
    coded = Area("x", geocodes=(Named("kemendagri", "32.04"), Named("SAME", "006109")))
    assert warnings.area_codes([an_info(areas=(coded,))]) == ["kemendagri:32.04"]
    assert warnings.area_codes([an_info(areas=(Area("Banten"),))]) == ["kemendagri:36"]
    assert warnings.area_codes([an_info(areas=(Area("Banten", polygons=(RING,)),))]) == []


# Over HTTP, on PostgreSQL


@pytest.fixture
def client(make_client: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return make_client([service])


NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def at_the_hour() -> None:
    clock.set_from(NOW.isoformat())


def alert(n: int, kind: str = "Alert", refers: tuple[int, ...] = (), **parts: Any) -> Alert:
    info = {name: parts.pop(name) for name in ("event", "severity", "expires", "areas", "urgency") if name in parts}
    given: dict[str, Any] = {
        "identifier": f"id-{n}", "sender": "bmkg@example.org", "sent": NOW + timedelta(minutes=n), "status": "Actual",
        "msg_type": kind, "scope": "Public",
        "references": tuple(
            Reference("bmkg@example.org", f"id-{m}", cap.time_text(NOW + timedelta(minutes=m))) for m in refers
        ),
        "infos": (an_info(**({"expires": NOW + timedelta(hours=6), "areas": (Area("Jakarta", polygons=(RING,)),)} | info)),),
    }  # fmt: skip
    return Alert(**(given | parts))


async def post(client: httpx.AsyncClient, body: Alert | bytes, headers=OPERATOR, **more: Any) -> httpx.Response:
    raw = body if isinstance(body, bytes) else cap.write(body)
    return await client.post(
        "/v1/warnings", content=raw, headers=headers | {"Content-Type": "application/cap+xml"}, **more
    )


async def taken(client: httpx.AsyncClient, body: Alert | bytes, headers=OPERATOR, **more: Any) -> dict[str, Any]:
    answer = await post(client, body, headers, **more)
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["warnings"][0]


async def test_a_warning_comes_in_and_goes_out(client, db):
    answer = await post(client, alert(1))
    assert answer.status_code == 201
    body = answer.json()
    assert (body["accepted"], body["rejected"], body["repeated"]) == (1, 0, 0)
    [one] = body["warnings"]
    assert one["state"] == "active"
    assert one["signature"] == "none"
    listed = (await client.get("/v1/warnings?active")).json()
    assert [f["id"] for f in listed["features"]] == [one["id"]]
    assert listed["features"][0]["geometry"]["coordinates"][0][0][0] == [106.7, -6.4]
    given = await client.get(f"/v1/warnings/{one['id']}.cap")
    assert given.headers["content-type"] == "application/cap+xml"
    assert cap.read(given.content).alert == alert(1)
    [event] = await emitted(db, WarningState)
    assert isinstance(event, WarningIssued)
    assert str(event.warning_id) == one["id"] == event.subject_value == event.key_value
    assert event.severity == 3
    assert event.hazard == "heavy_rain"


async def test_a_repeat_changes_nothing(client, db):
    await taken(client, alert(1))
    again = await post(client, alert(1))
    assert again.status_code == 200
    assert again.json()["repeated"] == 1
    assert len(await emitted(db, WarningState)) == 1


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (2, 1, 3), (1, 3, 2)])
async def test_messages_in_any_order_end_as_one_cancelled_warning(client, db, order):
    of = {1: alert(1), 2: alert(2, "Update", (1,), severity="Extreme"), 3: alert(3, "Cancel", (2,), infos=())}
    first = None
    for n in order:
        first = (await taken(client, of[n]))["id"]
    warning = (await client.get(f"/v1/warnings/{first}")).json()["properties"]
    assert warning["state"] == "cancelled"
    assert warning["severity"] == 4, "it tells of what was cancelled"
    assert [m["identifier"] for m in warning["history"]] == ["id-1", "id-2", "id-3"]
    assert [m["in_force"] for m in warning["history"]] == [False, False, True]
    assert (await client.get("/v1/warnings?active")).json()["features"] == []
    assert len((await client.get("/v1/warnings")).json()["features"]) == 1
    assert cap.read((await client.get(f"/v1/warnings/{first}.cap")).content).alert == of[3]
    by_id = {m["identifier"]: m["message_id"] for m in warning["history"]}
    assert by_id["id-1"] == first, "the warning is named by its first message"
    for n in (1, 2, 3):
        old = await client.get(f"/v1/warnings/{first}.cap?message={by_id[f'id-{n}']}")
        assert cap.read(old.content).alert == of[n]
    last = (await emitted(db, WarningState))[-1]
    assert isinstance(last, WarningCancelled) or last.state == "merged"


async def test_a_chain_that_finds_its_beginning_goes_on_under_its_name(client, db):
    late = (await taken(client, alert(3, "Update", (2,))))["id"]
    first = (await taken(client, alert(2, "Update", (1,))))["id"]
    assert late != first
    merged = [e for e in await emitted(db, WarningUpdated) if e.state == "merged"]
    assert [(str(e.warning_id), str(e.merged_into)) for e in merged] == [(late, first)]
    assert [f["id"] for f in (await client.get("/v1/warnings?active")).json()["features"]] == [first]
    assert cap.read((await client.get(f"/v1/warnings/{late}.cap")).content).alert.identifier == "id-3"


async def test_only_partners_and_operators_send_warnings(client):
    assert (await post(client, alert(1), headers={})).status_code == 401
    assert (await post(client, alert(1), headers=bearer("field"))).status_code == 403


async def test_a_partner_takes_back_its_own_warnings_only(client):
    theirs, other = bearer("partner", org="bpbd"), bearer("partner", org="somebody")
    one = (await taken(client, alert(1), theirs))["id"]
    await taken(client, alert(2, "Cancel", (1,), infos=()), other)
    assert (await client.get(f"/v1/warnings/{one}")).json()["properties"]["state"] == "active"
    await taken(client, alert(3, "Cancel", (1,), infos=()), theirs)
    assert (await client.get(f"/v1/warnings/{one}")).json()["properties"]["state"] == "cancelled"


async def test_what_a_partner_said_first_does_not_stand_against_the_feed(client):
    await taken(client, alert(1, severity="Minor"), bearer("partner", org="somebody"))
    again = await taken(client, alert(1), OPERATOR)
    assert "repeated" not in again
    feature = (await client.get(f"/v1/warnings/{again['id']}")).json()
    assert feature["properties"]["severity"] == 3


async def test_hostile_and_broken_bodies_are_problem_documents(client, db):
    for body, status in (
        (b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', 422),
        (b"nonsense", 422),
        (b"", 422),
        (b"<a/>", 422),
        (cap.write(alert(1)).replace(b"<scope>Public</scope>", b""), 422),
        (b"x" * (cap.MAX_BYTES + 1), 413),
    ):
        answer = await post(client, body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert await emitted(db) == []


async def test_an_envelope_with_a_bad_message_takes_the_good_one(client):
    good = cap.write(alert(1)).split(b"?>", 1)[1]
    bad = good.replace(b"<scope>Public</scope>", b"")
    answer = await post(
        client,
        b'<EDXLDistribution xmlns="urn:oasis:names:tc:emergency:EDXL:DE:1.0">' + bad + good + b"</EDXLDistribution>",
    )
    assert answer.status_code == 201
    assert (answer.json()["accepted"], answer.json()["rejected"]) == (1, 1)
    assert answer.json()["warnings"][0]["error"]["errors"][0]["pointer"] == "/alert/scope"


@pytest.mark.parametrize(
    "parts",
    [{"scope": "Restricted", "restriction": "x"}, {"status": "Draft"}, {"status": "System"}, {"msg_type": "Ack"}],
)
async def test_what_is_no_public_warning_is_kept_and_not_passed_on(client, db, parts):
    one = await taken(client, alert(1, **parts))
    assert one["state"] == "kept"
    assert one["kept_for"]
    assert await emitted(db) == []
    assert (await client.get("/v1/warnings")).json()["features"] == []
    assert (await client.get(f"/v1/warnings/{one['message_id']}.cap")).status_code == 404


async def test_drills_are_not_mixed_with_life(client, db):
    await taken(client, alert(1, status="Exercise"))
    assert (await client.get("/v1/warnings")).json()["features"] == []
    assert len((await client.get("/v1/warnings?exercise=true")).json()["features"]) == 1
    assert [e.exercise for e in await emitted(db, WarningState)] == [True]


async def test_an_old_warning_is_issued_and_expired_at_once(client, db):
    one = await taken(client, alert(1, expires=NOW - timedelta(days=1)))
    assert one["state"] == "expired"
    assert [type(e) for e in await emitted(db, WarningState)] == [WarningIssued, WarningExpired]


async def test_a_warning_ends_when_its_time_is_over(client, db):
    one = (await taken(client, alert(1)))["id"]
    assert await tick(db) == 0
    clock.shift(timedelta(hours=7))
    assert await tick(db) == 1
    assert await tick(db) == 0
    assert [type(e) for e in await emitted(db, WarningState)] == [WarningIssued, WarningExpired]
    assert (await client.get(f"/v1/warnings/{one}")).json()["properties"]["state"] == "expired"


async def test_an_event_of_the_longest_warning_fits(client, db):
    long = "Ⴆ" * 10_000
    infos = tuple(
        an_info(event=f"{n}{long}", headline=long, description=long, instruction=long, sender_name=long, contact=long,
                areas=tuple(Area(f"{k}{long[:3000]}", polygons=(RING,), circles=(Circle(100 + k, k, 30),)) for k in range(20)))
        for n in range(5)
    )  # fmt: skip
    body = alert(1, infos=infos, identifier="x" * 499, sender="é" * 499)
    assert (await post(client, body)).status_code == 201
    [event] = await emitted(db, WarningIssued)
    assert len(event.to_bytes()) < 32 * 1024


async def test_lists_are_paged_and_filtered(client):
    for n in (1, 2, 3):
        await taken(client, alert(n))
    page = (await client.get("/v1/warnings?limit=2")).json()
    assert len(page["features"]) == 2
    rest = (await client.get(page["links"][0]["href"])).json()
    assert len(rest["features"]) == 1
    assert rest["links"] == []
    assert (await client.get("/v1/warnings?bbox=100,0,101,1")).json()["features"] == []
    assert len((await client.get("/v1/warnings?bbox=106,-7,107,-6&severity=3")).json()["features"]) == 3
    assert (await client.get("/v1/warnings?severity=4")).json()["features"] == []
    assert (await client.get("/v1/warnings?cursor=zzz")).status_code == 422


# Readiness


async def open_operation(db: Database, name: str = "jakarta", **parts: Any) -> None:
    given: dict[str, Any] = {
        "operation": name, "title": "Banjir Jakarta", "hazards": ("flood",), "areas": ("kemendagri:31",),
        "bbox": (106.68, -6.38, 106.98, -6.08), "opened_at": NOW, "by": "admin:x",
    }  # fmt: skip
    await Wire(consumer, db).deliver(OperationOpened(**(given | parts)))


async def drafts(db: Database) -> set[str]:
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT coalesce(item, skill) AS code FROM need WHERE status = 'draft'")
    return {row["code"] for row in rows}


async def test_a_warning_over_an_operation_drafts_readiness_and_its_cancel_withdraws_it(client, db):
    await open_operation(db)
    await open_operation(db, "medan", bbox=(98.5, 3.4, 98.8, 3.7), areas=("kemendagri:12",))
    await taken(client, alert(1))
    drafted = await emitted(db, NeedDrafted)
    assert {need.operation for need in drafted} == {"jakarta"}
    assert "rubber_boat" in {need.code for need in drafted}
    for need in drafted:
        assert need.status == "draft"
        assert need.point is not None
        assert Polygon(RING).covers(At(need.point.lon, need.point.lat))
        assert need.window.end == NOW + timedelta(hours=6)
        assert need.by == "rule:warnings"
    await taken(client, alert(2, "Cancel", (1,), infos=()))
    assert {need.need_id for need in await emitted(db, NeedWithdrawn)} == {need.need_id for need in drafted}
    assert await drafts(db) == set()


async def test_a_cancel_takes_back_what_was_declared_and_an_expiry_does_not(client, db):
    await open_operation(db)
    await taken(client, alert(1))
    [boat] = [need for need in await emitted(db, NeedDrafted) if need.code == "rubber_boat"]
    answer = await client.patch(
        f"/v1/needs/{boat.need_id}", json={"status": "declared", "reason": "siap"}, headers=OPERATOR
    )
    assert answer.status_code == 200
    clock.shift(timedelta(hours=7))
    await tick(db)
    withdrawn = {need.code for need in await emitted(db, NeedWithdrawn)}
    assert withdrawn
    assert "rubber_boat" not in withdrawn
    clock.set_from(NOW.isoformat())
    await taken(client, alert(11, areas=(Area("x", polygons=(RING,)),)))
    await taken(client, alert(12, "Cancel", (11,), infos=()))
    assert await drafts(db) == set()


async def test_an_update_prolongs_drafts_and_moves_away_from_operations(client, db):
    await open_operation(db)
    await taken(client, alert(1))
    count = len(await drafts(db))
    await taken(client, alert(2, "Update", (1,), expires=NOW + timedelta(hours=9)))
    amended = await emitted(db, NeedAmended)
    assert len(amended) == count
    assert {need.window.end for need in amended} == {NOW + timedelta(hours=9)}
    away = tuple((lon + 5, lat) for lon, lat in RING)
    await taken(client, alert(3, "Update", (1, 2), areas=(Area("x", polygons=(away,)),)))
    assert await drafts(db) == set()


async def test_two_warnings_do_not_draft_the_same_twice_and_the_other_stands_in(client, db):
    await open_operation(db)
    await taken(client, alert(1))
    first = await drafts(db)
    await taken(client, alert(5))
    assert len(await emitted(db, NeedDrafted)) == len(first)
    await taken(client, alert(6, "Cancel", (1,), infos=()))
    await tick(db)
    assert await drafts(db) == first


async def test_an_operation_that_opens_under_a_warning_is_made_ready(client, db):
    await taken(client, alert(1))
    assert await drafts(db) == set()
    await open_operation(db)
    await tick(db)
    assert await drafts(db) != set()


async def test_drills_and_life_do_not_draft_for_one_another(client, db):
    await open_operation(db, "latihan", exercise=True)
    await taken(client, alert(1))
    assert await drafts(db) == set()
    await taken(client, alert(2, status="Exercise"))
    assert {need.exercise for need in await emitted(db, NeedDrafted)} == {True}


async def test_a_cancel_that_came_first_leaves_nothing_to_draft(client, db):
    await open_operation(db)
    await taken(client, alert(2, "Cancel", (1,), infos=()))
    await taken(client, alert(1))
    assert await emitted(db, NeedDrafted) == []


async def test_an_operation_known_by_codes_only_is_found(client, db):
    await open_operation(db, bbox=None)
    await taken(client, alert(1, areas=(Area("DKI", geocodes=(Named("kemendagri", "31.75"),)),)))
    assert {need.operation for need in await emitted(db, NeedDrafted)} == {"jakarta"}


# Feeds


class Site(ThreadingHTTPServer):
    """A site of files with ETags on a free port, which remembers what was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[tuple[str, int]] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site: Site = self.server  # type: ignore[assignment]
                body = site.files.get(self.path)
                tag = f'"{hash(body)}"'
                status = 404 if body is None else 304 if self.headers.get("If-None-Match") == tag else 200
                site.asked.append((self.path, status))
                self.send_response(status)
                self.send_header("ETag", tag)
                content = body if status == 200 and body else b""
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@asynccontextmanager
async def a_site() -> AsyncIterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        await asyncio.to_thread(site.shutdown)
        thread.join()
        site.server_close()


def rss(*items: tuple[str, str]) -> bytes:
    inner = "".join(f"<item><guid>{guid}</guid><title>t</title><link>{link}</link></item>" for guid, link in items)
    return f'<rss version="2.0"><channel><title>x</title>{inner}</channel></rss>'.encode()


async def test_feeds_are_polled_once_for_each_entry_and_one_failure_costs_no_other(client, db):
    async with a_site() as site, httpx.AsyncClient() as http:
        site.files["/1.xml"] = cap.write(alert(1))
        site.files["/2.xml"] = cap.write(alert(2, "Update", (1,)))
        site.files["/bad.xml"] = b"<a/>"
        site.files["/rss.xml"] = rss(
            ("g1", "1.xml"), ("g2", f"{site.url}/2.xml"), ("g3", "/bad.xml"), ("g4", "/absent.xml"),
            ("g5", "http://169.254.169.254/latest"),
        )  # fmt: skip
        site.files["/one.xml"] = cap.write(alert(30))
        chosen = IntakeSettings(
            feeds=f"{site.url}/nowhere.xml {site.url}/rss.xml {site.url}/one.xml http://127.0.0.1:1/"
        )
        await poll_all(db, http, chosen)
        assert {m.message.identifier for m in await emitted(db, WarningState)} == {"id-1", "id-2", "id-30"}
        asked = len(site.asked)
        for _ in range(6):
            await poll_all(db, http, chosen)
        later = site.asked[asked:]
        assert [a for a in later if a[0] in ("/1.xml", "/2.xml", "/bad.xml")] == []
        assert len([a for a in later if a[0] == "/absent.xml"]) == 4, "tried five times in all"
        assert later.count(("/rss.xml", 304)) >= 1, "unchanged, once all is settled"
        assert ("/one.xml", 304) in later
        async with db.tx() as tx:
            feeds = {row["url"]: row["failure"] for row in await tx.fetch("SELECT * FROM warning_feed")}
            entries = {row["guid"]: row["refused"] for row in await tx.fetch("SELECT * FROM warning_feed_entry")}
        assert feeds[f"{site.url}/rss.xml"] is None
        assert "404" in feeds[f"{site.url}/nowhere.xml"]
        assert feeds["http://127.0.0.1:1/"]
        assert entries["g1"] is None
        assert "no CAP" in entries["g3"]
        assert "404" in entries["g4"]
        assert "not the feed's" in entries["g5"]


# What others make of it


async def test_sitrep_keeps_warnings_in_its_log(client, db, make_db):
    from services.sitrep.handlers import consumer as sitrep

    await taken(client, alert(1))
    await taken(client, alert(2, "Cancel", (1,), infos=()))
    log = make_db("sitrep")
    wire = Wire(sitrep, log)
    for event in await emitted(db, WarningState):
        await wire.deliver(event, id=event.meta.id, sequence=event.meta.sequence)
    async with log.tx() as tx:
        rows = await tx.fetch("SELECT type FROM log WHERE topic = 'gotong.warnings.v1' ORDER BY position")
    assert [row["type"] for row in rows] == ["gotong.warning.issued.v1", "gotong.warning.cancelled.v1"]


async def test_the_shared_files_go_through_the_api(client):
    folder = shared_file("cap/expected.csv").parent
    for path in sorted(folder.glob("*/*.xml")):
        answer = await post(client, path.read_bytes())
        assert answer.status_code in (200, 201, 422), (path.name, answer.text)
        if answer.status_code == 422:
            assert answer.json()["detail"]
            continue
        for one in answer.json()["warnings"]:
            given = await client.get(f"/v1/warnings/{one['id']}.cap?message={one['message_id']}")
            assert given.status_code == 200, path.name
            assert cap.read(given.content)
    attack = await post(client, (folder / "google-cap-library" / "xee.cap.xml").read_bytes())
    assert attack.status_code == 422
