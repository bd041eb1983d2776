"""A broker that comes back without its log: readers get what they had not read, each once, each key in its order."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from fastapi import APIRouter

from gotong.local.broker import Broker, Choice, make_broker
from gotong.local.folders import scratch_folder
from schemas.event import Event
from schemas.incidents import IncidentUpdated
from schemas.reports import ReportReceived
from schemas.topics import TOPICS
from services.runtime import clock, kafka, outbox
from services.runtime.consumer import Consumer
from services.runtime.db import Database, Tx
from services.runtime.outbox import Relay
from services.runtime.service import Service, Worker
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from tests.conftest import _cache, broker_choice, broker_settings

pytestmark = pytest.mark.timeout(300)

MakeDb = Callable[[str], Database]
KEYS = [uuid4() for _ in range(25)]


async def until(condition: Callable[[], Awaitable[object]], within_s: float = 90) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.05)


def make_event(key: UUID, *, fact: bool) -> Event:
    at = clock.now()
    if fact:
        return ReportReceived(report_id=key, observed_at=at, origin="/lost", text="x")
    return IncidentUpdated(
        incident_id=key, title="banjir", severity=3, status="open", evidence="reported", reports=1, opened_at=at,
        updated_at=at, first_observed_at=at, last_observed_at=at, by="rule:test",
    )  # fmt: skip


class Load:
    """Changes of 25 reports and 25 incidents, as intake commits them; what sitrep made of each, in a table."""

    def __init__(self, source: Database, target: Database) -> None:
        self.source = source
        self.target = target
        self.consumer = Consumer("sitrep")
        self.said = 0
        self.slow_s = 0.0

        @self.consumer.on_batch(ReportReceived, IncidentUpdated)
        async def on_events(events: Sequence[Event], tx: Tx) -> None:
            await tx.executemany(
                "INSERT INTO effect (id, topic, subject, sequence) VALUES ($1, $2, $3, $4)",
                [(event.meta.id, event.topic, event.meta.subject, event.meta.sequence) for event in events],
            )
            await asyncio.sleep(self.slow_s)

    async def prepare(self) -> None:
        async with self.target.tx() as tx:
            await tx.execute(
                "CREATE TABLE effect (position bigint GENERATED ALWAYS AS IDENTITY, id text, topic text, subject text, "
                "sequence bigint)"
            )

    async def say(self, count: int, chance: random.Random) -> None:
        events = [make_event(chance.choice(KEYS), fact=chance.random() < 0.5) for _ in range(count)]
        async with self.source.tx() as tx:
            # Their order is promised to those who lock the aggregate; this is the only writer.
            await outbox.append(tx, events)
        self.said += count

    async def keep_saying(self, stopping: asyncio.Event, chance: random.Random) -> None:
        while not stopping.is_set():
            await self.say(chance.randint(1, 12), chance)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 0.04)

    async def effects(self) -> int:
        async with self.target.tx() as tx:
            return int(await tx.fetchval("SELECT count(*) FROM effect"))

    async def drained(self) -> bool:
        async with self.source.tx() as tx:
            if await outbox.unpublished(tx):
                return False
            if await tx.fetchval("SELECT resent_to < resend_until FROM relay"):
                return False
        return await self.effects() >= self.said

    async def check(self) -> None:
        """Each event took effect once; each key, fact or state, in the order of its changes with none left out."""
        async with self.target.tx() as tx:
            rows = await tx.fetch("SELECT * FROM effect ORDER BY position")
            assert not await tx.fetchval("SELECT count(*) FROM quarantine")
        async with self.source.tx() as tx:
            journal = {row["id"] for row in await tx.fetch("SELECT id::text FROM journal")}
        assert len(rows) == len({row["id"] for row in rows}) == self.said
        assert {row["id"] for row in rows} == journal
        seen: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row in rows:
            seen[row["topic"], row["subject"]].append(row["sequence"])
        broken = {key: found for key, found in seen.items() if found != list(range(1, len(found) + 1))}
        assert broken == {}


@asynccontextmanager
async def running(load: Load, settings: Settings, relays: int = 1) -> AsyncIterator[None]:
    """Relays of intake and sitrep's consumer, as their workers run them."""
    stopping = asyncio.Event()
    senders = [Relay(load.source, settings, "/gotong/t/intake", batch=50) for _ in range(relays)]
    worker = Worker(Service("sitrep", APIRouter, load.consumer), settings)
    tasks = [asyncio.create_task(sender.run(stopping)) for sender in senders]
    tasks.append(asyncio.create_task(worker._consumes()))
    try:
        yield
    finally:
        stopping.set()
        worker.stop()
        await asyncio.gather(*tasks)
        await worker.db.close()


@pytest.fixture
def broker_of() -> Iterator[Callable[[str], Broker]]:
    """`broker_of(kind)`: a broker of this test's own, which it may kill."""
    folder = scratch_folder("gotong-test-")
    made: list[Broker] = []

    def make(kind: str) -> Broker:
        if kind == "kafka" and broker_choice().kind != "kafka":
            pytest.skip(f"Apache Kafka by Maven is not to be had ({broker_choice()})")
        server = make_broker(Choice(kind, "this test kills it"), folder / kind, _cache(), brief=True)  # type: ignore[arg-type]
        made.append(server)
        return server

    yield make
    for server in made:
        server.stop()
    shutil.rmtree(folder, ignore_errors=True)


def lose_log(broker: Broker, kind: str) -> None:
    """Kill it; what it had is gone. The embedded broker forgets by itself."""
    broker.kill()
    if kind == "kafka":
        shutil.rmtree(Path(broker.folder) / "logs")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "seed", "rounds", "relays"),
    [("embedded", 1, 4, 1), ("embedded", 2, 4, 2), ("kafka", 3, 2, 2)],
)
async def test_nothing_is_lost_when_the_broker_forgets_under_load(
    kind: str, seed: int, rounds: int, relays: int, broker_of: Callable[[str], Broker], make_db: MakeDb, dsn: str
) -> None:
    chance = random.Random(seed)
    broker = broker_of(kind)
    broker.start()
    settings = broker_settings(broker, dsn)
    await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
    load = Load(make_db("intake"), make_db("sitrep"))
    await load.prepare()
    enough = asyncio.Event()
    async with running(load, settings, relays):
        saying = asyncio.create_task(load.keep_saying(enough, chance))
        for nth in range(rounds):
            before = await load.effects()
            load.slow_s = chance.choice((0, 0, 0.3))  # so that sometimes much, sometimes nothing was left unread
            more = chance.randint(1, 600)
            # Sometimes when readers are well on their way, sometimes before they have read a thing of the new log.
            if nth % 2:
                said = load.said
                await until(lambda said=said, more=more: _true(load.said >= said + more))
            else:
                await until(lambda before=before, more=more: _more(load, before + more))
            lose_log(broker, kind)
            said = load.said
            away = chance.randint(0, 300)
            await until(lambda said=said, away=away: _true(load.said >= said + away))
            broker.start()
        load.slow_s = 0
        before = await load.effects()
        await until(lambda: _more(load, before + 1))
        enough.set()
        await saying
        await until(load.drained)
    await load.check()
    print(f"{kind}, seed {seed}: {load.said} events over {rounds} losses, each once")


async def _true(value: bool) -> bool:
    return value


async def _more(load: Load, count: int) -> bool:
    return await load.effects() >= count


@pytest.mark.parametrize("kind", ["embedded", "kafka"])
async def test_the_mark_follows_the_slowest_reader_and_only_what_is_after_it_is_sent_again(
    kind: str, broker_of: Callable[[str], Broker], make_db: MakeDb, dsn: str
) -> None:
    chance = random.Random(7)
    broker = broker_of(kind)
    broker.start()
    settings = broker_settings(broker, dsn)
    await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
    load = Load(make_db("intake"), make_db("sitrep"))
    await load.prepare()

    async def relay_row() -> tuple[int, int, int]:
        async with load.source.tx() as tx:
            row = await tx.fetchrow("SELECT low_water, resent_to, resend_until FROM relay")
        assert row is not None
        return row["low_water"], row["resent_to"], row["resend_until"]

    async def all_read() -> bool:
        return await load.effects() == load.said and (await relay_row())[0] == load.said + 1

    async with running(load, settings):
        await load.say(1500, chance)  # more than one look of the mark's walk
        await until(all_read)
    sender = Relay(load.source, settings, "/gotong/t/intake")
    await load.say(70, chance)
    assert await sender.move() == 70
    assert sender._link is not None
    assert await sender.mark(sender._link)
    assert await relay_row() == (1501, 0, 0)  # nobody has read the 70, so there the mark stands
    await sender._drop_link()
    lose_log(broker, kind)
    broker.start()
    async with running(load, settings):
        await load.say(30, chance)
        await until(load.drained)
        await until(all_read)
    assert await relay_row() == (1601, 1570, 1570)
    await load.check()
    async with load.source.tx() as tx:
        rows = await tx.fetch("SELECT id::text, kafka_partition, kafka_offset FROM journal WHERE position > 1500")
    places = {(row["id"], row["kafka_partition"], row["kafka_offset"]) for row in rows}
    found = await everything(settings, ReportReceived.topic, IncidentUpdated.topic)
    assert len(found) == 100
    assert {(dict(r.headers)["ce_id"].decode(), r.partition, r.offset) for r in found} == places


async def everything(settings: Settings, *topics: str) -> list[ConsumerRecord[bytes, bytes]]:
    """All records of these topics as they stand now, told apart from more to come by a record of our own."""
    client = AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest")
    await client.start()
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka)
    await producer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(TOPICS[topic].partitions)]
        client.assign(partitions)
        last = {p: (await producer.send_and_wait(p.topic, b"last", partition=p.partition)).offset for p in partitions}
        async with asyncio.timeout(30):
            while any([await client.position(p) <= last[p] for p in partitions]):
                for records in (await client.getmany(timeout_ms=200)).values():
                    found += [record for record in records if record.value != b"last"]
    finally:
        await producer.stop()
        await client.stop()
    return found


async def test_a_log_that_is_cut_short_under_the_same_cluster_id_is_noticed(
    broker_of: Callable[[str], Broker], make_db: MakeDb, dsn: str
) -> None:
    chance = random.Random(11)
    broker = broker_of("kafka")
    broker.start()
    settings = broker_settings(broker, dsn)
    await ensure_topics(settings.kafka)
    load = Load(make_db("intake"), make_db("sitrep"))
    await load.prepare()
    async with running(load, settings):
        await load.say(200, chance)
        await until(load.drained)
    sender = Relay(load.source, settings, "/gotong/t/intake")
    await load.say(50, chance)
    assert await sender.move() == 50
    await sender._drop_link()
    admin = kafka.admin(settings)
    await admin.start()
    await admin.delete_topics([ReportReceived.topic, IncidentUpdated.topic])
    await until(lambda: _gone(admin))
    await admin.close()
    await ensure_topics(settings.kafka)
    async with running(load, settings):
        await load.say(10, chance)
        await until(load.drained)
    await load.check()


async def _gone(admin: AIOKafkaAdminClient) -> bool:
    return not {ReportReceived.topic, IncidentUpdated.topic} & set(await admin.list_topics())


@pytest.mark.parametrize("kind", ["embedded", "kafka"])
async def test_a_client_held_to_one_cluster_never_speaks_to_another(
    kind: str, broker_of: Callable[[str], Broker], dsn: str
) -> None:
    broker = broker_of(kind)
    broker.start()
    settings = broker_settings(broker, dsn)
    await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
    lost = asyncio.Event()
    first = await kafka.cluster_id(settings)
    sender = kafka.producer(settings)
    kafka.hold_to(sender.client, first, lost)
    await sender.start()
    reader = AIOKafkaConsumer(
        ReportReceived.topic, bootstrap_servers=settings.kafka, group_id="gotong.sitrep", auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=6000,
    )  # fmt: skip
    kafka.hold_to(reader._client, first, lost)
    await reader.start()
    try:
        for n in range(5):
            await sender.send_and_wait(ReportReceived.topic, str(n).encode(), partition=0)
        read: list[bytes] = []
        async with asyncio.timeout(30):
            while len(read) < 5:
                read += [r.value for records in (await reader.getmany(timeout_ms=200)).values() for r in records]
        lose_log(broker, kind)
        broker.start()
        assert await kafka.cluster_id(settings) != first
        await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
        hand = await sender.send(ReportReceived.topic, b"in hand", partition=0)
        await asyncio.wait_for(lost.wait(), 30)
        with pytest.raises((KafkaError, TimeoutError)):
            await asyncio.wait_for(reader.commit(), 2)  # it would try for ever
        assert not hand.done()
        # One that knows the new log finds in it nothing of the old producer, and no offset of the old reader.
        fresh = AIOKafkaConsumer(bootstrap_servers=settings.kafka, group_id="gotong.sitrep", enable_auto_commit=False)
        await fresh.start()
        try:
            assert await fresh.committed(TopicPartition(ReportReceived.topic, 0)) is None
        finally:
            await fresh.stop()
        assert await everything(settings, ReportReceived.topic) == []
    finally:
        await kafka.drop_producer(sender)
        await kafka.end(reader.stop(), reader._client, 5)
