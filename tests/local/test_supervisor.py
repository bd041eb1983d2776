"""The supervisor with small real programs: order, restarts, and what is left after it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest

from gotong.local.process import read_pid, until
from gotong.local.supervisor import Log

# One supervised program. It notes in a common file what happens to it, and when; `stubborn` ignores SIGTERM.
CHILD = """
import os, signal, sys, time
name, notes, *ways = sys.argv[1:]
def note(what):
    with open(notes, "a") as out: out.write(f"{name} {what}\\n")
def end(number, frame):
    note(signal.Signals(number).name)
    if "stubborn" not in ways: sys.exit(0)
for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, end)
if "failing" in ways: note("failed"); print("cannot work", flush=True); sys.exit(3)
time.sleep(0.2 if "slow" in ways else 0)
note("ready")
open(f"{notes}.{os.getpid()}", "w").close()
print("x" * 200_000 if "wordy" in ways else "hello", flush=True)
while True: time.sleep(0.05)
"""

# The supervisor under test, in a process of its own so that it can be killed.
PARENT = """
import asyncio, signal, sys
from pathlib import Path
from gotong.local.process import LocalError, Program, clean_env
from gotong.local.supervisor import Child, Log, Supervisor
folder, program = Path(sys.argv[1]), sys.argv[2]
notes = folder / "notes"
def note(what):
    with notes.open("a") as out: out.write(what + "\\n")
def child(name, *ways, word=signal.SIGTERM, **more):
    def seen(pid): return (folder / f"notes.{pid}").exists()
    def prepare():
        return Program(name=name, argv=(sys.executable, "-c", program, name, str(notes), *ways), env=clean_env(),
            pid_file=folder / f"{name}.pid", stop_signal=word, ready=seen, ready_within_s=10)
    return Child(name=name, prepare=prepare, stop_within_s=1, **more)
async def hook(): note("hook")
async def ready(): note("all ready"); print("ready", flush=True)
stages = [
    [child("database", word=signal.SIGINT), child("broker", "slow", forgets=True)],
    [child("one", "wordy"), child("two", *sys.argv[3:])],
]
try:
    asyncio.run(Supervisor(stages, hook, Log(["database", "broker", "one", "two"])).run(ready))
except LocalError as error:
    print(error); sys.exit(1)
"""

NAMES = ("database", "broker", "one", "two")


class Running:
    """A supervisor and the notes of its children."""

    def __init__(self, folder: Path, *ways: str) -> None:
        self.folder = folder
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(folder), CHILD, *ways],
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()

    def pid(self, name: str) -> int | None:
        return read_pid(self.folder / f"{name}.pid")

    def wait_notes(self, condition: Callable[[list[str]], bool]) -> None:
        assert until(lambda: condition(self.notes()), 10), self.notes()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    started: list[Running] = []

    def start(*ways: str) -> Running:
        started.append(Running(tmp_path, *ways))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()
        for name in NAMES:
            if (pid := one.pid(name)) is not None:
                os.kill(pid, signal.SIGKILL)


def test_stages_start_in_order_and_stop_the_other_way_round(run: Callable[..., Running]) -> None:
    one = run()
    one.wait_ready()
    started = one.notes()
    assert set(started[:2]) == {"database ready", "broker ready"}
    assert started[2] == "hook"
    assert set(started[3:5]) == {"one ready", "two ready"}
    assert started[5] == "all ready"

    one.process.send_signal(signal.SIGTERM)
    assert one.process.wait(10) == 0
    stopped = one.notes()[6:]
    assert set(stopped[:2]) == {"one SIGTERM", "two SIGTERM"}
    assert stopped[2:] == ["broker SIGTERM", "database SIGINT"]
    lines = (one.folder / "log").read_text().splitlines()
    assert "database | hello" in lines
    assert f"one      | {'x' * 200_000}" in lines, "a long line is neither cut nor does it block the program"


@pytest.mark.parametrize("name", NAMES)
def test_whatever_dies_is_started_again(run: Callable[..., Running], name: str) -> None:
    one = run()
    one.wait_ready()
    before = {each: one.pid(each) for each in NAMES}
    victim = before[name]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    one.wait_notes(lambda notes: notes.count(f"{name} ready") == 2)
    if name == "broker":
        # It forgot its topics: they are made again, and those that knew the old ones are started anew.
        one.wait_notes(lambda notes: notes.count("one ready") == notes.count("two ready") == 2)
        notes = one.notes()
        again = notes.index("broker ready", notes.index("all ready"))
        assert again < notes.index("hook", again) < notes.index("one SIGTERM")
        assert notes.count("database ready") == 1
    else:
        assert all(one.pid(each) == before[each] for each in NAMES if each != name)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_kill_9_of_the_supervisor_leaves_nothing_behind(run: Callable[..., Running]) -> None:
    one = run()
    one.wait_ready()
    one.process.kill()
    assert until(lambda: all(one.pid(name) is None for name in NAMES), 10)
    assert {"one SIGTERM", "broker SIGTERM", "database SIGINT"} <= set(one.notes())


def test_what_a_killed_supervisor_left_is_ended_by_the_next(run: Callable[..., Running]) -> None:
    one = run("stubborn")
    one.wait_ready()
    left = one.pid("two")
    assert left is not None
    one.process.kill()
    one.process.wait()
    # Where the system does not tell children of it, or they do not listen, they are still there.
    assert one.pid("two") == left
    two = run()
    two.wait_ready()
    assert two.pid("two") != left


def test_one_that_does_not_listen_is_killed_and_all_is_over_in_time(run: Callable[..., Running]) -> None:
    one = run("stubborn")
    one.wait_ready()
    begun = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    assert one.process.wait(10) == 0
    assert time.monotonic() - begun < 5
    assert one.notes()[-1] == "database SIGINT"
    assert "two did not stop within 1.0 s and was killed" in (one.folder / "log").read_text()
    assert all(one.pid(name) is None for name in NAMES)


def test_one_that_cannot_start_stops_the_whole_and_says_so(run: Callable[..., Running]) -> None:
    one = run("failing")
    assert one.process.wait(15) == 1
    assert one.process.stdout is not None
    assert one.process.stdout.read() == "two ended with exit code 3; its last lines are above.\n"
    assert "two      | cannot work" in (one.folder / "log").read_text()
    assert one.notes()[-1] == "database SIGINT"
    assert all(one.pid(name) is None for name in NAMES)


def test_log_lines_carry_their_program_and_stay_json_when_they_are() -> None:
    text, lines = StringIO(), StringIO()
    Log(["web", "postgres"], text).write("web", "started")
    assert text.getvalue() == "web      | started\n"
    log = Log(["web"], lines, style="json")
    log.write("web", '{"level": "info", "message": "started"}')
    log.write("web", "a plain line")
    log.write("web", "17")
    assert [json.loads(line) for line in lines.getvalue().splitlines()] == [
        {"process": "web", "level": "info", "message": "started"},
        {"process": "web", "message": "a plain line"},
        {"process": "web", "message": "17"},
    ]
