"""Two officers at one incident: the one who looked before the other decided is told so, and nothing is overwritten."""

from __future__ import annotations

from typing import Any

import httpx

from services.intake.linker import Indexes, link_waiting
from services.runtime.db import Database
from tests.conftest import bearer

ANI, BUDI = bearer("operator", "ani"), bearer("operator", "budi")
FLOOD: dict[str, Any] = {
    "text": "Banjir 1 meter di Kampung Melayu, 2 perahu dibutuhkan",
    "location": {"lon": 106.866, "lat": -6.222},
    "hazard": "flood",
    "severity": 3,
    "needs": [{"item": "boat", "quantity": 2}],
}


async def report(client: httpx.AsyncClient, db: Database) -> None:
    assert (await client.post("/v1/reports", json=FLOOD)).status_code == 202
    indexes = Indexes()
    while await link_waiting(db, indexes):
        pass


async def incident(client: httpx.AsyncClient) -> dict[str, Any]:
    [found] = (await client.get("/v1/incidents", headers=ANI)).json()["features"]
    whole: dict[str, Any] = (await client.get(f"/v1/incidents/{found['id']}", headers=ANI)).json()["properties"]
    return whole


async def verify(client: httpx.AsyncClient, who: dict[str, str], of: str, version: int | str | None) -> httpx.Response:
    return await client.post(
        f"/v1/incidents/{of}/verify",
        json={"evidence": "field_checked", "reason": "seen"},
        headers=who | ({} if version is None else {"If-Match": f'"{version}"'}),
    )


async def test_an_edit_on_an_older_version_is_refused_and_says_who_decided_what_and_why(client, db):
    await report(client, db)
    seen = await incident(client)
    assert (await verify(client, BUDI, seen["id"], seen["version"])).status_code == 200
    refused = await client.post(
        f"/v1/incidents/{seen['id']}/close", json={"reason": "over"}, headers=ANI | {"If-Match": str(seen["version"])}
    )
    assert refused.status_code == 412
    problem = refused.json()
    assert problem["code"] == "stale"
    assert [(step["by"], step["what"], step["reason"]) for step in problem["changes"]] == [
        ("operator:budi", "verified", "seen")
    ]
    now = await incident(client)
    assert now["status"] == "open" and now["version"] == problem["version"] > seen["version"]
    # Who looked again, decides on what they see.
    again = await client.post(
        f"/v1/incidents/{seen['id']}/close", json={"reason": "over"}, headers=ANI | {"If-Match": str(now["version"])}
    )
    assert again.status_code == 200


async def test_reports_that_come_in_meanwhile_refuse_nobody(client, db):
    await report(client, db)
    seen = await incident(client)
    await report(client, db)
    assert (await incident(client))["version"] > seen["version"]
    assert (await verify(client, ANI, seen["id"], seen["version"])).status_code == 200


async def test_whoever_does_not_mind_sends_no_version(client, db):
    await report(client, db)
    seen = await incident(client)
    assert (await verify(client, BUDI, seen["id"], seen["version"])).status_code == 200
    assert (await verify(client, ANI, seen["id"], None)).status_code == 200
    assert (await verify(client, ANI, seen["id"], "abc")).status_code == 422


async def test_a_need_that_somebody_else_decided_on_is_not_decided_on_again_unseen(client, db):
    await report(client, db)
    [found] = (await client.get("/v1/needs", headers=ANI)).json()["needs"]
    path = f"/v1/needs/{found['id']}"
    seen = (await client.get(path, headers=ANI)).json()["version"]
    change = {"quantity": 5, "reason": "counted"}
    assert (await client.patch(path, json=change, headers=BUDI | {"If-Match": str(seen)})).status_code == 200
    refused = await client.patch(
        path, json={"status": "withdrawn", "reason": "no need"}, headers=ANI | {"If-Match": str(seen)}
    )
    assert refused.status_code == 412
    assert refused.json()["changes"][0]["quantity"] == 5
    assert (await client.get(path, headers=ANI)).json()["status"] != "withdrawn"


async def test_the_incident_that_a_split_made_is_named(client, db):
    await report(client, db)
    await report(client, db)
    seen = await incident(client)
    one = seen["linked_reports"][0]["report_id"]
    answer = await client.post(
        f"/v1/incidents/{seen['id']}/split",
        json={"reports": [one], "reason": "another street"},
        headers=ANI | {"If-Match": str(seen["version"])},
    )
    assert answer.status_code == 200
    made = answer.json()["properties"]["made"]
    whole = (await client.get(f"/v1/incidents/{made}", headers=ANI)).json()["properties"]
    assert [linked["report_id"] for linked in whole["linked_reports"]] == [one]
