"""Promises hold when everybody acts at once: real parallel connections, and any sequence of moves."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.assignments import AssignmentMade
from schemas.confirmations import DeliveryConfirmed, DeliveryDisputed
from schemas.ledger import LedgerChanged
from schemas.needs import NeedAmended, NeedWithdrawn
from schemas.resources import ResourceAdjusted
from schemas.responders import ResponderUpdated
from schemas.values import Period
from services.matching import actions, assignment_writes, offer_writes, silence
from services.matching.app import service
from services.matching.handlers import consumer
from services.runtime import clock
from services.runtime.problems import DomainError
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
    return make_client([service])


async def by_hand(client, need, responder=None, lot=None, quantity=1):
    order = {"need": str(need.need_id), "quantity": quantity, "reason": "parallel"}
    order |= {"responder": str(responder.responder_id)} if responder else {"lot": str(lot.lot_id)}
    return await client.post("/v1/assignments", headers=bearer("operator"), json=order)


@pytest.mark.parametrize("round", range(3))
async def test_twenty_dispatchers_and_an_acceptance_for_the_last_unit_make_one_assignment(client, wire, db, round):
    need = make_need(quantity=1)
    await feed(wire, need, make_responder())
    await plan(db)
    (offer,) = await rows(db, "SELECT * FROM offer")
    people = [make_responder() for _ in range(20)]
    await feed(wire, *people)
    calls = [by_hand(client, need, responder=one) for one in people]
    calls.insert(
        random.Random(round).randrange(21),
        client.post(f"/v1/offers/{offer['offer_id']}/accept", headers=bearer("responder", str(offer["responder_id"]))),
    )
    answers = await asyncio.gather(*calls)
    counted = Counter(answer.status_code for answer in answers)
    assert counted[200] + counted[201] == 1, counted
    assert counted[409] == 20, [answer.text for answer in answers if answer.status_code not in (200, 201, 409)]
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"need-met"}
    assert len(await emitted(db, AssignmentMade)) == 1
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    await assert_books_hold(db)


async def test_one_responder_for_two_overlapping_needs_at_once_goes_to_one(client, wire, db):
    for _ in range(5):
        someone, one, two = make_responder(), make_need(), make_need()
        await feed(wire, someone, one, two)
        answers = await asyncio.gather(*[by_hand(client, need, responder=someone) for need in (one, two)])
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        (refused,) = [answer for answer in answers if answer.status_code == 409]
        assert refused.json()["code"] == "busy"
    await assert_books_hold(db)


async def test_windows_that_only_touch_do_not_overlap(client, wire, db):
    someone = make_responder()
    now = clock.now()
    noon = now + timedelta(hours=3)
    first = make_need(window=Period(start=now, end=noon))
    second = make_need(window=Period(start=noon, end=noon + timedelta(hours=3)))
    await feed(wire, someone, first, second)
    assert [(await by_hand(client, need, responder=someone)).status_code for need in (first, second)] == [201, 201]
    await assert_books_hold(db)


async def test_a_drill_binds_nobody_in_life(client, wire, db):
    someone, drill, life = make_responder(), make_need(exercise=True, operation="latihan"), make_need()
    await feed(wire, someone, drill, life)
    assert [(await by_hand(client, need, responder=someone)).status_code for need in (drill, life)] == [201, 201]


async def test_a_lot_is_never_promised_beyond_what_is_there(client, wire, db):
    lot = make_lot(quantity=10)
    needs = [make_need(item="boat", unit="unit", quantity=3) for _ in range(8)]
    await feed(wire, lot, *needs)
    answers = await asyncio.gather(*[by_hand(client, need, lot=lot, quantity=3) for need in needs])
    assert Counter(answer.status_code for answer in answers) == {201: 3, 409: 5}
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"busy"}
    await assert_books_hold(db)


async def test_the_same_acceptance_sent_at_once_makes_one_assignment(client, wire, db):
    need = make_need()
    await feed(wire, need, make_responder())
    await plan(db)
    (offer,) = await rows(db, "SELECT * FROM offer")
    me = bearer("responder", str(offer["responder_id"]))
    answers = await asyncio.gather(
        *[client.post(f"/v1/offers/{offer['offer_id']}/accept", headers=me) for _ in range(10)]
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(await emitted(db, AssignmentMade)) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE need SET open = open + 1",
        "UPDATE need SET open = open - 2, committed = committed + 2",
        "UPDATE need SET open = open + 1, offered = offered - 1",
        "UPDATE lot SET reserved = quantity + 1",
        "UPDATE lot SET given = quantity, reserved = 1",
        "UPDATE lot SET quantity = 0 WHERE reserved > 0",
        "UPDATE assignment SET confirmed = quantity + 1",
        "INSERT INTO assignment SELECT (SELECT offer_id FROM offer WHERE state = 'made'), need_id, operation, exercise, "
        "responder_id, lot_id, organisation, quantity, confirmed, state, period, made_at, NULL, NULL, by, reason "
        "FROM assignment WHERE responder_id IS NOT NULL",
    ],
)
async def test_the_database_itself_refuses_what_must_not_be(client, wire, db, sql):
    lot, someone = make_lot(), make_responder()
    boats, medics = make_need(item="boat", unit="unit"), make_need(quantity=2)
    await feed(wire, lot, someone, boats, medics)
    assert (await by_hand(client, medics, responder=someone)).status_code == 201
    assert (await by_hand(client, boats, lot=lot)).status_code == 201
    await feed(wire, make_responder())
    await plan(db)
    with pytest.raises((asyncpg.CheckViolationError, asyncpg.ExclusionViolationError)):
        async with db.tx() as tx:
            await tx.execute(sql)


async def test_fifty_writers_at_once_keep_every_promise(client, wire, db):
    """Acceptances, orders by hand, progress, giving up, amendments, counts, confirmations, plans and expiry together."""
    dice = random.Random(11)
    people = [make_responder() for _ in range(12)]
    lots = [make_lot(quantity=12) for _ in range(2)]
    needs = [make_need(quantity=dice.randint(1, 5), severity=dice.randint(1, 4)) for _ in range(8)]
    needs += [make_need(item="boat", unit="unit", quantity=dice.randint(1, 9)) for _ in range(6)]
    await feed(wire, *people, *lots, *needs)
    await plan(db)
    said: Counter[str] = Counter()

    async def write(number):
        mine = random.Random(number)
        for _ in range(4):
            said[await one_move(mine)] += 1

    async def post(url, body):
        """As a client does: 503 means that nothing was stored and that it may be sent again."""
        while True:
            answer = await client.post(url, headers=bearer("operator"), json=body)
            if answer.status_code != 503:
                return answer
            said["sent again"] += 1

    async def one_move(mine):
        kind = mine.choice(("offer", "offer", "offer", "offer", "hand", "amend", "count", "confirm", "person", "plan"))
        need = mine.choice(needs)
        if kind == "offer":
            known = await rows(db, "SELECT offer_id FROM offer ORDER BY random() LIMIT 1")
            if not known:
                return "none"
            word = mine.choice(("accept", "accept", "accept", "start", "complete", "abandon", "decline"))
            body = {"reason": "x"} if word in ("abandon", "decline") else {}
            url = f"/v1/offers/{known[0]['offer_id']}/{word}"
            return f"{word} {(await post(url, body)).status_code}"
        if kind == "hand":
            source = {"lot": mine.choice(lots).lot_id} if need.item else {"responder": mine.choice(people).responder_id}
            order = {"need": need.need_id, "quantity": mine.randint(1, 3) if need.item else 1, "reason": "x", **source}
            body = {name: str(value) if name != "quantity" else value for name, value in order.items()}
            return f"hand {(await post('/v1/assignments', body)).status_code}"
        if kind == "amend":
            await feed(wire, make_need(NeedAmended, **{**need.model_dump(), "quantity": mine.randint(1, 9)}))
        elif kind == "count":
            lot = mine.choice(lots)
            await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=mine.randint(3, 14)))
        elif kind == "person":
            who, status = mine.choice(people), mine.choice(("confirmed", "confirmed", "withdrawn"))
            await feed(wire, make_responder(ResponderUpdated, responder_id=who.responder_id, status=status))
        elif kind == "confirm":
            model = mine.choice((DeliveryConfirmed, DeliveryConfirmed, DeliveryDisputed))
            await feed(wire, model(need_id=need.need_id, quantity=mine.randint(1, 3), by="ticket"))
        else:
            await plan(db)
        return kind

    await asyncio.gather(*[write(number) for number in range(50)])
    (dead,) = await rows(db, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    print(dict(sorted(said.items())), dead)
    assert {word.split()[1] for word in said if word[-1].isdigit()} <= {"200", "201", "409"}, said
    assert said["accept 200"] > 3
    assert said["hand 201"] > 3
    await assert_books_hold(db)
    assert all(event.needed >= 0 for event in await emitted(db, LedgerChanged))  # each balanced, or it would not parse
    told = {(e.need_id): e for e in await emitted(db, LedgerChanged)}
    for row in await rows(db, "SELECT * FROM need"):
        last = told[row["need_id"]]
        assert {n: row[n] for n in actions.LEDGER} == {n: getattr(last, n) for n in actions.LEDGER}


MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ("plan", "plan", "accept", "accept", "accept", "decline", "start", "arrive", "complete", "complete",
             "abandon", "confirm", "dispute", "amend", "withdraw", "declare", "hand", "expire", "count", "leave")
        ),
        st.integers(0, 7),
        st.integers(1, 9),
    ),
    min_size=3,
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(moves=MOVES)
async def test_any_sequence_of_moves_keeps_the_books(wire, db, moves):
    """After every move each ledger balances, equals a recount, and was told as it stands."""
    async with db.tx() as tx:
        await tx.execute(
            "TRUNCATE operation, need, responder, lot, offer, assignment, refusal, change, plan, unmet, outbox"
        )
    clock.reset()
    people = [make_responder() for _ in range(3)]
    lot = make_lot(quantity=9)
    needs = [make_need(quantity=2), make_need(quantity=1), make_need(item="boat", unit="unit", quantity=6)]
    await feed(wire, *people, lot, *needs)
    wanted = {need.need_id: need.quantity for need in needs}
    for word, which, quantity in moves:
        try:
            await move(wire, db, word, which, quantity, people, lot, needs, wanted)
        except DomainError as error:
            assert error.status in (404, 409), error
        await assert_books_hold(db)
    told = {event.need_id: event for event in await emitted(db, LedgerChanged)}
    for row in await rows(db, "SELECT * FROM need"):
        last = told[row["need_id"]]
        assert {n: row[n] for n in actions.LEDGER} == {n: getattr(last, n) for n in actions.LEDGER}


async def move(wire, db, word, which, quantity, people, lot, needs, wanted):
    need = needs[which % 3]
    offers = await rows(db, "SELECT offer_id FROM offer ORDER BY offer_id")
    offer_id = offers[-1 - which % len(offers)]["offer_id"] if offers else uuid4()
    async with db.tx() as tx:
        match word:
            case "accept":
                await assignment_writes.accept(tx, offer_id, None if which % 2 else quantity, by="responder:x")
            case "decline":
                await offer_writes.decline(tx, offer_id, None, by="responder:x", settings=SETTINGS)
            case "start" | "arrive" | "complete":
                target = {"start": "started", "arrive": "arrived", "complete": "delivered"}[word]
                await assignment_writes.advance(tx, offer_id, target, by="responder:x")
            case "abandon":
                await assignment_writes.abandon(tx, offer_id, "x", by="responder:x", settings=SETTINGS)
            case "hand":
                source = (None, lot.lot_id) if need.item else (people[which % 3].responder_id, None)
                await assignment_writes.assign_by_hand(
                    tx, need.need_id, *source, quantity if need.item else 1, "x", by="operator:x", settings=SETTINGS
                )
            case "expire":
                clock.shift(timedelta(minutes=31))
                await silence.expire_offers(tx, limit=100, settings=SETTINGS)
    amount = None if which == 7 else quantity
    match word:
        case "plan":
            await plan(db, anyway=True)
        case "confirm":
            await feed(wire, DeliveryConfirmed(need_id=need.need_id, quantity=amount, by="ticket"))
        case "dispute":
            await feed(wire, DeliveryDisputed(need_id=need.need_id, quantity=amount, by="ticket"))
        case "amend":
            wanted[need.need_id] = quantity
            await feed(wire, make_need(NeedAmended, **{**need.model_dump(), "quantity": quantity}))
        case "withdraw":
            values = {**need.model_dump(), "quantity": wanted[need.need_id], "status": "withdrawn"}
            await feed(wire, make_need(NeedWithdrawn, **values))
        case "declare":
            await feed(wire, make_need(**{**need.model_dump(), "quantity": wanted[need.need_id]}))
        case "count":
            await feed(wire, make_lot(ResourceAdjusted, lot_id=lot.lot_id, quantity=quantity))
        case "leave":
            status = "withdrawn" if which % 2 else "confirmed"
            who = people[which % 3].responder_id
            await feed(wire, make_responder(ResponderUpdated, responder_id=who, status=status))
