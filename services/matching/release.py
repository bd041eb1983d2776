"""Asking promises back where life is at risk elsewhere and nobody else can go.

Only a request, with a reason, to people who are not on scene, of needs that are minor or moderate, for needs of the
gravest severity that the plan cannot meet. The promise stands until its holder (or a dispatcher) gives it up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from services.matching import actions, engine, release_writes
from services.matching.asking import BY
from services.matching.problem import Problem, Scope, needs_of, responders_of, rules_of, zones_of
from services.matching.settings import MatchingSettings
from services.matching.widen import planned
from services.runtime import clock
from services.runtime.db import Database, Row, Tx

log = logging.getLogger(__name__)

GRAVE = 4
"""For needs of this severity."""
MINOR = 2
"""From needs of at most this severity."""
MET = "it is met otherwise"


async def ask_back(db: Database, scope: Scope, settings: MatchingSettings) -> int:
    """Ask as many back as grave needs lack and nobody free can give, and take back requests that are not needed any
    more; returns how many were asked."""
    async with db.tx() as tx:
        await _take_back(tx, scope)
    async with db.tx() as tx:
        lacking = await _lacking(tx, scope, settings)
        if not lacking:
            return 0
        now = clock.now()
        rows, lines = await needs_of(tx, scope, now, sorted(lacking))
        held = await _may_be_asked(tx, scope)
        people = await responders_of(tx, scope, now, sorted(held), settings)
        problem = Problem(
            now,
            [replace(line, quantity=lacking[row["need_id"]]) for row, line in zip(rows, lines, strict=True)],
            [_freed(one, held) for one in people],
            [],
            {},
            {},
            rules_of(settings, await zones_of(tx, scope, now)),
        )
    # Nothing is locked while it is worked out; whoever set out or gave up meanwhile is not asked.
    plan = await planned(problem, settings)
    about = {row["need_id"]: row for row in rows}
    chosen = {
        held[line.source_id]["assignment_id"]: about[line.need_id]  # type: ignore[index]  # the ids are ours
        for line in plan.assignments
    }
    if not chosen:
        return 0
    async with db.tx() as tx:
        asked = await _request(tx, chosen)
    if asked:
        log.info("asked %d promises back for graver needs", asked)
    return asked


async def _lacking(tx: Tx, scope: Scope, settings: MatchingSettings) -> dict[UUID, int]:
    """Units of grave needs that the last plan left unmet and for which nobody has been asked back just now."""
    rows = await tx.fetch(
        """
        SELECT n.need_id, n.open - coalesce((
            SELECT sum(a.quantity) FROM assignment AS a
            WHERE a.release_for = n.need_id AND a.release_asked_at > $3 AND a.state IN ('made', 'started')
        ), 0) AS lacking
        FROM need AS n JOIN unmet AS u USING (need_id)
        WHERE n.exercise = $1 AND n.status = 'declared' AND n.severity >= $2 AND n.skill IS NOT NULL AND n.open > 0
        """,
        scope.exercise,
        GRAVE,
        clock.now() - timedelta(minutes=settings.offer_minutes[GRAVE - 1]),
    )
    return {row["need_id"]: row["lacking"] for row in rows if row["lacking"] > 0}


async def _may_be_asked(tx: Tx, scope: Scope) -> dict[UUID, Row]:
    """Whoever holds a single promise, of a lesser need and not on scene, by responder."""
    rows = await tx.fetch(
        """
        SELECT a.assignment_id, a.responder_id, a.period, a.state, a.release_asked_at, a.release_for, n.severity
        FROM assignment AS a JOIN need AS n USING (need_id)
        WHERE a.exercise = $1 AND a.responder_id IS NOT NULL AND a.state IN ('made', 'started', 'arrived')
        """,
        scope.exercise,
    )
    by_responder: dict[UUID, list[Row]] = {}
    for row in rows:
        by_responder.setdefault(row["responder_id"], []).append(row)
    return {
        who: some[0]
        for who, some in by_responder.items()
        if len(some) == 1
        and some[0]["severity"] <= MINOR
        and some[0]["state"] != "arrived"
        and some[0]["release_asked_at"] is None
        and some[0]["release_for"] is None  # who was asked and set out all the same is not asked again
    }


def _freed(one: engine.Responder, held: Mapping[UUID, Row]) -> engine.Responder:
    """The responder as they would be without their promise."""
    period = held[one.responder_id]["period"]  # type: ignore[index]  # the ids are ours
    return replace(one, busy=[busy for busy in one.busy if busy != (period.lower, period.upper)])


async def _request(tx: Tx, chosen: Mapping[UUID, Row]) -> int:
    """Ask these assignments back, each for its need."""
    needs = await tx.fetch("SELECT need_id FROM assignment WHERE assignment_id = ANY($1)", sorted(chosen))
    held = await actions.hold(tx, [row["need_id"] for row in needs])
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE assignment_id = ANY($1) AND state IN ('made', 'started') "
        "AND release_asked_at IS NULL ORDER BY assignment_id",
        sorted(chosen),
    )
    for row in rows:
        grave = chosen[row["assignment_id"]]
        place = f" at {grave['place']}" if grave["place"] else ""
        reason = f"life is at risk elsewhere: {grave['skill']}{place}, and nobody else can go"
        await release_writes.request_release(
            tx, held[row["need_id"]], [row], by=BY, reason=reason, for_need=grave["need_id"]
        )
    await actions.put_back(tx, held.values(), replan=False)
    return len(rows)


async def _take_back(tx: Tx, scope: Scope) -> None:
    """Who was asked back for a need that is met otherwise by now, or gone, keeps the promise."""
    found = await tx.fetch(
        """
        SELECT a.assignment_id, a.need_id FROM assignment AS a JOIN need AS n ON n.need_id = a.release_for
        WHERE a.release_for IS NOT NULL AND a.exercise = $1 AND a.release_asked_at IS NOT NULL
          AND a.state IN ('made', 'started') AND (n.status <> 'declared' OR n.open = 0 OR n.severity < $2)
        """,
        scope.exercise,
        GRAVE,
    )
    if not found:
        return
    held = await actions.hold(tx, [row["need_id"] for row in found])
    rows = await tx.fetch(
        "UPDATE assignment SET release_asked_at = NULL, release_reason = NULL "
        "WHERE assignment_id = ANY($1) AND state IN ('made', 'started') RETURNING *",
        [row["assignment_id"] for row in found],
    )
    for row in sorted(rows, key=lambda one: str(one["assignment_id"])):
        need = held[row["need_id"]]
        need.events.append(actions.assignment_event(row, need.row, by=BY, reason=MET))
    await actions.put_back(tx, held.values(), replan=False)
