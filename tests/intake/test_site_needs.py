"""Needs of evacuation posts: each post's is its own, whatever else its incident needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any
from uuid import uuid4

import httpx
import pytest

from schemas.needs import NeedState
from services.intake.app import service
from services.intake.linker import Indexes, link_waiting
from services.runtime import clock
from services.runtime.db import Database
from services.runtime.service import Service
from tests.conftest import bearer, emitted
from tests.intake.patience import patient

OPERATOR = bearer("operator", "posko")
PLACE = {"lon": 107.6, "lat": -7.0}
POST, OTHER = str(uuid4()), str(uuid4())


@pytest.fixture
def client(make_client: Callable[[Sequence[Service]], httpx.AsyncClient]) -> httpx.AsyncClient:
    return patient(make_client([service]))


async def post(client: httpx.AsyncClient, status: int = 201, **values: Any) -> dict[str, Any]:
    body = {"item": "rice_kg", "quantity": 50, "location": PLACE} | values
    answer = await client.post("/v1/needs", json=body, headers=OPERATOR)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def an_incident(client: httpx.AsyncClient, db: Database) -> str:
    report = {
        "text": "Banjir, 40 orang mengungsi", "location": PLACE, "hazard": "flood",
        "needs": [{"item": "rice_kg", "quantity": 20}],
    }  # fmt: skip
    answer = await client.post("/v1/reports", json=report, headers=bearer("field", "lapangan"))
    assert answer.status_code == 202
    await link_waiting(db, Indexes())
    (need,) = (await client.get("/v1/needs", headers=OPERATOR)).json()["needs"]
    return str(need["incident"])


async def test_a_need_names_the_post_that_asks_and_is_found_by_it(client, db):
    need = await post(client, site_id=POST)
    assert (need["site_id"], need["status"]) == (POST, "declared")
    await post(client, site_id=OTHER)
    await post(client)
    found = (await client.get(f"/v1/needs?site={POST}", headers=OPERATOR)).json()["needs"]
    assert [one["id"] for one in found] == [need["id"]]
    assert [str(event.site_id) for event in await emitted(db, NeedState)] == [POST, OTHER, "None"]
    assert (await client.post("/v1/needs", json={"site_id": "x"}, headers=OPERATOR)).status_code == 422


async def test_two_posts_and_an_incident_need_the_same_and_none_takes_the_others_figure(client, db):
    incident = await an_incident(client, db)
    begin = clock.now() + timedelta(hours=1)
    window = {"start": begin.isoformat(), "end": (begin + timedelta(hours=6)).isoformat()}
    for site in (POST, OTHER):
        need = await post(client, incident=incident, site_id=site, window=window)
        assert (need["site_id"], need["hazard"]) == (site, "flood")
    again = await post(client, 200, incident=incident, site_id=POST, window=window, quantity=70)
    assert (again["site_id"], again["quantity"]) == (POST, 70)
    needs = (await client.get(f"/v1/needs?incident={incident}", headers=OPERATOR)).json()["needs"]
    assert {need["site_id"]: need["quantity"] for need in needs} == {POST: 70, OTHER: 50, None: 20}


async def test_what_a_report_asks_for_is_no_posts_and_is_of_the_incidents_hazard(client, db):
    incident = await an_incident(client, db)
    await post(client, incident=incident, site_id=POST)
    report = {
        "text": "Banjir di sini juga, butuh beras", "location": PLACE, "hazard": "flood",
        "needs": [{"item": "rice_kg", "quantity": 90}],
    }  # fmt: skip
    await client.post("/v1/reports", json=report, headers=bearer("field", "lain"))
    await link_waiting(db, Indexes())
    needs = (await client.get(f"/v1/needs?incident={incident}", headers=OPERATOR)).json()["needs"]
    assert {need["site_id"]: need["quantity"] for need in needs}[POST] == 50
    assert {event.hazard for event in await emitted(db, NeedState)} == {"flood"}
