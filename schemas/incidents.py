"""Incidents: one situation at one place that a dispatcher would handle as one."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import AreaCode, Count, Damage, Evidence, PeopleCount, Point, Severity


class IncidentState(Event):
    """An incident after the change; `changed` names the fields that moved. Producer: intake.

    `point` is the middle of the located reports. `newest_reports` holds at most 20 ids, newest last.
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
