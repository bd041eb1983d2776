"""HTTP: situation reports and the live stream."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from services.runtime.auth import Caller
from services.runtime.http import database
from services.runtime.problems import DomainError, Fault, NotFound, responses
from services.sitrep import api_features, api_tables, asking, reporting, stream
from services.sitrep.asking import EXACT_FOR

router = APIRouter(tags=["sitrep"])
router.include_router(api_tables.router)
router.include_router(api_features.router)


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
    wanted: asking.AsWanted,
    lang: Literal["id", "en"] = "id",
    format: Annotated[str | None, Query(max_length=20, description="md, html, json or csv; before Accept")] = None,
) -> Response:
    """Counts exactly the rows of the log that were received up to `as_of`; the same rows always give the same bytes.

    The `as_of` in the answer is the instant at which the last of those rows was received, so that it names them and
    nothing else; given back as `as_of` it gives this report again. Operators, partners and auditors get exact figures,
    everybody else the public form: figures in fixed bands and no single incident.
    """
    form = _format(format, request.headers.get("accept", ""))
    scope = wanted.scope(actor)
    async with database(request, "sitrep").tx() as tx:
        position = await wanted.position(tx)
        report = await reporting.document(
            tx, position, scope, exact=actor.role in EXACT_FOR, veiled=actor.role == "partner"
        )
    return asking.tagged(request, reporting.rendered(report, form, lang), reporting.MEDIA_TYPES[form], lang=lang)


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
    area: asking.AreaWanted = None,
) -> Response:
    """`id` is the position in the log, `event` the type, `data` the CloudEvent as JSON.

    Send `Last-Event-ID` to go on where you were; an id outside the log is answered with one `reset` event, after which
    new events follow. Without it the stream begins with what comes next. The public sees open topics only, partners
    those of class partner as well, without what is protected. The stream ends when the token runs out. With `area`
    come events that name an area within it; with `bbox` those that have a place, or belong to a need or incident with
    one.
    """
    if operation is not None and actor.role in EXACT_FOR:
        actor.require_operation(operation)
    wanted = stream.Filter(
        topics=stream.topics_for(actor.role),
        types=tuple(sorted({name.strip() for name in types.split(",") if name.strip()})) if types else None,
        bbox=asking.bbox_of(bbox),
        operations=(operation,) if operation is not None else (actor.operations or None),
        unprotected=actor.role not in ("operator", "auditor", "admin"),
        areas=asking.scope_of(actor, operation, area).area_codes(),
    )
    watcher = stream.tailer(request.app, database(request, "sitrep")).watcher(
        wanted, request.headers.get("last-event-id"), asking.expires_at(request)
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
