"""HTTP of the registry: operations, organisations, responders, resources."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from schemas.values import Code, OperationId
from services.registry.actions import (
    Outcome,
    Sender,
    candidate,
    change_lot,
    change_operation,
    change_responder,
    contact_of,
    erase_responder,
    lot_row,
    open_operation,
    register,
    register_lots,
    responder_row,
    state_of,
)
from services.registry.bodies import (
    LotChange,
    LotOrder,
    OperationChange,
    OperationOrder,
    OrganisationChange,
    OrganisationOrder,
    Registration,
    ResponderChange,
    Slug,
    Word,
)
from services.runtime import clock
from services.runtime.auth import Actor, Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.http import (
    body_of,
    cursor_of,
    database,
    from_cursor,
    idempotency_key,
    json_answer,
    next_link,
    parse,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, DomainError, Fault, Invalid, NotFound, TooLarge, faults_of, responses

router = APIRouter(prefix="/v1", tags=["registry"])

MAX_ROWS = 5000
MAX_BATCH_BYTES = 16 * 1024 * 1024
BATCH_TIMEOUT_S = 60

M = TypeVar("M", bound=BaseModel)
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=500)]


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
    after = _ids(from_cursor(cursor, 1), str)
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
    return _page(request, "operations", [shown_operation(row) for row in rows], "id", limit)


@router.get("/operations/{operation}", responses=responses(NotFound))
async def get_operation(request: Request, operation: OperationId) -> Response:
    """One operation. Open to everybody."""
    async with database(request, "registry").tx() as tx:
        row = await tx.fetchrow("SELECT * FROM operation WHERE id = $1", operation)
    if row is None:
        raise NotFound(f"there is no operation {operation}")
    return _answer(shown_operation(row))


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
            "INSERT INTO organisation (id, name, kind, sectors, areas, made_at, updated_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $6) ON CONFLICT DO NOTHING RETURNING *",
            order.id,
            order.name,
            order.kind,
            list(order.sectors),
            list(order.areas),
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
    after = _ids(from_cursor(cursor, 1), str)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            "SELECT * FROM organisation WHERE ($1::text IS NULL OR kind = $1) "
            "AND ($2::text IS NULL OR $2 = ANY(sectors)) AND ($3::text IS NULL OR id > $3) ORDER BY id LIMIT $4",
            kind,
            sector,
            after,
            limit + 1,
        )
    return _page(request, "organisations", [shown_organisation(row) for row in rows], "id", limit)


@router.get("/organisations/{organisation}", responses=responses(NotFound))
async def get_organisation(request: Request, organisation: Slug) -> Response:
    """One organisation. Open to everybody."""
    async with database(request, "registry").tx() as tx:
        row = await tx.fetchrow("SELECT * FROM organisation WHERE id = $1", organisation)
    if row is None:
        raise NotFound(f"there is no organisation {organisation}")
    return _answer(shown_organisation(row))


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
            "UPDATE organisation SET name = $2, kind = $3, sectors = $4, areas = $5, updated_at = $6 "
            "WHERE id = $1 RETURNING *",
            organisation,
            after["name"],
            after["kind"],
            list(after["sectors"]),
            list(after["areas"]),
            clock.now(),
        )
        assert updated is not None
        return 200, shown_organisation(updated)

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/organisations/{organisation}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


def shown_organisation(row: Row) -> dict[str, Any]:
    names = ("id", "name", "kind", "sectors", "areas")
    return {name: row[name] for name in names} | {"updated_at": timestamp(row["updated_at"])}


# Responders


@router.post(
    "/responders",
    status_code=202,
    responses=responses(Conflict, NotFound) | {201: {"description": "Confirmed at once"}},
    openapi_extra=takes(Registration),
)
async def post_responder(request: Request, actor: Caller) -> Response:
    """Register a person or a team. By anyone: 202, unconfirmed until a desk confirms it; by a desk (field, operator)
    or by a partner for its own people: 201, or 200 when its number was known. One number is one responder."""
    sender = Sender.of(actor)
    body = await body_of(request)
    order = parse(body, Registration)
    if sender.standing == "public" and order.phone is None:
        raise Invalid("/phone: a number is needed to reach you", [Fault("/phone", "a number is needed to reach you")])
    entry = candidate(order, sender)

    async def work(tx: Tx) -> tuple[int, Any]:
        outcome = (await register(tx, sender, [entry]))[0]
        if outcome.error is not None:
            raise outcome.error
        answer = {"responder_id": outcome.id, "status": outcome.status}
        if sender.standing == "public":
            return 202, answer  # the same for a number that was known: nobody can find out whose is
        return (201 if outcome.what == "made" else 200), answer

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/responders", work)


@router.post(
    "/responders:batch",
    status_code=207,
    responses=responses(Conflict, TooLarge),
    openapi_extra=takes(Registration, batch=True),
)
async def post_responders(request: Request, actor: Caller) -> Response:
    """Register up to 5,000 responders, confirmed: a JSON array, or one JSON object a line. Each row stands for
    itself. A row that repeats a (source, external_id) changes nothing; a known number updates its responder."""
    actor.require("operator", "partner")
    sender = Sender.of(actor)

    def work_out(rows: list[Registration]) -> list[Any]:
        return [candidate(row, sender) for row in rows]

    async def store(tx: Tx, entries: list[Any]) -> list[Outcome]:
        return await register(tx, sender, entries)

    return await _batch(request, actor, Registration, "responder_id", "POST /v1/responders:batch", work_out, store)


@router.get("/responders", responses=responses())
async def list_responders(
    request: Request,
    actor: Caller,
    status: Annotated[str | None, Query(pattern="^(unconfirmed|confirmed|withdrawn)$")] = None,
    organisation: Slug | None = None,
    skill: Code | None = None,
    operation: OperationId | None = None,
    exercise: bool | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Responders without their contact data, by id; a partner sees those of its own organisation."""
    actor.require("field", "operator", "partner", "auditor")
    if actor.role == "partner":
        Sender.of(actor)
    after = _ids(from_cursor(cursor, 1), UUID)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT * FROM responder
            WHERE erased_at IS NULL
              AND ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR organisation = $2)
              AND ($3::jsonb IS NULL OR profile -> 'skills' @> $3) AND ($4::text IS NULL OR operation = $4)
              AND ($5::boolean IS NULL OR exercise = $5) AND ($6::text IS NULL OR organisation = $6)
              AND ($7::uuid IS NULL OR responder_id > $7)
            ORDER BY responder_id LIMIT $8
            """,
            status,
            organisation,
            orjson.dumps([{"skill": skill}]).decode() if skill else None,
            operation,
            exercise,
            actor.organisation if actor.role == "partner" else None,
            after,
            limit + 1,
        )
    return _page(request, "responders", [shown_responder(row) for row in rows], "responder_id", limit)


@router.get("/responders/{responder_id}", responses=responses(NotFound))
async def get_responder(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """A profile: with name, number and exact home for its owner, its organisation and a desk."""
    async with database(request, "registry").tx() as tx:
        row = await responder_row(tx, responder_id, actor)
        private = {} if actor.role == "auditor" else await contact_of(tx, responder_id)
    return _answer(shown_responder(row) | private)


@router.patch(
    "/responders/{responder_id}", responses=responses(NotFound, Conflict), openapi_extra=takes(ResponderChange)
)
async def patch_responder(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """Change a profile: one's own, or at a desk; `status: confirmed` by a desk confirms it. The answer has no contact
    data, because answers are kept for repeats."""
    body = await body_of(request)
    change = parse(body, ResponderChange)

    async def work(tx: Tx) -> tuple[int, Any]:
        await change_responder(tx, actor, responder_id, change)
        row = await tx.fetchrow("SELECT * FROM responder WHERE responder_id = $1", responder_id)
        assert row is not None
        return 200, shown_responder(row)

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/responders/{responder_id}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.delete("/responders/{responder_id}", responses=responses(NotFound, Conflict))
async def delete_responder(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """Erase a person: their key is destroyed, and with it name, number and home; nobody asks them any more."""

    async def work(tx: Tx) -> tuple[int, Any]:
        await erase_responder(tx, actor, responder_id)
        return 200, {"responder_id": responder_id, "status": "withdrawn", "erased": True}

    key = idempotency_key(request, actor)
    what = f"DELETE /v1/responders/{responder_id}"
    return await write_once(database(request, "registry"), actor, key, b"", what, work)


def shown_responder(row: Row) -> dict[str, Any]:
    """A responder as lists show it: nothing by which a person could be reached or found at home."""
    state = state_of(row, by="").model_dump(mode="json", exclude={"contact_id", "by", "reason"})
    return state | {"made_at": timestamp(row["made_at"]), "updated_at": timestamp(row["updated_at"])}


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

    return await _batch(request, actor, LotOrder, "lot_id", "POST /v1/resources:batch", list, store)


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
    after = _ids(from_cursor(cursor, 1), UUID)
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
    return _page(request, "resources", [shown_lot(row) for row in rows], "lot_id", limit)


@router.get("/resources/{lot_id}", responses=responses(NotFound))
async def get_resource(request: Request, actor: Caller, lot_id: UUID) -> Response:
    """One lot."""
    actor.require("field", "operator", "partner", "auditor")
    async with database(request, "registry").tx() as tx:
        row = await lot_row(tx, lot_id, actor)
    return _answer(shown_lot(row))


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
    }


# What the routes share


async def _batch(
    request: Request,
    actor: Actor,
    model: type[M],
    id_name: str,
    what: str,
    work_out: Callable[[list[M]], list[Any]],
    store: Callable[[Tx, list[Any]], Awaitable[list[Outcome]]],
) -> Response:
    """Check each row for itself, store the good ones in one transaction, answer 207 with a line for each row."""
    body = await body_of(request, MAX_BATCH_BYTES)
    # Off the event loop: checking five thousand rows takes longer than other requests should wait.
    checked = await asyncio.to_thread(_checked, body, model)
    good = [(index, row) for index, row in enumerate(checked) if not isinstance(row, DomainError)]
    entries = await asyncio.to_thread(work_out, [row for _, row in good])

    async def work(tx: Tx) -> tuple[int, Any]:
        outcomes = await store(tx, entries)
        results: list[dict[str, Any]] = [{"index": index} for index in range(len(checked))]
        counts = {"accepted": 0, "rejected": 0, "repeated": 0}
        found: list[Outcome | DomainError] = [
            row if isinstance(row, DomainError) else Outcome("kept") for row in checked
        ]
        for (index, _), stored in zip(good, outcomes, strict=True):
            found[index] = stored
        for result, outcome in zip(results, found, strict=True):
            error = outcome if isinstance(outcome, DomainError) else outcome.error
            if error is not None:
                counts["rejected"] += 1
                result |= {"error": error.detail, "pointer": error.faults[0].pointer if error.faults else ""}
                continue
            assert isinstance(outcome, Outcome)
            result |= {id_name: outcome.id, "status": outcome.status}
            if outcome.what == "repeated":
                counts["repeated"] += 1
                result["repeated"] = True
            else:
                counts["accepted"] += 1
                result |= {"updated": True} if outcome.what == "updated" else {}
        return 207, counts | {"results": results}

    key = idempotency_key(request, actor)
    db = database(request, "registry")
    return await write_once(db, actor, key, body, what, work, timeout_s=BATCH_TIMEOUT_S)


def _checked(body: bytes, model: type[M]) -> list[M | DomainError]:
    """Each row of a JSON array or of NDJSON as the model, or its fault.

    Raises
    ------
    Invalid
        Neither form, or not a list at all.
    TooLarge
        More than 5,000 rows.
    """
    stripped = body.lstrip()
    if stripped.startswith(b"["):
        try:
            rows = orjson.loads(stripped)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the body is not JSON: {error}", [Fault("", "not JSON")]) from None
        if len(rows) > MAX_ROWS:
            raise TooLarge(f"the body has {len(rows)} rows; at most {MAX_ROWS} are taken at once")
        hostile = b"\x00" in body or b"\\u0000" in body
        return [_row(row, model, hostile=hostile) for row in rows]
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise Invalid("the body has no rows", [Fault("", "send a JSON array, or one JSON object a line")])
    if len(lines) > MAX_ROWS:
        raise TooLarge(f"the body has {len(lines)} rows; at most {MAX_ROWS} are taken at once")
    found: list[M | DomainError] = []
    for line in lines:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            found.append(Invalid(f"the line is not JSON: {error}", [Fault("", "not JSON")]))
            continue
        found.append(_row(row, model, hostile=b"\\u0000" in line))
    return found


def _row(row: Any, model: type[M], *, hostile: bool) -> M | DomainError:
    if hostile and b"\\u0000" in orjson.dumps(row):
        return Invalid("the row holds a NUL character", [Fault("", "NUL characters are not taken")])
    try:
        return model.model_validate(row)
    except ValidationError as error:
        faults = faults_of(error)
        return Invalid(f"{faults[0].pointer or 'row'}: {faults[0].detail}", faults)


def _ids(values: Sequence[Any] | None, kind: Callable[[str], Any]) -> Any:
    """The one value of a cursor as what the column holds.

    Raises
    ------
    Invalid
        It is none of ours.
    """
    if values is None:
        return None
    try:
        return kind(str(values[0]))
    except ValueError:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")]) from None


def _page(request: Request, name: str, shown: list[dict[str, Any]], id_name: str, limit: int) -> Response:
    """`limit` of what was found, and a link to the next page when there was one more."""
    more = len(shown) > limit
    page = shown[:limit]
    cursor = cursor_of([page[-1][id_name]]) if more else None
    return _answer({name: page, "links": next_link(request, cursor)})


def _answer(content: dict[str, Any]) -> Response:
    return json_answer(200, to_json(content).encode())
