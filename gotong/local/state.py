"""What runs on a data folder: who holds it, where it answers, and how a single command gets at its parts."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO

from gotong.local.folders import make_folder
from gotong.local.postgres import Postgres
from gotong.local.process import started_at


@dataclass(frozen=True, kw_only=True)
class State:
    """A running `gotong up`, as it writes itself down in `state.json` of its data folder.

    `ready`: every service was healthy once. `demo`: empty, `loaded`, or why it was not. `broker`: what was chosen
    (`embedded`, `kafka`, `external`). `log`: the file with its output when it is detached.
    """

    pid: int
    started: str
    url: str
    kafka: str
    broker: str
    database: str
    ready: bool = False
    demo: str = ""
    log: str | None = None

    def write(self, data: Path) -> "State":
        """Put it in place whole; the DSN within holds a password, so only we may read it."""
        draft = data / "state.json.new"
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(data / "state.json")
        return self

    def but(self, data: Path, **changes: object) -> "State":
        """Write it down with changes."""
        return replace(self, **changes).write(data)  # type: ignore[arg-type]


def running(data: Path) -> State | None:
    """The `gotong up` that runs on a data folder now; one that was killed does not count."""
    try:
        state = State(**json.loads((data / "state.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return state if started_at(state.pid) == state.started else None


def forget(data: Path) -> None:
    """Say that nothing runs there any more."""
    (data / "state.json").unlink(missing_ok=True)


def hold(data: Path) -> IO[bytes] | None:
    """The lock of a data folder, kept as long as the file is open; None when another `gotong up` has it."""
    lock = (make_folder(data) / "lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return None
    return lock


@contextlib.contextmanager
def database(data: Path, url: str | None = None) -> Iterator[str]:
    """The DSN for a command that works on the database directly.

    An address that was given (or GOTONG_DATABASE) comes first, then the one that runs on `data`; when nothing runs
    there, the embedded PostgreSQL is started for as long as the block lasts.
    """
    given = url or os.environ.get("GOTONG_DATABASE")
    if given and given != "embedded":
        yield given
        return
    state = running(data)
    if state is not None:
        yield state.database
        return
    server = Postgres(data / "postgres")
    try:
        yield server.start()
    finally:
        server.stop()
