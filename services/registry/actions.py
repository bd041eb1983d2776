"""The registry's writes. Each locks what it changes before its events are appended, so they leave in that order."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

import h3
import orjson

from schemas.event import Event
from schemas.operations import OperationClosed, OperationOpened, OperationUpdated
from schemas.resources import ResourceAdjusted, ResourceRegistered, ResourceWithdrawn
from schemas.responders import (
    ResponderConfirmed,
    ResponderRegistered,
    ResponderState,
    ResponderUpdated,
    ResponderWithdrawn,
)
from schemas.values import STANDING
from services.registry.bodies import (
    Home,
    LotChange,
    LotOrder,
    OperationChange,
    OperationOrder,
    Registration,
    ResponderChange,
)
from services.registry.domain import Standing, misfit, source_of, taken
from services.runtime import clock, ids, masking, outbox, vault
from services.runtime.auth import Actor
from services.runtime.db import Database, Row, Tx, from_json, to_json
from services.runtime.problems import Conflict, DomainError, Fault, Forbidden, Invalid, NotFound

HOME_RESOLUTION = 8


@dataclass(frozen=True, slots=True)
class Sender:
    """Whoever registers something: how far they are trusted, for which organisation, under which name."""

    standing: Standing
    organisation: str | None
    by: str

    @classmethod
    def of(cls, actor: Actor) -> Sender:
        """Raises `Forbidden` for a partner's token that names no organisation."""
        if actor.role in ("field", "operator", "admin"):
            return cls("desk", actor.organisation, actor.name)
        if actor.role == "partner":
            if not actor.organisation:
                raise Forbidden("the token names no organisation, so nothing can be registered with it")
            return cls("partner", actor.organisation, actor.name)
        # An anonymous actor's name is its network address or device, which has no place in an event.
        return cls("public", None, "public" if actor.anonymous else actor.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row: `error` names its fault, else `id` says which entry it is."""

    what: Literal["made", "updated", "repeated", "kept", "refused"]
    id: UUID | None = None
    status: str | None = None
    error: DomainError | None = None


# Operations


async def keep_standing_open(db: Database, stopping: asyncio.Event) -> None:
    """Open `standing` at the first start: the operation that takes whatever fits no other."""
    async with db.tx() as tx:
        now = clock.now()
        made = await tx.fetchrow(
            "INSERT INTO operation (id, title, timezone, opened_at, updated_at) VALUES ($1, $2, $3, $4, $4) "
            "ON CONFLICT DO NOTHING RETURNING *",
            STANDING,
            "Siaga sehari-hari",
            "Asia/Jakarta",
            now,
        )
        if made is not None:
            await outbox.append(tx, [OperationOpened(**operation_fields(made), by="registry")])
    await stopping.wait()


async def open_operation(tx: Tx, order: OperationOrder, by: str) -> Row:
    """Raises `Conflict` when the id is taken."""
    now = clock.now()
    row = await tx.fetchrow(
        """
        INSERT INTO operation (id, title, glide, hazards, areas, bbox, timezone, lead, status, phase, exercise,
                               opened_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $12) ON CONFLICT DO NOTHING RETURNING *
        """,
        order.id,
        order.title,
        order.glide,
        list(order.hazards),
        list(order.areas),
        list(order.bbox) if order.bbox else None,
        order.timezone,
        order.lead,
        order.status.model_dump_json(exclude_none=True) if order.status else None,
        order.phase,
        order.exercise,
        now,
    )
    if row is None:
        raise Conflict(f"there is an operation {order.id} already", [Fault("/id", "taken")])
    await outbox.append(tx, [OperationOpened(**operation_fields(row), by=by)])
    return row


async def change_operation(tx: Tx, operation: str, change: OperationChange, by: str) -> Row:
    """Change an operation, or close it for good.

    Raises
    ------
    NotFound
    Conflict
        It is closed; or the change would close `standing`, or turn a drill into life or the reverse.
    """
    row = await tx.fetchrow("SELECT * FROM operation WHERE id = $1 FOR UPDATE", operation)
    if row is None:
        raise NotFound(f"there is no operation {operation}")
    changes = change.changes()
    if changes.pop("exercise", row["exercise"]) != row["exercise"]:
        raise Conflict(
            "whether an operation is an exercise is settled when it is opened",
            [Fault("/exercise", "cannot be changed")],
        )
    closing = changes.pop("closed", False)
    if closing and operation == STANDING:
        raise Conflict("the standing operation is always open", [Fault("/closed", "cannot be closed")])
    for name in ("hazards", "areas", "bbox"):
        if changes.get(name) is not None:
            changes[name] = list(changes[name])
    if changes.get("status") is not None:
        changes["status"] = changes["status"].model_dump(mode="json", exclude_none=True)
    now_there = {**dict(row), "status": from_json(row["status"])}
    changed = {name: value for name, value in changes.items() if now_there[name] != value}
    if row["closed_at"] is not None:
        if changed:
            raise Conflict(f"the operation {operation} is closed", [Fault("", "closed operations stay as they are")])
        return row
    if not changed and not closing:
        return row
    now = clock.now()
    after = now_there | changed
    updated = await tx.fetchrow(
        """
        UPDATE operation SET title = $2, glide = $3, hazards = $4, areas = $5, bbox = $6, timezone = $7, lead = $8,
               status = $9, phase = $10, closed_at = $11, updated_at = $12 WHERE id = $1 RETURNING *
        """,
        operation,
        after["title"],
        after["glide"],
        after["hazards"],
        after["areas"],
        after["bbox"],
        after["timezone"],
        after["lead"],
        to_json(after["status"]) if after["status"] is not None else None,
        after["phase"],
        now if closing else None,
        now,
    )
    assert updated is not None
    model = OperationClosed if closing else OperationUpdated
    await outbox.append(tx, [model(**operation_fields(updated), by=by, reason=_masked(change.reason))])
    return updated


def operation_fields(row: Row) -> dict[str, Any]:
    """A row as the fields of its event."""
    return {
        "operation": row["id"],
        "exercise": row["exercise"],
        "title": row["title"],
        "glide": row["glide"],
        "hazards": row["hazards"],
        "areas": row["areas"],
        "bbox": row["bbox"],
        "timezone": row["timezone"],
        "lead": row["lead"],
        "status": from_json(row["status"]),
        "phase": row["phase"],
        "opened_at": row["opened_at"],
        "closed_at": row["closed_at"],
    }


async def _exercises(tx: Tx, operations: set[str | None]) -> dict[str | None, bool]:
    """Which of these operations are known, and whether each is an exercise; none at all is known, and is life."""
    named = [operation for operation in operations if operation is not None]
    rows = await tx.fetch("SELECT id, exercise FROM operation WHERE id = ANY($1)", named) if named else []
    return {None: False} | {row["id"]: row["exercise"] for row in rows}


def _unknown_operation(operation: str | None) -> NotFound:
    return NotFound(
        f"operation: there is no operation {operation}", [Fault("/operation", "there is no such operation")]
    )


# Responders


@dataclass(frozen=True, slots=True)
class Candidate:
    """A registration with what is worked out of it before the database is asked."""

    order: Registration
    contact_id: str | None
    alias: str | None
    home_cell: str | None


def candidate(order: Registration, sender: Sender) -> Candidate:
    """Pure work on one registration: keyed hashes and the home's cell."""
    contact = vault.contact_id(order.phone) if order.phone else None
    alias = None
    if order.external_id is not None and sender.standing != "public":
        source = source_of(sender.standing, sender.organisation, sender.by, order.source)
        alias = _alias(source, order.external_id)
    return Candidate(order, contact, alias, _cell(order.location))


def _alias(source: str, external_id: str) -> str:
    """A keyed hash, because an organisation may well number its people by their identity cards."""
    digest = hmac.new(vault.contact_key(), f"{len(source)}:{source}{external_id}".encode(), hashlib.sha256)
    return "x" + digest.hexdigest()[:40]


def _cell(home: Home | None) -> str | None:
    return h3.latlng_to_cell(home.lat, home.lon, HOME_RESOLUTION) if home else None


async def register(tx: Tx, sender: Sender, candidates: Sequence[Candidate]) -> list[Outcome]:
    """Take these registrations, each once: a row is known again by its source's own id, a person by their number.

    A row that repeats a known id changes nothing; a known number updates its responder and makes no second one.
    """
    known = await _lock_keys(tx, [key for c in candidates for key in (c.contact_id, c.alias) if key])
    rows = await _lock_responders(tx, {found for found in known.values() if found})
    states = {row["responder_id"]: state_of(row, by=sender.by) for row in rows}
    exercises = await _exercises(tx, {c.order.operation for c in candidates})
    sealed: dict[UUID, tuple[str, dict[str, Any]]] = {}
    outcomes: list[Outcome] = []
    events: list[ResponderState] = []
    for entry in candidates:
        if entry.order.operation not in exercises:
            outcomes.append(Outcome("refused", error=_unknown_operation(entry.order.operation)))
            continue
        repeated = known.get(entry.alias) if entry.alias else None
        if repeated is not None:
            outcomes.append(Outcome("repeated", repeated, states[repeated].status))
            continue
        organisation = sender.organisation if sender.standing == "partner" else entry.order.organisation
        before = states.get(known[entry.contact_id]) if entry.contact_id and known[entry.contact_id] else None
        if sender.standing == "partner" and entry.order.organisation not in (None, sender.organisation):
            outcomes.append(Outcome("refused", error=_not_yours("/organisation")))
            continue
        if before is not None:
            verdict = taken(
                sender.standing,
                organisation,
                entry.order.kind,
                known_kind=before.kind,
                known_status=before.status,
                known_organisation=before.organisation,
            )
            if verdict == "refuse":
                reason = "this number belongs to another responder that is not yours to change"
                outcomes.append(Outcome("refused", error=Conflict(reason, [Fault("/phone", reason)])))
                continue
            if verdict == "keep":
                outcomes.append(Outcome("kept", before.responder_id, "unconfirmed"))
                continue
        event = _registered(entry, before, sender, organisation, exercises[entry.order.operation])
        changed = before is None or _differs(before, event)
        if changed:
            events.append(event)
        states[event.responder_id] = event
        for key in (entry.contact_id, entry.alias):
            if key:
                known[key] = event.responder_id
        there = sealed[event.responder_id][1] if event.responder_id in sealed else None
        if there is None and before is not None and not _whole(entry.order):
            there = await contact_of(tx, event.responder_id)
        sealed[event.responder_id] = (_owner(event), (there or {}) | _private(entry.order))
        what: Literal["made", "updated"] = "made" if before is None else "updated"
        outcomes.append(Outcome(what, event.responder_id, event.status))
    await _store(tx, [states[event_id] for event_id in dict.fromkeys(event.responder_id for event in events)])
    await _seal(tx, sealed)
    await tx.execute(
        "UPDATE known_as SET responder_id = t.responder_id FROM unnest($1::text[], $2::uuid[]) AS t(key, responder_id) "
        "WHERE known_as.key = t.key AND known_as.responder_id IS NULL",
        list(known),
        list(known.values()),
    )
    if any(outcome.what == "refused" for outcome in outcomes):
        await tx.execute("DELETE FROM known_as WHERE key = ANY($1) AND responder_id IS NULL", list(known))
    await outbox.append(tx, events)
    return outcomes


def _registered(
    entry: Candidate, before: ResponderState | None, sender: Sender, organisation: str | None, exercise: bool
) -> ResponderState:
    """The responder after this registration. What it does not name stays as it was known."""
    order = entry.order
    trusted = sender.standing != "public"
    if before is None:
        model: type[ResponderState] = ResponderConfirmed if trusted else ResponderRegistered
        # Not ordered by time: the age of an id would tell whoever types a number that it was known before.
        fields: dict[str, Any] = {"responder_id": uuid4(), "operation": order.operation}
        named = set(Registration.model_fields)
    else:
        if trusted:
            model = ResponderUpdated if before.status == "confirmed" else ResponderConfirmed
        else:
            model = ResponderUpdated if before.status == "unconfirmed" else ResponderRegistered
        fields = before.model_dump()
        named = order.model_fields_set
        organisation = organisation or before.organisation
        if order.operation is None or (exercise and not before.exercise):
            # A drill that names somebody who serves in life must not take them out of it.
            fields["operation"], exercise = before.operation, before.exercise
        else:
            fields["operation"] = order.operation
    fields |= {
        name: getattr(order, name)
        for name in ("skills", "certificates", "languages", "travel_limit_km", "availability")
        if name in named
    }
    # These three are one statement about who comes: half of it would contradict the other half.
    fields |= {"kind": order.kind, "capacity": order.capacity, "minimum_team": order.minimum_team}
    if entry.home_cell:
        fields["home_cell"] = entry.home_cell
    if entry.contact_id:
        fields["contact_id"] = entry.contact_id
    return model(
        **fields
        | {
            "status": "confirmed" if trusted else "unconfirmed",
            "organisation": organisation,
            "exercise": exercise,
            "by": sender.by,
            "reason": None,
        }
    )


def _differs(before: ResponderState, after: ResponderState) -> bool:
    """Whether anything that others know of the responder changed."""
    told = {"by", "reason"}
    return before.model_dump(exclude=told) != after.model_dump(exclude=told)


def _whole(order: Registration) -> bool:
    return order.name is not None and order.phone is not None and order.location is not None


def _private(order: Registration | ResponderChange) -> dict[str, Any]:
    """What is sealed: only what was given."""
    given: dict[str, Any] = {}
    if order.name:
        given["name"] = order.name
    if order.phone:
        given["phone"] = order.phone
    if order.location is not None:
        given["location"] = order.location.model_dump(exclude_none=True)
    return given


def _owner(state: ResponderState) -> str:
    """Whose vault key it is: the contact id, so that a number's owner is erased by it; the responder's own id else."""
    return state.contact_id or f"responder:{state.responder_id}"


def _not_yours(pointer: str) -> Forbidden:
    reason = "a partner writes for its own organisation only"
    return Forbidden(reason, [Fault(pointer, reason)])


async def _lock_keys(tx: Tx, keys: Sequence[str]) -> dict[str, UUID | None]:
    """Claim these keys in one order for all writers, so that two of them wait for one another and never dead-lock."""
    if not keys:
        return {}
    rows = await tx.fetch(
        "INSERT INTO known_as (key) SELECT key FROM unnest($1::text[]) AS key ORDER BY key "
        "ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, responder_id",
        sorted(set(keys)),
    )
    return {row["key"]: row["responder_id"] for row in rows}


async def _lock_responders(tx: Tx, responder_ids: set[UUID]) -> list[Row]:
    if not responder_ids:
        return []
    return await tx.fetch(
        "SELECT * FROM responder WHERE responder_id = ANY($1) ORDER BY responder_id FOR UPDATE", list(responder_ids)
    )


async def _store(tx: Tx, states: Sequence[ResponderState]) -> None:
    if not states:
        return
    await tx.execute(
        """
        INSERT INTO responder (responder_id, kind, status, contact_id, organisation, operation, exercise, home_cell,
                               profile, made_at, updated_at)
        SELECT *, $10::timestamptz, $10
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[],
                    $9::jsonb[])
        ON CONFLICT (responder_id) DO UPDATE
            SET kind = excluded.kind, status = excluded.status, contact_id = excluded.contact_id,
                organisation = excluded.organisation, operation = excluded.operation, exercise = excluded.exercise,
                home_cell = excluded.home_cell, profile = excluded.profile, updated_at = excluded.updated_at
        """,
        [state.responder_id for state in states],
        [state.kind for state in states],
        [state.status for state in states],
        [state.contact_id for state in states],
        [state.organisation for state in states],
        [state.operation for state in states],
        [state.exercise for state in states],
        [state.home_cell for state in states],
        [state.model_dump_json(include=_PROFILE) for state in states],
        clock.now(),
    )


_PROFILE = {
    "skills",
    "certificates",
    "languages",
    "travel_limit_km",
    "capacity",
    "minimum_team",
    "availability",
}


def state_of(row: Row, by: str) -> ResponderState:
    """A row as the state that its next event starts from."""
    columns = ("responder_id", "kind", "status", "contact_id", "organisation", "operation", "exercise", "home_cell")
    return ResponderState(**{name: row[name] for name in columns}, **from_json(row["profile"]), by=by)


async def _seal(tx: Tx, sealed: dict[UUID, tuple[str, dict[str, Any]]]) -> None:
    held = {responder_id: entry for responder_id, entry in sealed.items() if entry[1]}
    if not held:
        return
    keys = await vault.keys(tx, [owner for owner, _ in held.values()])
    await tx.execute(
        "INSERT INTO contact (responder_id, owner, sealed) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) "
        "ON CONFLICT (responder_id) DO UPDATE SET owner = excluded.owner, sealed = excluded.sealed",
        list(held),
        [owner for owner, _ in held.values()],
        [vault.seal_with(keys[owner], owner, orjson.dumps(private)) for owner, private in held.values()],
    )


async def contact_of(tx: Tx, responder_id: UUID) -> dict[str, Any]:
    """Name, number and exact home of a responder, as far as they are known; for their own eyes and a desk's."""
    row = await tx.fetchrow("SELECT owner, sealed FROM contact WHERE responder_id = $1", responder_id)
    if row is None:
        return {}
    value = await vault.unseal(tx, row["owner"], row["sealed"])
    found: dict[str, Any] = {} if value is None else orjson.loads(value)
    return found


async def responder_row(tx: Tx, responder_id: UUID, actor: Actor) -> Row:
    """A responder whom the actor may see.

    Raises
    ------
    NotFound
        There is none, or it was erased.
    Forbidden
        It is another's profile, or another organisation's.
    """
    if actor.role == "partner":
        Sender.of(actor)
    else:
        actor.require("responder", "field", "operator", "auditor")
    if actor.role == "responder" and actor.subject != str(responder_id):
        raise Forbidden("a responder sees its own profile only")
    row = await tx.fetchrow("SELECT * FROM responder WHERE responder_id = $1 AND erased_at IS NULL", responder_id)
    if row is None:
        raise NotFound(f"there is no responder {responder_id}")
    if actor.role == "partner" and row["organisation"] != actor.organisation:
        raise Forbidden("this responder is not of the token's organisation")
    return row


async def _locked_with_keys(
    tx: Tx, actor: Actor, responder_id: UUID, more: Sequence[str] = ()
) -> tuple[Row, dict[str, UUID | None]]:
    """A responder that the actor may change, locked, with the keys by which it is known again."""
    before = await responder_row(tx, responder_id, actor)
    keys = await tx.fetch("SELECT key FROM known_as WHERE responder_id = $1", responder_id)
    known = await _lock_keys(tx, [*(row["key"] for row in keys), *more])
    rows = await _lock_responders(tx, {responder_id})
    if not rows or rows[0]["erased_at"] is not None or rows[0]["contact_id"] != before["contact_id"]:
        raise Conflict("this responder was changed at the same moment; please try again")
    return rows[0], known


async def change_responder(tx: Tx, actor: Actor, responder_id: UUID, change: ResponderChange) -> ResponderState:
    """Change a responder; `status` confirmed by a desk is its confirmation.

    Raises
    ------
    NotFound, Forbidden
    Conflict
        The new number belongs to another responder.
    Invalid
        What results does not go together.
    """
    if actor.role == "auditor":
        raise Forbidden("an auditor reads and changes nothing")
    changes = change.changes()
    if actor.role == "responder":
        for name in ("phone", "organisation"):
            if name in changes:
                raise Forbidden(f"{name} is changed at a desk", [Fault(f"/{name}", "is changed at a desk")])
        if changes.get("status") == "confirmed":
            raise Forbidden("nobody confirms themselves", [Fault("/status", "is confirmed by a desk")])
    if actor.role == "partner" and changes.get("organisation", actor.organisation) != actor.organisation:
        raise _not_yours("/organisation")
    new_contact = vault.contact_id(change.phone) if change.phone else None
    row, known = await _locked_with_keys(tx, actor, responder_id, [new_contact] if new_contact else [])
    before = state_of(row, by=actor.name)
    fields = before.model_dump() | {
        name: value for name, value in changes.items() if name not in ("name", "phone", "location")
    }
    found = misfit(fields["kind"], fields["capacity"], fields["minimum_team"])
    if found:
        raise Invalid(f"/{found[0]}: {found[1]}", [Fault(f"/{found[0]}", found[1])])
    if "location" in changes:
        fields["home_cell"] = _cell(change.location)
    if "phone" in changes:
        fields["contact_id"] = new_contact
    if new_contact and known[new_contact] not in (None, responder_id):
        raise Conflict("this number belongs to another responder", [Fault("/phone", "belongs to another responder")])
    model: type[ResponderState] = ResponderUpdated
    if fields["status"] != before.status:
        model = ResponderConfirmed if fields["status"] == "confirmed" else ResponderWithdrawn
    after = model(**fields | {"by": actor.name, "reason": _masked(change.reason)})
    if {"name", "phone", "location"} & changes.keys():
        private = await contact_of(tx, responder_id)
        for name in ("name", "phone", "location"):
            if name in changes:
                private.pop(name, None)
        private |= _private(change)
        if before.contact_id != after.contact_id:
            # Sealed anew under the key of the new number; that of the old one is nobody's any more.
            await vault.erase(tx, _owner(before))
            if before.contact_id:
                await tx.execute("DELETE FROM known_as WHERE key = $1", before.contact_id)
        await tx.execute("DELETE FROM contact WHERE responder_id = $1", responder_id)
        await _seal(tx, {responder_id: (_owner(after), private)})
    if _differs(before, after):
        await _store(tx, [after])
        if new_contact:
            await tx.execute("UPDATE known_as SET responder_id = $2 WHERE key = $1", new_contact, responder_id)
        await outbox.append(tx, [after])
    return after


async def erase_responder(tx: Tx, actor: Actor, responder_id: UUID) -> None:
    """Forget a person: key and contact are destroyed, the profile is blanked, and matching is told that they are gone.

    What stays is the id, which the events name, and the keyed hashes of lists that named the person: a list that is
    sent again must not bring them back.
    """
    if actor.role == "auditor":
        raise Forbidden("an auditor reads and changes nothing")
    row, _ = await _locked_with_keys(tx, actor, responder_id)
    before = state_of(row, by=actor.name)
    contact = await tx.fetchval("DELETE FROM contact WHERE responder_id = $1 RETURNING owner", responder_id)
    for owner in {contact, before.contact_id, _owner(before)} - {None}:
        await vault.erase(tx, str(owner))
    if before.contact_id:
        await tx.execute("DELETE FROM known_as WHERE key = $1", before.contact_id)
    gone = ResponderWithdrawn(
        responder_id=responder_id,
        kind=before.kind,
        status="withdrawn",
        operation=before.operation,
        exercise=before.exercise,
        by=actor.name,
        reason="erased",
    )
    await _store(tx, [gone])
    await tx.execute("UPDATE responder SET erased_at = $2 WHERE responder_id = $1", responder_id, clock.now())
    await outbox.append(tx, [gone])


# Resources


async def register_lots(tx: Tx, sender: Sender, orders: Sequence[LotOrder]) -> list[Outcome]:
    """Take these lots, each once: one that repeats a known (source, external id) changes nothing."""
    exercises = await _exercises(tx, {order.operation for order in orders})
    now = clock.now()
    outcomes: list[Outcome | None] = [None] * len(orders)
    fresh: list[tuple[int, UUID, str | None, LotOrder, str | None]] = []
    for index, order in enumerate(orders):
        if order.operation not in exercises:
            outcomes[index] = Outcome("refused", error=_unknown_operation(order.operation))
            continue
        if sender.standing == "partner" and order.organisation not in (None, sender.organisation):
            outcomes[index] = Outcome("refused", error=_not_yours("/organisation"))
            continue
        organisation = sender.organisation if sender.standing == "partner" else order.organisation
        source = None
        if order.external_id is not None:
            source = source_of(sender.standing, sender.organisation, sender.by, order.source)
        fresh.append((index, ids.uuid7(), source, order, organisation))
    # One order for all writers: two lists with the same lots wait for one another instead of dead-locking.
    fresh.sort(key=lambda entry: (entry[2] or "", entry[3].external_id or "", entry[0]))
    rows = await tx.fetch(
        """
        INSERT INTO lot (lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation,
                         operation, exercise, delivery_limit_km, expires_at, status, made_at, updated_at)
        SELECT lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation, operation,
               exercise, delivery_limit_km, expires_at, 'available', $16, $16
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::float8[],
                    $9::float8[], $10::text[], $11::text[], $12::text[], $13::boolean[], $14::float8[],
                    $15::timestamptz[]) WITH ORDINALITY
            AS t(lot_id, source, external_id, kind, item, quantity, unit, lon, lat, place, organisation, operation,
                 exercise, delivery_limit_km, expires_at, nth)
        ORDER BY nth ON CONFLICT (source, external_id) DO NOTHING RETURNING *
        """,
        [lot_id for _, lot_id, _, _, _ in fresh],
        [source for _, _, source, _, _ in fresh],
        [order.external_id for _, _, _, order, _ in fresh],
        [order.kind for _, _, _, order, _ in fresh],
        [order.item for _, _, _, order, _ in fresh],
        [order.quantity for _, _, _, order, _ in fresh],
        [order.counted_in for _, _, _, order, _ in fresh],
        [order.location.lon for _, _, _, order, _ in fresh],
        [order.location.lat for _, _, _, order, _ in fresh],
        [_masked(order.location.place or order.place) for _, _, _, order, _ in fresh],
        [organisation for _, _, _, _, organisation in fresh],
        [order.operation for _, _, _, order, _ in fresh],
        [exercises[order.operation] for _, _, _, order, _ in fresh],
        [order.delivery_limit_km for _, _, _, order, _ in fresh],
        [order.expires_at for _, _, _, order, _ in fresh],
        now,
    )
    made = {row["lot_id"]: row for row in rows}
    repeats = [entry for entry in fresh if entry[1] not in made]
    there = {
        (row["source"], row["external_id"]): row
        for row in await tx.fetch(
            "SELECT lot_id, source, external_id, status FROM lot "
            "JOIN unnest($1::text[], $2::text[]) AS t(source, external_id) USING (source, external_id)",
            [source for _, _, source, _, _ in repeats],
            [order.external_id for _, _, _, order, _ in repeats],
        )
    }
    for index, lot_id, source, order, _ in fresh:
        if lot_id in made:
            outcomes[index] = Outcome("made", lot_id, "available")
        else:
            row = there[(source, order.external_id)]
            outcomes[index] = Outcome("repeated", row["lot_id"], row["status"])
    events: list[Event] = [
        ResourceRegistered(**lot_fields(made[lot_id]), by=sender.by)
        for index, lot_id, _, _, _ in sorted(fresh, key=lambda entry: entry[0])
        if lot_id in made
    ]
    await outbox.append(tx, events)
    return [outcome for outcome in outcomes if outcome is not None]


async def lot_row(tx: Tx, lot_id: UUID, actor: Actor, *, lock: bool = False) -> Row:
    """A lot that the actor may see.

    Raises
    ------
    NotFound, Forbidden
    """
    row = await tx.fetchrow(f"SELECT * FROM lot WHERE lot_id = $1 {'FOR UPDATE' if lock else ''}", lot_id)
    if row is None:
        raise NotFound(f"there is no lot {lot_id}")
    if actor.role == "partner" and row["organisation"] != actor.organisation:
        raise Forbidden("this lot is not of the token's organisation")
    if row["operation"] is not None:
        actor.require_operation(row["operation"])
    return row


async def change_lot(tx: Tx, actor: Actor, lot_id: UUID, change: LotChange) -> Row:
    """Say anew how much of it is there, where, until when; or that it may not be given any more.

    Raises
    ------
    NotFound, Forbidden
    """
    row = await lot_row(tx, lot_id, actor, lock=True)
    changes = change.changes()
    if actor.role == "partner" and changes.get("organisation", actor.organisation) != actor.organisation:
        raise _not_yours("/organisation")
    location = changes.pop("location", None)
    if location is not None:
        changes |= {"lon": location.lon, "lat": location.lat}
        if location.place is not None:
            changes["place"] = location.place
    if changes.get("place"):
        changes["place"] = _masked(changes["place"])
    if all(row[name] == value for name, value in changes.items()):
        return row
    after = dict(row) | changes
    updated = await tx.fetchrow(
        """
        UPDATE lot SET quantity = $2, lon = $3, lat = $4, place = $5, organisation = $6, delivery_limit_km = $7,
               expires_at = $8, status = $9, updated_at = $10 WHERE lot_id = $1 RETURNING *
        """,
        lot_id,
        after["quantity"],
        after["lon"],
        after["lat"],
        after["place"],
        after["organisation"],
        after["delivery_limit_km"],
        after["expires_at"],
        after["status"],
        clock.now(),
    )
    assert updated is not None
    model = ResourceWithdrawn if updated["status"] == "withdrawn" else ResourceAdjusted
    await outbox.append(tx, [model(**lot_fields(updated), by=actor.name, reason=_masked(change.reason))])
    return updated


def lot_fields(row: Row) -> dict[str, Any]:
    """A row as the fields of its event."""
    names = ("lot_id", "kind", "item", "quantity", "unit", "place", "organisation", "operation", "exercise")
    return {name: row[name] for name in names} | {
        "point": {"lon": row["lon"], "lat": row["lat"]},
        "delivery_limit_km": row["delivery_limit_km"],
        "expires_at": row["expires_at"],
        "status": row["status"],
    }


def _masked(text: str | None) -> str | None:
    """Free text on its way into an event, without the numbers and addresses that people write into it."""
    return masking.mask(text) if text else text
