"""Incidents of the Jakarta flood of February 2017 beside the official map of flooded areas: a look, and no measure.

Nobody knows which reports should lie in a flooded area: most lie outside, and the map has an hour of its own. What the
figures can show is nonsense: incidents that meet the map no more often than points thrown at random would.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from math import cos, pi, radians, sin, sqrt
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from shapely import STRtree
from shapely.geometry import Point, shape
from shapely.ops import transform

from services.intake.linking import LinkReport

ZONE = ZoneInfo("Asia/Jakarta")
SPACE = UUID("0c0f7d0a-2b52-5a34-8f0e-6f0b0a2e2017")
KM_LON, KM_LAT = 111.32 * cos(radians(6.2)), 110.57
FLOODED = 2  # states: 1 unknown, 2 from 10 cm, 3 from 71 cm, 4 over 150 cm
NEAR_KM = 0.5
MOVED_KM = 5.0
SNAPSHOT_H, AREA_H = 3, 6
DRAWS = 20

XY = tuple[float, float]


def reports(folder: Path) -> list[LinkReport]:
    """The reports in the order of their times."""
    features = json.loads((folder / "reports_2017_02_jabodetabek.geojson").read_text("utf-8"))["features"]
    found = []
    for feature in features:
        said = feature["properties"]
        lon, lat = feature["geometry"]["coordinates"]
        found.append(
            LinkReport(
                report_id=uuid5(SPACE, said["report_id"]), text=f"{said['title'] or ''}\n{said['text'] or ''}", lon=lon,
                lat=lat, admin=None, observed_at=datetime.fromisoformat(said["created_at"]).replace(tzinfo=ZONE),
                hazard="flood", contact=None, location_text=None,
            )
        )  # fmt: skip
    return sorted(found, key=lambda report: report.observed_at)


def areas(folder: Path) -> dict[datetime, list[Any]]:
    """The flooded areas of each snapshot, in kilometres."""
    found = {}
    for path in sorted(folder.glob("flood_areas_*.geojson")):
        at = datetime.strptime(path.stem.removeprefix("flood_areas_"), "%Y-%m-%dT%H%M%S").replace(tzinfo=ZONE)
        features = json.loads(path.read_text("utf-8"))["features"]
        found[at] = [
            transform(lambda lon, lat: (lon * KM_LON, lat * KM_LAT), shape(feature["geometry"]).buffer(0))
            for feature in features
            if int(feature["properties"]["state"]) >= FLOODED
        ]
    return found


def look(folder: Path, run: Callable[[Sequence[LinkReport]], dict[UUID, UUID]], seed: int) -> dict[str, Any]:
    """What share of incidents lies in a flooded area of the nearest snapshot within three hours, or within 500 m of
    one; what share of the flooded areas holds an incident of the six hours around; each beside the mean of points
    moved at random by up to five kilometres. `run` gives the incident of each report."""
    stream = reports(folder)
    by_incident: dict[UUID, list[LinkReport]] = defaultdict(list)
    incident = run(stream)
    for report in stream:
        by_incident[incident[report.report_id]].append(report)
    there = [(_middle(members), members[0].observed_at, len(members)) for members in by_incident.values()]
    maps = areas(folder)
    trees = {at: STRtree(polygons) for at, polygons in maps.items()}
    rng = random.Random(seed)
    moved = [[(_moved(xy, rng), at, size) for xy, at, size in there] for _ in range(DRAWS)]
    seen = [row for row in there if _nearest(maps, row[1]) is not None]
    surge = [at for at in maps if at.date().isoformat() == "2017-02-21"]

    def incidents_near(rows: Sequence[tuple[XY, datetime, int]], km: float, least: int = 1) -> float:
        hits = [
            bool(trees[at].query(Point(xy), predicate="dwithin", distance=km).size)
            for xy, when, size in rows
            if size >= least and (at := _nearest(maps, when)) is not None
        ]
        return float(sum(hits)) / max(1, len(hits))

    def areas_met(rows: Sequence[tuple[XY, datetime, int]], at: datetime) -> float:
        points = [Point(xy) for xy, when, _ in rows if abs(when - at) <= timedelta(hours=AREA_H)]
        if not points:
            return 0.0
        tree = STRtree(points)
        met = sum(bool(tree.query(area, predicate="intersects").size) for area in maps[at])
        return met / len(maps[at])

    def beside_chance(figure: Callable[[Sequence[tuple[XY, datetime, int]]], float]) -> dict[str, float]:
        chance = sum(figure(rows) for rows in moved) / DRAWS
        return {"share": round(figure(there), 3), "by_chance": round(chance, 3)}

    return {
        "reports": len(stream),
        "incidents": len(there),
        "incidents_with_a_map": len(seen),
        "incidents_in_a_flooded_area": beside_chance(lambda rows: incidents_near(rows, 0.0)),
        "incidents_within_500_m": beside_chance(lambda rows: incidents_near(rows, NEAR_KM)),
        "incidents_of_two_and_more_within_500_m": beside_chance(lambda rows: incidents_near(rows, NEAR_KM, 2)),
        **{
            f"areas_with_an_incident_{at:%d_%H}": beside_chance(lambda rows, at=at: areas_met(rows, at))  # type: ignore[misc]
            for at in surge
        },
    }


def _middle(members: Sequence[LinkReport]) -> XY:
    points = [(r.lon * KM_LON, r.lat * KM_LAT) for r in members if r.lon is not None and r.lat is not None]
    return sum(x for x, _ in points) / len(points), sum(y for _, y in points) / len(points)


def _moved(xy: XY, rng: random.Random) -> XY:
    away, turn = MOVED_KM * sqrt(rng.random()), 2 * pi * rng.random()
    return xy[0] + away * cos(turn), xy[1] + away * sin(turn)


def _nearest(maps: dict[datetime, list[Any]], when: datetime) -> datetime | None:
    at = min(maps, key=lambda at: abs(at - when))
    return at if abs(at - when) <= timedelta(hours=SNAPSHOT_H) else None
