"""HTTP: OGC API Features (part 1, core) for map programs such as QGIS, and the same as plain feeds."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from services.runtime.auth import Actor, Caller
from services.runtime.http import cursor_of, database, from_cursor
from services.runtime.problems import Fault, Invalid, NotFound, responses
from services.sitrep import asking, features
from services.sitrep.asking import EXACT_FOR
from services.sitrep.features import COLLECTIONS, Asked, Collection
from services.sitrep.render.csvdoc import plain

router = APIRouter(tags=["features"])

GEOJSON = "application/geo+json"
CONFORMS = (
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/core",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/geojson",
    "http://www.opengis.net/spec/ogcapi-features-1/1.0/conf/oas30",
)
CRS84 = "http://www.opengis.net/def/crs/OGC/1.3/CRS84"
FEED_MOST = 10_000

Operation = asking.Operation
Box = Annotated[str | None, Query(max_length=200, description="west,south,east,north in WGS 84")]
Status = Annotated[Literal["open", "closed"] | None, Query(description="Of incidents")]


def _link(request: Request, path: str, rel: str, media_type: str = "application/json") -> dict[str, str]:
    return {"href": f"{str(request.base_url).rstrip('/')}{path}", "rel": rel, "type": media_type}


def _json(content: Any, media_type: str = "application/json") -> Response:
    return Response(orjson.dumps(content), media_type=media_type)


@router.get("/v1/features", summary="OGC API Features: where things are", responses=responses())
async def landing(request: Request, actor: Caller) -> Response:
    """Put this address into QGIS as a new connection of kind WFS / OGC API Features; a bearer token shows what its role
    may see."""
    return _json(
        {
            "title": "Gotong",
            "description": "Kejadian dan pos pengungsian · Incidents and evacuation posts",
            "links": [
                _link(request, "/v1/features", "self"),
                _link(request, "/openapi.json", "service-desc", "application/vnd.oai.openapi+json;version=3.0"),
                _link(request, "/v1/features/conformance", "conformance"),
                _link(request, "/v1/features/collections", "data"),
            ],
        }
    )


@router.get("/v1/features/conformance", summary="OGC API Features: what is kept to", responses=responses())
async def conformance(actor: Caller) -> Response:
    """The classes of the standard that this service keeps to."""
    return _json({"conformsTo": CONFORMS})


def _collection(request: Request, name: Collection) -> dict[str, Any]:
    title, description = COLLECTIONS[name]
    path = f"/v1/features/collections/{name}"
    return {
        "id": name,
        "title": title,
        "description": description,
        "itemType": "feature",
        "crs": [CRS84],
        "extent": {"spatial": {"bbox": [[94.0, -12.0, 142.0, 7.0]], "crs": CRS84}},
        "links": [_link(request, path, "self"), _link(request, f"{path}/items", "items", GEOJSON)],
    }


@router.get("/v1/features/collections", summary="OGC API Features: the collections", responses=responses())
async def collections(request: Request, actor: Caller) -> Response:
    """Incidents and evacuation posts."""
    return _json(
        {
            "collections": [_collection(request, name) for name in COLLECTIONS],
            "links": [_link(request, "/v1/features/collections", "self")],
        }
    )


@router.get(
    "/v1/features/collections/{collection}", summary="OGC API Features: one collection", responses=responses(NotFound)
)
async def collection_of(request: Request, actor: Caller, collection: Collection) -> Response:
    """What it holds and where its items are."""
    return _json(_collection(request, collection))


@router.get(
    "/v1/features/collections/{collection}/items",
    summary="OGC API Features: items, page by page",
    responses=responses() | {200: {"content": {GEOJSON: {}}, "description": "A FeatureCollection"}},
)
async def items(
    request: Request,
    actor: Caller,
    collection: Collection,
    bbox: Box = None,
    datetime: Annotated[
        str | None, Query(max_length=80, description="An instant or an interval: 2026-11-24T00:00:00Z/..")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
    operation: Operation = None,
    status: Status = None,
    as_of: asking.AsOf = None,
) -> Response:
    """By id, with a link to the next page: each feature comes once, also while incidents change. The public sees the
    centre of a cell of about 5 km² and bands. Without `operation`: all live operations, no exercise. With `as_of` as
    things were known then."""
    after = from_cursor(cursor, 1)
    asked = _asked(actor, operation, bbox, datetime, status)
    async with database(request, "sitrep").tx() as tx:
        if as_of is not None:
            asked = replace(asked, position=await asking.position_of(tx, as_of, operation))
        found = await features.page(tx, collection, asked, UUID(after[0]) if after else None, limit + 1)
    shown = found[:limit]
    links = [{"href": str(request.url), "rel": "self", "type": GEOJSON}]
    if len(found) > limit:
        following = request.url.include_query_params(cursor=cursor_of([shown[-1]["id"]]))
        links.append({"href": str(following), "rel": "next", "type": GEOJSON})
    return _json(
        {
            "type": "FeatureCollection",
            "features": shown,
            "links": links,
            "numberReturned": len(shown),
            "timeStamp": asking.stamp(),
        },
        GEOJSON,
    )


@router.get(
    "/v1/features/collections/{collection}/items/{item}",
    summary="OGC API Features: one item",
    responses=responses(NotFound) | {200: {"content": {GEOJSON: {}}, "description": "A Feature"}},
)
async def item_of(request: Request, actor: Caller, collection: Collection, item: UUID) -> Response:
    """One feature, as its role may see it; a drill's too, when it is asked for by its id."""
    async with database(request, "sitrep").tx() as tx:
        table, key = ("incident", "incident_id") if collection == "incidents" else ("site", "site_id")
        operation = await tx.fetchval(
            f"SELECT operation FROM {table} WHERE {key} = $1 AND until_position = 9223372036854775807", item
        )
        found = []
        if operation is not None:
            asked = _asked(actor, operation, None, None, None, only=item)
            found = await features.page(tx, collection, asked, None, 1)
    if not found:
        raise NotFound(f"there is no {collection} item {item}")
    path = f"/v1/features/collections/{collection}"
    links = [_link(request, f"{path}/items/{item}", "self", GEOJSON), _link(request, path, "collection")]
    return _json(found[0] | {"links": links}, GEOJSON)


@router.get(
    "/v1/feeds/{collection}.geojson",
    summary="All features as one GeoJSON file, with an ETag",
    responses=responses() | {200: {"content": {GEOJSON: {}}, "description": "A FeatureCollection"}},
)
async def geojson_feed(
    request: Request,
    actor: Caller,
    collection: Collection,
    bbox: Box = None,
    operation: Operation = None,
    status: Status = None,
) -> Response:
    """At most 10,000; send `If-None-Match` and get 304 while nothing has changed."""
    found = await _all(request, actor, collection, bbox, operation, status)
    return asking.tagged(request, orjson.dumps({"type": "FeatureCollection", "features": found}), GEOJSON)


@router.get(
    "/v1/feeds/{collection}.csv",
    summary="All features as one CSV file, with an ETag",
    responses=responses() | {200: {"content": {"text/csv": {}}, "description": "A table"}},
)
async def csv_feed(
    request: Request,
    actor: Caller,
    collection: Collection,
    bbox: Box = None,
    operation: Operation = None,
    status: Status = None,
) -> Response:
    """The same features with `lon` and `lat`; send `If-None-Match` and get 304 while nothing has changed."""
    found = await _all(request, actor, collection, bbox, operation, status)
    columns = list(dict.fromkeys(key for feature in found for key in feature["properties"]))
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow([*columns, "lon", "lat"])
    for feature in found:
        lon, lat = feature["geometry"]["coordinates"] if feature["geometry"] else (None, None)
        values = [feature["properties"].get(column) for column in columns]
        rows.writerow([*(plain(value) if isinstance(value, str) else value for value in values), lon, lat])
    return asking.tagged(request, out.getvalue().encode(), "text/csv; charset=utf-8")


async def _all(
    request: Request, actor: Actor, collection: Collection, bbox: str | None, operation: str | None, status: str | None
) -> list[dict[str, Any]]:
    async with database(request, "sitrep").tx() as tx:
        return await features.page(tx, collection, _asked(actor, operation, bbox, None, status), None, FEED_MOST)


def _asked(
    actor: Actor,
    operation: str | None,
    bbox: str | None,
    when: str | None,
    status: str | None,
    only: UUID | None = None,
) -> Asked:
    scope = asking.scope_of(actor, operation, None)
    since, until = _interval(when)
    return Asked(
        exact=actor.role in EXACT_FOR,
        veiled=actor.role == "partner",
        operation=operation,
        allowed=scope.allowed,
        bbox=asking.bbox_of(bbox),
        since=since,
        until=until,
        status=status,
        only=only,
    )


def _interval(when: str | None) -> tuple[datetime | None, datetime | None]:
    """`datetime` of OGC API Features: an instant, or two with a slash, either of them open (`..` or nothing).

    Raises
    ------
    Invalid
        It is neither.
    """
    if when is None:
        return None, None
    parts = when.split("/")
    if len(parts) == 1:
        parts = parts * 2
    try:
        start, end = (
            None if part in ("", "..") else datetime.fromisoformat(part.strip().replace(" ", "+")) for part in parts
        )
    except ValueError:
        raise Invalid("datetime is an instant or an interval", [Fault("query/datetime", "start/end")]) from None
    return tuple(  # type: ignore[return-value]
        None if moment is None else moment if moment.tzinfo else moment.replace(tzinfo=UTC) for moment in (start, end)
    )
