"""Events on their way out: appended in the caller's transaction, sent and journalled by one relay per service."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from schemas.event import Event, Meta
from schemas.topics import TOPICS
from services.runtime import clock, journal, kafka, trace
from services.runtime.cloudevents import headers
from services.runtime.db import Database, Row, Tx, is_transient, to_json, wait_any
from services.runtime.ids import uuid7
from services.runtime.journal import Entry
from services.runtime.kafka import LogLost, gather_s
from services.runtime.settings import Settings
from services.runtime.topics import mend_topics

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
        ), put AS (
            INSERT INTO outbox
                (id, topic, key, type, subject, sequence, time, operation, exercise, traceparent, payload)
            SELECT id, topic, key, type, subject,
                   last - count(*) OVER (PARTITION BY topic, subject)
                        + row_number() OVER (PARTITION BY topic, subject ORDER BY nth),
                   $9, operation, exercise, $10, payload
            FROM input JOIN numbered USING (topic, subject) ORDER BY nth
        )
        SELECT pg_notify('outbox_' || current_schema(), '')
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


@dataclass(slots=True)
class Link:
    """A connection to the log of one cluster id. `lost`: another was met, so nothing more goes over this link."""

    cluster_id: str
    producer: AIOKafkaProducer
    admin: AIOKafkaAdminClient
    ends: dict[TopicPartition, int] = field(default_factory=dict)
    """Where each partition ended after the newest record that this service sent, up to the row `seen`."""
    seen: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Relay:
    """Moves the outbox to its topics and to the journal, in order. One at a time for each service: the lock is taken
    inside the transaction that moves the rows, so a second relay started by mistake waits instead of overtaking.

    When the broker has lost its log, it first sends again what readers may not have read (ADR 0007).
    """

    def __init__(self, db: Database, settings: Settings, source: str, *, batch: int = 500) -> None:
        self.db = db
        self.settings = settings
        self.source = source
        self.batch = batch
        self.problem: str | None = None
        self._link: Link | None = None
        self._head: tuple[int, bytes] | None = None
        self._head_written_at: datetime | None = None

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping`: wake by NOTIFY or five times a second, and go on trying through every outage."""
        wake = asyncio.Event()
        listener = None
        pause_s = 0.1
        marking = asyncio.create_task(self._keep_mark(stopping))
        try:
            while not stopping.is_set():
                try:
                    if listener is None or listener.is_closed():
                        listener = await self.db.listen([f"outbox_{self.db.schema}"], wake)
                    wake.clear()
                    moved = await self.move()
                    self.problem = None
                    pause_s = 0.1
                except LogLost as error:
                    log.warning("%s: %s", self.db.schema, error)
                    await self._drop_link()
                    await _wait(stopping, 0.05)
                    continue
                except (KafkaError, TimeoutError) as error:
                    self.problem = f"Kafka does not take events: {error!r}"
                    await self._drop_link()
                except Exception as error:
                    if not is_transient(error):
                        raise
                    self.problem = f"the database does not answer: {error!r}"
                if marking.done():
                    marking.result()
                if self.problem:
                    log.warning("%s; trying again in %.1f s", self.problem, pause_s)
                    await _wait(stopping, pause_s)
                    pause_s = min(pause_s * 2, 5)
                elif moved < self.batch:
                    lost = [self._link.lost] if self._link else []
                    await wait_any(wake, stopping, *lost, timeout_s=0.2)
                    if pause_s := gather_s(moved):
                        await asyncio.sleep(pause_s)
        finally:
            marking.cancel()
            await asyncio.wait([marking])
            if listener is not None:
                await listener.close(timeout=1)
            await self._drop_link()
            self.write_head(force=True)

    async def move(self) -> int:
        """Send the oldest rows and journal them; returns how many. Nothing is journalled that was not acknowledged.

        After the log was lost: send journalled rows again instead, until that is done.

        Raises
        ------
        LogLost
            The broker has a new cluster id. Nothing was journalled.
        """
        link = await self._connected()
        async with self.db.tx() as tx:
            if not await tx.fetchval(
                "SELECT pg_try_advisory_xact_lock(hashtext('gotong.relay'), hashtext(current_schema()))"
            ):
                return 0
            rows = await tx.fetch(
                "SELECT * FROM outbox WHERE (SELECT cluster_id = $2 AND resent_to >= resend_until FROM relay) "
                "ORDER BY position LIMIT $1",
                self.batch,
                link.cluster_id,
            )
            if not rows:
                return await self._send_again(tx, link)
            # By their numbers, each found in the index: a row with a lower one may be committed meanwhile. And not in
            # one statement with the reading, which PostgreSQL would plan as a walk through the whole table.
            await tx.execute("DELETE FROM outbox WHERE position = ANY($1)", [row["position"] for row in rows])
            entries = [self._entry(row) for row in rows]
            places = await self._sent(link, entries)
            head = await journal.write(tx, entries, places)
        self._head = head
        self.write_head()
        return len(rows)

    async def _send_again(self, tx: Tx, link: Link) -> int:
        """The next batch of what the log may have lost, with the same ids and at its new places; returns how many."""
        state = await tx.fetchrow("SELECT cluster_id, resent_to, resend_until FROM relay")
        assert state is not None
        if state["cluster_id"] != link.cluster_id:
            raise LogLost(f"another relay speaks to the cluster {state['cluster_id']}, this one to {link.cluster_id}")
        if state["resent_to"] >= state["resend_until"]:
            return 0
        rows = await tx.fetch(
            "SELECT * FROM journal WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
            state["resent_to"],
            state["resend_until"],
            self.batch,
        )
        entries = entries_of(rows)
        await journal.place(tx, rows, await self._sent(link, entries))
        done = rows[-1]["position"] if rows else state["resend_until"]
        await tx.execute("UPDATE relay SET resent_to = $1", done)
        if done >= state["resend_until"]:
            log.warning("%s: all is sent again, up to row %d", self.db.schema, done)
        return len(rows)

    async def _sent(self, link: Link, entries: Sequence[Entry]) -> list[RecordMetadata]:
        """Send and wait for every acknowledgement, or for the news that the log is gone."""
        sending = asyncio.ensure_future(send(link.producer, entries))
        lost = asyncio.ensure_future(link.lost.wait())
        try:
            await asyncio.wait([sending, lost], timeout=_SEND_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                places = sending.result()
                for place in places:
                    link.ends[TopicPartition(place.topic, place.partition)] = place.offset + 1
                return places
            if link.lost.is_set():
                raise LogLost(f"the broker is no longer of the cluster {link.cluster_id}")
            raise TimeoutError(f"no acknowledgement within {_SEND_TIMEOUT_S} s")
        finally:
            lost.cancel()
            if not sending.done():
                sending.cancel()
                await asyncio.wait([sending])

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

    async def _connected(self) -> Link:
        if self._link is not None and self._link.lost.is_set():
            raise LogLost(f"the broker is no longer of the cluster {self._link.cluster_id}")
        if self._link is None:
            found = await kafka.cluster_id(self.settings)
            # The embedded broker tells no true ends, and never comes back with a part of its log.
            cut = not self.settings.kafka_embedded and await self._cut_short(found)
            if await self._recognised(found, cut=cut) or self.settings.kafka_embedded:
                await mend_topics(self.settings)
            link = Link(found, kafka.producer(self.settings), kafka.admin(self.settings))
            kafka.hold_to(link.producer.client, found, link.lost)
            kafka.hold_to(link.admin._client, found, link.lost)
            try:
                # A producer that asks for its number asks for ever, and so never hears that the cluster is another.
                await asyncio.wait_for(link.producer.start(), 10)
                await link.admin.start()
            except BaseException:
                await kafka.drop_producer(link.producer)
                await link.admin.close()
                raise
            self._link = link
        return self._link

    async def _ends(self, cluster_id: str, seen: int = 0) -> tuple[int, dict[TopicPartition, int]]:
        """Where the partitions end by what the journal says of rows after `seen` and the low-water mark, and the last
        such row; nothing while its places are not in the log of this cluster."""
        async with self.db.tx() as tx:
            rows = await tx.fetch(
                "SELECT topic, kafka_partition, max(kafka_offset) + 1 AS ends, max(position) AS position FROM journal "
                "WHERE position > $2 AND position >= "
                "(SELECT low_water FROM relay WHERE cluster_id = $1 AND resent_to >= resend_until) "
                "AND kafka_offset IS NOT NULL AND payload IS NOT NULL GROUP BY topic, kafka_partition",
                cluster_id,
                seen,
            )
        ends = {TopicPartition(row["topic"], row["kafka_partition"]): int(row["ends"]) for row in rows}
        return max((row["position"] for row in rows), default=seen), ends

    async def _follow(self, link: Link) -> None:
        """Take note of where the partitions end now, by rows that this relay or another has sent since."""
        link.seen, fresh = await self._ends(link.cluster_id, link.seen)
        link.ends |= {partition: max(end, link.ends.get(partition, 0)) for partition, end in fresh.items()}

    async def _cut_short(self, found: str) -> bool:
        """Whether the log of this same cluster ends before unread rows that it had acknowledged: one broker alone,
        after a power cut or with a topic made anew. Rows that are read already are not looked for."""
        _, expected = await self._ends(found)
        if not expected:
            return False
        real = await kafka.ends(self.settings, list(expected))
        return any(real[partition] < end for partition, end in expected.items())

    async def _recognised(self, found: str, *, cut: bool = False) -> bool:
        """Note that the journal's places are in the log of this cluster. Returns whether rows have to be sent again:
        those from the low-water mark on, when the log is another than it was or `cut` short, or what is left of them.
        """
        async with self.db.tx() as tx:
            # It waits: while another relay is in the middle of a batch, that batch must count as one of the old log.
            await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.relay'), hashtext(current_schema()))")
            state = await tx.fetchrow("SELECT * FROM relay")
            assert state is not None
            if state["cluster_id"] == found and (not cut or state["resent_to"] < state["resend_until"]):
                return bool(state["resent_to"] < state["resend_until"])
            last = await tx.fetchval("SELECT coalesce(max(position), 0) FROM journal")
            await tx.execute(
                "UPDATE relay SET cluster_id = $1, resent_to = low_water - 1, resend_until = $2", found, last
            )
        if last >= state["low_water"]:
            log.warning(
                "%s: the broker has a new log (%s after %s); sending rows %d to %d again",
                *(self.db.schema, found, state["cluster_id"], state["low_water"], last),
            )
        return True

    async def _drop_link(self) -> None:
        """Throw the connection away, and with it whatever was still in hand: the rows are in the outbox again."""
        link, self._link = self._link, None
        if link is not None:
            await kafka.drop_producer(link.producer)
            await link.admin.close()

    async def _keep_mark(self, stopping: asyncio.Event) -> None:
        """Work out the low-water mark every second; with nothing left unread, ask every five whether the broker still
        is of the same cluster, so that an empty log is noticed by a service that has nothing to say, too."""
        asked_at = 0.0
        while not stopping.is_set():
            link = self._link
            if link is not None and not link.lost.is_set():
                try:
                    async with asyncio.timeout(5):
                        if not await self.mark(link) and time.monotonic() - asked_at > 5:
                            await link.admin.describe_cluster()
                            asked_at = time.monotonic()
                except (KafkaError, TimeoutError) as error:
                    log.debug("%s: the readers' offsets cannot be had: %r", self.db.schema, error)
                except Exception as error:
                    if not is_transient(error):
                        raise
            await _wait(stopping, 1)

    async def mark(self, link: Link) -> bool:
        """Move the low-water mark to the oldest row that some reader has not committed yet. Returns whether there
        was any row to look at.

        It is kept in the table, because it is needed when the broker that it was asked from is gone.
        """
        if await self._unread_from(link, {}) is None:
            await self._note_lag(link, {})
            return False
        committed: dict[TopicPartition, int] = {}
        await self._follow(link)
        lag: dict[str, dict[str, int]] = {}
        for group, partitions in readers_of(self.db.schema).items():
            found = await link.admin.list_consumer_group_offsets(group, partitions=partitions)
            for partition in partitions:
                # -1: it never committed, so all is unread.
                offset = max(found[partition].offset, 0) if partition in found else 0
                committed[partition] = min(committed.get(partition, offset), offset)
                left = link.ends.get(partition, 0) - offset
                if left > 0:
                    of_group = lag.setdefault(group, {})
                    of_group[partition.topic] = of_group.get(partition.topic, 0) + left
        await self._note_lag(link, lag)
        mark = await self._unread_from(link, committed)
        if mark is not None:
            async with self.db.tx() as tx:
                await tx.execute(
                    "UPDATE relay SET low_water = $1 "
                    "WHERE low_water < $1 AND cluster_id = $2 AND resent_to >= resend_until",
                    mark,
                    link.cluster_id,
                )
        return True

    async def _note_lag(self, link: Link, lag: dict[str, dict[str, int]]) -> None:
        """Keep what each reader lacks where others find it."""
        async with self.db.tx() as tx:
            await tx.execute(
                "UPDATE relay SET reader_lag = $1, marked_at = $2 WHERE cluster_id = $3 AND resent_to >= resend_until",
                to_json(lag),
                clock.now(),
                link.cluster_id,
            )

    async def _unread_from(self, link: Link, committed: dict[TopicPartition, int]) -> int | None:
        """The position after the last row that every reader has committed; None: there is no row after the mark, or
        the rows' places are not all in this log. Each row is looked at once, as the mark moves over it."""
        async with self.db.tx() as tx:
            state = await tx.fetchrow(
                "SELECT low_water FROM relay WHERE cluster_id = $1 AND resent_to >= resend_until", link.cluster_id
            )
            if state is None:
                return None
            at = int(state["low_water"])
            # In order, or the planner, which takes the newest rows for many, reads the table from its start.
            if not await tx.fetchval("SELECT true FROM journal WHERE position >= $1 ORDER BY position LIMIT 1", at):
                return None
            if not committed:
                return at
            while True:
                row = await tx.fetchrow(
                    """
                    WITH part AS (
                        SELECT position, topic, kafka_partition, kafka_offset, payload IS NULL AS redacted
                        FROM journal WHERE position >= $1 ORDER BY position LIMIT 1000
                    )
                    SELECT max(position) AS last,
                           min(position) FILTER (
                               WHERE topic = ANY($2) AND NOT redacted
                                 AND coalesce(kafka_offset >= read.before, true)) AS unread
                    FROM part LEFT JOIN unnest($3::text[], $4::integer[], $5::bigint[])
                              AS read (name, number, before) ON name = topic AND number = kafka_partition
                    """,
                    at,
                    sorted({partition.topic for partition in committed}),
                    [partition.topic for partition in committed],
                    [partition.partition for partition in committed],
                    list(committed.values()),
                )
                assert row is not None
                if row["unread"] is not None:
                    return int(row["unread"])
                if row["last"] is None:
                    return at
                at = int(row["last"]) + 1

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
    """Send in order and wait for every acknowledgement; returns where each record stands.

    The batches are made here, one for each partition, and handed over whole: one request carries them all, where the
    producer's own way sends the first record alone and looks up the partitions anew for every record.
    """
    batches: dict[tuple[str, int], list[tuple[BatchBuilder, list[int]]]] = {}
    counts = {topic: len(await producer.partitions_for(topic)) for topic in {entry.topic for entry in entries}}
    for n, entry in enumerate(entries):
        key = entry.key.encode()
        place = (entry.topic, kafka.partition_of(key, counts[entry.topic]))
        marks = headers(entry.meta, entry.key)
        mine = batches.setdefault(place, [])
        if not mine or mine[-1][0].append(timestamp=None, key=key, value=entry.payload, headers=marks) is None:
            mine.append((producer.create_batch(), []))
            if mine[-1][0].append(timestamp=None, key=key, value=entry.payload, headers=marks) is None:
                raise EventTooLarge(f"{entry.meta.type} {entry.meta.subject} fits into no batch")
        mine[-1][1].append(n)
    places: dict[int, RecordMetadata] = {}
    await asyncio.gather(*(_send_batches(producer, *place, mine, places) for place, mine in batches.items()))
    return [places[n] for n in range(len(entries))]


async def _send_batches(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    batches: Sequence[tuple[BatchBuilder, list[int]]],
    places: dict[int, RecordMetadata],
) -> None:
    """One partition's batches, one after the other; notes where each of their records stands."""
    for batch, numbers in batches:
        batch.close()
        first = await (await producer.send_batch(batch, topic, partition=partition))
        for at, n in enumerate(numbers):
            places[n] = first._replace(offset=first.offset + at)


def entries_of(rows: Sequence[Row]) -> list[Entry]:
    """What to send again of these journal rows: all but the redacted, whose payload is gone."""
    return [
        Entry(journal.meta_of(row), row["topic"], row["key"], row["payload"])
        for row in rows
        if row["payload"] is not None
    ]


def readers_of(service: str) -> dict[str, list[TopicPartition]]:
    """Which consumer groups read what this service says, by `schemas/topics.py`, and from which partitions."""
    found: dict[str, list[TopicPartition]] = defaultdict(list)
    for entry in TOPICS.values():
        if entry.producer in (service, "each service"):
            for reader in entry.readers:
                found[f"gotong.{reader}"] += [TopicPartition(entry.name, n) for n in range(entry.partitions)]
    return dict(found)


async def unpublished(tx: Tx) -> int:
    """How many events wait in the outbox."""
    return int(await tx.fetchval("SELECT count(*) FROM outbox"))


async def _wait(stopping: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stopping.wait(), timeout_s)
    except TimeoutError:
        return
