"""Database migrations: numbered SQL files, applied in order, each in one transaction, each once.

Every service has its own database schema with the runtime's tables and its own, and one row of `migration` for each
file applied, with its digest: a file that changed after it was applied is an error, not a surprise. See ADR 0003.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from importlib import resources

import asyncpg

from services.runtime.settings import SERVICES


class MigrationChanged(Exception):
    """A migration that was applied before has another text now."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. `name` is `<package>/<number>_<what>`."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(service: str) -> list[Migration]:
    """The runtime's files, then the service's own, in the order of their numbers."""
    found = []
    for package in ("runtime", service):
        folder = resources.files("services") / package / "migrations"
        if not folder.is_dir():
            continue
        names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
        found += [Migration(f"{package}/{name[:-4]}", (folder / name).read_text("utf-8")) for name in names]
    return found


async def migrate(connection: asyncpg.Connection[asyncpg.Record], service: str) -> list[str]:
    """Bring one service's database schema up to date; returns the names of what was applied.

    Raises
    ------
    MigrationChanged
        A file differs from what was applied under its name.
    """
    applied = []
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.migrate'))")
        await connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{service}"')
        await connection.execute(f'SET LOCAL search_path = "{service}"')
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS migration (name text PRIMARY KEY, digest text NOT NULL, "
            "applied_at timestamptz NOT NULL DEFAULT now())"
        )
        done = {row["name"]: row["digest"] for row in await connection.fetch("SELECT name, digest FROM migration")}
        for migration in migrations_of(service):
            if migration.name in done:
                if done[migration.name] != migration.digest:
                    raise MigrationChanged(
                        f"{migration.name} was changed after it was applied to {service}; add a new file instead"
                    )
                continue
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO migration (name, digest) VALUES ($1, $2)", migration.name, migration.digest
            )
            applied.append(migration.name)
    return applied


async def migrate_all(dsn: str, services: tuple[str, ...] = SERVICES) -> list[str]:
    """Bring the database up to date for these services, and give the installation its random name once."""
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.migrate'))")
            await connection.execute("CREATE SCHEMA IF NOT EXISTS gotong")
            await connection.execute(
                "CREATE TABLE IF NOT EXISTS gotong.installation "
                "(one boolean PRIMARY KEY DEFAULT true CHECK (one), name text NOT NULL)"
            )
            await connection.execute(
                "INSERT INTO gotong.installation (name) VALUES ($1) ON CONFLICT DO NOTHING", os.urandom(6).hex()
            )
        return [f"{service}:{name}" for service in services for name in await migrate(connection, service)]
    finally:
        await connection.close()


async def installation(connection: asyncpg.Connection[asyncpg.Record]) -> str:
    """This installation's name, which stands in the `source` of every event: random, made once."""
    return str(await connection.fetchval("SELECT name FROM gotong.installation"))
