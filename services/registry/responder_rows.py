"""Responders as rows: read, locked, stored, with what is sealed of them; and told as events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import h3
import orjson

from schemas.responders import ResponderState
from services.registry import proof
from services.registry.actions import Sender
from services.registry.bodies import Home
from services.registry.schedule import RENEWED_BEFORE, Schedule, windows
from services.runtime import clock, outbox, vault
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx, from_json
from services.runtime.problems import Conflict, Forbidden, NotFound

HOME_RESOLUTION = 8


def cell_of(home: Home | None) -> str | None:
    return h3.latlng_to_cell(home.lat, home.lon, HOME_RESOLUTION) if home else None


def owner(state: ResponderState) -> str:
    """Whose vault key it is: the contact id, so that a number's owner is erased by it; the responder's own id else."""
    return state.contact_id or f"responder:{state.responder_id}"


async def lock_keys(tx: Tx, keys: Sequence[str]) -> dict[str, UUID | None]:
    """Claim these keys in one order for all writers, so that two of them wait for one another and never dead-lock."""
    if not keys:
        return {}
    rows = await tx.fetch(
        "INSERT INTO known_as (key) SELECT key FROM unnest($1::text[]) AS key ORDER BY key "
        "ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING key, responder_id",
        sorted(set(keys)),
    )
    return {row["key"]: row["responder_id"] for row in rows}


async def lock_responders(tx: Tx, responder_ids: set[UUID]) -> list[Row]:
    if not responder_ids:
        return []
    return await tx.fetch(
        "SELECT * FROM responder WHERE responder_id = ANY($1) ORDER BY responder_id FOR UPDATE", list(responder_ids)
    )


@dataclass(frozen=True, slots=True)
class Entry:
    """A responder as it is kept. `state` has the contact id, the plain windows and every skill; what others are told
    is worked out of it by `told`."""

    state: ResponderState
    schedule: Schedule

    def told(self, now: datetime) -> tuple[ResponderState, datetime | None]:
        """The event, and when it must be worked out anew; None: never by itself.

        The contact id stays home: nobody needs it to plan, and a hash that never left is destroyed for good.
        """
        state = self.state
        free, holds = windows(state.availability, self.schedule, now)
        renew = [max(holds - RENEWED_BEFORE, now + timedelta(hours=1))] if holds else []
        renew += [one.valid_from for one in state.certificates if one.valid_from is not None and one.valid_from > now]
        refused = set(self.schedule.do_not_send.skills)
        event = state.model_copy(
            update={
                "contact_id": None,
                "availability": free,
                "avoids_hazards": self.schedule.do_not_send.hazards,
                "avoids_areas": self.schedule.do_not_send.areas,
                "skills": tuple(skill for skill in state.skills if skill.skill not in refused),
                "certificates": proof.in_force(state.certificates, now),
            }
        )
        return event, min(renew, default=None)


async def save(tx: Tx, entries: Sequence[Entry]) -> None:
    """Store these states, the last of each responder, and tell of each. The responders are locked by the caller."""
    if not entries:
        return
    now = clock.now()
    told = [entry.told(now) for entry in entries]
    last = {entry.state.responder_id: (entry, renew_at) for entry, (_, renew_at) in zip(entries, told, strict=True)}
    states = [entry.state for entry, _ in last.values()]
    await tx.execute(
        """
        INSERT INTO responder (responder_id, kind, status, contact_id, organisation, operation, exercise, home_cell,
                               profile, schedule, renew_at, made_at, updated_at)
        SELECT *, $12::timestamptz, $12
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::boolean[], $8::text[],
                    $9::jsonb[], $10::jsonb[], $11::timestamptz[])
        ON CONFLICT (responder_id) DO UPDATE
            SET kind = excluded.kind, status = excluded.status, contact_id = excluded.contact_id,
                organisation = excluded.organisation, operation = excluded.operation, exercise = excluded.exercise,
                home_cell = excluded.home_cell, profile = excluded.profile, schedule = excluded.schedule,
                renew_at = excluded.renew_at, updated_at = excluded.updated_at
        """,
        list(last),
        [state.kind for state in states],
        [state.status for state in states],
        [state.contact_id for state in states],
        [state.organisation for state in states],
        [state.operation for state in states],
        [state.exercise for state in states],
        [state.home_cell for state in states],
        [state.model_dump_json(include=PROFILE) for state in states],
        [entry.schedule.model_dump_json(exclude_defaults=True) for entry, _ in last.values()],
        [renew_at for _, renew_at in last.values()],
        now,
    )
    await outbox.append(tx, [event for event, _ in told])


PROFILE = {
    "skills", "certificates", "claimed_skills", "claimed_certificates", "revoked_certificates", "languages",
    "travel_limit_km", "capacity", "minimum_team", "availability", "transport", "rest_h", "max_hours_day", "channel",
    "language",
}  # fmt: skip
"""The fields of the state that stand in the column `profile`."""


def entry_of(row: Row, by: str) -> Entry:
    """A row as what its next change starts from."""
    columns = ("responder_id", "kind", "status", "contact_id", "organisation", "operation", "exercise", "home_cell")
    state = ResponderState(**{name: row[name] for name in columns}, **from_json(row["profile"]), by=by)
    return Entry(state, Schedule(**from_json(row["schedule"])))


async def seal(tx: Tx, sealed: dict[UUID, tuple[str, dict[str, Any]]]) -> None:
    held = {responder_id: entry for responder_id, entry in sealed.items() if entry[1]}
    if not held:
        return
    keys = await vault.keys(tx, [whose for whose, _ in held.values()])
    await tx.execute(
        "INSERT INTO contact (responder_id, owner, sealed) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bytea[]) "
        "ON CONFLICT (responder_id) DO UPDATE SET owner = excluded.owner, sealed = excluded.sealed",
        list(held),
        [whose for whose, _ in held.values()],
        [vault.seal_with(keys[whose], whose, orjson.dumps(private)) for whose, private in held.values()],
    )


async def contact_of(tx: Tx, responder_id: UUID) -> dict[str, Any]:
    """Name, number and exact home of a responder, as far as they are known; for their own eyes and a desk's."""
    row = await tx.fetchrow("SELECT owner, sealed FROM contact WHERE responder_id = $1", responder_id)
    if row is None:
        return {}
    value = await vault.unseal(tx, row["owner"], row["sealed"])
    found: dict[str, Any] = {} if value is None else orjson.loads(value)
    return found


async def responder_row(tx: Tx, responder_id: UUID, actor: Actor, *, or_nobodys: bool = False) -> Row:
    """A responder whom the actor may see. `or_nobodys`: a partner may deal with those of no organisation as well.

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
        actor.require("responder", "field", "operator", "auditor", "break_glass")
    if actor.role == "responder" and actor.subject != str(responder_id):
        raise Forbidden("a responder sees its own profile only")
    row = await tx.fetchrow("SELECT * FROM responder WHERE responder_id = $1 AND erased_at IS NULL", responder_id)
    if row is None:
        raise NotFound(f"there is no responder {responder_id}")
    theirs = row["organisation"] == actor.organisation or (or_nobodys and row["organisation"] is None)
    if actor.role == "partner" and not theirs:
        raise Forbidden("this responder is not of the token's organisation")
    return row


async def locked_with_keys(
    tx: Tx, actor: Actor, responder_id: UUID, more: Sequence[str] = ()
) -> tuple[Row, dict[str, UUID | None]]:
    """A responder that the actor may change, locked, with the keys by which it is known again."""
    before = await responder_row(tx, responder_id, actor)
    keys = await tx.fetch("SELECT key FROM known_as WHERE responder_id = $1", responder_id)
    known = await lock_keys(tx, [*(row["key"] for row in keys), *more])
    rows = await lock_responders(tx, {responder_id})
    if not rows or rows[0]["erased_at"] is not None or rows[0]["contact_id"] != before["contact_id"]:
        raise Conflict("this responder was changed at the same moment; please try again")
    return rows[0], known
