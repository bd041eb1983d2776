"""Reports: one message from the field each, as received and never edited."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import Count, Damage, Location, Media, PeopleCount, Sensitivity, Severity, StatedNeed

ReporterKind = Literal["citizen", "volunteer", "official"]


class ReportEvent(Event):
    """Something happened to one report."""

    topic: ClassVar = "gotong.reports.v1"
    key: ClassVar = "report_id"
    subject: ClassVar = "report_id"

    report_id: UUID
    sensitivity: Sensitivity | None = None


class ReportReceived(ReportEvent):
    """A report was taken. `text` is masked and at most 16 KiB (`text_cut` says that there was more). Producer: intake.

    `origin` is who says so: the file, partner or channel, with `external_id` in its own numbering.
    `clock_ahead`: `observed_at` lay in the future, so the time of receipt counts instead.
    """

    type: ClassVar = "gotong.report.received.v1"

    title: str | None = None
    text: str | None = None
    text_cut: bool = False
    location: Location | None = None
    needs_place: bool = False
    hazard: str | None = None
    severity: Severity | None = None
    observed_at: AwareDatetime
    clock_ahead: bool = False
    people: PeopleCount | None = None
    damage: Damage | None = None
    needs: tuple[StatedNeed, ...] = ()
    media: tuple[Media, ...] = ()
    reporter_kind: ReporterKind = "citizen"
    language: str | None = None
    origin: str
    external_id: str | None = None
    external_url: str | None = None
    bulk: bool = False


class ReportLinked(ReportEvent):
    """A report was joined to an incident, by rule or by hand. `score` runs from 0 to 1. Producer: intake."""

    type: ClassVar = "gotong.report.linked.v1"

    incident_id: UUID
    score: float | None = None
    parts: dict[str, float] = {}
    copy_of: UUID | None = None
    by: str
    reason: str | None = None


class ReportUnlinked(ReportEvent):
    """A report was taken out of an incident by hand. Producer: intake."""

    type: ClassVar = "gotong.report.unlinked.v1"

    incident_id: UUID
    by: str
    reason: str


class ReportPlaced(ReportEvent):
    """A report without a place was given one, or moved to another operation. Producer: intake."""

    type: ClassVar = "gotong.report.placed.v1"

    location: Location | None = None
    by: str
    reason: str


class ReportTranscribed(ReportEvent):
    """A photograph or voice note was put into words by an operator. `text` is masked and at most 16 KiB (`text_cut`
    says that there was more). Producer: intake."""

    type: ClassVar = "gotong.report.transcribed.v1"

    text: str
    text_cut: bool = False
    by: str
    reason: str


class ReportRetracted(ReportEvent):
    """A report was taken back by whoever sent it. Producer: intake."""

    type: ClassVar = "gotong.report.retracted.v1"

    by: str
    reason: str


class ReportOverdue(ReportEvent):
    """A report has waited longer than it should: `waits_for` linking, or for somebody to say where it is. Told once for
    each wait; `target_s` seconds were allowed from `since`. Producer: intake."""

    type: ClassVar = "gotong.report.overdue.v1"

    waits_for: Literal["linking", "place"]
    since: AwareDatetime
    target_s: Count
