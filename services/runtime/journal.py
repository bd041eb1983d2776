"""The append-only record of every event that left a service: a hash chain that anybody can walk.

A row's hash covers the previous hash, its position, its attributes and the SHA-256 of its payload, not the payload:
a payload can be redacted and the chain still verifies.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import asyncpg
import orjson
from aiokafka.structs import RecordMetadata

from schemas.event import Meta
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row, Tx

GENESIS = bytes(32)


class Entry(NamedTuple):
    """An event as it leaves."""

    meta: Meta
    topic: str
    key: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a walk along one service's chain found; `fault` None: nothing wrong."""

    service: str
    rows: int
    redacted: int
    fault: str | None
    position: int | None = None


def chained(previous: bytes, position: int, meta: Meta, topic: str, key: str, payload_sha256: bytes) -> bytes:
    """The hash of one row: SHA-256 over the previous hash and a JSON array of what the row says of itself."""
    row = [
        position,
        meta.id,
        topic,
        key,
        meta.type,
        meta.source,
        meta.subject,
        meta.sequence,
        timestamp(meta.time),
        meta.operation,
        meta.exercise,
        meta.traceparent,
        payload_sha256.hex(),
    ]
    return hashlib.sha256(previous + orjson.dumps(row)).digest()


async def write(tx: Tx, entries: Sequence[Entry], places: Sequence[RecordMetadata]) -> tuple[int, bytes]:
    """Append what was sent, in order; returns the newest position and hash. Only the relay calls this: it holds the
    lock that makes it the single writer."""
    last = await tx.fetchrow("SELECT position, hash FROM journal ORDER BY position DESC LIMIT 1")
    position, digest = (last["position"], last["hash"]) if last else (0, GENESIS)
    rows = []
    for entry, place in zip(entries, places, strict=True):
        position += 1
        payload_sha256 = hashlib.sha256(entry.payload).digest()
        digest = chained(digest, position, entry.meta, entry.topic, entry.key, payload_sha256)
        meta = entry.meta
        rows.append(
            (
                position,
                meta.id,
                entry.topic,
                entry.key,
                meta.type,
                meta.source,
                meta.subject,
                meta.sequence,
                meta.time,
                meta.operation,
                meta.exercise,
                meta.traceparent,
                entry.payload,
                payload_sha256,
                digest,
                place.partition,
                place.offset,
            )
        )
    await tx.raw.copy_records_to_table(
        "journal",
        records=rows,
        columns=[
            "position",
            "id",
            "topic",
            "key",
            "type",
            "source",
            "subject",
            "sequence",
            "time",
            "operation",
            "exercise",
            "traceparent",
            "payload",
            "payload_sha256",
            "hash",
            "kafka_partition",
            "kafka_offset",
        ],
    )
    return position, digest


async def place(tx: Tx, rows: Sequence[Row], places: Sequence[RecordMetadata]) -> None:
    """Note where these rows stand after they were sent again; `places` has one for each row that is not redacted."""
    await tx.execute(
        "UPDATE journal SET kafka_partition = new.part, kafka_offset = new.off "
        "FROM unnest($1::bigint[], $2::integer[], $3::bigint[]) AS new (position, part, off) "
        "WHERE journal.position = new.position",
        [row["position"] for row in rows if row["payload"] is not None],
        [place.partition for place in places],
        [place.offset for place in places],
    )


def meta_of(row: Row) -> Meta:
    """The attributes of a journal row."""
    return Meta(
        id=str(row["id"]),
        source=row["source"],
        type=row["type"],
        subject=row["subject"],
        time=row["time"],
        sequence=row["sequence"],
        operation=row["operation"],
        exercise=row["exercise"],
        traceparent=row["traceparent"],
    )


async def verify(connection: asyncpg.Connection[Row], service: str, head: tuple[int, bytes] | None = None) -> Verdict:
    """Walk one service's chain from its first row.

    `head`: a position and hash noted elsewhere; if the chain ends before it, or differs there, its tail was cut.
    """
    expected, digest, redacted = 0, GENESIS, 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        async for row in connection.cursor(f'SELECT * FROM "{service}".journal ORDER BY position', prefetch=1000):
            expected += 1
            if row["position"] != expected:
                return Verdict(service, expected - 1, redacted, f"row {expected} is missing", expected)
            if row["payload"] is None:
                redacted += 1
            elif hashlib.sha256(row["payload"]).digest() != row["payload_sha256"]:
                return Verdict(service, expected - 1, redacted, f"the payload of row {expected} was changed", expected)
            digest = chained(digest, expected, meta_of(row), row["topic"], row["key"], row["payload_sha256"])
            if digest != row["hash"]:
                return Verdict(service, expected - 1, redacted, f"row {expected} was changed", expected)
            if head and head[0] == expected and head[1] != digest:
                return Verdict(service, expected, redacted, f"row {expected} differs from the noted head", expected)
    if head and head[0] > expected:
        return Verdict(
            service, expected, redacted, f"the tail was cut: row {head[0]} was noted, the chain ends at {expected}",
            expected + 1,
        )  # fmt: skip
    return Verdict(service, expected, redacted, None)


def write_head(data: Path, service: str, position: int, digest: bytes) -> None:
    """Note the newest position and hash in `<data>/heads/<service>`, replacing the file whole. A folder that cannot
    be written is no reason to stop sending events."""
    path = data / "heads" / service
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps({"position": position, "hash": digest.hex()}))
        fresh.replace(path)
    except OSError:
        return


def read_head(data: Path, service: str) -> tuple[int, bytes] | None:
    """The head noted for this service, if there is one."""
    try:
        noted = json.loads((data / "heads" / service).read_text())
    except FileNotFoundError:
        return None
    return int(noted["position"]), bytes.fromhex(noted["hash"])
