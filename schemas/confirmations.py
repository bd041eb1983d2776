"""Confirmations: whether what was delivered arrived, by those who should have it."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from schemas.event import Event
from schemas.values import Quantity, Sensitivity


class ConfirmationEvent(Event):
    """Somebody answered whether it arrived. `quantity` None: all that was delivered. Producer: intake."""

    topic: ClassVar = "gotong.confirmations.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "need_id"

    need_id: UUID
    quantity: Quantity | None = None
    sensitivity: Sensitivity | None = None
    by: str
    reason: str | None = None


class DeliveryConfirmed(ConfirmationEvent):
    """It arrived; the oldest delivered assignments are confirmed first."""

    type: ClassVar = "gotong.delivery.confirmed.v1"


class DeliveryDisputed(ConfirmationEvent):
    """It did not arrive: what was counted as delivered is open again."""

    type: ClassVar = "gotong.delivery.disputed.v1"
