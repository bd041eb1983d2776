"""Tickets: what became of a report, for whoever holds its ticket, by HTTP or by message."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from services.intake import domain
from services.intake.actions import as_dict
from services.intake.incidents import incident_row
from services.intake.need_writes import Delivered
from services.runtime.db import Tx
from services.runtime.problems import Conflict, NotFound


async def by_ticket(tx: Tx, ticket: str) -> dict[str, Any]:
    """The report of a ticket, however it was typed.

    Raises
    ------
    NotFound
    """
    said = domain.read_ticket(ticket)
    row = await tx.fetchrow("SELECT * FROM report WHERE ticket = $1", said) if said else None
    if row is None:
        raise NotFound("there is no such ticket")
    return as_dict(row)


async def ticket_told(tx: Tx, report: dict[str, Any], language: str | None) -> dict[str, Any]:
    """What a ticket's holder is told: its status, its steps with their times, and its incident."""
    incident = await incident_row(tx, report["incident_id"]) if report["incident_id"] else None
    verified_at = acting_at = resolved_at = None
    if incident is not None:
        verified_at = incident["verified_at"] if incident["evidence"] in ("field_checked", "official") else None
        acting_at, resolved_at = await _progress(tx, incident["incident_id"])
        resolved_at = incident["closed_at"] or resolved_at
    steps = domain.ticket_history(report["received_at"], report["linked_at"], verified_at, acting_at, resolved_at)
    english = (language or "").lower().startswith("en")
    history = []
    for at, status in steps:
        indonesian_text, english_text = domain.STEPS[status]
        history.append(
            {
                "time": at.isoformat(),
                "status": status,
                "text": english_text if english else indonesian_text,
                "text_id": indonesian_text,
                "text_en": english_text,
            }
        )
    answer: dict[str, Any] = {
        "ticket": report["ticket"],
        "status": steps[-1][1],
        "needs_place": report["lon"] is None and report["admin"] is None,
        "history": history,
    }
    if incident is not None:
        answer["incident"] = {
            "id": str(incident["incident_id"]),
            # The title is another's words: of something protected nobody learns them by having reported nearby.
            "title": incident["title"]
            if incident["sensitivity"] is None
            else domain.coarse_title(None, domain.coarse_area(incident["admin"])),
            "status": incident["status"],
        }
    return answer


async def _progress(tx: Tx, incident_id: UUID) -> tuple[datetime | None, datetime | None]:
    """When the first help for an incident was promised, and when its last need was met; None: not yet."""
    row = await tx.fetchrow(
        """
        SELECT (SELECT min(a.first_at) FROM assignment a JOIN need m USING (need_id)
                WHERE m.incident_id = $1) AS acting,
               max(l.at) AS at, count(*) AS needs,
               count(*) FILTER (WHERE l.confirmed + l.cancelled = l.needed) AS done
        FROM need n LEFT JOIN ledger l USING (need_id) WHERE n.incident_id = $1 AND n.declared_at IS NOT NULL
        """,
        incident_id,
    )
    assert row is not None
    return row["acting"], row["at"] if row["needs"] and row["needs"] == row["done"] else None


async def to_confirm(tx: Tx, report: dict[str, Any], need_id: UUID | None) -> Sequence[Delivered]:
    """What was delivered that the report's sender may confirm: of its own needs, else of its incident's.

    Raises
    ------
    NotFound
        Its incident has no such need, or none.
    Conflict
        Nothing has been delivered yet.
    """
    rows = await tx.fetch(
        """
        SELECT n.need_id, n.operation, n.exercise, coalesce(l.delivered, 0) AS delivered, a.report_id IS NOT NULL AS own
        FROM need n LEFT JOIN ledger l USING (need_id)
                    LEFT JOIN need_ask a ON a.need_id = n.need_id AND a.report_id = $2
        WHERE n.incident_id = $1 AND ($3::uuid IS NULL OR n.need_id = $3) ORDER BY n.need_id
        """,
        report["incident_id"],
        report["report_id"],
        need_id,
    )
    if not rows:
        raise NotFound("the report's incident has no such need" if need_id else "the report's incident has no needs")
    delivered = [row for row in rows if row["delivered"] > 0]
    chosen = [row for row in delivered if row["own"]] or delivered
    if not chosen:
        raise Conflict("nothing has been delivered yet")
    return [Delivered(row["need_id"], row["operation"], row["exercise"], row["delivered"]) for row in chosen]
