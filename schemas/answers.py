"""Answers: what people say to an offer by SMS or WhatsApp; over HTTP they answer matching itself."""

from __future__ import annotations

from typing import ClassVar, Literal
from uuid import UUID

from schemas.event import Event
from schemas.values import Quantity


class AnswerGiven(Event):
    """A responder said a clear yes or no to the one offer that was open to them, or that they named.

    `quantity` None: all that was asked. `message_id`: the message that said it. Producer: registry.
    """

    type: ClassVar = "gotong.answer.given.v1"
    topic: ClassVar = "gotong.answers.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "offer_id"

    offer_id: UUID
    need_id: UUID
    responder_id: UUID
    accepted: bool
    quantity: Quantity | None = None
    channel: Literal["sms", "whatsapp"]
    message_id: UUID
