"""Sites: evacuation posts (pos pengungsian) and other places where people are taken in, with their headcounts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints, model_validator

from schemas.event import Event, Value
from schemas.values import AreaCode, Code, Count, Point

AgeBand = Annotated[str, StringConstraints(pattern=r"^\d{1,3}(-\d{1,3}|\+)$")]
"""Years, `from-to` (both included) or `from+`. Known bands: 0-4 (balita), 5-11, 12-17, 18-59, 60+ (lansia)."""


class AgeCount(Value):
    """How many of the people counted are of one age band."""

    band: AgeBand
    people: Count


class HeadcountCell(Value):
    """People who share what is named here; None means that this was not asked."""

    sex: Literal["female", "male"] | None = None
    age: AgeBand | None = None
    disability: bool | None = None
    people: Count


class Headcount(Value):
    """The people at a site, as counted once. Parts are of the total and may leave some people out: None means that
    nothing was said, not zero.

    `cells` is the finer count, where one was taken: no person stands in two of them. `channel`: how it was told.
    """

    count_id: UUID
    counted_at: AwareDatetime
    people: Count
    households: Count | None = None
    female: Count | None = None
    male: Count | None = None
    ages: Annotated[tuple[AgeCount, ...], Field(max_length=12)] = ()
    disability: Count | None = None
    pregnant: Count | None = None
    cells: Annotated[tuple[HeadcountCell, ...], Field(max_length=72)] = ()
    channel: Literal["app", "sms", "paper"] = "app"
    by: str

    @model_validator(mode="after")
    def _parts_of_the_whole(self) -> Self:
        bands = [age.band for age in self.ages]
        if len(set(bands)) < len(bands):
            raise ValueError("an age band is named twice")
        parts = {
            "female and male": (self.female or 0) + (self.male or 0),
            "ages": sum(age.people for age in self.ages),
            "disability": self.disability or 0,
            "pregnant": self.pregnant or 0,
            "cells": sum(cell.people for cell in self.cells),
        }
        for name, found in parts.items():
            if found > self.people:
                raise ValueError(f"{name} adds up to {found}, which is more than the {self.people} people counted")
        return self


class SiteState(Event):
    """A site after the change. Producer: registry.

    `headcount` is the newest by the time it was counted: it stands. `counted` is what this event tells of, also where
    an older count came late; both are kept. A site counts for one operation and one area, those it is in now; one
    that is closed counts no more, its people went to `moved_to` where that is known.
    `alarm`: how the people compare with the capacity.
    """

    topic: ClassVar = "gotong.sites.v1"
    key: ClassVar = "site_id"
    subject: ClassVar = "site_id"

    site_id: UUID
    code: str
    kind: Code = "evacuation_post"
    name: str
    status: Literal["open", "closed"] = "open"
    point: Point | None = None
    place: str | None = None
    admin: AreaCode | None = None
    organisation: str | None = None
    capacity: Count | None = None
    facilities: tuple[Code, ...] = ()
    headcount: Headcount | None = None
    counted: Headcount | None = None
    counts: Count = 0
    alarm: Literal["none", "near", "full", "over"] = "none"
    moved_to: UUID | None = None
    opened_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    by: str
    reason: str | None = None


class SiteOpened(SiteState):
    """A place takes people in."""

    type: ClassVar = "gotong.site.opened.v1"


class SiteUpdated(SiteState):
    """Its place, capacity, operation or organisation changed."""

    type: ClassVar = "gotong.site.updated.v1"


class SiteCounted(SiteState):
    """The people there were counted."""

    type: ClassVar = "gotong.site.counted.v1"


class SiteClosed(SiteState):
    """It takes nobody in any more, and nobody is there."""

    type: ClassVar = "gotong.site.closed.v1"
