"""What tests of the registry share: tokens, a volunteer's request, the codes in the log, the way to matching."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson

from schemas.needs import NeedDeclared
from schemas.values import Period, Point, Requirements
from services.channels import outbound
from services.channels.settings import ChannelSettings
from services.matching.handlers import consumer as matching
from services.matching.planner import Scope, plan_once
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.cloudevents import headers
from services.runtime.db import Database
from services.runtime.journal import meta_of
from services.runtime.quarantine import Raw
from tests.conftest import Wire, bearer

DESK = bearer("operator", "posko", hours=9000)
FIELD = bearer("field", "lapangan", hours=9000)
PMI = bearer("partner", "pmi-desk", org="pmi", hours=9000)

SITI: dict[str, Any] = {
    "name": "Siti Rahmawati",
    "phone": "0813-9876-5432",
    "location": {"lon": 107.63, "lat": -6.99},
    "skills": ["cook", {"skill": "first_aid", "level": 3}, "nurse"],
}


class _Again(httpx.AsyncBaseTransport):
    """Sends again what is answered 503, which says that nothing was stored, for two minutes: as clients do."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self.inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + 120
        while True:
            answer = await self.inner.handle_async_request(request)
            if answer.status_code != 503 or time.monotonic() > deadline:
                return answer


def patient(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The same client, for a machine that is busy with other things."""
    client._transport = _Again(client._transport)
    return client


async def send_messages(db: Database) -> None:
    """Send all that waits to be sent, as the service's loop does."""
    async with httpx.AsyncClient() as http:
        sender = outbound.Sender(db, ChannelSettings(), http, outbound.tell_nobody)
        while await sender.round(500):
            pass


def messages(data: Path) -> list[dict[str, Any]]:
    """What the `log` channel wrote, oldest first."""
    path = data / "messages" / "registry.jsonl"
    return [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def code_in(message: dict[str, Any]) -> str:
    found = re.search(r"\b\d{6}\b", message["text"])
    assert found, message
    return found.group()


class Matching:
    """Matching as it is fed by the registry's events, each once, in their order."""

    def __init__(self, db: Database, registry: Database) -> None:
        self.db = db
        self.registry = registry
        self.wire = Wire(matching, db)
        self.fed = 0

    async def feed(self) -> int:
        """Deliver what the registry has said since; returns how many events that were."""
        count = 0
        while True:
            async with self.registry.tx() as tx:
                rows = await tx.fetch(
                    "SELECT *, '/gotong/test/registry' AS source FROM outbox WHERE position > $1 "
                    "ORDER BY position LIMIT 500",
                    self.fed,
                )
            if not rows:
                return count
            self.fed = rows[-1]["position"]
            count += len(rows)
            raws = [
                Raw(
                    row["topic"], 0, row["position"], row["key"].encode(),
                    tuple(headers(meta_of(row), row["key"])), row["payload"],
                )
                for row in rows
                if row["topic"] in matching.topics
            ]  # fmt: skip
            await self.wire.deliver_raw(raws)

    async def need(
        self, skill: str, *, certificates: tuple[str, ...] = (), start: datetime | None = None, hours: float = 6
    ) -> NeedDeclared:
        """A declared need for one person with this skill, near the volunteers' home."""
        begin = start or clock.now() + timedelta(minutes=5)
        need = NeedDeclared(
            need_id=uuid4(),
            operation="standing",
            status="declared",
            skill=skill,
            unit="person",
            quantity=1,
            severity=3,
            evidence="official",
            point=Point(lon=107.63, lat=-6.99),
            window=Period(start=begin, end=begin + timedelta(hours=hours)),
            requires=Requirements(certificates=certificates),
            by="operator:posko",
        )
        await self.wire.deliver(need)
        return need

    async def asked(self, need: NeedDeclared) -> set[str]:
        """Plan, and say who is asked for this need."""
        await plan_once(self.db, Scope(exercise=False), MatchingSettings(), anyway=True)
        async with self.db.tx() as tx:
            rows = await tx.fetch("SELECT responder_id FROM offer WHERE need_id = $1 AND state = 'made'", need.need_id)
        return {str(row["responder_id"]) for row in rows}

    async def candidates(self) -> set[str]:
        async with self.db.tx() as tx:
            rows = await tx.fetch("SELECT responder_id FROM responder WHERE status = 'confirmed'")
        return {str(row["responder_id"]) for row in rows}
