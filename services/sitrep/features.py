"""Incidents and evacuation posts as features on a map: exactly for those who work with them, coarse for the public."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import h3
import orjson

from services.runtime.db import Row, Tx
from services.sitrep.areas import coarse
from services.sitrep.bands import band
from services.sitrep.document import instant
from services.sitrep.domain import PEOPLE

Collection = Literal["incidents", "sites"]
COLLECTIONS: Mapping[Collection, tuple[str, str]] = {
    "incidents": ("Kejadian · Incidents", "Open and closed incidents, newest state"),
    "sites": ("Pos pengungsian · Evacuation posts", "Open sites with their newest headcount"),
}
PUBLIC_RESOLUTION = 7
"""H3 resolution of what the public sees: cells of about 5 km²."""
PROTECTED_RESOLUTION = 5
"""Of what is protected: about 250 km²."""
_REACH_DEGREES = 0.3
"""A coarse point lies no farther from the true one."""
_SCAN = 2000


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for. `exact`: positions and counts as they are; `veiled`: not of what is protected.

    `allowed`: the operations that the token covers, None for all. `since`, `until`: what was going on between them.
    `position`: as the log stood there; None: as things are now.
    """

    exact: bool
    veiled: bool
    operation: str | None = None
    allowed: tuple[str, ...] | None = None
    bbox: tuple[float, float, float, float] | None = None
    since: datetime | None = None
    until: datetime | None = None
    status: str | None = None
    only: UUID | None = None
    position: int | None = None


async def page(tx: Tx, collection: Collection, asked: Asked, after: UUID | None, limit: int) -> list[dict[str, Any]]:
    """At most `limit` features with an id above `after`, by id: whatever changes meanwhile, each comes once."""
    found: list[dict[str, Any]] = []
    while len(found) < limit:
        rows = await _rows(tx, collection, asked, after)
        for row in rows:
            after = row["id"]
            feature = _incident(row, asked) if collection == "incidents" else _site(row, asked)
            # Coarse things lie where they are shown: a small box would tell otherwise where they truly are.
            if asked.bbox is None or (feature["geometry"] and _inside(feature["geometry"]["coordinates"], asked.bbox)):
                found.append(feature)
                if len(found) == limit:
                    return found
        if len(rows) < _SCAN:
            break
    return found


async def _rows(tx: Tx, collection: Collection, asked: Asked, after: UUID | None) -> list[Row]:
    table, key = ("incident", "incident_id") if collection == "incidents" else ("site", "site_id")
    started, changed = ("opened_at", "updated_at") if collection == "incidents" else ("counted_at", "counted_at")
    # Two texts, so that the index of what stands now is found for what stands now.
    standing = "until_position = 9223372036854775807 AND $12::bigint IS NULL"
    if asked.position is not None:
        standing = "from_position <= $12 AND until_position > $12"
    box = asked.bbox
    west: float | None = None
    south = east = north = west
    if box is not None:
        west, south = box[0] - _REACH_DEGREES, box[1] - _REACH_DEGREES
        east, north = box[2] + _REACH_DEGREES, box[3] + _REACH_DEGREES
    return await tx.fetch(
        f"""
        SELECT *, {key} AS id FROM {table}
        WHERE {standing} AND ($1::uuid IS NULL OR {key} > $1)
          AND CASE WHEN $2::text IS NULL THEN NOT exercise ELSE operation = $2 END
          AND ($3::text[] IS NULL OR operation = ANY($3))
          AND status <> 'merged' AND ($4::text IS NULL OR status = $4)
          AND ($5::timestamptz IS NULL OR {changed} >= $5) AND ($6::timestamptz IS NULL OR {started} <= $6)
          AND ($7::uuid IS NULL OR {key} = $7)
          AND ($8::float8 IS NULL OR (lat BETWEEN $9 AND $11
               AND CASE WHEN $8 <= $10::float8 THEN lon BETWEEN $8 AND $10 ELSE lon >= $8 OR lon <= $10 END))
        ORDER BY {key} LIMIT {_SCAN}
        """,
        after,
        asked.operation,
        None if asked.allowed is None else list(asked.allowed),
        asked.status if collection == "incidents" else "open",
        asked.since,
        asked.until,
        asked.only,
        west,
        south,
        east,
        north,
        asked.position,
    )


def _inside(point: list[float], box: tuple[float, float, float, float]) -> bool:
    west, south, east, north = box
    between = west <= point[0] <= east if west <= east else point[0] >= west or point[0] <= east
    return between and south <= point[1] <= north


def _geometry(lon: float | None, lat: float | None, resolution: int | None) -> dict[str, Any] | None:
    if lon is None or lat is None:
        return None
    if resolution is not None:
        lat, lon = h3.cell_to_latlng(h3.latlng_to_cell(lat, lon, resolution))
        lon, lat = round(lon, 6), round(lat, 6)
    return {"type": "Point", "coordinates": [lon, lat]}


def _incident(row: Row, asked: Asked) -> dict[str, Any]:
    protected = row["sensitivity"] is not None
    veiled = protected and (asked.veiled or not asked.exact)
    resolution = PROTECTED_RESOLUTION if veiled else None if asked.exact else PUBLIC_RESOLUTION

    def people(count: int | None) -> int | str | None:
        return count if asked.exact or count is None else band(count)

    properties: dict[str, Any] = {
        "id": str(row["incident_id"]),
        "severity": row["severity"],
        "status": row["status"],
        "evidence": row["evidence"],
        "admin": row["admin"] if asked.exact and not veiled else coarse(row["admin"]),
        "operation": row["operation"],
        "exercise": row["exercise"],
        "opened_at": instant(row["opened_at"]),
        "updated_at": instant(row["updated_at"]),
    }
    if not veiled:
        # What is protected is told without a count or a hazard: to name them could be the harm itself.
        properties |= {"hazard": row["hazard"], "reports": people(row["reports"])}
        properties |= {figure: people(row[figure]) for figure in PEOPLE}
    if asked.exact and not veiled:
        properties |= {"title": row["title"], "place": row["place"]}
    return {
        "type": "Feature",
        "id": str(row["incident_id"]),
        "geometry": _geometry(row["lon"], row["lat"], resolution),
        "properties": properties,
    }


def _site(row: Row, asked: Asked) -> dict[str, Any]:
    heads = orjson.loads(row["heads"]) if isinstance(row["heads"], str) else row["heads"]
    count = heads.get("people")
    properties: dict[str, Any] = {
        "id": str(row["site_id"]),
        "kind": row["kind"],
        "status": row["status"],
        "admin": row["admin"] if asked.exact else coarse(row["admin"]),
        "operation": row["operation"],
        "exercise": row["exercise"],
        "people": count if asked.exact or count is None else band(count),
    }
    if asked.exact:
        properties |= {
            "name": row["name"],
            "code": row["code"],
            "capacity": row["capacity"],
            "alarm": row["alarm"],
            "counted_at": instant(row["counted_at"]),
            **{group: heads[group] for group in sorted(heads) if group != "people"},
        }
    return {
        "type": "Feature",
        "id": str(row["site_id"]),
        "geometry": _geometry(row["lon"], row["lat"], None if asked.exact else PUBLIC_RESOLUTION),
        "properties": properties,
    }
