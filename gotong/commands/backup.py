"""`gotong backup` and `gotong restore`: all that an installation knows in one file, the persons' keys in another.

Without the keys file nobody's name, number or text can be read from the backup. A restore erases again whoever was
erased since, in the transaction that brings the data back: nobody can look before that is done.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import click

from gotong.client import CommandFailed, data_option, own_database
from gotong.commands.backup_file import BackupFile, BadBackup, keys_path, write_backup
from gotong.commands.backup_restore import FORGETTING, NotEmpty, Restored, restore_into
from gotong.local.folders import data_folder, make_folder
from gotong.local.state import database, running
from services.runtime import erasures
from services.runtime.db import Unreachable
from services.runtime.migrations import MigrationChanged
from services.runtime.settings import SettingsMissing

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog="Example: gotong backup /mnt/usb/gotong-2026-11-24.backup")
@click.argument("file", type=FILE)
@data_option
def backup(file: Path, data: Path | None) -> None:
    """Write everything but the persons' keys to FILE, and the keys to FILE.keys. Services may run or not.

    Keep the two apart, and the secret key of the installation with the keys: whoever has all three reads everything,
    whoever lacks one of them reads nobody's name. After an erasure an older FILE.keys still opens the person's data:
    destroy it, or restore with it once, which takes their keys out of it.
    """
    folder = data_folder(data)
    for path in (file, keys_path(file)):
        if path.exists():
            raise CommandFailed(f"{path} is there already; give another name, or take it away first.")
    try:
        with own_database(folder) as dsn:
            told = asyncio.run(write_backup(dsn, folder, file))
    except (OSError, asyncpg.PostgresError, SettingsMissing) as error:
        raise CommandFailed(f"The backup could not be made: {error}.") from None
    click.echo(f"{file}: {told.tables} tables, {told.rows} rows, {told.files} media files")
    click.echo(f"{keys_path(file)}: the keys of {told.keys} persons and things; keep it apart from the backup")


@click.command(epilog="Example: gotong restore /mnt/usb/gotong-2026-11-24.backup --data /srv/gotong")
@click.argument("file", type=FILE)
@click.option("--keys", type=FILE, help="The persons' keys. Default: FILE.keys.")
@click.option("--without-keys", is_flag=True, help="Bring back what names nobody; contacts stay unreadable for good.")
@click.option("--erasures", "lists", type=FILE, multiple=True, help="A list of who was erased since; may be repeated.")
@click.option("--no-erasures", is_flag=True, help="Say that nobody was erased since the backup was made.")
@click.option("--replace", is_flag=True, help="Replace what the database holds now.")
@data_option
def restore(
    file: Path,
    keys: Path | None,
    without_keys: bool,
    lists: tuple[Path, ...],
    no_erasures: bool,
    replace: bool,
    data: Path | None,
) -> None:
    """Bring a backup back into the database of --data, with its services stopped.

    Whoever was erased after the backup was made is erased again before anything can be read: by the lists in
    --data (erasures/), by those of a database which is replaced, and by --erasures. With none of them the restore is
    refused, unless --no-erasures says that there is nobody to erase.
    """
    folder = data_folder(data)
    if running(folder) is not None:
        raise CommandFailed(f"Gotong runs on {folder}; stop it first with gotong down.")
    own = [erasures.path_in(folder, service) for service in FORGETTING]
    known = [*lists, *(path for path in own if path.exists())]
    make_folder(folder)
    try:
        erased = {one for path in known for one in erasures.read(path)}
        source = BackupFile.open(file, None if without_keys else keys or keys_path(file))
        with database(folder) as dsn:
            told = asyncio.run(
                restore_into(dsn, folder, source, erased, replace=replace, any_list=bool(known) or no_erasures)
            )
    except (BadBackup, NotEmpty, MigrationChanged, SettingsMissing) as error:
        raise CommandFailed(str(error)) from None
    except (OSError, ValueError, Unreachable, asyncpg.PostgresError) as error:
        raise CommandFailed(f"The backup could not be restored, and nothing was changed: {error}.") from None
    _tell(told)


def _tell(told: Restored) -> None:
    click.echo(f"{told.rows} rows of {told.tables} tables are back, as of {told.made_at}")
    click.echo(f"{told.erased} persons were erased again; {told.withheld} of their keys were not let in")
    click.echo(
        "If Kafka has kept its log, run gotong republish --all once the services run: readers skip what they know. "
        "What happened after the backup was made is not in this database any more.",
        err=True,
    )
