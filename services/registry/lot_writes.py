"""Writes of resources. Each locks what it changes before its events are appended, so they leave in that order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from schemas.event import Event
from schemas.resources import ResourceAdjusted, ResourceRegistered, ResourceWithdrawn
from services.registry.actions import Outcome, Sender, exercises, masked, not_yours, unknown_operation
from services.registry.bodies import ArrivalOrder, LotChange, LotOrder
from services.registry.domain import source_of
from services.runtime import clock, ids, outbox
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.problems import Conflict, Fault, Forbidden, NotFound


async def register_lots(tx: Tx, sender: Sender, orders: Sequence[LotOrder]) -> list[Outcome]:
    """Take these lots, each once: one that repeats a known (source, external id) changes nothing."""
    drills = await exercises(tx, {order.operation for order in orders})
    now = clock.now()
    outcomes: list[Outcome | None] = [None] * len(orders)
    fresh: list[tuple[int, UUID, str | None, LotOrder, str | None]] = []
    for index, order in enumerate(orders):
        if order.operation not in drills:
            outcomes[index] = Outcome("refused", error=unknown_operation(order.operation))
            continue
        if sender.standing == "partner" and order.organisation not in (None, sender.organisation):
            outcomes[index] = Outcome("refused", error=not_yours("/organisation"))
            continue
        organisation = sender.organisation if sender.standing == "partner" else order.organisation
        source = None
        if order.external_id is not None:
            source = source_of(sender.standing, sender.organisation, sender.by, order.source)
        fresh.append((index, ids.uuid7(), source, order, organisation))
    # One order for all writers: two lists with the same lots wait for one another instead of dead-locking.
    fresh.sort(key=lambda entry: (entry[2] or "", entry[3].external_id or "", entry[0]))
    rows = await tx.fetch(
        """
        INSERT INTO lot (lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation,
                         operation, exercise, delivery_limit_km, expires_at, status, made_at, updated_at, details)
        SELECT lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation, operation,
               exercise, delivery_limit_km, expires_at, 'available', $16, $16, details
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::float8[],
                    $9::float8[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::float8[],
                    $15::timestamptz[], $17::jsonb[]) WITH ORDINALITY
            AS t(lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation, operation,
                 exercise, delivery_limit_km, expires_at, details, nth)
        ORDER BY nth ON CONFLICT (source, external_id) DO NOTHING RETURNING *
        """,
        [lot_id for _, lot_id, _, _, _ in fresh],
        [source for _, _, source, _, _ in fresh],
        [order.external_id for _, _, _, order, _ in fresh],
        [order.kind for _, _, _, order, _ in fresh],
        [order.item for _, _, _, order, _ in fresh],
        [order.quantity_counted for _, _, _, order, _ in fresh],
        [order.counted_in for _, _, _, order, _ in fresh],
        [order.location.lon for _, _, _, order, _ in fresh],
        [order.location.lat for _, _, _, order, _ in fresh],
        [masked(order.location.place or order.place) for _, _, _, order, _ in fresh],
        [organisation for _, _, _, _, organisation in fresh],
        [order.operation for _, _, _, order, _ in fresh],
        [drills[order.operation] for _, _, _, order, _ in fresh],
        [order.delivery_limit_km for _, _, _, order, _ in fresh],
        [order.expires_at for _, _, _, order, _ in fresh],
        now,
        [to_json(order.details()) for _, _, _, order, _ in fresh],
    )
    made = {row["lot_id"]: row for row in rows}
    repeats = [entry for entry in fresh if entry[1] not in made]
    there = {
        (row["source"], row["external_id"]): row
        for row in await tx.fetch(
            "SELECT lot_id, source, external_id, status FROM lot "
            "JOIN unnest($1::text[], $2::text[]) AS t(source, external_id) USING (source, external_id)",
            [source for _, _, source, _, _ in repeats],
            [order.external_id for _, _, _, order, _ in repeats],
        )
    }
    for index, lot_id, source, order, _ in fresh:
        if lot_id in made:
            outcomes[index] = Outcome("made", lot_id, "available")
        else:
            row = there[(source, order.external_id)]
            outcomes[index] = Outcome("repeated", row["lot_id"], row["status"])
    events: list[Event] = [
        ResourceRegistered(**lot_fields(made[lot_id]), by=sender.by)
        for index, lot_id, _, _, _ in sorted(fresh, key=lambda entry: entry[0])
        if lot_id in made
    ]
    await outbox.append(tx, events)
    return [outcome for outcome in outcomes if outcome is not None]


async def lot_row(tx: Tx, lot_id: UUID, actor: Actor, *, lock: bool = False) -> Row:
    """A lot that the actor may see.

    Raises
    ------
    NotFound, Forbidden
    """
    row = await tx.fetchrow(f"SELECT * FROM lot WHERE lot_id = $1 {'FOR UPDATE' if lock else ''}", lot_id)
    if row is None:
        raise NotFound(f"there is no lot {lot_id}")
    if actor.role == "partner" and row["organisation"] != actor.organisation:
        raise Forbidden("this lot is not of the token's organisation")
    if row["operation"] is not None:
        actor.require_operation(row["operation"])
    return row


async def change_lot(tx: Tx, actor: Actor, lot_id: UUID, change: LotChange) -> Row:
    """Say anew how much of it is there, where, until when; or that it may not be given any more.

    Raises
    ------
    NotFound, Forbidden
    """
    row = await lot_row(tx, lot_id, actor, lock=True)
    changes = change.changes()
    if actor.role == "partner" and changes.get("organisation", actor.organisation) != actor.organisation:
        raise not_yours("/organisation")
    location = changes.pop("location", None)
    if location is not None:
        changes |= {"lon": location.lon, "lat": location.lat}
        if location.place is not None:
            changes["place"] = location.place
    if changes.get("place"):
        changes["place"] = masked(changes["place"])
    if all(row[name] == value for name, value in changes.items()):
        return row
    after = dict(row) | changes
    updated = await tx.fetchrow(
        """
        UPDATE lot SET quantity = $2, lon = $3, lat = $4, place = $5, organisation = $6, delivery_limit_km = $7,
               expires_at = $8, status = $9, updated_at = $10 WHERE lot_id = $1 RETURNING *
        """,
        lot_id,
        after["quantity"],
        after["lon"],
        after["lat"],
        after["place"],
        after["organisation"],
        after["delivery_limit_km"],
        after["expires_at"],
        after["status"],
        clock.now(),
    )
    assert updated is not None
    model = ResourceWithdrawn if updated["status"] == "withdrawn" else ResourceAdjusted
    await outbox.append(tx, [model(**lot_fields(updated), by=actor.name, reason=masked(change.reason))])
    return updated


def lot_fields(row: Row) -> dict[str, Any]:
    """A row as the fields of its event."""
    names = ("lot_id", "kind", "item", "quantity", "unit", "place", "organisation", "operation", "exercise")
    return {name: row[name] for name in names} | {
        "point": {"lon": row["lon"], "lat": row["lat"]},
        "delivery_limit_km": row["delivery_limit_km"],
        "expires_at": row["expires_at"],
        "status": row["status"],
        **from_json(row["details"]),
    }


async def take_in(tx: Tx, actor: Actor, lot_id: UUID, order: ArrivalOrder) -> tuple[Row, Row]:
    """Turn what has arrived of a pledge into a stock; the pledge with what is still to come, and the new stock.

    Raises
    ------
    NotFound, Forbidden
    Conflict
        It is no pledge, or less was promised than has come.
    """
    row = await lot_row(tx, lot_id, actor, lock=True)
    if row["kind"] != "pledge":
        raise Conflict("only a pledge arrives; this is there already", [Fault("", "not a pledge")])
    if row["status"] != "available" or row["quantity"] == 0:
        raise Conflict("nothing of this pledge is still to come", [Fault("", "nothing is still to come")])
    quantity = order.quantity or row["quantity"]
    if quantity > row["quantity"]:
        reason = f"only {row['quantity']} are still to come; enter what came beyond that as a stock of its own"
        raise Conflict(reason, [Fault("/quantity", reason)])
    now = clock.now()
    left = row["quantity"] - quantity
    details = {name: value for name, value in from_json(row["details"]).items() if name != "expected_at"}
    at = order.location
    stock = await tx.fetchrow(
        """
        INSERT INTO lot (lot_id, kind, item, quantity, unit, lon, lat, place, organisation, operation, exercise,
                         delivery_limit_km, expires_at, status, made_at, updated_at, details)
        SELECT $2, 'stock', item, $3, unit, coalesce($4, lon), coalesce($5, lat), coalesce($6, place), organisation,
               operation, exercise, delivery_limit_km, coalesce($7, expires_at), 'available', $8, $8, $9
        FROM lot WHERE lot_id = $1 RETURNING *
        """,
        lot_id,
        ids.uuid7(),
        quantity,
        at.lon if at else None,
        at.lat if at else None,
        masked(at.place) if at else None,
        order.expires_at,
        now,
        to_json(details | {"pledge_id": str(lot_id)}),
    )
    pledge = await tx.fetchrow(
        "UPDATE lot SET quantity = $2::bigint, updated_at = $3, "
        "status = CASE WHEN $2::bigint = 0 THEN 'withdrawn' ELSE status END WHERE lot_id = $1 RETURNING *",
        lot_id,
        left,
        now,
    )
    assert stock is not None and pledge is not None
    reason = masked(order.reason) or "arrived"
    model = ResourceAdjusted if left else ResourceWithdrawn
    # The pledge first: whoever reads both topics' events in order never counts the goods twice.
    await outbox.append(
        tx,
        [
            model(**lot_fields(pledge), by=actor.name, reason=reason),
            ResourceRegistered(**lot_fields(stock), by=actor.name, reason=reason),
        ],
    )
    return pledge, stock
