"""Needs: what is wanted, exactly one item or one skill each."""

from __future__ import annotations

from typing import ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, model_validator

from schemas.event import Event, Value
from schemas.values import (
    AreaCode,
    Code,
    Count,
    PeopleCount,
    Period,
    Point,
    Quantity,
    Requirements,
    Sensitivity,
    Severity,
)


class NeedWords(Value):
    """Where a need was read: `[start, end)` of characters in the report's title and text, a line break between them.
    `assumed`: the text gives no number; it was worked out from the people named, or is one."""

    report_id: UUID
    spans: tuple[tuple[int, int], ...]
    assumed: bool = False


class NeedState(Event):
    """A need after the change. `quantity` is in `unit` of the item or skill. Producer: intake.

    Without `point` it can only be a draft. `reports` names at most 20 reports that ask for it, `words` where those of
    them say so that state no needs. `persons` and `vulnerable`: how many people these texts speak of, and which groups
    among them need more care. `hazard` is its incident's; `site_id` says at which evacuation post it is.
    """

    topic: ClassVar = "gotong.needs.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "need_id"

    need_id: UUID
    incident_id: UUID | None = None
    item: Code | None = None
    skill: Code | None = None
    quantity: Quantity
    unit: str
    severity: Severity
    status: Literal["draft", "declared", "withdrawn"]
    point: Point | None = None
    place: str | None = None
    admin: AreaCode | None = None
    window: Period
    requires: Requirements = Requirements()
    bundle_id: UUID | None = None
    people: PeopleCount | None = None
    reports: tuple[UUID, ...] = ()
    words: tuple[NeedWords, ...] = ()
    persons: Count | None = None
    vulnerable: tuple[str, ...] = ()
    sensitivity: Sensitivity | None = None
    hazard: Code | None = None
    site_id: UUID | None = None
    declared_at: AwareDatetime | None = None
    by: str
    reason: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.item is None) == (self.skill is None):
            raise ValueError("name exactly one of item and skill")
        return self

    @property
    def code(self) -> str:
        """The word for what is wanted, item or skill."""
        return self.item or self.skill or ""


class NeedDrafted(NeedState):
    """Somebody seems to need something; an operator has to declare it before anyone is asked."""

    type: ClassVar = "gotong.need.drafted.v1"


class NeedDeclared(NeedState):
    """It is a need: people and stock may be asked for from now on."""

    type: ClassVar = "gotong.need.declared.v1"


class NeedAmended(NeedState):
    """Its quantity, window, place or severity changed."""

    type: ClassVar = "gotong.need.amended.v1"


class NeedWithdrawn(NeedState):
    """It is no need any more."""

    type: ClassVar = "gotong.need.withdrawn.v1"
