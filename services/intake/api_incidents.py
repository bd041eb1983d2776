"""HTTP of incidents: what is known of each, exact for those who work on it and coarse for the public; corrections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from services.intake import api_needs, corrections, domain, incidents, versions
from services.intake.bodies import (
    CloseIn,
    Instant,
    MergeIn,
    MoveIn,
    ProtectIn,
    ReportLinkIn,
    SplitIn,
    VerifyIn,
    Word,
)
from services.intake.evidence import Fact
from services.intake.incidents import Incident, as_incident
from services.intake.needs_text import reader, stored
from services.runtime.auth import Actor, Caller
from services.runtime.db import Row, Tx, from_json
from services.runtime.http import (
    Answer,
    body_of,
    cursor_of,
    database,
    from_cursor,
    idempotency_key,
    next_link,
    parse,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, responses

router = APIRouter(tags=["intake"])

GEOJSON = "application/geo+json"
_EXACT = ("operator", "partner", "field", "auditor", "admin")
_PROTECTED = ("operator", "field", "auditor", "admin")


def sees_exact(actor: Actor, sensitivity: str | None = None) -> bool:
    """Whether somebody sees an incident as it is; the public sees it coarse, and a partner what is protected."""
    return actor.role in (_EXACT if sensitivity is None else _PROTECTED)


def feature(row: Incident, *, exact: bool) -> dict[str, Any]:
    """An incident as a GeoJSON feature. What is protected is told to those who may not see it exactly without a count,
    a hazard, or which class it is: to name that could be the harm itself."""
    if not exact and row["sensitivity"] is not None:
        return _veiled(row)
    point = (row["lon"], row["lat"]) if row["lon"] is not None else None
    properties = {
        "id": str(row["incident_id"]),
        "title": row["title"] if exact else domain.coarse_title(row["hazard"], domain.coarse_area(row["admin"])),
        "hazard": row["hazard"],
        "severity": row["severity"],
        "status": row["status"],
        "evidence": row["evidence"],
        "reports": _count(row["reports"], exact=exact),
        "people": {name: _count(row["people"].get(name), exact=exact) for name in domain.PEOPLE},
        "damage": {name: _count(row["damage"].get(name), exact=exact) for name in domain.DAMAGE},
        "opened_at": _time(row["opened_at"]),
        "updated_at": _time(row["updated_at"]),
        "admin": row["admin"] if exact else domain.coarse_area(row["admin"]),
        "operation": row["operation"],
        "exercise": row["exercise"],
        "priority": row["priority"],
        "water_depth_cm": row["water_depth_cm"],
    }
    if exact:
        properties |= {
            "place": row["place"],
            "priority_reasons": [
                {"cause": cause, "found": found, "points": points} for cause, found, points in row["reasons"]
            ],
            "attend_by": _time(row["attend_by"]),
            "attended_at": _time(row["attended_at"]),
            "overdue": row["overdue_at"] is not None and row["attended_at"] is None,
            "evidence_by_fact": row["facts"],
            "disputed": list(row["disputed"]),
            "sensitivity": row["sensitivity"],
            "sensitivity_by": "operator" if row["sensitivity_set"] else "rule",
            "persons": row["persons"],
            "vulnerable": list(row["vulnerable"]),
            "exercise_suggested": row["exercise_suggested"],
            "first_observed_at": _time(row["first_observed_at"]),
            "last_observed_at": _time(row["last_observed_at"]),
        }
    if row["closed_at"] is not None:
        properties["closed_at"] = _time(row["closed_at"])
    if row["merged_into"] is not None:
        properties["merged_into"] = str(row["merged_into"])
    shown = point if exact or point is None else domain.coarse_point(*point)
    return {
        "type": "Feature",
        "id": str(row["incident_id"]),
        "geometry": {"type": "Point", "coordinates": list(shown)} if shown else None,
        "properties": properties,
    }


def _veiled(row: Incident) -> dict[str, Any]:
    """What is told of a protected incident to those who may not know more: that there is one, about where and when."""
    point = [row["public_lon"], row["public_lat"]] if row["public_lon"] is not None else None
    properties = {
        "id": str(row["incident_id"]),
        "title": domain.coarse_title(None, domain.coarse_area(row["admin"])),
        "hazard": None,
        "severity": row["severity"],
        "status": row["status"],
        "evidence": row["evidence"],
        "reports": None,
        "people": dict.fromkeys(domain.PEOPLE),
        "damage": dict.fromkeys(domain.DAMAGE),
        "opened_at": _day(row["opened_at"]),
        "updated_at": _day(row["updated_at"]),
        "admin": domain.coarse_area(row["admin"]),
        "operation": row["operation"],
        "exercise": row["exercise"],
        "priority": None,
        "water_depth_cm": None,
    }
    return {
        "type": "Feature",
        "id": str(row["incident_id"]),
        "geometry": {"type": "Point", "coordinates": point} if point else None,
        "properties": properties,
    }


def _day(at: datetime) -> str:
    return at.replace(hour=0, minute=0, second=0, microsecond=0).isoformat()


def _count(count: int | None, *, exact: bool) -> int | str | None:
    return count if exact or count is None else domain.band(count)


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def geojson(document: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(document), status, media_type=GEOJSON)


def read_bbox(bbox: str | None) -> tuple[float, float, float, float] | None:
    """`west,south,east,north`.

    Raises
    ------
    Invalid
        It is none.
    """
    if bbox is None:
        return None
    try:
        west, south, east, north = (float(part) for part in bbox.split(","))
        good = all(-180 <= lon <= 180 for lon in (west, east)) and -90 <= south <= north <= 90
    except ValueError:
        good = False
    if not good:
        raise Invalid("bbox is west,south,east,north in degrees", [Fault("query/bbox", "four numbers with commas")])
    return west, south, east, north


@router.get("/v1/incidents", responses=responses(), response_class=Response)
async def get_incidents(
    request: Request,
    actor: Caller,
    bbox: str | None = None,
    hazard: Word | None = None,
    status: Literal["open", "closed", "merged"] | None = None,
    severity: Annotated[int | None, Query(ge=1, le=4, description="at least this severe")] = None,
    since: Instant | None = None,
    operation: Word | None = None,
    exercise: bool | None = None,
    overdue: bool | None = None,
    sort: Literal["newest", "priority"] = "newest",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> Response:
    """Incidents, newest first, or the most urgent first with `sort=priority`. Without `status` those that are not
    merged, without `operation` those of all live operations and no exercise. `overdue`: nobody has looked at it in
    time. The public sees the middle of a cell of about 5 km² and people in bands; of what is protected only that there
    is something, in a cell of about 250 km², and so do partners."""
    box = read_bbox(bbox)
    before_priority, before = _place_of(cursor, sort)
    exact = sees_exact(actor)
    protected = sees_exact(actor, "any")
    # What somebody may only see coarse is also found by its coarse place only, and not by what is hidden of it.
    seen = "true" if protected else "i.sensitivity IS NULL" if exact else "false"
    lon, lat = (f"CASE WHEN {seen} THEN i.{axis} ELSE i.public_{axis} END" for axis in ("lon", "lat"))
    async with database(request, "intake").tx() as tx:
        rows = await tx.fetch(
            f"""
            SELECT i.* FROM incident i LEFT JOIN operation o USING (operation)
            WHERE ($1::uuid IS NULL OR CASE WHEN $14::int IS NULL THEN i.incident_id < $1
                    ELSE (i.priority, i.incident_id) < ($14, $1) END)
              AND ($2::text IS NULL OR (i.hazard = $2 AND ($15 OR i.sensitivity IS NULL)))
              AND (CASE WHEN $3::text IS NULL THEN i.status <> 'merged' ELSE i.status = $3 END)
              AND ($4::int IS NULL OR i.severity >= $4)
              AND ($5::timestamptz IS NULL OR i.updated_at >= $5)
              AND ($6::text IS NULL OR i.operation = $6)
              AND ($7::text[] IS NULL OR i.operation = ANY($7))
              AND (CASE WHEN $8::boolean IS NULL THEN $6 IS NOT NULL OR NOT i.exercise ELSE i.exercise = $8 END)
              AND ($6 IS NOT NULL OR o.closed_at IS NULL)
              AND ($16::boolean IS NULL OR $16 = (i.overdue_at IS NOT NULL AND i.attended_at IS NULL))
              AND ($9::float8 IS NULL OR ({lat} BETWEEN $10 AND $12 AND CASE WHEN $9 <= $11::float8
                    THEN {lon} BETWEEN $9 AND $11 ELSE {lon} >= $9 OR {lon} <= $11 END))
            ORDER BY {"i.priority DESC," if sort == "priority" else ""} i.incident_id DESC LIMIT $13
            """,
            before,
            hazard,
            status,
            severity,
            since,
            operation,
            (list(actor.operations) or None) if exact else None,
            exercise,
            *(box or (None, None, None, None)),
            limit + 1,
            before_priority,
            protected,
            overdue,
        )
    more = len(rows) > limit
    rows = rows[:limit]
    last = [str(rows[-1]["incident_id"])] if rows else []
    if rows and sort == "priority":
        last.insert(0, rows[-1]["priority"])
    return geojson(
        {
            "type": "FeatureCollection",
            "features": [feature(as_incident(row), exact=sees_exact(actor, row["sensitivity"])) for row in rows],
            "links": next_link(request, cursor_of(last) if more else None),
        }
    )


def _place_of(cursor: str | None, sort: str) -> tuple[int | None, UUID | None]:
    """Where the page begins: the priority, if the list goes by that, and the id of the incident before it."""
    values = from_cursor(cursor, 2 if sort == "priority" else 1)
    if values is None:
        return None, None
    priority = values[0] if sort == "priority" else None
    try:
        if priority is not None and (not isinstance(priority, int) or not 0 <= priority <= 100):
            raise ValueError("no priority")
        return priority, UUID(str(values[-1]))
    except ValueError:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")]) from None


@router.get("/v1/incidents/{incident_id}", responses=responses(NotFound), response_class=Response)
async def get_incident(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """One incident: its reports with the score of each link, evidence by fact, needs, history; `merged_into`. `version`
    goes into the `If-Match` of a correction."""
    async with database(request, "intake").tx() as tx:
        row = await incidents.incident_row(tx, incident_id)
        if row is None:
            raise NotFound("there is no such incident")
        exact = sees_exact(actor, row["sensitivity"]) and actor.may_see(row["operation"])
        return geojson(await _whole(tx, row, exact=exact))


async def _whole(tx: Tx, row: Incident, *, exact: bool) -> dict[str, Any]:
    """The incident with everything around it; the public gets the coarse incident and its needs in numbers."""
    document = feature(row, exact=exact)
    properties = document["properties"]
    incident_id = row["incident_id"]
    properties["merged_into"] = str(row["merged_into"]) if row["merged_into"] else None
    needs = await tx.fetch(
        api_needs.SELECT_NEEDS + " WHERE n.incident_id = $1 ORDER BY n.need_id LIMIT 500", incident_id
    )
    if not exact:
        properties["needs"] = (
            []
            if row["sensitivity"] is not None
            else [
                {name: need[name] for name in ("item", "skill", "unit", "status")}
                | {"quantity": _count(need["quantity"], exact=exact)}
                for need in map(api_needs.need_json, needs)
                if need["status"] == "declared"
            ]
        )
        return document
    reports = await tx.fetch("SELECT * FROM report WHERE incident_id = $1 ORDER BY seq DESC LIMIT 200", incident_id)
    properties |= {
        "linked_reports": [report_json(report) for report in reversed(reports)],
        "facts": {name: _fact_json(fact) for name, fact in (await incidents.facts_of(tx, row)).items()},
        "needs": [api_needs.need_json(need) for need in needs],
        "history": await _history(tx, incident_id),
        "version": await versions.version_of(tx, versions.INCIDENTS, str(incident_id)),
    }  # fmt: skip
    return document


def _fact_json(fact: Fact) -> dict[str, Any]:
    """A fact as it counts, and beside it everything that was said of it: what contradicts it is not hidden."""
    shown: dict[str, Any] = {
        "value": fact.value,
        "evidence": fact.evidence,
        "disputed": fact.disputed,
        "claims": [
            {
                "value": claim.value,
                "report_id": str(claim.report_id),
                "source": claim.source,
                "official": claim.official,
                "adds_evidence": claim.voice is not None or claim.official,
                "observed_at": _time(claim.observed_at),
                "received_at": _time(claim.received_at),
            }
            for claim in fact.claims
        ],
    }
    if fact.vouched is not None:
        shown["vouched"] = {
            "value": fact.vouched.value,
            "evidence": fact.vouched.evidence,
            "by": fact.vouched.by,
            "reason": fact.vouched.reason,
            "at": _time(fact.vouched.at),
        }
    return shown


_STEP = ("by", "reason", "changed", "reports", "evidence", "status")


async def _history(tx: Tx, incident_id: UUID) -> list[dict[str, Any]]:
    """What happened to the incident and why, oldest first, the newest 100 steps: from the journal, and from the
    outbox what is not there yet."""
    rows = await tx.fetch(
        """
        SELECT * FROM (
            SELECT sequence, time, type, payload FROM journal WHERE topic = 'gotong.incidents.v1' AND subject = $1
            UNION ALL
            SELECT sequence, time, type, payload FROM outbox WHERE topic = 'gotong.incidents.v1' AND subject = $1
        ) AS step ORDER BY sequence DESC LIMIT 100
        """,
        str(incident_id),
    )
    steps = []
    for row in reversed(rows):
        step: dict[str, Any] = {"time": _time(row["time"]), "what": row["type"].split(".")[2]}
        told = from_json(row["payload"]) if row["payload"] else {}  # a redacted step keeps its place and time
        step |= {name: told[name] for name in _STEP if name in told}
        steps.append(step)
    return steps


def report_json(row: Row | Mapping[str, Any]) -> dict[str, Any]:
    """A report as operators see it: masked, with how it was linked."""
    location = {name: row[name] for name in ("lon", "lat", "accuracy_m", "place", "admin") if row[name] is not None}
    parsed = {
        name: from_json(row[name]) if isinstance(row[name], str) else row[name]
        for name in ("people", "damage", "needs", "media", "parts", "read_needs", "reading")
    }
    reading = parsed["reading"] or {}
    if row["state"] in ("held", "unplaced"):  # it is read when it is linked; whoever looks at it now wants to know
        reading = stored(reader().read("\n".join(part for part in (row["title"], row["text"]) if part)))
    return {
        "report_id": str(row["report_id"]),
        "state": row["state"],
        "operation": row["operation"],
        "named_operation": row["named_operation"],
        "exercise": row["exercise"],
        "title": row["title"],
        "text": row["text"],
        "location": location or None,
        "needs_place": row["lon"] is None and row["admin"] is None,
        "hazard": row["hazard"],
        "severity": row["severity"],
        "observed_at": _time(row["observed_at"]),
        "stated_at": _time(row["stated_at"]),
        "received_at": _time(row["received_at"]),
        "people": parsed["people"],
        "damage": parsed["damage"],
        "needs": parsed["needs"],
        "read_needs": parsed["read_needs"],
        "media": parsed["media"],
        "reporter_kind": row["reporter_kind"],
        "language": row["language"],
        "origin": row["origin"],
        "external_id": row["external_id"],
        "external_url": row["external_url"],
        "bulk": row["bulk"],
        "sensitivity": row["sensitivity"],
        "overdue": row["overdue"] == row["state"],
        "reading": reading,
        "exercise_suggested": "drill" in reading and not row["exercise"],
        "incident_id": str(row["incident_id"]) if row["incident_id"] else None,
        "score": row["score"],
        "parts": parsed["parts"],
        "copy_of": str(row["copy_of"]) if row["copy_of"] else None,
        "suggested": str(row["suggested"]) if row["suggested"] else None,
        "linked_at": _time(row["linked_at"]),
        "linked_by": row["linked_by"],
    }


# Corrections


Correction = Callable[[Tx], Awaitable[Incident]]


async def _correct(
    request: Request,
    actor: Actor,
    incident_id: UUID,
    what: str,
    body: bytes,
    correction: Correction,
    *,
    and_operation: str | None = None,
    made: Sequence[UUID] = (),
) -> Response:
    """Do a correction once and answer with the incident, if the token covers its operation and nobody decided on the
    incident since the version in If-Match. `and_operation` is locked beside its own; `made`, where the correction put
    an incident into it, names that one in the answer."""
    version = versions.asked_version(request)

    async def work(tx: Tx) -> Answer:
        operation = await tx.fetchval("SELECT operation FROM incident WHERE incident_id = $1", incident_id)
        if operation is None:
            raise NotFound("there is no such incident")
        actor.require_operation(operation)
        if version is not None:
            await incidents.lock_incident(tx, incident_id, and_operation=and_operation)
            await versions.require_version(tx, versions.INCIDENTS, str(incident_id), version)
        incident = await correction(tx)
        actor.require_operation(incident["operation"])
        document = await _whole(tx, incident, exact=True)
        if made:
            document["properties"]["made"] = str(made[0])
        return 200, document

    key = idempotency_key(request, actor)
    answer = await write_once(
        database(request, "intake"), actor, key, body, f"POST /v1/incidents/{incident_id}/{what}", work
    )
    return Response(answer.body, answer.status_code, media_type=GEOJSON)


def _correction(path: str, model: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return router.post(
        f"/v1/incidents/{{incident_id}}/{path}",
        responses=responses(NotFound, Conflict, versions.Stale),
        openapi_extra=takes(model) | {"parameters": [versions.IF_MATCH]},
        response_class=Response,
    )


@_correction("merge", MergeIn)
async def merge(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Put all of an incident into another; answers with the other."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, MergeIn)

    async def correction(tx: Tx) -> Incident:
        return await corrections.merge(tx, incident_id, order.into, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "merge", body, correction)


@_correction("split", SplitIn)
async def split(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Make a new incident of some of the reports; answers with the old one. The new one is `made`."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, SplitIn)

    made: list[UUID] = []

    async def correction(tx: Tx) -> Incident:
        incident, new = await corrections.split(tx, incident_id, order.reports, by=actor.name, reason=order.reason)
        made[:] = [new]
        return incident

    return await _correct(request, actor, incident_id, "split", body, correction, made=made)


@_correction("link", ReportLinkIn)
async def link(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Put a report into this incident, out of the one it is in."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ReportLinkIn)

    async def correction(tx: Tx) -> Incident:
        return await corrections.link(tx, incident_id, order.report, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "link", body, correction)


@_correction("unlink", ReportLinkIn)
async def unlink(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Take a report out of this incident; with a place it becomes an incident of its own."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ReportLinkIn)

    async def correction(tx: Tx) -> Incident:
        return await corrections.unlink(tx, incident_id, order.report, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "unlink", body, correction)


@_correction("verify", VerifyIn)
async def verify(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Vouch for an incident or for one fact of it; field staff up to `field_checked`."""
    actor.require("operator", "field")
    body = await body_of(request)
    order = parse(body, VerifyIn)
    if order.evidence == "official":
        actor.require("operator")

    async def correction(tx: Tx) -> Incident:
        return await corrections.verify(
            tx, incident_id, order.evidence, order.fact, order.found, by=actor.name, reason=order.reason
        )

    return await _correct(request, actor, incident_id, "verify", body, correction)


@_correction("protect", ProtectIn)
async def protect(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Set the protected class of an incident, or null for none. From then on no rule changes it; its needs bear it
    too, and the public and partners see the incident coarse."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ProtectIn)

    async def correction(tx: Tx) -> Incident:
        return await corrections.protect(tx, incident_id, order.sensitivity, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "protect", body, correction)


@_correction("move", MoveIn)
async def move(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Give an incident with its reports and needs to another operation."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, MoveIn)
    actor.require_operation(order.operation)

    async def correction(tx: Tx) -> Incident:
        return await corrections.move(tx, incident_id, order.operation, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "move", body, correction, and_operation=order.operation)


@_correction("close", CloseIn)
async def close(request: Request, actor: Caller, incident_id: UUID) -> Response:
    """Close an incident."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, CloseIn)

    async def correction(tx: Tx) -> Incident:
        return await corrections.close(tx, incident_id, by=actor.name, reason=order.reason)

    return await _correct(request, actor, incident_id, "close", body, correction)
