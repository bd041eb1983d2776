"""Real input: the four files go in whole, once, and come out as incidents within bounds."""

from __future__ import annotations

import pytest

from tests.e2e.replaying import BNPB, FEBRUARY_2017, HAITI, PETABENCANA, linked_as_required, replay
from tests.e2e.system import System

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("file", [PETABENCANA, HAITI, FEBRUARY_2017, BNPB], ids=lambda file: file.name)
async def test_every_row_is_taken_once_and_linked_within_bounds(system: System, file):
    before = await counted(system)
    first = await replay(system, file)
    assert (first["read"], first["accepted"], first["rejected"], first["repeated"]) == (file.rows, file.rows, 0, 0)
    again = await replay(system, file)
    assert (again["accepted"], again["rejected"], again["repeated"]) == (0, 0, file.rows)
    await system.settled(180)
    assert await counted(system) - before == file.rows
    figures = await linked_as_required(system, file)
    print(file.name, first["seconds"], figures)
    assert figures["incidents"] < file.rows
    assert figures["biggest"] <= 60
    assert figures["widest_km"] <= 10
    # What is asked for after an earthquake may be entered again for weeks; a flood is another one by then.
    assert figures["longest_days"] <= (45 if file is HAITI else 7)


async def counted(system: System) -> int:
    async with system.client("operator") as operator:
        answer = await operator.get("/v1/sitreps", params={"format": "json"})
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["totals"]["reports"]
        return number
