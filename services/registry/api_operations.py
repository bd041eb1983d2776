"""HTTP of operations and organisations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from schemas import vocabulary
from schemas.values import OperationId
from services.registry import duty
from services.registry.bodies import (
    DutyOrder,
    OperationChange,
    OperationOrder,
    OrganisationChange,
    OrganisationOrder,
    Slug,
    Word,
)
from services.registry.operation_writes import change_operation, open_operation
from services.registry.pages import Cursor, Limit, answer, ids, page
from services.runtime import clock
from services.runtime.auth import Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx, from_json
from services.runtime.http import body_of, database, from_cursor, idempotency_key, parse, write_once
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, responses

router = APIRouter()

# Operations


@router.post("/operations", status_code=201, responses=responses(Conflict), openapi_extra=takes(OperationOrder))
async def post_operation(request: Request, actor: Caller) -> Response:
    """Open an operation: one disaster response. Whether it is an exercise is settled here for good."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, OperationOrder)
    actor.require_operation(order.id)

    async def work(tx: Tx) -> tuple[int, Any]:
        return 201, shown_operation(await open_operation(tx, order, actor.name))

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/operations", work)


@router.get("/operations", responses=responses())
async def list_operations(
    request: Request, open: bool | None = None, exercise: bool | None = None, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Operations, newest first; `open`, `exercise` choose among them. Open to everybody."""
    after = ids(from_cursor(cursor, 1), str)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT * FROM operation
            WHERE ($1::boolean IS NULL OR (closed_at IS NULL) = $1) AND ($2::boolean IS NULL OR exercise = $2)
              AND ($3::text IS NULL OR (opened_at, id) < (SELECT opened_at, id FROM operation WHERE id = $3))
            ORDER BY opened_at DESC, id DESC LIMIT $4
            """,
            open,
            exercise,
            after,
            limit + 1,
        )
    return page(request, "operations", [shown_operation(row) for row in rows], "id", limit)


@router.get("/operations/{operation}", responses=responses(NotFound))
async def get_operation(request: Request, operation: OperationId) -> Response:
    """One operation. Open to everybody."""
    async with database(request, "registry").tx() as tx:
        row = await tx.fetchrow("SELECT * FROM operation WHERE id = $1", operation)
    if row is None:
        raise NotFound(f"there is no operation {operation}")
    return answer(shown_operation(row))


@router.get("/operations/{operation}/statuses", responses=responses(NotFound))
async def list_statuses(request: Request, operation: OperationId) -> Response:
    """What the authorities declared, from the first to what is in force: since when, until when, by which decree, and
    who noted it. A null status: none was in force from then on. Open to everybody."""
    async with database(request, "registry").tx() as tx:
        if not await tx.fetchval("SELECT true FROM operation WHERE id = $1", operation):
            raise NotFound(f"there is no operation {operation}")
        rows = await tx.fetch("SELECT * FROM declared_status WHERE operation = $1 ORDER BY at", operation)
    shown = [
        {"status": from_json(row["status"]), "at": timestamp(row["at"]), "by": row["by"], "reason": row["reason"]}
        for row in rows
    ]
    return answer({"operation": operation, "statuses": shown, "links": []})


@router.get("/sectors", responses=responses())
async def list_sectors() -> Response:
    """The sectors that organisations work in and lead: OCHA's, and Indonesia's eight with those that they cover."""
    found = [
        {
            "scheme": sector.scheme,
            "code": sector.code,
            "label": {"id": sector.label_id, "en": sector.label_en},
            "ocha": list(sector.ocha),
        }
        for sector in vocabulary.sectors()
    ]
    return answer({"sectors": found, "links": []})


@router.patch("/operations/{operation}", responses=responses(NotFound, Conflict), openapi_extra=takes(OperationChange))
async def patch_operation(request: Request, actor: Caller, operation: OperationId) -> Response:
    """Change an operation; `closed: true` ends it for good. `standing` is always open."""
    actor.require("operator")
    actor.require_operation(operation)
    body = await body_of(request)
    change = parse(body, OperationChange)

    async def work(tx: Tx) -> tuple[int, Any]:
        return 200, shown_operation(await change_operation(tx, operation, change, actor.name))

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/operations/{operation}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


def shown_operation(row: Row) -> dict[str, Any]:
    names = ("id", "title", "glide", "hazards", "areas", "bbox", "timezone", "lead", "phase", "exercise")
    return {name: row[name] for name in names} | {
        "status": from_json(row["status"]),
        "open": row["closed_at"] is None,
        "opened_at": timestamp(row["opened_at"]),
        "closed_at": timestamp(row["closed_at"]) if row["closed_at"] else None,
        "updated_at": timestamp(row["updated_at"]),
    }


# Organisations


@router.post("/organisations", status_code=201, responses=responses(Conflict), openapi_extra=takes(OrganisationOrder))
async def post_organisation(request: Request, actor: Caller) -> Response:
    """Enter an organisation; its `id` is what tokens and lots name."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, OrganisationOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        row = await tx.fetchrow(
            "INSERT INTO organisation (id, name, kind, sectors, leads, areas, phases, may_verify, made_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT DO NOTHING RETURNING *",
            order.id,
            order.name,
            order.kind,
            list(order.sectors),
            list(order.leads),
            list(order.areas),
            list(order.phases),
            order.may_verify,
            clock.now(),
        )
        if row is None:
            raise Conflict(f"there is an organisation {order.id} already", [Fault("/id", "taken")])
        return 201, shown_organisation(row)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/organisations", work)


@router.get("/organisations", responses=responses())
async def list_organisations(
    request: Request, kind: Word | None = None, sector: str | None = None, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Organisations by id. Open to everybody."""
    after = ids(from_cursor(cursor, 1), str)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            "SELECT * FROM organisation WHERE ($1::text IS NULL OR kind = $1) "
            "AND ($2::text IS NULL OR $2 = ANY(sectors)) AND ($3::text IS NULL OR id > $3) ORDER BY id LIMIT $4",
            kind,
            sector,
            after,
            limit + 1,
        )
    return page(request, "organisations", [shown_organisation(row) for row in rows], "id", limit)


@router.get("/organisations/{organisation}", responses=responses(NotFound))
async def get_organisation(request: Request, organisation: Slug) -> Response:
    """One organisation. Open to everybody."""
    async with database(request, "registry").tx() as tx:
        row = await tx.fetchrow("SELECT * FROM organisation WHERE id = $1", organisation)
    if row is None:
        raise NotFound(f"there is no organisation {organisation}")
    return answer(shown_organisation(row))


@router.patch("/organisations/{organisation}", responses=responses(NotFound), openapi_extra=takes(OrganisationChange))
async def patch_organisation(request: Request, actor: Caller, organisation: Slug) -> Response:
    """Change an organisation's entry."""
    actor.require("operator")
    body = await body_of(request)
    change = parse(body, OrganisationChange)

    async def work(tx: Tx) -> tuple[int, Any]:
        row = await tx.fetchrow("SELECT * FROM organisation WHERE id = $1 FOR UPDATE", organisation)
        if row is None:
            raise NotFound(f"there is no organisation {organisation}")
        after = dict(row) | change.changes()
        updated = await tx.fetchrow(
            "UPDATE organisation SET name = $2, kind = $3, sectors = $4, leads = $5, areas = $6, phases = $7, "
            "may_verify = $8, updated_at = $9 WHERE id = $1 RETURNING *",
            organisation,
            after["name"],
            after["kind"],
            list(after["sectors"]),
            list(after["leads"]),
            list(after["areas"]),
            list(after["phases"]),
            after["may_verify"],
            clock.now(),
        )
        assert updated is not None
        return 200, shown_organisation(updated)

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/organisations/{organisation}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.put(
    "/organisations/{organisation}/duty", responses=responses(NotFound, Invalid), openapi_extra=takes(DutyOrder)
)
async def put_duty(request: Request, actor: Caller, organisation: Slug) -> Response:
    """Set the number to which an organisation's questions about its stock are sent, by an operator or by itself. It is
    shown to nobody."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, DutyOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        await duty.put(tx, actor, organisation, order)
        return 200, {"organisation": organisation, "duty": order.phone is not None}

    key = idempotency_key(request, actor)
    what = f"PUT /v1/organisations/{organisation}/duty"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


def shown_organisation(row: Row) -> dict[str, Any]:
    names = ("id", "name", "kind", "sectors", "leads", "areas", "phases", "may_verify")
    return {name: row[name] for name in names} | {"updated_at": timestamp(row["updated_at"])}
