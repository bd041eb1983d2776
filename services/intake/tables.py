"""Rows of intake's own database schema; what they stand for is told in `migrations/0001_intake.sql`.

Hot paths read and write these tables by SQL; the classes tell the columns, and serve typed reads and writes where
volume does not count. A test compares both.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Column, Double, Identity, SmallInteger, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlmodel import Field, SQLModel

_SCHEMA: dict[str, Any] = {"schema": "intake"}


def _instant(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(TIMESTAMP(timezone=True), nullable=nullable))


def _json(nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(JSONB, nullable=nullable))


def _degrees() -> Any:
    return Field(default=None, sa_type=Double)


def _words() -> Any:
    return Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False))


class Operation(SQLModel, table=True):
    """An operation as the registry tells of it: which reports belong to it."""

    __tablename__: ClassVar[str] = "operation"
    __table_args__ = _SCHEMA

    operation: str = Field(primary_key=True)
    title: str
    exercise: bool
    hazards: list[str] = _words()
    areas: list[str] = _words()
    bbox: list[float] | None = Field(default=None, sa_column=Column(ARRAY(Double), nullable=True))
    timezone: str
    opened_at: datetime = _instant()
    closed_at: datetime | None = _instant(nullable=True)


class Report(SQLModel, table=True):
    """One message, masked; what was masked is in `sealed`."""

    __tablename__: ClassVar[str] = "report"
    __table_args__ = _SCHEMA

    report_id: UUID = Field(primary_key=True)
    seq: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), nullable=False, unique=True))
    ticket: str = Field(unique=True)
    state: str
    named_operation: str | None = None
    operation: str | None = None
    exercise: bool = False
    origin: str
    external_id: str | None = None
    external_url: str | None = None
    title: str | None = None
    text: str | None = None
    link_text: str | None = None
    sealed: bytes | None = None
    sealed_for: str | None = None
    contact: str | None = None
    voice: str | None = None
    organisation: str | None = None
    proven: bool = False
    official: bool = False
    reporter_kind: str
    language: str | None = None
    hazard: str | None = None
    severity: int | None = Field(default=None, sa_type=SmallInteger)
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    accuracy_m: float | None = _degrees()
    place: str | None = None
    admin: str | None = None
    observed_at: datetime = _instant()
    stated_at: datetime | None = _instant(nullable=True)
    received_at: datetime = _instant()
    people: dict[str, int] | None = _json()
    damage: dict[str, int] | None = _json()
    needs: list[dict[str, Any]] | None = _json()
    read_needs: list[dict[str, Any]] | None = _json()
    reading: dict[str, Any] | None = _json()
    sensitivity: str | None = None
    overdue: str | None = None
    media: list[dict[str, Any]] | None = _json()
    bulk: bool = False
    incident_id: UUID | None = None
    copy_of: UUID | None = None
    exact_copy: bool = False
    linked_at: datetime | None = _instant(nullable=True)
    linked_by: str | None = None
    score: float | None = _degrees()
    parts: dict[str, float] | None = _json()
    suggested: UUID | None = None


class Incident(SQLModel, table=True):
    """What an incident's reports say together, and what somebody vouched for."""

    __tablename__: ClassVar[str] = "incident"
    __table_args__ = _SCHEMA

    incident_id: UUID = Field(primary_key=True)
    operation: str
    exercise: bool
    title: str
    hazard: str | None = None
    severity: int = Field(sa_type=SmallInteger)
    status: str
    evidence: str
    verified: str | None = None
    verified_at: datetime | None = _instant(nullable=True)
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    admin: str | None = None
    place: str | None = None
    reports: int
    newest_reports: list[UUID] = Field(default_factory=list, sa_column=Column(ARRAY(Uuid), nullable=False))
    people: dict[str, int] = _json(nullable=False)
    damage: dict[str, int] = _json(nullable=False)
    opened_at: datetime = _instant()
    updated_at: datetime = _instant()
    closed_at: datetime | None = _instant(nullable=True)
    first_observed_at: datetime = _instant()
    last_observed_at: datetime = _instant()
    merged_into: UUID | None = Field(default=None, foreign_key="intake.incident.incident_id")
    facts: dict[str, str] = _json(nullable=False)
    disputed: list[str] = _words()
    sensitivity: str | None = None
    sensitivity_set: bool = False
    priority: int = Field(default=0, sa_type=SmallInteger)
    reasons: list[Any] = _json(nullable=False)
    attend_by: datetime | None = _instant(nullable=True)
    attended_at: datetime | None = _instant(nullable=True)
    overdue_at: datetime | None = _instant(nullable=True)
    triage_at: datetime | None = _instant(nullable=True)
    water_depth_cm: float | None = _degrees()
    persons: int | None = None
    vulnerable: list[str] = _words()
    exercise_suggested: bool = False
    public_lon: float | None = _degrees()
    public_lat: float | None = _degrees()


class IncidentFact(SQLModel, table=True):
    """What somebody vouched for of one fact of an incident."""

    __tablename__: ClassVar[str] = "incident_fact"
    __table_args__ = _SCHEMA

    incident_id: UUID = Field(primary_key=True, foreign_key="intake.incident.incident_id")
    fact: str = Field(primary_key=True)
    evidence: str
    by: str
    reason: str
    at: datetime = _instant()
    value: Any = _json()


class LinkChange(SQLModel, table=True):
    """A change of which report is in which incident, in the order made."""

    __tablename__: ClassVar[str] = "link_change"
    __table_args__ = _SCHEMA

    change_id: int = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    operation: str
    kind: str
    report_id: UUID | None = None
    incident_id: UUID | None = None
    other_id: UUID | None = None


class Need(SQLModel, table=True):
    """What is wanted: one item or one skill, of an incident or at a place."""

    __tablename__: ClassVar[str] = "need"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    incident_id: UUID | None = Field(default=None, foreign_key="intake.incident.incident_id")
    operation: str
    exercise: bool
    item: str | None = None
    skill: str | None = None
    unit: str
    quantity: int
    figure: int | None = None
    severity: int = Field(sa_type=SmallInteger)
    status: str
    lon: float | None = _degrees()
    lat: float | None = _degrees()
    accuracy_m: float | None = _degrees()
    place: str | None = None
    admin: str | None = None
    window_start: datetime = _instant()
    window_end: datetime = _instant()
    requires: dict[str, Any] = _json(nullable=False)
    bundle_id: UUID | None = None
    people: dict[str, int] | None = _json()
    organisation: str | None = None
    small_contact: str | None = None
    sensitivity: str | None = None
    persons: int | None = None
    vulnerable: list[str] = _words()
    site_id: UUID | None = None
    hazard: str | None = None
    made_at: datetime = _instant()
    declared_at: datetime | None = _instant(nullable=True)
    updated_at: datetime = _instant()
    by: str
    reason: str | None = None


class NeedAsk(SQLModel, table=True):
    """How much one report asks of a need."""

    __tablename__: ClassVar[str] = "need_ask"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True, foreign_key="intake.need.need_id")
    report_id: UUID = Field(primary_key=True, foreign_key="intake.report.report_id")
    quantity: int
    counts: bool
    words: list[Any] | None = _json()
    assumed: bool = False


class Ledger(SQLModel, table=True):
    """Matching's ledger row of a need, copied."""

    __tablename__: ClassVar[str] = "ledger"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    needed: int = Field(sa_type=BigInteger)
    open: int = Field(sa_type=BigInteger)
    offered: int = Field(sa_type=BigInteger)
    committed: int = Field(sa_type=BigInteger)
    in_transit: int = Field(sa_type=BigInteger)
    delivered: int = Field(sa_type=BigInteger)
    confirmed: int = Field(sa_type=BigInteger)
    cancelled: int = Field(sa_type=BigInteger)
    asked: int = Field(sa_type=BigInteger)
    at: datetime = _instant()


class Assignment(SQLModel, table=True):
    """Matching's assignment, copied as far as tickets tell of it."""

    __tablename__: ClassVar[str] = "assignment"
    __table_args__ = _SCHEMA

    assignment_id: UUID = Field(primary_key=True)
    need_id: UUID
    state: str
    quantity: int = Field(sa_type=BigInteger)
    organisation: str | None = None
    first_at: datetime = _instant()
    at: datetime = _instant()
