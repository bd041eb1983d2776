"""Writes happen once for a key, bodies stay within limits, and every fault is a problem document."""

from __future__ import annotations

import asyncio

import pytest
from fastapi import APIRouter, Request
from pydantic import BaseModel

from services.runtime.auth import Caller
from services.runtime.http import (
    body_of,
    cursor_of,
    database,
    from_cursor,
    idempotency_key,
    parse,
    write_once,
)
from services.runtime.problems import Invalid, NotKnownYet
from services.runtime.service import Service
from tests.conftest import bearer

router = APIRouter()


class Order(BaseModel):
    quantity: int
    wait_s: float = 0


@router.post("/orders")
async def order(request: Request, actor: Caller):
    body = await body_of(request, limit=2000)
    given = parse(body, Order)

    async def work(tx):
        await asyncio.sleep(given.wait_s)
        number = await tx.fetchval("INSERT INTO ordered (quantity) VALUES ($1) RETURNING id", given.quantity)
        if given.quantity == 404:
            raise NotKnownYet("no such need")
        return 202, {"number": number}

    return await write_once(
        database(request, "intake"), actor, idempotency_key(request, actor), body, "POST /orders", work
    )


@router.get("/crash")
async def crash():
    raise KeyError("ours")


@pytest.fixture
async def client(make_client, make_db):
    async with make_db("intake").tx() as tx:
        await tx.execute("CREATE TABLE ordered (id bigint GENERATED ALWAYS AS IDENTITY, quantity int)")
    return make_client([Service("intake", lambda: router)])


KEY = {"Idempotency-Key": '"0123456789abcdef"'}


async def test_equal_posts_with_one_key_give_equal_answers_also_at_once(client, make_db):
    posts = [client.post("/orders", json={"quantity": 1, "wait_s": 0.2}, headers=KEY) for _ in range(3)]
    answers = await asyncio.gather(*posts)
    answers.append(await client.post("/orders", json={"quantity": 1, "wait_s": 0.2}, headers=KEY))
    assert {(answer.status_code, answer.text) for answer in answers} == {(202, answers[0].text)}
    async with make_db("intake").tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM ordered") == 1


async def test_a_key_used_with_another_body_is_422(client):
    await client.post("/orders", json={"quantity": 1}, headers=KEY)
    answer = await client.post("/orders", json={"quantity": 2}, headers=KEY)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "header/Idempotency-Key"


async def test_a_key_belongs_to_its_sender(client):
    first = await client.post("/orders", json={"quantity": 1}, headers=KEY | bearer("operator", "a"))
    second = await client.post("/orders", json={"quantity": 2}, headers=KEY | bearer("operator", "b"))
    assert (first.status_code, second.status_code) == (202, 202)


async def test_a_short_key_is_refused_without_a_token(client):
    answer = await client.post("/orders", json={"quantity": 1}, headers={"Idempotency-Key": "short"})
    assert answer.status_code == 422
    answer = await client.post("/orders", json={"quantity": 1}, headers={"Idempotency-Key": "short"} | bearer("field"))
    assert answer.status_code == 202


async def test_a_refused_write_may_be_sent_again_with_its_key(client):
    answer = await client.post("/orders", json={"quantity": 404}, headers=KEY)
    assert (answer.status_code, answer.headers["retry-after"]) == (404, "1")
    assert (await client.post("/orders", json={"quantity": 404}, headers=KEY)).status_code == 404


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"quantity": "many"}', "/quantity"),
        (b"{}", "/quantity"),
        (b"{", ""),
        (b"", ""),
        (b'{"quantity": 1, "note": "\\u0000"}', "/note"),
        (b'{"quantity": NaN}', "/quantity"),
        (b"[" * 1000, ""),
    ],
)
async def test_a_fault_names_its_field(client, body, pointer):
    answer = await client.post("/orders", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert answer.json()["status"] == 422


async def test_a_large_body_is_not_read_to_its_end(client):
    assert (await client.post("/orders", content=b"x" * 3000)).status_code == 413

    async def endless():
        while True:
            yield b"x" * 1000

    assert (await client.post("/orders", content=endless())).status_code == 413


async def test_our_own_fault_says_nothing_of_itself(client):
    answer = await client.get("/crash")
    assert answer.status_code == 500
    assert "KeyError" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_forged_token_is_401_and_an_unknown_path_a_problem(client):
    answer = await client.post("/orders", json={"quantity": 1}, headers={"Authorization": "Bearer x.y.z"})
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert (await client.get("/nowhere")).headers["content-type"] == "application/problem+json"


async def test_a_database_that_does_not_answer_is_503_within_two_seconds(client, make_db, dsn, postgres):
    loop = asyncio.get_running_loop()
    async with make_db("intake").tx() as tx:
        await tx.execute("LOCK TABLE ordered")
        begun = loop.time()
        answer = await client.post("/orders", json={"quantity": 1}, headers=KEY)
        assert loop.time() - begun < 2.5
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    again = await client.post("/orders", json={"quantity": 1}, headers=KEY)
    assert again.status_code == 202


def test_a_cursor_comes_back_whole_and_others_are_refused():
    assert from_cursor(cursor_of([5, "a"]), 2) == [5, "a"]
    for bad in ("x", "!!!!", cursor_of([1]), "é"):
        with pytest.raises(Invalid):
            from_cursor(bad, 2)
