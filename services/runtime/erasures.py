"""The list of who was erased, beside the database: a backup that is older is erased again by it when it is restored.

Each service that forgets people has a table `erasure` (id, erased_at, by) and a file `<data>/erasures/<service>` with
these ids and nothing else. Nobody is ever taken off a list.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection
from pathlib import Path
from uuid import UUID

from services.runtime.db import Database, Tx, wait_any
from services.runtime.settings import Settings

CHANNEL = "erasures"


def path_in(data: Path, service: str) -> Path:
    """Where an installation notes whom a service has erased."""
    return data / "erasures" / service


def read(path: Path) -> set[UUID]:
    """The ids in such a file.

    Raises
    ------
    OSError, ValueError
    """
    return {UUID(line) for line in path.read_text("ascii").split()}


def write(path: Path, erased: Collection[UUID]) -> None:
    """Put the file in place whole, with what it held before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = set(erased) | (read(path) if path.exists() else set())
    fresh = path.with_suffix(f".{os.getpid()}")
    with fresh.open("w", encoding="ascii") as out:
        out.writelines(f"{one}\n" for one in sorted(every))
        out.flush()
        os.fsync(out.fileno())
    fresh.replace(path)


async def keep_list(db: Database, stopping: asyncio.Event) -> None:
    """Keep the service's file in step with its table, until told to stop."""
    path = path_in(Settings.of(db.schema).data, db.schema)
    wake, known = asyncio.Event(), -1
    listener = await db.listen([CHANNEL], wake)
    try:
        while not stopping.is_set():
            wake.clear()
            known = await note(db, path, known)
            await wait_any(wake, stopping, timeout_s=5)
    finally:
        if not listener.is_closed():
            await listener.close()


async def note(db: Database, path: Path, known: int = -1) -> int:
    """Write the file when more are erased than `known`; returns how many are."""
    async with db.tx() as tx:
        if await tx.fetchval("SELECT count(*) FROM erasure") == known:
            return known
        erased = await listed(tx, db.schema)
    await asyncio.to_thread(write, path, erased)
    return len(erased)


async def listed(tx: Tx, service: str) -> set[UUID]:
    """Every id that a service has erased."""
    # The id stands first, whatever it is of.
    return {row[0] for row in await tx.fetch(f'SELECT * FROM "{service}".erasure')}
