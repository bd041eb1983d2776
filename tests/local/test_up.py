"""`gotong up` with the real services on the embedded broker: ready, found again, killed, stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gotong.local.folders import scratch_folder
from gotong.local.process import free_port, read_pid, until
from gotong.local.state import running
from gotong.local.up import tell_login
from services.runtime import auth
from services.runtime.settings import Settings

# What a loaded machine may take; a quiet one is ready in a few seconds.
PATIENCE_S = 150


@pytest.fixture
def data() -> Iterator[Path]:
    folder = scratch_folder("gotong-test-")
    yield folder / "data"
    gotong("down", "--data", str(folder / "data"))
    shutil.rmtree(folder, ignore_errors=True)


def gotong(*words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("GOTONG_")}
    return subprocess.run(
        [sys.executable, "-m", "gotong", *words],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def children(data: Path) -> dict[str, int]:
    """The processes that run on a data folder, by the names of their files."""
    files = [*(data / "run").glob("*.pid"), *data.glob("*/*.pid")]
    return {file.stem: pid for file in files if (pid := read_pid(file)) is not None}


def test_the_link_to_log_in_is_told_to_a_terminal_and_to_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tell_login("http://127.0.0.1:8000", tmp_path)
    told = capsys.readouterr()
    assert "token=" not in told.out + told.err
    assert f"gotong token --role operator --link --data {tmp_path}" in told.err
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    tell_login("http://127.0.0.1:8000", tmp_path)
    link = capsys.readouterr().out.strip().removeprefix("masuk | log in: ")
    assert auth.actor_of(link.removeprefix("http://127.0.0.1:8000/#token="), Settings()).role == "operator"


@pytest.mark.timeout(PATIENCE_S * 3)
def test_everything_starts_is_found_again_survives_kill_9_and_stops_in_time(data: Path) -> None:
    port = str(free_port())
    url = f"http://127.0.0.1:{port}"
    first = gotong("up", "--detach", "--data", str(data), "--port", port)
    assert (first.returncode, first.stdout) == (0, f"ready {url}\n"), first.stderr
    assert set(children(data)) == {
        *("postgres", "broker", "web", "intake", "registry", "matching", "sitrep", "exchange")
    }

    # Asked for again, it is the same one, in the background and in the foreground alike.
    for words in (["--detach"], []):
        again = gotong("up", *words, "--data", str(data), "--port", port)
        assert (again.returncode, again.stdout) == (0, f"ready {url}\n"), again.stderr
        assert "already running" in again.stderr

    told = gotong("status", "--data", str(data), "--json")
    status = json.loads(told.stdout)
    assert status["status"] == "ok"
    assert {"intake", "registry", "matching", "sitrep", "exchange"} <= set(status["services"])
    assert all({"status", "lag", "unpublished"} <= set(service) for service in status["services"].values())
    assert status["broker"]["kind"] == "embedded"
    assert status["embedded"]["records"] >= 0

    # Everything at once is killed; the next start takes the place over.
    state = running(data)
    assert state is not None
    before = children(data)
    for pid in (state.pid, *before.values()):
        os.kill(pid, signal.SIGKILL)
    after = gotong("up", "--detach", "--data", str(data), "--port", port)
    assert (after.returncode, after.stdout) == (0, f"ready {url}\n"), after.stderr
    assert not set(children(data).values()) & set(before.values())

    alive = children(data)
    begun = time.monotonic()
    down = gotong("down", "--data", str(data))
    assert (down.returncode, down.stderr) == (0, f"Stopped what ran on {url}.\n")
    assert time.monotonic() - begun < 12  # ten seconds, and the start of the command itself
    assert running(data) is None
    assert until(lambda: not children(data), 1)
    assert all(not Path(f"/proc/{pid}").exists() for pid in alive.values()) or sys.platform != "linux"
