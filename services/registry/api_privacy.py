"""HTTP of consent, of the access log, and of what an organisation takes along of its own."""

from __future__ import annotations

import asyncio
import csv
import io
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.registry import access, consent
from services.registry.api_resources import shown_lot
from services.registry.api_responders import shown_responder
from services.registry.bodies import ConsentOrder, Slug
from services.registry.pages import Cursor, Limit, answer, ids, page
from services.registry.responder_rows import contact_of, responder_row
from services.runtime.auth import Actor, Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Tx, to_json
from services.runtime.http import body_of, database, from_cursor, idempotency_key, parse, write_once
from services.runtime.openapi import takes
from services.runtime.problems import Forbidden, Invalid, NotFound, responses

router = APIRouter()

_FILES: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/csv": {}}}}


@router.get("/consents", responses=responses())
async def list_consents() -> Response:
    """What people agree to when they register, word for word, by purpose and version. Open to everybody."""
    newest = consent.newest()
    shown = [
        {
            "purpose": text.purpose,
            "version": text.version,
            "text": text.words,
            "current": newest[text.purpose] is text,
        }
        for text in consent.texts()
    ]
    return answer({"consents": shown, "links": []})


@router.get("/responders/{responder_id}/consents", responses=responses(NotFound))
async def list_own_consents(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """What somebody agreed to and withdrew: for themselves, their organisation, a desk and an auditor."""
    async with database(request, "registry").tx() as tx:
        await responder_row(tx, responder_id, actor)
        return answer({"consents": await _shown(tx, responder_id), "links": []})


@router.post("/responders/{responder_id}/consents", responses=responses(NotFound), openapi_extra=takes(ConsentOrder))
async def post_consent(request: Request, actor: Caller, responder_id: UUID) -> Response:
    """Give or withdraw a consent. Without `dispatch` nobody is asked, planned with or exported any more."""
    body = await body_of(request)
    order = parse(body, ConsentOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        await consent.settle(tx, actor, responder_id, order.purpose, given=order.given)
        return 200, {"consents": await _shown(tx, responder_id)}

    key = idempotency_key(request, actor)
    what = f"POST /v1/responders/{responder_id}/consents"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


async def _shown(tx: Tx, responder_id: UUID) -> list[dict[str, Any]]:
    shown = []
    for row in await consent.of(tx, responder_id):
        withdrawn_at = timestamp(row["withdrawn_at"]) if row["withdrawn_at"] else None
        told = {name: row[name] for name in ("purpose", "version", "given_by", "withdrawn_by")}
        shown.append(told | {"given_at": timestamp(row["given_at"]), "withdrawn_at": withdrawn_at})
    return shown


@router.get("/access", responses=responses())
async def list_access(
    request: Request,
    actor: Caller,
    responder: UUID | None = None,
    break_glass: bool | None = None,
    limit: Limit = 100,
    cursor: Cursor = None,
    by: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Who saw contact data, whose and why, the newest first: for an auditor, and for each person of their own."""
    if actor.role == "responder":
        responder = UUID(actor.subject)
    else:
        actor.require("auditor")
    after = ids(from_cursor(cursor, 1), int)
    async with database(request, "registry").tx() as tx:
        rows = await tx.fetch(
            "SELECT * FROM access WHERE ($1::uuid IS NULL OR responder_id = $1) "
            "AND ($2::boolean IS NULL OR break_glass = $2) AND ($3::text IS NULL OR actor = $3) "
            "AND ($4::bigint IS NULL OR access_id < $4) ORDER BY access_id DESC LIMIT $5",
            responder,
            break_glass,
            by,
            after,
            limit + 1,
        )
    shown = [dict(row) | {"at": timestamp(row["at"])} for row in rows]
    return page(request, "access", shown, "access_id", limit)


@router.get("/organisations/{organisation}/export", responses=responses(Invalid) | _FILES)
async def get_export(
    request: Request,
    actor: Caller,
    organisation: Slug,
    what: Annotated[str, Query(pattern="^(responders|resources)$")] = "responders",
    format: Annotated[str, Query(pattern="^(json|csv)$")] = "json",
    reason: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """What the registry holds of an organisation, for itself and for an operator, as JSON or CSV.

    With a `reason`, which is logged for each person, also names and numbers of those who agreed to `sharing`; whoever
    withdrew is left out."""
    actor.require("operator", "partner")
    if actor.role == "partner" and actor.organisation != organisation:
        raise Forbidden("a partner takes along its own organisation's data only")
    async with database(request, "registry").tx() as tx:
        if what == "resources":
            lots = await tx.fetch("SELECT * FROM lot WHERE organisation = $1 ORDER BY lot_id", organisation)
            rows = [shown_lot(lot) for lot in lots]
        else:
            rows = await _people(tx, actor, organisation, reason)
    if format == "json":
        return answer({"organisation": organisation, what: rows, "links": []})
    return Response(await asyncio.to_thread(_csv, rows), media_type="text/csv; charset=utf-8")


async def _people(tx: Tx, actor: Actor, organisation: str, reason: str | None) -> list[dict[str, Any]]:
    rows = await tx.fetch(
        """
        SELECT r.*, EXISTS (SELECT FROM consent AS c WHERE c.responder_id = r.responder_id AND c.purpose = $2
                            AND c.withdrawn_at IS NULL) AS shared
        FROM responder AS r WHERE organisation = $1 AND erased_at IS NULL AND status <> 'withdrawn'
        ORDER BY responder_id
        """,
        organisation,
        consent.SHARING,
    )
    shared = [row["responder_id"] for row in rows if row["shared"]] if reason is not None else []
    if reason is not None:
        await access.note(tx, actor, shared, reason)
    found = []
    for row in rows:
        private = await contact_of(tx, row["responder_id"]) if row["responder_id"] in set(shared) else {}
        found.append(shown_responder(row) | private)
    return found


def _csv(rows: list[dict[str, Any]]) -> bytes:
    """Rows under all their columns; lists and parts as JSON. A cell that a spreadsheet would run is made text."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(columns)
    for row in rows:
        cells = [row.get(name) for name in columns]
        told = ["" if cell is None else cell if isinstance(cell, str) else to_json(cell) for cell in cells]
        writer.writerow([f"'{cell}" if cell[:1] in ("=", "@", "\t", "\r") else cell for cell in told])
    return out.getvalue().encode("utf-8-sig")
