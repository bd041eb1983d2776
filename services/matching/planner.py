"""The planner: whenever something changed, the provably best plan, and the offers that it asks for.

One plan covers life, another all drills, and the two never mix. Each is single by an advisory lock, and covers all
operations, so a responder whom two operations want is decided once. A plan is made from what the tables say at one
moment and takes a while; so each of its lines is judged again under the locks of its need, its responder and its lot,
and what no longer holds is dropped: whoever changed it has left a mark, and a new plan follows. Open offers may move
for a tax; what was accepted is never touched.

A plan is kept in memory and follows the marks in milliseconds; every while, and whenever it could do better, a full
plan is made beside it, catches up with what changed meanwhile, and takes its place. A large plan is kept in a process
of its own (`apart`). All memory can be lost at any time: what it was made from stands in the tables.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from services.matching import actions, engine
from services.matching.apart import Followed, Given, PlanHere, PlanProcess, Touched
from services.matching.asking import LANGUAGES, Lines, Sources, apply, differences, lines_of, sources_by_id
from services.matching.problem import (
    Problem,
    Scope,
    asked_of,
    load,
    lots_of,
    needs_of,
    responders_of,
    with_crews,
    zones_of,
)
from services.matching.release import ask_back
from services.matching.settings import MatchingSettings
from services.matching.widen import widen
from services.runtime import clock
from services.runtime.db import Database, Row, Tx, to_json, wait_any

log = logging.getLogger(__name__)


# --------------------------------------------------------------------------------------------------------------- once
async def plan_once(db: Database, scope: Scope, settings: MatchingSettings, *, anyway: bool = False) -> int | None:
    """Let a planner without memory work once; see `Planner.step`."""
    planner = Planner(db, scope, settings)
    try:
        return await planner.step(anyway=anyway)
    finally:
        await planner.forget()


@dataclass(slots=True)
class Memory:
    """A plan that is kept, and what the planner itself has to know of it. `seconds`: what it took to load and make.
    `lines` by need and source. `turn`: see the table `plan`. `offered`: pairs asked since the process was last told.
    `seen`: versions of the needs that the last marks were of."""

    process: PlanHere | PlanProcess
    problem: Problem
    plan: engine.Plan
    lines: dict[UUID, dict[UUID, engine.Assignment]]
    sources: Sources
    items: set[str]
    skills: bool
    seconds: float
    turn: int = 0
    offered: list[tuple[UUID, UUID]] = field(default_factory=list)
    seen: dict[UUID, int] = field(default_factory=dict)

    @classmethod
    def of(cls, process: PlanHere | PlanProcess, problem: Problem, plan: engine.Plan, seconds: float) -> Memory:
        lines: dict[UUID, dict[UUID, engine.Assignment]] = {}
        for (need_id, source_id), line in lines_of(plan).items():
            lines.setdefault(need_id, {})[source_id] = line
        return cls(
            process,
            problem,
            plan,
            lines,
            sources_by_id([*problem.responders, *problem.lots]),
            items={line.code for line in problem.needs if line.kind == "item"},
            skills=any(line.kind == "skill" for line in problem.needs),
            seconds=seconds,
        )

    def take(self, followed: Followed) -> None:
        """Note what an event moved."""
        for (need_id, source_id), line in followed.lines.items():
            if line is not None:
                self.lines.setdefault(need_id, {})[source_id] = line
            elif (of_need := self.lines.get(need_id)) is not None:
                of_need.pop(source_id, None)

    def lines_of(self, needs: Collection[UUID] | None) -> Lines:
        """The plan of some needs, or of all (None)."""
        some = self.lines if needs is None else needs
        return {(one, source): line for one in some for source, line in self.lines.get(one, {}).items()}


class Planner:
    """One scope's planner, with its memory. `step` does whatever is due."""

    def __init__(self, db: Database, scope: Scope, settings: MatchingSettings) -> None:
        self._db, self._scope, self._settings = db, scope, settings
        self._memory: Memory | None = None
        self._next: asyncio.Task[Memory] | None = None
        self._since: list[Row] = []
        self._behind = False
        self._full_at = float("-inf")
        self.steps = {"here": 0, "apart": 0, "followed": 0}

    @property
    def settled(self) -> bool:
        """Whether no full plan is on its way, nor wanted."""
        return self._next is None and not self._behind

    async def forget(self) -> None:
        """Lose all memory; nothing else is lost with it."""
        coming, self._next = self._next, None
        if coming is not None:
            coming.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await (await coming).process.stop()
        memory, self._memory = self._memory, None
        self._since, self._behind = [], False
        if memory is not None:
            await memory.process.stop()

    async def step(self, *, anyway: bool = False) -> int | None:
        """Plan if something changed since the last time, or `anyway` while something is open (windows come near,
        cool-downs end); returns how many questions were asked.

        None: nothing to do, or another worker is at it. Marks are taken away only when their plan is applied, so a
        crash in between plans again.
        """
        begun = time.monotonic()
        try:
            async with self._db.tx() as tx:
                if not await tx.fetchval(
                    "SELECT pg_try_advisory_xact_lock(hashtext('gotong.planner'), $1)", int(self._scope.exercise)
                ):
                    return None
                marks = await tx.fetch("SELECT * FROM change WHERE exercise = $1 ORDER BY id", self._scope.exercise)
                turn = await tx.fetchval("SELECT turn FROM plan WHERE exercise = $1", self._scope.exercise)
                if self._memory is not None and self._memory.turn != turn:
                    log.info("another planner was at work; planning anew")
                    await self.forget()
                if self._memory is None:
                    if not marks and not (anyway and await _something_open(tx, self._scope)):
                        return None
                    asked = await self._anew(tx, begun)
                else:
                    # Windows, cool-downs and ages of a plan that is old by now have moved on.
                    age_s = (clock.now() - self._memory.problem.now).total_seconds()
                    old = bool(marks) and age_s > self._settings.replan_s
                    wanted = old or (anyway and await _something_open(tx, self._scope))
                    done = await self._further(tx, self._memory, marks, wanted, begun)
                    if done is None:
                        return None
                    asked = done
                await tx.execute("DELETE FROM change WHERE id = ANY($1)", [mark["id"] for mark in marks])
            return asked
        except BaseException:
            # What the process knows and what the tables say may differ now.
            await self.forget()
            raise

    async def _anew(self, tx: Tx, begun: float) -> int:
        """A full plan, which is kept."""
        self._memory = memory = await self._made(tx)
        problem, plan = memory.problem, memory.plan
        ended = {need_id for need_id, _ in problem.asked} - set(problem.version)
        asked = await self._applied(memory, problem.asked, memory.lines_of(None), problem.version, ended)
        memory.turn = await _remember(tx, self._scope, problem, plan, memory.seconds)
        self._full_at = time.monotonic()
        _told(problem, plan, begun, asked)
        return asked

    async def _made(self, tx: Tx) -> Memory:
        """A full plan of what the tables say, here if it is small, else in a process."""
        begun = time.monotonic()
        problem = await load(tx, self._scope, clock.now(), self._settings)
        small = problem.size < self._settings.apart_from
        process = PlanHere() if small else await PlanProcess.start()
        try:
            plan = await process.plan(Given.of(problem))
        except BaseException:
            await process.stop()
            raise
        self.steps["here" if small else "apart"] += 1
        return Memory.of(process, problem, plan, time.monotonic() - begun)

    async def _fully(self) -> Memory:
        """The next full plan, made beside the one that is followed."""
        async with self._db.tx() as tx:
            return await self._made(tx)

    async def _further(self, tx: Tx, memory: Memory, marks: Sequence[Row], wanted: bool, begun: float) -> int | None:
        """Follow the marks on the kept plan, or on a new full one where that is ready."""
        whole = self._next is not None and self._next.done()
        if not marks and not whole:
            self._maybe_fully(wanted)
            return None
        if self._next is not None:
            self._since += marks
        if whole:
            assert self._next is not None
            fresh, self._next = self._next.result(), None
            self._memory, old = fresh, memory
            await old.process.stop()
            fresh.turn, memory = old.turn, fresh
            marks, self._since = self._since, []
        touched = await self._touched(tx, memory, marks)
        if touched is None:
            # Something of a kind that was not loaded: only a new plan knows it.
            await self.forget()
            return await self._anew(tx, begun)
        if whole:
            # Questions that were asked while it was made cost their tax as well.
            touched.offered = list(await asked_of(tx, self._scope, None))
        followed = await memory.process.follow(touched)
        memory.take(followed)
        self._behind |= followed.behind
        needs = {line.need_id for line in touched.needs} | {*touched.ended} | {need for need, _ in followed.lines}
        some: Any = None if whole else sorted(needs, key=str)  # the engine's ids are ours: UUIDs
        asked_now = await asked_of(tx, self._scope, some)
        lines = memory.lines_of(some)
        version = dict(memory.seen)
        if others := sorted({pair[0] for pair in (*asked_now, *lines)} - set(version)):
            version |= {
                row["need_id"]: row["version"]
                for row in await tx.fetch("SELECT need_id, version FROM need WHERE need_id = ANY($1)", others)
            }
        asked = await self._applied(memory, asked_now, lines, version, touched.ended)
        if whole:
            memory.turn = await _remember(tx, self._scope, memory.problem, memory.plan, memory.seconds)
            _told(memory.problem, memory.plan, begun, asked)
        else:
            self.steps["followed"] += 1
            memory.turn = await tx.fetchval(
                "UPDATE plan SET turn = turn + 1 WHERE exercise = $1 RETURNING turn", self._scope.exercise
            )
            log.debug("followed %d marks in %.0f ms", len(marks), (time.monotonic() - begun) * 1000)
        self._maybe_fully(wanted)
        return asked

    def _maybe_fully(self, wanted: bool) -> None:
        """Begin a full plan where one is wanted, at most a fifth of the time."""
        assert self._memory is not None
        self._behind |= wanted
        if self._behind and self._next is None and time.monotonic() - self._full_at >= 5 * self._memory.seconds:
            self._full_at = time.monotonic()
            self._since, self._behind = [], False
            self._next = asyncio.create_task(self._fully())

    async def _applied(
        self,
        memory: Memory,
        asked: Mapping[tuple[UUID, UUID], Sequence[Row]],
        lines: Lines,
        version: dict[UUID, int],
        ended: Collection[UUID],
    ) -> int:
        changes = differences(asked, lines, memory.sources, memory.problem.rules, ended)
        made = await apply(self._db, self._scope, changes, version, self._settings)
        memory.offered = [(ask.need_id, source) for ask in changes.ask if (source := ask.responder_id or ask.lot_id)]
        # What was overtaken is not offered, though it is planned.
        self._behind |= made < len(changes.ask)
        return made

    async def _touched(self, tx: Tx, memory: Memory, marks: Sequence[Row]) -> Touched | None:
        """What the tables say now of what was marked. None: the kept plan knows nothing of that kind."""
        now = clock.now()
        need_ids = sorted({mark["need_id"] for mark in marks if mark["need_id"]})
        source_ids = sorted({mark["source_id"] for mark in marks if mark["source_id"]})
        everything = any(mark["need_id"] is None and mark["source_id"] is None for mark in marks)
        if everything and await zones_of(tx, self._scope, now) != memory.problem.rules.zones:
            return None
        rows, needs = await needs_of(tx, self._scope, now, need_ids)
        memory.seen = {row["need_id"]: row["version"] for row in rows}
        if any(row["skill"] for row in rows) and not memory.skills:
            return None
        if {row["item"] for row in rows if row["item"]} - memory.items:
            return None
        bound = await self._bound(tx, source_ids) if source_ids else set()
        free = [one for one in source_ids if one not in bound]
        responders = await responders_of(tx, self._scope, now, free, self._settings) if memory.skills else []
        # Whoever came, went or was promised something may be of a crew.
        lots = await lots_of(tx, self._scope, None, [*free, *await with_crews(tx, self._scope)] if source_ids else [])
        found = sources_by_id([*responders, *lots])
        memory.sources.update(found)
        self._behind |= bool(bound) or everything
        planned = {line.need_id for line in needs}
        offered, memory.offered = memory.offered, []
        return Touched(
            accepted=[(m["need_id"], m["source_id"], m["accepted"]) for m in marks if m["accepted"]],
            offered=offered,
            ended=[one for one in need_ids if one not in planned],
            needs=needs,
            lost=[one for one in free if one not in found],
            sources=[*responders, *lots],
            now=now,
        )

    async def _bound(self, tx: Tx, source_ids: Sequence[UUID]) -> set[UUID]:
        """Whoever of these holds an open offer and changed otherwise than by a promise is left to the full plan: on the
        kept one they would be planned anew, and the question perhaps taken back for nothing."""
        return {
            row["responder_id"]
            for row in await tx.fetch(
                "SELECT o.responder_id FROM offer AS o JOIN responder AS r USING (responder_id) "
                "WHERE o.responder_id = ANY($1) AND o.exercise = $2 AND o.state = 'made' AND r.status = 'confirmed'",
                source_ids,
                self._scope.exercise,
            )
        }


def _told(problem: Problem, plan: engine.Plan, begun: float, asked: int) -> None:
    log.info(
        "planned %d needs (%d of %d units met, gap %d) in %.0f ms; %d offers made",
        len(problem.needs),
        plan.met,
        plan.units,
        plan.gap,
        (time.monotonic() - begun) * 1000,
        asked,
    )


async def _something_open(tx: Tx, scope: Scope) -> bool:
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT 1 FROM need AS n LEFT JOIN operation AS o USING (operation) "
            "WHERE n.exercise = $1 AND n.status = 'declared' AND n.open > 0 AND n.window_end > $2 "
            "AND o.closed_at IS NULL)",
            scope.exercise,
            clock.now(),
        )
    )


async def _remember(tx: Tx, scope: Scope, problem: Problem, plan: engine.Plan, seconds: float) -> int:
    """Keep the plan's figures, and for each unmet need who was left after each rule; returns the planner's turn."""
    turn: int = await tx.fetchval(
        """
        INSERT INTO plan (exercise, planned_at, needs, units, met, objective, bound, gap, moved_units, method, seconds)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (exercise) DO UPDATE SET planned_at = excluded.planned_at, needs = excluded.needs,
            units = excluded.units, met = excluded.met, objective = excluded.objective, bound = excluded.bound,
            gap = excluded.gap, moved_units = excluded.moved_units, method = excluded.method,
            seconds = excluded.seconds, turn = plan.turn + 1
        RETURNING turn
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
    lines = {line.need_id: line for line in problem.needs}
    await tx.execute("DELETE FROM unmet WHERE exercise = $1", scope.exercise)
    await tx.execute(
        "INSERT INTO unmet (need_id, exercise, units, filters, shadow, planned_at, said, counts_as) "
        "SELECT need_id, $2, units, filters, shadow, $3, said, counts_as FROM jsonb_to_recordset($1::jsonb) "
        "AS t(need_id uuid, units bigint, filters jsonb, shadow numeric, said jsonb, counts_as smallint)",
        to_json(
            [
                {
                    "need_id": need_id,
                    "units": units,
                    "filters": list(plan.filters[need_id].items()) if need_id in plan.filters else None,
                    "shadow": plan.shadow.get(need_id),
                    "counts_as": plan.lifted.get(need_id),
                    "said": {language: engine.unmet_sentences(lines[need_id], plan, language) for language in LANGUAGES}
                    if need_id in plan.filters
                    else None,
                }
                for need_id, units in plan.unmet.items()
            ]
        ),
        scope.exercise,
        problem.now,
    )
    return turn


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Until `stopping`: plan as soon as something changed, and now and then anyway."""
    settings = MatchingSettings()
    wake = asyncio.Event()
    listener: asyncpg.Connection[Any] | None = None
    planners = {scope: Planner(db, scope, settings) for scope in (Scope(exercise=False), Scope(exercise=True))}
    planned_at = dict.fromkeys(planners, float("-inf"))
    widened_at = float("-inf")
    leads = False
    try:
        while not stopping.is_set():
            if listener is None or listener.is_closed():
                listener = await db.listen([actions.PLANNER_CHANNEL], wake)
                leads = False
            # Of several workers one keeps planning, and its memory with it; when its connection ends, another does.
            leads = leads or await listener.fetchval("SELECT pg_try_advisory_lock(hashtext('gotong.planner.lead'))")
            wake.clear()
            begun = time.monotonic()
            for scope, planner in planners.items() if leads else ():
                overdue = time.monotonic() - planned_at[scope] >= settings.replan_s
                try:
                    if await planner.step(anyway=overdue) is not None or overdue:
                        planned_at[scope] = time.monotonic()
                    if begun - widened_at >= settings.widen_s:
                        await widen(db, scope, settings)
                        if settings.ask_back:
                            await ask_back(db, scope, settings)
                except asyncpg.DeadlockDetectedError:
                    # Somebody promised something while the plan was applied. The marks are still there: again.
                    wake.set()
            if begun - widened_at >= settings.widen_s:
                widened_at = begun
            took = time.monotonic() - begun
            await wait_any(wake, stopping, timeout_s=1 if all(one.settled for one in planners.values()) else 0.1)
            if wake.is_set():
                # What comes after a pause is planned at once. A burst gives few plans: the next waits for more of it,
                # the longer the more a plan costs.
                rest = begun + max(settings.gather_s, 2 * min(took, 1.0)) - time.monotonic()
                if rest > 0:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), rest)
    finally:
        for planner in planners.values():
            await planner.forget()
        if listener is not None:
            await listener.close(timeout=1)
