"""Promises that are asked back for graver needs: a request with a reason, never of somebody on scene."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.assignments import AssignmentMade, AssignmentReleaseRequested
from schemas.needs import NeedWithdrawn
from schemas.responders import Skill
from services.matching import assignment_writes, release
from services.matching.handlers import consumer
from services.matching.problem import Scope
from services.runtime import clock
from tests.conftest import Wire, emitted
from tests.matching.factories import (
    SETTINGS,
    assert_books_hold,
    feed,
    ledger_of,
    make_need,
    make_responder,
    plan,
    rows,
)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


async def ask_back(db):
    return await release.ask_back(db, Scope(exercise=False), SETTINGS)


async def promised(wire, db, *, severity=2, state="made", people=1):
    """A need and those who promised to serve it, by assignment."""
    need = make_need(severity=severity, quantity=people)
    await feed(wire, need, *[make_responder() for _ in range(people)])
    await plan(db)
    found = [row["offer_id"] for row in await rows(db, "SELECT offer_id FROM offer WHERE state = 'made'")]
    for one in found:
        async with db.tx() as tx:
            await assignment_writes.accept(tx, one, None, by="responder:x")
            if state != "made":
                await assignment_writes.advance(tx, one, state, by="responder:x")
    return need, found


async def lacking(wire, db, **values):
    """A need for which life is at risk and whom nobody free can serve."""
    need = make_need(severity=4, **values)
    await feed(wire, need)
    assert await plan(db) == 0
    return need


@pytest.mark.parametrize("state", ["made", "started"])
async def test_who_serves_a_lesser_need_is_asked_back_and_the_promise_stands_until_they_give_it_up(wire, db, state):
    lesser, (held,) = await promised(wire, db, state=state)
    grave = await lacking(wire, db, place="Kampung Melayu")
    assert await ask_back(db) == 1
    assert await ask_back(db) == 0, "asked once"
    (told,) = await emitted(db, AssignmentReleaseRequested)
    assert (told.assignment_id, told.by, told.state) == (held, "system:planner", state)
    assert told.reason == "life is at risk elsewhere: medic at Kampung Melayu, and nobody else can go"
    assert (await ledger_of(db, grave.need_id))["open"] == 1
    await assert_books_hold(db)
    async with db.tx() as tx:
        await assignment_writes.abandon(tx, held, None, by="responder:x", settings=SETTINGS)
    assert await plan(db) == 1
    assert (await ledger_of(db, grave.need_id))["offered"] == 1
    assert await ledger_of(db, lesser.need_id) == {"needed": 1, "open": 1}
    await assert_books_hold(db)


@pytest.mark.parametrize(("severity", "state"), [(3, "made"), (4, "made"), (1, "arrived"), (2, "arrived")])
async def test_nobody_on_scene_or_of_a_serious_need_is_asked_back(wire, db, severity, state):
    await promised(wire, db, severity=severity, state=state)
    await lacking(wire, db)
    assert await ask_back(db) == 0
    assert await emitted(db, AssignmentReleaseRequested) == []


async def test_only_as_many_are_asked_back_as_are_lacking_and_fit(wire, db):
    await promised(wire, db, people=3)
    grave = await lacking(wire, db, quantity=2)
    await lacking(wire, db, skill="diver")
    assert await ask_back(db) == 2
    asked = await rows(db, "SELECT release_for FROM assignment WHERE release_asked_at IS NOT NULL")
    assert [row["release_for"] for row in asked] == [grave.need_id] * 2
    # Whoever does not react is not waited for: the next is asked, once.
    clock.shift(timedelta(minutes=16))
    assert await ask_back(db) == 1
    clock.shift(timedelta(minutes=16))
    assert await ask_back(db) == 0


async def test_who_sets_out_all_the_same_is_not_asked_again(wire, db):
    _, (held,) = await promised(wire, db)
    await lacking(wire, db)
    assert await ask_back(db) == 1
    async with db.tx() as tx:
        await assignment_writes.advance(tx, held, "started", by="responder:x")
    clock.shift(timedelta(minutes=16))
    assert await ask_back(db) == 0


@pytest.mark.parametrize("how", ["withdrawn", "served"])
async def test_a_request_is_taken_back_when_its_need_is_met_otherwise(wire, db, how):
    _, (held,) = await promised(wire, db)
    grave = await lacking(wire, db)
    assert await ask_back(db) == 1
    if how == "withdrawn":
        await feed(wire, make_need(NeedWithdrawn, **{**grave.model_dump(), "status": "withdrawn"}))
    else:
        await feed(wire, make_responder(skills=(Skill(skill="medic", level=1),)))
        assert await plan(db) == 1
    assert await ask_back(db) == 0
    (row,) = await rows(db, "SELECT * FROM assignment WHERE assignment_id = $1", held)
    assert (row["state"], row["release_asked_at"], row["release_for"]) == ("made", None, grave.need_id)
    assert (await emitted(db, AssignmentMade))[-1].reason == "it is met otherwise"
    await assert_books_hold(db)
