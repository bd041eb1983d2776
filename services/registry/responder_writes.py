"""Taking in and changing responders. What is changed is locked before its events are appended, so they keep order."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import UUID, uuid4

from schemas.responders import (
    Certificate,
    ResponderConfirmed,
    ResponderRegistered,
    ResponderState,
    ResponderUpdated,
    ResponderWithdrawn,
    Skill,
)
from services.channels import outbound
from services.registry import codes, consent, proof
from services.registry.actions import Outcome, Sender, exercises, masked, not_yours, unknown_operation
from services.registry.bodies import Registration, ResponderChange
from services.registry.codes import Addressee
from services.registry.domain import Standing, misfit, source_of, taken
from services.registry.responder_rows import (
    Entry,
    cell_of,
    contact_of,
    entry_of,
    lock_keys,
    lock_responders,
    locked_with_keys,
    owner,
    save,
    seal,
)
from services.registry.schedule import Schedule
from services.runtime import clock, vault
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import Conflict, Fault, Forbidden, Invalid

_PLAIN = (
    "languages", "travel_limit_km", "availability", "transport", "rest_h", "max_hours_day", "channel", "language",
)  # fmt: skip
"""Fields that go from a body into the state as they are."""


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
    return Candidate(order, contact, alias, cell_of(order.location))


def _alias(source: str, external_id: str) -> str:
    """A keyed hash, because an organisation may well number its people by their identity cards."""
    digest = hmac.new(vault.contact_key(), f"{len(source)}:{source}{external_id}".encode(), hashlib.sha256)
    return "x" + digest.hexdigest()[:40]


def _standing(order: Registration, sender: Sender) -> Standing:
    """How far this row is trusted: whoever is only passed on speaks for themselves."""
    return "public" if order.confirm_by == "code" else sender.standing


async def limits_of(tx: Tx, organisation: str | None) -> Collection[str] | None:
    """The skills and certificates that an organisation may check; None: any, for its own people."""
    if organisation is None:
        return None
    found: list[str] | None = await tx.fetchval("SELECT may_verify FROM organisation WHERE id = $1", organisation)
    return found


async def register(tx: Tx, sender: Sender, candidates: Sequence[Candidate]) -> list[Outcome]:
    """Take these registrations, each once: a row is known again by its source's own id, a person by their number.

    A row that repeats a known id changes nothing; a known number updates its responder and makes no second one.
    Whoever is to confirm with a code is sent one, at most one a day for each number.
    """
    known = await lock_keys(tx, [key for c in candidates for key in (c.contact_id, c.alias) if key])
    rows = await lock_responders(tx, {found for found in known.values() if found})
    entries = {row["responder_id"]: entry_of(row, by=sender.by) for row in rows}
    drills = await exercises(tx, {c.order.operation for c in candidates})
    limits = await limits_of(tx, sender.organisation) if sender.standing == "partner" else None
    sealed: dict[UUID, tuple[str, dict[str, Any]]] = {}
    outcomes: list[Outcome] = []
    changed: list[Entry] = []
    to_confirm: list[tuple[Addressee, str]] = []
    for entry in candidates:
        order = entry.order
        standing = _standing(order, sender)
        if order.operation not in drills:
            outcomes.append(Outcome("refused", error=unknown_operation(order.operation)))
            continue
        repeated = known.get(entry.alias) if entry.alias else None
        if repeated is not None:
            outcomes.append(Outcome("repeated", repeated, entries[repeated].state.status))
            continue
        organisation = sender.organisation if sender.standing == "partner" else order.organisation
        there = entries.get(known[entry.contact_id]) if entry.contact_id and known[entry.contact_id] else None
        if sender.standing == "partner" and order.organisation not in (None, sender.organisation):
            outcomes.append(Outcome("refused", error=not_yours("/organisation")))
            continue
        if there is not None:
            before = there.state
            verdict = taken(
                standing,
                organisation,
                order.kind,
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
                to_confirm += _to_confirm(entry, before)
                continue
        after = _registered(entry, there, sender, standing, organisation, drills[order.operation], limits)
        state = after.state
        if there is None or differs(there, after):
            changed.append(after)
        entries[state.responder_id] = after
        for key in (entry.contact_id, entry.alias):
            if key:
                known[key] = state.responder_id
        private = sealed[state.responder_id][1] if state.responder_id in sealed else None
        if private is None and there is not None and not _whole(order):
            private = await contact_of(tx, state.responder_id)
        sealed[state.responder_id] = (owner(state), (private or {}) | _private(order))
        what: Literal["made", "updated"] = "made" if there is None else "updated"
        outcomes.append(Outcome(what, state.responder_id, state.status))
        if standing == "public":
            to_confirm += _to_confirm(entry, state)
    await save(tx, changed)
    await seal(tx, sealed)
    await tx.execute(
        "UPDATE known_as SET responder_id = t.responder_id FROM unnest($1::text[], $2::uuid[]) AS t(key, responder_id) "
        "WHERE known_as.key = t.key AND known_as.responder_id IS NULL",
        list(known),
        list(known.values()),
    )
    if any(outcome.what == "refused" for outcome in outcomes):
        await tx.execute("DELETE FROM known_as WHERE key = ANY($1) AND responder_id IS NULL", list(known))
    agreed = [
        (outcome.id, purpose)
        for outcome, entry in zip(outcomes, candidates, strict=True)
        if outcome.what in ("made", "updated") and outcome.id is not None
        for purpose in entry.order.consents
        if entries[outcome.id].state.status != "withdrawn"
    ]
    await consent.give(tx, agreed, sender.by)
    await send_codes(tx, to_confirm)
    return outcomes


def _to_confirm(entry: Candidate, state: ResponderState) -> list[tuple[Addressee, str]]:
    if entry.contact_id is None or entry.order.phone is None:
        return []
    language = entry.order.language or state.language
    return [(Addressee(state.responder_id, entry.contact_id, language or "id"), entry.order.phone)]


async def send_codes(tx: Tx, people: Sequence[tuple[Addressee, str]]) -> None:
    """Send each of these numbers a code, unless it got one within a day."""
    numbers = {person.contact_id: number for person, number in people}
    now = clock.now()
    await outbound.enqueue(
        tx,
        [
            outbound.Message(
                about=f"code:{sent.to.contact_id}:{now.isoformat()}",
                contact=sent.to.contact_id,
                to=numbers[sent.to.contact_id],
                template="confirm_code",
                values={"code": sent.code},
                language=sent.to.language,
                kind="code",
                expires_at=now + codes.LIVES,
            )
            for sent in await codes.issue(tx, [person for person, _ in people])
        ],
    )


def _registered(
    entry: Candidate,
    there: Entry | None,
    sender: Sender,
    standing: Standing,
    organisation: str | None,
    exercise: bool,
    limits: Collection[str] | None,
) -> Entry:
    """The responder after this registration. What it does not name stays as it was known."""
    order = entry.order
    trusted = standing != "public"
    if there is None:
        model: type[ResponderState] = ResponderConfirmed if trusted else ResponderRegistered
        # Not ordered by time: the age of an id would tell whoever types a number that it was known before.
        fields: dict[str, Any] = {"responder_id": uuid4(), "operation": order.operation}
        named = set(Registration.model_fields)
    else:
        before = there.state
        if trusted:
            model = ResponderUpdated if before.status == "confirmed" else ResponderConfirmed
        else:
            model = ResponderUpdated if before.status == "unconfirmed" else ResponderRegistered
        fields = _fields(before)
        named = order.model_fields_set
        organisation = organisation or before.organisation
        if order.operation is None or (exercise and not before.exercise):
            # A drill that names somebody who serves in life must not take them out of it.
            fields["operation"], exercise = before.operation, before.exercise
        else:
            fields["operation"] = order.operation
    fields |= {name: getattr(order, name) for name in _PLAIN if name in named}
    fields |= _claims(order, named, there.state if there else None, sender.by if trusted else None, limits)
    # These three are one statement about who comes: half of it would contradict the other half.
    fields |= {"kind": order.kind, "capacity": order.capacity, "minimum_team": order.minimum_team}
    if entry.home_cell:
        fields["home_cell"] = entry.home_cell
    if entry.contact_id:
        fields["contact_id"] = entry.contact_id
    status = "confirmed" if trusted else "unconfirmed"
    if trusted and there is not None and there.state.status == "withdrawn":
        # A list does not undo what the person said: they come back by their own code, or at a desk that is told so.
        model, status = ResponderUpdated, "withdrawn"
    state = model(
        **fields
        | {
            "status": status,
            "organisation": organisation,
            "exercise": exercise,
            "by": sender.by,
            "reason": None,
        }
    )
    return Entry(state, _schedule(order, named, there.schedule if there else Schedule()))


def _fields(state: ResponderState) -> dict[str, Any]:
    """The state's fields as they are, without turning their parts into plain values."""
    return {name: getattr(state, name) for name in ResponderState.model_fields}


def _claims(
    order: Registration | ResponderChange,
    named: Collection[str],
    before: ResponderState | None,
    by: str | None,
    limits: Collection[str] | None,
) -> dict[str, Any]:
    """Skills and certificates of a body, as far as it names them: what counts, and what is only claimed."""
    fields: dict[str, Any] = {}
    if "skills" in named:
        told = [Skill(skill=one.skill, level=one.level) for one in order.skills]
        counting, claimed = proof.weigh_skills(told, before.skills if before else (), by, limits)
        fields |= {"skills": counting, "claimed_skills": claimed}
    if "certificates" in named:
        papers = [
            Certificate(**one.model_dump(exclude={"issuer"}), issuer=masked(one.issuer)) for one in order.certificates
        ]
        held, more = proof.weigh_certificates(papers, before.certificates if before else (), by, limits)
        fields |= {"certificates": held, "claimed_certificates": more}
    return fields


def _schedule(order: Registration | ResponderChange, named: Collection[str], before: Schedule) -> Schedule:
    changes = {name: getattr(order, name) for name in Schedule.model_fields if name in named}
    return before.model_copy(update=changes) if changes else before


def differs(before: Entry, after: Entry) -> bool:
    """Whether anything that is known of the responder changed, beside who said so."""
    told = {"by": "", "reason": None}
    return before.schedule != after.schedule or _fields(before.state) | told != _fields(after.state) | told


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


def refuse_readers(actor: Actor) -> None:
    """Refuse those who may look and nothing else.

    Raises
    ------
    Forbidden
    """
    if actor.role in ("auditor", "break_glass"):
        raise Forbidden(f"the role {actor.role} reads and changes nothing")


async def change_responder(tx: Tx, actor: Actor, responder_id: UUID, change: ResponderChange) -> ResponderState:
    """Change a responder. `status` confirmed by a desk says that the desk has seen them and their papers, so what they
    claimed counts from then on.

    Raises
    ------
    NotFound, Forbidden
    Conflict
        The new number belongs to another responder.
    Invalid
        What results does not go together.
    """
    refuse_readers(actor)
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
    row, known = await locked_with_keys(tx, actor, responder_id, [new_contact] if new_contact else [])
    there = entry_of(row, by=actor.name)
    before = there.state
    by = None if actor.role == "responder" else actor.name
    limits = await limits_of(tx, actor.organisation) if actor.role == "partner" else None
    # What is asked for by name goes in as it is; skills and certificates are weighed, the schedule stands apart.
    plain = {*_PLAIN, "organisation", "capacity", "minimum_team", "status"}
    fields = _fields(before) | {name: value for name, value in changes.items() if name in plain}
    fields |= _claims(change, changes.keys(), before, by, limits)
    found = misfit(fields["kind"], fields["capacity"], fields["minimum_team"])
    if found:
        raise Invalid(f"/{found[0]}: {found[1]}", [Fault(f"/{found[0]}", found[1])])
    if "location" in changes:
        fields["home_cell"] = cell_of(change.location)
    if "phone" in changes:
        fields["contact_id"] = new_contact
    if new_contact and known[new_contact] not in (None, responder_id):
        raise Conflict("this number belongs to another responder", [Fault("/phone", "belongs to another responder")])
    model: type[ResponderState] = ResponderUpdated
    if fields["status"] != before.status:
        model = ResponderConfirmed if fields["status"] == "confirmed" else ResponderWithdrawn
    if by is not None and changes.get("status") == "confirmed":
        fields |= checked(fields, by, limits)
    state = model(**fields | {"by": actor.name, "reason": masked(change.reason)})
    after = replace(there, state=state, schedule=_schedule(change, changes.keys(), there.schedule))
    if {"name", "phone", "location"} & changes.keys():
        private = await contact_of(tx, responder_id)
        for name in ("name", "phone", "location"):
            if name in changes:
                private.pop(name, None)
        private |= _private(change)
        if before.contact_id != state.contact_id:
            # Sealed anew under the key of the new number; that of the old one is nobody's any more.
            await vault.erase(tx, owner(before))
            if before.contact_id:
                await tx.execute("DELETE FROM known_as WHERE key = $1", before.contact_id)
                await tx.execute("DELETE FROM code WHERE contact_id = $1", before.contact_id)
                await outbound.forget(tx, before.contact_id)
        await tx.execute("DELETE FROM contact WHERE responder_id = $1", responder_id)
        await seal(tx, {responder_id: (owner(state), private)})
    if by is not None and state.status == "confirmed" != before.status:
        await consent.give(tx, [(responder_id, consent.DISPATCH)], actor.name)
    if differs(there, after):
        await save(tx, [after])
        if new_contact:
            await tx.execute("UPDATE known_as SET responder_id = $2 WHERE key = $1", new_contact, responder_id)
    return state


def checked(fields: dict[str, Any], by: str, limits: Collection[str] | None) -> dict[str, Any]:
    """All that is claimed, as seen by `by` where it may judge that."""
    skills, claimed = proof.check(fields["skills"], fields["claimed_skills"], None, by, limits)
    papers: Sequence[Certificate] = fields["claimed_certificates"]
    seen = [one for one in papers if proof.may_check(one.code, limits)]
    held = {one.code: one for one in fields["certificates"]}
    held |= {one.code: one.model_copy(update={"verified_by": by}) for one in seen}
    return {
        "skills": skills,
        "claimed_skills": claimed,
        "certificates": tuple(held.values()),
        "claimed_certificates": tuple(one for one in papers if one not in seen),
    }
