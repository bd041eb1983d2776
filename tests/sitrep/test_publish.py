"""The reports that are published to everybody, on the clock that tests move."""

from __future__ import annotations

from datetime import timedelta

import orjson

from bench.sitrep_story import Story
from schemas.sitreps import SitrepPublished
from services.runtime import clock
from services.runtime.db import Database
from services.runtime.outbox import MAX_EVENT_BYTES
from services.sitrep import log
from services.sitrep.publish import EVERY, FIRST, publish_due
from tests.conftest import emitted
from tests.sitrep.test_api import BAND

OPERATIONS = ["banjir-jakarta", "gempa-palu", "latihan-citarum"]


async def append(db: Database, told: list) -> None:
    async with db.tx() as tx:
        await log.append(tx, [each.envelope() for each in told])


async def test_each_open_operation_with_changes_is_published_soon_and_then_at_most_once_in_its_time(make_db):
    db = make_db("sitrep")
    story = Story(51)
    told = list(story.events(200))
    await append(db, told[:150])
    assert await publish_due(db) == []
    clock.shift(FIRST)
    assert await publish_due(db) == OPERATIONS
    assert await publish_due(db) == []
    clock.shift(EVERY)
    assert await publish_due(db) == [], "nothing has changed"
    await append(db, told[150:])
    assert await publish_due(db) == OPERATIONS
    await append(db, [story.tell(story.incident()) for _ in range(20)])
    clock.shift(EVERY / 2)
    assert await publish_due(db) == []
    clock.shift(EVERY / 2)
    assert await publish_due(db) == OPERATIONS


async def test_what_is_published_is_the_public_form_and_archived_as_it_was_sent(make_db):
    db = make_db("sitrep")
    await append(db, list(Story(52).events(200)))
    clock.shift(FIRST + timedelta(seconds=1))
    await publish_due(db)
    published = await emitted(db, SitrepPublished)
    assert [event.area for event in published] == OPERATIONS
    assert [event.exercise for event in published] == [False, False, True]
    for event in published:
        assert all(BAND.fullmatch(text) for text in [*event.people.values(), *event.damage.values()])
        assert BAND.fullmatch(event.incidents_open)
        assert "Kampung" not in event.text_id + event.text_en
        assert event.text_id.startswith("# Laporan situasi: ")
        assert event.text_en.startswith("# Situation report: ")
        assert len(event.to_bytes()) < MAX_EVENT_BYTES
    assert published[2].title.startswith("LATIHAN")
    assert published[2].text_id.startswith("# Laporan situasi: LATIHAN")
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT * FROM published ORDER BY operation")
        head = await log.head(tx)
    for row, event in zip(rows, published, strict=True):
        assert row["text_id"].decode() == event.text_id
        assert row["text_en"].decode() == event.text_en
        assert (row["position"], row["as_of"]) == (head, event.as_of) == (event.position, event.as_of)
        assert orjson.loads(row["document"])["form"] == "public"


async def test_a_closed_operation_is_published_no_more(make_db):
    db = make_db("sitrep")
    story = Story(53, (("banjir-jakarta", False),))
    opened = next(iter(story.opening()))
    await append(db, [opened])
    await append(db, [story.tell(type(opened.event)(**opened.event.model_dump() | {"closed_at": story.time}))])
    clock.shift(EVERY * 2)
    assert await publish_due(db) == []
