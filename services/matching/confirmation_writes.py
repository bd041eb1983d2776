"""Whether what was delivered arrived, as the people say for whom it was."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from services.matching import domain
from services.matching.actions import Held, assignment_event, hold, put_back
from services.runtime.db import Row, Tx


async def confirm(tx: Tx, need_id: UUID, quantity: int | None, *, by: str, reason: str | None) -> None:
    """It arrived: the oldest delivered assignments are confirmed first.

    What is on its way counts as seen when it comes, so that a person who confirms before the driver does is heard.
    """
    need = (await hold(tx, [need_id])).get(need_id)
    if need is None:
        return
    shares = domain.shared_out(quantity, await _delivered(tx, need_id))
    sure = sum(take for _, take in shares)
    await confirm_shares(tx, need, shares, by=by, reason=reason)
    if quantity is not None:
        need.ahead = min(need.ahead + quantity - sure, need.ledger.in_transit)
    elif not sure:
        need.ahead = need.ledger.in_transit
    await put_back(tx, [need])


async def dispute(tx: Tx, need_id: UUID, quantity: int | None, *, by: str, reason: str | None) -> None:
    """It did not arrive: what was counted as delivered is open again, from the oldest assignment on."""
    need = (await hold(tx, [need_id])).get(need_id)
    if need is None:
        return
    reason = reason or "not received"
    for row, take in domain.shared_out(quantity, await _delivered(tx, need_id)):
        left = row["quantity"] - take
        state = "delivered" if left > row["confirmed"] else "confirmed" if left else "abandoned"
        new = await tx.fetchrow(
            "UPDATE assignment SET state = $2, quantity = $3, by = $4, reason = $5 "
            "WHERE assignment_id = $1 RETURNING *",
            row["assignment_id"],
            state,
            left or row["quantity"],
            by,
            reason,
        )
        assert new is not None
        need.events.append(assignment_event(new, need.row))
        need.move("not received", delivered=-take)
    await put_back(tx, [need])


async def _delivered(tx: Tx, need_id: UUID) -> list[tuple[Row, int]]:
    """Delivered assignments, oldest first, each with what is not confirmed of it."""
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE need_id = $1 AND state = 'delivered' ORDER BY delivered_at, assignment_id",
        need_id,
    )
    return [(row, row["quantity"] - row["confirmed"]) for row in rows]


async def confirm_shares(tx: Tx, need: Held, shares: Sequence[tuple[Row, int]], *, by: str, reason: str | None) -> None:
    for row, take in shares:
        whole = row["confirmed"] + take == row["quantity"]
        new = await tx.fetchrow(
            "UPDATE assignment SET confirmed = confirmed + $2, state = $3, by = $4, reason = $5 "
            "WHERE assignment_id = $1 RETURNING *",
            row["assignment_id"],
            take,
            "confirmed" if whole else "delivered",
            by,
            reason or (None if whole else f"{row['confirmed'] + take} of {row['quantity']} confirmed"),
        )
        assert new is not None
        need.events.append(assignment_event(new, need.row))
        need.move("delivery confirmed", delivered=-take, confirmed=take)
