"""Sites and headcounts: the newest stands, all remain, and nobody is counted twice when a site moves."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from schemas.sites import SiteClosed, SiteCounted, SiteOpened, SiteState, SiteUpdated
from services.registry.app import service
from services.registry.headcounts import Unclear, alarm, read_text
from services.runtime import clock
from services.runtime.db import Database
from tests.conftest import bearer, emitted
from tests.registry.people import DESK, FIELD, PMI, SITI, patient


@pytest.fixture
async def client(make_client) -> httpx.AsyncClient:
    client = patient(make_client([service]))
    for name, exercise in (("flood", False), ("quake", False), ("drill", True)):
        order = {"id": name, "title": name, "exercise": exercise}
        assert (await client.post("/v1/operations", json=order, headers=DESK)).status_code == 201
    return client


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


POST: dict[str, Any] = {
    "name": "SDN 1 Baleendah, hubungi 0812 3456 7890",
    "operation": "flood",
    "location": {"lon": 107.63, "lat": -7.0, "place": "Jl. Siliwangi"},
    "admin": "kemendagri:32.04.12",
    "capacity": 250,
}


async def opened(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await client.post("/v1/sites", json=POST | changes, headers=DESK)
    assert answer.status_code == 201, answer.text
    site: dict[str, Any] = answer.json()
    return site


async def count(
    client: httpx.AsyncClient, site: dict[str, Any], people: int, minutes_ago: int = 0, **parts: Any
) -> Any:
    body = {"people": people, "counted_at": (clock.now() - timedelta(minutes=minutes_ago)).isoformat()} | parts
    answer = await client.post(f"/v1/sites/{site['site_id']}/headcounts", json=body, headers=FIELD)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def people(client: httpx.AsyncClient, query: str = "") -> dict[str, int]:
    """People by operation, with the sum of all under ``*``."""
    told = (await client.get(f"/v1/sites/totals{query}", headers=DESK)).json()
    return {"*": told["totals"]["people"]} | {entry["operation"]: entry["people"] for entry in told["operations"]}


async def test_two_posts_count_one_site_the_newest_stands_and_both_remain(client, db):
    site = await opened(client)
    first = await count(client, site, 230, minutes_ago=10, channel="paper")
    late = await count(client, site, 180, minutes_ago=90)
    assert (first["stands"], late["stands"]) == (True, False)
    shown = (await client.get(f"/v1/sites/{site['site_id']}", headers=DESK)).json()
    assert (shown["headcount"]["people"], shown["counts"]) == (230, 2)
    kept = (await client.get(f"/v1/sites/{site['site_id']}/headcounts", headers=DESK)).json()["headcounts"]
    assert [(entry["people"], entry["stands"]) for entry in kept] == [(230, True), (180, False)]
    assert await people(client) == {"*": 230, "flood": 230}
    # Both are told: the event of the late one names it, and says what stands.
    events = await emitted(db, SiteCounted)
    assert [(event.headcount.people, event.counted.people) for event in events] == [(230, 230), (230, 180)]
    assert [event.meta.sequence for event in events] == [2, 3]


async def test_counts_that_come_at_once_all_remain_and_one_stands(client, db):
    site = await opened(client)
    await asyncio.gather(*(count(client, site, 100 + n, minutes_ago=n) for n in range(12)))
    assert await people(client) == {"*": 100, "flood": 100}
    events = await emitted(db, SiteCounted)
    assert sorted(event.counted.people for event in events) == list(range(100, 112))
    assert events[-1].counts == 12


async def test_nobody_is_counted_twice_when_a_site_moves_between_operations(client, db):
    moving, staying = await opened(client), await opened(client, name="Balai Desa")
    await count(client, moving, 200)
    await count(client, staying, 30)
    assert await people(client) == {"*": 230, "flood": 230}
    url = f"/v1/sites/{moving['site_id']}"
    change = {"operation": "quake", "admin": "kemendagri:32.05.01", "reason": "salah operasi"}
    assert (await client.patch(url, json=change, headers=DESK)).status_code == 200
    assert await people(client) == {"*": 230, "flood": 30, "quake": 200}
    assert await people(client, "?operation=quake") == {"*": 200, "quake": 200}
    assert await people(client, "?area=kemendagri:32.04") == {"*": 30, "flood": 30}
    assert await people(client, "?area=kemendagri:32") == {"*": 230, "flood": 30, "quake": 200}
    # Whoever reads the events sees the site in one operation only: the newest state of a subject wins.
    newest = {event.site_id: event for event in await emitted(db, SiteState)}
    assert sorted((event.operation, event.headcount.people) for event in newest.values()) == [
        ("flood", 30),
        ("quake", 200),
    ]
    assert (await client.patch(url, json={"operation": "drill"}, headers=DESK)).status_code == 409


async def test_people_who_go_to_another_site_are_counted_there_and_not_here(client, db):
    here, there = await opened(client), await opened(client, name="GOR")
    await count(client, here, 120)
    url = f"/v1/sites/{here['site_id']}"
    assert (await client.patch(url, json={"moved_to": there["site_id"]}, headers=DESK)).status_code == 409
    closing = {"closed": True, "moved_to": there["site_id"], "reason": "banjir naik"}
    closed = await client.patch(url, json=closing, headers=DESK)
    assert (closed.status_code, closed.json()["status"], closed.json()["alarm"]) == (200, "closed", "none")
    await count(client, there, 118)
    assert await people(client) == {"*": 118, "flood": 118}
    late = await client.post(f"{url}/headcounts", json={"people": 5}, headers=FIELD)
    assert late.status_code == 409
    assert (await client.patch(url, json={"capacity": 5}, headers=DESK)).status_code == 409
    assert (await emitted(db, SiteClosed))[0].moved_to is not None


async def test_an_alarm_is_told_by_the_event_of_the_count_or_the_capacity(client, db):
    site = await opened(client, capacity=100)
    for heads in (50, 90, 100, 101):
        await count(client, site, heads)
    await client.patch(f"/v1/sites/{site['site_id']}", json={"capacity": 500}, headers=DESK)
    told = [event.alarm for event in await emitted(db, SiteState)]
    assert told == ["none", "none", "near", "full", "over", "none"]
    full = (await client.get("/v1/sites?alarm=over", headers=DESK)).json()["sites"]
    assert full == []


async def test_a_drill_stays_out_of_the_totals_of_life(client):
    site = await opened(client, operation="drill")
    await count(client, site, 70)
    assert await people(client) == {"*": 0}
    assert await people(client, "?operation=drill") == {"*": 70, "drill": 70}
    assert (await client.get("/v1/sites", headers=DESK)).json()["sites"] == []


async def test_parts_are_summed_only_over_those_who_counted_them(client):
    one, other = await opened(client), await opened(client, name="GOR")
    cells = [{"sex": "female", "age": "0-4", "disability": False, "people": 4}]
    ages = [{"band": "0-4", "people": 8}, {"band": "60+", "people": 9}]
    await count(client, one, 100, female=55, male=45, ages=ages, disability=3, cells=cells)
    await count(client, other, 60)
    told = (await client.get("/v1/sites/totals", headers=DESK)).json()["totals"]
    assert (told["people"], told["female"], told["disability"], told["households"]) == (160, 55, 3, None)
    assert told["ages"] == ages
    assert told["people_asked"] == {"female": 100, "male": 100, "disability": 100, "ages": 100}


@pytest.mark.parametrize(
    "body",
    [
        {"people": 10, "female": 6, "male": 5},
        {"people": 10, "ages": [{"band": "0-4", "people": 11}]},
        {"people": 10, "ages": [{"band": "0-4", "people": 1}, {"band": "0-4", "people": 2}]},
        {"people": -1},
        {"people": 5, "ages": [{"band": "bayi", "people": 1}]},
    ],
)
async def test_parts_that_exceed_the_whole_are_refused(client, db, body):
    site = await opened(client)
    answer = await client.post(f"/v1/sites/{site['site_id']}/headcounts", json=body, headers=FIELD)
    assert answer.status_code == 422, answer.text
    assert await emitted(db, SiteCounted) == []


async def test_a_headcount_by_text_goes_to_the_site_of_its_code(client, db):
    site = await opened(client)
    text = f"{site['code'].lower()} 230 L110 P120 balita 20, lansia 30 difabel 5 hamil 3 KK 60"
    answer = await client.post("/v1/sites:headcount", json={"text": text}, headers=FIELD)
    assert answer.status_code == 201, answer.text
    told = (await emitted(db, SiteCounted))[0].headcount
    assert told is not None
    assert (told.people, told.male, told.female, told.disability, told.pregnant) == (230, 110, 120, 5, 3)
    assert (told.households, told.channel) == (60, "sms")
    assert {age.band: age.people for age in told.ages} == {"0-4": 20, "60+": 30}
    for text in ("230 orang", f"{site['code']} kira-kira 200", "POS-0000 12", f"{site['code']} 10 L9 P9"):
        refused = await client.post("/v1/sites:headcount", json={"text": text}, headers=FIELD)
        assert refused.status_code in (404, 422), text
    assert len(await emitted(db, SiteCounted)) == 1


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("POS-7K2M 230", ("POS-7K2M", {"people": 230})),
        ("pos7k2m jiwa 12", ("POS-7K2M", {"people": 12})),
        ("L 10 P 12", (None, {"male": 10, "female": 12, "people": 22})),
        ("45 orang; kk=9", (None, {"people": 45, "households": 9})),
    ],
)
def test_a_short_text_is_read(text, found):
    assert read_text(text) == found


@pytest.mark.parametrize("text", ["", "POS-7K2M", "100 200", "L10 L12 P3", "banyak sekali", "P 20", "230 kucing 4"])
def test_a_text_that_is_half_understood_gives_nothing(text):
    with pytest.raises(Unclear):
        read_text(text)


def test_alarms_begin_at_nine_tenths():
    assert [alarm(people, 100) for people in (None, 0, 89, 90, 99, 100, 101)] == [
        "none", "none", "none", "near", "near", "full", "over",
    ]  # fmt: skip
    assert alarm(1, 0) == "over"
    assert alarm(5, None) == "none"


async def test_who_manages_a_site_counts_there_and_is_named_to_no_one_outside(client, db):
    who = (await client.post("/v1/responders", json=SITI, headers=DESK)).json()["responder_id"]
    site = await opened(client, manager=who, organisation="pmi")
    own, url = bearer("responder", who), f"/v1/sites/{site['site_id']}"
    assert (await client.post(f"{url}/headcounts", json={"people": 7}, headers=own)).status_code == 201
    stranger = bearer("responder", "00000000-0000-4000-8000-000000000000")
    assert (await client.post(f"{url}/headcounts", json={"people": 7}, headers=stranger)).status_code == 403
    assert (await client.post(f"{url}/headcounts", json={"people": 7})).status_code == 401
    assert (await client.post(f"{url}/headcounts", json={"people": 8}, headers=PMI)).status_code == 201
    text = {"text": f"{site['code']} 9", "channel": "app"}
    assert (await client.post("/v1/sites:headcount", json=text, headers=own)).json()["headcount"]["channel"] == "app"
    assert (await client.post("/v1/sites:headcount", json=text, headers=stranger)).status_code == 403
    assert (await client.get(url, headers=DESK)).json()["manager"] == who
    assert "manager" not in (await client.get(url, headers=PMI)).json()
    told = b"".join(event.to_bytes() for event in await emitted(db, SiteState) if not isinstance(event, SiteCounted))
    assert who.encode() not in told
    assert b"3456" not in told
    assert (await client.patch(url, json={"capacity": 9}, headers=own)).status_code == 403
    assert (await client.patch(url, json={"capacity": 9}, headers=PMI)).status_code == 200
    assert [type(event) for event in await emitted(db, SiteState)] == [
        SiteOpened,
        SiteCounted,
        SiteCounted,
        SiteCounted,
        SiteUpdated,
    ]
