"""Intake over HTTP, with the linker's steps taken by hand where a test needs reports linked."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.assignments import AssignmentMade
from schemas.confirmations import DeliveryConfirmed, DeliveryDisputed
from schemas.incidents import (
    IncidentClosed,
    IncidentMerged,
    IncidentMoved,
    IncidentOpened,
    IncidentSplit,
    IncidentState,
    IncidentUpdated,
    IncidentVerified,
)
from schemas.ledger import LedgerChanged
from schemas.needs import NeedDeclared, NeedDrafted, NeedState, NeedWithdrawn
from schemas.operations import OperationClosed, OperationOpened
from schemas.reports import ReportLinked, ReportPlaced, ReportReceived, ReportUnlinked
from services.intake.handlers import consumer
from services.intake.linker import Indexes, link_waiting
from services.runtime import clock, vault
from services.runtime.db import Database
from tests.conftest import Wire, bearer, emitted

FLOOD: dict[str, Any] = {
    "title": "Banjir Kampung Melayu",
    "text": "Banjir 1 meter di Kampung Melayu, 30 orang butuh perahu, 2 lansia sakit",
    "location": {"lon": 106.866, "lat": -6.222, "accuracy_m": 30, "admin": "kemendagri:31.75.03"},
    "hazard": "flood",
    "severity": 3,
    "people": {"affected": 30},
}
QUAKE: dict[str, Any] = {
    "text": "Gempa kuat, sekolah dasar roboh di Cugenang",
    "location": {"lon": 107.08, "lat": -6.79},
    "hazard": "earthquake",
    "severity": 4,
}
OPERATOR = bearer("operator")


@pytest.fixture
def wire(db: Database) -> Wire:
    return Wire(consumer, db)


async def link_all(db: Database) -> None:
    """What the linker's loop does until nothing waits."""
    indexes = Indexes()
    while await link_waiting(db, indexes):
        pass


async def post(client: httpx.AsyncClient, report: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await client.post("/v1/reports", json=report, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()


async def ok(client: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def act(client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int = 200, headers=OPERATOR):
    answer = await client.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


async def incident_of(client: httpx.AsyncClient, taken: dict[str, Any]) -> str:
    found: str = (await ok(client, taken["status_url"]))["incident"]["id"]
    return found


def opened(name: str, **values: Any) -> OperationOpened:
    values.setdefault("opened_at", clock.now())
    return OperationOpened(operation=name, title=name, by="admin:tester", **values)


# Reports and tickets


async def test_a_report_from_anyone_becomes_an_incident_that_its_ticket_tells_of(client, db):
    taken = await post(client, FLOOD)
    assert set(taken) == {"report_id", "ticket", "status_url", "needs_place"} and taken["needs_place"] is False
    before = await ok(client, taken["status_url"])
    assert before["status"] == "received" and "incident" not in before
    await link_all(db)
    after = await ok(client, f"/v1/tickets/{taken['ticket'].lower().replace('-', ' ')}")
    assert after["status"] == "linked"
    assert after["incident"]["title"] == "Banjir Kampung Melayu"
    assert [step["status"] for step in after["history"]] == ["received", "linked"]
    english = await ok(client, taken["status_url"] + "?lang=en")
    assert english["history"][0]["text"] == "Report received." and after["history"][0]["text"] == "Laporan diterima."
    [received] = await emitted(db, ReportReceived)
    [linked] = await emitted(db, ReportLinked)
    [incident] = await emitted(db, IncidentOpened)
    assert str(received.report_id) == taken["report_id"] and received.operation == "standing"
    assert linked.incident_id == incident.incident_id and incident.people.affected == 30
    assert incident.point is not None and incident.severity == 3 and incident.evidence == "reported"


async def test_an_unknown_ticket_is_not_found(client):
    for ticket in ("AAAA-BBBB-CCCC", "x", "%F0%9F%92%A7", "U" * 500):
        assert (await client.get(f"/v1/tickets/{ticket}")).status_code == 404


async def test_the_same_key_makes_one_report_also_when_both_arrive_together(client, db):
    headers = {"Idempotency-Key": "a-key-long-enough-0001"}
    answers = await asyncio.gather(*(client.post("/v1/reports", json=FLOOD, headers=headers) for _ in range(5)))
    assert {a.status_code for a in answers} <= {202, 409}
    assert len({a.content for a in answers if a.status_code == 202}) == 1
    assert len(await emitted(db, ReportReceived)) == 1
    other = await client.post("/v1/reports", json=QUAKE, headers=headers)
    assert other.status_code == 422
    async with db.tx() as tx:
        await tx.execute("DELETE FROM idempotency")  # thirty days later
    late = await post(client, FLOOD, **headers)
    assert late["report_id"] == answers[0].json()["report_id"] and late["repeated"] is True


async def test_a_repeat_by_source_and_external_id_is_the_same_report(client, db):
    row = FLOOD | {"source": "/files/a.csv", "external_id": "7"}
    first = await post(client, row, **OPERATOR)
    again = await post(client, row | {"text": "something else"}, **bearer("field", "other"))
    assert again == first | {"repeated": True}
    assert (await post(client, row | {"source": "/files/b.csv"}, **OPERATOR))["report_id"] != first["report_id"]
    assert len(await emitted(db, ReportReceived)) == 2


async def test_a_source_counts_only_for_those_who_may_speak_for_it(client, db):
    row = FLOOD | {"source": "/partners/pmi", "external_id": "7"}
    own = await post(client, row, **bearer("partner", org="pmi"))
    foreign = await post(client, row, **bearer("partner", org="other"))
    public = await post(client, row)
    device = await post(client, row, **{"Gotong-Device": "another-device"})
    assert len({r["report_id"] for r in (own, foreign, public, device)}) == 4
    events = await emitted(db, ReportReceived)
    assert [e.origin for e in events] == ["/partners/pmi", "/partners/other", "/public", "/public"]
    assert (await post(client, row))["repeated"] is True


async def test_a_report_without_a_place_is_taken_and_waits_for_one(client, db):
    taken = await post(client, {"text": "tolong, air naik"})
    assert taken["needs_place"] is True
    await link_all(db)
    assert (await ok(client, taken["status_url"]))["needs_place"] is True
    queue = await ok(client, "/v1/reports?unplaced", OPERATOR)
    assert [r["report_id"] for r in queue["reports"]] == [taken["report_id"]]
    path = f"/v1/reports/{taken['report_id']}"
    assert (
        await client.patch(path, json={"location": {"place": "sini"}, "reason": "x"}, headers=OPERATOR)
    ).status_code == 422
    assert (await client.patch(path, json={"location": {"lon": 1, "lat": 2}}, headers=OPERATOR)).status_code == 422
    answer = await client.patch(
        path, json={"location": {"lon": 106.9, "lat": -6.2}, "reason": "phoned back"}, headers=OPERATOR
    )
    assert answer.status_code == 200 and answer.json()["needs_place"] is False
    await link_all(db)
    assert (await ok(client, taken["status_url"]))["status"] == "linked"
    [placed] = await emitted(db, ReportPlaced)
    assert placed.location is not None and placed.location.lon == 106.9 and placed.reason == "phoned back"
    assert (await ok(client, "/v1/reports?unplaced=true", OPERATOR))["reports"] == []


async def test_reports_that_come_in_together_each_get_their_own_ticket(client, db):
    answers = await asyncio.gather(
        *(
            client.post("/v1/reports", json={"text": f"laporan {n}"}, headers={"Gotong-Device": f"d{n}"})
            for n in range(60)
        ),
        client.post("/v1/reports", json={"text": ""}),
    )
    assert [a.status_code for a in answers] == [202] * 60 + [422]
    assert len({a.json()["ticket"] for a in answers[:-1]}) == 60
    told = {str(e.report_id): e.text for e in await emitted(db, ReportReceived)}
    assert [told[a.json()["report_id"]] for a in answers[:-1]] == [f"laporan {n}" for n in range(60)]


async def test_a_database_that_does_not_answer_is_told_and_nothing_is_half_stored(client, db):
    async with db.tx() as tx:
        await tx.execute("LOCK TABLE report IN ACCESS EXCLUSIVE MODE")
        begun = asyncio.get_running_loop().time()
        keyed = client.post("/v1/reports", json=FLOOD, headers={"Idempotency-Key": "a-key-long-enough-0002"})
        answers = await asyncio.gather(*(client.post("/v1/reports", json=FLOOD) for _ in range(5)), keyed)
        took_s = asyncio.get_running_loop().time() - begun
    assert {a.status_code for a in answers} == {503} and all(a.headers["retry-after"] for a in answers)
    assert took_s < 10  # the promise is two seconds; a busy machine must not turn this red
    assert await emitted(db) == []
    assert (await post(client, FLOOD, **{"Idempotency-Key": "a-key-long-enough-0002"})).get("repeated") is None


async def test_a_future_observation_is_kept_and_flagged(client, db):
    await post(client, FLOOD | {"observed_at": "2199-01-01T00:00:00+07:00"})
    [event] = await emitted(db, ReportReceived)
    assert event.clock_ahead and event.observed_at <= clock.now()
    [row] = (await ok(client, "/v1/reports", OPERATOR))["reports"]
    assert row["stated_at"].startswith("2198-12-31T17:00")


async def test_personal_data_stays_sealed(client, db, caplog):
    caplog.set_level(logging.DEBUG)
    secrets = ["0812-3456-7890", "081234567890", "6281234567890", "budi.santoso@example.org", "3174011203850001",
               "Budi Santoso", "Santoso"]  # fmt: skip
    text = f"Saya Budi Santoso NIK 3174011203850001, hubungi {secrets[0]} atau {secrets[3]}, air 1 meter"
    report = FLOOD | {
        "title": f"Lapor {secrets[0]}",
        "text": text,
        "location": FLOOD["location"] | {"place": f"rumah Budi Santoso {secrets[0]}"},
        "reporter": {"name": "Budi Santoso", "phone": secrets[0]},
    }
    taken = await post(client, report)
    await link_all(db)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT row_to_json(t)::text AS row FROM (SELECT report.*, NULL AS sealed FROM report) t")
        stored = [row["row"] for row in await tx.fetch(
            "SELECT (to_jsonb(report) - 'sealed')::text AS row FROM report "
            "UNION ALL SELECT to_jsonb(incident)::text FROM incident"
        )]  # fmt: skip
        told = [bytes(row["payload"]).decode() for row in await tx.fetch("SELECT payload FROM outbox")]
        sealed = await tx.fetchrow("SELECT sealed, sealed_for, contact FROM report")
        assert sealed is not None
        raw = await vault.unseal(tx, sealed["sealed_for"], sealed["sealed"])
    assert rows and len(told) == 3 and raw is not None
    shown = [
        json.dumps(await ok(client, f"/v1/incidents/{await incident_of(client, taken)}", OPERATOR)),
        json.dumps(await ok(client, "/v1/incidents")),
        json.dumps(await ok(client, taken["status_url"])),
        json.dumps(await ok(client, "/v1/reports", OPERATOR)),
    ]
    for place in (*stored, *told, *shown, caplog.text):
        assert not [secret for secret in secrets if secret in place]
    kept = json.loads(raw)
    assert kept["text"] == text and kept["phone"] == secrets[0] and kept["name"] == "Budi Santoso"
    assert sealed["sealed_for"] == sealed["contact"] == vault.contact_id("+6281234567890")
    assert "air 1 meter" in told[0]


async def test_two_reports_that_name_one_number_are_still_told_to_do_so(client, db):
    here = {"hazard": "flood", "location": {"lon": 106.8, "lat": -6.2}}
    await post(client, here | {"text": "Perahu ada, hubungi 0812 3456 7890"})
    await post(client, here | {"text": "Nomor posko +62 812-3456-7890 siap"})
    async with db.tx() as tx:
        tokens = [row["link_text"].split("[phone_")[1][:12] for row in await tx.fetch("SELECT link_text FROM report")]
    assert tokens[0] == tokens[1]


async def test_a_long_text_is_stored_whole_and_told_cut(client, db):
    text = "\u0001" * 10_000
    media = [{"url": "https://x.example/" + "a" * 1900} for _ in range(20)]
    url = "https://x.example/" + "ü" * 1900
    await post(client, FLOOD | {"text": text, "title": "\u0001" * 300, "media": media, "external_url": url})
    [event] = await emitted(db, ReportReceived)
    assert event.text_cut and event.text is not None and len(event.to_bytes()) <= 32 * 1024
    [row] = (await ok(client, "/v1/reports", OPERATOR))["reports"]
    assert row["text"] == text and len(row["media"]) == 20 and row["external_url"] == url


# Hostile bodies

_any_number = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**400), 10**400), st.booleans(), st.text(max_size=5)
)
_any_text = st.text(st.characters(codec=None), max_size=40)  # NUL and half surrogate pairs among them
_any_value = st.recursive(
    st.one_of(st.none(), _any_number, _any_text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_any_text, inner, max_size=3),
    max_leaves=8,
)
_fields = (
    "title", "text", "location", "hazard", "severity", "observed_at", "people", "damage", "needs", "reporter", "media",
    "external_id", "external_url", "source", "operation",
)  # fmt: skip
_some_report = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(_fields, _any_value),
        "text": _any_text | st.just("banjir"),
        "title": _any_text,
        "location": st.fixed_dictionaries(
            {"lon": _any_number | st.floats(-180, 180), "lat": _any_number | st.floats(-90, 90)},
            optional={"accuracy_m": _any_number, "place": _any_text, "admin": _any_text | st.just("bps:3174")},
        )
        | _any_value,
        "observed_at": _any_value | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
        "people": st.dictionaries(st.sampled_from(["dead", "affected"]), _any_number) | _any_value,
        "reporter": st.fixed_dictionaries({}, optional={"name": _any_text, "phone": _any_text}),
    },
)


async def test_no_hostile_body_is_our_own_fault(client, db):
    """Whatever is sent, the answer is 202 or a problem document of the 400s, single and in a batch."""
    loop = asyncio.get_running_loop()

    async def send(report: Any) -> None:
        body = json.dumps(report).encode("utf-8", "surrogatepass")
        answer = await client.post("/v1/reports", content=body, headers=bearer("field"))
        assert answer.status_code in (202, 413, 422), answer.text
        if answer.status_code != 202:
            assert answer.headers["content-type"] == "application/problem+json"
        good = {"text": "banjir", "external_id": uuid4().hex}
        answer = await client.post(
            "/v1/reports:batch", content=json.dumps([report, good]).encode(), headers=bearer("field")
        )
        assert answer.status_code == 207, answer.text
        assert answer.json()["accepted"] >= 1 and answer.json()["results"][1].get("report_id")

    @settings(max_examples=120, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(_some_report)
    def try_it(report: Any) -> None:
        asyncio.run_coroutine_threadsafe(send(report), loop).result(30)

    await asyncio.to_thread(try_it)
    await link_all(db)


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"17", b'"text"', b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b'{"text": "a\\u0000b"}',
     b'{"text": "x", "location": {"lon": NaN, "lat": 0}}', b'{"text": "x", "location": {"lon": Infinity, "lat": 0}}',
     b'{"text": "x", "location": {"lon": 1e999, "lat": 0}}', b'{"text": ' + b"[" * 100_000],
)  # fmt: skip
async def test_what_is_no_report_is_refused_with_a_problem_document(client, body):
    answer = await client.post("/v1/reports", content=body)
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"]


async def test_a_fault_names_its_field_and_reason(client):
    answer = await client.post("/v1/reports", json={"text": "x", "location": {"admin": "3174"}})
    assert answer.status_code == 422
    [fault] = answer.json()["errors"]
    assert fault["pointer"] == "/location/admin" and "scheme" in fault["detail"]
    answer = await client.post("/v1/reports", json={"text": "x", "hazard": "Hujan Meteor!"})
    assert answer.status_code == 422 and answer.json()["errors"][0]["pointer"] == "/hazard"


# Batches


@pytest.mark.parametrize("ndjson", [False, True])
async def test_one_bad_row_costs_no_other(client, db, ndjson):
    rows = [json.dumps(FLOOD | {"external_id": str(n), "source": "/files/x"}) for n in range(4)]
    rows[2:2] = [
        '{"text": "x", "location": {"lon": NaN, "lat": 1}}',
        '{"text": "\\ud800"}',
        '{"text": "a\\u0000"}',
        "17",
    ]
    body = "\n".join(rows) + "\n" if ndjson else f"[{','.join(rows)}]"
    answer = await client.post("/v1/reports:batch", content=body, headers=bearer("field"))
    assert answer.status_code == 207
    found = answer.json()
    assert (found["accepted"], found["rejected"], found["repeated"]) == (4, 4, 0)
    assert [r["index"] for r in found["results"]] == list(range(8))
    assert all("error" in r for r in found["results"][2:6])
    assert all(UUID(r["report_id"]) and r["ticket"] for r in found["results"][:2] + found["results"][6:])
    again = (await client.post("/v1/reports:batch", content=body, headers=bearer("field"))).json()
    assert (again["accepted"], again["rejected"], again["repeated"]) == (0, 4, 4)


async def test_a_row_that_comes_twice_in_one_batch_is_one_report(client, db):
    rows = [FLOOD | {"external_id": "1"}] * 3
    found = (await client.post("/v1/reports:batch", json=rows, headers=bearer("partner", org="pmi"))).json()
    assert (found["accepted"], found["repeated"]) == (1, 2)
    assert len({r["report_id"] for r in found["results"]}) == 1


async def test_batches_are_for_those_with_a_token_and_have_a_limit(client):
    assert (await client.post("/v1/reports:batch", json=[FLOOD])).status_code == 401
    assert (await client.post("/v1/reports:batch", json=[FLOOD], headers=bearer("responder"))).status_code == 403
    answer = await client.post("/v1/reports:batch", json=[{"text": "x"}] * 5001, headers=bearer("field"))
    assert answer.status_code == 422 and "5000" in answer.json()["detail"]
    for body in (b"", b"{", b'[{"text": "x"}'):
        answer = await client.post("/v1/reports:batch", content=body, headers=bearer("field"))
        assert answer.status_code == (422 if body != b"{" else 207)


async def test_a_batch_is_quick(client):
    rows = [FLOOD | {"external_id": str(n), "text": f"Banjir nomor {n} hubungi 0812{n:08d}"} for n in range(2000)]
    begun = asyncio.get_running_loop().time()
    answer = await client.post("/v1/reports:batch", json=rows, headers=bearer("field"))
    rate = len(rows) / (asyncio.get_running_loop().time() - begun)
    assert answer.json()["accepted"] == len(rows)
    print(f"{rate:.0f} rows/s, each with something to seal")
    assert rate > 300  # the goal is 1,000; a busy machine must not turn this red


async def test_bulk_is_taken_and_linked_last(client, db):
    device = {"Gotong-Device": "field-page-device"}
    for n in range(12):
        await post(client, QUAKE | {"text": f"laporan ke {n}"}, **device)
    await post(client, FLOOD)
    received = await emitted(db, ReportReceived)
    assert [e.bulk for e in received] == [False] * 10 + [True] * 2 + [False]
    await link_all(db)
    order = [e.report_id for e in await emitted(db, ReportLinked)]
    assert order[-2:] == [received[10].report_id, received[11].report_id]


# Operations


async def test_a_report_goes_to_the_operation_it_names_or_by_rule(client, db, wire):
    await wire.deliver(opened("jakarta", hazards=("flood",), bbox=(106.6, -6.4, 107.0, -6.0)))
    await wire.deliver(opened("drill", exercise=True, hazards=("flood",), bbox=(106.6, -6.4, 107.0, -6.0)))
    await post(client, FLOOD)
    await post(client, FLOOD | {"operation": "drill"})
    await post(client, QUAKE)
    events = await emitted(db, ReportReceived)
    assert [(e.operation, e.exercise) for e in events] == [("jakarta", False), ("drill", True), ("standing", False)]
    await link_all(db)
    assert {(e.operation, e.exercise) for e in await emitted(db, IncidentOpened)} == {
        ("jakarta", False), ("drill", True), ("standing", False),
    }  # fmt: skip
    live = (await ok(client, "/v1/incidents", OPERATOR))["features"]
    assert {f["properties"]["operation"] for f in live} == {"jakarta", "standing"}
    drills = (await ok(client, "/v1/incidents?exercise=true", OPERATOR))["features"]
    assert [f["properties"]["operation"] for f in drills] == ["drill"]
    closed = OperationClosed(
        operation="jakarta", title="jakarta", opened_at=clock.now(), closed_at=clock.now(), by="admin:tester"
    )
    await wire.deliver(closed, sequence=2)
    live = (await ok(client, "/v1/incidents", OPERATOR))["features"]
    assert {f["properties"]["operation"] for f in live} == {"standing"}
    await post(client, FLOOD | {"operation": "jakarta"})
    assert (await emitted(db, ReportReceived))[-1].operation == "standing"


async def test_a_report_that_names_an_unknown_operation_waits_for_it(client, db, wire):
    taken = await post(client, FLOOD | {"operation": "later"})
    await link_all(db)
    assert await emitted(db, ReportReceived) == []
    assert (await ok(client, taken["status_url"]))["status"] == "received"
    await wire.deliver(opened("later", exercise=True))
    await link_all(db)
    [received] = await emitted(db, ReportReceived)
    assert (received.operation, received.exercise) == ("later", True)
    assert (await ok(client, taken["status_url"]))["status"] == "linked"


async def test_a_report_waits_for_an_operation_at_most_a_minute(client, db):
    await post(client, FLOOD | {"operation": "never"})
    await link_all(db)
    assert await emitted(db, ReportReceived) == []
    try:
        clock.shift(timedelta(seconds=61))
        await link_all(db)
    finally:
        clock.reset()
    [received] = await emitted(db, ReportReceived)
    [incident] = await emitted(db, IncidentOpened)
    assert received.operation == incident.operation == "standing"


async def test_a_report_is_moved_to_another_operation(client, db, wire):
    await wire.deliver(opened("elsewhere"))
    first, second = await post(client, FLOOD), await post(client, FLOOD)
    await link_all(db)
    incident = await incident_of(client, first)
    assert await incident_of(client, second) == incident
    order = {"operation": "elsewhere", "reason": "another district"}
    answer = await client.patch(f"/v1/reports/{second['report_id']}", json=order, headers=OPERATOR)
    assert answer.status_code == 200, answer.text
    await link_all(db)
    moved = await incident_of(client, second)
    assert moved != incident
    assert (await ok(client, f"/v1/incidents/{moved}", OPERATOR))["properties"]["operation"] == "elsewhere"
    assert (await ok(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]["reports"] == 1
    only = await client.patch(f"/v1/reports/{first['report_id']}", json=order, headers=OPERATOR)
    assert only.status_code == 409
    order["operation"] = "unheard"
    answer = await client.patch(f"/v1/reports/{first['report_id']}", json=order, headers=OPERATOR)
    assert answer.status_code == 404 and answer.headers["retry-after"] == "1"


# Incidents


async def two_incidents(client: httpx.AsyncClient, db: Database) -> tuple[list[dict[str, Any]], str, str]:
    """Two reports of one flood and one of an earthquake."""
    taken = [
        await post(client, FLOOD | {"reporter": {"phone": "+628111111111"}}),
        await post(
            client,
            FLOOD
            | {"text": "Kampung Melayu banjir sedada, warga butuh perahu", "reporter": {"phone": "+628222222222"}},
        ),
        await post(client, QUAKE),
    ]
    await link_all(db)
    first = await incident_of(client, taken[0])
    assert await incident_of(client, taken[1]) == first
    return taken, first, await incident_of(client, taken[2])


async def test_incidents_are_listed_filtered_and_paged(client, db):
    _, flood, quake = await two_incidents(client, db)

    async def ids(query: str, headers: dict[str, str] | None = OPERATOR) -> list[str]:
        found = await ok(client, f"/v1/incidents{query}", headers)
        assert found["type"] == "FeatureCollection"
        return [f["properties"]["id"] for f in found["features"]]

    assert set(await ids("")) == {flood, quake}
    assert await ids("?hazard=flood") == [flood]
    assert await ids("?severity=4") == [quake]
    assert await ids("?bbox=106.8,-6.3,106.9,-6.1") == [flood]
    assert await ids("?status=closed") == [] and await ids("?operation=other") == []
    assert await ids("?since=2199-01-01T00:00:00Z") == []
    page = await ok(client, "/v1/incidents?limit=1", OPERATOR)
    [link] = page["links"]
    rest = await ok(client, link["href"], OPERATOR)
    assert {page["features"][0]["id"], rest["features"][0]["id"]} == {flood, quake} and rest["links"] == []
    assert len(await ids("?since=1900-01-01T00:00:00Z")) == 2
    for bad in ("?hazard=%00", "?operation=a%00", "?since=0001-01-01T00:00:00%2B14:00",
                "?since=9999-12-31T23:59:59-14:00", "?bbox=nan,0,0,0", "?cursor=WyJ4Il0", "?bbox=1,2,3", "?bbox=a,b,c,d", "?severity=9", "?cursor=zzz", "?since=yesterday", "?limit=0"):  # fmt: skip
        assert (await client.get(f"/v1/incidents{bad}")).status_code == 422, bad
    for bad in ("reports?operation=%00", "reports?cursor=WzFlMzBd", "reports?cursor=Wy0xXQ", "needs?item=%00",
                "needs?cursor=WyJ4Il0", "reports?incident=x"):  # fmt: skip
        assert (await client.get(f"/v1/{bad}", headers=OPERATOR)).status_code == 422, bad
    answer = await client.get("/v1/incidents")
    assert answer.headers["content-type"] == "application/geo+json"


async def test_the_public_sees_incidents_coarse(client, db):
    _, flood, _ = await two_incidents(client, db)
    exact = await ok(client, f"/v1/incidents/{flood}", OPERATOR)
    coarse = await ok(client, f"/v1/incidents/{flood}")
    assert exact["properties"]["people"]["affected"] == 30 and coarse["properties"]["people"]["affected"] == "20-49"
    assert exact["geometry"]["coordinates"] == [106.866, -6.222]
    assert coarse["geometry"]["coordinates"] != exact["geometry"]["coordinates"]
    assert abs(coarse["geometry"]["coordinates"][0] - 106.866) < 0.03
    assert "linked_reports" not in coarse["properties"] and "Melayu" not in json.dumps(coarse)
    other = await ok(client, f"/v1/incidents/{flood}", bearer("operator", operations=("elsewhere",)))
    assert "linked_reports" not in other["properties"]


async def test_an_incident_tells_its_reports_scores_and_history(client, db):
    taken, flood, _ = await two_incidents(client, db)
    found = (await ok(client, f"/v1/incidents/{flood}", OPERATOR))["properties"]
    assert [r["report_id"] for r in found["linked_reports"]] == [taken[0]["report_id"], taken[1]["report_id"]]
    assert found["linked_reports"][1]["score"] > 0.7 and found["linked_reports"][1]["parts"]
    assert found["evidence"] == "corroborated" and found["reports"] == 2 and found["merged_into"] is None
    assert [step["what"] for step in found["history"]] == ["opened"]  # both joined in one batch: one event
    assert (await client.get(f"/v1/incidents/{uuid4()}")).status_code == 404
    assert (await client.get("/v1/incidents/nonsense")).status_code == 422


async def test_merging_moves_everything_and_says_where_it_went(client, db):
    taken, flood, quake = await two_incidents(client, db)
    answer = await act(client, f"/v1/incidents/{quake}/merge", {"into": flood, "reason": "one disaster"})
    assert answer["properties"]["id"] == flood and answer["properties"]["reports"] == 3
    gone = (await ok(client, f"/v1/incidents/{quake}", OPERATOR))["properties"]
    assert gone["status"] == "merged" and gone["merged_into"] == flood and gone["reports"] == 0
    assert await incident_of(client, taken[2]) == flood
    [event] = await emitted(db, IncidentMerged)
    assert str(event.merged_into) == flood and event.reason == "one disaster" and event.by == "operator:tester"
    assert quake not in [f["id"] for f in (await ok(client, "/v1/incidents", OPERATOR))["features"]]
    await act(client, f"/v1/incidents/{quake}/merge", {"into": flood, "reason": "again"}, 409)
    await act(client, f"/v1/incidents/{flood}/merge", {"into": flood, "reason": "itself"}, 409)
    await act(client, f"/v1/incidents/{flood}/merge", {"into": str(uuid4()), "reason": "nobody"}, 404)
    await act(client, f"/v1/incidents/{flood}/merge", {"into": quake, "reason": "back"}, 409)
    await act(client, f"/v1/incidents/{flood}/merge", {"into": quake}, 422)


async def test_splitting_makes_an_incident_of_its_own(client, db):
    taken, flood, quake = await two_incidents(client, db)
    second = taken[1]["report_id"]
    answer = await act(client, f"/v1/incidents/{flood}/split", {"reports": [second], "reason": "two streets"})
    assert answer["properties"]["reports"] == 1
    new = await incident_of(client, taken[1])
    assert new not in (flood, quake)
    assert len(await emitted(db, IncidentSplit)) == 1
    assert [str(e.report_id) for e in await emitted(db, ReportUnlinked)] == [second]
    await act(client, f"/v1/incidents/{flood}/split", {"reports": [taken[0]["report_id"]], "reason": "all"}, 409)
    await act(client, f"/v1/incidents/{flood}/split", {"reports": [second], "reason": "not its own"}, 409)
    await act(client, f"/v1/incidents/{flood}/split", {"reports": [], "reason": "none"}, 422)


async def test_linking_and_unlinking_by_hand(client, db):
    taken, flood, quake = await two_incidents(client, db)
    second = taken[1]["report_id"]
    await act(client, f"/v1/incidents/{quake}/link", {"report": second, "reason": "the caller said so"})
    assert await incident_of(client, taken[1]) == quake
    assert (await ok(client, f"/v1/incidents/{flood}", OPERATOR))["properties"]["reports"] == 1
    answer = await act(client, f"/v1/incidents/{quake}/unlink", {"report": second, "reason": "it was not"})
    assert answer["properties"]["reports"] == 1
    alone = await incident_of(client, taken[1])
    assert alone not in (flood, quake)
    await act(client, f"/v1/incidents/{quake}/unlink", {"report": second, "reason": "gone already"}, 409)
    await act(client, f"/v1/incidents/{alone}/unlink", {"report": second, "reason": "its only one"}, 409)
    await act(client, f"/v1/incidents/{flood}/link", {"report": str(uuid4()), "reason": "nobody"}, 404)
    await act(client, f"/v1/incidents/{flood}/link", {"report": second, "reason": "back again"})
    assert (await ok(client, f"/v1/incidents/{alone}", OPERATOR))["properties"]["merged_into"] == flood


async def test_an_unplaced_report_is_linked_by_hand_and_waits_again_when_unlinked(client, db):
    _, flood, _ = await two_incidents(client, db)
    taken = await post(client, {"text": "air makin naik"})
    await act(client, f"/v1/incidents/{flood}/link", {"report": taken["report_id"], "reason": "same caller"})
    assert await incident_of(client, taken) == flood
    await act(client, f"/v1/incidents/{flood}/unlink", {"report": taken["report_id"], "reason": "no"})
    await link_all(db)
    queue = await ok(client, "/v1/reports?unplaced", OPERATOR)
    assert [r["report_id"] for r in queue["reports"]] == [taken["report_id"]]


async def test_verifying_raises_evidence_and_the_ticket(client, db):
    taken, flood, _ = await two_incidents(client, db)
    path = f"/v1/incidents/{flood}/verify"
    field = bearer("field")
    await act(client, path, {"evidence": "official", "reason": "not theirs to say"}, 403, headers=field)
    answer = await act(client, path, {"evidence": "field_checked", "reason": "seen"}, headers=field)
    assert answer["properties"]["evidence"] == "field_checked"
    assert (await ok(client, taken[0]["status_url"]))["status"] == "verified"
    answer = await act(client, path, {"evidence": "official", "fact": "people.dead", "reason": "BPBD"})
    assert answer["properties"]["evidence"] == "field_checked"
    assert answer["properties"]["facts"]["people.dead"]["evidence"] == "official"
    assert len(await emitted(db, IncidentVerified)) == 2
    await act(client, path, {"evidence": "certain", "reason": "x"}, 422)
    await act(client, path, {"evidence": "official", "reason": "x"}, 401, headers={})


async def test_a_closed_incident_takes_no_more_reports_and_its_tickets_are_resolved(client, db):
    taken, flood, quake = await two_incidents(client, db)
    await act(client, f"/v1/incidents/{flood}/close", {"reason": "water is gone"})
    assert len(await emitted(db, IncidentClosed)) == 1
    assert (await ok(client, taken[0]["status_url"]))["status"] == "resolved"
    await act(client, f"/v1/incidents/{flood}/close", {"reason": "again"})
    assert len(await emitted(db, IncidentClosed)) == 1
    later = await post(client, FLOOD)
    await link_all(db)
    assert await incident_of(client, later) != flood
    await act(client, f"/v1/incidents/{flood}/link", {"report": later["report_id"], "reason": "x"}, 409)
    await act(client, f"/v1/incidents/{quake}/merge", {"into": flood, "reason": "x"}, 409)


async def test_an_incident_is_moved_with_reports_and_needs(client, db, wire):
    await wire.deliver(opened("drill", exercise=True))
    taken = await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 4}]}, **bearer("field"))
    await link_all(db)
    flood = await incident_of(client, taken)
    answer = await act(client, f"/v1/incidents/{flood}/move", {"operation": "drill", "reason": "it was the drill"})
    assert answer["properties"]["operation"] == "drill" and answer["properties"]["exercise"] is True
    [moved] = await emitted(db, IncidentMoved)
    assert (moved.operation, moved.exercise) == ("drill", True)
    need = (await emitted(db, NeedState))[-1]
    assert (need.operation, need.exercise) == ("drill", True)
    [placed] = await emitted(db, ReportPlaced)
    assert placed.exercise is True
    await act(client, f"/v1/incidents/{flood}/move", {"operation": "unheard", "reason": "x"}, 404)
    only_here = bearer("operator", operations=("standing",))
    await act(client, f"/v1/incidents/{flood}/move", {"operation": "standing", "reason": "x"}, 403, headers=only_here)


async def test_corrections_are_for_operators(client, db):
    _, flood, quake = await two_incidents(client, db)
    for what, body in {
        "merge": {"into": quake}, "split": {"reports": [str(uuid4())]}, "link": {"report": str(uuid4())},
        "unlink": {"report": str(uuid4())}, "move": {"operation": "x"}, "close": {},
    }.items():  # fmt: skip
        body |= {"reason": "x"}
        await act(client, f"/v1/incidents/{flood}/{what}", body, 401, headers={})
        await act(client, f"/v1/incidents/{flood}/{what}", body, 403, headers=bearer("partner", org="pmi"))
        await act(client, f"/v1/incidents/{uuid4()}/{what}", body, 404)


# Needs


async def test_a_proven_report_declares_its_need_and_a_strangers_waits(client, db):
    asks = {"needs": [{"item": "boat", "quantity": 4}, {"skill": "medic", "quantity": 1}]}
    await post(client, FLOOD | asks, **bearer("field"))
    await post(client, QUAKE | asks)
    await link_all(db)
    declared = await emitted(db, NeedDeclared)
    drafted = await emitted(db, NeedDrafted)
    assert {(n.item, n.skill, n.quantity, n.unit) for n in declared} == {
        ("boat", None, 4, "unit"),
        (None, "medic", 1, "person"),
    }
    assert len(drafted) == 2 and all(n.point is not None and n.declared_at is None for n in drafted)
    [need] = [n for n in declared if n.item]
    assert need.window.end - need.window.start == timedelta(hours=12) and need.severity == 3


async def test_a_need_is_the_largest_ask_and_follows_links(client, db):
    first = await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 4}]}, **bearer("field"))
    await link_all(db)
    second = await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 9}]}, **bearer("field"))
    await link_all(db)
    flood = await incident_of(client, first)
    assert await incident_of(client, second) == flood
    [need] = (await ok(client, f"/v1/needs?incident={flood}", OPERATOR))["needs"]
    assert need["quantity"] == 9 and need["status"] == "declared" and need["ledger"]["open"] == 9
    await act(client, f"/v1/incidents/{flood}/unlink", {"report": second["report_id"], "reason": "elsewhere"})
    [need] = (await ok(client, f"/v1/needs?incident={flood}", OPERATOR))["needs"]
    assert need["quantity"] == 4
    other = await incident_of(client, second)
    [need] = (await ok(client, f"/v1/needs?incident={other}", OPERATOR))["needs"]
    assert need["quantity"] == 9
    await act(client, f"/v1/incidents/{other}/merge", {"into": flood, "reason": "the same after all"})
    live = [
        n for n in (await ok(client, f"/v1/needs?incident={flood}", OPERATOR))["needs"] if n["status"] != "withdrawn"
    ]
    assert [n["quantity"] for n in live] == [9]
    assert len(await emitted(db, NeedWithdrawn)) == 1
    kinds = [type(e).__name__ for e in await emitted(db, NeedState)]
    assert kinds == ["NeedDeclared", "NeedAmended", "NeedAmended", "NeedDeclared", "NeedWithdrawn", "NeedAmended"]


async def test_a_need_without_a_point_is_a_draft_until_it_has_one(client, db):
    report = {
        "text": "butuh perahu",
        "location": {"admin": "kemendagri:32.04"},
        "needs": [{"item": "boat", "quantity": 2}],
    }
    await post(client, report, **bearer("field"))
    await link_all(db)
    [need] = (await ok(client, "/v1/needs?status=draft", OPERATOR))["needs"]
    path = f"/v1/needs/{need['id']}"
    assert (await client.patch(path, json={"status": "declared", "reason": "go"}, headers=OPERATOR)).status_code == 409
    change = {"status": "declared", "location": {"lon": 107.6, "lat": -7.0}, "reason": "asked where"}
    answer = await client.patch(path, json=change, headers=OPERATOR)
    assert answer.status_code == 200 and answer.json()["status"] == "declared"
    [declared] = await emitted(db, NeedDeclared)
    assert declared.point is not None and declared.reason == "asked where"


async def test_small_needs_of_a_contact_are_declared_three_times_a_day(client, db):
    for n in range(5):
        place = {"lon": 106.0 + n / 2, "lat": -6.2}
        report = {"text": f"butuh air bersih di tempat {n}", "location": place, "hazard": "flood",
                  "needs": [{"item": "water", "quantity": 20}], "reporter": {"phone": "0812 3456 7890"}}  # fmt: skip
        await post(client, report)
    await post(client, QUAKE | {"needs": [{"item": "water", "quantity": 20}]})
    await post(client, FLOOD | {"needs": [{"item": "water", "quantity": 2000}], "reporter": {"phone": "08111111111"}})
    await link_all(db)
    assert len(await emitted(db, NeedDeclared)) == 3
    assert len(await emitted(db, NeedDrafted)) == 4


async def test_corroboration_declares_what_waited(client, db):
    asks = {"needs": [{"item": "boat", "quantity": 7}]}
    await post(client, FLOOD | asks | {"reporter": {"phone": "08111111111"}})
    await link_all(db)
    assert [n.quantity for n in await emitted(db, NeedDrafted)] == [7]
    await post(
        client, FLOOD | {"text": "Kampung Melayu banjir, orang butuh perahu", "reporter": {"phone": "08222222222"}}
    )
    await link_all(db)
    [declared] = await emitted(db, NeedDeclared)
    assert declared.quantity == 7
    [updated] = await emitted(db, IncidentUpdated)
    assert updated.evidence == "corroborated" and "evidence" in updated.changed


async def test_an_operator_posts_amends_and_withdraws_a_need(client, db):
    order = {"item": "tent", "quantity": 20, "location": {"lon": 107.6, "lat": -7.0}, "severity": 3}
    need = await act(client, "/v1/needs", order, 201)
    zeros = dict.fromkeys(("offered", "committed", "in_transit", "delivered", "confirmed", "cancelled", "asked"), 0)
    assert need["status"] == "declared" and need["ledger"] == {"needed": 20, "open": 20, **zeros}
    path = f"/v1/needs/{need['id']}"
    assert (await ok(client, path, OPERATOR)) == need
    amended = await client.patch(path, json={"quantity": 25, "reason": "more came"}, headers=OPERATOR)
    assert amended.json()["quantity"] == 25
    withdrawn = await client.patch(path, json={"status": "withdrawn", "reason": "done"}, headers=OPERATOR)
    assert withdrawn.json()["status"] == "withdrawn" and withdrawn.json()["ledger"]["open"] == 0
    assert (await client.patch(path, json={"quantity": 5, "reason": "x"}, headers=OPERATOR)).status_code == 409
    assert [type(e).__name__ for e in await emitted(db, NeedState)] == ["NeedDeclared", "NeedAmended", "NeedWithdrawn"]
    draft = await act(client, "/v1/needs", order | {"location": {"admin": "bps:3204"}}, 201)
    assert draft["status"] == "draft"
    for bad in ({"item": "tent"}, {"item": "tent", "quantity": 0}, {"quantity": 1, "location": {"lon": 1, "lat": 1}},
                {"item": "tent", "quantity": 1}, order | {"skill": "medic"},
                order | {"requires": {"certificates": ["a"] * 3000}}):  # fmt: skip
        await act(client, "/v1/needs", bad, 422)
    await act(client, "/v1/needs", order, 401, headers={})
    await act(client, "/v1/needs", {"item": "tent", "quantity": 1, "incident": str(uuid4())}, 404)
    await act(client, "/v1/needs", order | {"operation": "unheard"}, 404)


async def test_a_figure_for_a_need_that_is_there_becomes_its_quantity(client, db):
    taken = await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 4}]})
    await link_all(db)
    flood = await incident_of(client, taken)
    need = await act(client, "/v1/needs", {"item": "boat", "quantity": 6, "incident": flood}, 200)
    assert need["quantity"] == 6 and need["status"] == "declared"
    await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 50}]}, **bearer("field"))
    await link_all(db)
    [need] = (await ok(client, f"/v1/needs?incident={flood}", OPERATOR))["needs"]
    assert need["quantity"] == 6  # a figure once set goes before what reports ask
    window = {"start": "2026-12-01T00:00:00Z", "end": "2026-12-02T00:00:00Z"}
    later = await act(client, "/v1/needs", {"item": "boat", "quantity": 1, "incident": flood, "window": window}, 201)
    assert later["id"] != need["id"] and later["location"]["lon"] == FLOOD["location"]["lon"]


async def test_a_partner_has_its_own_needs(client):
    order = {"skill": "medic", "quantity": 2, "location": {"lon": 107.6, "lat": -7.0}}
    need = await act(client, "/v1/needs", order, 201, headers=bearer("partner", org="pmi"))
    other = bearer("partner", org="other")
    assert (await ok(client, "/v1/needs", other))["needs"] == []
    assert len((await ok(client, "/v1/needs", bearer("partner", org="pmi")))["needs"]) == 1
    path = f"/v1/needs/{need['id']}"
    assert (await client.get(path, headers=other)).status_code == 403
    assert (await client.patch(path, json={"quantity": 1, "reason": "x"}, headers=other)).status_code == 403
    assert (await client.get(path)).status_code == 401
    assert (await client.get(f"/v1/needs/{uuid4()}", headers=other)).status_code == 404


def ledger_of(need_id: str, **values: int) -> LedgerChanged:
    row = (
        dict.fromkeys(("open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled"), 0) | values
    )
    return LedgerChanged(
        need_id=UUID(need_id), unit="unit", severity=3, needed=sum(row.values()), asked=0, cause="test", **row
    )


async def test_a_ticket_follows_help_to_its_confirmed_end(client, db, wire):
    taken = await post(client, FLOOD | {"needs": [{"item": "boat", "quantity": 4}]}, **bearer("field"))
    await link_all(db)
    [need] = await emitted(db, NeedDeclared)
    confirm = f"/v1/tickets/{taken['ticket']}/confirm"
    await act(client, confirm, {"received": "yes"}, 409, headers={})
    made = AssignmentMade(
        assignment_id=uuid4(), need_id=need.need_id, item="boat", quantity=4, state="made", by="rule:offer",
        period={"start": datetime(2026, 11, 24, tzinfo=UTC), "end": datetime(2026, 11, 25, tzinfo=UTC)},
    )  # fmt: skip
    await wire.deliver(made)
    assert (await ok(client, taken["status_url"]))["status"] == "acting"
    await wire.deliver(ledger_of(str(need.need_id), delivered=4))
    assert (await ok(client, f"/v1/needs/{need.need_id}", OPERATOR))["ledger"]["delivered"] == 4
    await act(client, confirm, {"received": "partly"}, 422, headers={})
    await act(client, confirm, {"received": "yes", "quantity": 5}, 409, headers={})
    await act(client, confirm, {"received": "yes", "need_id": str(uuid4())}, 404, headers={})
    await act(client, confirm, {"received": "partly", "quantity": 3}, headers={})
    [confirmed] = await emitted(db, DeliveryConfirmed)
    [disputed] = await emitted(db, DeliveryDisputed)
    assert (confirmed.quantity, disputed.quantity) == (3, 1) and confirmed.operation == "standing"
    await wire.deliver(ledger_of(str(need.need_id), confirmed=4), sequence=2)
    history = await ok(client, taken["status_url"])
    assert [s["status"] for s in history["history"]] == ["received", "linked", "acting", "resolved"]


async def test_operators_and_field_staff_confirm_for_others(client, db, wire):
    need = await act(client, "/v1/needs", {"item": "tent", "quantity": 5, "location": {"lon": 1, "lat": 1}}, 201)
    path = f"/v1/needs/{need['id']}/confirm"
    await act(client, path, {"received": "yes", "reason": "seen"}, 409)
    await wire.deliver(ledger_of(need["id"], delivered=5))
    await act(client, path, {"received": "no", "reason": "wrong village"}, headers=bearer("field"))
    [disputed] = await emitted(db, DeliveryDisputed)
    assert disputed.quantity == 5 and disputed.by == "field:tester" and disputed.reason == "wrong village"
    await act(client, path, {"received": "yes", "reason": "x"}, 403, headers=bearer("partner", org="pmi"))


async def test_closing_withdraws_needs_that_nobody_has_begun_to_meet(client, db, wire):
    asks = {"needs": [{"item": "boat", "quantity": 4}, {"item": "tent", "quantity": 2}]}
    taken = await post(client, FLOOD | asks, **bearer("field"))
    await link_all(db)
    boat = next(n for n in await emitted(db, NeedDeclared) if n.item == "boat")
    await wire.deliver(ledger_of(str(boat.need_id), committed=4))
    await act(client, f"/v1/incidents/{await incident_of(client, taken)}/close", {"reason": "over"})
    assert [n.item for n in await emitted(db, NeedWithdrawn)] == ["tent"]


async def test_a_merge_of_needs_leaves_one_live_need_for_each_word(client, db):
    asks = {"needs": [{"item": "boat", "quantity": 4}]}
    first, second = (
        await post(client, FLOOD | asks, **bearer("field")),
        await post(client, QUAKE | asks, **bearer("field")),
    )
    await link_all(db)
    flood, quake = await incident_of(client, first), await incident_of(client, second)
    await act(client, f"/v1/incidents/{quake}/merge", {"into": flood, "reason": "one"})
    await act(client, f"/v1/incidents/{flood}/split", {"reports": [second["report_id"]], "reason": "two"})
    new = await incident_of(client, second)
    for incident in (flood, new):
        needs = (await ok(client, f"/v1/needs?incident={incident}", OPERATOR))["needs"]
        assert [(n["quantity"], n["status"]) for n in needs if n["status"] != "withdrawn"] == [(4, "declared")]


async def test_every_event_keeps_its_order_and_an_incident_is_told_of_once_a_batch(client, db):
    for n in range(6):
        await post(client, FLOOD | {"text": FLOOD["text"] + f" {n}"})
    await link_all(db)
    states = await emitted(db, IncidentState)
    assert len({s.incident_id for s in states}) == len(states)
    assert sum(s.reports for s in states) == 6
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT subject, sequence FROM outbox ORDER BY position")
    seen: dict[str, int] = {}
    for row in rows:
        assert row["sequence"] == seen.get(row["subject"], 0) + 1
        seen[row["subject"]] = row["sequence"]
