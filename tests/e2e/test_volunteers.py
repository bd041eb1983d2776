"""Forty thousand who want to help, through the whole running system: web, registry, its log channel, Kafka, matching."""

from __future__ import annotations

import asyncio
import os
import time

import pytest

from services.runtime import vault
from tests.e2e.conftest import broker_kind
from tests.e2e.system import System, resident_mb, until
from tests.registry.people import code_in, messages
from tests.registry.test_volume import requests

COUNT = int(os.environ.get("GOTONG_VOLUNTEERS", "40000"))
BATCH, SENDERS = 40, 4


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_whoever_confirms_of_forty_thousand_is_a_candidate_within_seconds(monkeypatch):
    system = System(broker_kind())
    await asyncio.to_thread(system.start)
    try:
        secret = (system.data / "data" / "secret.key").read_text().strip()
        monkeypatch.setenv("GOTONG_SECRET_KEY", secret)
        vault.forget_secret()
        rows, numbers = requests(COUNT)
        memory: list[float] = []
        refused = 0

        def note() -> None:
            pids = system.pids()
            memory.append(sum(resident_mb(pids[name]) for name in ("web", "registry", "matching")))

        async with system.client("operator", "posko", hours=9) as desk:
            begun = time.monotonic()
            waiting = list(range(0, COUNT, BATCH))[::-1]

            async def send() -> None:
                nonlocal refused
                while waiting:
                    begin = waiting.pop()
                    answer = await desk.post("/v1/responders:batch", json=rows[begin : begin + BATCH])
                    assert answer.status_code == 207, answer.text
                    refused += answer.json()["rejected"]
                    if begin % 2000 == 0:
                        note()

            await asyncio.gather(*(send() for _ in range(SENDERS)))
            taken_s = time.monotonic() - begun
            assert refused == COUNT // 20

            async def written() -> bool:
                return len(messages(system.data / "data")) >= len(numbers)

            await until(written, 900, system.tail, pause_s=1.0)
            written_s = time.monotonic() - begun
            sent = messages(system.data / "data")
            assert len(sent) == len(numbers)
            codes = {message["contact"]: code_in(message) for message in sent}
            assert codes.keys() == {vault.contact_id(number) for number in numbers}

            left = sorted(numbers)[::2]
            half, confirmed = len(left), set()
            begun = time.monotonic()

            async def confirm() -> None:
                while left:
                    number = left.pop()
                    code = codes[vault.contact_id(number)]
                    answer = await desk.post("/v1/sessions", json={"phone": number, "code": code})
                    assert answer.status_code == 200, answer.text
                    confirmed.add(answer.json()["responder_id"])
                    if len(confirmed) % 1000 == 0:
                        note()

            await asyncio.gather(*(confirm() for _ in range(SENDERS)))
            confirmed_s, last = time.monotonic() - begun, time.monotonic()

        async def all_known() -> bool:
            found = await system.rows(
                "SELECT responder_id::text AS id FROM matching.responder WHERE status = 'confirmed'"
            )
            return {row["id"] for row in found} == confirmed

        await until(all_known, 120, system.tail, pause_s=0.1)
        print(
            f"{COUNT} requests at {COUNT / taken_s:.0f}/s, the last code written {written_s - taken_s:.0f} s later, "
            f"{half} codes at {half / confirmed_s:.0f}/s, all candidates {time.monotonic() - last:.1f} s after the last, "
            f"web, registry and matching {memory[0]:.0f} to {memory[-1]:.0f} MB, {max(memory):.0f} at most"
        )
        assert len(confirmed) == half
        third = max(1, len(memory) // 3)
        assert sum(memory[-third:]) / third <= 1.5 * sum(memory[:third]) / third, memory
    finally:
        monkeypatch.undo()
        vault.forget_secret()
        await asyncio.to_thread(system.close)
