"""The planner: whenever something changed, the provably best plan, and the offers that it asks for.

One plan covers life, another all drills, and the two never mix. Each is single by an advisory lock. A plan is made from
what the tables say at one moment and takes a while; so each of its lines is judged again under the locks of its need,
its responder and its lot, and what no longer holds is dropped: whoever changed it has left a mark, and a new plan
follows. Open offers may move for a tax; what was accepted is never touched.

To plan each operation by itself, give `Scope` the operation and add it to the queries and to the lock: nothing else
knows how far a plan reaches. Today one plan serves all, because responders serve any operation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import asyncpg

from services.matching import actions, domain, engine
from services.matching.actions import Ask
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Database, Row, Tx, from_json, to_json

log = logging.getLogger(__name__)
T = TypeVar("T")

BY = "system:planner"
CHUNK = 500
"""Needs in one transaction that applies a plan: bounds how long an acceptance waits for it."""
_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """What one plan covers: all of life, or all drills."""

    exercise: bool


@dataclass(slots=True)
class Problem:
    """What a plan is made from, as the tables had it. `asked`: open offers by pair of need and source, oldest first;
    those of needs that are not planned for any more among them."""

    now: datetime
    needs: list[engine.NeedLine]
    responders: list[engine.Responder]
    lots: list[engine.Lot]
    asked: dict[tuple[UUID, UUID], list[Row]]
    version: dict[UUID, int]

    @property
    def kept(self) -> list[engine.Kept]:
        planned = set(self.version)
        return [
            engine.Kept(need_id, source_id, sum(offer["quantity"] for offer in offers), "offered")
            for (need_id, source_id), offers in self.asked.items()
            if need_id in planned
        ]


@dataclass(slots=True)
class Changes:
    """What a plan changes: open offers to withdraw, and questions to ask."""

    withdraw: list[Row] = field(default_factory=list)
    ask: list[Ask] = field(default_factory=list)


# --------------------------------------------------------------------------------------------------------------- load
async def load(tx: Tx, scope: Scope, now: datetime) -> Problem:
    """Needs still open or under question, whoever is confirmed, and stock that is not promised."""
    asked: dict[tuple[UUID, UUID], list[Row]] = {}
    for offer in await tx.fetch(
        "SELECT * FROM offer WHERE state = 'made' AND exercise = $1 ORDER BY offer_id", scope.exercise
    ):
        asked.setdefault((offer["need_id"], offer["responder_id"] or offer["lot_id"]), []).append(offer)
    refused: dict[UUID, list[UUID]] = {}
    for row in await tx.fetch("SELECT need_id, source_id FROM refusal WHERE until > $1", now):
        refused.setdefault(row["need_id"], []).append(row["source_id"])
    rows = await tx.fetch(
        """
        SELECT n.* FROM need AS n LEFT JOIN operation AS o USING (operation)
        WHERE n.exercise = $1 AND n.status = 'declared' AND n.open + n.offered > 0 AND n.lon IS NOT NULL
          AND n.window_end > $2 AND o.closed_at IS NULL
        ORDER BY n.need_id
        """,
        scope.exercise,
        now + timedelta(seconds=2),  # the engine counts whole seconds
    )
    items = sorted({row["item"] for row in rows if row["item"]})
    return Problem(
        now=now,
        needs=[_need_line(row, refused.get(row["need_id"], [])) for row in rows],
        # All of them, or none where no skill is asked for: how rare a skill is counts in the plan.
        responders=await _responders(tx, scope, now) if any(row["skill"] for row in rows) else [],
        lots=await _lots(tx, scope, items) if items else [],
        asked=asked,
        version={row["need_id"]: row["version"] for row in rows},
    )


def _need_line(row: Row, refused: Sequence[UUID]) -> engine.NeedLine:
    return engine.NeedLine(
        need_id=row["need_id"],
        kind="item" if row["item"] else "skill",
        code=row["item"] or row["skill"],
        lon=row["lon"],
        lat=row["lat"],
        start=row["window_start"],
        end=max(row["window_end"], row["window_start"] + timedelta(seconds=1)),
        quantity=row["open"] + row["offered"],
        severity=row["severity"],
        level=row["level"],
        certificates=frozenset(row["certificates"]),
        languages=frozenset(row["languages"]),
        declared_at=row["declared_at"],
        area=row["admin"],
        bundle_id=row["bundle_id"],
        exclude=refused,
    )


async def _responders(tx: Tx, scope: Scope, now: datetime) -> list[engine.Responder]:
    busy: dict[UUID, list[tuple[datetime, datetime]]] = {}
    worked: dict[UUID, float] = {}
    day_ago = now - timedelta(hours=24)
    for row in await tx.fetch(
        "SELECT responder_id, period, state = ANY($3) AS active FROM assignment "
        "WHERE responder_id IS NOT NULL AND exercise = $1 AND state <> 'abandoned' AND upper(period) > $2",
        scope.exercise,
        day_ago,
        list(domain.ACTIVE),
    ):
        who, start, end = row["responder_id"], row["period"].lower, row["period"].upper
        if row["active"]:
            busy.setdefault(who, []).append((start, end))
        hours = (min(end, now) - max(start, day_ago)) / timedelta(hours=1)
        worked[who] = worked.get(who, 0.0) + max(0.0, hours)
    # A drill may ask anybody; life asks nobody who exists only for drills.
    rows = await tx.fetch(
        "SELECT * FROM responder WHERE status = 'confirmed' AND lon IS NOT NULL AND (NOT exercise OR $1)",
        scope.exercise,
    )
    return [
        engine.Responder(
            responder_id=row["responder_id"],
            lon=row["lon"],
            lat=row["lat"],
            skills=from_json(row["skills"]),
            certificates={
                code: datetime.fromisoformat(until) if until else _FOREVER
                for code, until in from_json(row["certificates"]).items()
            },
            languages=tuple(row["languages"]),
            travel_limit_km=row["travel_limit_km"],
            capacity=row["capacity"],
            minimum_team=min(row["minimum_team"], row["capacity"]),
            available=[
                (datetime.fromisoformat(start), datetime.fromisoformat(end))
                for start, end in from_json(row["availability"])
            ],
            busy=busy.get(row["responder_id"], ()),
            hours_worked=worked.get(row["responder_id"], 0.0),
            organisation=row["organisation"],
        )
        for row in rows
    ]


async def _lots(tx: Tx, scope: Scope, items: Sequence[str]) -> list[engine.Lot]:
    rows = await tx.fetch(
        "SELECT *, quantity - reserved - given AS free FROM lot "
        "WHERE exercise = $1 AND item = ANY($2) AND status = 'available' AND lon IS NOT NULL "
        "AND quantity > reserved + given",
        scope.exercise,
        items,
    )
    return [
        engine.Lot(
            lot_id=row["lot_id"],
            item=row["item"],
            lon=row["lon"],
            lat=row["lat"],
            quantity=row["free"],
            delivery_limit_km=row["delivery_limit_km"],
            expires_at=row["expires_at"],
            organisation=row["organisation"],
        )
        for row in rows
    ]


# -------------------------------------------------------------------------------------------------------------- solve
def solved(problem: Problem, settings: engine.Settings) -> engine.Plan:
    """The best plan in which every team goes to one place.

    The engine may split a team over several needs; a promise binds the whole team for its time. So where a team is
    split, it keeps the need that it was asked for already, else the most serious, and the plan is made again without
    its other pairs. Each round takes at least one pair away; splits are rare, and so are second rounds.
    """
    needs = {line.need_id: line for line in problem.needs}
    teams = {one.responder_id for one in problem.responders if one.capacity > 1}
    while True:
        plan = engine.solve(
            list(needs.values()), problem.responders, problem.lots, settings, problem.kept, now=problem.now
        )
        lines: dict[UUID | str, list[engine.Assignment]] = {}
        for line in plan.assignments:
            if line.source_id in teams:
                lines.setdefault(line.source_id, []).append(line)
        split = {team: many for team, many in lines.items() if len(many) > 1}
        if not split:
            return plan
        for team, many in split.items():
            _, *others = sorted(
                many,
                key=lambda line: (
                    (line.need_id, line.source_id) not in problem.asked,
                    -needs[line.need_id].severity,
                    -line.quantity,
                    str(line.need_id),
                ),
            )
            for line in others:
                need = needs[line.need_id]
                needs[line.need_id] = replace(need, exclude=[*need.exclude, team])


def rules_of(settings: MatchingSettings) -> engine.Settings:
    """The engine's rules as this installation has them."""
    return engine.Settings(switch_tax={"offered": settings.offer_tax})


def compared(problem: Problem, plan: engine.Plan) -> Changes:
    """What this plan changes in the open offers."""
    lots = {lot.lot_id: lot.organisation for lot in problem.lots}
    people = {one.responder_id: one.organisation for one in problem.responders}
    lines = {(line.need_id, line.source_id): line for line in plan.assignments}
    changes = Changes()
    for pair in sorted({*problem.asked, *lines}, key=str):
        offers = problem.asked.get(pair, [])  # type: ignore[arg-type]  # the engine's ids are ours: UUIDs
        line = lines.get(pair)
        lot = pair[1] in lots
        asked = [domain.Asked(offer["offer_id"], offer["quantity"]) for offer in offers]
        gone, more = domain.reconciled(asked, line.quantity if line else 0, one=not lot)
        changes.withdraw += [offer for offer in offers if offer["offer_id"] in gone]
        if line is not None and more > 0:
            changes.ask.append(
                Ask(
                    need_id=pair[0],  # type: ignore[arg-type]
                    responder_id=None if lot else pair[1],  # type: ignore[arg-type]
                    lot_id=pair[1] if lot else None,  # type: ignore[arg-type]
                    organisation=str(owner) if (owner := (lots if lot else people)[pair[1]]) is not None else None,
                    quantity=more,
                    start=line.starts_at,
                    end=line.ends_at,
                    distance_km=line.km,
                    cost=line.cost,
                    parts=dict(line.parts),
                    arrives_at=line.arrives_at,
                )
            )
    return changes


# -------------------------------------------------------------------------------------------------------------- apply
async def apply(
    db: Database, scope: Scope, changes: Changes, version: Mapping[UUID, int], settings: MatchingSettings
) -> int:
    """Withdraw and ask, need by need under its locks; returns how many questions were asked.

    Withdrawals come first, so that nobody is asked two things at once.
    """
    version = dict(version)
    needs = sorted({offer["need_id"] for offer in changes.withdraw})
    for chunk in _chunks(needs):
        async with db.tx() as tx:
            await _withdraw(tx, chunk, changes.withdraw, version)
    asked = 0
    needs = sorted({ask.need_id for ask in changes.ask})
    for chunk in _chunks(needs):
        some = set(chunk)
        async with db.tx() as tx:
            asked += await _ask(tx, scope, [ask for ask in changes.ask if ask.need_id in some], version, settings)
    return asked


async def _withdraw(tx: Tx, needs: Sequence[UUID], offers: Sequence[Row], version: dict[UUID, int]) -> None:
    held = await actions.hold(tx, needs)
    doomed = {offer["offer_id"] for offer in offers}
    now_open = [offer for offer in await actions.open_offers(tx, held) if offer["offer_id"] in doomed]
    await actions.close_offers(tx, held, now_open, "withdrawn", by=BY, reason="planned otherwise now")
    await actions.put_back(tx, held.values(), replan=False)
    for offer in now_open:
        need = held[offer["need_id"]]
        if version.get(need.need_id) == need.row["version"]:
            version[need.need_id] = need.row["version"] + 1


async def _ask(
    tx: Tx, scope: Scope, asks: Sequence[Ask], version: Mapping[UUID, int], settings: MatchingSettings
) -> int:
    """Ask what still holds: the need unchanged since the plan, the responder confirmed, free and not asked otherwise,
    the stock there."""
    held = await actions.hold(tx, {ask.need_id for ask in asks})
    fresh = [ask for ask in asks if ask.need_id in held and held[ask.need_id].row["version"] == version[ask.need_id]]
    people = sorted({ask.responder_id for ask in fresh if ask.responder_id is not None})
    confirmed = {
        row["responder_id"]
        for row in await tx.fetch(
            "SELECT responder_id FROM responder WHERE responder_id = ANY($1) AND status = 'confirmed' "
            "ORDER BY responder_id FOR SHARE",
            people,
        )
    }
    taken: dict[UUID, list[Any]] = {}
    for row in await tx.fetch(
        "SELECT responder_id, period FROM assignment "
        "WHERE responder_id = ANY($1) AND exercise = $2 AND state = ANY($3)",
        people,
        scope.exercise,
        list(domain.ACTIVE),
    ):
        taken.setdefault(row["responder_id"], []).append(row["period"])
    asked_already = {
        row["responder_id"]
        for row in await tx.fetch(
            "SELECT responder_id FROM offer WHERE responder_id = ANY($1) AND exercise = $2 AND state = 'made'",
            people,
            scope.exercise,
        )
    }
    free = {
        row["lot_id"]: row["free"]
        for row in await tx.fetch(
            "SELECT lot_id, quantity - reserved - given AS free FROM lot WHERE lot_id = ANY($1) AND exercise = $2 "
            "AND status = 'available' ORDER BY lot_id FOR SHARE",
            sorted({ask.lot_id for ask in fresh if ask.lot_id is not None}),
            scope.exercise,
        )
    }
    good = []
    for ask in fresh:
        if ask.responder_id is not None:
            if ask.responder_id not in confirmed or ask.responder_id in asked_already:
                continue
            if any(period.lower < ask.end and ask.start < period.upper for period in taken.get(ask.responder_id, ())):
                continue
        elif ask.lot_id is not None:
            if free.get(ask.lot_id, 0) < ask.quantity:
                continue
            free[ask.lot_id] -= ask.quantity
        good.append(ask)
    if good:
        await actions.make_offers(tx, held, good, by=BY, reason=None, settings=settings)
        await actions.put_back(tx, held.values(), replan=False)
    if len(good) < len(asks):
        log.info("%d of %d planned offers were overtaken by changes", len(asks) - len(good), len(asks))
    return len(good)


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[begin : begin + CHUNK] for begin in range(0, len(ids), CHUNK))


# --------------------------------------------------------------------------------------------------------------- once
async def plan_once(db: Database, scope: Scope, settings: MatchingSettings, *, anyway: bool = False) -> int | None:
    """Plan this scope if something changed since the last time, or `anyway` while something is open (windows come near,
    cool-downs end); returns how many questions were asked.

    None: nothing changed, or another worker is at it. Marks are taken away only when their plan is applied, so a crash
    in between plans again.
    """
    begun = time.monotonic()
    async with db.tx() as tx:
        if not await tx.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtext('gotong.planner'), $1)", int(scope.exercise)
        ):
            return None
        marks = [row["id"] for row in await tx.fetch("SELECT id FROM change WHERE exercise = $1", scope.exercise)]
        if not marks and not (anyway and await _something_open(tx, scope)):
            return None
        problem = await load(tx, scope, clock.now())
        plan = await asyncio.to_thread(solved, problem, rules_of(settings))
        asked = await apply(db, scope, compared(problem, plan), problem.version, settings)
        await _remember(tx, scope, problem, plan, time.monotonic() - begun)
        await tx.execute("DELETE FROM change WHERE id = ANY($1)", marks)
    log.info(
        "planned %d needs (%d of %d units met, gap %d) in %.0f ms; %d offers made",
        len(problem.needs),
        plan.met,
        plan.units,
        plan.gap,
        (time.monotonic() - begun) * 1000,
        asked,
    )
    return asked


async def _something_open(tx: Tx, scope: Scope) -> bool:
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT 1 FROM need WHERE exercise = $1 AND status = 'declared' AND open > 0)",
            scope.exercise,
        )
    )


async def _remember(tx: Tx, scope: Scope, problem: Problem, plan: engine.Plan, seconds: float) -> None:
    """Keep the plan's figures, and for each unmet need who was left after each rule."""
    await tx.execute(
        """
        INSERT INTO plan (exercise, planned_at, needs, units, met, objective, bound, gap, moved_units, method, seconds)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (exercise) DO UPDATE SET planned_at = excluded.planned_at, needs = excluded.needs,
            units = excluded.units, met = excluded.met, objective = excluded.objective, bound = excluded.bound,
            gap = excluded.gap, moved_units = excluded.moved_units, method = excluded.method, seconds = excluded.seconds
        """,
        scope.exercise,
        problem.now,
        len(problem.needs),
        plan.units,
        plan.met,
        plan.objective,
        plan.bound,
        plan.gap,
        plan.moved_units,
        plan.method,
        seconds,
    )
    await tx.execute("DELETE FROM unmet WHERE exercise = $1", scope.exercise)
    await tx.execute(
        "INSERT INTO unmet (need_id, exercise, units, filters, shadow, planned_at) "
        "SELECT need_id, $2, units, filters, shadow, $3 FROM jsonb_to_recordset($1::jsonb) "
        "AS t(need_id uuid, units bigint, filters jsonb, shadow numeric)",
        to_json(
            [
                {
                    "need_id": need_id,
                    "units": units,
                    "filters": list(plan.filters[need_id].items()) if need_id in plan.filters else None,
                    "shadow": plan.shadow.get(need_id),
                }
                for need_id, units in plan.unmet.items()
            ]
        ),
        scope.exercise,
        problem.now,
    )


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Until `stopping`: plan whenever something changed, within about a tenth of a second, and now and then anyway."""
    settings = MatchingSettings()
    wake = asyncio.Event()
    listener: asyncpg.Connection[Any] | None = None
    scopes = (Scope(exercise=False), Scope(exercise=True))
    planned_at = dict.fromkeys(scopes, float("-inf"))
    try:
        while not stopping.is_set():
            if listener is None or listener.is_closed():
                listener = await db.listen([actions.PLANNER_CHANNEL], wake)
            wake.clear()
            begun = time.monotonic()
            for scope in scopes:
                overdue = time.monotonic() - planned_at[scope] >= settings.replan_s
                try:
                    if await plan_once(db, scope, settings, anyway=overdue) is not None:
                        planned_at[scope] = time.monotonic()
                except asyncpg.DeadlockDetectedError:
                    # Somebody promised something while the plan was applied. The marks are still there: again.
                    wake.set()
            took = time.monotonic() - begun
            await _either(wake, stopping, timeout_s=1)
            if wake.is_set():
                # A burst gives few plans: wait for more of it, the longer the more a plan costs.
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), max(settings.gather_s, min(took, 1.0)))
    finally:
        if listener is not None:
            await listener.close(timeout=1)


async def _either(*events: asyncio.Event, timeout_s: float) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
