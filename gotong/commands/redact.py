"""`gotong redact`: blanks events for good, on the database itself, also while services are down."""

from __future__ import annotations

import asyncio
import getpass
from pathlib import Path
from uuid import UUID

import asyncpg
import click

from gotong.client import CommandFailed, data_option, own_database
from gotong.local.folders import data_folder
from services.runtime import migrations, redaction
from services.runtime.db import Database, Unreachable
from services.runtime.settings import SERVICES


@click.command(epilog="Example: gotong redact 0193a1b2-6c3d-7e4f-8a5b-0c1d2e3f4a5b --reason 'names a victim'")
@click.argument("event", type=click.UUID)
@click.option("--reason", required=True, help="Why; it is recorded, so it must not repeat what is taken away.")
@click.option("--everywhere", is_flag=True, help="Also every other event that repeats its texts.")
@data_option
def redact(event: UUID, reason: str, everywhere: bool, data: Path | None) -> None:
    """Take the content of an event away: out of the journal, out of quarantine, and out of every service's copy.

    Its place in the chain stays, so `gotong audit verify` still passes, and it is never sent again. Services that are
    down blank their copies when they are back. What is on Kafka already ends with the topic's retention.

    An incident's title, a partner's submission and others may repeat its texts in events of their own. Those are
    listed, or with --everywhere taken away as well. There is no way back.
    """
    reason = reason.strip()
    if len(reason) < 3 or len(reason) > 500:
        raise click.UsageError("Give a reason of 3 to 500 characters.")
    with own_database(data_folder(data)) as dsn:
        asyncio.run(_redact(dsn, event, f"console:{getpass.getuser()}", reason, everywhere))


async def _redact(dsn: str, event: UUID, by: str, reason: str, everywhere: bool) -> None:
    try:
        connection = await asyncpg.connect(dsn, timeout=10)
        try:
            name = await migrations.installation(connection)
        finally:
            await connection.close()
        databases = {service: Database(dsn, service, pool_size=1) for service in SERVICES}
        try:
            await _all(databases, name, event, by, reason, everywhere)
        finally:
            for db in databases.values():
                await db.close()
    except asyncpg.UndefinedTableError:
        raise CommandFailed("This database has no journals; is it Gotong's? `gotong up` makes its tables.") from None
    except (OSError, Unreachable, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"The database cannot be reached ({error}); start it, or correct GOTONG_DATABASE."
        ) from None


async def _all(databases: dict[str, Database], name: str, event: UUID, by: str, reason: str, everywhere: bool) -> None:
    payload = None
    for db in databases.values():
        async with db.tx() as tx:
            payload = payload or await redaction.payload_of(tx, event)
    # Before anything is taken away: afterwards nobody knows any more what to look for.
    words = redaction.words_of(payload) if payload else []
    like: list[tuple[str, UUID, str]] = []
    for service, db in databases.items():
        async with db.tx() as tx:
            like += [(service, other, kind) for other, kind in await redaction.saying(tx, words) if other != event]
    told = await _one(databases, name, event, by, reason)
    if told is None:
        raise CommandFailed(f"No event of this installation has the id {event}; nothing was changed.")
    click.echo(told)
    for service, other, kind in like:
        if everywhere:
            click.echo(await _one(databases, name, other, by, reason))
        else:
            click.echo(f"{service}: {kind} {other} repeats a text of it and still stands")
    if like and not everywhere:
        click.echo("They are taken away by gotong redact as well: one by one, or all by --everywhere.", err=True)


async def _one(databases: dict[str, Database], name: str, event: UUID, by: str, reason: str) -> str | None:
    """Redact one event in whichever of these services said it; a line that tells what was done, None: none did."""
    dropped = 0
    for db in databases.values():
        async with db.tx() as tx:
            dropped += await redaction.drop_refused(tx, event)
    for service, db in databases.items():
        async with db.tx() as tx:
            found = await redaction.redact(tx, f"/gotong/{name}/{service}", event, by=by, reason=reason)
        if found is not None:
            done = {
                "sent": "is redacted",
                "unsent": "is redacted; it had not been sent and never will be",
                "before": "was redacted before",
            }[found]
            kept = f"; {dropped} copies in quarantine are gone" if dropped else ""
            return f"{service}: {event} {done}{kept}"
    return f"{event}: {dropped} copies in quarantine are gone" if dropped else None
