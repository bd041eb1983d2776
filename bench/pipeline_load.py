"""What the pipeline bench drives and compares with: an HTTP client, reports, and the bare programs.

Run as a program it is one of the bare ones: `route` (the same application, server settings and body model, and nothing
behind them), or `source`, `middle` and `sink` of a two-hop aiokafka program that keeps nothing anywhere.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid5

import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from fastapi import APIRouter, Request
from fastapi.responses import Response

from schemas.event import Meta
from schemas.needs import NeedDeclared
from schemas.values import Period, Point
from services.runtime import clock, kafka
from services.runtime.cloudevents import headers
from services.runtime.service import Service, build_app, run_loop, serve
from services.runtime.settings import Settings

PARTITIONS = 12
OPERATION = "bench-drain"
_NAMES = UUID("7f6f2a0e-0000-5000-8000-000000000001")

_PLACES = ("Kampung Melayu", "Baleendah", "Cawang", "Bidara Cina", "Dayeuhkolot", "Cipinang Muara", "Rawajati")
_STATES = (
    "air setinggi {n} cm, warga mengungsi ke masjid",
    "jalan terputus, {n} rumah terendam sejak subuh",
    "longsor menutup jalan desa, {n} keluarga terisolasi",
    "tanggul jebol di RT {n}, arus deras, listrik padam",
    "{n} warga bertahan di lantai dua, butuh bantuan segera",
)


# ------------------------------------------------------------------------------------------------------------- reports
def reports(seed: int, count: int, *, every_need: int = 0, first_place: int = 0, tag: str = "r") -> Iterator[bytes]:
    """Reports as field staff send them. With `every_need`, each so many-th asks for a boat at a place of its own, of
    which `first_place` were used before."""
    chance = random.Random(seed)
    centres = [(chance.uniform(106.6, 108.0), chance.uniform(-7.2, -6.1)) for _ in range(40)]
    for n in range(count):
        lon, lat = chance.choice(centres)
        lon, lat = lon + chance.gauss(0, 0.02), lat + chance.gauss(0, 0.02)
        report: dict[str, Any] = {
            "title": f"Banjir {chance.choice(_PLACES)}",
            "text": f"{chance.choice(_PLACES)}: {chance.choice(_STATES).format(n=chance.randint(2, 180))}",
            "hazard": chance.choice(("flood", "landslide", "flood", "fire")),
            "severity": chance.randint(1, 4),
            "people": {"affected": chance.randint(1, 400), "displaced": chance.randint(0, 90)},
            "external_id": f"{tag}-{n}",
            "source": "/bench",
        }
        if every_need and n % every_need == 0:
            # Twelve kilometres apart: each is an incident of its own, and so is its need.
            at = first_place + n // every_need
            lon, lat = 110.0 + (at % 64) * 0.11, -8.0 + (at // 64) * 0.11
            report["needs"] = [{"item": "boat", "quantity": 1}]
        report["location"] = {"lon": round(lon, 5), "lat": round(lat, 5), "accuracy_m": 30}
        yield orjson.dumps(report)


def needs(seed: int, count: int, tag: str) -> list[NeedDeclared]:
    """Needs as intake declares them, each a subject of its own, of an operation that is closed: no plan is made."""
    chance = random.Random(seed)
    now = clock.now()
    items = (("boat", "piece"), ("tent", "piece"), ("blanket", "piece"), ("water", "litre"))
    made = []
    for n in range(count):
        item, unit = chance.choice(items)
        made.append(
            NeedDeclared(
                operation=OPERATION,
                need_id=uuid5(_NAMES, f"{tag}/{n}"),
                incident_id=uuid5(_NAMES, f"{tag}/incident/{n // 3}"),
                item=item,
                quantity=chance.randint(1, 500),
                unit=unit,
                severity=chance.randint(1, 4),
                status="declared",
                point=Point(lon=round(chance.uniform(106, 108), 5), lat=round(chance.uniform(-7.2, -6.1), 5)),
                place=chance.choice(_PLACES),
                admin="kemendagri:31.75.03",
                window=Period(start=now, end=now + timedelta(hours=12)),
                reports=(uuid5(_NAMES, f"{tag}/report/{n}"),),
                declared_at=now,
                by="rule:field",
            )
        )
    return made


# -------------------------------------------------------------------------------------------------------------- client
@dataclass(slots=True)
class Load:
    """What a client saw: answers by status, and how long each took."""

    statuses: dict[int, int] = field(default_factory=dict)
    took_s: list[float] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def accepted(self) -> int:
        return self.statuses.get(202, 0)

    def note(self, status: int, took_s: float) -> None:
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.took_s.append(took_s)


class Connection(asyncio.Protocol):
    """One keep-alive connection that has one request under way at a time. As thin as can be: it shares the machine."""

    def __init__(self, path: str, token: str) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {token}\r\nContent-Length: "
        ).encode()
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[int] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, end)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r\n", at)])
        if len(self._buffer) < end + 4 + length:
            return
        status, self._buffer = int(self._buffer[9:12]), b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    async def post(self, body: bytes) -> int:
        """Send one body; returns the status of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(b"%b%d\r\n\r\n%b" % (self._head, len(body), body))
        return await self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connected(port: int, token: str, count: int, path: str = "/v1/reports") -> list[Connection]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(lambda: Connection(path, token), "127.0.0.1", port) for _ in range(count)]
    return [protocol for _, protocol in made]


async def saturate(port: int, token: str, bodies: Iterator[bytes], connections: int, seconds: float) -> Load:
    """As much as the server takes: each connection sends its next report when the last was answered."""
    load = Load()
    pool = await connected(port, token, connections)
    begun = time.perf_counter()

    async def one(connection: Connection) -> None:
        while time.perf_counter() - begun < seconds:
            body = next(bodies)
            sent = time.perf_counter()
            load.note(await connection.post(body), time.perf_counter() - sent)

    await asyncio.gather(*(one(connection) for connection in pool))
    load.seconds = time.perf_counter() - begun
    for connection in pool:
        connection.close()
    return load


async def steady(port: int, token: str, bodies: Sequence[bytes], rate: float, connections: int = 24) -> list[float]:
    """Reports at a fixed pace, whatever the answers take; returns when each was due to be sent (time.time)."""
    pool: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in await connected(port, token, connections):
        pool.put_nowait(connection)
    begun = time.time() + 0.1
    due = [begun + n / rate for n in range(len(bodies))]

    async def one(body: bytes) -> None:
        connection = await pool.get()
        status = await connection.post(body)
        pool.put_nowait(connection)
        if status != 202:
            raise RuntimeError(f"a report was answered {status}")

    async with asyncio.TaskGroup() as group:
        for at, body in zip(due, bodies, strict=True):
            await asyncio.sleep(max(0.0, at - time.time()))
            group.create_task(one(body))
    while not pool.empty():
        pool.get_nowait().close()
    return due


# ------------------------------------------------------------------------------------------------------- bare programs
async def bare_route() -> None:
    """The same application and server with one route: body, model, answer."""
    from services.intake.bodies import ReportIn
    from services.runtime.http import body_of, json_answer, parse

    router = APIRouter()

    @router.post("/v1/reports", status_code=202)
    async def post_report(request: Request) -> Response:
        report = parse(await body_of(request), ReportIn)
        return json_answer(202, orjson.dumps({"report_id": report.external_id, "needs_place": report.location is None}))

    settings = Settings()
    await serve(build_app([Service("intake", lambda: router)], settings), settings)


def hops(run: str) -> tuple[str, str]:
    """The two topics of one run: what an earlier run left must not be counted."""
    return f"bench.{run}.first", f"bench.{run}.second"


async def _consumer(settings: Settings, topic: str, group: str) -> AIOKafkaConsumer:
    consumer = AIOKafkaConsumer(
        topic,
        **kafka.connection(settings),
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        fetch_max_wait_ms=20,
    )
    await consumer.start()
    while len(consumer.assignment()) < PARTITIONS:
        await consumer.getmany(timeout_ms=100)
    return consumer


async def _go() -> None:
    """Say that all is ready, and wait for the word."""
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def source(count: int, seed: int, run: str) -> None:
    """Send so many needs, with their headers, to the first topic."""
    settings = Settings()
    producer = kafka.producer(settings)
    await producer.start()
    now = clock.now()
    records = []
    for event in needs(seed, min(count, 2000), run):
        meta = Meta(str(event.need_id), "/gotong/bench/intake", event.type, event.subject_value, now, 1, OPERATION)
        records.append((event.to_bytes(), event.key_value.encode(), headers(meta, event.key_value)))
    await _go()
    await _send(producer, hops(run)[0], [records[n % len(records)] for n in range(count)])
    await _go()  # its processor time is read before it ends
    await producer.stop()


async def _send(producer: AIOKafkaProducer, topic: str, records: Sequence[tuple[bytes, bytes, Any]]) -> None:
    for at in range(0, len(records), 500):
        futures = [
            await producer.send(topic, value, key=key, headers=marks) for value, key, marks in records[at : at + 500]
        ]
        await asyncio.gather(*futures)


async def middle(count: int, run: str) -> None:
    """Pass on what comes, batch by batch; offsets after the acknowledgements."""
    settings = Settings()
    producer = kafka.producer(settings)
    await producer.start()
    consumer = await _consumer(settings, hops(run)[0], f"bench.middle.{run}")
    await _go()
    seen = 0
    while seen < count:
        found = await consumer.getmany(timeout_ms=500, max_records=500)
        records = [(r.value, r.key, list(r.headers)) for batch in found.values() for r in batch]
        if records:
            await _send(producer, hops(run)[1], records)
            await consumer.commit()
            seen += len(records)
    await _go()  # its processor time is read before it ends
    await consumer.stop()
    await producer.stop()


async def sink(count: int, run: str) -> None:
    """Count what comes over the second hop, and say when it was all there."""
    consumer = await _consumer(Settings(), hops(run)[1], f"bench.sink.{run}")
    await _go()
    seen = 0
    while seen < count:
        found = await consumer.getmany(timeout_ms=500, max_records=500)
        if found:
            seen += sum(len(batch) for batch in found.values())
            await consumer.commit()
    print(f"done {time.time()}", flush=True)
    await _go()
    await consumer.stop()


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of all is not above; NaN of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)] if ordered else math.nan


def main(argv: Sequence[str]) -> None:
    what, *rest = argv
    if what == "route":
        run_loop(bare_route())
    elif what == "source":
        run_loop(source(int(rest[0]), int(rest[1]), rest[2]))
    elif what == "middle":
        run_loop(middle(int(rest[0]), rest[1]))
    elif what == "sink":
        run_loop(sink(int(rest[0]), rest[1]))
    else:
        raise SystemExit(f"{what} is none of route, source, middle, sink")


if __name__ == "__main__":
    main(sys.argv[1:])
