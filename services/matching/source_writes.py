"""What happens to promises when a responder or a stock falls away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from services.matching import domain
from services.matching.actions import Held, hold, put_back
from services.matching.assignment_writes import give_up
from services.matching.offer_writes import close_offers
from services.runtime.db import Tx


class _More(Exception):
    """More needs are touched than are held; they have to be locked before anything else."""


async def _holding(
    tx: Tx,
    find: Callable[[], Awaitable[set[UUID]]],
    work: Callable[[dict[UUID, Held]], Awaitable[None]],
    lock: Callable[[], Awaitable[None]],
) -> None:
    """Do `work` with the needs that `find` names held, and what `lock` locks locked after them.

    Between looking and locking somebody may promise the same source to another need. Then all is let go again (a
    savepoint gives its locks back) and taken in order with that need too, so that nobody waits in a circle.
    """
    wanted = await find()
    while True:
        try:
            async with tx.savepoint():
                held = await hold(tx, wanted)
                await lock()
                found = await find()
                if not found <= wanted:
                    wanted |= found
                    raise _More
                await work(held)
            return
        except _More:
            continue


async def release_responders(tx: Tx, responder_ids: Sequence[UUID], lock: Callable[[], Awaitable[None]]) -> None:
    """They may not be asked any more: their open offers go, and what they promised but did not begin breaks.

    `lock` writes the responders' rows; who set out already is followed to the end by an operator.
    """

    async def find() -> set[UUID]:
        rows = await tx.fetch(
            "SELECT need_id FROM offer WHERE responder_id = ANY($1) AND state = 'made' "
            "UNION SELECT need_id FROM assignment WHERE responder_id = ANY($1) AND state = 'made'",
            responder_ids,
        )
        return {row["need_id"] for row in rows}

    async def work(held: dict[UUID, Held]) -> None:
        reason = "the responder withdrew"
        by = "system:registry"
        offers = await tx.fetch(
            "SELECT * FROM offer WHERE responder_id = ANY($1) AND state = 'made' ORDER BY offer_id", responder_ids
        )
        await close_offers(tx, held, offers, "withdrawn", by=by, reason=reason)
        rows = await tx.fetch(
            "SELECT * FROM assignment WHERE responder_id = ANY($1) AND state = 'made' ORDER BY assignment_id",
            responder_ids,
        )
        for row in rows:
            await give_up(tx, held[row["need_id"]], row, by=by, reason=reason)
        await put_back(tx, held.values())

    await _holding(tx, find, work, lock)


@dataclass(frozen=True, slots=True)
class Count:
    """What a holder says of a lot: whether it may still be given, how much is there, and when that was said."""

    lot_id: UUID
    available: bool
    quantity: int
    at: datetime


async def recount_lots(
    tx: Tx, counts: Sequence[Count], write: Callable[[dict[tuple[UUID, bool], tuple[int, int]]], Awaitable[None]]
) -> None:
    """Take new counts of lots; where less is there than is promised, the youngest commitments break.

    `write` writes the lots' rows, given what is then reserved and given of each (lot, exercise) that is known already.
    """
    told = {count.lot_id: count for count in counts}
    after: dict[tuple[UUID, bool], tuple[int, int]] = {}
    breaking: list[tuple[UUID, str]] = []

    async def lock() -> None:
        """Lock the lots that are known, and work out what breaks."""
        after.clear()
        breaking.clear()
        lots = await tx.fetch(
            "SELECT * FROM lot WHERE lot_id = ANY($1) ORDER BY lot_id, exercise FOR NO KEY UPDATE", sorted(told)
        )
        for lot in lots:
            count = told[lot["lot_id"]]
            given = lot["given"]
            if count.quantity != lot["quantity"]:
                # A new figure was counted after all that had left by then; the old one repeated says nothing new.
                since = await tx.fetchval(
                    "SELECT coalesce(sum(o.quantity), 0) FROM assignment AS a "
                    "JOIN offer AS o ON o.offer_id = a.assignment_id "
                    "WHERE a.lot_id = $1 AND a.exercise = $2 AND a.started_at >= $3 "
                    "AND (a.state <> 'abandoned' OR a.delivered_at IS NOT NULL)",
                    lot["lot_id"],
                    lot["exercise"],
                    count.at,
                )
                given = min(int(since), count.quantity)
            over = lot["reserved"] if not count.available else lot["reserved"] + given - count.quantity
            reason = "the stock was withdrawn" if not count.available else f"the stock fell to {count.quantity}"
            reserved = lot["reserved"]
            if over > 0:
                promises = await tx.fetch(
                    "SELECT assignment_id, quantity FROM assignment WHERE lot_id = $1 AND exercise = $2 "
                    "AND state = 'made' ORDER BY made_at DESC, assignment_id DESC",
                    lot["lot_id"],
                    lot["exercise"],
                )
                size = {row["assignment_id"]: row["quantity"] for row in promises}
                gone = domain.broken(size.items(), over)
                breaking.extend((assignment_id, reason) for assignment_id in gone)
                reserved -= sum(size[assignment_id] for assignment_id in gone)
            after[lot["lot_id"], lot["exercise"]] = (reserved, given)

    async def find() -> set[UUID]:
        rows = await tx.fetch(
            "SELECT need_id FROM assignment WHERE assignment_id = ANY($1) "
            "UNION SELECT need_id FROM offer WHERE lot_id = ANY($2) AND state = 'made'",
            [assignment_id for assignment_id, _ in breaking],
            [count.lot_id for count in counts if not count.available],
        )
        return {row["need_id"] for row in rows}

    async def work(held: dict[UUID, Held]) -> None:
        offers = await tx.fetch(
            "SELECT * FROM offer WHERE lot_id = ANY($1) AND state = 'made' ORDER BY offer_id",
            [count.lot_id for count in counts if not count.available],
        )
        by = "system:registry"
        await close_offers(tx, held, offers, "withdrawn", by=by, reason="the stock was withdrawn")
        for assignment_id, reason in breaking:
            row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", assignment_id)
            assert row is not None
            await give_up(tx, held[row["need_id"]], row, by=by, reason=reason)
        await write(after)
        await put_back(tx, held.values())

    await _holding(tx, find, work, lock)
