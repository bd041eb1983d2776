"""A backup comes back whole; whoever was erased since does not, in no file, topic, log line or restored table."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import RecordMetadata, TopicPartition
from click.testing import CliRunner, Result

from gotong.__main__ import main
from gotong.local.broker import Broker, Kafka
from gotong.local.postgres import Postgres
from schemas.erasures import ContactErased, ContactForgotten
from schemas.responders import ResponderWithdrawn
from services.intake.actions import Sender, draft_of, take_reports
from services.intake.bodies import ReporterIn, ReportIn
from services.intake.conversations import take_inbound
from services.intake.handlers import consumer as intake_consumer
from services.intake.inbound import Inbound
from services.registry.app import service
from services.registry.bodies import ResponderChange
from services.registry.handlers import consumer as registry_consumer
from services.registry.responder_rows import contact_of
from services.registry.responder_writes import change_responder
from services.runtime import clock, erasures, journal, vault
from services.runtime.auth import Actor
from services.runtime.db import Database
from services.runtime.journal import Entry, meta_of
from services.runtime.outbox import Relay
from tests.conftest import Wire, bearer, broker_settings, emitted
from tests.registry.people import patient

DESK = bearer("operator", "posko", hours=9000)
NAME, PLACE = "Wahyuningtyas Kartikasari", "Gang Melati Nomor Tujuh"
NUMBER = "+6281398765432"
PLANTED = [NAME.encode(), b"Wahyuningtyas", PLACE.encode(), b"81398765432", b"1398-7654", b"107.6312345"]
PLANTED += [word.hex().encode() for word in PLANTED[:4]]
PERSON: dict[str, Any] = {
    "name": NAME,
    "phone": "0813-9876-5432",
    "location": {"lon": 107.6312345, "lat": -6.9912345, "place": PLACE},
    "skills": ["cook"],
}
OTHER: dict[str, Any] = {"name": "Budi Santosa", "phone": "081311112222", "skills": ["nurse"]}
ADMIN = Actor("operator", "posko")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dsn: str) -> Path:
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def client(make_client, data) -> httpx.AsyncClient:
    return patient(make_client([service]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[str]:
    """The address of a database with nothing in it."""
    name = f"restored_{uuid4().hex[:8]}"
    yield postgres.createdb(name)
    postgres.dropdb(name)


async def run(*words: str | Path, database: str) -> Result:
    def invoke() -> Result:
        return CliRunner(env={"GOTONG_DATABASE": database}).invoke(main, [str(word) for word in words])

    return await asyncio.to_thread(invoke)


async def well(*words: str | Path, database: str) -> str:
    result = await run(*words, database=database)
    assert result.exit_code == 0, result.output
    return result.output


async def made(client: httpx.AsyncClient, body: dict[str, Any]) -> str:
    answer = await client.post("/v1/responders", json=body, headers=DESK)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["responder_id"])


async def change_often(db: Database, who: str, times: int) -> None:
    """So many events of one person, their name and home told anew now and then."""
    for begin in range(0, times, 250):
        async with db.tx() as tx:
            for nth in range(begin, min(begin + 250, times)):
                change: dict[str, Any] = {"travel_limit_km": 1 + nth % 50}
                if nth % 100 == 0:
                    change["name"] = NAME
                await change_responder(tx, ADMIN, UUID(who), ResponderChange(**change))


async def journalled(db: Database) -> None:
    """Move what waits to the journal, as the relay does once the broker has it."""
    async with db.tx() as tx:
        rows = await tx.fetch(
            "WITH gone AS (DELETE FROM outbox RETURNING *) "
            "SELECT *, '/gotong/test/registry' AS source FROM gone ORDER BY position"
        )
        entries = [Entry(meta_of(row), row["topic"], row["key"], row["payload"]) for row in rows]
        places = [
            RecordMetadata(entry.topic, 0, TopicPartition(entry.topic, 0), nth, None, None, None)
            for nth, entry in enumerate(entries)
        ]
        await journal.write(tx, entries, places)


def planted_in(folder: Path) -> list[str]:
    """The files in which a planted word can be read, as it is or within what is compressed."""
    found = []
    for path in (file for file in folder.rglob("*") if file.is_file()):
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content += gzip.decompress(content)
        found += [f"{path}: {word!r}" for word in PLANTED if word in content]
    return found


async def rows_of(dsn: str) -> dict[str, list[str]]:
    """Every row of every service's table as text, but keys, heartbeats and what stands in an order of its own."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT schemaname || '.' || quote_ident(tablename) AS name FROM pg_tables "
            "WHERE schemaname = ANY(ARRAY['registry','intake','matching','sitrep','exchange','gotong']) "
            "AND tablename <> ALL(ARRAY['heartbeat','migration'])"
        )
        return {
            row["name"]: sorted(
                one["row"] for one in await connection.fetch(f"SELECT to_jsonb(t)::text AS row FROM {row['name']} t")
            )
            for row in tables
        }
    finally:
        await connection.close()


async def test_a_backup_comes_back_whole_and_the_chain_verifies(client, db, data, dsn, empty, tmp_path):
    who = await made(client, PERSON)
    await client.post(
        "/v1/resources", json={"item": "boat", "quantity": 2, "location": {"lon": 107, "lat": -7}}, headers=DESK
    )
    await change_often(db, who, 40)
    await journalled(db)
    await client.patch(f"/v1/responders/{who}", json={"travel_limit_km": 7}, headers=DESK)
    (data / "media" / "ab").mkdir(parents=True)
    (data / "media" / "ab" / "abcd").write_bytes(b"sealed bytes")
    file = tmp_path / "one.backup"
    told = await well("backup", file, database=dsn)
    assert "1 media files" in told
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE((tmp_path / "one.backup.keys").stat().st_mode) == 0o600
    assert (await run("backup", file, database=dsn)).exit_code == 1
    before = await rows_of(dsn)

    elsewhere = tmp_path / "elsewhere"
    refused = await run("restore", file, "--data", elsewhere, database=empty)
    assert refused.exit_code == 1
    assert "--no-erasures" in refused.output
    await well("restore", file, "--no-erasures", "--data", elsewhere, database=empty)
    assert await rows_of(empty) == before
    assert (elsewhere / "media" / "ab" / "abcd").read_bytes() == b"sealed bytes"
    assert "registry: 42 rows: ok" in await well("audit", "verify", "--data", elsewhere, database=empty)
    # It goes on from where it stood: new rows, and the next number of a subject.
    back = Database(empty, "registry", pool_size=1)
    try:
        async with back.tx() as tx:
            assert (await contact_of(tx, UUID(who)))["name"] == NAME
            await change_responder(tx, ADMIN, UUID(who), ResponderChange(travel_limit_km=99))
        last = (await emitted(back))[-1]
        assert last.meta.sequence == 43
    finally:
        await back.close()


async def test_without_its_keys_a_backup_names_nobody(client, db, data, dsn, empty, tmp_path):
    who = await made(client, PERSON)
    file = tmp_path / "one.backup"
    await well("backup", file, database=dsn)
    with tarfile.open(file) as tar:
        assert not [name for name in tar.getnames() if "vault_key" in name]
    assert planted_in(tmp_path) == []
    (tmp_path / "one.backup.keys").rename(tmp_path / "apart.keys")
    lost = await run("restore", file, "--no-erasures", database=empty)
    assert (lost.exit_code, "--without-keys" in lost.output) == (1, True)
    await well("restore", file, "--no-erasures", "--without-keys", database=empty)
    back = Database(empty, "registry", pool_size=1)
    try:
        async with back.tx() as tx:
            assert await contact_of(tx, UUID(who)) == {}
    finally:
        await back.close()


@pytest.mark.parametrize("events", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
async def test_nothing_of_an_erased_person_is_left_to_be_read(
    client, db, make_db, data, dsn, empty, tmp_path, postgres, events, request, caplog
):
    caplog.set_level(logging.DEBUG)
    who, other = await made(client, PERSON), await made(client, OTHER)
    intake = make_db("intake")
    await wrote(intake)
    await change_often(db, who, events)
    # The real topic where it is about many events; else the journal as if the broker had them.
    broker: Broker | None = request.getfixturevalue("broker") if events > 300 else None

    async def passed_on() -> None:
        await (sent(db, broker_settings(broker, dsn)) if broker is not None else journalled(db))

    await passed_on()
    file = tmp_path / "before.backup"
    await well("backup", file, database=dsn)

    erased = await client.delete(f"/v1/responders/{who}", headers=bearer("responder", who))
    assert erased.status_code == 200
    await erasures.note(db, erasures.path_in(data, "registry"))
    await Wire(intake_consumer, intake).deliver((await emitted(db, ContactErased))[-1])
    assert await known_in(intake) == []
    await passed_on()
    (done,) = await emitted(intake, ContactForgotten)
    await Wire(registry_consumer, db).deliver(done, source="/gotong/test/intake")
    await passed_on()
    async with db.tx() as tx:
        payloads = b"".join(row["payload"] or b"" for row in await tx.fetch("SELECT payload FROM journal"))
        assert await tx.fetchval("SELECT count(*) FROM journal WHERE subject = $1", who) == events + 2
        await tx.execute("CHECKPOINT")

    assert "ok" in await well("audit", "verify", "--service", "registry", "--data", data, database=dsn)
    told = await well("restore", file, "--data", data, database=empty)
    assert "1 persons were erased again; 2 of their keys were not let in" in told
    assert "ok" in await well("audit", "verify", "--service", "registry", "--data", data, database=empty)

    again = Database(empty, "intake", pool_size=1)
    try:
        assert await known_in(again) == []
    finally:
        await again.close()
    back = Database(empty, "registry", pool_size=1)
    try:
        (gone,) = await emitted(back, ResponderWithdrawn)
        assert (str(gone.responder_id), gone.by, gone.reason) == (who, "system:restore", "erased")
        async with back.tx() as tx:
            assert await contact_of(tx, UUID(who)) == {}
            assert (await contact_of(tx, UUID(other)))["name"] == OTHER["name"]
            assert await tx.fetchval("SELECT count(*) FROM vault_key") == 1
            assert await tx.fetchval("SELECT erased_at IS NOT NULL FROM responder WHERE responder_id = $1", UUID(who))
            await tx.execute("CHECKPOINT")
    finally:
        await back.close()
    # Files of the database with its write-ahead log, topics, logs, backup, keys, lists, the restored database.
    assert planted_in(postgres.folder) == []
    assert planted_in(tmp_path) == []
    topics = await records(broker.address) if broker is not None else []
    assert [word for word in PLANTED for record in [payloads, *topics] if word in record] == []
    if isinstance(broker, Kafka):
        segments = list(broker.folder.rglob("gotong.responders.v1-*/*.log"))
        assert sum(path.stat().st_size for path in segments) > 1_000_000
        assert planted_in(broker.folder) == []
    assert [word for word in PLANTED if word in caplog.text.encode()] == []
    # The keys file of the old backup does not open them any more either.
    keys = json.loads((tmp_path / "before.backup.keys").read_text())["keys"]["registry"]
    assert len(keys) == 1


async def wrote(intake: Database) -> None:
    """The same person as somebody who reports, asks for a relative, and is answered."""
    report = ReportIn(text=f"Banjir, kata {NAME}, hubungi {NUMBER}", reporter=ReporterIn(name=NAME, phone=NUMBER))
    async with intake.tx() as tx:
        await take_reports(tx, [draft_of(report, Sender("/devices/x", (), False))])
        for nth, text in enumerate(["Banjir 1 meter, butuh makanan", f"cari ibu saya, hilang kontak. {NAME}"]):
            heard = Inbound("whatsapp", "whatsapp", f"wamid-{nth}", NUMBER, clock.now(), text)
            await take_inbound(tx, heard)
    assert len(await known_in(intake)) == 9


async def known_in(db: Database) -> list[str]:
    """The tables of intake in which something of this number stands."""
    contact = vault.contact_id(NUMBER)
    found = []
    async with db.tx() as tx:
        for table, column in (
            ("report", "contact"), ("report", "sealed_for"), ("conversation", "contact"), ("inbound_message", "contact"),
            ("followed", "contact"), ("family_link", "contact"), ("outbound", "contact"), ("vault_key", "owner"),
        ):  # fmt: skip
            if await tx.fetchval(f"SELECT EXISTS (SELECT FROM {table} WHERE {column} = $1)", contact):
                found.append(f"{table}.{column}")
        mark = contact[1:13]
        if await tx.fetchval("SELECT EXISTS (SELECT FROM report WHERE strpos(report::text, $1) > 0)", mark):
            found.append("report")
    return found


async def sent(db: Database, settings: Any) -> None:
    relay = Relay(db, settings, "/gotong/test/registry")
    try:
        while await relay.move():
            pass
    finally:
        await relay._drop_link()


async def records(address: str) -> list[bytes]:
    """Every record of the responders' topic, as it stands on the broker."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    try:
        partitions = [TopicPartition("gotong.responders.v1", n) for n in range(12)]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        await consumer.seek_to_beginning()
        found: list[bytes] = []
        while any([await consumer.position(part) < ends[part] for part in partitions]):
            for batch in (await consumer.getmany(timeout_ms=500)).values():
                found += [
                    b"".join([record.key or b"", record.value or b"", *(v for _, v in record.headers)])
                    for record in batch
                ]
        assert len(found) == sum(ends.values()) > 10_000
        return found
    finally:
        await consumer.stop()


async def test_a_database_that_is_replaced_says_itself_who_was_erased(client, db, data, dsn, make_db, tmp_path):
    who = await made(client, PERSON)
    await journalled(db)
    file = tmp_path / "one.backup"
    await well("backup", file, database=dsn)
    await client.delete(f"/v1/responders/{who}", headers=DESK)
    busy = await run("restore", file, "--replace", "--data", data, database=dsn)
    assert "stop the services first" in busy.output
    await db.close()
    await client.aclose()
    connection = await asyncpg.connect(dsn)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name LIKE 'gotong-%'"
    )
    await connection.close()
    assert "--replace" in (await run("restore", file, "--data", data, database=dsn)).output
    assert "1 persons were erased again" in await well("restore", file, "--replace", "--data", data, database=dsn)
    assert {str(one) for one in erasures.read(erasures.path_in(data, "registry"))} == {who}


async def test_a_damaged_or_foreign_backup_changes_nothing(client, data, dsn, empty, tmp_path, monkeypatch):
    await made(client, PERSON)
    file = tmp_path / "one.backup"
    await well("backup", file, database=dsn)
    broken = tmp_path / "broken.backup"
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[content.index(b"PGCOPY\n") + 12] ^= 1
    broken.write_bytes(gzip.compress(bytes(content)))
    for path, word in ((broken, "damaged"), (tmp_path / "one.backup.keys", "cannot be read")):
        result = await run("restore", path, "--keys", tmp_path / "one.backup.keys", "--no-erasures", database=empty)
        assert result.exit_code == 1
        assert word in result.output
    monkeypatch.setenv("GOTONG_SECRET_KEY", "another-secret-which-is-long-enough")
    result = await run("restore", file, "--no-erasures", database=empty)
    assert (result.exit_code, "another secret" in result.output) == (1, True)
    connection = await asyncpg.connect(empty)
    try:
        assert await connection.fetchval("SELECT to_regnamespace('registry') IS NULL")
    finally:
        await connection.close()
