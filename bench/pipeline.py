"""The pipeline: reports accepted, events over two hops, processor time for each, and latencies, against bare programs.

Everything is real: PostgreSQL, Apache Kafka (or the embedded broker), and the processes that `gotong up` starts, as it
starts them. The ceilings are measured in the same run and take turns with ours: a route with the same application,
server and body model and nothing behind it; a two-hop aiokafka program of three processes without a database, and with
one; and PostgreSQL alone.

The two hops: a need declared by intake (its outbox, Kafka) is taken in by matching (inbox, need, ledger), whose change
of the ledger (outbox, Kafka) ends in sitrep's log. Sitrep logs the need itself as well, and intake takes in the ledger,
as they do in service: an event that is counted once here is two records sent and four applied, in three services. The
needs are of a closed operation, so that no plan is made of them: the bench `matching` measures that.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench import pipeline_durable as durable
from bench import pipeline_load as load
from bench.pipeline_load import percentile
from gotong.local.broker import Broker, Choice, make_broker
from gotong.local.folders import cache_folder, scratch_folder, secret_key
from gotong.local.postgres import Postgres
from gotong.local.process import free_port
from gotong.local.up import WORKERS, health
from schemas.operations import OperationClosed
from schemas.topics import TOPICS
from services.runtime import auth, clock, outbox
from services.runtime.db import Database
from services.runtime.migrations import migrate_all
from services.runtime.topics import ensure_topics

SEED = 20261124
FLOORS: dict[str, tuple[float, float]] = {
    "accepted": (0.40, 0.55),
    "drained": (0.20, 0.35),
    "cpu": (5.0, 3.5),
    "saturated": (0.35, 0.50),
    "report_p50_ms": (40, 18),
    "report_p99_ms": (150, 60),
    "offer_p99_ms": (400, 200),
}
"""What is asked for at least, and what is aimed at; of the last five less is better, as of `cpu`."""
_LESS = ("cpu", "report_p50_ms", "report_p99_ms", "offer_p99_ms")
_TICKS = os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------------------------------------- processes
def cpu_s(pid: int) -> float:
    """Processor time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def tree_cpu_s(pid: int) -> float:
    """Processor time of a process, of its children, and of those that it has seen end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    total = sum(int(fields[n]) for n in (11, 12, 13, 14)) / _TICKS
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        with contextlib.suppress(OSError):  # it ended between the two looks
            total += tree_cpu_s(int(child))
    return total


@dataclass
class System:
    """The running parts: where they are, and what processor time each has used."""

    port: int
    dsn: str
    postgres: Postgres
    broker: Broker
    processes: dict[str, subprocess.Popen[bytes]]
    token: str

    def cpu(self) -> dict[str, float]:
        """Seconds by part; the broker apart from all others."""
        used = {name: cpu_s(process.pid) for name, process in self.processes.items()}
        for name, server in (("postgres", self.postgres), ("broker", self.broker)):
            process = getattr(server, "process", None)
            used[name] = tree_cpu_s(process.pid) if process is not None else 0.0
        return used


def spent(before: dict[str, float], after: dict[str, float], events: int) -> dict[str, float]:
    """Microseconds an event by part, and their sum without the broker."""
    each = {name: round((after[name] - before[name]) / events * 1e6, 1) for name in before}
    return each | {"total": round(sum(value for name, value in each.items() if name != "broker"), 1)}


@asynccontextmanager
async def system(env: dict[str, str], postgres: Postgres, broker: Broker, name: str, workers: Sequence[str]) -> Any:
    """A fresh database and the processes on it; stopped and dropped at the end."""
    dsn = postgres.createdb(name)
    await migrate_all(dsn)
    port = free_port()
    env = env | {"GOTONG_DATABASE": dsn, "GOTONG_PORT": str(port)}
    processes = {"web": _start(env, "services.gateway")}
    processes |= {worker: _start(env, f"services.{worker}", "worker") for worker in workers}
    try:
        await _ready(port, healthy=bool(workers))
        yield System(port, dsn, postgres, broker, processes, auth.sign("operator", "bench", hours=2))
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                await asyncio.to_thread(process.wait, 10)
            except subprocess.TimeoutExpired:
                process.kill()
        postgres.dropdb(name)


def _start(env: dict[str, str], module: str, *words: str, pipes: bool = False) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, *words],
        env=os.environ | env | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stdout=subprocess.PIPE if pipes else subprocess.DEVNULL,
        stderr=None if os.environ.get("BENCH_LOUD") else subprocess.DEVNULL,
    )


async def _ready(port: int, *, healthy: bool) -> None:
    async with asyncio.timeout(120):
        while True:
            status, _ = await asyncio.to_thread(health, f"http://127.0.0.1:{port}")
            if status == 200 or (status and not healthy):
                return
            await asyncio.sleep(0.1)


# ------------------------------------------------------------------------------------------------------------ accepted
async def accepted(
    env: dict[str, str], postgres: Postgres, broker: Broker, seconds: float, runs: int
) -> dict[str, Any]:
    """Reports that were answered 202 after their commit, with relay and linker off, by turns with the bare route."""
    bare: list[dict[str, Any]] = []
    ours: list[dict[str, Any]] = []
    async with system(env, postgres, broker, "bench_accept", ()) as web:
        port = free_port()
        route = _start(env | {"GOTONG_DATABASE": web.dsn, "GOTONG_PORT": str(port)}, "bench.pipeline_load", "route")
        try:
            await _answers(port)
            for run in range(runs + 1):  # the first warms up and does not count
                length = seconds if run else 1.5
                for at, (where, found) in enumerate(((port, bare), (web.port, ours))):
                    bodies = load.reports(SEED + run, 10_000_000, tag=f"a{run}")
                    before = web.cpu() | {"route": cpu_s(route.pid)}
                    seen = await load.saturate(where, web.token, bodies, 32, length)
                    after = web.cpu() | {"route": cpu_s(route.pid)}
                    if run:
                        used = spent(before, after, max(1, seen.accepted))
                        found.append(_load_figures(seen) | {"cpu_us": used["route"] if at == 0 else _web(used)})
            rows = await _count(web.dsn, "SELECT count(*) FROM intake.report")
            waiting = await _count(web.dsn, "SELECT count(*) FROM intake.outbox")
        finally:
            route.kill()
            route.wait()
    if rows != waiting:
        raise RuntimeError(f"{rows} reports were stored and {waiting} events wait: they must be as many")
    best_bare, best = max(bare, key=_rate), max(ours, key=_rate)
    return {"bare_route": best_bare, "accepted": best, "runs": {"bare_route": bare, "accepted": ours}}


def _web(used: dict[str, float]) -> dict[str, float]:
    return {"web": used["web"], "postgres": used["postgres"]}


def _rate(figures: dict[str, Any]) -> float:
    rate: float = figures["per_s"]
    return rate


def _load_figures(seen: load.Load) -> dict[str, Any]:
    if set(seen.statuses) != {202}:
        raise RuntimeError(f"not every report was taken: {seen.statuses}")
    return {
        "per_s": round(seen.accepted / seen.seconds, 1),
        "p50_ms": round(percentile(seen.took_s, 0.5) * 1000, 1),
        "p99_ms": round(percentile(seen.took_s, 0.99) * 1000, 1),
    }


async def _answers(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            except OSError:
                await asyncio.sleep(0.05)


async def _count(dsn: str, sql: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(await connection.fetchval(sql))
    finally:
        await connection.close()


# ------------------------------------------------------------------------------------------------------------- drained
async def bare_hops(env: dict[str, str], broker: Broker, count: int) -> dict[str, Any]:
    """The two-hop program without a database: three processes, the same bytes and headers."""
    run = str(time.time_ns())
    await _make_topics(broker.address, load.hops(run))
    parts = {
        "source": _start(env, "bench.pipeline_load", "source", str(count), str(SEED), run, pipes=True),
        "middle": _start(env, "bench.pipeline_load", "middle", str(count), run, pipes=True),
        "sink": _start(env, "bench.pipeline_load", "sink", str(count), run, pipes=True),
    }
    return await _raced(parts, count, None)


async def durable_hops(env: dict[str, str], postgres: Postgres, broker: Broker, count: int) -> dict[str, Any]:
    """The two-hop program with a database and nothing else: what the rules of delivery cost by themselves."""
    run = str(time.time_ns())
    await _make_topics(broker.address, load.hops(run))
    dsn = postgres.createdb("bench_durable")
    try:
        await durable.make_tables(dsn)
        await durable.fill(dsn, count, SEED, run)
        parts = {
            name: _start(env, "bench.pipeline_durable", name, dsn, str(count), run, pipes=True)
            for name in ("source", "middle", "sink")
        }
        figures = await _raced(parts, count, postgres)
        logged = await _count(dsn, "SELECT count(*) FROM log")
    finally:
        postgres.dropdb("bench_durable")
    if logged != count:
        raise RuntimeError(f"the log of the program with a database holds {logged} of {count} events")
    return figures


async def _raced(parts: dict[str, subprocess.Popen[bytes]], count: int, postgres: Postgres | None) -> dict[str, Any]:
    """Let the processes of a bare program go once all are ready, until the last says that it is done."""

    def used() -> dict[str, float]:
        found = {name: cpu_s(process.pid) for name, process in parts.items()}
        if postgres is not None and postgres.process is not None:
            found["postgres"] = tree_cpu_s(postgres.process.pid)
        return found

    try:
        for process in parts.values():
            await asyncio.wait_for(asyncio.to_thread(_line, process), 60)
        before, begun = used(), time.time()
        for process in reversed(parts.values()):
            _tell(process)
        said = await asyncio.wait_for(asyncio.to_thread(_line, parts["sink"]), 180)
        after = used()
    finally:
        for process in parts.values():
            process.kill()
            process.wait()
    return {
        "per_s": round(count / (float(said.split()[1]) - begun), 1),
        "cpu_us": spent(before, after, count),
    }


def _line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline().decode()
    if not line:
        raise RuntimeError("a bare program ended early; set BENCH_LOUD=1 to see why")
    return line


def _tell(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"go\n")
    process.stdin.flush()


async def _make_topics(address: str, names: Sequence[str]) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, load.PARTITIONS, 1) for name in names])
    finally:
        await admin.close()


_RELAY_OFF = "SELECT pg_advisory_lock(hashtext('gotong.relay'), hashtext('intake'))"
_RELAY_ON = "SELECT pg_advisory_unlock(hashtext('gotong.relay'), hashtext('intake'))"


async def drained(parts: System, count: int, run: int) -> dict[str, Any]:
    """Fill intake's outbox while its relay is held off, let it go, and wait until the last change is in the log."""
    gate = await asyncpg.connect(parts.dsn)
    db = Database(parts.dsn, "intake")
    try:
        await gate.execute(_RELAY_OFF)
        events = load.needs(SEED + run, count, f"drain-{run}")
        for at in range(0, count, 1000):
            async with db.tx() as tx:
                await outbox.append(tx, events[at : at + 1000])
        await gate.execute("VACUUM ANALYZE intake.outbox")
        there = int(await gate.fetchval("SELECT coalesce(max(position), 0) FROM sitrep.log"))
        before, begun = parts.cpu(), time.perf_counter()
        await gate.fetchval(_RELAY_ON)
        await _until(gate, "SELECT coalesce(max(position), 0) FROM sitrep.log", there + 2 * count)
        took = time.perf_counter() - begun
        after = parts.cpu()
        logged = await gate.fetch(
            "SELECT type, count(DISTINCT subject) AS n FROM sitrep.log WHERE position > $1 GROUP BY 1", there
        )
    finally:
        await db.close()
        await gate.close()
    found = {row["type"]: row["n"] for row in logged}
    if found != {"gotong.need.declared.v1": count, "gotong.ledger.changed.v1": count}:
        raise RuntimeError(f"the log does not hold each need and each change of its ledger: {found}")
    return {"per_s": round(count / took, 1), "cpu_us": spent(before, after, count)}


async def _until(connection: Any, sql: str, wanted: int, within_s: float = 240) -> None:
    deadline = time.monotonic() + within_s
    while int(await connection.fetchval(sql)) < wanted:
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {within_s:.0f} s, and it is still not there: {sql}")
        await asyncio.sleep(0.05)


async def close_operation(parts: System) -> None:
    """The registry tells of the drain's operation, which is closed; returns when matching knows."""
    now = clock.now()
    db = Database(parts.dsn, "registry")
    try:
        async with db.tx() as tx:
            told = OperationClosed(
                operation=load.OPERATION, title="Bench", opened_at=now, closed_at=now, by="bench", reason="bench"
            )
            await outbox.append(tx, [told])
    finally:
        await db.close()
    connection = await asyncpg.connect(parts.dsn)
    try:
        await _until(connection, "SELECT count(*) FROM matching.operation WHERE closed_at IS NOT NULL", 1)
        await _until(connection, "SELECT count(*) FROM sitrep.log", 1)
    finally:
        await connection.close()


async def bare_database(postgres: Postgres, seconds: float = 2.0) -> dict[str, Any]:
    """PostgreSQL alone: rows as the outbox holds them, 500 a commit; and commits of one row on 8 connections."""
    dsn = postgres.createdb("bench_bare")
    pool = await asyncpg.create_pool(dsn, min_size=8, max_size=8)
    try:
        await pool.execute(
            "CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key text, value bytea)"
        )
        insert = "INSERT INTO bare (key, value) SELECT * FROM unnest($1::text[], $2::bytea[])"

        async def commits(rows: int, connections: int) -> float:
            done, begun = 0, time.perf_counter()

            async def one() -> None:
                nonlocal done
                async with pool.acquire() as connection:
                    while time.perf_counter() - begun < seconds:
                        await connection.execute(insert, ["key"] * rows, [b"x" * 700] * rows)
                        done += rows

            await asyncio.gather(*(one() for _ in range(connections)))
            return round(done / (time.perf_counter() - begun), 1)

        return {"rows_per_s_500_a_commit": await commits(500, 1), "commits_per_s_8_connections": await commits(1, 8)}
    finally:
        await pool.close()
        postgres.dropdb("bench_bare")


# ---------------------------------------------------------------------------------------------------------------- live
async def saturated(parts: System, seconds: float, run: int) -> dict[str, Any]:
    """Reports at full pace with all parts running, until the last of them is in sitrep's log; and how much later
    everything that follows from them has come to rest as well (linked, told of, logged)."""
    connection = await asyncpg.connect(parts.dsn)
    logged = "SELECT count(*) FROM sitrep.log WHERE type = 'gotong.report.received.v1'"
    try:
        there = int(await connection.fetchval(logged))
        before, begun = parts.cpu(), time.perf_counter()
        bodies = load.reports(SEED + 100 + run, 10_000_000, tag=f"s{run}")
        seen = await load.saturate(parts.port, parts.token, bodies, 32, seconds)
        figures = _load_figures(seen)
        await _until(connection, logged, there + seen.accepted)
        arrived = time.perf_counter() - begun
        after = parts.cpu()
        await settled(parts)
        rested = time.perf_counter() - begun
    finally:
        await connection.close()
    return {
        "per_s": round(seen.accepted / arrived, 1),
        "at_rest_per_s": round(seen.accepted / rested, 1),
        "reports": seen.accepted,
        "answered": figures,
        "cpu_us": spent(before, after, seen.accepted),
    }


_AT_WORK = """
    SELECT (SELECT count(*) FROM intake.report WHERE state IN ('waiting', 'held'))
         + (SELECT count(*) FROM intake.outbox) + (SELECT count(*) FROM matching.outbox)
         + (SELECT count(*) FROM matching.change)
         + (SELECT count(*) FROM intake.journal WHERE topic IN
               ('gotong.reports.v1', 'gotong.incidents.v1', 'gotong.needs.v1'))
         + (SELECT count(*) FROM matching.journal WHERE topic IN
               ('gotong.ledger.v1', 'gotong.offers.v1', 'gotong.assignments.v1'))
         - (SELECT count(*) FROM sitrep.log WHERE source LIKE '%/intake' OR source LIKE '%/matching')
"""


async def settled(parts: System) -> None:
    """Until nothing waits: every report linked, every event sent and in the log, no change left to plan for."""
    connection = await asyncpg.connect(parts.dsn)
    try:
        deadline = time.monotonic() + 300
        while int(await connection.fetchval(_AT_WORK)):
            if time.monotonic() > deadline:
                raise RuntimeError("after 300 s something is still left behind")
            await asyncio.sleep(0.2)
    finally:
        await connection.close()


class Outside:
    """A consumer of somebody else's: notes when each report and each offer could be read on its topic."""

    TOPICS = ("gotong.reports.v1", "gotong.needs.v1", "gotong.offers.v1")

    def __init__(self, address: str) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=address, fetch_max_wait_ms=100)
        self.reports: dict[str, float] = {}
        self.report_ids: dict[str, str] = {}
        self.offers: dict[str, float] = {}
        self.needs: dict[str, str] = {}

    async def start(self) -> None:
        await self._consumer.start()
        places = [TopicPartition(name, n) for name in self.TOPICS for n in range(TOPICS[name].partitions)]
        self._consumer.assign(places)
        await self._consumer.seek_to_end(*places)
        for place in places:
            await self._consumer.position(place)

    async def run(self) -> None:
        while True:
            found = await self._consumer.getmany(timeout_ms=500)
            now = time.time()
            for batch in found.values():
                for record in batch:
                    self._note(record, now)

    def _note(self, record: Any, now: float) -> None:
        data = orjson.loads(record.value)
        kind = dict(record.headers)["ce_type"].decode()
        if kind == "gotong.report.received.v1":
            self.reports.setdefault(data["external_id"], now)
            self.report_ids[data["report_id"]] = data["external_id"]
        elif kind == "gotong.need.declared.v1":
            for report_id in data.get("reports", ()):
                self.needs.setdefault(data["need_id"], report_id)
        elif kind == "gotong.offer.made.v1":
            self.offers.setdefault(data["need_id"], now)

    def offered(self) -> dict[str, float]:
        """When the first offer for a report's need was read, by the report's external id."""
        return {
            self.report_ids[report_id]: self.offers[need_id]
            for need_id, report_id in self.needs.items()
            if need_id in self.offers and report_id in self.report_ids
        }

    async def stop(self) -> None:
        await self._consumer.stop()


async def latency(parts: System, rate: float, seconds: float, every_need: int, run: int) -> dict[str, Any]:
    """A steady pace, read by an outside consumer: from when a request was due to its `report received`, and of those
    that ask for something, to the `offer made`."""
    outside = Outside(parts.broker.address)
    await outside.start()
    reading = asyncio.create_task(outside.run())
    try:
        tag = f"l{run}"
        count = int(rate * seconds)
        places = run * (count // every_need + 1)
        bodies = list(load.reports(SEED + 200 + run, count, every_need=every_need, first_place=places, tag=tag))
        before, begun = parts.cpu(), time.perf_counter()
        due = await load.steady(parts.port, parts.token, bodies, rate)
        busy = sum(value for value in spent(before, parts.cpu(), 1_000_000).values()) / 2
        took = time.perf_counter() - begun
        asking = {f"{tag}-{n}" for n in range(0, len(bodies), every_need)}
        async with asyncio.timeout(60):
            while len(outside.reports) < len(bodies) or not asking <= set(outside.offered()):
                await asyncio.sleep(0.1)
    finally:
        reading.cancel()
        await outside.stop()
    sent = {f"{tag}-{n}": at for n, at in enumerate(due)}
    reports = [(at - sent[name]) * 1000 for name, at in outside.reports.items()]
    offers = [(at - sent[name]) * 1000 for name, at in outside.offered().items()]
    return {
        "rate": rate,
        "reports": len(reports),
        "report_p50_ms": round(percentile(reports, 0.5), 1),
        "report_p99_ms": round(percentile(reports, 0.99), 1),
        "needs": len(offers),
        "offer_p50_ms": round(percentile(offers, 0.5), 1),
        "offer_p99_ms": round(percentile(offers, 0.99), 1),
        "cores": round(busy / took, 2),
    }


async def stock(parts: System) -> None:
    """Boats within reach of every need of the latency runs; returns when matching knows of them."""
    lots = [
        {
            "external_id": f"bench-{n}", "item": "boat", "quantity": 100_000, "organisation": None,
            "location": {"lon": 110.0 + (n % 8) * 0.9, "lat": -8.0 + (n // 8) * 0.9}, "delivery_limit_km": 500,
        }
        for n in range(24)
    ]  # fmt: skip
    connections = await load.connected(parts.port, parts.token, 1, "/v1/resources")
    for lot in lots:
        body = orjson.dumps({name: value for name, value in lot.items() if value is not None})
        status = await connections[0].post(body)
        if status not in (200, 201):
            raise RuntimeError(f"a lot was answered {status}")
    connections[0].close()
    connection = await asyncpg.connect(parts.dsn)
    try:
        await _until(connection, "SELECT count(*) FROM matching.lot WHERE NOT exercise", len(lots))
    finally:
        await connection.close()


# ----------------------------------------------------------------------------------------------------------- all of it
@contextmanager
def servers(kind: str) -> Iterator[tuple[Postgres, Broker, dict[str, str]]]:
    """PostgreSQL and a broker of our own, and what the processes are told of them."""
    folder = scratch_folder("gotong-bench-")
    cache = cache_folder(Path(__file__).resolve().parents[1] / ".gotong")
    postgres = Postgres(folder / "postgres", say=lambda _: None)
    choice = Choice("kafka" if kind == "kafka" else "embedded", "it was asked for")
    broker = make_broker(choice, folder / "broker", cache)
    try:
        postgres.start()
        broker.start()
        env = {
            "GOTONG_DATA": str(folder),
            "GOTONG_SECRET_KEY": secret_key(folder),
            "GOTONG_KAFKA": broker.address,
            "GOTONG_KAFKA_EMBEDDED": str(kind == "embedded").lower(),
            "GOTONG_LOG": "text",
        }
        os.environ.update(env)
        yield postgres, broker, env
    finally:
        broker.stop()
        postgres.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    only = set(options.only or ("accepted", "drained", "saturated", "latency"))
    with servers(options.broker) as (postgres, broker, env):
        await ensure_topics(broker.address, embedded=options.broker == "embedded")
        result: dict[str, Any] = {
            "bench": "pipeline",
            "machine": f"{platform.machine()} {platform.system()} Python {platform.python_version()}",
            "cores": os.cpu_count(),
            "load_before": round(os.getloadavg()[0], 1),
            "broker": options.broker,
            "seed": SEED,
            "size": {
                "events": options.events, "seconds": options.seconds, "connections": 32, "rate": options.rate,
                "runs": options.runs, "every_need": options.every_need,
            },
            "database": await bare_database(postgres),
        }  # fmt: skip
        if "accepted" in only or "saturated" in only:
            result["http"] = await accepted(env, postgres, broker, options.seconds, options.runs)
        if "drained" in only:
            bare, durably, ours = [], [], []
            for run in range(options.runs):
                await bare_hops(env, broker, options.events // 4)  # warms up the broker
                bare.append(await bare_hops(env, broker, options.events))
                durably.append(await durable_hops(env, postgres, broker, options.events))
                # Fresh tables each time: the needs of a run before would stand in the next one's way.
                async with system(env, postgres, broker, f"bench_drain_{run}", WORKERS) as parts:
                    await close_operation(parts)
                    await drained(parts, options.events // 4, 2 * run)
                    await analysed(parts)
                    ours.append(await drained(parts, options.events, 2 * run + 1))
            result["bare_hops"] = {"best": max(bare, key=_rate), "runs": bare}
            result["durable_hops"] = {"best": max(durably, key=_rate), "runs": durably}
            result["drained"] = {"best": max(ours, key=_rate), "runs": ours}
        if only & {"saturated", "latency"}:
            async with system(env, postgres, broker, "bench_live", WORKERS) as parts:
                await _live(parts, options, only, result)
    result["figures"] = figures_of(result)
    return result


async def _live(parts: System, options: argparse.Namespace, only: set[str], result: dict[str, Any]) -> None:
    await stock(parts)
    await latency(parts, options.rate, 4, options.every_need, 0)  # warms up: first statements, first plans
    await settled(parts)
    await analysed(parts)
    if "latency" in only:
        runs = [
            await latency(parts, options.rate, options.seconds * 2, options.every_need, run + 1)
            for run in range(options.runs)
        ]
        result["latency"] = {"best": min(runs, key=lambda one: one["report_p99_ms"]), "runs": runs}
        await settled(parts)
    if "saturated" in only:
        runs = [await saturated(parts, options.seconds, run) for run in range(options.runs)]
        result["saturated"] = {"best": max(runs, key=_rate), "runs": runs}


async def analysed(parts: System) -> None:
    """Statistics of the tables, as PostgreSQL takes them by itself within the first minutes of service."""
    connection = await asyncpg.connect(parts.dsn)
    try:
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


def figures_of(result: dict[str, Any]) -> dict[str, float]:
    """The figures by which the pipeline is judged: ratios to what was measured beside them, and milliseconds."""
    found: dict[str, float] = {}
    http = result.get("http")
    if http:
        found["accepted"] = http["accepted"]["per_s"] / http["bare_route"]["per_s"]
    if "drained" in result:
        bare, ours = result["bare_hops"], result["drained"]
        found["drained"] = ours["best"]["per_s"] / bare["best"]["per_s"]
        cpu = [statistics.median(run["cpu_us"]["total"] for run in part["runs"]) for part in (ours, bare)]
        found["cpu"] = cpu[0] / cpu[1]
    if "saturated" in result and http:
        found["saturated"] = result["saturated"]["best"]["per_s"] / http["accepted"]["per_s"]
    if "latency" in result:
        best = result["latency"]["best"]
        found |= {name: best[name] for name in ("report_p50_ms", "report_p99_ms")}
        found["offer_p99_ms"] = min(run["offer_p99_ms"] for run in result["latency"]["runs"])
    return {name: round(value, 3) for name, value in found.items()}


_LABELS = {
    "accepted": "reports accepted durably / bare route",
    "drained": "events over two hops / bare two-hop program",
    "cpu": "processor time per event of that drain / bare",
    "saturated": "saturated HTTP to the last hop / accept rate",
    "report_p50_ms": "request to `report received`, p50 ms",
    "report_p99_ms": "request to `report received`, p99 ms",
    "offer_p99_ms": "request with a need to `offer made`, p99 ms",
}


def table(result: dict[str, Any]) -> str:
    """The figures as people read them."""
    size = result["size"]
    lines = [
        f"pipeline on {result['broker']}, {result['machine']}, {result['cores']} cores (load {result['load_before']} "
        f"before), seed {result['seed']}",
        f"{size['events']} events, {size['connections']} connections for {size['seconds']:g} s, best of "
        f"{size['runs']}; {size['rate']:g} reports/s, every {size['every_need']}th with a need",
        "",
        f"{'figure':<50}{'seen':>9}{'at least':>10}{'aim':>7}",
    ]
    for name, seen in result["figures"].items():
        floor, aim = FLOORS[name]
        met = seen <= floor if name in _LESS else seen >= floor
        lines.append(f"{_LABELS[name]:<50}{seen:>9g}{floor:>10g}{aim:>7g}{'' if met else '  MISSED'}")
    lines.append("")
    rows = [("PostgreSQL alone, rows/s, 500 a commit", result["database"]["rows_per_s_500_a_commit"])]
    rows.append(("PostgreSQL alone, commits/s, 8 connections", result["database"]["commits_per_s_8_connections"]))
    if "http" in result:
        rows.append(("bare route, requests/s", result["http"]["bare_route"]["per_s"]))
        rows.append(("reports accepted/s", result["http"]["accepted"]["per_s"]))
        rows += [(f"  processor us/report, {k}", v) for k, v in result["http"]["accepted"]["cpu_us"].items()]
        rows.append(("  processor us/request, bare route", result["http"]["bare_route"]["cpu_us"]))
    for name, label in (
        ("bare_hops", "bare two hops"),
        ("durable_hops", "two hops with a database and nothing else"),
        ("drained", "two hops"),
    ):
        if name in result:
            rows.append((f"{label}, events/s", result[name]["best"]["per_s"]))
            rows += [(f"  processor us/event, {k}", v) for k, v in result[name]["best"]["cpu_us"].items()]
    if "saturated" in result:
        best = result["saturated"]["best"]
        rows.append(("saturated to sitrep's log, reports/s", best["per_s"]))
        rows.append(("saturated until all is at rest, reports/s", best["at_rest_per_s"]))
        rows += [(f"  processor us/report, {k}", v) for k, v in best["cpu_us"].items()]
    if "latency" in result:
        rows.append(("cores used at the steady pace", result["latency"]["best"]["cores"]))
    return "\n".join([*lines, *(f"{label:<50}{value:>9g}" for label, value in rows)])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pipeline", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--broker", choices=("kafka", "embedded"), default="kafka")
    parser.add_argument("--events", type=int, default=20_000, help="events in the outbox of one drain")
    parser.add_argument(
        "--seconds", type=float, default=6, help="of one saturated run; a steady one takes twice as long"
    )
    parser.add_argument("--rate", type=float, default=50, help="reports a second of the steady runs")
    parser.add_argument("--every-need", type=int, default=5, help="each so many-th of those reports asks for something")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--only", action="append", choices=("accepted", "drained", "saturated", "latency"), help="may be repeated"
    )
    options = parser.parse_args(argv)
    result = asyncio.run(measure(options))
    print(json.dumps(result) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
