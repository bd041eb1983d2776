"""Messages: what people write to us, as far as others must know: never the text, never the number."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, StringConstraints

from schemas.event import Event
from schemas.values import Quantity

Intent = Literal["report", "status", "yes", "no", "unsure", "received", "not_received", "stop"]
MessageCode = Annotated[str, StringConstraints(pattern=r"^[0-9A-Z-]{4,14}$")]
"""A ticket (`7KQM-3XWD-9T2F`) or the code of an offer (`K7QM`), as somebody wrote it."""


class MessageEvent(Event):
    """Something happened to one inbound message. Producer: intake."""

    topic: ClassVar = "gotong.messages.v1"
    key: ClassVar = "contact_id"
    subject: ClassVar = "contact_id"

    contact_id: str
    message_id: UUID


class MessageReceived(MessageEvent):
    """Somebody wrote to us. `intent` is `unsure` where it could be read in two ways; nothing may be accepted on it.

    `quantity`: the number said with a yes or a receipt. `channel`: how they wrote, and are to be answered. `resumed`:
    after a STOP they want to get messages again.
    """

    type: ClassVar = "gotong.message.received.v1"

    channel: Literal["sms", "whatsapp"]
    intent: Intent
    quantity: Quantity | None = None
    codes: tuple[MessageCode, ...] = ()
    language: str | None = None
    resumed: bool = False
    received_at: AwareDatetime
    sent_at: AwareDatetime | None = None


class MessageReplied(MessageEvent):
    """They were answered. `templates`: with which texts."""

    type: ClassVar = "gotong.message.replied.v1"

    channel: Literal["sms", "whatsapp"]
    templates: tuple[str, ...]


class ContactTold(Event):
    """Intake sent somebody a notice of its own accord, which counts for what one person is sent in a day.

    Producer: intake.
    """

    type: ClassVar = "gotong.contact.told.v1"
    topic: ClassVar = "gotong.messages.v1"
    key: ClassVar = "contact_id"
    subject: ClassVar = "notice_id"

    contact_id: str
    notice_id: UUID
    urgent: bool = False


class ReceiptNoted(Event):
    """A provider said what became of a message of another service; `outbound_id` is the key that it was sent with.

    Producer: intake, whose hooks hear it.
    """

    type: ClassVar = "gotong.receipt.noted.v1"
    topic: ClassVar = "gotong.messages.v1"
    key: ClassVar = "contact_id"
    subject: ClassVar = "outbound_id"

    contact_id: str
    outbound_id: UUID
    said: Literal["sent", "delivered", "failed"]
    reason: Annotated[str, StringConstraints(max_length=100)] | None = None
