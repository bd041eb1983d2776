"""`/metrics` tells what waits in the outbox and what readers lack, of those that run, hang or are stopped."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from fastapi import APIRouter

from gotong.local.broker import Choice, Tansu, make_broker
from gotong.local.folders import scratch_folder
from schemas.reports import ReportReceived
from services.runtime import clock, outbox
from services.runtime.consumer import Consumer
from services.runtime.db import Database
from services.runtime.outbox import Relay
from services.runtime.service import Service, Worker
from services.runtime.topics import ensure_topics
from tests.conftest import _cache, bearer, broker_choice, broker_settings

TOPIC = ReportReceived.topic


async def gauge(client: httpx.AsyncClient, name: str, **labels: str) -> float | None:
    """One value of `/metrics`; None where the line is not there."""
    said = await client.get("/metrics", headers=bearer("operator"))
    assert said.status_code == 200
    inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
    line = next((line for line in said.text.splitlines() if line.startswith(f"{name}{{{inner}}} ")), None)
    return None if line is None else float(line.rpartition(" ")[2])


@pytest.mark.parametrize("kind", ["embedded", "kafka"])
async def test_a_stopped_or_hanging_worker_shows_by_its_lag_and_a_stopped_relay_by_its_rows(
    kind: str, make_db: Callable[[str], Database], make_client: Callable[..., httpx.AsyncClient], dsn: str
) -> None:
    if kind == "kafka" and broker_choice().kind != "kafka":
        pytest.skip("Apache Kafka by Maven is not to be had")
    # One of its own: other tests leave records behind, which would count.
    folder = scratch_folder("gotong-test-")
    broker = make_broker(Choice(kind, "this test asks for it"), folder / kind, _cache(), brief=True)  # type: ignore[arg-type]
    broker.start()
    source = make_db("intake")
    settings = broker_settings(broker, dsn)
    await ensure_topics(settings.kafka, embedded=isinstance(broker, Tansu))
    consumer, hold, handled = Consumer("sitrep"), asyncio.Event(), []
    hold.set()

    @consumer.on_batch(ReportReceived)
    async def on_reports(events, tx):
        await hold.wait()
        handled.extend(events)

    sitrep, intake = Service("sitrep", APIRouter, consumer), Service("intake", APIRouter)
    client = make_client([sitrep, intake])

    async def say(count: int) -> None:
        async with source.tx() as tx:
            report = ReportReceived(report_id=uuid4(), observed_at=clock.now(), origin="/metrics", text="x")
            await outbox.append(tx, [report.model_copy(update={"report_id": uuid4()}) for _ in range(count)])

    async def becomes(name: str, value: float | None, **labels: str) -> None:
        seen = None
        try:
            async with asyncio.timeout(60):
                while (seen := await gauge(client, name, **labels)) != value:
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{name} {labels} is {seen}, not {value}") from None

    lag = "gotong_consumer_lag_records"
    try:
        await say(40)
        await becomes("gotong_unpublished_rows", 40, service="intake")
        stopping = asyncio.Event()
        relaying = asyncio.create_task(Relay(source, settings, "/gotong/t/intake").run(stopping))
        await becomes("gotong_unpublished_rows", 0, service="intake")
        await becomes(lag, 40, service="sitrep", topic=TOPIC)  # it never ran
        await becomes("gotong_service_up", 0, service="sitrep")
        worker = Worker(sitrep, settings)
        tasks = [asyncio.create_task(worker._consumes()), asyncio.create_task(worker._beats())]
        await becomes("gotong_service_up", 1, service="sitrep")
        await becomes(lag, 0, service="sitrep", topic=TOPIC)
        assert len(handled) == 40
        hold.clear()
        await say(25)
        await becomes(lag, 25, service="sitrep", topic=TOPIC)  # the batch in hand is not handled yet
        hold.set()
        await becomes(lag, 0, service="sitrep", topic=TOPIC)
        worker.stop()
        await asyncio.gather(*tasks)
        await say(7)
        await becomes("gotong_service_up", 0, service="sitrep")
        await becomes(lag, 7, service="sitrep", topic=TOPIC)
        worker = Worker(sitrep, settings)
        tasks = [asyncio.create_task(worker._consumes()), asyncio.create_task(worker._beats())]
        await becomes("gotong_service_up", 1, service="sitrep")
        await becomes(lag, 0, service="sitrep", topic=TOPIC)
        assert len(handled) == 72
        worker.stop()
        await asyncio.gather(*tasks)
        stopping.set()
        await relaying
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
