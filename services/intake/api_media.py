"""HTTP of media: anybody may send a photograph or recording, operators may see it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.intake import media
from services.intake.hooks.messages import base_url
from services.intake.hooks.multipart import parts
from services.intake.media_writes import add_upload, content_of, media_url
from services.intake.rates import rates_of
from services.intake.settings import IntakeSettings
from services.runtime.auth import Caller
from services.runtime.db import to_json
from services.runtime.http import body_of, database, json_answer
from services.runtime.problems import Fault, Invalid, NotFound, NotKnownYet, TooLarge, TooMany, responses

router = APIRouter(tags=["intake"])

_TIMEOUT_S = 20
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_TAKES = {
    "requestBody": {
        "required": True,
        "content": {
            **dict.fromkeys((*media.PHOTOS, *media.RECORDINGS, "application/octet-stream"), _BINARY),
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}}}
            },
        },
    }
}
_TAKEN: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "kept; name `url` and `sha256` in the report's `media`",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "media_id": {"type": "string", "format": "uuid"},
                        "url": {"type": "string"},
                        "sha256": {"type": "string"},
                        "type": {"type": "string"},
                        "size": {"type": "integer"},
                        "located": {"type": "boolean", "description": "it says where it was taken"},
                    },
                }
            }
        },
    }
}
_GIVES: dict[int | str, dict[str, Any]] = {
    200: {"description": "the content", "content": dict.fromkeys((*media.PHOTOS, *media.RECORDINGS), _BINARY)}
}


@router.post("/v1/media", status_code=201, responses={**responses(TooLarge, TooMany), **_TAKEN}, openapi_extra=_TAKES)
async def post_media(request: Request, actor: Caller) -> Response:
    """Keep a photograph or recording, as the body itself or as the one file of a form. What it is is judged by its
    content. Where and by whom it was taken is taken out of the file; the position places a report that names it and
    says no place itself. What no report names within a day is forgotten."""
    rates = rates_of(request)
    rates.admit(actor)
    limit = IntakeSettings().media_mb * 1024 * 1024
    body = await body_of(request, limit + 64 * 1024)
    rates.weigh(actor, len(body))
    content_type = request.headers.get("content-type", "")
    if content_type.lower().startswith("multipart/"):
        files = [part.content for part in parts(body, content_type) if part.filename is not None]
        if len(files) != 1:
            raise Invalid("send exactly one file", [Fault("", "expected one part with a file name")])
        body = files[0]
    if len(body) > limit:
        raise TooLarge(f"the file has {len(body)} bytes; at most {limit} are taken")
    try:
        content = await asyncio.to_thread(media.clean, body)
    except media.Refused as fault:
        raise Invalid(str(fault), [Fault("", str(fault))]) from None
    async with asyncio.timeout(_TIMEOUT_S), database(request, "intake").tx() as tx:
        media_id, sha256 = await add_upload(tx, content)
    answer = {
        "media_id": str(media_id),
        "url": media_url(base_url(request), media_id),
        "sha256": sha256,
        "type": content.type,
        "size": len(content.data),
        "located": content.point is not None,
    }
    return json_answer(201, to_json(answer).encode())


@router.get("/v1/media/{media_id}", responses={**responses(NotFound), **_GIVES}, response_class=Response)
async def get_media(request: Request, actor: Caller, media_id: UUID) -> Response:
    """A photograph or recording, for the operators of its report's operation."""
    actor.require("operator")
    async with database(request, "intake").tx() as tx:
        row = await tx.fetchrow(
            "SELECT m.*, r.operation FROM media m LEFT JOIN report r USING (report_id) WHERE media_id = $1", media_id
        )
        if row is None:
            raise NotFound("there is no such photograph or recording")
        if row["report_id"] is not None:
            actor.require_operation(row["operation"])
        if row["state"] == "refused":
            raise NotFound(f"it was not kept: {row['reason']}")
        if row["state"] != "kept":
            raise NotKnownYet(f"it has not come yet{': ' + row['reason'] if row['reason'] else ''}")
        content = await content_of(tx, row)
    if content is None:
        raise NotFound("it was taken away")
    headers = {
        "ETag": f'"{row["sha256"]}"',
        "Cache-Control": "private, no-store",
        # It came from anybody: a browser is to show it as what it is, and run nothing.
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
    }
    return Response(content, 200, headers, media_type=row["type"])
