"""HTTP of the exchange: partners' events with a token, and which organisation may speak under which origin."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, StringConstraints

from schemas.partners import ReportSubmitted
from services.exchange.actions import Judged, judge, pass_on
from services.exchange.domain import belongs
from services.runtime import clock
from services.runtime.auth import Caller
from services.runtime.cloudevents import STRUCTURED, Malformed, decode, read, timestamp
from services.runtime.db import Tx, to_json
from services.runtime.http import (
    body_of,
    database,
    idempotency_key,
    json_answer,
    parse,
    refuse_hostile,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid, TooLarge, responses
from services.runtime.quarantine import Unprocessable

router = APIRouter(prefix="/v1/partner", tags=["exchange"])

BATCH = "application/cloudevents-batch+json"
MAX_EVENTS = 5000
MAX_BYTES = 16 * 1024 * 1024
TIMEOUT_S = 60

_EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["specversion", "id", "source", "type", "data"],
    "properties": {
        "specversion": {"const": "1.0"},
        "id": {"type": "string"},
        "source": {"type": "string", "example": "/partners/pmi"},
        "type": {"const": ReportSubmitted.type},
        "time": {"type": "string", "format": "date-time"},
        "data": {"type": "object", "description": f"see /schemas/{ReportSubmitted.type}.json"},
    },
}
_TAKES: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            STRUCTURED: {"schema": _EVENT_SCHEMA},
            BATCH: {"schema": {"type": "array", "items": _EVENT_SCHEMA}},
        },
    }
}


@router.post(
    "/events",
    status_code=202,
    responses=responses(Conflict, TooLarge) | {207: {"description": "A batch: one result for each event"}},
    openapi_extra=_TAKES,
)
async def post_events(request: Request, actor: Caller) -> Response:
    """Take one CloudEvent (202, or 200 for a repeat) or a batch (207). A repeat has the same (source, id) or
    (source, `external_id`) as one that passed. The source is `/partners/<organisation>`, or was granted."""
    actor.require("partner")
    if actor.role == "partner" and not actor.organisation:
        raise Forbidden("the token names no organisation, so nothing can be published with it")
    body = await body_of(request, MAX_BYTES)
    refuse_hostile(body)
    single, items = _items(body, request.headers.get("content-type", ""))
    now = clock.now()
    judged = await asyncio.to_thread(lambda: [_judged(item, now) for item in items])

    async def work(tx: Tx) -> tuple[int, Any]:
        granted: set[str] = set()
        if actor.role == "partner":
            rows = await tx.fetch("SELECT origin FROM origin WHERE organisation = $1", actor.organisation)
            granted = {row["origin"] for row in rows}
        found: list[Judged | Unprocessable] = []
        for entry in judged:
            may = isinstance(entry, Unprocessable) or actor.role == "admin"
            if not may and not belongs(entry.origin, str(actor.organisation), granted):  # type: ignore[union-attr]
                entry = Unprocessable(f"the source is not one of the organisation {actor.organisation}", "/source")
            found.append(entry)
        good = [entry for entry in found if isinstance(entry, Judged)]
        passed = iter(await pass_on(tx, good, known=True, organisation=actor.organisation, now=now))
        counts = {"accepted": 0, "rejected": 0, "repeated": 0}
        results: list[dict[str, Any]] = []
        for index, (item, entry) in enumerate(zip(items, found, strict=True)):
            result: dict[str, Any] = {"index": index, "id": _text(item, "id")}
            if isinstance(entry, Unprocessable):
                status = "rejected"
                result |= {"pointer": entry.pointer or "", "reason": entry.reason}
            else:
                one = next(passed)
                status = "repeated" if one.repeated else "accepted"
                result["submission_id"] = one.submission_id
            counts[status] += 1
            results.append(result | {"status": status})
        if single:
            entry = found[0]
            if isinstance(entry, Unprocessable):
                fault = Fault(entry.pointer or "", entry.reason)
                raise (Forbidden if entry.pointer == "/source" and isinstance(judged[0], Judged) else Invalid)(
                    entry.reason, [fault]
                )
            return (200 if counts["repeated"] else 202), counts | {"results": results}
        return 207, counts | {"results": results}

    key = idempotency_key(request, actor)
    db = database(request, "exchange")
    return await write_once(db, actor, key, body, "POST /v1/partner/events", work, timeout_s=TIMEOUT_S)


def _items(body: bytes, content_type: str) -> tuple[bool, list[Any]]:
    """Whether it is a single event, and the events, unjudged.

    Raises
    ------
    Invalid
        Not JSON, or not what the content type says.
    TooLarge
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}", [Fault("", "not JSON")]) from None
    kind = content_type.split(";")[0].strip().lower()
    if isinstance(document, list) and kind != STRUCTURED:
        if len(document) > MAX_EVENTS:
            raise TooLarge(f"the body has {len(document)} events; at most {MAX_EVENTS} are taken at once")
        return False, document
    if isinstance(document, dict) and kind != BATCH:
        return True, [document]
    wanted = f"send one event as {STRUCTURED}, or an array of events as {BATCH}"
    raise Invalid(wanted, [Fault("", wanted)])


def _judged(item: Any, now: datetime) -> Judged | Unprocessable:
    try:
        envelope = decode(orjson.dumps(item), [("content-type", STRUCTURED.encode())], received_at=now)
        if envelope.meta.type != ReportSubmitted.type:
            return Unprocessable(f"the type {envelope.meta.type} is not taken; send {ReportSubmitted.type}", "/type")
        return judge(read(envelope, ReportSubmitted), now)
    except Malformed as error:
        return Unprocessable(error.reason, error.pointer)
    except Unprocessable as error:
        return error


def _text(item: Any, name: str) -> str | None:
    value = item.get(name) if isinstance(item, dict) else None
    return value if isinstance(value, str) else None


def _grantable(origin: str) -> str:
    if f"{origin}/".startswith(("/gotong/", "/partners/")):
        raise ValueError("origins under /gotong/ and /partners/ are given out by name alone")
    return origin


class Grant(BaseModel):
    """An origin under which an organisation's own system already speaks, for example its web address."""

    origin: Annotated[str, StringConstraints(pattern=r"^\S{3,500}$"), AfterValidator(_grantable)]
    organisation: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


@router.post("/origins", status_code=201, responses=responses(Conflict), openapi_extra=takes(Grant))
async def post_origin(request: Request, actor: Caller) -> Response:
    """Let an organisation speak under an origin beside its own `/partners/<organisation>`."""
    actor.require("operator")
    body = await body_of(request)
    grant = parse(body, Grant)

    async def work(tx: Tx) -> tuple[int, Any]:
        holder = await tx.fetchval(
            "INSERT INTO origin (origin, organisation, granted_by, granted_at) VALUES ($1, $2, $3, $4) "
            "ON CONFLICT (origin) DO UPDATE SET origin = excluded.origin RETURNING organisation",
            grant.origin,
            grant.organisation,
            actor.name,
            clock.now(),
        )
        if holder != grant.organisation:
            raise Conflict("the origin belongs to another organisation", [Fault("/origin", "belongs to another")])
        return 201, {"origin": grant.origin, "organisation": grant.organisation}

    key = idempotency_key(request, actor)
    return await write_once(database(request, "exchange"), actor, key, body, "POST /v1/partner/origins", work)


@router.get("/origins", responses=responses())
async def list_origins(request: Request, actor: Caller) -> Response:
    """Which organisation speaks under which origin beside its own."""
    actor.require("operator", "auditor")
    async with database(request, "exchange").tx() as tx:
        rows = await tx.fetch("SELECT * FROM origin ORDER BY organisation, origin")
    shown = [
        {
            "origin": row["origin"],
            "organisation": row["organisation"],
            "granted_by": row["granted_by"],
            "granted_at": timestamp(row["granted_at"]),
        }
        for row in rows
    ]
    return json_answer(200, to_json({"origins": shown}).encode())
