"""A service put together: its routes, its consumer, its loops; and the two processes that run them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import uvicorn
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from fastapi import APIRouter, FastAPI
from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLScram512

from services.runtime import health, http, kafka, logs, migrations, trace
from services.runtime.consumer import Consumer, Runner
from services.runtime.db import Database, Tx, is_transient
from services.runtime.metrics import router as metrics_router
from services.runtime.outbox import Relay
from services.runtime.problems import Problem, install
from services.runtime.quarantine_api import router_of
from services.runtime.settings import Settings, SettingsMissing
from services.runtime.topics import mend_topics

log = logging.getLogger(__name__)

Loop = Callable[[Database, asyncio.Event], Awaitable[None]]
"""Work that a worker does beside its consumer (a linker, a planner, timers), until the event is set."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service as its `app.py` composes it. `gauges` sets gauges of its own before `/metrics` answers.

    `routes` loads and gives the routes. Only who answers HTTP calls it: a worker need not spend half a second and some
    twenty megabytes on building them.
    """

    name: str
    routes: Callable[[], APIRouter]
    consumer: Consumer | None = None
    loops: Sequence[Loop] = field(default=())
    gauges: Callable[[Tx], Awaitable[None]] | None = None


def build_app(services: Sequence[Service], settings: Settings, title: str = "Gotong") -> FastAPI:
    """The HTTP side of these services in one application."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for db in app.state.databases.values():
            await db.close()

    app = FastAPI(
        title=title,
        version="1",
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        responses={500: {"model": Problem, "description": "Our own fault"}},
    )
    app.state.settings = settings
    app.state.services = tuple(service.name for service in services)
    app.state.gauges = {service.name: service.gauges for service in services if service.gauges is not None}
    app.state.databases = {
        service.name: Database(Settings.of(service.name).dsn(), service.name, pool_size=settings.pool_size)
        for service in services
    }
    install(app)

    app.add_middleware(trace.Traced)
    for service in services:
        app.include_router(service.routes())
    app.include_router(router_of([service.name for service in services]))
    app.include_router(metrics_router)
    return app


class Worker:
    """One service's worker: consumer, relay, loops, heartbeat. `name` tells its heartbeat from another instance's."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.settings = settings
        self.name = os.environ.get("GOTONG_INSTANCE") or f"{socket.gethostname()}-{os.getpid()}"
        self.db = Database(settings.dsn(), service.name, pool_size=settings.pool_size)
        self.stopping = asyncio.Event()
        self.runner = Runner(service.consumer, self.db, settings) if service.consumer else None
        self.relay: Relay | None = None
        self.problems: dict[str, str] = {}
        self._reader: AIOKafkaConsumer | None = None

    async def run(self) -> None:
        """Until SIGTERM or SIGINT, or until something fails that trying again cannot mend."""
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.stop)
        consuming: asyncio.Task[None] | None = None
        source = await self._source()
        if source is None:
            return
        self.relay = Relay(self.db, self.settings, source)
        tasks = [
            asyncio.create_task(self.relay.run(self.stopping), name="relay"),
            asyncio.create_task(self._beats(), name="heartbeat"),
            asyncio.create_task(self._housekeeping(), name="housekeeping"),
            *(
                asyncio.create_task(self._kept(work), name=getattr(work, "__module__", "loop"))
                for work in self.service.loops
            ),
        ]
        if self.runner is not None:
            tasks.append(asyncio.create_task(self.runner.until_failed(), name="consumer"))
            tasks.append(asyncio.create_task(self._releases(), name="releases"))
            consuming = asyncio.create_task(self._consumes(), name="consuming")
            tasks.append(consuming)
        stop = asyncio.create_task(self.stopping.wait(), name="stop")
        done, _ = await asyncio.wait([stop, *tasks], return_when=asyncio.FIRST_COMPLETED)
        failed = next((task for task in done if task is not stop), None)
        if failed is not None and not self.stopping.is_set():
            log.error("%s: %s ended: %r", self.service.name, failed.get_name(), _reason(failed))
            with suppress(Exception):  # the last words may not reach the database; the exit code says it too
                async with self.db.tx() as tx:
                    await health.beat(tx, self.name, f"{failed.get_name()} ended: {_reason(failed)!r}", {})
        self.stop()
        if consuming is not None:
            await asyncio.wait([consuming], timeout=7)
        stop.cancel()
        for task in tasks:
            if task.get_name() not in ("relay",):
                task.cancel()
        await asyncio.wait(tasks, timeout=1)
        await self.db.close()
        if failed is not None and failed in tasks and failed.done() and not failed.cancelled() and failed.exception():
            raise SystemExit(1)

    def stop(self) -> None:
        self.stopping.set()
        if self.runner is not None:
            self.runner.stopping.set()

    async def _source(self) -> str | None:
        """`/gotong/<installation>/<service>`; waits for the database as long as it takes."""
        pause_s = 0.2
        while not self.stopping.is_set():
            try:
                connection = await asyncpg.connect(self.settings.dsn(), timeout=2)
                try:
                    return f"/gotong/{await migrations.installation(connection)}/{self.service.name}"
                finally:
                    await connection.close()
            except Exception as error:
                if not is_transient(error):
                    raise
                log.warning("%s: waiting for the database: %r", self.service.name, error)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause_s)
                pause_s = min(pause_s * 2, 3)
        return None

    async def _consumes(self) -> None:
        """Keep the consumer running; when the broker has lost its log, start it anew.

        A consumer that goes on would ask a log that begins anew for its old offsets, and skip all before them as soon
        as the log has grown so far. A new one finds nothing committed and reads from the start (ADR 0007).
        """
        again = False
        while not self.stopping.is_set():
            found = await self._subscribed(again=again)
            if found is None:
                return
            broker, lost = found
            ended = [asyncio.ensure_future(event.wait()) for event in (self.stopping, lost)]
            try:
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for waiting in ended:
                    waiting.cancel()
                await self._end(broker)
            if lost.is_set():
                log.warning("%s: the broker has lost its log; reading the new one from its start", self.service.name)
                again = True

    async def _subscribed(self, *, again: bool) -> tuple[KafkaBroker, asyncio.Event] | None:
        """A started broker with this service's one subscriber; waits for Kafka as long as it takes. It speaks to one
        cluster; the event is set at the first connection to another. `again`: topics may have to be made anew."""
        runner = self.runner
        assert runner is not None
        pause_s = 0.2
        while not self.stopping.is_set():
            broker = _broker(self.settings)
            # One for each try: a client of the last one that still winds up must not say anything of this one.
            lost = asyncio.Event()
            try:
                known = await kafka.cluster_id(self.settings)
                if again or self.settings.kafka_embedded:
                    await mend_topics(self.settings)
                runner.subscribe(broker)
                await broker.connect()
                build = broker.config.broker_config.builder

                def built(
                    *args: Any, build: Any = build, known: str = known, lost: asyncio.Event = lost, **options: Any
                ) -> Any:
                    self._reader = build(*args, **options)
                    runner.reads_by(self._reader)
                    kafka.hold_to(self._reader._client, known, lost)
                    return self._reader

                broker.config.broker_config.builder = built
                # A consumer that meets another cluster while it starts would wait for its old one for ever.
                starting = asyncio.ensure_future(broker.start())
                ended = [asyncio.ensure_future(event.wait()) for event in (self.stopping, lost)]
                try:
                    await asyncio.wait([starting, *ended], return_when=asyncio.FIRST_COMPLETED)
                    if not starting.done():
                        raise kafka.LogLost(f"the broker is no longer of the cluster {known}")
                    starting.result()
                finally:
                    for waiting in (starting, *ended):
                        waiting.cancel()
                    await asyncio.wait([starting], timeout=1)
                self.problems.pop("kafka", None)
                return broker, lost
            except (KafkaError, OSError) as error:
                again = again or lost.is_set()
                self.problems["kafka"] = f"Kafka does not answer: {error!r}"
                log.warning("%s: %s", self.service.name, self.problems["kafka"])
                await self._end(broker)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause_s)
                pause_s = min(pause_s * 2, 3)
        return None

    async def _end(self, broker: KafkaBroker) -> None:
        """Stop it, with the batch in hand, within the time that the supervisor gives."""
        reader, self._reader = self._reader, None
        if self.runner is not None:
            self.runner.reads_by(None)
        await kafka.end(broker.stop(), None, 3)
        if reader is not None:  # FastStream does not know it yet when its start was cut off
            await kafka.end(reader.stop(), reader._client, 1)

    async def _kept(self, work: Loop) -> None:
        """Run a loop; an outage of the database starts it again, anything else ends the worker."""
        label = getattr(work, "__module__", "loop")
        pause_s = 0.1
        while not self.stopping.is_set():
            try:
                await work(self.db, self.stopping)
                return
            except Exception as error:
                if not is_transient(error):
                    raise
                self.problems[label] = f"{label}: the database does not answer: {error!r}"
                log.warning("%s", self.problems[label])
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stopping.wait(), pause_s)
                pause_s = min(pause_s * 2, 3)
            finally:
                if self.stopping.is_set():
                    self.problems.pop(label, None)

    def _problem(self) -> str | None:
        if self.runner is not None and self.runner.problem:
            return self.runner.problem
        if self.relay is not None and self.relay.problem:
            return self.relay.problem
        return next(iter(self.problems.values()), None)

    async def _beats(self) -> None:
        while not self.stopping.is_set():
            try:
                lag = self.runner.lag() if self.runner else {}
                async with self.db.tx() as tx:
                    await health.beat(tx, self.name, self._problem(), lag)
                # The database answers: what a loop said of its outage is history.
                self.problems = {name: text for name, text in self.problems.items() if name == "kafka"}
            except Exception as error:
                if not is_transient(error):
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 1)

    async def _releases(self) -> None:
        assert self.runner is not None
        while not self.stopping.is_set():
            try:
                await self.runner.release_all()
            except Exception as error:
                if not is_transient(error):
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 0.5)

    async def _housekeeping(self) -> None:
        while not self.stopping.is_set():
            try:
                async with self.db.tx() as tx:
                    await http.forget_old_keys(tx)
            except Exception as error:
                if not is_transient(error):
                    raise
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), 3600)


def _reason(task: asyncio.Task[object]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


def _broker(settings: Settings) -> KafkaBroker:
    arguments = kafka.connection(settings)
    security: BaseSecurity | None = None
    if settings.kafka_security == "sasl_ssl":
        security = SASLScram512(
            username=settings.kafka_user,
            password=settings.kafka_password.get_secret_value(),
            ssl_context=arguments["ssl_context"],
        )
    elif settings.kafka_security == "ssl":
        security = BaseSecurity(ssl_context=arguments["ssl_context"], use_ssl=True)
    return KafkaBroker(
        settings.kafka,
        security=security,
        graceful_timeout=2.5,
        allow_auto_create_topics=False,
        consumer_only=True,  # what leaves, leaves by the relay
        metadata_max_age_ms=10_000,
        # Its own logger would add a handler of its own, in colours, beside ours.
        logger=logging.getLogger("services.kafka"),
    )


async def serve(app: FastAPI, settings: Settings, stop: asyncio.Event | None = None) -> None:
    """Serve HTTP until SIGTERM, or until `stop` is set."""
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=3,
            server_header=False,
            proxy_headers=False,
        )
    )
    if stop is not None:

        async def follow() -> None:
            await stop.wait()
            server.should_exit = True

        task = asyncio.create_task(follow())
        try:
            await server.serve()
        finally:
            task.cancel()
    else:
        await server.serve()


def run_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run a process to its end, on uvloop where there is one: a third less processor time for HTTP."""
    # What was imported stays for good: the collector need not walk it again for every few hundred events.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        import uvloop
    except ImportError:  # Windows
        asyncio.run(work)
    else:
        uvloop.run(work)


def main(service: Service) -> None:
    """`python -m services.NAME [api|worker]`: one part, or both without a word."""
    part = sys.argv[1] if len(sys.argv) > 1 else "both"
    if part not in ("api", "worker", "both") or len(sys.argv) > 2:
        print(f"usage: python -m services.{service.name} [api|worker]", file=sys.stderr)
        raise SystemExit(2)
    settings = Settings.of(service.name)
    logs.configure(settings.log)
    try:
        run_loop(_run(service, settings, part))
    except SettingsMissing as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None


async def _run(service: Service, settings: Settings, part: str) -> None:
    if part == "worker":
        await Worker(service, settings).run()
        return
    app = build_app([service], settings, title=f"Gotong {service.name}")
    if part == "api":
        await serve(app, settings)
        return
    worker = Worker(service, settings)
    async with asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        group.create_task(serve(app, settings, worker.stopping))
