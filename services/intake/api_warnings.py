"""HTTP of warnings: CAP in and out, the list of what is in force."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.intake import cap, cap_signature, domain
from services.intake.actions import operations
from services.intake.api_incidents import geojson, read_bbox
from services.intake.bodies import Word
from services.intake.settings import trusted_certificates
from services.intake.warning_writes import Sender, Taken, take
from services.runtime import clock
from services.runtime.auth import Actor, Caller
from services.runtime.db import Row, Tx, from_json
from services.runtime.http import (
    WRITE_TIMEOUT_S,
    Answer,
    body_of,
    cursor_of,
    database,
    from_cursor,
    idempotency_key,
    next_link,
    write_once,
)
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, NotKnownYet, TooLarge, responses

router = APIRouter(tags=["intake"])

CAP_TYPE = "application/cap+xml"
_ENVELOPE_TIMEOUT_S = 10
_XML = {"schema": {"type": "string", "format": "binary", "description": "CAP 1.1 or 1.2, bare or in EDXL-DE or Atom"}}
_TAKES = {"requestBody": {"required": True, "content": {CAP_TYPE: _XML, "application/xml": _XML, "text/xml": _XML}}}
_GIVES: dict[int | str, dict[str, Any]] = {
    200: {"content": {CAP_TYPE: {"schema": {"type": "string"}}}, "description": "strict CAP 1.2"}
}


@router.post("/v1/warnings", status_code=201, responses=responses(Conflict, TooLarge, NotFound), openapi_extra=_TAKES)
async def post_warnings(request: Request, actor: Caller, operation: Word | None = None) -> Response:
    """Take a CAP message, or an envelope of several. A message that is known changes nothing; one that cannot be read
    costs no other. What was irregular and what came of the signature is said for each."""
    actor.require("partner", "operator")
    body = await body_of(request, cap.MAX_BYTES)
    key = idempotency_key(request, actor)
    if operation is not None:
        actor.require_operation(operation)
    found = await asyncio.to_thread(_read, body)
    good = [one for one in found if not isinstance(one, cap.Refused)]
    if not good:
        refused = [one for one in found if isinstance(one, cap.Refused)]
        faults = [Fault(one.at, one.reason) for one in refused]
        raise Invalid(refused[0].reason if refused else "the document holds no CAP message", faults)
    sender = _sender(actor)

    async def work(tx: Tx) -> Answer:
        await _check_operation(tx, operation)
        taken: list[dict[str, Any]] = []
        for one in found:
            if isinstance(one, cap.Refused):
                taken.append({"error": {"detail": one.reason, "errors": [{"pointer": one.at, "detail": one.reason}]}})
            else:
                taken.append(_answer(one[0].alert, await take(tx, *one, sender, operation=operation)))
        repeated = sum(bool(one.get("repeated")) for one in taken)
        answer = {
            "accepted": len(good) - repeated,
            "rejected": len(found) - len(good),
            "repeated": repeated,
            "warnings": taken,
        }
        return (200 if repeated == len(good) else 201), answer

    what = f"POST /v1/warnings {operation or ''}"
    timeout_s = WRITE_TIMEOUT_S if len(found) == 1 else _ENVELOPE_TIMEOUT_S
    return await write_once(database(request, "intake"), actor, key, body, what, work, timeout_s=timeout_s)


def _read(body: bytes) -> list[tuple[cap.Reading, cap_signature.Signature] | cap.Refused]:
    """Every message in the body with what came of its signature. Takes milliseconds, so not on the event loop.

    Raises
    ------
    Invalid
        It is no CAP, or none that may be read.
    """
    try:
        document = cap.read_document(body)
    except cap.NotCap as fault:
        raise Invalid(fault.reason, [Fault(fault.pointer, fault.reason)]) from None
    if not document.readings and document.entries:
        raise Invalid("this feed has only links to messages; send the messages, or name the feed in the settings")
    certificates = trusted_certificates()
    return [
        one if isinstance(one, cap.Refused) else (one, cap_signature.check(one.raw, one.alert.sent, certificates))
        for one in document.readings
    ]


def _sender(actor: Actor) -> Sender:
    """A partner speaks for its organisation; an operator for whoever signed the message."""
    if actor.role == "partner":
        return Sender(f"org:{actor.organisation or actor.subject}", False, actor.name)
    return Sender("operator", True, actor.name)


async def _check_operation(tx: Tx, operation: str | None) -> None:
    if operation is None:
        return
    named = domain.named_operation(operation, await operations(tx))
    if named is None:
        raise NotKnownYet(f"there is no operation {operation}")
    if not named:
        raise Conflict(f"the operation {operation} is closed")


def _answer(alert: cap.Alert, taken: Taken) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": str(taken.warning_id) if taken.warning_id else None,
        "message_id": str(taken.message_id),
        "identifier": alert.identifier,
        "state": taken.state or "kept",
        "signature": taken.signature,
        "signed_by": taken.signed_by,
        "trusted": taken.trusted,
        "irregularities": [{"code": i.code, "at": i.at, "detail": i.detail} for i in taken.irregularities],
    }
    if taken.repeated:
        answer["repeated"] = True
    if taken.kept_for:
        answer["kept_for"] = taken.kept_for
    return answer


@router.get("/v1/warnings", responses=responses(), response_class=Response)
async def get_warnings(
    request: Request,
    active: str | None = None,
    bbox: str | None = None,
    hazard: Word | None = None,
    operation: Word | None = None,
    exercise: bool | None = None,
    severity: Annotated[int | None, Query(ge=1, le=4, description="at least this severe")] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: str | None = None,
) -> Response:
    """Warnings, newest first, for everybody. `active`: only those in force. Drills with `exercise=true` only, or for
    the operation that is named."""
    only_active = active is not None and active.lower() not in ("false", "0", "no")
    box = read_bbox(bbox)
    async with database(request, "intake").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT * FROM warning
            WHERE ($1::bigint IS NULL OR seq < $1) AND state <> 'merged'
              AND (NOT $2 OR (state = 'active' AND expires_at > $3))
              AND ($4::text IS NULL OR hazard = $4)
              AND ($5::text IS NULL OR operation = $5)
              AND (CASE WHEN $6::boolean IS NOT NULL THEN exercise = $6 ELSE $5 IS NOT NULL OR NOT exercise END)
              AND ($7::int IS NULL OR severity >= $7)
              AND ($8::float8[] IS NULL OR (bbox[2] <= $8[4] AND bbox[4] >= $8[2] AND (
                    CASE WHEN $8[1] <= $8[3] THEN bbox[1] <= $8[3] AND bbox[3] >= $8[1]
                         ELSE bbox[1] <= $8[3] OR bbox[3] >= $8[1] END)))
            ORDER BY seq DESC LIMIT $9
            """,
            _sequence(from_cursor(cursor, 1)), only_active, clock.now(), hazard, operation, exercise, severity,
            list(box) if box else None, limit + 1,
        )  # fmt: skip
    more = len(rows) > limit
    rows = rows[:limit]
    links = next_link(request, cursor_of([rows[-1]["seq"]]) if more else None)
    return geojson({"type": "FeatureCollection", "features": [_feature(row) for row in rows], "links": links})


def _sequence(cursor: list[Any] | None) -> int | None:
    if cursor is None:
        return None
    [value] = cursor
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")])
    return value


def _feature(row: Row) -> dict[str, Any]:
    body = from_json(row["body"])
    area = body.pop("area")
    rings, points = area.pop("polygons", []), area.pop("points", [])
    shapes: list[dict[str, Any]] = []
    if rings:
        shapes.append({"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]})
    if points:
        shapes.append({"type": "MultiPoint", "coordinates": [[point["lon"], point["lat"]] for point in points]})
    geometry = shapes[0] if len(shapes) == 1 else {"type": "GeometryCollection", "geometries": shapes}
    properties = {
        **body,
        "id": str(row["warning_id"]),
        "state": row["state"],
        "issued_at": row["issued_at"].isoformat(),
        "updated_at": row["updated_at"].isoformat(),
        "area": area,
        "cap": f"/v1/warnings/{row['warning_id']}.cap",
    }
    return {
        "type": "Feature",
        "id": str(row["warning_id"]),
        "geometry": geometry if shapes else None,
        "properties": properties,
    }


@router.get("/v1/warnings/{warning_id}.cap", responses=responses(NotFound) | _GIVES, response_class=Response)
async def get_cap(request: Request, warning_id: UUID, message: UUID | None = None) -> Response:
    """The message in force, in strict CAP 1.2; `message`, or the id of a later message, gives that one."""
    async with database(request, "intake").tx() as tx:
        raw = await tx.fetchval(
            """
            SELECT m.raw FROM warning_message m LEFT JOIN warning w ON w.warning_id = $1
            WHERE m.kept_for IS NULL
              AND m.message_id = coalesce($2, w.message_id, $1)
              AND (m.warning_id = $1 OR m.message_id = $1 OR w.state = 'merged')
            """,
            warning_id,
            message,
        )
    if raw is None:
        raise NotFound("there is no such warning")
    document = await asyncio.to_thread(lambda: cap.write(cap.read(raw).alert))
    return Response(document, media_type=CAP_TYPE)


@router.get("/v1/warnings/{warning_id}", responses=responses(NotFound), response_class=Response)
async def get_warning(request: Request, warning_id: UUID) -> Response:
    """One warning with the messages of its chain, in the order of their sending."""
    async with database(request, "intake").tx() as tx:
        row = await tx.fetchrow(
            "SELECT * FROM warning WHERE warning_id = coalesce("
            "(SELECT warning_id FROM warning WHERE warning_id = $1), "
            "(SELECT warning_id FROM warning_message WHERE message_id = $1))",
            warning_id,
        )
        if row is None:
            raise NotFound("there is no such warning")
        messages = await tx.fetch(
            "SELECT * FROM warning_message WHERE warning_id = $1 ORDER BY sent_at, message_id LIMIT 1000",
            row["warning_id"],
        )
    document = _feature(row)
    document["properties"]["history"] = [_told(row, message) for message in messages]
    return geojson(document)


def _told(warning: Row, message: Row) -> dict[str, Any]:
    return {
        "message_id": str(message["message_id"]),
        "type": message["type"],
        "identifier": message["identifier"],
        "sender": message["sender"],
        "sent_at": message["sent_at"].isoformat(),
        "received_at": message["received_at"].isoformat(),
        "origin": message["origin"],
        "by": message["by"],
        "in_force": message["message_id"] == warning["message_id"],
        "ignored": message["ignored"],
        "signature": message["signature"],
        "signature_detail": message["signature_detail"],
        "signed_by": message["signed_by"],
        "trusted": message["signature_trusted"],
        "irregularities": from_json(message["irregularities"]),
        "cap": f"/v1/warnings/{warning['warning_id']}.cap?message={message['message_id']}",
    }
