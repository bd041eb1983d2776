"""A journal goes out again in its order with the same ids; what was redacted stays at home."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from click.testing import CliRunner, Result

from gotong.__main__ import main
from gotong.local.broker import Broker, Tansu
from schemas.operations import OperationOpened
from services.runtime import clock, outbox
from services.runtime.db import Database
from services.runtime.outbox import Relay
from services.runtime.settings import Settings

TOPIC = OperationOpened.topic
MakeDb = Callable[[str], Database]


def opened(name: str, title: str) -> OperationOpened:
    return OperationOpened(operation=name, title=title, opened_at=clock.now(), by="admin:tester")


async def command(*words: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(main, ["republish", *words], catch_exceptions=False))


async def read(settings: Settings, prefix: str, count: int) -> list[ConsumerRecord[bytes, bytes]]:
    """The records of the topic whose key begins so, from its start, as soon as there are so many."""
    consumer = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=settings.kafka, auto_offset_reset="earliest", enable_auto_commit=False
    )
    await consumer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        async with asyncio.timeout(20):
            while len(found) < count:
                for records in (await consumer.getmany(timeout_ms=200)).values():
                    found += [record for record in records if (record.key or b"").startswith(prefix.encode())]
    finally:
        await consumer.stop()
    return found


@pytest.fixture
def settings(broker: Broker, dsn: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    monkeypatch.setenv("GOTONG_KAFKA", broker.address)
    monkeypatch.setenv("GOTONG_KAFKA_EMBEDDED", str(isinstance(broker, Tansu)).lower())
    return Settings()


async def test_the_journal_goes_out_again_as_it_was(make_db: MakeDb, settings: Settings) -> None:
    db = make_db("registry")
    prefix = f"again-{uuid4().hex[:8]}"
    async with db.tx() as tx:
        await outbox.append(tx, [opened(f"{prefix}-{n % 3}", f"title {n}") for n in range(10)])
        await outbox.append(tx, [opened(f"{prefix}-secret", "secret")])
    relay = Relay(db, settings, "/gotong/test/registry")
    assert await relay.move() == 11
    await relay._drop_link()
    first = await read(settings, prefix, 11)
    async with db.tx() as tx:
        await tx.execute("UPDATE journal SET payload = NULL WHERE subject LIKE '%-secret'")
        before = await tx.fetch("SELECT position, hash, kafka_offset FROM journal ORDER BY position")

    result = await command("--service", "registry")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "registry: 10 events sent again, 1 redacted left out\n"
    second = (await read(settings, prefix, 21))[11:]
    sent = [record for record in first if not (record.key or b"").endswith(b"-secret")]
    assert [(r.key, r.value, r.headers) for r in second] == [(r.key, r.value, r.headers) for r in sent]
    async with db.tx() as tx:
        after = await tx.fetch("SELECT position, hash, kafka_offset FROM journal ORDER BY position")
    assert [row["hash"] for row in after] == [row["hash"] for row in before]
    assert [row["kafka_offset"] for row in after[:10]] == [record.offset for record in second]
    assert after[10]["kafka_offset"] == before[10]["kafka_offset"]


async def test_every_service_is_named_and_what_waits_in_the_outbox_is_left_to_its_relay(
    make_db: MakeDb, settings: Settings
) -> None:
    db = make_db("registry")
    async with db.tx() as tx:
        await outbox.append(tx, [opened("waits", "not sent yet")])
    result = await command("--all")
    assert result.exit_code == 0, result.stderr
    assert [line.partition(":")[0] for line in result.stdout.splitlines()] == [
        "registry", "intake", "matching", "sitrep", "exchange",
    ]  # fmt: skip
    async with db.tx() as tx:
        assert await outbox.unpublished(tx) == 1


@pytest.mark.parametrize("words", [(), ("--all", "--service", "intake"), ("--service", "gateway")])
async def test_it_must_be_said_what_is_to_be_sent(words: tuple[str, ...]) -> None:
    assert (await command(*words)).exit_code == 2


async def test_a_broker_that_is_not_there_is_told_in_one_sentence(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    result = await command("--all", "--broker", "127.0.0.1:9")
    assert result.exit_code == 1
    assert "127.0.0.1:9" in result.stderr.splitlines()[-1]
