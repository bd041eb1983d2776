"""Responders: people and teams that can act. No name, number or exact home enters an event."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.event import Event, Value
from schemas.values import AreaCode, Code, Period


class Skill(Value):
    """What somebody can do; `level` 1 (helper) to 5 (leads others).

    `basis`: claimed (nobody looked), vouched (by a community leader), earned (by confirmed assignments, of which
    `cites` names the newest) or checked (by an organisation, named in `by`).
    """

    skill: Code
    level: Annotated[int, Field(ge=1, le=5)] = 1
    basis: Code = "checked"
    by: str | None = None
    cites: Annotated[tuple[UUID, ...], Field(max_length=5)] = ()


class Certificate(Value):
    """A proof, valid until an instant; None: without end. `verified_by`: who saw it, never a person's name."""

    code: Code
    valid_until: AwareDatetime | None = None
    issuer: str | None = None
    valid_from: AwareDatetime | None = None
    verified_by: str | None = None
    revoked_at: AwareDatetime | None = None


class ResponderState(Event):
    """A responder after the change. `home_cell` is an H3 cell of resolution 8. Producer: registry.

    `capacity` counts the people of a team (1 for a person); a team comes with at least `minimum_team` of them.
    `availability` empty: at any time. It is what remains of windows, shifts and recurring hours for the weeks ahead
    when all times at which they must not be sent are taken away.
    They are not sent to needs of what they avoid. `rest_h` before and after each duty, and `max_hours_day`
    in any 24, are their own rule.
    `skills` and `certificates` are those that count: what nobody has checked and would be dangerous if it were not
    true stands apart, as claimed. A certificate that was revoked stands in `revoked_certificates` and nowhere else.
    """

    topic: ClassVar = "gotong.responders.v1"
    key: ClassVar = "responder_id"
    subject: ClassVar = "responder_id"

    responder_id: UUID
    kind: Literal["person", "team"]
    status: Literal["unconfirmed", "confirmed", "withdrawn"]
    contact_id: str | None = None
    organisation: str | None = None
    skills: tuple[Skill, ...] = ()
    certificates: tuple[Certificate, ...] = ()
    languages: tuple[str, ...] = ()
    home_cell: str | None = None
    travel_limit_km: Annotated[float, Field(gt=0, le=2000)] = 25
    capacity: Annotated[int, Field(ge=1, le=10_000)] = 1
    minimum_team: Annotated[int, Field(ge=1, le=10_000)] = 1
    availability: tuple[Period, ...] = ()
    claimed_skills: tuple[Skill, ...] = ()
    claimed_certificates: tuple[Certificate, ...] = ()
    revoked_certificates: tuple[Certificate, ...] = ()
    transport: Code | None = None
    rest_h: Annotated[float, Field(ge=0, le=72)] | None = None
    max_hours_day: Annotated[float, Field(gt=0, le=24)] | None = None
    avoids_hazards: Annotated[tuple[Code, ...], Field(max_length=30)] = ()
    avoids_areas: Annotated[tuple[AreaCode, ...], Field(max_length=50)] = ()
    channel: Code | None = None
    language: str | None = None
    by: str
    reason: str | None = None


class ResponderRegistered(ResponderState):
    """Somebody offered to help; nobody unconfirmed is planned for."""

    type: ClassVar = "gotong.responder.registered.v1"


class ResponderConfirmed(ResponderState):
    """They are who they say they are, and may be asked."""

    type: ClassVar = "gotong.responder.confirmed.v1"


class ResponderUpdated(ResponderState):
    """Skills, availability or home changed."""

    type: ClassVar = "gotong.responder.updated.v1"


class ResponderWithdrawn(ResponderState):
    """They may not be asked any more."""

    type: ClassVar = "gotong.responder.withdrawn.v1"
