"""The read models are made again from the log, from the database itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from click.testing import CliRunner, Result

from bench.sitrep_story import Story
from gotong.__main__ import main
from services.runtime.db import Database
from services.sitrep import log, reporting
from services.sitrep.domain import Scope


async def command(*words: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(main, ["rebuild", *words], catch_exceptions=False))


async def test_damaged_read_models_are_made_again_and_the_report_is_what_it_was(
    make_db: Callable[[str], Database], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = make_db("sitrep")
    told = list(Story(71).events(300))
    async with db.tx() as tx:
        await log.append(tx, [each.envelope() for each in told])

    async def report() -> bytes:
        async with db.tx() as tx:
            return reporting.rendered(await reporting.document(tx, len(told), Scope(), exact=True), "json", "id")

    before = await report()
    async with db.tx() as tx:
        await tx.execute("DELETE FROM incident")
        await tx.execute("UPDATE need SET quantity = quantity + 1")
    assert await report() != before
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    result = await command()
    assert (result.exit_code, result.output) == (
        0,
        f"sitrep: read models made again from the log up to position {len(told)}\n",
    )
    assert await report() == before


async def test_a_database_that_is_not_there_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTONG_DATABASE", "postgresql://nobody@127.0.0.1:9/none")
    result = await command()
    assert result.exit_code == 1
    assert "The database cannot be reached" in result.output
