"""`gotong` as it is called: help, wrong usage, and what stands in the way, each in one sentence."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import COMMANDS, main
from gotong.local.process import started_at
from gotong.local.state import State, hold, running


def run(*words: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, list(words), env=env)


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        yield (*path, name)


@pytest.mark.parametrize("path", list(commands(main)), ids=" ".join)
def test_every_command_has_help_with_an_example(path: tuple[str, ...]) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "Example" in result.output
    assert "gotong" in result.output.partition("Example")[2]


def test_every_variable_of_the_contract_is_a_flag_that_the_help_of_up_lists() -> None:
    text = " ".join(run("up", "--help").output.split())
    for name in (
        "KAFKA",
        "KAFKA_SECURITY",
        "DATABASE",
        "DATA",
        "PORT",
        "OIDC_ISSUER",
        "OIDC_AUDIENCE",
        "OIDC_CLIENT_ID",
        "SECRET_KEY",
    ):
        assert f"env var: GOTONG_{name}" in text
    for name in ("LOG", "OTLP", "REQUIRE", "CLOCK"):
        assert f"env var: GOTONG_{name}" in text


@pytest.mark.parametrize(
    "words",
    [("nonsense",), ("up", "--port", "0"), ("up", "--log", "xml"), ("status", "--nonsense"), ("up", "more")],
)
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    assert run(*words).exit_code == 2


def test_required_kafka_is_not_replaced_by_the_embedded_broker(tmp_path: Path) -> None:
    result = run("up", "--data", str(tmp_path), "--require", "kafka")
    assert result.exit_code == 2
    assert "--broker kafka" in result.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--broker", "rabbit"), "give embedded, kafka or HOST:PORT"),
        (("--database", "mysql://x"), "give embedded or postgresql://"),
        (("--data", "/proc/gotong"), "cannot be written; choose another with --data"),
    ],
)
def test_what_stands_in_the_way_is_one_sentence_on_stderr(
    tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    result = run("up", "--data", str(tmp_path / "data"), "--port", "8765", *words)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_port_in_use_is_said_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = run("up", "--data", str(tmp_path / "data"), "--port", str(port))
    assert result.exit_code == 1
    assert result.stderr == f"Error: Port {port} is in use by another program; choose another with --port.\n"
    assert not (tmp_path / "data" / "postgres").exists()


def test_down_and_status_say_when_nothing_runs(tmp_path: Path) -> None:
    down = run("down", "--data", str(tmp_path))
    assert down.exit_code == 0
    assert down.stderr == f"Nothing is running on {tmp_path}.\n"
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        status = run("status", "--data", str(tmp_path), env={"GOTONG_PORT": str(port)})
    assert status.exit_code == 1
    assert f"answers on http://127.0.0.1:{port}; start it with gotong up" in status.stderr


def test_a_state_counts_only_while_its_process_lives(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    state = State(
        pid=child.pid, started=started_at(child.pid) or "", url="http://x", kafka="k", broker="kafka", database="d"
    ).write(tmp_path)
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600
    assert running(tmp_path) == state
    # The same number, another process.
    state.but(tmp_path, started="1")
    assert running(tmp_path) is None
    state.write(tmp_path)
    child.communicate(b"\n")
    assert running(tmp_path) is None


def test_one_data_folder_has_one_holder(tmp_path: Path) -> None:
    lock = hold(tmp_path)
    assert lock is not None
    assert hold(tmp_path) is None
    lock.close()
    again = hold(tmp_path)
    assert again is not None
    again.close()


class Health(BaseHTTPRequestHandler):
    """Answers as /v1/health does."""

    answer: tuple[int, dict[str, Any]] = (200, {})

    def do_GET(self) -> None:
        status, body = self.answer
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def health() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Health) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_status_prints_what_health_says_and_exits_by_it(health: str) -> None:
    well = {"status": "ok", "lag": 3, "unpublished": 2, "quarantined": 1, "lag_by_topic": {"gotong.reports.v1": 3}}
    Health.answer = (200, {"status": "ok", "services": {"intake": well}})
    result = run("status", "--url", health)
    assert result.exit_code == 0
    assert "intake: 3 records behind on gotong.reports.v1" in result.output
    assert json.loads(run("status", "--url", health, "--json").output) == Health.answer[1]

    ill = {"status": "down", "lag": 0, "unpublished": 9, "detail": "no worker has reported for 5 seconds"}
    Health.answer = (503, {"status": "down", "services": {"intake": well, "sitrep": ill}})
    result = run("status", "--url", health)
    assert result.exit_code == 1
    assert "no worker has reported" in result.output
    assert run("status", "--url", health, "--service", "intake").exit_code == 0
    assert run("status", "--url", health, "--service", "sitrep").exit_code == 1
    assert run("status", "--url", health, "--service", "none").exit_code == 2


def test_the_same_command_is_there_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gotong", "--help"], capture_output=True, text=True, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
