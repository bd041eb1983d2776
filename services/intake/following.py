"""Telling people what became of what they reported by message, and what providers say of our messages to them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

from schemas.messages import ReceiptNoted
from schemas.notices import NoticeFailed
from services.channels import outbound
from services.channels.outbound import Message, Receipt
from services.intake.actions import as_dict
from services.intake.tickets import ticket_told
from services.intake.triage import report_severity
from services.runtime import clock, outbox, vault
from services.runtime.db import Database, Row, Tx, from_json

_TOLD = {"linked": "ticket_linked", "acting": "ticket_acting", "resolved": "ticket_resolved"}
_AT_ONCE = 200
_EVERY_S = 2.0
_FOLLOWED_FOR = timedelta(days=30)
NO_ADDRESS = "no address"


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Send intake's messages."""
    await outbound.run(db, stopping)


async def follow(db: Database, stopping: asyncio.Event) -> None:
    """Look at followed reports in turn, those longest unseen first, so that the work of a round has a bound however
    many there are; tell their senders what is new."""
    while not stopping.is_set():
        async with db.tx() as tx:
            await tell_news(tx)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _EVERY_S)


async def tell_news(tx: Tx, limit: int = _AT_ONCE) -> int:
    """Look at so many followed reports; returns how many messages came of it.

    Of several steps since the last look only the newest is told: nobody wants three messages at once.
    """
    now = clock.now()
    rows = await tx.fetch(
        "SELECT f.told, f.contact AS whose, r.*, c.channel, c.sealed AS address, c.language AS spoken "
        "FROM (SELECT * FROM followed WHERE ended_at IS NULL AND checked_at <= $1 ORDER BY checked_at LIMIT $2 "
        "FOR UPDATE SKIP LOCKED) AS f JOIN report AS r USING (report_id) "
        "JOIN conversation AS c ON c.contact = f.contact",
        now,
        limit,
    )
    messages: list[Message] = []
    told: list[tuple[UUID, list[str], bool]] = []
    for row in rows:
        report = as_dict(row)
        history = (await ticket_told(tx, report, row["spoken"]))["history"] if row["state"] == "linked" else []
        steps = [step["status"] for step in history if step["status"] in _TOLD]
        fresh = [step for step in steps if step not in row["told"]]
        if fresh:
            message = await _news(tx, row, fresh[-1])
            if message is not None:
                messages.append(message)
        # An incident that was dealt with may open again by a new report, but this ticket has been told its end.
        ended = "resolved" in steps or row["received_at"] < now - _FOLLOWED_FOR
        told.append((row["report_id"], [*row["told"], *fresh], ended))
    await tx.executemany(
        "UPDATE followed SET told = $2, checked_at = $3, ended_at = $4 WHERE report_id = $1",
        [
            (report_id, steps, now + timedelta(seconds=_EVERY_S), now if ended else None)
            for report_id, steps, ended in told
        ],
    )
    return len(await outbound.enqueue(tx, messages))


async def _news(tx: Tx, row: Row, step: str) -> Message | None:
    address = await vault.unseal(tx, row["whose"], row["address"])
    if address is None:
        return None
    # Read only for who is in danger: they are told at night, too.
    severity = report_severity(row["severity"], from_json(row["people"]) or {}, None)
    return Message(
        about=f"ticket:{row['report_id']}:{step}",
        contact=row["whose"],
        to=address.decode(),
        template=_TOLD[step],
        values={"ticket": row["ticket"]},
        channel=row["channel"],
        language=row["spoken"],
        urgent=severity == 4,
        operation=row["operation"],
        exercise=row["exercise"],
    )


async def take_receipt(tx: Tx, contact: str, receipt: Receipt) -> bool:
    """Note what a provider said of one of our messages, or pass it on: intake's hooks hear it for all services.

    Returns whether it was about a message of intake's.
    """
    if await outbound.take_receipt(tx, receipt) is not None:
        return True
    if receipt.key is not None:
        event = ReceiptNoted(contact_id=contact, outbound_id=receipt.key, said=receipt.said, reason=receipt.reason)
        await outbox.append(tx, [event])
    return False


async def answer_instead(tx: Tx, event: NoticeFailed) -> None:
    """Answer a yes or no for the registry, which does not know the number: there is nothing open to it."""
    if event.reason != NO_ADDRESS or event.reply_to is None:
        return
    row = await tx.fetchrow(
        "SELECT m.channel, c.contact, c.sealed, c.language FROM inbound_message AS m "
        "JOIN conversation AS c USING (contact) WHERE m.message_id = $1 AND m.contact = $2",
        event.reply_to,
        event.contact_id,
    )
    address = await vault.unseal(tx, row["contact"], row["sealed"]) if row is not None else None
    if row is None or address is None:
        return
    await outbound.enqueue(
        tx,
        [
            Message(
                about=f"reply:{event.reply_to}",
                contact=row["contact"],
                to=address.decode(),
                template="no_open_offer",
                channel=row["channel"],
                language=row["language"],
                kind="reply",
                reply_to=event.reply_to,
            )
        ],
    )
