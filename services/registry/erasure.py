"""Forgetting a person: their keys and hashes are destroyed. Journal and topics stay valid, for no name was in them.

Who was erased stands in a file beside the database too (`<data>/erasures/registry`, ids alone): a backup that is older
than an erasure is erased again when it is restored, before it opens.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID, uuid4

from schemas.erasures import ContactErased
from schemas.responders import ResponderWithdrawn
from services.channels import outbound
from services.registry.responder_rows import Entry, entry_of, lock_keys, lock_responders, locked_with_keys, owner, save
from services.registry.responder_writes import refuse_readers
from services.registry.schedule import Schedule
from services.runtime import clock, erasures, outbox, redaction, vault
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx


async def erase_responder(tx: Tx, actor: Actor, responder_id: UUID) -> None:
    """Forget a person who asks for it, or for whom a desk does.

    Raises
    ------
    NotFound, Forbidden, Conflict
    """
    refuse_readers(actor)
    row, _ = await locked_with_keys(tx, actor, responder_id)
    await forget(tx, row, actor.name)


async def forget(tx: Tx, row: Row, by: str) -> None:
    """Destroy the keys and hashes of a locked responder, blank the profile, and tell the others that they are gone:
    matching, which asks them no more, and intake, which may know what they wrote.

    What stays is the id, which the events name, and the keyed hashes of lists that named the person: a list that is
    sent again must not bring them back.
    """
    before = entry_of(row, by=by).state
    responder_id = before.responder_id
    contact = await tx.fetchval("DELETE FROM contact WHERE responder_id = $1 RETURNING owner", responder_id)
    for whose in {contact, before.contact_id, owner(before)} - {None}:
        await vault.erase(tx, str(whose))
    await tx.execute("DELETE FROM code WHERE responder_id = $1", responder_id)
    await tx.execute("UPDATE offer SET contact = NULL WHERE responder_id = $1", responder_id)
    await tx.execute("UPDATE site SET manager = NULL WHERE manager = $1", responder_id)
    if before.contact_id:
        await tx.execute("DELETE FROM known_as WHERE key = $1", before.contact_id)
        await tx.execute("DELETE FROM duty WHERE contact = $1", before.contact_id)
        await outbound.forget(tx, before.contact_id)
    now = clock.now()
    await tx.execute(
        "UPDATE consent SET withdrawn_at = $2, withdrawn_by = $3 WHERE responder_id = $1 AND withdrawn_at IS NULL",
        responder_id,
        now,
        by,
    )
    gone = ResponderWithdrawn(
        responder_id=responder_id,
        kind=before.kind,
        status="withdrawn",
        operation=before.operation,
        exercise=before.exercise,
        by=by,
        reason="erased",
    )
    await save(tx, [Entry(gone, Schedule())])
    await tx.execute("UPDATE responder SET erased_at = $2, leader = false WHERE responder_id = $1", responder_id, now)
    await tx.execute(
        "INSERT INTO erasure (responder_id, erased_at, by) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        responder_id,
        now,
        by,
    )
    if before.contact_id:
        await outbox.append(tx, [ContactErased(erasure_id=uuid4(), contact_id=before.contact_id, by=by)])
    await tx.notify(erasures.CHANNEL)


async def replay(tx: Tx, erased: Collection[UUID], by: str) -> int:
    """Erase again whoever is on this list and came back with a restored backup; returns how many those were."""
    keys = await tx.fetch("SELECT key FROM known_as WHERE responder_id = ANY($1)", list(erased))
    await lock_keys(tx, [row["key"] for row in keys])
    rows = [row for row in await lock_responders(tx, set(erased)) if row["erased_at"] is None]
    for row in rows:
        await forget(tx, row, by)
    return len(rows)


async def forgotten(tx: Tx, erasure_id: UUID, source: str) -> None:
    """Take the contact id out of the event that told of an erasure, now that all is done that it asked for. `source`:
    how this service's events are signed."""
    event_id = await tx.fetchval(
        "SELECT id FROM journal WHERE topic = $1 AND subject = $2 "
        "UNION ALL SELECT id FROM outbox WHERE topic = $1 AND subject = $2",
        ContactErased.topic,
        str(erasure_id),
    )
    if event_id is not None:
        await redaction.redact(tx, source, event_id, by="system:registry", reason="the erasure is done")
