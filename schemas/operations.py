"""Operations: one disaster response each."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from schemas.event import Event, Value
from schemas.values import AreaCode, OperationId


class DeclaredStatus(Value):
    """What the authorities declared: siaga darurat, tanggap darurat, transisi or pemulihan; by whom, until when."""

    declared: Literal["siaga_darurat", "tanggap_darurat", "transisi", "pemulihan"]
    level: str | None = None
    decree: str | None = None
    until: AwareDatetime | None = None
    since: AwareDatetime | None = None


class OperationState(Event):
    """An operation after the change. `bbox` is west, south, east, north. Producer: registry."""

    topic: ClassVar = "gotong.operations.v1"
    key: ClassVar = "operation"
    subject: ClassVar = "operation"

    operation: OperationId
    title: str
    glide: str | None = None
    hazards: tuple[str, ...] = ()
    areas: tuple[AreaCode, ...] = ()
    bbox: tuple[float, float, float, float] | None = None
    timezone: str = "Asia/Jakarta"
    lead: str | None = None
    status: DeclaredStatus | None = None
    phase: str | None = None
    opened_at: AwareDatetime
    closed_at: AwareDatetime | None = None
    by: str
    reason: str | None = None


class OperationOpened(OperationState):
    """An operation began."""

    type: ClassVar = "gotong.operation.opened.v1"


class OperationUpdated(OperationState):
    """Its title, areas, lead, declared status or phase changed."""

    type: ClassVar = "gotong.operation.updated.v1"


class OperationClosed(OperationState):
    """It takes no more reports."""

    type: ClassVar = "gotong.operation.closed.v1"
