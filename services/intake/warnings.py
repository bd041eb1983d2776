"""Rules of warnings: which messages are one warning and which of them is in force, where it holds, what it calls for.

Pure functions over plain data. The messages of a chain may come in any order, a Cancel before its Alert too; the same
messages give the same chains. Positions are (lon, lat).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import shapely
from shapely.geometry import Polygon, box
from shapely.geometry.base import BaseGeometry

from schemas import vocabulary
from services.intake.cap import Alert, Circle, Info, Point, Reference, instant
from services.intake.domain import Operation

Key = tuple[str, str, str]
"""A message as CAP names it: sender, identifier, and when it was sent in UTC."""

WITHOUT_EXPIRY = timedelta(hours=24)
"""A message that does not say when it ends counts for so long."""
MOST_POINTS = 240
"""So many points the polygons of a published warning have together."""


# Chains


@dataclass(frozen=True, slots=True)
class Message:
    """What a chain needs to know of a message. `origin` is who brought it; `trusted`: a feed that we chose, or an
    operator, whose word about others' messages counts."""

    key: Key
    type: Literal["alert", "update", "cancel"]
    references: tuple[Key, ...] = ()
    origin: str = ""
    trusted: bool = True


@dataclass(frozen=True, slots=True)
class Chain:
    """The messages about one warning. `first` is its name: the earliest message, which may not have come yet.

    `messages` in the order of their sending; `ignored`: those that had no say in it.
    """

    first: Key
    current: Message
    messages: tuple[Message, ...]
    ignored: tuple[Message, ...] = ()


def key_of(sender: str, identifier: str, sent: datetime) -> Key:
    return sender, identifier, sent.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def reference_key(reference: Reference) -> Key:
    """The key of the message that is meant; a time that is none stays as it was written."""
    at = instant(reference.sent)
    if at is None:
        return reference.sender, reference.identifier, reference.sent
    return key_of(reference.sender, reference.identifier, at)


def may_replace(newer: Message, older: Message) -> bool:
    """Whether one message may take another's place: a partner changes its own warnings only."""
    return newer.trusted or newer.origin == older.origin


def resolve(messages: Iterable[Message]) -> list[Chain]:
    """The chains that these messages form, whatever the order in which they came.

    Update and Cancel join the messages that they refer to. The newest message of a chain is in force: many senders
    name the first message of a chain only, or only the last. A message that may not replace what it refers to is a
    chain of its own; where that is not known yet, the chain is of whoever sent its first Alert, else its first message.
    """
    by_key = {message.key: message for message in messages}
    by_name: dict[tuple[str, str], list[Key]] = {}
    for key in by_key:
        by_name.setdefault(key[1:], []).append(key)
    leader: dict[Key, Key] = {}

    def find(key: Key) -> Key:
        while leader.setdefault(key, key) != key:
            key = leader[key]
        return key

    targets: dict[Key, list[Key]] = {}
    for message in by_key.values():
        find(message.key)
        if message.type == "alert":
            continue
        for named in message.references:
            target = named
            if named not in by_key:
                # Some write another name of the sender into references than into the message.
                others = by_name.get(named[1:], [])
                target = others[0] if len(others) == 1 and others[0] != message.key else named
            if target in by_key and not may_replace(message, by_key[target]):
                continue
            if target != message.key:
                targets.setdefault(message.key, []).append(target)
                leader[find(target)] = find(message.key)
    members: dict[Key, list[Message]] = {}
    for message in by_key.values():
        members.setdefault(find(message.key), []).append(message)
    chains = [_chain(group, targets) for group in members.values()]
    return sorted(chains, key=lambda chain: chain.first)


def _chain(group: Sequence[Message], targets: Mapping[Key, Sequence[Key]]) -> Chain:
    ordered = sorted(group, key=_order)
    owner = min(ordered, key=lambda m: (m.type != "alert", not m.trusted, _order(m)))
    counting = [message for message in ordered if message.trusted or message.origin == owner.origin]
    named = {message.key for message in counting}
    for message in counting:
        named.update(targets.get(message.key, ()))
    return Chain(
        first=min(named, key=lambda key: (key[2][:4].isdigit() is False, key[2], key)),
        current=counting[-1],
        messages=tuple(counting),
        ignored=tuple(message for message in ordered if message not in counting),
    )


def _order(message: Message) -> tuple[str, Key]:
    return message.key[2], message.key


def state_of(current: Message, expires: datetime, now: datetime) -> Literal["active", "cancelled", "expired"]:
    if current.type == "cancel":
        return "cancelled"
    return "expired" if expires <= now else "active"


def expiry(alert: Alert) -> datetime:
    """When the last of its parts ends."""
    stated = [info.expires for info in alert.infos if info.expires is not None]
    if not stated or len(stated) < len(alert.infos):
        return max([*stated, alert.sent + WITHOUT_EXPIRY])
    return max(stated)


# What it is about


SEVERITY = {"Extreme": 4, "Severe": 3, "Moderate": 2, "Minor": 1, "Unknown": 1}
_GRADES = {
    "urgency": ("Immediate", "Expected", "Future", "Unknown", "Past"),
    "certainty": ("Observed", "Likely", "Possible", "Unlikely", "Unknown"),
}


def severity(infos: Sequence[Info]) -> int:
    """The gravest of its parts, 1 to 4."""
    return max((SEVERITY.get(info.severity, 1) for info in infos), default=1)


def grade(infos: Sequence[Info], name: Literal["urgency", "certainty"]) -> str:
    """The most pressing of its parts, in lower case."""
    words = _GRADES[name]
    found = [getattr(info, name) for info in infos]
    return min(found, key=words.index, default="Unknown").lower()


def hazard(infos: Sequence[Info]) -> str | None:
    """The hazard in our own words: by the event as a whole, an event code, or the longest known word in the event or
    the headline; None where nothing says."""
    said = [info.event for info in infos] + [code.value for info in infos for code in info.event_codes]
    for text in said:
        found = vocabulary.hazard_of(text)
        if found is not None:
            return found
    for text in [info.event for info in infos] + [info.headline or "" for info in infos]:
        words = text.split()[:40]
        for length in range(min(4, len(words)), 0, -1):
            for start in range(len(words) - length + 1):
                found = vocabulary.hazard_of(" ".join(words[start : start + length]).strip(".,:;()"))
                if found is not None and found != "other":
                    return found
    return None


def area_codes(infos: Sequence[Info]) -> list[str]:
    """The areas that it names by a code whose scheme we know, or, where it draws none, by a province's name."""
    found: dict[str, None] = {}
    areas = [area for info in infos for area in info.areas]
    for code in (code for area in areas for code in area.geocodes):
        scheme = code.name.rsplit(":", 1)[-1].strip().lower()
        known = vocabulary.area(scheme, code.value.strip())
        if known is not None:
            found[str(known)] = None
    if not found and not any(area.polygons or area.circles for area in areas):
        for area in areas:
            name = area.description.strip().casefold()
            found |= {str(a): None for a in vocabulary.known_areas() if a.level == 1 and a.scheme == "kemendagri"
                      and (a.name or "").casefold() == name}  # fmt: skip
    return list(found)[:100]


# Where it holds


_EQUATOR_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563
_WORLD_KM = 9_900.0


def circle_ring(circle: Circle, points: int = 72) -> list[Point]:
    """The points at the circle's radius from its centre, on the WGS 84 ellipsoid, counter-clockwise and closed.

    Longitudes run on beyond 180 degrees where the circle crosses it.
    """
    bearings = [-2 * math.pi * n / points for n in range(points)]
    ring = _unwrapped([_direct(circle.lon, circle.lat, b, circle.radius_km * 1000) for b in bearings])
    return [*ring, _unwrapped([ring[-1], ring[0]])[1]]


def _direct(lon: float, lat: float, bearing: float, distance_m: float) -> Point:
    """Where one comes out by going so far in this direction (radians from north): Vincenty's direct formula, 1975."""
    f, a = _FLATTENING, _EQUATOR_M
    b = a * (1 - f)
    u1 = math.atan((1 - f) * math.tan(math.radians(lat)))
    sin_u1, cos_u1 = math.sin(u1), math.cos(u1)
    sin_a1, cos_a1 = math.sin(bearing), math.cos(bearing)
    sigma1 = math.atan2(math.tan(u1), cos_a1)
    sin_alpha = cos_u1 * sin_a1
    cos2_alpha = 1 - sin_alpha**2
    u2 = cos2_alpha * (a**2 - b**2) / b**2
    big_a = 1 + u2 / 16384 * (4096 + u2 * (-768 + u2 * (320 - 175 * u2)))
    big_b = u2 / 1024 * (256 + u2 * (-128 + u2 * (74 - 47 * u2)))
    sigma = first = distance_m / (b * big_a)
    cos_2m = math.cos(2 * sigma1 + sigma)
    for _ in range(50):
        cos_2m = math.cos(2 * sigma1 + sigma)
        change = big_b * math.sin(sigma) * (
            cos_2m
            + big_b / 4 * (
                math.cos(sigma) * (-1 + 2 * cos_2m**2)
                - big_b / 6 * cos_2m * (-3 + 4 * math.sin(sigma) ** 2) * (-3 + 4 * cos_2m**2)
            )
        )  # fmt: skip
        if abs(first + change - sigma) < 1e-12:
            break
        sigma = first + change
    sin_s, cos_s = math.sin(sigma), math.cos(sigma)
    lat2 = math.atan2(
        sin_u1 * cos_s + cos_u1 * sin_s * cos_a1,
        (1 - f) * math.hypot(sin_alpha, sin_u1 * sin_s - cos_u1 * cos_s * cos_a1),
    )
    across = math.atan2(sin_s * sin_a1, cos_u1 * cos_s - sin_u1 * sin_s * cos_a1)
    c = f / 16 * cos2_alpha * (4 + f * (4 - 3 * cos2_alpha))
    east = across - (1 - c) * f * sin_alpha * (
        sigma + c * sin_s * (cos_2m + c * cos_s * (-1 + 2 * cos_2m**2))
    )  # fmt: skip
    return lon + math.degrees(east), math.degrees(lat2)


def _unwrapped(points: Sequence[Point]) -> list[Point]:
    """The same points with no step of more than half the earth: 179, -179 becomes 179, 181."""
    found = [points[0]]
    for lon, lat in points[1:]:
        before = found[-1][0]
        found.append((before + (lon - before + 180.0) % 360.0 - 180.0, lat))
    return found


@dataclass(frozen=True, slots=True)
class Shape:
    """Where a warning holds: polygons that stay within 180 degrees, and points of which no extent is known."""

    polygons: tuple[Polygon, ...] = ()
    points: tuple[Point, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.polygons and not self.points

    def bbox(self) -> tuple[float, float, float, float] | None:
        """West, south, east, north."""
        bounds = [polygon.bounds for polygon in self.polygons] + [(lon, lat, lon, lat) for lon, lat in self.points]
        if not bounds:
            return None
        west, south = (min(bound[n] for bound in bounds) for n in (0, 1))
        east, north = (max(bound[n] for bound in bounds) for n in (2, 3))
        return west, south, east, north


def shape_of(infos: Sequence[Info]) -> Shape:
    """All areas of all its parts; languages repeat them, so each ring counts once."""
    areas = [area for info in infos for area in info.areas]
    rings: dict[tuple[Point, ...], None] = {ring: None for area in areas for ring in area.polygons}
    circles: dict[Circle, None] = {circle: None for area in areas for circle in area.circles}
    polygons = [part for ring in rings for part in _parts(ring)]
    for circle in circles:
        if circle.radius_km >= _WORLD_KM:
            polygons.append(box(-180, -90, 180, 90))
        elif circle.radius_km > 0:
            polygons.extend(_parts(circle_ring(circle)))
    points = tuple((circle.lon, circle.lat) for circle in circles if circle.radius_km == 0)
    return Shape(tuple(polygons), points)


def _parts(ring: Sequence[Point]) -> list[Polygon]:
    """A ring as polygons within 180 degrees: cut where it crosses the date line, closed over a pole that it goes round.

    One that crosses itself becomes its hull: to warn somebody too many is the smaller fault.
    """
    points = _unwrapped(ring)
    turn = points[-1][0] - points[0][0]
    if abs(turn) > 180:
        pole = 90.0 if sum(lat for _, lat in points) > 0 else -90.0
        points = [*points, (points[-1][0], pole), (points[0][0], pole), points[0]]
    polygon: BaseGeometry = Polygon(points)
    if not polygon.is_valid:
        polygon = polygon.convex_hull
    west, _, east, _ = polygon.bounds
    found: list[Polygon] = []
    for shift in range(math.floor((west + 180) / 360), math.ceil((east - 180) / 360) + 1):
        window = shapely.clip_by_rect(polygon, shift * 360 - 180, -90, shift * 360 + 180, 90)
        moved = shapely.transform(window, lambda xy, by=shift * 360.0: xy - [by, 0.0])
        found += [part for part in shapely.get_parts(moved) if isinstance(part, Polygon) and not part.is_empty]
    return found


def published(shape: Shape) -> tuple[list[list[list[float]]], bool]:
    """The rings as they are published, and whether they are simpler than the authority drew them.

    Always few enough for an event: rings lose detail first, and if there are too many of them, the widest stay.
    """
    polygons = sorted(shape.polygons, key=lambda polygon: -polygon.area)
    kept = polygons[: MOST_POINTS // 8]
    simplified = len(kept) < len(polygons)
    tolerance = 0.0005
    while sum(len(polygon.exterior.coords) for polygon in kept) > MOST_POINTS and tolerance < 100:
        kept = [_simpler(polygon, tolerance) for polygon in kept]
        simplified = True
        tolerance *= 2
    rings = [[[round(lon, 5), round(lat, 5)] for lon, lat in polygon.exterior.coords] for polygon in kept]
    return rings, simplified


def _simpler(polygon: Polygon, tolerance: float) -> Polygon:
    found = polygon.simplify(tolerance, preserve_topology=True)
    return found if isinstance(found, Polygon) and len(found.exterior.coords) >= 4 else polygon.envelope


# What it calls for


@dataclass(frozen=True, slots=True)
class Readiness:
    """What should stand ready: an item or a skill, and how many."""

    item: str | None
    skill: str | None
    quantity: int

    @property
    def code(self) -> str:
        return self.item or self.skill or ""


@cache
def _readiness() -> list[dict[str, Any]]:
    text = Path(__file__).with_name("readiness.json").read_text("utf-8")
    rules: list[dict[str, Any]] = json.loads(text)["rules"]
    return rules


def readiness(hazard: str | None, severity: int) -> list[Readiness]:
    """What a warning of this hazard and severity (1 to 4) calls for, by `readiness.json`."""
    for rule in _readiness():
        if (not rule["hazards"] or hazard in rule["hazards"]) and severity >= rule["least_severity"]:
            return [Readiness(n.get("item"), n.get("skill"), n["quantity"]) for n in rule["needs"]]
    return []


def concerned(
    operations: Iterable[Operation], exercise: bool, shape: Shape, codes: Sequence[str]
) -> list[tuple[Operation, Point | None]]:
    """The open operations over whose area a warning lies, each with a point within both (None: no point is known).

    What is drawn goes before what is named by code. A drill's warning concerns drills only, and the other way round.
    Whatever the operation was opened for: a tsunami warning matters where an earthquake is being dealt with.
    """
    found = []
    for operation in operations:
        if operation.closed_at is not None or operation.exercise != exercise:
            continue
        here = _here(operation, shape, codes)
        if here is not None:
            found.append((operation, here[0]))
    return found


def _here(operation: Operation, shape: Shape, codes: Sequence[str]) -> tuple[Point | None] | None:
    """A point of the operation's area where the warning holds, as the only one of a tuple; None where there is none."""
    if operation.bbox is not None and not shape.empty:
        west, south, east, north = operation.bbox
        boxes = (
            [box(west, south, east, north)]
            if west <= east
            else [box(west, south, 180, north), box(-180, south, east, north)]
        )
        for rectangle in boxes:
            for polygon in shape.polygons:
                if polygon.intersects(rectangle):
                    common = shapely.clip_by_rect(polygon, *rectangle.bounds)
                    point = (common if not common.is_empty else polygon).representative_point()
                    return ((round(point.x, 5), round(point.y, 5)),)
            for lon, lat in shape.points:
                if rectangle.covers(shapely.Point(lon, lat)):
                    return ((lon, lat),)
        return None
    for area in operation.areas:
        for code in codes:
            if vocabulary.within(code, area) or vocabulary.within(area, code):
                return (_point_of(code) or _point_of(area),)
        at = _point_of(area)
        if at is not None and any(polygon.covers(shapely.Point(at)) for polygon in shape.polygons):
            return (at,)
    return None


def _point_of(code: str) -> Point | None:
    known = vocabulary.area(*vocabulary.split(code))
    return known.point if known is not None else None
