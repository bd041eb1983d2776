"""Reports of requests that come in together are stored together: one commit serves all that wait.

A single report alone is stored at once; while its transaction runs, others gather and share the next one. Nobody is
answered before the commit that holds his report, and when a transaction fails, everyone in it is told so.
"""

from __future__ import annotations

import asyncio

from services.intake.actions import Draft, Taken, take_reports
from services.runtime.db import Database, is_transient
from services.runtime.http import WRITE_TIMEOUT_S

_AT_ONCE = 200
_LANES = 2  # transactions at the same time: while one commits, the next is being made up


class Together:
    """The reports that wait for a transaction in one web process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._waiting: list[tuple[Draft, asyncio.Future[Taken]]] = []
        self._lanes: set[asyncio.Task[None]] = set()

    async def take(self, draft: Draft) -> Taken:
        """Store a report with whatever else waits; returns once it is committed.

        Raises
        ------
        TimeoutError, or what the database raises
            Nothing of the transaction was stored.
        """
        future: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        self._waiting.append((draft, future))
        if len(self._lanes) < _LANES:
            lane = asyncio.create_task(self._drain())
            self._lanes.add(lane)
            lane.add_done_callback(self._lanes.discard)
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            # Whoever hung up meanwhile gets no report that nobody would know the ticket of.
            group = [(draft, future) for draft, future in group if not future.done()]
            if group:
                await self._store(group)

    async def _store(self, group: list[tuple[Draft, asyncio.Future[Taken]]]) -> None:
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S), self._db.tx() as tx:
                taken = await take_reports(tx, [draft for draft, _ in group])
        except asyncio.CancelledError:
            for _, future in group:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001  (handed to every request in the group, which raises it)
            if len(group) > 1 and not is_transient(error):
                for one in group:  # one of them is to blame: the others must not pay for it
                    await self._store([one])
                return
            if is_transient(error):  # the database is away: nobody who waits behind has to find that out anew
                group = group + self._waiting
                self._waiting = []
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), report in zip(group, taken, strict=True):
                if not future.done():
                    future.set_result(report)
