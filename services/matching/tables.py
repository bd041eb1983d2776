"""Rows of matching's own database schema; the constraints that make the promises stand in migrations/0001_matching.sql.

Hot paths read and write these tables by SQL; the classes tell the columns, and serve typed reads. A test compares both.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Column, Double, Numeric, SmallInteger, Text
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP, TSTZRANGE
from sqlmodel import Field, SQLModel

_SCHEMA: dict[str, Any] = {"schema": "matching"}


def _instant(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(TIMESTAMP(timezone=True), nullable=nullable))


def _words() -> Any:
    return Field(default_factory=list, sa_column=Column(ARRAY(Text), nullable=False))


def _json(nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(JSONB, nullable=nullable))


class Operation(SQLModel, table=True):
    """An operation as far as promises go: whether it is a drill, and whether anybody is still asked for it."""

    __tablename__: ClassVar[str] = "operation"
    __table_args__ = _SCHEMA

    operation: str = Field(primary_key=True)
    title: str
    timezone: str
    exercise: bool
    hazards: list[str] = _words()
    closed_at: datetime | None = _instant(nullable=True)


class Need(SQLModel, table=True):
    """A need as matching sees it now, with its ledger; its history is in the journal."""

    __tablename__: ClassVar[str] = "need"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    operation: str | None = None
    exercise: bool
    incident_id: UUID | None = None
    item: str | None = None
    skill: str | None = None
    unit: str
    severity: int = Field(sa_type=SmallInteger)
    status: str
    lon: float | None = Field(default=None, sa_type=Double)
    lat: float | None = Field(default=None, sa_type=Double)
    place: str | None = None
    admin: str | None = None
    window_start: datetime = _instant()
    window_end: datetime = _instant()
    level: int = Field(default=0, sa_type=SmallInteger)
    certificates: list[str] = _words()
    languages: list[str] = _words()
    vulnerable: list[str] = _words()
    sensitivity: str | None = None
    hazard: str | None = None
    site_id: UUID | None = None
    bundle_id: UUID | None = None
    declared_at: datetime | None = _instant(nullable=True)
    wanted: int
    ahead: int = 0
    needed: int = 0
    open: int = 0
    offered: int = 0
    committed: int = 0
    in_transit: int = 0
    delivered: int = 0
    confirmed: int = 0
    cancelled: int = 0
    asked: int = Field(default=0, sa_type=BigInteger)
    version: int = Field(default=1, sa_type=BigInteger)


class Responder(SQLModel, table=True):
    """Somebody who may be asked; a copy of the registry's, with the home cell's centre."""

    __tablename__: ClassVar[str] = "responder"
    __table_args__ = _SCHEMA

    responder_id: UUID = Field(primary_key=True)
    exercise: bool
    kind: str
    status: str
    organisation: str | None = None
    skills: dict[str, int] = _json()
    certificates: dict[str, str | None] = _json()
    languages: list[str] = _words()
    lon: float | None = Field(default=None, sa_type=Double)
    lat: float | None = Field(default=None, sa_type=Double)
    travel_limit_km: float = Field(sa_type=Double)
    capacity: int
    minimum_team: int
    said_yes: int = 0
    said_no: int = 0
    rest_h: float | None = Field(default=None, sa_type=Double)
    max_hours_day: float | None = Field(default=None, sa_type=Double)
    avoids: list[str] = _words()
    availability: list[tuple[str, str]] = _json()


class Lot(SQLModel, table=True):
    """A stock of one item at one place, once for life and once for drills; never promised beyond what is there."""

    __tablename__: ClassVar[str] = "lot"
    __table_args__ = _SCHEMA

    lot_id: UUID = Field(primary_key=True)
    exercise: bool = Field(primary_key=True)
    kind: str
    item: str
    unit: str
    lon: float | None = Field(default=None, sa_type=Double)
    lat: float | None = Field(default=None, sa_type=Double)
    organisation: str | None = None
    delivery_limit_km: float = Field(sa_type=Double)
    expires_at: datetime | None = _instant(nullable=True)
    crew: list[dict[str, Any]] = _json()
    status: str
    quantity: int
    reserved: int = 0
    given: int = 0
    counted_at: datetime = _instant()


class Offer(SQLModel, table=True):
    """Our question to one responder or holder of stock, and the answer."""

    __tablename__: ClassVar[str] = "offer"
    __table_args__ = _SCHEMA

    offer_id: UUID = Field(primary_key=True)
    need_id: UUID
    operation: str | None = None
    exercise: bool
    responder_id: UUID | None = None
    lot_id: UUID | None = None
    organisation: str | None = None
    quantity: int
    state: str
    window_start: datetime = _instant()
    window_end: datetime = _instant()
    period: Any = Field(sa_column=Column(TSTZRANGE, nullable=False))
    made_at: datetime = _instant()
    expires_at: datetime = _instant()
    distance_km: float | None = Field(default=None, sa_type=Double)
    cost: int | None = None
    parts: dict[str, int] | None = _json(nullable=True)
    arrives_at: datetime | None = _instant(nullable=True)
    extra: bool = False
    why: dict[str, Any] | None = _json(nullable=True)
    by: str
    reason: str | None = None


class Assignment(SQLModel, table=True):
    """An accepted offer, under its id, followed to its confirmed end."""

    __tablename__: ClassVar[str] = "assignment"
    __table_args__ = _SCHEMA

    assignment_id: UUID = Field(primary_key=True)
    need_id: UUID
    operation: str | None = None
    exercise: bool
    responder_id: UUID | None = None
    lot_id: UUID | None = None
    organisation: str | None = None
    quantity: int
    confirmed: int = 0
    state: str
    period: Any = Field(sa_column=Column(TSTZRANGE, nullable=False))
    made_at: datetime = _instant()
    started_at: datetime | None = _instant(nullable=True)
    delivered_at: datetime | None = _instant(nullable=True)
    by: str
    reason: str | None = None
    release_asked_at: datetime | None = _instant(nullable=True)
    release_reason: str | None = None
    release_for: UUID | None = None
    heard_at: datetime | None = _instant(nullable=True)
    check_at: datetime | None = _instant(nullable=True)
    overdue: int = Field(default=0, sa_type=SmallInteger)


class Refusal(SQLModel, table=True):
    """Who is not asked again about a need until then."""

    __tablename__: ClassVar[str] = "refusal"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    source_id: UUID = Field(primary_key=True)
    cause: str
    until: datetime = _instant()


class Change(SQLModel, table=True):
    """Something changed since the last plan of life or of drills; without need and source, anything."""

    __tablename__: ClassVar[str] = "change"
    __table_args__ = _SCHEMA

    id: int | None = Field(default=None, primary_key=True, sa_type=BigInteger)
    exercise: bool
    need_id: UUID | None = None
    source_id: UUID | None = None
    accepted: int | None = None


class PlanRow(SQLModel, table=True):
    """The last plan of life (or of drills), with its proof."""

    __tablename__: ClassVar[str] = "plan"
    __table_args__ = _SCHEMA

    exercise: bool = Field(primary_key=True)
    planned_at: datetime = _instant()
    needs: int
    units: int = Field(sa_type=BigInteger)
    met: int = Field(sa_type=BigInteger)
    objective: int = Field(sa_type=Numeric)
    bound: int = Field(sa_type=Numeric)
    gap: int = Field(sa_type=Numeric)
    moved_units: int = Field(sa_type=BigInteger)
    method: str
    seconds: float = Field(sa_type=Double)
    turn: int = Field(default=1, sa_type=BigInteger)


class Unmet(SQLModel, table=True):
    """What the last plan could not meet of a need, and who was left after each rule."""

    __tablename__: ClassVar[str] = "unmet"
    __table_args__ = _SCHEMA

    need_id: UUID = Field(primary_key=True)
    exercise: bool
    units: int = Field(sa_type=BigInteger)
    filters: list[tuple[str, int]] | None = _json(nullable=True)
    shadow: int | None = Field(default=None, sa_type=Numeric)
    said: dict[str, list[str]] | None = _json(nullable=True)
    counts_as: int | None = Field(default=None, sa_type=SmallInteger)
    planned_at: datetime = _instant()


class HazardZone(SQLModel, table=True):
    """An area that nobody is sent into for a time; `polygon` is one ring of [lon, lat]."""

    __tablename__: ClassVar[str] = "hazard_zone"
    __table_args__ = _SCHEMA

    zone_id: UUID = Field(primary_key=True)
    operation: str | None = None
    exercise: bool
    polygon: list[tuple[float, float]] = _json()
    period: Any = Field(sa_column=Column(TSTZRANGE, nullable=False))
    reason: str
    by: str
    made_at: datetime = _instant()
    lifted_at: datetime | None = _instant(nullable=True)
    lifted_by: str | None = None
    lifted_reason: str | None = None
