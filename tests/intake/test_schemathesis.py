"""Calls drawn from intake's own OpenAPI document: none may crash a route, none may get a status that is not told of.

The routes run in a server of their own with a loop of their own, as in production, and not in the test's. Half of the
calls that name something name a thing that is there, so that they get beyond "there is no such".
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any, NamedTuple, TypeVar

import httpx
import pytest
import requests
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.generation import GenerationMode

from services.intake.app import service
from services.intake.linker import Indexes, link_waiting
from services.runtime.db import Database
from services.runtime.problems import MEDIA_TYPE
from services.runtime.service import build_app
from services.runtime.settings import Settings
from tests.conftest import bearer

SEED = 20261124
SHORT = 3
"""Calls of each route, mode and caller in the suite."""
LONG = 20_000
PATIENCE_S = 120
T = TypeVar("T")
ROLES = ({}, bearer("admin", hours=24), bearer("partner", org="pmi", hours=24))


class Origin(NamedTuple):
    """Where intake's routes answer, the database behind them, and their OpenAPI document."""

    base: str
    dsn: str
    document: dict[str, Any]


@pytest.fixture
def origin(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Origin]:
    """Intake's routes in a server of their own."""
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    app = build_app([service], Settings(database=dsn, pool_size=5))  # type: ignore[arg-type]
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 120
    while not server.started:
        assert time.monotonic() < deadline and thread.is_alive(), "the server does not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield Origin(f"http://127.0.0.1:{port}", dsn, app.openapi())
    server.should_exit = True
    thread.join(60)


async def link(dsn: str) -> None:
    """Link what waits, as the worker would."""
    db = Database(dsn, "intake", pool_size=2)
    indexes = Indexes()
    while await link_waiting(db, indexes):
        pass
    await db.close()


def insisted(call: Callable[[], T]) -> T:
    """The answer of a call, made again while the database takes too long: a busy machine is no fault of a route."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = call()
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer


def planted(base: str, dsn: str) -> dict[str, list[str]]:
    """Things that are there, by the name of the parameter that asks for one."""
    with httpx.Client(base_url=base, timeout=PATIENCE_S) as client:

        def post(path: str, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
            answer = insisted(lambda: client.post(path, json=body, headers=headers))
            assert answer.is_success, answer.text
            made: dict[str, Any] = answer.json()
            return made

        where = {"lon": 106.8, "lat": -6.2}
        report = post("/v1/reports", {"text": "Banjir sepinggang, butuh perahu", "location": where}, {})
        unplaced = post("/v1/reports", {"text": "tolong"}, {})
        need = post("/v1/needs", {"item": "tent", "quantity": 5, "location": where}, bearer("operator"))
        asyncio.run(link(dsn))
        incident = insisted(lambda: client.get(report["status_url"])).json()["incident"]["id"]
    return {
        "incident_id": [incident],
        "report_id": [report["report_id"], unplaced["report_id"]],
        "ticket": [report["ticket"], unplaced["ticket"]],
        "need_id": [need["id"]],
    }


class Calls:
    """Calls made and what came of them: how many got which status, and what was wrong by route and status."""

    def __init__(self, base: str, dsn: str) -> None:
        self.base = base
        self.there = planted(base, dsn)
        self.statuses: Counter[str] = Counter()
        self.wrong: dict[str, str] = {}
        self.session = requests.Session()

    def of(self, route: Any, mode: GenerationMode, times: int) -> None:
        """Call one route so often, drawn right or wrong as `mode` says, by turns without a token and with two."""
        documented = set(route.definition.raw["responses"])
        turns = count()

        @seed(SEED)
        @settings(
            max_examples=times, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(case=route.as_strategy(generation_mode=mode))
        def drawn(case: Any) -> None:
            turn = next(turns)
            for name, values in self.there.items():
                if name in (case.path_parameters or {}) and turn // 2 % 2:
                    case.path_parameters[name] = values[turn // 4 % len(values)]
            headers = ROLES[turn % len(ROLES)]
            answer = insisted(
                lambda: case.call(base_url=self.base, session=self.session, headers=headers, timeout=PATIENCE_S)
            )
            status, kind = str(answer.status_code), answer.headers["content-type"][0]
            self.statuses[status] += 1
            if status[0] == "5" or status not in documented or (status[0] == "4" and kind != MEDIA_TYPE):
                said = f"{case.as_curl_command()[:1500]} -> {kind} {answer.content[:300]!r}"
                place = f"{route.method.upper()} {route.path} {status}"
                if place not in self.wrong:
                    print(f"{place}: {said}", flush=True)
                self.wrong.setdefault(place, said)

        with suppress(Unsatisfiable):  # nothing can be wrong with a call that takes nothing
            drawn()


def call_all(origin: Origin, each: Callable[[int], int]) -> Counter[str]:
    """Call every route, right and wrong, with and without a token; `each` says how often, by the number of routes.
    Answers with how many calls got which status."""
    calls = Calls(origin.base, origin.dsn)
    schema = schemathesis.openapi.from_dict(origin.document)
    routes = [result.ok() for result in schema.get_all_operations()]
    times = each(len(routes))
    for route in routes:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            calls.of(route, mode, times)
        print(f"{route.method.upper()} {route.path}: {calls.statuses.total()} calls so far", flush=True)
    ticket = f"{origin.base}/v1/tickets/{calls.there['ticket'][0]}"
    assert insisted(lambda: httpx.get(ticket, timeout=PATIENCE_S)).status_code == 200  # it still is there
    assert calls.wrong == {}, "\n".join(f"{place}: {said}" for place, said in calls.wrong.items())
    return calls.statuses


@pytest.mark.timeout(1800)
def test_no_call_of_the_documented_interface_crashes_or_gets_an_untold_status(origin: Origin) -> None:
    statuses = call_all(origin, lambda _: SHORT * len(ROLES))
    # Made-up bodies are seldom taken; which of them are is left to chance.
    assert {"401", "422"} <= set(statuses) and {"200", "201", "202"} & set(statuses), statuses


@pytest.mark.slow
@pytest.mark.timeout(14400)
def test_twenty_thousand_calls_neither_crash_nor_get_an_untold_status(origin: Origin) -> None:
    statuses = call_all(origin, lambda routes: -(-LONG * 11 // (routes * 20)))
    print(f"{statuses.total()} calls: {dict(sorted(statuses.items()))}")
    assert statuses.total() >= LONG, statuses
