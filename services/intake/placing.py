"""Giving a place to a report that came without one: a position in its photograph, or the sender's next message."""

from __future__ import annotations

from uuid import UUID

from schemas.reports import ReportPlaced
from services.intake import domain
from services.intake.actions import LINKER_CHANNEL, exercise_of, operations
from services.runtime import outbox
from services.runtime.db import Tx


async def place_report(
    tx: Tx,
    report_id: UUID,
    *,
    lon: float | None = None,
    lat: float | None = None,
    accuracy_m: float | None = None,
    place: str | None = None,
    admin: str | None = None,
    by: str,
    reason: str,
) -> bool:
    """Place a report that has neither point nor area code yet, and let it be linked; False: it has one, or is gone.

    `place` is masked already. One that named no operation goes to the one whose area it now turns out to lie in.
    A report that is still held for its operation is placed without a word: what is told of it comes later.
    """
    row = await tx.fetchrow(
        """
        UPDATE report SET lon = $2, lat = $3, accuracy_m = $4, place = coalesce($5, place), admin = $6
        WHERE report_id = $1 AND lon IS NULL AND admin IS NULL AND state IN ('unplaced', 'held') RETURNING *
        """,
        report_id, lon, lat, accuracy_m, place, admin,
    )  # fmt: skip
    if row is None or row["state"] == "held":
        return row is not None
    known = await operations(tx)
    operation: str = row["operation"]
    if row["named_operation"] is None:
        operation = domain.operation_by_rule(known.values(), row["hazard"], lon, lat, admin)
    placed = lon is not None or admin is not None
    exercise = exercise_of(operation, known)
    await tx.execute(
        "UPDATE report SET operation = $2, exercise = $3, state = $4 WHERE report_id = $1",
        report_id, operation, exercise, "waiting" if placed else "unplaced",
    )  # fmt: skip
    where = {name: row[name] for name in ("lon", "lat", "accuracy_m", "place", "admin") if row[name] is not None}
    event = ReportPlaced(
        report_id=report_id, operation=operation, exercise=exercise, sensitivity=row["sensitivity"],
        location=where or None, by=by, reason=reason,
    )  # fmt: skip
    await outbox.append(tx, [event])
    await tx.notify(LINKER_CHANNEL)
    return True
