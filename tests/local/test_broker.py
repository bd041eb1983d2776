"""Which broker is taken, and what the two that we start can do."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from gotong.local import limits
from gotong.local.broker import (
    Broker,
    BrokerMissing,
    Choice,
    Facts,
    Kafka,
    Tansu,
    choose_broker,
    gather_facts,
    kafka_version,
    random_id,
)
from gotong.local.folders import cache_folder, default_data, scratch_folder

REQUIRED = frozenset({"kafka", "chromium"})
CACHE = cache_folder(default_data())


@pytest.fixture
def folder() -> Iterator[Path]:
    made = scratch_folder("gotong-test-")
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.mark.parametrize(
    ("facts", "kind", "why"),
    [
        (Facts(address="broker:9092"), "external", "GOTONG_KAFKA names broker:9092"),
        (Facts(address="broker:9092", docker=True, java=17, maven=True), "external", "GOTONG_KAFKA"),
        (Facts(address="broker:9092", require=REQUIRED), "external", "GOTONG_KAFKA"),
        (Facts(docker=True), "testcontainers", "a Docker engine answers"),
        (Facts(docker=True, java=17, maven=True), "testcontainers", "a Docker engine answers"),
        (Facts(java=17, maven=True), "kafka", "Java 17 and Maven are here"),
        (Facts(java=21, maven=True, require=REQUIRED), "kafka", "Java 21 and Maven"),
        (Facts(), "embedded", "there is no Java and there is no Maven"),
        (Facts(java=17), "embedded", "there is no Maven"),
        (Facts(java=11, maven=True), "embedded", "Java 11 is older than 17"),
        (Facts(java=8, require=frozenset({"chromium"})), "embedded", "Java 8 is older than 17"),
    ],
)
def test_the_first_broker_there_is_is_taken_and_why_is_said(facts: Facts, kind: str, why: str) -> None:
    choice = choose_broker(facts)
    assert choice.kind == kind
    assert why in choice.why
    assert (choice.left_out == "") == (kind in ("testcontainers", "kafka"))
    assert why in str(choice)
    assert choice.address == facts.address


@pytest.mark.parametrize("facts", [Facts(require=REQUIRED), Facts(java=17, require=frozenset({"kafka"}))])
def test_kafka_that_is_required_may_not_be_left_out(facts: Facts) -> None:
    with pytest.raises(BrokerMissing, match="GOTONG_REQUIRE asks for kafka"):
        choose_broker(facts)


def test_the_machine_is_asked_in_the_order_of_the_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env = {"GOTONG_KAFKA": "somewhere:9092", "GOTONG_REQUIRE": "kafka, chromium"}
    assert gather_facts(tmp_path, env) == Facts(address="somewhere:9092", require=REQUIRED)
    monkeypatch.setattr("gotong.local.broker.docker_answers", lambda: True)
    assert gather_facts(tmp_path, {}) == Facts(docker=True)
    monkeypatch.setattr("gotong.local.broker.docker_answers", lambda: False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gather_facts(tmp_path, {}) == Facts()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"21.0.2\" 2024-01-16' >&2\n")
    java.chmod(0o755)
    assert gather_facts(tmp_path, {}) == Facts(java=21)
    (tmp_path / "mvn").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "mvn").chmod(0o755)
    assert gather_facts(tmp_path, {}) == Facts(java=21, maven=True)


def test_a_cluster_id_is_sixteen_random_bytes_and_no_option() -> None:
    ids = {random_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(word) == 22 and not word.startswith("-") for word in ids)


def test_the_kafka_that_is_fetched_is_of_the_fourth_line() -> None:
    assert kafka_version().split(".")[0] == "4"


async def cluster_id(broker: Broker) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()


async def write(broker: Broker, count: int) -> None:
    """Make a topic and put acknowledged records on it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.address)
    await admin.start()
    await admin.create_topics([NewTopic("gotong.kept.v1", num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker.address, acks="all")
    await producer.start()
    for n in range(count):
        await producer.send_and_wait("gotong.kept.v1", str(n).encode())
    # Twenty at once: they share batches, which the embedded broker counts wrongly in its end offsets.
    await asyncio.gather(*[await producer.send("gotong.kept.v1", b"more") for _ in range(20)])
    await producer.stop()


async def read(broker: Broker, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(
        "gotong.kept.v1", bootstrap_servers=broker.address, auto_offset_reset="earliest", request_timeout_ms=5000
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_the_embedded_broker_shows_by_its_cluster_id_that_it_forgot(folder: Path) -> None:
    broker = Tansu(folder / "broker")
    broker.start()
    try:
        assert broker.address.startswith("127.0.0.1:")
        await write(broker, 30)
        assert await limits.records(broker.address) == 50
        before = await cluster_id(broker)
        broker.kill()
        broker.start()
        assert await cluster_id(broker) != before
        assert await limits.records(broker.address) == 0
    finally:
        broker.stop()


def test_the_embedded_broker_warns_before_it_is_full() -> None:
    assert limits.warning(0) == limits.warning(60_000) == ""
    assert "80,000 of about 100,000" in limits.warning(80_000)


async def test_kafka_keeps_acknowledged_records_at_kill_9(folder: Path) -> None:
    choice: Choice = choose_broker(gather_facts(CACHE, {}))
    if choice.kind not in ("kafka", "testcontainers"):
        pytest.skip(str(choice))
    if choice.kind == "testcontainers":
        pytest.skip("a container is used for tests here; Kafka by Maven is for machines without")
    broker = Kafka(folder / "broker", CACHE)
    broker.start()
    try:
        before = await cluster_id(broker)
        await write(broker, 200)
        broker.kill()
        broker.start()
        assert await cluster_id(broker) == before
        values = await read(broker, 220)
        assert values == [str(n).encode() for n in range(200)] + [b"more"] * 20
    finally:
        broker.stop()
    # Another run has other ports and the same records.
    again = Kafka(folder / "broker", CACHE)
    again.start()
    try:
        assert len(await read(again, 220)) == 220
    finally:
        again.stop()
