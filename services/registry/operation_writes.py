"""Writes of operations. Each locks what it changes before its events are appended, so they leave in that order."""

from __future__ import annotations

import asyncio
from typing import Any

from schemas.operations import OperationClosed, OperationOpened, OperationUpdated
from schemas.values import STANDING
from services.registry.actions import masked
from services.registry.bodies import OperationChange, OperationOrder
from services.runtime import clock, outbox
from services.runtime.db import Database, Row, Tx, from_json, to_json
from services.runtime.problems import Conflict, Fault, NotFound


async def keep_standing_open(db: Database, stopping: asyncio.Event) -> None:
    """Open `standing` at the first start: the operation that takes whatever fits no other."""
    async with db.tx() as tx:
        now = clock.now()
        made = await tx.fetchrow(
            "INSERT INTO operation (id, title, timezone, opened_at, updated_at) VALUES ($1, $2, $3, $4, $4) "
            "ON CONFLICT DO NOTHING RETURNING *",
            STANDING,
            "Siaga sehari-hari",
            "Asia/Jakarta",
            now,
        )
        if made is not None:
            await outbox.append(tx, [OperationOpened(**operation_fields(made), by="registry")])
    await stopping.wait()


async def open_operation(tx: Tx, order: OperationOrder, by: str) -> Row:
    """Raises `Conflict` when the id is taken."""
    now = clock.now()
    row = await tx.fetchrow(
        """
        INSERT INTO operation (id, title, glide, hazards, areas, bbox, timezone, lead, status, phase, exercise,
                               opened_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) ON CONFLICT DO NOTHING RETURNING *
        """,
        order.id,
        order.title,
        order.glide,
        list(order.hazards),
        list(order.areas),
        list(order.bbox) if order.bbox else None,
        order.timezone,
        order.lead,
        order.status.model_dump_json(exclude_none=True) if order.status else None,
        order.phase,
        order.exercise,
        now,
    )
    if row is None:
        raise Conflict(f"there is an operation {order.id} already", [Fault("/id", "taken")])
    if row["status"] is not None:
        await _declared(tx, row, by, None)
    await outbox.append(tx, [OperationOpened(**operation_fields(row), by=by)])
    return row


async def _declared(tx: Tx, row: Row, by: str, reason: str | None) -> None:
    """Note what is declared now: whoever asks later what was in force on a day finds it here."""
    await tx.execute(
        "INSERT INTO declared_status (operation, status, at, by, reason) VALUES ($1, $2, $3, $4, $5)",
        row["id"],
        row["status"] if row["status"] is None else to_json(from_json(row["status"])),
        row["updated_at"],
        by,
        reason,
    )


async def change_operation(tx: Tx, operation: str, change: OperationChange, by: str) -> Row:
    """Change an operation, or close it for good.

    Raises
    ------
    NotFound
    Conflict
        It is closed; or the change would close `standing`, or turn a drill into life or the reverse.
    """
    row = await tx.fetchrow("SELECT * FROM operation WHERE id = $1 FOR UPDATE", operation)
    if row is None:
        raise NotFound(f"there is no operation {operation}")
    changes = change.changes()
    if changes.pop("exercise", row["exercise"]) != row["exercise"]:
        raise Conflict(
            "whether an operation is an exercise is settled when it is opened",
            [Fault("/exercise", "cannot be changed")],
        )
    closing = changes.pop("closed", False)
    if closing and operation == STANDING:
        raise Conflict("the standing operation is always open", [Fault("/closed", "cannot be closed")])
    for name in ("hazards", "areas", "bbox"):
        if changes.get(name) is not None:
            changes[name] = list(changes[name])
    if changes.get("status") is not None:
        changes["status"] = changes["status"].model_dump(mode="json", exclude_none=True)
    now_there = {**dict(row), "status": from_json(row["status"])}
    changed = {name: value for name, value in changes.items() if now_there[name] != value}
    if row["closed_at"] is not None:
        if changed:
            raise Conflict(f"the operation {operation} is closed", [Fault("", "closed operations stay as they are")])
        return row
    if not changed and not closing:
        return row
    now = clock.now()
    after = now_there | changed
    updated = await tx.fetchrow(
        """
        UPDATE operation SET title = $2, glide = $3, hazards = $4, areas = $5, bbox = $6, timezone = $7, lead = $8,
               status = $9, phase = $10, closed_at = $11, updated_at = $12 WHERE id = $1 RETURNING *
        """,
        operation,
        after["title"],
        after["glide"],
        after["hazards"],
        after["areas"],
        after["bbox"],
        after["timezone"],
        after["lead"],
        to_json(after["status"]) if after["status"] is not None else None,
        after["phase"],
        now if closing else None,
        now,
    )
    assert updated is not None
    if "status" in changed:
        await _declared(tx, updated, by, masked(change.reason))
    model = OperationClosed if closing else OperationUpdated
    await outbox.append(tx, [model(**operation_fields(updated), by=by, reason=masked(change.reason))])
    return updated


def operation_fields(row: Row) -> dict[str, Any]:
    """A row as the fields of its event."""
    return {
        "operation": row["id"],
        "exercise": row["exercise"],
        "title": row["title"],
        "glide": row["glide"],
        "hazards": row["hazards"],
        "areas": row["areas"],
        "bbox": row["bbox"],
        "timezone": row["timezone"],
        "lead": row["lead"],
        "status": from_json(row["status"]),
        "phase": row["phase"],
        "opened_at": row["opened_at"],
        "closed_at": row["closed_at"],
    }
