"""HTTP of sites: evacuation posts, their headcounts, and totals over them."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from schemas import vocabulary
from schemas.sites import Headcount
from schemas.values import AreaCode, Code, OperationId
from services.registry import headcounts
from services.registry.bodies import HeadcountOrder, HeadcountText, SiteChange, SiteOrder
from services.registry.pages import Cursor, Limit, answer, ids, page
from services.registry.site_writes import change_site, count_people, open_site, require_writer, shown_site, site_row
from services.runtime.auth import Actor, Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx, from_json
from services.runtime.http import body_of, database, from_cursor, idempotency_key, parse, write_once
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid, NotFound, responses

router = APIRouter()

Status = Annotated[str | None, Query(pattern="^(open|closed)$")]
AlarmQuery = Annotated[str | None, Query(pattern="^(none|near|full|over)$")]


@router.post("/sites", status_code=201, responses=responses(NotFound), openapi_extra=takes(SiteOrder))
async def post_site(request: Request, actor: Caller) -> Response:
    """Open a site, such as an evacuation post; the answer has the short code that headcounts by SMS begin with."""
    actor.require("operator", "partner")
    body = await body_of(request)
    order = parse(body, SiteOrder)

    async def work(tx: Tx) -> tuple[int, Any]:
        return 201, shown_site(await open_site(tx, actor, order), manager=True)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, "POST /v1/sites", work)


@router.get("/sites", responses=responses())
async def list_sites(
    request: Request,
    actor: Caller,
    operation: OperationId | None = None,
    area: AreaCode | None = None,
    kind: Code | None = None,
    status: Status = None,
    alarm: AlarmQuery = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Sites, oldest first, each with the headcount that stands; `area` takes what lies within it."""
    _require_reader(actor)
    after = ids(from_cursor(cursor, 1), UUID)
    found: list[dict[str, Any]] = []
    async with database(request, "registry").tx() as tx:
        while len(found) <= limit:
            rows = await _sites(tx, actor, operation, kind, status, after, limit + 1)
            for row in rows:
                shown = shown_site(row)
                if (area is None or _within(row["admin"], area)) and alarm in (None, shown["alarm"]):
                    found.append(shown)
            if len(rows) <= limit:
                break
            after = rows[-1]["site_id"]
    return page(request, "sites", found[: limit + 1], "site_id", limit)


def _require_reader(actor: Actor) -> None:
    actor.require("field", "operator", "partner", "auditor")


def _within(admin: str | None, area: str) -> bool:
    return admin is not None and vocabulary.within(admin, area)


async def _sites(
    tx: Tx,
    actor: Actor,
    operation: str | None,
    kind: str | None,
    status: str | None,
    after: UUID | None,
    limit: int | None,
) -> list[Row]:
    return await tx.fetch(
        """
        SELECT s.*, h.count AS stands FROM site AS s LEFT JOIN headcount AS h ON h.count_id = s.standing
        WHERE ($1::text IS NULL AND NOT s.exercise OR s.operation = $1) AND ($2::text IS NULL OR s.kind = $2)
          AND ($3::text IS NULL OR s.status = $3) AND (cardinality($4::text[]) = 0 OR s.operation = ANY($4))
          AND ($5::uuid IS NULL OR s.site_id > $5)
        ORDER BY s.site_id LIMIT $6
        """,
        operation,
        kind,
        status,
        list(actor.operations),
        after,
        limit,
    )


@router.get("/sites/totals", responses=responses())
async def get_totals(
    request: Request, actor: Caller, operation: OperationId | None = None, area: AreaCode | None = None
) -> Response:
    """People at open sites by operation, each site once: by the headcount that stands, where the site is now. Without
    `operation`: all of life and no drill."""
    _require_reader(actor)
    async with database(request, "registry").tx() as tx:
        rows = await _sites(tx, actor, operation, None, "open", None, None)
    by_operation: dict[str, list[tuple[Headcount | None, int | None]]] = {}
    for row in rows:
        if area is None or _within(row["admin"], area):
            headcount = Headcount(**from_json(row["stands"])) if row["stands"] is not None else None
            by_operation.setdefault(row["operation"], []).append((headcount, row["capacity"]))
    everywhere = headcounts.total(entry for entries in by_operation.values() for entry in entries)
    return answer(
        {
            "area": area,
            "totals": everywhere.shown(),
            "operations": [
                {"operation": name} | headcounts.total(entries).shown()
                for name, entries in sorted(by_operation.items())
            ],
        }
    )


@router.get("/sites/{site_id}", responses=responses(NotFound))
async def get_site(request: Request, actor: Caller, site_id: UUID) -> Response:
    """One site; who manages it is shown to a desk."""
    async with database(request, "registry").tx() as tx:
        row = await site_row(tx, site_id)
    if not (actor.role == "responder" and actor.subject == str(row["manager"])):
        _require_reader(actor)
        actor.require_operation(row["operation"])
    return answer(shown_site(row, manager=actor.role in ("field", "operator", "admin")))


@router.patch("/sites/{site_id}", responses=responses(NotFound, Conflict), openapi_extra=takes(SiteChange))
async def patch_site(request: Request, actor: Caller, site_id: UUID) -> Response:
    """Change a site, or move it to another operation; `closed: true` closes it for good, `moved_to` says which site
    took its people in: there they are counted anew."""
    actor.require("operator", "partner")
    body = await body_of(request)
    change = parse(body, SiteChange)

    async def work(tx: Tx) -> tuple[int, Any]:
        return 200, shown_site(await change_site(tx, actor, site_id, change), manager=True)

    key = idempotency_key(request, actor)
    what = f"PATCH /v1/sites/{site_id}"
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.post(
    "/sites/{site_id}/headcounts",
    status_code=201,
    responses=responses(NotFound, Conflict),
    openapi_extra=takes(HeadcountOrder),
)
async def post_headcount(request: Request, actor: Caller, site_id: UUID) -> Response:
    """Tell how many people are at a site: by a desk, by its organisation, or by whoever manages it. `stands` says
    whether it is the newest; the others are kept."""
    body = await body_of(request)
    return await _count(
        request, actor, site_id, parse(body, HeadcountOrder), body, f"POST /v1/sites/{site_id}/headcounts"
    )


@router.post(
    "/sites:headcount", status_code=201, responses=responses(NotFound, Conflict), openapi_extra=takes(HeadcountText)
)
async def post_headcount_text(request: Request, actor: Caller) -> Response:
    """The same from a short text as it comes by SMS or stands on paper: the site's code, people, and what else was
    counted, as in `POS-7K2M 230 L110 P120 balita 20 lansia 30 difabel 5`. What is half understood is refused."""
    actor.require("field", "operator", "partner", "responder")
    body = await body_of(request)
    told = parse(body, HeadcountText)
    try:
        code, fields = headcounts.read_text(told.text)
        if code is None:
            raise headcounts.Unclear("it names no site; begin with its code, such as POS-7K2M")
        order = HeadcountOrder(**fields, counted_at=told.counted_at, channel=told.channel)
    except ValueError as error:
        reason = str(error) if isinstance(error, headcounts.Unclear) else "the numbers do not add up"
        raise Invalid(f"/text: {reason}", [Fault("/text", reason)]) from None
    async with database(request, "registry").tx() as tx:
        site_id = await tx.fetchval("SELECT site_id FROM site WHERE code = $1", code)
    if site_id is None:
        raise NotFound(f"there is no site {code}", [Fault("/text", f"there is no site {code}")])
    return await _count(request, actor, site_id, order, body, "POST /v1/sites:headcount")


async def _count(
    request: Request, actor: Actor, site_id: UUID, order: HeadcountOrder, body: bytes, what: str
) -> Response:
    async def work(tx: Tx) -> tuple[int, Any]:
        row, count, stands = await count_people(tx, actor, site_id, order)
        return 201, {"stands": stands, "headcount": count.model_dump(mode="json"), "site": shown_site(row)}

    key = idempotency_key(request, actor)
    return await write_once(database(request, "registry"), actor, key, body, what, work)


@router.get("/sites/{site_id}/headcounts", responses=responses(NotFound))
async def list_headcounts(
    request: Request, actor: Caller, site_id: UUID, limit: Limit = 100, cursor: Cursor = None
) -> Response:
    """Every headcount of a site, the newest first; the one that stands says so."""
    after = ids(from_cursor(cursor, 1), UUID)
    async with database(request, "registry").tx() as tx:
        site = await site_row(tx, site_id)
        try:
            require_writer(actor, site, counting=True)
        except Forbidden:
            actor.require("auditor", "partner")
        rows = await tx.fetch(
            "SELECT count, taken_at FROM headcount WHERE site_id = $1 AND ($2::uuid IS NULL OR "
            "(counted_at, taken_at, count_id) < (SELECT counted_at, taken_at, count_id FROM headcount "
            "WHERE count_id = $2)) ORDER BY counted_at DESC, taken_at DESC, count_id DESC LIMIT $3",
            site_id,
            after,
            limit + 1,
        )
    shown = [
        Headcount(**from_json(row["count"])).model_dump(mode="json") | {"taken_at": timestamp(row["taken_at"])}
        for row in rows
    ]
    for count in shown:
        count["stands"] = count["count_id"] == str(site["standing"])
    return page(request, "headcounts", shown, "count_id", limit)
