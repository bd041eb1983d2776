"""Blanking an event for good: its payload goes, its place in the chain and its digest stay, and readers are told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal
from uuid import UUID

import orjson
from aiokafka.structs import RecordMetadata

from schemas.event import Meta
from schemas.quarantine import RecordRedacted
from services.runtime import journal, outbox
from services.runtime.db import Row, Tx
from services.runtime.journal import Entry

Found = Literal["sent", "unsent", "before"]
_SHORTEST, _BEGINNING = 12, 40


async def redact(tx: Tx, source: str, event_id: UUID, *, by: str, reason: str) -> Found | None:
    """Blank one event of this service and append `RecordRedacted`; None: this service never said it.

    `sent`: it had left; the journal's payload is gone, and readers are told to blank what they keep. `unsent`: it
    still waited in the outbox; it never leaves, and stands in the journal as a row that was blank from the start,
    because dropping it without a trace would be a hole in the record of what was decided. `before`: it was blanked
    before, and nothing is done.
    """
    # The relay's lock: nothing is sent, for the first time or again, while its payload is taken away.
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.relay'), hashtext(current_schema()))")
    row = await tx.fetchrow("SELECT payload IS NULL AS blank FROM journal WHERE id = $1", event_id)
    found: Found = "sent"
    if row is None:
        waiting = await tx.fetchrow("DELETE FROM outbox WHERE id = $1 RETURNING *", event_id)
        if waiting is None:
            return None
        nowhere = RecordMetadata(waiting["topic"], None, None, None, None, None, None)
        await journal.write(tx, [_entry(waiting, source)], [nowhere])
        found = "unsent"
    elif row["blank"]:
        return "before"
    await tx.execute("UPDATE journal SET payload = NULL WHERE id = $1", event_id)
    await outbox.append(
        tx, [RecordRedacted(quarantine_id=f"redaction-{event_id}", event_id=str(event_id), by=by, reason=reason)]
    )
    return found


def _entry(row: Row, source: str) -> Entry:
    meta = Meta(
        id=str(row["id"]), source=source, type=row["type"], subject=row["subject"], time=row["time"],
        sequence=row["sequence"], operation=row["operation"], exercise=row["exercise"], traceparent=row["traceparent"],
    )  # fmt: skip
    return Entry(meta, row["topic"], row["key"], row["payload"])


async def drop_refused(tx: Tx, event_id: UUID) -> int:
    """Blank what this service keeps of the event in quarantine, and settle it: there is nothing to release any more.
    Returns how many records that were."""
    rows = await tx.fetch(
        "UPDATE quarantine SET sealed = '', state = 'released' WHERE origin_id = $1 AND sealed <> '' RETURNING id",
        str(event_id),
    )
    return len(rows)


async def payload_of(tx: Tx, event_id: UUID) -> bytes | None:
    """The event's payload as this service has it, sent or not."""
    found: bytes | None = await tx.fetchval(
        "SELECT payload FROM journal WHERE id = $1 UNION ALL SELECT payload FROM outbox WHERE id = $1", event_id
    )
    return found


def words_of(payload: bytes) -> list[bytes]:
    """What to look for in other events to find those that repeat this one: each free text of 12 characters or more,
    as it stands in JSON, or its first 40 characters, because titles are made of beginnings."""
    found = set()
    for text in _texts(orjson.loads(payload)):
        words = " ".join(text.split())
        if len(words) >= _SHORTEST and " " in words:
            found |= {orjson.dumps(part)[1:-1] for part in (text[:_BEGINNING], words[:_BEGINNING])}
    return sorted(found)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for each in value.values():
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


async def saying(tx: Tx, words: Sequence[bytes]) -> list[tuple[UUID, str]]:
    """(id, type) of this service's events, sent or not, that hold one of these texts."""
    if not words:
        return []
    rows = await tx.fetch(
        """
        SELECT id, type FROM (
            SELECT id, type, payload FROM journal WHERE payload IS NOT NULL
            UNION ALL SELECT id, type, payload FROM outbox
        ) AS said WHERE EXISTS (SELECT FROM unnest($1::bytea[]) AS word WHERE position(word IN payload) > 0)
        """,
        list(words),
    )
    return [(row["id"], row["type"]) for row in rows]
