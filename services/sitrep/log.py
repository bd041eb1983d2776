"""The ordered log: every event that sitrep took in, once, with a gapless position. It is sitrep's inbox as well.

One writer at a time, by an advisory lock held to the end of the transaction: positions become visible in their order
and without gaps, so a reader that has seen position 7 never meets a 6 later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.event import REGISTRY, Event
from schemas.quarantine import RecordRedacted
from schemas.topics import topic
from services.runtime import clock
from services.runtime.cloudevents import Envelope, Malformed, read, refuse_odd_json
from services.runtime.db import Database, Row, Tx
from services.runtime.quarantine import Unprocessable
from services.sitrep import checkpoints, projections
from services.sitrep.domain import Entry
from services.sitrep.tables import LogRow, columns_of

CHANNEL = "sitrep_log"
"""NOTIFY after every commit that appended something."""

_LOCK = "hashtext('gotong.sitrep.log')"
COLUMNS = columns_of(LogRow)
PAGE = 5000
"""Rows that a rebuild reads and projects in one transaction."""


async def append(tx: Tx, envelopes: Sequence[Envelope]) -> int:
    """Append what is new, project it into the read models; returns how many were new.

    Raises
    ------
    Unprocessable
        One of them is no JSON, breaks its contract, or names another subject than its data.
    """
    events = [_checked(envelope) for envelope in envelopes]
    await tx.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
    fresh = await _new(tx, list(zip(envelopes, events, strict=True)))
    if not fresh:
        return 0
    last = await tx.fetchrow("SELECT position, received_at FROM log ORDER BY position DESC LIMIT 1")
    position = last["position"] if last else 0
    received_at = clock.now()
    if last is not None:
        # Later than every batch before, also when a clock went back: one instant, one prefix of the log.
        received_at = max(received_at, last["received_at"] + timedelta(microseconds=1))
    withheld = await _withheld(tx, fresh)
    newest = await _newest(tx, [envelope for envelope, _ in fresh])
    points = await _points(tx, [event for _, event in fresh])
    entries: list[Entry] = []
    rows: list[tuple[Any, ...]] = []
    for (envelope, event), point in zip(fresh, points, strict=True):
        position += 1
        meta = envelope.meta
        superseded = False
        if topic(envelope.topic).kind == "state":
            identity = (envelope.topic, meta.subject)
            superseded = meta.sequence <= newest.get(identity, 0)
            newest[identity] = max(newest.get(identity, 0), meta.sequence)
        entry = Entry(
            position=position,
            received_at=received_at,
            time=meta.time,
            sequence=meta.sequence,
            operation=meta.operation or event.operation,
            exercise=meta.exercise or event.exercise,
            superseded=superseded,
            event=None if meta.id in withheld else event,
        )
        entries.append(entry)
        rows.append(
            (
                position,
                received_at,
                meta.source,
                meta.id,
                envelope.topic,
                envelope.key,
                meta.type,
                meta.subject,
                meta.sequence,
                meta.time,
                entry.operation,
                entry.exercise,
                meta.traceparent,
                superseded,
                *point,
                None if meta.id in withheld else envelope.data,
            )
        )
    await tx.raw.copy_records_to_table("log", schema_name="sitrep", columns=COLUMNS, records=rows)
    await projections.project(tx, entries)
    await _redact(tx, withheld, up_to=entries[0].position)
    await tx.notify(CHANNEL)
    return len(rows)


def _checked(envelope: Envelope) -> Event:
    """The event in the envelope, kept to its contract."""
    try:
        refuse_odd_json(envelope.data)
        event = read(envelope, REGISTRY[envelope.meta.type])
    except Malformed as error:
        raise Unprocessable(error.reason, error.pointer) from None
    if b"\\u0000" in envelope.data:
        raise Unprocessable("the data holds a NUL character", "/data")
    if envelope.meta.subject != event.subject_value:
        raise Unprocessable(f"the subject is not the data's {type(event).subject}", "/subject")
    return event


async def _new(tx: Tx, pairs: list[tuple[Envelope, Event]]) -> list[tuple[Envelope, Event]]:
    """Those whose (source, id) is not in the log, each once, in their order."""
    rows = await tx.fetch(
        "SELECT source, id FROM log JOIN unnest($1::text[], $2::text[]) AS t(source, id) USING (source, id)",
        [envelope.meta.source for envelope, _ in pairs],
        [envelope.meta.id for envelope, _ in pairs],
    )
    seen = {(row["source"], row["id"]) for row in rows}
    fresh = []
    for envelope, event in pairs:
        identity = (envelope.meta.source, envelope.meta.id)
        if identity not in seen:
            seen.add(identity)
            fresh.append((envelope, event))
    return fresh


async def _withheld(tx: Tx, fresh: Sequence[tuple[Envelope, Event]]) -> set[str]:
    """Ids whose payload was redacted, told of now or before: those of these events, and those told of in them."""
    told = [event.event_id for _, event in fresh if isinstance(event, RecordRedacted)]
    if told:
        await tx.execute(
            "INSERT INTO redacted (event_id) SELECT * FROM unnest($1::text[]) ON CONFLICT DO NOTHING", told
        )
    ids = [envelope.meta.id for envelope, _ in fresh]
    rows = await tx.fetch("SELECT event_id FROM redacted WHERE event_id = ANY($1)", ids)
    return {row["event_id"] for row in rows} | set(told)


async def _redact(tx: Tx, withheld: set[str], up_to: int) -> None:
    """Blank the payloads of rows before `up_to` that may not be kept, and what the read models took from them."""
    if not withheld:
        return
    rows = await tx.fetch(
        "SELECT * FROM log WHERE id = ANY($1) AND position < $2 AND data IS NOT NULL", list(withheld), up_to
    )
    for row in rows:
        event = entry_of(row).event
        assert event is not None
        await checkpoints.redacting(tx, row["position"])
        await tx.execute("UPDATE log SET data = NULL, lon = NULL, lat = NULL WHERE position = $1", row["position"])
        await projections.forget(tx, event)
        left = await tx.fetch(
            "SELECT * FROM log WHERE topic = $1 AND subject = $2 ORDER BY position", row["topic"], row["subject"]
        )
        await projections.project(tx, [entry_of(each) for each in left])


async def _newest(tx: Tx, envelopes: Sequence[Envelope]) -> dict[tuple[str, str], int]:
    """The highest sequence in the log of each subject of a state stream."""
    subjects = sorted({(e.topic, e.meta.subject) for e in envelopes if topic(e.topic).kind == "state"})
    if not subjects:
        return {}
    rows = await tx.fetch(
        """
        SELECT topic, subject, last.sequence
        FROM unnest($1::text[], $2::text[]) AS t(topic, subject),
             LATERAL (SELECT sequence FROM log WHERE log.topic = t.topic AND log.subject = t.subject
                      ORDER BY sequence DESC LIMIT 1) AS last
        """,
        [name for name, _ in subjects],
        [subject for _, subject in subjects],
    )
    return {(row["topic"], row["subject"]): row["sequence"] for row in rows}


async def _points(tx: Tx, events: Sequence[Event]) -> list[tuple[float | None, float | None]]:
    """(lon, lat) of each event: its own, else that of its need or incident as known here; None where nothing says."""
    own = [_own_point(event) for event in events]
    unknown = [event for event, point in zip(events, own, strict=True) if point is None]
    needs: set[UUID] = {event.need_id for event in unknown if hasattr(event, "need_id")}
    incidents: set[UUID] = {
        event.incident_id for event in unknown if hasattr(event, "incident_id") and not hasattr(event, "need_id")
    }
    found: dict[UUID, tuple[float, float]] = {}
    for table, ids in (("need", needs), ("incident", incidents)):
        if ids:
            rows = await tx.fetch(
                f"SELECT {table}_id AS id, lon, lat FROM {table} "
                f"WHERE {table}_id = ANY($1) AND until_position = {projections.OPEN_END} AND lon IS NOT NULL",
                list(ids),
            )
            found |= {row["id"]: (row["lon"], row["lat"]) for row in rows}
    answer: list[tuple[float | None, float | None]] = []
    for event, point in zip(events, own, strict=True):
        about = getattr(event, "need_id", None) or getattr(event, "incident_id", None)
        answer.append(point or found.get(about, (None, None)))  # type: ignore[arg-type]
    return answer


def _own_point(event: Event) -> tuple[float, float] | None:
    point = getattr(event, "point", None) or getattr(event, "location", None)
    lon, lat = getattr(point, "lon", None), getattr(point, "lat", None)
    return None if lon is None or lat is None else (lon, lat)


async def head(tx: Tx) -> int:
    """The last position; 0 for an empty log."""
    return int(await tx.fetchval("SELECT coalesce(max(position), 0) FROM log"))


async def position_at(tx: Tx, as_of: datetime) -> int:
    """The last position that was received by this instant; 0 before the first."""
    found = await tx.fetchval(
        "SELECT position FROM log WHERE received_at <= $1 ORDER BY received_at DESC, position DESC LIMIT 1", as_of
    )
    return int(found or 0)


async def settle(tx: Tx) -> None:
    """Wait for the writer at work, whose rows may carry an instant before now and are not visible yet.

    What is appended afterwards is received after this moment. The lock is one of the session's, because a lock of the
    transaction would hold writers off until the report is done.
    """
    await tx.execute(f"SELECT pg_advisory_lock_shared({_LOCK})")
    await tx.execute(f"SELECT pg_advisory_unlock_shared({_LOCK})")


def entry_of(row: Row) -> Entry:
    """A row of the log with its event read."""
    data = row["data"]
    event = None if data is None else REGISTRY[row["type"]].model_validate_json(data)
    return Entry(
        position=row["position"],
        received_at=row["received_at"],
        time=row["time"],
        sequence=row["sequence"],
        operation=row["operation"],
        exercise=row["exercise"],
        superseded=row["superseded"],
        event=event,
    )


async def entries(tx: Tx, after: int, up_to: int, limit: int = PAGE) -> list[Entry]:
    """Rows with `after` < position <= `up_to`, oldest first, at most `limit`."""
    rows = await tx.fetch(
        "SELECT position, received_at, type, time, sequence, operation, exercise, superseded, data FROM log "
        "WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
        after,
        up_to,
        limit,
    )
    return [entry_of(row) for row in rows]


async def told_by(tx: Tx, topic_name: str, after: int, up_to: int) -> list[Entry]:
    """The rows of one topic, of which there are few, with `after` < position <= `up_to`, oldest first."""
    rows = await tx.fetch(
        "SELECT position, received_at, type, time, sequence, operation, exercise, superseded, data FROM log "
        "WHERE topic = $1 AND position > $2 AND position <= $3 ORDER BY topic, position",
        topic_name,
        after,
        up_to,
    )
    return [entry_of(row) for row in rows]


async def rebuild(db: Database) -> int:
    """Make the read models again from the log beside the live ones, then switch over; returns the position they
    stand at.

    Readers and the writer go on meanwhile; the writer is held off for the last page only. What was left by a rebuild
    that was cut off is thrown away.
    """
    async with db.tx() as tx:
        await projections.begin_beside(tx)
    at = 0
    while True:
        async with db.tx() as tx:
            last = await head(tx)
            if last - at <= PAGE:
                break
            at = await _catch_up(tx, at, min(last, at + PAGE))
    async with db.tx() as tx:
        await tx.execute(f"SELECT pg_advisory_xact_lock({_LOCK})")
        await checkpoints.redacting(tx, 0)
        at = await _catch_up(tx, at, await head(tx))
        await projections.switch_over(tx)
    return at


async def _catch_up(tx: Tx, after: int, up_to: int) -> int:
    """Project a stretch of the log into the read models beside the live ones."""
    async with projections.beside(tx):
        while after < up_to:
            page = await entries(tx, after, up_to)
            await projections.project(tx, page)
            after = page[-1].position
    return after
