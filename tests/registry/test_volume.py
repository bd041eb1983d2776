"""Convergence: tens of thousands who want to help, sent on by a desk, half of whom answer with their code at once."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.registry.app import service
from services.runtime import vault
from services.runtime.db import Database
from tests.registry.people import DESK, Matching, code_in, messages, patient, send_messages

SKILLS = ["cook", "cleaning", "driver", "nurse", "first_aid", "evacuation", "distribution"]
BATCH = 400


def requests(count: int) -> tuple[list[dict[str, Any]], set[str]]:
    """So many rows, a tenth of them duplicates in another spelling and a twentieth bad; the good numbers."""
    chosen = random.Random(20261124)
    rows: list[dict[str, Any]] = []
    numbers: list[str] = []
    for nth in range(count):
        row: dict[str, Any] = {
            "name": f"Relawan {nth}",
            "phone": f"0812{10_000_000 + nth}",
            "location": {"lon": 107.4 + chosen.random() / 2, "lat": -7.2 + chosen.random() / 2},
            "skills": chosen.sample(SKILLS, 2),
            "confirm_by": "code",
            "external_id": f"form-{nth}",
            "source": "/desks/pendaftaran",
        }
        if nth % 20 == 7:
            row |= chosen.choice([{"phone": "tidak ada"}, {"skills": ["Sulap!"]}, {"location": {"lon": 500, "lat": 0}}])
        elif nth % 10 == 9 and numbers:
            known = chosen.choice(numbers)
            row["phone"] = chosen.choice(
                [f"+62 {known[1:4]}-{known[4:]}", f"62{known[1:]}", f"{known[:4]} {known[4:]}"]
            )
        else:
            numbers.append(row["phone"])
        rows.append(row)
    return rows, {vault.normal_number(number) for number in numbers}


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.parametrize("count", [1_200, pytest.param(40_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])])
async def test_volunteers_come_in_thousands_each_once_and_half_confirm_by_code(
    make_client, make_db, tmp_path, monkeypatch, count
):
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    client: httpx.AsyncClient = patient(make_client([service]))
    db: Database = make_db("registry")
    plan = Matching(make_db("matching"), db)
    rows, numbers = requests(count)
    refused, memory, told = 0, [], ""
    begun = time.monotonic()
    for begin in range(0, count, BATCH):
        answer = await client.post("/v1/responders:batch", json=rows[begin : begin + BATCH], headers=DESK)
        assert answer.status_code == 207, answer.text
        refused += answer.json()["rejected"]
        memory.append(resident_mb())
    told += f"{count} requests at {count / (time.monotonic() - begun):.0f}/s"
    assert refused == count // 20
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM responder") == len(numbers)
        assert await tx.fetchval("SELECT count(*) FROM responder WHERE status <> 'unconfirmed'") == 0
    # The whole list again, as a nervous clerk sends it: nothing is made, nothing is sent.
    again = await client.post("/v1/responders:batch", json=rows[:BATCH], headers=DESK)
    assert (again.json()["accepted"], again.json()["rejected"]) == (0, BATCH // 20)

    await send_messages(db)
    codes = {message["contact"]: code_in(message) for message in messages(tmp_path)}
    assert codes.keys() == {vault.contact_id(number) for number in numbers}
    assert len(messages(tmp_path)) == len(numbers)
    assert await plan.feed() == events_of(len(numbers), rows)
    assert await plan.candidates() == set()

    confirmed = set()
    begun = time.monotonic()
    for number in sorted(numbers)[::2]:
        code = codes[vault.contact_id(number)]
        answer = await client.post("/v1/sessions", json={"phone": number, "code": code})
        assert answer.status_code == 200, answer.text
        confirmed.add(answer.json()["responder_id"])
    told += f", {len(confirmed)} codes at {len(confirmed) / (time.monotonic() - begun):.0f}/s"
    begun = time.monotonic()
    await plan.feed()
    assert await plan.candidates() == confirmed
    assert len(confirmed) == (len(numbers) + 1) // 2
    told += (
        f", candidates {time.monotonic() - begun:.1f} s after the last, memory {memory[0]:.0f} to {memory[-1]:.0f} MB"
    )
    print(told)
    # What is kept per request would show: forty times as many rows may not cost more than their batch does.
    assert memory[-1] - memory[len(memory) // 10] < 200


def events_of(made: int, rows: list[dict[str, Any]]) -> int:
    """Events of a list: one for each who is new, one for each duplicate that says something else of them."""
    duplicates = sum(1 for nth in range(len(rows)) if nth % 10 == 9 and nth % 20 != 7 and nth > 0)
    return made + duplicates
