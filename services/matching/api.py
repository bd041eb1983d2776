"""Offers, assignments and the plan over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import asyncpg
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from schemas.values import OperationId, Quantity
from services.matching import actions, assignment_writes, domain, offer_writes, release_writes
from services.matching.actions import Busy, NeedMet, OfferOver
from services.matching.settings import MatchingSettings
from services.runtime.auth import Actor, Caller
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.http import (
    Answer,
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
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid, NotFound, NotKnownYet, responses

router = APIRouter(tags=["matching"])

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1000)]
Limit = Annotated[int, Query(ge=1, le=1000)]
OfferWord = Literal["made", "accepted", "declined", "expired", "withdrawn"]
AssignmentWord = Literal["made", "started", "arrived", "delivered", "confirmed", "abandoned"]

_TRIES = 3
"""So often a write that met a deadlock is tried before the caller hears of it."""


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Accept(Body):
    """`quantity`, in the need's unit; without it all that was asked."""

    quantity: Quantity | None = None


class Decline(Body):
    reason: Reason | None = None


class Abandon(Body):
    reason: Reason | None = None


class ReleaseRequest(Body):
    reason: Reason


class HandOver(Body):
    """`responder`: who takes over."""

    responder: UUID
    reason: Reason


class ByHand(Body):
    """An assignment by hand, of exactly one responder (for a skill) or lot (for an item)."""

    need: UUID
    responder: UUID | None = None
    lot: UUID | None = None
    quantity: Quantity
    reason: Reason

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.responder is None) == (self.lot is None):
            raise ValueError("name exactly one of responder and lot")
        return self


def takes(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    content = {"application/json": {"schema": model.model_json_schema()}}
    return {"requestBody": {"content": content, "required": required}}


# ------------------------------------------------------------------------------------------------------------- answers
async def write(
    request: Request, actor: Actor, what: str, body: bytes, work: Callable[[Tx], Awaitable[Answer]]
) -> Response:
    db = database(request, "matching")
    for attempt in range(1, _TRIES + 1):
        try:
            return await write_once(db, actor, idempotency_key(request, actor), body, what, work)
        except asyncpg.DeadlockDetectedError:
            if attempt == _TRIES:
                raise
    raise AssertionError("unreachable")


async def _may_answer(tx: Tx, actor: Actor, offer_id: UUID) -> None:
    """Admit the responder who was asked, the organisation whose stock it is, and operators of the operation.

    Raises
    ------
    Unauthenticated, Forbidden, NotFound
        Somebody else asks; there is no such offer here.
    """
    actor.require("responder", "partner", "operator")
    offer = await tx.fetchrow(
        "SELECT responder_id, lot_id, organisation, operation FROM offer WHERE offer_id = $1", offer_id
    )
    if offer is None:
        raise NotFound(f"the offer {offer_id} is not known here")
    if actor.role == "responder" and actor.subject != str(offer["responder_id"]):
        raise Forbidden("the offer was made to somebody else")
    if actor.role == "partner" and (actor.organisation is None or actor.organisation != offer["organisation"]):
        raise Forbidden("the offer was made to another organisation")
    if actor.role != "responder":
        actor.require_operation(offer["operation"])


async def _answer_offer(
    request: Request,
    actor: Actor,
    offer_id: UUID,
    word: str,
    body: bytes,
    work: Callable[[Tx], Awaitable[BaseModel]],
) -> Response:
    async def whole(tx: Tx) -> Answer:
        await _may_answer(tx, actor, offer_id)
        return 200, (await work(tx)).model_dump(mode="json", exclude_none=True)

    return await write(request, actor, f"POST /v1/offers/{offer_id}/{word}", body, whole)


@router.post(
    "/v1/offers/{offer_id}/accept",
    responses=responses(NotFound, NeedMet, OfferOver, Busy, Conflict),
    openapi_extra=takes(Accept, required=False),
)
async def accept(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """Say yes, to all that was asked or to `quantity` of it: the answer is the assignment, whose id is the offer's.

    The same yes again gives the same answer. 409 `need-met`: more than is left or was asked for; `offer-expired`;
    `busy`: promised elsewhere at that time.
    """
    body = await body_of(request)
    order = parse(body or b"{}", Accept)
    return await _answer_offer(
        request,
        actor,
        offer_id,
        "accept",
        body,
        lambda tx: assignment_writes.accept(tx, offer_id, order.quantity, by=actor.name),
    )


@router.post(
    "/v1/offers/{offer_id}/decline",
    responses=responses(NotFound, NeedMet, OfferOver, Conflict),
    openapi_extra=takes(Decline, required=False),
)
async def decline(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """Say no; they are not asked about this need again for a while."""
    body = await body_of(request)
    order = parse(body or b"{}", Decline)
    settings = MatchingSettings()
    return await _answer_offer(
        request,
        actor,
        offer_id,
        "decline",
        body,
        lambda tx: offer_writes.decline(tx, offer_id, order.reason, by=actor.name, settings=settings),
    )


async def _advance(
    request: Request, actor: Actor, offer_id: UUID, word: str, target: Literal["started", "arrived", "delivered"]
) -> Response:
    body = await body_of(request)
    return await _answer_offer(
        request, actor, offer_id, word, body, lambda tx: assignment_writes.advance(tx, offer_id, target, by=actor.name)
    )


@router.post("/v1/offers/{offer_id}/start", responses=responses(NotFound, Conflict))
async def start(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """On the way."""
    return await _advance(request, actor, offer_id, "start", "started")


@router.post("/v1/offers/{offer_id}/arrive", responses=responses(NotFound, Conflict))
async def arrive(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """On scene."""
    return await _advance(request, actor, offer_id, "arrive", "arrived")


@router.post("/v1/offers/{offer_id}/complete", responses=responses(NotFound, Conflict))
async def complete(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """Done: delivered, and to be confirmed by whoever should have it."""
    return await _advance(request, actor, offer_id, "complete", "delivered")


@router.post(
    "/v1/offers/{offer_id}/abandon",
    responses=responses(NotFound, Conflict),
    openapi_extra=takes(Abandon, required=False),
)
async def abandon(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """Give an accepted offer up; the need is open again by as much."""
    body = await body_of(request)
    order = parse(body or b"{}", Abandon)
    settings = MatchingSettings()
    return await _answer_offer(
        request,
        actor,
        offer_id,
        "abandon",
        body,
        lambda tx: assignment_writes.abandon(tx, offer_id, order.reason, by=actor.name, settings=settings),
    )


@router.post("/v1/offers/{offer_id}/check-in", responses=responses(NotFound, Conflict))
async def check_in(request: Request, actor: Caller, offer_id: UUID) -> Response:
    """Still at it: the clock of silence starts anew."""
    body = await body_of(request)
    return await _answer_offer(
        request, actor, offer_id, "check-in", body, lambda tx: assignment_writes.check_in(tx, offer_id, by=actor.name)
    )


@router.post(
    "/v1/assignments/{assignment_id}/request-release",
    responses=responses(NotFound, Conflict),
    openapi_extra=takes(ReleaseRequest),
)
async def request_release(request: Request, actor: Caller, assignment_id: UUID) -> Response:
    """Ask whoever holds it to give it up, with a reason; the promise stands until they (or an operator) abandon it.
    Nobody on scene is asked."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ReleaseRequest)

    async def work(tx: Tx) -> Answer:
        await _may_answer(tx, actor, assignment_id)
        event = await release_writes.ask_release(tx, assignment_id, order.reason, by=actor.name)
        return 200, event.model_dump(mode="json", exclude_none=True)

    return await write(request, actor, f"POST /v1/assignments/{assignment_id}/request-release", body, work)


@router.post(
    "/v1/assignments/{assignment_id}/hand-over",
    status_code=201,
    responses=responses(NotFound, Conflict, NeedMet, Busy),
    openapi_extra=takes(HandOver),
)
async def hand_over(request: Request, actor: Caller, assignment_id: UUID) -> Response:
    """The end of one shift and the start of the next: another responder takes this one's place from now on."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, HandOver)
    settings = MatchingSettings()

    async def work(tx: Tx) -> Answer:
        await _may_answer(tx, actor, assignment_id)
        event = await assignment_writes.hand_over(
            tx, assignment_id, order.responder, order.reason, by=actor.name, settings=settings
        )
        return 201, event.model_dump(mode="json", exclude_none=True)

    return await write(request, actor, f"POST /v1/assignments/{assignment_id}/hand-over", body, work)


@router.post(
    "/v1/assignments",
    status_code=201,
    responses=responses(NotFound, NeedMet, Busy),
    openapi_extra=takes(ByHand),
)
async def assign(request: Request, actor: Caller) -> Response:
    """Assign by hand: an offer made and accepted by the dispatcher, in one."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ByHand)
    settings = MatchingSettings()

    async def work(tx: Tx) -> Answer:
        need = await tx.fetchrow("SELECT operation FROM need WHERE need_id = $1", order.need)
        if need is not None:
            actor.require_operation(need["operation"])
        event = await assignment_writes.assign_by_hand(
            tx,
            order.need,
            order.responder,
            order.lot,
            order.quantity,
            order.reason,
            by=actor.name,
            settings=settings,
        )
        return 201, event.model_dump(mode="json", exclude_none=True)

    return await write(request, actor, "POST /v1/assignments", body, work)


# --------------------------------------------------------------------------------------------------------------- lists
_NEED_COLUMNS = "n.item, n.skill, n.unit, n.severity, n.place, n.lon, n.lat, n.incident_id"
_OFFERS = f"SELECT o.*, {_NEED_COLUMNS} FROM offer AS o JOIN need AS n ON n.need_id = o.need_id"
_ASSIGNMENTS = f"SELECT o.*, {_NEED_COLUMNS} FROM assignment AS o JOIN need AS n ON n.need_id = o.need_id"


def _own_share(
    actor: Actor, responder: UUID | None, operation: str | None, pointed: bool, exercise: bool | None
) -> tuple[list[str], list[Any]]:
    """The part of a list that this token may see, as conditions on table `o` with their values from $1 on.

    Without an operation or something pointed at, a list covers life and no drill.

    Raises
    ------
    Forbidden
        It asks for somebody else's.
    """
    actor.require("responder", "partner", "operator", "auditor")
    where: list[str] = []
    values: list[Any] = []

    def add(condition: str, value: Any) -> None:
        values.append(value)
        where.append(condition.format(f"${len(values)}"))

    if actor.role == "responder":
        if responder is not None and str(responder) != actor.subject:
            raise Forbidden("a responder sees their own offers only")
        add("o.responder_id = {}", _uuid_of(actor))
        pointed = True
    elif responder is not None:
        add("o.responder_id = {}", responder)
    if actor.role == "partner":
        add("o.organisation = {}", actor.organisation or "")
    if operation is not None:
        if actor.role != "responder":
            actor.require_operation(operation)
        add("o.operation = {}", operation)
    elif actor.operations and actor.role != "responder":
        add("o.operation = ANY({})", list(actor.operations))
    if exercise is not None:
        add("o.exercise = {}", exercise)
    elif operation is None and not pointed and not actor.operations:
        where.append("NOT o.exercise")
    return where, values


def _uuid_of(actor: Actor) -> UUID:
    try:
        return UUID(actor.subject)
    except ValueError:
        raise Forbidden("the token is of no responder") from None


async def _page(
    request: Request,
    sql: str,
    where: list[str],
    values: list[Any],
    key: str,
    cursor: str | None,
    limit: int,
    shown: Callable[[Row], dict[str, Any]],
    name: str,
) -> Response:
    after = from_cursor(cursor, 1)
    if after is not None:
        values.append(_cursor_id(after[0]))
        where.append(f"o.{key} < ${len(values)}")
    condition = " AND ".join(where) or "true"
    async with database(request, "matching").tx() as tx:
        rows = await tx.fetch(f"{sql} WHERE {condition} ORDER BY o.{key} DESC LIMIT {limit + 1}", *values)
    more = cursor_of([str(rows[limit - 1][key])]) if len(rows) > limit else None
    page = {name: [shown(row) for row in rows[:limit]], "links": next_link(request, more)}
    return json_answer(200, to_json(page).encode())


def _cursor_id(value: Any) -> UUID:
    try:
        return UUID(str(value))
    except ValueError:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")]) from None


def _offer(row: Row) -> dict[str, Any]:
    return _without_none(
        {
            **{
                name: row[name]
                for name in (
                    "offer_id", "need_id", "incident_id", "operation", "exercise", "responder_id", "lot_id",
                    "organisation", "item", "skill", "unit", "severity", "quantity", "state", "made_at", "expires_at",
                    "arrives_at", "distance_km", "cost", "by", "reason", "place", "lon", "lat",
                )
            },
            "window": {"start": row["window_start"], "end": row["window_end"]},
        }
    )  # fmt: skip


def _assignment(row: Row) -> dict[str, Any]:
    return _without_none(
        {
            **{
                name: row[name]
                for name in (
                    "assignment_id", "need_id", "incident_id", "operation", "exercise", "responder_id", "lot_id",
                    "organisation", "item", "skill", "unit", "severity", "quantity", "confirmed", "state", "made_at",
                    "started_at", "delivered_at", "by", "reason", "place", "lon", "lat",
                    "release_asked_at", "release_reason", "heard_at", "check_at", "overdue",
                )
            },
            "period": {"start": row["period"].lower, "end": row["period"].upper},
        }
    )  # fmt: skip


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


@router.get("/v1/offers", responses=responses())
async def offers(
    request: Request,
    actor: Caller,
    responder: UUID | None = None,
    lot: UUID | None = None,
    need: UUID | None = None,
    state: OfferWord | None = None,
    operation: OperationId | None = None,
    exercise: bool | None = None,
    limit: Limit = 100,
    cursor: str | None = None,
) -> Response:
    """Offers, newest first: a responder's own, a partner's organisation's, an operator's operations'.

    Without `operation` or anything pointed at, those of life and of no drill.
    """
    pointed = responder is not None or lot is not None or need is not None
    where, values = _own_share(actor, responder, operation, pointed, exercise)
    for column, value in (("lot_id", lot), ("need_id", need), ("state", state)):
        if value is not None:
            values.append(value)
            where.append(f"o.{column} = ${len(values)}")
    return await _page(request, _OFFERS, where, values, "offer_id", cursor, limit, _offer, "offers")


@router.get("/v1/assignments", responses=responses())
async def assignments(
    request: Request,
    actor: Caller,
    responder: UUID | None = None,
    lot: UUID | None = None,
    need: UUID | None = None,
    state: AssignmentWord | None = None,
    operation: OperationId | None = None,
    exercise: bool | None = None,
    limit: Limit = 100,
    cursor: str | None = None,
) -> Response:
    """Assignments, newest first, shared out as offers are."""
    pointed = responder is not None or lot is not None or need is not None
    where, values = _own_share(actor, responder, operation, pointed, exercise)
    for column, value in (("lot_id", lot), ("need_id", need), ("state", state)):
        if value is not None:
            values.append(value)
            where.append(f"o.{column} = ${len(values)}")
    return await _page(request, _ASSIGNMENTS, where, values, "assignment_id", cursor, limit, _assignment, "assignments")


# ---------------------------------------------------------------------------------------------------------------- plan
@router.get("/v1/plan", responses=responses(NotFound))
async def plan(request: Request, actor: Caller, operation: OperationId | None = None) -> Response:
    """How far the needs are met by promises and open questions, and how good the plan behind them is.

    `units` are what is needed and not cancelled; `met` is what is promised, brought, or under question now.
    `objective`, `bound` and `gap` (0: proved to be the best plan) are those of the last plan, which covers all live
    operations together, or all drills, because responders serve any of them. Without `operation`: all live ones.
    """
    actor.require("operator", "auditor")
    actor.require_operation(operation)
    async with database(request, "matching").tx() as tx:
        exercise = False
        if operation is not None:
            known = await tx.fetchval(
                "SELECT exercise FROM operation WHERE operation = $1 UNION ALL "
                "(SELECT exercise FROM need WHERE operation = $1 LIMIT 1) LIMIT 1",
                operation,
            )
            if known is None:
                raise NotKnownYet(f"the operation {operation} is not known here")
            exercise = known
        rows = await tx.fetch(
            """
            SELECT item, severity, count(*) AS needs, sum(needed - cancelled) AS units,
                   sum(needed - cancelled - open) AS met, sum(open) AS unmet
            FROM need WHERE status = 'declared' AND exercise = $1 AND ($2::text IS NULL OR operation = $2)
            GROUP BY item, severity
            """,
            exercise,
            operation,
        )
        last = await tx.fetchrow("SELECT * FROM plan WHERE exercise = $1", exercise)
    items: dict[str, list[Row]] = {}
    for row in rows:
        if row["item"] is not None:
            items.setdefault(row["item"], []).append(row)
    answer = {
        "operation": operation,
        "needs": sum(row["needs"] for row in rows),
        "people": _cover([row for row in rows if row["item"] is None]),
        "items": {item: _cover(some) for item, some in sorted(items.items())},
        "objective": int(last["objective"]) if last else None,
        "bound": int(last["bound"]) if last else None,
        "gap": int(last["gap"]) if last else None,
        "planned_at": last["planned_at"] if last else None,
    }
    return json_answer(200, to_json(answer).encode())


def _cover(rows: list[Row]) -> dict[str, Any]:
    unmet = dict.fromkeys(("4", "3", "2", "1"), 0)
    for row in rows:
        unmet[str(row["severity"])] += row["unmet"]
    return {
        "units": sum(row["units"] for row in rows),
        "met": sum(row["met"] for row in rows),
        "unmet_by_severity": unmet,
    }


def _why(why: dict[str, Any] | None, lang: str) -> dict[str, Any]:
    if why is None:
        return {"sentences": []}
    names = ("rank", "feasible", "alternative", "alternative_price", "counts_as")
    return {**{name: why.get(name) for name in names}, "sentences": why[lang]}


@router.get("/v1/needs/{need_id}/explanation", responses=responses(NotFound))
async def explanation(request: Request, actor: Caller, need_id: UUID, lang: Literal["id", "en"] = "id") -> Response:
    """Why each offer was made, with the parts of its cost; and why units are unmet: how many responders (or lots) were
    left after each rule, in order. The counts are the same for each unmet unit of a need.

    `sentences` say it in words (`lang`); `rank`, `alternative` and `alternative_price` are as of when it was asked.
    `counts_as`: the severity it is planned by because it waits so long; null: its own.
    `organisations`: what each has promised, has on its way and brought; null: people without one. A partner
    sees the offers of its own organisation, and the shares of all.
    """
    actor.require("operator", "auditor", "partner")
    async with database(request, "matching").tx() as tx:
        need = await tx.fetchrow("SELECT * FROM need WHERE need_id = $1", need_id)
        if need is None:
            raise NotKnownYet(f"the need {need_id} is not known here")
        actor.require_operation(need["operation"])
        rows = await tx.fetch("SELECT * FROM offer WHERE need_id = $1 ORDER BY offer_id LIMIT 1000", need_id)
        unmet = await tx.fetchrow("SELECT * FROM unmet WHERE need_id = $1", need_id)
        closed = await tx.fetchval("SELECT closed_at FROM operation WHERE operation = $1", need["operation"])
        shares = await tx.fetch(
            """
            SELECT organisation,
                   coalesce(sum(quantity) FILTER (WHERE state = 'made'), 0) AS committed,
                   coalesce(sum(quantity) FILTER (WHERE state IN ('started', 'arrived')), 0) AS in_transit,
                   coalesce(sum(quantity) FILTER (WHERE state IN ('delivered', 'confirmed')), 0) AS delivered
            FROM assignment WHERE need_id = $1 AND state <> 'abandoned' GROUP BY 1 ORDER BY 1
            """,
            need_id,
        )
    if actor.role == "partner":
        rows = [row for row in rows if row["organisation"] == (actor.organisation or "")]
    told = (
        "offer_id", "responder_id", "lot_id", "organisation", "quantity", "state", "made_at", "expires_at",
        "arrives_at", "distance_km", "cost", "by", "reason",
    )  # fmt: skip
    answer: dict[str, Any] = {
        "need_id": need_id,
        "status": need["status"],
        "item": need["item"],
        "skill": need["skill"],
        "unit": need["unit"],
        "severity": need["severity"],
        "ledger": {name: need[name] for name in actions.LEDGER},
        "offers": [
            {
                **_without_none({name: row[name] for name in told}),
                "parts": from_json(row["parts"]) or {},
                **_why(from_json(row["why"]), lang),
            }
            for row in rows
        ],
        "organisations": [dict(row) for row in shares],
        "unmet": None,
    }
    if need["open"] > 0:
        if unmet is not None and need["status"] == "declared":
            filters = dict(from_json(unmet["filters"]) or [])
            answer["unmet"] = {
                "units": need["open"],
                "why": domain.why_unmet(filters),
                "filters": [{"filter": name, "left": left} for name, left in filters.items()],
                "worth": int(unmet["shadow"]) if unmet["shadow"] is not None else None,
                "counts_as": unmet["counts_as"],
                "planned_at": unmet["planned_at"],
                "sentences": (from_json(unmet["said"]) or {}).get(lang, []),
            }
        else:
            why = (
                "the operation is closed" if closed else "has no position" if need["lon"] is None else "not planned yet"
            )
            answer["unmet"] = {"units": need["open"], "why": why, "filters": []}
    return json_answer(200, to_json(answer).encode())
