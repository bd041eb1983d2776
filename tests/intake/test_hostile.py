"""Hostile bodies on every route of intake that writes: each a problem document that names the field, and nothing is
stored, not even half of it."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from services.intake.linker import Indexes, link_waiting
from services.runtime.db import Database
from services.runtime.http import hostile_place
from services.runtime.problems import MEDIA_TYPE
from tests.conftest import bearer

ADMIN = bearer("admin")
PLACE = {"lon": 106.8, "lat": -6.2}
DEEP = 100_000

BODIES: dict[str, tuple[dict[str, Any], str, str | None]] = {
    "POST /v1/reports": ({"text": "Banjir", "location": PLACE}, "text", "location"),
    "POST /v1/reports:batch": ({"text": "Banjir", "location": PLACE}, "text", "location"),
    "PATCH /v1/reports/{report_id}": ({"location": PLACE, "reason": "x"}, "reason", "location"),
    "POST /v1/contacts:erase": ({"phone": "+6281234567890", "reason": "x"}, "reason", None),
    "POST /v1/tickets/{ticket}/confirm": ({"received": "yes"}, "received", None),
    "POST /v1/incidents/{incident_id}/merge": ({"into": str(uuid4()), "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/split": ({"reports": [str(uuid4())], "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/link": ({"report": str(uuid4()), "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/unlink": ({"report": str(uuid4()), "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/verify": ({"evidence": "official", "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/protect": ({"sensitivity": None, "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/move": ({"operation": "standing", "reason": "x"}, "reason", None),
    "POST /v1/incidents/{incident_id}/close": ({"reason": "x"}, "reason", None),
    "POST /v1/needs": ({"item": "tent", "quantity": 1, "location": PLACE, "reason": "x"}, "reason", "location"),
    "PATCH /v1/needs/{need_id}": ({"quantity": 2, "location": PLACE, "reason": "x"}, "reason", "location"),
    "PATCH /v1/family-links/{link_id}": ({"outcome": "x", "reason": "x"}, "reason", None),
    "POST /v1/needs/{need_id}/confirm": ({"received": "yes", "reason": "x"}, "reason", None),
}
"""Of each route a body that is fine, the field in which a text may be wrong, and the one in which a place may be."""
NOT_JSON = ("/v1/warnings", "/v1/hooks/", "/v1/media", "/v1/quarantine")
"""Routes that take something else than our own JSON, each with tests of its own."""


async def there(client: httpx.AsyncClient, db: Database) -> dict[str, str]:
    """What the paths name: a report, its ticket, its incident, a need."""
    taken = (await client.post("/v1/reports", json={"text": "Banjir sepinggang", "location": PLACE})).json()
    while await link_waiting(db, Indexes()):
        pass
    incident = (await client.get(taken["status_url"])).json()["incident"]["id"]
    need = await client.post("/v1/needs", json=BODIES["POST /v1/needs"][0], headers=ADMIN)
    return {
        "report_id": taken["report_id"],
        "ticket": taken["ticket"],
        "incident_id": incident,
        "need_id": need.json()["id"],
        "link_id": str(uuid4()),  # judged before it is looked for
    }


async def stored(db: Database) -> list[Any]:
    """Everything that a write of intake could leave behind."""
    async with db.tx() as tx:
        found = []
        for table in (
            "report",
            "incident",
            "incident_fact",
            "need",
            "need_ask",
            "link_change",
            "outbox",
            "idempotency",
        ):
            found.append(
                (table, await tx.fetchval(f"SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {table} t"))
            )
        return found


def hostile(body: dict[str, Any], text: str, place: str | None) -> list[tuple[str, bytes, str]]:
    """(what, body, pointer that must be named)."""
    cases: list[tuple[str, bytes, str]] = []
    for what, value in (
        ("NUL", "a\x00b"),
        ("override", "aman \u202egnay"),
        ("override of left to right", "\u202daman"),
        ("half a pair", "\ud83d lambang"),
        ("the other half", "\udc00"),
    ):
        raw = json.dumps({**body, text: value}).encode()
        cases.append((f"{what}, escaped", raw, f"/{text}"))
        if not what.startswith(("half", "the other", "NUL")):
            cases.append((what, json.dumps({**body, text: value}, ensure_ascii=False).encode(), f"/{text}"))
    cases.append(("half a pair in a name", json.dumps({**body, "\ud800": 1}).encode(), ""))
    cases.append(("10 MB", json.dumps({**body, text: "a" * 10_000_000}).encode(), ""))
    cases.append(("11,000 letters", json.dumps({**body, text: "a" * 11_000}).encode(), f"/{text}"))
    deep = b"[" * DEEP + b"]" * DEEP
    cases.append(("deep", json.dumps({**body, "extra": "@"}).encode().replace(b'"@"', deep), ""))
    cases.append(("deep objects", b'{"text":' * DEEP + b"1" + b"}" * DEEP, ""))
    cases.append(("cut off", json.dumps(body).encode()[:-1], ""))
    cases.append(("bytes that are no text", b'{"' + text.encode() + b'": "\xff\xfe"}', ""))
    if place is not None:
        for what, point, pointer in (
            ("NaN", '{"lon": NaN, "lat": -6.2}', f"/{place}/lon"),
            ("infinity", '{"lon": 106.8, "lat": -Infinity}', f"/{place}/lat"),
            ("1e999", '{"lon": 1e999, "lat": -6.2}', f"/{place}/lon"),
            ("lon 200", '{"lon": 200, "lat": -6.2}', f"/{place}/lon"),
            ("lat -91", '{"lon": 106.8, "lat": -91}', f"/{place}/lat"),
            ("words", '{"lon": "east", "lat": -6.2}', f"/{place}/lon"),
            ("half a place", '{"lon": 106.8}', f"/{place}"),
            ("digits without a scheme", '{"admin": "3175"}', f"/{place}/admin"),
        ):
            cases.append((what, json.dumps({**body, place: "@"}).replace('"@"', point).encode(), pointer))
    return cases


async def test_every_route_that_takes_json_is_tried(client):
    document = (await client.get("/openapi.json")).json()
    takes_json = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method, route in item.items()
        if "application/json" in route.get("requestBody", {}).get("content", {}) and not path.startswith(NOT_JSON)
    }
    assert takes_json - set(BODIES) == set(), "give these a body to be spoilt"


@pytest.mark.parametrize("route", BODIES)
async def test_a_hostile_body_is_a_problem_that_names_the_field_and_stores_nothing(client, db, route):
    method, path = route.split()
    path = path.format(**await there(client, db))
    before = await stored(db)
    for what, body, pointer in hostile(*BODIES[route]):
        if route.endswith(":batch"):
            await batch_refuses(client, path, what, body, pointer)
        else:
            headers = {**ADMIN, "Content-Type": "application/json"}
            answer = await client.request(method, path, content=body, headers=headers)
            assert answer.status_code in (413, 422), (what, answer.status_code, answer.text[:300])
            assert answer.headers["content-type"] == MEDIA_TYPE
            problem = answer.json()
            assert problem["errors"] and problem["errors"][0]["detail"] and problem["detail"], (what, problem)
            assert problem["errors"][0]["pointer"] == pointer, (what, problem)
        assert await stored(db) == before, what


async def batch_refuses(client: httpx.AsyncClient, path: str, what: str, row: bytes, pointer: str) -> None:
    """One bad row costs no other: as an array it is refused alone or with all that cannot be told apart from it."""
    headers = {**ADMIN, "Content-Type": "application/x-ndjson"}
    answer = await client.post(path, content=row, headers=headers)
    if answer.status_code == 207:
        [result] = answer.json()["results"]
        assert "report_id" not in result, (what, result)
        said = result["error"]["errors"]
    else:
        assert answer.status_code == 422 and answer.headers["content-type"] == MEDIA_TYPE, (what, answer.text[:300])
        said = answer.json()["errors"]
    if what == "10 MB":  # a batch may be that large, a report's text may not
        pointer = "/text"
    assert said[0]["pointer"] == pointer and said[0]["detail"], (what, said)


async def test_a_bad_row_is_refused_and_its_neighbours_are_taken(client, db):
    rows = [{"text": "baik", "location": PLACE}, {"text": "\u202ejahat"}, {"text": "juga baik", "location": PLACE}]
    answer = await client.post("/v1/reports:batch", json=rows, headers=ADMIN)
    assert answer.status_code == 207 and answer.json()["accepted"] == 2
    assert answer.json()["results"][1]["error"]["errors"][0]["pointer"] == "/text"


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"a": ["x", "y\x00"]}, "/a/1"),
        ({"a": {"b": "\u202e"}}, "/a/b"),
        ("\ud800", ""),
        ({"a": "tulisan kanan ke kiri: \u0627\u0644\u0633\u0644\u0627\u0645 \u200f \U0001f30a"}, None),
        ([1, None, True, 2.5], None),
    ],
)
def test_the_place_of_a_hostile_character_is_named_and_other_scripts_are_welcome(value: Any, pointer: str | None):
    fault = hostile_place(value)
    assert (fault.pointer if fault else None) == pointer


async def test_a_pair_of_surrogates_and_a_written_escape_are_taken(client):
    for raw in (rb'{"text": "banjir \ud83c\udf0a"}', rb'{"text": "ditulis \\u0000 begitu"}'):
        answer = await client.post("/v1/reports", content=raw, headers={"Content-Type": "application/json"})
        assert answer.status_code == 202, answer.text
