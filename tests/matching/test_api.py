"""Offers, assignments and the plan over HTTP, as responders, operators and partners see them."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from schemas.assignments import AssignmentMade
from schemas.needs import NeedDrafted, NeedWithdrawn
from schemas.offers import OfferDeclined, OfferWithdrawn
from schemas.operations import OperationOpened
from services.matching import assignment_writes
from services.matching.app import service
from services.matching.handlers import consumer
from services.runtime import clock
from tests.conftest import Wire, bearer, emitted
from tests.matching.factories import (
    assert_books_hold,
    feed,
    ledger_of,
    make_lot,
    make_need,
    make_responder,
    plan,
    rows,
)

OPERATOR = "operator"


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


@pytest.fixture
def client(make_client):
    return make_client([service])


async def asked(wire, db, quantity=1, people=1, **values):
    """A need with so many responders asked; the need and its open offers."""
    need = make_need(quantity=quantity, **values)
    await feed(wire, need, *[make_responder() for _ in range(people)])
    await plan(db)
    return need, await rows(db, "SELECT * FROM offer WHERE need_id = $1 ORDER BY offer_id", need.need_id)


def as_responder(offer):
    return bearer("responder", str(offer["responder_id"]))


def problem(response, status, code):
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    assert response.json()["code"] == code
    return response.json()


# -------------------------------------------------------------------------------------------------------------- answers
async def test_a_responder_follows_an_offer_to_its_end(client, wire, db):
    need, (offer,) = await asked(wire, db)
    me = as_responder(offer)
    mine = (await client.get("/v1/offers", headers=me)).json()["offers"]
    assert [one["offer_id"] for one in mine] == [str(offer["offer_id"])]
    url = f"/v1/offers/{offer['offer_id']}"
    expected = {"accept": "made", "start": "started", "arrive": "arrived", "complete": "delivered"}
    for word, state in expected.items():
        answer = await client.post(f"{url}/{word}", headers=me)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["assignment_id"], answer.json()["state"]) == (str(offer["offer_id"]), state)
    assert await ledger_of(db, need.need_id) == {"needed": 1, "delivered": 1}
    (made,) = await emitted(db, AssignmentMade)
    assert made.by == f"responder:{offer['responder_id']}"
    await assert_books_hold(db)


async def test_the_same_acceptance_twice_gives_the_same_answer(client, wire, db):
    need, (offer,) = await asked(wire, db)
    me = as_responder(offer)
    url = f"/v1/offers/{offer['offer_id']}/accept"
    first = await client.post(url, headers=me, json={})
    again = await client.post(url, headers=me)
    with_quantity = await client.post(url, headers=me, json={"quantity": 1})
    assert first.status_code == 200
    assert first.json() == again.json() == with_quantity.json()
    keyed = [await client.post(url, headers={**me, "Idempotency-Key": "k-1"}, json={}) for _ in range(2)]
    assert [one.json() for one in keyed] == [first.json()] * 2
    assert len(await emitted(db, AssignmentMade)) == 1
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    problem(await client.post(url, headers=me, json={"quantity": 2}), 409, "conflict")


async def test_a_key_used_for_one_offer_says_nothing_about_another(client, wire, db):
    _, offers = await asked(wire, db, quantity=2, people=2)
    head = {**bearer(OPERATOR), "Idempotency-Key": "the-same-key"}
    first = await client.post(f"/v1/offers/{offers[0]['offer_id']}/accept", headers=head)
    second = await client.post(f"/v1/offers/{offers[1]['offer_id']}/accept", headers=head)
    assert first.status_code == 200
    assert second.status_code == 422


async def test_an_over_acceptance_is_refused_not_trimmed(client, wire, db):
    lot = make_lot(quantity=10)
    need = make_need(item="boat", unit="unit", quantity=5)
    await feed(wire, lot, need)
    await plan(db)
    (offer,) = await rows(db, "SELECT * FROM offer")
    head = bearer("partner", org="bpbd-dki")
    url = f"/v1/offers/{offer['offer_id']}/accept"
    assert problem(await client.post(url, headers=head, json={"quantity": 6}), 409, "need-met")["left"] == 5
    order = {"need": str(need.need_id), "lot": str(lot.lot_id), "quantity": 3, "reason": "near"}
    by_hand = await client.post("/v1/assignments", headers=bearer(OPERATOR), json=order)
    assert by_hand.status_code == 201, by_hand.text
    assert problem(await client.post(url, headers=head), 409, "need-met")["left"] == 2
    assert (await client.post(url, headers=head, json={"quantity": 2})).status_code == 200
    assert await ledger_of(db, need.need_id) == {"needed": 5, "committed": 5}
    await assert_books_hold(db)


async def test_when_a_need_is_met_its_other_offers_are_withdrawn(client, wire, db):
    need, offers = await asked(wire, db, quantity=2, people=2)
    someone = make_responder()
    await feed(wire, someone)
    order = {"need": str(need.need_id), "responder": str(someone.responder_id), "quantity": 1, "reason": "is there"}
    assert (await client.post("/v1/assignments", headers=bearer(OPERATOR), json=order)).status_code == 201
    accepted = await client.post(f"/v1/offers/{offers[0]['offer_id']}/accept", headers=as_responder(offers[0]))
    assert accepted.status_code == 200
    (gone,) = await emitted(db, OfferWithdrawn)
    assert (gone.offer_id, gone.reason) == (offers[1]["offer_id"], "the need is met")
    late = await client.post(f"/v1/offers/{offers[1]['offer_id']}/accept", headers=as_responder(offers[1]))
    problem(late, 409, "need-met")
    assert await ledger_of(db, need.need_id) == {"needed": 2, "committed": 2}
    await assert_books_hold(db)


async def test_an_offer_that_ran_out_is_refused_before_the_timer_comes(client, wire, db):
    _, (offer,) = await asked(wire, db, severity=4)
    clock.shift(timedelta(minutes=16))
    answer = await client.post(f"/v1/offers/{offer['offer_id']}/accept", headers=as_responder(offer))
    problem(answer, 409, "offer-expired")


async def test_a_no_is_taken_once_and_a_yes_after_it_is_too_late(client, wire, db):
    need, (offer,) = await asked(wire, db)
    url, me = f"/v1/offers/{offer['offer_id']}", as_responder(offer)
    first = await client.post(f"{url}/decline", headers=me, json={"reason": "sakit"})
    assert (first.status_code, first.json()["state"], first.json()["reason"]) == (200, "declined", "sakit")
    again = await client.post(f"{url}/decline", headers=me)
    assert again.json() == first.json()
    assert len(await emitted(db, OfferDeclined)) == 1
    problem(await client.post(f"{url}/accept", headers=me), 409, "offer-expired")
    assert await ledger_of(db, need.need_id) == {"needed": 1, "open": 1}


async def test_an_accepted_offer_is_abandoned_not_declined(client, wire, db):
    need, (offer,) = await asked(wire, db)
    url, me = f"/v1/offers/{offer['offer_id']}", as_responder(offer)
    problem(await client.post(f"{url}/abandon", headers=me, json={"reason": "x"}), 409, "conflict")
    problem(await client.post(f"{url}/start", headers=me), 409, "conflict")
    await client.post(f"{url}/accept", headers=me)
    problem(await client.post(f"{url}/decline", headers=me), 409, "conflict")
    problem(await client.post(f"{url}/abandon", headers=me, json={"reason": 5}), 422, "invalid")
    answers = [await client.post(f"{url}/abandon", headers=me, json={"reason": "ban bocor"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert (answers[0].json()["state"], answers[0].json()["reason"]) == ("abandoned", "ban bocor")
    problem(await client.post(f"{url}/start", headers=me), 409, "conflict")
    assert await ledger_of(db, need.need_id) == {"needed": 1, "open": 1}
    assert await plan(db) == 0, "who gave it up is not asked again at once"
    await assert_books_hold(db)


async def test_a_person_promised_elsewhere_is_busy(client, wire, db):
    _, (offer,) = await asked(wire, db)
    other = make_need()
    await feed(wire, other)
    order = {"need": str(other.need_id), "responder": str(offer["responder_id"]), "quantity": 1, "reason": "first"}
    assert (await client.post("/v1/assignments", headers=bearer(OPERATOR), json=order)).status_code == 201
    answer = await client.post(f"/v1/offers/{offer['offer_id']}/accept", headers=as_responder(offer))
    problem(answer, 409, "busy")
    await assert_books_hold(db)


# ------------------------------------------------------------------------------------------------------- who may do it
async def test_only_who_was_asked_or_an_operator_of_the_operation_answers(client, wire, db):
    _, (offer,) = await asked(wire, db)
    url = f"/v1/offers/{offer['offer_id']}/accept"
    problem(await client.post(url), 401, "unauthenticated")
    problem(await client.post(url, headers=bearer("responder", str(uuid4()))), 403, "forbidden")
    problem(await client.post(url, headers=bearer("field")), 403, "forbidden")
    problem(await client.post(url, headers=bearer("partner", org="pmi")), 403, "forbidden")
    problem(await client.post(url, headers=bearer("auditor")), 403, "forbidden")
    problem(await client.post(url, headers=bearer(OPERATOR, operations=("elsewhere",))), 403, "forbidden")
    here = bearer(OPERATOR, operations=("jakarta-flood-2026",))
    assert (await client.post(url, headers=here)).status_code == 200


async def test_what_is_not_known_yet_is_404_and_says_to_try_again(client, wire, db):
    need = make_need()
    await feed(wire, need)
    head = bearer(OPERATOR)
    order = {"need": str(uuid4()), "responder": str(uuid4()), "quantity": 1, "reason": "x"}
    for answer in (
        await client.post("/v1/assignments", headers=head, json=order),
        await client.post("/v1/assignments", headers=head, json={**order, "need": str(need.need_id)}),
        await client.get(f"/v1/needs/{uuid4()}/explanation", headers=head),
        await client.get("/v1/plan?operation=nowhere", headers=head),
    ):
        problem(answer, 404, "not-found")
        assert answer.headers["retry-after"] == "1"
    problem(await client.post(f"/v1/offers/{uuid4()}/accept", headers=head), 404, "not-found")


# ------------------------------------------------------------------------------------------------------------- by hand
async def test_an_assignment_by_hand_is_an_offer_made_and_accepted_by_the_dispatcher(client, wire, db):
    need, (offer,) = await asked(wire, db)
    order = {
        "need": str(need.need_id),
        "responder": str(offer["responder_id"]),
        "quantity": 1,
        "reason": "kenal lokasi",
    }
    answer = await client.post("/v1/assignments", headers=bearer(OPERATOR, "ani"), json=order)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["by"], answer.json()["reason"]) == ("operator:ani", "kenal lokasi")
    told = [(event.type.split(".")[1:3], event.by) for event in await emitted(db) if hasattr(event, "by")][-4:]
    assert told == [
        (["offer", "withdrawn"], "operator:ani"),
        (["offer", "made"], "operator:ani"),
        (["offer", "accepted"], "operator:ani"),
        (["assignment", "made"], "operator:ani"),
    ]
    assert await ledger_of(db, need.need_id) == {"needed": 1, "committed": 1}
    await assert_books_hold(db)


@pytest.mark.parametrize(
    ("values", "status", "code"),
    [
        ({"quantity": 2}, 409, "need-met"),
        ({"quantity": 0}, 422, "invalid"),
        ({"reason": " "}, 422, "invalid"),
        ({"lot": str(uuid4())}, 422, "invalid"),
        ({"responder": None}, 422, "invalid"),
        ({"surprise": 1}, 422, "invalid"),
    ],
)
async def test_wrong_orders_are_refused(client, wire, db, values, status, code):
    need, someone = make_need(), make_responder()
    await feed(wire, need, someone)
    order = {"need": str(need.need_id), "responder": str(someone.responder_id), "quantity": 1, "reason": "x", **values}
    problem(await client.post("/v1/assignments", headers=bearer(OPERATOR), json=order), status, code)


async def test_by_hand_neither_stock_nor_people_are_promised_that_are_not_to_be_had(client, wire, db):
    lot, other = make_lot(quantity=2), make_lot(item="rice")
    boats = make_need(item="boat", unit="unit", quantity=9)
    medics = make_need(quantity=9)
    someone, nobody = make_responder(), make_responder(status="unconfirmed")
    draft = make_need(NeedDrafted, status="draft", declared_at=None)
    gone = make_need(NeedWithdrawn, status="withdrawn")
    await feed(wire, lot, other, boats, medics, someone, nobody, draft, gone)

    async def by_hand(need, **values):
        order = {"need": str(need.need_id), "quantity": 1, "reason": "x", **{k: str(v) for k, v in values.items()}}
        return await client.post("/v1/assignments", headers=bearer(OPERATOR), json=order)

    problem(await by_hand(boats, lot=lot.lot_id, quantity=3), 409, "busy")
    problem(await by_hand(boats, lot=other.lot_id), 422, "invalid")
    problem(await by_hand(boats, responder=someone.responder_id), 422, "invalid")
    problem(await by_hand(medics, lot=lot.lot_id), 422, "invalid")
    problem(await by_hand(medics, responder=nobody.responder_id), 409, "busy")
    problem(await by_hand(medics, responder=someone.responder_id, quantity=2), 409, "busy")
    problem(await by_hand(draft, responder=someone.responder_id), 409, "need-met")
    problem(await by_hand(gone, responder=someone.responder_id), 409, "need-met")
    assert await emitted(db, AssignmentMade) == []


# --------------------------------------------------------------------------------------------------------------- lists
async def test_lists_are_paged_and_leave_drills_out(client, wire, db):
    _, offers = await asked(wire, db, quantity=5, people=5)
    drill = make_need(exercise=True, operation="latihan")
    await feed(wire, drill)
    await plan(db, exercise=True)
    url, seen = "/v1/offers?limit=2", []
    while url:
        page = (await client.get(url, headers=bearer(OPERATOR))).json()
        seen += [one["offer_id"] for one in page["offers"]]
        url = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
    assert seen == [str(offer["offer_id"]) for offer in reversed(offers)]
    in_drill = (await client.get("/v1/offers?operation=latihan", headers=bearer(OPERATOR))).json()["offers"]
    assert [one["need_id"] for one in in_drill] == [str(drill.need_id)]
    by_need = (await client.get(f"/v1/offers?need={drill.need_id}", headers=bearer(OPERATOR))).json()["offers"]
    assert by_need == in_drill
    problem(await client.get("/v1/offers?cursor=nonsense", headers=bearer(OPERATOR)), 422, "invalid")
    problem(await client.get("/v1/offers?limit=0", headers=bearer(OPERATOR)), 422, "invalid")
    problem(await client.get("/v1/offers?state=lost", headers=bearer(OPERATOR)), 422, "invalid")


async def test_everybody_sees_their_share(client, wire, db):
    need, (offer,) = await asked(wire, db)
    lot = make_lot(organisation="pmi")
    await feed(wire, lot, make_need(item="boat", unit="unit"))
    await plan(db)
    await client.post(f"/v1/offers/{offer['offer_id']}/accept", headers=as_responder(offer))

    async def count(path, headers):
        return len((await client.get(f"/v1/{path}", headers=headers)).json()[path.split("?")[0]])

    assert await count("offers", bearer(OPERATOR)) == 2
    assert await count("offers", bearer("auditor")) == 2
    assert await count("offers", as_responder(offer)) == 1
    assert await count("offers", bearer("partner", org="pmi")) == 1
    assert await count("offers", bearer("partner", org="other")) == 0
    assert await count("offers", bearer(OPERATOR, operations=("elsewhere",))) == 0
    assert await count(f"assignments?need={need.need_id}", bearer(OPERATOR)) == 1
    assert await count(f"assignments?responder={offer['responder_id']}&state=made", as_responder(offer)) == 1
    problem(await client.get(f"/v1/offers?responder={uuid4()}", headers=as_responder(offer)), 403, "forbidden")
    problem(await client.get("/v1/offers?operation=x", headers=bearer(OPERATOR, operations=("y",))), 403, "forbidden")
    problem(await client.get("/v1/assignments"), 401, "unauthenticated")


# ---------------------------------------------------------------------------------------------------------------- plan
async def test_the_plan_says_what_is_met_and_proves_that_there_is_no_better(client, wire, db):
    lot = make_lot(quantity=3)
    await feed(
        wire, lot, make_need(item="boat", unit="unit", quantity=5, severity=4), make_need(quantity=2, severity=2)
    )
    await feed(wire, make_responder(), make_need(operation="elsewhere", skill="cook", severity=1))
    before = (await client.get("/v1/plan", headers=bearer(OPERATOR))).json()
    assert (before["planned_at"], before["people"]["met"]) == (None, 0)
    await plan(db)
    told = (await client.get("/v1/plan?operation=jakarta-flood-2026", headers=bearer(OPERATOR))).json()
    assert told["needs"] == 2
    assert told["people"] == {"units": 2, "met": 1, "unmet_by_severity": {"4": 0, "3": 0, "2": 1, "1": 0}}
    assert told["items"] == {"boat": {"units": 5, "met": 3, "unmet_by_severity": {"4": 2, "3": 0, "2": 0, "1": 0}}}
    assert told["gap"] == 0
    assert told["objective"] == told["bound"] > 0
    assert datetime.fromisoformat(told["planned_at"]).tzinfo is not None
    everywhere = (await client.get("/v1/plan", headers=bearer(OPERATOR))).json()
    assert (everywhere["needs"], everywhere["people"]["units"]) == (3, 3)
    problem(await client.get("/v1/plan", headers=bearer("responder")), 403, "forbidden")
    await feed(wire, OperationOpened(operation="baru", title="Baru", opened_at=clock.now(), by="admin:x"))
    empty = (await client.get("/v1/plan?operation=baru", headers=bearer(OPERATOR))).json()
    assert (empty["needs"], empty["items"]) == (0, {})


async def test_the_explanation_says_why_each_was_asked_and_why_units_are_unmet(client, wire, db):
    need, (offer,) = await asked(wire, db, quantity=3)
    await feed(wire, make_responder(skills=({"skill": "cook"},)))
    await plan(db)
    told = (await client.get(f"/v1/needs/{need.need_id}/explanation", headers=bearer(OPERATOR))).json()
    (why,) = told["offers"]
    assert why["offer_id"] == str(offer["offer_id"])
    assert sum(why["parts"].values()) == why["cost"]
    assert told["ledger"]["open"] == told["unmet"]["units"] == 2
    assert told["unmet"]["filters"][0] == {"filter": "code", "left": 1}
    assert "1 are a team that fits" in told["unmet"]["why"] or "used up" in told["unmet"]["why"]
    draft = make_need(NeedDrafted, status="draft", declared_at=None)
    await feed(wire, draft)
    told = (await client.get(f"/v1/needs/{draft.need_id}/explanation", headers=bearer(OPERATOR))).json()
    assert (told["status"], told["unmet"], told["offers"]) == ("draft", None, [])


async def test_every_route_is_described(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    for path in ("/v1/offers/{offer_id}/accept", "/v1/assignments"):
        post = paths[path]["post"]
        assert {"401", "403", "404", "409", "422", "503"} <= set(post["responses"])
        assert "schema" in post["requestBody"]["content"]["application/json"]


async def test_the_explanation_is_told_in_two_languages_with_rank_alternative_and_what_each_has_promised(
    client, wire, db
):
    need = make_need(quantity=2)
    short = make_need(item="boat", unit="unit", quantity=3)
    await feed(wire, need, short, *[make_responder(organisation=name) for name in ("pmi", "pmi", "tagana")])
    await plan(db)
    first = (await rows(db, "SELECT * FROM offer WHERE need_id = $1 ORDER BY offer_id", need.need_id))[0]
    async with db.tx() as tx:
        await assignment_writes.accept(tx, first["offer_id"], None, by="responder:x")

    async def told(of, **query):
        answer = await client.get(f"/v1/needs/{of.need_id}/explanation", params=query, headers=bearer(OPERATOR))
        return answer.json()

    for query, passed, rank in (({}, "Memenuhi semua syarat", "Peringkat"), ({"lang": "en"}, "Meets every", "Rank")):
        (offer, _) = (await told(need, **query))["offers"]
        assert offer["sentences"][0].startswith(passed)
        assert any(sentence.startswith(rank) for sentence in offer["sentences"])
        assert (offer["feasible"], offer["alternative"] is not None) == (3, True)
        assert offer["alternative_price"] >= 0
    assert (await told(need))["organisations"] == [
        {"organisation": first["organisation"], "committed": 1, "in_transit": 0, "delivered": 0}
    ]
    # Each organisation sees what all have promised, and the questions to its own people.
    other = "tagana" if first["organisation"] == "pmi" else "pmi"
    partner = bearer("partner", org=other, operations=("jakarta-flood-2026",))
    seen = (await client.get(f"/v1/needs/{need.need_id}/explanation", headers=partner)).json()
    assert seen["organisations"] == (await told(need))["organisations"]
    assert {offer["organisation"] for offer in seen["offers"]} <= {other}
    assert (await told(short, lang="en"))["unmet"]["sentences"][0] == "3 of 3 boat unmet."
    assert (await told(short))["unmet"]["sentences"][0] == "3 dari 3 unit boat belum terpenuhi."
    assert (await told(short, lang="xx"))["status"] == 422
