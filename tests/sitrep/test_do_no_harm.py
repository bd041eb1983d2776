"""No answer, stream or topic that everybody may read holds an exact count below 20 or a place finer than its class."""

from __future__ import annotations

import re
from datetime import timedelta

import orjson
import pytest

from bench.sitrep_story import Story
from schemas.sitreps import SitrepPublished
from schemas.topics import TOPICS
from services.runtime import clock
from services.sitrep import log, stream
from services.sitrep.app import service
from services.sitrep.publish import FIRST, publish_due
from tests.conftest import bearer, emitted

BAND = re.compile(r"0|[1-9]\d*-[1-9]\d*")
# Numbers that count nobody: where in the log, how severe, how long something may take or has waited.
NO_COUNT = {
    "position", "severity", "oldest_h", "within_h", "since_position", "numberReturned", "lon", "lat", "standard_period",
}  # fmt: skip
COUNTED = {
    "reports", "people", "needed", "committed", "coming", "delivered", "gap", "by_standard", "affected", "displaced",
    "injured", "dead", "missing", "incidents_open", "needs", "needs_met", "heads",
}  # fmt: skip
PUBLIC = ({}, bearer("responder"), bearer("field"))


def leaks(value: object, path: str = "") -> list[str]:
    """Where a number stands that may count people or things."""
    if isinstance(value, dict):
        return [
            found
            for name, item in value.items()
            if name not in NO_COUNT | {"geometry", "extent", "links"}
            for found in leaks(item, f"{path}/{name}")
        ]
    if isinstance(value, list):
        return [found for at, item in enumerate(value) for found in leaks(item, f"{path}/{at}")]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [f"{path}={value}"]
    name = path.rsplit("/", 1)[-1]
    if name in COUNTED and isinstance(value, str) and not BAND.fullmatch(value):
        return [f"{path}={value}"]
    return []


async def told(make_db) -> list:
    db = make_db("sitrep")
    events = list(Story(91).events(400))
    for at in range(0, len(events), 100):
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in events[at : at + 100]])
    return [each.event for each in events]


@pytest.mark.parametrize("who", PUBLIC, ids=["nobody", "responder", "field"])
async def test_every_answer_to_the_public_holds_bands_only_and_no_place_of_its_own(make_db, make_client, who):
    events = await told(make_db)
    clock.shift(FIRST + timedelta(seconds=1))
    await publish_due(make_db("sitrep"))
    client = make_client([service])
    points = {f"{event.point.lon:.4f}" for event in events if getattr(event, "point", None) is not None}
    titles = {event.title for event in events if type(event).__name__.startswith("Incident")}
    paths = (await client.get("/openapi.json")).json()["paths"]
    walked = set()
    for path, verbs in paths.items():
        if "get" not in verbs or not path.startswith("/v1/") or path == "/v1/stream" or "quarantine" in path:
            continue
        urls = [path.replace("{collection}", name) for name in ("incidents", "sites")]
        if "{item}" in path:
            found = (await client.get("/v1/features/collections/incidents/items", headers=who)).json()["features"]
            urls = [urls[0].replace("{item}", found[0]["id"])]
        if "{operation}" in path:
            listed = (await client.get("/v1/sitreps/published", headers=who)).json()["items"]
            urls = [item["href"] + f"?format={form}" for item in listed for form in ("json", "md", "html", "csv")]
        if path == "/v1/sitreps":
            urls = [
                f"{path}?operation={operation}&format={form}&lang={lang}"
                for operation in ("banjir-jakarta", "latihan-citarum")
                for form in ("json", "md", "html", "csv")
                for lang in ("id", "en")
            ]
        if path == "/v1/sitreps/gaps":
            urls = [f"{path}?format=json", f"{path}?format=csv"]
        for url in dict.fromkeys(urls):
            answer = await client.get(url, headers=who)
            if answer.status_code in (401, 403, 422):
                continue
            assert answer.status_code == 200, (url, answer.text[:200])
            walked.add(path)
            for point in points:
                assert point not in answer.text, url
            for title in titles:
                assert title not in answer.text, url
            if "json" in answer.headers["content-type"]:
                assert leaks(orjson.loads(answer.content)) == [], url
    assert {
        "/v1/sitreps", "/v1/sitreps/gaps", "/v1/sitreps/published/{operation}/{position}",
        "/v1/features/collections/{collection}/items", "/v1/feeds/{collection}.geojson", "/v1/feeds/{collection}.csv",
    } <= walked  # fmt: skip


async def test_what_is_published_on_an_open_topic_holds_bands_only(make_db):
    await told(make_db)
    clock.shift(FIRST + timedelta(seconds=1))
    db = make_db("sitrep")
    await publish_due(db)
    events = await emitted(db)
    assert events
    for event in events:
        assert TOPICS[event.topic].cls == "open"
        assert leaks(event.model_dump(mode="json")) == []
        assert isinstance(event, SitrepPublished)
        assert not {"lon", "lat", "point", "geometry", "cells", "incidents", "posts"} & event.model_dump().keys()
        assert b'"lon"' not in event.to_bytes()


def test_nobody_without_a_role_watches_a_topic_that_is_not_open():
    for role in ("public", "responder", "field"):
        assert {TOPICS[name].cls for name in stream.topics_for(role)} == {"open"}
    assert {TOPICS[name].cls for name in stream.topics_for("partner")} == {"open", "partner"}


def test_what_is_protected_passes_no_filter_of_a_partner_whatever_the_fields_order():
    row = {"topic": "gotong.incidents.v1", "type": "x", "operation": None, "lon": 1.0, "lat": 1.0}
    partner = stream.Filter(("gotong.incidents.v1",), unprotected=True)
    operator = stream.Filter(("gotong.incidents.v1",))
    for data, protected in (
        (b'{"title":"x","sensitivity":"violence"}', True),
        (b'{"sensitivity":null,"title":"x"}', False),
        (b'{"title":"x"}', False),
    ):
        assert partner.takes(row | {"data": data}) is not protected  # type: ignore[arg-type]
        assert operator.takes(row | {"data": data})  # type: ignore[arg-type]


async def test_drills_and_life_never_meet_in_an_answer(make_db, make_client):
    db = make_db("sitrep")
    for story in (Story(92, (("banjir-jakarta", False),)), Story(93, (("latihan-citarum", True),))):
        events = list(story.events(150))
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in events])
    client, operator = make_client([service]), bearer("operator")
    for path in ("/v1/features/collections/incidents/items?limit=1000", "/v1/feeds/incidents.geojson"):
        live = (await client.get(path, headers=operator)).json()["features"]
        assert live
        assert {each["properties"]["operation"] for each in live} == {"banjir-jakarta"}
    joined = "&" if "?" in path else "?"
    drill = (await client.get(f"{path}{joined}operation=latihan-citarum", headers=operator)).json()["features"]
    assert {each["properties"]["exercise"] for each in drill} == {True}
    for table in ("3w", "gaps", "history"):
        rows = (await client.get(f"/v1/sitreps/{table}?format=json", headers=operator)).json()["rows"]
        mine = (await client.get(f"/v1/sitreps/{table}?format=json&operation=banjir-jakarta", headers=operator)).json()[
            "rows"
        ]
        without = [{key: value for key, value in row.items() if key != "operation"} for row in rows]
        assert without == [{key: value for key, value in row.items() if key != "operation"} for row in mine] != []
