"""Whom else is asked: beyond what is wanted when answers are slow, by the chance of a yes, and not too often a day."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.needs import NeedAmended
from schemas.offers import OfferWithdrawn
from schemas.responders import ResponderUpdated, Skill
from schemas.values import Point
from services.matching import assignment_writes, domain, offer_writes, planner
from services.matching.handlers import consumer
from services.matching.problem import Scope
from services.matching.settings import MatchingSettings
from services.matching.widen import widen as widen_once
from services.runtime import clock
from tests.conftest import Wire, emitted
from tests.matching.factories import (
    LAT,
    LON,
    SETTINGS,
    assert_books_hold,
    feed,
    ledger_of,
    make_need,
    make_responder,
    plan,
    rows,
)

LIFE = Scope(exercise=False)
SLOW = timedelta(minutes=SETTINGS.widen_minutes[3], seconds=1)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


async def open_offers(db):
    return await rows(db, "SELECT * FROM offer WHERE state = 'made' ORDER BY offer_id")


async def widen(db, settings=SETTINGS):
    return await widen_once(db, LIFE, settings)


async def say(db, offer, *, yes):
    async with db.tx() as tx:
        if yes:
            await assignment_writes.accept(tx, offer["offer_id"], None, by="responder:x")
        else:
            await offer_writes.decline(tx, offer["offer_id"], None, by="responder:x", settings=SETTINGS)


@given(left=st.integers(1, 50), asked=st.integers(0, 200), share=st.floats(0, 1), most=st.floats(1, 5))
def test_more_are_asked_only_while_too_few_yeses_are_likely_and_within_the_limit(left, asked, share, most):
    more = domain.more_to_ask(left, asked, asked * share, most)
    assert more >= 0
    assert more == 0 or asked + more <= most * left
    assert more == 0 or asked * share < left
    assert asked * share < left or more == 0


async def test_slow_answers_widen_the_question_and_the_last_yes_ends_it(wire, db):
    need = make_need(severity=4, quantity=2)
    await feed(wire, need, *[make_responder() for _ in range(6)])
    await plan(db)
    assert await widen(db) == 0, "the first have the question to themselves for a while"
    clock.shift(SLOW)
    assert await widen(db) == 2, "two of two at even chances make one yes likely: one more yes is two more people"
    assert await widen(db) == 0, "it is enough for now"
    assert await ledger_of(db, need.need_id) == {"needed": 2, "offered": 2, "asked": 4}
    await plan(db, anyway=True)
    await feed(wire, make_need(NeedAmended, **{**need.model_dump(), "severity": 3}))
    await plan(db)
    assert len(await open_offers(db)) == 4, "neither a plan nor an amendment takes the questions back"
    first, _, _, last = await open_offers(db)
    await say(db, last, yes=True)
    await plan(db)
    assert (await ledger_of(db, need.need_id))["committed"] == 1
    await assert_books_hold(db)
    await say(db, first, yes=True)
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 2}
    assert await open_offers(db) == []
    assert "the need is met" in {event.reason for event in await emitted(db, OfferWithdrawn)}
    await assert_books_hold(db)


async def test_each_no_is_replaced_at_once_and_never_by_more_than_the_limit(wire, db):
    need = make_need(severity=4)
    await feed(wire, need, *[make_responder() for _ in range(12)])
    await plan(db)
    for _ in range(4):
        (offer, *_) = await open_offers(db)
        await say(db, offer, yes=False)
        await plan(db)
        clock.shift(SLOW)
        await widen(db)
        assert 1 <= len(await open_offers(db)) <= SETTINGS.most_asked
        await assert_books_hold(db)
    assert len({row["responder_id"] for row in await rows(db, "SELECT * FROM offer")}) >= 5


async def test_who_is_asked_beyond_what_is_wanted_is_free_for_another_need(wire, db):
    need = make_need(severity=4)
    await feed(wire, need, make_responder(), make_responder())
    await plan(db)
    clock.shift(SLOW)
    assert await widen(db) == 1
    (extra,) = [row for row in await open_offers(db) if row["extra"]]
    other = make_need(severity=2)
    await feed(wire, other)
    assert await plan(db) == 1
    assert {(row["need_id"], row["extra"]) for row in await open_offers(db)} == {
        (need.need_id, False), (other.need_id, False),
    }  # fmt: skip
    (moved,) = [row for row in await open_offers(db) if row["need_id"] == other.need_id]
    assert moved["responder_id"] == extra["responder_id"]
    assert await widen(db) == 0
    await assert_books_hold(db)


async def test_who_mostly_says_yes_is_asked_before_who_mostly_does_not(wire, db):
    willing, unwilling = make_responder(), make_responder()
    await feed(wire, willing, unwilling)
    for _ in range(3):
        need = make_need(quantity=2)
        await feed(wire, need)
        await plan(db)
        for offer in await open_offers(db):
            await say(db, offer, yes=offer["responder_id"] == willing.responder_id)
        (busy,) = await rows(db, "SELECT assignment_id FROM assignment WHERE state = 'made'")
        async with db.tx() as tx:
            await assignment_writes.advance(tx, busy["assignment_id"], "delivered", by="responder:x")
        clock.shift(timedelta(hours=9))
    counted = await rows(db, "SELECT responder_id, said_yes, said_no FROM responder")
    assert {row["responder_id"]: (row["said_yes"], row["said_no"]) for row in counted} == {
        willing.responder_id: (3, 0), unwilling.responder_id: (0, 3),
    }  # fmt: skip
    # What they said is ours, not the registry's: an update of theirs leaves it.
    await feed(wire, *[make_responder(ResponderUpdated, responder_id=r.responder_id) for r in (willing, unwilling)])
    clock.shift(timedelta(hours=30))
    await feed(wire, make_need())
    await plan(db)
    (offer,) = [row for row in await open_offers(db) if row["quantity"] == 1 and row["made_at"] >= clock.now() - SLOW]
    assert offer["responder_id"] == willing.responder_id


async def test_nobody_is_asked_more_often_a_day_than_the_cap(wire, db):
    settings = MatchingSettings(asked_a_day=2)
    one = make_responder()
    await feed(wire, one, make_responder(skills=(Skill(skill="driver", level=1),)))

    async def ask(**where):
        await feed(wire, make_need(**where))
        return await planner.plan_once(db, LIFE, settings)

    for _ in range(2):
        assert await ask() == 1
        (offer,) = await open_offers(db)
        await say(db, offer, yes=False)
    assert await ask(point=Point(lon=LON + 0.01, lat=LAT)) == 0
    clock.shift(timedelta(hours=4))
    assert await planner.plan_once(db, LIFE, settings, anyway=True) == 0
    clock.shift(timedelta(hours=21))
    assert await ask() == 1, "a day later they may be asked again"
    await assert_books_hold(db)
