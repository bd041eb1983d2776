"""Lets warnings end when their time is over, and drafts readiness for operations that open while a warning runs."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.intake.warning_writes import expire_due, ready_all
from services.runtime import clock
from services.runtime.db import Database

_POLL_S = 2.0
_AT_ONCE = 20  # warnings in one transaction: whoever sends one in must not wait for all of them
_READY_EVERY = 10
"""So many polls lie between two looks at the operations."""


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Look every two seconds until the process stops."""
    turn = 0
    while not stopping.is_set():
        await tick(db, readiness=turn % _READY_EVERY == 0)
        turn += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), _POLL_S)


async def tick(db: Database, *, readiness: bool = True) -> int:
    """Expire what is due, and see to readiness; returns how many warnings expired."""
    async with db.tx() as tx:
        due = await tx.fetchval(
            "SELECT EXISTS (SELECT FROM warning WHERE state = 'active' AND expires_at <= $1)", clock.now()
        )
        expired = await expire_due(tx) if due else 0
    if readiness:
        async with db.tx() as tx:
            running = await tx.fetch("SELECT warning_id FROM warning WHERE state = 'active' ORDER BY seq")
        ids = [row["warning_id"] for row in running]
        for start in range(0, len(ids), _AT_ONCE):
            async with db.tx() as tx:
                await ready_all(tx, ids[start : start + _AT_ONCE])
    return expired
