"""HTTP of needs, each with its row of matching's ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from schemas.values import STANDING
from services.intake import domain, incidents, need_writes, needs, versions
from services.intake.actions import exercise_of, mask, operations
from services.intake.bodies import NeedChangeIn, NeedConfirmIn, NeedIn, Word
from services.intake.need_writes import Delivered, need_row
from services.runtime.auth import Actor, Caller
from services.runtime.db import Row, Tx, from_json
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
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, NotKnownYet, responses

router = APIRouter(tags=["intake"])

_LEDGER = ("needed", "open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled", "asked")
SELECT_NEEDS = (
    f"SELECT n.*, {', '.join(f'l.{name}' for name in _LEDGER)} FROM need n LEFT JOIN ledger l USING (need_id)"
)


def need_json(row: Row | Mapping[str, Any]) -> dict[str, Any]:
    """A need with its ledger row, from a row of `SELECT_NEEDS`. Until matching has told of it, all of it is open."""
    ledger = needs.open_ledger(row["quantity"], row["status"])
    if row["needed"] is not None:
        ledger = {name: row[name] for name in _LEDGER}
    location = {name: row[name] for name in ("lon", "lat", "accuracy_m", "place", "admin") if row[name] is not None}
    parsed = {
        name: from_json(row[name]) if isinstance(row[name], str) else row[name] for name in ("requires", "people")
    }
    return {
        "id": str(row["need_id"]),
        "need_id": str(row["need_id"]),
        "incident": str(row["incident_id"]) if row["incident_id"] else None,
        "operation": row["operation"],
        "exercise": row["exercise"],
        "item": row["item"],
        "skill": row["skill"],
        "unit": row["unit"],
        "quantity": row["quantity"],
        "severity": row["severity"],
        "status": row["status"],
        "location": location or None,
        "window": {"start": row["window_start"].isoformat(), "end": row["window_end"].isoformat()},
        "requires": parsed["requires"] or {},
        "bundle_id": str(row["bundle_id"]) if row["bundle_id"] else None,
        "people": parsed["people"],
        "persons": row["persons"],
        "vulnerable": list(row["vulnerable"]),
        "sensitivity": row["sensitivity"],
        "hazard": row["hazard"],
        "site_id": str(row["site_id"]) if row["site_id"] else None,
        "organisation": row["organisation"],
        "declared_at": row["declared_at"].isoformat() if row["declared_at"] else None,
        "updated_at": row["updated_at"].isoformat(),
        "by": row["by"],
        "reason": row["reason"],
        "ledger": ledger,
    }


async def _shown(tx: Tx, need_id: UUID, actor: Actor) -> dict[str, Any]:
    """The need; to our own people with the words that it came from, which a partner gets by the reports' events."""
    row = await tx.fetchrow(SELECT_NEEDS + " WHERE n.need_id = $1", need_id)
    assert row is not None
    shown = need_json(row)
    shown["version"] = await versions.version_of(tx, versions.NEEDS, str(need_id))
    if actor.role != "partner":
        shown["sources"] = await _sources(tx, need_id)
    return shown


def _own(actor: Actor, need: Mapping[str, Any]) -> None:
    """Refuse a partner another's need, and anybody an operation that the token does not cover."""
    if actor.role == "partner" and need["organisation"] != actor.organisation:
        actor.require("operator")
    actor.require_operation(need["operation"])


@router.post("/v1/needs", status_code=201, responses=responses(NotFound, Conflict), openapi_extra=takes(NeedIn))
async def post_need(request: Request, actor: Caller) -> Response:
    """Set a need of an incident or at a place. Where the incident has a live need for the same word and window, the
    figure becomes that one's and it is answered with 200. Without a point it is a draft."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, NeedIn)

    async def work(tx: Tx) -> Answer:
        return await _post(tx, actor, order)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, "POST /v1/needs", work)


async def _post(tx: Tx, actor: Actor, order: NeedIn) -> Answer:
    known = await operations(tx)
    incident = None
    if order.incident is not None:
        incident = await incidents.lock_incident(tx, order.incident)
        while incident["merged_into"] is not None:
            incident = await incidents.lock_incident(tx, incident["merged_into"])
        if incident["status"] == "closed":
            raise Conflict("the incident is closed")
        operation, exercise = incident["operation"], incident["exercise"]
        if order.operation is not None and order.operation != operation:
            raise Conflict(f"the incident belongs to the operation {operation}")
    else:
        operation = _operation(order, known)
        exercise = exercise_of(operation, known)
    actor.require_operation(operation)
    if order.location is not None and order.location.place:
        place = order.location.model_copy(update={"place": mask(order.location.place, None)[0]})
        order = order.model_copy(update={"location": place})
    organisation = actor.organisation if actor.role == "partner" else None
    need, new = await need_writes.post_need(
        tx, order, incident, operation, exercise, organisation=organisation, by=actor.name
    )
    return 201 if new else 200, await _shown(tx, need["need_id"], actor)


def _operation(order: NeedIn, known: Mapping[str, domain.Operation]) -> str:
    if order.operation is not None:
        takes = domain.named_operation(order.operation, known)
        if takes is None:
            raise NotKnownYet(f"there is no operation {order.operation}")
        if not takes:
            raise Conflict(f"the operation {order.operation} is closed")
        return order.operation
    where = order.location
    if where is None:
        return STANDING
    return domain.operation_by_rule(known.values(), None, where.lon, where.lat, where.admin)


@router.get("/v1/needs", responses=responses())
async def get_needs(
    request: Request,
    actor: Caller,
    operation: Word | None = None,
    incident: UUID | None = None,
    status: Literal["draft", "declared", "withdrawn"] | None = None,
    item: Word | None = None,
    skill: Word | None = None,
    severity: Annotated[int | None, Query(ge=1, le=4, description="at least this severe")] = None,
    exercise: bool | None = None,
    site: UUID | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> Response:
    """Needs, newest first, each with its ledger row; a partner's own. Without `operation`, those of all live
    operations and no exercise."""
    actor.require("operator", "partner", "field", "auditor")
    before = from_cursor(cursor, 1)
    try:
        before_id = UUID(str(before[0])) if before else None
    except ValueError:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")]) from None
    async with database(request, "intake").tx() as tx:
        rows = await tx.fetch(
            SELECT_NEEDS
            + """
            LEFT JOIN operation o ON o.operation = n.operation
            WHERE ($1::uuid IS NULL OR n.need_id < $1)
              AND ($2::text IS NULL OR n.operation = $2)
              AND ($3::uuid IS NULL OR n.incident_id = $3)
              AND ($4::text IS NULL OR n.status = $4)
              AND ($5::text IS NULL OR n.item = $5)
              AND ($6::text IS NULL OR n.skill = $6)
              AND ($7::int IS NULL OR n.severity >= $7)
              AND (CASE WHEN $8::boolean IS NULL THEN $2 IS NOT NULL OR $3 IS NOT NULL OR NOT n.exercise
                   ELSE n.exercise = $8 END)
              AND ($2 IS NOT NULL OR $3 IS NOT NULL OR o.closed_at IS NULL)
              AND ($9::text[] IS NULL OR n.operation = ANY($9))
              AND ($10::text IS NULL OR n.organisation = $10)
              AND ($11::uuid IS NULL OR n.site_id = $11)
            ORDER BY n.need_id DESC LIMIT $12
            """,
            before_id,
            operation,
            incident,
            status,
            item,
            skill,
            severity,
            exercise,
            list(actor.operations) or None,
            (actor.organisation or "") if actor.role == "partner" else None,
            site,
            limit + 1,
        )
    more = len(rows) > limit
    rows = rows[:limit]
    links = next_link(request, cursor_of([str(rows[-1]["need_id"])]) if more else None)
    return json_answer(200, orjson.dumps({"needs": [need_json(row) for row in rows], "links": links}))


@router.get("/v1/needs/{need_id}", responses=responses(NotFound))
async def get_need(request: Request, actor: Caller, need_id: UUID) -> Response:
    """One need with its ledger row; its `version` goes into the `If-Match` of a change."""
    actor.require("operator", "partner", "field", "auditor")
    async with database(request, "intake").tx() as tx:
        _own(actor, await need_row(tx, need_id))
        shown = await _shown(tx, need_id, actor)
    return json_answer(200, orjson.dumps(shown))


async def _sources(tx: Tx, need_id: UUID) -> list[dict[str, Any]]:
    """The reports that ask for a need, newest first, each with the words that say so; without words, it states the
    need as such. Places count in the report's title and text, a line break between them."""
    rows = await tx.fetch(
        "SELECT r.report_id, r.received_at, r.title, r.text, a.quantity, a.counts, a.words, a.assumed "
        "FROM need_ask a JOIN report r USING (report_id) WHERE a.need_id = $1 ORDER BY r.seq DESC LIMIT 50",
        need_id,
    )
    sources = []
    for row in rows:
        text = "\n".join(part for part in (row["title"], row["text"]) if part)
        spans = from_json(row["words"]) if row["words"] else []
        sources.append(
            {
                "report_id": str(row["report_id"]),
                "received_at": row["received_at"].isoformat(),
                "quantity": row["quantity"],
                "counts": row["counts"],
                "assumed": row["assumed"],
                # Words that were taken away since are not shown, nor whatever stands in their place now.
                "words": [
                    {"start": start, "end": end, "text": text[start:end]} for start, end in spans if end <= len(text)
                ],
            }
        )
    return sources


@router.patch(
    "/v1/needs/{need_id}",
    responses=responses(NotFound, Conflict, versions.Stale),
    openapi_extra=takes(NeedChangeIn) | {"parameters": [versions.IF_MATCH]},
)
async def patch_need(request: Request, actor: Caller, need_id: UUID) -> Response:
    """Amend a need's quantity or place, declare a draft, or withdraw it."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, NeedChangeIn)
    version = versions.asked_version(request)

    async def work(tx: Tx) -> Answer:
        need = await _locked(tx, need_id)
        _own(actor, need)
        await versions.require_version(tx, versions.NEEDS, str(need_id), version)
        place = mask(order.location.place, None)[0] if order.location and order.location.place else None
        await need_writes.patch_need(tx, need, order, place=place, by=actor.name)
        return 200, await _shown(tx, need_id, actor)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, f"PATCH /v1/needs/{need_id}", work)


async def _locked(tx: Tx, need_id: UUID) -> need_writes.Need:
    """A need under the lock of its operation, as every writer of needs takes it."""
    while True:
        operation = (await need_row(tx, need_id))["operation"]
        await incidents.lock_operations(tx, [operation])
        need = await need_row(tx, need_id, lock=True)
        if need["operation"] == operation:
            return need


@router.post("/v1/needs/{need_id}/confirm", responses=responses(NotFound, Conflict), openapi_extra=takes(NeedConfirmIn))
async def confirm_need(request: Request, actor: Caller, need_id: UUID) -> Response:
    """Say for those it was for whether a delivery arrived."""
    actor.require("operator", "field")
    body = await body_of(request)
    order = parse(body, NeedConfirmIn)

    async def work(tx: Tx) -> Answer:
        need = await need_row(tx, need_id)
        actor.require_operation(need["operation"])
        shown = await _shown(tx, need_id, actor)
        delivered = Delivered(
            need_id, need["operation"], need["exercise"], shown["ledger"]["delivered"], need["sensitivity"]
        )
        await need_writes.confirm(
            tx, [delivered], received=order.received, quantity=order.quantity, by=actor.name, reason=order.reason
        )
        return 200, shown

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, f"POST /v1/needs/{need_id}/confirm", work)
