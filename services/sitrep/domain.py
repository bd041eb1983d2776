"""What a situation report counts, and how: a pure fold over the log, and the report made from its picture.

`fold` is the definition. The read models (projections.py) give the same `Picture` faster; a test holds the two
equal, byte for byte, at any position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.assignments import AssignmentState
from schemas.event import Event
from schemas.incidents import IncidentState
from schemas.ledger import LedgerChanged
from schemas.needs import NeedState
from schemas.offers import OfferState
from schemas.operations import OperationState
from schemas.reports import ReportEvent, ReportLinked, ReportPlaced, ReportReceived, ReportRetracted, ReportUnlinked
from schemas.responders import ResponderState
from schemas.values import STANDING
from schemas.vocabulary import split, to_scheme

PEOPLE = ("affected", "displaced", "injured", "dead", "missing")
DAMAGE = (
    "houses_heavy",
    "houses_moderate",
    "houses_light",
    "houses_flooded",
    "houses_damaged",
    "public_facilities_damaged",
)
TOP_INCIDENTS = 10
RECENT = timedelta(hours=24)
UNDER_WAY = ("made", "started", "arrived")


@dataclass(frozen=True, slots=True)
class Entry:
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


def report_after(view: ReportView, entry: Entry) -> ReportView:
    """The report once this event of it is known."""
    event = entry.event
    sequence = entry.sequence
    if sequence > view.operation_sequence:
        view = replace(view, operation=entry.operation, exercise=entry.exercise, operation_sequence=sequence)
    if isinstance(event, ReportReceived):
        view = replace(view, received_at=entry.time)
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


@dataclass(slots=True)
class State:
    """The newest of every subject: what a prefix of the log amounts to."""

    position: int = 0
    received_at: datetime | None = None
    redacted: int = 0
    operations: dict[str, tuple[Entry, OperationState]] = field(default_factory=dict)
    reports: dict[UUID, ReportView] = field(default_factory=dict)
    incidents: dict[UUID, tuple[Entry, IncidentState]] = field(default_factory=dict)
    needs: dict[UUID, tuple[Entry, NeedState]] = field(default_factory=dict)
    ledgers: dict[UUID, tuple[Entry, LedgerChanged]] = field(default_factory=dict)
    offers: dict[UUID, tuple[Entry, OfferState]] = field(default_factory=dict)
    assignments: dict[UUID, tuple[Entry, AssignmentState]] = field(default_factory=dict)
    responders: dict[UUID, tuple[Entry, ResponderState]] = field(default_factory=dict)


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
            state.incidents[event.incident_id] = (entry, event)
        elif isinstance(event, NeedState):
            state.needs[event.need_id] = (entry, event)
        elif isinstance(event, LedgerChanged):
            state.ledgers[event.need_id] = (entry, event)
        elif isinstance(event, OfferState):
            state.offers[event.offer_id] = (entry, event)
        elif isinstance(event, AssignmentState):
            state.assignments[event.assignment_id] = (entry, event)
        elif isinstance(event, ResponderState):
            state.responders[event.responder_id] = (entry, event)
        elif isinstance(event, OperationState):
            state.operations[event.operation] = (entry, event)
    return state


# What a report is made of


@dataclass(frozen=True, slots=True)
class OperationLine:
    """An operation as the head of a report names it."""

    operation_id: str
    title: str
    exercise: bool
    glide: str | None
    hazards: tuple[str, ...]
    timezone: str
    lead: str | None
    declared: str | None
    level: str | None
    decree: str | None
    until: datetime | None
    phase: str | None
    closed: bool


@dataclass(frozen=True, slots=True)
class NeedLine:
    """All needs for one item or skill. `needed` leaves out what was cancelled, so that it is the sum of
    committed, coming, delivered and gap. `severity`: the highest among them."""

    kind: str
    code: str
    unit: str
    severity: int
    needs: int
    needed: int
    committed: int
    coming: int
    delivered: int
    gap: int
    cancelled: int


@dataclass(frozen=True, slots=True)
class IncidentLine:
    """An open incident as the highlights name it."""

    incident_id: UUID
    title: str
    hazard: str | None
    severity: int
    evidence: str
    admin: str | None
    place: str | None
    operation: str | None
    reports: int
    affected: int | None
    displaced: int | None
    injured: int | None
    dead: int | None
    missing: int | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OrganisationLine:
    """What one organisation has promised and done, in assignments; None: people without an organisation."""

    organisation: str | None
    made: int
    under_way: int
    done: int


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that a report says, as exact figures, in a fixed order."""

    position: int
    received_at: datetime | None
    redacted: int
    operations: tuple[OperationLine, ...]
    reports: int
    reports_unlinked: int
    reports_retracted: int
    reports_recent: int
    incidents: Mapping[str, int]
    incidents_recent: int
    by_hazard: Mapping[str, int]
    by_severity: Mapping[str, int]
    by_evidence: Mapping[str, int]
    people: Mapping[str, int]
    damage: Mapping[str, int]
    top: tuple[IncidentLine, ...]
    needs: tuple[NeedLine, ...]
    drafts: int
    offers: Mapping[str, int]
    assignments: Mapping[str, int]
    organisations: tuple[OrganisationLine, ...]
    responders: int
    responder_people: int
    responders_busy: int


STATUSES = ("open", "closed", "merged")
OFFER_STATES = ("made", "accepted", "declined", "expired", "withdrawn")
ASSIGNMENT_STATES = ("made", "started", "arrived", "delivered", "confirmed", "abandoned")
EVIDENCE = ("reported", "corroborated", "field_checked", "official")
SEVERITIES = ("1", "2", "3", "4")


def counted(names: Sequence[str], found: Mapping[str, int]) -> dict[str, int]:
    """The counts under these names, 0 where there is none, in the order of the names."""
    return {name: found.get(name, 0) for name in names}


def sorted_needs(lines: Iterable[NeedLine]) -> tuple[NeedLine, ...]:
    """The most severe first, then the largest gap."""
    return tuple(sorted(lines, key=lambda line: (-line.severity, -line.gap, line.kind, line.code)))


def picture(state: State, scope: Scope) -> Picture:
    """What the state amounts to within the scope. Source of each rule: docs/architecture.md and the glossary."""
    now = state.received_at
    since = None if now is None else now - RECENT

    incidents = [
        (entry, incident)
        for entry, incident in state.incidents.values()
        if scope.covers(entry.operation, entry.exercise) and scope.holds(incident.admin)
    ]
    valid = [incident for _, incident in incidents if incident.status != "merged"]
    opened = [(entry, incident) for entry, incident in incidents if incident.status == "open"]

    def admin_of(incident_id: UUID | None) -> str | None:
        known = state.incidents.get(incident_id) if incident_id is not None else None
        return known[1].admin if known is not None else None

    reports: list[ReportView] = []
    for view in state.reports.values():
        incident = state.incidents.get(view.incident_id) if view.incident_id is not None else None
        # A linked report counts where its incident stands: an incident that is moved takes its reports along.
        place = (
            (incident[0].operation, incident[0].exercise) if incident is not None else (view.operation, view.exercise)
        )
        if (
            view.received_at is not None
            and scope.covers(*place)
            and scope.holds(view.admin or admin_of(view.incident_id))
        ):
            reports.append(view)
    taken = [view for view in reports if not view.retracted]

    lines, drafts, needs_in_area = _needs(state, scope, admin_of)
    offers = _tally(
        offer.state
        for entry, offer in state.offers.values()
        if scope.covers(entry.operation, entry.exercise) and needs_in_area(offer.need_id)
    )
    assigned = [
        assignment
        for entry, assignment in state.assignments.values()
        if scope.covers(entry.operation, entry.exercise) and needs_in_area(assignment.need_id)
    ]
    operations = tuple(
        _operation_line(entry, operation)
        for key, (entry, operation) in sorted(state.operations.items())
        if scope.covers(key, entry.exercise)
    )
    drill = scope.operation is not None and any(line.exercise for line in operations)
    confirmed = [
        responder
        for entry, responder in state.responders.values()
        if responder.status == "confirmed" and (drill or not entry.exercise)
    ]
    return Picture(
        position=state.position,
        received_at=now,
        redacted=state.redacted,
        operations=operations,
        reports=len(taken),
        reports_unlinked=sum(view.incident_id is None for view in taken),
        reports_retracted=len(reports) - len(taken),
        reports_recent=sum(
            since is not None and view.received_at is not None and view.received_at > since for view in taken
        ),
        incidents=counted(STATUSES, _tally(incident.status for _, incident in incidents)),
        incidents_recent=sum(since is not None and incident.opened_at > since for incident in valid),
        by_hazard=dict(sorted(_tally(incident.hazard or "other" for _, incident in opened).items())),
        by_severity=counted(SEVERITIES, _tally(str(incident.severity) for _, incident in opened)),
        by_evidence=counted(EVIDENCE, _tally(incident.evidence for incident in valid)),
        people={name: sum(getattr(incident.people, name) or 0 for incident in valid) for name in PEOPLE},
        damage={name: sum(getattr(incident.damage, name) or 0 for incident in valid) for name in DAMAGE},
        top=tuple(sorted((_incident_line(entry, incident) for entry, incident in opened), key=_rank)[:TOP_INCIDENTS]),
        needs=sorted_needs(lines),
        drafts=drafts,
        offers=counted(OFFER_STATES, offers),
        assignments=counted(ASSIGNMENT_STATES, _tally(assignment.state for assignment in assigned)),
        organisations=_organisations(assigned),
        responders=len(confirmed),
        responder_people=sum(responder.capacity for responder in confirmed),
        responders_busy=len({a.responder_id for a in assigned if a.responder_id is not None and a.state in UNDER_WAY}),
    )


def _tally(words: Iterable[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return found


def _operation_line(entry: Entry, operation: OperationState) -> OperationLine:
    status = operation.status
    return OperationLine(
        operation_id=operation.operation,
        title=operation.title,
        exercise=entry.exercise,
        glide=operation.glide,
        hazards=operation.hazards,
        timezone=operation.timezone,
        lead=operation.lead,
        declared=status.declared if status else None,
        level=status.level if status else None,
        decree=status.decree if status else None,
        until=status.until if status else None,
        phase=operation.phase,
        closed=operation.closed_at is not None,
    )


def _incident_line(entry: Entry, incident: IncidentState) -> IncidentLine:
    return IncidentLine(
        incident_id=incident.incident_id,
        title=incident.title,
        hazard=incident.hazard,
        severity=incident.severity,
        evidence=incident.evidence,
        admin=incident.admin,
        place=incident.place,
        operation=entry.operation,
        reports=incident.reports,
        affected=incident.people.affected,
        displaced=incident.people.displaced,
        injured=incident.people.injured,
        dead=incident.people.dead,
        missing=incident.people.missing,
        updated_at=incident.updated_at,
    )


def _rank(line: IncidentLine) -> tuple[int, int, int, int, str]:
    """Which incident a reader has to see first: severity, then people harmed, affected, and how many say so."""
    harmed = (line.dead or 0) + (line.missing or 0) + (line.injured or 0)
    return (-line.severity, -harmed, -(line.affected or 0), -line.reports, str(line.incident_id))


def _needs(state: State, scope: Scope, admin_of: Any) -> tuple[list[NeedLine], int, Any]:
    """The lines by item or skill, how many drafts wait, and whether a need lies in the area.

    What was declared and matching has not entered in its ledger yet is all open.
    """

    def admin(need_id: UUID) -> str | None:
        need = state.needs.get(need_id)
        ledger = state.ledgers.get(need_id)
        found = (need[1].admin if need else None) or (ledger[1].admin if ledger else None)
        incident = (need[1].incident_id if need else None) or (ledger[1].incident_id if ledger else None)
        return found or admin_of(incident)

    lines: dict[tuple[str, str], NeedLine] = {}
    drafts = 0
    for need_id in sorted(state.needs.keys() | state.ledgers.keys()):
        need, ledger = state.needs.get(need_id), state.ledgers.get(need_id)
        entry, thing = need or ledger  # type: ignore[misc]
        if not scope.covers(entry.operation, entry.exercise) or not scope.holds(admin(need_id)):
            continue
        if ledger is not None:
            row = ledger[1]
            amounts = (
                row.needed - row.cancelled,
                row.committed,
                row.in_transit,
                row.delivered + row.confirmed,
                row.open + row.offered,
                row.cancelled,
            )
        elif need is not None and need[1].status == "declared":
            amounts = (need[1].quantity, 0, 0, 0, need[1].quantity, 0)
        else:
            drafts += need is not None and need[1].status == "draft"
            continue
        kind, code = ("item", thing.item) if thing.item is not None else ("skill", thing.skill or "")
        known = lines.get((kind, code))
        line = NeedLine(kind, code, thing.unit, thing.severity, 1, *amounts)
        lines[kind, code] = line if known is None else _added(known, line)
    return list(lines.values()), drafts, lambda need_id: scope.area is None or scope.holds(admin(need_id))


def _added(one: NeedLine, other: NeedLine) -> NeedLine:
    sums = {
        f.name: getattr(one, f.name) + getattr(other, f.name)
        for f in fields(NeedLine)
        if f.name not in ("kind", "code", "unit", "severity")
    }
    return replace(one, unit=min(one.unit, other.unit), severity=max(one.severity, other.severity), **sums)


def _organisations(assigned: Iterable[AssignmentState]) -> tuple[OrganisationLine, ...]:
    found: dict[str | None, list[int]] = {}
    for assignment in assigned:
        column = {"made": 0, "started": 1, "arrived": 1, "delivered": 2, "confirmed": 2}.get(assignment.state)
        if column is not None:
            found.setdefault(assignment.organisation, [0, 0, 0])[column] += 1
    return tuple(
        OrganisationLine(name, *counts)
        for name, counts in sorted(found.items(), key=lambda item: (item[0] is None, item[0] or ""))
    )


# Bands: what the public is told


def band(count: int) -> str:
    """The band that a count lies in: 0, 1-4, 5-9, 10-19, 20-49, 50-99, 100-199 and so on in steps of 1, 2, 5.

    The bands are fixed, so that the difference between two reports tells no more than that a band was left.
    """
    if count <= 0:
        return "0"
    if count < 5:
        return "1-4"
    low, steps = 5, (2, 2, 2.5)
    at = 0
    while True:
        high = int(low * steps[at % 3])
        if count < high:
            return f"{low}-{high - 1}"
        low, at = high, at + 1


# The report as one document


def report(found: Picture, scope: Scope, *, exact: bool) -> dict[str, Any]:
    """The report as a document that JSON can hold; every rendering is made from it and from nothing else.

    `exact` False is the public form: bands for every count, no incident by itself, no organisation by itself.
    """

    def n(count: int) -> int | str:
        return count if exact else band(count)

    def each(counts: Mapping[str, int]) -> dict[str, int | str]:
        return {name: n(count) for name, count in counts.items()}

    named = found.operations[0] if scope.operation is not None and found.operations else None
    document: dict[str, Any] = {
        "operation": scope.operation,
        "area": scope.area,
        "as_of": instant(found.received_at),
        "position": found.position,
        "form": "exact" if exact else "public",
        "redacted": n(found.redacted),
        "exercise": named.exercise if named else False,
        "title": named.title if named else scope.operation,
        "glide": named.glide if named else None,
        "hazards": list(named.hazards) if named else [],
        "timezone": named.timezone if named else "Asia/Jakarta",
        "lead": named.lead if named else None,
        "status": _status(named),
        "phase": named.phase if named else None,
        "closed": named.closed if named else False,
        "operations": [
            {"operation": line.operation_id, "title": line.title, "lead": line.lead, "status": _status(line)}
            for line in found.operations
            if not line.closed and line.operation_id != STANDING
        ],
        "totals": {
            "reports": n(found.reports),
            "reports_unlinked": n(found.reports_unlinked),
            "reports_retracted": n(found.reports_retracted),
            "incidents": n(found.incidents["open"] + found.incidents["closed"]),
            "incidents_open": n(found.incidents["open"]),
            "incidents_closed": n(found.incidents["closed"]),
            "incidents_merged": n(found.incidents["merged"]),
            "people": each(found.people),
            "damage": each(found.damage),
        },
        "last_24h": {"reports": n(found.reports_recent), "incidents": n(found.incidents_recent)},
        "open_by_hazard": each(found.by_hazard),
        "open_by_severity": each(found.by_severity),
        "by_evidence": each(found.by_evidence),
        "needs": [
            {
                line.kind: line.code,
                "unit": line.unit,
                "severity": line.severity,
                "needs": n(line.needs),
                "needed": n(line.needed),
                "committed": n(line.committed),
                "coming": n(line.coming),
                "delivered": n(line.delivered),
                "gap": n(line.gap),
                "cancelled": n(line.cancelled),
            }
            for line in found.needs
        ],
        "needs_drafted": n(found.drafts),
        "offers": each(found.offers),
        "assignments": each(found.assignments),
        "responders": {
            "confirmed": n(found.responders),
            "people": n(found.responder_people),
            "on_assignment": n(found.responders_busy),
        },
    }
    if exact:
        document["organisations"] = [
            {
                "organisation": line.organisation,
                "committed": line.made,
                "under_way": line.under_way,
                "done": line.done,
            }
            for line in found.organisations
        ]
        document["incidents"] = [
            {
                "id": str(line.incident_id),
                "title": line.title,
                "hazard": line.hazard,
                "severity": line.severity,
                "evidence": line.evidence,
                "admin": line.admin,
                "place": line.place,
                "operation": line.operation,
                "reports": line.reports,
                "people": {name: getattr(line, name) for name in PEOPLE},
                "updated_at": instant(line.updated_at),
            }
            for line in found.top
        ]
    return document


def _status(line: OperationLine | None) -> dict[str, Any] | None:
    if line is None or line.declared is None:
        return None
    return {"declared": line.declared, "level": line.level, "decree": line.decree, "until": instant(line.until)}


def instant(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds, so that it can be given back as `as_of` and means the same."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
