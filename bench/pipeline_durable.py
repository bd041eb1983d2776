"""The two hops with a database and nothing else: what the rules of delivery cost by themselves.

The bare program of `pipeline_load` keeps nothing. This one keeps what design rules 2 to 4 ask for and no more: events
leave by an outbox that is moved to a journal in the transaction that sent them; a handler claims its events in an
inbox, writes one row of state and one event for each, and commits its offsets afterwards; the last hop is a log that
takes each event once. Plain aiokafka and asyncpg, rows copied in binary, 500 at a time, one index on each table. No
model is validated, no hash chained, nothing is read twice, one consumer reads each hop, and no event type is known.

Run as a program it is one of its processes: `source`, `middle` or `sink`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bench.pipeline_load import _consumer, _go, _send, hops, needs
from schemas.event import Meta
from services.runtime import clock, kafka
from services.runtime.cloudevents import headers
from services.runtime.ids import uuid7
from services.runtime.service import run_loop
from services.runtime.settings import Settings

BATCH = 500
SCHEMA = """
    CREATE TABLE {0}_outbox (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL, key text NOT NULL,
        marks bytea NOT NULL, payload bytea NOT NULL);
    CREATE TABLE {0}_journal (
        position bigint PRIMARY KEY, id uuid NOT NULL, key text NOT NULL, marks bytea NOT NULL, payload bytea NOT NULL);
    CREATE TABLE {0}_inbox (id uuid PRIMARY KEY);
    CREATE TABLE {0}_state (id uuid PRIMARY KEY, key text NOT NULL, quantity int NOT NULL, at timestamptz NOT NULL);
"""
LOG = """
    CREATE TABLE log (
        position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id uuid NOT NULL UNIQUE, key text NOT NULL,
        marks bytea NOT NULL, payload bytea NOT NULL);
"""
_COLUMNS = ("id", "key", "marks", "payload")
Record = tuple[Any, str, bytes, bytes]
"""Id, key, headers as one string of bytes, payload."""


async def make_tables(dsn: str) -> None:
    """The tables of both services and the log's."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(SCHEMA.format("first") + SCHEMA.format("second") + LOG)
    finally:
        await connection.close()


def _packed(marks: Sequence[tuple[str, bytes]]) -> bytes:
    return b"\n".join(name.encode() + b"=" + value for name, value in marks)


def _unpacked(marks: bytes) -> list[tuple[str, bytes]]:
    pairs = (line.partition(b"=") for line in marks.split(b"\n"))
    return [(name.decode(), value) for name, _, value in pairs]


async def fill(dsn: str, count: int, seed: int, run: str) -> None:
    """Put so many needs into the first outbox."""
    now = clock.now()
    rows: list[Record] = []
    for event in needs(seed, count, run):
        meta = Meta(str(event.need_id), "/gotong/bench/intake", event.type, event.subject_value, now, 1, "bench")
        rows.append((uuid7(), event.key_value, _packed(headers(meta, event.key_value)), event.to_bytes()))
    connection = await asyncpg.connect(dsn)
    try:
        await connection.copy_records_to_table("first_outbox", records=rows, columns=_COLUMNS)
        await connection.execute("VACUUM ANALYZE first_outbox")
    finally:
        await connection.close()


async def _relay(db: asyncpg.Connection[Any], producer: AIOKafkaProducer, name: str, topic: str) -> int:
    """Send the oldest rows and move them to the journal, in one transaction; returns how many."""
    async with db.transaction():
        rows = await db.fetch(f"SELECT * FROM {name}_outbox ORDER BY position LIMIT {BATCH}")
        if not rows:
            return 0
        await db.execute(f"DELETE FROM {name}_outbox WHERE position = ANY($1)", [row["position"] for row in rows])
        await _send(producer, topic, [(row["payload"], row["key"].encode(), _unpacked(row["marks"])) for row in rows])
        await db.copy_records_to_table(f"{name}_journal", records=rows, columns=("position", *_COLUMNS))
    return len(rows)


async def source(dsn: str, count: int, run: str) -> None:
    """The relay of the first service."""
    producer = kafka.producer(Settings())
    await producer.start()
    db = await asyncpg.connect(dsn)
    await _go()
    sent = 0
    while sent < count:
        sent += await _relay(db, producer, "first", hops(run)[0])
    await _go()  # its processor time is read before it ends
    await producer.stop()


async def middle(dsn: str, count: int, run: str) -> None:
    """The second service: handler and relay by turns, as one process has one processor."""
    settings = Settings()
    producer = kafka.producer(settings)
    await producer.start()
    consumer = await _consumer(settings, hops(run)[0], f"bench.durable.{run}")
    db = await asyncpg.connect(dsn)
    await _go()
    handled = sent = 0
    while sent < count:
        if handled < count:
            handled += await _handle(db, consumer)
        while moved := await _relay(db, producer, "second", hops(run)[1]):
            sent += moved
    await _go()
    await consumer.stop()
    await producer.stop()


async def _taken(consumer: AIOKafkaConsumer) -> list[Any]:
    found = await consumer.getmany(timeout_ms=500, max_records=BATCH)
    return [record for batch in found.values() for record in batch]


def _id_of(record: Any) -> str:
    found: bytes = next(value for name, value in record.headers if name == "ce_id")
    return found.decode()


async def _handle(db: asyncpg.Connection[Any], consumer: AIOKafkaConsumer) -> int:
    """Claim, one row of state and one event for each, all in one transaction; then the offsets."""
    records = await _taken(consumer)
    if not records:
        return 0
    by_id = {_id_of(record): record for record in records}
    now = clock.now()
    async with db.transaction():
        claimed = await db.fetch(
            "INSERT INTO second_inbox SELECT * FROM unnest($1::uuid[]) ON CONFLICT DO NOTHING RETURNING id", list(by_id)
        )
        fresh = [by_id[str(row["id"])] for row in claimed]
        ids = [uuid7() for _ in fresh]
        await db.copy_records_to_table(
            "second_state",
            records=[(new, record.key.decode(), 1, now) for new, record in zip(ids, fresh, strict=True)],
        )
        await db.copy_records_to_table(
            "second_outbox",
            records=[
                (new, record.key.decode(), _packed(_with_id(record.headers, str(new))), record.value)
                for new, record in zip(ids, fresh, strict=True)
            ],
            columns=_COLUMNS,
        )
    await consumer.commit()
    return len(fresh)


def _with_id(marks: Sequence[tuple[str, bytes]], new: str) -> list[tuple[str, bytes]]:
    return [(name, new.encode() if name == "ce_id" else value) for name, value in marks]


async def sink(dsn: str, count: int, run: str) -> None:
    """The log: what is there already is left out; says when all was there."""
    consumer = await _consumer(Settings(), hops(run)[1], f"bench.log.{run}")
    db = await asyncpg.connect(dsn)
    await _go()
    seen = 0
    while seen < count:
        records = await _taken(consumer)
        if not records:
            continue
        async with db.transaction():
            ids = [_id_of(record) for record in records]
            known = {str(row["id"]) for row in await db.fetch("SELECT id FROM log WHERE id = ANY($1::uuid[])", ids)}
            fresh = [(i, r) for i, r in zip(ids, records, strict=True) if i not in known]
            await db.copy_records_to_table(
                "log",
                records=[(i, r.key.decode(), _packed(r.headers), r.value) for i, r in fresh],
                columns=_COLUMNS,
            )
        await consumer.commit()
        seen += len(fresh)
    print(f"done {time.time()}", flush=True)
    await _go()
    await consumer.stop()


def main(argv: Sequence[str]) -> None:
    what, dsn, count, run = argv
    run_loop({"source": source, "middle": middle, "sink": sink}[what](dsn, int(count), run))


if __name__ == "__main__":
    main(sys.argv[1:])
