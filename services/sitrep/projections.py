"""The read models: every version of every subject, copied from the log; and the picture that a report is made of.

Nothing here decides: `domain.fold` and `domain.picture` say what counts, this does the same with tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any
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
from services.runtime.db import Row, Tx
from services.sitrep import domain, tables
from services.sitrep.domain import Entry, Picture, ReportView, Scope

OPEN_END = 9223372036854775807
"""`until_position` of the newest version of a subject."""


# Copying


@dataclass(frozen=True, slots=True)
class Model:
    """A read table of one state stream. `values` gives its columns after the key and the two positions, in order."""

    rows: type[SQLModel]
    event: type[Event]
    values: Callable[[Entry, Any], tuple[Any, ...]]


def _operation(entry: Entry, event: OperationState) -> tuple[Any, ...]:
    status = event.status
    return (
        entry.exercise,
        event.title,
        event.glide,
        list(event.hazards),
        list(event.areas),
        event.timezone,
        event.lead,
        status.declared if status else None,
        status.level if status else None,
        status.decree if status else None,
        status.until if status else None,
        event.phase,
        event.opened_at,
        event.closed_at,
    )


def _incident(entry: Entry, event: IncidentState) -> tuple[Any, ...]:
    point = event.point
    return (
        entry.operation,
        entry.exercise,
        event.title,
        event.hazard,
        event.severity,
        event.status,
        event.evidence,
        point.lon if point else None,
        point.lat if point else None,
        event.admin,
        event.place,
        event.reports,
        *(getattr(event.people, name) for name in domain.PEOPLE),
        *(getattr(event.damage, name) for name in domain.DAMAGE),
        event.opened_at,
        event.updated_at,
    )


def _need(entry: Entry, event: NeedState) -> tuple[Any, ...]:
    point = event.point
    return (
        entry.operation,
        entry.exercise,
        event.incident_id,
        event.item,
        event.skill,
        event.unit,
        event.severity,
        event.status,
        event.quantity,
        point.lon if point else None,
        point.lat if point else None,
        event.admin,
    )


_LEDGER = ("needed", "open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled")


def _ledger(entry: Entry, event: LedgerChanged) -> tuple[Any, ...]:
    return (
        entry.operation,
        entry.exercise,
        event.incident_id,
        event.item,
        event.skill,
        event.unit,
        event.severity,
        event.admin,
        *(getattr(event, name) for name in _LEDGER),
    )


def _offer(entry: Entry, event: OfferState) -> tuple[Any, ...]:
    return entry.operation, entry.exercise, event.need_id, event.organisation, event.quantity, event.state


def _assignment(entry: Entry, event: AssignmentState) -> tuple[Any, ...]:
    return (
        entry.operation,
        entry.exercise,
        event.need_id,
        event.responder_id,
        event.organisation,
        event.quantity,
        event.state,
    )


def _responder(entry: Entry, event: ResponderState) -> tuple[Any, ...]:
    return entry.exercise, event.status, event.capacity


MODELS: tuple[Model, ...] = (
    Model(tables.OperationVersion, OperationState, _operation),
    Model(tables.IncidentVersion, IncidentState, _incident),
    Model(tables.NeedVersion, NeedState, _need),
    Model(tables.LedgerVersion, LedgerChanged, _ledger),
    Model(tables.OfferVersion, OfferState, _offer),
    Model(tables.AssignmentVersion, AssignmentState, _assignment),
    Model(tables.ResponderVersion, ResponderState, _responder),
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
    await tx.raw.copy_records_to_table(table, schema_name="sitrep", columns=columns, records=reversed(rows))


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


async def clear(tx: Tx) -> None:
    """Empty the read models."""
    await tx.execute(f"TRUNCATE {', '.join(TABLES)}")


# The picture


def _at(table: str) -> str:
    """A table's rows as they stood at position $1."""
    return f"(SELECT * FROM {table} WHERE from_position <= $1 AND until_position > $1)"


def _covered(operation: str, exercise: str) -> str:
    """`Scope.covers`: $2 operation, $3 allowed operations."""
    return (
        f"CASE WHEN $2::text IS NULL THEN NOT {exercise} AND ($3::text[] IS NULL OR {operation} = ANY($3)) "
        f"ELSE {operation} IS NOT DISTINCT FROM $2 END"
    )


def _held(admin: str) -> str:
    """`Scope.holds`: $4 the area's codes, $5 the beginnings of the codes within it; both NULL without an area."""
    return f"($4::text[] IS NULL OR {admin} = ANY($4) OR {admin} ^@ ANY($5::text[]))"


_INCIDENTS = f"""
    SELECT * FROM {_at("incident")} AS i WHERE {_covered("i.operation", "i.exercise")} AND {_held("i.admin")}
"""
_NEEDS = f"""
    SELECT need_id, n.status, n.quantity, l.need_id IS NOT NULL AS entered,
           CASE WHEN n.need_id IS NULL THEN l.item ELSE n.item END AS item,
           CASE WHEN n.need_id IS NULL THEN l.skill ELSE n.skill END AS skill,
           coalesce(n.unit, l.unit) AS unit, coalesce(n.severity, l.severity) AS severity,
           l.needed, l.open, l.offered, l.committed, l.in_transit, l.delivered, l.confirmed, l.cancelled,
           CASE WHEN n.need_id IS NULL THEN l.operation ELSE n.operation END AS operation,
           CASE WHEN n.need_id IS NULL THEN l.exercise ELSE n.exercise END AS exercise,
           coalesce(n.admin, l.admin, i.admin) AS admin
    FROM {_at("need")} AS n FULL JOIN {_at("ledger")} AS l USING (need_id)
         LEFT JOIN {_at("incident")} AS i ON i.incident_id = coalesce(n.incident_id, l.incident_id)
"""
# Offers and assignments lie where their need lies; without an area nobody has to look.
_IN_AREA = f"""
    ($4::text[] IS NULL OR need_id IN (SELECT need_id FROM ({_NEEDS}) AS s WHERE {_held("s.admin")}))
"""


async def picture(tx: Tx, position: int, scope: Scope) -> Picture:
    """The picture at this position of the log, from the read models."""
    codes = scope.area_codes()
    args = (
        position,
        scope.operation,
        None if scope.allowed is None else list(scope.allowed),
        None if codes is None else list(codes[0]),
        None if codes is None else list(codes[1]),
    )
    now = await tx.fetchval("SELECT received_at FROM log WHERE position = $1", position)
    redacted = await tx.fetchval("SELECT count(*) FROM log WHERE data IS NULL AND position <= $1", position)
    since = None if now is None else now - domain.RECENT

    operations = await tx.fetch(
        f"SELECT * FROM {_at('operation')} AS o WHERE {_covered('operation_id', 'exercise')} "
        'ORDER BY operation_id COLLATE "C"',
        *args[:3],
    )
    lines = tuple(_operation_line(row) for row in operations)
    drill = scope.operation is not None and any(line.exercise for line in lines)

    reports = await _one(
        tx,
        f"""
        SELECT count(*) FILTER (WHERE NOT r.retracted) AS taken,
               count(*) FILTER (WHERE NOT r.retracted AND r.incident_id IS NULL) AS unlinked,
               count(*) FILTER (WHERE r.retracted) AS retracted,
               count(*) FILTER (WHERE NOT r.retracted AND r.received_at > $6) AS recent
        FROM {_at("report")} AS r LEFT JOIN {_at("incident")} AS i ON i.incident_id = r.incident_id
        WHERE r.received_at IS NOT NULL
          AND CASE WHEN i.incident_id IS NULL THEN {_covered("r.operation", "r.exercise")}
                   ELSE {_covered("i.operation", "i.exercise")} END
          AND {_held("coalesce(r.admin, i.admin)")}
        """,
        *args,
        since,
    )
    valid = "FILTER (WHERE status <> 'merged')"
    sums = ", ".join(f"coalesce(sum({name}) {valid}, 0)::bigint AS {name}" for name in domain.PEOPLE + domain.DAMAGE)
    statuses = ", ".join(f"count(*) FILTER (WHERE status = '{name}') AS {name}" for name in domain.STATUSES)
    severities = ", ".join(
        f"count(*) FILTER (WHERE status = 'open' AND severity = {name}) AS s{name}" for name in domain.SEVERITIES
    )
    evidence = ", ".join(
        f"count(*) FILTER (WHERE status <> 'merged' AND evidence = '{name}') AS {name}" for name in domain.EVIDENCE
    )
    incidents = await _one(
        tx,
        f"""
        SELECT {statuses}, {severities}, {evidence},
               count(*) FILTER (WHERE status <> 'merged' AND opened_at > $6) AS recent, {sums}
        FROM ({_INCIDENTS}) AS s
        """,
        *args,
        since,
    )
    hazards = await tx.fetch(
        f"SELECT coalesce(nullif(hazard, ''), 'other') AS hazard, count(*) AS count FROM ({_INCIDENTS}) AS s "
        "WHERE status = 'open' GROUP BY 1",
        *args,
    )
    top = await tx.fetch(
        f"""
        SELECT * FROM ({_INCIDENTS}) AS s WHERE status = 'open'
        ORDER BY severity DESC, coalesce(dead, 0) + coalesce(missing, 0) + coalesce(injured, 0) DESC,
                 coalesce(affected, 0) DESC, reports DESC, incident_id
        LIMIT {domain.TOP_INCIDENTS}
        """,
        *args,
    )
    needs = await tx.fetch(
        f"""
        SELECT CASE WHEN item IS NULL THEN 'skill' ELSE 'item' END AS kind, coalesce(item, skill, '') AS code,
               min(unit COLLATE "C") AS unit, max(severity) AS severity, count(*) AS needs,
               sum(CASE WHEN entered THEN needed - cancelled ELSE quantity END)::bigint AS needed,
               coalesce(sum(committed), 0)::bigint AS committed, coalesce(sum(in_transit), 0)::bigint AS coming,
               coalesce(sum(delivered + confirmed), 0)::bigint AS delivered,
               sum(CASE WHEN entered THEN open + offered ELSE quantity END)::bigint AS gap,
               coalesce(sum(cancelled), 0)::bigint AS cancelled
        FROM ({_NEEDS}) AS s
        WHERE (entered OR status = 'declared') AND {_covered("operation", "exercise")} AND {_held("admin")}
        GROUP BY 1, 2
        """,
        *args,
    )
    drafts = await tx.fetchval(
        f"SELECT count(*) FROM ({_NEEDS}) AS s WHERE NOT entered AND status = 'draft' "
        f"AND {_covered('operation', 'exercise')} AND {_held('admin')}",
        *args,
    )
    offers = await tx.fetch(
        f"SELECT state, count(*) AS count FROM {_at('offer')} AS o "
        f"WHERE {_covered('operation', 'exercise')} AND {_IN_AREA} GROUP BY 1",
        *args,
    )
    assigned = f"SELECT * FROM {_at('assignment')} AS a WHERE {_covered('operation', 'exercise')} AND {_IN_AREA}"
    assignments = await tx.fetch(f"SELECT state, count(*) AS count FROM ({assigned}) AS s GROUP BY 1", *args)
    organisations = await tx.fetch(
        f"""
        SELECT organisation, count(*) FILTER (WHERE state = 'made') AS made,
               count(*) FILTER (WHERE state IN ('started', 'arrived')) AS under_way,
               count(*) FILTER (WHERE state IN ('delivered', 'confirmed')) AS done
        FROM ({assigned}) AS s WHERE state <> 'abandoned' GROUP BY 1
        ORDER BY organisation COLLATE "C" NULLS LAST
        """,
        *args,
    )
    busy = await tx.fetchval(
        f"SELECT count(DISTINCT responder_id) FROM ({assigned}) AS s WHERE state = ANY($6)",
        *args,
        list(domain.UNDER_WAY),
    )
    responders = await _one(
        tx,
        f"SELECT count(*) AS count, coalesce(sum(capacity), 0)::bigint AS people FROM {_at('responder')} AS r "
        "WHERE status = 'confirmed' AND ($2 OR NOT exercise)",
        position,
        drill,
    )
    return Picture(
        position=position,
        received_at=now,
        redacted=redacted,
        operations=lines,
        reports=reports["taken"],
        reports_unlinked=reports["unlinked"],
        reports_retracted=reports["retracted"],
        reports_recent=reports["recent"],
        incidents={name: incidents[name] for name in domain.STATUSES},
        incidents_recent=incidents["recent"],
        by_hazard={row["hazard"]: row["count"] for row in sorted(hazards, key=lambda row: str(row["hazard"]))},
        by_severity={name: incidents[f"s{name}"] for name in domain.SEVERITIES},
        by_evidence={name: incidents[name] for name in domain.EVIDENCE},
        people={name: incidents[name] for name in domain.PEOPLE},
        damage={name: incidents[name] for name in domain.DAMAGE},
        top=tuple(_incident_line(row) for row in top),
        needs=domain.sorted_needs(domain.NeedLine(**row) for row in needs),
        drafts=drafts,
        offers=domain.counted(domain.OFFER_STATES, _counts(offers)),
        assignments=domain.counted(domain.ASSIGNMENT_STATES, _counts(assignments)),
        organisations=tuple(domain.OrganisationLine(**row) for row in organisations),
        responders=responders["count"],
        responder_people=responders["people"],
        responders_busy=busy,
    )


async def _one(tx: Tx, sql: str, *args: Any) -> Row:
    row = await tx.fetchrow(sql, *args)
    assert row is not None
    return row


def _counts(rows: Iterable[Row]) -> dict[str, int]:
    return {row["state"]: row["count"] for row in rows}


def _operation_line(row: Row) -> domain.OperationLine:
    return domain.OperationLine(
        operation_id=row["operation_id"],
        title=row["title"],
        exercise=row["exercise"],
        glide=row["glide"],
        hazards=tuple(row["hazards"]),
        timezone=row["timezone"],
        lead=row["lead"],
        declared=row["declared"],
        level=row["level"],
        decree=row["decree"],
        until=row["until"],
        phase=row["phase"],
        closed=row["closed_at"] is not None,
    )


def _incident_line(row: Row) -> domain.IncidentLine:
    return domain.IncidentLine(**{name: row[name] for name in (f.name for f in fields(domain.IncidentLine))})
