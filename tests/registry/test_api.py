"""The registry over HTTP: who may do what, what is refused and why, what leaves as an event."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from gotong import demo
from schemas.operations import OperationClosed, OperationOpened, OperationState, OperationUpdated
from schemas.resources import ResourceAdjusted, ResourceRegistered, ResourceState, ResourceWithdrawn
from schemas.responders import (
    ResponderConfirmed,
    ResponderRegistered,
    ResponderState,
    ResponderUpdated,
    ResponderWithdrawn,
)
from services.registry.app import service
from services.registry.operation_writes import keep_standing_open
from services.runtime import vault
from services.runtime.db import Database
from tests.conftest import bearer, emitted
from tests.registry.people import patient

DESK = bearer("operator", "posko")
FIELD = bearer("field", "lapangan")
PMI = bearer("partner", "pmi-desk", org="pmi")
OTHER = bearer("partner", "other-desk", org="other")

RATNA: dict[str, Any] = {
    "name": "Ratna Puspitasari",
    "phone": "0812-3456-7890",
    "location": {"lon": 107.618123, "lat": -6.944321},
    "skills": ["tenaga medis", {"skill": "nurse", "level": 3}, "juru_mudi_perahu"],
    "certificates": [{"code": "str_health", "valid_until": "2030-12-31T23:59:59+07:00"}],
    "languages": ["id", "su"],
    "travel_limit_km": 20,
}
STOCK: dict[str, Any] = {
    "item": "perahu karet",
    "quantity": 4,
    "location": {"lon": 107.525, "lat": -7.03, "place": "Gudang Soreang, hubungi 0812 3456 7890"},
    "organisation": "bpbd",
    "delivery_limit_km": 40,
}


@pytest.fixture
def client(make_client):
    return patient(make_client([service]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


async def sent(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
    """As a client does it: what is answered 503 (nothing was stored) is sent again, for two minutes."""
    deadline = time.monotonic() + 120
    while True:
        answer = await client.request(method, path, **request)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer


async def payloads(db: Database) -> bytes:
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT payload, key, subject, type FROM outbox")
    return b"\n".join(row["payload"] + row["key"].encode() + row["subject"].encode() for row in rows)


def pointers(answer: Any) -> list[str]:
    assert answer.headers["content-type"] == "application/problem+json"
    return [error["pointer"] for error in answer.json()["errors"]]


# Operations and organisations


async def test_an_operation_is_opened_changed_and_closed_with_its_events_in_order(client, db):
    order = {
        "id": "banjir-2026",
        "title": "Banjir Jakarta",
        "glide": "FL-2026-000123-IDN",
        "hazards": ["banjir", "landslide"],
        "areas": ["kemendagri:31"],
        "bbox": [106.6, -6.4, 107.0, -6.0],
        "timezone": "Asia/Jakarta",
        "lead": "bpbd-dki",
        "status": {"declared": "tanggap_darurat", "level": "provinsi", "until": "2026-12-31T23:59:59+07:00"},
        "phase": "response",
    }
    made = await client.post("/v1/operations", json=order, headers=DESK)
    assert made.status_code == 201, made.text
    assert made.json()["hazards"] == ["flood", "landslide"]
    changed = await client.patch("/v1/operations/banjir-2026", json={"phase": "recovery", "glide": None}, headers=DESK)
    assert (changed.status_code, changed.json()["phase"], changed.json()["glide"]) == (200, "recovery", None)
    same = await client.patch("/v1/operations/banjir-2026", json={"phase": "recovery"}, headers=DESK)
    assert same.status_code == 200
    closed = await client.patch("/v1/operations/banjir-2026", json={"closed": True, "reason": "selesai"}, headers=DESK)
    assert closed.json()["open"] is False
    assert (await client.patch("/v1/operations/banjir-2026", json={"title": "x"}, headers=DESK)).status_code == 409

    events = await emitted(db, OperationState)
    assert [type(event) for event in events] == [OperationOpened, OperationUpdated, OperationClosed]
    assert [event.meta.sequence for event in events] == [1, 2, 3]
    assert events[0].operation == "banjir-2026"
    assert events[0].status is not None
    assert events[0].status.declared == "tanggap_darurat"
    assert events[2].closed_at is not None
    assert events[2].by == "operator:posko"
    assert (await client.get("/v1/operations/banjir-2026")).json()["open"] is False
    assert (await client.get("/v1/operations?open=true")).json()["operations"] == []


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"id": "Banjir 2026"}, "/id"),
        ({"glide": "FL-26-1-IDN"}, "/glide"),
        ({"timezone": "Asia/Bandung"}, "/timezone"),
        ({"areas": ["3204"]}, "/areas/0"),
        ({"hazards": ["Naga Api"]}, "/hazards/0"),
        ({"bbox": [107, -6, 106, -7]}, "/bbox"),
        ({"status": {"declared": "gawat"}}, "/status/declared"),
        ({"title": "  "}, "/title"),
    ],
)
async def test_a_wrong_operation_is_refused_by_the_field_that_is_wrong(client, db, change, pointer):
    answer = await client.post("/v1/operations", json={"id": "x", "title": "X"} | change, headers=DESK)
    assert answer.status_code == 422
    assert pointers(answer) == [pointer]
    assert await emitted(db) == []


async def test_an_exercise_stays_one_and_standing_stays_open(client, db):
    stopping = asyncio.Event()
    stopping.set()
    await keep_standing_open(db, stopping)
    await keep_standing_open(db, stopping)
    assert [event.operation for event in await emitted(db, OperationOpened)] == ["standing"]
    refused = await client.patch("/v1/operations/standing", json={"closed": True}, headers=DESK)
    assert (refused.status_code, pointers(refused)) == (409, ["/closed"])

    await client.post("/v1/operations", json={"id": "drill", "title": "LATIHAN", "exercise": True}, headers=DESK)
    refused = await client.patch("/v1/operations/drill", json={"exercise": False}, headers=DESK)
    assert (refused.status_code, pointers(refused)) == (409, ["/exercise"])
    assert (await client.patch("/v1/operations/drill", json={"exercise": True}, headers=DESK)).status_code == 200
    taken = await client.post("/v1/operations", json={"id": "drill", "title": "again"}, headers=DESK)
    assert (taken.status_code, pointers(taken)) == (409, ["/id"])
    assert [event.operation for event in await emitted(db, OperationState)] == ["standing", "drill"]
    assert (await emitted(db, OperationOpened))[1].meta.exercise is True


async def test_a_misspelt_change_is_refused_instead_of_doing_nothing(client):
    await client.post("/v1/operations", json={"id": "x", "title": "X"}, headers=DESK)
    answer = await client.patch("/v1/operations/x", json={"phaze": "recovery"}, headers=DESK)
    assert (answer.status_code, pointers(answer)) == (422, ["/phaze"])
    assert (await client.patch("/v1/operations/x", json={}, headers=DESK)).status_code == 422


async def test_organisations_are_entered_listed_page_by_page_and_changed(client):
    for name in ("a", "b", "c"):
        order = {"id": name, "name": name.upper(), "kind": "ngo", "sectors": ["HEA"], "areas": ["bps:3204"]}
        assert (await client.post("/v1/organisations", json=order, headers=DESK)).status_code == 201
    seen, url = [], "/v1/organisations?limit=2"
    while url:
        page = (await client.get(url)).json()
        seen += [entry["id"] for entry in page["organisations"]]
        url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    assert seen == ["a", "b", "c"]
    changed = await client.patch("/v1/organisations/b", json={"sectors": ["WSH", "SHL"]}, headers=DESK)
    assert changed.json()["sectors"] == ["WSH", "SHL"]
    assert changed.json()["name"] == "B"
    assert (await client.get("/v1/organisations/nobody")).status_code == 404
    assert (await client.get("/v1/organisations?cursor=bm9uc2Vuc2U")).status_code == 422


# Responders


async def test_anybody_registers_unconfirmed_and_a_desk_confirms(client, db):
    made = await client.post("/v1/responders", json=RATNA)
    assert made.status_code == 202
    assert made.json()["status"] == "unconfirmed"
    responder = made.json()["responder_id"]
    confirmed = await client.patch(f"/v1/responders/{responder}", json={"status": "confirmed"}, headers=FIELD)
    assert (confirmed.status_code, confirmed.json()["status"]) == (200, "confirmed")

    first, second = await emitted(db, ResponderState)
    assert isinstance(first, ResponderRegistered)
    assert isinstance(second, ResponderConfirmed)
    assert first.by == "public"
    assert second.by == "field:lapangan"
    assert [(skill.skill, skill.level) for skill in second.skills] == [
        ("medic", 1),
        ("nurse", 3),
        ("juru_mudi_perahu", 1),
    ]
    # What nobody has checked and would endanger people counts only once it is checked.
    assert [skill.skill for skill in first.skills] == []
    assert [skill.skill for skill in first.claimed_skills] == ["medic", "nurse", "juru_mudi_perahu"]
    assert {(skill.basis, skill.by) for skill in second.skills} == {("checked", "field:lapangan")}
    assert (first.certificates, second.certificates[0].verified_by) == ((), "field:lapangan")
    # The hash of the number stays home, so that erasing it leaves none anywhere.
    assert second.contact_id is None
    assert second.home_cell is not None
    assert second.travel_limit_km == 20
    assert second.certificates[0].code == "str_health"


async def test_a_desk_and_a_partner_register_confirmed_people_at_once(client, db):
    desk = await client.post("/v1/responders", json=RATNA, headers=DESK)
    assert (desk.status_code, desk.json()["status"]) == (201, "confirmed")
    own = await client.post("/v1/responders", json={"kind": "team", "name": "Regu", "capacity": 6}, headers=PMI)
    assert (own.status_code, own.json()["status"]) == (201, "confirmed")
    events = await emitted(db, ResponderState)
    assert [type(event) for event in events] == [ResponderConfirmed, ResponderConfirmed]
    assert events[1].organisation == "pmi"
    assert events[1].capacity == 6
    stranger = await client.post("/v1/responders", json=RATNA | {"organisation": "other"}, headers=PMI)
    assert (stranger.status_code, pointers(stranger)) == (403, ["/organisation"])


async def test_no_name_number_or_exact_home_leaves_in_an_event_or_lies_open_in_a_table(client, db):
    made = await client.post("/v1/responders", json=RATNA, headers=DESK)
    responder = made.json()["responder_id"]
    change = {"name": "Ratna Dewi", "location": {"lon": 107.7001, "lat": -6.9001}, "reason": "pindah, 081234567890"}
    await client.patch(f"/v1/responders/{responder}", json=change, headers=DESK)
    await client.post("/v1/resources", json=STOCK, headers=DESK)
    told = await payloads(db)
    for secret in (b"Ratna", b"Dewi", b"81234567890", b"3456", b"107.618", b"6.944", b"107.7001"):
        assert secret not in told
    async with db.tx() as tx:
        tables = await tx.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'registry'")
        for table in tables:
            rows = await tx.fetch(f'SELECT to_jsonb(t)::text AS row FROM "{table["tablename"]}" t')
            text = "\n".join(row["row"] for row in rows)
            for secret in ("Ratna", "Dewi", "81234567890", "107.618123"):
                assert secret not in text, table["tablename"]
                assert secret.encode().hex() not in text, table["tablename"]
    shown = (await client.get(f"/v1/responders/{responder}?reason=serah+terima", headers=DESK)).json()
    assert shown["name"] == "Ratna Dewi"
    assert shown["phone"] == "+6281234567890"
    assert shown["location"] == {"lon": 107.7001, "lat": -6.9001}


async def test_the_same_number_is_the_same_responder_however_it_is_written(client, db):
    first = await client.post("/v1/responders", json=RATNA)
    again = await client.post("/v1/responders", json=RATNA | {"phone": "+62 812 3456 7890", "travel_limit_km": 5})
    desk = await client.post("/v1/responders", json={"phone": "6281234567890", "skills": ["nurse"]}, headers=DESK)
    assert {answer.json()["responder_id"] for answer in (first, again, desk)} == {first.json()["responder_id"]}
    assert (desk.status_code, desk.json()["status"]) == (200, "confirmed")
    events = await emitted(db, ResponderState)
    assert [type(event) for event in events] == [ResponderRegistered, ResponderUpdated, ResponderConfirmed]
    assert [skill.skill for skill in events[2].skills] == ["nurse"]
    assert events[2].travel_limit_km == 5
    assert events[2].languages == ("id", "su")
    url = f"/v1/responders/{first.json()['responder_id']}?reason=periksa"
    shown = (await client.get(url, headers=DESK)).json()
    assert shown["name"] == "Ratna Puspitasari"
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM responder") == 1


async def test_nobody_changes_or_finds_out_a_confirmed_responder_by_typing_its_number(client, db):
    made = await client.post("/v1/responders", json=RATNA, headers=DESK)
    forged = await client.post("/v1/responders", json=RATNA | {"name": "Penipu", "skills": ["doctor"]})
    stranger = await client.post("/v1/responders", json=RATNA | {"phone": "081299998888"})
    assert forged.json().keys() == stranger.json().keys()
    # Random ids: one that is ordered by time would be older than the request.
    assert UUID(forged.json()["responder_id"]).version == 4
    assert (forged.status_code, forged.json()["status"]) == (202, "unconfirmed")
    assert len(await emitted(db, ResponderState)) == 2
    shown = (await client.get(f"/v1/responders/{made.json()['responder_id']}?reason=periksa", headers=DESK)).json()
    assert shown["name"] == "Ratna Puspitasari"
    assert shown["status"] == "confirmed"


async def test_twenty_registrations_of_one_number_at_once_make_one_responder(client, db):
    answers = await asyncio.gather(
        *(
            sent(client, "POST", "/v1/responders", json=RATNA | {"travel_limit_km": 1 + n}, headers=DESK)
            for n in range(20)
        )
    )
    assert {answer.status_code for answer in answers} <= {200, 201}
    assert len({answer.json()["responder_id"] for answer in answers}) == 1
    events = await emitted(db, ResponderState)
    assert [event.meta.sequence for event in events] == list(range(1, len(events) + 1))
    row = (await client.get(f"/v1/responders/{answers[0].json()['responder_id']}", headers=DESK)).json()
    assert row["travel_limit_km"] == events[-1].travel_limit_km


async def test_profiles_are_for_their_owner_their_organisation_and_a_desk(client):
    made = (await client.post("/v1/responders", json=RATNA, headers=PMI)).json()["responder_id"]
    url = f"/v1/responders/{made}"
    own = bearer("responder", made)
    assert (await client.get(url, headers=own)).json()["phone"] == "+6281234567890"
    assert "name" not in (await client.get(url, headers=PMI)).json()
    assert (await client.get(f"{url}?reason=penugasan", headers=PMI)).json()["name"] == "Ratna Puspitasari"
    assert (await client.get(url)).status_code == 401
    assert (await client.get(url, headers=OTHER)).status_code == 403
    assert (await client.get(url, headers=bearer("responder", "somebody-else"))).status_code == 403
    read = (await client.get(f"{url}?reason=audit", headers=bearer("auditor"))).json()
    assert "name" not in read
    assert "phone" not in read
    assert "contact_id" not in read
    assert "location" not in read
    assert (await client.patch(url, json={"travel_limit_km": 3}, headers=OTHER)).status_code == 403
    assert (await client.patch(url, json={"travel_limit_km": 3}, headers=bearer("auditor"))).status_code == 403
    assert (await client.delete(url, headers=OTHER)).status_code == 403
    assert (await client.patch(url, json={"travel_limit_km": 3}, headers=own)).json()["travel_limit_km"] == 3
    confirm = await client.patch(url, json={"status": "confirmed"}, headers=own)
    assert (confirm.status_code, pointers(confirm)) == (403, ["/status"])
    assert (await client.get("/v1/responders")).status_code == 401
    assert (await client.get("/v1/responders", headers=own)).status_code == 403
    assert (await client.get("/v1/responders", headers=OTHER)).json()["responders"] == []
    listed = (await client.get("/v1/responders?skill=nurse", headers=PMI)).json()["responders"]
    assert [entry["responder_id"] for entry in listed] == [made]
    assert not {"name", "phone", "location", "contact_id"} & listed[0].keys()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"phone": "12"}, "/phone"),
        ({"phone": None}, "/phone"),
        ({"skills": ["Tukang Sulap!"]}, "/skills/0/skill"),
        ({"skills": [{"skill": "nurse", "level": 9}]}, "/skills/0/level"),
        ({"location": {"lon": 190, "lat": 0}}, "/location/lon"),
        ({"capacity": 4}, "/capacity"),
        ({"kind": "team", "capacity": 2, "minimum_team": 3}, "/minimum_team"),
        ({"languages": ["bahasa indonesia"]}, "/languages/0"),
        ({"availability": [{"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}]}, "/availability/0"),
        ({"certificates": [{"code": "sar", "valid_until": "2030-01-01T00:00:00"}]}, "/certificates/0/valid_until"),
    ],
)
async def test_a_wrong_registration_is_refused_by_the_field_that_is_wrong(client, db, body, pointer):
    answer = await client.post("/v1/responders", json=RATNA | body)
    assert answer.status_code == 422
    assert pointers(answer) == [pointer]
    assert await emitted(db) == []


async def test_a_change_that_does_not_fit_what_stays_is_refused(client):
    made = (await client.post("/v1/responders", json={"kind": "team", "capacity": 4}, headers=DESK)).json()
    answer = await client.patch(f"/v1/responders/{made['responder_id']}", json={"minimum_team": 5}, headers=DESK)
    assert (answer.status_code, pointers(answer)) == (422, ["/minimum_team"])


async def test_erasing_a_person_destroys_the_key_and_leaves_an_id(client, db):
    made = (await client.post("/v1/responders", json=RATNA | {"external_id": "7"}, headers=DESK)).json()["responder_id"]
    url = f"/v1/responders/{made}"
    async with db.tx() as tx:
        sealed = await tx.fetchrow("SELECT * FROM contact")
    assert sealed is not None
    erased = await client.delete(url, headers=bearer("responder", made))
    assert (erased.status_code, erased.json()["erased"]) == (200, True)
    gone = (await emitted(db, ResponderWithdrawn))[0]
    assert gone.responder_id == UUID(made)
    assert (gone.contact_id, gone.home_cell, gone.skills, gone.organisation) == (None, None, (), None)
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM contact") == 0
        assert await tx.fetchval("SELECT count(*) FROM vault_key") == 0
        assert await tx.fetchval("SELECT count(*) FROM responder WHERE contact_id IS NOT NULL") == 0
        assert await vault.unseal(tx, sealed["owner"], sealed["sealed"]) is None
    assert (await client.get(url, headers=DESK)).status_code == 404
    assert (await client.delete(url, headers=DESK)).status_code == 404
    # The list that named them does not bring them back; they themselves may come back, as somebody new.
    listed = await client.post("/v1/responders:batch", json=[RATNA | {"external_id": "7"}], headers=DESK)
    assert listed.json()["repeated"] == 1
    anew = await client.post("/v1/responders", json=RATNA)
    assert anew.json()["responder_id"] != made


async def test_a_new_number_moves_the_contact_and_another_responders_number_is_refused(client, db):
    made = (await client.post("/v1/responders", json=RATNA, headers=DESK)).json()["responder_id"]
    await client.post("/v1/responders", json={"name": "Budi", "phone": "081299998888"}, headers=DESK)
    url = f"/v1/responders/{made}"
    refused = await client.patch(url, json={"phone": "081299998888"}, headers=DESK)
    assert (refused.status_code, pointers(refused)) == (409, ["/phone"])
    moved = await client.patch(url, json={"phone": "081277776666"}, headers=DESK)
    assert moved.status_code == 200
    async with db.tx() as tx:
        assert await tx.fetchval(
            "SELECT contact_id FROM responder WHERE responder_id = $1", UUID(made)
        ) == vault.contact_id("+6281277776666")
    shown = (await client.get(f"{url}?reason=nomor+baru", headers=DESK)).json()
    assert (shown["phone"], shown["name"]) == ("+6281277776666", "Ratna Puspitasari")
    # The old number is free again, and what was sealed under it is gone.
    async with db.tx() as tx:
        old = vault.contact_id("+6281234567890")
        assert await tx.fetchval("SELECT count(*) FROM vault_key WHERE owner = $1", old) == 0
    other = await client.post("/v1/responders", json={"name": "Sari", "phone": "081234567890"}, headers=DESK)
    assert other.json()["responder_id"] != made


async def test_changes_at_the_same_time_leave_in_the_order_in_which_they_were_made(client, db):
    made = (await client.post("/v1/responders", json=RATNA, headers=DESK)).json()["responder_id"]
    url = f"/v1/responders/{made}"
    answers = await asyncio.gather(
        *(sent(client, "PATCH", url, json={"travel_limit_km": 100 + n}, headers=DESK) for n in range(20))
    )
    assert {answer.status_code for answer in answers} == {200}
    events = await emitted(db, ResponderState)
    assert [event.meta.sequence for event in events] == list(range(1, 22))
    assert (await client.get(url, headers=DESK)).json()["travel_limit_km"] == events[-1].travel_limit_km


# Batches


def people(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        RATNA | {"phone": f"+62812{10_000_000 + n}", "name": f"Relawan {n}", "external_id": f"r-{n}", "source": "/list"}
        for n in range(start, start + count)
    ]


async def test_a_batch_is_taken_row_by_row_and_a_repeat_adds_nothing(client, db):
    rows: list[Any] = people(20)
    rows[3] = rows[3] | {"phone": "nonsense"}
    rows[5] = rows[5] | {"operation": "nowhere"}
    rows[7] = "not an object"
    rows.append(rows[0] | {"external_id": "r-again"})
    answer = await client.post("/v1/responders:batch", json=rows, headers=DESK)
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"], body["repeated"]) == (18, 3, 0)
    assert [result["pointer"] for result in body["results"] if "error" in result] == ["/phone", "/operation", ""]
    assert body["results"][20]["responder_id"] == body["results"][0]["responder_id"]
    assert [result["index"] for result in body["results"]] == list(range(21))
    before = await emitted(db, ResponderState)
    assert len(before) == 17

    again = (await client.post("/v1/responders:batch", json=rows, headers=DESK)).json()
    assert (again["accepted"], again["rejected"], again["repeated"]) == (0, 3, 18)
    ids = [result.get("responder_id") for result in body["results"]]
    assert [result.get("responder_id") for result in again["results"]] == ids
    assert await emitted(db, ResponderState) == before
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM known_as WHERE responder_id IS NULL") == 0


async def test_ndjson_is_taken_with_a_bad_line_refused_alone(client):
    lines = [orjson.dumps(row) for row in people(3)]
    lines.insert(1, b"{not json")
    answer = await client.post(
        "/v1/responders:batch", content=b"\n".join(lines), headers=DESK | {"Content-Type": "application/x-ndjson"}
    )
    body = answer.json()
    assert (answer.status_code, body["accepted"], body["rejected"]) == (207, 3, 1)
    assert "error" in body["results"][1]


async def test_overlapping_batches_at_once_make_each_responder_once(client, db):
    rows = people(60)
    batches = [rows[:40], list(reversed(rows[20:])), rows[10:50], list(reversed(rows))]
    answers = await asyncio.gather(
        *(client.post("/v1/responders:batch", json=batch, headers=DESK) for batch in batches)
    )
    assert [answer.status_code for answer in answers] == [207] * 4
    assert sum(answer.json()["accepted"] for answer in answers) == 60
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM responder") == 60
    assert len(await emitted(db, ResponderConfirmed)) == 60


async def test_a_partner_takes_in_its_own_people_and_no_others(client):
    await client.post("/v1/responders", json=RATNA, headers=OTHER)
    rows = [RATNA | {"external_id": "1"}, *people(1), people(2)[1] | {"organisation": "other"}]
    body = (await client.post("/v1/responders:batch", json=rows, headers=PMI)).json()
    assert (body["accepted"], body["rejected"]) == (1, 2)
    assert [result.get("pointer") for result in body["results"]] == ["/phone", None, "/organisation"]
    # `source` counts only where the organisation may use it: the same numbering of another sender is another one.
    desk = (await client.post("/v1/responders:batch", json=people(1), headers=DESK)).json()
    assert desk["repeated"] == 0
    for role in ("field", "responder", "auditor"):
        assert (await client.post("/v1/responders:batch", json=rows, headers=bearer(role))).status_code == 403
    assert (await client.post("/v1/responders:batch", json=rows)).status_code == 401


async def test_the_demo_loads_and_loading_it_again_adds_nothing(client, db):
    folder = Path(demo.__file__).parent
    operation = orjson.loads((folder / "operation.json").read_bytes())
    assert (await client.post("/v1/operations", json=operation, headers=DESK)).status_code == 201
    for organisation in orjson.loads((folder / "organisations.json").read_bytes()):
        assert (await client.post("/v1/organisations", json=organisation, headers=DESK)).status_code == 201
    for name in ("responders", "resources"):
        rows = orjson.loads((folder / f"{name}.json").read_bytes())
        rows = [{**row, "source": demo.SOURCE, "operation": demo.OPERATION} for row in rows]
        first = (await client.post(f"/v1/{name}:batch", json=rows, headers=DESK)).json()
        assert (first["accepted"], first["rejected"]) == (len(rows), 0), first
        again = (await client.post(f"/v1/{name}:batch", json=rows, headers=DESK)).json()
        assert (again["accepted"], again["repeated"]) == (0, len(rows))
    assert all(event.exercise for event in await emitted(db))


async def test_more_than_five_thousand_rows_are_too_many(client):
    answer = await client.post("/v1/resources:batch", content=b"[" + b"{}," * 5000 + b"{}]", headers=DESK)
    assert answer.status_code == 413


# Resources


async def test_a_lot_is_entered_adjusted_and_withdrawn(client, db):
    made = await client.post("/v1/resources", json=STOCK, headers=DESK)
    assert made.status_code == 201
    lot = made.json()
    assert (lot["item"], lot["unit"], lot["quantity"]) == ("rubber_boat", "unit", 4)
    url = f"/v1/resources/{lot['lot_id']}"
    await client.patch(url, json={"quantity": 0, "reason": "dipakai semua"}, headers=DESK)
    await client.patch(url, json={"quantity": 0}, headers=DESK)
    await client.patch(url, json={"status": "withdrawn"}, headers=DESK)
    events = await emitted(db, ResourceState)
    assert [type(event) for event in events] == [ResourceRegistered, ResourceAdjusted, ResourceWithdrawn]
    assert [event.quantity for event in events] == [4, 0, 0]
    assert events[0].point is not None
    assert events[0].point.lon == 107.525
    assert events[0].place == "Gudang Soreang, hubungi [nomor]"
    assert (await client.get(url, headers=DESK)).json()["status"] == "withdrawn"


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"quantity": 0}, 422, "/quantity"),
        ({"item": "Kapal Selam?"}, 422, "/item"),
        ({"unit": "kg"}, 422, "/unit"),
        ({"location": {"lon": 107.5}}, 422, "/location/lat"),
        ({"expires_at": "2026-01-01"}, 422, "/expires_at"),
        ({"operation": "nowhere"}, 404, "/operation"),
    ],
)
async def test_a_wrong_lot_is_refused_by_the_field_that_is_wrong(client, db, change, status, pointer):
    answer = await client.post("/v1/resources", json=STOCK | change, headers=DESK)
    assert answer.status_code == status
    assert pointers(answer) == [pointer]
    assert await emitted(db) == []


async def test_lots_of_a_batch_are_made_once_whoever_sends_it_again(client, db):
    rows = [STOCK | {"external_id": f"stok-{n}", "source": "/demo", "quantity": 1 + n} for n in range(10)]
    rows.append(rows[2] | {"quantity": 99})
    first, second = await asyncio.gather(
        client.post("/v1/resources:batch", json=rows, headers=DESK),
        client.post("/v1/resources:batch", json=list(reversed(rows)), headers=DESK),
    )
    assert first.json()["accepted"] + second.json()["accepted"] == 10
    assert first.json()["repeated"] + second.json()["repeated"] == 12
    events = await emitted(db, ResourceRegistered)
    assert len(events) == 10
    # A list that comes late does not undo what was counted since.
    lot = str(events[0].lot_id)
    await client.patch(f"/v1/resources/{lot}", json={"quantity": 77}, headers=DESK)
    await client.post("/v1/resources:batch", json=rows, headers=DESK)
    assert (await client.get(f"/v1/resources/{lot}", headers=DESK)).json()["quantity"] == 77


async def test_a_partner_enters_and_sees_its_own_lots_only(client):
    own = await client.post("/v1/resources", json={**STOCK, "organisation": None}, headers=PMI)
    assert own.json()["organisation"] == "pmi"
    theirs = await client.post("/v1/resources", json=STOCK, headers=DESK)
    refused = await client.post("/v1/resources", json=STOCK, headers=PMI)
    assert (refused.status_code, pointers(refused)) == (403, ["/organisation"])
    url = f"/v1/resources/{theirs.json()['lot_id']}"
    assert (await client.get(url, headers=PMI)).status_code == 403
    assert (await client.patch(url, json={"quantity": 1}, headers=PMI)).status_code == 403
    listed = (await client.get("/v1/resources", headers=PMI)).json()["resources"]
    assert [lot["lot_id"] for lot in listed] == [own.json()["lot_id"]]
    give_away = await client.patch(f"/v1/resources/{own.json()['lot_id']}", json={"organisation": "other"}, headers=PMI)
    assert give_away.status_code == 403


async def test_lots_and_responders_of_an_exercise_say_so(client, db):
    await client.post("/v1/operations", json={"id": "drill", "title": "LATIHAN", "exercise": True}, headers=DESK)
    await client.post("/v1/resources", json=STOCK | {"operation": "drill"}, headers=DESK)
    await client.post("/v1/responders", json=RATNA | {"operation": "drill"}, headers=DESK)
    events = [*await emitted(db, ResourceState), *await emitted(db, ResponderState)]
    assert [(event.operation, event.exercise, event.meta.exercise) for event in events] == [("drill", True, True)] * 2


async def test_a_drill_that_names_somebody_does_not_take_them_out_of_life(client, db):
    await client.post("/v1/operations", json={"id": "drill", "title": "LATIHAN", "exercise": True}, headers=DESK)
    await client.post("/v1/operations", json={"id": "flood", "title": "Banjir"}, headers=DESK)
    await client.post("/v1/responders", json=RATNA | {"operation": "flood"}, headers=DESK)
    await client.post("/v1/responders", json=RATNA | {"operation": "drill", "travel_limit_km": 9}, headers=DESK)
    budi = RATNA | {"phone": "081299998888", "operation": "drill"}
    await client.post("/v1/responders", json=budi, headers=DESK)
    await client.post("/v1/responders", json=budi | {"operation": "flood"}, headers=DESK)
    events = await emitted(db, ResponderState)
    assert [(event.operation, event.exercise) for event in events] == [
        ("flood", False),
        ("flood", False),
        ("drill", True),
        ("flood", False),
    ]


# What holds for every write


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/operations", {"id": "x", "title": "X"}),
        ("/v1/organisations", {"id": "x", "name": "X"}),
        ("/v1/responders", {"name": "Tanpa nomor"}),
        ("/v1/resources", STOCK),
        ("/v1/responders:batch", [{"name": "Tanpa nomor"}]),
        ("/v1/resources:batch", [STOCK]),
    ],
)
async def test_three_equal_posts_at_once_take_effect_once_and_answer_alike(client, db, path, body):
    headers = DESK | {"Idempotency-Key": '"once-and-only-once"'}
    answers = await asyncio.gather(*(sent(client, "POST", path, json=body, headers=headers) for _ in range(3)))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert answers[0].status_code in (201, 207)
    async with db.tx() as tx:
        made = await tx.fetchval(
            "SELECT (SELECT count(*) FROM operation) + (SELECT count(*) FROM organisation) "
            "+ (SELECT count(*) FROM responder) + (SELECT count(*) FROM lot)"
        )
    assert made == 1
    other = await client.post(path, json=[body] if isinstance(body, dict) else body * 2, headers=headers)
    assert other.status_code == 422


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/operations"),
        ("PATCH", "/v1/operations/standing"),
        ("POST", "/v1/organisations"),
        ("PATCH", "/v1/organisations/x"),
        ("POST", "/v1/responders:batch"),
        ("POST", "/v1/resources"),
        ("POST", "/v1/resources:batch"),
        ("PATCH", "/v1/resources/00000000-0000-0000-0000-000000000000"),
    ],
)
async def test_writes_are_refused_to_those_who_may_not_write(client, method, path):
    assert (await client.request(method, path, json={})).status_code == 401
    assert (await client.request(method, path, json={}, headers=bearer("auditor"))).status_code == 403
    assert (await client.request(method, path, json={}, headers=bearer("responder"))).status_code == 403


async def test_a_token_for_other_operations_opens_and_changes_none(client):
    narrow = bearer("operator", operations=("mine",))
    assert (await client.post("/v1/operations", json={"id": "x", "title": "X"}, headers=narrow)).status_code == 403
    assert (await client.patch("/v1/operations/x", json={"title": "X"}, headers=narrow)).status_code == 403


async def test_the_openapi_document_says_what_each_write_takes(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    schema = paths["/v1/responders"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["location"]["anyOf"][0]["properties"]["lon"]["maximum"] == 180
    assert "application/x-ndjson" in paths["/v1/resources:batch"]["post"]["requestBody"]["content"]
    assert "$defs" not in orjson.dumps(paths).decode()
