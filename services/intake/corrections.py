"""Corrections of incidents by hand: what operators and field staff know better than a rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from schemas.event import Event
from schemas.incidents import (
    IncidentClosed,
    IncidentMerged,
    IncidentMoved,
    IncidentSplit,
    IncidentUpdated,
    IncidentVerified,
)
from schemas.reports import ReportLinked, ReportPlaced, ReportUnlinked
from schemas.values import Evidence
from services.intake import domain
from services.intake.actions import exercise_of, operations
from services.intake.evidence import stronger
from services.intake.incidents import (
    Incident,
    attend,
    enter,
    facts_of,
    incident_event,
    incident_row,
    leave,
    lock_incident,
    note,
    refresh,
    write_incidents,
)
from services.intake.need_writes import detach, merge_needs, move_needs, withdraw_idle
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, to_json
from services.runtime.ids import uuid7
from services.runtime.problems import Conflict, NotFound, NotKnownYet


def _open(incident: Incident) -> Incident:
    if incident["status"] != "open":
        raise Conflict(f"the incident is {incident['status']}", merged_into=_text(incident["merged_into"]))
    return incident


def _text(value: UUID | None) -> str | None:
    return None if value is None else str(value)


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
    await enter(tx, report, incident_id, by=by, reason=reason)
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
        await enter(tx, report, alone, by=by, reason=reason)
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
    await write_incidents(tx, [gone])
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
    await write_incidents(tx, [incident])
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
