"""The timers: offers that nobody answered end by the clock, and somebody asks after promises of which nothing is heard,
however often the worker was started again meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from services.matching import silence
from services.matching.settings import MatchingSettings
from services.runtime.db import Database

EVERY_S = 0.5
BATCH = 200


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Until `stopping`: end what is due, twice a second. What is due stands in the table, not in memory."""
    settings = MatchingSettings()
    while not stopping.is_set():
        async with db.tx() as tx:
            ended = await silence.expire_offers(tx, limit=BATCH, settings=settings)
        async with db.tx() as tx:
            unheard = await silence.ask_after_silent(tx, limit=BATCH)
        if max(ended, unheard) < BATCH:
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), EVERY_S)
