"""The timer that publishes a situation report of each open operation in its public form, and archives its bytes."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from schemas.sitreps import SitrepPublished
from services.runtime import clock, outbox
from services.runtime.db import Database, Tx
from services.runtime.outbox import MAX_EVENT_BYTES
from services.sitrep import log, reporting
from services.sitrep.domain import Scope
from services.sitrep.render import markdown, words

EVERY = timedelta(seconds=float(os.environ.get("GOTONG_SITREP_EVERY_S") or 900))
"""At most one report of an operation in this time."""
FIRST = timedelta(seconds=min(20.0, EVERY.total_seconds()))
"""How long the first events of an operation are gathered before its first report."""
LOOK_S = 5.0
LANGUAGES: tuple[reporting.Lang, ...] = ("id", "en")


def due(last_at: datetime | None, first_change_at: datetime | None, now: datetime) -> bool:
    """Whether a report is due: never without a change; the first one soon, then one each `EVERY`.

    `first_change_at`: when the oldest event that no report has counted yet was received.
    """
    if first_change_at is None:
        return False
    if last_at is None:
        return now - first_change_at >= FIRST
    return now - last_at >= EVERY


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Publish what is due until `stopping`."""
    while not stopping.is_set():
        await publish_due(db)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_S)


async def publish_due(db: Database) -> list[str]:
    """Publish a report of every operation for which one is due; returns the operations."""
    async with db.tx() as tx:
        # One publisher at a time, whichever worker it runs in.
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('gotong.sitrep.publish'))"):
            return []
        rows = await tx.fetch(
            """
            SELECT o.operation_id, last.published_at, change.received_at
            FROM operation AS o
            LEFT JOIN LATERAL (SELECT published_at, position FROM published WHERE operation = o.operation_id
                               ORDER BY position DESC LIMIT 1) AS last ON true
            LEFT JOIN LATERAL (SELECT received_at FROM log
                               WHERE operation = o.operation_id AND position > coalesce(last.position, 0)
                               ORDER BY position LIMIT 1) AS change ON true
            WHERE o.until_position = 9223372036854775807 AND o.closed_at IS NULL
            ORDER BY o.operation_id
            """
        )
        now = clock.now()
        operations = [row["operation_id"] for row in rows if due(row["published_at"], row["received_at"], now)]
        position = await log.head(tx)
        for operation in operations:
            await _publish(tx, operation, position, now)
    return operations


async def _publish(tx: Tx, operation: str, position: int, now: datetime) -> None:
    last = await tx.fetchval(
        "SELECT position FROM published WHERE operation = $1 ORDER BY position DESC LIMIT 1", operation
    )
    report = await reporting.document(tx, position, Scope(operation), exact=False, since=last or 0)
    event, text_id, text_en = _event(report, operation, position)
    await tx.execute(
        "INSERT INTO published (operation, position, as_of, published_at, text_id, text_en, document, "
        "since_position, html_id, html_en, csv_id, csv_en) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        operation,
        position,
        event.as_of,
        now,
        text_id,
        text_en,
        reporting.rendered(report, "json", "id"),
        last or 0,
        reporting.rendered(report, "html", "id"),
        reporting.rendered(report, "html", "en"),
        reporting.rendered(report, "csv", "id"),
        reporting.rendered(report, "csv", "en"),
    )
    await outbox.append(tx, [event])


def _event(report: dict[str, Any], operation: str, position: int) -> tuple[SitrepPublished, bytes, bytes]:
    """The event and its two texts: shorter tables where it would be more than an event may hold."""
    most = 40
    while True:
        text_id, text_en = (markdown.render(report, lang, most) for lang in LANGUAGES)
        event = SitrepPublished(
            operation=operation,
            exercise=report["exercise"],
            area=operation,
            as_of=report["as_of"],
            position=position,
            title=f"{words.word('drill', 'id') + ': ' if _unmarked(report) else ''}{report['title']}",
            incidents_open=report["totals"]["incidents_open"],
            people=report["totals"]["people"],
            damage=report["totals"]["damage"],
            needs=tuple(report["needs"][:most]),
            text_id=text_id.decode(),
            text_en=text_en.decode(),
        )
        if len(event.to_bytes()) <= MAX_EVENT_BYTES or most == 1:
            return event, text_id, text_en
        most //= 2


def _unmarked(report: dict[str, object]) -> bool:
    """Whether it is a drill whose title does not say so."""
    return bool(report["exercise"]) and not str(report["title"]).startswith("LATIHAN")
