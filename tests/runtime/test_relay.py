"""The relay on a real broker: in order, acknowledged, journalled, and one at a time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from uuid import uuid4

import asyncpg
import pytest
from aiokafka import AIOKafkaConsumer
from faststream.kafka import KafkaBroker

from schemas.reports import ReportReceived
from services.runtime import clock, journal, outbox
from services.runtime.cloudevents import Malformed, decode
from services.runtime.consumer import Consumer, Runner
from services.runtime.outbox import Relay
from tests.conftest import broker_settings


def make_report(number: int) -> ReportReceived:
    return ReportReceived(report_id=uuid4(), observed_at=clock.now(), origin="/relay", text=str(number))


async def read_back(address: str, ids: set[str]) -> list:
    """Everything on the reports topic, until all of these ids were seen."""
    client = AIOKafkaConsumer("gotong.reports.v1", bootstrap_servers=address, auto_offset_reset="earliest")
    await client.start()
    seen, missing = [], set(ids)
    try:
        async with asyncio.timeout(60):
            while missing:
                for records in (await client.getmany(timeout_ms=200)).values():
                    for r in records:
                        try:
                            envelope = decode(
                                r.value, r.headers, topic=r.topic, partition=r.partition, offset=r.offset, key=r.key
                            )
                        except Malformed:
                            continue  # another test's, put there to be refused
                        if envelope.meta.id in ids:
                            seen.append(envelope)
                            missing.discard(envelope.meta.id)
    finally:
        await client.stop()
    return seen


@pytest.mark.parametrize("which", ["broker", "embedded_broker"])
async def test_events_reach_the_topic_in_order_and_the_journal_knows_where(which, request, make_db, dsn):
    kafka = request.getfixturevalue(which)
    db = make_db("intake")
    subjects = [uuid4() for _ in range(20)]
    for start in range(0, 400, 50):
        async with db.tx() as tx:
            events = [
                make_report(n).model_copy(update={"report_id": subjects[n % 20]}) for n in range(start, start + 50)
            ]
            await outbox.append(tx, events)
    relays = [Relay(db, broker_settings(kafka, dsn), "/gotong/t/intake", batch=70) for _ in range(2)]
    stopping = asyncio.Event()
    running = [asyncio.create_task(relay.run(stopping)) for relay in relays]
    async with asyncio.timeout(60):
        while True:
            async with db.tx() as tx:
                if await outbox.unpublished(tx) == 0:
                    break
            await asyncio.sleep(0.05)
    stopping.set()
    await asyncio.gather(*running)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT * FROM journal ORDER BY position")
    assert len(rows) == 400
    seen = await read_back(kafka.address, {str(row["id"]) for row in rows})
    assert len(seen) == 400
    by_subject = defaultdict(list)
    for envelope in seen:
        by_subject[envelope.meta.subject].append(envelope.meta.sequence)
    assert all(sequences == list(range(1, 21)) for sequences in by_subject.values())
    places = {str(row["id"]): (row["kafka_partition"], row["kafka_offset"]) for row in rows}
    assert all(places[e.meta.id] == (e.partition, e.offset) for e in seen)
    connection = await asyncpg.connect(dsn)
    verdict = await journal.verify(connection, "intake")
    await connection.close()
    assert (verdict.fault, verdict.rows) == (None, 400)


@pytest.mark.parametrize("which", ["broker", "embedded_broker"])
async def test_a_worker_applies_each_record_once_over_restarts(which, request, make_db, dsn):
    kafka = request.getfixturevalue(which)
    producer_db, db = make_db("intake"), make_db("sitrep")
    async with db.tx() as tx:
        await tx.execute("CREATE TABLE effect (text text)")
    consumer = Consumer("sitrep")
    consumer.group = f"test.{uuid4()}"
    run = uuid4().hex

    @consumer.on_batch(ReportReceived)
    async def on_reports(events, tx):
        mine = [event.text for event in events if event.origin == f"/{run}"]
        await tx.execute("INSERT INTO effect SELECT unnest($1::text[])", mine)

    settings = broker_settings(kafka, dsn)
    relay = Relay(producer_db, settings, "/gotong/t/intake")
    expected = set()
    for part in range(3):
        texts = [f"{part}.{n}" for n in range(200)]
        expected |= set(texts)
        async with producer_db.tx() as tx:
            await outbox.append(tx, [make_report(0).model_copy(update={"text": t, "origin": f"/{run}"}) for t in texts])
        stopping = asyncio.Event()
        moving = asyncio.create_task(relay.run(stopping))
        runner = Runner(consumer, db, settings)
        app = KafkaBroker(kafka.address, allow_auto_create_topics=False, graceful_timeout=5)
        runner.subscribe(app)
        await app.start()
        async with asyncio.timeout(90):
            while True:
                async with db.tx() as tx:
                    if await tx.fetchval("SELECT count(DISTINCT text) FROM effect") == len(expected):
                        break
                await asyncio.sleep(0.05)
        runner.stopping.set()
        await app.stop()
        stopping.set()
        await moving
    async with db.tx() as tx:
        found = [row["text"] for row in await tx.fetch("SELECT text FROM effect")]
    assert sorted(found) == sorted(expected)
