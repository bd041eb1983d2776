"""What every test may ask for: a fresh database, a service's HTTP client, a wire that delivers events.

Nothing here stands in for our own parts: PostgreSQL is real, and the wire runs the code that a worker runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import hypothesis
import pytest
import pytest_asyncio

from gotong.local.broker import Broker, Choice, Tansu, choose_broker, gather_facts, make_broker
from gotong.local.folders import cache_folder, scratch_folder
from gotong.local.postgres import Postgres
from schemas.event import REGISTRY, Event, Meta, event_types
from services.runtime import auth, clock, vault
from services.runtime.cloudevents import headers, read
from services.runtime.consumer import Consumer, Runner
from services.runtime.db import Database
from services.runtime.journal import meta_of
from services.runtime.migrations import migrate_all
from services.runtime.quarantine import Raw
from services.runtime.service import Service, build_app
from services.runtime.settings import Settings
from services.runtime.topics import ensure_topics
from tests.databases import Databases
from tests.web.browser import said as browser_said

os.environ.setdefault("GOTONG_SECRET_KEY", "tests-only-secret-which-is-long-enough")

# It logs each retry while a topic's leaders settle: thousands of lines that say nothing about a failed test.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

# The same examples at every run: what is green here is green there. `HYPOTHESIS_PROFILE=search` looks for new ones.
hypothesis.settings.register_profile("suite", derandomize=True, deadline=None)
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

E = TypeVar("E", bound=Event)
event_types()


def shared_folder() -> Path | None:
    """The folder of real data beside the repository, if there is one."""
    named = os.environ.get("GOTONG_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if folder.is_dir() else None


def shared_file(name: str) -> Path:
    """A file of the real data; the test is skipped where it is absent."""
    folder = shared_folder()
    path = folder / "data" / name if folder else None
    if path is None or not path.exists():
        pytest.skip(f"the real data {name} is not on this machine (GOTONG_SHARED)")
    return path


def _run_apart(work: Coroutine[Any, Any, Any]) -> None:
    """Run this on a loop of its own, also for a fixture that is asked for while a test's loop runs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL of our own on a free port, gone with the session."""
    folder = scratch_folder("gotong-test-")
    server = Postgres(folder / "postgres", say=lambda _: None)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """A database with every service's tables, from which each test's own is copied."""
    name = "template_gotong"
    _run_apart(migrate_all(postgres.createdb(name)))
    return name


def pytest_report_header() -> list[str]:
    """Say which broker and browser the tests use, why, and what is therefore left out."""
    return [str(broker_choice()), browser_said()]


@lru_cache(maxsize=1)
def broker_choice() -> Choice:
    """Which broker the tests use, and why."""
    return choose_broker(gather_facts(_cache()))


def _cache() -> Path:
    return cache_folder(Path(__file__).resolve().parents[1] / ".gotong")


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    """The first broker there is (design, section 5), with all topics made; gone with the session."""
    yield from _running(broker_choice())


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[Broker]:
    """The embedded broker, whatever else there is."""
    yield from _running(Choice("embedded", "this test asks for it"))


def _running(choice: Choice) -> Iterator[Broker]:
    folder = scratch_folder("gotong-test-")
    server = make_broker(choice, folder / "broker", _cache(), brief=True)
    server.start()
    try:
        _run_apart(ensure_topics(server.address, embedded=choice.kind == "embedded"))
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def broker_settings(broker: Broker, dsn: str) -> Settings:
    """Settings of a process that uses this broker and database."""
    return Settings(kafka=broker.address, kafka_embedded=isinstance(broker, Tansu), database=dsn)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def databases(postgres: Postgres, template: str) -> Databases:
    """Where the databases of single tests come from."""
    return Databases(postgres, template)


@pytest_asyncio.fixture
async def dsn(databases: Databases) -> AsyncIterator[str]:
    """A database for one test, as the migrations leave it."""
    name = await databases.take()
    yield databases.server.dsn(name)
    await databases.give_back(name)


@pytest_asyncio.fixture
async def make_db(dsn: str) -> AsyncIterator[Callable[[str], Database]]:
    """`make_db("intake")`: that service's pool on this test's database."""
    made: dict[str, Database] = {}

    def make(service: str) -> Database:
        return made.setdefault(service, Database(dsn, service, pool_size=30))

    yield make
    for db in made.values():
        await db.close()


@pytest_asyncio.fixture
async def make_client(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[[Sequence[Service]], httpx.AsyncClient]]:
    """`make_client([service])`: HTTP into the real routes of these services, with no network between.

    Its address is `203.0.113.7`, so nothing is taken for loopback.
    """
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    async with AsyncExitStack() as stack:

        def make(services: Sequence[Service], address: str = "203.0.113.7") -> httpx.AsyncClient:
            app = build_app(services, Settings(database=dsn, pool_size=30))  # type: ignore[arg-type]
            stack.push_async_callback(_close, app)
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=app, client=(address, 5000), raise_app_exceptions=False),
                base_url="http://gotong.test",
            )
            stack.push_async_callback(client.aclose)
            return client

        yield make


async def _close(app: object) -> None:
    for db in app.state.databases.values():  # type: ignore[attr-defined]
        await db.close()


def bearer(
    role: auth.Role,
    subject: str = "tester",
    *,
    org: str | None = None,
    operations: tuple[str, ...] = (),
    hours: float = 1,
) -> dict[str, str]:
    """Headers with a token of this role."""
    return {"Authorization": f"Bearer {auth.sign(role, subject, organisation=org, operations=operations, hours=hours)}"}


class Wire:
    """Delivers events to a consumer as its worker would: decode, claim, handle, commit, retry, quarantine."""

    def __init__(self, consumer: Consumer, db: Database) -> None:
        self.runner = Runner(consumer, db, Settings())
        self._offset = 0

    def raw(
        self,
        event: Event,
        *,
        id: str | None = None,
        sequence: int = 1,
        source: str = "/gotong/test/elsewhere",
        time: datetime | None = None,
    ) -> Raw:
        """The Kafka record that this event would be."""
        self._offset += 1
        meta = Meta(
            id=id or str(uuid4()),
            source=source,
            type=event.type,
            subject=event.subject_value,
            time=time or clock.now(),
            sequence=sequence,
            operation=event.operation,
            exercise=event.exercise,
        )
        key = event.key_value
        return Raw(
            event.topic, 0, self._offset, key.encode(), tuple(headers(meta, key)), event.to_bytes()
        )  # fmt: skip

    async def deliver(self, event: Event, **attributes: object) -> None:
        """Deliver one event; `id`, `sequence`, `source`, `time` as the producer would set them."""
        await self.deliver_raw([self.raw(event, **attributes)])  # type: ignore[arg-type]

    async def deliver_raw(self, raws: Sequence[Raw]) -> None:
        """Deliver records, good or bad, as one batch."""
        await self.runner.handle_raw(raws)


async def emitted(db: Database, model: type[E] | None = None) -> list[E]:
    """The events that wait in this service's outbox, oldest first, of one model or all."""
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT *, '/gotong/test/' || current_schema() AS source FROM outbox ORDER BY position")
    found = []
    for row in rows:
        kind = REGISTRY[row["type"]]
        if model is None or issubclass(kind, model):
            event = kind.model_validate_json(row["payload"]).arrived_as(meta_of(row))
            found.append(event)
    return found  # type: ignore[return-value]


@pytest.fixture(autouse=True)
def _real_clock() -> Iterator[None]:
    """A test that moved the clock leaves it as it was."""
    yield
    clock.reset()


@pytest.fixture
def secret() -> Iterator[None]:
    """For tests that set another GOTONG_SECRET_KEY: forget it before and after."""
    vault.forget_secret()
    yield
    vault.forget_secret()


__all__ = ["Wire", "bearer", "emitted", "read", "shared_file", "shared_folder"]
