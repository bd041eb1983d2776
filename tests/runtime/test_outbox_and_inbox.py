"""Events appended in a transaction, claimed once, applied once: on real PostgreSQL."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import pytest

from schemas.needs import NeedDeclared
from schemas.reports import ReportReceived
from schemas.values import Period
from services.runtime import clock, inbox, outbox
from services.runtime.cloudevents import decode
from services.runtime.consumer import Consumer
from tests.conftest import Wire, emitted


def make_report(report_id: UUID | None = None, **changes: object) -> ReportReceived:
    values = {"report_id": report_id or uuid4(), "observed_at": clock.now(), "origin": "/test", "text": "Banjir"}
    return ReportReceived(**(values | changes))


async def test_sequence_counts_per_subject(make_db):
    db = make_db("intake")
    one, two = uuid4(), uuid4()
    async with db.tx() as tx:
        await outbox.append(tx, [make_report(one), make_report(two), make_report(one)])
    async with db.tx() as tx:
        await outbox.append(tx, [make_report(one)])
    seen = [(event.report_id, event.meta.sequence) for event in await emitted(db, ReportReceived)]
    assert seen == [(one, 1), (two, 1), (one, 2), (one, 3)]


async def test_a_rolled_back_transaction_leaves_no_event_and_no_gap(make_db):
    db = make_db("intake")
    report = uuid4()
    with pytest.raises(ZeroDivisionError):
        async with db.tx() as tx:
            await outbox.append(tx, [make_report(report)])
            _ = 1 / 0
    async with db.tx() as tx:
        await outbox.append(tx, [make_report(report)])
    assert [event.meta.sequence for event in await emitted(db)] == [1]


async def test_events_of_one_subject_leave_in_the_order_of_their_commits(make_db):
    db = make_db("intake")
    report = uuid4()

    async def write(number: int) -> None:
        async with db.tx() as tx:
            await outbox.append(tx, [make_report(report, text=str(number))])
            await asyncio.sleep(0)

    await asyncio.gather(*(write(number) for number in range(25)))
    sequences = [event.meta.sequence for event in await emitted(db)]
    assert sequences == list(range(1, 26))


async def test_an_event_over_32_kib_is_our_own_bug(make_db):
    db = make_db("intake")
    with pytest.raises(outbox.EventTooLarge):
        async with db.tx() as tx:
            await outbox.append(tx, [make_report(text="x" * 40_000)])


async def test_a_fact_is_applied_once_and_a_state_only_forwards(make_db):
    db = make_db("sitrep")
    wire = Wire(Consumer("sitrep"), db)
    report = make_report()
    need = NeedDeclared(
        need_id=uuid4(), item="boat", quantity=1, unit="unit", severity=4, status="declared",
        window=Period(start=clock.now(), end=clock.now().replace(year=2100)), by="t",
    )  # fmt: skip
    raws = [
        wire.raw(report, id="one"),
        wire.raw(report, id="one"),
        wire.raw(need, sequence=2),
        wire.raw(need, sequence=3),
        wire.raw(need, sequence=3),
    ]
    envelopes = [decode(r.value, r.headers, topic=r.topic, offset=r.offset, key=r.key) for r in raws]
    async with db.tx() as tx:
        assert await inbox.claim(tx, envelopes) == [True, False, True, True, False]
    late = wire.raw(need, sequence=1)
    newer = wire.raw(need, sequence=9)
    envelopes = [decode(r.value, r.headers, topic=r.topic, offset=r.offset, key=r.key) for r in [*raws, late, newer]]
    async with db.tx() as tx:
        assert await inbox.claim(tx, envelopes) == [False, False, False, False, False, False, True]


async def test_a_claim_falls_with_its_transaction(make_db):
    db = make_db("sitrep")
    wire = Wire(Consumer("sitrep"), db)
    raw = wire.raw(make_report())
    envelope = decode(raw.value, raw.headers, topic=raw.topic, key=raw.key)
    with pytest.raises(ZeroDivisionError):
        async with db.tx() as tx:
            assert await inbox.claim(tx, [envelope]) == [True]
            _ = 1 / 0
    async with db.tx() as tx:
        assert await inbox.claim(tx, [envelope]) == [True]


async def test_two_workers_with_the_same_records_apply_each_once(make_db):
    db = make_db("sitrep")
    wire = Wire(Consumer("sitrep"), db)
    raws = [wire.raw(make_report()) for _ in range(200)]
    envelopes = [decode(r.value, r.headers, topic=r.topic, key=r.key) for r in raws]

    async def take(part: list) -> int:
        async with db.tx() as tx:
            return sum(await inbox.claim(tx, part))

    taken = await asyncio.gather(take(envelopes), take(envelopes[::-1]), take(envelopes))
    assert sum(taken) == 200
