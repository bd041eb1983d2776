"""HTTP: situation reports and the live stream."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from schemas.values import STANDING
from schemas.vocabulary import split
from services.runtime import clock
from services.runtime.auth import Actor, Caller
from services.runtime.db import Tx
from services.runtime.http import database
from services.runtime.problems import DomainError, Fault, Invalid, NotFound, responses
from services.sitrep import log, reporting, stream
from services.sitrep.domain import Scope

router = APIRouter(tags=["sitrep"])

EXACT_FOR = ("operator", "partner", "auditor", "admin")
"""Who is told exact figures; everybody else gets the public form."""


class NotAcceptable(DomainError):
    """The report cannot be had in that format."""

    code, status, title = "not-acceptable", 406, "Not in that format"


@router.get(
    "/v1/sitreps",
    summary="A situation report, as of now or of any earlier instant",
    responses=responses(NotFound, NotAcceptable)
    | {
        200: {
            "content": {"application/json": {}, "text/markdown": {}, "text/html": {}, "text/csv": {}},
            "description": "The report",
        }
    },
)
async def get_sitrep(
    request: Request,
    actor: Caller,
    operation: Annotated[str | None, Query(max_length=64, description="Without it: all live operations")] = None,
    area: Annotated[str | None, Query(max_length=60, description="`scheme:code`, and all within it")] = None,
    as_of: Annotated[str | None, Query(max_length=40, description="RFC 3339 with a zone; without it: now")] = None,
    lang: Literal["id", "en"] = "id",
    format: Annotated[str | None, Query(max_length=20, description="md, html, json or csv; before Accept")] = None,
) -> Response:
    """Counts exactly the rows of the log that were received up to `as_of`; the same rows always give the same bytes.

    The `as_of` in the answer is the instant at which the last of those rows was received, so that it names them and
    nothing else; given back as `as_of` it gives this report again. Operators, partners and auditors get exact figures,
    everybody else the public form: figures in fixed bands and no single incident.
    """
    form = _format(format, request.headers.get("accept", ""))
    scope = _scope(actor, operation, area)
    instant = _instant(as_of)
    db = database(request, "sitrep")
    async with db.tx() as tx:
        if instant is None:
            position = await log.head(tx)
        else:
            await log.settle(tx)
            position = await log.position_at(tx, instant)
        if operation is not None:
            await _must_exist(tx, operation)
        report = await reporting.document(tx, position, scope, exact=actor.role in EXACT_FOR)
    content = reporting.rendered(report, form, lang)
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept, Authorization", "Content-Language": lang, "Cache-Control": "no-cache"}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=reporting.MEDIA_TYPES[form], headers=headers)


@router.get(
    "/v1/stream",
    summary="Every event as it comes, as Server-Sent Events",
    response_class=StreamingResponse,
    responses=responses() | {200: {"content": {"text/event-stream": {}}, "description": "Events without end"}},
)
async def get_stream(
    request: Request,
    actor: Caller,
    types: Annotated[str | None, Query(max_length=4000, description="Event types, parted by commas")] = None,
    bbox: Annotated[str | None, Query(max_length=200, description="west,south,east,north in WGS 84")] = None,
    operation: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """`id` is the position in the log, `event` the type, `data` the CloudEvent as JSON.

    Send `Last-Event-ID` to go on where you were; an id outside the log is answered with one `reset` event, after which
    new events follow. Without it the stream begins with what comes next. The public sees open topics only, partners
    those of class partner as well. With `bbox` come events that have a place, or belong to a need or incident with one.
    """
    if operation is not None and actor.role in EXACT_FOR:
        actor.require_operation(operation)
    wanted = stream.Filter(
        topics=stream.topics_for(actor.role),
        types=tuple(sorted({name.strip() for name in types.split(",") if name.strip()})) if types else None,
        bbox=_bbox(bbox),
        operations=(operation,) if operation is not None else (actor.operations or None),
    )
    watcher = stream.tailer(request.app, database(request, "sitrep")).watcher(
        wanted, request.headers.get("last-event-id")
    )
    return StreamingResponse(
        watcher.chunks(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _format(named: str | None, accept: str) -> reporting.Format:
    """The format asked for: by name, else the first in Accept that we have, else JSON.

    Raises
    ------
    NotAcceptable
        None that we have.
    """
    if named is not None:
        forms: dict[str, reporting.Format] = {form: form for form in reporting.MEDIA_TYPES}
        if named in forms:
            return forms[named]
        known = ", ".join(reporting.MEDIA_TYPES)
        raise NotAcceptable(f"there is no format {named}; take one of {known}", [Fault("query/format", known)])
    offered = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    for media_type in offered:
        if media_type in ("text/markdown", "text/*", "text/plain"):
            return "md"
        if media_type == "text/html":
            return "html"
        if media_type == "text/csv":
            return "csv"
        if media_type in ("application/json", "application/*", "*/*"):
            return "json"
    if offered:
        raise NotAcceptable(
            "the report is there as text/markdown, text/html, text/csv or application/json",
            [Fault("header/Accept", accept)],
        )
    return "json"


def _scope(actor: Actor, operation: str | None, area: str | None) -> Scope:
    """What may be counted for this caller.

    Raises
    ------
    Forbidden
        The token does not cover the operation.
    Invalid
        The area has no scheme.
    """
    if area is not None:
        try:
            scheme, code = split(area)
        except ValueError as error:
            raise Invalid(str(error), [Fault("query/area", str(error))]) from None
        area = f"{scheme}:{code}"
    if actor.role not in EXACT_FOR:
        return Scope(operation, area)
    if operation is not None:
        actor.require_operation(operation)
    return Scope(operation, area, tuple(sorted(actor.operations)) or None)


def _instant(text: str | None) -> datetime | None:
    """`as_of` as an instant.

    Raises
    ------
    Invalid
        It is not RFC 3339 with a zone, or lies in the future: what it would count is not settled.
    """
    if text is None:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        instant = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise Invalid(
            "as_of is not RFC 3339", [Fault("query/as_of", "an instant such as 2026-11-24T09:00:00+07:00")]
        ) from None
    if instant.tzinfo is None:
        raise Invalid("as_of has no zone", [Fault("query/as_of", "add Z or an offset such as +07:00")])
    if instant > clock.now():
        raise Invalid("as_of lies in the future", [Fault("query/as_of", "an instant that has passed")])
    return instant


async def _must_exist(tx: Tx, operation: str) -> None:
    """Refuse an operation that nothing in the log has spoken of.

    Raises
    ------
    NotFound
        There is none; it may be on its way.
    """
    known = operation == STANDING or await tx.fetchval(
        "SELECT EXISTS (SELECT 1 FROM operation WHERE operation_id = $1) "
        "OR EXISTS (SELECT 1 FROM log WHERE operation = $1)",
        operation,
    )
    if not known:
        raise NotFound(f"there is no operation {operation}")


def _bbox(text: str | None) -> tuple[float, float, float, float] | None:
    """west, south, east, north.

    Raises
    ------
    Invalid
        Not four numbers within the world, south below north. West above east crosses the antimeridian.
    """
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise Invalid("bbox is west,south,east,north", [Fault("query/bbox", "four numbers")]) from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise Invalid("bbox lies outside the world", [Fault("query/bbox", "west,south,east,north in degrees")])
    return west, south, east, north
