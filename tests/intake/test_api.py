"""Intake over HTTP, with the linker's steps taken by hand where a test needs reports linked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio

from schemas.incidents import IncidentOpened
from schemas.reports import ReportLinked, ReportReceived
from services.intake.app import service
from services.intake.linker import Indexes, link_waiting
from services.runtime.db import Database
from tests.conftest import bearer, emitted

FLOOD = {
    "title": "Banjir Kampung Melayu",
    "text": "Banjir 1 meter di Kampung Melayu, 30 orang butuh perahu, 2 lansia sakit",
    "location": {"lon": 106.866, "lat": -6.222, "accuracy_m": 30, "admin": "kemendagri:31.75.03"},
    "hazard": "flood",
    "severity": 3,
    "people": {"affected": 30},
}


@pytest.fixture
def db(make_db: Callable[[str], Database]) -> Database:
    return make_db("intake")


@pytest_asyncio.fixture
async def client(make_client: Callable[..., httpx.AsyncClient], db: Database) -> AsyncIterator[httpx.AsyncClient]:
    yield make_client([service])


async def link_all(db: Database, indexes: Indexes | None = None) -> None:
    """What the linker's loop does until nothing waits."""
    indexes = indexes or Indexes()
    while await link_waiting(db, indexes):
        pass


async def post(client: httpx.AsyncClient, report: dict[str, Any], **headers: str) -> dict[str, Any]:
    answer = await client.post("/v1/reports", json=report, headers=headers)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_report_from_anyone_becomes_an_incident_that_its_ticket_tells_of(
    client: httpx.AsyncClient, db: Database
) -> None:
    taken = await post(client, FLOOD)
    assert set(taken) == {"report_id", "ticket", "status_url", "needs_place"} and taken["needs_place"] is False
    before = (await client.get(taken["status_url"])).json()
    assert before["status"] == "received" and "incident" not in before
    await link_all(db)
    typed = taken["ticket"].lower().replace("-", " ")
    after = (await client.get(f"/v1/tickets/{typed}")).json()
    assert after["status"] == "linked"
    assert after["incident"]["title"] == "Banjir Kampung Melayu"
    assert [step["status"] for step in after["history"]] == ["received", "linked"]
    [received] = await emitted(db, ReportReceived)
    [linked] = await emitted(db, ReportLinked)
    [opened] = await emitted(db, IncidentOpened)
    assert str(received.report_id) == taken["report_id"] and received.operation == "standing"
    assert linked.incident_id == opened.incident_id and opened.people.affected == 30
    assert opened.point is not None and opened.severity == 3


async def test_batch_mixed(client: httpx.AsyncClient, db: Database) -> None:
    rows = [FLOOD | {"external_id": str(n), "source": "/files/x.csv"} for n in range(5)]
    answer = await client.post("/v1/reports:batch", json=[*rows, {"title": ""}], headers=bearer("field"))
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"], body["repeated"]) == (5, 1, 0)
    again = (await client.post("/v1/reports:batch", json=rows, headers=bearer("field"))).json()
    assert again["repeated"] == 5
    await link_all(db)
    assert len(await emitted(db, IncidentOpened)) == 1
