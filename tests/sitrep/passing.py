"""Passes events between services of one test as relay and consumers would, over the database and without a broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from schemas.topics import TOPICS
from services.runtime.cloudevents import headers
from services.runtime.db import Database
from services.runtime.journal import meta_of
from services.runtime.quarantine import Raw
from services.runtime.service import Service
from tests.conftest import Wire


class Passing:
    """What these services have said to each other so far."""

    def __init__(self, make_db: Callable[[str], Database], services: Sequence[Service]) -> None:
        self.services = services
        self.db = {service.name: make_db(service.name) for service in services}
        self.wires = {
            service.name: Wire(service.consumer, self.db[service.name])
            for service in services
            if service.consumer is not None
        }
        self.passed = dict.fromkeys(self.db, 0)
        self.offset = 0

    async def on(self) -> None:
        """Pass on whatever was said, and what was said because of it, until nobody has anything to say."""
        while await self._once():
            pass

    async def _once(self) -> bool:
        moved = False
        for name, db in self.db.items():
            async with db.tx() as tx:
                rows = await tx.fetch(
                    "SELECT *, '/gotong/test/' || current_schema() AS source FROM outbox WHERE position > $1 "
                    "ORDER BY position LIMIT 500",
                    self.passed[name],
                )
            if not rows:
                continue
            moved = True
            self.passed[name] = rows[-1]["position"]
            for reader, wire in self.wires.items():
                raws = [self._raw(row) for row in rows if reader in TOPICS[row["topic"]].readers]
                if raws:
                    await wire.deliver_raw(raws)
        return moved

    def _raw(self, row: object) -> Raw:
        self.offset += 1
        key = row["key"]  # type: ignore[index]
        return Raw(
            row["topic"], 0, self.offset, key.encode(), tuple(headers(meta_of(row), key)), bytes(row["payload"])  # type: ignore[index, arg-type]
        )  # fmt: skip
