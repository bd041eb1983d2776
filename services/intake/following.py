"""Telling people what became of what they reported by message, and what providers say of our messages to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

from schemas.messages import ContactTold, ReceiptNoted
from schemas.notices import NoticeFailed, NoticeSent
from services.channels import outbound
from services.channels.outbound import Change, Message, Receipt
from services.intake.triage import report_severity
from services.runtime import clock, outbox, vault
from services.runtime.db import Database, Row, Tx, from_json

_TOLD = {"linked": "ticket_linked", "acting": "ticket_acting", "resolved": "ticket_resolved"}
_AT_ONCE = 200
_EVERY_S = 2.0
_AT_LEAST_EVERY = timedelta(minutes=10)
_FOLLOWED_FOR = timedelta(days=30)
NO_ADDRESS = "no address"


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Send intake's messages."""
    await outbound.run(db, stopping, tell)


async def tell(tx: Tx, changes: Sequence[Change]) -> None:
    """Say of each notice that went out that it did, so that the registry counts it for the person's day."""
    await outbox.append(
        tx,
        [
            ContactTold(
                contact_id=change.contact, notice_id=change.outbound_id, urgent=change.urgent,
                operation=change.operation, exercise=change.exercise,
            )
            for change in changes
            if change.kind == "notice" and change.state == "sent"
        ],
    )  # fmt: skip


async def count_notices(tx: Tx, events: Sequence[NoticeSent]) -> None:
    """Count the registry's notices to a person with ours; what answers them is not counted."""
    for event in events:
        if event.reply_to is None:
            await outbound.note_elsewhere(tx, event.notice_id, event.contact_id, event.meta.time, urgent=event.urgent)


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

    Of several steps since the last look only the newest is told: nobody wants three messages at once. The older a
    report, the less often it is looked at.
    """
    now = clock.now()
    rows = await tx.fetch(
        """
        SELECT f.told, f.contact AS whose, r.*, c.channel, c.sealed AS address, c.language AS spoken,
               i.closed_at, done.acting_at, done.met
        FROM (SELECT * FROM followed WHERE ended_at IS NULL AND checked_at <= $1 ORDER BY checked_at LIMIT $2
              FOR UPDATE SKIP LOCKED) AS f
        JOIN report AS r USING (report_id) JOIN conversation AS c ON c.contact = f.contact
        LEFT JOIN incident AS i ON i.incident_id = r.incident_id
        LEFT JOIN LATERAL (
            SELECT min(a.first_at) AS acting_at,
                   count(*) > 0 AND count(*) = count(*) FILTER (WHERE l.confirmed + l.cancelled = l.needed) AS met
            FROM need AS n LEFT JOIN ledger AS l USING (need_id)
                 LEFT JOIN LATERAL (SELECT min(first_at) AS first_at FROM assignment WHERE need_id = n.need_id) AS a
                        ON true
            WHERE n.incident_id = r.incident_id AND n.declared_at IS NOT NULL) AS done ON true
        """,
        now,
        limit,
    )
    messages: list[Message] = []
    looked: list[tuple[UUID, list[str], datetime, datetime | None]] = []
    for row in rows:
        steps = _steps(row)
        fresh = [step for step in steps if step not in row["told"]]
        if fresh:
            message = await _news(tx, row, fresh[-1])
            if message is not None:
                messages.append(message)
        age = now - row["received_at"]
        again = now + min(timedelta(seconds=_EVERY_S) + age / 30, _AT_LEAST_EVERY)
        # An incident that was dealt with may open again by a new report, but this ticket has been told its end.
        ended = "resolved" in steps or age > _FOLLOWED_FOR
        looked.append((row["report_id"], [*row["told"], *fresh], again, now if ended else None))
    await tx.executemany("UPDATE followed SET told = $2, checked_at = $3, ended_at = $4 WHERE report_id = $1", looked)
    return len(await outbound.enqueue(tx, messages))


def _steps(row: Row) -> list[str]:
    """The steps of which somebody is told that this report has come through, as its ticket says."""
    if row["state"] != "linked":
        return []
    resolved = row["closed_at"] is not None or row["met"]
    return ["linked", *(["acting"] if row["acting_at"] else []), *(["resolved"] if resolved else [])]


async def _news(tx: Tx, row: Row, step: str) -> Message | None:
    address = await vault.unseal(tx, row["whose"], row["address"])
    if address is None:
        return None
    # Who is in danger is told at night, too.
    severity = report_severity(row["severity"], from_json(row["people"]) or {}, from_json(row["reading"]))
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
