"""HTTP of responders: joining, profiles, erasure."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

import h3
import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from schemas import vocabulary
from schemas.values import Code, OperationId
from services.registry import access, cards, codes, growth
from services.registry.actions import Outcome, Sender
from services.registry.bodies import (
    Because,
    CardSeen,
    CheckOrder,
    ConfirmOrder,
    LeaderOrder,
    Registration,
    ResponderChange,
    SessionOrder,
    Slug,
    VouchOrder,
)
from services.registry.confirming import (
    TOKEN_DAYS,
    check_responder,
    confirm_by_code,
    confirm_by_number,
    confirm_cards,
    revoke_certificate,
    send_session_code,
)
from services.registry.erasure import erase_responder
from services.registry.pages import Cursor, Limit, answer, batch, ids, page
from services.registry.responder_rows import contact_of, entry_of, responder_row
from services.registry.responder_writes import candidate, change_responder, register
from services.runtime import clock
from services.runtime.auth import Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx
from services.runtime.http import (
    WRITE_TIMEOUT_S,
    body_of,
    database,
    from_cursor,
    idempotency_key,
    json_answer,
    parse,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid, NotFound, TooLarge, responses

router = APIRouter()

_SENT: dict[int | str, dict[str, Any]] = {202: {"description": "The code is on its way, if the number is known"}}

# Responders


@router.post(
    "/responders",
    status_code=202,
    responses=responses(Conflict, NotFound) | {201: {"description": "Confirmed at once"}},
    openapi_extra=takes(Registration),
)
async def post_responder(request: Request, actor: Caller) -> Response:
    """Register a person or a team. By anyone: 202, unconfirmed until they send the code that their number gets, or a
    desk has seen their `card` (shown as a QR code). By a desk (field, operator) or by a partner for its own people:
    201, or 200 when its number was known; with `confirm_by: code` as by anyone. One number is one responder."""
    sender = Sender.of(actor)
    body = await body_of(request)
    order = parse(body, Registration)
    passed_on = sender.standing == "public" or order.confirm_by == "code"
    if passed_on and order.phone is None:
        raise Invalid("/phone: a number is needed to reach you", [Fault("/phone", "a number is needed to reach you")])
    entry = candidate(order, sender)

    async def work(tx: Tx) -> tuple[int, Any]:
        outcome = (await register(tx, sender, [entry]))[0]
        if outcome.error is not None:
            raise outcome.error
        assert outcome.id is not None
        answer = {"responder_id": outcome.id, "status": outcome.status}
        if passed_on:
            # The same for a number that was known: nobody can find out whose is.
            return 202, answer | {"card": cards.card_of(outcome.id, clock.now())}
        return (201 if outcome.what == "made" else 200), answer

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/responders", work)


@router.post(
    "/responders/{responder_id}/confirm", responses=responses(codes.WrongCode), openapi_extra=takes(ConfirmOrder)
)
async def post_confirm(request: Request, responder_id: UUID) -> Response:
    """Send the code that came by message; the answer is a token of 90 days. Low-risk work is offered from then on, the
    rest once an organisation has checked it. A code is good for a day and may be guessed five times."""
    order = parse(await body_of(request), ConfirmOrder)
    async with asyncio.timeout(WRITE_TIMEOUT_S), database(request, "registry").tx() as tx:
        token = await confirm_by_code(tx, responder_id, order.code)
    # Only now: a wrong guess is counted by the transaction that has just been committed.
    if token is None:
        raise codes.WrongCode("the code is wrong, was tried too often, or is too old")
    return answer(_session(responder_id, token))


@router.post("/sessions", responses=responses(codes.WrongCode) | _SENT, openapi_extra=takes(SessionOrder))
async def post_session(request: Request) -> Response:
    """Get into one's own profile again: 202 with the number alone, which gets a code (at most one a day) if it is
    known; 200 and a token of 90 days with the code as well."""
    order = parse(await body_of(request), SessionOrder)
    db = database(request, "registry")
    if order.code is None:
        async with asyncio.timeout(WRITE_TIMEOUT_S), db.tx() as tx:
            await send_session_code(tx, order.phone)
        return json_answer(202, b'{"sent":"to this number, if it is known and got no code today"}')
    async with asyncio.timeout(WRITE_TIMEOUT_S), db.tx() as tx:
        found = await confirm_by_number(tx, order.phone, order.code)
    if found is None:
        raise codes.WrongCode("the code is wrong, was tried too often, or is too old")
    return answer(_session(*found))


def _session(responder_id: UUID, token: str) -> dict[str, Any]:
    expires_at = timestamp(clock.now() + timedelta(days=TOKEN_DAYS))
    return {"responder_id": responder_id, "token": token, "token_type": "Bearer", "expires_at": expires_at}


@router.get("/responders:card-key", responses=responses())
async def get_card_key() -> Response:
    """The key with which a desk's app checks registration cards while it is offline: Ed25519, base64url. A card is
    `GTG1.` and base64url of id (16 bytes), hour of its end (4, big endian) and signature of both (64)."""
    key = base64.urlsafe_b64encode(cards.public_key()).decode().rstrip("=")
    return answer({"algorithm": "Ed25519", "prefix": cards.PREFIX, "public_key": key})


@router.post(
    "/responders:confirm",
    status_code=207,
    responses=responses(Conflict, TooLarge),
    openapi_extra=takes(CardSeen, batch=True),
)
async def post_cards(request: Request, actor: Caller) -> Response:
    """Confirm those whose cards a desk has seen, also long after it saw them. Sent again, it changes nothing."""
    actor.require("field", "operator")

    async def store(tx: Tx, seen: list[Any]) -> list[Outcome]:
        return await confirm_cards(tx, actor, seen)

    return await batch(request, actor, CardSeen, "responder_id", "POST /v1/responders:confirm", list, store)


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


@router.get("/responders/{responder_id}", responses=responses(NotFound, Invalid))
async def get_responder(
    request: Request,
    actor: Caller,
    responder_id: UUID,
    reason: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """A profile. Name, number and exact home are for its owner, and with a `reason` for its organisation and a desk;
    each such look is logged. The break-glass role sees anybody's, and says in at least 20 characters why."""
    async with database(request, "registry").tx() as tx:
        row = await responder_row(tx, responder_id, actor)
        private: dict[str, Any] = {}
        if actor.role in ("responder", "break_glass") or (reason is not None and actor.role != "auditor"):
            await access.note(tx, actor, [responder_id], reason)
            private = await contact_of(tx, responder_id)
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
        return 200, await _shown(tx, responder_id)

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/responders/{responder_id}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post(
    "/responders/{responder_id}/check", responses=responses(NotFound, Invalid), openapi_extra=takes(CheckOrder)
)
async def post_check(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """Say that claimed skills and certificates were checked: by an operator, or by a partner for its own people and
    for those of no organisation, as far as its entry says what it may verify."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, CheckOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        await check_responder(tx, actor, responder_id, order)
        return 200, await _shown(tx, responder_id)

    key = idempotency_key(request, actor)
    what = f"POST /v1/responders/{responder_id}/check"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post(
    "/responders/{responder_id}/certificates/{code}/revoke",
    responses=responses(NotFound),
    openapi_extra=takes(Because),
)
async def post_revoke(request: Request, actor: Caller, responder_id: UUID, code: Code) -> Response:
    """Take a certificate back; nobody is planned with it from this event on."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, Because)

    async def work(tx: Tx) -> tuple[int, Any]:
        await revoke_certificate(tx, actor, responder_id, code, order.reason)
        return 200, await _shown(tx, responder_id)

    key = idempotency_key(request, actor)
    what = f"POST /v1/responders/{responder_id}/certificates/{code}/revoke"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post("/responders/{responder_id}/leader", responses=responses(NotFound), openapi_extra=takes(LeaderOrder))
async def post_leader(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """Name a community leader, who may vouch for neighbours; or take that back."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, LeaderOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        await responder_row(tx, responder_id, actor)
        await tx.execute("UPDATE responder SET leader = $2 WHERE responder_id = $1", responder_id, order.leader)
        return 200, {"responder_id": responder_id, "leader": order.leader}

    key = idempotency_key(request, actor)
    what = f"POST /v1/responders/{responder_id}/leader"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post(
    "/responders/{responder_id}/vouch", responses=responses(NotFound, Conflict), openapi_extra=takes(VouchOrder)
)
async def post_vouch(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """A community leader says what a neighbour can do: low-risk skills up to level 2, twenty times in thirty days."""
    actor.require("responder")
    if actor.role != "responder":
        raise Forbidden("a leader vouches with a token of their own; a desk checks")
    body = await body_of(request)
    order = parse(body, VouchOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        await growth.vouch(tx, actor, responder_id, order)
        return 200, {"responder_id": responder_id, "skill": order.skill}

    key = idempotency_key(request, actor)
    what = f"POST /v1/responders/{responder_id}/vouch"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


async def _shown(tx: Tx, responder_id: UUID) -> dict[str, Any]:
    row = await tx.fetchrow("SELECT * FROM responder WHERE responder_id = $1", responder_id)
    assert row is not None
    return shown_responder(row)


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
    """A responder as lists show it: nothing by which a person could be reached or found at home. `home_point` is the
    middle of `home_cell`, for whoever draws a map and does not know H3."""
    entry = entry_of(row, by="")
    hidden = {"contact_id", "by", "reason", "avoids_hazards", "avoids_areas"}  # the last two stand in `do_not_send`
    state = entry.state.model_dump(mode="json", exclude=hidden)
    times = {"made_at": timestamp(row["made_at"]), "updated_at": timestamp(row["updated_at"])}
    home_point = None
    if row["home_cell"] is not None:
        lat, lon = h3.cell_to_latlng(row["home_cell"])
        home_point = {"lon": round(lon, 5), "lat": round(lat, 5)}
    return state | {"home_point": home_point} | entry.schedule.model_dump(mode="json") | times


@router.get("/skills", responses=responses())
async def list_skills() -> Response:
    """The published skills: labels, whether low-risk work is offered without a check, and what INSARAG and NIMS call
    them. Other words of the same form are taken too, and count once an organisation has checked them."""
    kinds = vocabulary.skill_kinds()
    found = []
    for skill in vocabulary.skills().values():
        kind = kinds.get(skill.code)
        found.append(
            {
                "skill": skill.code,
                "label": {"id": skill.label_id, "en": skill.label_en},
                "risk": skill.risk,
                "sector": skill.sector,
                "insarag": kind.insarag if kind else None,
                "nims": kind.nims if kind else None,
            }
        )
    return answer({"skills": found, "links": []})
