"""Reports of requests that come in together are stored together: one commit serves all that wait.

A single report alone is stored at once; while its transaction runs, others gather and share the next one. Nobody is
answered before the commit that holds his report. When a transaction fails for a report's sake, each is stored by
itself; when the database does not answer, everybody is told so.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncpg

from services.intake.actions import Draft, Taken, take_reports
from services.runtime.db import Database, is_transient
from services.runtime.http import WRITE_TIMEOUT_S, KeyClaim, claim_keys, keep_answers
from services.runtime.problems import Unavailable

_AT_ONCE = 200
_LANES = 2  # transactions at the same time: while one commits, the next is being made up
_MOST_WAITING = 2000  # more than the database takes in the time that a caller is made to wait


@dataclass(frozen=True, slots=True)
class _Waiting:
    draft: Draft
    claim: KeyClaim | None
    future: asyncio.Future[Taken | None]

    def tell(self, taken: Taken | None) -> None:
        if not self.future.done():
            self.future.set_result(taken)


class Together:
    """The reports that wait for a transaction in one web process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: list[_Waiting] = []
        self._lanes: set[asyncio.Task[None]] = set()

    async def take(self, draft: Draft, claim: KeyClaim | None = None) -> Taken | None:
        """Store a report with whatever else waits; returns once it is committed.

        None: its Idempotency-Key was used before, or is being used now, and nothing was stored; `write_once` knows
        what to answer then.

        Raises
        ------
        Unavailable
            Too many wait already.
        TimeoutError, or what the database raises
            Nothing of the transaction was stored.
        """
        if len(self._waiting) >= _MOST_WAITING:
            raise Unavailable("too many reports wait to be stored; nothing was stored, please send it again")
        future: asyncio.Future[Taken | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(draft, claim, future))
        if len(self._lanes) < _LANES:
            lane = asyncio.create_task(self._drain())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            # Whoever hung up meanwhile gets no report that nobody would know the ticket of.
            group = [one for one in group if not one.future.done()]
            if group:
                await self._store(group)

    async def _store(self, group: list[_Waiting]) -> None:
        try:
            taken = await self._stored(group)
        except asyncio.CancelledError:
            for one in group:
                one.future.cancel()
            raise
        except asyncpg.LockNotAvailableError:
            # Somebody else works on one of the keys right now. Who has a key goes the way that waits for that.
            for one in group:
                if one.claim is not None:
                    one.tell(None)
            free = [one for one in group if one.claim is None]
            if free:
                await self._store(free)
        except Exception as error:  # noqa: BLE001  (handed to every request in the group, which raises it)
            if len(group) > 1 and not is_transient(error):
                for one in group:  # one of them is to blame: the others must not pay for it
                    await self._store([one])
                return
            if is_transient(error):  # the database is away: nobody who waits behind has to find that out anew
                group = group + self._waiting
                self._waiting = []
            for one in group:
                if not one.future.done():
                    one.future.set_exception(error)
        else:
            for one, report in zip(group, taken, strict=True):
                one.tell(report)

    async def _stored(self, group: list[_Waiting]) -> list[Taken | None]:
        async with asyncio.timeout(WRITE_TIMEOUT_S), self._db.tx() as tx:
            mine = await claim_keys(tx, [one.claim for one in group if one.claim is not None])
            chosen: list[int] = []
            for n, one in enumerate(group):
                if one.claim is None or one.claim.name in mine:
                    chosen.append(n)
                    if one.claim is not None:
                        mine.discard(one.claim.name)  # the same key a second time in the group is a repeat
            reports = await take_reports(tx, [group[n].draft for n in chosen])
            answers = zip((group[n].claim for n in chosen), reports, strict=True)
            await keep_answers(tx, [(claim, 202, report.answer()) for claim, report in answers if claim is not None])
        found: list[Taken | None] = [None] * len(group)
        for n, report in zip(chosen, reports, strict=True):
            found[n] = report
        return found
