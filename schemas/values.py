"""Values that several events share. Positions are WGS 84, lon before lat; area codes carry their scheme."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    Field,
    StringConstraints,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from schemas.event import Value

Lon = Annotated[float, Field(ge=-180, le=180)]
Lat = Annotated[float, Field(ge=-90, le=90)]


def _said_plainly(value: Any, check: ValidatorFunctionWrapHandler) -> str:
    """Refuse in words: what people send is most often the digits alone."""
    try:
        code: str = check(value)
    except ValidationError:
        bare = isinstance(value, int) or (isinstance(value, str) and ":" not in value)
        raise ValueError(
            "an area code needs its scheme, for example kemendagri:31.75.03 or bps:3174: the same digits mean "
            "different regencies in different schemes"
            if bare
            else "an area code is its scheme, a colon and the code, for example kemendagri:31.75.03 or bps:3174"
        ) from None
    return code


AreaCode = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{1,19}:[A-Za-z0-9.]{1,20}$"), WrapValidator(_said_plainly)
]
"""`scheme:code`, for example `kemendagri:31.75.03` or `bps:3174`. Digits without a scheme are refused:
156 Indonesian regencies share digits between Kemendagri and BPS."""
Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
"""A word of `schemas/vocabulary`; the lists may grow, so any word of this form is taken."""
OperationId = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Severity = Annotated[int, Field(ge=1, le=4)]
"""1 minor, 2 moderate, 3 serious, 4 life at risk now."""
Evidence = Literal["reported", "corroborated", "field_checked", "official"]
Sensitivity = Code
"""A protected class: what could harm the people it speaks of when it is known too exactly. Known values are
`sexual_violence`, `violence`, `child_protection`, `conflict`, `health_stigma` and `family_links`; a reader that does
not know the word protects all the same. What follows from something protected bears the same word."""
Quantity = Annotated[int, Field(ge=1, le=1_000_000_000)]
Count = Annotated[int, Field(ge=0, le=1_000_000_000)]

STANDING = "standing"
"""The operation that is always open: what fits no other goes here."""


class Point(Value):
    """A position. `accuracy_m`: radius in metres within which the true place lies."""

    lon: Lon
    lat: Lat
    accuracy_m: Annotated[float, Field(ge=0, le=1_000_000)] | None = None


class Location(Value):
    """Where something is, as far as it is known: a point, a place name, an area code, or several of them."""

    lon: Lon | None = None
    lat: Lat | None = None
    accuracy_m: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    place: Annotated[str, StringConstraints(max_length=500)] | None = None
    admin: AreaCode | None = None

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.lon is None) != (self.lat is None):
            raise ValueError("lon and lat go together")
        return self

    @property
    def placed(self) -> bool:
        """Whether it says where: a point or an area code. A place name alone still has to be looked up."""
        return self.lon is not None or self.admin is not None


class Period(Value):
    """From `start` (included) to `end` (excluded)."""

    start: AwareDatetime
    end: AwareDatetime

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if self.end <= self.start:
            raise ValueError("end must be after start")
        return self


class PeopleCount(Value):
    """People, as counted by somebody; None means that nothing was said, not zero."""

    affected: Count | None = None
    displaced: Count | None = None
    injured: Count | None = None
    dead: Count | None = None
    missing: Count | None = None


class Damage(Value):
    """Houses and public facilities, as counted by somebody; None means that nothing was said."""

    houses_heavy: Count | None = None
    houses_moderate: Count | None = None
    houses_light: Count | None = None
    houses_flooded: Count | None = None
    houses_damaged: Count | None = None
    public_facilities_damaged: Count | None = None


class StatedNeed(Value):
    """What a report asks for: exactly one item or one skill, in that word's own unit."""

    item: Code | None = None
    skill: Code | None = None
    quantity: Quantity

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.item is None) == (self.skill is None):
            raise ValueError("name exactly one of item and skill")
        return self


class Media(Value):
    """A photograph or recording kept elsewhere; `sha256` in hexadecimal says which bytes were meant."""

    url: Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://")]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None


class Requirements(Value):
    """What a need demands beyond the skill itself. `level` counts upwards from 1."""

    level: Annotated[int, Field(ge=1, le=5)] | None = None
    certificates: tuple[Code, ...] = ()
    languages: tuple[str, ...] = ()
