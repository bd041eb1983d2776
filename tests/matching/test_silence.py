"""Questions that nobody answers: the next person, then another organisation, then the dispatcher."""

from __future__ import annotations

from datetime import timedelta

import h3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.offers import OfferExpired
from schemas.values import Point
from services.matching import assignment_writes, domain, silence
from services.matching.handlers import consumer
from services.runtime import clock
from tests.conftest import Wire, emitted
from tests.matching.factories import (
    LAT,
    LON,
    SETTINGS,
    assert_books_hold,
    feed,
    make_lot,
    make_need,
    make_responder,
    plan,
    rows,
)

FAR = h3.latlng_to_cell(LAT + 0.12, LON, 8)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


async def asked(db):
    return await rows(db, "SELECT * FROM offer WHERE state = 'made' ORDER BY offer_id")


async def nobody_answers(db):
    """The questions end by the clock, and the planner asks further; who is asked then."""
    clock.shift(timedelta(minutes=16))
    async with db.tx() as tx:
        assert await silence.expire_offers(tx, limit=100, settings=SETTINGS) > 0
    await plan(db)
    await assert_books_hold(db)
    return await asked(db)


async def next_told(db):
    """Who was said to be next at each expiry, in order."""
    expired = await emitted(db, OfferExpired)
    assert [event.reason for event in expired] == [silence.UNANSWERED[event.next_asked] for event in expired]
    return [event.next_asked for event in expired]


@given(silent=st.integers(1, 20), of_one=st.integers(1, 20), others=st.booleans())
def test_the_dispatcher_comes_last_and_no_organisation_is_passed_over_for_nobody(silent, of_one, others):
    level = domain.next_to_ask(silent, min(of_one, silent), others=others, most_of_one=3, most_in_all=6)
    assert (level == "dispatcher") == (silent >= 6)
    assert level != "organisation" or (others and of_one >= 3)


async def test_after_some_of_an_organisation_were_silent_another_one_is_asked(wire, db):
    near = [make_responder(organisation="pmi-jakarta") for _ in range(5)]
    far = make_responder(organisation="basarnas", home_cell=FAR, travel_limit_km=30)
    need = make_need(severity=4)
    await feed(wire, need, *near, far)
    await plan(db)
    for _ in range(2):
        (offer,) = await nobody_answers(db)
        assert offer["organisation"] == "pmi-jakarta"
    (offer,) = await nobody_answers(db)
    assert offer["responder_id"] == far.responder_id, "though two of the first organisation are nearer"
    assert await next_told(db) == ["person", "person", "organisation"]
    # About another need they are asked as before.
    other = make_need(severity=3)
    await feed(wire, other)
    await plan(db)
    assert [row["organisation"] for row in await asked(db) if row["need_id"] == other.need_id] == ["pmi-jakarta"]
    # And about this one too, when the cool-down is over.
    clock.shift(timedelta(hours=SETTINGS.expired_hours, minutes=1))
    async with db.tx() as tx:
        await silence.expire_offers(tx, limit=100, settings=SETTINGS)
    await plan(db)
    assert {row["organisation"] for row in await asked(db) if row["need_id"] == need.need_id} == {"pmi-jakarta"}


async def test_the_only_organisation_is_not_passed_over_and_the_dispatcher_hears_of_it(wire, db):
    await feed(wire, make_need(severity=4), *[make_responder(organisation="pmi-jakarta") for _ in range(8)])
    await plan(db)
    for _ in range(6):
        (offer,) = await nobody_answers(db)
    assert offer["organisation"] == "pmi-jakarta"
    assert await next_told(db) == ["person"] * 5 + ["dispatcher"]


async def test_people_without_an_organisation_are_asked_one_after_the_other(wire, db):
    await feed(wire, make_need(severity=4), *[make_responder() for _ in range(5)])
    await plan(db)
    for _ in range(4):
        assert len(await nobody_answers(db)) == 1
    assert await next_told(db) == ["person"] * 4


async def test_a_yes_begins_the_count_anew(wire, db):
    need = make_need(severity=4, quantity=2)
    await feed(wire, need, *[make_responder(organisation="pmi-jakarta") for _ in range(9)], make_responder())
    await plan(db)
    first, _ = await nobody_answers(db)
    async with db.tx() as tx:
        await assignment_writes.accept(tx, first["offer_id"], None, by="responder:x")
    await plan(db)
    clock.shift(timedelta(seconds=1))
    await nobody_answers(db)
    assert "organisation" not in await next_told(db)


async def test_holders_of_stock_are_passed_over_as_well(wire, db):
    shelves = [make_lot(quantity=5, organisation="bpbd-dki") for _ in range(5)]
    far = Point(lon=LON, lat=LAT + 0.5)
    other = make_lot(quantity=5, organisation="pmi-jakarta", delivery_limit_km=300, point=far)
    await feed(wire, make_need(severity=4, item="boat", unit="unit"), *shelves, other)
    await plan(db)
    seen = [row["organisation"] for row in await asked(db)]
    for _ in range(3):
        seen += [row["organisation"] for row in await nobody_answers(db)]
    assert seen == ["bpbd-dki"] * 3 + ["pmi-jakarta"]
