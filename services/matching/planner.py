"""The planner: whenever something changed, the provably best plan, and the offers that it asks for.

One plan covers life, another all drills, and the two never mix. Each is single by an advisory lock, and covers all
operations, so a responder whom two operations want is decided once. A plan is made from what the tables say at one
moment and takes a while; so each of its lines is judged again under the locks of its need, its responder and its lot,
and what no longer holds is dropped: whoever changed it has left a mark, and a new plan follows. Open offers may move
for a tax; what was accepted is never touched.

Three speeds. A small problem is planned anew after every change. A large one is kept in a process (`apart`) that
follows the marks in milliseconds; every while, and whenever it could do better, a full plan is made in a second process
beside it, catches up with what changed meanwhile, and takes its place. All memory can be lost at any time: what it was
made from stands in the tables.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg

from services.matching import actions, domain, engine
from services.matching.actions import Ask
from services.matching.apart import Followed, Given, PlanProcess, Touched
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Database, Row, Tx, from_json, to_json

log = logging.getLogger(__name__)
T = TypeVar("T")

BY = "system:planner"
LANGUAGES: tuple[Literal["id", "en"], ...] = ("id", "en")
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
    def size(self) -> int:
        return len(self.needs) + len(self.responders) + len(self.lots)

    @property
    def kept(self) -> list[engine.Kept]:
        planned = set(self.version)
        return [
            engine.Kept(need_id, source_id, sum(offer["quantity"] for offer in offers), "offered")
            for (need_id, source_id), offers in self.asked.items()
            if need_id in planned and not any(offer["extra"] for offer in offers)
        ]


Lines = dict[tuple[UUID, UUID], engine.Assignment]


@dataclass(slots=True)
class Changes:
    """What a plan changes: open offers to withdraw, and questions to ask."""

    withdraw: list[Row] = field(default_factory=list)
    ask: list[Ask] = field(default_factory=list)
    lines: Lines = field(default_factory=dict)


# --------------------------------------------------------------------------------------------------------------- load
async def load(tx: Tx, scope: Scope, now: datetime, settings: MatchingSettings | None = None) -> Problem:
    """Needs still open or under question, whoever is confirmed, and stock that is not promised."""
    settings = settings or MatchingSettings()
    asked = await _asked(tx, scope, None)
    rows, needs = await _needs(tx, scope, now, None)
    items = sorted({row["item"] for row in rows if row["item"]})
    return Problem(
        now=now,
        needs=needs,
        # All of them, or none where no skill is asked for: how rare a skill is counts in the plan.
        responders=await _responders(tx, scope, now, None, settings) if any(row["skill"] for row in rows) else [],
        lots=await _lots(tx, scope, items, None) if items else [],
        asked=asked,
        version={row["need_id"]: row["version"] for row in rows},
    )


async def _asked(tx: Tx, scope: Scope, some: Sequence[UUID] | None) -> dict[tuple[UUID, UUID], list[Row]]:
    """Open offers of some needs (None: all) by pair, oldest first."""
    asked: dict[tuple[UUID, UUID], list[Row]] = {}
    for offer in await tx.fetch(
        "SELECT * FROM offer WHERE state = 'made' AND exercise = $1 AND ($2::uuid[] IS NULL OR need_id = ANY($2)) "
        "ORDER BY offer_id",
        scope.exercise,
        some,
    ):
        asked.setdefault((offer["need_id"], offer["responder_id"] or offer["lot_id"]), []).append(offer)
    return asked


async def _needs(
    tx: Tx, scope: Scope, now: datetime, some: Sequence[UUID] | None
) -> tuple[list[Row], list[engine.NeedLine]]:
    """Those of some needs (None: of all) that are to be planned."""
    refused: dict[UUID, list[UUID]] = {}
    for row in await tx.fetch(
        "SELECT need_id, source_id FROM refusal WHERE until > $1 AND ($2::uuid[] IS NULL OR need_id = ANY($2))",
        now,
        some,
    ):
        refused.setdefault(row["need_id"], []).append(row["source_id"])
    rows = await tx.fetch(
        """
        SELECT n.* FROM need AS n LEFT JOIN operation AS o USING (operation)
        WHERE n.exercise = $1 AND n.status = 'declared' AND n.open + n.offered > 0 AND n.lon IS NOT NULL
          AND n.window_end > $2 AND o.closed_at IS NULL AND ($3::uuid[] IS NULL OR n.need_id = ANY($3))
        ORDER BY n.need_id
        """,
        scope.exercise,
        now + timedelta(seconds=2),  # the engine counts whole seconds
        some,
    )
    return rows, [_need_line(row, refused.get(row["need_id"], [])) for row in rows]


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


async def _responders(
    tx: Tx, scope: Scope, now: datetime, some: Sequence[UUID] | None, settings: MatchingSettings
) -> list[engine.Responder]:
    busy: dict[UUID, list[tuple[datetime, datetime]]] = {}
    worked: dict[UUID, float] = {}
    day_ago = now - timedelta(hours=24)
    for row in await tx.fetch(
        "SELECT responder_id, period, state = ANY($3) AS active FROM assignment "
        "WHERE responder_id IS NOT NULL AND exercise = $1 "
        "AND (state <> 'abandoned' OR started_at IS NOT NULL) AND upper(period) > $2 "
        "AND ($4::uuid[] IS NULL OR responder_id = ANY($4))",
        scope.exercise,
        day_ago,
        list(domain.ACTIVE),
        some,
    ):
        who, start, end = row["responder_id"], row["period"].lower, row["period"].upper
        if row["active"]:
            busy.setdefault(who, []).append((start, end))
        hours = (min(end, now) - max(start, day_ago)) / timedelta(hours=1)
        worked[who] = worked.get(who, 0.0) + max(0.0, hours)
    weary = await tx.fetch(
        """
        SELECT responder_id FROM offer
        WHERE made_at > $1 AND exercise = $2 AND responder_id IS NOT NULL
          AND ($3::uuid[] IS NULL OR responder_id = ANY($3))
        GROUP BY responder_id HAVING count(*) >= $4 AND NOT bool_or(state = 'made')
        """,
        day_ago,
        scope.exercise,
        some,
        settings.asked_a_day,
    )
    # A drill may ask anybody; life asks nobody who exists only for drills.
    rows = await tx.fetch(
        "SELECT * FROM responder WHERE status = 'confirmed' AND lon IS NOT NULL AND (NOT exercise OR $1) "
        "AND ($2::uuid[] IS NULL OR responder_id = ANY($2)) AND responder_id <> ALL($3)",
        scope.exercise,
        some,
        [row["responder_id"] for row in weary],
    )
    # A hundred thousand of them take a second or two to make: not on the loop that handles events.
    return await asyncio.to_thread(_responders_of, rows, busy, worked)


def _responders_of(
    rows: Sequence[Row], busy: Mapping[UUID, Sequence[tuple[datetime, datetime]]], worked: Mapping[UUID, float]
) -> list[engine.Responder]:
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
            p_accept=domain.chance_of_yes(row["said_yes"], row["said_no"]),
        )
        for row in rows
    ]


async def _lots(tx: Tx, scope: Scope, items: Sequence[str] | None, some: Sequence[UUID] | None) -> list[engine.Lot]:
    rows = await tx.fetch(
        "SELECT *, quantity - reserved - given AS free FROM lot "
        "WHERE exercise = $1 AND ($2::text[] IS NULL OR item = ANY($2)) AND status = 'available' AND lon IS NOT NULL "
        "AND quantity > reserved + given AND ($3::uuid[] IS NULL OR lot_id = ANY($3))",
        scope.exercise,
        items,
        some,
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
    """The best plan, worked out here and now."""
    return engine.solve(problem.needs, problem.responders, problem.lots, settings, problem.kept, now=problem.now)


def rules_of(settings: MatchingSettings) -> engine.Settings:
    """The engine's rules as this installation has them. A promise binds a whole team for its time, so none is split."""
    return engine.Settings(switch_tax={"proposed": 500, "offered": settings.offer_tax}, split_teams=False)


def lines_of(plan: engine.Plan) -> Lines:
    """The plan by pair of need and source."""
    return {(line.need_id, line.source_id): line for line in plan.assignments}  # type: ignore[misc]  # ids are ours


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a source is."""

    lot: bool
    organisation: str | None


def owners_of(sources: Sequence[engine.Responder | engine.Lot]) -> dict[UUID, Owner]:
    """Whose these are, by id."""
    owners: dict[Any, Owner] = {}
    for one in sources:
        lot = isinstance(one, engine.Lot)
        organisation = None if one.organisation is None else str(one.organisation)
        owners[one.lot_id if isinstance(one, engine.Lot) else one.responder_id] = Owner(lot, organisation)
    return owners


def compared(problem: Problem, plan: engine.Plan) -> Changes:
    """What this plan changes in the open offers."""
    owners = owners_of([*problem.responders, *problem.lots])
    ended = {need_id for need_id, _ in problem.asked} - set(problem.version)
    return differences(problem.asked, lines_of(plan), owners, ended)


def differences(
    asked: Mapping[tuple[UUID, UUID], Sequence[Row]],
    lines: Lines,
    owners: Mapping[UUID, Owner],
    ended: Collection[UUID],
) -> Changes:
    """What has to change so that what is asked becomes what is planned; what is asked beyond it stays while its need
    is planned for (`ended`: which are not)."""
    changes = Changes(lines=lines)
    # Where more were asked than are wanted, nobody's question is taken back because somebody else said yes first.
    widened = {pair[0] for pair, offers in asked.items() if any(offer["extra"] for offer in offers)} - set(ended)
    wanted = {source_id for _, source_id in lines}
    for pair in sorted({*asked, *lines}, key=str):
        offers = asked.get(pair, [])
        line = lines.get(pair)
        if line is None and pair[0] in widened and pair[1] not in wanted:
            continue
        lot = bool(offers and offers[0]["lot_id"]) or (pair[1] in owners and owners[pair[1]].lot)
        open_ones = [domain.Asked(offer["offer_id"], offer["quantity"]) for offer in offers]
        gone, more = domain.reconciled(open_ones, line.quantity if line else 0, one=not lot)
        changes.withdraw += [offer for offer in offers if offer["offer_id"] in gone]
        if line is not None and more > 0:
            changes.ask.append(
                Ask(
                    need_id=pair[0],
                    responder_id=None if lot else pair[1],
                    lot_id=pair[1] if lot else None,
                    organisation=owners[pair[1]].organisation,
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
    async with db.tx() as tx:
        # Who was asked somewhere beyond what is wanted there, and is planned for something now.
        elsewhere = await tx.fetch(
            "SELECT * FROM offer WHERE responder_id = ANY($1) AND exercise = $2 AND state = 'made' AND extra",
            [ask.responder_id for ask in changes.ask if ask.responder_id is not None],
            scope.exercise,
        )
    changes.withdraw += elsewhere
    needs = sorted({offer["need_id"] for offer in changes.withdraw})
    for chunk in _chunks(needs):
        async with db.tx() as tx:
            await _withdraw(tx, chunk, changes.withdraw, version)
    asked = 0
    needs = sorted({ask.need_id for ask in changes.ask})
    for chunk in _chunks(needs):
        some = set(chunk)
        async with db.tx() as tx:
            some_asks = [ask for ask in changes.ask if ask.need_id in some]
            asked += await _ask(tx, scope, some_asks, version, settings, changes.lines)
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
    tx: Tx,
    scope: Scope,
    asks: Sequence[Ask],
    version: Mapping[UUID, int],
    settings: MatchingSettings,
    lines: Lines,
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
        good = await _explained(tx, scope, held, good, lines, settings)
        await actions.make_offers(tx, held, good, by=BY, reason=None, settings=settings)
        await actions.put_back(tx, held.values(), replan=False)
    if len(good) < len(asks):
        log.info("%d of %d planned offers were overtaken by changes", len(asks) - len(good), len(asks))
    return len(good)


async def _explained(
    tx: Tx,
    scope: Scope,
    held: Mapping[UUID, actions.Held],
    asks: Sequence[Ask],
    lines: Lines,
    settings: MatchingSettings,
) -> list[Ask]:
    """The same with their reasons, as they are now."""
    people = await _responders(tx, scope, clock.now(), [a.responder_id for a in asks if a.responder_id], settings)
    lots = await _lots(tx, scope, None, [a.lot_id for a in asks if a.lot_id])
    sources: dict[Any, engine.Responder | engine.Lot] = {one.responder_id: one for one in people}
    sources |= {one.lot_id: one for one in lots}
    zones = {
        row["operation"]: row["timezone"]
        for row in await tx.fetch(
            "SELECT operation, timezone FROM operation WHERE operation = ANY($1)",
            sorted({need.row["operation"] for need in held.values() if need.row["operation"]}),
        )
    }
    rules = rules_of(settings)
    told = []
    for ask in asks:
        source_id = ask.responder_id or ask.lot_id
        line, source = lines.get((ask.need_id, source_id)) if source_id else None, sources.get(source_id)
        if line is None or source is None:
            told.append(ask)
            continue
        need = held[ask.need_id].row
        zone = ZoneInfo(zones.get(need["operation"], "Asia/Jakarta"))
        why: dict[str, Any] = {
            "rank": line.rank,
            "feasible": line.feasible,
            "alternative": line.other,
            "alternative_price": line.other_price,
        }
        for language in LANGUAGES:
            why[language] = engine.assignment_sentences(_need_line(need, ()), source, line, rules, language, zone)
        told.append(replace(ask, why=why))
    return told


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[begin : begin + CHUNK] for begin in range(0, len(ids), CHUNK))


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
    """A plan that a process keeps, and what the planner itself has to know of it. `turn`: see the table `plan`."""

    process: PlanProcess
    problem: Problem
    plan: engine.Plan
    lines: Lines
    owners: dict[UUID, Owner]
    seconds: float
    turn: int = 0
    offered: list[tuple[UUID, UUID]] = field(default_factory=list)

    @property
    def skills(self) -> bool:
        """Whether responders were loaded."""
        return bool(self.problem.responders)


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
                    wanted = anyway and await _something_open(tx, self._scope)
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
        """A full plan, here if it is small, else in a process that keeps it."""
        problem = await load(tx, self._scope, clock.now(), self._settings)
        if problem.size < self._settings.apart_from:
            plan = await asyncio.to_thread(solved, problem, rules_of(self._settings))
            asked = await apply(self._db, self._scope, compared(problem, plan), problem.version, self._settings)
            self.steps["here"] += 1
        else:
            self._memory = memory = await self._apart(problem)
            plan = memory.plan
            ended = {need_id for need_id, _ in problem.asked} - set(problem.version)
            asked = await self._applied(memory, problem.asked, memory.lines, problem.version, ended)
        turn = await _remember(tx, self._scope, problem, plan, time.monotonic() - begun)
        if self._memory is not None:
            self._memory.turn = turn
        self._full_at = time.monotonic()
        _told(problem, plan, begun, asked)
        return asked

    async def _apart(self, problem: Problem) -> Memory:
        begun = time.monotonic()
        process = await PlanProcess.start()
        try:
            plan = await process.plan(
                Given(
                    problem.needs,
                    problem.responders,
                    problem.lots,
                    rules_of(self._settings),
                    problem.kept,
                    problem.now,
                )
            )
        except BaseException:
            await process.stop()
            raise
        self.steps["apart"] += 1
        owners = owners_of([*problem.responders, *problem.lots])
        return Memory(process, problem, plan, lines_of(plan), owners, time.monotonic() - begun)

    async def _fully(self) -> Memory:
        """The next full plan, made beside the one that is followed."""
        async with self._db.tx() as tx:
            problem = await load(tx, self._scope, clock.now(), self._settings)
        return await self._apart(problem)

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
            touched.offered = list(await _asked(tx, self._scope, None))
        followed = await memory.process.follow(touched)
        self._take(memory, followed)
        needs = {line.need_id for line in touched.needs} | {*touched.ended} | {need for need, _ in followed.lines}
        some = None if whole else sorted(needs, key=str)
        asked_now = await _asked(tx, self._scope, some)  # type: ignore[arg-type]  # the engine's ids are ours: UUIDs
        lines = memory.lines if whole else {pair: line for pair, line in memory.lines.items() if pair[0] in needs}
        version = {
            row["need_id"]: row["version"]
            for row in await tx.fetch(
                "SELECT need_id, version FROM need WHERE need_id = ANY($1)",
                sorted({pair[0] for pair in (*asked_now, *lines)}),
            )
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

    def _take(self, memory: Memory, followed: Followed) -> None:
        for pair, line in followed.lines.items():
            if line is None:
                memory.lines.pop(pair, None)
            else:
                memory.lines[pair] = line
        self._behind |= followed.behind

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
        changes = differences(asked, lines, memory.owners, ended)
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
        rows, needs = await _needs(tx, self._scope, now, need_ids)
        if any(row["skill"] for row in rows) and not memory.skills:
            return None
        if {row["item"] for row in rows if row["item"]} - {line.code for line in memory.problem.needs}:
            return None
        # Whoever holds an open offer and changed otherwise than by a promise is left to the full plan: here it would
        # be planned anew, and the question perhaps taken back for nothing.
        bound = {
            row["responder_id"]
            for row in await tx.fetch(
                "SELECT o.responder_id FROM offer AS o JOIN responder AS r USING (responder_id) "
                "WHERE o.responder_id = ANY($1) AND o.exercise = $2 AND o.state = 'made' AND r.status = 'confirmed'",
                source_ids,
                self._scope.exercise,
            )
        }
        free = [one for one in source_ids if one not in bound]
        responders = await _responders(tx, self._scope, now, free, self._settings) if memory.skills else []
        lots = await _lots(tx, self._scope, None, free)
        owners = owners_of([*responders, *lots])
        memory.owners.update(owners)
        self._behind |= bool(bound) or any(mark["need_id"] is None and mark["source_id"] is None for mark in marks)
        planned = {line.need_id for line in needs}
        offered, memory.offered = memory.offered, []
        return Touched(
            accepted=[(m["need_id"], m["source_id"], m["accepted"]) for m in marks if m["accepted"]],
            offered=offered,
            ended=[one for one in need_ids if one not in planned],
            needs=needs,
            lost=[one for one in free if one not in owners],
            sources=[*responders, *lots],
        )


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


# -------------------------------------------------------------------------------------------------------------- widen
async def widen(db: Database, scope: Scope, settings: MatchingSettings) -> int:
    """Ask more people than are wanted, where the first have had the question to themselves for long enough and are not
    likely to be enough: the next best who are asked nothing else. Returns how many questions were asked.

    What is asked stands outside the ledger's balance; the first yeses count, and the rest is withdrawn with the last.
    """
    now = clock.now()
    async with db.tx() as tx:
        if not await tx.fetchval(
            "SELECT pg_try_advisory_xact_lock(hashtext('gotong.planner'), $1)", int(scope.exercise)
        ):
            return 0
        due = await tx.fetch(
            """
            SELECT n.need_id, n.open + n.offered AS left, n.skill, n.version, sum(o.quantity) AS asked,
                   sum(o.quantity * (r.said_yes + 1.0) / (r.said_yes + r.said_no + 2)) AS expected
            FROM need AS n JOIN offer AS o ON o.need_id = n.need_id AND o.state = 'made'
            JOIN responder AS r ON r.responder_id = o.responder_id
            WHERE n.exercise = $1 AND n.status = 'declared' AND n.offered > 0
            GROUP BY n.need_id
            HAVING min(o.made_at) FILTER (WHERE NOT o.extra)
                <= $2::timestamptz - make_interval(mins => ($3::integer[])[n.severity])
            """,
            scope.exercise,
            now,
            list(settings.widen_minutes),
        )
        more = {
            row["need_id"]: count
            for row in due
            if (count := domain.more_to_ask(row["left"], row["asked"], float(row["expected"]), settings.most_asked))
        }
        if not more:
            return 0
        rows, lines = await _needs(tx, scope, now, sorted(more))
        asked = await _asked(tx, scope, sorted(more))
        known: dict[UUID, list[UUID]] = {}
        for need_id, source_id in asked:
            known.setdefault(need_id, []).append(source_id)
        idle = await tx.fetch(
            "SELECT responder_id FROM responder AS r WHERE status = 'confirmed' AND skills ?| $1 AND NOT EXISTS ("
            "SELECT 1 FROM offer AS o WHERE o.responder_id = r.responder_id AND o.exercise = $2 AND o.state = 'made')",
            sorted({row["skill"] for row in rows}),
            scope.exercise,
        )
        responders = await _responders(tx, scope, now, [row["responder_id"] for row in idle], settings)
        needs = [
            replace(
                line,
                quantity=more[row["need_id"]],
                exclude=[*line.exclude, *known.get(row["need_id"], ())],
                bundle_id=None,
            )
            for row, line in zip(rows, lines, strict=True)
        ]
        problem = Problem(now, needs, responders, [], {}, {row["need_id"]: row["version"] for row in rows})
        plan = await _planned(problem, settings)
        changes = compared(problem, plan)
        changes.ask = [replace(ask, extra=True) for ask in changes.ask]
        made = await apply(db, scope, changes, problem.version, settings)
    if made:
        log.info("asked %d more people for %d needs whose first answers are slow", made, len(needs))
    return made


async def _planned(problem: Problem, settings: MatchingSettings) -> engine.Plan:
    """The plan, wherever it may be made without holding the worker up."""
    rules = rules_of(settings)
    if problem.size < settings.apart_from:
        return await asyncio.to_thread(solved, problem, rules)
    process = await PlanProcess.start()
    try:
        return await process.plan(Given(problem.needs, problem.responders, problem.lots, rules, [], problem.now))
    finally:
        await process.stop()


async def _something_open(tx: Tx, scope: Scope) -> bool:
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT 1 FROM need WHERE exercise = $1 AND status = 'declared' AND open > 0)",
            scope.exercise,
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
        "INSERT INTO unmet (need_id, exercise, units, filters, shadow, planned_at, said) "
        "SELECT need_id, $2, units, filters, shadow, $3, said FROM jsonb_to_recordset($1::jsonb) "
        "AS t(need_id uuid, units bigint, filters jsonb, shadow numeric, said jsonb)",
        to_json(
            [
                {
                    "need_id": need_id,
                    "units": units,
                    "filters": list(plan.filters[need_id].items()) if need_id in plan.filters else None,
                    "shadow": plan.shadow.get(need_id),
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
    """Until `stopping`: plan whenever something changed, within about a tenth of a second, and now and then anyway."""
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
                except asyncpg.DeadlockDetectedError:
                    # Somebody promised something while the plan was applied. The marks are still there: again.
                    wake.set()
            if begun - widened_at >= settings.widen_s:
                widened_at = begun
            took = time.monotonic() - begun
            await _either(wake, stopping, timeout_s=1 if all(one.settled for one in planners.values()) else 0.1)
            if wake.is_set():
                # A burst gives few plans: wait for more of it, the longer the more a plan costs.
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), max(settings.gather_s, min(took, 1.0)))
    finally:
        for planner in planners.values():
            await planner.forget()
        if listener is not None:
            await listener.close(timeout=1)


async def _either(*events: asyncio.Event, timeout_s: float) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
