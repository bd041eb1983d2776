"""Resources: countable things at a place."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from schemas.event import Event, Value
from schemas.values import Code, Count, Point, Quantity


class Crew(Value):
    """Who must come with each unit of a vehicle or boat: so many people with this skill."""

    skill: Code
    people: Annotated[int, Field(ge=1, le=1000)] = 1
    level: Annotated[int, Field(ge=1, le=5)] = 1


class KitPart(Value):
    """What one kit holds of an item, in that item's unit."""

    item: Code
    quantity: Quantity


class ResourceState(Event):
    """A lot (a stock of one item at one place) after the change. `quantity` in the item's unit. Producer: registry.

    `crew`, `seats` and `payload_kg` are of one vehicle; `contents` and `serves` (persons) of one kit. A pledge is not
    there yet: what arrives of it becomes a stock that names its `pledge_id`.
    """

    topic: ClassVar = "gotong.resources.v1"
    key: ClassVar = "lot_id"
    subject: ClassVar = "lot_id"

    lot_id: UUID
    kind: Literal["stock", "vehicle", "pledge"] = "stock"
    item: Code
    quantity: Count
    unit: str
    point: Point | None = None
    place: str | None = None
    organisation: str | None = None
    delivery_limit_km: Annotated[float, Field(gt=0, le=10_000)] = 100
    expires_at: AwareDatetime | None = None
    status: Literal["available", "withdrawn"] = "available"
    crew: tuple[Crew, ...] = ()
    seats: Count | None = None
    payload_kg: Count | None = None
    contents: tuple[KitPart, ...] = ()
    serves: Count | None = None
    pledge_id: UUID | None = None
    expected_at: AwareDatetime | None = None
    by: str
    reason: str | None = None


class ResourceRegistered(ResourceState):
    """Somebody has something that may be given."""

    type: ClassVar = "gotong.resource.registered.v1"


class ResourceAdjusted(ResourceState):
    """More or less of it is there than was known."""

    type: ClassVar = "gotong.resource.adjusted.v1"


class ResourceWithdrawn(ResourceState):
    """It may not be given any more."""

    type: ClassVar = "gotong.resource.withdrawn.v1"
