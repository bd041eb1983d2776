"""What could not be taken: kept encrypted with its reason and place, and let in later, mended or as it was, once."""

from __future__ import annotations

import base64
import hashlib
from typing import Any, NamedTuple

import orjson
from aiokafka import ConsumerRecord

from schemas.quarantine import RecordRefused, RecordReleased
from services.runtime import clock, outbox, vault
from services.runtime.db import Row, Tx
from services.runtime.problems import Conflict, NotFound

OWNER = "quarantine"
"""Whose key the raw records are sealed with."""


class Unprocessable(Exception):
    """This message can never succeed; `pointer` names the field (a JSON pointer)."""

    def __init__(self, reason: str, pointer: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer


class Raw(NamedTuple):
    """A Kafka record as it came."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None

    @classmethod
    def of(cls, record: ConsumerRecord[Any, Any]) -> Raw:
        return cls(
            record.topic, record.partition, record.offset, record.key, tuple(record.headers or ()), record.value
        )  # fmt: skip

    def to_bytes(self) -> bytes:
        return orjson.dumps(
            {
                "key": _b64(self.key),
                "headers": [[name, _b64(value)] for name, value in self.headers],
                "value": _b64(self.value),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, topic: str, partition: int, offset: int) -> Raw:
        document = orjson.loads(data)
        headers = tuple((name, _unb64(value)) for name, value in document["headers"])
        return cls(topic, partition, offset, _unb64(document["key"]), headers, _unb64(document["value"]))


def _b64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _unb64(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def number_of(quarantine_id: str, service: str) -> int:
    """The row's number in an id such as `exchange-17`.

    Raises
    ------
    NotFound
        The id is not one of this service.
    """
    name, _, number = quarantine_id.rpartition("-")
    if name != service or not number.isascii() or not number.isdigit() or len(number) > 18:
        raise NotFound(f"there is no quarantined record {quarantine_id}")
    return int(number)


async def refuse(tx: Tx, service: str, raw: Raw, reason: str, pointer: str | None = None) -> None:
    """Put a record aside and say so on the quarantine topic. A record refused before is not put aside again."""
    origin = _header(raw, "ce_source")
    origin_id = _header(raw, "ce_id")
    digest = hashlib.sha256(raw.value or b"").digest()
    reason = reason.replace("\x00", "\\0")[:1000]
    number = await tx.fetchval(
        """
        INSERT INTO quarantine (topic, kafka_partition, kafka_offset, origin, origin_id, reason, pointer, sha256,
                                sealed, refused_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING RETURNING id
        """,
        raw.topic,
        raw.partition,
        raw.offset,
        origin,
        origin_id,
        reason,
        pointer,
        digest,
        await vault.seal(tx, OWNER, raw.to_bytes()),
        clock.now(),
    )
    if number is None:
        return
    refused = RecordRefused(
        quarantine_id=f"{service}-{number}",
        service=service,
        origin=origin,
        origin_id=origin_id,
        reason=reason,
        pointer=pointer,
        from_topic=raw.topic,
        partition=raw.partition,
        offset=raw.offset,
        sha256=digest.hex(),
    )
    await outbox.append(tx, [refused])


def _header(raw: Raw, name: str) -> str | None:
    for header, value in raw.headers:
        if header.lower() == name and value is not None:
            return value.decode("utf-8", "replace").replace("\x00", "")[:500]
    if raw.value and (len(raw.value) < 65536):  # a structured event carries its attributes in the value
        try:
            found = orjson.loads(raw.value).get(name[3:])
        except (orjson.JSONDecodeError, AttributeError):
            return None
        return found.replace("\x00", "")[:500] if isinstance(found, str) else None
    return None


async def ask_release(tx: Tx, service: str, number: int, value: Any | None, by: str, reason: str) -> Row:
    """Mark a record for release; the service's worker takes it up. `value` replaces the data, if it was mended.

    Raises
    ------
    NotFound
        There is no such record.
    Conflict
        It was released before.
    """
    row = await tx.fetchrow("SELECT * FROM quarantine WHERE id = $1 FOR UPDATE", number)
    if row is None:
        raise NotFound(f"there is no quarantined record {service}-{number}")
    if row["state"] != "refused":
        raise Conflict(f"{service}-{number} was released before, by {row['released_by']}")
    sealed = row["sealed"]
    if value is not None:
        raw = await raw_of(tx, row)
        mended = Raw(raw.topic, raw.partition, raw.offset, raw.key, raw.headers, _mended(raw, value))
        sealed = await vault.seal(tx, OWNER, mended.to_bytes())
    updated = await tx.fetchrow(
        "UPDATE quarantine SET state = 'releasing', sealed = $2, mended = $3, released_by = $4, release_reason = $5 "
        "WHERE id = $1 RETURNING *",
        number,
        sealed,
        value is not None,
        by,
        reason,
    )
    assert updated is not None
    await tx.execute("SELECT pg_notify('release_' || current_schema(), '')")
    return updated


def _mended(raw: Raw, value: Any) -> bytes:
    """The new value: a whole structured event stays one, else the given data takes the place of the old."""
    content_type = next((v for n, v in raw.headers if n.lower() == "content-type" and v), b"")
    if content_type.startswith(b"application/cloudevents+json") and raw.value and "specversion" not in value:
        try:
            document = orjson.loads(raw.value)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, dict):
            return orjson.dumps(document | {"data": value})
    return orjson.dumps(value)


async def raw_of(tx: Tx, row: Row) -> Raw:
    """The record as it came, or as it was mended.

    Raises
    ------
    Conflict
        It was redacted since.
    """
    data = await vault.unseal(tx, OWNER, row["sealed"]) if row["sealed"] else None
    if data is None:
        raise Conflict("the record was erased and cannot be released")
    return Raw.from_bytes(data, row["topic"], row["kafka_partition"], row["kafka_offset"])


async def back(tx: Tx, number: int, reason: str, pointer: str | None) -> None:
    """A released record failed again: it stays in quarantine with the new reason."""
    await tx.execute(
        "UPDATE quarantine SET state = 'refused', reason = $2, pointer = $3 WHERE id = $1",
        number,
        reason.replace("\x00", "\\0")[:1000],
        pointer,
    )


async def done(tx: Tx, service: str, row: Row) -> None:
    """A released record took effect."""
    await tx.execute("UPDATE quarantine SET state = 'released', released_at = $2 WHERE id = $1", row["id"], clock.now())
    released = RecordReleased(
        quarantine_id=f"{service}-{row['id']}",
        mended=row["mended"],
        by=row["released_by"],
        reason=row["release_reason"],
    )
    await outbox.append(tx, [released])
