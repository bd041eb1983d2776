"""The board shows what the services say, and follows their stream through its breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from gotong.client import Target
from gotong.commands.watch import Board, follow, server_sent
from schemas.reports import ReportReceived
from services.gateway.app import make_app
from services.runtime import clock, health
from services.runtime.db import Database
from services.runtime.settings import SERVICES, Settings
from services.sitrep.app import service as sitrep
from tests.cli.conftest import Serve
from tests.conftest import Wire

MakeDb = Callable[[str], Database]


async def watch(*words: str) -> Result:
    def invoke() -> Result:
        return CliRunner().invoke(main, ["watch", "--once", *words], env={"COLUMNS": "120"}, catch_exceptions=False)

    return await asyncio.to_thread(invoke)


async def test_the_board_shows_each_service_and_what_stands_open(serve: Serve, make_db: MakeDb) -> None:
    url = serve(make_app(Settings()))
    for name in SERVICES:
        async with make_db(name).tx() as tx:
            await health.beat(tx, "test", None, {"gotong.reports.v1": 7} if name == "sitrep" else {})
    result = await watch("--url", url)
    assert result.exit_code == 0, result.stderr
    assert f"{url}  all live operations" in result.stdout
    lines = {line.split()[0]: line.split()[1:4] for line in result.stdout.splitlines() if line.strip()}
    assert {name: lines[name] for name in SERVICES} == {
        name: ["ok", "7" if name == "sitrep" else "0", "0"] for name in SERVICES
    }
    assert "Open incidents (0)" in result.stdout


async def test_a_service_that_is_down_is_shown_to_be_so(serve: Serve) -> None:
    result = await watch("--url", serve(make_app(Settings())))
    assert result.exit_code == 0
    assert "no worker has reported" in result.stdout


async def test_a_server_that_is_not_there_is_told_in_one_sentence() -> None:
    result = await watch("--url", "http://127.0.0.1:9")
    assert result.exit_code == 1
    assert "Nothing answers" in result.stderr


def report(text: str) -> ReportReceived:
    return ReportReceived(report_id=uuid4(), observed_at=clock.now(), origin="/test", text=text, operation="standing")


async def test_events_come_onto_the_board_as_they_happen(serve: Serve, make_db: MakeDb, tmp_path: Path) -> None:
    assert sitrep.consumer is not None
    wire = Wire(sitrep.consumer, make_db("sitrep"))
    board = Board(serve([sitrep]), None)
    stopping = threading.Event()
    thread = threading.Thread(target=follow, args=(Target(board.url, None, tmp_path), board, stopping), daemon=True)
    thread.start()
    try:
        await until(lambda: board.streaming)
        await wire.deliver(report("one"))
        await until(lambda: len(board.events) == 1)
        assert board.changed.is_set()
        await wire.deliver(report("two"))
        await until(lambda: len(board.events) == 2)
        assert [event["data"]["text"] for event in board.events] == ["two", "one"]
    finally:
        stopping.set()
        await wire.deliver(report("three"))  # wakes the reader, so that it sees the end
        await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()


async def until(condition: Callable[[], bool], within_s: float = 15) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("lines", "events"),
    [
        ([": still here", "", "id: 4", "event: a", "data: {}", ""], [("4", "a", "{}")]),
        (["data: 1", "data: 2", "", "data:3", ""], [(None, "message", "1\n2"), (None, "message", "3")]),
        (["id: 4", "data: a", "", "data: b", ""], [("4", "message", "a"), ("4", "message", "b")]),
        (["event: a", "", "data: unfinished"], []),
    ],
)
def test_server_sent_events_are_read_as_the_standard_says(
    lines: list[str], events: list[tuple[str | None, str, str]]
) -> None:
    assert list(server_sent(lines)) == events
