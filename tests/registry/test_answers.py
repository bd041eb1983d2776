"""Answers by message: only a clear yes to the one offer that it can mean is taken, and it ends as over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.answers import AnswerGiven
from schemas.messages import MessageReceived, ReceiptNoted
from schemas.notices import NoticeFailed, NoticeSent
from schemas.offers import OfferMade, OfferState
from services.channels import outbound
from services.channels.outbound import Sender
from services.channels.settings import ChannelSettings
from services.matching import actions, offer_writes
from services.matching.settings import MatchingSettings
from services.registry import notices
from services.registry.answers import Asked, code_of, judge, words_of
from services.registry.app import service
from services.registry.handlers import consumer
from services.runtime import clock, vault
from services.runtime.db import Database
from tests.conftest import Wire, emitted
from tests.registry.people import DESK, SITI, Matching

NOW = datetime(2026, 11, 24, 3, tzinfo=UTC)


# Rules


def asked(code: str = "K7QM", **changes) -> Asked:
    return replace(Asked(uuid4(), code, "made", 3), **changes)


def test_a_clear_yes_means_the_one_open_offer():
    one = asked()
    verdict = judge([one, asked("A2BC", state="expired")], accepted=True, quantity=None, codes=(), said_at=NOW)
    assert (verdict.what, verdict.offer) == ("answer", one)


@pytest.mark.parametrize(
    ("offers", "quantity", "codes", "template"),
    [
        ([], None, (), "no_open_offer"),
        ([], None, ("K7QM",), "no_open_offer"),
        ([asked("A2BC"), asked("B2CD")], None, (), "which_offer"),
        ([asked("A2BC")], None, ("K7QM",), "which_offer"),
        ([asked("A2BC"), asked("B2CD")], None, ("A2BC", "B2CD"), "which_offer"),
        ([asked("A2BC")], 4, (), "how_many"),
        ([asked("A2BC")], 4, ("A2BC",), "how_many"),
        ([asked("A2BC", state="expired")], None, ("A2BC",), "offer_over"),
        ([asked("A2BC", state="withdrawn")], None, (), "no_open_offer"),
        ([asked("A2BC", answered=False, answered_at=NOW)], None, ("A2BC",), "answered_before"),
    ],
)
def test_whatever_is_not_clear_asks_back(offers, quantity, codes, template):
    verdict = judge(offers, accepted=True, quantity=quantity, codes=codes, said_at=NOW)
    assert (verdict.what, verdict.template) == ("ask", template)


def test_the_same_word_again_and_an_older_one_that_comes_late_change_nothing():
    said = asked(answered=True, answered_at=NOW)
    assert judge([said], accepted=True, quantity=None, codes=(), said_at=NOW + timedelta(seconds=9)).what == "nothing"
    assert judge([said], accepted=False, quantity=None, codes=(), said_at=NOW - timedelta(seconds=9)).what == "nothing"
    assert judge([said], accepted=False, quantity=None, codes=(), said_at=NOW + timedelta(seconds=9)).what == "ask"


@given(
    st.lists(
        st.builds(
            asked,
            st.sampled_from(["A2BC", "B2CD", "C2DE"]),
            state=st.sampled_from(["made", "accepted", "declined", "expired", "withdrawn"]),
            quantity=st.integers(1, 5),
            answered=st.sampled_from([None, True, False]),
            answered_at=st.just(NOW),
        ),
        max_size=5,
    ),
    st.booleans(),
    st.none() | st.integers(1, 9),
    st.lists(st.sampled_from(["A2BC", "B2CD", "Z9ZZ"]), max_size=2),
)
def test_an_answer_is_only_ever_to_an_open_offer_that_is_the_only_one_or_is_named(offers, accepted, quantity, codes):
    verdict = judge(offers, accepted=accepted, quantity=quantity, codes=codes, said_at=NOW)
    if verdict.what == "answer":
        assert verdict.offer is not None and verdict.offer.open
        rivals = [offer for offer in offers if offer.open and (not codes or offer.code in codes)]
        assert rivals == [verdict.offer]
        assert not accepted or quantity is None or quantity <= verdict.offer.quantity


@given(st.uuids(), st.integers(0, 40))
def test_a_code_reads_as_a_code_wherever_it_stands_in_an_answer(offer_id, attempt):
    from services.intake.intents import intent_of

    code = code_of(offer_id, attempt)
    for text in (f"YA {code}", f"{code.lower()} ya", f"ya {code} 2"):
        found = intent_of(text)
        assert (found.intent, found.codes) == ("yes", (code,))


def test_an_offer_is_worded_in_the_zone_and_language_of_who_reads_it():
    start = datetime(2026, 11, 24, 2, 10, tzinfo=UTC)
    words = {
        "code": "K7QM", "item": None, "skill": "medic", "quantity": 2, "start": start, "end": start + timedelta(hours=12),
        "until": start + timedelta(minutes=30), "distance_km": 2.4,
    }  # fmt: skip
    jakarta = words_of(**words, zone="Asia/Jakarta", language="id")
    assert (jakarta["when"], jakarta["until"]) == ("24/11 09.10 - 21.10 WIB", "09.40 WIB")
    assert "2 km" in jakarta["where"]
    papua = words_of(**words, zone="Asia/Jayapura", language="en")
    assert papua["when"] == "24/11 11.10 - 23.10 WIT" and papua["what"] != jakarta["what"]


# Through the services


async def patiently(call: Callable[[], Awaitable[httpx.Response]], seconds: float = 120) -> httpx.Response:
    """The answer of a call that may be sent again, once the machine has time for it: 503 says nothing was stored."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = await call()
        if answer.status_code != 503 or asyncio.get_running_loop().time() > deadline:
            return answer


class Talk:
    """The registry and matching, each fed with what the other said; and a person's texts as intake would tell them."""

    def __init__(self, registry: Database, matching: Database, client: httpx.AsyncClient) -> None:
        self.db = registry
        self.client = client
        self.plan = Matching(matching, registry)
        self.wire = Wire(consumer, registry)
        self.heard = 0

    async def responder(self, phone: str = "0813-9876-5432", **changes) -> UUID:
        order = SITI | {"phone": phone, "skills": ["medic"]} | changes
        answer = await patiently(lambda: self.client.post("/v1/responders", json=order, headers=DESK))
        assert answer.status_code in (200, 201), answer.text
        return UUID(answer.json()["responder_id"])

    async def pass_on(self) -> None:
        """Let both hear of each other until neither has anything more to say."""
        moved = True
        while moved:
            moved = await self.plan.feed() > 0
            events = (await emitted(self.plan.db))[self.heard :]
            self.heard += len(events)
            for event in events:
                if event.topic in consumer.topics:
                    await self.wire.deliver(
                        event, id=event.meta.id, sequence=event.meta.sequence, source=event.meta.source
                    )
                    moved = True

    async def offered(self, **need) -> OfferMade:
        """A need, planned; the offer that was made of it to the one responder."""
        await self.pass_on()
        asked_for = await self.plan.need("medic", **need)
        await self.plan.asked(asked_for)
        (offer,) = [o for o in await emitted(self.plan.db, OfferMade) if o.need_id == asked_for.need_id]
        await self.pass_on()
        return offer

    async def asked_too(self, offer: OfferMade, hours: float) -> OfferMade:
        """A second question to the same person, which the planner would not put by itself, so many hours later."""
        need = await self.plan.need("medic", start=offer.window.start + timedelta(hours=hours))
        async with self.plan.db.tx() as tx:
            held = await actions.hold(tx, [need.need_id])
            ask = offer_writes.Ask(
                need.need_id, offer.responder_id, None, None, 1, start=need.window.start, end=need.window.end
            )
            await offer_writes.make_offers(tx, held, [ask], by="system:test", reason=None, settings=MatchingSettings())
            await actions.put_back(tx, held.values())
        (second,) = [o for o in await emitted(self.plan.db, OfferMade) if o.need_id == need.need_id]
        await self.pass_on()
        return second

    async def text(self, intent: str, phone: str = "0813-9876-5432", **changes) -> MessageReceived:
        contact = vault.contact_id(vault.normal_number(phone))
        values = {
            "contact_id": contact, "message_id": uuid4(), "channel": "sms", "intent": intent,
            "received_at": clock.now(),
        }  # fmt: skip
        event = MessageReceived(**values | changes)
        await self.wire.deliver(event, id=str(event.message_id))
        return event

    async def answers(self) -> list[AnswerGiven]:
        return await emitted(self.db, AnswerGiven)

    async def written(self) -> list[tuple[str, str]]:
        """Template and kind of every message that the registry wrote down, oldest first."""
        async with self.db.tx() as tx:
            rows = await tx.fetch("SELECT template, kind FROM outbound WHERE kind <> 'code' ORDER BY seq")
        return [(row["template"], row["kind"]) for row in rows]

    async def code(self, offer: OfferState) -> str:
        async with self.db.tx() as tx:
            return str(await tx.fetchval("SELECT code FROM offer WHERE offer_id = $1", offer.offer_id))

    async def state(self, offer: OfferState) -> str:
        async with self.plan.db.tx() as tx:
            return str(await tx.fetchval("SELECT state FROM offer WHERE offer_id = $1", offer.offer_id))

    async def send(self) -> None:
        settings = ChannelSettings(quiet_from=0, quiet_until=0)
        async with httpx.AsyncClient() as http:
            while await Sender(self.db, settings, http, notices.tell).round(500):
                pass


@pytest.fixture
def talk(make_db, make_client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Talk:
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    return Talk(make_db("registry"), make_db("matching"), make_client([service]))


async def test_a_yes_by_message_becomes_an_assignment_and_they_are_told(talk):
    who = await talk.responder()
    offer = await talk.offered()
    assert await talk.written() == [("offer", "notice")]
    said = await talk.text("yes")
    (given,) = await talk.answers()
    assert (given.offer_id, given.responder_id, given.accepted, given.message_id) == (
        offer.offer_id, who, True, said.message_id,
    )  # fmt: skip
    await talk.pass_on()
    assert await talk.state(offer) == "accepted"
    async with talk.plan.db.tx() as tx:
        row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", offer.offer_id)
    assert row["by"] == f"responder:{who}" and row["quantity"] == offer.quantity
    assert await talk.written() == [("offer", "notice"), ("offer_accepted", "reply")]


async def test_a_no_by_message_declines_and_they_are_thanked(talk):
    await talk.responder()
    offer = await talk.offered()
    await talk.text("no", codes=(await talk.code(offer),))
    await talk.pass_on()
    assert await talk.state(offer) == "declined"
    assert (await talk.written())[-1] == ("offer_declined", "reply")


@pytest.mark.parametrize("intent", ["unsure", "report", "status", "received", "not_received"])
async def test_no_other_intent_ever_answers_an_offer(talk, intent):
    await talk.responder()
    offer = await talk.offered()
    await talk.text(intent, codes=(await talk.code(offer),), quantity=1)
    await talk.pass_on()
    assert await talk.answers() == [] and await talk.state(offer) == "made"
    assert await talk.written() == [("offer", "notice")]


async def test_with_two_open_offers_they_are_asked_which_and_the_code_decides(talk):
    await talk.responder()
    first = await talk.offered()
    second = await talk.asked_too(first, hours=12)
    await talk.text("yes")
    await talk.pass_on()
    assert await talk.answers() == []
    assert (await talk.written())[-1] == ("which_offer", "reply")
    await talk.text("yes", codes=(await talk.code(second),))
    await talk.pass_on()
    assert (await talk.state(first), await talk.state(second)) == ("made", "accepted")


async def test_more_than_was_asked_is_asked_back(talk):
    await talk.responder()
    offer = await talk.offered()
    await talk.text("yes", quantity=offer.quantity + 1)
    await talk.pass_on()
    assert await talk.answers() == [] and await talk.state(offer) == "made"
    assert (await talk.written())[-1] == ("how_many", "reply")


async def test_a_wrong_number_never_learns_who_else_was_asked(talk):
    """A stranger with somebody's code, a stranger without one, and a responder without an offer are told the same."""
    await talk.responder()
    offer = await talk.offered()
    await talk.responder("0812-0000-0001", skills=["cook"], location={"lon": 140.7, "lat": -2.5})
    code = await talk.code(offer)
    with_code = await talk.text("yes", "0856-1111-2222", codes=(code,))
    without = await talk.text("yes", "0856-1111-3333")
    failed = await emitted(talk.db, NoticeFailed)
    assert [(f.template, f.reason, f.about, f.reply_to) for f in failed] == [
        ("no_open_offer", "no address", None, with_code.message_id),
        ("no_open_offer", "no address", None, without.message_id),
    ]
    await talk.text("yes", "0812-0000-0001", codes=(code,))
    assert (await talk.written())[-1] == ("no_open_offer", "reply")
    await talk.pass_on()
    assert await talk.answers() == [] and await talk.state(offer) == "made"


async def test_repeats_and_late_arrivals_change_nothing(talk):
    await talk.responder()
    offer = await talk.offered()
    now = clock.now()
    yes = await talk.text("yes", sent_at=now)
    await talk.wire.deliver(yes, id=str(yes.message_id))
    await talk.text("yes", sent_at=now + timedelta(seconds=5))
    await talk.text("no", sent_at=now - timedelta(minutes=2))  # was written before the yes, and came after it
    await talk.pass_on()
    await talk.text("yes", sent_at=now + timedelta(seconds=9))
    await talk.pass_on()
    (given,) = await talk.answers()
    assert given.accepted and await talk.state(offer) == "accepted"
    assert await talk.written() == [("offer", "notice"), ("offer_accepted", "reply")]
    # The answer itself, delivered to matching once more under another id, is the same yes.
    before = await emitted(talk.plan.db)
    await talk.plan.wire.deliver(given, id="again")
    assert await emitted(talk.plan.db) == before


async def test_who_changes_their_mind_is_told_how_and_stays_assigned(talk):
    await talk.responder()
    offer = await talk.offered()
    await talk.text("yes")
    await talk.pass_on()
    clock.shift(timedelta(minutes=1))
    await talk.text("no")
    await talk.pass_on()
    assert await talk.state(offer) == "accepted" and len(await talk.answers()) == 1
    assert (await talk.written())[-1] == ("answered_before", "reply")


async def test_a_yes_that_comes_too_late_is_told_so(talk):
    await talk.responder()
    offer = await talk.offered()
    await talk.send()
    async with talk.plan.db.tx() as tx:
        need = await actions.hold_one(tx, offer.need_id)
        row = await tx.fetchrow("SELECT * FROM offer WHERE offer_id = $1", offer.offer_id)
        await offer_writes.close_offers(tx, {need.need_id: need}, [row], "withdrawn", by="system:test", reason="met")
        await actions.put_back(tx, [need])
    await talk.text("yes")  # while the registry has not heard of it
    await talk.pass_on()
    assert await talk.state(offer) == "withdrawn"
    assert (await talk.written())[-1] == ("offer_over", "reply")


async def test_a_yes_that_cannot_be_kept_takes_the_offer_back_and_says_so(talk):
    """Over HTTP it would be 409 `need-met`."""
    await talk.responder()
    offer = await talk.offered()
    await talk.send()
    async with talk.db.tx() as tx:
        await tx.execute("UPDATE offer SET quantity = 9")  # as the registry knew it before it was changed
    await talk.text("yes", quantity=7)
    await talk.pass_on()
    assert [given.quantity for given in await talk.answers()] == [7]
    assert await talk.state(offer) == "withdrawn"
    assert (await talk.written())[-1] == ("offer_over", "reply")


async def test_nobody_is_assigned_twice_at_one_time_by_two_yeses(talk):
    """Over HTTP the second would be 409 `busy`."""
    await talk.responder()
    first = await talk.offered()
    second = await talk.asked_too(first, hours=1)
    for offer in (first, second):
        await talk.text("yes", codes=(await talk.code(offer),))
    await talk.pass_on()
    assert (await talk.state(first), await talk.state(second)) == ("accepted", "withdrawn")
    assert [t for t, kind in await talk.written() if kind == "reply"] == ["offer_accepted", "offer_over"]


async def test_an_answer_about_somebody_elses_offer_is_refused(talk):
    await talk.responder()
    offer = await talk.offered()
    given = AnswerGiven(
        offer_id=offer.offer_id, need_id=offer.need_id, responder_id=uuid4(), accepted=True, channel="sms",
        message_id=uuid4(), operation=offer.operation,
    )  # fmt: skip
    await talk.plan.wire.deliver(given)
    assert await talk.state(offer) == "made"
    async with talk.plan.db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM quarantine") == 1


async def test_an_offer_that_is_withdrawn_before_it_was_sent_is_never_sent(talk):
    await talk.responder()
    offer = await talk.offered()
    gone = OfferState.__subclasses__()
    withdrawn = next(model for model in gone if model.type.endswith("withdrawn.v1"))
    event = withdrawn(**offer.model_dump() | {"state": "withdrawn", "by": "system:test"})
    await talk.wire.deliver(event, sequence=offer.meta.sequence + 1, source=offer.meta.source)
    await talk.send()
    async with talk.db.tx() as tx:
        rows = await tx.fetch("SELECT template, state FROM outbound WHERE kind = 'notice'")
    assert [(row["template"], row["state"]) for row in rows] == [("offer", "dropped")]


async def test_what_became_of_a_notice_is_told_once_whatever_receipts_come(talk):
    await talk.responder()
    offer = await talk.offered()
    await talk.send()
    (sent,) = await emitted(talk.db, NoticeSent)
    assert (sent.about, sent.template, sent.delivered) == (offer.offer_id, "offer", False)
    for said in ("delivered", "sent", "delivered", "failed"):
        receipt = ReceiptNoted(contact_id=sent.contact_id, outbound_id=sent.notice_id, said=said)
        await talk.wire.deliver(receipt)
    strange = ReceiptNoted(contact_id=sent.contact_id, outbound_id=uuid4(), said="delivered")
    await talk.wire.deliver(strange)
    assert [event.delivered for event in await emitted(talk.db, NoticeSent)] == [False, True]
    assert await emitted(talk.db, NoticeFailed) == []


async def test_stop_ends_offers_by_message_and_a_drill_says_latihan(talk, tmp_path):
    await talk.responder()
    offer = await talk.offered()
    drill = OfferMade(**offer.model_dump() | {"offer_id": uuid4(), "exercise": True, "operation": "latihan"})
    await talk.wire.deliver(drill)
    await talk.send()
    text = (tmp_path / "messages" / "registry.jsonl").read_text("utf-8")
    assert text.count("Balas YA") == 2 and text.count("LATIHAN. Bisa bantu") == 1
    await talk.text("stop")
    await talk.wire.deliver(OfferMade(**offer.model_dump() | {"offer_id": uuid4()}))
    assert [template for template, _ in await talk.written()] == ["offer", "offer"]


async def test_neither_name_nor_number_stands_in_what_is_told(talk):
    await talk.responder()
    await talk.offered()
    await talk.text("yes", codes=("Z9ZZ",))
    await talk.send()
    for event in await emitted(talk.db):
        payload = event.to_bytes().decode()
        assert "9876" not in payload and "Siti" not in payload
    assert outbound.Change.__dataclass_fields__.keys().isdisjoint({"to", "text", "values"})
