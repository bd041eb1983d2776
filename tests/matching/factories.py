"""Events and clients for the tests of matching: valid by default, override what matters."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID, uuid4

import h3

from schemas.needs import NeedDeclared, NeedState
from schemas.resources import ResourceRegistered
from schemas.responders import ResponderConfirmed, ResponderState, Skill
from schemas.values import Period, Point
from services.matching.planner import plan_once
from services.matching.problem import Scope
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Database

LON, LAT = 106.866, -6.222  # Kampung Melayu
SETTINGS = MatchingSettings()
N = TypeVar("N", bound=NeedState)
R = TypeVar("R", bound=ResponderState)
T = TypeVar("T")
_sequence = itertools.count(1)


def after(event: Any) -> dict[str, Any]:
    """Delivery attributes with a sequence above all before it."""
    return {"sequence": next(_sequence)}


def make_need(model: type[N] = NeedDeclared, **values: Any) -> N:  # type: ignore[assignment]
    now = clock.now()
    if values.get("item") is None:
        values.setdefault("skill", "medic")
    values = {
        "need_id": uuid4(),
        "operation": "jakarta-flood-2026",
        "quantity": 1,
        "unit": "person",
        "severity": 3,
        "status": "declared",
        "point": Point(lon=LON, lat=LAT),
        "window": Period(start=now, end=now + timedelta(hours=6)),
        "declared_at": now,
        "by": "operator:tester",
        **values,
    }
    return model(**values)


def make_responder(model: type[R] = ResponderConfirmed, **values: Any) -> R:  # type: ignore[assignment]
    values = {
        "responder_id": uuid4(),
        "kind": "person",
        "status": "confirmed",
        "skills": (Skill(skill="medic", level=3),),
        "home_cell": h3.latlng_to_cell(LAT, LON, 8),
        "by": "field:desk",
        **values,
    }
    return model(**values)


def make_lot(model: Any = ResourceRegistered, **values: Any) -> Any:
    return model(
        **{
            "lot_id": uuid4(),
            "item": "boat",
            "quantity": 10,
            "unit": "unit",
            "point": Point(lon=LON + 0.01, lat=LAT),
            "organisation": "bpbd-dki",
            "by": "operator:tester",
            **values,
        }
    )


async def feed(wire: Any, *events: Any) -> None:
    """Deliver these events in one batch, each newer than all before."""
    await wire.deliver_raw([wire.raw(event, **after(event)) for event in events])


async def plan(db: Database, *, exercise: bool = False, anyway: bool = False) -> int | None:
    """Let the planner work once."""
    return await plan_once(db, Scope(exercise=exercise), SETTINGS, anyway=anyway)


async def ledger_of(db: Database, need_id: UUID) -> dict[str, int]:
    """The ledger's columns that are not zero."""
    names = (
        "needed", "open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled", "asked",
    )  # fmt: skip
    async with db.tx() as tx:
        row = await tx.fetchrow("SELECT * FROM need WHERE need_id = $1", need_id)
    assert row is not None
    return {name: row[name] for name in names if row[name]}


async def rows(db: Database, sql: str, *args: Any) -> list[dict[str, Any]]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch(sql, *args)]


async def until(condition: Callable[[], Awaitable[T]], seconds: float = 10) -> T:
    """What `condition` answers as soon as that is true."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        if found := await condition():
            return found
        assert asyncio.get_running_loop().time() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)


RECOUNT = """
    SELECT n.need_id, n.wanted, n.status, n.declared_at IS NOT NULL AS declared,
        n.needed, n.open, n.offered, n.committed, n.in_transit, n.delivered, n.confirmed, n.cancelled, n.asked,
        (SELECT coalesce(sum(quantity), 0) FROM offer o WHERE o.need_id = n.need_id AND state = 'made') AS r_asked,
        coalesce(sum(a.quantity) FILTER (WHERE a.state = 'made'), 0) AS r_committed,
        coalesce(sum(a.quantity) FILTER (WHERE a.state IN ('started', 'arrived')), 0) AS r_in_transit,
        coalesce(sum(a.quantity - a.confirmed) FILTER (WHERE a.state = 'delivered'), 0) AS r_delivered,
        coalesce(sum(a.confirmed) FILTER (WHERE a.state IN ('delivered', 'confirmed')), 0) AS r_confirmed
    FROM need n LEFT JOIN assignment a USING (need_id) GROUP BY n.need_id
"""


async def assert_books_hold(db: Database) -> None:
    """Every ledger balances and equals a recount from offers and assignments; nobody is in two places; no stock is
    promised beyond what is there, and what is reserved is what is promised."""
    for row in await rows(db, RECOUNT):
        for part in ("asked", "committed", "in_transit", "delivered", "confirmed"):
            assert row[part] == row[f"r_{part}"], (part, row)
        promised = row["committed"] + row["in_transit"] + row["delivered"] + row["confirmed"]
        live = row["declared"] and row["status"] != "draft"
        assert row["needed"] == (max(row["wanted"], promised) if live else promised), row
        assert row["needed"] == row["open"] + row["offered"] + promised + row["cancelled"], row
        assert row["offered"] == min(row["asked"], row["open"] + row["offered"]), row
        assert row["status"] != "withdrawn" or row["open"] + row["offered"] == 0, row
        assert row["status"] != "declared" or row["cancelled"] == 0, row
        if row["open"] + row["offered"] == 0:
            assert row["asked"] == 0, ("a met need still asks", row)
    twice = await rows(
        db,
        "SELECT 1 FROM assignment a JOIN assignment b ON a.responder_id = b.responder_id AND a.exercise = b.exercise "
        "AND a.assignment_id < b.assignment_id AND a.period && b.period "
        "WHERE a.state IN ('made', 'started', 'arrived') AND b.state IN ('made', 'started', 'arrived')",
    )
    assert not twice
    for row in await rows(
        db,
        "SELECT l.*, (SELECT coalesce(sum(quantity), 0) FROM assignment a WHERE a.lot_id = l.lot_id "
        "AND a.exercise = l.exercise AND state = 'made') AS promised FROM lot l",
    ):
        assert row["reserved"] == row["promised"], row
        assert row["reserved"] + row["given"] <= row["quantity"], row
