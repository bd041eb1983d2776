"""The plan that a process keeps: it follows events without loading everything, and never differs from a full one."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from uuid import UUID

import pytest

from schemas.needs import NeedAmended, NeedWithdrawn
from schemas.operations import OperationOpened
from schemas.responders import ResponderUpdated, ResponderWithdrawn, Skill
from schemas.values import Point
from services.matching import assignment_writes, offer_writes, planner
from services.matching.handlers import consumer
from services.matching.planner import Planner
from services.matching.problem import Scope, load, solved
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.problems import DomainError
from tests.conftest import Wire
from tests.matching.factories import (
    LAT,
    LON,
    assert_books_hold,
    feed,
    ledger_of,
    make_lot,
    make_need,
    make_responder,
    rows,
    until,
)

APART = MatchingSettings(apart_from=0)
LIFE = Scope(exercise=False)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


@asynccontextmanager
async def keeping(db):
    one = Planner(db, LIFE, APART)
    try:
        yield one
    finally:
        await one.forget()


async def open_offers(db):
    return await rows(db, "SELECT * FROM offer WHERE state = 'made' ORDER BY offer_id")


async def answer(db, offer, *, yes=True):
    async with db.tx() as tx:
        if yes:
            return await assignment_writes.accept(tx, offer["offer_id"], None, by="responder:x")
        return await offer_writes.decline(tx, offer["offer_id"], None, by="responder:x", settings=APART)


async def work(one):
    """Let the planner do all that is due, until no full plan is on its way."""

    async def idle():
        return await one.step() is None and one.settled

    await until(idle, seconds=60)


async def test_needs_declines_and_drop_outs_are_followed_without_a_full_plan(wire, db):
    near, far = make_responder(), make_responder(travel_limit_km=50)
    rest = [make_responder(skills=(Skill(skill="driver", level=1),)) for _ in range(3)]
    await feed(wire, near, far, *rest, make_need(skill="driver"))
    async with keeping(db) as one:
        assert await one.step() == 1
        need = make_need()
        await feed(wire, need)
        assert await one.step() == 1
        first = (await open_offers(db))[-1]
        assert first["need_id"] == need.need_id
        assert set(first["parts"]) and first["arrives_at"] and first["distance_km"] is not None
        await answer(db, first, yes=False)
        assert await one.step() == 1
        second = (await open_offers(db))[-1]
        assert {first["responder_id"], second["responder_id"]} == {near.responder_id, far.responder_id}
        await feed(wire, make_responder(ResponderWithdrawn, responder_id=second["responder_id"], status="withdrawn"))
        assert await one.step() == 0
        late = make_responder()
        await feed(wire, late)
        assert await one.step() == 1
        third = (await open_offers(db))[-1]
        assert third["responder_id"] == late.responder_id
        await answer(db, third)
        assert await one.step() == 0
        assert one.steps["followed"] >= 5
        assert one.steps["here"] == 0
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    await assert_books_hold(db)


async def test_a_yes_takes_its_own_units_out_of_the_plan_and_moves_no_other_question(wire, db):
    lots = [make_lot(quantity=4), make_lot(quantity=4)]
    need = make_need(item="boat", unit="unit", quantity=7)
    await feed(wire, *lots, need)
    async with keeping(db) as one:
        assert await one.step() == 2
        before = await open_offers(db)
        await answer(db, before[0])
        await work(one)
        assert await open_offers(db) == before[1:]
        await answer(db, before[1])
        await work(one)
    assert await ledger_of(db, need.need_id) == {"needed": 7, "committed": 7}
    await assert_books_hold(db)


async def test_a_graver_need_takes_an_open_question_from_a_lesser_one(wire, db):
    minor = make_need(severity=1)
    await feed(wire, minor, make_responder())
    async with keeping(db) as one:
        await one.step()
        grave = make_need(severity=4, point=Point(lon=LON + 0.15, lat=LAT))
        await feed(wire, grave)
        assert await one.step() == 1
        assert [row["need_id"] for row in await open_offers(db)] == [grave.need_id]
    assert await ledger_of(db, minor.need_id) == {"needed": 1, "open": 1}
    await assert_books_hold(db)


async def test_what_only_full_plans_decide_is_decided_by_the_next_one(wire, db):
    await feed(wire, make_need(skill="driver"), make_responder(skills=(Skill(skill="driver", level=1),)))
    async with keeping(db) as one:
        await one.step()
        need = make_need(quantity=3)
        await feed(wire, make_responder(kind="team", capacity=4), need)
        await work(one)
        assert one.steps["apart"] >= 2
    assert await ledger_of(db, need.need_id) == {"needed": 3, "offered": 3, "asked": 3}
    await assert_books_hold(db)


async def test_a_planner_whose_memory_is_older_than_the_tables_plans_anew(wire, db):
    await feed(wire, *[make_responder() for _ in range(4)], make_need())
    async with keeping(db) as one, keeping(db) as two:
        assert await one.step() == 1
        await feed(wire, make_need())
        assert await two.step() == 1
        await feed(wire, make_need())
        assert await one.step() == 1
        assert one.steps["apart"] == 2
    assert len({row["responder_id"] for row in await open_offers(db)}) == 3
    await assert_books_hold(db)


async def test_a_planning_process_that_dies_loses_nothing(wire, db):
    await feed(wire, *[make_responder() for _ in range(3)], make_need())
    async with keeping(db) as one:
        await one.step()
        need = make_need()
        await feed(wire, need)
        assert one._memory is not None
        os.kill(one._memory.process.pid, signal.SIGKILL)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await one.step()
        assert await one.step() == 1
    assert (await ledger_of(db, need.need_id))["offered"] == 1
    await assert_books_hold(db)


async def test_the_planner_that_takes_over_goes_on_where_the_other_stopped(wire, db, monkeypatch):
    monkeypatch.setenv("GOTONG_MATCHING_APART_FROM", "0")
    await feed(wire, *[make_responder() for _ in range(6)])

    async def offered(need):
        await until(lambda: rows(db, "SELECT 1 FROM offer WHERE need_id = $1", need.need_id), seconds=20)

    stops = [asyncio.Event(), asyncio.Event()]
    tasks = [asyncio.create_task(planner.run(db, stop)) for stop in stops]
    try:
        for k in range(3):
            need = make_need()
            await feed(wire, need)
            await offered(need)
            if k == 1:
                # Whichever leads, the other is there when it goes.
                stops[0].set()
                await tasks[0]
    finally:
        for stop, task in zip(stops, tasks, strict=True):
            stop.set()
            await task
    assert len(await open_offers(db)) == 3
    await assert_books_hold(db)


async def test_a_responder_whom_two_operations_want_is_asked_by_one(wire, db):
    now = clock.now()
    for name in ("banjir-a", "banjir-b"):
        await feed(
            wire, OperationOpened(operation=name, title=name, timezone="Asia/Jakarta", opened_at=now, by="operator:x")
        )
    lesser, graver = make_need(operation="banjir-a", severity=2), make_need(operation="banjir-b", severity=4)
    await feed(wire, make_responder(), lesser, graver)
    planners = [Planner(db, LIFE, APART) for _ in range(3)]
    try:
        await asyncio.gather(*[one.step() for one in planners])
    finally:
        for one in planners:
            await one.forget()
    assert [row["need_id"] for row in await open_offers(db)] == [graver.need_id]
    await assert_books_hold(db)


@pytest.mark.parametrize("seed", [1, 2])
async def test_after_any_events_what_is_asked_is_what_a_full_plan_would_serve(wire, db, seed):
    r = random.Random(seed)

    def place():
        return Point(lon=LON + r.uniform(-0.1, 0.1), lat=LAT + r.uniform(-0.1, 0.1))

    people = [make_responder() for _ in range(12)]
    lots = [make_lot(quantity=r.randint(1, 9), point=place()) for _ in range(4)]
    needs = []
    await feed(wire, *people, *lots, make_need(item="boat", unit="unit"), make_need())
    async with keeping(db) as one:
        await one.step()
        for _ in range(40):
            what = r.choice(("need", "stock", "amend", "withdraw", "yes", "no", "no", "leave", "come", "count", "go"))
            offers = await open_offers(db)
            if what == "need":
                needs.append(make_need(severity=r.randint(1, 4), quantity=r.randint(1, 3), point=place()))
                await feed(wire, needs[-1])
            elif what == "stock":
                needs.append(make_need(item="boat", unit="unit", quantity=r.randint(1, 6), severity=r.randint(1, 4)))
                await feed(wire, needs[-1])
            elif what == "amend" and needs:
                k = r.randrange(len(needs))
                values = {**needs[k].model_dump(), "quantity": r.randint(1, 6)}
                needs[k] = make_need(NeedAmended, **values)
                await feed(wire, needs[k])
            elif what == "withdraw" and needs:
                gone = needs.pop(r.randrange(len(needs)))
                await feed(wire, make_need(NeedWithdrawn, **{**gone.model_dump(), "status": "withdrawn"}))
            elif what in ("yes", "no") and offers:
                with suppress(DomainError):
                    await answer(db, r.choice(offers), yes=what == "yes")
            elif what == "leave" and people:
                gone = people.pop(r.randrange(len(people)))
                await feed(wire, make_responder(ResponderWithdrawn, responder_id=gone.responder_id, status="withdrawn"))
            elif what == "come":
                people.append(make_responder())
                await feed(wire, people[-1])
            elif what == "count":
                lot = r.choice(lots)
                await feed(wire, make_lot(lot_id=lot.lot_id, quantity=r.randint(0, 9), point=lot.point))
            elif what == "go" and people:
                await feed(wire, make_responder(ResponderUpdated, responder_id=r.choice(people).responder_id))
            await one.step()
            await assert_books_hold(db)
        await work(one)
        assert one.steps["followed"] > 20
    async with db.tx() as tx:
        problem = await load(tx, LIFE, clock.now())
        best = solved(problem)
    asked: dict[UUID, int] = {}
    for (need_id, _), its in problem.asked.items():
        asked[need_id] = asked.get(need_id, 0) + sum(offer["quantity"] for offer in its)
    assert sum(asked.values()) == best.met
    short = dict.fromkeys((4, 3, 2, 1), 0)
    for line in problem.needs:
        short[line.severity] += line.quantity - asked.get(line.need_id, 0)
    assert short == best.unmet_by_severity
    await assert_books_hold(db)


async def test_full_plans_land_beside_the_followed_one(wire, db):
    await feed(wire, *[make_responder() for _ in range(8)], make_need())
    async with keeping(db) as one:
        await one.step()
        await feed(wire, make_need(quantity=30))
        await one.step()
        # Units stay unmet, so a full plan is on its way; what happens meanwhile is followed, and not lost by it.
        seen = 0
        for _ in range(3):
            need = make_need(severity=4)
            await feed(wire, need)
            await one.step()
            seen += bool(await rows(db, "SELECT 1 FROM offer WHERE need_id = $1", need.need_id))
        assert seen == 3
        await work(one)
        assert one.steps["apart"] >= 2
        clock.shift(timedelta(seconds=1))
    assert sum(row["quantity"] for row in await open_offers(db)) == 8
    await assert_books_hold(db)


async def test_the_same_events_told_again_in_other_batches_give_the_same_plan_byte_for_byte(wire, db):
    """Events of different subjects at one moment, in any order and cut anyhow: what was loaded decides, not the way."""
    r = random.Random(5)

    def place():
        return Point(lon=LON + r.uniform(-0.1, 0.1), lat=LAT + r.uniform(-0.1, 0.1))

    needs = [make_need(severity=r.randint(1, 4), quantity=r.randint(1, 3), point=place()) for _ in range(15)]
    needs += [make_need(item="boat", unit="unit", quantity=r.randint(1, 5), point=place()) for _ in range(8)]
    first = [*needs, *[make_responder() for _ in range(12)], *[make_lot(quantity=4, point=place()) for _ in range(3)]]
    amended = [make_need(NeedAmended, **{**need.model_dump(), "quantity": need.quantity + 1}) for need in needs[::3]]
    log = [wire.raw(event, sequence=1) for event in first] + [wire.raw(event, sequence=2) for event in amended]
    moment = clock.now()
    found = set()
    for _ in range(3):
        for batch in batches(log, r):
            await wire.deliver_raw(batch)
        async with db.tx() as tx:
            problem = await load(tx, LIFE, moment)
        found.add(solved(problem).to_bytes())
        async with db.tx() as tx:
            await tx.execute("TRUNCATE need, responder, lot, offer, assignment, refusal, change, unmet, outbox")
            await tx.execute("TRUNCATE inbox_state")
        # Any order between subjects; each subject's own events stay in theirs.
        early, late = log[: len(first)], log[len(first) :]
        r.shuffle(early)
        r.shuffle(late)
        log = early + late
    assert len(found) == 1


def batches(log, r):
    at = 0
    while at < len(log):
        size = r.randint(1, 9)
        yield log[at : at + size]
        at += size
