"""Quarantine: what could not be taken, and what became of it."""

from __future__ import annotations

from typing import ClassVar

from schemas.event import Event


class QuarantineEvent(Event):
    """Something happened to a refused record. `origin` is the record's CloudEvents source, if it had one."""

    topic: ClassVar = "gotong.quarantine.v1"
    key: ClassVar = "quarantine_id"
    subject: ClassVar = "quarantine_id"

    quarantine_id: str


class RecordRefused(QuarantineEvent):
    """A record was refused. `pointer` names the field, `sha256` the bytes, which stay with `service`.

    Producer: whichever service refused it.
    """

    type: ClassVar = "gotong.record.refused.v1"

    service: str
    origin: str | None = None
    origin_id: str | None = None
    reason: str
    pointer: str | None = None
    from_topic: str
    partition: int
    offset: int
    sha256: str


class RecordReleased(QuarantineEvent):
    """A refused record was let in after all, mended or as it was."""

    type: ClassVar = "gotong.record.released.v1"

    mended: bool
    by: str
    reason: str


class RecordRedacted(QuarantineEvent):
    """The payload of an event was blanked; its hash and place in the chain remain."""

    type: ClassVar = "gotong.record.redacted.v1"

    event_id: str
    by: str
    reason: str
