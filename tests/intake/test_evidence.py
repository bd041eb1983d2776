"""What is believed: evidence by fact, protected classes, triage over HTTP, what waits too long, words of needs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import h3
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.assignments import AssignmentMade
from schemas.confirmations import DeliveryDisputed
from schemas.incidents import IncidentOverdue, IncidentState, IncidentUpdated
from schemas.ledger import LedgerChanged
from schemas.needs import NeedAmended, NeedState
from schemas.reports import ReportLinked, ReportOverdue, ReportReceived
from services.intake.domain import Told, coarse_point
from services.intake.evidence import DEGREES, Vouched, evidence_of, facts
from services.intake.handlers import consumer
from services.intake.linker import Indexes, link_waiting
from services.intake.sensitivity import PUBLIC_RESOLUTION, sensitivity_of, strongest
from services.intake.summary import settled, summary
from services.intake.triage_timer import tick
from services.runtime import clock, vault
from services.runtime.db import Database
from tests.conftest import Wire, bearer, emitted

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
WIB = ZoneInfo("Asia/Jakarta")
OPERATOR = bearer("operator", hours=1000)
PLACE = {"lon": 106.8661, "lat": -6.2223, "admin": "kemendagri:31.75.03"}
FLOOD = {"text": "Banjir sepinggang, butuh perahu untuk 2 lansia", "location": PLACE, "hazard": "flood"}


async def send(client: httpx.AsyncClient, db: Database, *reports: dict[str, Any], **headers: str) -> list[str]:
    """Send reports and link them; answers with the incident of each."""
    ids = []
    for report in reports:
        answer = await client.post("/v1/reports", json=report, headers=headers)
        assert answer.status_code == 202, answer.text
        ids.append(answer.json()["ticket"])
    indexes = Indexes()
    while await link_waiting(db, indexes):
        pass
    return [(await read(client, f"/v1/tickets/{ticket}")).get("incident", {}).get("id") for ticket in ids]


async def read(client: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def act(client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int = 200, headers=OPERATOR) -> Any:
    answer = await client.post(path, json=body, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def by_phone(number: int, **report: Any) -> dict[str, Any]:
    return {**FLOOD, "reporter": {"phone": f"+62812555{number:04}"}, **report}


# Facts, as rules


def told(**values: Any) -> Told:
    values.setdefault("report_id", uuid4())
    values.setdefault("origin", "/public")
    values.setdefault("received_at", NOW)
    values.setdefault("observed_at", NOW)
    return Told(**values)


def believed(reports: list[Told], **vouched: Vouched):
    named = {name.replace("__", "."): check for name, check in vouched.items()}
    said = settled(summary(reports, WIB), reports, named, WIB)
    return facts(said, reports, named)


def test_a_fact_is_corroborated_by_independent_voices_that_agree_on_it() -> None:
    """Two voices make the incident corroborated, but not a figure on which they do not agree."""
    reports = [
        told(voice="a", text="dua orang meninggal", people={"dead": 2, "injured": 10}),
        told(voice="b", text="ada korban di sini", people={"dead": 7, "injured": 11}),
    ]
    found = believed(reports)
    assert evidence_of(reports) == "corroborated"
    assert (found["people.injured"].value, found["people.injured"].evidence) == (11, "corroborated")
    assert (found["people.dead"].value, found["people.dead"].evidence) == (7, "reported")
    assert [claim.value for claim in found["people.dead"].claims] == [2, 7]  # what contradicts it stays beside it


@pytest.mark.parametrize(
    "second",
    [
        {"voice": "b", "copy": True, "text": "sama saja"},
        {"voice": "b", "text": "Banjir besar di pasar lama!"},  # the same words from another number
        {"voice": "b", "text": "Fwd: air naik terus di dekat pasar"},
        {"voice": "b", "text": "diteruskan: air naik"},
        {"voice": "a", "text": "air makin tinggi"},
        {"voice": None, "text": "di sini juga banjir"},
    ],
)
def test_copies_forwards_and_whoever_nobody_can_tell_add_no_evidence(second: dict[str, Any]) -> None:
    reports = [told(voice="a", text="banjir besar di pasar lama", hazard="flood"), told(hazard="flood", **second)]
    assert evidence_of(reports) == "reported"
    assert believed(reports)["hazard"].evidence == "reported"


def test_an_official_count_stands_and_a_later_voice_against_it_shows() -> None:
    official = told(official=True, voice="org:bpbd", origin="/partners/bpbd", people={"dead": 3}, admin="bps:3175")
    assert not believed([official, told(voice="a", people={"dead": 9}, observed_at=NOW - timedelta(hours=1))])[
        "people.dead"
    ].disputed
    fact = believed([official, told(voice="a", people={"dead": 9}, observed_at=NOW + timedelta(hours=1))])[
        "people.dead"
    ]
    assert (fact.value, fact.evidence, fact.disputed) == (3, "official", True)


def test_a_count_that_grows_is_not_disputed_and_one_that_shrinks_is() -> None:
    early, late = {"observed_at": NOW - timedelta(hours=2)}, {"observed_at": NOW}
    grown = believed([told(voice="a", people={"dead": 1}, **early), told(voice="b", people={"dead": 4}, **late)])
    assert not grown["people.dead"].disputed
    shrunk = believed([told(voice="a", people={"dead": 4}, **early), told(voice="b", people={"dead": 1}, **late)])
    assert shrunk["people.dead"].disputed and shrunk["people.dead"].value == 4


def test_what_was_checked_counts_until_something_later_is_told() -> None:
    rumour = told(voice="a", people={"dead": 50}, observed_at=NOW - timedelta(hours=1))
    check = Vouched(2, "field_checked", "field:tim", "we counted", NOW)
    fact = believed([rumour], people__dead=check)["people.dead"]
    assert (fact.value, fact.evidence) == (2, "field_checked")
    assert [claim.value for claim in fact.claims] == [50]
    later = told(voice="b", people={"dead": 5}, observed_at=NOW + timedelta(hours=1))
    fact = believed([rumour, later], people__dead=check)["people.dead"]
    assert (fact.value, fact.evidence, fact.disputed) == (5, "reported", True)


def test_the_depth_is_the_deepest_of_the_last_hours() -> None:
    def depth(cm: float, hours: float) -> Told:
        return told(reading={"depth_cm": cm}, observed_at=NOW + timedelta(hours=hours))

    assert summary([depth(150, 0), depth(40, 5), depth(60, 4)], WIB).water_depth_cm == 60
    assert summary([told()], WIB).water_depth_cm is None


voices = st.sampled_from([None, "a", "b", "c"])
counts = st.none() | st.integers(0, 50)
reports_strategy = st.lists(
    st.builds(
        told,
        voice=voices,
        official=st.booleans(),
        copy=st.booleans(),
        text=st.sampled_from([None, "banjir besar di pasar lama", "air naik"]),
        people=st.fixed_dictionaries({}, optional={"dead": st.integers(0, 50)}),
        hazard=st.sampled_from([None, "flood", "fire"]),
        observed_at=st.integers(0, 10).map(lambda hours: NOW + timedelta(hours=hours)),
    ),
    min_size=1,
    max_size=6,
)


@given(reports_strategy)
def test_a_copy_of_everything_changes_no_degree_of_evidence(reports: list[Told]) -> None:
    again = [replace(report, report_id=uuid4(), copy=True, official=False) for report in reports]
    assert evidence_of(reports) == evidence_of([*reports, *again])
    before, after = believed(reports), believed([*reports, *again])
    assert {name: fact.evidence for name, fact in before.items()} == {name: f.evidence for name, f in after.items()}
    assert all(fact.evidence in DEGREES for fact in after.values())


# Over HTTP


async def test_evidence_by_fact_is_shown_with_who_said_what_when_and_told(client, db):
    first, second = await send(
        client, db,
        by_phone(1, people={"injured": 8, "dead": 1}),
        by_phone(2, people={"injured": 9, "dead": 6}, text="Rumah terendam, perahu belum datang, air sepinggang"),
    )  # fmt: skip
    assert first == second
    properties = (await read(client, f"/v1/incidents/{first}", OPERATOR))["properties"]
    assert properties["evidence"] == "corroborated"
    assert properties["evidence_by_fact"]["people.injured"] == "corroborated"
    assert properties["evidence_by_fact"]["people.dead"] == "reported"
    dead = properties["facts"]["people.dead"]
    assert dead["value"] == 6 and [claim["value"] for claim in dead["claims"]] == [1, 6]
    assert all(claim["source"] == "/public" and claim["observed_at"] for claim in dead["claims"])
    assert properties["water_depth_cm"] == properties["facts"]["water_depth_cm"]["value"]
    newest = (await emitted(db, IncidentState))[-1]
    assert newest.facts["people.injured"] == "corroborated" and newest.water_depth_cm == properties["water_depth_cm"]

    path = f"/v1/incidents/{first}/verify"
    body = {"evidence": "field_checked", "fact": "people.dead", "value": 2, "reason": "counted on the ground"}
    answer = await act(client, path, body, headers=bearer("field"))
    assert answer["properties"]["people"]["dead"] == 2
    fact = answer["properties"]["facts"]["people.dead"]
    assert (fact["evidence"], fact["vouched"]["value"], fact["vouched"]["by"]) == ("field_checked", 2, "field:tester")
    assert [claim["value"] for claim in fact["claims"]] == [1, 6]
    assert answer["properties"]["evidence"] == "corroborated"  # one fact, not the whole incident
    for wrong in (
        {"value": 2},
        {"fact": "hazard", "value": 3},
        {"fact": "place", "value": 1},
        {"fact": "people.dead", "value": "two"},
    ):
        await act(client, path, {"evidence": "field_checked", "reason": "x", **wrong}, 422)


async def test_confirmed_in_somebodys_file_counts_for_nothing(client, db):
    partner = bearer("partner", org="kota")
    report = {
        **FLOOD,
        "status": "Confirmed",
        "verified": True,
        "evidence": "official",
        "properties": {"status": "Confirmed"},
    }
    [incident] = await send(client, db, report, **partner)
    assert (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]["evidence"] == "reported"


# Protected classes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Seorang ibu diperkosa di pengungsian", "sexual_violence"),
        ("ada pelecehan seksual di tenda", "sexual_violence"),
        ("3 anak terpisah dari orang tuanya", "child_protection"),
        ("unaccompanied children at the camp", "child_protection"),
        ("korban KDRT butuh tempat aman", "violence"),
        ("bentrok antar warga saat pembagian beras", "conflict"),
        ("gudang dijarah massa", "conflict"),
        ("pasien odgj tidak mau dievakuasi", "health_stigma"),
        ("banjir sepinggang, anak-anak butuh susu", None),
        ("hearing aids needed", None),
        ("", None),
    ],
)
def test_what_a_text_speaks_of_is_protected_by_rule(text: str, expected: str | None) -> None:
    assert sensitivity_of(text) == expected


def test_the_strongest_class_counts_and_an_unknown_one_protects_too() -> None:
    assert strongest(["conflict", None, "sexual_violence"]) == "sexual_violence"
    assert strongest(["something_new"]) == "something_new"
    assert strongest([None]) is None


async def test_what_is_protected_is_coarse_for_the_public_and_partners_and_bears_its_class_everywhere(client, db):
    text = "Seorang anak dilecehkan di posko, butuh 2 selimut"
    report = {**FLOOD, "text": text, "people": {"injured": 1}}
    [incident] = await send(client, db, report, **bearer("field"))
    for model in (ReportReceived, ReportLinked, IncidentState, NeedState):
        found = await emitted(db, model)
        assert found and all(event.sensitivity == "sexual_violence" for event in found), model
    exact = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]
    assert (exact["sensitivity"], exact["sensitivity_by"]) == ("sexual_violence", "rule")
    wide = h3.latlng_to_cell(PLACE["lat"], PLACE["lon"], PUBLIC_RESOLUTION)
    for headers in ({}, bearer("partner", org="pmi"), bearer("responder")):
        listed = (await read(client, "/v1/incidents", headers))["features"]
        alone = await read(client, f"/v1/incidents/{incident}", headers)
        for shown in (*listed, alone):
            lon, lat = shown["geometry"]["coordinates"]
            assert h3.latlng_to_cell(lat, lon, PUBLIC_RESOLUTION) == wide
            assert (lon, lat) == coarse_point(PLACE["lon"], PLACE["lat"], "any")
            said = shown["properties"]
            assert said["admin"] == "kemendagri:31.75" and said["hazard"] is None and said["people"]["injured"] is None
            assert not {"sensitivity", "facts", "linked_reports", "place"} & set(said)
            assert text not in str(shown) and "sexual" not in str(shown)
    [ticket] = [report["ticket"] for report in await stored_reports(db)]
    told = await read(client, f"/v1/tickets/{ticket}")
    assert told["incident"]["title"] == title_of(alone) and text not in str(told)
    # Nor is it found by asking with small boxes, or by its hazard.
    near = f"{PLACE['lon'] - 0.001},{PLACE['lat'] - 0.001},{PLACE['lon'] + 0.001},{PLACE['lat'] + 0.001}"
    assert (await read(client, f"/v1/incidents?bbox={near}"))["features"] == []
    assert (await read(client, "/v1/incidents?hazard=flood"))["features"] == []
    assert len((await read(client, f"/v1/incidents?bbox={near}", OPERATOR))["features"]) == 1


async def test_an_operator_protects_an_incident_with_its_needs_and_no_rule_takes_that_back(client, db):
    [incident] = await send(client, db, FLOOD, **bearer("field"))
    path = f"/v1/incidents/{incident}/protect"
    await act(client, path, {"sensitivity": "conflict"}, 422)  # not without a reason
    await act(client, path, {"sensitivity": "conflict", "reason": "x"}, 403, headers=bearer("field"))
    answer = await act(client, path, {"sensitivity": "conflict", "reason": "armed men nearby"})
    assert answer["properties"]["sensitivity"] == "conflict"
    assert (await emitted(db, IncidentUpdated))[-1].sensitivity == "conflict"
    assert (await emitted(db, NeedAmended))[-1].sensitivity == "conflict"
    assert (await emitted(db, IncidentUpdated))[-1].reason == "armed men nearby"
    await send(client, db, by_phone(7, text="Banjir makin tinggi di rumah warga, butuh perahu"))
    again = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]
    assert again["reports"] == 2 and again["sensitivity"] == "conflict"
    answer = await act(client, path, {"sensitivity": None, "reason": "they have gone"})
    assert answer["properties"]["sensitivity"] is None
    need = answer["properties"]["needs"][0]["id"]
    handled = Wire(consumer, db)
    await handled.deliver(LedgerChanged(
        need_id=UUID(need), operation="standing", item="boat", unit="unit", severity=3, needed=1, open=0, offered=0,
        committed=0, in_transit=0, delivered=1, confirmed=0, cancelled=0, asked=0, cause="delivered", incident_id=UUID(incident),
    ))  # fmt: skip
    await act(client, path, {"sensitivity": "conflict", "reason": "they came back"})
    await act(client, f"/v1/needs/{need}/confirm", {"received": "no", "reason": "nobody came"})
    assert (await emitted(db, DeliveryDisputed))[-1].sensitivity == "conflict"


async def stored_reports(db: Database) -> list[Any]:
    async with db.tx() as tx:
        return await tx.fetch("SELECT * FROM report ORDER BY seq")


def title_of(feature: dict[str, Any]) -> str:
    title: str = feature["properties"]["title"]
    return title


# Triage and what waits


async def test_incidents_come_by_priority_with_its_reasons(client, db):
    light, grave, middle = await send(
        client, db,
        {"text": "Lampu jalan mati, gelap", "location": {"lon": 110.4, "lat": -7.0}},
        {"text": "Kami terjebak di atap, air seleher, ada bayi", "location": {"lon": 107.6, "lat": -6.9}},
        {"text": "Butuh makanan untuk 40 orang", "location": {"lon": 112.7, "lat": -7.2}},
    )  # fmt: skip
    assert len({light, grave, middle}) == 3
    listed = await read(client, "/v1/incidents?sort=priority&limit=2", OPERATOR)
    rest = await client.get(listed["links"][0]["href"], headers=OPERATOR)
    features = listed["features"] + rest.json()["features"]
    assert [feature["id"] for feature in features] == [grave, middle, light]
    worst = features[0]["properties"]
    assert worst["severity"] == 4 and {"severity", "vulnerable"} <= {r["cause"] for r in worst["priority_reasons"]}
    assert sum(reason["points"] for reason in worst["priority_reasons"]) == worst["priority"]
    bad = await client.get("/v1/incidents?sort=priority&cursor=WyJ4IiwxXQ", headers=OPERATOR)
    assert bad.status_code == 422


async def test_an_incident_that_nobody_looks_at_is_told_as_overdue_once_at_its_target(client, db):
    grave, other = await send(
        client,
        db,
        {**FLOOD, "severity": 4},
        {"text": "Longsor", "severity": 4, "location": {"lon": 107.6, "lat": -6.9}},
    )
    assert await tick(db) == 0
    await act(client, f"/v1/incidents/{other}/verify", {"evidence": "field_checked", "reason": "seen"})
    clock.shift(timedelta(minutes=15) - timedelta(seconds=30))
    assert await tick(db) == 0
    clock.shift(timedelta(seconds=31))
    assert await tick(db) == 1 and await tick(db) == 0
    [event] = await emitted(db, IncidentOverdue)
    assert (str(event.incident_id), event.target_s, event.attend_by is not None) == (grave, 900, True)
    late = await read(client, "/v1/incidents?overdue=true", OPERATOR)
    assert [feature["id"] for feature in late["features"]] == [grave]
    said = (await client.get("/metrics", headers=OPERATOR)).text
    assert 'gotong_intake_overdue_incidents{severity="4"} 1.0' in said
    assert 'gotong_intake_waiting{waits_for="attention"} 1.0' in said
    await act(client, f"/v1/incidents/{grave}/verify", {"evidence": "field_checked", "reason": "seen"})
    assert (await read(client, "/v1/incidents?overdue=true", OPERATOR))["features"] == []


async def test_whoever_is_sent_has_looked_at_the_incident(client, db):
    [incident] = await send(client, db, FLOOD, **bearer("field"))
    need = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]["needs"][0]["id"]
    made = AssignmentMade(
        assignment_id=uuid4(), offer_id=uuid4(), need_id=UUID(need), operation="standing", item="boat", unit="unit",
        quantity=1, state="made", period={"start": clock.now(), "end": clock.now() + timedelta(hours=2)},
        by="operator:tester",
    )  # fmt: skip
    await Wire(consumer, db).deliver(made)
    clock.shift(timedelta(days=2))
    assert await tick(db) == 0
    assert (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]["attended_at"] is not None


async def test_waiting_makes_an_incident_more_urgent_without_telling_anybody(client, db):
    [incident] = await send(client, db, {**FLOOD, "severity": 1})
    before = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]
    events = len(await emitted(db))
    clock.shift(timedelta(hours=3, minutes=1))
    await tick(db)
    after = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]
    assert after["priority"] == before["priority"] + 3 and after["updated_at"] == before["updated_at"]
    assert len(await emitted(db)) == events


async def test_a_report_that_nobody_places_is_told_as_overdue_once(client, db):
    await send(client, db, {"text": "tolong, air naik"})
    clock.shift(timedelta(minutes=29))
    assert await tick(db) == 0
    clock.shift(timedelta(minutes=2))
    assert await tick(db) == 1 and await tick(db) == 0
    [event] = await emitted(db, ReportOverdue)
    assert (event.waits_for, event.target_s) == ("place", 1800)
    queue = (await read(client, "/v1/reports?unplaced", OPERATOR))["reports"]
    assert [report["overdue"] for report in queue] == [True]
    said = (await client.get("/metrics", headers=OPERATOR)).text
    age = next(
        line for line in said.splitlines() if line.startswith('gotong_intake_waiting_age_seconds{waits_for="place"}')
    )
    assert 31 * 60 <= float(age.rpartition(" ")[2]) < 32 * 60


# Drills, and where needs come from


async def test_a_text_that_calls_itself_a_drill_is_shown_as_such_and_asks_for_nothing(client, db):
    drill = {**FLOOD, "text": "LATIHAN: banjir sepinggang, kirim perahu. Uji coba posko"}
    [incident] = await send(client, db, drill, **bearer("field"))
    properties = (await read(client, f"/v1/incidents/{incident}", OPERATOR))["properties"]
    assert properties["exercise_suggested"] is True and properties["needs"] == [] and properties["exercise"] is False
    assert properties["linked_reports"][0]["exercise_suggested"] is True
    assert (await emitted(db, IncidentState))[-1].exercise_suggested is True
    await send(client, db, {"text": "uji coba sistem, abaikan"})
    [unplaced] = (await read(client, "/v1/reports?unplaced", OPERATOR))["reports"]
    assert unplaced["exercise_suggested"] is True


async def test_a_need_points_to_the_words_that_it_came_from(client, db):
    report = {**FLOOD, "title": "Kampung Melayu", "text": "Air sepinggang, kirim 2 perahu untuk 3 lansia dan 1 bayi"}
    [incident] = await send(client, db, report)
    needs = (await read(client, f"/v1/needs?incident={incident}", OPERATOR))["needs"]
    boat = next(need for need in needs if need["item"] == "boat")
    assert boat["status"] == "draft" and set(boat["vulnerable"]) >= {"elderly", "infants"}
    whole = await read(client, f"/v1/needs/{boat['id']}", OPERATOR)
    [source] = whole["sources"]
    assert "perahu" in [word["text"] for word in source["words"]] and source["assumed"] is False
    [event] = [event for event in await emitted(db, NeedState) if event.item == "boat"]
    [words] = event.words
    text = f"{report['title']}\n{report['text']}"
    assert "perahu" in [text[start:end] for start, end in words.spans]
    assert set(event.vulnerable) >= {"elderly", "infants"}
    drafts = (await read(client, "/v1/needs?status=draft", OPERATOR))["needs"]
    assert boat["id"] in [need["id"] for need in drafts]


async def test_a_need_that_a_report_states_has_no_words_but_its_report(client, db):
    [incident] = await send(client, db, {**FLOOD, "needs": [{"item": "boat", "quantity": 2}]}, **bearer("field"))
    [need] = (await read(client, f"/v1/needs?incident={incident}", OPERATOR))["needs"]
    [source] = (await read(client, f"/v1/needs/{need['id']}", OPERATOR))["sources"]
    assert source["words"] == [] and source["quantity"] == 2
    assert vault.contact_id("+628125550001") not in str(source)
