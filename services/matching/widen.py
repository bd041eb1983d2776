"""Asking more people when answers are slow."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from uuid import UUID

from services.matching import domain, engine
from services.matching.apart import Given, PlanProcess
from services.matching.asking import apply, compared
from services.matching.problem import Problem, Scope, asked_of, needs_of, responders_of, rules_of, solved, zones_of
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Database

log = logging.getLogger(__name__)


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
        rows, lines = await needs_of(tx, scope, now, sorted(more))
        asked = await asked_of(tx, scope, sorted(more))
        known: dict[UUID, list[UUID]] = {}
        for need_id, source_id in asked:
            known.setdefault(need_id, []).append(source_id)
        idle = await tx.fetch(
            "SELECT responder_id FROM responder AS r WHERE status = 'confirmed' AND skills ?| $1 AND NOT EXISTS ("
            "SELECT 1 FROM offer AS o WHERE o.responder_id = r.responder_id AND o.exercise = $2 AND o.state = 'made')",
            sorted({row["skill"] for row in rows}),
            scope.exercise,
        )
        responders = await responders_of(tx, scope, now, [row["responder_id"] for row in idle], settings)
        needs = [
            replace(
                line,
                quantity=more[row["need_id"]],
                exclude=[*line.exclude, *known.get(row["need_id"], ())],
                bundle_id=None,
            )
            for row, line in zip(rows, lines, strict=True)
        ]
        version = {row["need_id"]: row["version"] for row in rows}
        rules = rules_of(settings, await zones_of(tx, scope, now))
        problem = Problem(now, needs, responders, [], {}, version, rules)
        plan = await planned(problem, settings)
        changes = compared(problem, plan)
        changes.ask = [replace(ask, extra=True) for ask in changes.ask]
        made = await apply(db, scope, changes, problem.version, settings)
    if made:
        log.info("asked %d more people for %d needs whose first answers are slow", made, len(needs))
    return made


async def planned(problem: Problem, settings: MatchingSettings) -> engine.Plan:
    """The plan, wherever it may be made without holding the worker up."""
    if problem.size < settings.apart_from:
        return await asyncio.to_thread(solved, problem)
    process = await PlanProcess.start()
    try:
        return await process.plan(Given.of(problem))
    finally:
        await process.stop()
