"""The whole system under a random but repeatable schedule of faults, and what must be true of it afterwards.

On Apache Kafka the broker and PostgreSQL are ours, each behind a proxy; on the embedded broker everything belongs to
`gotong up`. Either way it is loaded, struck and judged from outside only.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from gotong.local.broker import Kafka
from gotong.local.folders import cache_folder, scratch_folder
from gotong.local.postgres import Postgres
from gotong.local.process import LocalError, Server, die_with_us, free_port
from schemas.sitreps import SitrepPublished
from schemas.topics import TOPICS
from services.exchange.handlers import consumer as exchange_consumer
from services.intake.handlers import consumer as intake_consumer
from services.matching.handlers import consumer as matching_consumer
from services.runtime.consumer import Consumer
from tests.e2e.system import ROOT, SERVICES, System, until
from tests.faults.load import INBOUND, PARTNER, Load, Told

CONSUMERS: dict[str, Consumer] = {c.service: c for c in (intake_consumer, matching_consumer, exchange_consumer)}
PROGRESS = {
    "intake": "SELECT coalesce(max(position), 0) FROM intake.journal",
    "registry": "SELECT coalesce(max(position), 0) FROM registry.journal",
    "matching": "SELECT coalesce(max(position), 0) FROM matching.journal",
    "exchange": "SELECT coalesce(max(position), 0) FROM exchange.journal",
    "sitrep": "SELECT coalesce(max(position), 0) FROM sitrep.log",
}
"""What moves as long as a service does its work, under this load."""


class Proxy:
    """The process of `proxy.py`."""

    def __init__(self, links: dict[str, tuple[int, int]]) -> None:
        words = [f"{name}={listen}:{target}" for name, (listen, target) in links.items()]
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("proxy.py")), *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._said() == "ready"

    def order(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._said() == "ok"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(5)
        self._process.stdout.close()


class Field:
    """A running system with the means to hurt it."""

    def __init__(
        self,
        broker: str,
        *,
        env: dict[str, str] | None = None,
        postgres_folder: Path | None = None,
        brief: bool = True,
    ) -> None:
        self.embedded = broker == "embedded"
        self.folder = scratch_folder("gotong-faults-")
        self.postgres: Postgres | None = None
        self.kafka: Kafka | None = None
        self.proxy: Proxy | None = None
        self.env = env or {}
        self._restarts: dict[str, asyncio.Task[None]] = {}
        self._others: list[subprocess.Popen[bytes]] = []
        if self.embedded:
            self.system = System("embedded", env=env)
            return
        ports = {"postgres": free_port(), "kafka": free_port()}
        self.postgres = Postgres(postgres_folder or self.folder / "postgres", say=lambda _: None)
        cache = cache_folder(ROOT / ".gotong")
        self.kafka = Kafka(self.folder / "kafka", cache, advertised_port=ports["kafka"], brief=brief)
        self.ports = ports

    def start(self) -> None:
        if self.postgres is not None and self.kafka is not None:
            direct = self.postgres.start()
            self.kafka.start()
            self.proxy = Proxy(
                {
                    "postgres": (self.ports["postgres"], self.postgres.port),
                    "kafka": (self.ports["kafka"], self.kafka.port),
                }
            )
            through = direct.replace(f":{self.postgres.port}/", f":{self.ports['postgres']}/")
            self.system = System(f"127.0.0.1:{self.ports['kafka']}", through, env=self.env)
        self.system.start()

    def close(self) -> None:
        for process in self._others:
            process.kill()
            process.wait()
        if hasattr(self, "system"):
            self.system.close()
        if self.proxy is not None:
            self.proxy.close()
        if self.kafka is not None:
            self.kafka.kill()
        if self.postgres is not None:
            self.postgres.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def dsn(self) -> str:
        """The database, not through the proxy."""
        return self.system.state["database"] if self.postgres is None else self.postgres.dsn()

    @property
    def bootstrap(self) -> str:
        address: str = self.system.state["kafka"]
        return address

    async def rows(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn, timeout=5)
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()

    def story(self) -> str:
        """Which children there are, and what the supervisor said last, for a failure's text."""
        lines = self.system.log.read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("gotong ")][-20:]
        return "\n".join([str(self.system.pids()), *said, self.system.tail(20)])

    # -- what can be done to it

    async def kill(self, name: str) -> None:
        """SIGKILL; who owns the process starts it again, at once. Waits first for a start that is under way."""
        server = {"postgres": self.postgres, "kafka": self.kafka}.get(name)
        if server is None:
            pid = await until(
                lambda: self.system.pids().get("broker" if name == "kafka" else name), 60, self.system.tail
            )
            os.kill(pid, signal.SIGKILL)
            return
        await self.restarted(name)
        await asyncio.to_thread(server.kill)
        self._restarts[name] = asyncio.create_task(self._again(name, server))

    async def _again(self, name: str, server: Server) -> None:
        begun = time.monotonic()

        async def started() -> bool:
            try:
                await asyncio.to_thread(server.begin)
            except LocalError:
                return False  # children of the killed one still hold on to its memory or port for a moment
            return True

        await until(started, 120)
        print(f"{'':10}  {name} answers {time.monotonic() - begun:.1f} s after its start", flush=True)

    async def restarted(self, *names: str) -> None:
        """Wait until these run again."""
        for name in names or list(self._restarts):
            if name in self._restarts:
                await self._restarts.pop(name)

    async def pause(self, name: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        server = {"postgres": self.postgres, "kafka": self.kafka}.get(name)
        await self.restarted(name)
        if server is not None and server.process is not None:
            pid: int = server.process.pid
        else:
            pid = await until(lambda: self.system.pids().get(name), 60, self.system.tail)
        pids = [pid, *_children(pid)]
        for one in pids:
            _signal(one, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            for one in pids:
                _signal(one, signal.SIGCONT)

    async def kill_in_a_send(self, name: str) -> None:
        """SIGKILL a worker between the broker's taking of its records and its hearing of it, so that it must send twice."""
        assert self.proxy is not None
        await asyncio.to_thread(self.proxy.order, "hold", "kafka")
        try:
            await asyncio.sleep(0.5)
            await self.kill(name)
        finally:
            await asyncio.to_thread(self.proxy.order, "thaw", "kafka")

    async def freeze(self, name: str, seconds: float, *, cut: bool) -> None:
        """Let no byte pass for so many seconds; then everything again, or with `cut` on new connections only."""
        assert self.proxy is not None
        await asyncio.to_thread(self.proxy.order, "freeze", name)
        try:
            await asyncio.sleep(seconds)
            if cut:
                await asyncio.to_thread(self.proxy.order, "cut", name)
        finally:
            await asyncio.to_thread(self.proxy.order, "thaw", name)

    def another(self, service: str, instance: str, **env: str) -> subprocess.Popen[bytes]:
        """A second worker of a service, as somebody starts it beside the others; it ends with us."""
        mine = {name: text for name, text in os.environ.items() if not name.startswith("GOTONG_")} | {
            "GOTONG_DATABASE": self.system.state["database"], "GOTONG_KAFKA": self.bootstrap,
            "GOTONG_KAFKA_EMBEDDED": str(self.embedded).lower(), "GOTONG_DATA": str(self.system.data / "data"),
            "GOTONG_INSTANCE": instance,
        }  # fmt: skip
        with self.system.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"services.{service}", "worker"],
                env=mine | env, cwd=self.system.data, stdout=log, stderr=log, **die_with_us(),
            )  # fmt: skip
        self._others.append(process)
        return process

    # -- the load's ground

    async def ground(self, seed: int) -> tuple[str, list[str]]:
        """An operation with people and stock in it; returns its name and the lots."""
        rng = random.Random(seed)
        operation = f"uji-{uuid4().hex[:8]}"
        async with self.system.client("admin") as admin:
            answer = await admin.post(
                "/v1/operations",
                json={"id": operation, "title": "Banjir uji", "hazards": ["flood"], "areas": ["kemendagri:31"],
                      "timezone": "Asia/Jakarta", "status": {"declared": "tanggap_darurat", "level": "provinsi"}},
            )  # fmt: skip
            assert answer.status_code in (200, 201), answer.text
            people = [
                {"external_id": f"{operation}-{n}", "source": "/test", "kind": "person", "name": f"Relawan {n}",
                 "phone": f"+62812{rng.randrange(10**7, 10**8)}", "location": _somewhere(rng), "languages": ["id"],
                 "skills": [{"skill": "boat_operator", "level": 2}], "travel_limit_km": 80}
                for n in range(300)
            ]  # fmt: skip
            answer = await admin.post("/v1/responders:batch", json=people)
            assert answer.status_code == 207 and answer.json()["accepted"] == len(people), answer.text
            lots = []
            for n in range(8):
                lot = {"external_id": f"{operation}-{n}", "source": "/test", "kind": "stock", "item": "blanket",
                       "quantity": 2500, "location": _somewhere(rng), "delivery_limit_km": 200}  # fmt: skip
                answer = await admin.post("/v1/resources", json=lot)
                assert answer.status_code in (200, 201), answer.text
                lots.append(answer.json()["lot_id"])

            async def known() -> bool:
                rows = await self.rows("SELECT 1 FROM intake.operation WHERE operation = $1", operation)
                return bool(rows)

            await until(known, 30, self.system.tail)
        return operation, lots

    def load(self, operation: str, lots: list[str], seed: int, rate: float) -> Load:
        tokens = {role: self.system.token(role, f"load-{role}", hours=5) for role in ("field", "admin")}
        load = Load(self.system.port, self.bootstrap, tokens, operation, seed, rate, embedded=self.embedded)
        load.lots = lots
        return load


def _somewhere(rng: random.Random) -> dict[str, float]:
    return {"lon": 106.5 + rng.random() * 0.7, "lat": -6.6 + rng.random() * 0.6}


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry.name))
            except (OSError, IndexError):
                continue
    return found


def _signal(pid: int, word: signal.Signals) -> None:
    try:
        os.kill(pid, word)
    except ProcessLookupError:
        return


# -- watching


@dataclass
class Blow:
    """A blow that is not recovered from yet. `before` None: nobody could be asked since."""

    label: str
    felt_by: tuple[str, ...]
    at: float
    before: dict[str, int] | None = None


class Watch:
    """Notes when each service last got something done, and so how long each took to get going again after a blow."""

    def __init__(self, field: Field, told: Told) -> None:
        self.field = field
        self.told = told
        self.recoveries: dict[str, list[float]] = defaultdict(list)
        self._open: list[Blow] = []

    def struck(self, label: str, felt_by: Sequence[str]) -> None:
        """A blow has just fallen that these felt."""
        self._open.append(Blow(label, tuple(felt_by), time.monotonic()))

    async def run(self) -> None:
        while True:
            done = await self.progress()
            now = time.monotonic()
            for blow in list(self._open):
                here = {name: done[name] for name in blow.felt_by if name in done}
                if len(here) < len(blow.felt_by):
                    continue
                if blow.before is None:
                    blow.before = here  # what had been done when it fell, or was already on its way
                elif all(here[name] > count for name, count in blow.before.items()):
                    self.recoveries[blow.label].append(now - blow.at)
                    self._open.remove(blow)
            await asyncio.sleep(0.2)

    async def progress(self) -> dict[str, int]:
        """What each has done so far; without an answer from the database, only what the senders were told."""
        found = {"web": len(self.told.reports)}
        sql = f"SELECT {', '.join(f'({sql}) AS {n}' for n, sql in PROGRESS.items())}"
        try:
            async with asyncio.timeout(10):  # a connection whose other end hangs would be waited on for ever
                row = (await self.field.rows(sql))[0]
        except (OSError, EOFError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            return found
        return found | dict(row)

    def unrecovered(self) -> list[str]:
        return [f"{blow.label} {blow.before}" for blow in self._open]


# -- the schedule

EVERYBODY = ("web", *PROGRESS)


async def strike(
    field: Field, watch: Watch, seed: int, kills: int, *, pause_s: tuple[float, float], broker_kills: bool
) -> Counter[str]:
    """So many SIGKILLs, spread evenly over all kinds of process, with stops, cuts and freezes between, all in a random
    order; some fall before the last one is recovered from. Returns how many of each kind there were."""
    rng = random.Random(seed)
    killed = [*(["kafka"] if broker_kills else []), "web", *SERVICES, "postgres"]
    say = _speaker()
    blows: list[tuple[str, str]] = []
    while len(blows) < kills:
        # A quarter in the middle of a send; of the others each kind equally often, what is over falls on the services.
        if not field.embedded and len(blows) % 4 == 3:
            blows.append(("send", rng.choice(["intake", "matching", "exchange", "registry"])))
        else:
            counts = Counter(victim for kind, victim in blows if kind == "kill")
            left = kills - len(blows)
            victims = killed if left > len(killed) // 2 or kills < len(killed) else ["web", *SERVICES]
            least = min(counts[victim] for victim in victims)
            blows.append(("kill", rng.choice([victim for victim in victims if counts[victim] == least])))
    for n in range(kills // 3):
        kind = "stop" if field.embedded else ("stop", "cut", "freeze", "freeze and cut")[n % 4]
        stopped = ["web", *SERVICES, *([] if field.embedded else ["postgres", "kafka"])]
        blows.append((kind, rng.choice(stopped if kind == "stop" else ["postgres", "kafka"])))
    rng.shuffle(blows)
    count: Counter[str] = Counter()
    for kind, victim in blows:
        await asyncio.sleep(rng.uniform(*pause_s))
        say(f"{kind} {victim}; offered {watch.told.offered}, accepted {watch.told.accepted}")
        felt = EVERYBODY if victim in ("postgres", "kafka") else (victim,)
        if victim == "kafka":
            felt = tuple(PROGRESS)
        seconds = rng.uniform(1, 4)
        if kind == "kill":
            await field.kill(victim)
        elif kind == "send":
            await field.kill_in_a_send(victim)
        elif kind == "stop":
            await field.pause(victim, seconds)
        elif kind == "cut":
            assert field.proxy is not None
            await asyncio.to_thread(field.proxy.order, "cut", victim)
        else:
            await field.freeze(victim, seconds, cut=kind != "freeze")
        watch.struck(f"{kind} {victim}", felt)
        count[kind] += 1
    return count


# -- the judgement


async def drained(field: Field) -> list[str]:
    """What still waits somewhere: rows to be sent, reports to be linked, events that a reader has not taken in."""
    left = []
    for service in SERVICES:
        n = (await field.rows(f'SELECT count(*) AS n FROM "{service}".outbox'))[0]["n"]
        if n:
            left.append(f"{n} in {service}'s outbox")
    n = (await field.rows("SELECT count(*) AS n FROM intake.report WHERE state IN ('waiting', 'held')"))[0]["n"]
    if n:
        left.append(f"{n} reports are not linked")
    if left:
        return left
    return await unread(field)


async def unread(field: Field) -> list[str]:
    """Events that stand in a journal and that a reader has not taken in, by the reader's own tables."""
    left = []
    readers: dict[str, list[str]] = defaultdict(list)
    for topic in TOPICS.values():
        for reader in topic.readers:
            readers[reader].append(topic.name)
    journals = " UNION ALL ".join(
        f"SELECT source, id::text, topic, type, subject, sequence FROM {service}.journal" for service in SERVICES
    )
    rows = await field.rows(
        f"SELECT j.topic, count(*) AS n FROM ({journals}) j LEFT JOIN sitrep.log USING (source, id) "
        "WHERE j.topic = ANY($1) AND j.type <> $2 AND log.id IS NULL GROUP BY 1",
        readers["sitrep"],
        SitrepPublished.type,
    )
    left += [f"sitrep lacks {row['n']} of {row['topic']}" for row in rows]
    for service, consumer in CONSUMERS.items():
        types = list(consumer._handlers)
        facts = [name for name in consumer.topics if TOPICS[name].kind == "fact" and name != INBOUND]
        states = [name for name in consumer.topics if TOPICS[name].kind == "state"]
        rows = await field.rows(
            f"SELECT j.topic, count(*) AS n FROM ({journals}) j LEFT JOIN {service}.inbox_fact f USING (source, id) "
            "WHERE j.topic = ANY($1) AND j.type = ANY($2) AND f.id IS NULL GROUP BY 1",
            facts, types,
        )  # fmt: skip
        rows += await field.rows(
            f"SELECT j.topic, count(*) AS n FROM (SELECT topic, subject, max(sequence) AS sequence FROM ({journals}) x "
            f"WHERE topic = ANY($1) AND type = ANY($2) GROUP BY 1, 2) j LEFT JOIN {service}.inbox_state s "
            "USING (topic, subject) WHERE j.sequence IS DISTINCT FROM s.sequence GROUP BY 1",
            states, types,
        )  # fmt: skip
        left += [f"{service} lacks {row['n']} of {row['topic']}" for row in rows]
    return left


async def drain(field: Field, within_s: float) -> float:
    """Wait until nothing waits anywhere; returns the seconds."""
    begun = time.monotonic()
    left: list[str] = ["?"]

    async def nothing_left() -> bool:
        nonlocal left
        left = await drained(field)
        return not left

    await until(nothing_left, within_s, lambda: f"{left}\n{field.system.tail(30)}", pause_s=0.3)
    return time.monotonic() - begun


async def lag(bootstrap: str) -> dict[str, int]:
    """Of each group, the records that stand after its committed offsets, asked of Apache Kafka itself."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await admin.start()
    await consumer.start()
    try:
        found: dict[str, int] = {}
        for group in sorted({reader for topic in TOPICS.values() for reader in topic.readers}):
            offsets = await admin.list_consumer_group_offsets(f"gotong.{group}")
            ends = await consumer.end_offsets(list(offsets)) if offsets else {}
            found[group] = sum(max(0, end - offsets[partition].offset) for partition, end in ends.items())
        return found
    finally:
        await admin.close()
        await consumer.stop()


class Records:
    """Every record of every topic, as little of each as the checks need."""

    def __init__(self) -> None:
        self.count = 0
        self.first: dict[str, tuple[str, str, str, str, int]] = {}  # id -> topic, key, type, subject, sequence
        self.order: dict[tuple[str, str], list[str]] = defaultdict(list)  # (topic, key) -> ids in order of first sight

    @property
    def sent_again(self) -> int:
        return self.count - len(self.first)

    async def read(self, bootstrap: str, topics: Sequence[str]) -> None:
        client = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, max_partition_fetch_bytes=4 * 1024 * 1024, fetch_max_wait_ms=100
        )
        await client.start()
        try:
            partitions = [TopicPartition(name, n) for name in topics for n in range(TOPICS[name].partitions)]
            client.assign(partitions)
            await client.seek_to_beginning(*partitions)
            ends = await client.end_offsets(partitions)
            left = {partition for partition in partitions if ends[partition] > 0}
            async with asyncio.timeout(300):
                while left:
                    for partition, records in (await client.getmany(timeout_ms=300)).items():
                        for record in records:
                            self._take(partition.topic, record)
                    left = {p for p in left if await client.position(p) < ends[p]}
        finally:
            await client.stop()

    def _take(self, topic: str, record: Any) -> None:
        self.count += 1
        attributes = {name: value for name, value in record.headers if name.startswith("ce_")}
        name = attributes["ce_id"].decode()
        if name not in self.first:
            key = record.key.decode()
            self.first[name] = (
                topic, key, attributes["ce_type"].decode(), attributes["ce_subject"].decode(),
                int(attributes["ce_sequence"]),
            )  # fmt: skip
            self.order[topic, key].append(name)


async def judge(field: Field, told: Told, operation: str, *, whole_log: bool = True) -> dict[str, int]:
    """Everything that must hold once all is drained; returns figures. `whole_log`: the broker still has all its records."""
    figures: dict[str, int] = {"accepted": told.accepted}

    # Each accepted report once where it is kept, and none that nobody was told of.
    rows = await field.rows("SELECT report_id::text AS id, origin, external_id FROM intake.report")
    by_http = [row["id"] for row in rows if row["origin"] != PARTNER]
    by_partner = [row["external_id"] for row in rows if row["origin"] == PARTNER]
    figures["counted"] = len(rows)
    lost = {name: told.reports[name] for name in told.reports.keys() - set(by_http)}
    if lost:  # when each was accepted, beside the blows that were printed, tells who lost it
        print("lost:", Counter((round(at - told.begun, 1), how) for at, how in lost.values()), flush=True)
    _same(by_http, set(told.reports), "reports in intake's table")
    # What a partner has put on a broker that keeps nothing dies with it; nobody of ours has it to send it again.
    _same(
        by_partner, told.partner if whole_log else told.partner & set(by_partner), "partner reports in intake's table"
    )

    # In the journal, in sitrep's log: each event once, each report received once.
    ids: list[str] = []
    places: dict[str, tuple[str, str, str]] = {}
    order: dict[tuple[str, str], list[str]] = defaultdict(list)
    for service in SERVICES:
        journal = await field.rows(
            f"SELECT id::text AS id, topic, key, type, subject, sequence FROM {service}.journal ORDER BY position"
        )
        sequences: dict[tuple[str, str], int] = defaultdict(int)
        for row in journal:
            ids.append(row["id"])
            places[row["id"]] = (row["topic"], row["type"], row["subject"])
            order[row["topic"], row["key"]].append(row["id"])
            sequences[row["topic"], row["subject"]] += 1
            assert row["sequence"] == sequences[row["topic"], row["subject"]], (service, dict(row))
        assert not await field.rows(f"SELECT 1 FROM {service}.outbox"), f"rows are left in {service}'s outbox"
        assert not await field.rows(f"SELECT 1 FROM {service}.quarantine"), f"{service} put something in quarantine"
    assert len(ids) == len(set(ids))
    figures["events"] = len(ids)
    report_ids = {row["id"] for row in rows}
    _same([s for _, kind, s in places.values() if kind == "gotong.report.received.v1"], report_ids, "reports received")
    log = await field.rows("SELECT id, type, subject, topic, position FROM sitrep.log ORDER BY position")
    assert [row["position"] for row in log] == list(range(1, len(log) + 1)), "sitrep's log has a gap"
    read = {name for name, topic in TOPICS.items() if "sitrep" in topic.readers}
    heard = {name for name in ids if places[name][0] in read and places[name][1] != SitrepPublished.type}
    _same([row["id"] for row in log], heard, "events in sitrep's log")
    _same(
        [r["subject"] for r in log if r["type"] == "gotong.report.received.v1"], report_ids, "reports in sitrep's log"
    )
    _same([row["subject"] for row in log if row["topic"] == "gotong.needs.v1"], None, "needs in sitrep's log")

    # On the topics: each event at least once, first sights in the order in which they were written, key by key.
    if whole_log:
        records = Records()
        await records.read(field.bootstrap, [name for name in TOPICS if name != INBOUND])
        _same(list(records.first), set(ids), "events on the topics")
        broken = [key for key, seen in records.order.items() if seen != order[key]]
        assert broken == [], f"first sights out of order: {broken[:5]}"
        figures["records"], figures["sent again"] = records.count, records.sent_again

    # Effects that would show a double or a loss.
    wrong = await field.rows(
        "SELECT i.incident_id, i.reports, count(r.report_id) AS n FROM intake.incident i "
        "LEFT JOIN intake.report r USING (incident_id) GROUP BY 1, 2 HAVING i.reports <> count(r.report_id)"
    )
    assert wrong == [], f"counters that are not their reports: {wrong[:5]}"
    wrong = await field.rows(
        "SELECT i.incident_id, i.reports, s.reports AS told FROM intake.incident i LEFT JOIN sitrep.incident s "
        "ON s.incident_id = i.incident_id AND s.until_position = 9223372036854775807 WHERE s.reports IS DISTINCT FROM i.reports"
    )
    assert wrong == [], f"sitrep counts other reports: {wrong[:5]}"
    await _ledgers(field, told)
    async with field.system.client("admin") as admin:
        answer = await admin.get("/v1/sitreps", params={"format": "json", "operation": operation})
        assert answer.status_code == 200, answer.text
        totals = answer.json()["totals"]
    assert totals["reports"] == len(rows), totals
    incidents = (await field.rows("SELECT count(*) AS n FROM intake.incident WHERE status <> 'merged'"))[0]["n"]
    assert totals["incidents"] == incidents, totals

    repeats = (await field.rows("SELECT coalesce(sum(repeats), 0) AS n FROM exchange.submission"))[0]["n"]
    figures["partner repeats refused"] = int(repeats)
    if not field.embedded:
        figures["lag"] = sum((await until(lambda: _caught_up(field), 20)).values())
    await audit(field)
    answer_ = await field.rows("SELECT count(*) AS n FROM matching.assignment")
    figures["assignments"] = answer_[0]["n"]
    return figures


async def _caught_up(field: Field) -> dict[str, int] | None:
    found = await lag(field.bootstrap)
    return found if not any(found.values()) else None


def _same(found: list[str], wanted: set[str] | None, what: str) -> None:
    """Each wanted one is there once, and nothing else is. Without `wanted`, nothing is compared but that something is."""
    if wanted is None:
        assert found, what
        return
    twice = [name for name, n in Counter(found).items() if n > 1]
    lost, strange = wanted - set(found), set(found) - wanted
    assert not twice and not lost and not strange, (
        f"{what}: {len(twice)} twice ({twice[:3]}), {len(lost)} lost ({list(lost)[:3]}), "
        f"{len(strange)} that nobody was told of ({list(strange)[:3]})"
    )


async def _ledgers(field: Field, told: Told) -> None:
    needs = {str(row["need_id"]) for row in await field.rows("SELECT need_id FROM matching.need")}
    assert told.needs <= needs, "a need that was answered for is not in matching"
    parts = "open, offered, committed, in_transit, delivered, confirmed, cancelled"
    wrong = await field.rows(
        f"SELECT need_id FROM matching.need WHERE needed <> {parts.replace(', ', ' + ')} "
        "UNION SELECT n.need_id FROM matching.need n LEFT JOIN ("
        "  SELECT need_id, coalesce(sum(quantity) FILTER (WHERE state = 'made'), 0) AS made,"
        "         coalesce(sum(quantity) FILTER (WHERE state IN ('started', 'arrived')), 0) AS moving"
        "  FROM matching.assignment GROUP BY 1) a USING (need_id) "
        "WHERE n.committed <> coalesce(a.made, 0) OR n.in_transit <> coalesce(a.moving, 0) "
        "UNION SELECT n.need_id FROM matching.need n LEFT JOIN ("
        "  SELECT need_id, sum(quantity) AS asked FROM matching.offer WHERE state = 'made' GROUP BY 1) o USING (need_id) "
        "WHERE n.asked <> coalesce(o.asked, 0)"
    )
    assert wrong == [], f"ledgers that are not their assignments and offers: {wrong[:5]}"
    for copy, live in (("intake.ledger", ""), ("sitrep.ledger", "AND l.until_position = 9223372036854775807")):
        wrong = await field.rows(
            f"SELECT n.need_id FROM matching.need n JOIN matching.journal j ON j.topic = 'gotong.ledger.v1' AND "
            f"j.subject = n.need_id::text LEFT JOIN {copy} l ON l.need_id = n.need_id {live} GROUP BY n.need_id, "
            + ", ".join(f"n.{part}, l.{part}" for part in ("needed", *parts.split(", ")))
            + " HAVING "
            + " OR ".join(f"n.{part} IS DISTINCT FROM l.{part}" for part in ("needed", *parts.split(", ")))
        )
        assert wrong == [], f"{copy} says other than matching: {wrong[:5]}"
    wrong = await field.rows(
        "SELECT lot_id FROM matching.lot l WHERE reserved <> (SELECT coalesce(sum(quantity), 0) FROM matching.assignment a "
        "WHERE a.lot_id = l.lot_id AND a.exercise = l.exercise AND a.state IN ('made', 'started', 'arrived'))"
    )
    assert wrong == [], f"stock reserved otherwise than assigned: {wrong[:5]}"
    held = {
        str(row["assignment_id"]): row["quantity"]
        for row in await field.rows("SELECT assignment_id, quantity FROM matching.assignment")
    }
    # The two are one id: an accepted offer is the assignment.
    assert told.assignments.items() <= held.items(), "an acceptance that was answered for is no assignment"


async def audit(field: Field) -> None:
    """`gotong audit verify` passes."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gotong", "audit", "verify", "--data", str(field.system.data / "data")],
        capture_output=True, text=True, check=False, cwd=field.system.data,
        env={k: v for k, v in os.environ.items() if not k.startswith("GOTONG_")} | {"GOTONG_DATABASE": field.dsn},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def table(figures: dict[str, Any], blows: Counter[str], watch: Watch, told: Told) -> str:
    """What happened, for people."""
    lines = ["", f"{'blows':28} {', '.join(f'{n} {kind}' for kind, n in sorted(blows.items()))}"]
    lines += [f"{name:28} {value}" for name, value in figures.items()]
    lines.append(f"{'sent again by senders':28} {dict(told.again)}")
    lines.append(f"{'victim':28} times  longest recovery in s")
    for label, found in sorted(watch.recoveries.items()):
        lines.append(f"  {label:26} {len(found):5}  {max(found):.1f}")
    return "\n".join(lines)


@contextmanager
def running(broker: str, **more: Any) -> Iterator[Field]:
    """A field from start to end."""
    field = Field(broker, **more)
    try:
        field.start()
        yield field
    finally:
        field.close()


def _speaker() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"{time.monotonic() - begun:7.1f} s  {text}", flush=True)


async def under_fire(
    field: Field, *, seed: int, rate: float, kills: int, pause_s: tuple[float, float], drain_within_s: float,
    broker_kills: bool = True, least_accepted: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Load, strike, drain, judge; returns the figures and prints the table.

    `least_accepted`: the share of the offered reports that has to be accepted by the last blow; the others are sent
    until they are accepted too.
    """
    say = _speaker()
    operation, lots = await field.ground(seed)
    say("ground is laid")
    load = field.load(operation, lots, seed, rate)
    watch = Watch(field, load.told)
    begun = load.told.begun = time.monotonic()
    sending = asyncio.create_task(load.go())
    watching = asyncio.create_task(watch.run())
    striking = asyncio.create_task(strike(field, watch, seed, kills, pause_s=pause_s, broker_kills=broker_kills))
    try:
        await asyncio.wait([sending, striking], return_when=asyncio.FIRST_COMPLETED)
        if not striking.done():
            sending.result()
            raise AssertionError("the load ended before the last blow")
        blows = striking.result()
        told = load.told
        seconds = time.monotonic() - begun
        under = {"offered": told.offered, "accepted under fire": told.accepted, "seconds": round(seconds, 1)}
        say(f"last blow; {under}")
        # A tenth of the load goes on until everybody has recovered, so that a recovery can be seen at all.
        load.pace = 0.1
        await field.restarted()
        struck_last = time.monotonic()
        # More patience than is granted, so that a run that is merely slow still says what was lost.
        await until(
            lambda: not watch.unrecovered() or watching.done(),
            180,
            lambda: f"{watch.unrecovered()}\n{field.system.tail()}",
        )
        if watching.done():
            watching.result()
        say("all recovered")
        load.stopping.set()
        await sending
        say("all accepted")
        await drain(field, 180)
        drained_s = round(time.monotonic() - struck_last, 1)
        say("drained")
    finally:
        for task in (sending, striking, watching):
            task.cancel()
        await asyncio.gather(sending, striking, watching, return_exceptions=True)
        await field.restarted()
    whole = not field.embedded or not broker_kills
    figures: dict[str, Any] = under | {"drained within s": drained_s}
    figures["offered per s"] = round(under["offered"] / under["seconds"])
    figures |= await judge(field, told, operation, whole_log=whole)
    say("judged")
    print(table(figures, blows, watch, told))
    if told.again["500"]:  # an outage is never our own fault: what was it?
        lines = field.system.log.read_text(errors="replace").splitlines()
        for n, line in enumerate(lines):
            if line.startswith("web ") and "services.runtime.problems" in line and "failed" in line:
                print("\n".join(lines[n : n + 120]))
    assert drained_s <= drain_within_s, figures
    assert under["accepted under fire"] >= least_accepted * under["offered"], figures
    return figures | {"recoveries": dict(watch.recoveries), "blows": blows}
