"""Skills grow by confirmed work, which they cite, and by a leader's word, within limits."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import httpx
import pytest

from schemas.assignments import AssignmentConfirmed
from schemas.responders import ResponderState
from schemas.values import Period
from services.registry.app import service
from services.registry.domain import earned_level
from services.registry.handlers import consumer
from services.runtime import clock
from services.runtime.db import Database
from tests.conftest import Wire, bearer, emitted
from tests.registry.people import DESK, PMI, SITI, patient


@pytest.fixture
def client(make_client) -> httpx.AsyncClient:
    return patient(make_client([service]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


async def joined(client: httpx.AsyncClient, phone: str, *, by_code: bool = True) -> str:
    body = SITI | {"phone": phone} | ({"confirm_by": "code"} if by_code else {})
    return str((await client.post("/v1/responders", json=body, headers=DESK)).json()["responder_id"])


def confirmed(who: str, skill: str, *, exercise: bool = False) -> AssignmentConfirmed:
    start = clock.now() - timedelta(hours=5)
    return AssignmentConfirmed(
        operation="standing", exercise=exercise, assignment_id=uuid4(), need_id=uuid4(), responder_id=UUID(who),
        skill=skill, quantity=1, state="confirmed", period=Period(start=start, end=start + timedelta(hours=4)),
        by="public:ticket",
    )  # fmt: skip


async def skills(db: Database, who: str) -> dict[str, tuple[int, str, int]]:
    last = [event for event in await emitted(db, ResponderState) if str(event.responder_id) == who][-1]
    return {skill.skill: (skill.level, skill.basis, len(skill.cites)) for skill in last.skills}


async def test_confirmed_work_is_cited_and_lifts_low_risk_skills_once_each(client, db):
    who = await joined(client, "081311112222")
    wire = Wire(consumer, db)
    events = [confirmed(who, "cook") for _ in range(3)]
    for event in [*events, *events]:
        await wire.deliver(event)
    assert (await skills(db, who))["cook"] == (2, "earned", 3)
    for _ in range(9):
        await wire.deliver(confirmed(who, "cook"))
        await wire.deliver(confirmed(who, "cook", exercise=True))
    assert (await skills(db, who))["cook"] == (3, "earned", 5)
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM work") == 12
    # What an organisation checked keeps its level and says what was done with it; risky work lifts nothing.
    nurse = await joined(client, "081322223333", by_code=False)
    for _ in range(9):
        await wire.deliver(confirmed(nurse, "nurse"))
    assert (await skills(db, nurse))["nurse"] == (1, "checked", 5)
    await wire.deliver(confirmed(str(uuid4()), "cook"))


def test_levels_are_earned_by_threes_up_to_three():
    assert [earned_level("cook", 1, n) for n in (0, 2, 3, 5, 6, 60)] == [1, 1, 2, 2, 3, 3]
    assert earned_level("cook", 5, 60) == 5
    assert earned_level("nurse", 1, 60) == 1
    assert earned_level("juru_sulap", 1, 60) == 1


async def test_a_leader_vouches_within_limits_and_nobody_else(client, db):
    leader, neighbour = await joined(client, "081311112222", by_code=False), await joined(client, "081322223333")
    own, url = bearer("responder", leader, hours=9000), f"/v1/responders/{neighbour}/vouch"
    word = {"skill": "juru masak", "level": 2, "reason": "memasak di dapur umum tahun lalu"}
    assert (await client.post(url, json=word, headers=own)).status_code == 403
    naming = {"leader": True, "reason": "ketua RW"}
    assert (await client.post(f"/v1/responders/{leader}/leader", json=naming, headers=PMI)).status_code == 403
    assert (await client.post(f"/v1/responders/{leader}/leader", json=naming, headers=DESK)).status_code == 200
    assert (await client.post(url, json=word, headers=own)).status_code == 200
    assert (await skills(db, neighbour))["cook"] == (2, "vouched", 0)
    for wrong in ({"skill": "nurse"}, {"level": 3}):
        assert (await client.post(url, json=word | wrong, headers=own)).status_code == 403
    assert (await client.post(f"/v1/responders/{leader}/vouch", json=word, headers=own)).status_code == 403
    assert (await client.post(url, json=word, headers=DESK)).status_code == 403
    async with db.tx() as tx:
        await tx.execute(
            "INSERT INTO vouch (leader, responder_id, skill, at) "
            "SELECT $1, $2, 'skill_' || n, $3 FROM generate_series(1, 19) AS n",
            UUID(leader),
            UUID(neighbour),
            clock.now(),
        )
    assert (await client.post(url, json=word | {"skill": "driver"}, headers=own)).status_code == 409
    clock.shift(timedelta(days=31))
    assert (await client.post(url, json=word | {"skill": "driver"}, headers=own)).status_code == 200
