"""The live stream: watchers held by one server process, delay from commit to arrival, memory of each.

One server process serves `GET /v1/stream`; this process appends events to the log and holds the watchers as plain
sockets on the same cores, each cut off once and resumed with Last-Event-ID. `server_cpu` and `clients_cpu` are parts of
one core; `load_before` is what else ran on the machine. The ceiling, in the same run: a bare ASGI application on
the same server that hands fixed bytes to as many connections, without log, filter or database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import uvicorn

from bench.sitrep_story import Story, Told
from gotong.local.folders import scratch_folder
from gotong.local.postgres import Postgres
from schemas.event import Event
from services.runtime import auth
from services.runtime.db import Database
from services.runtime.migrations import migrate_all
from services.runtime.service import build_app
from services.runtime.settings import Settings
from services.sitrep import log

SEED = 20261124
PAYLOAD = b"event: bare\ndata: " + b"x" * 700 + b"\n\n"
MAKERS = ("incident", "need", "responder", "report", "offer")
"""Five kinds of event in equal numbers; each watcher asks for two of them."""


def filters() -> list[str]:
    """Ten filters, each of which two events in five pass."""
    types = {
        "incident": "gotong.incident.opened.v1",
        "need": "gotong.need.drafted.v1,gotong.need.declared.v1,gotong.need.withdrawn.v1",
        "responder": "gotong.responder.registered.v1,gotong.responder.confirmed.v1",
        "report": "gotong.report.received.v1",
        "offer": "gotong.offer.made.v1",
    }
    pairs = [(one, two) for at, one in enumerate(MAKERS) for two in MAKERS[at + 1 :]]
    return [f"{types[one]},{types[two]}" for one, two in pairs]


_ID = re.compile(rb"^id: (\d+)$", re.MULTILINE)


class Watcher(asyncio.Protocol):
    """One client: a socket, what it asked for, and what it was told when. Comes back whenever the connection ends.

    It only looks for ids, because all clients share two cores with what is measured.
    """

    def __init__(self, port: int, path: str, headers: dict[str, str]) -> None:
        self.port, self.path, self.headers = port, path, headers
        self.ids: list[int] = []
        self.arrived: list[float] = []
        self.opened = asyncio.Event()
        self._rest = b""
        self._transport: asyncio.Transport | None = None
        self._lost = asyncio.Event()

    async def run(self) -> None:
        """Watch until cancelled."""
        try:
            while True:
                self._lost.clear()
                await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
                await self._lost.wait()
        finally:
            self.cut()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self._rest = transport, b""
        last = {"Last-Event-ID": str(self.ids[-1] if self.ids else 0)}
        lines = [f"GET {self.path} HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in (self.headers | last).items()]
        transport.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def data_received(self, data: bytes) -> None:
        # Whole lines only: what follows the last line break may be the beginning of an id.
        text, _, self._rest = (self._rest + data).rpartition(b"\n")
        now = time.time()
        for found in _ID.finditer(text):
            self.ids.append(int(found[1]))
            self.arrived.append(now)
        if not self.opened.is_set() and b"\n:" in text:
            self.opened.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost.set()

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise LookupError(f"no memory figure for {pid}")


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Serving:
    """A server process of this module."""

    def __init__(self, what: str, environment: dict[str, str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.stream", "--serve", what, "--port", str(self.port)],
            env={**os.environ, **environment},
        )

    async def ready(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.close()
                    return
                except OSError:
                    await asyncio.sleep(0.05)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


async def held(server: Serving, watchers: Sequence[Watcher]) -> tuple[list[asyncio.Task[None]], float]:
    """Open all, a few at a time; returns their tasks and the server's memory for each in KB.

    One watcher is opened before counting, so that what the first costs everybody is not laid on the others.
    """
    tasks = [asyncio.create_task(watchers[0].run())]
    await watchers[0].opened.wait()
    before = rss_kb(server.process.pid)
    for at in range(1, len(watchers), 50):
        group = watchers[at : at + 50]
        tasks += [asyncio.create_task(watcher.run()) for watcher in group]
        await asyncio.gather(*(watcher.opened.wait() for watcher in group))
    return tasks, (rss_kb(server.process.pid) - before) / max(1, len(watchers) - 1)


def told_at(story: Story, at: int) -> Told:
    event: Event | None = getattr(story, MAKERS[at % len(MAKERS)])()
    assert event is not None
    return story.tell(event)


async def measure(count: int, seconds: float, rate: float) -> dict[str, Any]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count * 2 + 500)), hard))
    os.environ.setdefault("GOTONG_SECRET_KEY", os.urandom(24).hex())
    folder = scratch_folder("gotong-bench-")
    postgres = Postgres(folder / "postgres", say=lambda _: None)
    postgres.start()
    try:
        dsn = postgres.createdb("bench")
        await migrate_all(dsn, ("sitrep",))
        db = Database(dsn, "sitrep")
        try:
            ours = await _ours(db, dsn, count, seconds, rate)
        finally:
            await db.close()
        bare = await _bare(count, seconds)
    finally:
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "bench": "stream",
        "seed": SEED,
        "machine": f"{platform.machine()} {platform.system()} Python {platform.python_version()} {os.cpu_count()} CPUs",
        "size": {"watchers": count, "seconds": seconds, "events_per_s": rate, "filters": len(filters())},
        "stream": ours,
        "bare": bare,
        "ratio": {"memory_each": round(ours["memory_each_kb"] / max(bare["memory_each_kb"], 0.1), 2)},
    }


async def _ours(db: Database, dsn: str, count: int, seconds: float, rate: float) -> dict[str, Any]:
    chance = random.Random(SEED)
    story = Story(SEED)
    opening = [*story.opening(), story.tell(story.incident()), story.tell(story.need()), story.tell(story.responder())]
    async with db.tx() as tx:
        await log.append(tx, [told.envelope() for told in opening])
        begin = await log.head(tx)
    server = Serving("stream", {"GOTONG_DATABASE": dsn})
    await server.ready()
    token = {"Authorization": f"Bearer {auth.sign('operator', 'bench')}"}
    kinds = filters()
    watchers = [Watcher(server.port, f"/v1/stream?types={kinds[at % len(kinds)]}", token) for at in range(count)]
    tasks: list[asyncio.Task[None]] = []
    committed: dict[int, float] = {}
    try:
        tasks, memory_kb = await held(server, watchers)
        load = os.getloadavg()[0]
        server_cpu, own_cpu = cpu_s(server.process.pid), time.process_time()
        began = time.time()
        cuts = sorted((began + chance.uniform(1, max(1.5, seconds - 2)), at) for at in range(count))
        per_commit = max(1, round(rate / 10))
        sent = 0
        while time.time() - began < seconds:
            batch = [told_at(story, sent + at) for at in range(per_commit)]
            sent += per_commit
            async with db.tx() as tx:
                await log.append(tx, [told.envelope() for told in batch])
                head = await log.head(tx)
            committed |= dict.fromkeys(range(head - per_commit + 1, head + 1), time.time())
            while cuts and cuts[0][0] <= time.time():
                watchers[cuts.pop(0)[1]].cut()
            await asyncio.sleep(max(0.0, began + sent / rate - time.time()))
        expected = await _expected(db, kinds)
        missed = await _arrived(watchers, expected, kinds)
        full_kb = rss_kb(server.process.pid)
        took = time.time() - began
        server_share = (cpu_s(server.process.pid) - server_cpu) / took
        own_share = (time.process_time() - own_cpu) / took
    finally:
        for task in tasks:
            task.cancel()
        server.stop()
    delays = sorted(
        arrived - committed[position]
        for watcher in watchers
        for position, arrived in zip(watcher.ids, watcher.arrived, strict=True)
        if position in committed
    )
    repeated = sum(len(watcher.ids) - len(set(watcher.ids)) for watcher in watchers)
    assert begin > 0
    return {
        "watchers_held": count,
        "events": sent,
        "delivered": len(delays),
        "missed": missed,
        "repeated": repeated,
        "cut_off_and_resumed": count - len(cuts),
        "p50_delay_s": round(statistics.median(delays), 3),
        "p99_delay_s": round(delays[int(len(delays) * 0.99)], 3),
        "max_delay_s": round(delays[-1], 3),
        "server_cpu": round(server_share, 2),
        "clients_cpu": round(own_share, 2),
        "load_before": round(load, 2),
        "memory_each_kb": round(memory_kb, 1),
        "server_memory_mb": round(full_kb / 1024, 1),
    }


async def _expected(db: Database, kinds: Sequence[str]) -> list[list[int]]:
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT position, type FROM log ORDER BY position")
    return [[row["position"] for row in rows if row["type"] in kind.split(",")] for kind in kinds]


async def _arrived(watchers: Sequence[Watcher], expected: Sequence[list[int]], kinds: Sequence[str]) -> int:
    """Wait at most 20 s for everything to arrive; returns how much never did."""
    deadline = time.time() + 20
    while True:
        missed = sum(len(set(expected[at % len(kinds)]) - set(watcher.ids)) for at, watcher in enumerate(watchers))
        if not missed or time.time() > deadline:
            return missed
        await asyncio.sleep(0.25)


async def _bare(count: int, seconds: float) -> dict[str, Any]:
    server = Serving("bare", {})
    await server.ready()
    watchers = [Watcher(server.port, "/", {}) for _ in range(count)]
    tasks: list[asyncio.Task[None]] = []
    try:
        tasks, memory_kb = await held(server, watchers)
        await asyncio.sleep(min(seconds, 5))
    finally:
        for task in tasks:
            task.cancel()
        server.stop()
    return {"memory_each_kb": round(memory_kb, 1)}


def serve(what: str, port: int) -> None:
    app: Any
    if what == "bare":
        app = _bare_app
    else:
        from services.sitrep.app import service

        app = build_app([service], Settings.of("sitrep"))
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


async def _bare_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    await send({"type": "http.response.body", "body": b": open\n\n", "more_body": True})
    while True:
        await asyncio.sleep(0.25)
        await send({"type": "http.response.body", "body": PAYLOAD * 5, "more_body": True})


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.stream", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=50, help="events a second, of which 20 in 50 pass each filter")
    parser.add_argument("--serve", choices=("stream", "bare"), help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.serve:
        serve(options.serve, options.port)
        return 0
    result = asyncio.run(measure(options.watchers, options.seconds, options.rate))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
