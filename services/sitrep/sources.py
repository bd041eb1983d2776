"""The events behind a figure: every subject that adds to it, by how much, and its newest event in the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from schemas.topics import TOPICS
from services.runtime.db import Row, Tx
from services.sitrep import checkpoints, tally
from services.sitrep.checkpoints import Side
from services.sitrep.document import instant
from services.sitrep.domain import EVIDENCE, Scope

# The first word of a figure's name -> the table whose rows add to it, and the topic of their events.
_OF: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("reports", "reports_unlinked", "reports_retracted", "reports_received"), ("report", "reports")),
    **dict.fromkeys(
        ("status", "ev", "people", "damage", "said", "hazard", "severity", "incidents_opened", "cell"),
        ("incident", "incidents"),
    ),
    **dict.fromkeys(("need", "drafts"), ("need", "needs")),
    "offer": ("offer", "offers"),
    **dict.fromkeys(("assignment", "busy", "overdue", "who", "what"), ("assignment", "assignments")),
    **dict.fromkeys(("responders", "responder_people"), ("responder", "responders")),
    **dict.fromkeys(("site", "heads", "sites_uncounted"), ("site", "sites")),
}
FIGURES = tuple(_OF)
SCAN = 2000
"""Subjects that one page looks at; a rare figure of many subjects takes more pages."""


@dataclass(frozen=True, slots=True)
class Page:
    """`next_after`: the subject after which to go on; None: that was all."""

    items: list[dict[str, Any]]
    next_after: UUID | None


def matches(figure: Sequence[str], key: str) -> bool:
    """Whether the sum of this name is part of the figure: word by word, `*` for any; a shorter figure has all below."""
    words = tally.parts(key)
    return len(words) >= len(figure) and all(
        wanted in ("*", word.replace(" ", "_")) for wanted, word in zip(figure, words, strict=False)
    )


async def behind(tx: Tx, figure: Sequence[str], scope: Scope, position: int, after: UUID | None, limit: int) -> Page:
    """Subjects in the order of their ids that add to the figure, at most `limit`.

    Raises
    ------
    LookupError
        There is no such figure.
    """
    if not figure or figure[0] not in _OF:
        raise LookupError(".".join(figure))
    table, stream = _OF[figure[0]]
    await checkpoints.hold_still(tx)
    now = await tx.fetchval("SELECT received_at FROM log WHERE position = $1", position)
    # A need that only the ledger tells of counts too.
    tables = f"(SELECT need_id FROM need UNION SELECT need_id FROM ledger) AS {table}" if table == "need" else table
    rows = await tx.fetch(
        f"SELECT DISTINCT {table}_id AS id FROM {tables} WHERE ($1::uuid IS NULL OR {table}_id > $1) "
        f"ORDER BY 1 LIMIT {SCAN}",
        after,
    )
    side = Side(tx, position, now)
    found: list[tuple[UUID, int, list[str]]] = []
    counted = sorted(await side.counted_each({table: {row["id"] for row in rows}}), key=lambda each: each[0])
    codes = scope.area_codes()
    last: UUID | None = None
    for subject, (place, sums) in counted:
        operation, exercise, admin = place
        if operation == "":
            covered = True  # responders serve any operation
        else:
            covered = scope.covers(operation, exercise) and (
                codes is None or (admin is not None and (admin in codes[0] or admin.startswith(codes[1])))
            )
        keys = [key for key in sums if matches(figure, key)]
        if covered and keys:
            levels = [word for key in keys for word in tally.parts(key) if word in EVIDENCE]
            found.append((subject, sum(sums[key] for key in keys), levels))
            if len(found) == limit:
                last = subject
                break
    if last is None and len(rows) == SCAN:
        last = rows[-1]["id"]
    events = await _newest(tx, f"gotong.{stream}.v1", [subject for subject, _, _ in found], position)
    if table == "need":
        events = await _newest(tx, "gotong.ledger.v1", [subject for subject, _, _ in found], position) | events
    items = [
        {
            "subject": str(subject),
            "amount": amount,
            "evidence": levels[0] if levels else None,
            "event": _event(events[subject]) if subject in events else None,
        }
        for subject, amount, levels in found
    ]
    return Page(items, last)


async def _newest(tx: Tx, topic: str, subjects: Sequence[UUID], position: int) -> dict[UUID, Row]:
    """The event by which each subject stands as it does."""
    assert topic in TOPICS
    rows = await tx.fetch(
        """
        SELECT t.subject AS asked, l.* FROM unnest($2::text[]) AS t(subject), LATERAL (
            SELECT position, source, id, type, time, sequence FROM log
            WHERE topic = $1 AND log.subject = t.subject AND position <= $3 AND NOT superseded
            ORDER BY sequence DESC, position DESC LIMIT 1) AS l
        """,
        topic,
        [str(subject) for subject in subjects],
        position,
    )
    return {UUID(row["asked"]): row for row in rows}


def _event(row: Row) -> dict[str, Any]:
    return {
        "position": row["position"],
        "source": row["source"],
        "id": row["id"],
        "type": row["type"],
        "time": instant(row["time"]),
    }
