"""Assignments: accepted offers, followed to their confirmed end."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import Code, Period, Quantity, Sensitivity


class AssignmentState(Event):
    """An assignment after the change; its id is its offer's. Producer: matching."""

    topic: ClassVar = "gotong.assignments.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "assignment_id"

    assignment_id: UUID
    need_id: UUID
    incident_id: UUID | None = None
    responder_id: UUID | None = None
    lot_id: UUID | None = None
    organisation: str | None = None
    item: Code | None = None
    skill: Code | None = None
    quantity: Quantity
    state: Literal["made", "started", "arrived", "delivered", "confirmed", "abandoned"]
    period: Period
    sensitivity: Sensitivity | None = None
    by: str
    reason: str | None = None


class AssignmentMade(AssignmentState):
    """A promise: so much of this need is committed."""

    type: ClassVar = "gotong.assignment.made.v1"


class AssignmentStarted(AssignmentState):
    """On the way."""

    type: ClassVar = "gotong.assignment.started.v1"


class AssignmentArrived(AssignmentState):
    """On scene."""

    type: ClassVar = "gotong.assignment.arrived.v1"


class AssignmentDelivered(AssignmentState):
    """Done, says whoever did it."""

    type: ClassVar = "gotong.assignment.delivered.v1"


class AssignmentConfirmed(AssignmentState):
    """Done, says whoever should have it, or an operator."""

    type: ClassVar = "gotong.assignment.confirmed.v1"


class AssignmentAbandoned(AssignmentState):
    """It will not be done, or did not arrive: the need is open again by as much."""

    type: ClassVar = "gotong.assignment.abandoned.v1"


class AssignmentReleaseRequested(AssignmentState):
    """Whoever holds it is asked to give it up, for the stated reason; the promise stands, as `state` says, until they
    or a dispatcher abandon it. Never of somebody on scene."""

    type: ClassVar = "gotong.assignment.release_requested.v1"


class AssignmentOverdue(AssignmentState):
    """Nobody has heard of it since `heard_at`, though word was due at `due_at`. `level` says who should ask next: 1
    whoever holds it, 2 their organisation, 3 the dispatcher. The promise stands, as `state` says."""

    type: ClassVar = "gotong.assignment.overdue.v1"

    level: Literal[1, 2, 3]
    due_at: AwareDatetime
    heard_at: AwareDatetime
