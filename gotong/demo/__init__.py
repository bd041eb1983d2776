"""The demo: a small exercise operation, posted through the public HTTP API as any client would.

The files beside this module hold a flood drill on the upper Citarum (Kabupaten Bandung). Every person, number and
organisation in them is made up; telephone numbers use the prefix 0840, which is not given out, so that nobody can
be reached by mistake. Loading twice adds nothing.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from services.runtime import clock

OPERATION = "demo-banjir-citarum-2026"
SOURCE = "/demo/banjir-citarum"

Progress = Callable[[str, int, int], None]

_FOLDER = Path(__file__).parent
_RETRIED = {425, 429, 502, 503, 504}
_LONGEST_PAUSE_S = 5.0


class DemoRefused(Exception):
    """The server answered, and said no; the message is for people."""


class DemoTimeout(Exception):
    """The server was not reachable or not ready before the deadline."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the server now holds of the demo; `repeated` of the records it already knew."""

    operation: str
    organisations: int
    responders: int
    resources: int
    reports: int
    needs: int
    repeated: int


def load(url: str, token: str | None = None, progress: Progress | None = None, deadline_s: float = 120) -> Loaded:
    """Post the demo operation to the server at `url`.

    `token` is a bearer token of the role operator or admin. `progress` is told the step, how many of its records are
    done, and how many there are. While the server is away or not ready, it is asked again until `deadline_s` is over.

    Raises
    ------
    DemoRefused
        The server refused a record; nothing is tried again.
    DemoTimeout
        The deadline passed; another call goes on where this one stopped.
    """
    tell = progress or (lambda step, done, total: None)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, timeout=15) as http:
        server = _Server(http, time.monotonic() + deadline_s)
        operation = _read("operation.json")
        repeated = server.make("/v1/operations", OPERATION, operation)
        tell("operation", 1, 1)
        organisations = _read("organisations.json")
        for done, organisation in enumerate(organisations, start=1):
            repeated += server.make("/v1/organisations", organisation["id"], organisation)
            tell("organisations", done, len(organisations))
        responders = [{**row, "source": SOURCE, "operation": OPERATION} for row in _read("responders.json")]
        repeated += server.batch("/v1/responders:batch", responders)
        tell("responders", len(responders), len(responders))
        resources = [{**row, "source": SOURCE} for row in _read("resources.json")]
        repeated += server.batch("/v1/resources:batch", resources)
        tell("resources", len(resources), len(resources))
        reports = _reports()
        repeated += server.batch("/v1/reports:batch", reports)
        tell("reports", len(reports), len(reports))
        needs = _read("needs.json")
        for done, need in enumerate(needs, start=1):
            body = {**{name: value for name, value in need.items() if name != "id"}, "operation": OPERATION}
            server.send("/v1/needs", body, key=f"{OPERATION}/{need['id']}")
            tell("needs", done, len(needs))
    return Loaded(
        operation=OPERATION,
        organisations=len(organisations),
        responders=len(responders),
        resources=len(resources),
        reports=len(reports),
        needs=len(needs),
        repeated=repeated,
    )


def _read(name: str) -> Any:
    return json.loads((_FOLDER / name).read_text(encoding="utf-8"))


def _reports() -> list[dict[str, Any]]:
    """The reports, oldest first, as if they had been seen in the last four hours."""
    now = clock.now()
    reports = []
    for row in sorted(_read("reports.json"), key=lambda row: -row["minutes_ago"]):
        seen = now - timedelta(minutes=row["minutes_ago"])
        body = {name: value for name, value in row.items() if name != "minutes_ago"}
        reports.append({**body, "observed_at": seen.isoformat(), "source": SOURCE, "operation": OPERATION})
    return reports


@dataclass(slots=True)
class _Server:
    http: httpx.Client
    deadline: float

    def make(self, path: str, id: str, body: dict[str, Any]) -> int:
        """Create what has an id of its own; 1 when it was there already, else 0."""
        # Asked by GET first: a POST of an id that exists may be a conflict on one release and an answer on another.
        if self._ask("GET", f"{path}/{id}", answers=frozenset({404})).status_code != 404:
            return 1
        answer = self._ask("POST", path, json=body, key=f"{OPERATION}{path}/{id}", answers=frozenset({409}))
        return 1 if answer.status_code == 409 else 0

    def send(self, path: str, body: dict[str, Any], key: str) -> None:
        self._ask("POST", path, json=body, key=key)

    def batch(self, path: str, rows: list[dict[str, Any]]) -> int:
        """Send rows that carry `source` and `external_id`; how many of them were known already."""
        # No Idempotency-Key: the rows' own ids say what is a repeat, and reports carry times that differ next time.
        answer = self._ask("POST", path, json=rows).json()
        if answer.get("rejected"):
            first = next((result for result in answer["results"] if result.get("error")), None)
            index = first["index"] if first else 0
            raise DemoRefused(
                f"{path} refused {answer['rejected']} of {len(rows)} records; the first is "
                f"{rows[index]['external_id']}: {first['error'] if first else 'no reason given'}"
            )
        return int(answer.get("repeated", 0))

    def _ask(
        self, method: str, path: str, *, json: Any = None, key: str | None = None, answers: frozenset[int] = frozenset()
    ) -> httpx.Response:
        """One request, sent again while the server is away or asks for patience.

        `answers`: failing statuses that the caller takes for an answer, unless the server asks to try again.
        """
        headers = {"Idempotency-Key": f'"{key}"'} if key else {}
        pause = 0.1
        while True:
            try:
                answer = self.http.request(method, path, json=json, headers=headers)
            except httpx.TransportError as error:
                trouble, asked = f"{type(error).__name__} {error}".strip(), None
            else:
                asked = _retry_after_s(answer)
                # What another service has just made is not known everywhere at once (404), and a twin of this request
                # may be under way (409): both then say when to come back.
                patience = answer.status_code in _RETRIED or (answer.status_code in (404, 409) and asked is not None)
                if answer.is_success or (answer.status_code in answers and not patience):
                    return answer
                trouble = _said(method, path, answer)
                if not patience:
                    raise DemoRefused(trouble)
            wait = pause if asked is None else asked
            if time.monotonic() + wait > self.deadline:
                raise DemoTimeout(f"the demo could not be loaded in time; the last trouble: {trouble}")
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE_S)


def _retry_after_s(answer: httpx.Response) -> float | None:
    """Seconds to wait as the server says; None when it does not, or says it as a date."""
    value = answer.headers.get("Retry-After", "").strip()
    return min(float(value), 60.0) if value.isdecimal() else None


def _said(method: str, path: str, answer: httpx.Response) -> str:
    try:
        problem = answer.json()
        detail = problem.get("detail") or problem.get("title") or ""
        errors = "; ".join(f"{error.get('pointer')}: {error.get('detail')}" for error in problem.get("errors", []))
    except (ValueError, AttributeError, TypeError):
        detail, errors = answer.text[:200], ""
    return f"{method} {path} answered {answer.status_code} {detail} {errors}".strip()
