"""`gotong rebuild`: makes sitrep's read models again from its log, from the database itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import click

from gotong.client import CommandFailed, data_option, own_database
from gotong.local.folders import data_folder
from services.runtime.db import Database
from services.sitrep import log


@click.command(epilog="Example: gotong rebuild")
@data_option
def rebuild(data: Path | None) -> None:
    """Make the read models of the situation reports again from the log, and switch over to them.

    They are made beside the live ones, which go on serving; what was counted from the old ones is counted anew. For
    when they were damaged, or a release says that they have to be made again. Services may run or not.
    """
    with own_database(data_folder(data)) as dsn:
        position = asyncio.run(_rebuild(dsn))
    click.echo(f"sitrep: read models made again from the log up to position {position}")


async def _rebuild(dsn: str) -> int:
    db = Database(dsn, "sitrep", pool_size=1, command_timeout_s=3600)
    try:
        return await log.rebuild(db)
    except asyncpg.UndefinedTableError:
        raise CommandFailed("This database has no log; is it Gotong's? `gotong up` makes its tables.") from None
    except asyncpg.InsufficientPrivilegeError as error:
        raise CommandFailed(f"{error}; grant the role of sitrep the right to create a schema.") from None
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"The database cannot be reached ({error}); start it, or correct GOTONG_DATABASE."
        ) from None
    finally:
        await db.close()
