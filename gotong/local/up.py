"""`gotong up`: which processes there are, what they are told, and when the whole counts as ready."""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gotong.local.broker import JAVA_NEEDED, Kafka, Tansu, java_version
from gotong.local.folders import cache_folder, default_data, make_folder, secret_key
from gotong.local.postgres import Postgres, say_on_stderr
from gotong.local.process import LocalError, Program, end, free_port, port_taken, read_pid, started_at, until
from gotong.local.state import State, forget, hold, running
from gotong.local.supervisor import Child, Log, Supervisor

WORKERS = ("intake", "registry", "matching", "sitrep", "exchange")
KAFKA_PORT = 9092
PORT = 8000
READY_WITHIN_S = 180.0
LOGIN_HOURS = 12.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for; `env` is what the services are told beside the addresses, by variable."""

    data: Path
    broker: str = "embedded"
    database: str = "embedded"
    port: int = PORT
    demo: bool = False
    log: str = "text"
    env: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def up(options: Options) -> None:
    """Run everything in the foreground until it is told to stop."""
    lock = hold(options.data)
    if lock is None:
        already_running(options)
        return
    with lock:
        asyncio.run(_up(options))


async def _up(options: Options) -> None:
    parts = _parts(options)
    os.environ.update(parts.env)  # migrations and topics read the same settings as the services
    log = Log([child.name for stage in parts.stages for child in stage], style=options.log)

    state = State(
        pid=os.getpid(),
        started=started_at(os.getpid()) or "",
        url=options.url,
        kafka=parts.env["GOTONG_KAFKA"],
        broker=parts.broker,
        database="",
        log=os.environ.get("GOTONG_DETACHED_LOG"),
    )

    async def hook() -> None:
        nonlocal state
        await _migrate(parts.env["GOTONG_DATABASE"])
        await _make_topics(parts.env["GOTONG_KAFKA"], embedded=parts.broker == "embedded")
        state = state.but(options.data, database=parts.env["GOTONG_DATABASE"])

    async def ready() -> None:
        nonlocal state
        await _wait_until_healthy(options.url)
        state = state.but(options.data, ready=True)
        print(f"ready {options.url}", flush=True)
        if options.demo:
            said = await asyncio.to_thread(load_demo, options.url)
            state = state.but(options.data, demo=said or "loaded")
            log.write("gotong", said or "the demo operation is loaded")
        tell_login(options.url, options.data)

    state.write(options.data)
    supervisor = Supervisor(parts.stages, hook, log)
    try:
        await supervisor.run(ready)
    except LocalError as error:
        say_on_stderr(f"Error: {error}")
        code = 1
    else:
        code = 0
    forget(options.data)
    sys.stdout.flush()
    # Not by returning: a thread that still fetches jars would be waited for. Its Maven ends with the thread.
    os._exit(code)


@dataclass(frozen=True)
class Parts:
    """The processes in their stages, what the services are told, and the kind of broker."""

    stages: list[list[Child]]
    env: dict[str, str]
    broker: str


def _parts(options: Options) -> Parts:
    _end_leftovers(options.data)
    if port_taken(options.port):
        raise LocalError(f"Port {options.port} is in use by another program; choose another with --port.")
    secret_key(options.data)
    first: list[Child] = []
    env = dict(options.env)
    env |= {"GOTONG_DATA": str(options.data), "GOTONG_PORT": str(options.port), "GOTONG_LOG": options.log}
    env["GOTONG_DATABASE"] = _checked_url(options.database)
    if options.database == "embedded":
        postgres = Postgres(
            options.data / "postgres",
            port=free_port(avoid=frozenset({options.port, KAFKA_PORT})),
            pg_bin=options.env.get("GOTONG_PG_BIN"),
        )

        def prepare_postgres() -> Program:
            program = postgres.prepare()
            # The password is made with the cluster; the services start later and read it from here.
            env["GOTONG_DATABASE"] = postgres.dsn()
            return program

        first.append(Child(name="postgres", prepare=prepare_postgres))
    broker = _broker(options, env)
    if broker is not None:
        first.append(broker)
    kind = options.broker if broker is not None else "external"
    second = [Child(name="web", prepare=_service(options, env, "web", "services.gateway"), stop_within_s=4.5)]
    second += [
        Child(name=name, prepare=_service(options, env, name, f"services.{name}", "worker"), stop_within_s=4.5)
        for name in WORKERS
    ]
    return Parts([first, second], env, kind)


def _end_leftovers(data: Path) -> None:
    """End the services of a supervisor that was killed; they may still be at their last words, and hold the port."""
    pids = [pid for file in sorted((data / "run").glob("*.pid")) if (pid := read_pid(file)) is not None]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    for pid in pids:
        end(pid, signal.SIGTERM, 5)


def _broker(options: Options, env: dict[str, str]) -> Child | None:
    """The broker as a child, or None for an address; tells the services where and what it is."""
    if options.broker not in ("embedded", "kafka"):
        if not re.fullmatch(r"[^\s,:]+:\d+(,[^\s,:]+:\d+)*", options.broker):
            raise LocalError(f"The broker {options.broker!r} is not known; give embedded, kafka or HOST:PORT.")
        env |= {"GOTONG_KAFKA": options.broker, "GOTONG_KAFKA_EMBEDDED": "false"}
        return None
    # The port that every Kafka client expects, beside our own well-known one: whoever moves us to another port runs
    # several of us, and two that start at once must not both find it free.
    wanted = KAFKA_PORT if options.port == PORT and not port_taken(KAFKA_PORT) else None
    folder = options.data / f"broker-{options.broker}"
    if options.broker == "embedded":
        tansu = Tansu(folder, port=wanted)
        env |= {"GOTONG_KAFKA": tansu.address, "GOTONG_KAFKA_EMBEDDED": "true"}
        return Child(name="broker", prepare=tansu.prepare, forgets=True, stop_within_s=2)
    java = java_version()
    if java < JAVA_NEEDED:
        found = f"Java {java} is too old" if java else "there is no Java on the PATH"
        raise LocalError(
            f"--broker kafka needs Java {JAVA_NEEDED} or newer and {found}; install it (Debian: default-jre)."
        )
    kafka = Kafka(folder, cache_folder(options.data), port=wanted)
    env |= {"GOTONG_KAFKA": kafka.address, "GOTONG_KAFKA_EMBEDDED": "false"}
    return Child(name="broker", prepare=kafka.prepare, stop_within_s=2)


def _checked_url(url: str) -> str:
    if url == "embedded":
        return ""
    if urlsplit(url).scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise LocalError("The database is not known; give embedded or postgresql://USER:PASSWORD@HOST:PORT/NAME.")
    return url


def _service(options: Options, env: dict[str, str], name: str, module: str, *words: str) -> Callable[[], Program]:
    def prepare() -> Program:
        return Program(
            name=name,
            # -P: a folder named `services` where we were called must not be taken for ours.
            argv=(sys.executable, "-P", "-m", module, *words),
            env=os.environ | env | {"PYTHONUNBUFFERED": "1"},
            pid_file=options.data / "run" / f"{name}.pid",
            ready=(lambda pid: port_taken(options.port)) if name == "web" else (lambda pid: True),
        )

    return prepare


async def _migrate(dsn: str) -> None:
    from services.runtime.migrations import migrate_all

    try:
        await migrate_all(dsn)
    except Exception as error:
        raise LocalError(f"The database could not be brought up to date: {_sentence(error)}") from error


async def _make_topics(bootstrap: str, *, embedded: bool) -> None:
    from services.runtime.topics import ensure_topics

    try:
        await ensure_topics(bootstrap, embedded=embedded)
    except Exception as error:
        raise LocalError(f"The topics could not be made on {bootstrap}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def health(url: str) -> tuple[int, dict[str, Any]]:
    """The answer of /v1/health with its HTTP status; 0 and nothing where nobody answers."""
    try:
        with urllib.request.urlopen(f"{url}/v1/health", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        try:
            said = json.load(error)
        except ValueError:
            said = {}
        return error.code, said if isinstance(said, dict) else {}
    except (OSError, ValueError):
        return 0, {}


def unwell(said: dict[str, Any]) -> str:
    """What a health answer says is not well, for people."""
    services = said.get("services") or {}
    ill = [
        f"{name} is {service.get('status')}" + (f" ({service['detail']})" if service.get("detail") else "")
        for name, service in services.items()
        if service.get("status") != "ok"
    ]
    return ", ".join(ill) or "it does not answer"


async def _wait_until_healthy(url: str) -> None:
    deadline = asyncio.get_running_loop().time() + READY_WITHIN_S
    while True:
        status, said = await asyncio.to_thread(health, url)
        if status == 200:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise LocalError(f"Not ready after {READY_WITHIN_S:.0f} s: {unwell(said)}; the lines above say more.")
        await asyncio.sleep(0.1)


def load_demo(url: str) -> str:
    """Load the demo operation; says why it could not be, or nothing. Loading it twice is harmless."""
    from gotong import demo
    from services.runtime import auth

    try:
        demo.load(url, auth.sign("admin", "demo", hours=1))
    except (demo.DemoRefused, demo.DemoTimeout) as error:
        return f"The demo operation could not be loaded: {error}"
    return ""


def login_link(url: str, token: str) -> str:
    """The address that logs its reader in on the board. The token stands behind the `#`: browsers send that to no
    server, and hand it on to no other page."""
    return f"{url}/#token={token}"


def tell_login(url: str, data: Path) -> None:
    """Say how to log in on the board: by the link itself to a person at a terminal; where the output goes to a file or
    a log, which others may read, by the command that makes one."""
    from services.runtime import auth

    if sys.stdout.isatty():
        print(f"masuk | log in: {login_link(url, auth.sign('operator', 'board', hours=LOGIN_HOURS))}", flush=True)
    else:
        where = "" if data == default_data() else f" --data {data}"
        say_on_stderr(f"A link to log in on the board: gotong token --role operator --link{where}")


def already_running(options: Options) -> None:
    """Wait for the one that has the data folder, and say what it is."""
    state = None

    def settled() -> bool:
        nonlocal state
        state = running(options.data)
        return state is not None and state.ready

    if not until(settled, READY_WITHIN_S) or state is None:
        raise LocalError(f"Another gotong on {options.data} is starting but not ready; look at it, or run: gotong down")
    status, said = health(state.url)
    if status != 200:
        raise LocalError(f"Gotong is already running on {state.url}, but {unwell(said)}; stop it with: gotong down")
    say_on_stderr(f"Gotong is already running on {state.url} (process {state.pid}).")
    print(f"ready {state.url}", flush=True)
    os.environ["GOTONG_DATA"] = str(options.data)
    if options.demo and (said_of_demo := load_demo(state.url)):
        raise LocalError(said_of_demo)
    tell_login(state.url, options.data)


def detach(options: Options, env: dict[str, str]) -> None:
    """Run the same in the background; returns when it is ready."""
    if hold_free(options.data):
        log = make_folder(options.data) / "gotong.log"
        with log.open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "gotong", "up", *(["--demo"] if options.demo else [])],
                env=os.environ | env | {"GOTONG_DETACHED_LOG": str(log)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

        def settled() -> bool:
            if child.poll() is not None:
                return True
            state = running(options.data)
            return state is not None and state.pid == child.pid and state.ready and bool(state.demo or not options.demo)

        done = until(settled, READY_WITHIN_S * 2)
        if not done or child.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            reason = next((line for line in reversed(lines) if line.startswith("Error: ")), "")
            told = reason.removeprefix("Error: ").removesuffix(".") or "It did not start"
            raise LocalError(f"{told}. The output is in {log}.")
        state = running(options.data)
        assert state is not None
        print(f"ready {state.url}", flush=True)
        if options.demo and state.demo != "loaded":
            raise LocalError(state.demo)
        os.environ.update(env)
        tell_login(state.url, options.data)
    else:
        already_running(options)


def hold_free(data: Path) -> bool:
    """Whether nobody runs on a data folder."""
    lock = hold(data)
    if lock is None:
        return False
    lock.close()
    return True


def prepare(data: Path, bootstrap: str, database_url: str) -> None:
    """Tables, topics and secret key, for services that something else starts."""
    dsn = _checked_url(database_url)
    secret_key(data)
    os.environ.update({"GOTONG_DATA": str(data), "GOTONG_KAFKA": bootstrap, "GOTONG_DATABASE": dsn})

    async def both() -> None:
        await _migrate(dsn)
        await _make_topics(bootstrap, embedded=False)

    asyncio.run(both())


def down(data: Path) -> State | None:
    """Stop what runs on a data folder, cleanly where it lets us; returns what it was."""
    state = running(data)
    if state is None:
        return None
    os.kill(state.pid, signal.SIGTERM)
    if not until(lambda: started_at(state.pid) != state.started, 15):
        os.kill(state.pid, signal.SIGKILL)  # its children get their stop signals from the system
        forget(data)
    return state
