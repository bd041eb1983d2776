"""CloudEvents 1.0 over Kafka: binary mode out; binary and structured mode in.

Source: CloudEvents 1.0.2 and its Kafka protocol binding. Decoding never raises anything but `Malformed`, whatever
the bytes: a partner may write to a topic that we read.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import orjson
from pydantic import ValidationError

from schemas.event import Event, Meta

MAX_VALUE_BYTES = 256 * 1024
"""Larger values are refused unread: an event has at most 32 KiB, a partner's report with its text less than this."""
MAX_DEPTH = 32
_TOO_DEEP = f"the JSON is nested deeper than {MAX_DEPTH} levels"
STRUCTURED = "application/cloudevents+json"


class Malformed(Exception):
    """The record can never be read; `pointer` names the attribute or field (a JSON pointer)."""

    def __init__(self, reason: str, pointer: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.pointer = pointer


class Envelope(NamedTuple):
    """An event's attributes and its data as JSON bytes, with the place on Kafka where it stood."""

    meta: Meta
    data: bytes
    topic: str = ""
    partition: int = -1
    offset: int = -1
    key: str = ""

    def structured(self) -> dict[str, Any]:
        """The event as one JSON object (structured mode), as streams and files show it."""
        meta = self.meta
        event: dict[str, Any] = {
            "specversion": "1.0",
            "id": meta.id,
            "source": meta.source,
            "type": meta.type,
            "subject": meta.subject,
            "time": timestamp(meta.time),
            "sequence": str(meta.sequence),
            "partitionkey": self.key,
            "datacontenttype": "application/json",
            "exercise": meta.exercise,
        }
        if meta.operation:
            event["operation"] = meta.operation
        if meta.traceparent:
            event["traceparent"] = meta.traceparent
        event["data"] = orjson.loads(self.data) if self.data else None
        return event


@lru_cache(maxsize=1024)  # the events of one transaction have one time, and each is asked for it twice
def timestamp(instant: datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def headers(meta: Meta, key: str) -> list[tuple[str, bytes]]:
    """The Kafka headers of an event in binary mode."""
    attributes = [
        ("ce_specversion", "1.0"),
        ("ce_id", meta.id),
        ("ce_source", meta.source),
        ("ce_type", meta.type),
        ("ce_subject", meta.subject),
        ("ce_time", timestamp(meta.time)),
        ("ce_sequence", str(meta.sequence)),
        ("ce_partitionkey", key),
        ("ce_exercise", "true" if meta.exercise else "false"),
        ("content-type", "application/json"),
    ]
    if meta.operation:
        attributes.append(("ce_operation", meta.operation))
    if meta.traceparent:
        attributes.append(("ce_traceparent", meta.traceparent))
    return [(name, value.encode()) for name, value in attributes]


def decode(
    value: bytes | None,
    raw_headers: Iterable[tuple[str, bytes | None]],
    *,
    topic: str = "",
    partition: int = -1,
    offset: int = -1,
    key: bytes | None = None,
    received_at: datetime | None = None,
) -> Envelope:
    """Read one record's attributes, in binary or structured mode. The data of binary mode is left unread.

    `received_at` stands in for a missing `time`, which CloudEvents leaves optional.

    Raises
    ------
    Malformed
        Not a CloudEvent 1.0 with JSON data, or too large.
    """
    if value is None:
        raise Malformed("the value is null")
    if len(value) > MAX_VALUE_BYTES:
        raise Malformed(f"the value has {len(value)} bytes; at most {MAX_VALUE_BYTES} are taken")
    found: dict[str, str] = {}
    for name, raw in raw_headers:
        if raw is None:
            continue
        try:
            found[name.lower()] = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise Malformed("the header is not UTF-8", f"/headers/{name}") from None
    try:
        key_text = (key or b"").decode("utf-8")
    except UnicodeDecodeError:
        raise Malformed("the key is not UTF-8", "/key") from None

    content_type = found.get("content-type", "application/json").split(";")[0].strip().lower()
    if content_type == STRUCTURED:
        attributes, data = _structured(value)
    elif content_type.startswith("application/cloudevents"):
        raise Malformed(f"{content_type} is not taken; send {STRUCTURED} or binary mode", "/headers/content-type")
    else:
        attributes = {name[3:]: text for name, text in found.items() if name.startswith("ce_")}
        data = value
        if content_type != "application/json" and not content_type.endswith("+json"):
            raise Malformed(f"data of {content_type} is not taken; send application/json", "/headers/content-type")
    return Envelope(_meta(attributes, received_at), data, topic, partition, offset, key_text)


def parse_json(data: bytes) -> Any:
    """Any JSON value of at most `MAX_DEPTH` levels.

    Raises
    ------
    Malformed
        Not JSON, or nested too deep.
    """
    if _depth(data) > MAX_DEPTH:
        raise Malformed(_TOO_DEEP, "")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the value is not JSON: {error}", "") from None


def refuse_odd_json(data: bytes) -> None:
    """What a contract lets pass that no other reader of the bytes would take: JSON nested deeper than `MAX_DEPTH`, or
    with NaN or Infinity in a field that the contract does not know. Cheaper than `parse_json`: for bytes that are
    held against their contract next.

    Raises
    ------
    Malformed
        One of these, or no JSON at all.
    """
    if data[:1] != b"{" or b"NaN" in data or b"Infinity" in data:
        parse_json(data)
    elif _depth(data) > MAX_DEPTH:
        raise Malformed(_TOO_DEEP, "")


def _depth(data: bytes) -> int:
    """An upper bound of how deep the brackets nest, without parsing; brackets in strings count too, which is
    why a value is parsed before it is refused only if the bound is passed."""
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    in_string = escaped = False
    for byte in data:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                return deepest
        elif byte in b"]}":
            depth -= 1
    return deepest


def _structured(value: bytes) -> tuple[dict[str, str], bytes]:
    document = parse_json(value)
    if not isinstance(document, dict):
        raise Malformed("a structured CloudEvent is one JSON object", "")
    if "data_base64" in document:
        raise Malformed("binary data is not taken; send JSON in data", "/data_base64")
    attributes: dict[str, str] = {}
    for name, item in document.items():
        if name == "data" or item is None:
            continue
        if isinstance(item, bool):
            attributes[name] = "true" if item else "false"
        elif isinstance(item, str | int):
            attributes[name] = str(item)
        else:
            raise Malformed("an attribute is text, a number or a truth value", f"/{name}")
    return attributes, orjson.dumps(document.get("data"))


def _meta(attributes: dict[str, str], received_at: datetime | None) -> Meta:
    if attributes.get("specversion") != "1.0":
        raise Malformed("specversion must be 1.0", "/specversion")
    for name in ("id", "source", "type"):
        if not attributes.get(name):
            raise Malformed(f"the attribute {name} is missing", f"/{name}")
        if len(attributes[name]) > 500:
            raise Malformed(f"the attribute {name} is longer than 500 characters", f"/{name}")
    if "time" in attributes:
        try:
            time = datetime.fromisoformat(attributes["time"])
        except ValueError:
            raise Malformed("time is not RFC 3339", "/time") from None
        if time.tzinfo is None:
            raise Malformed("time has no zone", "/time")
    elif received_at is not None:
        time = received_at
    else:
        raise Malformed("the attribute time is missing", "/time")
    sequence = attributes.get("sequence", "0")
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 18:
        raise Malformed("sequence is not a decimal number", "/sequence")
    if "\x00" in "".join(attributes.values()):
        raise Malformed("an attribute holds a NUL character", "")
    return Meta(
        id=attributes["id"],
        source=attributes["source"],
        type=attributes["type"],
        subject=attributes.get("subject", ""),
        time=time,
        sequence=int(sequence),
        operation=attributes.get("operation"),
        exercise=attributes.get("exercise") == "true",
        traceparent=attributes.get("traceparent"),
    )


E = TypeVar("E", bound=Event)


def read(envelope: Envelope, model: type[E]) -> E:
    """The event that this envelope holds, checked against its contract.

    Raises
    ------
    Malformed
        The data does not keep the contract; the pointer names the first field that does not.
    """
    try:
        return model.model_validate_json(envelope.data).arrived_as(envelope.meta)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise Malformed(f"{pointer or 'data'}: {first['msg']}", f"/data{pointer}") from None
