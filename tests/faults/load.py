"""The load: people and systems that send from outside, and do not give up when nobody answers.

Every sender behaves as a phone does: on a refused or broken connection, a time-out or a 5xx it waits a little and sends
the same bytes with the same key again. What counts as accepted is what an answer said.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

INBOUND = "gotong.partners.inbound.v1"
PARTNER = "/partners/uji"
TYPE = "gotong.report.submitted.v1"
RETRIED = {404, 409, 429, 500, 502, 503, 504}
TEXTS = (
    "Banjir di gang {n}, air setinggi lutut",
    "Air naik terus di jalan {n}, warga mulai mengungsi",
    "Genangan di perumahan blok {n}, kendaraan mogok",
    "Tolong, rumah nomor {n} terendam, ada lansia",
)


class Http:
    """A plain HTTP/1.1 client on kept connections: many times cheaper than a full one, and the load shares our cores."""

    def __init__(self, port: int, timeout_s: float = 6) -> None:
        self.port = port
        self.timeout_s = timeout_s
        # As many as a mast lets through at once; the others wait before it.
        self._free = asyncio.Semaphore(48)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        timeout_s: float | None = None,
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and JSON of the answer.

        Raises
        ------
        OSError, EOFError, TimeoutError
            There was no whole answer.
        """
        async with self._free, asyncio.timeout(timeout_s or self.timeout_s):
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self.port)
            try:
                lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
                lines += [
                    "Content-Type: application/json",
                    *(f"{name}: {text}" for name, text in (headers or {}).items()),
                ]
                writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                found = {
                    name.lower(): text.strip() for name, _, text in (line.partition(":") for line in head[1:] if line)
                }
                content = await reader.readexactly(int(found.get("content-length", "0")))
            except BaseException:
                writer.transport.abort()
                raise
            self._idle.append((reader, writer))
            return int(head[0].split()[1]), found, json.loads(content) if content else None

    def close(self) -> None:
        for _, writer in self._idle:
            writer.transport.abort()
        self._idle.clear()


@dataclass
class Told:
    """What the senders were told, and when."""

    begun: float = 0.0
    offered: int = 0
    reports: dict[str, tuple[float, str]] = field(default_factory=dict)  # id -> when and how it was accepted over HTTP
    partner: set[str] = field(default_factory=set)  # external ids that the broker acknowledged
    needs: set[str] = field(default_factory=set)
    assignments: dict[str, int] = field(default_factory=dict)  # offer id -> quantity accepted
    again: Counter[str] = field(default_factory=Counter)  # why something was sent again
    repeated_on_purpose: int = 0

    @property
    def accepted(self) -> int:
        return len(self.reports) + len(self.partner)


class Load:
    """Offers `rate` reports a second: a quarter one by one, the most in batches of 40, a tenth by a partner's Kafka client;
    with needs, acceptances of offers and changes of stock beside them."""

    def __init__(
        self, port: int, kafka: str, tokens: dict[str, str], operation: str, seed: int, rate: float, *, embedded: bool
    ) -> None:
        self.http = Http(port)
        self.kafka = kafka
        self.tokens = tokens
        self.operation = operation
        self.rng = random.Random(seed)
        self.rate = rate
        self.embedded = embedded
        self.run = uuid4().hex[:8]
        self.told = Told()
        self.pace = 1.0  # of the rate; less once the last blow has fallen, so that what waits is seen to get less
        self.stopping = asyncio.Event()
        self.lots: list[str] = []
        self._number = 0
        self._places: list[tuple[float, float]] = []
        self._under_way: set[asyncio.Task[None]] = set()
        self._failed: list[BaseException] = []

    def report(self) -> dict[str, Any]:
        """The next report: at a place that is in the load already, or at a new one."""
        self._number += 1
        if not self._places or self.rng.random() < 0.05:
            self._places.append((106.5 + self.rng.random() * 0.7, -6.6 + self.rng.random() * 0.6))
        lon, lat = self.rng.choice(self._places)
        report: dict[str, Any] = {
            "text": self.rng.choice(TEXTS).format(n=self._number % 977),
            "hazard": "flood",
            "severity": self.rng.choice([1, 2, 2, 3]),
            "observed_at": datetime.now(UTC).isoformat(),
            "location": {"lon": lon + self.rng.gauss(0, 0.0007), "lat": lat + self.rng.gauss(0, 0.0007)},
            "operation": self.operation,
        }
        if self._number % 50 == 0:
            report["needs"] = [{"item": "blanket", "quantity": self.rng.randrange(1, 9)}]
        return report

    async def go(self) -> None:
        """Offer until `stopping` is set, then see everything that was offered through."""
        beats = [
            asyncio.create_task(self._beat(self.rate * 0.25, self._single)),
            asyncio.create_task(self._beat(self.rate * 0.65 / 40, self._batch)),
            asyncio.create_task(self._partner(self.rate * 0.1)),
            asyncio.create_task(self._beat(2, self._need)),
            asyncio.create_task(self._beat(2, self._restock)),
            asyncio.create_task(self._beat(1, self._accept)),
        ]
        try:
            await asyncio.gather(*beats)
            while self._under_way:
                await asyncio.wait(list(self._under_way), return_when=asyncio.FIRST_COMPLETED)
                if self._failed:
                    raise self._failed[0]
        finally:
            for task in (*beats, *self._under_way):
                task.cancel()
            self.http.close()

    async def _beat(self, per_s: float, what: Any) -> None:
        """Start one of these so many times a second, whatever became of the ones before."""
        async for number in self._dues(per_s):
            for _ in range(number):
                task = asyncio.create_task(what())
                self._under_way.add(task)
                task.add_done_callback(self._ended)
            if self._failed:
                raise self._failed[0]

    async def _dues(self, per_s: float) -> AsyncIterator[int]:
        """How many are due now, again and again until the load ends."""
        at, due = time.monotonic(), 0.0
        while not self.stopping.is_set():
            now = time.monotonic()
            due += (now - at) * per_s * self.pace
            at = now
            yield int(due)
            due -= int(due)
            await asyncio.sleep(min(0.05, 1 / per_s))

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed.append(error)

    async def _send(
        self, method: str, path: str, body: bytes, role: str, *, give_up: bool = False
    ) -> tuple[int, Any] | None:
        """Send with one key until somebody answers. `give_up`: nobody needs an answer once the load has ended."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}", "Idempotency-Key": uuid4().hex}
        pause_s = 0.2
        while True:
            try:
                status, found, answer = await self.http.call(
                    method, path, body, headers, timeout_s=30 if path.endswith(":batch") else None
                )
            except (OSError, EOFError, TimeoutError) as error:
                self.told.again[type(error).__name__] += 1
            else:
                # 404 without Retry-After: there is no such thing, now and later.
                if status not in RETRIED or (status == 404 and "retry-after" not in found):
                    return status, answer
                if status == 409 and "still being worked on" not in answer["detail"]:
                    return status, answer
                self.told.again[str(status)] += 1
            if give_up and self.stopping.is_set():
                return None
            await asyncio.sleep(pause_s * self.rng.uniform(0.7, 1.3))
            pause_s = min(pause_s * 2, 2)

    async def _single(self) -> None:
        body = self.report()
        self.told.offered += 1
        sent = await self._send("POST", "/v1/reports", json.dumps(body).encode(), "field")
        assert sent is not None and sent[0] == 202, sent
        self._took(sent[1]["report_id"], "alone")

    async def _batch(self) -> None:
        bodies = [self.report() for _ in range(40)]
        self.told.offered += len(bodies)
        sent = await self._send("POST", "/v1/reports:batch", json.dumps(bodies).encode(), "field")
        assert sent is not None and sent[0] == 207 and sent[1]["rejected"] == 0, sent
        for row in sent[1]["results"]:
            self._took(row["report_id"], "in a batch")

    def _took(self, report_id: str, how: str) -> None:
        assert report_id not in self.told.reports, f"two reports were told the id {report_id}"
        self.told.reports[report_id] = time.monotonic(), how

    async def _need(self) -> None:
        lon, lat = self.rng.choice(self._places or [(106.8, -6.2)])
        body: dict[str, Any] = {
            "quantity": self.rng.randrange(1, 4), "location": {"lon": lon, "lat": lat}, "severity": 3,
            "operation": self.operation,
        }  # fmt: skip
        body |= {"skill": "boat_operator"} if self.rng.random() < 0.5 else {"item": "blanket"}
        sent = await self._send("POST", "/v1/needs", json.dumps(body).encode(), "admin")
        assert sent is not None and sent[0] == 201, sent
        self.told.needs.add(sent[1]["need_id"])

    async def _accept(self) -> None:
        found = await self._send("GET", "/v1/offers?state=made&limit=5", b"", "admin", give_up=True)
        for offer in (found[1]["offers"] if found and found[0] == 200 else [])[:3]:
            path = f"/v1/offers/{offer['offer_id']}/accept"
            sent = await self._send("POST", path, json.dumps({"quantity": 1}).encode(), "admin")
            assert sent is not None and sent[0] in (200, 409), sent  # 409: met, expired or withdrawn meanwhile
            if sent[0] == 200:
                self.told.assignments[offer["offer_id"]] = 1

    async def _restock(self) -> None:
        if self.lots:
            body = {"quantity": self.rng.randrange(2000, 3000), "reason": "dihitung ulang"}
            sent = await self._send(
                "PATCH", f"/v1/resources/{self.rng.choice(self.lots)}", json.dumps(body).encode(), "admin"
            )
            assert sent is not None and sent[0] == 200, sent

    async def _partner(self, per_s: float) -> None:
        """A partner's own program: plain aiokafka. What it is not sure of it sends again; every tenth twice anyway."""
        producer: AIOKafkaProducer | None = None
        pending: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {}
        dues, n = self._dues(per_s), 0
        while pending or not self.stopping.is_set():
            if not self.stopping.is_set():
                for n in range(n + 1, n + 1 + await anext(dues, 0)):  # noqa: B020  # counts on from where it stood
                    name = f"{self.run}-{n}"
                    body = self.report() | {"external_id": name, "reporter_ref": f"r{n % 50}"}
                    attributes = {
                        "specversion": "1.0", "id": name, "source": PARTNER, "type": TYPE,
                        "time": datetime.now(UTC).isoformat(),
                    }  # fmt: skip
                    headers = [(f"ce_{key}", text.encode()) for key, text in attributes.items()]
                    pending[name] = json.dumps(body).encode(), [*headers, ("content-type", b"application/json")]
                    self.told.offered += 1
            try:
                if producer is None:
                    producer = AIOKafkaProducer(
                        bootstrap_servers=self.kafka, acks="all", enable_idempotence=not self.embedded,
                        request_timeout_ms=5000,
                    )  # fmt: skip
                    await producer.start()
                futures = {}
                for name, (value, headers) in list(pending.items()):
                    futures[name] = await producer.send(INBOUND, value, key=name.encode(), headers=headers)
                    if int(name.rpartition("-")[2]) % 10 == 0:
                        await producer.send(INBOUND, value, key=name.encode(), headers=headers)
                        self.told.repeated_on_purpose += 1
                for name, future in futures.items():
                    await asyncio.wait_for(future, 8)
                    del pending[name]
                    self.told.partner.add(name)
            except (KafkaError, OSError, TimeoutError) as error:
                self.told.again[f"partner {type(error).__name__}"] += 1
                if producer is not None:
                    stopping, producer = producer, None
                    try:
                        await asyncio.wait_for(stopping.stop(), 2)
                    except (KafkaError, OSError, TimeoutError):
                        continue
            await asyncio.sleep(0.2)
        if producer is not None:
            await producer.stop()
