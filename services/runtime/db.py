"""The database: one pool for each service, one transaction for each message or request.

SQLAlchemy keeps the pool and runs typed selects over the SQLModel tables; asyncpg runs the SQL of the hot paths.
Both speak over one connection inside one transaction, which asyncpg opens and closes (the engine is in
autocommit mode for that reason), so that nobody can commit half of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import asyncpg
import orjson
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from sqlmodel.sql.expression import Select, SelectOfScalar

log = logging.getLogger(__name__)

T = TypeVar("T")
Row = asyncpg.Record

TRANSIENT: tuple[type[BaseException], ...] = (
    OSError,  # refused, reset, unreachable; TimeoutError is one of them
    asyncio.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.TooManyConnectionsError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.DiskFullError,
    asyncpg.OutOfMemoryError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    InterfaceError,
)
"""Failures that say nothing about the record at hand: they are tried again for as long as it takes."""


def is_transient(error: BaseException) -> bool:
    """Whether trying again later may help, with nothing changed."""
    if isinstance(error, DBAPIError):
        inner = error.orig.__cause__ if error.orig is not None else None
        return bool(error.connection_invalidated) or isinstance(inner, TRANSIENT)
    return isinstance(error, TRANSIENT)


def to_json(value: Any) -> str:
    """JSON text for a jsonb parameter; `from_json` reads what a jsonb column gives back."""
    return orjson.dumps(value, default=str).decode()


def from_json(value: Any) -> Any:
    """What a jsonb column of a raw row holds: an object or array, however the connection gives it back.

    SQLAlchemy teaches its asyncpg connections to decode jsonb by themselves; a bare asyncpg connection gives text.
    """
    return orjson.loads(value) if isinstance(value, str | bytes) else value


class Unreachable(ConnectionError):
    """No connection could be had; whatever the reason, it says nothing about the record at hand."""


class Tx:
    """One open transaction. The runtime opens and ends it; nobody else commits.

    `fetch`, `fetchrow`, `fetchval`, `execute`, `executemany` run SQL with `$1` parameters through asyncpg.
    `exec`, `add`, `get`, `flush` speak SQLModel. Raw SQL does not see what was added before `flush()`.
    """

    def __init__(self, connection: AsyncConnection, raw: asyncpg.Connection[Row]) -> None:
        self._connection = connection
        self._session: AsyncSession | None = None
        self.raw = raw

    @property
    def session(self) -> AsyncSession:
        if self._session is None:
            self._session = AsyncSession(bind=self._connection, expire_on_commit=False)
        return self._session

    async def fetch(self, sql: str, *args: Any) -> list[Row]:
        return await self.raw.fetch(sql, *args)

    async def fetchrow(self, sql: str, *args: Any) -> Row | None:
        return await self.raw.fetchrow(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        return await self.raw.fetchval(sql, *args)

    async def execute(self, sql: str, *args: Any) -> str:
        return await self.raw.execute(sql, *args)

    async def executemany(self, sql: str, rows: Iterable[Sequence[Any]]) -> None:
        await self.raw.executemany(sql, rows)

    async def exec(self, statement: Select[T] | SelectOfScalar[T]) -> Any:
        return await self.session.exec(statement)

    async def get(self, model: type[T], key: Any) -> T | None:
        return await self.session.get(model, key)

    def add(self, row: SQLModel) -> None:
        self.session.add(row)

    async def flush(self) -> None:
        if self._session is not None:
            await self._session.flush()

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what is done inside if it fails, and keep what was done before."""
        await self.flush()
        async with _transaction(self.raw):
            yield
            await self.flush()

    async def notify(self, channel: str, payload: str = "") -> None:
        """Wake whoever listens, once this transaction has committed."""
        await self.raw.execute("SELECT pg_notify($1, $2)", channel, payload)


class Database:
    """One service's pool. Its connections look for tables in the service's own schema first."""

    def __init__(self, dsn: str, schema: str, *, pool_size: int = 8, command_timeout_s: float = 30) -> None:
        self.dsn = dsn
        self.schema = schema
        self._engine: AsyncEngine = create_async_engine(
            dsn.replace("postgresql://", "postgresql+asyncpg://", 1),
            isolation_level="AUTOCOMMIT",
            json_deserializer=orjson.loads,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=2,
            connect_args={
                "timeout": 2,
                "command_timeout": command_timeout_s,
                "server_settings": {
                    "search_path": schema,
                    "application_name": f"gotong-{schema}",
                    "idle_in_transaction_session_timeout": "60s",
                    "jit": "off",
                    # A plan that was made while a table was empty reads all of it, and would be kept until it is
                    # analysed; with the parameters in hand the table's size of now counts.
                    "plan_cache_mode": "force_custom_plan",
                    "random_page_cost": "1.1",
                    "timezone": "UTC",
                },
            },
        )

    async def close(self) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[tuple[AsyncConnection, asyncpg.Connection[Row]]]:
        connection, raw = await self._checkout()
        try:
            yield connection, raw
        except BaseException as error:
            # asyncpg was used directly, so SQLAlchemy has not seen the error: a connection that
            # broke or was cancelled in the middle of a command must not go back to the pool.
            if _unknown(error):
                raw.terminate()
            await asyncio.shield(_discard(connection))
            raise
        else:
            await connection.close()

    async def _checkout(self) -> tuple[AsyncConnection, asyncpg.Connection[Row]]:
        """A connection that the server has not closed meanwhile: after a restart the pool holds only dead ones."""
        while True:
            try:
                connection = await self._engine.connect()
            except Exception as error:
                raise Unreachable(f"{self.schema}: no connection to the database: {error!r}") from error
            raw = (await connection.get_raw_connection()).driver_connection
            if raw is not None and not raw.is_closed():
                return connection, raw
            await connection.invalidate()
            await connection.close()

    @asynccontextmanager
    async def tx(self) -> AsyncIterator[Tx]:
        """One transaction: committed at the end of the block, rolled back when it raises."""
        async with self._connection() as (connection, raw), _transaction(raw):
            tx = Tx(connection, raw)
            yield tx
            await tx.flush()

    async def ping(self) -> None:
        """Raise if the database does not answer."""
        async with self._connection() as (_, raw):
            await raw.fetchval("SELECT 1")

    async def listen(self, channels: Iterable[str], wake: asyncio.Event) -> asyncpg.Connection[Row]:
        """A connection of its own that sets `wake` on every NOTIFY; the caller closes it."""
        connection: asyncpg.Connection[Row] = await asyncpg.connect(self.dsn, timeout=2)
        for channel in channels:
            await connection.add_listener(channel, lambda *_: wake.set())
        return connection


async def wait_any(*events: asyncio.Event, timeout_s: float) -> None:
    """Until one of these is set, or so long: how a loop waits for a NOTIFY or its end."""
    tasks = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _unknown(error: BaseException) -> bool:
    """Whether nobody knows what the server made of the last command: it was cancelled, or had no answer in time."""
    return not isinstance(error, Exception) or isinstance(error, TimeoutError)


@asynccontextmanager
async def _transaction(raw: asyncpg.Connection[Row]) -> AsyncIterator[None]:
    """A transaction, or a savepoint within one.

    asyncpg's own context would ask a server that does not answer for a rollback, and wait for it. And a connection
    whose BEGIN was cancelled takes whatever comes next for a savepoint, which nobody ever commits. So where the state
    is unknown nothing is asked: the connection is ended, and with it the transaction.
    """
    transaction = raw.transaction()
    await transaction.start()
    try:
        yield
    except BaseException as error:
        if not _unknown(error) and not raw.is_closed():
            await transaction.rollback()
        raise
    else:
        await transaction.commit()


async def _discard(connection: AsyncConnection) -> None:
    try:
        raw = (await connection.get_raw_connection()).driver_connection
        if raw is None or raw.is_closed() or raw.is_in_transaction():
            await connection.invalidate()
    except Exception as error:  # the connection is being thrown away; its own complaint changes nothing
        log.debug("a broken connection could not be invalidated: %r", error)
    finally:
        await connection.close()
