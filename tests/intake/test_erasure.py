"""Forgetting whoever wrote to us: nothing by which they could be read or known again, and no report is lost by it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from schemas.erasures import ContactErased, ContactForgotten
from services.intake import erasure
from services.intake.actions import Sender, draft_of, take_reports
from services.intake.app import service
from services.intake.bodies import ReporterIn, ReportIn
from services.intake.conversations import take_inbound
from services.intake.handlers import consumer
from services.intake.inbound import Inbound
from services.runtime import clock, erasures, vault
from services.runtime.db import Database
from services.runtime.service import Service
from tests.conftest import Wire, bearer, emitted
from tests.intake.patience import patient

NUMBER, NEIGHBOUR = "+6281234567890", "+6281300001111"
OPERATOR = bearer("operator", "posko")
_ids = itertools.count(1)


@pytest.fixture
def client(make_client: Callable[[Sequence[Service]], httpx.AsyncClient]) -> httpx.AsyncClient:
    return patient(make_client([service]))


async def say(db: Database, text: str, number: str = NUMBER) -> None:
    async with db.tx() as tx:
        await take_inbound(tx, Inbound("whatsapp", "whatsapp", f"wamid{next(_ids)}", number, clock.now(), text))


async def report(db: Database, text: str, name: str, number: str) -> None:
    order = ReportIn(text=text, reporter=ReporterIn(name=name, phone=number))
    async with db.tx() as tx:
        await take_reports(tx, [draft_of(order, Sender("/devices/x", (), False))])


async def rows(db: Database, sql: str, *values: Any) -> list[dict[str, Any]]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch(sql, *values)]


async def everything(db: Database) -> bytes:
    """All that intake's tables hold, but what has left or is to leave as an event."""
    async with db.tx() as tx:
        tables = await tx.fetch(
            "SELECT tablename::text AS name FROM pg_tables WHERE schemaname = 'intake' AND tablename <> ALL($1)",
            ["outbox", "journal", "subject_sequence", "inbox_state", "inbox_fact"],
        )
        held = [await tx.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table['name']} AS t") for table in tables]
    return "\n".join(row["row"] for found in held for row in found).encode()


async def written(db: Database) -> None:
    await say(db, "Banjir 30 cm, butuh makanan untuk 20 orang")
    await say(db, "cari ibu saya Wagiyem, hilang kontak sejak banjir")
    await report(db, f"Banjir, hubungi saya {NUMBER}", "Suparman", NUMBER)
    await report(db, f"Air naik. Tetangga saya {NUMBER} tahu jalannya", "Budi", NEIGHBOUR)
    await say(db, "Banjir 40 cm di jalan kampung", NEIGHBOUR)


async def test_whoever_is_erased_at_the_registry_is_forgotten_by_intake(db):
    await written(db)
    contact = vault.contact_id(NUMBER)
    before = await everything(db)
    assert contact.encode() in before
    assert contact[1:13].encode() in before
    event = ContactErased(erasure_id=uuid4(), contact_id=contact, by="responder:x")
    wire = Wire(consumer, db)
    await wire.deliver(event, id="0198a1b2-0000-7000-8000-000000000001")
    after = await everything(db)
    assert contact[1:13].encode() not in after
    assert await rows(db, "SELECT * FROM conversation WHERE contact = $1", contact) == []
    assert [told.erasure_id for told in await emitted(db, ContactForgotten)] == [event.erasure_id]
    # A second delivery finds nothing, and the same person may write again as somebody new.
    await wire.deliver(event, id="0198a1b2-0000-7000-8000-000000000001")
    assert await everything(db) == after
    await say(db, "Banjir lagi di kampung, butuh perahu")
    await wire.deliver(event, id="0198a1b2-0000-7000-8000-000000000001")
    assert len(await rows(db, "SELECT * FROM conversation WHERE contact = $1", contact)) == 1


async def test_what_they_reported_stays_with_one_unknown_voice_and_others_lose_nothing(db):
    await written(db)
    kept = await rows(db, "SELECT report_id, text, state FROM report ORDER BY seq")
    neighbour = vault.contact_id(NEIGHBOUR)
    theirs = await rows(db, "SELECT * FROM report WHERE contact = $1 ORDER BY seq", neighbour)
    async with db.tx() as tx:
        assert await erasure.forget(tx, vault.contact_id(NUMBER), "operator:posko") == 5
    assert await rows(db, "SELECT report_id, text, state FROM report ORDER BY seq") == kept
    gone = await rows(db, "SELECT contact, voice, sealed, sealed_for FROM report WHERE contact LIKE 'erased:%'")
    assert len(gone) == 2
    assert {row["contact"] for row in gone} == {row["voice"] for row in gone}
    assert len({row["contact"] for row in gone}) == 1
    assert {(row["sealed"], row["sealed_for"]) for row in gone} == {(None, None)}
    # Of the neighbour's text only the hash of the erased number is gone; their words can still be opened.
    now = await rows(db, "SELECT * FROM report WHERE contact = $1 ORDER BY seq", neighbour)
    assert [row["link_text"] for row in now] != [row["link_text"] for row in theirs]
    assert [row | {"link_text": ""} for row in now] == [row | {"link_text": ""} for row in theirs]
    async with db.tx() as tx:
        value = await vault.unseal(tx, neighbour, theirs[0]["sealed"])
    assert value is not None
    assert orjson.loads(value)["name"] == "Budi"


async def test_a_family_link_loses_its_words_and_keeps_who_read_them(client, db):
    await written(db)
    (link,) = (await client.get("/v1/family-links", headers=OPERATOR)).json()["family_links"]
    url = f"/v1/family-links/{link['id']}?reason=mencari+keluarga"
    assert "Wagiyem" in (await client.get(url, headers=OPERATOR)).json()["text"]
    async with db.tx() as tx:
        await erasure.forget(tx, vault.contact_id(NUMBER), "operator:posko")
    shown = (await client.get(url, headers=OPERATOR)).json()
    assert ("text" in shown, "address" in shown, shown["outcome"]) == (False, False, "erased")
    assert len(await rows(db, "SELECT * FROM family_link_access")) == 2


async def test_a_desk_erases_whoever_only_reported(client, db):
    await written(db)
    body = {"phone": "0812-3456-7890", "reason": "diminta sendiri"}
    assert (await client.post("/v1/contacts:erase", json=body)).status_code == 401
    assert (await client.post("/v1/contacts:erase", json=body, headers=bearer("field", "a"))).status_code == 403
    wrong = await client.post("/v1/contacts:erase", json=body | {"phone": "x"}, headers=OPERATOR)
    assert wrong.status_code == 422
    answer = await client.post("/v1/contacts:erase", json=body, headers=OPERATOR)
    assert (answer.status_code, answer.json()) == (200, {"erased": True})
    assert (await client.post("/v1/contacts:erase", json=body, headers=OPERATOR)).json() == {"erased": False}
    assert vault.contact_id(NUMBER)[1:13].encode() not in await everything(db)


async def test_the_list_finds_them_again_in_an_older_state(db, tmp_path):
    await written(db)
    contact = vault.contact_id(NUMBER)
    old = await rows(db, "SELECT report_id, contact FROM report WHERE contact = $1", contact)
    async with db.tx() as tx:
        await erasure.forget(tx, contact, "operator:posko")
    path = erasures.path_in(tmp_path, "intake")
    assert await erasures.note(db, path) == 5
    listed = erasures.read(path)
    # A backup of before brings their contact back; ids of others on the list change nothing.
    async with db.tx() as tx:
        for row in old:
            await tx.execute("UPDATE report SET contact = $2 WHERE report_id = $1", row["report_id"], row["contact"])
        assert await erasure.replay(tx, [], listed, "system:restore") == {contact}
    assert await rows(db, "SELECT 1 FROM report WHERE contact = $1", contact) == []
    async with db.tx() as tx:
        assert await erasure.replay(tx, [], listed, "system:restore") == set()
