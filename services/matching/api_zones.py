"""Hazard zones over HTTP: areas that an operator closes for a time, and nobody is sent into.

A zone is the planner's input and no promise, so it has no event; its row is kept for ever, with who drew it and who
lifted it, and why. Warnings do not close areas by themselves: they cover whole districts, in which people must work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

import shapely
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.values import Lat, Lon, OperationId, Period
from services.matching import domain
from services.matching.actions import Change, mark
from services.matching.api import Body, Reason, takes, write
from services.runtime import clock, ids
from services.runtime.auth import Caller
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.http import Answer, body_of, database, parse
from services.runtime.problems import NotFound, NotKnownYet, responses

router = APIRouter(tags=["matching"])
GEOJSON = "application/geo+json"
MOST_ZONES = 1000


class Area(BaseModel):
    """A GeoJSON polygon of one ring, lon before lat, the last position the same as the first."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["Polygon"]
    coordinates: Annotated[
        list[Annotated[list[tuple[Lon, Lat]], Field(min_length=4, max_length=500)]], Field(min_length=1, max_length=1)
    ]

    @model_validator(mode="after")
    def _simple(self) -> Self:
        (ring,) = self.coordinates
        if ring[0] != ring[-1]:
            raise ValueError("the ring must end where it begins")
        if not shapely.Polygon(ring).is_valid:
            raise ValueError("the ring crosses itself or has no area")
        return self


class Close(Body):
    """`operation`: whose zone it is; without it, one of life for all."""

    operation: OperationId | None = None
    area: Area
    window: Period
    reason: Reason


@router.post("/v1/hazard-zones", status_code=201, responses=responses(NotKnownYet), openapi_extra=takes(Close))
async def close(request: Request, actor: Caller) -> Response:
    """Close an area for a time. Nobody is asked to go there then, and open questions that would are taken back; who is
    promised there already is named in `assignments_inside`, to be asked back by a person.

    Zones count for all operations of life; a drill's for drills.
    """
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, Close)
    actor.require_operation(order.operation)

    async def work(tx: Tx) -> Answer:
        exercise = False
        if order.operation is not None:
            known = await tx.fetchval("SELECT exercise FROM operation WHERE operation = $1", order.operation)
            if known is None:
                raise NotKnownYet(f"the operation {order.operation} is not known here")
            exercise = known
        (ring,) = order.area.coordinates
        row = await tx.fetchrow(
            "INSERT INTO hazard_zone (zone_id, operation, exercise, polygon, period, reason, by, made_at) "
            "VALUES ($1, $2, $3, $4, tstzrange($5, $6), $7, $8, $9) RETURNING *",
            ids.uuid7(),
            order.operation,
            exercise,
            to_json(ring),
            order.window.start,
            order.window.end,
            order.reason,
            actor.name,
            clock.now(),
        )
        assert row is not None
        await mark(tx, [Change(exercise)])
        return 201, {**_feature(row), "assignments_inside": await _assignments_inside(tx, row)}

    return await write(request, actor, "POST /v1/hazard-zones", body, work)


async def _assignments_inside(tx: Tx, zone: Row) -> list[UUID]:
    """What is promised inside the zone while it is closed."""
    found = await tx.fetch(
        "SELECT a.assignment_id, n.lon, n.lat FROM assignment AS a JOIN need AS n USING (need_id) "
        "WHERE a.exercise = $1 AND a.state = ANY($2) AND a.period && $3 AND n.lon IS NOT NULL ORDER BY a.assignment_id",
        zone["exercise"],
        list(domain.ACTIVE),
        zone["period"],
    )
    area = shapely.Polygon(from_json(zone["polygon"]))
    inside = shapely.intersects_xy(area, [row["lon"] for row in found], [row["lat"] for row in found])
    return [row["assignment_id"] for row, there in zip(found, inside, strict=True) if there]


@router.get("/v1/hazard-zones", responses=responses())
async def zones(
    request: Request, actor: Caller, operation: OperationId | None = None, exercise: bool = False
) -> Response:
    """The zones in force or to come, as GeoJSON features; of life without `exercise`, the newest first."""
    actor.require("operator", "auditor", "partner", "field")
    async with database(request, "matching").tx() as tx:
        rows = await tx.fetch(
            "SELECT * FROM hazard_zone WHERE exercise = $1 AND lifted_at IS NULL AND upper(period) > $2 "
            f"AND ($3::text IS NULL OR operation = $3) ORDER BY zone_id DESC LIMIT {MOST_ZONES}",
            exercise,
            clock.now(),
            operation,
        )
    content = to_json({"type": "FeatureCollection", "features": [_feature(row) for row in rows]}).encode()
    return Response(content, media_type=GEOJSON)


@router.delete("/v1/hazard-zones/{zone_id}", responses=responses(NotFound))
async def lift(request: Request, actor: Caller, zone_id: UUID, reason: Annotated[Reason, Query()]) -> Response:
    """Open the area again before its time. Again changes nothing."""
    actor.require("operator")

    async def work(tx: Tx) -> Answer:
        row = await tx.fetchrow("SELECT * FROM hazard_zone WHERE zone_id = $1 FOR UPDATE", zone_id)
        if row is None:
            raise NotFound(f"the zone {zone_id} is not known here")
        actor.require_operation(row["operation"])
        if row["lifted_at"] is None:
            row = await tx.fetchrow(
                "UPDATE hazard_zone SET lifted_at = $2, lifted_by = $3, lifted_reason = $4 WHERE zone_id = $1 "
                "RETURNING *",
                zone_id,
                clock.now(),
                actor.name,
                reason,
            )
            assert row is not None
            await mark(tx, [Change(row["exercise"])])
        return 200, _feature(row)

    return await write(request, actor, f"DELETE /v1/hazard-zones/{zone_id}", reason.encode(), work)


def _feature(row: Row) -> dict[str, Any]:
    told = ("zone_id", "operation", "exercise", "reason", "by", "made_at", "lifted_at", "lifted_by", "lifted_reason")
    return {
        "type": "Feature",
        "id": row["zone_id"],
        "geometry": {"type": "Polygon", "coordinates": [from_json(row["polygon"])]},
        "properties": {
            **{name: row[name] for name in told if row[name] is not None},
            "window": {"start": row["period"].lower, "end": row["period"].upper},
        },
    }
