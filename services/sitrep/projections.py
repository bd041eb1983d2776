"""The read models: every version of every subject, copied from the log.

Nothing here decides: `domain.fold` says what stands, this does the same with tables; checkpoints.py counts them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from operator import attrgetter
from typing import Any, Protocol
from uuid import UUID

from sqlmodel import SQLModel

from schemas.assignments import AssignmentState
from schemas.event import Event
from schemas.incidents import IncidentState
from schemas.ledger import LedgerChanged
from schemas.needs import NeedState
from schemas.offers import OfferState
from schemas.operations import OperationState
from schemas.reports import ReportEvent
from schemas.responders import ResponderState
from schemas.sites import SiteState
from schemas.warnings import WarningState
from services.runtime.db import Tx, to_json
from services.sitrep import domain, tables
from services.sitrep.domain import Entry, ReportView

OPEN_END = 9223372036854775807
"""`until_position` of the newest version of a subject."""


# Copying


class View(Protocol):
    """What a view of domain.py can do: be made of an event."""

    @classmethod
    def of(cls, entry: Entry, event: Any) -> Any: ...


class Model:
    """A read table of one state stream: its columns are the fields of the view, with two positions after the key."""

    def __init__(self, rows: type[SQLModel], event: type[Event], view: type[View]) -> None:
        self.rows, self.event, self.view = rows, event, view
        _, _, _, *names = tables.columns_of(rows)
        self._columns = attrgetter(*names)

    def values(self, entry: Entry, event: Event) -> tuple[Any, ...]:
        """The columns after the key and the two positions, in order."""
        values: tuple[Any, ...] = self._columns(self.view.of(entry, event))
        # A document stands last, if there is one.
        return (*values[:-1], to_json(values[-1])) if isinstance(values[-1], Mapping) else values


MODELS: tuple[Model, ...] = (
    Model(tables.OperationVersion, OperationState, domain.OperationView),
    Model(tables.IncidentVersion, IncidentState, domain.IncidentView),
    Model(tables.NeedVersion, NeedState, domain.NeedView),
    Model(tables.LedgerVersion, LedgerChanged, domain.LedgerView),
    Model(tables.OfferVersion, OfferState, domain.OfferView),
    Model(tables.AssignmentVersion, AssignmentState, domain.AssignmentView),
    Model(tables.ResponderVersion, ResponderState, domain.ResponderView),
    Model(tables.SiteVersion, SiteState, domain.SiteView),
    Model(tables.WarningVersion, WarningState, domain.WarningView),
)
_ROWS: tuple[type[SQLModel], ...] = (*(model.rows for model in MODELS), tables.ReportVersion)
TABLES = tuple(str(rows.__tablename__) for rows in _ROWS)
_REPORT = tuple(field.name for field in fields(ReportView))


async def project(tx: Tx, entries: Sequence[Entry]) -> None:
    """Copy these rows of the log, in the order of their positions, into the read models."""
    standing = [entry for entry in entries if not entry.superseded]
    for model in MODELS:
        mine = [(entry, entry.event) for entry in standing if isinstance(entry.event, model.event)]
        versions = [
            (getattr(event, event.subject), entry.position, model.values(entry, event)) for entry, event in mine
        ]
        await _write(tx, model.rows, versions)
    reports = [(entry, entry.event.report_id) for entry in standing if isinstance(entry.event, ReportEvent)]
    if reports:
        await _write(tx, tables.ReportVersion, await _report_versions(tx, reports))


async def _report_versions(tx: Tx, entries: Sequence[tuple[Entry, UUID]]) -> list[tuple[UUID, int, tuple[Any, ...]]]:
    ids = {report_id for _, report_id in entries}
    rows = await tx.fetch(
        f"SELECT {', '.join(_REPORT)} FROM report WHERE report_id = ANY($1) AND until_position = {OPEN_END}", list(ids)
    )
    views = {row["report_id"]: ReportView(**row) for row in rows}
    versions = []
    for entry, report_id in entries:
        before = views.get(report_id)
        after = domain.report_after(before or ReportView(report_id), entry)
        if after != before:
            views[report_id] = after
            versions.append((report_id, entry.position, tuple(getattr(after, name) for name in _REPORT[1:])))
    return versions


async def _write(tx: Tx, into: type[SQLModel], versions: Sequence[tuple[Any, int, tuple[Any, ...]]]) -> None:
    """End what stood before these versions and add them, each up to the next one of its subject."""
    ends: dict[Any, int] = {}
    rows = []
    for subject, position, values in reversed(versions):
        rows.append((subject, position, ends.get(subject, OPEN_END), *values))
        ends[subject] = position
    if not rows:
        return
    table, columns = str(into.__tablename__), tables.columns_of(into)
    await tx.execute(
        f"UPDATE {table} SET until_position = t.first "
        f"FROM unnest($1::{'text' if into is tables.OperationVersion else 'uuid'}[], $2::bigint[]) AS t(id, first) "
        f"WHERE {columns[0]} = t.id AND until_position = {OPEN_END}",
        list(ends),
        list(ends.values()),
    )
    await tx.raw.copy_records_to_table(table, columns=columns, records=reversed(rows))


def rows_for(event: Event) -> type[SQLModel] | None:
    """The read table that events of this kind are copied into, if any."""
    if isinstance(event, ReportEvent):
        return tables.ReportVersion
    return next((model.rows for model in MODELS if isinstance(event, model.event)), None)


async def forget(tx: Tx, event: Event) -> None:
    """Drop every version of this event's subject, which is then projected anew from what is left in the log."""
    rows = rows_for(event)
    if rows is not None:
        key = tables.columns_of(rows)[0]
        await tx.execute(f"DELETE FROM {rows.__tablename__} WHERE {key} = $1", getattr(event, event.subject))


# Beside the live ones

_BESIDE = "sitrep_beside"
"""The database schema in which read models are made anew; it holds nothing else and is gone after the switch."""


async def begin_beside(tx: Tx) -> None:
    """Empty tables for a rebuild."""
    await tx.execute(f"DROP SCHEMA IF EXISTS {_BESIDE} CASCADE; CREATE SCHEMA {_BESIDE}")
    for table in TABLES:
        await tx.execute(f"CREATE TABLE {_BESIDE}.{table} (LIKE sitrep.{table} INCLUDING ALL)")


@asynccontextmanager
async def beside(tx: Tx) -> AsyncIterator[None]:
    """Within, the read models' names mean those that are being made; the log's name is the log as ever."""
    await tx.execute(f"SET LOCAL search_path TO {_BESIDE}, sitrep")
    try:
        yield
    finally:
        await tx.execute("SET LOCAL search_path TO sitrep")


async def switch_over(tx: Tx) -> None:
    """Put the tables that were made in the place of the live ones, for everybody at once when this commits."""
    names = await _indexes(tx, "sitrep")
    # Migrations to come know the indexes by the names that an earlier migration gave them.
    wanted = [(made, names[of]) for of, made in (await _indexes(tx, _BESIDE)).items() if made != names[of]]
    for at, (made, _) in enumerate(wanted):
        await tx.execute(f'ALTER INDEX {_BESIDE}."{made}" RENAME TO "beside_{at}"')
    for at, (_, name) in enumerate(wanted):
        await tx.execute(f'ALTER INDEX {_BESIDE}."beside_{at}" RENAME TO "{name}"')
    for table in TABLES:
        await tx.execute(f"DROP TABLE sitrep.{table}")
        await tx.execute(f"ALTER TABLE {_BESIDE}.{table} SET SCHEMA sitrep")
    await tx.execute(f"DROP SCHEMA {_BESIDE}")


async def _indexes(tx: Tx, schema: str) -> dict[tuple[str, str], str]:
    """The names of the read models' indexes, by table and what they are of."""
    rows = await tx.fetch(
        "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename = ANY($2)",
        schema,
        list(TABLES),
    )
    return {(row["tablename"], row["indexdef"].partition(" USING ")[2]): row["indexname"] for row in rows}
