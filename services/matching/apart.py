"""A plan that is kept: small ones in the worker, large ones in a process of their own, because OR-Tools keeps Python's
lock while it solves, and the worker has events to handle.

Either way `plan` makes it and `follow` brings it up to date. The process holds one `engine.LivePlan` and knows no
table: plain data comes by its standard input and goes by its standard output, pickled, each message after its length.
It ends when its input does, so it never outlives its worker.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import UUID

from services.matching import engine

if TYPE_CHECKING:
    from services.matching.problem import Problem  # the process needs neither tables nor their driver

Pair = tuple[UUID, UUID]
_LENGTH = struct.Struct(">Q")


@dataclass(slots=True)
class Given:
    """What a full plan is made from."""

    needs: list[engine.NeedLine]
    responders: list[engine.Responder]
    lots: list[engine.Lot]
    settings: engine.Settings
    kept: list[engine.Kept]
    now: datetime

    @classmethod
    def of(cls, problem: Problem) -> Given:
        return cls(problem.needs, problem.responders, problem.lots, problem.rules, problem.kept, problem.now)


@dataclass(slots=True)
class Touched:
    """What changed since, as the tables have it now. `accepted`: units that became promises; `offered`: pairs that
    were asked; `ended`: needs that are not planned for any more; `lost`: responders and lots not to be had; `now`:
    as of when the rest is judged."""

    now: datetime
    accepted: list[tuple[UUID, UUID, int]] = field(default_factory=list)
    offered: list[Pair] = field(default_factory=list)
    ended: list[UUID] = field(default_factory=list)
    needs: list[engine.NeedLine] = field(default_factory=list)
    lost: list[UUID] = field(default_factory=list)
    sources: list[engine.Responder | engine.Lot] = field(default_factory=list)


@dataclass(slots=True)
class Followed:
    """What that changed in the plan: every pair that won or lost units, as it is planned now (None: not any more).
    `behind`: a full plan could do better, for what only full plans decide is touched, or units stay unmet."""

    lines: dict[Pair, engine.Assignment | None]
    behind: bool


def follow(live: engine.LivePlan, touched: Touched, settings: engine.Settings) -> Followed:
    """Bring a kept plan up to date. Promises first, so that it is their units and no others that leave the plan."""
    live.advance(touched.now)
    moved: set[Any] = set()
    behind = False
    planned = {(need, source): units for need, source, units in live.of_needs({n for n, _, _ in touched.accepted})}
    for need_id, source, units in touched.accepted:
        taken = min(units, planned.get((need_id, source), 0))
        if taken:
            live.accept(need_id, source, taken)
            planned[need_id, source] -= taken
            moved.add((need_id, source))
    for pair in touched.offered:
        live.offered(*pair)
    for need_id in touched.ended:
        moved.update(live.drop_need(need_id))
    for gone in touched.lost:
        moved.update(live.drop_source(gone))
    for line in touched.needs:
        for refused in live.newly_excluded(line):
            moved.update(live.exclude(line.need_id, refused))
        moved.update(live.put_need(line))
        behind |= line.bundle_id is not None
    for one in touched.sources:
        moved.update(live.put_source(one))
        behind |= isinstance(one, engine.Responder) and (
            one.minimum_team > 1 or (one.capacity > 1 and not settings.split_teams)
        )
    unmet = live.unmet()
    behind |= live.outgrown or any(line.need_id in unmet for line in touched.needs)
    fixed = {(need, source) for need, source, _ in live.fixed}
    return Followed({pair: live.line(*pair) for pair in moved if pair not in fixed}, behind)


class Keeper:
    """One plan, made and then followed."""

    def __init__(self) -> None:
        self._live: engine.LivePlan | None = None
        self._settings = engine.Settings()

    def answer(self, message: Given | Touched) -> engine.Plan | Followed:
        if isinstance(message, Given):
            self._settings = message.settings
            self._live = engine.LivePlan(
                message.needs, message.responders, message.lots, message.settings, message.kept, now=message.now
            )
            return self._live.plan
        assert self._live is not None
        return follow(self._live, message, self._settings)


class PlanHere:
    """A plan kept in the worker itself."""

    def __init__(self) -> None:
        self._keeper = Keeper()

    async def plan(self, given: Given) -> engine.Plan:
        """Make the full plan, and keep it."""
        answer = await asyncio.to_thread(self._keeper.answer, given)
        assert isinstance(answer, engine.Plan)
        return answer

    async def follow(self, touched: Touched) -> Followed:
        """Bring the kept plan up to date."""
        answer = await asyncio.to_thread(self._keeper.answer, touched)
        assert isinstance(answer, Followed)
        return answer

    async def stop(self) -> None:
        """Nothing to end."""


class PlanProcess:
    """The process, seen from the worker. One call at a time; when one fails the process is of no further use."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls) -> PlanProcess:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                "from services.matching import apart; apart.main()",  # with -m its classes would have a second name
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def plan(self, given: Given) -> engine.Plan:
        """Make the full plan, and keep it."""
        answer = await self._call(given)
        assert isinstance(answer, engine.Plan)
        return answer

    async def follow(self, touched: Touched) -> Followed:
        """Bring the kept plan up to date."""
        answer = await self._call(touched)
        assert isinstance(answer, Followed)
        return answer

    async def _call(self, message: Given | Touched) -> Any:
        writer, reader = self._process.stdin, self._process.stdout
        assert writer is not None and reader is not None
        data = await asyncio.to_thread(pickle.dumps, message, pickle.HIGHEST_PROTOCOL)
        writer.write(_LENGTH.pack(len(data)))
        writer.write(data)
        await writer.drain()
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        return await asyncio.to_thread(pickle.loads, await reader.readexactly(length))

    async def stop(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


def serve(incoming: BinaryIO, outgoing: BinaryIO) -> None:
    """Answer until the input ends."""
    keeper = Keeper()
    while head := incoming.read(_LENGTH.size):
        (length,) = _LENGTH.unpack(head)
        answer = keeper.answer(pickle.loads(incoming.read(length)))
        data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
        outgoing.write(_LENGTH.pack(len(data)))
        outgoing.write(data)
        outgoing.flush()


def main() -> None:
    """Serve the worker that started this process."""
    # What a library prints must not get between the messages.
    with suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, out)
