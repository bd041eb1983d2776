"""Questions about stock reach its holder's duty number, and nobody sees that number."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from schemas.messages import ContactTold, MessageReceived
from schemas.notices import NoticeSent
from schemas.offers import OfferAccepted, OfferMade, OfferState, OfferWithdrawn
from schemas.values import Period
from services.channels import outbound
from services.intake.conversations import take_inbound
from services.intake.following import tell
from services.intake.handlers import consumer as intake_consumer
from services.intake.inbound import Inbound
from services.registry.handlers import consumer
from services.runtime import clock, vault
from tests.conftest import Wire, bearer, emitted
from tests.registry.people import DESK, FIELD, PMI, SITI, messages, send_messages

NUMBER = "+6281234567890"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    monkeypatch.setenv("GOTONG_CHANNELS_QUIET_FROM", "0")
    monkeypatch.setenv("GOTONG_CHANNELS_QUIET_UNTIL", "0")
    return tmp_path


def offer(model: type[OfferState] = OfferMade, **values) -> OfferState:
    state = {OfferMade: "made", OfferAccepted: "accepted", OfferWithdrawn: "withdrawn"}[model]
    now = clock.now()
    fields = {
        "offer_id": uuid4(), "need_id": uuid4(), "lot_id": uuid4(), "organisation": "pmi", "item": "boat",
        "quantity": 2, "state": state, "window": Period(start=now, end=now + timedelta(hours=6)),
        "expires_at": now + timedelta(hours=1), "by": "system:planner",
    }  # fmt: skip
    return model(**fields | values)


async def on_duty(client: httpx.AsyncClient, **body) -> httpx.Response:
    await client.post("/v1/organisations", json={"id": "pmi", "name": "PMI"}, headers=DESK)
    order = {"phone": "0812-3456-7890"} | body
    return await client.put("/v1/organisations/pmi/duty", json=order, headers=PMI)


async def test_the_holder_is_asked_once_and_told_when_it_is_over(client, db, data):
    assert (await on_duty(client)).json() == {"organisation": "pmi", "duty": True}
    wire, made = Wire(consumer, db), offer()
    for _ in range(2):
        await wire.deliver(made, sequence=1)
    await send_messages(db)
    (asked,) = messages(data)
    assert asked["contact"] == vault.contact_id(NUMBER)
    assert asked["template"] == "offer_lot"
    assert "2 " in asked["text"] and "papan" in asked["text"]
    gone = made.model_dump(exclude={"meta"}) | {"state": "withdrawn", "reason": "met"}
    await wire.deliver(OfferWithdrawn(**gone), sequence=2)
    await send_messages(db)
    assert [message["template"] for message in messages(data)] == ["offer_lot", "offer_lot_over"]


async def test_what_was_taken_back_before_it_was_sent_is_not_sent_and_a_yes_needs_no_word(client, db, data):
    await on_duty(client)
    wire, made, taken = Wire(consumer, db), offer(), offer()
    await wire.deliver_raw([wire.raw(made), wire.raw(taken)])
    gone = made.model_dump(exclude={"meta"}) | {"state": "withdrawn"}
    yes = taken.model_dump(exclude={"meta"}) | {"state": "accepted"}
    await wire.deliver(OfferWithdrawn(**gone), sequence=2)
    await wire.deliver(OfferAccepted(**yes), sequence=2)
    await wire.deliver(offer(organisation="other"))
    await wire.deliver(offer(organisation=None))
    await send_messages(db)
    assert [message["template"] for message in messages(data)] == ["offer_lot"]


async def test_the_number_is_set_by_its_organisation_or_an_operator_and_shown_to_nobody(client, db, data):
    assert (await on_duty(client, phone="x")).status_code == 422
    assert (await on_duty(client, language="en", channel="whatsapp")).status_code == 200
    url = "/v1/organisations/pmi/duty"
    other = bearer("partner", "bnpb-desk", org="bnpb", hours=9000)
    for headers, status in ((other, 403), (FIELD, 403), ({}, 401), (DESK, 200)):
        assert (await client.put(url, json={"phone": NUMBER}, headers=headers)).status_code == status
    assert (await client.put("/v1/organisations/no/duty", json={"phone": NUMBER}, headers=DESK)).status_code == 404
    shown = (await client.get("/v1/organisations/pmi")).text
    assert "8123456" not in shown
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM duty WHERE sealed IS NOT NULL") == 1
    assert (await on_duty(client, phone=None)).json()["duty"] is False
    await Wire(consumer, db).deliver(offer())
    await send_messages(db)
    assert messages(data) == []


async def test_erasing_its_owner_takes_the_number_away(client, db, data):
    await on_duty(client)
    who = (await client.post("/v1/responders", json=SITI | {"phone": NUMBER}, headers=DESK)).json()["responder_id"]
    assert (await client.delete(f"/v1/responders/{who}", headers=DESK)).status_code == 200
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM duty") == 0


# One person, two services


async def test_both_services_count_what_either_has_sent(db, make_db, data):
    intake = make_db("intake")
    contact = vault.contact_id(NUMBER)
    message = outbound.Message("ticket:1", contact, NUMBER, "ticket_linked", {"ticket": "T"}, urgent=True)
    async with intake.tx() as tx:
        await outbound.enqueue(tx, [message])
    async with httpx.AsyncClient() as http:
        sender = outbound.Sender(intake, outbound.ChannelSettings(), http, tell)
        while await sender.round():
            pass
    (told,) = await emitted(intake, ContactTold)
    assert (told.contact_id, told.urgent) == (contact, True)
    wire = Wire(consumer, db)
    for _ in range(2):
        await wire.deliver(told, id=told.meta.id)
    async with db.tx() as tx:
        assert [dict(row) for row in await tx.fetch("SELECT contact, urgent FROM outbound_elsewhere")] == [
            {"contact": contact, "urgent": True}
        ]
    sent = NoticeSent(contact_id=contact, notice_id=uuid4(), template="offer", channel="sms")
    to_intake = Wire(intake_consumer, intake)
    await to_intake.deliver(sent)
    await to_intake.deliver(sent.model_copy(update={"delivered": True}))
    await to_intake.deliver(sent.model_copy(update={"notice_id": uuid4(), "reply_to": uuid4()}))
    async with intake.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM outbound_elsewhere WHERE NOT urgent") == 1


async def test_stop_and_start_hold_for_both_services(db, make_db, data):
    intake = make_db("intake")
    wire = Wire(consumer, db)
    for nth, (text, stopped) in enumerate((("STOP", 1), ("MULAI", 0), ("STOP", 1))):
        async with intake.tx() as tx:
            await take_inbound(tx, Inbound("sms", "twilio", f"SM{nth}", NUMBER, clock.now(), text))
        event = (await emitted(intake, MessageReceived))[-1]
        await wire.deliver(event, id=event.meta.id)
        for service_db in (intake, db):
            async with service_db.tx() as tx:
                assert await tx.fetchval("SELECT count(*) FROM outbound_stop") == stopped
