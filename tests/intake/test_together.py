"""Reports that share a transaction: each keeps its own Idempotency-Key, its own answer and its own fault."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest_asyncio

from schemas.reports import ReportReceived
from services.intake import together
from services.intake.app import service
from services.runtime.db import Database
from tests.conftest import emitted

FLOOD: dict[str, Any] = {"text": "Banjir 1 meter", "hazard": "flood", "location": {"lon": 106.866, "lat": -6.222}}


def keyed(n: int) -> dict[str, str]:
    return {"Idempotency-Key": f"a-key-long-enough-{n:04}"}


@pytest_asyncio.fixture
async def client(db: Database, make_client: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with make_client([service]) as opened:
        yield opened


async def test_equal_posts_at_once_get_equal_answers_beside_others_keys(client, db):
    posts = [client.post("/v1/reports", json=FLOOD | {"title": f"{n}"}, headers=keyed(n)) for n in range(8)]
    thrice = [client.post("/v1/reports", json=FLOOD | {"title": "x"}, headers=keyed(99)) for _ in range(3)]
    plain = [client.post("/v1/reports", json=FLOOD) for _ in range(5)]
    answers = await asyncio.gather(*posts, *thrice, *plain)
    assert [answer.status_code for answer in answers] == [202] * 16
    assert len({answer.content for answer in answers[8:11]}) == 1
    assert len({answer.json()["report_id"] for answer in answers}) == 14
    assert len(await emitted(db, ReportReceived)) == 14


async def test_a_repeat_among_new_reports_gets_the_first_answer_again(client, db):
    first = await client.post("/v1/reports", json=FLOOD, headers=keyed(1))
    again, other, new = await asyncio.gather(
        client.post("/v1/reports", json=FLOOD, headers=keyed(1)),
        client.post("/v1/reports", json=FLOOD | {"title": "Lain"}, headers=keyed(1)),
        client.post("/v1/reports", json=FLOOD, headers=keyed(2)),
    )
    assert again.status_code == 202 and again.content == first.content
    assert other.status_code == 422
    assert new.status_code == 202 and new.json()["report_id"] != first.json()["report_id"]
    assert len(await emitted(db, ReportReceived)) == 2


async def test_a_key_that_is_being_worked_on_elsewhere_holds_up_nobody_else(client, db):
    async with db.tx() as tx:
        await tx.execute(
            "INSERT INTO idempotency (actor, key, digest, made_at) VALUES ('public', $1, '\\x00', now())",
            keyed(1)["Idempotency-Key"],
        )
        stuck = asyncio.create_task(client.post("/v1/reports", json=FLOOD, headers=keyed(1)))
        others = await asyncio.gather(
            client.post("/v1/reports", json=FLOOD, headers=keyed(2)), client.post("/v1/reports", json=FLOOD)
        )
        assert [answer.status_code for answer in others] == [202, 202]
        assert (await stuck).status_code == 409
    assert len(await emitted(db, ReportReceived)) == 2


async def test_more_than_can_wait_is_refused_and_nothing_of_it_stored(client, db, monkeypatch):
    monkeypatch.setattr(together, "_MOST_WAITING", 3)
    answers = await asyncio.gather(*(client.post("/v1/reports", json=FLOOD) for _ in range(12)))
    taken = sum(answer.status_code == 202 for answer in answers)
    refused = [answer for answer in answers if answer.status_code == 503]
    assert taken >= 3 and taken + len(refused) == 12 and refused
    assert all(answer.headers["retry-after"] for answer in refused)
    assert len(await emitted(db, ReportReceived)) == taken
