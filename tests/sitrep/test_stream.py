"""`GET /v1/stream` over a real socket: what is watched, resumed, caught up, and by whom."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import pytest
import uvicorn

from bench.sitrep_story import SOURCE, Story, Told
from schemas.quarantine import RecordRedacted
from services.runtime import clock
from services.runtime.cloudevents import timestamp
from services.runtime.db import Database
from services.runtime.service import build_app
from services.runtime.settings import Settings
from services.sitrep import log, projections, stream
from services.sitrep.app import service
from tests.conftest import bearer

OPERATOR = bearer("operator")


@asynccontextmanager
async def serving(dsn: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[httpx.AsyncClient, object]]:
    """The service's routes on a socket: the in-process transport of httpx waits for the end of an answer."""
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    app = build_app([service], Settings(database=dsn))  # type: ignore[arg-type]
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=20) as client:
            yield client, app
    finally:
        server.should_exit = True
        await task


class Watch:
    """A client of the stream that keeps what it was told."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()

    async def next(self) -> dict[str, str]:
        """The next event; comments are passed over."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(20):
            async for line in self._lines:
                if not line and fields:
                    return fields
                if line and not line.startswith(":"):
                    name, _, value = line.partition(": ")
                    fields[name] = value
        raise EOFError("the stream ended")

    async def take(self, count: int) -> list[dict[str, str]]:
        return [await self.next() for _ in range(count)]

    async def begun(self) -> None:
        """Wait for the first comment: the stream is open."""
        async with asyncio.timeout(20):
            async for line in self._lines:
                if line.startswith(":"):
                    return


@asynccontextmanager
async def watching(
    client: httpx.AsyncClient, query: str = "", last_id: str | int | None = None, headers: dict[str, str] = OPERATOR
) -> AsyncIterator[Watch]:
    resumed = {} if last_id is None else {"Last-Event-ID": str(last_id)}
    async with client.stream("GET", f"/v1/stream{query}", headers=headers | resumed) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        watch = Watch(answer)
        await watch.begun()
        yield watch


async def append(db: Database, told: list[Told], batch: int = 10) -> None:
    for at in range(0, len(told), batch):
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in told[at : at + batch]])


async def watchers_joined(app: object, count: int) -> None:
    """Wait until so many watchers are on what the tailer hands out."""
    async with asyncio.timeout(20):
        while True:
            tailer = getattr(app.state, "sitrep_tailer", None)  # type: ignore[attr-defined]
            if tailer is not None and sum(map(len, tailer._watchers.values())) == count:
                return
            await asyncio.sleep(0.01)


async def test_new_events_come_with_position_type_and_cloudevent(dsn, make_db, monkeypatch):
    db = make_db("sitrep")
    story = Story(31)
    told = list(story.events(40))
    await append(db, told[:10])
    async with serving(dsn, monkeypatch) as (client, app), watching(client) as watch:
        await watchers_joined(app, 1)
        await append(db, told[10:])
        events = await watch.take(len(told) - 10)
    assert [int(event["id"]) for event in events] == list(range(11, len(told) + 1))
    for event, each in zip(events, told[10:], strict=True):
        assert event["event"] == each.event.type
        cloud = json.loads(event["data"])
        assert cloud["id"] == each.id
        assert cloud["source"] == SOURCE
        assert cloud["specversion"] == "1.0"
        assert cloud["sequence"] == str(each.sequence)
        assert cloud["time"] == timestamp(each.time)
        assert cloud["data"] == json.loads(each.event.to_bytes())


async def test_a_watcher_that_is_cut_off_again_and_again_misses_nothing_and_sees_nothing_twice(
    dsn, make_db, monkeypatch
):
    db = make_db("sitrep")
    told = list(Story(32).events(400))
    chance = random.Random(32)
    seen: list[dict[str, str]] = []
    async with serving(dsn, monkeypatch) as (client, _):
        writer = asyncio.create_task(append(db, told, 7))
        last: str | int = 0
        while len(seen) < len(told):
            async with watching(client, last_id=last) as watch:
                for _ in range(min(chance.randint(1, 60), len(told) - len(seen))):
                    event = await watch.next()
                    seen.append(event)
                    last = event["id"]
        await writer
    assert [int(event["id"]) for event in seen] == list(range(1, len(told) + 1))
    assert [json.loads(event["data"])["id"] for event in seen] == [each.id for each in told]


@pytest.mark.parametrize("last_id", ["9999", "abc", "-1"])
async def test_an_id_outside_the_log_is_answered_with_one_reset(dsn, make_db, monkeypatch, last_id):
    db = make_db("sitrep")
    told = list(Story(33).events(20))
    await append(db, told[:15])
    async with serving(dsn, monkeypatch) as (client, app), watching(client, last_id=last_id) as watch:
        first = await watch.next()
        await watchers_joined(app, 1)
        await append(db, told[15:])
        rest = await watch.take(len(told) - 15)
    assert first["event"] == "reset"
    assert first["id"] == "15"
    assert [int(event["id"]) for event in rest] == list(range(16, len(told) + 1))


def inside(point: tuple[float, float], bbox: tuple[float, float, float, float]) -> bool:
    return bbox[0] <= point[0] <= bbox[2] and bbox[1] <= point[1] <= bbox[3]


async def test_filters_take_the_same_whether_caught_up_or_live(dsn, make_db, monkeypatch):
    db = make_db("sitrep")
    told = list(Story(34).events(300))
    box = "?bbox=107,-6.95,108,-6.2"
    queries = {
        "?types=gotong.incident.opened.v1,gotong.need.declared.v1": lambda row: (
            row["type"] in ("gotong.incident.opened.v1", "gotong.need.declared.v1")
        ),
        "?operation=gempa-palu": lambda row: row["operation"] == "gempa-palu",
        box: lambda row: row["lon"] is not None and inside((row["lon"], row["lat"]), (107, -6.95, 108, -6.2)),
        box + "&operation=gempa-palu&types=gotong.incident.opened.v1": lambda row: (
            row["type"] == "gotong.incident.opened.v1"
            and row["operation"] == "gempa-palu"
            and inside((row["lon"], row["lat"]), (107, -6.95, 108, -6.2))
        ),
    }
    async with serving(dsn, monkeypatch) as (client, app):
        for query, passes in queries.items():
            async with db.tx() as tx:
                await tx.execute("TRUNCATE log")
                await tx.execute(f"TRUNCATE {', '.join(projections.TABLES)}")
            async with watching(client, query, last_id=0) as live:
                await watchers_joined(app, 1)
                await append(db, told)
                async with db.tx() as tx:
                    rows = await tx.fetch("SELECT position, type, operation, lon, lat FROM log ORDER BY position")
                expected = [row["position"] for row in rows if passes(row)]
                assert 0 < len(expected) < len(rows)
                heard = [int(event["id"]) for event in await live.take(len(expected))]
            async with watching(client, query, last_id=0) as late:
                caught = [int(event["id"]) for event in await late.take(len(expected))]
            assert heard == caught == expected


async def test_what_belongs_to_a_need_with_a_place_has_its_place(make_db):
    db = make_db("sitrep")
    story = Story(35)
    need = story.make_need()
    ledger = None
    while ledger is None or ledger.need_id != need.need_id:
        ledger = story.ledger()
    await append(db, [story.tell(need), story.tell(ledger)], batch=1)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT lon, lat FROM log ORDER BY position")
    assert [tuple(row) for row in rows] == [(need.point.lon, need.point.lat)] * 2


@pytest.mark.parametrize(
    ("headers", "classes"),
    [
        ({}, {"open"}),
        (bearer("responder"), {"open"}),
        (bearer("partner"), {"open", "partner"}),
        (bearer("auditor"), {"open", "partner", "internal"}),
        (OPERATOR, {"open", "partner", "internal"}),
    ],
)
async def test_each_role_sees_the_topics_of_its_class(dsn, make_db, monkeypatch, headers, classes):
    db = make_db("sitrep")
    from schemas.topics import topic

    told = list(Story(36).events(150))
    # The last event is open to everybody, so that its arrival says that all before it has been told.
    last = Story(37, (("zz-last", False),)).tell(next(iter(Story(37, (("zz-last", False),)).opening())).event)
    await append(db, [*told, last])
    expected = [each.id for each in [*told, last] if topic(each.event.topic).cls in classes]
    async with (
        serving(dsn, monkeypatch) as (client, _),
        watching(client, last_id=0, headers=headers) as watch,
    ):
        seen = [json.loads(event["data"])["id"] for event in await watch.take(len(expected))]
    assert seen == expected


async def test_a_token_for_one_operation_streams_that_one_alone(dsn, make_db, monkeypatch):
    db = make_db("sitrep")
    await append(db, list(Story(38).events(60)))
    mine = bearer("operator", operations=("gempa-palu",))
    async with db.tx() as tx:
        count = await tx.fetchval("SELECT count(*) FROM log WHERE operation = 'gempa-palu'")
    async with serving(dsn, monkeypatch) as (client, _):
        assert (await client.get("/v1/stream?operation=banjir-jakarta", headers=mine)).status_code == 403
        async with watching(client, last_id=0, headers=mine) as watch:
            seen = [json.loads(event["data"]) for event in await watch.take(count)]
    assert {event["operation"] for event in seen} == {"gempa-palu"}


async def test_a_slow_watcher_loses_its_queue_but_no_event(make_db, monkeypatch):
    db = make_db("sitrep")
    told = list(Story(39).events(300))
    monkeypatch.setattr(stream, "QUEUE", 2)
    tailer = stream.Tailer(db)
    chunks = tailer.watcher(stream.Filter(stream.topics_for("operator")), "0").chunks()
    assert (await anext(chunks)).startswith(b":")
    await append(db, told[:5], 5)
    text = await anext(chunks)  # it has joined; from now on it does not read
    await append(db, told[5:], 5)
    async with asyncio.timeout(20):
        while tailer.position < len(told):
            await asyncio.sleep(0.01)
    watcher = next(iter(next(iter(tailer._watchers.values()))))
    assert watcher._behind
    async with asyncio.timeout(20):
        while text.count(b"\nevent: ") < len(told):
            text += await anext(chunks)
    await chunks.aclose()
    ids = [int(line[4:]) for line in text.splitlines() if line.startswith(b"id: ")]
    assert ids == list(range(1, len(told) + 1))
    assert tailer._task is None, "nobody watches, so nobody reads the log"


async def test_a_stream_whose_reader_failed_ends_so_that_its_client_comes_back(make_db, monkeypatch):
    db = make_db("sitrep")
    told = list(Story(40).events(30))
    tailer = stream.Tailer(db)
    chunks = tailer.watcher(stream.Filter(stream.topics_for("operator")), None).chunks()
    assert (await anext(chunks)).startswith(b":")
    waiting = asyncio.create_task(anext(chunks, b"the end"))
    async with asyncio.timeout(20):
        while not tailer._watchers:
            await asyncio.sleep(0.01)
    monkeypatch.setattr(stream, "_COLUMNS", "no_such_column")
    await append(db, told[:5])
    async with asyncio.timeout(20):
        assert await waiting == b"the end"
    monkeypatch.undo()
    again = tailer.watcher(stream.Filter(stream.topics_for("operator")), "0").chunks()
    await anext(again)
    async with asyncio.timeout(20):
        assert (await anext(again)).startswith(b"id: 1\n")
    await again.aclose()


@pytest.mark.parametrize("bbox", ["1,2,3", "a,b,c,d", "0,10,10,0", "-200,0,0,10", "nan,0,1,1"])
async def test_a_bbox_that_is_none_is_refused(make_client, bbox):
    answer = await make_client([service]).get(f"/v1/stream?bbox={bbox}", headers=OPERATOR)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "query/bbox"


def test_a_box_over_the_antimeridian_takes_both_sides():
    wanted = stream.Filter(("t",), bbox=(170, -10, -170, 10))
    rows = [{"topic": "t", "lon": lon, "lat": 0.0} for lon in (175.0, -175.0, 0.0)]
    assert [wanted.takes(row) for row in rows] == [True, True, False]  # type: ignore[arg-type]


def test_an_event_without_a_place_is_outside_every_box():
    assert not stream.Filter(("t",), bbox=(-180, -90, 180, 90)).takes({"topic": "t", "lon": None, "lat": None})  # type: ignore[arg-type]


async def test_a_stream_ends_when_its_token_runs_out_and_goes_on_with_a_new_one(dsn, make_db, monkeypatch):
    db = make_db("sitrep")
    story = Story(38)
    async with serving(dsn, monkeypatch) as (client, app):
        async with watching(client, headers=bearer("operator", hours=1)) as watch:
            await watchers_joined(app, 1)
            await append(db, [story.tell(story.incident())])
            first = await watch.next()
            clock.shift(timedelta(hours=1, minutes=1))
            await append(db, [story.tell(story.incident())])
            with pytest.raises(EOFError):
                await watch.next()
        async with watching(client, last_id=first["id"], headers=bearer("operator", hours=1)) as watch:
            assert int((await watch.next())["id"]) == int(first["id"]) + 1


async def test_an_area_takes_what_names_it_whether_caught_up_or_live(dsn, make_db, monkeypatch):
    db = make_db("sitrep")
    told = list(Story(39).events(200))
    async with serving(dsn, monkeypatch) as (client, app):
        query = "?area=kemendagri:32.04&types=gotong.incident.opened.v1"
        async with watching(client, query, last_id=0) as live:
            await watchers_joined(app, 1)
            await append(db, told)
            async with db.tx() as tx:
                rows = await tx.fetch("SELECT from_position, admin FROM incident ORDER BY from_position")
                opened = await tx.fetch("SELECT position FROM log WHERE type = 'gotong.incident.opened.v1'")
            within = ("kemendagri:32.04", "kemendagri:32.04.05", "bps:3204", "bps:3204050")
            first = {row["position"] for row in opened}
            expected = [r["from_position"] for r in rows if r["admin"] in within and r["from_position"] in first]
            heard = [int(event["id"]) for event in await live.take(len(expected))]
        async with watching(client, query, last_id=0) as late:
            caught = [int(event["id"]) for event in await late.take(len(expected))]
        assert heard == caught == expected != []


async def test_who_comes_back_at_once_catches_up_from_memory_and_never_with_what_was_redacted(make_db, monkeypatch):
    db = make_db("sitrep")
    story = Story(41)
    told = list(story.events(60))
    tailer = stream.Tailer(db)
    everything = stream.Filter(stream.topics_for("operator"))
    staying = tailer.watcher(everything, None).chunks()
    assert (await anext(staying)).startswith(b":")
    reading = asyncio.create_task(anext(staying))
    async with asyncio.timeout(20):
        while not tailer._watchers:
            await asyncio.sleep(0.01)

    async def handed_out(count: int) -> None:
        async with asyncio.timeout(20):
            while tailer.position < count:
                await asyncio.sleep(0.01)

    async def come_back(last_id: int) -> list[int]:
        again = tailer.watcher(everything, str(last_id)).chunks()
        await anext(again)
        async with asyncio.timeout(20):
            text = await anext(again)
        await again.aclose()
        return [int(line[4:]) for line in text.splitlines() if line.startswith(b"id: ")]

    await append(db, told)
    await handed_out(len(told))
    queries = []
    page = stream.page

    async def counted(*asked):
        queries.append(asked)
        return await page(*asked)

    monkeypatch.setattr(stream, "page", counted)
    assert await come_back(20) == list(range(21, len(told) + 1))
    assert queries == []
    secret = told[30]
    redaction = RecordRedacted(quarantine_id="q-1", event_id=secret.id, reason="privacy", by="admin:x")
    await append(db, [story.tell(redaction)])
    await handed_out(len(told) + 1)
    assert await come_back(20) == list(range(21, len(told) + 2))
    assert len(queries) == 1, "what was kept in memory still held it"
    await reading
    await staying.aclose()
