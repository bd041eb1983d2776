"""Which areas should have spoken by now: expected reports from people, hazard and the area's usual reporting, against
those received. Pure rules; what they are fed is read by silence_timer.py.

Silence is no absence of need: networks die first, and crowd reports follow network access.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from shapely.geometry import Point, Polygon
from shapely.prepared import prep

from schemas import vocabulary
from services.sitrep.areas import canonical
from services.sitrep.domain import OperationView, WarningView

CHANCE = 0.05
"""An area is silent when so few reports, or fewer, would come by chance at most so often."""
SHARE = 0.25
"""And when they are no more than this part of what was expected: an area that writes less than others is not silent."""
LONGEST_H = 48
"""Reports are expected for no longer: the first days are when people write."""
USUAL_DAYS = 90
"""How far back an area's usual reporting is looked at."""
_PRIOR = 5.0
"""Reports that every area is taken to have had and sent, so that little history says little."""
_LEAST, _MOST = 0.25, 4.0
"""An area that hardly ever writes is expected to write a quarter as much as its people, never nothing."""


@dataclass(frozen=True, slots=True)
class Home:
    """A regency or city: its people, and a (lon, lat) in it where one is known."""

    area: str
    population: int
    point: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Heard:
    """How an area under a warning has spoken: `usual` of `usual_all` reports of the country in the days before."""

    received: int
    usual: int
    usual_all: int


@dataclass(frozen=True, slots=True)
class Watched:
    """An area under a warning: what was to be expected since it took effect, and what came."""

    area: str
    population: int
    warning: WarningView
    since: datetime
    expected: float
    received: int

    @property
    def silent(self) -> bool:
        return is_silent(self.expected, self.received)


def homes(path: Path) -> Mapping[str, Home]:
    """The areas of a CSV file (code, population, lon, lat), by their code in Kemendagri's scheme.

    Raises
    ------
    ValueError
        A row has no scheme in its code, no number of people, or half a point.
    """
    found = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            scheme, code = vocabulary.split(row["code"])
            area = canonical(f"{scheme}:{code}") or row["code"]
            lon, lat = row.get("lon"), row.get("lat")
            if bool(lon) != bool(lat):
                raise ValueError(f"{path}: {row['code']} has half a point")
            found[area] = Home(area, int(row["population"]), (float(lon), float(lat)) if lon and lat else None)
    return found


@cache
def rates() -> Mapping[int, float]:
    """Reports that 100,000 people write in a day, by the severity of the warning, from data/silence.csv."""
    with (Path(__file__).parent / "data" / "silence.csv").open(encoding="utf-8", newline="") as file:
        return {int(row["severity"]): float(row["reports_per_100k_per_day"]) for row in csv.DictReader(file)}


def lies_under(warning: WarningView, home: Home, places: Iterable[tuple[float, float]]) -> bool:
    """Whether the warning is for this area: it names it, the province it lies in or a part of it, or one of its
    polygons holds the area's point or one of the `places` that were heard of in it."""
    for code in warning.area.get("codes", ()):
        named = canonical(code) or code
        if named == home.area or home.area.startswith(f"{named}.") or named.startswith(f"{home.area}."):
            return True
    points = [*places, *([home.point] if home.point is not None else [])]
    for ring in warning.area.get("polygons", ()):
        shape = prep(Polygon(ring)) if len(ring) >= 4 else None
        if shape is not None and any(shape.intersects(Point(point)) for point in points):
            return True
    return False


def expected(home: Home, severity: int, hours: float, heard: Heard, people: int) -> float:
    """How many reports were to be expected of an area after so many hours under a warning of this severity.

    `people`: of all areas together: an area's share of the usual reports beside its share of the people tells how much
    it writes.
    """
    by_people = heard.usual_all * home.population / people if people else 0.0
    writes = min(_MOST, max(_LEAST, (heard.usual + _PRIOR) / (by_people + _PRIOR)))
    return rates().get(severity, 0.0) * home.population / 100_000 * min(hours, LONGEST_H) / 24 * writes


def is_silent(expect: float, received: int) -> bool:
    """Whether so few reports are too few: at most `SHARE` of them, and by chance (Poisson) at most `CHANCE` of the
    time."""
    if expect <= 0 or received > SHARE * expect:
        return False
    term = total = math.exp(-expect)
    for count in range(1, received + 1):
        term *= expect / count
        total += term
    return total <= CHANCE


def operation_of(
    area: str, hazard: str | None, exercise: bool, operations: Iterable[OperationView]
) -> OperationView | None:
    """The newest open operation whose area and hazard fit, drills for drills; None: none does."""
    fitting = [
        line
        for line in operations
        if line.closed_at is None
        and line.exercise == exercise
        and (not line.hazards or hazard is None or hazard in line.hazards)
        and any(_meet(canonical(code) or code, area) for code in line.areas)
    ]
    return max(fitting, key=lambda line: (line.opened_at, line.operation_id), default=None)


def _meet(one: str, other: str) -> bool:
    """Whether one area is the other or lies within it."""
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


def as_item(watched: Watched) -> dict[str, Any]:
    """For those who work with it, with exact figures."""
    return {
        "area": watched.area,
        "name": name_of(watched.area),
        "population": watched.population,
        "warning_id": str(watched.warning.warning_id),
        "hazard": watched.warning.hazard,
        "severity": watched.warning.severity,
        "exercise": watched.warning.exercise,
        "expected": round(watched.expected, 1),
        "received": watched.received,
        "silent": watched.silent,
    }


def name_of(area: str) -> str:
    """The area's name, else its code."""
    listed = vocabulary.area(*vocabulary.split(area))
    return listed.name if listed is not None and listed.name is not None else area
