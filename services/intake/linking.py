"""Which reports are one incident: a score over place, time, text and contact, with limits that hold whatever it says.

A new report is compared with at most a few earlier ones, found through three indexes (rare words and contacts, a grid
of half-kilometre cells, area codes) whose lists are capped, so the cost of a report does not grow with the open
incidents elsewhere. The most likely one that passes every gate and limit decides: linked, suggested to a person, or
new. Nothing here reads a clock, a table or a random number: `decide` changes nothing, `add` indexes, and adding the
reports of a table in the order in which they were indexed gives the state that the live linker has.

The newest hundred thousand reports of an operation are kept, in 130 MB. Nothing can link to an older one; of an
incident that has any in the index the limits go on holding for all of its reports (`Past`). An index that is built
anew begins with those reports, so what it knows of how rare a word is may differ a little from the live one's.

The weights are fitted by `python -m bench.dedup --fit`, which writes `linking_weights.json`. What they were measured
to do, and what was read by a person, is in `docs/linking-reading.md`.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta, timezone, tzinfo
from importlib import resources
from math import asin, cos, exp, floor, log, log10, radians, sin, sqrt
from typing import Any, Literal, TypeVar
from uuid import UUID

from services.intake.text import STOP_WORDS, read

FEATURES = ("near_time", "near_hazard", "cos", "wcont", "rare", "contact", "numagree", "template", "len")
# No fit may reward distance or punish likeness: each weight keeps its sign.
SIGNS: Mapping[str, int] = {name: -1 if name in ("template", "len") else 1 for name in FEATURES}

WIB = timezone(timedelta(hours=7), "WIB")

_RARE_WORDS = 8  # words by which a report is found again
_POSTINGS = 16  # newest reports kept for one word or contact
_CELL_DEG = 0.004
_CELL_REPORTS = 16  # newest reports looked at in one grid cell
_AREA_REPORTS = 40
_WINDOW_HOURS = 96.0  # how far back place alone finds a candidate
_SCORED = 6
_REPOST_HOURS = 6.0  # an exact copy is indexed again only this long after the last: a burst must not push others out
_NUMBERS = 100_000  # numbers kept are below this
MOST_INDEXED = 100_000
"""Reports of one operation that are kept to be linked to."""
_ROW = 1_000_003  # cells between two columns of the grid
_K = TypeVar("_K", int, str)


@dataclass(frozen=True, slots=True)
class LinkReport:
    """What linking knows of one report. `text` is title and text together, unmasked where the caller has it;
    `location_text` is read as part of it. `contact` is an opaque contact id. `official`: a row of an official file,
    one statement of its area and day."""

    report_id: UUID
    text: str
    lon: float | None
    lat: float | None
    admin: str | None
    observed_at: datetime
    hazard: str | None
    contact: str | None
    location_text: str | None = None
    official: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """The answer for one report.

    `incident_id` is None unless linked; `suggested` is the incident that a person should look at. `parts` holds what
    each feature adds to the score (before the logistic), or the one rule that decided (`copy`, `statement`).
    `copy_of` is the earlier *report* that this one repeats, also where a limit keeps the two in different incidents:
    a copy adds no evidence."""

    incident_id: UUID | None
    outcome: Literal["linked", "suggested", "new"]
    score: float
    parts: dict[str, float]
    suggested: UUID | None
    copy_of: UUID | None


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """Everything that a fit or an emergency manager may change; one setting serves every operation."""

    edition: str
    fitted_on: str
    constant: float
    weights: dict[str, float]
    automatic: float  # probability from which a link needs no person
    suggest: float
    near_km: float  # nearness falls to 1/e at this distance, and at near_hours
    near_hours: float
    pin_texts: int  # a pin with more distinct texts may be a map's default: it is worth less, and nothing by itself
    same_area: float  # what an equal area code is worth beside nearness 1 of an equal pin; not fitted: no labels
    most_reports: int  # no more reports in an incident, exact copies of its own (text and pin) apart
    most_km: float  # no wider incident: 10 km, less what spherical distance may differ from geodesic
    most_hours: float  # no longer incident: 7 days
    lasting_hours: float  # the same bound where every hazard named is a lasting one, or none is named
    lasting_hazards: tuple[str, ...]  # whose needs go on for weeks at one place; the others come and go
    copy_hours: float  # equal text at an equal pin is one incident within this time
    episode_hours: float  # an incident of a hazard that comes and goes, silent for longer, takes no more reports,
    episode_cos: float  # save near copies
    far_km: float  # beyond this a link needs strong text (cos and words on both sides, or one text in the other)
    far_cos: float
    far_words: int
    far_contained: float
    far_contained_words: int
    contact_km: float  # or, up to this distance, a shared contact
    weak_cos: float  # below this likeness no link further than weak_km from the incident's first report, or
    weak_km: float  # contact_km with a shared contact
    copy_cos: float
    unnamed_hazards: tuple[str, ...]  # codes that say no more than none at all
    compatible_hazards: tuple[tuple[str, ...], ...]  # hazards of one group may be told of one incident

    @staticmethod
    def of(values: Mapping[str, Any]) -> LinkSettings:
        """From the settings file's object; a name it does not know is refused, so a misspelt one cannot pass."""
        known = {f.name for f in fields(LinkSettings)}
        if unknown := set(values) ^ known:
            raise ValueError(f"linking settings: unknown or missing {', '.join(sorted(unknown))}")
        if set(values["weights"]) != set(FEATURES):
            raise ValueError("linking settings: weights must name exactly the features")
        for name, weight in values["weights"].items():
            if weight * SIGNS[name] < 0:
                raise ValueError(f"linking settings: the weight of {name} has the wrong sign")
        lists = {name: tuple(values[name]) for name in ("lasting_hazards", "unnamed_hazards")}
        groups = tuple(tuple(group) for group in values["compatible_hazards"])
        return LinkSettings(**{**values, **lists, "compatible_hazards": groups})


DEFAULT = LinkSettings.of(json.loads(resources.files("services.intake").joinpath("linking_weights.json").read_text()))


class _Record:
    """One indexed report: words as ids, no text."""

    __slots__ = (
        "admin",
        "area",
        "at",
        "common",
        "contacts",
        "hazard",
        "incident",
        "key",
        "lat",
        "length",
        "lon",
        "numbered",
        "official",
        "pin",
        "report_id",
        "words",
    )

    report_id: UUID
    key: int
    lon: float
    lat: float
    pin: tuple[float, float] | str | None  # rounded point, else area code, else None
    area: bool  # placed by an area code alone
    admin: str | None
    at: float  # hours since 1970
    hazard: str | None
    official: bool
    words: tuple[int, ...]
    common: float  # sum over the words of log(1 + distinct texts that hold it), as of when it was indexed
    length: int
    numbered: tuple[int, ...]  # word id * _NUMBERS + the number after that word
    contacts: tuple[int, ...]
    incident: _Incident | None


@dataclass(frozen=True, slots=True)
class Past:
    """What the reports of an incident that are no longer indexed were, as far as its limits go by them.

    `texts`: how many, copies apart; `box`: west, south, east, north; instants in hours since 1970."""

    texts: int
    first: tuple[float, float] | None
    box: tuple[float, float, float, float] | None
    first_at: float
    last_at: float
    hazards: tuple[str, ...]


class _Incident:
    """What the limits and gates need to know of one incident; members by their number in the index.

    Arrays and tuples, not sets and lists: with a hundred thousand open incidents those would be half a million objects
    that each full garbage collection walks through, which then takes most of a second."""

    __slots__ = ("box", "closed", "first", "first_at", "hazards", "incident_id", "last_at", "members", "past", "pins",
                 "stale", "statement", "texts")  # fmt: skip

    def __init__(self, incident_id: UUID) -> None:
        self.incident_id = incident_id
        self.members = array("L")  # ascending unless stale
        self.closed = False
        self.past: Past | None = None
        self.clear()

    @property
    def size(self) -> int:
        """Distinct texts, as the limit counts them."""
        return len(self.texts) + (self.past.texts if self.past is not None else 0)

    def clear(self) -> None:
        past = self.past
        self.first: tuple[float, float] | None = past.first if past else None  # the first located report's point
        self.first_at = past.first_at if past else float("inf")
        self.last_at = past.last_at if past else float("-inf")
        self.pins: tuple[tuple[float, float], ...] = ()
        self.box: tuple[float, float, float, float] | None = past.box if past else None  # west, south, east, north
        self.hazards: tuple[str, ...] = past.hazards if past else ()
        self.texts: tuple[object, ...] = ()  # distinct (text, pin): copies do not count against the size
        self.statement = False
        self.stale = False

    def take(self, record: _Record) -> None:
        self.first_at = min(self.first_at, record.at)
        self.last_at = max(self.last_at, record.at)
        if record.hazard and record.hazard not in self.hazards:
            self.hazards += (record.hazard,)
        text = _text(record)
        if text not in self.texts:
            self.texts += (text,)
        if record.official and record.area:
            self.statement = True
        if isinstance(record.pin, tuple):
            lon, lat = record.lon, record.lat
            if self.first is None or self.box is None:
                self.first, self.box = (lon, lat), (lon, lat, lon, lat)
            else:
                w, s, e, n = self.box
                self.box = (min(w, lon), min(s, lat), max(e, lon), max(n, lat))
            if (lon, lat) not in self.pins:
                self.pins += ((lon, lat),)


class Linker:
    """The index of one operation's reports and incidents, in memory. Not thread-safe: an operation has one linker."""

    def __init__(self, settings: LinkSettings = DEFAULT, zone: tzinfo = WIB, *, most: int = MOST_INDEXED) -> None:
        """`zone` is the operation's, in which official days are cut; `most`: reports that are kept."""
        self.settings = settings
        self._zone = zone
        self._most = most
        self._oldest = 0  # no record below this number is left
        self._ids: dict[str, int] = {}  # word, contact, number pair or place word -> id
        self._logs: list[float] = []  # by id: log(1 + distinct texts that hold it)
        self._counts: list[int] = []
        self._rarity: list[bool] = []  # by id: may count for the feature `rare`
        self._texts: dict[int, int] = {}  # keys of the distinct texts learnt from -> newest report with it
        self._records: list[_Record | None] = []
        self._numbers: dict[UUID, int] = {}  # report id -> index in _records
        self._incidents: dict[UUID, _Incident] = {}
        self._merged: dict[UUID, UUID] = {}
        self._by_word: dict[int, array[int]] = {}
        self._by_cell: dict[int, array[int]] = {}
        self._by_area: dict[str, array[int]] = {}
        self._copies: dict[tuple[int, tuple[float, float] | str], int] = {}  # (text, pin) -> newest report
        self._posted: dict[tuple[int, tuple[float, float] | str], float] = {}  # (text, pin) -> when last indexed
        self._pin_texts: dict[tuple[float, float] | str, int] = {}  # distinct texts at a pin: tells default pins
        self._statements: dict[tuple[str, int, str], UUID] = {}  # official: (area, day, hazard family) -> incident
        self._contact_cells: dict[int, set[int]] = {}  # where a contact was named: an operator's is named everywhere
        self._family = {hazard: group[0] for group in settings.compatible_hazards for hazard in group}
        self._lasting = frozenset(settings.lasting_hazards)
        self._last: tuple[LinkReport, _Record, tuple[str, ...]] | None = None  # what `decide` read, for `add`

    # ---- questions -------------------------------------------------------------------------------------------------

    def decide(self, report: LinkReport) -> Link:
        """Where the report belongs, by what is indexed now. Changes nothing; index it with `add`."""
        record = self._read(report)[0]
        settings = self.settings
        if record.official and record.area:
            return self._statement(record, report)

        copied = self._copies.get((record.key, record.pin)) if record.key and record.pin is not None else None
        if copied is not None:
            earlier = self._records[copied]
            if (
                earlier is not None
                and earlier.incident is not None
                and abs(record.at - earlier.at) <= settings.copy_hours
                and self._accepts(earlier.incident, record, copy=True)
            ):
                return Link(earlier.incident.incident_id, "linked", 1.0, {"copy": 1.0}, None, earlier.report_id)

        same_text = self._records[copied] if copied is not None else None
        copy_of = same_text.report_id if same_text is not None else None
        suggested: tuple[float, dict[str, float], UUID] | None = None
        scored = self._scored(record)
        for score, values, other in scored:
            if score < settings.suggest:
                break
            incident = other.incident
            assert incident is not None
            if copy_of is None and score >= settings.automatic and values["cos"] >= settings.copy_cos:
                copy_of = other.report_id
            if score >= settings.automatic and self._may_join(record, other, values):
                return Link(incident.incident_id, "linked", score, self._parts(values), None, copy_of)
            if suggested is None and not incident.statement and self._hazards_agree(incident, record):
                suggested = (score, values, incident.incident_id)
        if suggested is not None:
            return Link(None, "suggested", suggested[0], self._parts(suggested[1]), suggested[2], copy_of)
        score, values = scored[0][:2] if scored else (0.0, {})
        return Link(None, "new", score, self._parts(values), None, copy_of)

    def compare(self, report: LinkReport, other_id: UUID) -> dict[str, float]:
        """The features of the report beside an indexed one; KeyError where that one is not indexed."""
        record = self._read(report)[0]
        other = self._records[self._numbers[other_id]]
        if other is None:
            raise KeyError(other_id)
        return self._features(record, self._weighed(record), other)

    def knows(self, report_id: UUID) -> bool:
        """Whether the report is indexed."""
        return report_id in self._numbers

    def incident_of(self, report_id: UUID) -> UUID | None:
        """The incident in which a report is indexed; None for one that is in none or not known."""
        number = self._numbers.get(report_id)
        record = self._records[number] if number is not None else None
        return record.incident.incident_id if record and record.incident else None

    def snapshot(self) -> dict[str, Any]:
        """The whole state as plain values: two linkers with equal snapshots decide alike."""
        incidents = {}
        for incident_id, incident in self._incidents.items():
            self._fresh(incident)
            if incident.members or incident.closed:
                ids = [r.report_id for n in incident.members if (r := self._records[n])]
                incidents[incident_id] = (ids, incident.closed, incident.first, incident.box, incident.first_at,
                                          incident.last_at, incident.statement, sorted(incident.hazards))  # fmt: skip
        return {
            "incidents": incidents,
            "ids": dict(self._ids),
            "counts": list(self._counts),
            "texts": len(self._texts),
            "words": {k: self._live(v) for k, v in self._by_word.items()},
            "cells": {k: self._live(v) for k, v in self._by_cell.items()},
            "areas": {k: self._live(v) for k, v in self._by_area.items()},
            "copies": {k: r.report_id for k, n in self._copies.items() if (r := self._records[n])},
            "pins": dict(self._pin_texts),
            "statements": {k: self._resolve(v) for k, v in self._statements.items()},
        }

    # ---- changes ---------------------------------------------------------------------------------------------------

    def add(self, report: LinkReport, incident_id: UUID | None) -> None:
        """Index a report under its incident, whoever decided that. None: its words are learnt, but nothing can link
        to it (held in a queue, unlinked, retracted). A report already indexed is taken out first and indexed anew."""
        if report.report_id in self._numbers:
            self._drop(report.report_id)
        record, words = self._read(report)
        self._last = None
        number = len(self._records)
        self._records.append(record)
        self._numbers[report.report_id] = number
        self._learn(number, record, words)
        self._index(number, record)
        if incident_id is not None:
            self._join(number, record, incident_id)
        while len(self._numbers) > self._most:
            self._forget_oldest()

    def recall(self, incident_id: UUID, past: Past) -> None:
        """Hold an incident to its limits for reports that are not indexed; before any of its reports is."""
        incident = self._incidents.setdefault(incident_id, _Incident(incident_id))
        incident.past = past
        incident.clear()

    def move(self, report_id: UUID, incident_id: UUID | None) -> None:
        """Put an indexed report into another incident, or into none; KeyError where it is not indexed."""
        number = self._numbers[report_id]
        record = self._records[number]
        if record is None:
            raise KeyError(report_id)
        if record.incident is not None:
            record.incident.members.remove(number)
            record.incident.stale = True
            record.incident = None
        if incident_id is not None:
            self._join(number, record, incident_id)

    def remove(self, report_id: UUID) -> None:
        """Take a report out of its incident, so that nothing links to it; what its words taught stays."""
        if report_id in self._numbers:
            self.move(report_id, None)

    def merge(self, into: UUID, other: UUID) -> None:
        """Follow an operator's merge: every report of `other`, and whatever is later added to it, is in `into`."""
        into, other = self._resolve(into), self._resolve(other)
        if into == other:
            return
        target = self._incidents.setdefault(into, _Incident(into))
        source = self._incidents.pop(other, None)
        self._merged[other] = into
        if source is None:
            return
        for number in source.members:
            record = self._records[number]
            if record is not None:
                record.incident = target
                target.members.append(number)
        target.past = _both(target.past, source.past)
        target.stale = True

    def close(self, incident_id: UUID) -> None:
        """The incident takes no more reports by itself; a likely one is suggested."""
        incident_id = self._resolve(incident_id)
        self._incidents.setdefault(incident_id, _Incident(incident_id)).closed = True

    def reopen(self, incident_id: UUID) -> None:
        """Undo `close`."""
        incident_id = self._resolve(incident_id)
        self._incidents.setdefault(incident_id, _Incident(incident_id)).closed = False

    # ---- reading and indexing --------------------------------------------------------------------------------------

    def _read(self, report: LinkReport) -> tuple[_Record, tuple[str, ...]]:
        """The report as ids, and the strings that have no id yet; kept until `add`, so that a text is read once."""
        if self._last is not None and self._last[0] is report:
            return self._last[1], self._last[2]
        reading = read(f"{report.text}\n{report.location_text}" if report.location_text else report.text)
        ids = self._ids
        record = _Record()
        record.report_id = report.report_id
        record.key = reading.key
        record.official = report.official
        record.at = report.observed_at.timestamp() / 3600.0
        record.hazard = report.hazard if report.hazard not in self.settings.unnamed_hazards else None
        record.admin = report.admin
        record.length = reading.length
        record.incident = None
        record.area = False
        record.pin = None
        record.lon = record.lat = 0.0
        if report.lon is not None and report.lat is not None:
            record.lon, record.lat = report.lon, report.lat
            record.pin = (round(report.lon, 5), round(report.lat, 5))
        elif report.admin:
            record.pin, record.area = report.admin, True
        contacts = reading.contacts if report.contact is None else (*reading.contacts, f"id:{report.contact}")
        # A string that nobody used before gets its id at `add`; until then it is a negative number of its own.
        new: dict[str, int] = {}

        def number(word: str) -> int:
            known = ids.get(word)
            return known if known is not None else new.setdefault(word, -1 - len(new))

        words = []
        for word in reading.words:
            known = ids.get(word)
            words.append(known if known is not None else new.setdefault(word, -1 - len(new)))
        record.words = tuple(words)
        record.numbered = tuple([number(w) * _NUMBERS + n for w, n in reading.numbered])
        record.contacts = tuple([number(w) for w in contacts])
        self._last = (report, record, tuple(new))
        return record, self._last[2]

    def _learn(self, number: int, record: _Record, words: tuple[str, ...]) -> None:
        """Give new strings their ids, and count the text's strings if nobody sent this text before."""
        ids, counts, logs = self._ids, self._counts, self._logs
        if words:
            base = len(ids)
            for word in words:
                ids[word] = len(ids)
                counts.append(0)
                logs.append(0.0)
                self._rarity.append(len(word) >= 3 and word not in STOP_WORDS)

            def settle(numbers: tuple[int, ...]) -> tuple[int, ...]:
                return tuple([n if n >= 0 else base - 1 - n for n in numbers])

            record.words, record.contacts = settle(record.words), settle(record.contacts)
            record.numbered = tuple(
                [p if p >= 0 else (base - 1 - p // _NUMBERS) * _NUMBERS + p % _NUMBERS for p in record.numbered]
            )
        known = record.key in self._texts
        self._texts[record.key] = number
        if not known:
            for numbers in (record.words, record.contacts):
                for n in numbers:
                    counts[n] += 1
                    logs[n] = log(counts[n] + 1)
        record.common = sum([logs[n] for n in record.words])

    def _index(self, number: int, record: _Record) -> None:
        """Make the report findable by place, rare words and contacts."""
        pin = record.pin
        if pin is not None:
            copy = (record.key, pin)
            if copy not in self._copies:
                self._pin_texts[pin] = self._pin_texts.get(pin, 0) + 1
            self._copies[copy] = number
            posted = self._posted.get(copy)
            if record.key and posted is not None and abs(record.at - posted) < _REPOST_HOURS:
                return
            self._posted[copy] = record.at
            if isinstance(pin, tuple):
                cell = _cell(record.lon, record.lat)
                _post(self._by_cell, cell, number, _CELL_REPORTS)
                for contact in record.contacts:
                    cells = self._contact_cells.setdefault(contact, set())
                    if len(cells) < 12:
                        cells.add(cell)
            else:
                _post(self._by_area, pin, number, _AREA_REPORTS)
        logs = self._logs
        for word in sorted(record.words, key=logs.__getitem__)[:_RARE_WORDS]:
            _post(self._by_word, word, number, _POSTINGS)
        for contact in record.contacts:
            _post(self._by_word, contact, number, _POSTINGS)

    def _join(self, number: int, record: _Record, incident_id: UUID) -> None:
        incident_id = self._resolve(incident_id)
        incident = self._incidents.get(incident_id)
        if incident is None:
            incident = self._incidents[incident_id] = _Incident(incident_id)
        record.incident = incident
        if incident.members and number < incident.members[-1]:
            incident.stale = True
        incident.members.append(number)
        if not incident.stale:
            incident.take(record)
        if record.official and record.area:
            self._statements[self._statement_key(record)] = incident_id

    def _drop(self, report_id: UUID) -> None:
        self.move(report_id, None)
        self._records[self._numbers.pop(report_id)] = None

    def _forget_oldest(self) -> None:
        """Take the oldest report out of the index, and with it whatever leads to nothing younger."""
        number = self._oldest
        self._oldest += 1
        record = self._records[number]
        if record is None:
            return
        self._records[number] = None
        del self._numbers[record.report_id]
        incident = record.incident
        if incident is not None:
            self._fresh(incident)
            incident.members.remove(number)
            if incident.members:
                left = [other for n in incident.members if (other := self._records[n]) is not None]
                told_again = any(_text(other) == _text(record) for other in left)
                incident.past = _past_of(incident.past, record, texts=0 if told_again else 1)
                if not told_again:
                    incident.texts = tuple([text for text in incident.texts if text != _text(record)])
            elif not incident.closed:
                self._incidents.pop(incident.incident_id, None)
        if record.pin is not None:
            copy = (record.key, record.pin)
            if self._copies.get(copy) == number:
                del self._copies[copy]
                self._posted.pop(copy, None)
                self._pin_texts[record.pin] -= 1
                if not self._pin_texts[record.pin]:
                    del self._pin_texts[record.pin]
            if isinstance(record.pin, tuple):
                _unpost(self._by_cell, _cell(record.lon, record.lat), number)
            else:
                _unpost(self._by_area, record.pin, number)
        for word in record.words:
            _unpost(self._by_word, word, number)
        for contact in record.contacts:
            if _unpost(self._by_word, contact, number):
                self._contact_cells.pop(contact, None)
        if self._texts.get(record.key) == number:
            del self._texts[record.key]
            for word in (*record.words, *record.contacts):
                self._counts[word] -= 1
                self._logs[word] = log(self._counts[word] + 1)

    def _fresh(self, incident: _Incident) -> None:
        """Work out an incident anew, in the order of the index, after a report left it or came in from another."""
        if not incident.stale:
            return
        incident.members = array("L", sorted(incident.members))
        incident.clear()
        for number in incident.members:
            record = self._records[number]
            if record is not None:
                incident.take(record)

    def _resolve(self, incident_id: UUID) -> UUID:
        while incident_id in self._merged:
            incident_id = self._merged[incident_id]
        return incident_id

    def _live(self, numbers: Sequence[int]) -> list[UUID]:
        return [r.report_id for n in numbers if (r := self._records[n])]

    # ---- candidates and score --------------------------------------------------------------------------------------

    def _scored(self, record: _Record) -> list[tuple[float, dict[str, float], _Record]]:
        """The likeliest earlier reports with probability and features, most probable first, then newest."""
        weighed = self._weighed(record)
        found = []
        for number in self._candidates(record):
            other = self._records[number]
            assert other is not None
            values = self._features(record, weighed, other)
            found.append((self._probability(values), number, values, other))
        found.sort(key=lambda f: (-f[0], -f[1]))
        return [(score, values, other) for score, _, values, other in found]

    def _candidates(self, record: _Record) -> list[int]:
        """Numbers of the reports worth comparing: those that share the rarest words, a contact or a place."""
        records = self._records
        logs = self._logs
        likely: dict[int, float] = {}
        most = log(len(self._texts) + 2)
        known = [w for w in record.words if w >= 0]
        for word in sorted(known, key=logs.__getitem__)[:_RARE_WORDS]:
            worth = most - logs[word]
            for number in self._by_word.get(word, ())[-_POSTINGS:]:
                likely[number] = likely.get(number, 0.0) + worth
        for contact in record.contacts:
            for number in self._by_word.get(contact, ())[-_POSTINGS:]:
                likely[number] = likely.get(number, 0.0) + 8.0
        if isinstance(record.pin, tuple):
            lon, lat, at = record.lon, record.lat, record.at
            kx = 111.32 * cos(radians(lat))
            near_km, near_hours = self.settings.near_km, self.settings.near_hours
            centre = _cell(lon, lat)
            by_cell = self._by_cell
            for step in (0, 1, -1, _ROW, -_ROW, _ROW + 1, _ROW - 1, 1 - _ROW, -1 - _ROW):
                for number in by_cell.get(centre + step, ())[-_CELL_REPORTS:]:
                    other = records[number]
                    if other is None or other.incident is None:
                        continue
                    hours = abs(at - other.at)
                    if hours <= _WINDOW_HOURS:
                        dx, dy = (other.lon - lon) * kx, (other.lat - lat) * 111.2
                        near = 12.0 / (1.0 + sqrt(dx * dx + dy * dy) / near_km + hours / near_hours)
                        likely[number] = likely.get(number, 0.0) + near
        elif record.area:
            for number in self._by_area.get(record.pin, ())[-_AREA_REPORTS:]:  # type: ignore[arg-type]
                other = records[number]
                if other is not None and abs(record.at - other.at) <= _WINDOW_HOURS:
                    likely[number] = likely.get(number, 0.0) + 4.0
        best = []
        for _, number in sorted(zip(likely.values(), likely.keys(), strict=True), reverse=True):
            found = records[number]
            if found is not None and found.incident is not None:
                best.append(number)
                if len(best) == _SCORED:
                    break
        return best

    def _weighed(self, record: _Record) -> tuple[frozenset[int], float, float, frozenset[int]]:
        """What every comparison of the record needs: its words, their IDF mass, the IDF of a new word."""
        logs = self._logs
        most = log(len(self._texts) + 2)
        known = [w for w in record.words if w >= 0]
        mass = most * len(record.words) - sum([logs[w] for w in known])
        return frozenset(known), mass, most, frozenset(record.contacts)

    def _features(
        self,
        record: _Record,
        weighed: tuple[frozenset[int], float, float, frozenset[int]],
        other: _Record,
    ) -> dict[str, float]:
        """The features of two reports; docs/linking-reading.md says what each is for."""
        words, mass, most, contacts = weighed
        logs = self._logs
        settings = self.settings
        shared = words.intersection(other.words)
        likeness = contained = rare = 0.0
        if shared:
            other_mass = most * len(other.words) - other.common
            shared_mass = most * len(shared) - sum(map(logs.__getitem__, shared))
            likeness = min(1.0, shared_mass / sqrt(mass * other_mass)) if mass > 0 and other_mass > 0 else 0.0
            contained = min(1.0, shared_mass / max(min(mass, other_mass), 1e-9))
            rarity = self._rarity
            telling = sorted([logs[w] for w in shared if rarity[w]])[:5]
            if telling:
                # The sum, not the mean: one rare word in common is often a street of the whole town.
                rare = (most * len(telling) - sum(telling)) / 35.0
        near = close = 0.0
        if isinstance(record.pin, tuple) and isinstance(other.pin, tuple):
            hours = abs(record.at - other.at)
            km = _km(record, other)
            close = exp(-km)
            near = exp(-km / settings.near_km - hours / settings.near_hours)
            if record.pin == other.pin:
                texts = self._pin_texts.get(record.pin, 0)
                if texts > settings.pin_texts:
                    near /= 1.0 + 1.5 * log10(texts / settings.pin_texts)
        elif record.area and other.area and record.pin == other.pin:
            close = settings.same_area
            near = close * exp(-abs(record.at - other.at) / settings.near_hours)
        contact = 0.0
        if contacts:
            for number in other.contacts:
                if number in contacts:
                    places = len(self._contact_cells.get(number, ()))
                    contact = max(contact, 1.0 if places <= 3 else 3.0 / places)
        agree = conflict = 0.0
        if record.numbered and other.numbered:
            # House 12 of one street, not house 12 of the next town.
            agree, conflict = _numbers_beside(record.numbered, other.numbered)
            agree *= close
        return {
            "near_time": near,
            "near_hazard": near if record.hazard and self._kind(record.hazard) == self._kind(other.hazard) else 0.0,
            "cos": likeness,
            "wcont": contained,
            "rare": rare,
            "contact": contact,
            "numagree": agree,
            "template": likeness * conflict,
            "len": log10(1.0 + min(record.length, other.length)),
        }

    def _probability(self, values: dict[str, float]) -> float:
        weights = self.settings.weights
        z = self.settings.constant
        for name, value in values.items():
            z += weights[name] * value
        return 1.0 / (1.0 + exp(-z)) if z > -30 else 0.0

    def _parts(self, values: dict[str, float]) -> dict[str, float]:
        weights = self.settings.weights
        return {name: weights[name] * value for name, value in values.items() if value}

    # ---- gates and limits ------------------------------------------------------------------------------------------

    def _may_join(self, record: _Record, other: _Record, values: dict[str, float]) -> bool:
        """Whether a likely candidate may be joined without a person: one episode, no far link on weak text."""
        settings = self.settings
        incident = other.incident
        assert incident is not None
        if not self._accepts(incident, record, copy=False):
            return False
        likeness, contact = values["cos"], values["contact"] > 0
        if not self._lasts(incident, record):
            gap = max(incident.first_at - record.at, record.at - incident.last_at)
            if gap > settings.episode_hours and likeness < settings.episode_cos:
                return False
        if not values["rare"] and not contact and self._default_pin(record, other):
            return False
        shorter = min(record.length, other.length)
        strong = (likeness >= settings.far_cos and shorter >= settings.far_words) or (
            values["wcont"] >= settings.far_contained and shorter >= settings.far_contained_words
        )
        if isinstance(record.pin, tuple) and isinstance(other.pin, tuple):
            km = _km(record, other)
            if km > settings.far_km and not strong and not (contact and km <= settings.contact_km):
                return False
        elif record.pin is None or other.pin is None:
            # No place on one side: the text and the sender together must carry it.
            if not (strong and contact):
                return False
        elif record.pin != other.pin and not (strong and _areas_agree(record.admin, other.admin)):
            return False
        if likeness < settings.weak_cos and incident.first is not None and isinstance(record.pin, tuple):
            reach = settings.contact_km if contact else settings.weak_km
            return haversine_km(record.lon, record.lat, *incident.first) <= reach
        return True

    def _default_pin(self, record: _Record, other: _Record) -> bool:
        """Whether at one side's point so many told of so many things that it may be the middle of a map."""
        return any(
            isinstance(r.pin, tuple) and self._pin_texts.get(r.pin, 0) > self.settings.pin_texts
            for r in (record, other)
        )

    def _lasts(self, incident: _Incident, record: _Record) -> bool:
        """Whether neither side names a hazard that comes and goes."""
        lasting = self._lasting
        return (not record.hazard or record.hazard in lasting) and all(h in lasting for h in incident.hazards)

    def _accepts(self, incident: _Incident, record: _Record, *, copy: bool) -> bool:
        """The limits that hold whatever the score says. `copy`: the record repeats a report of the incident, text and
        pin, and does not count against its size."""
        settings = self.settings
        self._fresh(incident)
        if incident.closed or incident.statement:
            return False
        if not copy and incident.size >= settings.most_reports:
            return False
        longest = settings.lasting_hours if self._lasts(incident, record) else settings.most_hours
        if max(incident.last_at, record.at) - min(incident.first_at, record.at) > longest:
            return False
        if not self._hazards_agree(incident, record):
            return False
        if isinstance(record.pin, tuple) and incident.box is not None and (record.lon, record.lat) not in incident.pins:
            lon, lat = record.lon, record.lat
            w, s, e, n = incident.box
            # The diagonal of the box bounds the real width; only where it does not settle it, look at every pin.
            if _diagonal_km(min(w, lon), min(s, lat), max(e, lon), max(n, lat)) > settings.most_km:
                return incident.past is None and all(
                    haversine_km(lon, lat, *pin) <= settings.most_km for pin in incident.pins
                )
        return True

    def _hazards_agree(self, incident: _Incident, record: _Record) -> bool:
        if not record.hazard or not incident.hazards:
            return True
        kind = self._kind(record.hazard)
        return all(self._kind(h) == kind for h in incident.hazards)

    def _kind(self, hazard: str | None) -> str:
        """The group of hazards that may be told of one incident, by its first name; empty for none."""
        return self._family.get(hazard, hazard) if hazard else ""

    def _statement_key(self, record: _Record) -> tuple[str, int, str]:
        day = datetime.fromtimestamp(record.at * 3600.0, self._zone).date().toordinal()
        return str(record.pin), day, self._kind(record.hazard)

    def _statement(self, record: _Record, report: LinkReport) -> Link:
        """Official rows without a point: one incident for each area, day and kind of hazard."""
        earlier = self._copies.get((record.key, str(record.pin))) if record.key else None
        known = self._records[earlier] if earlier is not None else None
        copy_of = known.report_id if known is not None else None
        incident_id = self._statements.get(self._statement_key(record))
        incident = self._incidents.get(self._resolve(incident_id)) if incident_id else None
        if incident is not None and not incident.closed and incident.members:
            self._fresh(incident)
            if len(incident.members) < self.settings.most_reports:
                return Link(incident.incident_id, "linked", 1.0, {"statement": 1.0}, None, copy_of)
        return Link(None, "new", 0.0, {}, None, copy_of)


def _areas_agree(a: str | None, b: str | None) -> bool:
    """Whether two area codes may mean one place: one lies in the other, or nothing says that it does not."""
    if a is None or b is None:
        return True
    (scheme_a, _, code_a), (scheme_b, _, code_b) = a.partition(":"), b.partition(":")
    return scheme_a != scheme_b or code_a.startswith(code_b) or code_b.startswith(code_a)


def _numbers_beside(mine: tuple[int, ...], theirs: tuple[int, ...]) -> tuple[float, float]:
    """Whether the two texts share a word with its number (`rt 5`), and the share of the words numbered in both that
    have other numbers there (`site 5` and `site 15`): that is what tells two fillings of one template apart."""
    known = set(theirs)
    agreeing = {p // _NUMBERS for p in mine if p in known}
    both = {p // _NUMBERS for p in mine} & {p // _NUMBERS for p in theirs}
    return float(bool(agreeing)), (len(both) - len(agreeing)) / len(both) if both else 0.0


def haversine_km(lon_a: float, lat_a: float, lon_b: float, lat_b: float) -> float:
    """Distance on a sphere of 6371.0088 km; within 0.6 % of the geodesic."""
    a, b = radians(lat_a), radians(lat_b)
    h = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(radians(lon_b - lon_a) / 2) ** 2
    return 12742.0176 * asin(min(1.0, sqrt(h)))


def _diagonal_km(west: float, south: float, east: float, north: float) -> float:
    """A bound on the distance of any two points in the box: its height and its width at the latitude nearest the
    equator, as legs of a right angle."""
    nearest = 0.0 if south <= 0.0 <= north else min(abs(south), abs(north))
    height = (north - south) * 111.2
    width = (east - west) * 111.32 * cos(radians(nearest))
    return sqrt(height * height + width * width)


def _km(a: _Record, b: _Record) -> float:
    return haversine_km(a.lon, a.lat, b.lon, b.lat)


def _text(record: _Record) -> object:
    """What makes a report another one for the size of an incident: its text at its pin."""
    return (record.key, record.pin) if record.key else record.report_id


def _past_of(past: Past | None, record: _Record, *, texts: int) -> Past:
    """An incident's past with one more of its reports in it, which adds so many to its size."""
    box, first = (past.box, past.first) if past else (None, None)
    if isinstance(record.pin, tuple):
        lon, lat = record.lon, record.lat
        w, s, e, n = box or (lon, lat, lon, lat)
        box, first = (min(w, lon), min(s, lat), max(e, lon), max(n, lat)), first or (lon, lat)
    hazards = past.hazards if past else ()
    if record.hazard and record.hazard not in hazards:
        hazards += (record.hazard,)
    return Past(
        texts=(past.texts if past else 0) + texts,
        first=first,
        box=box,
        first_at=min(past.first_at, record.at) if past else record.at,
        last_at=max(past.last_at, record.at) if past else record.at,
        hazards=hazards,
    )


def _both(one: Past | None, other: Past | None) -> Past | None:
    """The past of two incidents that are one now."""
    if one is None or other is None:
        return one or other
    boxes = [box for box in (one.box, other.box) if box is not None]
    west, south, east, north = zip(*boxes, strict=True) if boxes else ((), (), (), ())
    return Past(
        texts=one.texts + other.texts,
        first=one.first or other.first,
        box=(min(west), min(south), max(east), max(north)) if boxes else None,
        first_at=min(one.first_at, other.first_at),
        last_at=max(one.last_at, other.last_at),
        hazards=tuple(dict.fromkeys(one.hazards + other.hazards)),
    )


def _cell(lon: float, lat: float) -> int:
    return floor(lon / _CELL_DEG) * _ROW + floor(lat / _CELL_DEG)


def _post(index: dict[_K, array[int]], key: _K, number: int, most: int) -> None:
    """Append to a list of which only the newest `most` are ever read."""
    numbers = index.get(key)
    if numbers is None:
        index[key] = array("L", (number,))
    else:
        numbers.append(number)
        if len(numbers) > 2 * most:
            del numbers[:-most]


def _unpost(index: dict[_K, array[int]], key: _K, number: int) -> bool:
    """Delete a list of which this report and older ones are all that is left; whether it was so."""
    numbers = index.get(key)
    if numbers is None or numbers[-1] > number:
        return False
    del index[key]
    return True
