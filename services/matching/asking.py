"""From a plan to questions: what it changes in the open offers, and asking what still holds, under locks."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from services.matching import actions, domain, engine, offer_writes
from services.matching.offer_writes import Ask
from services.matching.problem import Problem, Scope, need_line
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Database, Row, Tx

log = logging.getLogger(__name__)

BY = "system:planner"
LANGUAGES: tuple[Literal["id", "en"], ...] = ("id", "en")
CHUNK = 500
"""Needs in one transaction that applies a plan: bounds how long an acceptance waits for it."""
Sources = dict[UUID, engine.Responder | engine.Lot]
Lines = dict[tuple[UUID, UUID], engine.Assignment]


@dataclass(slots=True)
class Changes:
    """What a plan changes: open offers to withdraw, and questions to ask; and what they are explained by."""

    lines: Lines
    sources: Mapping[UUID, engine.Responder | engine.Lot]
    rules: engine.Settings
    withdraw: list[Row] = field(default_factory=list)
    ask: list[Ask] = field(default_factory=list)


def lines_of(plan: engine.Plan) -> Lines:
    """The plan by pair of need and source."""
    return {(line.need_id, line.source_id): line for line in plan.assignments}  # type: ignore[misc]  # ids are ours


def sources_by_id(sources: Sequence[engine.Responder | engine.Lot]) -> Sources:
    """Whom a plan may ask, by id."""
    found: dict[Any, engine.Responder | engine.Lot] = {}
    for one in sources:
        found[one.lot_id if isinstance(one, engine.Lot) else one.responder_id] = one
    return found


def compared(problem: Problem, plan: engine.Plan) -> Changes:
    """What this plan changes in the open offers."""
    sources = sources_by_id([*problem.responders, *problem.lots])
    ended = {need_id for need_id, _ in problem.asked} - set(problem.version)
    return differences(problem.asked, lines_of(plan), sources, problem.rules, ended)


def differences(
    asked: Mapping[tuple[UUID, UUID], Sequence[Row]],
    lines: Lines,
    sources: Mapping[UUID, engine.Responder | engine.Lot],
    rules: engine.Settings,
    ended: Collection[UUID],
) -> Changes:
    """What has to change so that what is asked becomes what is planned; what is asked beyond it stays while its need
    is planned for (`ended`: which are not)."""
    changes = Changes(lines, sources, rules)
    # Where more were asked than are wanted, nobody's question is taken back because somebody else said yes first.
    widened = {pair[0] for pair, offers in asked.items() if any(offer["extra"] for offer in offers)} - set(ended)
    wanted = {source_id for _, source_id in lines}
    for pair in sorted({*asked, *lines}, key=str):
        offers = asked.get(pair, [])
        line = lines.get(pair)
        if line is None and pair[0] in widened and pair[1] not in wanted:
            continue
        lot = bool(offers and offers[0]["lot_id"]) or isinstance(sources.get(pair[1]), engine.Lot)
        open_ones = [domain.Asked(offer["offer_id"], offer["quantity"]) for offer in offers]
        gone, more = domain.reconciled(open_ones, line.quantity if line else 0, one=not lot)
        changes.withdraw += [offer for offer in offers if offer["offer_id"] in gone]
        if line is not None and more > 0:
            organisation = sources[pair[1]].organisation
            changes.ask.append(
                Ask(
                    need_id=pair[0],
                    responder_id=None if lot else pair[1],
                    lot_id=pair[1] if lot else None,
                    organisation=None if organisation is None else str(organisation),
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
    people = [ask.responder_id for ask in changes.ask if ask.responder_id is not None]
    if people:
        async with db.tx() as tx:
            # Who was asked somewhere beyond what is wanted there, and is planned for something now.
            changes.withdraw += await tx.fetch(
                "SELECT * FROM offer WHERE responder_id = ANY($1) AND exercise = $2 AND state = 'made' AND extra",
                people,
                scope.exercise,
            )
    needs = sorted({offer["need_id"] for offer in changes.withdraw})
    for chunk in _chunks(needs):
        async with db.tx() as tx:
            await _withdraw(tx, chunk, changes.withdraw, version)
    asked = 0
    needs = sorted({ask.need_id for ask in changes.ask})
    for chunk in _chunks(needs):
        some = set(chunk)
        async with db.tx() as tx:
            asks = [ask for ask in changes.ask if ask.need_id in some]
            asked += await _ask(tx, scope, asks, version, settings, changes)
    return asked


async def _withdraw(tx: Tx, needs: Sequence[UUID], offers: Sequence[Row], version: dict[UUID, int]) -> None:
    held = await actions.hold(tx, needs)
    doomed = {offer["offer_id"] for offer in offers}
    now_open = [offer for offer in await offer_writes.open_offers(tx, held) if offer["offer_id"] in doomed]
    await offer_writes.close_offers(tx, held, now_open, "withdrawn", by=BY, reason="planned otherwise now")
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
    changes: Changes,
) -> int:
    """Ask what still holds: the need unchanged since the plan, the responder confirmed, free and not asked otherwise,
    the stock there."""
    held = await actions.hold(tx, {ask.need_id for ask in asks})
    fresh = [ask for ask in asks if ask.need_id in held and held[ask.need_id].row["version"] == version[ask.need_id]]
    confirmed, taken, asked_already = await _people_now(
        tx, scope, sorted({ask.responder_id for ask in fresh if ask.responder_id is not None})
    )
    free = await _stock_now(tx, scope, sorted({ask.lot_id for ask in fresh if ask.lot_id is not None}))
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
        good = await _explained(tx, held, good, changes)
        await offer_writes.make_offers(tx, held, good, by=BY, reason=None, settings=settings)
        await actions.put_back(tx, held.values(), replan=False)
    if len(good) < len(asks):
        log.info("%d of %d planned offers were overtaken by changes", len(asks) - len(good), len(asks))
    return len(good)


async def _people_now(
    tx: Tx, scope: Scope, people: Sequence[UUID]
) -> tuple[set[UUID], dict[UUID, list[Any]], set[UUID]]:
    """Lock these responders: who of them is confirmed, when each is promised, and who is asked something already."""
    if not people:
        return set(), {}, set()
    confirmed = {
        row["responder_id"]
        for row in await tx.fetch(
            "SELECT responder_id FROM responder WHERE responder_id = ANY($1) AND status = 'confirmed' "
            "ORDER BY responder_id FOR SHARE",
            people,
        )
    }
    # Only now, after their rows are locked: what was promised until then is seen.
    taken: dict[UUID, list[Any]] = {}
    asked_already: set[UUID] = set()
    for row in await tx.fetch(
        "SELECT responder_id, period, false AS asked FROM assignment "
        "WHERE responder_id = ANY($1) AND exercise = $2 AND state = ANY($3) "
        "UNION ALL SELECT responder_id, NULL, true FROM offer "
        "WHERE responder_id = ANY($1) AND exercise = $2 AND state = 'made'",
        people,
        scope.exercise,
        list(domain.ACTIVE),
    ):
        if row["asked"]:
            asked_already.add(row["responder_id"])
        else:
            taken.setdefault(row["responder_id"], []).append(row["period"])
    return confirmed, taken, asked_already


async def _stock_now(tx: Tx, scope: Scope, lots: Sequence[UUID]) -> dict[UUID, int]:
    """Lock these lots: how much of each nobody is promised."""
    if not lots:
        return {}
    return {
        row["lot_id"]: row["free"]
        for row in await tx.fetch(
            "SELECT lot_id, quantity - reserved - given AS free FROM lot WHERE lot_id = ANY($1) AND exercise = $2 "
            "AND status = 'available' ORDER BY lot_id FOR SHARE",
            lots,
            scope.exercise,
        )
    }


async def _explained(tx: Tx, held: Mapping[UUID, actions.Held], asks: Sequence[Ask], changes: Changes) -> list[Ask]:
    """The same with their reasons, as the plan had them."""
    zones = {
        row["operation"]: row["timezone"]
        for row in await tx.fetch(
            "SELECT operation, timezone FROM operation WHERE operation = ANY($1)",
            sorted({held[ask.need_id].row["operation"] for ask in asks if held[ask.need_id].row["operation"]}),
        )
    }
    now = clock.now()
    return [_with_reason(ask, held[ask.need_id].row, changes, zones, now) for ask in asks]


def _with_reason(ask: Ask, need: Row, changes: Changes, zones: Mapping[str, str], now: datetime) -> Ask:
    source_id = ask.responder_id or ask.lot_id
    if source_id is None or (ask.need_id, source_id) not in changes.lines or source_id not in changes.sources:
        return ask
    line, source = changes.lines[ask.need_id, source_id], changes.sources[source_id]
    zone = ZoneInfo(zones.get(need["operation"], "Asia/Jakarta"))
    about = need_line(need, ())
    why: dict[str, Any] = {
        "rank": line.rank,
        "feasible": line.feasible,
        "alternative": line.other,
        "alternative_price": line.other_price,
        "counts_as": engine.lifted_to(about, now, changes.rules),
    }
    for language in LANGUAGES:
        why[language] = engine.assignment_sentences(
            about, source, line, changes.rules, language, zone, why["counts_as"]
        )
    return replace(ask, why=why)


def _chunks(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[begin : begin + CHUNK] for begin in range(0, len(ids), CHUNK))
