"""What people and systems may send: the bodies of the HTTP interface, strict about what could mislead and patient
with everything else (fields that we do not know are ignored)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic import StringConstraints as Length

from schemas import vocabulary
from schemas.reports import ReporterKind
from schemas.values import (
    AreaCode,
    Damage,
    Evidence,
    Lat,
    Lon,
    Media,
    OperationId,
    PeopleCount,
    Period,
    Quantity,
    Requirements,
    Sensitivity,
    Severity,
)
from services.intake.needs import item_code, skill_code

_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_LANGUAGE = re.compile(r"[A-Za-z]{2,8}(-[A-Za-z0-9]{1,8}){0,3}")
Reason = Annotated[str, Length(strip_whitespace=True, min_length=1, max_length=1000)]


def _storable(at: datetime) -> datetime:
    """An instant that every part can count with: from 1900, and one that can be said in UTC."""
    try:
        utc = at.astimezone(UTC)
    except OverflowError:
        raise ValueError("this instant is outside the calendar") from None
    if utc.year < 1900:
        raise ValueError("this instant is before 1900")
    return utc


Instant = Annotated[AwareDatetime, AfterValidator(_storable)]


Word = Annotated[str, Query(max_length=100, pattern=r"^[^\x00]*$")]
"""A query parameter that is compared with a column: PostgreSQL's text holds no NUL."""


class Body(BaseModel):
    """Frozen; unknown fields are ignored; NaN and Infinity are no numbers."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class PlaceIn(Body):
    """Where something is: a point, a place name, an area code with its scheme, or several of them."""

    lon: Lon | None = None
    lat: Lat | None = None
    accuracy_m: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    place: Annotated[str, Length(max_length=500)] | None = None
    admin: AreaCode | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.lon is None) != (self.lat is None):
            raise ValueError("lon and lat go together")
        return self

    @property
    def placed(self) -> bool:
        return self.lon is not None or self.admin is not None


class StatedNeedIn(Body):
    """What a report asks for, by code or everyday word: exactly one item or one skill."""

    item: Annotated[str, Length(min_length=1, max_length=100)] | None = None
    skill: Annotated[str, Length(min_length=1, max_length=100)] | None = None
    quantity: Quantity

    @field_validator("item")
    @classmethod
    def _item(cls, value: str | None) -> str | None:
        return None if value is None else item_code(value)

    @field_validator("skill")
    @classmethod
    def _skill(cls, value: str | None) -> str | None:
        return None if value is None else skill_code(value)

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.item is None) == (self.skill is None):
            raise ValueError("name exactly one of item and skill")
        return self


class ReporterIn(Body):
    """Who reports. Name and number are sealed and never leave intake."""

    name: Annotated[str, Length(max_length=200)] | None = None
    phone: Annotated[str, Length(max_length=50)] | None = None
    kind: ReporterKind = "citizen"
    language: Annotated[str, Length(max_length=35)] | None = None

    @field_validator("language")
    @classmethod
    def _tag(cls, value: str | None) -> str | None:
        """A language tag, or nothing: this field travels in events, so it holds nothing else."""
        return value if value and _LANGUAGE.fullmatch(value) else None


class ReportIn(Body):
    """A report from the field. Needed: text or title, hazard or media; asked for: a place."""

    title: Annotated[str, Length(max_length=300)] | None = None
    text: Annotated[str, Length(max_length=10_000)] | None = None
    location: PlaceIn | None = None
    hazard: Annotated[str, Length(max_length=100)] | None = None
    severity: Severity | None = None
    observed_at: Instant | None = None
    people: PeopleCount | None = None
    damage: Damage | None = None
    needs: Annotated[tuple[StatedNeedIn, ...], Field(max_length=50)] = ()
    reporter: ReporterIn | None = None
    media: Annotated[tuple[Media, ...], Field(max_length=20)] = ()
    external_id: Annotated[str, Length(min_length=1, max_length=500)] | None = None
    external_url: Annotated[str, Length(max_length=2000, pattern=r"^https?://")] | None = None
    source: Annotated[str, Length(min_length=1, max_length=300)] | None = None
    operation: OperationId | None = None

    @field_validator("external_id", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**30 else value

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        said = (self.text or "").strip() or (self.title or "").strip() or (self.hazard or "").strip()
        if not said and not self.media:
            raise ValueError("a report needs a text or title, a hazard, or media")
        return self


def hazard_code(word: str | None, *, foreign: bool) -> str | None:
    """The hazard's code. A word that nobody knows stays if it has a code's form, and else becomes `other` in a
    foreign file.

    Raises
    ------
    ValueError
        It is neither, and this is no foreign file.
    """
    if word is None or not word.strip():
        return None
    known = vocabulary.hazard_of(word)
    if known is not None:
        return known
    if _CODE.fullmatch(word):
        return word
    if foreign:
        return "other"
    raise ValueError("this hazard is not known; name one of the vocabulary, or a word of a-z, 0-9 and _")


class PlacingIn(Body):
    """Where a report belongs, or what its photograph or recording shows or says, told by an operator."""

    location: PlaceIn | None = None
    operation: OperationId | None = None
    transcript: Annotated[str, Length(strip_whitespace=True, min_length=1, max_length=10_000)] | None = None
    reason: Reason

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.location is None and self.operation is None and self.transcript is None:
            raise ValueError("name a location, an operation or a transcript")
        if self.location is not None and not self.location.placed:
            raise ValueError("the location needs lon and lat, or an area code")
        return self


class TicketConfirmIn(Body):
    """Whether what was promised arrived, said by whoever holds the ticket."""

    received: Literal["yes", "no", "partly"]
    need_id: UUID | None = None
    quantity: Quantity | None = None

    @model_validator(mode="after")
    def _how_much(self) -> Self:
        if self.received == "partly" and self.quantity is None:
            raise ValueError("say with quantity how much was received")
        return self


class NeedConfirmIn(Body):
    """Whether a delivery arrived, said by an operator or on the ground."""

    received: Literal["yes", "no", "partly"]
    quantity: Quantity | None = None
    reason: Reason

    @model_validator(mode="after")
    def _how_much(self) -> Self:
        if self.received == "partly" and self.quantity is None:
            raise ValueError("say with quantity how much was received")
        return self


class NeedIn(Body):
    """A need: exactly one item or one skill, of an incident or at a place. `site_id`: the evacuation post that asks."""

    item: Annotated[str, Length(min_length=1, max_length=100)] | None = None
    skill: Annotated[str, Length(min_length=1, max_length=100)] | None = None
    quantity: Quantity
    incident: UUID | None = None
    location: PlaceIn | None = None
    severity: Severity | None = None
    window: Period | None = None
    requires: Requirements = Requirements()
    bundle_id: UUID | None = None
    site_id: UUID | None = None
    people: PeopleCount | None = None
    operation: OperationId | None = None
    sensitivity: Sensitivity | None = None
    reason: Reason | None = None

    _item = field_validator("item")(StatedNeedIn._item.__func__)  # type: ignore[attr-defined]
    _skill = field_validator("skill")(StatedNeedIn._skill.__func__)  # type: ignore[attr-defined]

    @field_validator("requires")
    @classmethod
    def _bounded(cls, value: Requirements) -> Requirements:
        if len(value.certificates) > 20 or len(value.languages) > 20 or any(len(word) > 35 for word in value.languages):
            raise ValueError("at most 20 certificates and 20 languages are taken")
        return value

    @field_validator("window")
    @classmethod
    def _storable_window(cls, value: Period | None) -> Period | None:
        return None if value is None else Period(start=_storable(value.start), end=_storable(value.end))

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.item is None) == (self.skill is None):
            raise ValueError("name exactly one of item and skill")
        if self.incident is None and self.location is None:
            raise ValueError("name an incident, a location, or both")
        return self


class NeedChangeIn(Body):
    """An operator's word on a need."""

    quantity: Quantity | None = None
    status: Literal["declared", "withdrawn"] | None = None
    location: PlaceIn | None = None
    reason: Reason

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.quantity is None and self.status is None and self.location is None:
            raise ValueError("name a quantity, a status or a location")
        return self


class MergeIn(Body):
    into: UUID
    reason: Reason


class SplitIn(Body):
    reports: Annotated[tuple[UUID, ...], Field(min_length=1, max_length=1000)]
    reason: Reason


class ReportLinkIn(Body):
    report: UUID
    reason: Reason


class VerifyIn(Body):
    """`value`: what was found, where that is not what the fact says now: a count, a hazard's code, or a depth in cm."""

    evidence: Evidence
    fact: Annotated[str, Length(pattern=r"^[a-z][a-z0-9_.]{0,60}$")] | None = None
    value: Annotated[int, Field(ge=0, le=1_000_000_000)] | Annotated[str, Length(max_length=100)] | None = None
    reason: Reason

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.value is None:
            return self
        group, _, name = (self.fact or "").partition(".")
        known = {"people": PeopleCount.model_fields, "damage": Damage.model_fields}.get(group, {})
        if self.fact == "hazard":
            if not isinstance(self.value, str) or hazard_code(self.value, foreign=False) is None:
                raise ValueError("the value of a hazard is its code or everyday word")
        elif self.fact != "water_depth_cm" and name not in known:
            raise ValueError("a value goes with hazard, water_depth_cm, people.<which> or damage.<which>")
        elif not isinstance(self.value, int):
            raise ValueError("the value of this fact is a whole number")
        return self

    @property
    def found(self) -> int | str | None:
        """The value as it is stored: a hazard by its code."""
        return hazard_code(self.value, foreign=False) if isinstance(self.value, str) else self.value


class ProtectIn(Body):
    """`sensitivity`: the protected class, null for none."""

    sensitivity: Sensitivity | None
    reason: Reason


class MoveIn(Body):
    operation: OperationId
    reason: Reason


class CloseIn(Body):
    reason: Reason
