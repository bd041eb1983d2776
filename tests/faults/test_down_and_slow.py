"""What is away, slow, full, doubled or out of time costs nothing that was accepted, and heals by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from gotong.local.postgres import Postgres
from gotong.local.process import free_port
from services.runtime.db import Database
from tests.faults.harness import Proxy

# -- one pool behind a proxy


@pytest_asyncio.fixture
async def frozen_at_will(postgres: Postgres, dsn: str) -> AsyncIterator[tuple[Proxy, Database]]:
    """A proxy before the database, and a pool of one connection through it, which is open."""
    port = free_port()
    proxy = Proxy({"postgres": (port, postgres.port)})
    db = Database(dsn.replace(f":{urlsplit(dsn).port}/", f":{port}/"), "intake", pool_size=1)
    await db.ping()
    yield proxy, db
    await db.close()
    proxy.close()


@pytest.mark.parametrize("moment", ["before it begins", "in the middle", "at its end"])
async def test_a_transaction_given_up_leaves_no_connection_that_commits_nothing(frozen_at_will, dsn, moment):
    proxy, db = frozen_at_will
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.4):
            if moment == "before it begins":
                proxy.order("freeze", "postgres")
            async with db.tx() as tx:
                await tx.execute("INSERT INTO inbox_fact VALUES ('given up', '1', now())")
                if moment == "in the middle":
                    proxy.order("freeze", "postgres")
                    await tx.execute("INSERT INTO inbox_fact VALUES ('given up', '2', now())")
                proxy.order("freeze", "postgres")
    assert time.monotonic() - begun < 2, "giving up waited for a server that does not answer"
    proxy.order("thaw", "postgres")
    async with db.tx() as tx:
        await tx.execute("INSERT INTO inbox_fact VALUES ('kept', '1', now())")
    outside = await asyncpg.connect(dsn)
    try:
        assert await outside.fetchval("SELECT count(*) FROM intake.inbox_fact WHERE source = 'kept'") == 1
    finally:
        await outside.close()
