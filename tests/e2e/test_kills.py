"""`kill -9` of any process during real load: every accepted report once, every effect once, each key in order."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict

import pytest

from schemas.topics import TOPICS
from tests.e2e.conftest import broker_kind
from tests.e2e.replaying import HAITI, PETABENCANA, linked_as_required, replay
from tests.e2e.system import SERVICES, System, until

pytestmark = pytest.mark.timeout(900)


async def test_nothing_is_lost_or_doubled_when_processes_die():
    if broker_kind() != "kafka":
        pytest.skip("the embedded broker forgets its log when it is killed; Apache Kafka needs Java and Maven")
    files = (PETABENCANA, HAITI)
    assert all(file.path for file in files)
    system = System("kafka")
    try:
        await asyncio.to_thread(system.start)
        replays = [asyncio.create_task(replay(system, file, "--rate", "50")) for file in files]
        victims = ["web", *SERVICES, "everything"] * 2
        random.Random(20261124).shuffle(victims)
        recoveries: dict[str, list[float]] = defaultdict(list)
        for victim in victims:
            await asyncio.sleep(1)  # some load between two deaths; what is checked does not depend on how much
            begun = time.monotonic()
            if victim == "everything":
                await asyncio.to_thread(system.kill_all)
                await asyncio.to_thread(system.start)
            else:
                await asyncio.to_thread(system.kill, victim)
                await until(lambda name=victim: name in system.pids(), 30, system.tail)
                await until(lambda: healthy(system), 60, system.tail)
            recoveries[victim].append(round(time.monotonic() - begun, 1))
        assert not all(task.done() for task in replays), "the load ended before the last kill"
        answers = await asyncio.gather(*replays)
        print("recoveries in s:", dict(recoveries), "answers:", answers)
        for file, answer in zip(files, answers, strict=True):
            assert (answer["read"], answer["accepted"], answer["rejected"], answer["repeated"]) == (
                file.rows,
                file.rows,
                0,
                0,
            )
        await system.settled(120)
        total = sum(file.rows for file in files)
        async with system.client("operator") as operator:
            report = (await operator.get("/v1/sitreps", params={"format": "json"})).json()
        assert report["totals"]["reports"] == total
        for file in files:
            await linked_as_required(system, file)
        await check_from_outside(system, total)
    finally:
        await asyncio.to_thread(system.close)


async def healthy(system: System) -> bool:
    async with system.client() as client:
        return (await client.get("/v1/health")).status_code == 200


async def check_from_outside(system: System, reports: int) -> None:
    """Topics, journals, log and tables tell the same story, each event once and each key in order."""
    events = await system.everything_on(*TOPICS)
    first: dict[str, object] = {}
    sequences: dict[tuple[str, str], list[int]] = defaultdict(list)
    for envelope in events:
        if envelope.meta.id not in first:
            first[envelope.meta.id] = envelope
            sequences[envelope.topic, envelope.meta.subject].append(envelope.meta.sequence)
    print(f"{len(events)} records, {len(first)} events, {len(events) - len(first)} sent again")
    broken = {key: found for key, found in sequences.items() if found != list(range(1, len(found) + 1))}
    assert broken == {}
    journalled: set[str] = set()
    for service in SERVICES:
        rows = await system.rows(f'SELECT id::text FROM "{service}".journal')
        assert not await system.rows(f'SELECT 1 FROM "{service}".outbox')
        assert not await system.rows(f'SELECT 1 FROM "{service}".quarantine')
        journalled |= {row["id"] for row in rows}
    assert journalled == set(first)
    received = [e for e in first.values() if e.meta.type == "gotong.report.received.v1"]
    assert len(received) == reports
    log = await system.rows("SELECT id::text, position FROM sitrep.log ORDER BY position")
    assert [row["position"] for row in log] == list(range(1, len(log) + 1))
    assert len({row["id"] for row in log}) == len(log)
    members = await system.rows(
        "SELECT i.incident_id, i.reports, count(r.report_id) AS n FROM intake.incident i "
        "LEFT JOIN intake.report r USING (incident_id) GROUP BY 1, 2 HAVING i.reports <> count(r.report_id)"
    )
    assert members == []
