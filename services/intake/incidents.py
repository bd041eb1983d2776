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
    IncidentClosed,
    IncidentMerged,
    IncidentMoved,
    IncidentOpened,
    IncidentOverdue,
    IncidentSplit,
    IncidentState,
    IncidentUpdated,
    IncidentVerified,
)
from schemas.reports import ReportLinked, ReportPlaced, ReportUnlinked
from schemas.values import Evidence
from services.intake import domain, triage
from services.intake.actions import exercise_of, operations
from services.intake.evidence import Fact, Vouched, facts, stronger
from services.intake.need_writes import detach, merge_needs, move_needs, withdraw_idle, work_out
from services.intake.summary import settled, summary, triage_of
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.ids import uuid7
from services.runtime.problems import Conflict, NotFound, NotKnownYet

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


def _open(incident: Incident) -> Incident:
    if incident["status"] != "open":
        raise Conflict(f"the incident is {incident['status']}", merged_into=_text(incident["merged_into"]))
    return incident


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


# What the reports say together


async def refresh(
    tx: Tx,
    incident_ids: Collection[UUID],
    *,
    by: str,
    reason: str | None = None,
    kinds: Mapping[UUID, type[IncidentState]] | None = None,
) -> None:
    """Work these incidents out anew from their reports, tell of each that changed once, and work out their needs.

    An incident without a row is opened. `kinds` says which event tells of an incident, which is then told of whether
    its own fields changed or not; else it is `IncidentOpened` or `IncidentUpdated`. What only became more urgent by
    waiting is written and not told.
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
    told = await _told(tx, wanted, {row["incident_id"] for row in counts})
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
        events.append(incident_event(kind, incident, changed=changed, by=by, reason=reason))
    await _write(tx, fresh)
    await outbox.append(tx, events)
    await work_out(tx, wanted, by=by, reason=reason)


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


async def _write(tx: Tx, rows: Sequence[Incident]) -> None:
    if rows:
        await tx.executemany(
            _UPSERT,
            [[to_json(row[name]) if name in _JSON else row[name] for name in _COLUMNS] for row in rows],
        )


async def _told(tx: Tx, incident_ids: Sequence[UUID], there: set[UUID]) -> dict[UUID, list[domain.Told]]:
    """What the reports of these incidents say, in the order of receipt. An exact copy within its incident says
    nothing new, so a burst of one text does not make each later report dearer."""
    columns = (
        "incident_id, report_id, origin, received_at, observed_at, title, text, hazard, severity, lon, lat, place, "
        "admin, people, damage, voice, official, copy_of, reading, needs, sensitivity, bulk"
    )
    told: dict[UUID, list[domain.Told]] = defaultdict(list)
    query = f"SELECT {columns} FROM report WHERE incident_id = ANY($1) {{}} ORDER BY seq"
    rows = await tx.fetch(query.format("AND NOT exact_copy"), incident_ids)
    bare = there - {row["incident_id"] for row in rows}
    if bare:  # the report that the rest repeats was taken out
        rows += await tx.fetch(query.format(""), list(bare))
    for row in rows:
        told[row["incident_id"]].append(
            domain.Told(
                report_id=row["report_id"], origin=row["origin"], received_at=row["received_at"],
                observed_at=row["observed_at"], title=row["title"], text=row["text"], hazard=row["hazard"],
                severity=row["severity"], lon=row["lon"], lat=row["lat"], place=row["place"], admin=row["admin"],
                people=from_json(row["people"]) or {}, damage=from_json(row["damage"]) or {}, voice=row["voice"],
                official=row["official"], copy=row["copy_of"] is not None, reading=from_json(row["reading"]) or {},
                asked=tuple(need.get("item") or need["skill"] for need in from_json(row["needs"]) or ()),
                sensitivity=row["sensitivity"], bulk=row["bulk"],
            )
        )  # fmt: skip
    return told


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
    told = (await _told(tx, [incident_id], {incident_id}))[incident_id]
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


async def _enter(tx: Tx, report: Row, incident_id: UUID, *, by: str, reason: str) -> None:
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


# Corrections by hand


async def link(tx: Tx, incident_id: UUID, report_id: UUID, *, by: str, reason: str) -> Incident:
    """Put a report into an incident, out of the one it is in. An incident that loses its last report by this is
    merged: nothing of it is left to be told apart."""
    incident = _open(await lock_incident(tx, incident_id))
    await attend(tx, incident_id, clock.now())
    report = await _report_of(tx, report_id, incident["operation"])
    left = report["incident_id"]
    if left == incident_id:
        return incident
    if left is not None:
        if await _others(tx, left, report_id) == 0:
            return await merge(tx, left, incident_id, by=by, reason=reason)
        await leave(tx, report, by=by, reason=reason)
    await _enter(tx, report, incident_id, by=by, reason=reason)
    await refresh(tx, [incident_id, *([left] if left else [])], by=by, reason=reason)
    return await _after(tx, incident_id)


async def unlink(tx: Tx, incident_id: UUID, report_id: UUID, *, by: str, reason: str) -> Incident:
    """Take a report out of an incident. With a place it becomes an incident of its own, because somebody found that
    it speaks of something else; without one it waits for a place again."""
    incident = _open(await lock_incident(tx, incident_id))
    await attend(tx, incident_id, clock.now())
    report = await _report_of(tx, report_id, incident["operation"])
    if report["incident_id"] != incident_id:
        raise Conflict("the report is not in this incident")
    if await _others(tx, incident_id, report_id) == 0:
        raise Conflict("this is the incident's only report")
    await leave(tx, report, by=by, reason=reason)
    touched = [incident_id]
    if report["lon"] is not None or report["admin"] is not None:
        touched.append(alone := uuid7())
        await _enter(tx, report, alone, by=by, reason=reason)
    await refresh(tx, touched, by=by, reason=reason)
    return await _after(tx, incident_id)


async def merge(tx: Tx, incident_id: UUID, into_id: UUID, *, by: str, reason: str) -> Incident:
    """Put all of an incident into another; returns the other."""
    if incident_id == into_id:
        raise Conflict("an incident cannot be merged into itself")
    into_operation = await tx.fetchval("SELECT operation FROM incident WHERE incident_id = $1", into_id)
    if into_operation is None:
        raise NotFound("there is no incident to merge into")
    incident = await lock_incident(tx, incident_id, and_operation=into_operation)
    into = _open(await lock_incident(tx, into_id))
    await attend(tx, into_id, clock.now())
    if incident["status"] == "merged":
        raise Conflict("the incident was merged before", merged_into=_text(incident["merged_into"]))
    if incident["operation"] != into["operation"]:
        raise Conflict("the two belong to different operations; move one first")
    await tx.execute(
        "UPDATE report SET incident_id = $2, exact_copy = false WHERE incident_id = $1", incident_id, into_id
    )
    await note(tx, into["operation"], "merge", incident_id=into_id, other_id=incident_id)
    now = clock.now()
    gone = incident | {
        "status": "merged", "merged_into": into_id, "updated_at": now, "reports": 0, "newest_reports": [],
        "people": {}, "damage": {}, "closed_at": None, "facts": {}, "disputed": [], "attend_by": None,
        "attended_at": incident["attended_at"] or now, "triage_at": None, "priority": 0, "reasons": [],
    }  # fmt: skip
    await _write(tx, [gone])
    await outbox.append(
        tx,
        [incident_event(IncidentMerged, gone, changed=("status", "merged_into", "reports"), by=by, reason=reason)],
    )
    await merge_needs(tx, incident_id, into_id, by=by, reason=reason)
    if incident["sensitivity_set"] and not into["sensitivity_set"]:
        await tx.execute(
            "UPDATE incident SET sensitivity = $2, sensitivity_set = true WHERE incident_id = $1",
            into_id, incident["sensitivity"],
        )  # fmt: skip
    if incident["verified"]:
        await tx.execute(
            "UPDATE incident SET verified = $2, verified_at = coalesce(verified_at, $3) WHERE incident_id = $1",
            into_id, stronger(incident["verified"], into["verified"]), incident["verified_at"],
        )  # fmt: skip
    await refresh(tx, [into_id], by=by, reason=reason)
    return await _after(tx, into_id)


async def split(
    tx: Tx, incident_id: UUID, report_ids: Sequence[UUID], *, by: str, reason: str
) -> tuple[Incident, UUID]:
    """Make a new incident of some of an incident's reports; returns the old one and the new one's id."""
    incident = _open(await lock_incident(tx, incident_id))
    await attend(tx, incident_id, clock.now())
    wanted = list(dict.fromkeys(report_ids))
    rows = await tx.fetch("SELECT report_id FROM report WHERE incident_id = $1 ORDER BY seq", incident_id)
    there = [row["report_id"] for row in rows]
    strangers = set(wanted) - set(there)
    if strangers:
        raise Conflict(f"{len(strangers)} of the reports are not in this incident")
    if len(wanted) == len(there):
        raise Conflict("some report has to stay; an incident cannot be split into itself and nothing")
    moving = [report_id for report_id in there if report_id in set(wanted)]
    new_id = uuid7()
    await tx.execute(
        "UPDATE report SET incident_id = $2, linked_at = $3, linked_by = $4, score = NULL, parts = NULL, "
        "exact_copy = false, suggested = NULL WHERE report_id = ANY($1)",
        moving, new_id, clock.now(), by,
    )  # fmt: skip
    await detach(tx, moving)
    await note(tx, incident["operation"], "move", moving, new_id)
    shared = {"operation": incident["operation"], "exercise": incident["exercise"], "by": by, "reason": reason}
    events: list[Event] = []
    for report_id in moving:
        events.append(ReportUnlinked(report_id=report_id, incident_id=incident_id, **shared))
        events.append(ReportLinked(report_id=report_id, incident_id=new_id, **shared))
    await outbox.append(tx, events)
    await refresh(tx, [incident_id, new_id], by=by, reason=reason, kinds={incident_id: IncidentSplit})
    return await _after(tx, incident_id), new_id


async def verify(
    tx: Tx, incident_id: UUID, evidence: Evidence, fact: str | None, value: Any, *, by: str, reason: str
) -> Incident:
    """Vouch for an incident, or for one fact of it: that it is as told, or `value` where something else was found."""
    incident = await lock_incident(tx, incident_id)
    if incident["status"] == "merged":
        _open(incident)
    now = clock.now()
    await attend(tx, incident_id, now)
    if fact is not None:
        if value is None:
            known = (await facts_of(tx, incident)).get(fact)
            value = known.value if known else None
        await tx.execute(
            "INSERT INTO incident_fact (incident_id, fact, evidence, by, reason, at, value) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7) "
            "ON CONFLICT (incident_id, fact) DO UPDATE SET evidence = excluded.evidence, by = excluded.by, "
            "reason = excluded.reason, at = excluded.at, value = excluded.value",
            incident_id, fact, evidence, by, reason, now, None if value is None else to_json(value),
        )  # fmt: skip
        reason = f"{fact} {evidence}: {reason}"
    else:
        await tx.execute(
            "UPDATE incident SET verified = $2, verified_at = $3 WHERE incident_id = $1", incident_id, evidence, now
        )
    await refresh(tx, [incident_id], by=by, reason=reason, kinds={incident_id: IncidentVerified})
    return await _after(tx, incident_id)


async def protect(tx: Tx, incident_id: UUID, sensitivity: str | None, *, by: str, reason: str) -> Incident:
    """Set the protected class of an incident by hand, or that it has none; no rule changes it from now on."""
    incident = await lock_incident(tx, incident_id)
    if incident["status"] == "merged":
        _open(incident)
    await attend(tx, incident_id, clock.now())
    await tx.execute(
        "UPDATE incident SET sensitivity = $2, sensitivity_set = true WHERE incident_id = $1", incident_id, sensitivity
    )
    # What was told before is repeated with the new class: a reader that goes by the newest state then protects it.
    await refresh(tx, [incident_id], by=by, reason=reason, kinds={incident_id: IncidentUpdated})
    return await _after(tx, incident_id)


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
    await _write(tx, [incident])
    target_s = int(triage.attend_within(incident["severity"]).total_seconds())
    await outbox.append(
        tx,
        [incident_event(IncidentOverdue, incident, changed=["overdue"], by=by, reason=None, target_s=target_s)],
    )
    return True


async def move(tx: Tx, incident_id: UUID, operation: str, *, by: str, reason: str) -> Incident:
    """Give an incident with its reports and needs to another operation."""
    known = await operations(tx)
    open_there = domain.named_operation(operation, known)
    if open_there is None:
        raise NotKnownYet(f"there is no operation {operation}")
    if not open_there:
        raise Conflict(f"the operation {operation} is closed")
    incident = await lock_incident(tx, incident_id, and_operation=operation)
    if incident["status"] == "merged":
        _open(incident)
    if incident["operation"] == operation:
        return incident
    await attend(tx, incident_id, clock.now())
    exercise = exercise_of(operation, known)
    rows = await tx.fetch(
        "WITH moved AS (UPDATE report SET operation = $2, exercise = $3 WHERE incident_id = $1 "
        "RETURNING report_id, seq) SELECT report_id FROM moved ORDER BY seq",
        incident_id, operation, exercise,
    )  # fmt: skip
    moving = [row["report_id"] for row in rows]
    await note(tx, incident["operation"], "remove", moving)
    await note(tx, operation, "add", moving, incident_id)
    if incident["status"] == "closed":
        await note(tx, operation, "close", incident_id=incident_id)
    await outbox.append(
        tx,
        [
            ReportPlaced(report_id=report_id, operation=operation, exercise=exercise, by=by, reason=reason)
            for report_id in moving
        ],
    )
    await move_needs(tx, incident_id, operation, exercise, by=by, reason=reason)
    await refresh(tx, [incident_id], by=by, reason=reason, kinds={incident_id: IncidentMoved})
    return await _after(tx, incident_id)


async def close(tx: Tx, incident_id: UUID, *, by: str, reason: str) -> Incident:
    """Close an incident: it takes no more reports by itself, and needs that nobody has begun to meet are withdrawn."""
    incident = await lock_incident(tx, incident_id)
    if incident["status"] == "closed":
        return incident
    _open(incident)
    now = clock.now()
    incident |= {
        "status": "closed", "closed_at": now, "updated_at": now, "attend_by": None, "triage_at": None,
        "attended_at": incident["attended_at"] or now,
    }  # fmt: skip
    await _write(tx, [incident])
    await note(tx, incident["operation"], "close", incident_id=incident_id)
    await outbox.append(tx, [incident_event(IncidentClosed, incident, changed=["status"], by=by, reason=reason)])
    await withdraw_idle(tx, incident_id, by=by, reason=reason)
    return incident


async def _after(tx: Tx, incident_id: UUID) -> Incident:
    incident = await incident_row(tx, incident_id)
    assert incident is not None
    return incident


async def _others(tx: Tx, incident_id: UUID, report_id: UUID) -> int:
    return int(
        await tx.fetchval(
            "SELECT count(*) FROM report WHERE incident_id = $1 AND report_id <> $2", incident_id, report_id
        )
    )


async def _report_of(tx: Tx, report_id: UUID, operation: str) -> Row:
    report = await tx.fetchrow("SELECT * FROM report WHERE report_id = $1 FOR UPDATE", report_id)
    if report is None:
        raise NotFound("there is no such report")
    if report["operation"] != operation:
        raise Conflict("the report belongs to another operation; move it first (PATCH /v1/reports/{id})")
    return report
