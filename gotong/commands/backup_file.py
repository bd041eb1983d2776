"""The file of a backup: a gzipped tar with a manifest, one binary copy of each table, and the sealed media.

All tables are read in one snapshot, so journals, inboxes and state fit one another. The persons' keys are in no table
of it: they go to a file of their own, as JSON, readable by its owner alone.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import asyncpg
import orjson

from services.intake.settings import IntakeSettings
from services.runtime import clock, migrations
from services.runtime.cloudevents import timestamp
from services.runtime.settings import SERVICES, Settings

FORMAT = 1
LEFT_OUT = ("migration", "vault_key", "heartbeat")
"""Tables that are not copied: what was migrated stands in the manifest, keys in their own file, heartbeats are over."""

_TABLES = """
    SELECT n.nspname AS schema, c.relname AS name,
           array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND n.nspname = ANY($1) AND c.relname <> ALL($2) ORDER BY n.nspname, c.relname
"""


class BadBackup(Exception):
    """A file is no backup, is damaged, or belongs to other keys; the text says which."""


@dataclass(frozen=True, slots=True)
class Written:
    """What went into a backup."""

    tables: int
    rows: int
    files: int
    keys: int


def keys_path(file: Path) -> Path:
    return file.with_name(file.name + ".keys")


def secret_mark(data: Path) -> str:
    """Tells installations' secrets apart without giving anything of them away."""
    secret = Settings(data=data).secret()
    return hmac.new(secret, b"gotong backup", hashlib.sha256).hexdigest()[:32]


def media_folder(data: Path) -> Path:
    return IntakeSettings().media_folder or data / "media"


async def write_backup(dsn: str, data: Path, file: Path) -> Written:
    """Write a backup and its keys; both are in place whole or not at all."""
    connection = await asyncpg.connect(dsn, timeout=10)
    made_at = timestamp(clock.now())
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".gotong-backup-") as scratch:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                schemas = [*SERVICES, "gotong"]
                tables = await connection.fetch(_TABLES, schemas, list(LEFT_OUT))
                copied = []
                for row in tables:
                    path = Path(scratch) / f"{row['schema']}.{row['name']}"
                    status = await connection.copy_from_table(
                        row["name"], schema_name=row["schema"], columns=row["columns"], format="binary", output=path
                    )
                    copied.append(
                        {
                            "schema": row["schema"],
                            "table": row["name"],
                            "columns": row["columns"],
                            "rows": int(status.rpartition(" ")[2]),
                            "sha256": _sha256(path),
                        }
                    )
                keys = {
                    service: {
                        row["owner"]: base64.b64encode(row["wrapped"]).decode()
                        for row in await connection.fetch(f'SELECT owner, wrapped FROM "{service}".vault_key')
                    }
                    for service in SERVICES
                }
                applied = {
                    service: [row["name"] for row in await connection.fetch(f'SELECT name FROM "{service}".migration')]
                    for service in SERVICES
                }
                installation = await migrations.installation(connection)
            manifest = {
                "format": FORMAT,
                "made_at": made_at,
                "installation": installation,
                "secret": secret_mark(data),
                "migrations": applied,
                "tables": copied,
            }
            files = _write(file, manifest, Path(scratch), media_folder(data))
        _write_private(
            keys_path(file),
            orjson.dumps({"format": FORMAT, "installation": installation, "made_at": made_at, "keys": keys}),
        )
    finally:
        await connection.close()
    return Written(len(copied), sum(entry["rows"] for entry in copied), files, sum(len(held) for held in keys.values()))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def _write(file: Path, manifest: dict[str, Any], scratch: Path, media: Path) -> int:
    draft = scratch / "backup"
    count = 0
    with tarfile.open(draft, "w:gz", compresslevel=3) as tar:
        head = tarfile.TarInfo("manifest.json")
        text = orjson.dumps(manifest)
        head.size = len(text)
        tar.addfile(head, io.BytesIO(text))
        for entry in manifest["tables"]:
            name = f"{entry['schema']}.{entry['table']}"
            tar.add(scratch / name, f"tables/{name}")
        for path in _files(media):
            tar.add(path, f"media/{path.relative_to(media)}")
            count += 1
    draft.chmod(0o600)
    with draft.open("rb") as written:
        os.fsync(written.fileno())
    draft.replace(file)
    return count


def _files(media: Path) -> Iterator[Path]:
    if media.is_dir():
        yield from sorted(path for path in media.rglob("*") if path.is_file() and not path.name.startswith("."))


def _write_private(path: Path, content: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    with draft.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


@dataclass(slots=True)
class BackupFile:
    """A backup that was found whole. `keys`: by service and owner; empty when it is restored without them."""

    path: Path
    keys_path: Path | None
    manifest: dict[str, Any]
    keys: dict[str, dict[str, str]]

    @classmethod
    def open(cls, path: Path, keys: Path | None) -> BackupFile:
        """Read the manifest, compare every table with its digest, and take the keys that belong to it.

        Raises
        ------
        BadBackup
        """
        try:
            with tarfile.open(path, "r:gz") as tar:
                manifest = orjson.loads(_member(tar, "manifest.json").read())
                if manifest.get("format") != FORMAT:
                    raise BadBackup(
                        f"{path} has the format {manifest.get('format')}, which this release does not read."
                    )
                for entry in manifest["tables"]:
                    name = f"{entry['schema']}.{entry['table']}"
                    digest = hashlib.sha256()
                    source = _member(tar, f"tables/{name}")
                    while piece := source.read(1 << 20):
                        digest.update(piece)
                    if digest.hexdigest() != entry["sha256"]:
                        raise BadBackup(f"{path} is damaged: {name} is not what was written.")
        except (tarfile.TarError, EOFError, KeyError, orjson.JSONDecodeError, OSError) as error:
            raise BadBackup(f"{path} cannot be read as a backup: {error}.") from None
        held: dict[str, dict[str, str]] = {}
        if keys is not None:
            try:
                told = orjson.loads(keys.read_bytes())
                held = told["keys"]
            except (OSError, orjson.JSONDecodeError, KeyError) as error:
                raise BadBackup(
                    f"The keys {keys} cannot be read ({error}); name them with --keys, or say --without-keys."
                ) from None
            if (told["installation"], told["made_at"]) != (manifest["installation"], manifest["made_at"]):
                raise BadBackup(f"The keys {keys} belong to another backup.")
        return cls(path, keys, manifest, held)

    def tables(self) -> Iterator[tuple[dict[str, Any], BinaryIO]]:
        """Each table's entry of the manifest and its rows, in the order of the file."""
        entries = {f"tables/{entry['schema']}.{entry['table']}": entry for entry in self.manifest["tables"]}
        with tarfile.open(self.path, "r:gz") as tar:
            for member in tar:
                if member.name in entries:
                    source = tar.extractfile(member)
                    assert source is not None
                    yield entries[member.name], cast(BinaryIO, source)

    def unpack_media(self, folder: Path) -> int:
        """Put the sealed media back where they were; returns how many files that were."""
        count = 0
        with tarfile.open(self.path, "r:gz") as tar:
            for member in tar:
                if member.isfile() and member.name.startswith("media/"):
                    path = folder / member.name.removeprefix("media/")
                    if folder.resolve() not in path.resolve().parents:
                        raise BadBackup(f"{self.path} holds a file that would be put outside its folder.")
                    source = tar.extractfile(member)
                    assert source is not None
                    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    path.touch(mode=0o600)
                    path.write_bytes(source.read())
                    count += 1
        return count

    def without(self, service: str, owners: set[str]) -> None:
        """Take these owners' keys out of the keys file, for good."""
        if self.keys_path is None or not owners & set(self.keys.get(service, {})):
            return
        told = orjson.loads(self.keys_path.read_bytes())
        for owner in owners:
            told["keys"][service].pop(owner, None)
        _write_private(self.keys_path, orjson.dumps(told))


def _member(tar: tarfile.TarFile, name: str) -> IO[bytes]:
    source = tar.extractfile(name)
    if source is None:
        raise KeyError(name)
    return source
