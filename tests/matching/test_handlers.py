"""What events do to needs, responders and stock, on real PostgreSQL; twice and out of order too."""

from __future__ import annotations

import pytest

from schemas.assignments import AssignmentMade
from schemas.ledger import LedgerChanged
from schemas.offers import OfferMade
from services.matching import actions
from services.matching.handlers import consumer
from tests.conftest import Wire, emitted
from tests.matching.factories import assert_books_hold, feed, ledger_of, make_need, make_responder, plan


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


async def test_a_need_and_responders_become_offers_and_an_assignment(wire, db):
    need = make_need(quantity=2)
    await feed(wire, need, *[make_responder() for _ in range(3)])
    assert await plan(db) == 2
    offers = await emitted(db, OfferMade)
    assert len(offers) == 2
    assert await ledger_of(db, need.need_id) == {"needed": 2, "offered": 2, "asked": 2}
    async with db.tx() as tx:
        await actions.accept(tx, offers[0].offer_id, None, by="responder:x")
    assert await ledger_of(db, need.need_id) == {"needed": 2, "offered": 1, "committed": 1, "asked": 1}
    (made,) = await emitted(db, AssignmentMade)
    assert made.assignment_id == offers[0].offer_id
    assert [e.cause for e in await emitted(db, LedgerChanged)] == ["declared", "offer made", "assignment made"]
    await assert_books_hold(db)
