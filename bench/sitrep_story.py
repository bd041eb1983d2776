"""Random but valid histories of an operation, for tests and benchmarks: every stream that a situation report counts.

Seeded, so that a failure can be looked at again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.assignments import (
    AssignmentAbandoned,
    AssignmentDelivered,
    AssignmentMade,
    AssignmentOverdue,
    AssignmentStarted,
    AssignmentState,
)
from schemas.event import Event, Meta
from schemas.incidents import IncidentClosed, IncidentMerged, IncidentMoved, IncidentOpened, IncidentUpdated
from schemas.ledger import LedgerChanged
from schemas.needs import NeedDeclared, NeedDrafted, NeedState, NeedWithdrawn
from schemas.offers import OfferAccepted, OfferDeclined, OfferMade
from schemas.operations import DeclaredStatus, OperationOpened, OperationUpdated
from schemas.reports import ReportLinked, ReportPlaced, ReportReceived, ReportRetracted, ReportUnlinked
from schemas.responders import ResponderConfirmed, ResponderRegistered
from schemas.sites import AgeCount, Headcount, SiteClosed, SiteCounted, SiteOpened
from schemas.sitreps import SilenceNoticed
from schemas.values import Damage, Location, PeopleCount, Period, Point
from schemas.warnings import WarningArea, WarningIssued, WarningMessage
from services.runtime.cloudevents import Envelope

START = datetime(2026, 11, 20, 1, 0, tzinfo=UTC)
AREAS = (
    "kemendagri:32.04",
    "kemendagri:32.04.05",
    "bps:3204",
    "bps:3204050",
    "kemendagri:32.73",
    "kemendagri:32.040",
    None,
)
OPERATIONS = (("banjir-jakarta", False), ("gempa-palu", False), ("latihan-citarum", True))
SOURCE = "/gotong/test/elsewhere"


@dataclass(frozen=True, slots=True)
class Told:
    """An event with the attributes that its producer gave it."""

    event: Event
    sequence: int
    time: datetime
    id: str

    def envelope(self) -> Envelope:
        event = self.event
        meta = Meta(
            self.id, SOURCE, event.type, event.subject_value, self.time, self.sequence, event.operation, event.exercise
        )
        return Envelope(meta, event.to_bytes(), event.topic, 0, 0, event.key_value)


class Story:
    """Tells events one after another, keeping each aggregate's state so that they fit together."""

    def __init__(
        self, seed: int, operations: tuple[tuple[str, bool], ...] = OPERATIONS, *, pace_s: int = 600, posts: int = 40
    ) -> None:
        """`pace_s`: the longest time between two events. `posts`: how many evacuation posts are opened at most."""
        self.random = random.Random(seed)
        self.operations = operations
        self.pace_s, self.most_posts = pace_s, posts
        self.time = START
        self.sequences: dict[tuple[str, str], int] = {}
        self.reports: list[ReportReceived] = []
        self.incidents: list[IncidentOpened] = []
        self.needs: list[NeedState] = []
        self.ledgers: dict[UUID, LedgerChanged] = {}
        self.offers: list[OfferMade] = []
        self.responders: list[ResponderRegistered] = []
        self.sites: list[SiteOpened] = []

    def uuid(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def tell(self, event: Event) -> Told:
        """The event as its producer would send it: the next sequence of its subject, time running on."""
        self.time += timedelta(seconds=self.random.randint(0, self.pace_s))
        subject = (event.topic, event.subject_value)
        self.sequences[subject] = self.sequences.get(subject, 0) + 1
        return Told(event, self.sequences[subject], self.time, str(self.uuid()))

    def opening(self) -> Iterator[Told]:
        for name, exercise in self.operations:
            yield self.tell(
                OperationOpened(
                    operation=name,
                    exercise=exercise,
                    title=f"Operasi {name} | satu",
                    hazards=("flood", "landslide"),
                    areas=("kemendagri:32.04",),
                    timezone=self.random.choice(["Asia/Jakarta", "Asia/Makassar", "Asia/Jayapura"]),
                    opened_at=self.time,
                    by="admin:test",
                )
            )

    def events(self, count: int) -> Iterator[Told]:
        """The opening of the operations and `count` events after it."""
        yield from self.opening()
        steps = (
            [self.report] * 6
            + [self.linked] * 5
            + [self.incident] * 3
            + [self.incident_changed] * 6
            + [self.need] * 3
            + [self.ledger] * 4
            + [self.offer] * 3
            + [self.offer_answered] * 2
            + [self.assignment] * 2
            + [self.responder, self.responder, self.placed, self.retracted, self.unlinked, self.operation, self.site]
            + [self.warning]
        )
        told = 0
        while told < count:
            event = self.random.choice(steps)()
            if event is not None:
                yield self.tell(event)
                told += 1

    def _operation(self) -> dict[str, object]:
        name, exercise = self.random.choice(self.operations)
        return {"operation": name, "exercise": exercise}

    def _people(self) -> PeopleCount:
        return PeopleCount(
            affected=self._maybe(2000), displaced=self._maybe(300), injured=self._maybe(40), dead=self._maybe(5),
            missing=self._maybe(5),
        )  # fmt: skip

    def _maybe(self, top: int) -> int | None:
        return self.random.randint(0, top) if self.random.random() < 0.6 else None

    def report(self) -> Event:
        event = ReportReceived(
            **self._operation(),
            report_id=self.uuid(),
            text="Banjir setinggi lutut",
            location=Location(lon=107.6, lat=-6.9, admin=self.random.choice(AREAS))
            if self.random.random() < 0.8
            else None,
            hazard="flood",
            observed_at=self.time,
            people=self._people() if self.random.random() < 0.5 else None,
            reporter_kind=self.random.choice(["citizen", "citizen", "official"]),
            origin=self.random.choice(["/files/test", "/partners/pmi", "web"]),
        )
        self.reports.append(event)
        return event

    def linked(self) -> Event | None:
        if not self.reports or not self.incidents:
            return None
        report = self.random.choice(self.reports[-30:])
        return ReportLinked(
            operation=report.operation,
            exercise=report.exercise,
            report_id=report.report_id,
            incident_id=self.random.choice(self.incidents).incident_id,
            score=0.9,
            by="linker",
        )

    def unlinked(self) -> Event | None:
        if not self.reports or not self.incidents:
            return None
        report = self.random.choice(self.reports)
        return ReportUnlinked(
            operation=report.operation, exercise=report.exercise, report_id=report.report_id,
            incident_id=self.random.choice(self.incidents).incident_id, by="operator:test", reason="other",
        )  # fmt: skip

    def placed(self) -> Event | None:
        if not self.reports:
            return None
        return ReportPlaced(
            **self._operation(),
            report_id=self.random.choice(self.reports).report_id,
            location=Location(admin=self.random.choice(AREAS), place="Dayeuhkolot"),
            by="operator:test",
            reason="placed",
        )

    def retracted(self) -> Event | None:
        if not self.reports:
            return None
        report = self.random.choice(self.reports)
        return ReportRetracted(
            operation=report.operation, exercise=report.exercise, report_id=report.report_id, by="public:x", reason="x"
        )  # fmt: skip

    def incident(self) -> Event:
        event = IncidentOpened(
            **self._operation(),
            incident_id=self.uuid(),
            title=f"Banjir <{self.random.randint(1, 99)}> | *Kampung*",
            hazard=self.random.choice(["flood", "landslide", None]),
            severity=self.random.randint(1, 4),
            status="open",
            evidence=self.random.choice(["reported", "corroborated", "field_checked", "official"]),
            point=Point(lon=self.random.uniform(106, 108), lat=self.random.uniform(-7, -6)),
            admin=self.random.choice(AREAS),
            reports=self.random.randint(1, 9),
            people=self._people(),
            damage=Damage(houses_flooded=self._maybe(100), houses_heavy=self._maybe(9)),
            opened_at=self.time,
            updated_at=self.time,
            first_observed_at=self.time,
            last_observed_at=self.time,
            by="linker",
        )
        self.incidents.append(event)
        return event

    def incident_changed(self) -> Event | None:
        if not self.incidents:
            return None
        before = self.random.choice(self.incidents)
        values = before.model_dump() | {
            "people": self._people(),
            "reports": before.reports + 1,
            "severity": self.random.randint(1, 4),
            "updated_at": self.time,
        }
        kind = self.random.choice([IncidentUpdated] * 5 + [IncidentClosed, IncidentMerged, IncidentMoved])
        if kind is IncidentClosed:
            values["status"] = "closed"
        elif kind is IncidentMerged:
            values |= {"status": "merged", "merged_into": self.random.choice(self.incidents).incident_id}
        elif kind is IncidentMoved:
            values |= self._operation()
        return kind(**values)

    def need(self) -> Event:
        return self.make_need()

    def make_need(self) -> NeedState:
        incident = self.random.choice(self.incidents) if self.incidents and self.random.random() < 0.8 else None
        item = self.random.choice(["boat", "rice", "blanket", None])
        kind = self.random.choice([NeedDeclared, NeedDeclared, NeedDeclared, NeedDrafted, NeedWithdrawn])
        status = {NeedDeclared: "declared", NeedDrafted: "draft", NeedWithdrawn: "withdrawn"}[kind]
        event = kind(
            **self._operation(),
            need_id=self.uuid(),
            incident_id=incident.incident_id if incident else None,
            item=item,
            skill=None if item else self.random.choice(["medic", "boat_operator"]),
            quantity=self.random.randint(1, 40),
            unit="unit" if item else "person",
            severity=self.random.randint(1, 4),
            status=status,
            point=Point(lon=107.6, lat=-6.9),
            admin=self.random.choice(AREAS),
            window=Period(start=self.time, end=self.time + timedelta(hours=12)),
            by="operator:test",
        )
        self.needs.append(event)
        return event

    def ledger(self) -> Event | None:
        # Sometimes of a need that sitrep has not heard of: matching's topic may be ahead of intake's.
        need = self.random.choice(self.needs) if self.needs and self.random.random() < 0.9 else self.make_need()
        parts = [0] * 7
        for _ in range(need.quantity):
            parts[self.random.randrange(7)] += 1
        names = ("open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled")
        return LedgerChanged(
            operation=need.operation,
            exercise=need.exercise,
            need_id=need.need_id,
            incident_id=need.incident_id,
            item=need.item,
            skill=need.skill,
            unit=need.unit,
            severity=need.severity,
            admin=self.random.choice([need.admin, None]),
            needed=need.quantity,
            asked=0,
            cause="test",
            **dict(zip(names, parts, strict=True)),
        )

    def offer(self) -> Event | None:
        if not self.needs:
            return None
        need = self.random.choice(self.needs)
        event = OfferMade(
            operation=need.operation,
            exercise=need.exercise,
            offer_id=self.uuid(),
            need_id=need.need_id,
            responder_id=self.random.choice(self.responders).responder_id if self.responders else self.uuid(),
            organisation=self.random.choice(["pmi", "bpbd-kab-bandung", None]),
            item=need.item,
            skill=need.skill,
            quantity=1,
            state="made",
            window=need.window,
            expires_at=self.time + timedelta(minutes=30),
            by="planner",
        )
        self.offers.append(event)
        return event

    def offer_answered(self) -> Event | None:
        if not self.offers:
            return None
        offer = self.random.choice(self.offers)
        if self.random.random() < 0.5:
            return OfferAccepted(**offer.model_dump() | {"state": "accepted"})
        return OfferDeclined(**offer.model_dump() | {"state": "declined"})

    def assignment(self) -> Event | None:
        if not self.offers:
            return None
        offer = self.random.choice(self.offers)
        kinds: list[type[AssignmentState]] = [
            AssignmentMade,
            AssignmentStarted,
            AssignmentDelivered,
            AssignmentAbandoned,
            AssignmentOverdue,
        ]
        kind = self.random.choice(kinds)
        late: dict[str, Any] = (
            {"level": 1, "due_at": self.time, "heard_at": self.time} if kind is AssignmentOverdue else {}
        )
        return kind(
            operation=offer.operation,
            exercise=offer.exercise,
            assignment_id=offer.offer_id,
            need_id=offer.need_id,
            responder_id=offer.responder_id,
            organisation=offer.organisation,
            quantity=1,
            state="started" if late else kind.type.split(".")[2],
            period=offer.window,
            by="operator:test",
            **late,
        )

    def responder(self) -> Event:
        if self.responders and self.random.random() < 0.6:
            known = self.random.choice(self.responders)
            return ResponderConfirmed(**known.model_dump() | {"status": "confirmed"})
        event = ResponderRegistered(
            exercise=self.random.random() < 0.3,
            responder_id=self.uuid(),
            kind="team",
            status="unconfirmed",
            capacity=self.random.randint(1, 12),
            by="desk",
        )
        self.responders.append(event)
        return event

    def site(self) -> Event:
        if self.sites and (len(self.sites) >= self.most_posts or self.random.random() < 0.6):
            known = self.random.choice(self.sites)
            if self.random.random() < 0.1:
                return SiteClosed(**known.model_dump() | {"status": "closed", "closed_at": self.time})
            female, male = self.random.randint(0, 90), self.random.randint(0, 90)
            count = Headcount(
                count_id=self.uuid(),
                counted_at=self.time,
                people=female + male,
                female=female,
                male=male,
                ages=(AgeCount(band="0-4", people=female // 3),),
                by="field:test",
            )
            return SiteCounted(**known.model_dump() | {"headcount": count, "counted": count, "counts": 1})
        event = SiteOpened(
            **self._operation(),
            site_id=self.uuid(),
            code=f"P{len(self.sites) + 1}",
            name=f"Posko SDN {len(self.sites) + 1}",
            point=Point(lon=107.6, lat=-6.9),
            admin=self.random.choice(AREAS),
            capacity=self._maybe(200),
            opened_at=self.time,
            by="operator:test",
        )
        self.sites.append(event)
        return event

    def warning(self) -> Event:
        west, south = self.random.uniform(106, 107.4), self.random.uniform(-7, -6.6)
        ring = ((west, south), (west + 0.5, south), (west + 0.5, south + 0.5), (west, south + 0.5), (west, south))
        return WarningIssued(
            warning_id=self.uuid(),
            message=WarningMessage(identifier=str(self.uuid()), sender="bmkg", sent_at=self.time, type="alert"),
            state="active",
            status="actual",
            hazard="flood",
            severity=3,
            urgency="immediate",
            certainty="likely",
            effective_at=self.time,
            expires_at=self.time + timedelta(hours=6),
            area=WarningArea(polygons=(ring,)),
            origin="bmkg",
            signature="none",
            messages=1,
            by="feed:test",
        )

    def silence(self) -> Event:
        return SilenceNoticed(
            **self._operation(),
            area=self.random.choice(("kemendagri:32.04", "kemendagri:32.73")),
            name="Bandung",
            warning_id=self.uuid(),
            hazard="flood",
            severity=3,
            since=self.time,
            expected="10-19",
            received=self.random.choice(("0", "1-4")),
        )

    def operation(self) -> Event:
        name, exercise = self.random.choice(self.operations)
        return OperationUpdated(
            operation=name,
            exercise=exercise,
            title=f"Operasi {name}",
            timezone="Asia/Makassar",
            lead=self.random.choice(["bnpb", None]),
            status=DeclaredStatus(declared="tanggap_darurat", level="kabupaten", decree="360/1", until=self.time),
            opened_at=START,
            by="admin:test",
        )


def shuffled(told: list[Told], seed: int, reach: int = 40) -> list[Told]:
    """The same events, some of them late and some of them twice, as a wire without promises would bring them."""
    chance = random.Random(seed)
    late = sorted(range(len(told)), key=lambda at: at + chance.uniform(0, reach))
    out = []
    for at in late:
        out.append(told[at])
        if chance.random() < 0.15:
            out.append(told[chance.randint(max(0, at - reach), at)])
    return out
