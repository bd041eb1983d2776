"""A batch is one transaction; a bad record costs nobody else anything. On real PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg
import pytest

from schemas.quarantine import RecordRefused, RecordReleased
from schemas.reports import ReportLinked, ReportReceived
from services.runtime import clock, quarantine
from services.runtime.consumer import BUGS_IN_A_ROW, Consumer, OwnBug
from services.runtime.problems import Conflict
from services.runtime.quarantine import Raw, Unprocessable
from tests.conftest import Wire, emitted


def make_report(text: str) -> ReportReceived:
    return ReportReceived(report_id=uuid4(), observed_at=clock.now(), origin="/test", text=text)


@pytest.fixture
def consumer():
    """Counts what it is handed in a table of its own; some texts make it fail."""
    consumer = Consumer("sitrep")
    consumer.transient_failures = 0

    @consumer.on(ReportReceived)
    async def on_report_received(event, tx):
        await tx.execute("INSERT INTO effect (text) VALUES ($1)", event.text)
        if event.text == "refused":
            raise Unprocessable("no such place", "/data/location")
        if event.text == "bug":
            raise KeyError("bug")
        if event.text == "deadlock" and consumer.transient_failures < 3:
            consumer.transient_failures += 1
            raise asyncpg.DeadlockDetectedError("once more")

    @consumer.on(ReportLinked)
    async def on_report_linked(event, tx):
        await tx.execute("INSERT INTO effect (text) VALUES ('linked')")

    return consumer


@pytest.fixture
async def db(make_db):
    db = make_db("sitrep")
    async with db.tx() as tx:
        await tx.execute("CREATE TABLE effect (position bigint GENERATED ALWAYS AS IDENTITY, text text)")
    return db


async def effects(db) -> list[str]:
    async with db.tx() as tx:
        return [row["text"] for row in await tx.fetch("SELECT text FROM effect ORDER BY position")]


async def test_good_records_around_bad_ones_take_effect_once_and_in_order(consumer, db):
    wire = Wire(consumer, db)
    good = [wire.raw(make_report(str(n))) for n in range(6)]
    bad = [
        wire.raw(make_report("refused")),
        Raw("gotong.reports.v1", 0, 900, b"k", (("ce_specversion", b"1.0"), ("ce_id", b"\xff")), b"{}"),
        Raw("gotong.reports.v1", 0, 901, b"k", wire.raw(make_report("x")).headers, b"{not json"),
        Raw("gotong.reports.v1", 0, 902, b"k", wire.raw(make_report("x")).headers, None),
    ]
    batch = [good[0], bad[0], good[1], good[2], bad[1], bad[2], good[3], bad[3], good[4], good[5]]
    await wire.deliver_raw(batch)
    await wire.deliver_raw(batch)
    assert await effects(db) == ["0", "1", "2", "3", "4", "5"]
    refused = await emitted(db, RecordRefused)
    assert [(event.offset, event.pointer) for event in refused] == [
        (bad[0].offset, "/data/location"),
        (900, "/headers/ce_id"),
        (901, "/data"),
        (902, None),
    ]


async def test_a_deadlock_is_tried_again_and_costs_no_record(consumer, db):
    wire = Wire(consumer, db)
    await wire.deliver_raw([wire.raw(make_report(text)) for text in ("a", "deadlock", "b")])
    assert await effects(db) == ["a", "deadlock", "b"]
    assert await emitted(db, RecordRefused) == []


async def test_a_crashing_record_goes_to_quarantine_after_five_tries(consumer, db):
    wire = Wire(consumer, db)
    await wire.deliver_raw([wire.raw(make_report(text)) for text in ("a", "bug", "b")])
    assert await effects(db) == ["a", "b"]
    (refused,) = await emitted(db, RecordRefused)
    assert "KeyError" in refused.reason


async def test_many_crashes_in_a_row_stop_the_consumer(consumer, db, monkeypatch):
    wire = Wire(consumer, db)

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(wire.runner, "_pause", at_once)
    with pytest.raises(OwnBug):
        await wire.deliver_raw([wire.raw(make_report("bug")) for _ in range(BUGS_IN_A_ROW + 5)])
    assert wire.runner.failed.is_set()
    assert "in a row" in (wire.runner.problem or "")
    assert len(await emitted(db, RecordRefused)) == BUGS_IN_A_ROW - 1


async def test_an_outage_is_waited_for_and_turns_health_red(consumer, db, postgres, dsn):
    wire = Wire(consumer, db)
    name = dsn.rsplit("/", 1)[1]
    admin = await asyncpg.connect(postgres.dsn("postgres"))
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        delivery = asyncio.create_task(wire.deliver(make_report("late")))
        while wire.runner.problem is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)  # long enough for several tries, each of which finds the door shut
        assert not delivery.done()
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await asyncio.wait_for(delivery, 30)
    finally:
        await admin.close()
    assert wire.runner.problem is None
    assert await effects(db) == ["late"]


async def test_a_type_on_a_topic_where_it_does_not_belong_is_refused(consumer, db):
    wire = Wire(consumer, db)
    raw = wire.raw(make_report("x"))
    moved = Raw("gotong.incidents.v1", 0, 5, raw.key, raw.headers, raw.value)
    unknown = Raw(
        raw.topic, 0, 6, raw.key, tuple((n, b"gotong.report.eaten.v1" if n == "ce_type" else v) for n, v in raw.headers), raw.value
    )  # fmt: skip
    await wire.deliver_raw([moved, unknown])
    assert [event.pointer for event in await emitted(db, RecordRefused)] == ["/type", "/type"]


async def test_a_mended_record_is_let_in_once(consumer, db):
    wire = Wire(consumer, db)
    report = make_report("mended")
    raw = wire.raw(report)
    await wire.deliver_raw([Raw(raw.topic, 0, raw.offset, raw.key, raw.headers, b'{"text": 5}')])
    async with db.tx() as tx:
        number = await tx.fetchval("SELECT id FROM quarantine")
        sealed = await tx.fetchval("SELECT sealed FROM quarantine")
    assert b"text" not in sealed
    value = report.model_dump(mode="json", exclude_none=True)
    async with db.tx() as tx:
        await quarantine.ask_release(tx, "sitrep", number, value, "operator:posko", "typed wrong")
    with pytest.raises(Conflict):
        async with db.tx() as tx:
            await quarantine.ask_release(tx, "sitrep", number, value, "operator:posko", "again")
    await asyncio.gather(wire.runner.release_all(), wire.runner.release_all())
    await wire.runner.release_all()
    assert await effects(db) == ["mended"]
    (released,) = await emitted(db, RecordReleased)
    assert released.mended


async def test_a_release_that_fails_again_goes_back_with_its_reason(consumer, db):
    wire = Wire(consumer, db)
    await wire.deliver(make_report("refused"))
    async with db.tx() as tx:
        number = await tx.fetchval("SELECT id FROM quarantine")
        await quarantine.ask_release(tx, "sitrep", number, None, "operator:posko", "try again")
    await wire.runner.release_all()
    async with db.tx() as tx:
        row = await tx.fetchrow("SELECT state, reason, pointer FROM quarantine")
    assert dict(row) == {"state": "refused", "reason": "no such place", "pointer": "/data/location"}
    assert await effects(db) == []
