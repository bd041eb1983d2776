"""Taking reports: the one write that HTTP and a partner's submission both cause, and what follows for held ones."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.reports import ReportReceived
from schemas.values import STANDING
from services.intake import domain, masking
from services.intake.bodies import PlaceIn, ReportIn, hazard_code
from services.intake.places import with_area
from services.intake.sensitivity import sensitivity_of
from services.runtime import clock, outbox, vault
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.ids import derived, uuid7

LINKER_CHANNEL = "intake_linker"
TEXT_BYTES = 16 * 1024
"""So much of a report's text an event carries."""
_EVENT_BYTES = 30 * 1024
_PROVEN = ("field", "operator", "partner", "admin")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sends a report. `origin` is what stands in events; `scope` keeps one sender's numbering from another's;
    `voice` is whose word it is where the report names no contact; `foreign`: may send words of foreign files."""

    origin: str
    scope: tuple[str, ...]
    proven: bool
    organisation: str | None = None
    voice: str | None = None
    foreign: bool = False


def sender_of(actor: Actor, source: str | None) -> Sender:
    """The sender of a report over HTTP. `source` counts only for those who may speak for it."""
    if actor.anonymous:
        return Sender("/public", (actor.name,), False)
    if actor.role == "partner":
        own = f"/partners/{actor.organisation or actor.subject}"
        may = source is not None and (source == own or source.startswith(own + "/"))
        return Sender(source if may and source else own, (), True, actor.organisation, f"org:{own}", True)
    own = f"/{actor.role}/{actor.organisation or actor.subject}"
    voice = f"org:/partners/{actor.organisation}" if actor.organisation else f"by:{actor.name}"
    if actor.role in _PROVEN:
        return Sender(source or own, (), True, actor.organisation, voice, True)
    return Sender(own, (actor.name,), False, actor.organisation, f"by:{actor.name}")


@dataclass(frozen=True, slots=True)
class Draft:
    """A report that may be taken, read and judged as far as that needs no database."""

    report_id: UUID
    report: ReportIn
    sender: Sender
    hazard: str | None
    contact: str | None
    bulk: bool = False
    heard_at: datetime | None = None


def draft_of(
    report: ReportIn, sender: Sender, *, key: tuple[str, ...] | None = None, heard_at: datetime | None = None
) -> Draft:
    """A report ready to be taken. Its id comes from its sender and `external_id`, else from the sender's `key`
    (Idempotency-Key), else it is new. One with a place name alone is in the area that the name surely means.
    `heard_at`: when it reached us, if that was before now.

    Raises
    ------
    ValueError
        The hazard is no word that is taken from this sender.
    """
    if report.external_id is not None:
        report_id = derived("report", sender.origin, *sender.scope, report.external_id)
    elif key is not None:
        report_id = derived("report by key", *key)
    else:
        report_id = uuid7()
    hazard = hazard_code(report.hazard, foreign=sender.foreign)
    located = with_area(report.location)
    if located is not report.location:
        report = report.model_copy(update={"location": located})
    return Draft(report_id, report, sender, hazard, contact_of(report), heard_at=heard_at)


def contact_of(report: ReportIn) -> str | None:
    """The contact id of whoever reports; None without a number, or with one that cannot be dialled."""
    phone = report.reporter.phone if report.reporter else None
    if not phone:
        return None
    try:
        return vault.contact_id(vault.normal_number(phone))
    except vault.NotANumber:
        return None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a report that was sent."""

    report_id: UUID
    ticket: str
    needs_place: bool
    repeated: bool

    def answer(self) -> dict[str, Any]:
        return {
            "report_id": str(self.report_id),
            "ticket": self.ticket,
            "status_url": f"/v1/tickets/{self.ticket}",
            "needs_place": self.needs_place,
            **({"repeated": True} if self.repeated else {}),
        }


async def operations(tx: Tx) -> dict[str, domain.Operation]:
    """Every operation that the registry told of."""
    return {
        row["operation"]: domain.Operation(
            row["operation"], row["exercise"], tuple(row["hazards"]), tuple(row["areas"]),
            tuple(row["bbox"]) if row["bbox"] else None, row["timezone"], row["opened_at"], row["closed_at"],
        )
        for row in await tx.fetch("SELECT * FROM operation")
    }  # fmt: skip


def exercise_of(operation: str, known: Mapping[str, domain.Operation]) -> bool:
    """Whether an operation is a drill; `standing` never is."""
    return operation != STANDING and operation in known and known[operation].exercise


_COLUMNS = {
    "report_id": "uuid", "ticket": "text", "state": "text", "named_operation": "text", "operation": "text",
    "exercise": "boolean", "origin": "text", "external_id": "text", "external_url": "text", "title": "text",
    "text": "text", "link_text": "text", "sealed": "bytea", "sealed_for": "text", "contact": "text", "voice": "text",
    "organisation": "text", "proven": "boolean", "official": "boolean", "reporter_kind": "text", "language": "text",
    "hazard": "text", "severity": "smallint", "lon": "float8", "lat": "float8", "accuracy_m": "float8",
    "place": "text", "admin": "text", "observed_at": "timestamptz", "stated_at": "timestamptz",
    "received_at": "timestamptz", "people": "jsonb", "damage": "jsonb", "needs": "jsonb", "media": "jsonb",
    "bulk": "boolean", "sensitivity": "text",
}  # fmt: skip
_JSON = ("people", "damage", "needs", "media")
_INSERT = f"""
    WITH put AS (
    INSERT INTO report ({", ".join(_COLUMNS)})
    SELECT {", ".join(f"{name}::jsonb" if kind == "jsonb" else name for name, kind in _COLUMNS.items())}
    FROM unnest({
    ", ".join(f"${n}::{'text' if kind == 'jsonb' else kind}[]" for n, kind in enumerate(_COLUMNS.values(), 1))
})
        WITH ORDINALITY AS t({", ".join(_COLUMNS)}, nth)
    ORDER BY nth
    ON CONFLICT (report_id) DO NOTHING RETURNING report_id
    ) SELECT report_id, pg_notify('{LINKER_CHANNEL}', '') FROM put
"""


async def take_reports(tx: Tx, drafts: Sequence[Draft]) -> list[Taken]:
    """Store reports that are new, tell of them, and answer for each in the order given.

    A report that names an operation that nobody knows yet is held: it is told of once its operation is settled
    (`settle_held`), because an event says for good whether it belongs to a drill.
    """
    if not drafts:
        return []
    now = clock.now()
    first: dict[UUID, Draft] = {}
    for draft in drafts:
        first.setdefault(draft.report_id, draft)
    # The insert says what was there before: to ask first would cost every new report a round trip. Who gave a number
    # is asked for all the same: a repeat must not make the key anew of a person who has been erased since.
    known = await _tickets(tx, [draft.report_id for draft in first.values() if draft.contact])
    fresh = [draft for draft in first.values() if draft.report_id not in known]
    rows = await _rows(tx, fresh, await operations(tx), now)
    values = [[_cell(name, row[name]) for row in rows] for name in _COLUMNS]
    inserted = {row["report_id"] for row in await tx.fetch(_INSERT, *values)}
    await outbox.append(tx, [received(row) for row in rows if row["report_id"] in inserted and row["state"] != "held"])
    known |= {row["report_id"]: (row["ticket"], not _placed(row)) for row in rows if row["report_id"] in inserted}
    if len(inserted) < len(rows):
        known |= await _tickets(tx, [row["report_id"] for row in rows if row["report_id"] not in inserted])
    answers = []
    for draft in drafts:
        ticket, needs_place = known[draft.report_id]
        answers.append(Taken(draft.report_id, ticket, needs_place, draft.report_id not in inserted))
        inserted.discard(draft.report_id)  # a second time in the same call is a repeat
    return answers


def _cell(name: str, value: Any) -> Any:
    return (to_json(value) if value else None) if name in _JSON else value


async def _tickets(tx: Tx, report_ids: list[UUID]) -> dict[UUID, tuple[str, bool]]:
    if not report_ids:
        return {}
    rows = await tx.fetch(
        "SELECT report_id, ticket, lon IS NULL AND admin IS NULL AS needs_place FROM report WHERE report_id = ANY($1)",
        report_ids,
    )
    return {row["report_id"]: (row["ticket"], row["needs_place"]) for row in rows}


async def _rows(
    tx: Tx, drafts: Sequence[Draft], known: Mapping[str, domain.Operation], now: datetime
) -> list[dict[str, Any]]:
    rows = []
    secrets: dict[int, bytes] = {}
    for n, draft in enumerate(drafts):
        row, secret = _row(draft, known, now)
        rows.append(row)
        if secret:
            secrets[n] = to_json(secret).encode()
            row["sealed_for"] = draft.contact or f"report:{draft.report_id}"
    keys = await vault.keys(tx, [rows[n]["sealed_for"] for n in secrets])
    for n, raw in secrets.items():
        owner = rows[n]["sealed_for"]
        rows[n]["sealed"] = vault.seal_with(keys[owner], owner, raw)
    return rows


def _row(draft: Draft, known: Mapping[str, domain.Operation], now: datetime) -> tuple[dict[str, Any], dict[str, str]]:
    """The report's row, and what of it must be sealed."""
    report, sender = draft.report, draft.sender
    reporter = report.reporter
    name = reporter.name if reporter else None
    where = report.location or PlaceIn()
    secret: dict[str, str] = {}

    def masked(field: str, text: str | None) -> tuple[str | None, str | None]:
        if not text:
            return None, None
        shown, hashed = mask(text, name)
        if shown != text:
            secret[field] = text
        return shown, hashed

    title, title_hashed = masked("title", report.title)
    text, text_hashed = masked("text", report.text)
    place, _ = masked("place", where.place)
    shown = "\n".join(part for part in (title, text) if part)
    hashed = "\n".join(part for part in (title_hashed, text_hashed) if part)
    if reporter and reporter.name:
        secret["name"] = reporter.name
    if reporter and reporter.phone:
        secret["phone"] = reporter.phone
    observed_at, ahead = domain.when_observed(report.observed_at, draft.heard_at or now)
    kind = reporter.kind if reporter else "citizen"
    operation = _operation(report.operation, known, draft.hazard, where)
    row = {
        "report_id": draft.report_id,
        "ticket": domain.ticket_of(os.urandom(8)),
        "state": "held" if operation is None else "waiting" if where.placed else "unplaced",
        "named_operation": report.operation,
        "operation": operation,
        "exercise": operation is not None and exercise_of(operation, known),
        "origin": sender.origin,
        "external_id": report.external_id,
        "external_url": report.external_url,
        "title": title,
        "text": text,
        "link_text": hashed if hashed != shown else None,
        "sealed": None,
        "sealed_for": None,
        "contact": draft.contact,
        "voice": draft.contact or sender.voice,
        "organisation": sender.organisation,
        "proven": sender.proven,
        "official": sender.proven and kind == "official",
        "reporter_kind": kind,
        "language": reporter.language if reporter else None,
        "hazard": draft.hazard,
        "severity": report.severity,
        "lon": where.lon,
        "lat": where.lat,
        "accuracy_m": where.accuracy_m,
        "place": place,
        "admin": where.admin,
        "observed_at": observed_at,
        "stated_at": report.observed_at if ahead else None,
        "received_at": now,
        "people": report.people.model_dump(exclude_none=True) if report.people else None,
        "damage": report.damage.model_dump(exclude_none=True) if report.damage else None,
        "needs": [need.model_dump(exclude_none=True) for need in report.needs],
        "media": [media.model_dump(exclude_none=True) for media in report.media],
        "bulk": draft.bulk,
        "sensitivity": sensitivity_of(report.title, report.text),
    }
    return row, secret


def _operation(
    named: str | None, known: Mapping[str, domain.Operation], hazard: str | None, where: PlaceIn
) -> str | None:
    goes = domain.named_operation(named, known)
    if goes is None:
        return None
    if goes:
        return named
    return domain.operation_by_rule(known.values(), hazard, where.lon, where.lat, where.admin)


def mask(text: str, name: str | None) -> tuple[str, str]:
    """The text as anybody may see it, and as linking sees it: with a keyed hash in place of each number and address,
    so that two reports which name the same one can still be told to do so."""
    shown: list[str] = []
    hashed: list[str] = []
    at = 0
    for found in masking.find(text, name):
        shown += (text[at : found.start], masking.PLACEHOLDER[found.kind])
        token = masking.PLACEHOLDER[found.kind]
        if found.kind in ("phone", "email"):
            address = f"+{found.value}" if found.kind == "phone" else found.value
            token = token_of(found.kind, vault.contact_id(address))
        hashed += (text[at : found.start], token)
        at = found.end
    if not at:
        return text, text
    return "".join([*shown, text[at:]]), "".join([*hashed, text[at:]])


def token_of(kind: str, contact: str) -> str:
    """What stands for a number or address in the text that linking sees."""
    return f"[{kind}_{contact[1:13]}]"


def _placed(row: Mapping[str, Any]) -> bool:
    return row["lon"] is not None or row["admin"] is not None


def received(row: Mapping[str, Any]) -> ReportReceived:
    """What is told of a report that was taken, from its row; at most 30 KiB."""
    text, cut = domain.json_cut(row["text"], TEXT_BYTES) if row["text"] else (None, False)
    placed = {name: row[name] for name in ("lon", "lat", "accuracy_m", "place", "admin") if row[name] is not None}
    values: dict[str, Any] = {
        "report_id": row["report_id"],
        "operation": row["operation"],
        "exercise": row["exercise"],
        "title": row["title"],
        "text": text,
        "text_cut": cut,
        "location": placed or None,
        "needs_place": not _placed(row),
        "hazard": row["hazard"],
        "severity": row["severity"],
        "observed_at": row["observed_at"],
        "clock_ahead": row["stated_at"] is not None,
        "people": row["people"] or None,
        "damage": row["damage"] or None,
        "needs": row["needs"] or (),
        "media": row["media"] or (),
        "reporter_kind": row["reporter_kind"],
        "language": row["language"],
        "origin": row["origin"],
        "external_id": row["external_id"],
        "external_url": row["external_url"],
        "bulk": row["bulk"],
        "sensitivity": row["sensitivity"],
    }
    short = len(text or "") < 1500 and len(values["media"]) < 3 and len(row["external_url"] or "") < 500
    return ReportReceived(**values) if short else _fitted(values)


def _fitted(values: dict[str, Any]) -> ReportReceived:
    """With as many addresses of pictures as an event has room for: the text goes before them."""
    event = ReportReceived(**values)
    while len(event.to_bytes()) > _EVENT_BYTES and values["media"]:
        values["media"] = values["media"][:-1]
        event = ReportReceived(**values)
    if len(event.to_bytes()) > _EVENT_BYTES:
        event = ReportReceived(**{**values, "external_url": None})
    return event


async def settle_held(tx: Tx) -> int:
    """Give an operation to the reports whose named one has arrived, and, by rule, to those that waited long enough;
    returns how many."""
    rows = await tx.fetch(
        """
        SELECT * FROM report r WHERE state = 'held' AND (received_at <= $1 OR EXISTS (
            SELECT FROM operation o WHERE o.operation = r.named_operation))
        ORDER BY seq LIMIT 1000 FOR UPDATE SKIP LOCKED
        """,
        clock.now() - domain.HOLD,
    )
    if not rows:
        return 0
    known = await operations(tx)
    settled = []
    for row in rows:
        operation = row["named_operation"] if domain.named_operation(row["named_operation"], known) else None
        settled.append(
            as_dict(row)
            | {
                "operation": operation
                or domain.operation_by_rule(known.values(), row["hazard"], row["lon"], row["lat"], row["admin"])
            }
        )
    for report in settled:
        report["exercise"] = exercise_of(report["operation"], known)
        report["state"] = "waiting" if _placed(report) else "unplaced"
    await tx.execute(
        "UPDATE report r SET operation = t.operation, exercise = t.exercise, state = t.state "
        "FROM unnest($1::uuid[], $2::text[], $3::boolean[], $4::text[]) AS t(report_id, operation, exercise, state) "
        "WHERE r.report_id = t.report_id",
        [row["report_id"] for row in settled],
        [row["operation"] for row in settled],
        [row["exercise"] for row in settled],
        [row["state"] for row in settled],
    )
    await outbox.append(tx, [received(row) for row in settled])
    return len(settled)


def as_dict(row: Row) -> dict[str, Any]:
    """A report's row with its JSON columns read."""
    return {**dict(row), **{name: from_json(row[name]) for name in _JSON}}
