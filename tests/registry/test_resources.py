"""Units by the table, crews, kits, pledges that arrive; and what the authorities declared, from first to last."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from schemas.resources import ResourceState
from services.registry.app import service
from services.runtime.db import Database
from tests.conftest import emitted
from tests.registry.people import DESK, PMI, patient

PLACE = {"lon": 107.525, "lat": -7.03}


@pytest.fixture
def client(make_client) -> httpx.AsyncClient:
    return patient(make_client([service]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


async def entered(client: httpx.AsyncClient, **lot: Any) -> dict[str, Any]:
    answer = await client.post("/v1/resources", json={"location": PLACE} | lot, headers=DESK)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_quantities_are_converted_by_the_table_and_never_guessed(client, db):
    rice = await entered(client, item="beras", quantity=3, unit="tonne")
    assert (rice["item"], rice["quantity"], rice["unit"]) == ("rice", 3000, "kg")
    kits = await entered(client, item="family_kit", quantity=10)
    assert (kits["quantity"], kits["serves"]) == (10, 5)
    sack = await client.post(
        "/v1/resources", json={"item": "rice", "quantity": 3, "unit": "sack", "location": PLACE}, headers=DESK
    )
    assert (sack.status_code, sack.json()["errors"][0]["pointer"]) == (422, "/unit")
    assert "tonne" in sack.text
    # A word that no table knows is counted in the unit that is given.
    assert (await entered(client, item="kursi_roda_listrik", quantity=2, unit="buah"))["unit"] == "buah"
    assert [event.quantity for event in await emitted(db, ResourceState)] == [3000, 10, 2]
    units = (await client.get("/v1/units")).json()["items"]
    assert {"unit": "tonne", "factor": 1000} in next(item for item in units if item["item"] == "rice")["units"]


async def test_a_boat_says_its_crew_and_a_kit_what_it_holds(client, db):
    crew = [{"skill": "operator perahu", "level": 2}, {"skill": "water_rescue", "people": 2}]
    await entered(client, kind="vehicle", item="rubber_boat", quantity=2, crew=crew, seats=8, payload_kg=600)
    await entered(client, item="family_kit", quantity=4, contents=[{"item": "selimut", "quantity": 5}])
    boat, kit = await emitted(db, ResourceState)
    assert [(one.skill, one.people, one.level) for one in boat.crew] == [
        ("boat_operator", 1, 2),
        ("water_rescue", 2, 1),
    ]
    assert (boat.seats, boat.payload_kg) == (8, 600)
    assert [(part.item, part.quantity) for part in kit.contents] == [("blanket", 5)]
    for wrong in (
        {"item": "rice", "crew": [{"skill": "driver"}]},
        {"item": "family_kit", "contents": [{"item": "family_kit", "quantity": 1}]},
        {"item": "family_kit", "contents": [{"item": "blanket", "quantity": 1}, {"item": "blanket", "quantity": 2}]},
    ):
        answer = await client.post("/v1/resources", json={"quantity": 1, "location": PLACE} | wrong, headers=DESK)
        assert answer.status_code == 422, wrong


async def test_what_arrives_of_a_pledge_becomes_stock_and_nothing_is_counted_twice(client, db):
    pledge = await entered(
        client,
        kind="pledge",
        item="blanket",
        quantity=5,
        unit="score",
        expected_at="2026-11-30T00:00:00Z",
        organisation="pmi",
    )
    assert pledge["quantity"] == 100
    url = f"/v1/resources/{pledge['lot_id']}/arrive"
    elsewhere = {"lon": 107.6, "lat": -7.0, "place": "Gudang Baleendah"}
    first = await client.post(url, json={"quantity": 30, "location": elsewhere}, headers=PMI)
    assert first.status_code == 200, first.text
    stock = first.json()["stock"]
    assert (stock["kind"], stock["quantity"], stock["pledge_id"]) == ("stock", 30, pledge["lot_id"])
    assert stock["location"]["place"] == "Gudang Baleendah"
    assert "expected_at" not in stock
    too_much = await client.post(url, json={"quantity": 71}, headers=DESK)
    assert (too_much.status_code, too_much.json()["errors"][0]["pointer"]) == (409, "/quantity")
    again = DESK | {"Idempotency-Key": "truk-kedua"}
    answers = [await client.post(url, json={}, headers=again) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert (await client.post(url, json={}, headers=DESK)).status_code == 409
    assert (await client.post(f"/v1/resources/{stock['lot_id']}/arrive", json={}, headers=DESK)).status_code == 409
    newest = {event.lot_id: event for event in await emitted(db, ResourceState)}
    assert sorted((lot.kind, lot.quantity, lot.status) for lot in newest.values()) == [
        ("pledge", 0, "withdrawn"),
        ("stock", 30, "available"),
        ("stock", 70, "available"),
    ]
    # At no moment is there more than was promised.
    held: dict[Any, int] = {}
    for event in await emitted(db, ResourceState):
        held[event.lot_id] = event.quantity
        assert sum(held.values()) <= 100


async def test_what_was_declared_is_kept_from_first_to_last(client):
    alert = {"declared": "siaga_darurat", "level": "kabupaten", "decree": "360/12/2026"}
    response = {"declared": "tanggap_darurat", "level": "provinsi", "until": "2026-12-31T00:00:00Z"}
    await client.post("/v1/operations", json={"id": "flood", "title": "Banjir", "status": alert}, headers=DESK)
    url = "/v1/operations/flood"
    for change in (
        {"status": response, "reason": "meluas"},
        {"phase": "response"},
        {"status": response},
        {"status": None},
    ):
        assert (await client.patch(url, json=change, headers=DESK)).status_code == 200
    told = (await client.get(f"{url}/statuses")).json()["statuses"]
    assert [(entry["status"] or {}).get("declared") for entry in told] == ["siaga_darurat", "tanggap_darurat", None]
    assert (told[1]["reason"], told[1]["by"], told[1]["status"]["level"]) == ("meluas", "operator:posko", "provinsi")
    assert (await client.get("/v1/operations/nowhere/statuses")).status_code == 404


async def test_an_organisation_says_what_it_leads_where_and_when(client):
    order = {
        "id": "dinkes",
        "name": "Dinas Kesehatan",
        "kind": "government",
        "leads": ["KES"],
        "sectors": ["HEA", "NUT"],
    }
    order |= {"areas": ["kemendagri:32.04"], "phases": ["response"], "may_verify": ["str_health", "nurse"]}
    made = await client.post("/v1/organisations", json=order, headers=DESK)
    assert made.status_code == 201, made.text
    assert {name: made.json()[name] for name in order} == order
    changed = await client.patch("/v1/organisations/dinkes", json={"may_verify": None}, headers=DESK)
    assert (changed.json()["may_verify"], changed.json()["leads"]) == (None, ["KES"])
    sectors = (await client.get("/v1/sectors")).json()["sectors"]
    health = next(one for one in sectors if (one["scheme"], one["code"]) == ("bnpb", "KES"))
    assert health["ocha"] == ["HEA", "NUT", "WSH"]
