"""Hazard zones: an operator closes an area for a time, and nobody is sent into it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from schemas.offers import OfferWithdrawn
from schemas.operations import OperationOpened
from schemas.values import Period, Point
from services.matching import app, assignment_writes
from services.matching.handlers import consumer
from services.matching.planner import Planner
from services.matching.problem import Scope
from services.matching.settings import MatchingSettings
from services.runtime import clock
from tests.conftest import Wire, bearer, emitted
from tests.matching.factories import LAT, LON, feed, make_need, make_responder, plan, rows

SOUTH = Point(lon=LON, lat=LAT - 0.05)


@pytest.fixture
def db(make_db):
    return make_db("matching")


@pytest.fixture
def wire(db):
    return Wire(consumer, db)


@pytest.fixture
def client(make_client):
    return make_client([app.service])


def around(point, side=0.01):
    west, east, south, north = point.lon - side, point.lon + side, point.lat - side, point.lat + side
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def order(point=SOUTH, hours=24, **values):
    now = clock.now()
    window = {"start": now.isoformat(), "end": (now + timedelta(hours=hours)).isoformat()}
    return {"area": around(point), "window": window, "reason": "lahar", **values}


async def sent(send, *args, **values):
    """As a client does it: 503 means that nothing was stored, and that it may be sent again."""
    while True:
        answer = await send(*args, **values)
        if answer.status_code != 503:
            return answer


async def close(client, **values):
    return await sent(client.post, "/v1/hazard-zones", json=order(**values), headers=bearer("operator"))


async def asked(db):
    return {row["need_id"] for row in await rows(db, "SELECT need_id FROM offer WHERE state = 'made'")}


@pytest.mark.parametrize("apart_from", [0, 3000])
async def test_open_questions_into_a_closed_area_are_taken_back_until_it_is_lifted(wire, db, client, apart_from):
    inside, outside = make_need(point=SOUTH), make_need()
    await feed(wire, inside, outside, *[make_responder() for _ in range(3)])
    one = Planner(db, Scope(exercise=False), MatchingSettings(apart_from=apart_from))
    try:
        assert await one.step() == 2
        answer = await close(client)
        assert answer.status_code == 201, answer.text
        zone = answer.json()
        assert zone["properties"]["reason"] == "lahar"
        assert zone["assignments_inside"] == []
        await one.step()
        assert await asked(db) == {outside.need_id}
        (gone,) = await emitted(db, OfferWithdrawn)
        assert gone.need_id == inside.need_id
        # What is declared there meanwhile waits as well.
        other = make_need(point=SOUTH)
        await feed(wire, other)
        await one.step()
        assert await asked(db) == {outside.need_id}
        explained = await client.get(f"/v1/needs/{inside.need_id}/explanation?lang=en", headers=bearer("operator"))
        assert {"filter": "zone", "left": 0} in explained.json()["unmet"]["filters"]
        assert any("0 after hazard zones" in said for said in explained.json()["unmet"]["sentences"])
        listed = await client.get("/v1/hazard-zones", headers=bearer("field"))
        assert [zone["id"] for zone in listed.json()["features"]] == [zone["id"]]
        url = f"/v1/hazard-zones/{zone['id']}"
        assert (await client.delete(url, headers=bearer("operator"))).status_code == 422
        for _ in range(2):
            lifted = await sent(client.delete, url, params={"reason": "over"}, headers=bearer("operator"))
            assert lifted.status_code == 200
            assert lifted.json()["properties"]["lifted_reason"] == "over"
        await one.step()
        assert await asked(db) == {inside.need_id, outside.need_id, other.need_id}
    finally:
        await one.forget()
    assert (await client.get("/v1/hazard-zones", headers=bearer("field"))).json()["features"] == []


async def test_a_need_that_outlasts_the_closure_is_served_after_it(wire, db, client):
    now = clock.now()
    need = make_need(point=SOUTH, window=Period(start=now, end=now + timedelta(hours=10)))
    await feed(wire, need, make_responder())
    assert (await close(client, hours=3)).status_code == 201
    assert await plan(db) == 1
    (offer,) = await rows(db, "SELECT arrives_at FROM offer")
    assert offer["arrives_at"] >= now.replace(microsecond=0) + timedelta(hours=3)


async def test_who_is_promised_inside_is_named_and_not_moved(wire, db, client):
    need = make_need(point=SOUTH)
    await feed(wire, need, make_responder())
    await plan(db)
    (offer,) = await rows(db, "SELECT offer_id FROM offer")
    async with db.tx() as tx:
        await assignment_writes.accept(tx, offer["offer_id"], None, by="responder:x")
    assert (await close(client)).json()["assignments_inside"] == [str(offer["offer_id"])]
    assert (await close(client, point=Point(lon=LON + 1, lat=LAT))).json()["assignments_inside"] == []
    await plan(db)
    assert [row["state"] for row in await rows(db, "SELECT state FROM assignment")] == ["made"]


async def test_a_zone_of_a_drill_closes_nothing_in_life(wire, db, client):
    opened = OperationOpened(
        operation="latihan", title="Latihan", timezone="Asia/Jakarta", opened_at=clock.now(), by="x", exercise=True
    )
    life, drill = make_need(point=SOUTH), make_need(point=SOUTH, operation="latihan", exercise=True)
    await feed(wire, opened, life, drill, make_responder())
    assert (await close(client, operation="nowhere")).status_code == 404
    assert (await close(client, operation="latihan")).status_code == 201
    assert await plan(db) == 1
    assert await plan(db, exercise=True) == 0


@pytest.mark.parametrize(
    "ring",
    [
        [[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]],
        [[0, 0], [1, 0], [1, 1], [0, 1]],
        [[0, 0], [200, 0], [1, 1], [0, 0]],
        [[0, 0], [1, 0], [0, 0]],
        [[0, 0], [1, 0], [2, 0], [0, 0]],
    ],
)
async def test_a_ring_that_is_no_area_is_refused(client, ring):
    body = {**order(), "area": {"type": "Polygon", "coordinates": [ring]}}
    answer = await client.post("/v1/hazard-zones", json=body, headers=bearer("operator"))
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid"


async def test_only_operators_draw_zones_and_only_for_their_operations(client):
    for who in (bearer("responder"), bearer("field"), bearer("partner"), bearer("operator", operations=["elsewhere"])):
        body = order(operation="jakarta-flood-2026")
        assert (await client.post("/v1/hazard-zones", json=body, headers=who)).status_code == 403
