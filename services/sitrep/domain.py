"""What a prefix of the log amounts to: a pure fold to the newest view of every subject.

`fold` and `tally.whole` are the definition of every figure. The read models with their checkpoints (checkpoints.py)
give the same tally without reading the log; a test holds the two equal at any position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from schemas.assignments import AssignmentOverdue, AssignmentState
from schemas.event import Event
from schemas.incidents import IncidentState
from schemas.ledger import LedgerChanged
from schemas.needs import NeedState
from schemas.offers import OfferState
from schemas.operations import OperationState
from schemas.reports import ReportEvent, ReportLinked, ReportPlaced, ReportReceived, ReportRetracted, ReportUnlinked
from schemas.responders import ResponderState
from schemas.sites import SiteState
from schemas.sitreps import SilenceNoticed
from schemas.vocabulary import split, to_scheme
from schemas.warnings import WarningState

PEOPLE = ("affected", "displaced", "injured", "dead", "missing")
DAMAGE = (
    "houses_heavy",
    "houses_moderate",
    "houses_light",
    "houses_flooded",
    "houses_damaged",
    "public_facilities_damaged",
)
RECENT = timedelta(hours=24)
UNDER_WAY = ("made", "started", "arrived")


class Entry(NamedTuple):
    """One row of the log with its event read; None where the payload was redacted."""

    position: int
    received_at: datetime
    time: datetime
    sequence: int
    operation: str | None
    exercise: bool
    superseded: bool
    event: Event | None


# Which rows a report counts


@dataclass(frozen=True, slots=True)
class Scope:
    """What a report is about. `operation` None: all live operations and no exercise.

    `allowed`: the operations that the caller's token covers, None for all. `area`: `scheme:code`, and all within it.
    """

    operation: str | None = None
    area: str | None = None
    allowed: tuple[str, ...] | None = None

    def covers(self, operation: str | None, exercise: bool) -> bool:
        """Whether a row of this operation counts."""
        if self.operation is not None:
            return operation == self.operation
        return not exercise and (self.allowed is None or operation in self.allowed)

    def area_codes(self) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
        """The codes that are this area, and the beginnings of those within it; None without an area.

        An area that has the same extent in the other scheme counts under that code too: official files come with
        BPS codes, the field with Kemendagri's.

        Raises
        ------
        ValueError
            The code has no scheme.
        """
        if self.area is None:
            return None
        scheme, code = split(self.area)
        codes = [f"{scheme}:{code}"]
        for other in ("kemendagri", "bps"):
            twin = to_scheme(codes[0], other)
            if twin is not None and twin not in codes:
                codes.append(twin)
        # Kemendagri parts its levels by dots; BPS runs the digits on, with a fixed number for each level.
        return tuple(codes), tuple(each if each.startswith("bps:") else f"{each}." for each in codes)

    def holds(self, admin: str | None) -> bool:
        """Whether a thing with this area code lies in the area; without a code it lies nowhere."""
        codes = self.area_codes()
        if codes is None:
            return True
        return admin is not None and (admin in codes[0] or admin.startswith(codes[1]))


# What the fold remembers


@dataclass(frozen=True, slots=True)
class ReportView:
    """A report as its events leave it. Reports are facts, so its events may come in any order: the highest sequence
    that spoke of a thing holds."""

    report_id: UUID
    operation: str | None = None
    exercise: bool = False
    operation_sequence: int = -1
    received_at: datetime | None = None
    retracted: bool = False
    admin: str | None = None
    admin_sequence: int = -1
    incident_id: UUID | None = None
    link_sequence: int = -1
    # What it says, who says so, and in which file or channel.
    said_by: str | None = None
    observed_at: datetime | None = None
    affected: int | None = None
    displaced: int | None = None
    injured: int | None = None
    dead: int | None = None
    missing: int | None = None
    origin: str | None = None
    sensitivity: str | None = None
    houses_heavy: int | None = None
    houses_moderate: int | None = None
    houses_light: int | None = None
    houses_flooded: int | None = None
    houses_damaged: int | None = None
    public_facilities_damaged: int | None = None


def report_after(view: ReportView, entry: Entry) -> ReportView:
    """The report once this event of it is known."""
    event = entry.event
    sequence = entry.sequence
    if sequence > view.operation_sequence:
        view = replace(view, operation=entry.operation, exercise=entry.exercise, operation_sequence=sequence)
    if isinstance(event, ReportReceived):
        view = replace(view, received_at=entry.time, sensitivity=event.sensitivity, **_said(event))
    if isinstance(event, ReportRetracted):
        view = replace(view, retracted=True)
    if isinstance(event, ReportReceived | ReportPlaced) and sequence > view.admin_sequence:
        admin = event.location.admin if event.location is not None else None
        if admin is not None:
            view = replace(view, admin=admin, admin_sequence=sequence)
    if isinstance(event, ReportLinked | ReportUnlinked) and sequence > view.link_sequence:
        linked = event.incident_id if isinstance(event, ReportLinked) else None
        view = replace(view, incident_id=linked, link_sequence=sequence)
    return view


def _said(event: ReportReceived) -> dict[str, Any]:
    """The report's figures, with who says so; nothing where it names none."""
    figures = {name: getattr(event.people, name, None) for name in PEOPLE}
    figures |= {name: getattr(event.damage, name, None) for name in DAMAGE}
    if all(count is None for count in figures.values()):
        return {}
    if event.reporter_kind == "official":
        by = "official"
    else:
        by = "organisation" if event.origin.startswith("/partners/") else "public"
    return {"said_by": by, "observed_at": event.observed_at, "origin": event.origin, **figures}


EVIDENCE = ("reported", "corroborated", "field_checked", "official")


def levels_of(event: IncidentState) -> str | None:
    """How far each figure of the incident is believed, in letters; None where no fact is told apart."""
    if not event.facts:
        return None
    facts = [f"people.{name}" for name in PEOPLE] + [f"damage.{name}" for name in DAMAGE]
    return "".join(event.facts.get(fact, event.evidence)[0] for fact in facts)


# Views: the newest of a subject, with what a report counts of it; the read tables have the same columns


@dataclass(frozen=True, slots=True)
class OperationView:
    """An operation as the head of a report names it."""

    operation_id: str
    exercise: bool
    title: str
    glide: str | None
    hazards: tuple[str, ...]
    areas: tuple[str, ...]
    timezone: str
    lead: str | None
    declared: str | None
    level: str | None
    decree: str | None
    until: datetime | None
    phase: str | None
    opened_at: datetime
    closed_at: datetime | None
    bbox: tuple[float, ...] | None = None

    @classmethod
    def of(cls, entry: Entry, event: OperationState) -> OperationView:
        status = event.status
        return cls(
            event.operation, entry.exercise, event.title, event.glide, event.hazards, event.areas, event.timezone,
            event.lead, status.declared if status else None, status.level if status else None,
            status.decree if status else None, status.until if status else None, event.phase, event.opened_at,
            event.closed_at, event.bbox,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class IncidentView:
    """An incident. `lon`, `lat`: the middle of its located reports. `levels`: how far each figure of people and damage
    is believed, by the first letter of the evidence; None: as the incident."""

    incident_id: UUID
    operation: str | None
    exercise: bool
    title: str
    hazard: str | None
    severity: int
    status: str
    evidence: str
    lon: float | None
    lat: float | None
    admin: str | None
    place: str | None
    reports: int
    affected: int | None
    displaced: int | None
    injured: int | None
    dead: int | None
    missing: int | None
    houses_heavy: int | None
    houses_moderate: int | None
    houses_light: int | None
    houses_flooded: int | None
    houses_damaged: int | None
    public_facilities_damaged: int | None
    opened_at: datetime
    updated_at: datetime
    levels: str | None = None
    sensitivity: str | None = None

    @classmethod
    def of(cls, entry: Entry, event: IncidentState) -> IncidentView:
        point, people, damage = event.point, event.people, event.damage
        return cls(
            event.incident_id, entry.operation, entry.exercise, event.title, event.hazard, event.severity,
            event.status, event.evidence, point.lon if point else None, point.lat if point else None, event.admin,
            event.place, event.reports, people.affected, people.displaced, people.injured, people.dead, people.missing,
            damage.houses_heavy, damage.houses_moderate, damage.houses_light, damage.houses_flooded,
            damage.houses_damaged, damage.public_facilities_damaged, event.opened_at, event.updated_at,
            levels_of(event), event.sensitivity,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class NeedView:
    """A need. `starts_at`: since when it is wanted."""

    need_id: UUID
    operation: str | None
    exercise: bool
    incident_id: UUID | None
    item: str | None
    skill: str | None
    unit: str
    severity: int
    status: str
    quantity: int
    lon: float | None
    lat: float | None
    admin: str | None
    starts_at: datetime | None = None
    sensitivity: str | None = None

    @classmethod
    def of(cls, entry: Entry, event: NeedState) -> NeedView:
        point = event.point
        return cls(
            event.need_id, entry.operation, entry.exercise, event.incident_id, event.item, event.skill, event.unit,
            event.severity, event.status, event.quantity, point.lon if point else None, point.lat if point else None,
            event.admin, event.window.start, event.sensitivity,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LedgerView:
    """A need's row in matching's ledger, always in balance."""

    need_id: UUID
    operation: str | None
    exercise: bool
    incident_id: UUID | None
    item: str | None
    skill: str | None
    unit: str
    severity: int
    admin: str | None
    needed: int
    open: int
    offered: int
    committed: int
    in_transit: int
    delivered: int
    confirmed: int
    cancelled: int

    @classmethod
    def of(cls, entry: Entry, event: LedgerChanged) -> LedgerView:
        return cls(
            event.need_id, entry.operation, entry.exercise, event.incident_id, event.item, event.skill, event.unit,
            event.severity, event.admin, event.needed, event.open, event.offered, event.committed, event.in_transit,
            event.delivered, event.confirmed, event.cancelled,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class OfferView:
    """A question to one responder or holder of stock."""

    offer_id: UUID
    operation: str | None
    exercise: bool
    need_id: UUID
    organisation: str | None
    quantity: int
    state: str

    @classmethod
    def of(cls, entry: Entry, event: OfferState) -> OfferView:
        return cls(
            event.offer_id, entry.operation, entry.exercise, event.need_id, event.organisation, event.quantity,
            event.state,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class AssignmentView:
    """A promise. `overdue`: who should ask where it is (1 holder, 2 organisation, 3 dispatcher); 0: it is in time."""

    assignment_id: UUID
    operation: str | None
    exercise: bool
    need_id: UUID
    responder_id: UUID | None
    organisation: str | None
    quantity: int
    state: str
    overdue: int = 0

    @classmethod
    def of(cls, entry: Entry, event: AssignmentState) -> AssignmentView:
        return cls(
            event.assignment_id, entry.operation, entry.exercise, event.need_id, event.responder_id,
            event.organisation, event.quantity, event.state,
            event.level if isinstance(event, AssignmentOverdue) else 0,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResponderView:
    """A person or team on the register."""

    responder_id: UUID
    exercise: bool
    status: str
    capacity: int

    @classmethod
    def of(cls, entry: Entry, event: ResponderState) -> ResponderView:
        return cls(event.responder_id, entry.exercise, event.status, event.capacity)


@dataclass(frozen=True, slots=True)
class SiteView:
    """An evacuation post with its newest headcount. `heads`: people, households and each part that was counted."""

    site_id: UUID
    operation: str | None
    exercise: bool
    name: str
    code: str
    kind: str
    status: str
    lon: float | None
    lat: float | None
    admin: str | None
    place: str | None
    organisation: str | None
    capacity: int | None
    alarm: str
    counted_at: datetime | None
    heads: Mapping[str, int]

    @classmethod
    def of(cls, entry: Entry, event: SiteState) -> SiteView:
        point, count = event.point, event.headcount
        heads: dict[str, int] = {}
        if count is not None:
            for part in ("people", "households", "female", "male", "disability", "pregnant"):
                if getattr(count, part) is not None:
                    heads[part] = getattr(count, part)
            heads |= {f"age {age.band}": age.people for age in count.ages}
        return cls(
            event.site_id, entry.operation, entry.exercise, event.name, event.code, event.kind, event.status,
            point.lon if point else None, point.lat if point else None, event.admin, event.place,
            event.organisation, event.capacity, event.alarm, count.counted_at if count else None, heads,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class WarningView:
    """What an authority says is coming, and where: `area` as in the event."""

    warning_id: UUID
    exercise: bool
    state: str
    status: str
    hazard: str | None
    severity: int
    effective_at: datetime
    expires_at: datetime
    area: Mapping[str, Any]

    @classmethod
    def of(cls, entry: Entry, event: WarningState) -> WarningView:
        return cls(
            event.warning_id, entry.exercise or event.status != "actual", event.state, event.status, event.hazard,
            event.severity, event.effective_at, event.expires_at,
            event.area.model_dump(mode="json", include={"polygons", "points", "bbox", "codes"}),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class SilenceView:
    """An area under a warning from which too little was heard; `expected`, `received`: bands."""

    noticed_at: datetime
    operation: str | None
    exercise: bool
    area: str
    hazard: str | None
    severity: int
    since: datetime
    expected: str
    received: str

    @classmethod
    def of(cls, entry: Entry, event: SilenceNoticed) -> SilenceView:
        return cls(
            entry.received_at, entry.operation, entry.exercise, event.area, event.hazard, event.severity, event.since,
            event.expected, event.received,
        )  # fmt: skip


@dataclass(slots=True)
class State:
    """The newest of every subject: what a prefix of the log amounts to."""

    position: int = 0
    received_at: datetime | None = None
    redacted: int = 0
    operations: dict[str, OperationView] = field(default_factory=dict)
    reports: dict[UUID, ReportView] = field(default_factory=dict)
    incidents: dict[UUID, IncidentView] = field(default_factory=dict)
    needs: dict[UUID, NeedView] = field(default_factory=dict)
    ledgers: dict[UUID, LedgerView] = field(default_factory=dict)
    offers: dict[UUID, OfferView] = field(default_factory=dict)
    assignments: dict[UUID, AssignmentView] = field(default_factory=dict)
    responders: dict[UUID, ResponderView] = field(default_factory=dict)
    sites: dict[UUID, SiteView] = field(default_factory=dict)
    warnings: dict[UUID, WarningView] = field(default_factory=dict)
    silences: list[SilenceView] = field(default_factory=list)


def fold(entries: Iterable[Entry], state: State | None = None) -> State:
    """What these rows of the log, in the order of their positions, amount to on top of `state`, which is changed."""
    state = state or State()
    for entry in entries:
        state.position, state.received_at = entry.position, entry.received_at
        event = entry.event
        state.redacted += event is None
        if entry.superseded:
            continue
        if isinstance(event, ReportEvent):
            known = state.reports.get(event.report_id) or ReportView(event.report_id)
            state.reports[event.report_id] = report_after(known, entry)
        elif isinstance(event, IncidentState):
            state.incidents[event.incident_id] = IncidentView.of(entry, event)
        elif isinstance(event, NeedState):
            state.needs[event.need_id] = NeedView.of(entry, event)
        elif isinstance(event, LedgerChanged):
            state.ledgers[event.need_id] = LedgerView.of(entry, event)
        elif isinstance(event, OfferState):
            state.offers[event.offer_id] = OfferView.of(entry, event)
        elif isinstance(event, AssignmentState):
            state.assignments[event.assignment_id] = AssignmentView.of(entry, event)
        elif isinstance(event, ResponderState):
            state.responders[event.responder_id] = ResponderView.of(entry, event)
        elif isinstance(event, SiteState):
            state.sites[event.site_id] = SiteView.of(entry, event)
        elif isinstance(event, WarningState):
            state.warnings[event.warning_id] = WarningView.of(entry, event)
        elif isinstance(event, OperationState):
            state.operations[event.operation] = OperationView.of(entry, event)
        elif isinstance(event, SilenceNoticed):
            state.silences.append(SilenceView.of(entry, event))
    return state
