"""Promises that are asked back. Only a request: each stands until its holder, or a dispatcher, gives it up."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from schemas.assignments import (
    AssignmentReleaseRequested,
    AssignmentState,
)
from services.matching import domain
from services.matching.actions import Held, assignment_event
from services.matching.offer_writes import assignment_with_need
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx
from services.runtime.problems import Conflict


async def ask_release(tx: Tx, assignment_id: UUID, reason: str, *, by: str) -> AssignmentState:
    """Ask whoever holds it to give it up: graver need elsewhere. Only a request; the promise stands until they do.

    Raises
    ------
    NotFound, Conflict
        It is unknown; it is on scene or over already.
    """
    row, need = await assignment_with_need(tx, assignment_id)
    if row["state"] not in ("made", "started"):
        raise Conflict(f"the assignment is {row['state']}; only what is not on scene yet can be asked back")
    if row["release_asked_at"] is None:
        await request_release(tx, need, [row], by=by, reason=reason)
        await outbox.append(tx, need.events)
        need.events = []
    return release_event(row, need.row, by=by, reason=row["release_reason"] or reason)


def release_event(row: Row, need: Row, *, by: str, reason: str) -> AssignmentReleaseRequested:
    """The event that asks for an assignment back."""
    said = assignment_event(row, need, by=by, reason=reason)
    return AssignmentReleaseRequested(**said.model_dump(exclude={"meta"}))


async def request_release(
    tx: Tx, need: Held, rows: Sequence[Row], *, by: str, reason: str, for_need: UUID | None = None
) -> None:
    """Note and say that these assignments of a held need are asked back, `for_need` where that is a graver one."""
    await tx.execute(
        "UPDATE assignment SET release_asked_at = $2, release_reason = $3, release_for = $4 "
        "WHERE assignment_id = ANY($1)",
        [row["assignment_id"] for row in rows],
        clock.now(),
        reason,
        for_need,
    )
    need.events += [release_event(row, need.row, by=by, reason=reason) for row in rows]


LESS = "less is needed than is promised"
GONE = "the need is withdrawn"


async def balance_releases(tx: Tx, need: Held, *, by: str) -> None:
    """Ask back what is promised (and not on its way) beyond what is wanted by now, the youngest first; take back
    requests for what is wanted again. Requests of dispatchers stay."""
    wanted = need.row["wanted"] if need.row["status"] == "declared" else 0
    if not need.ledger.committed and need.ledger.promised <= wanted:
        return
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE need_id = $1 AND state = 'made' ORDER BY made_at DESC, assignment_id DESC",
        need.need_id,
    )
    ours = [row for row in rows if row["release_asked_at"] is None or row["release_reason"] in (LESS, GONE)]
    over = need.ledger.promised - wanted - sum(row["quantity"] for row in rows if row not in ours)
    doomed = set(domain.to_release([(row["assignment_id"], row["quantity"]) for row in ours], over))
    reason = LESS if need.row["status"] == "declared" else GONE
    fresh = [row for row in ours if row["assignment_id"] in doomed and row["release_asked_at"] is None]
    if fresh:
        await request_release(tx, need, fresh, by=by, reason=reason)
    again = [row for row in ours if row["assignment_id"] not in doomed and row["release_asked_at"] is not None]
    if again:
        await tx.execute(
            "UPDATE assignment SET release_asked_at = NULL, release_reason = NULL WHERE assignment_id = ANY($1)",
            [row["assignment_id"] for row in again],
        )
        need.events += [assignment_event(row, need.row, by=by, reason="it is needed again") for row in again]
