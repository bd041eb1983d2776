"""What matching does with events: needs, responders, stock, operations, and whether deliveries arrived."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast
from uuid import UUID

import h3

from schemas.answers import AnswerGiven
from schemas.confirmations import DeliveryConfirmed, DeliveryDisputed
from schemas.event import Event
from schemas.needs import NeedAmended, NeedDeclared, NeedDrafted, NeedState, NeedWithdrawn
from schemas.operations import OperationClosed, OperationOpened, OperationState, OperationUpdated
from schemas.resources import ResourceAdjusted, ResourceRegistered, ResourceState, ResourceWithdrawn
from schemas.responders import (
    ResponderConfirmed,
    ResponderRegistered,
    ResponderState,
    ResponderUpdated,
    ResponderWithdrawn,
)
from services.matching import actions, confirmation_writes, domain, offer_writes, release_writes, source_writes
from services.matching.actions import Change, Held
from services.matching.answers import take_answer
from services.matching.domain import Ledger
from services.matching.settings import MatchingSettings
from services.runtime.consumer import Consumer
from services.runtime.db import Row, Tx, to_json

consumer = Consumer("matching")
E = TypeVar("E", bound=Event)


def newest(events: Sequence[E]) -> list[E]:
    """The last state of each subject, in the order of subjects: locks are then taken in that order."""
    last = {event.subject_value: event for event in events}
    return [last[subject] for subject in sorted(last)]


# -------------------------------------------------------------------------------------------------------------- needs
CAUSES = {NeedDrafted.type: "drafted", NeedDeclared.type: "declared", NeedWithdrawn.type: "withdrawn"}


@consumer.on_batch(NeedDrafted, NeedDeclared, NeedAmended, NeedWithdrawn)
async def on_needs(events: Sequence[NeedState], tx: Tx) -> None:
    """Copy the needs, bring their ledgers to the new quantity and status, and withdraw offers that no longer fit.

    Goes by the status in the event, not by its type: a need may be seen first when it is withdrawn already.
    """
    states = newest(events)
    before = {
        row["need_id"]: row
        for row in await tx.fetch(
            "SELECT * FROM need WHERE need_id = ANY($1) ORDER BY need_id FOR NO KEY UPDATE",
            [event.need_id for event in states],
        )
    }
    added = await _add_needs(tx, [event for event in states if event.need_id not in before])
    changed = [event for event in states if event.need_id not in added]
    held: dict[UUID, Held] = {}
    if changed:
        await _copy_needs(tx, changed)
        held = await actions.hold(tx, [event.need_id for event in changed])
        offers: dict[UUID, list[Row]] = {}
        for offer in await offer_writes.open_offers(
            tx, [need_id for need_id, need in held.items() if need.ledger.asked]
        ):
            offers.setdefault(offer["need_id"], []).append(offer)
        for event in changed:
            await _amend(tx, held[event.need_id], before.get(event.need_id), offers.get(event.need_id, []), event)
    await actions.put_back(tx, held.values())
    await actions.say(tx, [need for need in added.values() if need.told])


async def _add_needs(tx: Tx, events: Sequence[NeedState]) -> dict[UUID, Held]:
    """Write needs that were not there, each once, with its ledger as it begins. Those that somebody else has added
    meanwhile are not in the answer."""
    if not events:
        return {}
    # A row that is about to be written reads like one that was: by the names of its columns.
    begun = {event.need_id: Held(cast(Row, _need_row(event)), Ledger(), 0) for event in events}
    for event in events:
        if begun[event.need_id].declared:
            need = begun[event.need_id]
            need.move(_told(need, CAUSES.get(event.type, "amended")))
    rows = await tx.fetch(
        f"INSERT INTO need ({_NEED_COLUMNS}, {', '.join(actions.LEDGER)}) SELECT * FROM jsonb_to_recordset($1::jsonb) "
        f"AS t({_NEED_RECORD}, {', '.join(f'{name} bigint' for name in actions.LEDGER)}) "
        "ON CONFLICT (need_id) DO NOTHING RETURNING need_id",
        to_json(
            [
                dict(need.row.items()) | {name: getattr(need.ledger, name) for name in actions.LEDGER}
                for need in begun.values()
            ]
        ),
    )
    return {row["need_id"]: begun[row["need_id"]] for row in rows}


async def _amend(tx: Tx, need: Held, before: Row | None, offers: list[Row], event: NeedState) -> None:
    if need.declared:
        need.move(_told(need, CAUSES.get(event.type, "amended")))
    held = {need.need_id: need}
    why, gone = "the need is withdrawn", offers
    if event.status == "declared":
        moved = before is not None and (before["window_start"], before["window_end"]) != (
            need.row["window_start"],
            need.row["window_end"],
        )
        if moved:
            why = "the need's window changed"
        else:
            why = "the need is smaller now"
            # What was asked beyond what is wanted stays so while anything is.
            counted = [(o["offer_id"], o["quantity"]) for o in offers if not (o["extra"] and need.ledger.left)]
            surplus = set(domain.too_much_asked(counted, need.ledger.left))
            gone = [offer for offer in offers if offer["offer_id"] in surplus]
    await offer_writes.close_offers(tx, held, gone, "withdrawn", by="system:needs", reason=why)
    await release_writes.balance_releases(tx, need, by="system:needs")


def _told(need: Held, cause: str) -> str:
    """The cause, and what of it could not be done: promises are not taken back by a smaller need."""
    wanted, promised = need.row["wanted"], need.ledger.promised
    if cause == "withdrawn" and need.ledger.committed + need.ledger.in_transit:
        return f"withdrawn; {need.ledger.committed + need.ledger.in_transit} stay promised"
    if wanted < promised:
        return f"{cause} to {wanted}, held at {promised}: so many are promised"
    return cause


_NEED_RECORD = """
    need_id uuid, operation text, exercise boolean, incident_id uuid, item text, skill text, unit text,
    severity smallint, status text, lon double precision, lat double precision, place text, admin text,
    window_start timestamptz, window_end timestamptz, level smallint, certificates text[], languages text[],
    vulnerable text[], sensitivity text, hazard text, site_id uuid, bundle_id uuid,
    declared_at timestamptz, wanted integer"""
_NEED_COLUMNS = ", ".join(part.split()[0] for part in _NEED_RECORD.split(","))


async def _copy_needs(tx: Tx, events: Sequence[NeedState]) -> None:
    await tx.execute(
        f"""
        INSERT INTO need AS n ({_NEED_COLUMNS}) SELECT * FROM jsonb_to_recordset($1::jsonb) AS t({_NEED_RECORD})
        ON CONFLICT (need_id) DO UPDATE SET
            operation = excluded.operation, exercise = excluded.exercise, incident_id = excluded.incident_id,
            item = excluded.item, skill = excluded.skill, unit = excluded.unit, severity = excluded.severity,
            status = excluded.status, lon = excluded.lon, lat = excluded.lat, place = excluded.place,
            admin = excluded.admin, window_start = excluded.window_start, window_end = excluded.window_end,
            level = excluded.level, certificates = excluded.certificates, languages = excluded.languages,
            vulnerable = excluded.vulnerable, sensitivity = excluded.sensitivity, hazard = excluded.hazard,
            site_id = excluded.site_id, bundle_id = excluded.bundle_id,
            declared_at = coalesce(n.declared_at, excluded.declared_at), wanted = excluded.wanted,
            version = n.version + 1
        """,
        to_json([_need_row(event) for event in events]),
    )


def _need_row(event: NeedState) -> dict[str, Any]:
    return {
        "need_id": event.need_id,
        "operation": event.operation,
        "exercise": event.exercise,
        "incident_id": event.incident_id,
        "item": event.item,
        "skill": event.skill,
        "unit": event.unit,
        "severity": event.severity,
        "status": event.status,
        "lon": event.point.lon if event.point else None,
        "lat": event.point.lat if event.point else None,
        "place": event.place,
        "admin": event.admin,
        "window_start": event.window.start,
        "window_end": event.window.end,
        "level": event.requires.level or 0,
        "certificates": list(event.requires.certificates),
        "languages": list(event.requires.languages),
        "vulnerable": list(event.vulnerable),
        "sensitivity": event.sensitivity,
        "hazard": event.hazard,
        "site_id": event.site_id,
        "bundle_id": event.bundle_id,
        "declared_at": event.declared_at or (event.meta.time if event.status == "declared" else None),
        "wanted": event.quantity,
    }


# --------------------------------------------------------------------------------------------------------- responders
@consumer.on_batch(ResponderRegistered, ResponderConfirmed, ResponderUpdated, ResponderWithdrawn)
async def on_responders(events: Sequence[ResponderState], tx: Tx) -> None:
    """Copy who may be asked; let those go who may not be asked any more."""
    states = newest(events)
    gone = [event.responder_id for event in states if event.status != "confirmed"]

    async def copy() -> None:
        await _copy_responders(tx, states)

    if gone:
        await source_writes.release_responders(tx, gone, copy)
    else:
        await copy()
    # A responder of life may be asked in drills as well.
    await actions.mark(
        tx,
        [
            Change(exercise, source_id=event.responder_id)
            for event in states
            for exercise in sorted({event.exercise, True})
        ],
    )


async def _copy_responders(tx: Tx, events: Sequence[ResponderState]) -> None:
    await tx.execute(
        """
        INSERT INTO responder (responder_id, exercise, kind, status, organisation, skills, certificates, languages, lon,
                               lat, travel_limit_km, capacity, minimum_team, availability, rest_h, max_hours_day,
                               avoids)
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS t(
            responder_id uuid, exercise boolean, kind text, status text, organisation text, skills jsonb,
            certificates jsonb, languages text[], lon double precision, lat double precision,
            travel_limit_km double precision, capacity integer, minimum_team integer, availability jsonb,
            rest_h double precision, max_hours_day double precision, avoids text[])
        ON CONFLICT (responder_id) DO UPDATE SET
            exercise = excluded.exercise, kind = excluded.kind, status = excluded.status,
            organisation = excluded.organisation, skills = excluded.skills, certificates = excluded.certificates,
            languages = excluded.languages, lon = excluded.lon, lat = excluded.lat,
            travel_limit_km = excluded.travel_limit_km, capacity = excluded.capacity,
            minimum_team = excluded.minimum_team, availability = excluded.availability, rest_h = excluded.rest_h,
            max_hours_day = excluded.max_hours_day, avoids = excluded.avoids
        """,
        to_json([_responder_row(event) for event in events]),
    )


def _responder_row(event: ResponderState) -> dict[str, Any]:
    lat, lon = h3.cell_to_latlng(event.home_cell) if h3.is_valid_cell(event.home_cell or "") else (None, None)
    levels: dict[str, int] = {}
    for skill in event.skills:
        levels[skill.skill] = max(levels.get(skill.skill, 0), skill.level)
    return {
        "responder_id": event.responder_id,
        "exercise": event.exercise,
        "kind": event.kind,
        "status": event.status,
        "organisation": event.organisation,
        "skills": levels,
        "certificates": {one.code: one.valid_until for one in event.certificates},
        "languages": list(event.languages),
        "lon": lon,
        "lat": lat,
        "travel_limit_km": event.travel_limit_km,
        "capacity": event.capacity,
        "minimum_team": event.minimum_team,
        "availability": [[period.start, period.end] for period in event.availability],
        "rest_h": event.rest_h,
        "max_hours_day": event.max_hours_day,
        "avoids": [*event.avoids_hazards, *map(str, event.avoids_areas)],
    }


# -------------------------------------------------------------------------------------------------------------- stock
@consumer.on_batch(ResourceRegistered, ResourceAdjusted, ResourceWithdrawn)
async def on_resources(events: Sequence[ResourceState], tx: Tx) -> None:
    """Copy what is there; where it fell below what is promised, the youngest commitments break."""
    states = newest(events)

    async def write(after: dict[tuple[UUID, bool], tuple[int, int]]) -> None:
        rows = []
        for event in states:
            # What is there in life may be promised in a drill too, on a count of its own.
            for exercise in (True,) if event.exercise else (False, True):
                reserved, given = after.get((event.lot_id, exercise), (0, 0))
                rows.append({**_lot_row(event), "exercise": exercise, "reserved": reserved, "given": given})
        await _copy_lots(tx, rows)

    counts = [source_writes.Count(e.lot_id, e.status == "available", e.quantity, e.meta.time) for e in states]
    await source_writes.recount_lots(tx, counts, write)
    await actions.mark(
        tx,
        [Change(exercise, source_id=event.lot_id) for event in states for exercise in sorted({event.exercise, True})],
    )


async def _copy_lots(tx: Tx, rows: list[dict[str, Any]]) -> None:
    await tx.execute(
        """
        INSERT INTO lot AS l (lot_id, exercise, kind, item, unit, lon, lat, organisation, delivery_limit_km, expires_at,
                              crew, status, quantity, reserved, given, counted_at)
        SELECT * FROM jsonb_to_recordset($1::jsonb) AS t(
            lot_id uuid, exercise boolean, kind text, item text, unit text, lon double precision, lat double precision,
            organisation text, delivery_limit_km double precision, expires_at timestamptz, crew jsonb, status text,
            quantity integer, reserved integer, given integer, counted_at timestamptz)
        ON CONFLICT (lot_id, exercise) DO UPDATE SET
            kind = excluded.kind, item = excluded.item, unit = excluded.unit, lon = excluded.lon, lat = excluded.lat,
            organisation = excluded.organisation, delivery_limit_km = excluded.delivery_limit_km,
            expires_at = excluded.expires_at, crew = excluded.crew, status = excluded.status,
            quantity = excluded.quantity, reserved = excluded.reserved, given = excluded.given,
            counted_at = CASE WHEN l.quantity = excluded.quantity THEN l.counted_at ELSE excluded.counted_at END
        """,
        to_json(rows),
    )


def _lot_row(event: ResourceState) -> dict[str, Any]:
    return {
        "lot_id": event.lot_id,
        "kind": event.kind,
        "item": event.item,
        "unit": event.unit,
        "lon": event.point.lon if event.point else None,
        "lat": event.point.lat if event.point else None,
        "organisation": event.organisation,
        "delivery_limit_km": event.delivery_limit_km,
        "expires_at": event.expires_at,
        "crew": [part.model_dump() for part in event.crew],
        "status": event.status,
        "quantity": event.quantity,
        "counted_at": event.meta.time,
    }


# ------------------------------------------------------------------------------------------------ operations, answers
@consumer.on_batch(OperationOpened, OperationUpdated, OperationClosed)
async def on_operations(events: Sequence[OperationState], tx: Tx) -> None:
    """Copy what a plan must know of operations: which are drills, and which are closed, where nobody new is asked."""
    states = newest(events)
    await tx.execute(
        """
        INSERT INTO operation (operation, title, timezone, exercise, hazards, closed_at)
        SELECT * FROM jsonb_to_recordset($1::jsonb)
            AS t(operation text, title text, timezone text, exercise boolean, hazards text[], closed_at timestamptz)
        ON CONFLICT (operation) DO UPDATE SET title = excluded.title, timezone = excluded.timezone,
            exercise = excluded.exercise, hazards = excluded.hazards, closed_at = excluded.closed_at
        """,
        to_json(
            [
                event.model_dump(include={"operation", "title", "timezone", "exercise", "hazards", "closed_at"})
                for event in states
            ]
        ),
    )
    await actions.mark(tx, [Change(exercise) for exercise in sorted({event.exercise for event in states})])


@consumer.on(DeliveryConfirmed)
async def on_delivery_confirmed(event: DeliveryConfirmed, tx: Tx) -> None:
    """Confirm what was delivered, the oldest first."""
    await confirmation_writes.confirm(tx, event.need_id, event.quantity, by=event.by, reason=event.reason)


@consumer.on(DeliveryDisputed)
async def on_delivery_disputed(event: DeliveryDisputed, tx: Tx) -> None:
    """Open again what was counted as delivered and did not arrive."""
    await confirmation_writes.dispute(tx, event.need_id, event.quantity, by=event.by, reason=event.reason)


@consumer.on(AnswerGiven)
async def on_answer_given(event: AnswerGiven, tx: Tx) -> None:
    """Take a yes or a no that came by message."""
    await take_answer(tx, event, MatchingSettings())
