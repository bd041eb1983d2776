"""Consent, the access log, break-glass, and erasure that leaves nothing to be read."""

from __future__ import annotations

import asyncio
import json
import logging
from datetime import timedelta
from typing import Any

import httpx
import pytest

from schemas.erasures import ContactErased, ContactForgotten
from schemas.responders import ResponderState, ResponderWithdrawn
from services.registry import consent, erasure
from services.registry.handlers import consumer as registry_consumer
from services.runtime import clock, erasures
from tests.conftest import Wire, bearer, emitted
from tests.registry.people import DESK, FIELD, PMI, SITI, code_in, messages, send_messages

GLASS = bearer("break_glass", "komandan", hours=9000)
AUDITOR = bearer("auditor", hours=9000)


async def made(client: httpx.AsyncClient, headers: dict[str, str] = DESK, **changes: Any) -> str:
    answer = await client.post("/v1/responders", json=SITI | changes, headers=headers)
    assert answer.status_code in (200, 201, 202), answer.text
    return str(answer.json()["responder_id"])


async def test_what_is_agreed_to_is_published_and_noted_with_its_version(client, db, data):
    texts = (await client.get("/v1/consents")).json()["consents"]
    assert {text["purpose"] for text in texts if text["current"]} == {"dispatch", "sharing"}
    assert all(text["text"]["id"] and text["text"]["en"] for text in texts)
    # A text that was shown is kept as it was: consents refer to its version.
    assert len({(text.purpose, text.version) for text in consent.texts()}) == len(consent.texts())
    who = await made(client, consents=["dispatch", "sharing"])
    noted = (await client.get(f"/v1/responders/{who}/consents", headers=DESK)).json()["consents"]
    assert {(entry["purpose"], entry["version"], entry["given_by"]) for entry in noted} == {
        (purpose, consent.newest()[purpose].version, "operator:posko") for purpose in ("dispatch", "sharing")
    }


async def test_withdrawing_consent_takes_the_person_out_of_the_next_plan_until_they_give_it_again(client, plan, db):
    who = await made(client)
    own, url = bearer("responder", who), f"/v1/responders/{who}/consents"
    await plan.feed()
    first = await plan.need("cook")
    assert await plan.asked(first) == {who}
    refused = await client.post(url, json={"purpose": "dispatch", "given": False}, headers=PMI)
    assert refused.status_code == 403
    answer = await client.post(url, json={"purpose": "dispatch", "given": False}, headers=own)
    assert answer.status_code == 200, answer.text
    await plan.feed()
    assert await plan.asked(first) == set()
    assert await plan.asked(await plan.need("nurse")) == set()
    # A list that names them does not undo what they said.
    again = await client.post("/v1/responders", json=SITI, headers=DESK)
    assert again.json()["status"] == "withdrawn"
    batch = (await client.post("/v1/responders:batch", json=[SITI | {"external_id": "1"}], headers=DESK)).json()
    assert batch["results"][0]["status"] == "withdrawn"
    await plan.feed()
    assert await plan.candidates() == set()
    await client.post(url, json={"purpose": "dispatch", "given": True}, headers=own)
    await plan.feed()
    assert await plan.candidates() == {who}
    noted = (await client.get(url, headers=own)).json()["consents"]
    assert [
        (entry["withdrawn_at"] is None, entry["given_by"]) for entry in noted if entry["purpose"] == "dispatch"
    ] == [
        (False, "operator:posko"),
        (True, f"responder:{who}"),
    ]


async def test_each_look_at_contact_data_is_logged_with_its_reason(client, db):
    who = await made(client)
    url = f"/v1/responders/{who}"
    assert "phone" not in (await client.get(url, headers=DESK)).json()
    short = await client.get(f"{url}?reason=x", headers=DESK)
    assert (short.status_code, short.json()["errors"][0]["pointer"]) == (422, "query/reason")
    seen = await client.get(url, params={"reason": "hubungi lewat 0812 3456 7890"}, headers=FIELD)
    assert seen.json()["phone"] == "+6281398765432"
    await client.get(url, headers=bearer("responder", who))
    log = (await client.get("/v1/access", headers=AUDITOR)).json()["access"]
    assert [(entry["actor"], entry["reason"], entry["break_glass"]) for entry in log] == [
        (f"responder:{who}", "own profile", False),
        ("field:lapangan", "hubungi lewat [nomor]", False),
    ]
    # Who was looked at may see by whom; nobody else but an auditor.
    mine = (await client.get("/v1/access", headers=bearer("responder", who))).json()["access"]
    assert len(mine) == 2
    other = await made(client, phone="081311112222")
    assert (await client.get(f"/v1/access?responder={who}", headers=bearer("responder", other))).json()["access"] == []
    for headers in (DESK, FIELD, PMI, GLASS):
        assert (await client.get("/v1/access", headers=headers)).status_code == 403
    async with db.tx() as tx:
        for sql in ("UPDATE access SET reason = 'x'", "DELETE FROM access"):
            with pytest.raises(Exception, match="append-only"):
                async with tx.savepoint():
                    await tx.execute(sql)


async def test_the_broken_glass_is_reported_and_says_at_length_why(client, caplog):
    who = await made(client, PMI)
    url = f"/v1/responders/{who}"
    assert (await client.get(url, headers=GLASS)).status_code == 422
    assert (await client.get(f"{url}?reason=darurat", headers=GLASS)).status_code == 422
    why = {"reason": "terjebak di atap, harus ditelepon sekarang"}
    with caplog.at_level(logging.WARNING):
        seen = await client.get(url, params=why, headers=GLASS)
    assert seen.json()["phone"] == "+6281398765432"
    assert "break-glass: break_glass:komandan" in caplog.text
    assert "81398765432" not in caplog.text
    report = (await client.get("/v1/access?break_glass=true", headers=AUDITOR)).json()["access"]
    assert [(entry["actor"], entry["responder_id"], entry["reason"]) for entry in report] == [
        ("break_glass:komandan", who, why["reason"])
    ]
    # It looks, and does nothing else.
    assert (await client.patch(url, json={"travel_limit_km": 3}, headers=GLASS)).status_code == 403
    assert (await client.delete(url, headers=GLASS)).status_code == 403
    assert (await client.get("/v1/responders", headers=GLASS)).status_code == 403


async def test_erasure_leaves_no_hash_and_no_message_and_is_noted_beside_the_database(client, db, data):
    who = await made(client, {}, consents=["dispatch", "sharing"])
    await send_messages(db)
    code = code_in(messages(data)[0])
    assert (await client.post(f"/v1/responders/{who}/confirm", json={"code": code})).status_code == 200
    kept = await made(client, phone="081311112222")
    contact = json.dumps(str(messages(data)[0]["contact"]))[1:-1]
    erased = await client.delete(f"/v1/responders/{who}", headers=bearer("responder", who))
    assert erased.status_code == 200
    # Intake has to know whose words it forgets; once it has said that it did, the event says nothing any more.
    (told,) = await emitted(db, ContactErased)
    assert told.contact_id == contact
    await Wire(registry_consumer, db).deliver(ContactForgotten(erasure_id=told.erasure_id), source="/gotong/x/intake")
    async with db.tx() as tx:
        tables = await tx.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'registry'")
        for table in tables:
            rows = await tx.fetch(f'SELECT to_jsonb(t)::text AS row FROM "{table["tablename"]}" t')
            assert contact not in "\n".join(row["row"] for row in rows), table["tablename"]
    assert contact.encode() not in b"".join(event.to_bytes() for event in await emitted(db))
    path = erasures.path_in(data, "registry")
    known = await erasures.note(db, path)
    assert {str(one) for one in erasures.read(path)} == {who}
    assert await erasures.note(db, path, known) == known
    # Nobody is ever taken off the list, also when the database lost what it knew.
    async with db.tx() as tx:
        await tx.execute("DELETE FROM erasure")
    await client.delete(f"/v1/responders/{kept}", headers=DESK)
    await erasures.note(db, path)
    assert {str(one) for one in erasures.read(path)} == {who, kept}


async def test_the_list_is_written_as_soon_as_somebody_is_erased(client, db, data):
    who = await made(client)
    stopping = asyncio.Event()
    task = asyncio.create_task(erasures.keep_list(db, stopping))
    try:
        await client.delete(f"/v1/responders/{who}", headers=DESK)
        async with asyncio.timeout(120):
            path = erasures.path_in(data, "registry")
            while not (path.exists() and who in path.read_text()):
                assert not task.done(), task.exception()
                await asyncio.sleep(0.05)
    finally:
        stopping.set()
        await task


async def test_whoever_was_erased_comes_back_only_as_somebody_new(client, db, data):
    who = await made(client)
    await client.delete(f"/v1/responders/{who}", headers=DESK)
    clock.shift(timedelta(days=2))
    assert (await client.post("/v1/sessions", json={"phone": SITI["phone"]})).status_code == 202
    await send_messages(db)
    assert messages(data) == []
    assert await made(client, {}) != who
    async with db.tx() as tx:
        assert await erasure.replay(tx, {(await emitted(db, ResponderWithdrawn))[0].responder_id}, "test") == 0
    assert len(await emitted(db, ResponderState)) == 3


async def test_an_organisation_takes_its_own_data_along_and_nobody_who_withdrew(client):
    shares = await made(client, PMI, consents=["dispatch", "sharing"], name="=Siti")
    quiet = await made(client, PMI, phone="081311112222")
    gone = await made(client, PMI, phone="081322223333", consents=["dispatch", "sharing"])
    await made(client, DESK, phone="081344445555", organisation="other")
    own = bearer("responder", gone)
    await client.post(f"/v1/responders/{gone}/consents", json={"purpose": "dispatch", "given": False}, headers=own)
    url = "/v1/organisations/pmi/export"
    plain = (await client.get(url, headers=PMI)).json()["responders"]
    assert {row["responder_id"] for row in plain} == {shares, quiet}
    assert not any("phone" in row for row in plain)
    named = (await client.get(f"{url}?reason=pembaruan+daftar", headers=PMI)).json()["responders"]
    assert {row["responder_id"]: row.get("phone") for row in named} == {shares: "+6281398765432", quiet: None}
    log = (await client.get("/v1/access", headers=AUDITOR)).json()["access"]
    assert [(entry["responder_id"], entry["actor"]) for entry in log] == [(shares, "partner:pmi-desk")]
    sheet = await client.get(f"{url}?format=csv&reason=pembaruan+daftar", headers=PMI)
    assert sheet.headers["content-type"].startswith("text/csv")
    assert "'=Siti" in sheet.text
    assert (await client.get("/v1/organisations/other/export", headers=PMI)).status_code == 403
    assert (await client.get(url, headers=FIELD)).status_code == 403
    lots = await client.get(f"{url}?what=resources", headers=PMI)
    assert lots.json()["resources"] == []
