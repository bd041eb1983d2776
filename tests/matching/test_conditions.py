"""What people said of rest, hours and where they must not be sent, and crews of boats, from event to question."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from schemas.operations import OperationOpened
from schemas.resources import Crew
from schemas.responders import ResponderWithdrawn, Skill
from schemas.values import Period
from services.matching import assignment_writes
from services.matching.actions import Busy
from services.matching.handlers import consumer
from services.matching.planner import Planner
from services.matching.problem import Scope
from services.runtime import clock
from services.runtime.db import Database, from_json
from tests.conftest import Wire
from tests.matching.factories import SETTINGS, feed, make_lot, make_need, make_responder, plan, rows

BOAT = (Crew(skill="boat_operator", people=1, level=2),)


@pytest.fixture
def db(make_db: Callable[[str], Database]) -> Database:
    return make_db("matching")


@pytest.fixture
def wire(db: Database) -> Wire:
    return Wire(consumer, db)


async def asked(db: Database, need: Any) -> set[UUID]:
    found = await rows(db, "SELECT * FROM offer WHERE need_id = $1 AND state = 'made'", need.need_id)
    return {row["responder_id"] or row["lot_id"] for row in found}


async def quantity(db: Database, need: Any) -> int:
    found = await rows(db, "SELECT quantity FROM offer WHERE need_id = $1 AND state = 'made'", need.need_id)
    return sum(row["quantity"] for row in found)


async def left_by(db: Database, need: Any, rule: str) -> int:
    """Who was left after this rule, as the explanation counts it."""
    (found,) = await rows(db, "SELECT filters FROM unmet WHERE need_id = $1", need.need_id)
    return int(dict(from_json(found["filters"]))[rule])


@pytest.mark.parametrize(
    ("avoids", "need", "goes"),
    [
        ({"avoids_hazards": ("flood",)}, {"hazard": "flood"}, False),
        ({"avoids_hazards": ("volcano",)}, {"hazard": "flood"}, True),
        ({"avoids_areas": ("kemendagri:31.75",)}, {"admin": "kemendagri:31.75.03"}, False),
        ({"avoids_areas": ("kemendagri:31.75",)}, {"admin": "kemendagri:31.74.03"}, True),
        # A need that names no hazard is of those of its operation.
        ({"avoids_hazards": ("flood",)}, {}, False),
        ({"avoids_hazards": ("flood",)}, {"hazard": "landslide"}, True),
    ],
)
async def test_nobody_is_asked_into_what_they_must_not_be_sent_into(wire, db, avoids, need, goes):
    opened = OperationOpened(
        operation="jakarta-flood-2026", title="Banjir Jakarta", hazards=("flood",), timezone="Asia/Jakarta",
        opened_at=clock.now(), by="admin:x",
    )  # fmt: skip
    one, other = make_responder(**avoids), make_need(**need)
    await feed(wire, opened, one, other)
    await plan(db)
    assert await asked(db, other) == ({one.responder_id} if goes else set())
    if not goes:
        assert (await left_by(db, other, "excluded"), await left_by(db, other, "conditions")) == (1, 0)


async def worked(wire: Wire, db: Database, who: Any, hours: float) -> None:
    """They did a piece of work that took so long and is over now."""
    begin = clock.now()
    done = make_need(window=Period(start=begin, end=begin + timedelta(hours=hours)))
    await feed(wire, done)
    async with db.tx() as tx:
        event = await assignment_writes.assign_by_hand(
            tx, done.need_id, who.responder_id, None, 1, "posko", by="operator:x", settings=SETTINGS
        )
        await assignment_writes.advance(tx, event.assignment_id, "started", by="operator:x")
    clock.shift(timedelta(hours=hours) - timedelta(seconds=5))
    async with db.tx() as tx:
        await assignment_writes.advance(tx, event.assignment_id, "delivered", by="operator:x")
    clock.shift(timedelta(seconds=5))


@pytest.mark.parametrize(
    ("own", "hours", "after_h", "goes"),
    [
        ({}, 2, 0, True),
        ({"rest_h": 3}, 2, 2, False),
        ({"rest_h": 3}, 2, 3.1, True),
        ({"rest_h": 48}, 2, 30, False),
        ({}, 9, 1, False),  # a long shift takes its usual rest
        ({"rest_h": 1, "max_hours_day": 24}, 9, 1.1, True),
        ({"max_hours_day": 5}, 2, 0, False),  # 2 and 4 are more than 5
        ({"max_hours_day": 6.1}, 2, 0, True),
    ],
)
async def test_rest_and_hours_are_held_as_they_said_them(wire, db, own, hours, after_h, goes):
    who = make_responder(**own)
    await feed(wire, who)
    await worked(wire, db, who, hours)
    begin = clock.now() + timedelta(hours=after_h)
    need = make_need(window=Period(start=begin, end=begin + timedelta(hours=4)))
    await feed(wire, need)
    await plan(db)
    assert await asked(db, need) == ({who.responder_id} if goes else set())


async def test_a_boat_is_promised_only_with_a_crew_of_its_holder(wire, db):
    boats = make_lot(kind="vehicle", quantity=3, crew=BOAT)
    stranger = make_responder(skills=(Skill(skill="boat_operator", level=3),), organisation="other")
    learner = make_responder(skills=(Skill(skill="boat_operator", level=1),), organisation="bpbd-dki")
    need = make_need(item="boat", skill=None, unit="unit", quantity=3)
    await feed(wire, boats, stranger, learner, need)
    await plan(db)
    assert await quantity(db, need) == 0
    assert (await left_by(db, need, "window"), await left_by(db, need, "crew")) == (1, 0)


async def test_a_kept_plan_sends_a_boat_as_soon_as_its_crew_is_there_and_not_when_it_is_gone(wire, db):
    boats = make_lot(kind="vehicle", quantity=3, crew=BOAT)
    need = make_need(item="boat", skill=None, unit="unit", quantity=3)
    await feed(wire, boats, need)
    planner = Planner(db, Scope(exercise=False), SETTINGS)
    try:
        await planner.step()
        assert await quantity(db, need) == 0
        crew = [
            make_responder(skills=(Skill(skill="boat_operator", level=2),), organisation="bpbd-dki") for _ in range(2)
        ]
        await feed(wire, *crew)
        await planner.step()
        assert await quantity(db, need) == 2
        gone = crew[0].model_dump(exclude={"meta"}) | {"status": "withdrawn"}
        await feed(wire, ResponderWithdrawn(**gone))
        await planner.step()
        await planner.step(anyway=True)
        assert await quantity(db, need) == 1
    finally:
        await planner.forget()


async def test_whoever_is_promised_something_themselves_is_no_crew_meanwhile(wire, db):
    boats = make_lot(kind="vehicle", quantity=1, crew=BOAT)
    pilot = make_responder(
        skills=(Skill(skill="boat_operator", level=2), Skill(skill="medic", level=3)), organisation="bpbd-dki"
    )
    await feed(wire, boats, pilot)
    await worked_at_now(wire, db, pilot)
    need = make_need(item="boat", skill=None, unit="unit", quantity=1)
    await feed(wire, need)
    await plan(db)
    assert await quantity(db, need) == 0


async def worked_at_now(wire: Wire, db: Database, who: Any) -> None:
    now = clock.now()
    busy = make_need(window=Period(start=now, end=now + timedelta(hours=4)))
    await feed(wire, busy)
    async with db.tx() as tx:
        await assignment_writes.assign_by_hand(
            tx, busy.need_id, who.responder_id, None, 1, "posko", by="operator:x", settings=SETTINGS
        )


async def test_what_is_only_pledged_is_promised_to_nobody(wire, db):
    pledge = make_lot(kind="pledge", quantity=10)
    need = make_need(item="boat", skill=None, unit="unit", quantity=3)
    await feed(wire, pledge, need)
    await plan(db)
    assert await quantity(db, need) == 0
    async with db.tx() as tx:
        with pytest.raises(Busy, match="pledge"):
            await assignment_writes.assign_by_hand(
                tx, need.need_id, None, pledge.lot_id, 1, "posko", by="operator:x", settings=SETTINGS
            )
    # What arrives of it is a stock.
    come = make_lot(quantity=2, pledge_id=pledge.lot_id)
    await feed(wire, come)
    await plan(db)
    assert await asked(db, need) == {come.lot_id}
