"""Every answer that anybody gets without a token, of every service, and every topic of class open: no exact count
below 20, no place finer than its class, no word of what is protected."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import h3
import httpx
import orjson
import pytest

from schemas.topics import TOPICS
from services.gateway.app import SERVICES
from services.intake.linker import Indexes, link_waiting
from services.runtime import clock
from services.sitrep import silence_timer, stream
from services.sitrep.publish import FIRST, publish_due
from tests.conftest import bearer, emitted
from tests.intake.patience import patient
from tests.sitrep.passing import Passing
from tests.sitrep.test_do_no_harm import NO_COUNT, leaks
from tests.sitrep.test_silence import warning

OPERATOR, ADMIN = bearer("operator"), bearer("admin")
# Numbers that count nobody: places (looked at by themselves), what an authority or a form says, versions.
PLAIN = NO_COUNT | {
    "bbox", "coordinates", "polygons", "points", "messages", "partition", "offset", "lag", "unpublished", "quarantined",
    "severities", "version", "minutes", "hours", "limit", "resolution",
}  # fmt: skip
SHOWN_ELSEWHERE = {"/v1/stream"}
"""An answer without end: its events are read from the filter that it is served with."""
VOCABULARY = {"/v1/units"}
"""Tables that are the same on every installation: they tell of nobody."""
EXACT = {"lon": 106.86123, "lat": -6.22457}
HIDDEN = {"lon": 106.91321, "lat": -6.28943}
SECRETS = (
    "Rahasia Satu", "Rahasia Dua", "Gang Mawar", "Gang Melati", "Pos Kenanga", "Siti Aminah", "81234567890",
    "106.8612", "6.2245", "106.9132", "6.2894", "sexual_violence", "31.75.03", "31.75.06",
)  # fmt: skip
COUNTS = {"affected": 17, "displaced": 13, "injured": 7, "dead": 3, "missing": 2}


async def ok(answer: httpx.Response) -> Any:
    assert answer.status_code in (200, 201, 202, 207), answer.text
    return answer.json()


async def disaster(passing: Passing, client: httpx.AsyncClient) -> dict[str, list[str]]:
    """An operation with everything in it that has a count or a place; returns the ids by their name in a path."""
    await ok(
        await client.post(
            "/v1/operations",
            json={"id": "banjir-uji", "title": "Banjir uji", "hazards": ["flood"], "areas": ["kemendagri:31"]},
            headers=ADMIN,
        )
    )
    await passing.on()
    reports, tickets = [], []
    for at, (title, place, admin, hazard) in enumerate(
        [
            ("Rahasia Satu", EXACT | {"place": "Gang Mawar"}, "kemendagri:31.75.03", "flood"),
            ("Rahasia Dua", HIDDEN | {"place": "Gang Melati"}, "kemendagri:31.75.06", "fire"),
        ]
    ):
        said = await ok(
            await client.post(
                "/v1/reports",
                json={
                    "title": title,
                    "text": f"{title}, perlu bantuan",
                    "location": place | {"admin": admin},
                    "hazard": hazard,
                    "severity": 4,
                    "people": COUNTS,
                    "damage": {"houses_flooded": 11},
                    "needs": [{"item": "boat", "quantity": 6}, {"skill": "medic", "quantity": 4}],
                    "reporter": {"name": "Siti Aminah", "phone": f"+6281234567890{at}"[:14], "kind": "official"},
                    "operation": "banjir-uji",
                },
                headers=OPERATOR,
            )
        )
        reports.append(said["report_id"])
        tickets.append(said["ticket"])
    indexes = Indexes()
    while await link_waiting(passing.db["intake"], indexes):
        pass
    await passing.on()
    found = (await ok(await client.get("/v1/incidents?operation=banjir-uji", headers=OPERATOR)))["features"]
    incidents = {each["properties"]["title"]: each["properties"]["id"] for each in found}
    await ok(
        await client.post(
            f"/v1/incidents/{incidents['Rahasia Dua']}/protect",
            json={"sensitivity": "sexual_violence", "reason": "for their sake"},
            headers=OPERATOR,
        )
    )
    await passing.on()
    site = await ok(
        await client.post(
            "/v1/sites",
            json={
                "name": "Pos Kenanga", "operation": "banjir-uji", "admin": "kemendagri:31.75.03", "capacity": 19,
                "location": EXACT | {"place": "Gang Mawar"},
            },
            headers=OPERATOR,
        )
    )  # fmt: skip
    await ok(
        await client.post(
            f"/v1/sites/{site['site_id']}/headcounts", json={"people": 12, "female": 7, "male": 5}, headers=OPERATOR
        )
    )
    lot = await ok(
        await client.post(
            "/v1/resources", json={"item": "boat", "quantity": 5, "location": EXACT | {"place": "x"}}, headers=OPERATOR
        )
    )
    await passing.on()
    needs = (await ok(await client.get("/v1/needs?operation=banjir-uji", headers=OPERATOR)))["needs"]
    boat = next(need for need in needs if need.get("item") == "boat" and need["status"] == "declared")
    made = await ok(
        await client.post(
            "/v1/assignments",
            json={"need": boat["need_id"], "lot": lot["lot_id"], "quantity": 3, "reason": "by hand"},
            headers=OPERATOR,
        )
    )
    # Its polygon is the authority's own; that nothing is heard from Jakarta's other cities is told in bands.
    await passing.wires["sitrep"].deliver(warning(codes=("kemendagri:31",), polygons=()))
    await passing.on()
    clock.shift(FIRST + timedelta(hours=20))
    assert await silence_timer.notice(passing.db["sitrep"])
    assert await publish_due(passing.db["sitrep"])
    await passing.on()
    async with passing.db["sitrep"].tx() as tx:
        position = await tx.fetchval("SELECT max(position) FROM published WHERE operation = 'banjir-uji'")
    return {
        "report_id": reports,
        "ticket": tickets,
        "incident_id": list(incidents.values()),
        "item": [*incidents.values(), site["site_id"]],
        "need_id": [need["need_id"] for need in needs],
        "site_id": [site["site_id"]],
        "lot_id": [lot["lot_id"]],
        "offer_id": [made[name] for name in ("offer_id", "id") if name in made],
        "assignment_id": [made["assignment_id"]] if "assignment_id" in made else [],
        "operation": ["banjir-uji"],
        "operation_id": ["banjir-uji"],
        "position": [str(position)],
        "collection": ["incidents", "sites"],
    }


def addresses(path: str, known: dict[str, list[str]]) -> list[str]:
    """The path with every id that fits put in; none where something in it is not known."""
    found = [path]
    for name in re.findall(r"{(\w+)(?::\w+)?}", path):
        values = known.get(name, [])
        found = [re.sub(rf"{{{name}(:\w+)?}}", value, each) for each in found for value in values]
    return found


def places(value: Any) -> list[tuple[float, float]]:
    """Every (lon, lat) in an answer: of GeoJSON points, and of objects with both."""
    if isinstance(value, dict):
        own = []
        if isinstance(value.get("lon"), int | float) and isinstance(value.get("lat"), int | float):
            own.append((value["lon"], value["lat"]))
        if value.get("type") == "Point":
            own.append((value["coordinates"][0], value["coordinates"][1]))
        return own + [place for each in value.values() for place in places(each)]
    return [place for each in value for place in places(each)] if isinstance(value, list) else []


def is_coarse(lon: float, lat: float) -> bool:
    """Whether it is the middle of an H3 cell of resolution 7 or coarser."""
    for resolution in range(8):
        middle = h3.cell_to_latlng(h3.latlng_to_cell(lat, lon, resolution))
        if abs(middle[0] - lat) < 1e-5 and abs(middle[1] - lon) < 1e-5:
            return True
    return False


def judge(where: str, text: str, content: Any) -> None:
    for secret in SECRETS:
        assert secret not in text, (where, secret, text[max(0, text.find(secret) - 200) :][:400])
    if content is not None:
        told = [each for each in leaks(content) if not PLAIN & set(re.findall(r"[a-z_0-9]+", each.split("=")[0]))]
        # Only what may count people or things below 20 could be known again.
        assert [each for each in told if abs(float(each.split("=")[1])) < 20] == [], where
        for lon, lat in places(content):
            assert is_coarse(lon, lat), (where, lon, lat)


@pytest.mark.timeout(600)
async def test_whatever_anybody_is_told_holds_bands_and_coarse_places_only(make_db, make_client):
    passing, client = Passing(make_db, SERVICES), patient(make_client(SERVICES))
    known = await disaster(passing, client)
    paths = (await client.get("/openapi.json")).json()["paths"]
    answered, refused = set(), set()
    for path, verbs in paths.items():
        if "get" not in verbs or path in SHOWN_ELSEWHERE | VOCABULARY:
            continue
        urls = addresses(path, known)
        names = {each["name"] for each in verbs["get"].get("parameters", []) if each["in"] == "query"}
        for url in list(urls):
            if "operation" in names:
                urls.append(f"{url}?operation=banjir-uji")
            if "format" in names:
                urls += [
                    f"{url}?format={form}&lang={lang}"
                    for form in ("json", "md", "html", "csv", "xlsx")
                    for lang in ("id", "en")
                ]
            if "level" in names:
                urls.append(f"{url}?level=3")
        for url in urls:
            answer = await client.get(url)
            if "{ticket}" in path:
                continue  # whoever holds the ticket is told of it: that is its reporter
            if answer.status_code in (401, 403):
                refused.add(path)
                continue
            assert answer.status_code in (200, 302, 303, 304, 307, 404, 406, 409, 422), (url, answer.text[:300])
            if answer.status_code == 200:
                answered.add(path)
            kind = answer.headers.get("content-type", "")
            if kind.startswith(("image/", "font/")) or "xlsx" in url:
                continue
            judge(url, answer.text, orjson.loads(answer.content) if "json" in kind and answer.content else None)
    assert {
        "/v1/incidents", "/v1/sitreps", "/v1/sitreps/gaps", "/v1/warnings", "/v1/operations",
        "/v1/features/collections/{collection}/items", "/v1/feeds/{collection}.csv",
        "/v1/sitreps/published/{operation}/{position}",
    } <= answered  # fmt: skip
    assert {"/v1/needs", "/v1/offers", "/v1/sitreps/3w", "/v1/sitreps/silence"} <= refused


@pytest.mark.timeout(600)
async def test_what_an_open_topic_or_the_public_stream_carries_holds_bands_and_coarse_places_only(make_db, make_client):
    passing, client = Passing(make_db, SERVICES), patient(make_client(SERVICES))
    await disaster(passing, client)
    seen = set()
    for db in passing.db.values():
        for event in await emitted(db):
            if TOPICS[event.topic].cls == "open":
                seen.add(event.topic)
                judge(event.type, event.to_bytes().decode(), event.model_dump(mode="json"))
    assert {"gotong.operations.v1", "gotong.sitreps.v1"} <= seen
    wanted = stream.Filter(stream.topics_for("public"), unprotected=True)
    async with passing.db["sitrep"].tx() as tx:
        head = await tx.fetchval("SELECT max(position) FROM log")
        rows, _ = await stream.page(tx, wanted, 0, head)
    assert {row["type"] for row in rows} >= {"gotong.silence.noticed.v1", "gotong.warning.issued.v1"}
    for row in rows:
        assert TOPICS[row["topic"]].cls == "open"
        told = orjson.loads(stream.message(row).split(b"data: ", 1)[1])
        judge(f"stream: {row['type']}", orjson.dumps(told["data"]).decode(), told["data"])
