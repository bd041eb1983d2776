"""The demo operation: its records are well made, and its loader is patient with a server and plain with a refusal."""

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import phonenumbers
import pytest

from gotong import demo
from schemas import vocabulary
from schemas.values import Damage, Location, PeopleCount, StatedNeed
from services.intake.linking import Linker, LinkReport

FOLDER = Path(demo.__file__).parent


def read(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


# The records


def test_the_operation_is_a_drill_and_says_so() -> None:
    operation = read("operation.json")
    assert operation["id"] == demo.OPERATION
    assert operation["exercise"] is True
    assert operation["title"].startswith("LATIHAN")
    assert all(vocabulary.area(*vocabulary.split(code)) for code in operation["areas"])
    assert set(operation["hazards"]) <= set(vocabulary.known_hazards())
    assert operation["lead"] in {organisation["id"] for organisation in read("organisations.json")}


@pytest.mark.parametrize("name", ["responders.json", "resources.json", "reports.json"])
def test_external_ids_are_unique(name: str) -> None:
    ids = [row["external_id"] for row in read(name)]
    assert len(ids) == len(set(ids))


def test_every_word_is_in_the_vocabulary() -> None:
    for responder in read("responders.json"):
        assert {skill["skill"] for skill in responder["skills"]} <= set(vocabulary.known_skills())
    needs = [need for report in read("reports.json") for need in report.get("needs", [])]
    for entry in (*read("resources.json"), *read("needs.json"), *needs):
        assert entry.get("item") in {None, *vocabulary.known_items()}
        assert entry.get("skill") in {None, *vocabulary.known_skills()}
    assert {report.get("hazard") for report in read("reports.json")} <= {None, *vocabulary.known_hazards()}


def test_every_position_lies_in_the_operation() -> None:
    west, south, east, north = read("operation.json")["bbox"]
    placed = [
        row["location"]
        for name in ("responders.json", "resources.json", "reports.json", "needs.json")
        for row in read(name)
        if "lon" in row.get("location", {})
    ]
    assert len(placed) > 60
    for location in placed:
        assert west < location["lon"] < east and south < location["lat"] < north, location


def test_reports_are_of_the_shape_that_events_carry() -> None:
    for report in read("reports.json"):
        assert report["text"].strip() and report["minutes_ago"] > 0
        Location.model_validate(report.get("location", {}), extra="forbid")
        PeopleCount.model_validate(report.get("people", {}), extra="forbid")
        Damage.model_validate(report.get("damage", {}), extra="forbid")
        for need in report.get("needs", []):
            StatedNeed.model_validate(need, extra="forbid")


def test_the_scenario_shows_linking_unplaced_reports_and_needs() -> None:
    reports = read("reports.json")
    points = [(r["location"]["lon"], r["location"]["lat"]) for r in reports if "lon" in r.get("location", {})]
    near = Counter((round(lon, 2), round(lat, 2)) for lon, lat in points)
    assert sum(1 for count in near.values() if count >= 3) >= 5
    assert sum(1 for r in reports if "lon" not in r.get("location", {}) and "admin" not in r.get("location", {})) >= 2
    assert sum(1 for r in reports if r.get("needs")) >= 12


def test_reports_of_one_place_are_linked_by_the_rules_as_they_are() -> None:
    linker, sizes = Linker(), Counter[UUID]()
    began = datetime(2026, 11, 24, tzinfo=UTC)
    for report in sorted(read("reports.json"), key=lambda row: -row["minutes_ago"]):
        location = report.get("location", {})
        if "lon" not in location:
            continue
        seen = LinkReport(
            report_id=uuid4(),
            text=f"{report.get('title', '')} {report['text']}".strip(),
            lon=location["lon"],
            lat=location["lat"],
            admin=location.get("admin"),
            observed_at=began - timedelta(minutes=report["minutes_ago"]),
            hazard=report.get("hazard"),
            contact=None,
            location_text=location.get("place"),
        )
        incident = linker.decide(seen).incident_id or uuid4()
        linker.add(seen, incident)
        sizes[incident] += 1
    assert sum(1 for size in sizes.values() if size >= 3) >= 5
    assert max(sizes.values()) <= 8


def test_no_telephone_number_in_it_can_be_somebodys() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json"))
    numbers = re.findall(r"\+\d{9,15}", text) + re.findall(r"\b0\d{2,3}-\d{3,4}-\d{3,4}\b", text)
    assert len(numbers) > 20
    for number in numbers:
        assert not phonenumbers.is_valid_number(phonenumbers.parse(number, "ID")), number


# The loader, against a server of the standard library that answers as each test says


@dataclass
class Script:
    """What the server answers: `scripted` first, one for each call of that method and path, then what is usual."""

    scripted: dict[tuple[str, str], list[tuple[int, dict[str, str], Any]]] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    calls: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, dict[str, str], Any]:
        self.calls.append((method, path, headers, body))
        waiting = self.scripted.get((method, path))
        if waiting:
            return waiting.pop(0)
        if method == "GET":
            return (200 if path in self.known else 404), {}, {}
        if path.endswith(":batch"):
            names = [f"{path}/{row['source']}/{row['external_id']}" for row in body]
            repeated = sum(name in self.known for name in names)
            self.known.update(names)
            return 207, {}, {"accepted": len(names) - repeated, "rejected": 0, "repeated": repeated, "results": []}
        self.known.add(f"{path}/{body['id']}" if "id" in body else headers["Idempotency-Key"])
        return 201, {}, {}


@contextmanager
def serve(script: Script, port: int = 0) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, answer = script.answer(
                self.command, self.path, dict(self.headers.items()), json.loads(body) if body else None
            )
            payload = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(payload))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        do_POST = do_GET

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_second_load_adds_nothing() -> None:
    script = Script()
    with serve(script) as url:
        first = demo.load(url, "a-token")
        known = set(script.known)
        second = demo.load(url, "a-token")
    assert first.repeated == 0 and first.reports >= 30
    assert second.repeated == 1 + first.organisations + first.responders + first.resources + first.reports
    assert script.known == known
    assert all(headers["Authorization"] == "Bearer a-token" for _, _, headers, _ in script.calls)


def test_what_has_no_external_id_carries_the_same_key_and_body_each_time() -> None:
    script = Script()
    with serve(script) as url:
        demo.load(url)
        demo.load(url)
    sent: dict[str, list[Any]] = {}
    for _, path, headers, body in script.calls:
        if path == "/v1/needs":
            sent.setdefault(headers["Idempotency-Key"], []).append(body)
    assert len(sent) == len(read("needs.json"))
    assert all(len(bodies) == 2 and bodies[0] == bodies[1] for bodies in sent.values())


def test_reports_go_out_oldest_first_and_none_from_the_future() -> None:
    script = Script()
    with serve(script) as url:
        demo.load(url)
    (sent,) = [body for _, path, _, body in script.calls if path == "/v1/reports:batch"]
    times = [row["observed_at"] for row in sent]
    assert times == sorted(times)
    assert all("minutes_ago" not in row and row["operation"] == demo.OPERATION for row in sent)


def test_the_loader_waits_for_what_is_not_ready_yet() -> None:
    script = Script(
        {
            ("POST", "/v1/operations"): [(503, {"Retry-After": "0"}, {"title": "database is away"}), (502, {}, {})],
            ("POST", "/v1/needs"): [(404, {"Retry-After": "0"}, {"title": "operation not known yet"})] * 3,
            ("POST", "/v1/organisations"): [(409, {"Retry-After": "0"}, {"title": "the same request is under way"})],
        }
    )
    with serve(script) as url:
        loaded = demo.load(url)
    assert loaded.needs == len(read("needs.json"))
    assert not any(script.scripted.values())


def test_the_loader_waits_for_a_server_that_is_not_up_yet() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    result: list[demo.Loaded] = []
    loader = threading.Thread(target=lambda: result.append(demo.load(f"http://127.0.0.1:{port}")))
    loader.start()
    with serve(Script(), port):
        loader.join(timeout=30)
    assert result and result[0].operation == demo.OPERATION


def test_a_refusal_is_told_at_once_with_the_field() -> None:
    problem = {"title": "Not valid", "detail": "", "errors": [{"pointer": "/areas/0", "detail": "unknown area"}]}
    script = Script({("POST", "/v1/operations"): [(422, {}, problem)]})
    with serve(script) as url, pytest.raises(demo.DemoRefused, match="/areas/0: unknown area"):
        demo.load(url)
    assert [path for method, path, _, _ in script.calls if method == "POST"] == ["/v1/operations"]


def test_a_refused_row_of_a_batch_is_named() -> None:
    refusal = {"accepted": 1, "rejected": 1, "results": [{"index": 0}, {"index": 1, "error": "no such organisation"}]}
    script = Script({("POST", "/v1/responders:batch"): [(207, {}, refusal)]})
    second = read("responders.json")[1]["external_id"]
    with serve(script) as url, pytest.raises(demo.DemoRefused, match=f"{second}: no such organisation"):
        demo.load(url)


def test_a_server_that_never_comes_is_given_up_at_the_deadline() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(demo.DemoTimeout, match="last trouble"):
            demo.load(url, deadline_s=0.5)
        assert time.monotonic() - began < 5
