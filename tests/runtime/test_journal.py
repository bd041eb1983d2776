"""The chain names one changed byte, a missing row, and a cut tail."""

from __future__ import annotations

from uuid import uuid4

import asyncpg
import pytest
from aiokafka.structs import RecordMetadata, TopicPartition

from schemas.event import Meta
from services.runtime import clock, journal
from services.runtime.journal import Entry


def place(offset: int) -> RecordMetadata:
    return RecordMetadata("t", 0, TopicPartition("t", 0), offset, 0, 0, 0)


@pytest.fixture
async def chain(make_db, dsn):
    """A journal of 25 rows; yields a connection and the newest position and hash."""
    db = make_db("intake")
    entries = []
    for number in range(25):
        meta = Meta(str(uuid4()), "/gotong/t/intake", "gotong.report.received.v1", "s", clock.now(), number + 1)
        entries.append(Entry(meta, "gotong.reports.v1", "k", b'{"n": %d}' % number))
    async with db.tx() as tx:
        await journal.write(tx, entries[:10], [place(n) for n in range(10)])
    async with db.tx() as tx:
        head = await journal.write(tx, entries[10:], [place(n) for n in range(10, 25)])
    connection = await asyncpg.connect(dsn)
    yield connection, head
    await connection.close()


async def tamper(connection, sql: str) -> None:
    """Change rows behind the trigger's back, as whoever owns the database could."""
    await connection.execute("ALTER TABLE intake.journal DISABLE TRIGGER journal_append_only")
    await connection.execute(sql)
    await connection.execute("ALTER TABLE intake.journal ENABLE TRIGGER journal_append_only")


async def test_an_untouched_chain_verifies(chain):
    connection, head = chain
    verdict = await journal.verify(connection, "intake", head)
    assert (verdict.fault, verdict.rows) == (None, 25)


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("UPDATE intake.journal SET payload = '{\"n\": 9}' WHERE position = 7", "the payload of row 7 was changed"),
        ("UPDATE intake.journal SET exercise = true WHERE position = 7", "row 7 was changed"),
        ("UPDATE intake.journal SET time = time + interval '1 microsecond' WHERE position = 7", "row 7 was changed"),
        ("DELETE FROM intake.journal WHERE position = 7", "row 7 is missing"),
        ("DELETE FROM intake.journal WHERE position > 20", "the tail was cut"),
        ("UPDATE intake.journal SET hash = '\\x00' WHERE position = 25", "row 25 was changed"),
    ],
)
async def test_tampering_is_named(chain, sql, fault):
    connection, head = chain
    await tamper(connection, sql)
    verdict = await journal.verify(connection, "intake", head)
    assert verdict.fault is not None
    assert fault in verdict.fault


async def test_a_chain_written_anew_differs_from_the_noted_head(chain, make_db):
    connection, head = chain
    await tamper(connection, "DELETE FROM intake.journal WHERE position > 20")
    meta = Meta(str(uuid4()), "/gotong/t/intake", "gotong.report.received.v1", "s", clock.now(), 1)
    async with make_db("intake").tx() as tx:
        await journal.write(tx, [Entry(meta, "gotong.reports.v1", "k", b"{}")] * 1, [place(1)])
    for number in range(4):
        other = Meta(str(uuid4()), "/gotong/t/intake", "gotong.report.received.v1", "s", clock.now(), number + 2)
        async with make_db("intake").tx() as tx:
            await journal.write(tx, [Entry(other, "gotong.reports.v1", "k", b"{}")], [place(1)])
    verdict = await journal.verify(connection, "intake", head)
    assert verdict.fault == "row 25 differs from the noted head"


async def test_the_database_itself_refuses_changes(chain):
    connection, _ = chain
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await connection.execute("DELETE FROM intake.journal WHERE position = 3")
    with pytest.raises(asyncpg.RaiseError, match="append-only"):
        await connection.execute("UPDATE intake.journal SET subject = 'x' WHERE position = 3")


async def test_a_redacted_payload_leaves_the_chain_whole(chain):
    connection, head = chain
    await connection.execute("UPDATE intake.journal SET payload = NULL WHERE position = 3")
    verdict = await journal.verify(connection, "intake", head)
    assert (verdict.fault, verdict.redacted) == (None, 1)


async def test_heads_are_read_back(tmp_path):
    journal.write_head(tmp_path, "intake", 7, b"\x01" * 32)
    assert journal.read_head(tmp_path, "intake") == (7, b"\x01" * 32)
    assert journal.read_head(tmp_path, "matching") is None
