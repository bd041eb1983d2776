"""What callers send to the registry, checked once as it comes in.

What is made takes unknown fields and ignores them, as our events do; a change names only fields that exist, so that
a misspelt one is not taken for a change that was made.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import cache
from typing import Annotated, Any, Literal, Self
from uuid import UUID
from zoneinfo import available_timezones

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from schemas import vocabulary
from schemas.operations import DeclaredStatus
from schemas.sites import AgeCount, Headcount, HeadcountCell
from schemas.values import STANDING, AreaCode, Code, Count, Lat, Lon, OperationId, Period, Quantity
from services.registry.domain import misfit
from services.registry.schedule import DoNotSend, Weekly, hazard_word
from services.runtime import vault

_GLIDE = re.compile(r"[A-Z]{2}-\d{4}-\d{6}-[A-Z]{3}(?:-[A-Z0-9]{1,10})?")


def _glide(number: str) -> str:
    if not _GLIDE.fullmatch(number):
        raise ValueError("a GLIDE number looks like FL-2026-000123-IDN")
    return number


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("no such time zone; Indonesia has Asia/Jakarta, Asia/Makassar and Asia/Jayapura")
    return name


def _item(word: Any) -> Any:
    if not isinstance(word, str) or word in vocabulary.items():
        return word
    return vocabulary.item_of(word) or word


def _skill(given: Any) -> Any:
    """`"medic"`, `"tenaga medis"` and `{"skill": "medic", "level": 3}` all name a skill."""
    if isinstance(given, str):
        given = {"skill": given}
    word = given.get("skill") if isinstance(given, dict) else None
    if not isinstance(word, str) or word in vocabulary.skills():
        return given
    return {**given, "skill": vocabulary.skill_of(word) or word}


class SkillClaim(BaseModel):
    """A skill as somebody tells it; on what it rests is for us to say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    skill: Code
    level: Annotated[int, Field(ge=1, le=5)] = 1


class CertificateClaim(BaseModel):
    """A certificate as somebody tells it; who saw it is for us to say."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: Code
    issuer: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = None
    valid_from: AwareDatetime | None = None
    valid_until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.valid_from and self.valid_until and self.valid_until <= self.valid_from:
            raise at("valid_until", "a certificate ends after it begins")
        return self


def _skill_word(word: Any) -> Any:
    return vocabulary.skill_of(word) or word if isinstance(word, str) else word


def _best(skills: tuple[SkillClaim, ...]) -> tuple[SkillClaim, ...]:
    """Each skill once, with its highest level."""
    best: dict[str, SkillClaim] = {}
    for skill in skills:
        if skill.skill not in best or best[skill.skill].level < skill.level:
            best[skill.skill] = skill
    return tuple(best.values())


def _bbox(box: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
    west, south, east, north = box
    if not (-180 <= west < east <= 180 and -90 <= south < north <= 90):
        raise ValueError("bbox is west, south, east, north in degrees")
    return box


Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=300)]
Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=3, max_length=500)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60)]
"""An open word: a phase, a kind of organisation, a sector (the OCHA cluster codes, HEA, WSH …, are the known ones)."""
Phases = Annotated[tuple[Word, ...], Field(max_length=10)]
SectorCodes = Annotated[
    tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z]{2,6}(-[A-Z]{2,6})?$")], ...], Field(max_length=30)
]
MayVerify = Annotated[tuple[Code, ...], Field(max_length=200)] | None
Lead = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Place = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
Glide = Annotated[str, StringConstraints(max_length=40), AfterValidator(_glide)]
Zone = Annotated[str, StringConstraints(max_length=60), AfterValidator(_zone)]
Hazard = Annotated[Code, BeforeValidator(hazard_word)]
Hazards = Annotated[tuple[Hazard, ...], Field(max_length=30)]
Areas = Annotated[tuple[AreaCode, ...], Field(max_length=200)]
Box = Annotated[tuple[float, float, float, float], AfterValidator(_bbox)]
Item = Annotated[Code, BeforeValidator(_item)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Phone = Annotated[str, StringConstraints(max_length=40), AfterValidator(vault.normal_number)]
"""A telephone number in any common spelling; E.164 once checked."""
Skills = Annotated[
    tuple[Annotated[SkillClaim, BeforeValidator(_skill)], ...], Field(max_length=50), AfterValidator(_best)
]
Certificates = Annotated[tuple[CertificateClaim, ...], Field(max_length=50)]
Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?$", to_lower=True)]
Purpose = Literal["dispatch", "sharing"]
Channel = Literal["sms", "whatsapp", "email", "webhook"]
Languages = Annotated[tuple[Language, ...], Field(max_length=20)]
Availability = Annotated[tuple[Period, ...], Field(max_length=100)]
TravelLimit = Annotated[float, Field(gt=0, le=2000)]
DeliveryLimit = Annotated[float, Field(gt=0, le=10_000)]
Heads = Annotated[int, Field(ge=1, le=10_000)]
Source = Annotated[str, StringConstraints(min_length=1, max_length=200)]
ExternalId = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Order(BaseModel):
    """Something to be made."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class Change(BaseModel):
    """Fields to be changed; those that are not named stay as they are."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if not self.model_fields_set - {"reason"}:
            raise ValueError("name at least one field to change")
        return self

    def changes(self) -> dict[str, Any]:
        """The fields that were named, as Python values."""
        return {name: getattr(self, name) for name in self.model_fields_set - {"reason"}}


class OperationOrder(Order):
    id: OperationId
    title: Title
    glide: Glide | None = None
    hazards: Hazards = ()
    areas: Areas = ()
    bbox: Box | None = None
    timezone: Zone = "Asia/Jakarta"
    lead: Lead | None = None
    status: DeclaredStatus | None = None
    phase: Word | None = None
    exercise: bool = False


class OperationChange(Change):
    title: Title = ""
    glide: Glide | None = None
    hazards: Hazards = ()
    areas: Areas = ()
    bbox: Box | None = None
    timezone: Zone = ""
    lead: Lead | None = None
    status: DeclaredStatus | None = None
    phase: Word | None = None
    exercise: bool = False
    closed: bool = False
    reason: Reason | None = None


class OrganisationOrder(Order):
    """`id` is what tokens, responders and lots name; `kind` is government, ngo, community, private …

    `sectors` are those it works in, `leads` those it leads (codes of `schemas/vocabulary/sectors.csv`); `areas` and
    `phases` where and when it acts, none: everywhere, always. `may_verify`: the skills and certificates that it may
    check; null: all of its own people.
    """

    id: Slug
    name: Title
    kind: Word = "ngo"
    sectors: SectorCodes = ()
    leads: SectorCodes = ()
    areas: Areas = ()
    phases: Phases = ()
    may_verify: MayVerify = None


class DutyOrder(Order):
    """The number at which an organisation is asked about its stock; null: none any more. It is kept sealed."""

    phone: Phone | None
    channel: Literal["sms", "whatsapp"] = "sms"
    language: Language | None = None


class OrganisationChange(Change):
    name: Title = ""
    kind: Word = ""
    sectors: SectorCodes = ()
    leads: SectorCodes = ()
    areas: Areas = ()
    phases: Phases = ()
    may_verify: MayVerify = None
    reason: Reason | None = None


class Home(BaseModel):
    """Where somebody starts from. Kept sealed; events carry an H3 cell of resolution 8 in its place."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    lon: Lon
    lat: Lat
    place: Place | None = None


class Registration(Order):
    """A person or a team that can act. Without a token a telephone number is needed.

    `availability` are plain windows, `shifts` those in which they are on duty, `weekly` hours that come again; none of
    them: at any time. `do_not_send` is taken away from all. `confirm_by` code: a desk or partner passes somebody on
    whom it did not see; they confirm with the code that is sent to them, and nothing of what they say is proved.
    """

    kind: Literal["person", "team"] = "person"
    name: Name | None = None
    phone: Phone | None = None
    location: Home | None = None
    organisation: Slug | None = None
    skills: Skills = ()
    certificates: Certificates = ()
    languages: Languages = ()
    travel_limit_km: TravelLimit = 25
    capacity: Heads = 1
    minimum_team: Heads = 1
    availability: Availability = ()
    shifts: Availability = ()
    weekly: Annotated[tuple[Weekly, ...], Field(max_length=20)] = ()
    do_not_send: DoNotSend = DoNotSend()
    timezone: Zone = "Asia/Jakarta"
    transport: Code | None = None
    rest_h: Annotated[float, Field(ge=0, le=72)] | None = None
    max_hours_day: Annotated[float, Field(gt=0, le=24)] | None = None
    channel: Channel | None = None
    language: Language | None = None
    confirm_by: Literal["desk", "code"] = "desk"
    consents: Annotated[tuple[Purpose, ...], Field(max_length=2)] = ("dispatch",)
    operation: OperationId | None = None
    source: Source | None = None
    external_id: ExternalId | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        found = misfit(self.kind, self.capacity, self.minimum_team)
        if found:
            raise at(found[0], found[1])
        if self.confirm_by == "code" and self.phone is None:
            raise at("phone", "a number is needed to send the code to")
        return self


class ConfirmOrder(Order):
    """The code that came by message."""

    code: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\d{6}$")]


class SessionOrder(Order):
    """With the number alone a code is sent to it; with the code as well, a token is given."""

    phone: Phone
    code: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^\d{6}$")] | None = None


class CardSeen(Order):
    """A registration card that a desk has scanned, and when; perhaps hours ago, without a network."""

    card: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    seen_at: AwareDatetime | None = None


class CheckOrder(Order):
    """What an organisation has checked. A list that is not named: all that is claimed; an empty one: nothing of it."""

    skills: Skills | None = None
    certificates: Certificates | None = None
    reason: Reason | None = None


class ConsentOrder(Order):
    """Whether somebody agrees to the newest text of a purpose."""

    purpose: Purpose
    given: bool


class VouchOrder(Order):
    """What a community leader says that somebody can do."""

    skill: Annotated[Code, BeforeValidator(_skill_word)]
    level: Annotated[int, Field(ge=1, le=5)] = 1
    reason: Reason


class LeaderOrder(Order):
    """Whether somebody is a community leader, who may vouch for neighbours."""

    leader: bool
    reason: Reason


class Because(Order):
    """A reason and nothing else."""

    reason: Reason


class ResponderChange(Change):
    name: Name = ""
    phone: Phone | None = None
    location: Home | None = None
    organisation: Slug | None = None
    skills: Skills = ()
    certificates: Certificates = ()
    languages: Languages = ()
    travel_limit_km: TravelLimit = 25
    capacity: Heads = 1
    minimum_team: Heads = 1
    availability: Availability = ()
    shifts: Availability = ()
    weekly: Annotated[tuple[Weekly, ...], Field(max_length=20)] = ()
    do_not_send: DoNotSend = DoNotSend()
    timezone: Zone = "Asia/Jakarta"
    transport: Code | None = None
    rest_h: Annotated[float, Field(ge=0, le=72)] | None = None
    max_hours_day: Annotated[float, Field(gt=0, le=24)] | None = None
    channel: Channel | None = None
    language: Language | None = None
    status: Literal["confirmed", "withdrawn"] = "confirmed"
    reason: Reason | None = None


class LotPlace(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    lon: Lon
    lat: Lat
    place: Place | None = None


class CrewOrder(BaseModel):
    """Who must come with each unit of a vehicle or boat."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    skill: Annotated[Code, BeforeValidator(_skill_word)]
    people: Annotated[int, Field(ge=1, le=1000)] = 1
    level: Annotated[int, Field(ge=1, le=5)] = 1


class KitPartOrder(BaseModel):
    """What one kit holds of an item, in that item's unit."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    item: Item
    quantity: Quantity


class LotOrder(Order):
    """A lot: a stock of one item at one place, vehicles, or a donor's pledge.

    `quantity` is in the item's unit, or in another `unit` that the table of conversions knows for this item. `crew`,
    `seats` and `payload_kg` are of one vehicle, `contents` of one kit; `expected_at`: when a pledge should arrive.
    """

    kind: Literal["stock", "vehicle", "pledge"] = "stock"
    item: Item
    quantity: Quantity
    unit: Code | None = None
    location: LotPlace
    place: Place | None = None
    organisation: Slug | None = None
    delivery_limit_km: DeliveryLimit = 100
    expires_at: AwareDatetime | None = None
    operation: OperationId | None = None
    source: Source | None = None
    external_id: ExternalId | None = None

    crew: Annotated[tuple[CrewOrder, ...], Field(max_length=20)] = ()
    seats: Count | None = None
    payload_kg: Count | None = None
    contents: Annotated[tuple[KitPartOrder, ...], Field(max_length=50)] = ()
    expected_at: AwareDatetime | None = None

    @model_validator(mode="after")
    def _in_its_unit(self) -> Self:
        unit = vocabulary.unit(self.item)
        if self.unit and unit and vocabulary.converted(self.item, self.quantity, self.unit) is None:
            raise at("unit", f"{self.item} is counted in {', '.join(vocabulary.units_of(self.item))}")
        if self.quantity_counted > 1_000_000_000:
            raise at("quantity", "that is more than there can be")
        if self.crew and self.kind == "stock":
            raise at("crew", "only vehicles and boats come with a crew; say kind vehicle")
        if len({part.item for part in self.contents}) < len(self.contents):
            raise at("contents", "each item of a kit is named once")
        if any(part.item == self.item for part in self.contents):
            raise at("contents", "a kit does not hold itself")
        return self

    @property
    def counted_in(self) -> str:
        return vocabulary.unit(self.item) or self.unit or "unit"

    @property
    def quantity_counted(self) -> int:
        """The quantity in the unit in which the item is counted."""
        if not self.unit or vocabulary.unit(self.item) is None:
            return self.quantity
        return vocabulary.converted(self.item, self.quantity, self.unit) or self.quantity

    def details(self) -> dict[str, Any]:
        """What is kept beside the columns, as JSON."""
        told = self.model_dump(
            mode="json", include={"crew", "seats", "payload_kg", "contents", "expected_at"}, exclude_defaults=True
        )
        serves = vocabulary.serves(self.item)
        return told | ({"serves": serves} if serves is not None else {})


class ArrivalOrder(Order):
    """What has come of a pledge: so much, in the item's unit (all of it without `quantity`), perhaps elsewhere than was
    said."""

    quantity: Quantity | None = None
    location: LotPlace | None = None
    expires_at: AwareDatetime | None = None
    reason: Reason | None = None


class LotChange(Change):
    quantity: Count = 0
    location: LotPlace | None = None
    place: Place | None = None
    organisation: Slug | None = None
    delivery_limit_km: DeliveryLimit = 100
    expires_at: AwareDatetime | None = None
    status: Literal["available", "withdrawn"] = "available"
    reason: Reason | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if "location" in self.model_fields_set and self.location is None:
            raise at("location", "a lot is somewhere; withdraw it when it is gone")
        return self


class SiteOrder(Order):
    """A place that takes people in. `manager` is a responder's id: who they are enters no event."""

    name: Title
    kind: Code = "evacuation_post"
    operation: OperationId = STANDING
    location: LotPlace | None = None
    admin: AreaCode | None = None
    organisation: Slug | None = None
    capacity: Count | None = None
    facilities: Annotated[tuple[Code, ...], Field(max_length=50)] = ()
    manager: UUID | None = None

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if self.location is None and self.admin is None:
            raise at("location", "say where it is: a location, or an area code in admin")
        return self


class SiteChange(Change):
    name: Title = ""
    kind: Code = "evacuation_post"
    operation: OperationId = STANDING
    location: LotPlace | None = None
    admin: AreaCode | None = None
    organisation: Slug | None = None
    capacity: Count | None = None
    facilities: Annotated[tuple[Code, ...], Field(max_length=50)] = ()
    manager: UUID | None = None
    closed: bool = False
    moved_to: UUID | None = None
    reason: Reason | None = None


class HeadcountOrder(Order):
    """How many people are at a site. Parts may leave people out and never add up to more than there are."""

    people: Count
    households: Count | None = None
    female: Count | None = None
    male: Count | None = None
    ages: Annotated[tuple[AgeCount, ...], Field(max_length=12)] = ()
    disability: Count | None = None
    pregnant: Count | None = None
    cells: Annotated[tuple[HeadcountCell, ...], Field(max_length=72)] = ()
    counted_at: AwareDatetime | None = None
    channel: Literal["app", "sms", "paper"] = "app"

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        self.counted(UUID(int=0), datetime(2000, 1, 1, tzinfo=UTC), "")
        return self

    def counted(self, count_id: UUID, counted_at: datetime, by: str) -> Headcount:
        """The headcount as it is kept."""
        fields = {name: getattr(self, name) for name in HeadcountOrder.model_fields if name != "counted_at"}
        return Headcount(**fields, count_id=count_id, counted_at=counted_at, by=by)


class HeadcountText(Order):
    """A headcount in a short text, as it comes by SMS, stands on paper, or is put together by the field page, which
    knows a site by its code only."""

    text: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500)]
    counted_at: AwareDatetime | None = None
    channel: Literal["app", "sms", "paper"] = "sms"


def at(field: str, reason: str) -> ValidationError:
    """A fault found by comparing fields, told at the field that is to be changed."""
    error = InitErrorDetails(
        type=PydanticCustomError("unfit", "{reason}", {"reason": reason}), loc=(field,), input=None
    )
    return ValidationError.from_exception_data("body", [error])
