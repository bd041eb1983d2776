"""What events do to needs, responders and stock, on real PostgreSQL; twice and out of order too."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlmodel import SQLModel

from schemas.assignments import (
    AssignmentAbandoned,
    AssignmentConfirmed,
    AssignmentDelivered,
    AssignmentMade,
    AssignmentStarted,
    AssignmentState,
)
from schemas.confirmations import DeliveryConfirmed, DeliveryDisputed
from schemas.ledger import LedgerChanged
from schemas.needs import NeedAmended, NeedDeclared, NeedDrafted, NeedWithdrawn
from schemas.offers import OfferAccepted, OfferMade, OfferWithdrawn
from schemas.operations import OperationClosed
from schemas.resources import ResourceAdjusted, ResourceWithdrawn
from schemas.responders import ResponderRegistered, ResponderUpdated, ResponderWithdrawn
from schemas.values import Period
from services.matching import actions, assignment_writes, tables
from services.matching.handlers import consumer
from services.runtime import clock
from tests.conftest import Wire, emitted
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


async def accept_all(db, need_id):
    """Every open offer of a need is accepted, oldest first; the assignments' ids."""
    open_now = await rows(db, "SELECT offer_id FROM offer WHERE need_id = $1 AND state = 'made' ORDER BY 1", need_id)
    for row in open_now:
        async with db.tx() as tx:
            await assignment_writes.accept(tx, row["offer_id"], None, by="responder:x")
    return [row["offer_id"] for row in open_now]


async def assign(db, need, lot, quantity):
    async with db.tx() as tx:
        event = await assignment_writes.assign_by_hand(
            tx, need.need_id, None, lot.lot_id, quantity, "by hand", by="operator:x", settings=SETTINGS
        )
    return event.assignment_id


async def advance(db, assignment_id, target):
    async with db.tx() as tx:
        return await assignment_writes.advance(tx, assignment_id, target, by="responder:x")


async def test_a_need_and_responders_become_offers_and_an_assignment(wire, db):
    need = make_need(quantity=2)
    await feed(wire, need, *[make_responder() for _ in range(3)])
    assert await plan(db) == 2
    offers = await emitted(db, OfferMade)
    assert len(offers) == 2
    assert await ledger_of(db, need.need_id) == {"needed": 2, "offered": 2, "asked": 2}
    async with db.tx() as tx:
        await assignment_writes.accept(tx, offers[0].offer_id, None, by="responder:x")
    assert await ledger_of(db, need.need_id) == {"needed": 2, "offered": 1, "committed": 1, "asked": 1}
    (made,) = await emitted(db, AssignmentMade)
    (accepted,) = await emitted(db, OfferAccepted)
    assert made.assignment_id == accepted.offer_id == offers[0].offer_id
    assert (made.operation, made.exercise, made.incident_id) == (need.operation, False, need.incident_id)
    assert [e.cause for e in await emitted(db, LedgerChanged)] == ["declared", "offer made", "assignment made"]
    await assert_books_hold(db)


async def test_what_follows_from_a_protected_need_bears_its_class(wire, db):
    need = make_need(sensitivity="sexual_violence")
    await feed(wire, need, make_responder())
    assert await plan(db) == 1
    (offer,) = await emitted(db, OfferMade)
    async with db.tx() as tx:
        await assignment_writes.accept(tx, offer.offer_id, None, by="responder:x")
    told = [*await emitted(db, LedgerChanged), *await emitted(db, OfferAccepted), *await emitted(db, AssignmentMade)]
    assert len(told) == 5
    assert {event.sensitivity for event in [offer, *told]} == {"sexual_violence"}


async def test_the_classes_of_tables_have_the_columns_of_the_migration(db):
    found = await rows(
        db,
        "SELECT table_name, column_name, is_nullable FROM information_schema.columns WHERE table_schema = 'matching'",
    )
    own = [model for model in vars(tables).values() if isinstance(model, type) and issubclass(model, SQLModel)]
    told = {
        (model.__tablename__, column.name, column.nullable)
        for model in own
        if hasattr(model, "__table__")
        for column in model.__table__.columns
    }
    names = {name for name, _, _ in told}
    assert len(names) == 11
    assert told == {
        (row["table_name"], row["column_name"], row["is_nullable"] == "YES")
        for row in found
        if row["table_name"] in names
    }


# -------------------------------------------------------------------------------------------------------------- needs
async def test_a_draft_needs_nothing_until_it_is_declared(wire, db):
    draft = make_need(NeedDrafted, status="draft", declared_at=None, quantity=3)
    await feed(wire, draft, make_responder())
    assert await plan(db) == 0
    assert await ledger_of(db, draft.need_id) == {}
    assert await emitted(db) == []
    await feed(wire, make_need(need_id=draft.need_id, quantity=3))
    assert await ledger_of(db, draft.need_id) == {"needed": 3, "open": 3}
    assert await plan(db) == 1
    await assert_books_hold(db)


async def test_an_event_twice_changes_nothing(wire, db):
    need = make_need(quantity=2)
    record = wire.raw(need, id="evt-1", sequence=5)
    await wire.deliver_raw([record])
    before = await emitted(db)
    await wire.deliver_raw([record])
    await wire.deliver_raw([wire.raw(make_need(need_id=need.need_id, quantity=9), sequence=4)])
    assert len(await emitted(db)) == len(before) == 1
    assert await ledger_of(db, need.need_id) == {"needed": 2, "open": 2}


async def test_a_need_withdrawn_before_it_was_heard_of_ends_as_one_withdrawn_after(wire, db):
    late, early = make_need(quantity=4), make_need(quantity=4)
    for need, order in ((late, (2, 1)), (early, (1, 2))):
        gone = make_need(NeedWithdrawn, **{**need.model_dump(), "status": "withdrawn"})
        for sequence in order:
            await wire.deliver(gone if sequence == 2 else need, sequence=sequence)
    assert await ledger_of(db, late.need_id) == await ledger_of(db, early.need_id) == {"needed": 4, "cancelled": 4}
    never = make_need(NeedWithdrawn, status="withdrawn", declared_at=None)
    await wire.deliver(never)
    assert await ledger_of(db, never.need_id) == {}
    assert never.need_id not in {event.need_id for event in await emitted(db, LedgerChanged)}
    await assert_books_hold(db)


async def test_a_need_amended_down_takes_from_open_then_offered_and_stops_at_promises(wire, db):
    need = make_need(quantity=6)
    await feed(wire, need, *[make_responder() for _ in range(4)])
    await plan(db)
    (first, second, *_) = await rows(db, "SELECT offer_id FROM offer ORDER BY offer_id")
    for row in (first, second):
        async with db.tx() as tx:
            await assignment_writes.accept(tx, row["offer_id"], None, by="responder:x")
    assert await ledger_of(db, need.need_id) == {"needed": 6, "open": 2, "offered": 2, "committed": 2, "asked": 2}

    def amended(quantity):
        return make_need(NeedAmended, **{**need.model_dump(), "quantity": quantity})

    await feed(wire, amended(3))
    assert await ledger_of(db, need.need_id) == {"needed": 3, "offered": 1, "committed": 2, "asked": 1}
    assert [e.reason for e in await emitted(db, OfferWithdrawn)] == ["the need is smaller now"]
    await feed(wire, amended(1))
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 2}
    assert "amended to 1, held at 2: so many are promised" in [e.cause for e in await emitted(db, LedgerChanged)]
    # What comes back is not wanted any more.
    async with db.tx() as tx:
        await assignment_writes.abandon(tx, first["offer_id"], "flat tyre", by="responder:x", settings=SETTINGS)
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    await feed(wire, amended(5))
    assert await ledger_of(db, need.need_id) == {"needed": 5, "open": 4, "committed": 1}
    await assert_books_hold(db)


async def test_a_withdrawn_need_cancels_what_nobody_promised(wire, db):
    need = make_need(quantity=4)
    await feed(wire, need, *[make_responder() for _ in range(2)])
    await plan(db)
    (row, _) = await rows(db, "SELECT offer_id FROM offer ORDER BY offer_id")
    async with db.tx() as tx:
        await assignment_writes.accept(tx, row["offer_id"], None, by="responder:x")
    await feed(wire, make_need(NeedWithdrawn, **{**need.model_dump(), "status": "withdrawn"}))
    assert await ledger_of(db, need.need_id) == {"needed": 4, "committed": 1, "cancelled": 3}
    assert len(await emitted(db, OfferWithdrawn)) == 1
    async with db.tx() as tx:
        await assignment_writes.abandon(tx, row["offer_id"], "not wanted", by="operator:x", settings=SETTINGS)
    assert await ledger_of(db, need.need_id) == {"needed": 4, "cancelled": 4}
    assert await plan(db) == 0
    await assert_books_hold(db)


async def test_offers_are_asked_anew_when_the_window_changes(wire, db):
    need = make_need()
    await feed(wire, need, make_responder())
    await plan(db)
    start = clock.now() + timedelta(hours=1)
    window = Period(start=start, end=start + timedelta(hours=3))
    await feed(wire, make_need(NeedAmended, **{**need.model_dump(), "window": window}))
    assert await ledger_of(db, need.need_id) == {"needed": 1, "open": 1}
    assert await plan(db) == 1
    assert (await emitted(db, OfferMade))[-1].window == window
    await assert_books_hold(db)


# --------------------------------------------------------------------------------------------------------- responders
async def test_nobody_unconfirmed_is_asked(wire, db):
    need = make_need()
    someone = make_responder(ResponderRegistered, status="unconfirmed")
    await feed(wire, need, someone)
    assert await plan(db) == 0
    await feed(wire, make_responder(responder_id=someone.responder_id))
    assert await plan(db) == 1


async def test_a_responder_who_withdraws_is_asked_no_more_and_breaks_only_what_was_not_begun(wire, db):
    asked, promised, under_way = (make_responder() for _ in range(3))
    needs = [make_need() for _ in range(3)]
    await feed(wire, asked, promised, under_way, *needs)
    await plan(db)
    offer_of = {row["responder_id"]: row["offer_id"] for row in await rows(db, "SELECT * FROM offer")}
    for one in (promised, under_way):
        async with db.tx() as tx:
            await assignment_writes.accept(tx, offer_of[one.responder_id], None, by="responder:x")
    await advance(db, offer_of[under_way.responder_id], "started")
    await feed(
        wire,
        *[
            make_responder(ResponderWithdrawn, responder_id=one.responder_id, status="withdrawn")
            for one in (asked, promised, under_way)
        ],
    )
    assert [e.offer_id for e in await emitted(db, OfferWithdrawn)] == [offer_of[asked.responder_id]]
    (broken,) = await emitted(db, AssignmentAbandoned)
    assert (broken.assignment_id, broken.reason) == (offer_of[promised.responder_id], "the responder withdrew")
    state = await rows(db, "SELECT state FROM assignment WHERE responder_id = $1", under_way.responder_id)
    assert state == [{"state": "started"}]
    assert await plan(db) == 0
    await assert_books_hold(db)


async def test_an_offer_goes_when_its_responder_no_longer_fits(wire, db):
    someone = make_responder()
    await feed(wire, make_need(), someone)
    await plan(db)
    await feed(wire, make_responder(ResponderUpdated, responder_id=someone.responder_id, skills=()))
    await plan(db)
    assert [e.reason for e in await emitted(db, OfferWithdrawn)] == ["planned otherwise now"]
    await assert_books_hold(db)


# -------------------------------------------------------------------------------------------------------------- stock
async def test_when_stock_falls_below_what_is_promised_the_youngest_commitment_breaks(wire, db):
    lot = make_lot(quantity=10)
    needs = [make_need(item="boat", unit="unit", quantity=3) for _ in range(3)]
    await feed(wire, lot, *needs)
    made = [await assign(db, need, lot, 3) for need in needs]
    await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=7))
    (broken,) = await emitted(db, AssignmentAbandoned)
    assert (broken.assignment_id, broken.reason) == (made[2], "the stock fell to 7")
    assert await ledger_of(db, needs[2].need_id) == {"needed": 3, "open": 3}
    await assert_books_hold(db)
    await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=2))
    assert {e.assignment_id for e in await emitted(db, AssignmentAbandoned)} == set(made)
    await assert_books_hold(db)


async def test_what_left_the_shelf_is_not_promised_again_until_it_is_counted(wire, db):
    lot = make_lot(quantity=10)
    needs = [make_need(item="boat", unit="unit", quantity=6) for _ in range(2)]
    await feed(wire, lot, *needs)
    first = await assign(db, needs[0], lot, 6)
    await advance(db, first, "delivered")
    assert await rows(db, "SELECT reserved, given FROM lot WHERE NOT exercise") == [{"reserved": 0, "given": 6}]
    # The same figure repeated, a place corrected say, is no new count.
    await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=10, place="Gudang"))
    with pytest.raises(actions.Busy):
        await assign(db, needs[1], lot, 5)
    await assign(db, needs[1], lot, 4)
    await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=4))
    assert await rows(db, "SELECT reserved, given FROM lot WHERE NOT exercise") == [{"reserved": 4, "given": 0}]
    assert await emitted(db, AssignmentAbandoned) == []
    await assert_books_hold(db)


async def test_goods_that_turn_back_are_on_the_shelf_again_unless_they_were_counted_meanwhile(wire, db):
    lot = make_lot(quantity=10)
    needs = [make_need(item="boat", unit="unit", quantity=4) for _ in range(2)]
    await feed(wire, lot, *needs)
    for need, counted in zip(needs, (False, True), strict=True):
        assignment_id = await assign(db, need, lot, 4)
        await advance(db, assignment_id, "started")
        if counted:
            await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=6))
        async with db.tx() as tx:
            await assignment_writes.abandon(tx, assignment_id, "road closed", by="operator:x", settings=SETTINGS)
        (stock,) = await rows(db, "SELECT quantity, reserved, given FROM lot WHERE NOT exercise")
        assert stock == {"quantity": 6 if counted else 10, "reserved": 0, "given": 0}
    await assert_books_hold(db)


async def test_withdrawn_stock_breaks_its_commitments_and_offers(wire, db):
    lot = make_lot(quantity=10)
    promised, asked = (make_need(item="boat", unit="unit", quantity=2) for _ in range(2))
    await feed(wire, lot, promised, asked)
    await plan(db)
    await accept_all(db, promised.need_id)
    await feed(wire, make_lot(ResourceWithdrawn, lot_id=lot.lot_id, quantity=10, status="withdrawn"))
    assert await ledger_of(db, promised.need_id) == {"needed": 2, "open": 2}
    assert await ledger_of(db, asked.need_id) == {"needed": 2, "open": 2}
    assert [e.reason for e in await emitted(db, AssignmentAbandoned)] == ["the stock was withdrawn"]
    assert await plan(db) == 0
    await assert_books_hold(db)


async def test_a_drill_takes_nothing_of_the_stock_of_life(wire, db):
    lot = make_lot(quantity=5)
    drill = make_need(item="boat", unit="unit", quantity=5, exercise=True, operation="latihan")
    life = make_need(item="boat", unit="unit", quantity=5)
    await feed(wire, lot, drill, life)
    assert await plan(db, exercise=True) == 1
    await accept_all(db, drill.need_id)
    assert await plan(db) == 1
    await accept_all(db, life.need_id)
    assert await ledger_of(db, life.need_id) == {"needed": 5, "committed": 5}
    assert {event.exercise for event in await emitted(db) if getattr(event, "need_id", None) == drill.need_id} == {True}
    await assert_books_hold(db)


# ------------------------------------------------------------------------------------------------------ confirmations
async def test_confirmations_go_to_the_oldest_delivery_first(wire, db):
    lot = make_lot(quantity=10)
    need = make_need(item="boat", unit="unit", quantity=9)
    await feed(wire, lot, need)
    old, young = await assign(db, need, lot, 4), await assign(db, need, lot, 5)
    await advance(db, old, "delivered")
    await advance(db, young, "delivered")
    answer = DeliveryConfirmed(need_id=need.need_id, quantity=6, by="ticket")
    record = wire.raw(answer, id="c-1")
    await wire.deliver_raw([record])
    await wire.deliver_raw([record])
    assert await ledger_of(db, need.need_id) == {"needed": 9, "delivered": 3, "confirmed": 6}
    (confirmed,) = await emitted(db, AssignmentConfirmed)
    assert (confirmed.assignment_id, confirmed.by) == (old, "ticket")
    await wire.deliver(DeliveryConfirmed(need_id=need.need_id, by="operator:x"))
    assert await ledger_of(db, need.need_id) == {"needed": 9, "confirmed": 9}
    await assert_books_hold(db)


async def test_what_did_not_arrive_is_open_again(wire, db):
    lot = make_lot(quantity=10)
    need = make_need(item="boat", unit="unit", quantity=7)
    await feed(wire, lot, need)
    old, young = await assign(db, need, lot, 3), await assign(db, need, lot, 4)
    await advance(db, old, "delivered")
    await advance(db, young, "delivered")
    await wire.deliver(DeliveryDisputed(need_id=need.need_id, quantity=5, by="ticket"))
    assert await ledger_of(db, need.need_id) == {"needed": 7, "open": 5, "delivered": 2}
    (gone,) = await emitted(db, AssignmentAbandoned)
    assert (gone.assignment_id, gone.reason) == (old, "not received")
    (*_, less) = await emitted(db, AssignmentDelivered)
    assert (less.assignment_id, less.quantity) == (young, 2)
    await wire.deliver(DeliveryDisputed(need_id=need.need_id, by="ticket"))
    assert await ledger_of(db, need.need_id) == {"needed": 7, "open": 7}
    await assert_books_hold(db)


async def test_part_confirmed_and_the_rest_disputed(wire, db):
    lot = make_lot(quantity=10)
    need = make_need(item="boat", unit="unit", quantity=5)
    await feed(wire, lot, need)
    await advance(db, await assign(db, need, lot, 5), "delivered")
    await wire.deliver(DeliveryConfirmed(need_id=need.need_id, quantity=2, by="ticket"))
    await wire.deliver(DeliveryDisputed(need_id=need.need_id, by="ticket"))
    assert await ledger_of(db, need.need_id) == {"needed": 5, "open": 3, "confirmed": 2}
    assert await rows(db, "SELECT state, quantity, confirmed FROM assignment") == [
        {"state": "confirmed", "quantity": 2, "confirmed": 2}
    ]
    await assert_books_hold(db)


async def test_a_confirmation_before_the_driver_reports_counts_once_they_do(wire, db):
    lot = make_lot(quantity=10)
    need = make_need(item="boat", unit="unit", quantity=5)
    await feed(wire, lot, need)
    assignment_id = await assign(db, need, lot, 5)
    await advance(db, assignment_id, "started")
    await wire.deliver(DeliveryConfirmed(need_id=need.need_id, quantity=3, by="ticket"))
    assert await ledger_of(db, need.need_id) == {"needed": 5, "in_transit": 5}
    await advance(db, assignment_id, "delivered")
    assert await ledger_of(db, need.need_id) == {"needed": 5, "delivered": 2, "confirmed": 3}
    await assert_books_hold(db)


async def test_a_confirmation_of_what_nobody_promised_does_nothing(wire, db):
    need = make_need()
    await feed(wire, need)
    before = await emitted(db)
    await wire.deliver(DeliveryConfirmed(need_id=need.need_id, by="ticket"))
    await wire.deliver(DeliveryDisputed(need_id=uuid4(), by="ticket"))
    assert len(await emitted(db)) == len(before)


# --------------------------------------------------------------------------------------------------------- operations
async def test_nobody_new_is_asked_for_a_closed_operation(wire, db):
    need = make_need()
    await feed(wire, need, make_responder())
    await plan(db)
    await feed(
        wire,
        OperationClosed(
            operation=need.operation, title="Banjir", opened_at=clock.now(), closed_at=clock.now(), by="operator:x"
        ),
    )
    assert await plan(db) == 0
    assert await ledger_of(db, need.need_id) == {"needed": 1, "open": 1}


async def test_events_of_an_assignment_are_in_order_with_the_operation_copied_on(wire, db):
    lot = make_lot(quantity=10)
    need = make_need(NeedDeclared, item="boat", unit="unit", incident_id=uuid4())
    await feed(wire, lot, need)
    assignment_id = await assign(db, need, lot, 1)
    await advance(db, assignment_id, "arrived")
    await advance(db, assignment_id, "delivered")
    told = await emitted(db, AssignmentState)
    assert [e.state for e in told] == ["made", "started", "arrived", "delivered"]
    assert [e.meta.sequence for e in told] == [1, 2, 3, 4]
    assert {(e.operation, e.incident_id) for e in told} == {(need.operation, need.incident_id)}
    assert told[-1].period.end <= clock.now()
    (started,) = await emitted(db, AssignmentStarted)
    assert started.item == "boat"
