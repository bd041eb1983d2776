"""What is redacted is found nowhere in the database any more, is never sent again, and the chain still holds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from click.testing import CliRunner, Result

from gotong.__main__ import main
from gotong.local.broker import Broker, Tansu
from schemas.partners import ReportSubmitted, SubmissionAccepted
from schemas.quarantine import RecordRedacted
from schemas.reports import ReportReceived
from schemas.topics import TOPICS
from services.exchange.handlers import consumer as exchange
from services.intake.app import service as intake_service
from services.intake.handlers import consumer as intake
from services.intake.linker import Indexes, link_waiting
from services.matching.handlers import consumer as matching
from services.registry.app import service as registry_service
from services.runtime import clock, quarantine
from services.runtime.cloudevents import headers
from services.runtime.consumer import Consumer
from services.runtime.db import Database
from services.runtime.journal import meta_of
from services.runtime.outbox import Relay
from services.runtime.quarantine import Raw
from services.runtime.settings import SERVICES, Settings
from services.sitrep.handlers import consumer as sitrep
from tests.conftest import Wire, bearer

SECRET = "Mawar Kusumaningtyas"
TEXT = f"Tolong, {SECRET} dan bayinya terjebak di lantai dua, hubungi 0812-3456-7890, air sudah satu meter"
REPORT: dict[str, Any] = {
    "text": TEXT,
    "hazard": "flood",
    "location": {"lon": 106.866, "lat": -6.222, "place": "Kampung Melayu"},
    "needs": [{"item": "boat", "quantity": 2}],
}
MakeDb = Callable[[str], Database]


class Together:
    """The five services on one database: their real relays on the broker, and what their consumers make of it."""

    def __init__(self, make_db: MakeDb, settings: Settings) -> None:
        self.dbs = {name: make_db(name) for name in SERVICES}
        self.relays = {name: Relay(db, settings, f"/gotong/test/{name}") for name, db in self.dbs.items()}
        readers: Sequence[Consumer | None] = (exchange, intake, matching, sitrep, registry_service.consumer)
        self.wires = [(reader, Wire(reader, self.dbs[reader.service])) for reader in readers if reader is not None]
        self.handed: set[UUID] = set()

    async def settle(self) -> None:
        """Until nothing waits to be sent, read or linked."""
        indexes = Indexes()
        moved = True
        while moved:
            moved = False
            for name, db in self.dbs.items():
                while await self.relays[name].move():
                    moved = True
                async with db.tx() as tx:
                    rows = await tx.fetch("SELECT * FROM journal WHERE payload IS NOT NULL ORDER BY position")
                for row in rows:
                    if row["id"] not in self.handed:
                        self.handed.add(row["id"])
                        await self._hand_over(row)
            while await link_waiting(self.dbs["intake"], indexes):
                moved = True

    async def _hand_over(self, row: asyncpg.Record) -> None:
        raw = Raw(
            row["topic"], row["kafka_partition"], row["kafka_offset"], row["key"].encode(),
            tuple(headers(meta_of(row), row["key"])), row["payload"],
        )  # fmt: skip
        for consumer, wire in self.wires:
            if row["topic"] in consumer.topics:
                await wire.deliver_raw([raw])

    async def close(self) -> None:
        for relay in self.relays.values():
            await relay._drop_link()


@pytest.fixture
def settings(broker: Broker, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    monkeypatch.setenv("GOTONG_KAFKA", broker.address)
    monkeypatch.setenv("GOTONG_KAFKA_EMBEDDED", str(isinstance(broker, Tansu)).lower())
    return Settings()


@pytest.fixture
async def together(make_db: MakeDb, settings: Settings) -> Any:
    services = Together(make_db, settings)
    yield services
    await services.close()


async def command(*words: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(main, words, catch_exceptions=False))


async def where(dsn: str, text: str) -> list[str]:
    """Every `schema.table.column` of the database in which this text stands."""
    connection = await asyncpg.connect(dsn)
    try:
        columns = await connection.fetch(
            "SELECT table_schema, table_name, column_name, data_type FROM information_schema.columns "
            "JOIN information_schema.tables USING (table_schema, table_name) "
            "WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema') "
            "AND data_type IN ('text', 'bytea', 'jsonb', 'json', 'ARRAY', 'character varying')"
        )
        found = []
        for schema, table, column, kind in columns:
            holds = f'position($1::bytea IN "{column}") > 0' if kind == "bytea" else f'strpos("{column}"::text, $1) > 0'
            value = text.encode() if kind == "bytea" else text
            if await connection.fetchval(f'SELECT EXISTS (SELECT FROM "{schema}"."{table}" WHERE {holds})', value):
                found.append(f"{schema}.{table}.{column}")
        return found
    finally:
        await connection.close()


async def everything(settings: Settings, *topics: str) -> list[ConsumerRecord[bytes, bytes]]:
    """All records of these topics as they stand now, told apart from more to come by a record of our own."""
    client = AIOKafkaConsumer(bootstrap_servers=settings.kafka, auto_offset_reset="earliest")
    await client.start()
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka)
    await producer.start()
    found: list[ConsumerRecord[bytes, bytes]] = []
    try:
        partitions = [TopicPartition(topic, number) for topic in topics for number in range(TOPICS[topic].partitions)]
        client.assign(partitions)
        last = {p: (await producer.send_and_wait(p.topic, b"last", partition=p.partition)).offset for p in partitions}
        async with asyncio.timeout(30):
            while any([await client.position(p) <= last[p] for p in partitions]):
                for records in (await client.getmany(timeout_ms=200)).values():
                    found += [record for record in records if record.value != b"last"]
    finally:
        await producer.stop()
        await client.stop()
    return found


async def on_topics(settings: Settings, text: str) -> int:
    """How many records of the topics hold this text now."""
    records = await everything(settings, "gotong.reports.v1", "gotong.incidents.v1", "gotong.submissions.v1")
    return sum(text.encode() in (record.value or b"") for record in records)


async def test_a_redacted_report_is_found_nowhere_and_is_not_sent_again(
    together: Together, settings: Settings, make_client: Callable[..., httpx.AsyncClient], dsn: str
) -> None:
    client = make_client([intake_service])
    answer = await client.post("/v1/reports", json=REPORT, headers=bearer("field", "relawan-1", org="pmi"))
    assert answer.status_code == 202
    partner = Wire(exchange, together.dbs["exchange"])
    submitted = ReportSubmitted(
        text=TEXT, hazard="flood", location=REPORT["location"], external_id="x-1", reporter_ref="r-9"
    )
    await partner.deliver(submitted, id="e-1", source="/partners/pmi")
    await together.settle()
    before = await where(dsn, SECRET)
    assert {"intake.journal.payload", "intake.report.text", "sitrep.log.data", "exchange.journal.payload"} <= set(
        before
    )
    async with together.dbs["intake"].tx() as tx:
        event = await tx.fetchval(
            "SELECT id FROM journal WHERE type = $1 ORDER BY position LIMIT 1", ReportReceived.type
        )
        needs = await tx.fetch("SELECT need_id, quantity, status FROM need ORDER BY need_id")
        incidents = await tx.fetchval("SELECT count(*) FROM incident")
        assert await tx.fetchval("SELECT count(sealed) FROM report") == 1
        # One that some reader refused holds it as well, where no search finds it.
        row = await tx.fetchrow("SELECT * FROM journal WHERE id = $1", event)
        assert row is not None
        kept = Raw(row["topic"], 0, 1, b"k", tuple(headers(meta_of(row), "k")), row["payload"])
        await quarantine.refuse(tx, "intake", kept, "test")
    await together.settle()
    sent = await on_topics(settings, SECRET)
    assert sent >= 3

    listed = await command("redact", str(event), "--reason", "names a victim")
    assert listed.exit_code == 0, listed.output
    first, *others = listed.stdout.splitlines()
    assert first == f"intake: {event} is redacted; 1 copies in quarantine are gone"
    assert {line.split()[1] for line in others} >= {"gotong.submission.accepted.v1", "gotong.incident.opened.v1"}
    assert all(line.endswith("repeats a text of it and still stands") for line in others)
    for line in others:
        each = line.split()[2]
        done = await command("redact", each, "--reason", "names a victim", "--everywhere")
        assert done.exit_code == 0, done.output
    await together.settle()

    assert await where(dsn, SECRET) == []
    assert await where(dsn, "terjebak") == []
    async with together.dbs["intake"].tx() as tx:
        assert await tx.fetchval("SELECT count(sealed) FROM report") == 0
        assert await tx.fetchval("SELECT sealed FROM quarantine") == b""
        # What people may be on their way for does not vanish with a text.
        assert await tx.fetch("SELECT need_id, quantity, status FROM need ORDER BY need_id") == needs
        assert await tx.fetchval("SELECT count(*) FROM incident") == incidents
        assert not await tx.fetchval("SELECT count(*) FROM incident WHERE title LIKE '%lantai%'")
    verified = await command("audit", "verify")
    assert verified.exit_code == 0, verified.output

    for relay in together.relays.values():
        await relay._drop_link()
    republished = await command("republish", "--all")
    assert republished.exit_code == 0, republished.output
    assert "redacted left out" in republished.stdout
    assert await on_topics(settings, SECRET) == sent


async def test_an_event_that_waits_is_never_sent_and_leaves_its_place_in_the_chain(
    together: Together, settings: Settings, make_client: Callable[..., httpx.AsyncClient], dsn: str
) -> None:
    client = make_client([intake_service])
    await client.post("/v1/reports", json=REPORT, headers=bearer("field", "relawan-1", org="pmi"))
    async with together.dbs["intake"].tx() as tx:
        event = await tx.fetchval("SELECT id FROM outbox WHERE type = $1", ReportReceived.type)
    result = await command("redact", str(event), "--reason", "names a victim")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"intake: {event} is redacted; it had not been sent and never will be\n"
    again = await command("redact", str(event), "--reason", "names a victim")
    assert again.stdout == f"intake: {event} was redacted before\n"
    async with together.dbs["intake"].tx() as tx:
        waiting = [row["type"] for row in await tx.fetch("SELECT type FROM outbox ORDER BY position")]
        row = await tx.fetchrow("SELECT * FROM journal")
        assert row is not None
        assert (row["id"], row["payload"], row["kafka_offset"]) == (event, None, None)
    assert waiting == [RecordRedacted.type]
    await together.settle()
    assert await where(dsn, SECRET) == []
    assert (await command("audit", "verify")).exit_code == 0


async def test_an_id_that_nobody_said_changes_nothing(settings: Settings, dsn: str) -> None:
    result = await command("redact", str(uuid4()), "--reason", "names a victim")
    assert result.exit_code == 1
    assert "nothing was changed" in result.stderr
    assert (await command("redact", str(uuid4()), "--reason", " x ")).exit_code == 2


async def test_a_redacted_submission_takes_the_words_out_of_the_report_that_was_made_of_it(make_db: MakeDb) -> None:
    db = make_db("intake")
    wire = Wire(intake, db)
    body = {"text": TEXT, "hazard": "flood", "location": REPORT["location"]}
    accepted = SubmissionAccepted(
        submission_id=uuid4(), kind="report", origin="/partners/pmi", origin_id="e-2", received_at=clock.now(), body=body
    )  # fmt: skip
    other = accepted.model_copy(update={"submission_id": uuid4(), "origin_id": "e-3"})
    first, second, late = str(uuid4()), str(uuid4()), str(uuid4())
    await wire.deliver(accepted, id=first)
    await wire.deliver(other, id=second)
    for _ in range(2):
        told = RecordRedacted(
            quarantine_id=f"redaction-{first}", event_id=first, by="console:x", reason="names a victim"
        )
        await wire.deliver(told, id="r-1")
    told = RecordRedacted(quarantine_id=f"redaction-{late}", event_id=late, by="console:x", reason="names a victim")
    await wire.deliver(told, id="r-2")
    await wire.deliver(accepted.model_copy(update={"submission_id": uuid4(), "origin_id": "e-4"}), id=late)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT external_id, text, hazard FROM report ORDER BY external_id")
    assert [(row["external_id"], row["text"] is None, row["hazard"]) for row in rows] == [
        ("e-2", True, "flood"),
        ("e-3", False, "flood"),
    ]
