"""Promises that are followed up: asked back when less is needed, asked after when nothing is heard, handed over."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.assignments import AssignmentMade, AssignmentOverdue, AssignmentReleaseRequested
from schemas.needs import NeedAmended, NeedWithdrawn
from schemas.values import Period
from services.matching import app, assignment_writes, domain, release_writes, silence
from services.matching.handlers import consumer
from services.runtime import clock
from tests.conftest import Wire, bearer, emitted
from tests.matching.factories import (
    SETTINGS,
    assert_books_hold,
    feed,
    ledger_of,
    make_lot,
    make_need,
    make_responder,
    plan,
    rows,
)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


@pytest.fixture
def client(make_client):
    return make_client([app.service])


async def accept_all(db):
    """Every open offer is accepted, oldest first; the assignments' ids."""
    found = await rows(db, "SELECT offer_id FROM offer WHERE state = 'made' ORDER BY offer_id")
    for row in found:
        async with db.tx() as tx:
            await assignment_writes.accept(tx, row["offer_id"], None, by="responder:x")
    return [row["offer_id"] for row in found]


def amended(need, **values):
    return make_need(NeedAmended, **{**need.model_dump(), **values})


async def asked_back(db):
    found = await rows(db, "SELECT assignment_id FROM assignment WHERE release_asked_at IS NOT NULL AND state = 'made'")
    return {row["assignment_id"] for row in found}


async def silent(db):
    async with db.tx() as tx:
        return await silence.ask_after_silent(tx, limit=100)


@given(
    sizes=st.lists(st.integers(1, 9), max_size=12),
    over=st.integers(-3, 60),
)
def test_never_more_is_asked_back_than_is_too_much(sizes, over):
    gone = domain.to_release(enumerate(sizes), over)
    freed = sum(sizes[k] for k in gone)
    assert freed <= max(over, 0)
    assert all(size > over - freed for k, size in enumerate(sizes) if k not in gone), "one more would have fitted"


async def test_a_smaller_need_takes_from_open_then_from_offered_then_asks_promises_back(wire, db):
    need = make_need(quantity=6)
    await feed(wire, need, *[make_responder() for _ in range(4)])
    await plan(db)
    first, second, third, fourth = [row["offer_id"] for row in await rows(db, "SELECT * FROM offer ORDER BY offer_id")]
    async with db.tx() as tx:
        for one in (first, second, third):
            await assignment_writes.accept(tx, one, None, by="responder:x")
        await assignment_writes.advance(tx, first, "started", by="responder:x")
    assert await ledger_of(db, need.need_id) == {
        "needed": 6, "open": 2, "offered": 1, "committed": 2, "in_transit": 1, "asked": 1,
    }  # fmt: skip
    await feed(wire, amended(need, quantity=4))
    assert await ledger_of(db, need.need_id) == {
        "needed": 4, "offered": 1, "committed": 2, "in_transit": 1, "asked": 1,
    }  # fmt: skip
    assert await asked_back(db) == set()
    await feed(wire, amended(need, quantity=2))
    assert await ledger_of(db, need.need_id) == {"needed": 3, "committed": 2, "in_transit": 1}
    assert await asked_back(db) == {third}, "the youngest, and never who is on the way"
    (event,) = await emitted(db, AssignmentReleaseRequested)
    assert (event.assignment_id, event.state, event.reason) == (third, "made", release_writes.LESS)
    await feed(wire, amended(need, quantity=2, severity=4))
    assert len(await emitted(db, AssignmentReleaseRequested)) == 1, "once is enough"
    async with db.tx() as tx:
        gone = await assignment_writes.abandon(tx, third, None, by="responder:x", settings=SETTINGS)
    assert gone.reason == release_writes.LESS
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 1, "in_transit": 1}
    assert await rows(db, "SELECT 1 FROM refusal") == [], "who gave back what we asked for may be asked again"
    assert fourth
    await assert_books_hold(db)


async def test_a_need_that_grows_again_takes_its_request_back(wire, db):
    need = make_need(quantity=2)
    await feed(wire, need, make_responder(), make_responder())
    await plan(db)
    await accept_all(db)
    await feed(wire, amended(need, quantity=1))
    assert len(await asked_back(db)) == 1
    await feed(wire, amended(need, quantity=2))
    assert await asked_back(db) == set()
    assert (await emitted(db, AssignmentMade))[-1].reason == "it is needed again"
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 2}
    await assert_books_hold(db)


async def test_a_withdrawn_need_asks_all_back_that_has_not_set_out(wire, db):
    need = make_need(quantity=3)
    await feed(wire, need, *[make_responder() for _ in range(3)])
    await plan(db)
    first, *others = await accept_all(db)
    async with db.tx() as tx:
        await assignment_writes.advance(tx, first, "started", by="responder:x")
    withdrawn = make_need(NeedWithdrawn, **{**need.model_dump(), "status": "withdrawn"})
    await feed(wire, withdrawn)
    await wire.deliver(withdrawn, sequence=10**9)
    assert await asked_back(db) == set(others)
    assert {e.reason for e in await emitted(db, AssignmentReleaseRequested)} == {release_writes.GONE}
    for one in others:
        async with db.tx() as tx:
            await assignment_writes.abandon(tx, one, None, by="operator:x", settings=SETTINGS)
    assert await ledger_of(db, need.need_id) == {"needed": 3, "in_transit": 1, "cancelled": 2}
    await assert_books_hold(db)


async def test_a_lot_that_brings_more_than_is_too_much_is_not_asked_back(wire, db):
    need = make_need(item="boat", unit="unit", quantity=5)
    await feed(wire, need, make_lot(quantity=5))
    await plan(db)
    await accept_all(db)
    await feed(wire, amended(need, quantity=3))
    assert await asked_back(db) == set(), "without it three would be missing"
    await assert_books_hold(db)


async def test_dispatchers_ask_back_with_a_reason_but_never_who_is_on_scene(wire, db, client):
    need = make_need(quantity=2)
    await feed(wire, need, make_responder(), make_responder())
    await plan(db)
    first, second = await accept_all(db)
    async with db.tx() as tx:
        await assignment_writes.advance(tx, first, "arrived", by="responder:x")
    order = {"reason": "a graver need at the dam"}

    async def ask(one, who="operator", key="k1"):
        return await client.post(
            f"/v1/assignments/{one}/request-release", json=order, headers={**bearer(who), "Idempotency-Key": key}
        )

    assert (await ask(first)).status_code == 409
    assert (await ask(second, who="responder", key="k2")).status_code == 403
    answer = await ask(second, key="k3")
    assert (answer.status_code, answer.json()["reason"]) == (200, order["reason"])
    assert (await ask(second, key="k4")).status_code == 200
    assert len(await emitted(db, AssignmentReleaseRequested)) == 1
    assert (await ask(uuid4(), key="k5")).status_code == 404
    # It is only a request, and no change of the need takes it back.
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 1, "in_transit": 1}
    await feed(wire, amended(need, quantity=3))
    assert await asked_back(db) == {second}
    async with db.tx() as tx:
        await assignment_writes.advance(tx, second, "started", by="responder:x")
    assert await asked_back(db) == set()
    await assert_books_hold(db)


async def test_silence_is_carried_to_the_holder_then_the_organisation_then_the_dispatcher(wire, db, client):
    need = make_need(severity=4, window=Period(start=clock.now(), end=clock.now() + timedelta(hours=12)))
    await feed(wire, need, make_responder(organisation="pmi"))
    await plan(db)
    (one,) = await accept_all(db)
    wait = timedelta(minutes=SETTINGS.check_minutes[3], seconds=1)
    assert await silent(db) == 0
    clock.shift(wait)
    assert await silent(db) == 1
    assert await silent(db) == 0, "once for each time"
    answer = await client.post(f"/v1/offers/{one}/check-in", headers={**bearer("operator"), "Idempotency-Key": "c1"})
    assert answer.status_code == 200
    clock.shift(wait / 2)
    assert await silent(db) == 0, "a word came"
    for _ in range(4):
        clock.shift(wait)
        await silent(db)
    events = await emitted(db, AssignmentOverdue)
    assert [event.level for event in events] == [1, 1, 2, 3]
    assert [event.reason for event in events[1:]] == list(silence.SILENT)
    assert all(event.due_at > event.heard_at and event.state == "made" for event in events)
    async with db.tx() as tx:
        await assignment_writes.advance(tx, one, "delivered", by="responder:x")
    clock.shift(wait)
    assert await silent(db) == 0, "who is done owes no word"
    assert (await client.post(
        f"/v1/offers/{one}/check-in", headers={**bearer("operator"), "Idempotency-Key": "c2"}
    )).status_code == 409  # fmt: skip


async def test_without_an_organisation_the_dispatcher_is_next(wire, db):
    await feed(wire, make_need(severity=4), make_responder())
    await plan(db)
    await accept_all(db)
    for _ in range(3):
        clock.shift(timedelta(minutes=SETTINGS.check_minutes[3], seconds=1))
        await silent(db)
    assert [event.level for event in await emitted(db, AssignmentOverdue)] == [1, 3]


async def test_a_shift_is_handed_over_in_one_step_or_not_at_all(wire, db, client):
    need = make_need(window=Period(start=clock.now(), end=clock.now() + timedelta(hours=20)))
    tired, fresh, busy = make_responder(), make_responder(), make_responder()
    other = make_need(window=need.window)
    await feed(wire, need, other, tired)
    async with db.tx() as tx:
        made = await assignment_writes.assign_by_hand(
            tx, need.need_id, tired.responder_id, None, 1, "near", by="operator:x", settings=SETTINGS
        )
        await assignment_writes.advance(tx, made.assignment_id, "arrived", by="responder:x")
    await feed(wire, fresh, busy)
    async with db.tx() as tx:
        await assignment_writes.assign_by_hand(
            tx, other.need_id, busy.responder_id, None, 1, "near", by="operator:x", settings=SETTINGS
        )
    clock.shift(timedelta(hours=8))

    async def to(who, key):
        return await client.post(
            f"/v1/assignments/{made.assignment_id}/hand-over",
            json={"responder": str(who.responder_id), "reason": "end of shift"},
            headers={**bearer("operator"), "Idempotency-Key": key},
        )

    refused = await to(busy, "h1")
    assert (refused.status_code, refused.json()["code"]) == (409, "busy")
    assert await ledger_of(db, need.need_id) == {"needed": 1, "in_transit": 1}
    answer = await to(fresh, "h2")
    assert answer.status_code == 201
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    (before,) = await rows(db, "SELECT * FROM assignment WHERE assignment_id = $1", made.assignment_id)
    assert before["state"] == "abandoned"
    assert before["reason"] == "handed over: end of shift"
    (now,) = await rows(db, "SELECT period FROM assignment WHERE responder_id = $1", fresh.responder_id)
    assert before["period"].upper <= now["period"].lower
    assert await rows(db, "SELECT 1 FROM refusal") == []
    await assert_books_hold(db)
