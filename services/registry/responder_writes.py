"""Writes of responders. Each locks what it changes before its events are appended, so they leave in that order."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID, uuid4

import h3
import orjson

from schemas.responders import (
    ResponderConfirmed,
    ResponderRegistered,
    ResponderState,
    ResponderUpdated,
    ResponderWithdrawn,
)
from services.registry.actions import Outcome, Sender, exercises, masked, not_yours, unknown_operation
from services.registry.bodies import Home, Registration, ResponderChange
from services.registry.domain import misfit, source_of, taken
from services.runtime import clock, outbox, vault
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx, from_json
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid, NotFound

HOME_RESOLUTION = 8


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
    drills = await exercises(tx, {c.order.operation for c in candidates})
    sealed: dict[UUID, tuple[str, dict[str, Any]]] = {}
    outcomes: list[Outcome] = []
    events: list[ResponderState] = []
    for entry in candidates:
        if entry.order.operation not in drills:
            outcomes.append(Outcome("refused", error=unknown_operation(entry.order.operation)))
            continue
        repeated = known.get(entry.alias) if entry.alias else None
        if repeated is not None:
            outcomes.append(Outcome("repeated", repeated, states[repeated].status))
            continue
        organisation = sender.organisation if sender.standing == "partner" else entry.order.organisation
        before = states.get(known[entry.contact_id]) if entry.contact_id and known[entry.contact_id] else None
        if sender.standing == "partner" and entry.order.organisation not in (None, sender.organisation):
            outcomes.append(Outcome("refused", error=not_yours("/organisation")))
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
        event = _registered(entry, before, sender, organisation, drills[entry.order.operation])
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
        raise not_yours("/organisation")
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
    after = model(**fields | {"by": actor.name, "reason": masked(change.reason)})
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
