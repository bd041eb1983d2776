"""Rules of reports and incidents: where a report belongs, what an incident's reports say together, what may be told.

Pure functions over plain data: no clock, no table, no randomness. Needs have rules of their own in `needs.py`,
linking in `linking.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal
from uuid import UUID

import h3

from schemas import vocabulary
from schemas.values import STANDING, Evidence
from services.intake import triage as urgency
from services.intake.linking import DEFAULT
from services.intake.sensitivity import PUBLIC_RESOLUTION

TicketStatus = Literal["received", "linked", "verified", "acting", "resolved"]

HOLD = timedelta(seconds=60)
"""So long a report waits for the operation that it names and that nobody here knows yet."""
CLOCK_TOLERANCE = timedelta(minutes=2)
"""A device's clock may be this far ahead before `observed_at` counts as lying in the future."""
PEOPLE = ("affected", "displaced", "injured", "dead", "missing")
DAMAGE = (
    "houses_heavy", "houses_moderate", "houses_light", "houses_flooded", "houses_damaged", "public_facilities_damaged",
)  # fmt: skip
DEFAULT_SEVERITY = 2
ASSESSORS = 2
"""Sent to look at an area from which too little is heard: nobody goes alone."""
ASSESS_WITHIN = timedelta(hours=24)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_TICKET_LENGTH = 12
_TITLE_LENGTH = 80
DEPTH_CM = "water_depth_cm"
_WORDS = re.compile(r"\w+")
_FORWARD = re.compile(
    r"^\W*(?:fwd?|rt @\w+|forwarded|diteruskan|terusan|copas|info (?:dari )?grup|dari grup sebelah)\b", re.IGNORECASE
)
_FAMILY = {hazard: group[0] for group in DEFAULT.compatible_hazards for hazard in group}


# Tickets


def ticket_of(random: bytes) -> str:
    """A ticket from eight random bytes: sixty bits in letters that cannot be mistaken for one another, in threes of
    four: `7KQM-3XWD-9T2F`."""
    value = int.from_bytes(random[:8], "big")
    letters = "".join(_CROCKFORD[(value >> 5 * place) & 31] for place in range(_TICKET_LENGTH))
    return "-".join(letters[start : start + 4] for start in range(0, _TICKET_LENGTH, 4))


def read_ticket(said: str) -> str | None:
    """The ticket as it was given out, however it was typed: lower case, without dashes, O for 0, I or L for 1."""
    letters = said.upper().translate(str.maketrans("OIL", "011", "- \t."))
    if len(letters) != _TICKET_LENGTH or any(letter not in _CROCKFORD for letter in letters):
        return None
    return "-".join(letters[start : start + 4] for start in range(0, _TICKET_LENGTH, 4))


# Where a report belongs


@dataclass(frozen=True, slots=True)
class Operation:
    """What the choice of an operation needs to know of one. `bbox` is west, south, east, north."""

    operation: str
    exercise: bool
    hazards: tuple[str, ...]
    areas: tuple[str, ...]
    bbox: tuple[float, float, float, float] | None
    timezone: str
    opened_at: datetime
    closed_at: datetime | None = None


def named_operation(named: str | None, known: Mapping[str, Operation]) -> bool | None:
    """Whether a report goes to the operation that it names; None when that one is not known, so the report waits.

    An operation that is closed takes no more reports: what names it is placed by rule.
    """
    if named is None:
        return False
    if named == STANDING:
        return True
    operation = known.get(named)
    return None if operation is None else operation.closed_at is None


def operation_by_rule(
    operations: Iterable[Operation], hazard: str | None, lon: float | None, lat: float | None, admin: str | None
) -> str:
    """The newest open operation that is no exercise and whose area and hazard fit, else `standing`.

    A report that does not say where it is fits no area; one without a hazard fits every hazard.
    """
    fitting = [
        operation
        for operation in operations
        if operation.closed_at is None
        and not operation.exercise
        and operation.operation != STANDING
        and hazard_fits(operation.hazards, hazard)
        and area_fits(operation, lon, lat, admin)
    ]
    return max(fitting, key=lambda o: (o.opened_at, o.operation)).operation if fitting else STANDING


def hazard_fits(hazards: Sequence[str], hazard: str | None) -> bool:
    """Whether an operation for these hazards is concerned: a flash flood belongs to a flood's operation."""
    if not hazards or hazard is None:
        return True
    family = _FAMILY.get(hazard, hazard)
    return any(_FAMILY.get(known, known) == family for known in hazards)


def area_fits(operation: Operation, lon: float | None, lat: float | None, admin: str | None) -> bool:
    """Whether a place lies in the operation's area: its code under one of the areas, or its point in the box."""
    if admin is not None and any(vocabulary.within(admin, area) for area in operation.areas):
        return True
    if lon is None or lat is None or operation.bbox is None:
        return False
    west, south, east, north = operation.bbox
    in_width = west <= lon <= east if west <= east else lon >= west or lon <= east
    return in_width and south <= lat <= north


def when_observed(stated: datetime | None, received: datetime) -> tuple[datetime, bool]:
    """When it was seen as far as we believe it, and whether the sender's clock is ahead: a future instant does not
    count, the time of receipt does."""
    if stated is None:
        return received, False
    if stated > received + CLOCK_TOLERANCE:
        return received, True
    return min(stated, received), False


# What an incident's reports say together


@dataclass(frozen=True)
class Told:
    """What one report says of its incident. `voice` is whose word it is, None when nobody can tell; `official`: a
    statement of an authority that proved who it is; `copy`: it repeats another report, so it adds no evidence.

    What follows from one report alone is worked out once: the report is gone through again with each that joins it."""

    report_id: UUID
    origin: str
    received_at: datetime
    observed_at: datetime
    title: str | None = None
    text: str | None = None
    hazard: str | None = None
    severity: int | None = None
    lon: float | None = None
    lat: float | None = None
    place: str | None = None
    admin: str | None = None
    people: Mapping[str, int] = field(default_factory=dict)
    damage: Mapping[str, int] = field(default_factory=dict)
    voice: str | None = None
    official: bool = False
    copy: bool = False
    reading: Mapping[str, Any] = field(default_factory=dict)  # as `needs_text.stored` gives it
    asked: tuple[str, ...] = ()  # items and skills that it states as needed
    sensitivity: str | None = None
    bulk: bool = False

    @cached_property
    def severity_alone(self) -> int:
        """See `severity_of`."""
        if not self.asked:  # then triage has nothing else to go by
            return self.urgency.judged[0]
        return severity_of(self.severity, self.people, self.reading)

    @cached_property
    def urgency(self) -> urgency.Facts:
        """What it gives triage to go by."""
        return urgency.facts_from(
            self.reading, stated=self.severity, people=self.people, asked=self.asked, bulk=self.bulk
        )

    @cached_property
    def claims(self) -> tuple[tuple[str, Any], ...]:
        """The facts that it states: `hazard`, `water_depth_cm`, `people.dead` and so on, with their values."""
        found: list[tuple[str, Any]] = []
        if self.hazard and self.hazard != "other":
            found.append(("hazard", self.hazard))
        if self.reading.get("depth_cm"):
            found.append((DEPTH_CM, float(self.reading["depth_cm"])))
        for group, values in (("people", self.people), ("damage", self.damage)):
            found += [(f"{group}.{name}", value) for name, value in values.items() if value is not None]
        return tuple(found)

    @cached_property
    def words(self) -> tuple[str, bool]:
        """Its text's words alone, and whether it says that it was passed on."""
        text = (self.text or self.title or "").strip()
        return " ".join(_WORDS.findall(text.lower())), _FORWARD.match(text) is not None


@dataclass(frozen=True, slots=True)
class Summary:
    """What the reports of an incident say together."""

    title: str
    hazard: str | None
    severity: int
    evidence: Evidence
    lon: float | None
    lat: float | None
    place: str | None
    admin: str | None
    people: dict[str, int]
    damage: dict[str, int]
    water_depth_cm: float | None = None
    persons: int | None = None
    vulnerable: tuple[str, ...] = ()
    sensitivity: str | None = None
    exercise_suggested: bool = False


def severity_of(stated: int | None, people: Mapping[str, int], reading: Mapping[str, Any] | None = None) -> int:
    """A report's severity: as stated, else by its counts and words; see `triage`."""
    return urgency.report_severity(stated, people, reading)


def figures(told: Sequence[tuple[Told, Mapping[str, int]]], names: Sequence[str], zone: tzinfo) -> dict[str, int]:
    """One count for each field that anybody stated.

    The rule is the same for every field, because each is a running total of one situation, told again and again:
    the largest figure of any report, for a later smaller one is more often a part than a correction.
    Where authorities stated the field, theirs alone count: of each (area, day, source) the latest statement, of an
    area's days and sources the largest, and the areas added up.
    """
    found: dict[str, int] = {}
    for name in names:
        stated = [(t, values[name]) for t, values in told if values.get(name) is not None]
        official = [(t, value) for t, value in stated if t.official]
        if official:
            found[name] = _official(official, zone)
        elif stated:
            found[name] = max(value for _, value in stated)
    return found


def _official(stated: Sequence[tuple[Told, int]], zone: tzinfo) -> int:
    latest: dict[tuple[str, int, str], tuple[datetime, datetime, int]] = {}
    for told, value in stated:
        day = told.observed_at.astimezone(zone).date().toordinal()
        key = (told.admin or "", day, told.origin)
        entry = (told.observed_at, told.received_at, value)
        latest[key] = max(latest.get(key, entry), entry, key=lambda e: e[:2])
    by_area: dict[str, int] = {}
    for (area, _, _), (_, _, value) in latest.items():
        by_area[area] = max(by_area.get(area, 0), value)
    return sum(by_area.values())


def middle(points: Sequence[tuple[float, float]]) -> tuple[float, float] | tuple[None, None]:
    """The mean of points that lie near one another, also across the date line."""
    if not points:
        return None, None
    base = points[0][0]
    east = sum(((lon - base + 180.0) % 360.0) - 180.0 for lon, _ in points) / len(points)
    lon = ((base + east + 180.0) % 360.0) - 180.0
    return round(lon, 6), round(sum(lat for _, lat in points) / len(points), 6)


def title_of(title: str | None, text: str | None, hazard: str | None, place: str | None, admin: str | None) -> str:
    """An incident's title: its first report's, else the beginning of its text, else the hazard and where."""
    words = " ".join((title or text or "").split())
    if words:
        return words if len(words) <= _TITLE_LENGTH else words[: _TITLE_LENGTH - 1].rsplit(" ", 1)[0] + "…"
    return coarse_title(hazard, admin, place)


def coarse_title(hazard: str | None, admin: str | None, place: str | None = None) -> str:
    """A title that tells no more than the kind of hazard and the area."""
    what = vocabulary.label(hazard) if hazard else "Kejadian"
    where = place or (vocabulary.area_name(admin) if admin else None)
    return f"{what} di {where}" if where else what


def mode(words: Sequence[str]) -> str | None:
    return Counter(words).most_common(1)[0][0] if words else None


# What the public may see


def coarse_point(lon: float, lat: float, sensitivity: str | None = None) -> tuple[float, float]:
    """The centre (lon, lat) of the H3 cell of resolution 7 (about 5 km²) that holds a point; of a wider one for what
    is protected."""
    resolution = 7 if sensitivity is None else PUBLIC_RESOLUTION
    centre_lat, centre_lon = h3.cell_to_latlng(h3.latlng_to_cell(lat, lon, resolution))
    return round(centre_lon, 5), round(centre_lat, 5)


def coarse_area(admin: str | None) -> str | None:
    """The regency of an area code, which is all that the public learns of where something protected is."""
    if admin is None:
        return None
    scheme, _, code = admin.partition(":")
    return f"{scheme}:{'.'.join(code.split('.')[:2]) if '.' in code else code[:4]}"


_BANDS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


def band(count: int) -> str:
    """A count of people as the public sees it: `0`, `1-4`, `5-9`, … `10000+`."""
    if count <= 0:
        return "0"
    for low, next_low in pairwise(_BANDS[1:]):
        if count < next_low:
            return f"{low}-{next_low - 1}"
    return f"{_BANDS[-1]}+"


# What a ticket tells


STEPS: Mapping[TicketStatus, tuple[str, str]] = {
    "received": ("Laporan diterima.", "Report received."),
    "linked": ("Laporan digabung ke satu kejadian.", "Report joined to an incident."),
    "verified": ("Kejadian sudah diperiksa.", "The incident was verified."),
    "acting": ("Bantuan sudah ditugaskan.", "Help has been assigned."),
    "resolved": ("Kejadian sudah ditangani.", "The incident has been dealt with."),
}
"""What each step is called, Indonesian and English."""


def ticket_history(
    received_at: datetime,
    linked_at: datetime | None,
    verified_at: datetime | None,
    acting_at: datetime | None,
    resolved_at: datetime | None,
) -> list[tuple[datetime, TicketStatus]]:
    """The steps that a report has come through, in the order of their times; the last one is its status now.

    A later step never shows before an earlier one: an incident that was verified before this report joined it was
    verified, for this report, when it joined.
    """
    steps: list[tuple[datetime, TicketStatus]] = [(received_at, "received")]
    later: list[tuple[datetime | None, TicketStatus]] = [
        (linked_at, "linked"), (verified_at, "verified"), (acting_at, "acting"), (resolved_at, "resolved"),
    ]  # fmt: skip
    for at, step in later:
        if at is not None:
            steps.append((max(at, steps[-1][0]), step))
    return steps


def json_cut(text: str, limit: int) -> tuple[str, bool]:
    """The text as far as it fits in `limit` bytes of JSON, and whether any was cut off."""
    if len(text) * 6 <= limit:  # no character takes more than six bytes in JSON (escaped control characters)
        return text, False
    size = 0
    for place, char in enumerate(text):
        code = ord(char)
        if code < 0x20:
            size += 6
        elif char in '"\\':
            size += 2
        else:
            size += 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
        if size > limit:
            return text[:place], True
    return text, False


def plain(values: Mapping[str, Any] | None) -> dict[str, int]:
    """The counts that were stated; None stands for nothing said."""
    return {name: value for name, value in (values or {}).items() if value is not None}
