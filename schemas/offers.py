"""Offers: our question to one responder or holder of stock, with an expiry."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import Code, Period, Quantity, Sensitivity, Severity


class OfferState(Event):
    """An offer after the change: exactly one of `responder_id` and `lot_id` is asked. Producer: matching.

    `severity` is the need's. `distance_km` as the crow flies; `cost` is the planner's own, lower is better.
    """

    topic: ClassVar = "gotong.offers.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "offer_id"

    offer_id: UUID
    need_id: UUID
    responder_id: UUID | None = None
    lot_id: UUID | None = None
    organisation: str | None = None
    item: Code | None = None
    skill: Code | None = None
    severity: Severity | None = None
    quantity: Quantity
    state: Literal["made", "accepted", "declined", "expired", "withdrawn"]
    window: Period
    expires_at: AwareDatetime
    distance_km: float | None = None
    cost: int | None = None
    sensitivity: Sensitivity | None = None
    by: str
    reason: str | None = None


class OfferMade(OfferState):
    """Somebody is asked."""

    type: ClassVar = "gotong.offer.made.v1"


class OfferAccepted(OfferState):
    """They said yes: the assignment keeps this offer's id."""

    type: ClassVar = "gotong.offer.accepted.v1"


class OfferDeclined(OfferState):
    """They said no."""

    type: ClassVar = "gotong.offer.declined.v1"


class OfferExpired(OfferState):
    """They did not answer in time. `next_asked`: the next best person (or lot), one of another organisation because
    several of this one were silent, or the dispatcher, who should decide because so many were."""

    type: ClassVar = "gotong.offer.expired.v1"

    next_asked: Literal["person", "organisation", "dispatcher"] | None = None


class OfferWithdrawn(OfferState):
    """We do not ask any more: the need is met or gone."""

    type: ClassVar = "gotong.offer.withdrawn.v1"
