"""HTTP: the tables beside the report, the events behind its figures, and the reports as they were published."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.runtime import clock
from services.runtime.auth import Caller
from services.runtime.http import cursor_of, database, from_cursor, next_link
from services.runtime.problems import Fault, Invalid, NotFound, responses
from services.sitrep import asking, reporting, silence, silence_timer, sources, who
from services.sitrep.asking import EXACT_FOR
from services.sitrep.document import instant

router = APIRouter(tags=["sitrep"])

TableFormat = Literal["json", "csv", "xlsx"]
Hxl = Annotated[bool, Query(description="A row of HXL tags under the heading")]
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_TABLE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}, "text/csv": {}, XLSX: {}}, "description": "The table"}
}


@router.get(
    "/v1/sitreps/3w",
    summary="Who does what where, and when, from promises and deliveries",
    responses=responses(NotFound) | _TABLE,
)
async def get_3w(
    request: Request,
    actor: Caller,
    wanted: asking.AsWanted,
    lang: Literal["id", "en"] = "id",
    format: TableFormat = "csv",
    hxl: Hxl = False,
) -> Response:
    """One row for each organisation, item or skill, area and stage (planned, ongoing, completed), with the people
    counted at the evacuation posts of that area by sex, age and disability."""
    actor.require("operator", "partner", "auditor")
    scope = wanted.scope(actor)
    async with database(request, "sitrep").tx() as tx:
        position = await wanted.position(tx)
        found = await reporting.found_at(tx, position, scope)
    return _table(request, who.who_does_what(found, wanted.operation, lang), format, hxl=hxl)


@router.get(
    "/v1/sitreps/gaps",
    summary="Needed, committed, coming, delivered and gap by item and area",
    responses=responses(NotFound) | _TABLE,
)
async def get_gaps(
    request: Request,
    actor: Caller,
    wanted: asking.AsWanted,
    lang: Literal["id", "en"] = "id",
    format: TableFormat = "csv",
    hxl: Hxl = False,
    country: Annotated[str, Query(pattern="^[A-Z]{3}$", description="Whose national standards go first")] = "IDN",
    phase: Literal["initial", "stabilised"] = "initial",
) -> Response:
    """Beside what was asked for stands what the standards say for the people displaced there, with their source. The
    public gets bands, and areas no finer than a regency."""
    scope = wanted.scope(actor)
    exact = actor.role in EXACT_FOR
    async with database(request, "sitrep").tx() as tx:
        position = await wanted.position(tx)
        found = await reporting.found_at(tx, position, scope)
    return _table(
        request, who.gaps(found, wanted.operation, lang, exact=exact, country=country, phase=phase), format, hxl=hxl
    )


@router.get(
    "/v1/sitreps/history",
    summary="What authorities stated, by day or month and area",
    responses=responses(NotFound) | _TABLE,
)
async def get_history(
    request: Request,
    actor: Caller,
    wanted: asking.AsWanted,
    by: Literal["day", "month"] = "month",
    level: Literal["province", "regency"] = "province",
    format: TableFormat = "csv",
    hxl: Hxl = False,
) -> Response:
    """Of each area, day and file the latest statement counts. Days are cut in the operation's zone (without an
    operation in that of Jakarta)."""
    actor.require("operator", "partner", "auditor")
    scope = wanted.scope(actor)
    async with database(request, "sitrep").tx() as tx:
        position = await wanted.position(tx)
        zones = {line.operation_id: line.timezone for line in await reporting.operations_at(tx, position)}
        sheet = await who.history(
            tx,
            position,
            scope,
            by=by,
            level=1 if level == "province" else 2,
            timezone=zones.get(wanted.operation or "", "Asia/Jakarta"),
        )
    return _table(request, sheet, format, hxl=hxl)


@router.get(
    "/v1/sitreps/silence",
    summary="Areas under a warning: reports expected and received so far",
    responses=responses(),
)
async def get_silence(request: Request, actor: Caller) -> Response:
    """The regencies and cities under a warning in effect, the most people first, with what was to be expected of them
    by people, severity and their usual reporting, and what came. `silent`: at most a quarter of it, and so few would
    come by chance once in twenty times; `noticed_at`: since when everybody is told."""
    actor.require("operator", "partner", "auditor")
    async with database(request, "sitrep").tx() as tx:
        noticed = await silence_timer.noticed(tx)
        items = [
            silence.as_item(each)
            | {
                "since": instant(each.since),
                "noticed_at": instant(noticed.get((each.warning.warning_id, each.area))),
            }
            for each in await silence_timer.watched(tx, clock.now())
        ]
    return Response(orjson.dumps({"items": items}), media_type="application/json")


def _table(request: Request, sheet: who.Sheet, form: TableFormat, *, hxl: bool) -> Response:
    if form == "json":
        content, media_type = orjson.dumps({"rows": who.as_rows(sheet)}), "application/json"
    elif form == "csv":
        content, media_type = who.as_csv(sheet, hxl=hxl), "text/csv; charset=utf-8"
    else:
        content, media_type = who.as_xlsx(sheet, hxl=hxl), XLSX
    # A workbook bears the moment at which it was written, so its rows say whether it is the same.
    return asking.tagged(
        request, content, media_type, of=who.as_csv(sheet, hxl=hxl), filename=f"{sheet.title}.{form}"
    )  # fmt: skip


@router.get(
    "/v1/sitreps/sources",
    summary="The events behind a figure of the report",
    responses=responses(NotFound),
)
async def get_sources(
    request: Request,
    actor: Caller,
    figure: Annotated[
        str,
        Query(
            max_length=200,
            description="As in the report: `people.dead`, `need.item.boat.*.gap`; a shorter name has all below it",
        ),
    ],
    wanted: asking.AsWanted,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Each subject that adds to the figure, by how much, at which evidence level, and the event by which it stands as
    it does. The amounts of all pages add up to the figure."""
    actor.require("operator", "partner", "auditor")
    scope = wanted.scope(actor)
    after = from_cursor(cursor, 2)
    async with database(request, "sitrep").tx() as tx:
        # The pages of one question are of one position, whatever comes in between.
        position = after[0] if after else await wanted.position(tx)
        try:
            page = await sources.behind(
                tx, figure.split("."), scope, position, UUID(after[1]) if after else None, limit
            )
        except LookupError:
            known = ", ".join(sources.FIGURES)
            raise Invalid(f"there is no figure {figure}", [Fault("query/figure", f"begins with {known}")]) from None
    following = None if page.next_after is None else cursor_of([position, str(page.next_after)])
    content = {
        "figure": figure,
        "position": position,
        "items": page.items,
        "links": next_link(request, following),
    }
    return Response(orjson.dumps(content), media_type="application/json")


@router.get("/v1/sitreps/published", summary="The reports that were published", responses=responses())
async def get_published(
    request: Request,
    actor: Caller,
    operation: asking.Operation = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Newest first. They are in public form, so everybody may have them, as they were."""
    after = from_cursor(cursor, 2)
    async with database(request, "sitrep").tx() as tx:
        rows = await tx.fetch(
            "SELECT operation, position, as_of, published_at, since_position FROM published "
            "WHERE ($1::text IS NULL OR operation = $1) AND ($2::bigint IS NULL OR (position, operation) < ($2, $3)) "
            "ORDER BY position DESC, operation DESC LIMIT $4",
            operation,
            after[0] if after else None,
            after[1] if after else None,
            limit,
        )
    following = cursor_of([rows[-1]["position"], rows[-1]["operation"]]) if len(rows) == limit else None
    items = [
        dict(row) | {"href": f"/v1/sitreps/published/{row['operation']}/{row['position']}"} for row in rows
    ]  # fmt: skip
    return Response(
        orjson.dumps({"items": items, "links": next_link(request, following)}), media_type="application/json"
    )


_COLUMN: dict[tuple[str, str], str] = {
    ("md", "id"): "text_id",
    ("md", "en"): "text_en",
    ("html", "id"): "html_id",
    ("html", "en"): "html_en",
    ("csv", "id"): "csv_id",
    ("csv", "en"): "csv_en",
    ("json", "id"): "document",
    ("json", "en"): "document",
}


@router.get(
    "/v1/sitreps/published/{operation}/{position}",
    summary="A report as it was published, byte for byte",
    responses=responses(NotFound)
    | {
        200: {
            "content": {"application/json": {}, "text/markdown": {}, "text/html": {}, "text/csv": {}},
            "description": "The bytes",
        }
    },
)
async def get_published_one(
    request: Request,
    actor: Caller,
    operation: str,
    position: int,
    lang: Literal["id", "en"] = "id",
    format: reporting.Format = "html",
) -> Response:
    """What was said then, also where events have been blanked since."""
    async with database(request, "sitrep").tx() as tx:
        content = await tx.fetchval(
            f"SELECT {_COLUMN[format, lang]} FROM published WHERE operation = $1 AND position = $2",
            operation,
            position,
        )
    if content is None:
        raise NotFound(f"no report of {operation} was published at position {position} in that form")
    return asking.tagged(request, bytes(content), reporting.MEDIA_TYPES[format])
