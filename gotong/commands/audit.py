"""`gotong audit verify`: walks the journals on the database itself, also while services are down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import click

from gotong.client import CommandFailed, data_option, own_database
from gotong.local.folders import data_folder
from services.runtime import journal
from services.runtime.journal import Verdict
from services.runtime.settings import SERVICES


@click.group(epilog="Example: gotong audit verify --service intake")
def audit() -> None:
    """Show that the record of all events is whole."""


@audit.command(epilog="Example: gotong audit verify --service intake")
@click.option("--service", type=click.Choice(SERVICES), help="Only this one. Default: all.")
@data_option
def verify(service: str | None, data: Path | None) -> None:
    """Walk each service's chain from its first row, and compare its end with what was noted beside the database.

    Exits 1 when a byte was changed, a row is missing or the tail was cut, and names the first bad row.
    """
    folder = data_folder(data)
    with own_database(folder) as dsn:
        verdicts = asyncio.run(_verify(dsn, folder, (service,) if service else SERVICES))
    for verdict in verdicts:
        redacted = f", {verdict.redacted} redacted" if verdict.redacted else ""
        click.echo(f"{verdict.service}: {verdict.rows} rows{redacted}: {verdict.fault or 'ok'}")
    bad = next((verdict for verdict in verdicts if verdict.fault), None)
    if bad is not None:
        raise CommandFailed(
            f"The journal of {bad.service} is not whole: {bad.fault}; keep the database as it is and compare it with "
            "a backup and with the topics."
        )


async def _verify(dsn: str, data: Path, services: tuple[str, ...]) -> list[Verdict]:
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"The database cannot be reached ({error}); start it, or correct GOTONG_DATABASE."
        ) from None
    try:
        return [await _verdict(connection, service, data) for service in services]
    finally:
        await connection.close()


async def _verdict(connection: asyncpg.Connection[asyncpg.Record], service: str, data: Path) -> Verdict:
    # The head first, then the chain: a service that goes on writing meanwhile only makes the chain longer.
    try:
        head = journal.read_head(data, service)
    except (ValueError, KeyError, TypeError):
        return Verdict(service, 0, 0, f"the noted head {data / 'heads' / service} cannot be read")
    try:
        return await journal.verify(connection, service, head)
    except asyncpg.UndefinedTableError:
        raise CommandFailed(
            f"This database has no journal of {service}; is it Gotong's? `gotong up` makes its tables."
        ) from None
