"""Writing to responders: the question of an offer, what became of it, and the answers to their own messages."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from schemas.messages import MessageReceived, ReceiptNoted
from schemas.notices import NoticeEvent, NoticeFailed, NoticeSent
from services.channels import outbound, templates
from services.channels.outbound import Change, Channel, Message, Receipt
from services.channels.settings import ChannelSettings
from services.registry import answers
from services.runtime import ids, vault
from services.runtime import outbox as events_out
from services.runtime.db import Database, Row, Tx

NO_ADDRESS = "no address"


@dataclass(frozen=True, slots=True)
class Addressee:
    """Where a responder is reached. `to` is not shown when this is printed."""

    responder_id: UUID
    contact: str
    to: str
    channel: Channel
    language: str

    def __repr__(self) -> str:
        return f"Addressee({self.responder_id})"


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Send the registry's messages."""
    await outbound.run(db, stopping, tell)


async def tell(tx: Tx, changes: Sequence[Change]) -> None:
    """Say on `notices` what became of messages; codes of confirmation are nobody else's business."""
    told: list[NoticeEvent] = []
    for change in changes:
        if change.kind == "code":
            continue
        fields: dict[str, Any] = {
            "operation": change.operation,
            "exercise": change.exercise,
            "contact_id": change.contact,
            "notice_id": change.outbound_id,
            "about": _about(change.about),
            "template": change.template,
            "channel": change.channel,
            "doubled": change.doubled,
            "reply_to": change.reply_to,
        }
        if change.state in ("sent", "delivered"):
            told.append(NoticeSent(**fields, delivered=change.state == "delivered", urgent=change.urgent))
        else:
            told.append(NoticeFailed(**fields, reason=change.reason or change.state))
    await events_out.append(tx, told)


def _about(words: str) -> UUID | None:
    kind, _, rest = words.partition(":")
    return UUID(rest[:36]) if kind in ("offer", "lot-offer") else None


async def note_receipt(tx: Tx, event: ReceiptNoted) -> None:
    """Note what a provider said of one of our messages."""
    await outbound.take_receipt(tx, Receipt(event.said, key=event.outbound_id, reason=event.reason), tell)


async def addressees(tx: Tx, responder_ids: Collection[UUID]) -> dict[UUID, Addressee]:
    """Where these responders are reached, those of them who have a number and were not erased."""
    rows = await tx.fetch(
        _CONTACT + "WHERE r.responder_id = ANY($1) AND r.erased_at IS NULL ORDER BY r.responder_id",
        list(responder_ids),
    )
    opened = await vault.unseal_all(tx, [(row["owner"], row["sealed"]) for row in rows])
    found = [_addressee(row, value) for row, value in zip(rows, opened, strict=True)]
    return {one.responder_id: one for one in found if one is not None}


_CONTACT = (
    "SELECT r.responder_id, r.contact_id, r.profile ->> 'channel' AS channel, r.profile ->> 'language' AS language, "
    "c.owner, c.sealed FROM responder AS r JOIN contact AS c USING (responder_id) "
)


def _addressee(row: Row, opened: bytes | None) -> Addressee | None:
    if row["contact_id"] is None:
        return None
    phone = orjson.loads(opened).get("phone") if opened is not None else None
    if not phone:
        return None
    # The number is all there is: whoever prefers mail or a webhook is reached by SMS.
    channel: Channel = "whatsapp" if row["channel"] == "whatsapp" else "sms"
    return Addressee(row["responder_id"], row["contact_id"], phone, channel, templates.language_of(row["language"]))


async def reply(
    tx: Tx, event: MessageReceived, template: str, values: dict[str, Any], offer: Row | None = None
) -> None:
    """Answer a message on the channel that it came by. A number that is no responder's is answered by intake, which
    knows where it wrote from, and with no more than that there is nothing open to it."""
    row = await tx.fetchrow(_CONTACT + "WHERE r.contact_id = $1 AND r.erased_at IS NULL", event.contact_id)
    to = _addressee(row, await vault.unseal(tx, row["owner"], row["sealed"])) if row is not None else None
    if to is None:
        unanswered = NoticeFailed(
            contact_id=event.contact_id,
            notice_id=ids.derived("notice", str(event.message_id)),
            template="no_open_offer",
            channel=event.channel,
            reply_to=event.message_id,
            reason=NO_ADDRESS,
        )
        await events_out.append(tx, [unanswered])
        return
    await outbound.enqueue(
        tx,
        [
            Message(
                about=f"reply:{event.message_id}",
                contact=to.contact,
                to=to.to,
                template=template,
                values=values,
                channel=event.channel,
                language=to.language,
                kind="reply",
                operation=offer["operation"] if offer else None,
                exercise=bool(offer and offer["exercise"]),
                reply_to=event.message_id,
            )
        ],
    )


def about_offer(
    offer: Row | dict[str, Any],
    to: Addressee,
    template: str,
    zones: dict[str, str],
    *,
    distance_km: float | None = None,
) -> Message:
    """A message about one offer; its question is not worth sending once it can no longer be answered."""
    zone = zones.get(offer["operation"] or "", ChannelSettings().zone)
    values = answers.words_of(
        code=offer["code"],
        item=offer["item"],
        skill=offer["skill"],
        quantity=offer["quantity"],
        start=offer["window_start"],
        end=offer["window_end"],
        until=offer["expires_at"],
        distance_km=distance_km,
        zone=zone,
        language=to.language,
    )
    answering = offer["answered_by"] is not None and template != "offer"
    return Message(
        about=f"offer:{offer['offer_id']}:{template}",
        contact=to.contact,
        to=to.to,
        template=template,
        values=values,
        channel=to.channel,
        language=to.language,
        kind="reply" if answering else "notice",
        urgent=offer["severity"] == 4,
        expires_at=offer["expires_at"] if template == "offer" else offer["window_end"],
        operation=offer["operation"],
        exercise=offer["exercise"],
        reply_to=offer["answered_by"] if answering else None,
        zone=zone,
    )


async def zones_of(tx: Tx, operations: Collection[str | None]) -> dict[str, str]:
    """The zone of each of these operations."""
    named = sorted({operation for operation in operations if operation is not None})
    rows = await tx.fetch("SELECT id, timezone FROM operation WHERE id = ANY($1)", named) if named else []
    return {row["id"]: row["timezone"] for row in rows}
