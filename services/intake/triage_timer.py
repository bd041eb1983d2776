"""Sees to what waits: tells once of each report and incident that waits too long, and lets waiting count in triage."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from prometheus_client import Gauge

from schemas.reports import ReportOverdue
from services.intake.incidents import lock_operations, refresh, tell_overdue
from services.intake.triage import Wait, wait_at_most
from services.runtime import clock, outbox
from services.runtime.db import Database, Tx

BY = "rule:triage"
_POLL_S = 1.0
_AT_ONCE = 100  # in one transaction: linking must not wait long for the operation's lock
_STATES: dict[str, Wait] = {"waiting": "linking", "unplaced": "place"}

WAITING = Gauge("gotong_intake_waiting", "What waits for us, drills left out", ["waits_for"])
AGE = Gauge("gotong_intake_waiting_age_seconds", "How long the oldest of it has waited; 0 for none", ["waits_for"])
OVERDUE = Gauge("gotong_intake_overdue_incidents", "Incidents that nobody has looked at in time", ["severity"])


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Look every second until the process stops."""
    while not stopping.is_set():
        await tick(db)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _POLL_S)


async def tick(db: Database) -> int:
    """Tell of what has become overdue and triage anew what has waited on; returns how many events that made."""
    return await _overdue_incidents(db) + await _overdue_reports(db) + await _rise(db)


async def _overdue_incidents(db: Database) -> int:
    told = 0
    async with db.tx() as tx:
        due = await tx.fetch(
            "SELECT incident_id FROM incident WHERE status = 'open' AND attend_by <= $1 AND overdue_at IS NULL "
            "ORDER BY attend_by LIMIT $2",
            clock.now(),
            _AT_ONCE,
        )
    for row in due:
        async with db.tx() as tx:
            told += await tell_overdue(tx, row["incident_id"], by=BY)
    return told


async def _overdue_reports(db: Database) -> int:
    now = clock.now()
    told = 0
    for state, wait in _STATES.items():
        allowed = wait_at_most(wait)
        async with db.tx() as tx:
            rows = await tx.fetch(
                f"""
                UPDATE report SET overdue = '{state}' WHERE report_id IN (
                    SELECT report_id FROM report WHERE state = '{state}' AND received_at <= $1
                       AND overdue IS DISTINCT FROM '{state}'
                    ORDER BY seq LIMIT $2 FOR UPDATE SKIP LOCKED
                ) RETURNING report_id, operation, exercise, sensitivity, received_at
                """,
                now - allowed,
                _AT_ONCE,
            )
            await outbox.append(
                tx,
                [
                    ReportOverdue(
                        report_id=row["report_id"], operation=row["operation"], exercise=row["exercise"],
                        sensitivity=row["sensitivity"], waits_for=wait, since=row["received_at"],
                        target_s=int(allowed / timedelta(seconds=1)),
                    )
                    for row in rows
                ],
            )  # fmt: skip
        told += len(rows)
    return told


async def _rise(db: Database) -> int:
    """Work out anew the incidents that waiting has made more urgent; only the list's order shows it."""
    async with db.tx() as tx:
        due = await tx.fetch(
            "SELECT incident_id, operation FROM incident WHERE status = 'open' AND triage_at <= $1 "
            "ORDER BY triage_at LIMIT $2",
            clock.now(),
            _AT_ONCE,
        )
    by_operation: dict[str, list[UUID]] = defaultdict(list)
    for row in due:
        by_operation[row["operation"]].append(row["incident_id"])
    for operation, incident_ids in by_operation.items():
        async with db.tx() as tx:
            await lock_operations(tx, [operation])
            there = await tx.fetch(
                "SELECT incident_id FROM incident WHERE incident_id = ANY($1) AND operation = $2 AND status = 'open'",
                incident_ids,
                operation,
            )
            await refresh(tx, [row["incident_id"] for row in there], by=BY)
    return 0


async def gauges(tx: Tx) -> None:
    """Set the gauges of what waits for us, for `/metrics`."""
    now = clock.now()
    rows = await tx.fetch(
        """
        SELECT 'operation' AS what, count(*) AS n, min(received_at) AS since FROM report WHERE state = 'held'
        UNION ALL SELECT 'linking', count(*), min(received_at) FROM report WHERE state = 'waiting' AND NOT exercise
        UNION ALL SELECT 'place', count(*), min(received_at) FROM report WHERE state = 'unplaced' AND NOT exercise
        UNION ALL SELECT 'attention', count(*), min(opened_at) FROM incident
            WHERE status = 'open' AND attend_by IS NOT NULL AND NOT exercise
        UNION ALL SELECT 'decision', count(*), min(made_at) FROM need
            WHERE status = 'draft' AND window_end > $1 AND NOT exercise
        """,
        now,
    )
    for row in rows:
        WAITING.labels(row["what"]).set(row["n"])
        AGE.labels(row["what"]).set(_age_s(row["since"], now))
    overdue = await tx.fetch(
        "SELECT severity, count(*) AS n FROM incident WHERE status = 'open' AND overdue_at IS NOT NULL "
        "AND attended_at IS NULL AND NOT exercise GROUP BY severity"
    )
    found = {row["severity"]: row["n"] for row in overdue}
    for severity in (1, 2, 3, 4):
        OVERDUE.labels(str(severity)).set(found.get(severity, 0))


def _age_s(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
