"""The log, the read models and the reports, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from bench.sitrep_story import AREAS, SOURCE, Story, Told, shuffled
from schemas.incidents import IncidentUpdated
from schemas.quarantine import RecordRedacted, RecordRefused
from services.runtime import clock
from services.runtime.db import Database
from services.runtime.quarantine import Raw
from services.sitrep import checkpoints, domain, log, projections, reporting, tally
from services.sitrep.document import Found
from services.sitrep.document import report as render_document
from services.sitrep.domain import Scope
from services.sitrep.handlers import consumer
from tests.conftest import Wire, emitted

SCOPES = [
    Scope(),
    Scope(allowed=("gempa-palu",)),
    Scope("banjir-jakarta"),
    Scope("latihan-citarum"),
    Scope("nowhere"),
    Scope(area="kemendagri:32.04"),
    Scope(area="bps:32"),
    Scope("banjir-jakarta", area="bps:3204050"),
    Scope("latihan-citarum", area="kemendagri:32"),
]


async def append(db: Database, told: list[Told], batch: int = 37) -> None:
    for at in range(0, len(told), batch):
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in told[at : at + batch]])


async def document(db: Database, position: int, scope: Scope, *, exact: bool = True) -> bytes:
    async with db.tx() as tx:
        report = await reporting.document(tx, position, scope, exact=exact)
    return b"".join(reporting.rendered(report, form, lang) for form in ("json", "md") for lang in ("id", "en"))


async def folded(db: Database, position: int) -> domain.State:
    async with db.tx() as tx:
        return domain.fold(await log.entries(tx, 0, position, limit=100_000))


async def rows_of(db: Database, table: str) -> list[tuple[object, ...]]:
    async with db.tx() as tx:
        return [tuple(row) for row in await tx.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")]


async def test_positions_have_no_gaps_and_each_event_stands_once_whatever_is_delivered_again(make_db):
    db = make_db("sitrep")
    told = list(Story(1).events(300))
    await append(db, shuffled(told, 1))
    await append(db, told[:100])
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT position, source, id, received_at FROM log ORDER BY position")
    assert [row["position"] for row in rows] == list(range(1, len(told) + 1))
    assert {(row["source"], row["id"]) for row in rows} == {(SOURCE, each.id) for each in told}
    assert all(one["received_at"] <= two["received_at"] for one, two in itertools.pairwise(rows))


async def test_two_writers_at_once_leave_no_gap_and_no_repeat(make_db):
    db = make_db("sitrep")
    told = list(Story(2).events(400))
    await asyncio.gather(append(db, told, 13), append(db, told[::-1], 29), append(db, shuffled(told, 3), 7))
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT position, id, received_at FROM log ORDER BY position")
    assert [row["position"] for row in rows] == list(range(1, len(told) + 1))
    assert {row["id"] for row in rows} == {each.id for each in told}
    assert all(one["received_at"] <= two["received_at"] for one, two in itertools.pairwise(rows))


async def test_received_at_never_goes_back_when_the_clock_does(make_db):
    db = make_db("sitrep")
    told = list(Story(3).events(20))
    await append(db, told[:10])
    clock.shift(timedelta(hours=-2))
    await append(db, told[10:])
    async with db.tx() as tx:
        instants = [row["received_at"] for row in await tx.fetch("SELECT received_at FROM log ORDER BY position")]
    assert instants == sorted(instants)
    assert instants[9] < instants[10]


async def test_a_state_below_the_newest_is_kept_and_marked_superseded(make_db):
    db = make_db("sitrep")
    wire = Wire(consumer, db)
    opened = Story(4).incident()
    newer = IncidentUpdated(**opened.model_dump() | {"title": "newer"})
    await wire.deliver(newer, id="b", sequence=2)
    await wire.deliver(opened, id="a", sequence=1)
    await wire.deliver(newer, id="b", sequence=2)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT id, superseded FROM log ORDER BY position")
        titles = await tx.fetch("SELECT title, until_position FROM incident")
    assert [tuple(row) for row in rows] == [("b", False), ("a", True)]
    assert [tuple(row) for row in titles] == [("newer", projections.OPEN_END)]


async def state_a_day_before(db: Database, position: int) -> domain.State:
    async with db.tx() as tx:
        received_at = await tx.fetchval("SELECT received_at FROM log WHERE position = $1", position)
        day = await log.position_at(tx, received_at - domain.RECENT)
    return await folded(db, day)


def told(found: Found, scope: Scope) -> bytes:
    report = render_document(found, scope, exact=True)
    return b"".join(reporting.rendered(report, form, lang) for form in ("json", "md") for lang in ("id", "en"))


async def test_the_read_models_give_the_same_bytes_as_the_fold_of_the_log_at_any_position(make_db, monkeypatch):
    """With and without checkpoints, which may have been made at any time."""
    db = make_db("sitrep")
    monkeypatch.setattr(checkpoints, "EVERY", 50)
    telling = Story(5)
    events = list(telling.events(700))
    for at in (650, 500, 350, 100):
        events.insert(at, telling.tell(telling.silence()))
    story = shuffled(events, 5)
    for at in range(0, len(story), 100):
        await append(db, story[at : at + 100])
        clock.shift(timedelta(hours=5))
        if at in (300, 400):  # much comes in: one far apart, and no other
            assert await checkpoints.keep_up(db, hot=True) == (250 if at == 300 else 0)
        if at == 500:
            while await checkpoints.keep_up(db):
                pass
    async with db.tx() as tx:
        head = await log.head(tx)
        kept = [row["position"] for row in await tx.fetch("SELECT position FROM checkpoint ORDER BY position")]
    assert len(kept) >= 10
    assert kept == list(range(50, kept[-1] + 1, 50)), "what was left out has been made"
    for position in [*sorted(random.Random(5).sample(range(1, head), 12)), head]:
        state, day = await folded(db, position), await state_a_day_before(db, position)
        for scope in SCOPES:
            assert await document(db, position, scope) == told(reporting.found_in(state, scope, day), scope), (
                position,
                scope,
            )


async def test_the_first_incidents_are_right_when_the_places_hold_more_than_a_checkpoint_keeps(make_db, monkeypatch):
    db = make_db("sitrep")
    monkeypatch.setattr(checkpoints, "EVERY", 40)
    monkeypatch.setattr(tally, "TOP_KEPT", 12)
    story = Story(51, (("banjir-jakarta", False),))
    events = [*story.opening()]
    for _ in range(400):
        event = story.incident() if story.random.random() < 0.4 or not story.incidents else story.incident_changed()
        assert event is not None
        events.append(story.tell(event))
    for at in range(0, len(events), 50):
        await append(db, events[at : at + 50])
        while await checkpoints.keep_up(db):
            pass
    async with db.tx() as tx:
        head = await log.head(tx)
        for position in range(50, head, 29):
            found = await checkpoints.tally_at(tx, position)
            state = domain.fold(await log.entries(tx, 0, position, limit=10_000))
            for scope in (Scope(), Scope("banjir-jakarta", area="kemendagri:32.04")):
                opened = [
                    view
                    for view in state.incidents.values()
                    if view.status == "open" and scope.covers(view.operation, view.exercise) and scope.holds(view.admin)
                ]
                expected = [view.incident_id for view in sorted(opened, key=tally.rank)][: tally.TOP_SURE]
                assert tally.first(found, scope, tally.TOP_SURE) == expected


async def test_a_report_as_of_an_instant_equals_the_one_made_live_at_it(make_db):
    db = make_db("sitrep")
    told = shuffled(list(Story(6).events(400)), 6)
    live: dict[str, tuple[int, bytes]] = {}
    for at in range(0, len(told), 23):
        await append(db, told[at : at + 23])
        async with db.tx() as tx:
            position = await log.head(tx)
            as_of = await tx.fetchval("SELECT received_at FROM log WHERE position = $1", position)
        live[as_of] = (position, await document(db, position, Scope()))
    for as_of, (position, expected) in live.items():
        async with db.tx() as tx:
            assert await log.position_at(tx, as_of) == position
        assert await document(db, position, Scope()) == expected


async def test_the_read_models_rebuilt_from_the_log_equal_the_live_ones(make_db):
    db = make_db("sitrep")
    await append(db, shuffled(list(Story(7).events(600)), 7))
    live = {table: await rows_of(db, table) for table in projections.TABLES}
    assert all(live.values()), "every read model has rows, or this test says nothing"
    names = await index_names(db)
    await log.rebuild(db)
    assert {table: await rows_of(db, table) for table in projections.TABLES} == live
    assert await index_names(db) == names > {"report_incident", "incident_live"}


async def index_names(db: Database) -> set[str]:
    async with db.tx() as tx:
        return {
            row["indexname"] for row in await tx.fetch("SELECT indexname FROM pg_indexes WHERE schemaname = 'sitrep'")
        }


async def test_a_rebuild_goes_on_beside_the_live_ones_while_events_come_in_and_reports_are_made(make_db, monkeypatch):
    db = make_db("sitrep")
    monkeypatch.setattr(log, "PAGE", 50)
    monkeypatch.setattr(checkpoints, "EVERY", 100)
    story = Story(71)
    events = list(story.events(600))
    await append(db, events[:300])
    while await checkpoints.keep_up(db):
        pass
    before = await document(db, 300, Scope())
    done = asyncio.Event()

    async def write() -> None:
        await append(db, events[300:], 5)
        done.set()

    async def read() -> None:
        while not done.is_set():
            assert await document(db, 300, Scope()) == before

    rebuilt, _, _ = await asyncio.gather(log.rebuild(db), write(), read())
    assert rebuilt >= 300
    live = {table: await rows_of(db, table) for table in projections.TABLES}
    assert await document(db, 300, Scope()) == before
    await log.rebuild(db)
    assert {table: await rows_of(db, table) for table in projections.TABLES} == live
    while await checkpoints.keep_up(db):
        pass
    assert await document(db, 300, Scope()) == before


async def test_each_report_counts_once_however_often_it_comes_and_whatever_becomes_of_it(make_db):
    db = make_db("sitrep")
    wire = Wire(consumer, db)
    story = Story(8, (("banjir-jakarta", False),))
    reports = [story.report() for _ in range(20)]
    story.incident()
    for report in reports:
        await wire.deliver(report, id=f"r-{report.report_id}")
        await wire.deliver(report, id=f"r-{report.report_id}")
    for sequence in range(2, 30):
        linked = story.linked()
        assert linked is not None
        await wire.deliver(linked, sequence=sequence)
    state = await folded(db, 1000)
    assert reporting.found_in(state, Scope("banjir-jakarta"), domain.State()).sums["reports"] == 20
    async with db.tx() as tx:
        found = await reporting.found_at(tx, await log.head(tx), Scope("banjir-jakarta"))
        assert found.sums["reports"] == 20


async def test_live_reports_hold_no_exercise_and_an_operation_only_its_own(make_db):
    db = make_db("sitrep")
    life = Story(9, (("banjir-jakarta", False),))
    drill = Story(10, (("latihan-citarum", True),))
    other = Story(11, (("gempa-palu", False),))
    await append(db, list(life.events(150)))

    async def sums(scope: Scope) -> dict[str, int]:
        async with db.tx() as tx:
            return (await reporting.found_at(tx, await log.head(tx), scope)).sums

    alone = await sums(Scope("banjir-jakarta"))
    assert alone == await sums(Scope())
    await append(db, list(drill.events(150)) + list(other.events(150)))
    assert await sums(Scope("banjir-jakarta")) == alone
    both, palu = await sums(Scope()), await sums(Scope("gempa-palu"))
    assert (await sums(Scope("latihan-citarum")))["reports"] > 0
    for key in alone.keys() | palu.keys() | both.keys():
        assert both.get(key, 0) == alone.get(key, 0) + palu.get(key, 0)
    async with db.tx() as tx:
        found = await reporting.found_at(tx, await log.head(tx), Scope())
    assert [line.operation_id for line in found.operations] == ["banjir-jakarta", "gempa-palu"]


async def test_a_malformed_record_is_refused_with_its_reason_and_its_batch_goes_on(make_db):
    db = make_db("sitrep")
    wire = Wire(consumer, db)
    story = Story(12)
    events = [story.incident() for _ in range(6)]
    raws = [wire.raw(event) for event in events]
    bad = {
        1: b'{"incident_id": ',
        2: events[2].to_bytes().replace(b'"status":"open"', b'"status":"ajar"'),
        3: events[3].to_bytes().replace(b'"title":"', b'"title":"\\u0000'),
        4: events[4].to_bytes().replace(str(events[4].incident_id).encode(), str(uuid4()).encode()),
    }
    raws = [_with_value(raw, bad[at]) if at in bad else raw for at, raw in enumerate(raws)]
    await wire.deliver_raw(raws)
    async with db.tx() as tx:
        positions = [row["position"] for row in await tx.fetch("SELECT position FROM log ORDER BY position")]
        assert await tx.fetchval("SELECT count(*) FROM incident") == 2
    assert positions == [1, 2]
    refused = await emitted(db, RecordRefused)
    assert [record.pointer for record in refused] == ["/data", "/data/status", "/data", "/subject"]


def _with_value(raw: Raw, value: bytes) -> Raw:
    return raw._replace(value=value)


@pytest.mark.parametrize("area", [None, *(area for area in AREAS if area)])
async def test_an_area_counts_what_lies_within_it_and_nothing_beside_it(make_db, area):
    db = make_db("sitrep")
    await append(db, list(Story(13).events(500)))
    async with db.tx() as tx:
        head = await log.head(tx)
        found = await reporting.found_at(tx, head, Scope(area=area))
        rows = await tx.fetch(
            "SELECT admin FROM incident WHERE until_position = 9223372036854775807 AND NOT exercise AND status = 'open'"
        )
    within = {
        None: set(AREAS),
        "kemendagri:32.04": {"kemendagri:32.04", "kemendagri:32.04.05", "bps:3204", "bps:3204050"},
        "bps:3204": {"kemendagri:32.04", "kemendagri:32.04.05", "bps:3204", "bps:3204050"},
        "kemendagri:32.04.05": {"kemendagri:32.04.05"},
        "bps:3204050": {"bps:3204050"},
        "kemendagri:32.73": {"kemendagri:32.73"},
        "kemendagri:32.040": {"kemendagri:32.040"},
    }[area]
    assert found.sums[tally.name("status", "open")] == sum(row["admin"] in within for row in rows) > 0


async def test_the_stream_is_told_of_an_append_only_after_the_commit(make_db):
    db = make_db("sitrep")
    wake = asyncio.Event()
    listener = await db.listen([log.CHANNEL], wake)
    try:
        told = list(Story(14).events(3))
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in told])
            await asyncio.sleep(0)
            assert not wake.is_set()
        await asyncio.wait_for(wake.wait(), 5)
    finally:
        await listener.close()


@pytest.mark.parametrize("word_first", [False, True])
async def test_a_redacted_payload_leaves_log_and_read_models_whichever_comes_first_and_reports_say_so(
    make_db, word_first
):
    db = make_db("sitrep")
    story = Story(15)
    told = list(story.events(300))
    gone = [
        each for each in told if type(each.event).__name__ in ("IncidentOpened", "ReportReceived", "IncidentUpdated")
    ]
    gone = gone[::7]
    assert len(gone) > 5
    words = [
        story.tell(RecordRedacted(quarantine_id=f"q-{at}", event_id=each.id, by="admin:x", reason="privacy"))
        for at, each in enumerate(gone)
    ]
    await append(db, [*words, *told] if word_first else [*told, *words])
    async with db.tx() as tx:
        blank = await tx.fetch("SELECT id FROM log WHERE data IS NULL")
        head = await log.head(tx)
    assert {row["id"] for row in blank} == {each.id for each in gone}
    state = await folded(db, head)
    for scope in SCOPES:
        expected = render_document(reporting.found_in(state, scope, domain.State()), scope, exact=True)
        assert expected["redacted"] == len(gone)
        async with db.tx() as tx:
            assert await reporting.document(tx, head, scope, exact=True) == expected
    live = {table: await rows_of(db, table) for table in projections.TABLES}
    await log.rebuild(db)
    assert {table: await rows_of(db, table) for table in projections.TABLES} == live
    assert b"dihapus kemudian" in await document(db, head, Scope())


@pytest.mark.timeout(600)
async def test_three_hundred_instants_of_a_replay_give_the_bytes_that_were_given_live(make_db, monkeypatch):
    """Each in one of the formats, as the log grows with checkpoints made behind it, and again from the end."""
    db = make_db("sitrep")
    monkeypatch.setattr(checkpoints, "EVERY", 150)
    chance = random.Random(300)
    story = shuffled(list(Story(300).events(900)), 300)
    live: list[tuple[datetime, Scope, str, str, bytes]] = []
    at = 0
    while at < len(story):
        size = chance.randint(1, 5)
        await append(db, story[at : at + size], size)
        at += size
        clock.shift(timedelta(minutes=chance.randint(1, 30)))
        scope, form, lang = (
            chance.choice(SCOPES),
            chance.choice(list(reporting.MEDIA_TYPES)),
            chance.choice(["id", "en"]),
        )
        instant = clock.now() - timedelta(seconds=1)  # between two appends, as anybody would ask
        live.append((instant, scope, form, lang, await as_of(db, instant, scope, form, lang)))
        if chance.random() < 0.1:
            await checkpoints.keep_up(db)
    assert len(live) >= 300
    while await checkpoints.keep_up(db):
        pass
    for instant, scope, form, lang, expected in chance.sample(live, 300):
        assert await as_of(db, instant, scope, form, lang) == expected, (instant, scope, form)


async def as_of(db: Database, instant: datetime, scope: Scope, form: str, lang: str) -> bytes:
    async with db.tx() as tx:
        report = await reporting.document(tx, await log.position_at(tx, instant), scope, exact=True)
    return reporting.rendered(report, form, lang)
