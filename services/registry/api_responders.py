"""HTTP of responders: joining, profiles, erasure."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from schemas.values import Code, OperationId
from services.registry.actions import Outcome, Sender
from services.registry.bodies import Registration, ResponderChange, Slug
from services.registry.pages import Cursor, Limit, answer, batch, ids, page
from services.registry.responder_writes import (
    candidate,
    change_responder,
    contact_of,
    erase_responder,
    register,
    responder_row,
    state_of,
)
from services.runtime.auth import Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx
from services.runtime.http import body_of, database, from_cursor, idempotency_key, parse, write_once
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, TooLarge, responses

router = APIRouter()

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

    return await batch(request, actor, Registration, "responder_id", "POST /v1/responders:batch", work_out, store)


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
    after = ids(from_cursor(cursor, 1), UUID)
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
    return page(request, "responders", [shown_responder(row) for row in rows], "responder_id", limit)


@router.get("/responders/{responder_id}", responses=responses(NotFound))
async def get_responder(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """A profile: with name, number and exact home for its owner, its organisation and a desk."""
    async with database(request, "registry").tx() as tx:
        row = await responder_row(tx, responder_id, actor)
        private = {} if actor.role == "auditor" else await contact_of(tx, responder_id)
    return answer(shown_responder(row) | private)


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
