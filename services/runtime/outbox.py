"""Events on their way out: appended in the caller's transaction, sent and journalled by one relay per service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from schemas.event import Event, Meta
from services.runtime import clock, journal, kafka, trace
from services.runtime.cloudevents import headers
from services.runtime.db import Database, Row, Tx, is_transient
from services.runtime.ids import uuid7
from services.runtime.journal import Entry
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

MAX_EVENT_BYTES = 32 * 1024
_SEND_TIMEOUT_S = 25  # below the database's idle-in-transaction timeout, which would end the open transaction


class EventTooLarge(Exception):
    """An event grew over 32 KiB: one of its collections is not bounded, which is our own bug."""


async def append(tx: Tx, events: Sequence[Event]) -> None:
    """Put events into the outbox, in this order, each with the next sequence of its subject.

    Lock (or version-check) the aggregate's row first when two writers may change it at once: that keeps the events
    of a key in the order of the changes. Numbering locks the subject's row as well.

    Raises
    ------
    EventTooLarge
        An event's data has more than 32 KiB.
    """
    if not events:
        return
    payloads = [event.to_bytes() for event in events]
    for event, payload in zip(events, payloads, strict=True):
        if len(payload) > MAX_EVENT_BYTES:
            raise EventTooLarge(f"{event.type} {event.subject_value} has {len(payload)} bytes")
    await tx.execute(
        """
        WITH input AS (
            SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[],
                                 $8::bytea[]) WITH ORDINALITY
                AS t(id, topic, key, type, subject, operation, exercise, payload, nth)
        ), numbered AS (
            INSERT INTO subject_sequence AS s (topic, subject, last)
            SELECT topic, subject, count(*) FROM input GROUP BY topic, subject ORDER BY topic, subject
            ON CONFLICT (topic, subject) DO UPDATE SET last = s.last + excluded.last
            RETURNING topic, subject, last
        )
        INSERT INTO outbox (id, topic, key, type, subject, sequence, time, operation, exercise, traceparent, payload)
        SELECT id, topic, key, type, subject,
               last - count(*) OVER (PARTITION BY topic, subject)
                    + row_number() OVER (PARTITION BY topic, subject ORDER BY nth),
               $9, operation, exercise, $10, payload
        FROM input JOIN numbered USING (topic, subject) ORDER BY nth
        """,
        [uuid7() for _ in events],
        [event.topic for event in events],
        [event.key_value for event in events],
        [event.type for event in events],
        [event.subject_value for event in events],
        [event.operation for event in events],
        [event.exercise for event in events],
        payloads,
        clock.now(),
        trace.current.get(),
    )
    await tx.execute("SELECT pg_notify('outbox_' || current_schema(), '')")


class Relay:
    """Moves the outbox to its topics and to the journal, in order. One at a time for each service: the lock is taken
    inside the transaction that moves the rows, so a second relay started by mistake waits instead of overtaking."""

    def __init__(self, db: Database, settings: Settings, source: str, *, batch: int = 500) -> None:
        self.db = db
        self.settings = settings
        self.source = source
        self.batch = batch
        self.problem: str | None = None
        self._producer: AIOKafkaProducer | None = None
        self._head: tuple[int, bytes] | None = None
        self._head_written_at: datetime | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`: wake by NOTIFY or five times a second, and go on trying through every outage."""
        wake = asyncio.Event()
        listener = None
        pause_s = 0.1
        try:
            while not stopping.is_set():
                try:
                    if listener is None or listener.is_closed():
                        listener = await self.db.listen([f"outbox_{self.db.schema}"], wake)
                    wake.clear()
                    moved = await self.move()
                    self.problem = None
                    pause_s = 0.1
                except (KafkaError, TimeoutError) as error:
                    self.problem = f"Kafka does not take events: {error!r}"
                    await self._drop_producer()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self.problem = f"the database does not answer: {error!r}"
                if self.problem:
                    log.warning("%s; trying again in %.1f s", self.problem, pause_s)
                    await _wait(stopping, pause_s)
                    pause_s = min(pause_s * 2, 5)
                elif moved < self.batch:
                    await _wait_any(wake, stopping, timeout_s=0.2)
                    if moved > 20:  # under load, gather a little: fewer and larger batches cost less an event
                        await asyncio.sleep(0.02)
        finally:
            if listener is not None:
                await listener.close(timeout=1)
            await self._drop_producer()
            self.write_head(force=True)

    async def move(self) -> int:
        """Send the oldest rows and journal them; returns how many. Nothing is journalled that was not acknowledged."""
        async with self.db.tx() as tx:
            if not await tx.fetchval(
                "SELECT pg_try_advisory_xact_lock(hashtext('gotong.relay'), hashtext(current_schema()))"
            ):
                return 0
            rows = await tx.fetch(
                "WITH gone AS (DELETE FROM outbox WHERE position IN (SELECT position FROM outbox ORDER BY position "
                "LIMIT $1) RETURNING *) SELECT * FROM gone ORDER BY position",
                self.batch,
            )
            if not rows:
                return 0
            producer = await self._connected()
            entries = [self._entry(row) for row in rows]
            places = await asyncio.wait_for(send(producer, entries), _SEND_TIMEOUT_S)
            head = await journal.write(tx, entries, places)
        self._head = head
        self.write_head()
        return len(rows)

    def _entry(self, row: Row) -> Entry:
        meta = Meta(
            id=str(row["id"]),
            source=self.source,
            type=row["type"],
            subject=row["subject"],
            time=row["time"],
            sequence=row["sequence"],
            operation=row["operation"],
            exercise=row["exercise"],
            traceparent=row["traceparent"],
        )
        return Entry(meta=meta, topic=row["topic"], key=row["key"], payload=row["payload"])

    async def _connected(self) -> AIOKafkaProducer:
        if self._producer is None:
            producer = kafka.producer(self.settings)
            try:
                await producer.start()
            except BaseException:
                await producer.stop()
                raise
            self._producer = producer
        return self._producer

    async def _drop_producer(self) -> None:
        """Throw the producer away, and with it whatever it still had in hand: the rows are in the outbox again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            try:
                await asyncio.wait_for(producer.stop(), 5)
            except (KafkaError, TimeoutError, OSError) as error:
                log.warning("the producer did not stop cleanly: %r", error)

    def write_head(self, *, force: bool = False) -> None:
        """Note the newest position and hash outside the database, at most every 10 s: a cut tail shows by it."""
        if self._head is None:
            return
        now = clock.now()
        if not force and self._head_written_at and (now - self._head_written_at).total_seconds() < 10:
            return
        journal.write_head(Path(self.settings.data), self.db.schema, *self._head)
        self._head_written_at = now


async def send(producer: AIOKafkaProducer, entries: Sequence[Entry]) -> list[RecordMetadata]:
    """Send in order and wait for every acknowledgement; returns where each record stands."""
    futures = [
        await producer.send(entry.topic, entry.payload, key=entry.key.encode(), headers=headers(entry.meta, entry.key))
        for entry in entries
    ]
    return list(await asyncio.gather(*futures))


async def unpublished(tx: Tx) -> int:
    """How many events wait in the outbox."""
    return int(await tx.fetchval("SELECT count(*) FROM outbox"))


async def _wait(stopping: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), timeout_s)
    except TimeoutError:
        return


async def _wait_any(*events: asyncio.Event, timeout_s: float) -> None:
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
