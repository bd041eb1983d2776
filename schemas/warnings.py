"""Warnings: what an authority says is coming, from CAP messages; one warning is the chain of messages about it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from schemas.event import Event, Value
from schemas.values import AreaCode, Code, Count, Lat, Lon, Point, Severity


class WarningMessage(Value):
    """One CAP message, named as CAP names it."""

    identifier: Annotated[str, StringConstraints(max_length=500)]
    sender: Annotated[str, StringConstraints(max_length=500)]
    sent_at: AwareDatetime
    type: Literal["alert", "update", "cancel"]


class WarningText(Value):
    """What it says in one language; long texts are cut."""

    language: str
    event: str
    headline: str | None = None
    description: str | None = None
    instruction: str | None = None


class WarningArea(Value):
    """Where. Each polygon is one ring of [lon, lat], last point the first; circles have become polygons.

    `simplified`: the rings have fewer points than the authority gave. `codes` are the areas that it named by code.
    """

    description: str | None = None
    polygons: tuple[tuple[tuple[Lon, Lat], ...], ...] = ()
    points: tuple[Point, ...] = ()
    bbox: tuple[Lon, Lat, Lon, Lat] | None = None
    codes: tuple[AreaCode, ...] = ()
    simplified: bool = False


class WarningState(Event):
    """A warning after the change, as the newest message of its chain has it. Producer: intake.

    `warning_id` comes from the first message of the chain and is the same in every installation. `severity` is CAP's
    (Extreme 4, Severe 3, Moderate 2, else 1); `urgency`, `certainty` and `responses` are CAP's own words in lower case.
    `irregularities`: what the message got wrong and what was made of it, at most 20. `state` merged: an earlier
    message came in, the warning goes on under `merged_into`.
    """

    topic: ClassVar = "gotong.warnings.v1"
    key: ClassVar = "warning_id"
    subject: ClassVar = "warning_id"

    warning_id: UUID
    message: WarningMessage
    state: Literal["active", "cancelled", "expired", "merged"]
    status: Literal["actual", "exercise", "test"]
    hazard: Code | None = None
    categories: tuple[str, ...] = ()
    severity: Severity
    urgency: str
    certainty: str
    responses: tuple[str, ...] = ()
    texts: tuple[WarningText, ...] = ()
    sender_name: str | None = None
    web: str | None = None
    contact: str | None = None
    effective_at: AwareDatetime
    onset_at: AwareDatetime | None = None
    expires_at: AwareDatetime
    area: WarningArea
    origin: str
    signature: Literal["none", "valid", "weak", "invalid", "unchecked"]
    signed_by: str | None = None
    trusted: bool = False
    irregularities: Annotated[tuple[str, ...], Field(max_length=20)] = ()
    messages: Count
    merged_into: UUID | None = None
    by: str
    reason: str | None = None


class WarningIssued(WarningState):
    """An authority warns."""

    type: ClassVar = "gotong.warning.issued.v1"


class WarningUpdated(WarningState):
    """It changed, or another message of its chain became known."""

    type: ClassVar = "gotong.warning.updated.v1"


class WarningCancelled(WarningState):
    """The authority took it back."""

    type: ClassVar = "gotong.warning.cancelled.v1"


class WarningExpired(WarningState):
    """Its time has run out."""

    type: ClassVar = "gotong.warning.expired.v1"
