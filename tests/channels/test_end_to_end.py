"""Offers, answers and receipts from end to end: intake's hook, the registry, matching, and a gateway on this machine.

Events pass between the services as Kafka would pass them; each is delivered twice here, as Kafka may.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from pathlib import Path
from urllib.parse import urlencode
from uuid import UUID, uuid4

import httpx
import pytest

from schemas.answers import AnswerGiven
from schemas.messages import MessageEvent, ReceiptNoted
from schemas.notices import NoticeFailed, NoticeSent
from services.channels.adapters import signature
from services.channels.outbound import Sender, tell_nobody
from services.channels.settings import ChannelSettings
from services.intake.app import service as intake
from services.intake.handlers import consumer as intake_consumer
from services.registry import notices
from services.registry.app import service as registry
from services.runtime.db import Database
from tests.channels.gateway import Gateway, running
from tests.conftest import Wire, emitted
from tests.registry.test_answers import Talk, patiently

NUMBER, STRANGER = "+6281398765432", "+6285611112222"


class World:
    """Three services and a gateway."""

    def __init__(self, gateway: Gateway, client: httpx.AsyncClient, make_db) -> None:
        self.gateway = gateway
        self.client = client
        self.intake: Database = make_db("intake")
        self.registry: Database = make_db("registry")
        self.talk = Talk(self.registry, make_db("matching"), client)
        self.to_intake = Wire(intake_consumer, self.intake)
        self.passed: dict[str, int] = {"messages": 0, "notices": 0}

    async def settle(self) -> None:
        """Pass on what was said and send what waits, until nothing moves."""
        moved = True
        while moved:
            moved = False
            for wire, db, models, name in (
                (self.talk.wire, self.intake, (MessageEvent, ReceiptNoted), "messages"),
                (self.to_intake, self.registry, (NoticeFailed,), "notices"),
            ):
                events = await emitted(db)
                for event in events[self.passed[name] :]:
                    if isinstance(event, models) and event.type != "gotong.message.replied.v1":
                        for _ in range(2):
                            await wire.deliver(event, id=event.meta.id, source=event.meta.source)
                        moved = True
                self.passed[name] = len(events)
            await self.talk.pass_on()
        settings = ChannelSettings(
            sms="webhook", webhook_url=f"{self.gateway.url}/out", webhook_secret="secret", quiet_from=0, quiet_until=0
        )  # type: ignore[arg-type]
        async with httpx.AsyncClient(timeout=120, trust_env=False) as http:
            for db, tell in ((self.registry, notices.tell), (self.intake, tell_nobody)):
                while await Sender(db, settings, http, tell).round():
                    pass

    async def text(self, body: str, number: str = NUMBER, sid: str | None = None) -> str:
        """Somebody writes; the answer that Twilio is given."""
        fields = {
            "MessageSid": sid or f"SM{uuid4().hex}", "From": number, "To": "+6221555000", "NumMedia": "0", "Body": body,
        }  # fmt: skip
        signed = "http://gotong.test/v1/hooks/twilio" + "".join(name + fields[name] for name in sorted(fields))
        digest = base64.b64encode(hmac.new(b"12345", signed.encode(), hashlib.sha1).digest()).decode()
        headers = {"content-type": "application/x-www-form-urlencoded", "x-twilio-signature": digest}
        answer = await patiently(
            lambda: self.client.post("/v1/hooks/twilio", content=urlencode(fields), headers=headers)
        )
        assert answer.status_code == 200, answer.text
        await self.settle()
        return answer.text

    async def receipt(self, key: str, said: str) -> None:
        body = json.dumps({"key": key, "to": NUMBER, "said": said}).encode()
        headers = {"gotong-signature": signature("secret", body)}
        answer = await patiently(lambda: self.client.post("/v1/hooks/receipts", content=body, headers=headers))
        assert answer.status_code == 204, answer.text
        await self.settle()

    def sent(self, number: str = NUMBER) -> list[str]:
        return [request.json["text"] for request in self.gateway.taken if request.json["to"] == number]

    async def assignments(self) -> list[UUID]:
        async with self.talk.plan.db.tx() as tx:
            return [row["assignment_id"] for row in await tx.fetch("SELECT assignment_id FROM assignment")]


@pytest.fixture
def world(make_client, make_db, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    monkeypatch.setenv("GOTONG_CHANNELS_TWILIO_TOKEN", "12345")
    monkeypatch.setenv("GOTONG_CHANNELS_WEBHOOK_SECRET", "secret")
    with running() as gateway:
        yield World(gateway, make_client([intake, registry]), make_db)


async def offered(world: World) -> tuple[UUID, str]:
    """An offer that has reached its responder by the gateway, and the code that stands in it."""
    await world.talk.responder(NUMBER)
    offer = await world.talk.offered()
    await world.settle()
    (text,) = world.sent()
    found = re.search(r"YA (\w{4})", text)
    assert found is not None
    return offer.offer_id, found[1]


async def test_a_yes_goes_all_the_way_and_repeats_lost_and_disordered_receipts_change_nothing(world):
    offer_id, code = await offered(world)
    key = world.gateway.taken[0].json["key"]
    for said in ("delivered", "sent", "delivered", "failed"):  # out of order, repeated; that of the next is lost
        await world.receipt(key, said)
    assert [event.delivered for event in await emitted(world.registry, NoticeSent)] == [False, True]
    for _ in range(3):  # the provider sends it again and again
        await world.text(f"ya {code.lower()}", sid="SM-yes")
    assert await world.assignments() == [offer_id]
    assert len(await emitted(world.registry, AnswerGiven)) == 1
    assert len(world.sent()) == 2 and code in world.sent()[1] and "ditugaskan" in world.sent()[1]
    await world.text("YA")  # the same word in another message
    assert await world.assignments() == [offer_id] and len(world.sent()) == 2
    assert await emitted(world.registry, NoticeFailed) == []


@pytest.mark.parametrize(
    "doubtful", ["mungkin bisa", "ya kalau hujan berhenti", "bisa?", "ya atau tidak", "insyaallah"]
)
async def test_no_acceptance_is_made_from_a_doubtful_text(world, doubtful):
    _, code = await offered(world)
    for text in (doubtful, f"{code} {doubtful}"):
        answer = await world.text(text)
        assert "belum jelas" in answer
    assert await emitted(world.registry, AnswerGiven) == [] and await world.assignments() == []
    assert len(world.sent()) == 1


async def test_a_stranger_with_the_code_learns_nothing_and_is_answered_once(world):
    _, code = await offered(world)
    for _ in range(2):
        await world.text(f"YA {code}", STRANGER, sid="SM-stranger")
    assert world.sent(STRANGER) == [
        "Tidak ada permintaan yang terbuka untuk nomor ini. Untuk melapor, tulis apa yang terjadi dan di mana."
    ]
    assert await world.assignments() == []


async def test_answers_that_the_gateway_loses_make_one_marked_double_and_the_offer_stays_one(world):
    world.gateway.plan = ["hang up"]
    await world.talk.responder(NUMBER)
    offer = await world.talk.offered()
    await world.settle()
    async with world.registry.tx() as tx:
        await tx.execute("UPDATE outbound SET due_at = due_at - interval '1 hour' WHERE state = 'waiting'")
    await world.settle()
    first, second = world.sent()
    assert second.endswith(first) and "dua kali" in second and "dua kali" not in first
    await world.text("ya")
    assert await world.assignments() == [offer.offer_id]
