"""Notices: what became of the messages that were sent to responders. Never the text, never the number."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import StringConstraints

from schemas.event import Event


class NoticeEvent(Event):
    """Something became of a message to one contact. Producer: registry.

    `about`: the offer or other thing that it spoke of. `doubled`: it may have reached them twice. `reply_to`: the
    message of theirs that it answers.
    """

    topic: ClassVar = "gotong.notices.v1"
    key: ClassVar = "contact_id"
    subject: ClassVar = "contact_id"

    contact_id: str
    notice_id: UUID
    about: UUID | None = None
    template: Annotated[str, StringConstraints(max_length=40)]
    channel: Literal["sms", "whatsapp", "email", "webhook"]
    doubled: bool = False
    reply_to: UUID | None = None


class NoticeSent(NoticeEvent):
    """A provider took it, or, with `delivered`, said that it arrived."""

    type: ClassVar = "gotong.notice.sent.v1"

    delivered: bool = False
    urgent: bool = False


class NoticeFailed(NoticeEvent):
    """It did not go out, or did not arrive. With the reason `no address` intake, which knows where the message that it
    answers came from, says it instead."""

    type: ClassVar = "gotong.notice.failed.v1"

    reason: Annotated[str, StringConstraints(max_length=200)]
