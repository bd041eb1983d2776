"""Bringing a backup back, in one transaction: tables, erasures again, keys. Before it commits nobody sees any of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from gotong.commands.backup_file import BackupFile, BadBackup, media_folder, secret_mark
from services.intake import erasure as intake_erasure
from services.registry import erasure as registry_erasure
from services.runtime import erasures, journal
from services.runtime.db import Database, Tx
from services.runtime.migrations import migrate_all, migrations_of
from services.runtime.settings import SERVICES

FORGETTING = ("intake", "registry")
"""Services that forget people, each with a list of its own. An id of one is no id of the other's."""
_BY = "system:restore"


class NotEmpty(Exception):
    """The database is in use, or holds something that was not to be replaced; the text says which."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What came back. `erased`: persons who were erased again; `withheld`: keys that were not let in."""

    made_at: str
    tables: int
    rows: int
    erased: int
    withheld: int


async def restore_into(
    dsn: str, data: Path, source: BackupFile, erased: set[UUID], *, replace: bool, any_list: bool
) -> Restored:
    """Restore into this database. `any_list`: somebody said who was erased since, be it nobody.

    Raises
    ------
    BadBackup
        It is of a newer release, or was made with another secret.
    NotEmpty
        Services are connected; or there is something in it and `replace` was not said; or no list of erasures is known.
    """
    dsn = dsn.replace("postgresql+asyncpg://", "postgresql://", 1)
    if source.keys and source.manifest["secret"] != secret_mark(data):
        raise BadBackup(
            "The backup was made with another secret key; put that installation's secret.key in place first."
        )
    for service, names in source.manifest["migrations"].items():
        unknown = set(names) - {migration.name for migration in migrations_of(service)}
        if unknown:
            raise BadBackup(f"The backup is of a newer release: {service} has {min(unknown)}, which is not known here.")
    await migrate_all(dsn)
    db = Database(dsn, "registry", pool_size=1, command_timeout_s=86_400)
    try:
        async with db.tx() as tx:
            await tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            there = await _look(tx, replace=replace)
            if not any_list and not there:
                raise NotEmpty(
                    "No list says who was erased since the backup was made: give the installation's files "
                    "erasures/* with --erasures, or say --no-erasures."
                )
            rows = await _load(tx, source)
            erased = {*erased, *(there or ())}
            count, withheld = await _erase_again(tx, source, erased)
            heads = {service: await _head(tx, service) for service in SERVICES}
            # Before the commit: should a file not take it, nothing is restored that it would have to erase.
            for service in FORGETTING:
                erasures.write(erasures.path_in(data, service), await erasures.listed(tx, service) | erased)
            source.unpack_media(media_folder(data))
    finally:
        await db.close()
    for service, head in heads.items():
        (data / "heads" / service).unlink(missing_ok=True)
        if head is not None:
            journal.write_head(data, service, *head)
    return Restored(source.manifest["made_at"], len(source.manifest["tables"]), rows, count, withheld)


async def _look(tx: Tx, *, replace: bool) -> set[UUID] | None:
    """Whom and what the database that is replaced knows as erased; None: it is empty."""
    others = await tx.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
        "AND application_name LIKE 'gotong-%'"
    )
    if others:
        raise NotEmpty(f"{others} connections of services are open; stop the services first.")
    full = False
    for service in SERVICES:
        full |= await tx.fetchval(
            f'SELECT EXISTS (SELECT FROM "{service}".journal) OR EXISTS (SELECT FROM "{service}".outbox) '
            f'OR EXISTS (SELECT FROM "{service}".vault_key)'
        )
    if not full:
        return None
    if not replace:
        raise NotEmpty("The database is not empty; say --replace to give up what it holds now.")
    return {one for service in FORGETTING for one in await erasures.listed(tx, service)}


async def _load(tx: Tx, source: BackupFile) -> int:
    """Empty the tables and fill them from the backup, those first that others point to."""
    entries = source.manifest["tables"]
    known = {
        (row["schema"], row["name"]): set(row["columns"])
        for row in await tx.fetch(
            "SELECT table_schema::text AS schema, table_name::text AS name, array_agg(column_name::text) AS columns "
            "FROM information_schema.columns WHERE table_schema = ANY($1) GROUP BY 1, 2",
            [*SERVICES, "gotong"],
        )
    }
    for entry in entries:
        lost = set(entry["columns"]) - known.get((entry["schema"], entry["table"]), set())
        if lost:
            raise BadBackup(f"{entry['schema']}.{entry['table']} has no place here for {', '.join(sorted(lost))}.")
    names = ", ".join(f'"{entry["schema"]}"."{entry["table"]}"' for entry in entries)
    keys = ", ".join(f'"{service}".vault_key' for service in SERVICES)
    await tx.execute(f"TRUNCATE {names}, {keys}")
    # The tar is in the order of names; it is gone through once for each step along the foreign keys.
    order = await _order(tx)
    total = 0
    for rank in sorted(set(order.values()) | {0}):
        for entry, rows in source.tables():
            name = f"{entry['schema']}.{entry['table']}"
            if order.get(name, 0) != rank:
                continue
            await tx.raw.copy_to_table(
                entry["table"], schema_name=entry["schema"], columns=entry["columns"], format="binary", source=rows
            )
            total += entry["rows"]
    for row in await tx.fetch(
        "SELECT table_schema::text AS schema, table_name::text AS name, column_name::text AS column "
        "FROM information_schema.columns WHERE table_schema = ANY($1) AND is_identity = 'YES'",
        list(SERVICES),
    ):
        table = f'"{row["schema"]}"."{row["name"]}"'
        await tx.execute(
            f'SELECT setval(pg_get_serial_sequence($1, $2), coalesce(max("{row["column"]}"), 1), '
            f'max("{row["column"]}") IS NOT NULL) FROM {table}',
            table,
            row["column"],
        )
    return total


async def _order(tx: Tx) -> dict[str, int]:
    """How many tables must be there before each, along its foreign keys; 0 where it has none."""
    rows = await tx.fetch(
        "SELECT cn.nspname || '.' || cc.relname AS child_name, pn.nspname || '.' || pc.relname AS parent_name "
        "FROM pg_constraint c JOIN pg_class cc ON cc.oid = c.conrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace "
        "JOIN pg_class pc ON pc.oid = c.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace "
        "WHERE c.contype = 'f' AND c.conrelid <> c.confrelid"
    )
    parents: dict[str, set[str]] = {}
    for row in rows:
        parents.setdefault(row["child_name"], set()).add(row["parent_name"])

    def rank(name: str) -> int:
        return 1 + max(map(rank, parents[name])) if name in parents else 0

    return {name: rank(name) for name in parents}


async def _erase_again(tx: Tx, source: BackupFile, erased: set[UUID]) -> tuple[int, int]:
    """Let in all keys but those of erased persons, and erase these persons again. The keys come last: those of whom is
    erased are never in this database, not for a moment."""
    contacts = [
        row["contact_id"]
        for row in await tx.fetch(
            "SELECT contact_id FROM responder WHERE responder_id = ANY($1) AND contact_id IS NOT NULL", list(erased)
        )
    ]
    owners = {
        row["owner"]
        for row in await tx.fetch(
            "SELECT owner FROM contact WHERE responder_id = ANY($1) UNION "
            "SELECT 'responder:' || responder_id FROM responder WHERE responder_id = ANY($1)",
            list(erased),
        )
    }
    # Plain names of tables are a service's own.
    await tx.execute("SET LOCAL search_path = intake")
    wrote = await intake_erasure.replay(tx, contacts, erased, _BY)
    await tx.execute("SET LOCAL search_path = registry")
    out = {"registry": {*owners, *contacts}, "intake": wrote}
    count = await registry_erasure.replay(tx, erased, _BY)
    withheld = 0
    for service, held in source.keys.items():
        let_in = {owner: wrapped for owner, wrapped in held.items() if owner not in out.get(service, ())}
        withheld += len(held) - len(let_in)
        await tx.raw.copy_records_to_table(
            "vault_key",
            schema_name=service,
            columns=["owner", "wrapped"],
            records=[(owner, base64.b64decode(wrapped)) for owner, wrapped in let_in.items()],
        )
    for service, gone in out.items():
        source.without(service, gone)
    return count, withheld


async def _head(tx: Tx, service: str) -> tuple[int, bytes] | None:
    row = await tx.fetchrow(f'SELECT position, hash FROM "{service}".journal ORDER BY position DESC LIMIT 1')
    return (row["position"], row["hash"]) if row else None
