"""A walk along the journals finds one changed byte, a missing row and a cut tail, and names the first bad row."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka.structs import RecordMetadata, TopicPartition
from click.testing import CliRunner, Result

from gotong.__main__ import main
from gotong.local.folders import scratch_folder
from gotong.local.postgres import Postgres
from schemas.event import Meta
from services.runtime import clock, journal
from services.runtime.db import Database
from services.runtime.journal import Entry
from services.runtime.migrations import migrate_all

MakeDb = Callable[[str], Database]


async def fill(db: Database, count: int) -> tuple[int, bytes]:
    """Journal rows as the relay writes them; returns the head."""
    topic = "gotong.reports.v1"
    entries = [
        Entry(
            Meta(str(uuid4()), f"/gotong/test/{db.schema}", "gotong.report.received.v1", str(n), clock.now(), n + 1),
            topic,
            str(n),
            json.dumps({"n": n}).encode(),
        )
        for n in range(count)
    ]
    places = [RecordMetadata(topic, 0, TopicPartition(topic, 0), n, None, None, None) for n in range(count)]
    async with db.tx() as tx:
        return await journal.write(tx, entries, places)


async def tamper(db: Database, sql: str) -> None:
    """Change the journal as only somebody with the database's password can."""
    async with db.tx() as tx:
        await tx.execute("ALTER TABLE journal DISABLE TRIGGER journal_append_only")
        await tx.execute(sql)
        await tx.execute("ALTER TABLE journal ENABLE TRIGGER journal_append_only")


async def verify(data: Path, *words: str) -> Result:
    def invoke() -> Result:
        return CliRunner().invoke(main, ["audit", "verify", "--data", str(data), *words], catch_exceptions=False)

    return await asyncio.to_thread(invoke)


@pytest.fixture
def data(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    return tmp_path


async def test_whole_journals_are_told_for_each_service(make_db: MakeDb, data: Path) -> None:
    await fill(make_db("intake"), 12)
    await fill(make_db("intake"), 3)
    await fill(make_db("sitrep"), 2)
    result = await verify(data)
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "registry: 0 rows: ok",
        "intake: 15 rows: ok",
        "matching: 0 rows: ok",
        "sitrep: 2 rows: ok",
        "exchange: 0 rows: ok",
    ]


async def test_a_redacted_payload_is_counted_and_no_fault(make_db: MakeDb, data: Path) -> None:
    db = make_db("intake")
    await fill(db, 5)
    async with db.tx() as tx:  # the one change that the trigger lets through
        await tx.execute("UPDATE journal SET payload = NULL WHERE position = 3")
    result = await verify(data, "--service", "intake")
    assert (result.exit_code, result.stdout) == (0, "intake: 5 rows, 1 redacted: ok\n")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "UPDATE journal SET payload = set_byte(payload, 1, 88) WHERE position = 7",
            "the payload of row 7 was changed",
        ),
        ("UPDATE journal SET payload_sha256 = set_byte(payload_sha256, 0, 0) WHERE position = 7", "row 7 was changed"),
        ("UPDATE journal SET subject = 'another' WHERE position = 7", "row 7 was changed"),
        ("UPDATE journal SET exercise = true WHERE position = 7", "row 7 was changed"),
        ("UPDATE journal SET operation = 'another' WHERE position = 7", "row 7 was changed"),
        ("UPDATE journal SET time = time + interval '1 microsecond' WHERE position = 7", "row 7 was changed"),
        (
            "UPDATE journal SET hash = set_byte(hash, 31, get_byte(hash, 31) # 1) WHERE position = 7",
            "row 7 was changed",
        ),
        ("DELETE FROM journal WHERE position = 7", "row 7 is missing"),
        ("DELETE FROM journal WHERE position = 1", "row 1 is missing"),
        ("UPDATE journal SET position = position + 100 WHERE position > 6", "row 7 is missing"),
    ],
)
async def test_what_was_tampered_with_is_named(make_db: MakeDb, data: Path, sql: str, said: str) -> None:
    db = make_db("intake")
    await fill(db, 12)
    await fill(make_db("sitrep"), 2)
    await tamper(db, sql)
    result = await verify(data)
    assert result.exit_code == 1
    assert said in next(line for line in result.stdout.splitlines() if line.startswith("intake:"))
    assert "sitrep: 2 rows: ok" in result.stdout
    assert "The journal of intake is not whole: " in result.stderr
    assert said in result.stderr


async def test_a_cut_tail_shows_by_the_head_noted_beside_the_database(make_db: MakeDb, data: Path) -> None:
    db = make_db("intake")
    journal.write_head(data, "intake", *await fill(db, 12))
    assert (await verify(data)).exit_code == 0
    await fill(db, 3)
    assert (await verify(data)).exit_code == 0
    await tamper(db, "DELETE FROM journal WHERE position > 11")
    result = await verify(data)
    assert result.exit_code == 1
    assert "the tail was cut: row 12 was noted, the chain ends at 11" in result.stdout


async def test_a_tail_that_was_written_anew_shows_by_the_noted_head(make_db: MakeDb, data: Path) -> None:
    db = make_db("intake")
    journal.write_head(data, "intake", *await fill(db, 12))
    await tamper(db, "DELETE FROM journal WHERE position > 10")
    await fill(db, 5)
    result = await verify(data)
    assert result.exit_code == 1
    assert "row 12 differs from the noted head" in result.stdout


async def test_a_database_that_is_none_of_ours_is_told_plainly(
    postgres: object, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTONG_DATABASE", postgres.dsn("postgres"))  # type: ignore[attr-defined]
    result = await verify(data)
    assert result.exit_code == 1
    assert "no journal of registry" in result.stderr


async def test_the_embedded_database_is_started_when_nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOTONG_DATABASE", raising=False)
    folder = scratch_folder("gotong-test-")
    try:
        server = Postgres(folder / "postgres", say=lambda _: None)
        await migrate_all(server.start())
        db = Database(server.dsn(), "intake")
        await fill(db, 4)
        await db.close()
        server.stop()
        result = await verify(folder, "--service", "intake")
        assert (result.exit_code, result.stdout) == (0, "intake: 4 rows: ok\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


async def test_a_folder_without_a_database_is_left_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOTONG_DATABASE", raising=False)
    result = await verify(tmp_path)
    assert result.exit_code == 1
    assert "give the right --data" in result.stderr
    assert os.listdir(tmp_path) == []  # noqa: PTH208  # nothing was made


async def test_a_database_that_does_not_answer_is_told_plainly(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTONG_DATABASE", "postgresql://gotong:x@127.0.0.1:9/gotong")
    result = await verify(data)
    assert result.exit_code == 1
    assert "cannot be reached" in result.stderr
