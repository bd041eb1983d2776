"""OGC API Features as a client of the standard sees it, the feeds, and what the public is shown of places."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import h3
import pytest
import uvicorn
from owslib.ogcapi.features import Features

from bench.sitrep_story import START, Story
from schemas.values import PeopleCount, Point
from services.runtime.service import build_app
from services.runtime.settings import Settings
from services.sitrep import log
from services.sitrep.app import service
from tests.conftest import bearer

OPERATOR = bearer("operator")


async def tell(make_db, events: list) -> None:
    db = make_db("sitrep")
    for at in range(0, len(events), 1000):
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in events[at : at + 1000]])


def incidents(count: int) -> tuple[Story, list]:
    story = Story(81, (("banjir-jakarta", False),), pace_s=20)
    return story, [*story.opening(), *(story.tell(story.incident()) for _ in range(count))]


@pytest.mark.timeout(400)
async def test_a_client_of_the_standard_pages_through_ten_thousand_incidents_and_gets_each_once(
    dsn, make_db, monkeypatch
):
    """With a box and a time, while one of them changes between two pages."""
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    story, events = incidents(10_000)
    await tell(make_db, events)
    box, until = (106.3, -6.9, 107.5, -6.2), START + timedelta(hours=20)
    opened = [each.event for each in events[1:]]
    expected = {
        str(event.incident_id)
        for event in opened
        if box[0] <= event.point.lon <= box[2] and box[1] <= event.point.lat <= box[3] and event.opened_at <= until
    }
    listener = socket.create_server(("127.0.0.1", 0))
    app = build_app([service], Settings(database=dsn))  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1/features"
        client = await asyncio.to_thread(Features, url, headers=OPERATOR)
        assert "incidents" in await asyncio.to_thread(client.feature_collections)
        assert any(each.endswith("/conf/core") for each in (await asyncio.to_thread(client.conformance))["conformsTo"])
        for wanted, question in (
            ({str(event.incident_id) for event in opened}, {}),
            (expected, {"bbox": list(box), "datetime_": f"../{until.isoformat().replace('+00:00', 'Z')}"}),
        ):
            seen: Counter[str] = Counter()
            more: dict[str, str] = {}
            while True:
                page = await asyncio.to_thread(client.collection_items, "incidents", limit=1000, **question, **more)
                seen.update(feature["id"] for feature in page["features"])
                following = next((link["href"] for link in page["links"] if link["rel"] == "next"), None)
                if following is None:
                    break
                more = {"cursor": parse_qs(urlsplit(following).query)["cursor"][0]}
                changed = story.random.choice(opened)
                await tell(make_db, [story.tell(type(changed)(**changed.model_dump() | {"reports": 99}))])
            assert set(seen) == wanted
            assert set(seen.values()) == {1}
        one = await asyncio.to_thread(client.collection_item, "incidents", str(opened[0].incident_id))
        assert one["properties"]["title"] == opened[0].title
    finally:
        server.should_exit = True
        await task


async def test_feeds_have_a_tag_that_changes_with_what_is_in_them(make_db, make_client):
    story, events = incidents(30)
    await tell(make_db, events)
    client = make_client([service])
    for name in ("incidents.geojson", "incidents.csv", "sites.geojson"):
        first = await client.get(f"/v1/feeds/{name}", headers=OPERATOR)
        tag = {"If-None-Match": first.headers["etag"]}
        assert (await client.get(f"/v1/feeds/{name}", headers=OPERATOR | tag)).status_code == 304
    await tell(make_db, [story.tell(story.incident())])
    feed = await client.get("/v1/feeds/incidents.geojson", headers=OPERATOR | tag)
    assert feed.headers["content-type"] == "application/geo+json"
    assert len(feed.json()["features"]) == 31
    rows = (await client.get("/v1/feeds/incidents.csv", headers=OPERATOR)).text.splitlines()
    assert (len(rows), rows[0].endswith("lon,lat")) == (32, True)


async def test_the_public_and_partners_see_protected_places_only_coarse_also_when_they_ask_by_box(make_db, make_client):
    story, events = incidents(3)
    lon, lat = 106.8456, -6.2088
    opened = story.incident()
    values = {
        "point": Point(lon=lon, lat=lat),
        "people": PeopleCount(affected=7),
        "title": "Ani, RT 3",
        "place": "RT 3",
    }
    protected = type(opened)(**opened.model_dump() | values | {"sensitivity": "sexual_violence"})
    plain = story.incident()
    open_one = type(plain)(**plain.model_dump() | values | {"title": "Banjir RT 3"})
    await tell(make_db, [*events, story.tell(protected), story.tell(open_one)])
    client = make_client([service])
    tiny = f"{lon - 0.0005},{lat - 0.0005},{lon + 0.0005},{lat + 0.0005}"
    items = "/v1/features/collections/incidents/items"

    async def at(who: dict[str, str], incident, query: str = "") -> dict | None:
        found = (await client.get(f"{items}?limit=100{query}", headers=who)).json()["features"]
        return next((each for each in found if each["id"] == str(incident.incident_id)), None)

    assert (await at(OPERATOR, protected, f"&bbox={tiny}"))["geometry"]["coordinates"] == [lon, lat]
    for who, incident, resolution in (
        ({}, protected, 5), ({}, open_one, 7), (bearer("partner"), protected, 5), (bearer("responder"), open_one, 7),
    ):  # fmt: skip
        shown = await at(who, incident)
        centre = h3.cell_to_latlng(h3.latlng_to_cell(lat, lon, resolution))
        assert shown["geometry"]["coordinates"] == [round(centre[1], 6), round(centre[0], 6)]
        assert "title" not in shown["properties"]
        assert "place" not in shown["properties"]
        assert shown["properties"].get("affected") == (None if incident is protected else "5-9")
        assert await at(who, incident, f"&bbox={tiny}") is None
    assert (await at(bearer("partner"), open_one))["properties"]["title"] == "Banjir RT 3"


async def test_a_wrong_question_says_which_field(make_client):
    client = make_client([service])
    items = "/v1/features/collections/incidents/items"
    for query, field in (("bbox=1,2", "bbox"), ("datetime=yesterday", "datetime"), ("limit=0", "limit")):
        answer = await client.get(f"{items}?{query}")
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"query/{field}")
    assert (await client.get(f"{items}/{random.Random(1).randbytes(16).hex()}")).status_code == 404


async def test_incidents_are_there_as_they_were_known_at_an_earlier_instant(make_client, make_db):
    client = make_client([service])
    _, events = incidents(3)
    await tell(make_db, events[:2])
    async with make_db("sitrep").tx() as tx:
        then = await tx.fetchval("SELECT max(received_at) FROM log")
    changed = events[1].event
    later = Story(82, (("banjir-jakarta", False),), pace_s=20)
    await tell(make_db, [*events[2:], later.tell(type(changed)(**changed.model_dump() | {"reports": 99}))])
    path = "/v1/features/collections/incidents/items"
    now = (await client.get(path, headers=OPERATOR)).json()["features"]
    before = (await client.get(path, params={"as_of": then.isoformat()}, headers=OPERATOR)).json()["features"]
    assert len(now) == 3
    assert [feature["id"] for feature in before] == [str(changed.incident_id)]
    assert before[0]["properties"]["reports"] == changed.reports
