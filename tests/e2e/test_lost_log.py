"""The whole system on the embedded broker, which forgets all at a kill: what was accepted arrives everywhere, once."""

from __future__ import annotations

import asyncio

import pytest

from schemas.sitreps import SitrepPublished
from schemas.topics import read_by
from tests.e2e.replaying import FEBRUARY_2017, linked_as_required, replay
from tests.e2e.system import SERVICES, System, until

pytestmark = pytest.mark.timeout(600)


async def test_a_replay_over_a_killed_broker_and_a_power_cut_arrives_whole() -> None:
    assert FEBRUARY_2017.path
    system = System("embedded")
    try:
        await asyncio.to_thread(system.start)
        replaying = asyncio.create_task(replay(system, FEBRUARY_2017, "--rate", "25"))
        for victim, logged in (("broker", 200), ("everything", 700), ("broker", 1200)):
            await until(lambda logged=logged: _logged(system, logged), 120, system.tail)
            if victim == "everything":
                await asyncio.to_thread(system.kill_all)
                await asyncio.to_thread(system.start)
            else:
                before = system.pids()["broker"]
                await asyncio.to_thread(system.kill, victim)
                await until(lambda before=before: system.pids().get("broker", before) != before, 30, system.tail)
        assert not replaying.done(), "the load ended before the last kill"
        answer = await replaying
        rows = FEBRUARY_2017.rows
        assert (answer["read"], answer["accepted"], answer["rejected"], answer["repeated"]) == (rows, rows, 0, 0)
        await system.settled(150)
        await linked_as_required(system, FEBRUARY_2017)
        async with system.client("operator") as operator:
            report = (await operator.get("/v1/sitreps", params={"format": "json"})).json()
        assert report["totals"]["reports"] == rows
        log = await system.rows("SELECT id::text, position FROM sitrep.log ORDER BY position")
        assert [row["position"] for row in log] == list(range(1, len(log) + 1))
        ids = {row["id"] for row in log}
        assert len(ids) == len(log)
        heard = [topic.name for topic in read_by("sitrep")]
        for service in SERVICES:
            assert not await system.rows(f'SELECT 1 FROM "{service}".outbox')
            assert not await system.rows(f'SELECT 1 FROM "{service}".quarantine')
            said = await system.rows(
                f'SELECT id::text FROM "{service}".journal WHERE topic = ANY($1) AND type <> $2',
                heard,
                SitrepPublished.type,
            )
            assert {row["id"] for row in said} <= ids, f"sitrep lacks events of {service}"
        declared = await system.rows(
            "SELECT subject, max(sequence) AS sequence FROM intake.journal WHERE topic = 'gotong.needs.v1' GROUP BY 1"
        )
        known = await system.rows("SELECT subject, sequence FROM matching.inbox_state WHERE topic = 'gotong.needs.v1'")
        assert {tuple(row) for row in known} == {tuple(row) for row in declared}
        print(f"{len(log)} events in the log, {len(declared)} needs, each once")
    finally:
        await asyncio.to_thread(system.close)


async def _logged(system: System, count: int) -> bool:
    rows = await system.rows("SELECT count(*) AS n FROM sitrep.log")
    return bool(rows[0]["n"] >= count)
