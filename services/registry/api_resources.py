"""HTTP of resources: stock lots, vehicles, pledges."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from schemas import vocabulary
from schemas.values import Code, OperationId
from services.registry.actions import Outcome, Sender
from services.registry.bodies import ArrivalOrder, LotChange, LotOrder, Slug
from services.registry.lot_writes import change_lot, lot_row, register_lots, take_in
from services.registry.pages import Cursor, Limit, answer, batch, ids, page
from services.runtime.auth import Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx, from_json
from services.runtime.http import body_of, database, from_cursor, idempotency_key, parse, write_once
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, NotFound, TooLarge, responses

router = APIRouter()

# Resources


@router.post("/resources", status_code=201, responses=responses(NotFound), openapi_extra=takes(LotOrder))
async def post_resource(request: Request, actor: Caller) -> Response:
    """Enter a lot: so much of one item at one place. A repeat of (source, external_id) answers with the known one."""
    actor.require("operator", "partner")
    sender = Sender.of(actor)
    body = await body_of(request)
    order = parse(body, LotOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        outcome = (await register_lots(tx, sender, [order]))[0]
        if outcome.error is not None:
            raise outcome.error
        assert outcome.id is not None
        row = await lot_row(tx, outcome.id, actor)
        return (201 if outcome.what == "made" else 200), shown_lot(row)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/resources", work)


@router.post(
    "/resources:batch",
    status_code=207,
    responses=responses(Conflict, TooLarge),
    openapi_extra=takes(LotOrder, batch=True),
)
async def post_resources(request: Request, actor: Caller) -> Response:
    """Enter up to 5,000 lots: a JSON array, or one JSON object a line. A repeated (source, external_id) changes
    nothing: a list that is sent late must not undo what was counted since."""
    actor.require("operator", "partner")
    sender = Sender.of(actor)

    async def store(tx: Tx, orders: list[Any]) -> list[Outcome]:
        return await register_lots(tx, sender, orders)

    return await batch(request, actor, LotOrder, "lot_id", "POST /v1/resources:batch", list, store)


@router.get("/resources", responses=responses())
async def list_resources(
    request: Request,
    actor: Caller,
    item: Code | None = None,
    kind: Annotated[str | None, Query(pattern="^(stock|vehicle|pledge)$")] = None,
    organisation: Slug | None = None,
    operation: OperationId | None = None,
    status: Annotated[str | None, Query(pattern="^(available|withdrawn)$")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Lots, oldest first; a partner sees those of its own organisation."""
    actor.require("field", "operator", "partner", "auditor")
    if actor.role == "partner":
        Sender.of(actor)
    after = ids(from_cursor(cursor, 1), UUID)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT * FROM lot
            WHERE ($1::text IS NULL OR item = $1) AND ($2::text IS NULL OR kind = $2)
              AND ($3::text IS NULL OR organisation = $3) AND ($4::text IS NULL OR operation = $4)
              AND ($5::text IS NULL OR status = $5) AND ($6::text IS NULL OR organisation = $6)
              AND (operation IS NULL OR cardinality($7::text[]) = 0 OR operation = ANY($7))
              AND ($8::uuid IS NULL OR lot_id > $8)
            ORDER BY lot_id LIMIT $9
            """,
            item,
            kind,
            organisation,
            operation,
            status,
            actor.organisation if actor.role == "partner" else None,
            list(actor.operations),
            after,
            limit + 1,
        )
    return page(request, "resources", [shown_lot(row) for row in rows], "lot_id", limit)


@router.get("/resources/{lot_id}", responses=responses(NotFound))
async def get_resource(request: Request, actor: Caller, lot_id: UUID) -> Response:
    """One lot."""
    actor.require("field", "operator", "partner", "auditor")
    async with database(request, "registry").tx() as tx:
        row = await lot_row(tx, lot_id, actor)
    return answer(shown_lot(row))


@router.patch("/resources/{lot_id}", responses=responses(NotFound), openapi_extra=takes(LotChange))
async def patch_resource(request: Request, actor: Caller, lot_id: UUID) -> Response:
    """Say how much there is now, or `status: withdrawn` when it may not be given any more."""
    actor.require("operator", "partner")
    body = await body_of(request)
    change = parse(body, LotChange)

    async def work(tx: Tx) -> tuple[int, Any]:
        return 200, shown_lot(await change_lot(tx, actor, lot_id, change))

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/resources/{lot_id}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post("/resources/{lot_id}/arrive", responses=responses(NotFound, Conflict), openapi_extra=takes(ArrivalOrder))
async def post_arrival(request: Request, actor: Caller, lot_id: UUID) -> Response:
    """Say that a pledge has arrived, or a part of it: that much becomes a stock, the rest is still to come."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, ArrivalOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        pledge, stock = await take_in(tx, actor, lot_id, order)
        return 200, {"pledge": shown_lot(pledge), "stock": shown_lot(stock)}

    key = idempotency_key(request, actor)
    what = f"POST /v1/resources/{lot_id}/arrive"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.get("/units", responses=responses())
async def list_units() -> Response:
    """The items with the units in which they may be told, their own first, and how many persons one is meant for."""
    found = [
        {
            "item": item.code,
            "label": {"id": item.label_id, "en": item.label_en},
            "unit": item.unit,
            "units": [
                {"unit": unit, "factor": vocabulary.converted(item.code, 1, unit)}
                for unit in vocabulary.units_of(item.code)
            ],
            "serves": vocabulary.serves(item.code),
        }
        for item in vocabulary.items().values()
    ]
    return answer({"items": found, "links": []})


def shown_lot(row: Row) -> dict[str, Any]:
    names = ("lot_id", "kind", "item", "quantity", "unit", "organisation", "operation", "exercise", "status")
    return {name: row[name] for name in names} | {
        "location": {"lon": row["lon"], "lat": row["lat"], "place": row["place"]},
        "delivery_limit_km": row["delivery_limit_km"],
        "expires_at": timestamp(row["expires_at"]) if row["expires_at"] else None,
        "source": row["source"],
        "external_id": row["external_id"],
        "made_at": timestamp(row["made_at"]),
        "updated_at": timestamp(row["updated_at"]),
        **from_json(row["details"]),
    }
