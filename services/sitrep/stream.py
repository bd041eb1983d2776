"""The live stream: one reader of the log for each process hands new events to everybody who watches.

A watcher first catches up from the log, then lives on what the reader (the tailer) hands out. Its queue is bounded: who
reads too slowly loses the queue, not events, and catches up from the log again. Watchers with the same filter
share the bytes of each hand-out, and who was cut off for a moment catches up from what was handed out last, so that a
thousand who come back at once are no thousand queries.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import orjson
from fastapi import FastAPI

from schemas.event import Meta
from schemas.quarantine import RecordRedacted
from schemas.topics import read_by
from services.runtime import clock
from services.runtime.cloudevents import Envelope
from services.runtime.db import Database, Row, Tx, is_transient
from services.sitrep import log as event_log

log = logging.getLogger(__name__)

QUEUE = 64
"""Hand-outs that may wait for one watcher before it has to catch up from the log."""
PAGE = 500
WINDOW = 50_000
"""Positions that one catch-up query looks at: a rare filter over a long log must not be one long query."""
POLL_S = 1.0
"""How long the tailer relies on NOTIFY alone; a lost one costs at most this."""
COMMENT_S = 15.0
GATHER_S = 0.25
"""How long events are gathered where very many watch."""
RECENT = 2_000
RECENT_BYTES = 16 * 2**20
"""What was handed out last and is kept for those who come back: so many rows, of so many bytes in all."""
_COMMENT = b": still here\n\n"
_EXPIRED = b": the token has expired; come back with a new one and the last id\n\n"


@dataclass(frozen=True, slots=True)
class Filter:
    """What a watcher may see and wants to see. None: everything.

    `bbox` (west, south, east, north) takes events with a place inside; west above east crosses the antimeridian.
    `unprotected`: nothing of what is protected. `areas`: the codes of an area, and the beginnings of those within it.
    """

    topics: tuple[str, ...]
    types: tuple[str, ...] | None = None
    bbox: tuple[float, float, float, float] | None = None
    operations: tuple[str, ...] | None = None
    unprotected: bool = False
    areas: tuple[tuple[str, ...], tuple[str, ...]] | None = None

    def takes(self, row: Row) -> bool:
        """Whether this row of the log passes."""
        if row["topic"] not in self.topics:
            return False
        if self.types is not None and row["type"] not in self.types:
            return False
        if self.operations is not None and row["operation"] not in self.operations:
            return False
        if self.unprotected and _PROTECTED in row["data"]:
            return False
        if self.areas is not None and not self._within(row["data"]):
            return False
        if self.bbox is None:
            return True
        lon: float | None = row["lon"]
        lat: float | None = row["lat"]
        if lon is None or lat is None:
            return False
        west, south, east, north = self.bbox
        between = west <= lon <= east if west <= east else lon >= west or lon <= east
        return between and south <= lat <= north

    def _within(self, data: bytes) -> bool:
        assert self.areas is not None
        found = _ADMIN.search(data)
        code = found[1].decode() if found else ""
        return code in self.areas[0] or code.startswith(self.areas[1])


_PROTECTED = b'"sensitivity":"'
"""How an event that is protected says so: the field is left out or null elsewhere."""
_ADMIN = re.compile(rb'"admin":"([^"]{1,60})"')


def topics_for(role: str) -> tuple[str, ...]:
    """The topics that this role may watch: by the class in schemas/topics.py."""
    classes = {"open"}
    if role in ("partner", "operator", "auditor", "admin"):
        classes.add("partner")
    if role in ("operator", "auditor", "admin"):
        classes.add("internal")
    return tuple(topic.name for topic in read_by("sitrep") if topic.cls in classes)


_COLUMNS = (
    "position, topic, key, type, source, id, subject, sequence, time, operation, exercise, traceparent, lon, lat, "
    "coalesce(data, ''::bytea) AS data"
)


def message(row: Row) -> bytes:
    """A row of the log as one Server-Sent Event."""
    meta = Meta(
        id=row["id"],
        source=row["source"],
        type=row["type"],
        subject=row["subject"],
        time=row["time"],
        sequence=row["sequence"],
        operation=row["operation"],
        exercise=row["exercise"],
        traceparent=row["traceparent"],
    )
    event = orjson.dumps(Envelope(meta, row["data"], row["topic"], key=row["key"]).structured())
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (row["position"], row["type"].encode(), event)


async def page(tx: Tx, wanted: Filter, after: int, up_to: int) -> tuple[list[Row], int]:
    """Rows that pass with `after` < position <= `up_to`, at most `PAGE`, and the position up to which they are all."""
    end = min(up_to, after + WINDOW)
    west, south, east, north = wanted.bbox or (None, None, None, None)
    rows = await tx.fetch(
        f"""
        SELECT {_COLUMNS} FROM log
        WHERE position > $1 AND position <= $2 AND topic = ANY($3::text[])
          AND ($4::text[] IS NULL OR type = ANY($4)) AND ($5::text[] IS NULL OR operation = ANY($5))
          AND ($6::float8 IS NULL OR (lat BETWEEN $7 AND $9
               AND CASE WHEN $6 <= $8::float8 THEN lon BETWEEN $6 AND $8 ELSE lon >= $6 OR lon <= $8 END))
          AND ($10 OR data IS NULL OR position($11::bytea in data) = 0)
        ORDER BY position LIMIT {PAGE}
        """,
        after,
        end,
        list(wanted.topics),
        None if wanted.types is None else list(wanted.types),
        None if wanted.operations is None else list(wanted.operations),
        west,
        south,
        east,
        north,
        not wanted.unprotected,
        _PROTECTED,
    )
    passing = rows if wanted.areas is None else [row for row in rows if wanted.takes(row)]
    return passing, rows[-1]["position"] if len(rows) == PAGE else end


class Watcher:
    """One open stream."""

    __slots__ = ("_beat", "_behind", "_ends_at", "_last_id", "_queue", "_tailer", "_timer", "_waiter", "wanted")

    def __init__(self, tailer: Tailer, wanted: Filter, last_id: str | None, ends_at: datetime | None) -> None:
        self.wanted = wanted
        self._ends_at = ends_at
        self._tailer = tailer
        self._last_id = last_id
        self._queue: deque[tuple[int, bytes]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beat = False
        self._behind = False

    def wake(self) -> None:
        """Let it look what there is to do: called when something was handed out, and when the tailer ends."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _heartbeat(self) -> None:
        """One timer from beat to beat, not one for each wait: with many watchers that is what costs."""
        self._beat = True
        self._timer = asyncio.get_running_loop().call_later(self._patience_s(), self._heartbeat)
        self.wake()

    async def _woken(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def hand(self, position: int, chunk: bytes) -> None:
        """Called by the tailer: the events up to `position` that pass the filter."""
        if self._behind:
            return
        if len(self._queue) >= QUEUE:
            self._behind = True
            self._queue.clear()
        else:
            self._queue.append((position, chunk))
        self.wake()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Bytes for the client, until it goes away."""
        yield _COMMENT  # so that the client knows at once that it is connected
        tailer = self._tailer
        try:
            await tailer.enter()
            self._timer = asyncio.get_running_loop().call_later(self._patience_s(), self._heartbeat)
            at, reset = self._start(tailer.position)
            if reset:
                yield b"event: reset\nid: %d\ndata: %s\n\n" % (at, orjson.dumps({"position": at}))
            while True:
                # From here on the tailer hands us what comes after `joined`; what is before we read ourselves.
                joined = tailer.join(self)
                async for chunk, position in self._catch_up(at, joined):
                    at = position
                    if chunk:
                        yield chunk
                while not self._behind:
                    if not self._queue:
                        if not self._beat:
                            await self._woken()
                        if not tailer.running:
                            return  # the client comes back with its Last-Event-ID and starts a new one
                        if self._expired():
                            yield _EXPIRED
                            return
                        if self._beat:
                            self._beat = False
                            yield _COMMENT
                        continue
                    gathered = b""
                    while self._queue:
                        position, chunk = self._queue.popleft()
                        if position > at:
                            at = position
                            gathered += chunk
                    if gathered and self._expired():
                        yield _EXPIRED
                        return
                    if gathered:
                        yield gathered
        finally:
            if self._timer is not None:
                self._timer.cancel()
            tailer.leave(self)

    def _expired(self) -> bool:
        return self._ends_at is not None and clock.now() >= self._ends_at

    def _patience_s(self) -> float:
        if self._ends_at is None:
            return COMMENT_S
        return max(0.0, min(COMMENT_S, (self._ends_at - clock.now()).total_seconds()))

    def _start(self, head: int) -> tuple[int, bool]:
        """The position after which to begin, and whether the client has to be told that its own is not in the log."""
        if self._last_id is None or not self._last_id.strip():
            return head, False
        text = self._last_id.strip()
        if text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= head:
            return int(text), False
        return head, True

    async def _catch_up(self, after: int, up_to: int) -> AsyncIterator[tuple[bytes, int]]:
        at = after
        while at < up_to:
            recent = self._tailer.recent(self.wanted, at, up_to)
            if recent is not None:
                yield recent, up_to
                return
            async with self._tailer.reading, self._tailer.db.tx() as tx:
                rows, at = await page(tx, self.wanted, at, up_to)
            yield b"".join(map(message, rows)), at


class _Told:
    """A row of the log, and the bytes in which it is told: made once, when the first filter takes it."""

    __slots__ = ("_message", "row")

    def __init__(self, row: Row) -> None:
        self.row = row
        self._message: bytes | None = None

    @property
    def message(self) -> bytes:
        if self._message is None:
            self._message = message(self.row)
        return self._message


class Tailer:
    """The one reader of the log in this process; it runs while somebody watches."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.position = 0
        self.reading = asyncio.Semaphore(4)  # catching up must leave connections for everybody else
        self._watchers: dict[Filter, set[Watcher]] = {}
        self._recent: deque[_Told] = deque()
        self._recent_bytes = 0
        self._present = 0
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    def watcher(self, wanted: Filter, last_id: str | None, ends_at: datetime | None = None) -> Watcher:
        """`ends_at`: when the token's time is over, and the stream with it."""
        return Watcher(self, wanted, last_id, ends_at)

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    async def enter(self) -> None:
        """Start the reader if it does not run, and wait until it knows where the log ends."""
        self._present += 1
        if not self.running:
            self._ready.clear()
            self._task = asyncio.create_task(self._run(), name="sitrep-tailer")
            self._task.add_done_callback(self._ended)
        await self._ready.wait()

    def join(self, watcher: Watcher) -> int:
        """Hand out to this watcher whatever comes after the position that is returned."""
        watcher._behind = False
        watcher._queue.clear()
        self._watchers.setdefault(watcher.wanted, set()).add(watcher)
        return self.position

    def recent(self, wanted: Filter, after: int, up_to: int) -> bytes | None:
        """What passes of the rows with `after` < position <= `up_to`; None where not all of them are kept."""
        first = self.position - len(self._recent) + 1
        if after + 1 < first or up_to > self.position:
            return None
        return b"".join(
            told.message
            for told in islice(self._recent, after + 1 - first, up_to + 1 - first)
            if wanted.takes(told.row)
        )

    def _keep(self, told: Sequence[_Told]) -> None:
        for each in told:
            self._recent.append(each)
            self._recent_bytes += len(each.row["data"])
        while len(self._recent) > RECENT or self._recent_bytes > RECENT_BYTES:
            self._recent_bytes -= len(self._recent.popleft().row["data"])
        if any(each.row["type"] == RecordRedacted.type for each in told):
            # What was taken away may be among them; the log knows.
            self._recent.clear()
            self._recent_bytes = 0

    def leave(self, watcher: Watcher) -> None:
        """Hand out to it no more; the last one to leave stops the reader."""
        self._present -= 1
        same = self._watchers.get(watcher.wanted)
        if same is not None:
            same.discard(watcher)
            if not same:
                del self._watchers[watcher.wanted]
        if self._present <= 0 and self._task is not None:
            self._task.cancel()
            self._task = None

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.error("the stream's reader of the log ended", exc_info=task.exception())
            self._ready.set()
            for watchers in self._watchers.values():
                for watcher in watchers:
                    watcher.wake()

    async def _run(self) -> None:
        wake = asyncio.Event()
        listener: Any = None
        pause_s = 0.1
        try:
            while True:
                try:
                    if listener is None or listener.is_closed():
                        listener = await self.db.listen([event_log.CHANNEL], wake)
                    if not self._ready.is_set():
                        async with self.db.tx() as tx:
                            self.position = await event_log.head(tx)
                        self._recent.clear()
                        self._recent_bytes = 0
                        self._ready.set()
                    wake.clear()
                    await self._hand_out()
                    pause_s = 0.1
                    with suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await wake.wait()
                    # Many watchers: gather a little, so that each gets one write for several events.
                    await asyncio.sleep(min(GATHER_S, self._present / 4000))
                except Exception as error:
                    if not is_transient(error):
                        raise
                    log.warning("the stream cannot read the log: %r; trying again in %.1f s", error, pause_s)
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, 5)
        finally:
            if listener is not None:
                await listener.close()

    async def _hand_out(self) -> None:
        while True:
            async with self.db.tx() as tx:
                rows = await tx.fetch(
                    f"SELECT {_COLUMNS} FROM log WHERE position > $1 ORDER BY position LIMIT {PAGE}", self.position
                )
            if not rows:
                return
            last: int = rows[-1]["position"]
            told = [_Told(row) for row in rows]
            for wanted, watchers in self._watchers.items():
                chunk = b"".join(each.message for each in told if wanted.takes(each.row))
                if chunk:
                    for watcher in watchers:
                        watcher.hand(last, chunk)
            self.position = last
            self._keep(told)
            if len(rows) < PAGE:
                return


def tailer(app: FastAPI, db: Database) -> Tailer:
    """This application's tailer."""
    found = getattr(app.state, "sitrep_tailer", None)
    if found is None:
        found = app.state.sitrep_tailer = Tailer(db)
    assert isinstance(found, Tailer)
    return found
