"""HTTP of intake: reports and tickets here; incidents and needs in files of their own beside this one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import ValidationError

from schemas.reports import ReportPlaced
from services.intake import api_conversations, api_incidents, api_media, api_needs, api_warnings, domain, hooks
from services.intake.actions import (
    LINKER_CHANNEL,
    Draft,
    Taken,
    draft_of,
    exercise_of,
    mask,
    operations,
    sender_of,
    take_reports,
)
from services.intake.bodies import PlacingIn, ReportIn, TicketConfirmIn, Word
from services.intake.incidents import leave, lock_report, refresh
from services.intake.media_writes import with_photos
from services.intake.need_writes import confirm
from services.intake.rates import rates_of
from services.intake.tickets import by_ticket, ticket_told, to_confirm
from services.intake.together import Together
from services.intake.transcripts import transcribe
from services.runtime import outbox
from services.runtime.auth import Actor, Caller, caller
from services.runtime.cloudevents import Malformed, parse_json
from services.runtime.db import Tx
from services.runtime.http import (
    Answer,
    KeyClaim,
    body_of,
    cursor_of,
    database,
    from_cursor,
    hostile_place,
    idempotency_key,
    json_answer,
    next_link,
    parse,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import (
    Conflict,
    Fault,
    Invalid,
    NotFound,
    NotKnownYet,
    TooLarge,
    TooMany,
    faults_of,
    responses,
)

router = APIRouter()
_reports = APIRouter(tags=["intake"])

MOST_ROWS = 5000
MOST_BATCH_BYTES = 32 * 1024 * 1024
_BATCH_TIMEOUT_S = 25
_AT_ONCE = 500


def together_of(request: Request) -> Together:
    """Where this web process gathers single reports."""
    state = request.app.state
    if not hasattr(state, "intake_together"):
        state.intake_together = Together(database(request, "intake"))
    together: Together = state.intake_together
    return together


# Reports


@_reports.post(
    "/v1/reports",
    status_code=202,
    responses=responses(Conflict, TooLarge, TooMany),
    openapi_extra=takes(ReportIn),
)
async def post_report(request: Request) -> Response:
    """Take a report from anyone. Without a place it is still taken, and one is asked for by `needs_place`."""
    actor = await caller(request)  # asked here: what solves a route's parameters costs as much as reading the report
    rates = rates_of(request)
    over = rates.admit(actor)
    body = await body_of(request)
    rates.weigh(actor, len(body))
    key = idempotency_key(request, actor)
    report = parse(body, ReportIn)
    draft = _draft(actor, report, key=(_owner(actor), key) if key else None)
    if report.media:
        [draft] = await with_photos(database(request, "intake"), [draft], [report])
    over = rates.bulk(actor, draft.contact) or over
    if over:
        draft = dataclasses.replace(draft, bulk=True)
    what = "POST /v1/reports"
    taken = await together_of(request).take(draft, KeyClaim.of(actor, key, body, what) if key else None)
    if taken is not None:
        return json_answer(202, orjson.dumps(taken.answer()))

    async def work(tx: Tx) -> Answer:
        return 202, (await take_reports(tx, [draft]))[0].answer()

    return await write_once(database(request, "intake"), actor, key, body, what, work)


def _owner(actor: Actor) -> str:
    return "public" if actor.anonymous else actor.name


def _draft(actor: Actor, report: ReportIn, key: tuple[str, ...] | None) -> Draft:
    try:
        return draft_of(report, sender_of(actor, report.source), key=key)
    except ValueError as error:
        raise Invalid(f"/hazard: {error}", [Fault("/hazard", str(error))]) from None


@_reports.post(
    "/v1/reports:batch",
    status_code=207,
    responses=responses(Conflict, TooLarge),
    openapi_extra=takes(ReportIn, batch=True),
)
async def post_reports(request: Request, actor: Caller) -> Response:
    """Take up to 5,000 reports, a JSON array or one object a line (NDJSON). One bad row costs no other; the good ones
    are stored together or, when the database fails, not at all."""
    actor.require("field", "partner", "operator")
    body = await body_of(request, MOST_BATCH_BYTES)
    key = idempotency_key(request, actor)
    rows = _batch_rows(body, request.headers.get("content-type", ""))
    if len(rows) > MOST_ROWS:
        raise Invalid(f"{len(rows)} rows came; at most {MOST_ROWS} are taken at once", [Fault("", "too many rows")])
    drafts: list[Draft] = []
    reports: list[ReportIn] = []
    places: list[int] = []
    errors: dict[int, dict[str, Any]] = {}
    for n, row in enumerate(rows):
        if n % 200 == 199:
            await asyncio.sleep(0)  # a big file must not hold up everybody else's requests
        try:
            report = _report_of(row)
            drafts.append(_draft(actor, report, key=(_owner(actor), key, str(n)) if key else None))
            reports.append(report)
            places.append(n)
        except Invalid as error:
            errors[n] = {
                "detail": error.detail,
                "errors": [{"pointer": f.pointer, "detail": f.detail} for f in error.faults],
            }
    drafts = await with_photos(database(request, "intake"), drafts, reports)

    async def work(tx: Tx) -> Answer:
        taken: list[Taken] = []
        for start in range(0, len(drafts), _AT_ONCE):
            taken += await take_reports(tx, drafts[start : start + _AT_ONCE])
        return 207, _batch_answer(len(rows), dict(zip(places, taken, strict=True)), errors)

    return await write_once(
        database(request, "intake"), actor, key, body, "POST /v1/reports:batch", work, timeout_s=_BATCH_TIMEOUT_S
    )


def _batch_answer(count: int, taken: dict[int, Taken], errors: dict[int, dict[str, Any]]) -> dict[str, Any]:
    results: list[dict[str, Any]] = []
    for n in range(count):
        if n in errors:
            results.append({"index": n, "error": errors[n]})
        else:
            report = taken[n]
            results.append(
                {
                    "index": n,
                    "report_id": str(report.report_id),
                    "ticket": report.ticket,
                    "needs_place": report.needs_place,
                    **({"repeated": True} if report.repeated else {}),
                }
            )
    repeated = sum(report.repeated for report in taken.values())
    return {
        "accepted": len(taken) - repeated,
        "rejected": len(errors),
        "repeated": repeated,
        "results": results,
    }


def _batch_rows(body: bytes, content_type: str) -> list[Any]:
    """The rows of a batch, each still unjudged; a line that is no JSON stands as its fault.

    Raises
    ------
    Invalid
        It is neither a JSON array nor lines of JSON.
    """
    text = body.strip()
    if text.startswith(b"[") and "ndjson" not in content_type and "jsonl" not in content_type:
        rows = _lenient(text)
        if not isinstance(rows, list):
            raise Invalid("the body is no JSON array", [Fault("", "expected a JSON array")])
        return rows
    lines = [line for line in text.split(b"\n") if line.strip()]
    if not lines:
        raise Invalid("the body is empty", [Fault("", "expected a JSON array or one object a line")])
    rows = []
    for line in lines:
        try:
            rows.append(_lenient(line))
        except Invalid as error:
            rows.append(error)
    return rows


def _lenient(text: bytes) -> Any:
    """JSON that may hold what only one of its rows is to blame for: half a surrogate pair, NaN, deep nesting."""
    try:
        return parse_json(text)
    except Malformed as error:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            raise Invalid(error.reason, [Fault("", error.reason)]) from None


def _report_of(row: Any) -> ReportIn:
    if isinstance(row, Invalid):
        raise row
    if not isinstance(row, dict):
        raise Invalid("a report is a JSON object", [Fault("", "expected a JSON object")])
    fault = hostile_place(row)
    if fault is not None:
        raise Invalid(f"{fault.pointer or 'report'}: {fault.detail}", [fault])
    try:
        return ReportIn.model_validate(row)
    except ValidationError as error:
        faults = faults_of(error)
        raise Invalid(f"{faults[0].pointer or 'report'}: {faults[0].detail}", faults) from None


@_reports.get("/v1/reports", responses=responses())
async def get_reports(
    request: Request,
    actor: Caller,
    unplaced: str | None = None,
    untranscribed: str | None = None,
    operation: Word | None = None,
    incident: UUID | None = None,
    exercise: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: str | None = None,
) -> Response:
    """Reports, newest first, masked. `unplaced`: only those that wait for a place; `untranscribed`: only photographs
    and voice notes that nobody has put into words; without `operation`, those of all live operations and no
    exercise."""
    actor.require("operator", "auditor")
    before = _sequence(from_cursor(cursor, 1))
    only_unplaced, only_untranscribed = _asked(unplaced), _asked(untranscribed)
    async with database(request, "intake").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT r.* FROM report r LEFT JOIN operation o USING (operation)
            WHERE ($1::bigint IS NULL OR r.seq < $1)
              AND (NOT $2 OR r.state = 'unplaced')
              AND (NOT $8 OR (r.text IS NULL AND r.title IS NULL AND r.media IS NOT NULL))
              AND ($3::text IS NULL OR r.operation = $3)
              AND ($4::uuid IS NULL OR r.incident_id = $4)
              AND ($5::text[] IS NULL OR r.operation = ANY($5))
              AND ($3 IS NOT NULL OR $4 IS NOT NULL
                   OR (r.exercise = coalesce($6, false) AND o.closed_at IS NULL))
            ORDER BY r.seq DESC LIMIT $7
            """,
            before,
            only_unplaced,
            operation,
            incident,
            list(actor.operations) or None,
            exercise,
            limit + 1,
            only_untranscribed,
        )
    more = len(rows) > limit
    rows = rows[:limit]
    links = next_link(request, cursor_of([rows[-1]["seq"]]) if more else None)
    return json_answer(200, orjson.dumps({"reports": [api_incidents.report_json(row) for row in rows], "links": links}))


def _asked(flag: str | None) -> bool:
    """Whether a flag was set: `?unplaced` alone sets it, too."""
    return flag is not None and flag.lower() not in ("false", "0", "no")


def _sequence(cursor: list[Any] | None) -> int | None:
    if cursor is None:
        return None
    [value] = cursor
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")])
    return value


@_reports.patch("/v1/reports/{report_id}", responses=responses(NotFound, Conflict), openapi_extra=takes(PlacingIn))
async def patch_report(request: Request, actor: Caller, report_id: UUID) -> Response:
    """Place a report, or move it to another operation; it is linked anew where it goes. Or put into words what a
    photograph or voice note shows or says: a report with words of its own keeps them."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, PlacingIn)

    async def work(tx: Tx) -> Answer:
        return 200, await _place(tx, actor, report_id, order)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, f"PATCH /v1/reports/{report_id}", work)


async def _place(tx: Tx, actor: Actor, report_id: UUID, order: PlacingIn) -> dict[str, Any]:
    known = await operations(tx)
    if order.operation is not None:
        actor.require_operation(order.operation)
        named = domain.named_operation(order.operation, known)
        if named is None:
            raise NotKnownYet(f"there is no operation {order.operation}")
        if not named:
            raise Conflict(f"the operation {order.operation} is closed")
    report = await lock_report(tx, report_id, and_operation=order.operation)
    if report["state"] == "held":
        raise Conflict("the report waits for the operation that it names; try again in a minute")
    actor.require_operation(report["operation"])
    if order.transcript is not None:
        await transcribe(tx, report_id, order.transcript, by=actor.name, reason=order.reason)
        if order.location is None and order.operation is None:
            return api_incidents.report_json(await lock_report(tx, report_id))
    target = order.operation or report["operation"]
    moved = target != report["operation"]
    where = order.location
    touched: list[UUID] = []
    if moved and report["incident_id"] is not None:
        left = report["incident_id"]
        others = await tx.fetchval(
            "SELECT count(*) FROM report WHERE incident_id = $1 AND report_id <> $2", left, report_id
        )
        if not others:
            raise Conflict("this is the incident's only report; move the incident")
        await leave(tx, report, by=actor.name, reason=order.reason)
        touched.append(left)
    if where is not None:
        place = mask(where.place, None)[0] if where.place else report["place"]
        await tx.execute(
            "UPDATE report SET lon = $2, lat = $3, accuracy_m = $4, place = $5, admin = $6 WHERE report_id = $1",
            report_id, where.lon, where.lat, where.accuracy_m, place, where.admin,
        )  # fmt: skip
    exercise = exercise_of(target, known)
    still_linked = report["incident_id"] is not None and not moved
    if still_linked:
        await tx.execute(
            "INSERT INTO link_change (operation, kind, report_id, incident_id) VALUES ($1, 'add', $2, $3)",
            target, report_id, report["incident_id"],
        )  # fmt: skip
        touched.append(report["incident_id"])
    else:
        await tx.execute(
            "UPDATE report SET operation = $2, exercise = $3, "
            "state = CASE WHEN lon IS NULL AND admin IS NULL THEN 'unplaced' ELSE 'waiting' END WHERE report_id = $1",
            report_id, target, exercise,
        )  # fmt: skip
    row = await tx.fetchrow("SELECT * FROM report WHERE report_id = $1", report_id)
    assert row is not None
    placed = {name: row[name] for name in ("lon", "lat", "accuracy_m", "place", "admin") if row[name] is not None}
    event = ReportPlaced(
        report_id=report_id, operation=target, exercise=exercise, sensitivity=row["sensitivity"],
        location=placed or None, by=actor.name, reason=order.reason,
    )  # fmt: skip
    await outbox.append(tx, [event])
    await refresh(tx, touched, by=actor.name, reason=order.reason)
    await tx.notify(LINKER_CHANNEL)
    return api_incidents.report_json(row)


# Tickets


@_reports.get("/v1/tickets/{ticket}", responses=responses(NotFound))
async def get_ticket(request: Request, ticket: str, lang: str | None = None) -> Response:
    """What became of a report, for whoever holds its ticket. Texts in the report's language, or `lang`; both beside."""
    async with database(request, "intake").tx() as tx:
        report = await by_ticket(tx, ticket)
        answer = await ticket_told(
            tx, report, lang or request.headers.get("accept-language", "")[:2] or report["language"]
        )
    return json_answer(200, orjson.dumps(answer))


@_reports.post(
    "/v1/tickets/{ticket}/confirm",
    responses=responses(NotFound, Conflict),
    openapi_extra=takes(TicketConfirmIn),
)
async def confirm_by_ticket(request: Request, actor: Caller, ticket: str) -> Response:
    """Say whether help arrived. Without `need_id`, of everything delivered that the report asked for, or else that its
    incident needed."""
    body = await body_of(request)
    order = parse(body, TicketConfirmIn)

    async def work(tx: Tx) -> Answer:
        report = await by_ticket(tx, ticket)
        needs = await to_confirm(tx, report, order.need_id)
        await confirm(
            tx, needs, received=order.received, quantity=order.quantity, by=f"ticket:{report['report_id']}", reason=None
        )
        return 200, await ticket_told(tx, report, report["language"])

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, f"POST /v1/tickets/{ticket}/confirm", work)


router.include_router(_reports)
router.include_router(api_incidents.router)
router.include_router(api_needs.router)
router.include_router(api_warnings.router)
router.include_router(api_media.router)
router.include_router(hooks.router)
router.include_router(api_conversations.router)
