"""Forgetting a person: their keys and hashes are destroyed. Journal and topics stay valid, for no name was in them.

Who was erased stands in a file beside the database too (`<data>/erasures/registry`, ids alone): a backup that is older
than an erasure is erased again when it is restored, before it opens.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from schemas.responders import ResponderWithdrawn
from services.channels import outbound
from services.registry.responder_rows import Entry, entry_of, lock_keys, lock_responders, locked_with_keys, owner, save
from services.registry.responder_writes import refuse_readers
from services.registry.schedule import Schedule
from services.runtime import clock, vault
from services.runtime.auth import Actor
from services.runtime.db import Database, Row, Tx
from services.runtime.settings import Settings

CHANNEL = "erasures"


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
    """Destroy the keys and hashes of a locked responder, blank the profile, and tell matching that they are gone.

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
    await tx.notify(CHANNEL)


async def replay(tx: Tx, erased: Collection[UUID], by: str) -> int:
    """Erase again whoever is on this list and came back with a restored backup; returns how many those were."""
    keys = await tx.fetch("SELECT key FROM known_as WHERE responder_id = ANY($1)", list(erased))
    await lock_keys(tx, [row["key"] for row in keys])
    rows = [row for row in await lock_responders(tx, set(erased)) if row["erased_at"] is None]
    for row in rows:
        await forget(tx, row, by)
    return len(rows)


def path_in(data: Path) -> Path:
    """Where an installation notes who was erased."""
    return data / "erasures" / "registry"


def read(path: Path) -> set[UUID]:
    """The ids in such a file.

    Raises
    ------
    OSError, ValueError
    """
    return {UUID(line) for line in path.read_text("ascii").split()}


def write(path: Path, erased: Collection[UUID]) -> None:
    """Put the file in place whole, with what it held before: nobody is ever taken off this list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = set(erased) | (read(path) if path.exists() else set())
    fresh = path.with_suffix(f".{os.getpid()}")
    with fresh.open("w", encoding="ascii") as out:
        out.writelines(f"{one}\n" for one in sorted(every))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


async def keep_list(db: Database, stopping: asyncio.Event) -> None:
    """Keep the file beside the database in step, until told to stop."""
    path = path_in(Settings.of("registry").data)
    wake, known = asyncio.Event(), -1
    listener = await db.listen([CHANNEL], wake)
    try:
        while not stopping.is_set():
            wake.clear()
            known = await note(db, path, known)
            try:
                async with asyncio.timeout(5):
                    await wake.wait()
            except TimeoutError:
                continue
    finally:
        if not listener.is_closed():
            await listener.close()


async def note(db: Database, path: Path, known: int = -1) -> int:
    """Write the file when more people are erased than `known`; returns how many are."""
    async with db.tx() as tx:
        if await tx.fetchval("SELECT count(*) FROM erasure") == known:
            return known
        erased = {row["responder_id"] for row in await tx.fetch("SELECT responder_id FROM erasure")}
    await asyncio.to_thread(write, path, erased)
    return len(erased)
