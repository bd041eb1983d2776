"""Writes to incidents: what their reports say together, and what operators correct.

All of it happens under the lock of the operation, which the linker takes as well: reports of one operation change
their incidents one after another, and `link_change` tells the linker's index of every change in that order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.event import Event
from schemas.incidents import (
    IncidentOpened,
    IncidentOverdue,
    IncidentState,
    IncidentUpdated,
)
from schemas.reports import ReportLinked, ReportUnlinked
from services.intake import domain, triage
from services.intake.actions import operations
from services.intake.evidence import Fact, Vouched, facts, stronger
from services.intake.need_writes import detach, work_out
from services.intake.summary import settled, summary, triage_of
from services.intake.told import Kept, told_by
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.problems import NotFound

_ZONE = ZoneInfo("Asia/Jakarta")
Incident = dict[str, Any]
"""A row of `incident` with its JSON columns read."""


# Locks


async def lock_operations(tx: Tx, names: Iterable[str]) -> None:
    """Hold these operations' locks until the transaction ends, waiting for whoever has them."""
    for name in sorted(set(names)):
        await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.linker'), hashtext($1))", name)


async def try_lock_operation(tx: Tx, name: str) -> bool:
    """Hold an operation's lock until the transaction ends, unless somebody else has it."""
    return bool(await tx.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('gotong.linker'), hashtext($1))", name))


async def lock_incident(tx: Tx, incident_id: UUID, *, and_operation: str | None = None) -> Incident:
    """An incident under its operation's lock.

    Raises
    ------
    NotFound
        There is none with this id.
    """
    while True:
        operation = await tx.fetchval("SELECT operation FROM incident WHERE incident_id = $1", incident_id)
        if operation is None:
            raise NotFound("there is no such incident")
        await lock_operations(tx, [operation, *([and_operation] if and_operation else [])])
        incident = await incident_row(tx, incident_id)
        if incident is not None and incident["operation"] == operation:
            return incident  # else it moved while we waited for the lock


async def lock_report(tx: Tx, report_id: UUID, *, and_operation: str | None = None) -> Row:
    """A report under its operation's lock; a held report has none and is locked by its row alone.

    Raises
    ------
    NotFound
        There is none with this id.
    """
    while True:
        before = await tx.fetchrow("SELECT operation FROM report WHERE report_id = $1", report_id)
        if before is None:
            raise NotFound("there is no such report")
        await lock_operations(tx, [name for name in (before["operation"], and_operation) if name])
        report = await tx.fetchrow("SELECT * FROM report WHERE report_id = $1 FOR UPDATE", report_id)
        if report is not None and report["operation"] == before["operation"]:
            return report


async def incident_row(tx: Tx, incident_id: UUID) -> Incident | None:
    """The incident's row, or None."""
    row = await tx.fetchrow("SELECT * FROM incident WHERE incident_id = $1", incident_id)
    return None if row is None else as_incident(row)


def as_incident(row: Row) -> Incident:
    return {**dict(row), **{name: from_json(row[name]) for name in _JSON}}


# What the reports say together


async def refresh(
    tx: Tx,
    incident_ids: Collection[UUID],
    *,
    by: str,
    reason: str | None = None,
    kinds: Mapping[UUID, type[IncidentState]] | None = None,
    kept: Kept | None = None,
) -> None:
    """Work these incidents out anew from their reports, tell of each that changed once, and work out their needs.

    An incident without a row is opened. `kinds` says which event tells of an incident, which is then told of whether
    its own fields changed or not; else it is `IncidentOpened` or `IncidentUpdated`. What only became more urgent by
    waiting is written and not told. `kept`: what reports were read to say before.
    """
    if not incident_ids:
        return
    now = clock.now()
    kinds = kinds or {}
    wanted = sorted(set(incident_ids))
    counts = await tx.fetch(
        """
        SELECT incident_id, count(*) AS reports, min(observed_at) AS first_at, max(observed_at) AS last_at,
               min(received_at) AS received_at,
               max(severity) AS severity, min(operation) AS operation, bool_or(exercise) AS exercise,
               (array_agg(report_id ORDER BY seq DESC))[1:20] AS newest
        FROM report WHERE incident_id = ANY($1) GROUP BY incident_id
        """,
        wanted,
    )
    told = await told_by(tx, wanted, {row["incident_id"] for row in counts}, kept or Kept())
    known = {
        row["incident_id"]: as_incident(row)
        for row in await tx.fetch(
            "SELECT * FROM incident WHERE incident_id = ANY($1) ORDER BY incident_id FOR UPDATE", wanted
        )
    }
    vouched = await vouched_of(tx, wanted)
    met = await _met(tx, wanted)
    zones = {name: _zone(operation.timezone) for name, operation in (await operations(tx)).items()}
    events: list[Event] = []
    fresh: list[Incident] = []
    for count in sorted(counts, key=lambda row: row["incident_id"]):
        incident_id = count["incident_id"]
        zone = zones.get(count["operation"], _ZONE)
        before = known.get(incident_id)
        incident = _incident(count, told[incident_id], vouched[incident_id], met[incident_id], zone, before, now)
        changed = [name for name in _TOLD if before is not None and before[name] != incident[name]]
        kind = kinds.get(incident_id) or (IncidentOpened if before is None else IncidentUpdated)
        if before is not None and not changed and incident_id not in kinds:
            if any(before[name] != incident[name] for name in _SILENT):
                fresh.append(incident | {"updated_at": before["updated_at"]})
            continue
        fresh.append(incident)
        known[incident_id] = incident
        events.append(incident_event(kind, incident, changed=changed, by=by, reason=reason))
    await write_incidents(tx, fresh)
    await outbox.append(tx, events)
    await work_out(tx, known, by=by, reason=reason)


_TOLD = (
    "title", "hazard", "severity", "evidence", "lon", "lat", "admin", "place", "reports", "newest_reports", "people",
    "damage", "first_observed_at", "last_observed_at", "operation", "exercise", "facts", "disputed", "sensitivity",
    "water_depth_cm", "persons", "vulnerable", "exercise_suggested",
)  # fmt: skip
_SILENT = ("priority", "reasons", "triage_at", "attend_by", "public_lon", "public_lat")
_COLUMNS = (
    "incident_id", "operation", "exercise", "title", "hazard", "severity", "status", "evidence", "verified",
    "verified_at", "lon", "lat", "admin", "place", "reports", "newest_reports", "people", "damage", "opened_at",
    "updated_at", "closed_at", "first_observed_at", "last_observed_at", "merged_into", "facts", "disputed",
    "sensitivity", "sensitivity_set", "priority", "reasons", "attend_by", "attended_at", "overdue_at", "triage_at",
    "water_depth_cm", "persons", "vulnerable", "exercise_suggested", "public_lon", "public_lat",
)  # fmt: skip
_JSON = ("people", "damage", "facts", "reasons")
_UPSERT = f"""
    INSERT INTO incident ({", ".join(_COLUMNS)}) VALUES ({", ".join(f"${n}" for n in range(1, len(_COLUMNS) + 1))})
    ON CONFLICT (incident_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""


async def write_incidents(tx: Tx, rows: Sequence[Incident]) -> None:
    if rows:
        await tx.executemany(
            _UPSERT,
            [[to_json(row[name]) if name in _JSON else row[name] for name in _COLUMNS] for row in rows],
        )


async def vouched_of(tx: Tx, incident_ids: Sequence[UUID]) -> dict[UUID, dict[str, Vouched]]:
    """What somebody vouched for, by incident and fact."""
    found: dict[UUID, dict[str, Vouched]] = defaultdict(dict)
    for row in await tx.fetch("SELECT * FROM incident_fact WHERE incident_id = ANY($1)", incident_ids):
        value = None if row["value"] is None else from_json(row["value"])
        found[row["incident_id"]][row["fact"]] = Vouched(value, row["evidence"], row["by"], row["reason"], row["at"])
    return found


async def _met(tx: Tx, incident_ids: Sequence[UUID]) -> dict[UUID, list[str]]:
    """The items and skills of which everything that an incident needs has arrived or is not needed any more."""
    found: dict[UUID, list[str]] = defaultdict(list)
    rows = await tx.fetch(
        """
        SELECT n.incident_id, coalesce(n.item, n.skill) AS code FROM need n JOIN ledger l USING (need_id)
        WHERE n.incident_id = ANY($1) GROUP BY 1, 2 HAVING sum(l.needed - l.delivered - l.confirmed - l.cancelled) <= 0
        """,
        incident_ids,
    )
    for row in rows:
        found[row["incident_id"]].append(row["code"])
    return found


async def facts_of(tx: Tx, incident: Incident) -> dict[str, Fact]:
    """Each fact of an incident with everything that was said of it."""
    incident_id = incident["incident_id"]
    told = (await told_by(tx, [incident_id], {incident_id}, Kept()))[incident_id]
    vouched = (await vouched_of(tx, [incident_id]))[incident_id]
    if not told:
        return {}
    operation = (await operations(tx)).get(incident["operation"])
    zone = _zone(operation.timezone) if operation else _ZONE
    return facts(settled(summary(told, zone), told, vouched, zone), told, vouched)


def _incident(
    count: Row,
    told: Sequence[domain.Told],
    vouched: Mapping[str, Vouched],
    met: Sequence[str],
    zone: ZoneInfo,
    before: Incident | None,
    now: datetime,
) -> Incident:
    """The row as it stands after the change. The title stays as it was opened with: people know it by that."""
    said = settled(summary(told, zone), told, vouched, zone)
    believed = facts(said, told, vouched)
    verified = before["verified"] if before else None
    evidence = stronger(said.evidence, verified)
    verified_at = before["verified_at"] if before else None
    attended_at = before["attended_at"] if before else None
    waited_h = ((attended_at or now) - count["received_at"]).total_seconds() / 3600
    urgency = triage_of(told, said, evidence, met, waited_h)
    severity = max(urgency.severity, count["severity"] or 0)
    by_hand = before is not None and before["sensitivity_set"]
    sensitivity = before["sensitivity"] if before is not None and by_hand else said.sensitivity
    public = (
        domain.coarse_point(said.lon, said.lat, sensitivity) if said.lon is not None and said.lat is not None else None
    )
    return {
        "incident_id": count["incident_id"],
        "operation": count["operation"],
        "exercise": count["exercise"],
        "title": before["title"] if before else said.title,
        "hazard": said.hazard,
        "severity": severity,
        "status": before["status"] if before else "open",
        "evidence": evidence,
        "verified": verified,
        "verified_at": verified_at or (now if evidence in ("field_checked", "official") else None),
        "lon": said.lon,
        "lat": said.lat,
        "admin": said.admin,
        "place": said.place,
        "reports": count["reports"],
        "newest_reports": list(reversed(count["newest"])),
        "people": said.people,
        "damage": said.damage,
        "opened_at": before["opened_at"] if before else now,
        "updated_at": now,
        "closed_at": before["closed_at"] if before else None,
        "first_observed_at": count["first_at"],
        "last_observed_at": count["last_at"],
        "merged_into": before["merged_into"] if before else None,
        "facts": {name: fact.evidence for name, fact in believed.items()},
        "disputed": [name for name, fact in believed.items() if fact.disputed],
        "sensitivity": sensitivity,
        "sensitivity_set": by_hand,
        "priority": urgency.priority,
        "reasons": [[reason.cause, reason.found, reason.points] for reason in urgency.reasons],
        "attend_by": _attend_by(severity, count["received_at"], before, now),
        "attended_at": attended_at,
        "overdue_at": before["overdue_at"] if before else None,
        "triage_at": None if attended_at else triage.next_rise(count["received_at"], now),
        "water_depth_cm": said.water_depth_cm,
        "persons": said.persons,
        "vulnerable": list(said.vulnerable),
        "exercise_suggested": said.exercise_suggested and not count["exercise"],
        "public_lon": public[0] if public else None,
        "public_lat": public[1] if public else None,
    }


def _attend_by(severity: int, received_at: datetime, before: Incident | None, now: datetime) -> datetime | None:
    """By when somebody should have looked at it: counted from its first report, or from when it became more severe."""
    if before is None:
        return received_at + triage.attend_within(severity)
    if before["attended_at"] is not None or before["attend_by"] is None:
        return None
    due: datetime = before["attend_by"]
    return min(due, now + triage.attend_within(severity)) if severity > before["severity"] else due


def incident_event(
    kind: type[IncidentState], row: Incident, *, changed: Sequence[str], by: str, reason: str | None, **more: Any
) -> IncidentState:
    """What is told of an incident as its row stands; `more`: fields of this kind alone."""
    point = {"lon": row["lon"], "lat": row["lat"]} if row["lon"] is not None else None
    names = {"lon": "point", "lat": "point"}
    return kind(
        incident_id=row["incident_id"], operation=row["operation"], exercise=row["exercise"], title=row["title"],
        hazard=row["hazard"], severity=row["severity"], status=row["status"], evidence=row["evidence"],
        point=point,
        admin=row["admin"], place=row["place"], reports=row["reports"], newest_reports=tuple(row["newest_reports"]),
        people=row["people"], damage=row["damage"], opened_at=row["opened_at"], updated_at=row["updated_at"],
        first_observed_at=row["first_observed_at"], last_observed_at=row["last_observed_at"],
        merged_into=row["merged_into"], changed=tuple(dict.fromkeys(names.get(name, name) for name in changed)),
        facts=row["facts"], disputed=tuple(row["disputed"]), sensitivity=row["sensitivity"], priority=row["priority"],
        attend_by=row["attend_by"], water_depth_cm=row["water_depth_cm"], persons=row["persons"],
        vulnerable=tuple(row["vulnerable"]), exercise_suggested=row["exercise_suggested"],
        by=by, reason=reason, **more,
    )  # fmt: skip


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        return _ZONE


# Reports in and out


async def note(
    tx: Tx,
    operation: str,
    kind: str,
    report_ids: Sequence[UUID] = (),
    incident_id: UUID | None = None,
    other_id: UUID | None = None,
) -> None:
    """Tell the linker's index of changes, one row for each report, or one without a report."""
    await tx.execute(
        "INSERT INTO link_change (operation, kind, report_id, incident_id, other_id) "
        "SELECT $1, $2, report_id, $4, $5 FROM unnest($3::uuid[]) WITH ORDINALITY AS t(report_id, nth) ORDER BY nth",
        operation,
        kind,
        list(report_ids) or [None],
        incident_id,
        other_id,
    )


async def leave(tx: Tx, report: Row, *, by: str, reason: str) -> None:
    """Take a report out of its incident; the caller puts it elsewhere and works the incident out anew."""
    left = report["incident_id"]
    await tx.execute(
        "UPDATE report SET incident_id = NULL, linked_at = NULL, linked_by = NULL, score = NULL, parts = NULL, "
        "exact_copy = false, suggested = NULL, "
        "state = CASE WHEN lon IS NULL AND admin IS NULL THEN 'unplaced' ELSE 'waiting' END WHERE report_id = $1",
        report["report_id"],
    )
    await detach(tx, [report["report_id"]])
    await note(tx, report["operation"], "remove", [report["report_id"]])
    await outbox.append(
        tx,
        [
            ReportUnlinked(
                report_id=report["report_id"], incident_id=left, operation=report["operation"],
                exercise=report["exercise"], by=by, reason=reason,
            )
        ],
    )  # fmt: skip


async def enter(tx: Tx, report: Row, incident_id: UUID, *, by: str, reason: str) -> None:
    await tx.execute(
        "UPDATE report SET incident_id = $2, state = 'linked', linked_at = $3, linked_by = $4 WHERE report_id = $1",
        report["report_id"], incident_id, clock.now(), by,
    )  # fmt: skip
    await note(tx, report["operation"], "add", [report["report_id"]], incident_id)
    await outbox.append(
        tx,
        [
            ReportLinked(
                report_id=report["report_id"], incident_id=incident_id, operation=report["operation"],
                exercise=report["exercise"], by=by, reason=reason,
            )
        ],
    )  # fmt: skip


# What waits too long


async def attend(tx: Tx, incident_id: UUID, at: datetime) -> None:
    """Somebody has looked at the incident: it waits for nobody any more."""
    await tx.execute(
        "UPDATE incident SET attended_at = coalesce(attended_at, $2), attend_by = NULL, triage_at = NULL "
        "WHERE incident_id = $1",
        incident_id,
        at,
    )


async def tell_overdue(tx: Tx, incident_id: UUID, *, by: str) -> bool:
    """Tell that nobody has looked at an incident in time, once; whether that was so."""
    incident = await lock_incident(tx, incident_id)
    now = clock.now()
    due = incident["attend_by"]
    if incident["status"] != "open" or incident["overdue_at"] is not None or due is None or due > now:
        return False
    incident |= {"overdue_at": now, "updated_at": now}
    await write_incidents(tx, [incident])
    target_s = int(triage.attend_within(incident["severity"]).total_seconds())
    await outbox.append(
        tx,
        [incident_event(IncidentOverdue, incident, changed=["overdue"], by=by, reason=None, target_s=target_s)],
    )
    return True
