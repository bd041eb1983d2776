"""The whole system as a user starts it, seen from outside: processes, HTTP, topics, database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition

from gotong.local.folders import cache_folder, scratch_folder
from gotong.local.process import die_with_us, free_port
from services.runtime import auth, vault
from services.runtime.cloudevents import Envelope, Malformed, decode

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("registry", "intake", "matching", "sitrep", "exchange")
T = TypeVar("T")


def resident_mb(pid: int) -> float:
    """Memory of a process that is not swapped out, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class System:
    """`gotong up` in a folder of its own. `broker`: `kafka`, `embedded` or an address; `database`: `embedded` or a URL."""

    def __init__(self, broker: str, database: str = "embedded", env: dict[str, str] | None = None) -> None:
        self.broker = broker
        self.database = database
        self.env = env or {}
        self.data = scratch_folder("gotong-e2e-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.data / "up.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, within_s: float = 180) -> float:
        """Start it and wait for its `ready` line; returns the seconds that this took."""
        env = {name: value for name, value in os.environ.items() if not name.startswith("GOTONG_")}
        env["GOTONG_CACHE"] = str(cache_folder(ROOT / ".gotong"))
        env |= self.env
        begun = time.monotonic()
        said = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gotong", "up", "--broker", self.broker, "--database", self.database,
                 "--data", str(self.data / "data"), "--port", str(self.port)],
                cwd=self.data, env=env, stdout=log, stderr=log, start_new_session=True, **die_with_us(),
            )  # fmt: skip
        while time.monotonic() - begun < within_s:
            with self.log.open("rb") as log:
                log.seek(said)
                if f"ready {self.url}\n".encode() in log.read():
                    return time.monotonic() - begun
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise AssertionError(f"no ready line within {within_s} s:\n{self.tail()}")

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self) -> float:
        """Stop it as Ctrl-C does; returns the seconds that this took."""
        begun = time.monotonic()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill_all()
        self.process = None
        return time.monotonic() - begun

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.data, ignore_errors=True)

    def pids(self) -> dict[str, int]:
        """The child processes by name: web, intake, …, postgres, broker."""
        assert self.process is not None
        found: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except (OSError, IndexError):
                continue
            if parent != self.process.pid:
                continue
            line = " ".join(words)
            if "services.gateway" in words:
                found["web"] = int(entry.name)
            elif "worker" in words:
                found[next(word for word in words if word.startswith("services."))[9:]] = int(entry.name)
            elif "kafka.Kafka" in line or "tansu" in line:
                found["broker"] = int(entry.name)
            elif "postgres" in line:
                found["postgres"] = int(entry.name)
        return found

    def kill(self, name: str) -> None:
        """SIGKILL one child; its supervisor starts it again."""
        os.kill(self.pids()[name], signal.SIGKILL)

    def kill_all(self) -> None:
        """SIGKILL the supervisor and every child of it, as a power cut would."""
        assert self.process is not None
        pids = list(self.pids().values())
        for pid in [self.process.pid, *pids]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self.process = None

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = json.loads((self.data / "data" / "state.json").read_text())
        return state

    def token(self, role: auth.Role, subject: str = "e2e", **claims: Any) -> str:
        """A token of this installation's own key."""
        secret = (self.data / "data" / "secret.key").read_bytes().strip()
        return auth.sign(role, subject, key=vault.token_key(secret), **claims)

    def client(self, role: auth.Role | None = None, subject: str = "e2e", **claims: Any) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.token(role, subject, **claims)}"} if role else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)

    async def rows(self, sql: str, *args: Any) -> list[asyncpg.Record]:
        """Rows of the database, read from outside."""
        connection = await asyncpg.connect(self.state["database"])
        try:
            return list(await connection.fetch(sql, *args))
        finally:
            await connection.close()

    async def settled(self, within_s: float = 120) -> dict[str, Any]:
        """Wait until every service is healthy with nothing unpublished, unread or unlinked; returns the health."""

        async def quiet() -> dict[str, Any] | None:
            async with self.client() as client:
                answer = await client.get("/v1/health")
            if answer.status_code != 200:
                return None
            services = answer.json()["services"]
            if any(entry["lag"] or entry["unpublished"] for entry in services.values()):
                return None
            waiting = await self.rows(
                "SELECT count(*) AS n FROM intake.report WHERE incident_id IS NULL AND (lon IS NOT NULL OR admin IS NOT NULL)"
            )
            if waiting[0]["n"]:
                return None
            return answer.json()

        # Twice in a row: between two hops nothing waits anywhere for an instant.
        async def twice() -> dict[str, Any] | None:
            first = await quiet()
            if first is None:
                return None
            before = await self.rows("SELECT max(position) AS p FROM sitrep.log")
            await asyncio.sleep(1.2)
            after = await self.rows("SELECT max(position) AS p FROM sitrep.log")
            return await quiet() if before[0]["p"] == after[0]["p"] else None

        return await until(twice, within_s, lambda: self.tail(40))

    @asynccontextmanager
    async def reading(self, *topics: str) -> AsyncIterator[AIOKafkaConsumer]:
        """An outside Kafka client that stands at the present end of these topics."""
        client = AIOKafkaConsumer(*topics, bootstrap_servers=self.state["kafka"], auto_offset_reset="latest")
        await client.start()
        try:
            for partition in client.assignment():
                await client.position(partition)
            yield client
        finally:
            await client.stop()

    async def everything_on(self, *topics: str) -> list[Envelope]:
        """All records of these topics, oldest first within each partition."""
        client = AIOKafkaConsumer(bootstrap_servers=self.state["kafka"], auto_offset_reset="earliest")
        await client.start()
        try:
            partitions = [
                TopicPartition(topic, number) for topic in topics for number in sorted(await _partitions(client, topic))
            ]
            client.assign(partitions)
            ends = await client.end_offsets(partitions)
            left = {partition for partition in partitions if ends[partition] > 0}
            found = []
            async with asyncio.timeout(60):
                while left:
                    for records in (await client.getmany(timeout_ms=300)).values():
                        for r in records:
                            try:
                                found.append(
                                    decode(r.value, r.headers, topic=r.topic, partition=r.partition, offset=r.offset,
                                           key=r.key, received_at=None)
                                )  # fmt: skip
                            except Malformed:
                                continue
                    left = {p for p in left if await client.position(p) < ends[p]}
            return found
        finally:
            await client.stop()


async def _partitions(client: AIOKafkaConsumer, topic: str) -> Iterable[int]:
    await client._client.force_metadata_update()
    client._client.add_topic(topic)
    await client._client.force_metadata_update()
    return client.partitions_for_topic(topic) or ()


async def until(
    condition: Callable[[], Any], within_s: float = 30, why: Callable[[], str] | None = None, pause_s: float = 0.1
) -> Any:
    """Wait for a condition (sync or async) to give something true, and return it.

    Raises
    ------
    AssertionError
        It never did.
    """
    deadline = time.monotonic() + within_s
    last: BaseException | None = None
    while time.monotonic() < deadline:
        try:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return result
            last = None
        except (httpx.HTTPError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            last = error
        await asyncio.sleep(pause_s)
    raise AssertionError(f"not within {within_s} s: {last!r}\n{why() if why else ''}")
