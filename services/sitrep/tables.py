"""Rows of sitrep's own database schema. The log and the read models are written by COPY and read by SQL; the order of
the columns here is the order in which they are copied. A test holds the classes and the migrations equal."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Column, Double, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlmodel import Field, SQLModel

_SCHEMA: dict[str, Any] = {"schema": "sitrep"}


def _key(kind: Any = BigInteger) -> Any:
    return Field(sa_type=kind, primary_key=True)


def _count() -> Any:
    return Field(sa_type=BigInteger)


def _instant(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(TIMESTAMP(timezone=True), nullable=nullable))


def _words() -> Any:
    return Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False))


def _document() -> Any:
    return Field(default_factory=dict, sa_column=Column(JSONB, nullable=False))


def _degrees() -> Any:
    return Field(default=None, sa_type=Double)


class LogRow(SQLModel, table=True):
    """One event as it was taken in. `superseded`: a higher sequence of its subject stood in the log already.
    `data` None: its payload was redacted."""

    __tablename__: ClassVar[str] = "log"
    __table_args__ = _SCHEMA

    position: int = _key()
    received_at: datetime = _instant()
    source: str
    id: str
    topic: str
    key: str
    type: str
    subject: str
    sequence: int = _count()
    time: datetime = _instant()
    operation: str | None = None
    exercise: bool
    traceparent: str | None = None
    superseded: bool
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    data: bytes | None = None


class Redacted(SQLModel, table=True):
    """An event whose payload may not be kept."""

    __tablename__: ClassVar[str] = "redacted"
    __table_args__ = _SCHEMA

    event_id: str = _key(Text)


class OperationVersion(SQLModel, table=True):
    """An operation from one position of the log up to another."""

    __tablename__: ClassVar[str] = "operation"
    __table_args__ = _SCHEMA

    operation_id: str = _key(Text)
    from_position: int = _key()
    until_position: int = _count()
    exercise: bool
    title: str
    glide: str | None = None
    hazards: list[str] = _words()
    areas: list[str] = _words()
    timezone: str
    lead: str | None = None
    declared: str | None = None
    level: str | None = None
    decree: str | None = None
    until: datetime | None = _instant(nullable=True)
    phase: str | None = None
    opened_at: datetime = _instant()
    closed_at: datetime | None = _instant(nullable=True)
    bbox: list[float] | None = Field(default=None, sa_column=Column(ARRAY(Double), nullable=True))


class ReportVersion(SQLModel, table=True):
    """A report as its events up to a position leave it."""

    __tablename__: ClassVar[str] = "report"
    __table_args__ = _SCHEMA

    report_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    operation_sequence: int = _count()
    received_at: datetime | None = _instant(nullable=True)
    retracted: bool
    admin: str | None = None
    admin_sequence: int = _count()
    incident_id: UUID | None = None
    link_sequence: int = _count()
    said_by: str | None = None
    observed_at: datetime | None = _instant(nullable=True)
    affected: int | None = None
    displaced: int | None = None
    injured: int | None = None
    dead: int | None = None
    missing: int | None = None
    origin: str | None = None
    sensitivity: str | None = None
    houses_heavy: int | None = None
    houses_moderate: int | None = None
    houses_light: int | None = None
    houses_flooded: int | None = None
    houses_damaged: int | None = None
    public_facilities_damaged: int | None = None


class IncidentVersion(SQLModel, table=True):
    """An incident from one position of the log up to another."""

    __tablename__: ClassVar[str] = "incident"
    __table_args__ = _SCHEMA

    incident_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    title: str
    hazard: str | None = None
    severity: int
    status: str
    evidence: str
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    admin: str | None = None
    place: str | None = None
    reports: int
    affected: int | None = None
    displaced: int | None = None
    injured: int | None = None
    dead: int | None = None
    missing: int | None = None
    houses_heavy: int | None = None
    houses_moderate: int | None = None
    houses_light: int | None = None
    houses_flooded: int | None = None
    houses_damaged: int | None = None
    public_facilities_damaged: int | None = None
    opened_at: datetime = _instant()
    updated_at: datetime = _instant()
    levels: str | None = None
    sensitivity: str | None = None


class NeedVersion(SQLModel, table=True):
    """A need from one position of the log up to another."""

    __tablename__: ClassVar[str] = "need"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    incident_id: UUID | None = None
    item: str | None = None
    skill: str | None = None
    unit: str
    severity: int
    status: str
    quantity: int
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    admin: str | None = None
    starts_at: datetime | None = _instant(nullable=True)
    sensitivity: str | None = None


class LedgerVersion(SQLModel, table=True):
    """A need's row in matching's ledger from one position of the log up to another."""

    __tablename__: ClassVar[str] = "ledger"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    incident_id: UUID | None = None
    item: str | None = None
    skill: str | None = None
    unit: str
    severity: int
    admin: str | None = None
    needed: int
    open: int
    offered: int
    committed: int
    in_transit: int
    delivered: int
    confirmed: int
    cancelled: int


class OfferVersion(SQLModel, table=True):
    """An offer from one position of the log up to another."""

    __tablename__: ClassVar[str] = "offer"
    __table_args__ = _SCHEMA

    offer_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    need_id: UUID
    organisation: str | None = None
    quantity: int
    state: str


class AssignmentVersion(SQLModel, table=True):
    """An assignment from one position of the log up to another."""

    __tablename__: ClassVar[str] = "assignment"
    __table_args__ = _SCHEMA

    assignment_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    need_id: UUID
    responder_id: UUID | None = None
    organisation: str | None = None
    quantity: int
    state: str
    overdue: int = 0


class ResponderVersion(SQLModel, table=True):
    """A responder from one position of the log up to another."""

    __tablename__: ClassVar[str] = "responder"
    __table_args__ = _SCHEMA

    responder_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    exercise: bool
    status: str
    capacity: int


class SiteVersion(SQLModel, table=True):
    """A site from one position of the log up to another."""

    __tablename__: ClassVar[str] = "site"
    __table_args__ = _SCHEMA

    site_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    operation: str | None = None
    exercise: bool
    name: str
    code: str
    kind: str
    status: str
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    admin: str | None = None
    place: str | None = None
    organisation: str | None = None
    capacity: int | None = None
    alarm: str
    counted_at: datetime | None = _instant(nullable=True)
    heads: dict[str, int] = _document()


class WarningVersion(SQLModel, table=True):
    """A warning from one position of the log up to another."""

    __tablename__: ClassVar[str] = "warning"
    __table_args__ = _SCHEMA

    warning_id: UUID = Field(primary_key=True)
    from_position: int = _key()
    until_position: int = _count()
    exercise: bool
    state: str
    status: str
    hazard: str | None = None
    severity: int
    effective_at: datetime = _instant()
    expires_at: datetime = _instant()
    area: dict[str, Any] = _document()


class Checkpoint(SQLModel, table=True):
    """The tally of a position, counted by the rules of that number."""

    __tablename__: ClassVar[str] = "checkpoint"
    __table_args__ = _SCHEMA

    position: int = _key()
    rules: int
    tally: bytes


class Silence(SQLModel, table=True):
    """An area under a warning from which too little was heard, and when that was told."""

    __tablename__: ClassVar[str] = "silence"
    __table_args__ = _SCHEMA

    warning_id: UUID = Field(primary_key=True)
    area: str = _key(Text)
    noticed_at: datetime = _instant()


class Published(SQLModel, table=True):
    """A report as it was published, in bytes."""

    __tablename__: ClassVar[str] = "published"
    __table_args__ = _SCHEMA

    operation: str = _key(Text)
    position: int = _key()
    as_of: datetime = _instant()
    published_at: datetime = _instant()
    text_id: bytes
    text_en: bytes
    document: bytes
    since_position: int | None = Field(default=None, sa_type=BigInteger)
    html_id: bytes | None = None
    html_en: bytes | None = None
    csv_id: bytes | None = None
    csv_en: bytes | None = None


def columns_of(table: type[SQLModel]) -> tuple[str, ...]:
    """The table's columns in their order."""
    columns: Any = getattr(table, "__table__").columns  # noqa: B009  (SQLModel does not declare it)
    return tuple(columns.keys())
