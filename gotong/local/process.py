"""One child process: how it is started, known to be ready, stopped, and found again when its parent was killed.

PostgreSQL, the brokers and the services all go through here, from the supervisor (asyncio) and from tests (plain).
"""

import contextlib
import ctypes
import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.02
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class LocalError(Exception):
    """Something on this machine stands in the way; the text is one plain sentence that says what to do."""


@dataclass(frozen=True)
class Account:
    """Whom a child runs as, when that is not ourselves."""

    name: str
    uid: int
    gid: int


def nobody() -> Account:
    """The account without rights that every system has; PostgreSQL runs as it when we are root."""
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _always_ready(pid: int) -> bool:
    return True


@dataclass(frozen=True, kw_only=True)
class Program:
    """A command line with all that is needed to run it.

    `env` is the whole environment, nothing is inherited. `ready` is asked again and again with the child's pid until
    it says yes. `pid_file` lets the next run find a child that outlived its parent.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    pid_file: Path
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    ready: Callable[[int], bool] = _always_ready
    ready_within_s: float = 60


def clean_env(**extra: str) -> dict[str, str]:
    """Our environment without what would steer a foreign program by accident (PGPORT, LISTENER_URL, KAFKA_OPTS ...)."""
    kept = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "JAVA_HOME", "JAVA_TOOL_OPTIONS")
    return {name: os.environ[name] for name in kept if name in os.environ} | extra


def popen_arguments(program: Program) -> dict[str, Any]:
    """Keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec` alike.

    The child gets a session of its own, so Ctrl-C reaches only us and we decide the order of stopping. On Linux it is
    also sent its stop signal when the *thread* that started it ends: start children from a thread that stays.
    """
    arguments: dict[str, Any] = {
        "env": dict(program.env),
        "cwd": program.cwd,
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
    }
    if program.account is not None:
        arguments |= {"user": program.account.uid, "group": program.account.gid, "extra_groups": []}
    return arguments | die_with_us(program.stop_signal)


def die_with_us(word: signal.Signals = signal.SIGTERM) -> dict[str, Any]:
    """Arguments for `subprocess` by which a child gets a signal when the thread that started it ends (on Linux)."""
    # preexec_fn runs after the change of user, which would otherwise take the wish away again.
    return {} if _libc is None else {"preexec_fn": _die_with(os.getpid(), word)}


def _die_with(parent: int, stop_signal: signal.Signals) -> Callable[[], None]:
    def preexec() -> None:
        assert _libc is not None
        _libc.prctl(PR_SET_PDEATHSIG, int(stop_signal))
        if os.getppid() != parent:  # it died between the fork and the call above
            os._exit(1)

    return preexec


def started_at(pid: int) -> str | None:
    """When a process began, as an opaque word: with the pid it names one process for ever. None if there is none."""
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip() or None


def write_pid(pid_file: Path, pid: int) -> None:
    """Remember a child for the next run."""
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    pid_file.write_text(f"{pid} {started_at(pid)}\n")


def read_pid(pid_file: Path) -> int | None:
    """The pid in the file, if that very process still runs."""
    try:
        pid, started = pid_file.read_text().strip().split(" ", 1)
    except (OSError, ValueError):
        return None
    return int(pid) if started_at(int(pid)) == started else None


def end_leftover(program: Program, within_s: float = 5) -> None:
    """Stop the child that an earlier, killed parent left behind, so that two never work on the same files."""
    pid = read_pid(program.pid_file)
    if pid is not None:
        end(pid, program.stop_signal, within_s)
    program.pid_file.unlink(missing_ok=True)


def end(pid: int, stop_signal: signal.Signals, within_s: float) -> None:
    """Stop a process that need not be our child: its own signal first, SIGKILL when that does not help in time."""
    started = started_at(pid)
    if started is None:
        return
    for word, patience_s in ((stop_signal, within_s), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, word)
        if until(lambda: started_at(pid) != started, patience_s):
            return
    raise LocalError(f"Process {pid} cannot be ended; end it by hand and try again.")


def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Poll a condition; False when it did not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def free_port(*, avoid: frozenset[int] = frozenset()) -> int:
    """A loopback port that nobody uses now."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def port_taken(port: int, host: str = "127.0.0.1") -> bool:
    """Whether another program listens there."""
    with socket.socket() as probe:
        # As every server does: else a connection that ended a moment ago would count as a program that listens.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return True
        return False


class Server(ABC):
    """A program with an address, started and stopped by hand; the supervisor uses `prepare` alone.

    `start`, `stop` and `kill` are for tests and for single commands. `start` after `kill` is a crash and a recovery.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self._stop_signal = signal.SIGTERM

    @abstractmethod
    def prepare(self) -> Program:
        """Make all that a start needs (files, folders), end leftovers, and say how to start. May be slow."""

    def begin(self) -> None:
        """Start the program and wait until it is ready; its output goes to the file `log` in its folder."""
        program = self.prepare()
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                program.argv, stdout=out, stderr=subprocess.STDOUT, **popen_arguments(program)
            )
        pid = self.process.pid
        self._stop_signal = program.stop_signal
        write_pid(program.pid_file, pid)
        ready = until(lambda: self.ended or program.ready(pid), program.ready_within_s)
        if not ready or self.ended:
            self.kill()
            tail = self.log.read_text(errors="replace").strip().splitlines()[-5:]
            raise LocalError(f"{program.name} did not start; see {self.log}: {' | '.join(tail)}")

    @property
    def ended(self) -> bool:
        """Whether there is no running process."""
        return self.process is None or self.process.poll() is not None

    def stop(self, within_s: float = 10) -> None:
        """Stop cleanly; SIGKILL when it takes too long. Harmless when nothing runs."""
        self._end(self._stop_signal, within_s)

    def kill(self) -> None:
        """SIGKILL, as a crash would do it."""
        self._end(signal.SIGKILL, 10)

    def _end(self, word: signal.Signals, within_s: float) -> None:
        if self.process is None:
            return
        self.process.send_signal(word)
        try:
            self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None
