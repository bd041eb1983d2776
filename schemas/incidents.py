"""Incidents: one situation at one place that a dispatcher would handle as one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.event import Event
from schemas.values import AreaCode, Count, Damage, Evidence, PeopleCount, Point, Sensitivity, Severity


class IncidentState(Event):
    """An incident after the change; `changed` names the fields that moved. Producer: intake.

    `point` is the middle of the located reports. `newest_reports` holds at most 20 ids, newest last. `facts` says how
    far each fact is believed (`people.dead`, `hazard`), `disputed` which of them somebody contradicts. `priority` runs
    from 0 to 100; what waits gains a little by the hour, which is told with the next change. `attend_by`: by when
    somebody should have looked at it; None once somebody has. `exercise_suggested`: a text of it calls itself a drill.
    """

    topic: ClassVar = "gotong.incidents.v1"
    key: ClassVar = "incident_id"
    subject: ClassVar = "incident_id"

    incident_id: UUID
    title: str
    hazard: str | None = None
    severity: Severity
    status: Literal["open", "closed", "merged"]
    evidence: Evidence
    point: Point | None = None
    admin: AreaCode | None = None
    place: str | None = None
    reports: Count
    newest_reports: tuple[UUID, ...] = ()
    people: PeopleCount = PeopleCount()
    damage: Damage = Damage()
    opened_at: AwareDatetime
    updated_at: AwareDatetime
    first_observed_at: AwareDatetime
    last_observed_at: AwareDatetime
    merged_into: UUID | None = None
    facts: dict[str, Evidence] = {}
    disputed: tuple[str, ...] = ()
    sensitivity: Sensitivity | None = None
    priority: Annotated[int, Field(ge=0, le=100)] = 0
    attend_by: AwareDatetime | None = None
    water_depth_cm: Annotated[float, Field(ge=0)] | None = None
    persons: Count | None = None
    vulnerable: tuple[str, ...] = ()
    exercise_suggested: bool = False
    changed: tuple[str, ...] = ()
    by: str
    reason: str | None = None


class IncidentOpened(IncidentState):
    """A report fitted no known incident."""

    type: ClassVar = "gotong.incident.opened.v1"


class IncidentUpdated(IncidentState):
    """A report joined or left, or a figure changed."""

    type: ClassVar = "gotong.incident.updated.v1"


class IncidentVerified(IncidentState):
    """Somebody on the ground or an authority vouched for it."""

    type: ClassVar = "gotong.incident.verified.v1"


class IncidentMerged(IncidentState):
    """It turned out to be the same as `merged_into`, which holds its reports from now on."""

    type: ClassVar = "gotong.incident.merged.v1"


class IncidentSplit(IncidentState):
    """Some of its reports were found to speak of something else, which is an incident of its own now."""

    type: ClassVar = "gotong.incident.split.v1"


class IncidentMoved(IncidentState):
    """It belongs to another operation from now on."""

    type: ClassVar = "gotong.incident.moved.v1"


class IncidentClosed(IncidentState):
    """An operator closed it; incidents are never closed by themselves."""

    type: ClassVar = "gotong.incident.closed.v1"


class IncidentOverdue(IncidentState):
    """Nobody has looked at it within the time that its severity allows: `target_s` seconds from its first report."""

    type: ClassVar = "gotong.incident.overdue.v1"

    target_s: Count
