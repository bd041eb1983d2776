"""Replay sends every row until it is answered, counts what became of it, and never counts its own repeats.

The server here is scripted, because it has to fail at given moments; it knows ids and repeats as intake does.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from services.runtime import auth
from services.runtime.settings import Settings

COLUMNS = "id=no,text=isi,lat=lat,lon=lon"
Step = Callable[["Handler", bytes], bool]
"""What the server does with one request before (or instead of) answering it; True: it was answered."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server.requests.append((time.monotonic(), self.path, dict(self.headers), body))
        step = server.steps.pop(0) if server.steps else None
        if step is not None and step(self, body):
            return
        self.answer(207, server.take(body, self.headers["Idempotency-Key"]))

    def answer(self, status: int, document: Any, **headers: str) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Takes reports: one for each source and id, none with the text `refused`."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.steps: list[Step] = []
        self.requests: list[tuple[float, str, dict[str, str], bytes]] = []
        self.known: set[tuple[str, str]] = set()
        self.answers: dict[str, dict[str, Any]] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, body: bytes, key: str) -> dict[str, Any]:
        if key in self.answers:
            return self.answers[key]
        results: list[dict[str, Any]] = []
        for index, report in enumerate(json.loads(body)):
            row = (report["source"], report["external_id"])
            if report.get("text") == "refused":
                results.append({"index": index, "error": {"detail": "no such text", "pointer": "/text"}})
            elif row in self.known:
                results.append({"index": index, "report_id": "x", "repeated": True})
            else:
                self.known.add(row)
                results.append({"index": index, "report_id": "x"})
        self.answers[key] = {"results": results}
        return self.answers[key]

    def run(self) -> None:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    server.run()
    yield server
    server.shutdown()
    server.server_close()


def says(status: int, **headers: str) -> Step:
    def step(handler: Handler, _: bytes) -> bool:
        handler.answer(status, {"detail": f"scripted {status}"}, **headers)
        return True

    return step


def takes_and_hangs_up(handler: Handler, body: bytes) -> bool:
    """The rows are in, but the answer is lost."""
    handler.server.take(body, handler.headers["Idempotency-Key"])
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def write_csv(folder: Path, count: int, texts: dict[int, str] | None = None) -> Path:
    path = folder / "reports.csv"
    rows = [f"{number},{(texts or {}).get(number, 'air naik')},-6.2,106.8" for number in range(1, count + 1)]
    path.write_text("no,isi,lat,lon\n" + "\n".join(rows) + "\n")
    return path


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["replay", *map(str, words)], catch_exceptions=False)


def counted(result: Result) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return answer


def test_every_row_is_taken_and_a_second_run_is_all_repeats(server: Server, tmp_path: Path) -> None:
    path = write_csv(tmp_path, 1100)
    first = counted(run(path, "--columns", COLUMNS, "--url", server.url, "--json"))
    again = counted(run(path, "--columns", COLUMNS, "--url", server.url, "--json"))
    assert (first["read"], first["accepted"], first["repeated"], first["rejected"]) == (1100, 1100, 0, 0)
    assert (again["read"], again["accepted"], again["repeated"], again["rejected"]) == (1100, 0, 1100, 0)
    assert server.known == {("/files/reports.csv", str(number)) for number in range(1, 1101)}


def test_rows_that_are_refused_are_listed_with_their_line_and_reason(server: Server, tmp_path: Path) -> None:
    path = write_csv(tmp_path, 5, {2: "refused"})
    path.write_text(path.read_text() + "6,air,95,106\n7,air,-6,106\n")
    result = run(path, "--columns", COLUMNS, "--url", server.url, "--json")
    answer = counted(result)
    assert result.exit_code == 0
    assert (answer["read"], answer["accepted"], answer["rejected"]) == (7, 5, 2)
    assert answer["rejections"][0] == {"line": 3, "reason": "/text: no such text"}
    assert answer["rejections"][1]["line"] == 7
    assert "latitude 95" in answer["rejections"][1]["reason"]


def test_the_same_id_twice_in_a_file_is_a_repeat(server: Server, tmp_path: Path) -> None:
    path = write_csv(tmp_path, 3)
    path.write_text(path.read_text() + "2,air lagi,-6,106\n")
    answer = counted(run(path, "--columns", COLUMNS, "--url", server.url, "--json"))
    assert (answer["read"], answer["accepted"], answer["repeated"]) == (4, 3, 1)


def test_a_lost_answer_makes_no_repeats_and_hides_none(server: Server, tmp_path: Path) -> None:
    server.known = {("/files/reports.csv", "5")}
    server.steps = [takes_and_hangs_up, says(409)]
    answer = counted(run(write_csv(tmp_path, 300), "--columns", COLUMNS, "--url", server.url, "--json"))
    assert (answer["accepted"], answer["repeated"]) == (299, 1)
    first, second = server.requests[0], server.requests[1]
    assert first[3] == second[3]
    assert first[2]["Idempotency-Key"] == second[2]["Idempotency-Key"]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
def test_a_server_that_is_not_well_is_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    server.steps = [says(status), says(status, Retry_After="0")]
    result = run(write_csv(tmp_path, 3), "--columns", COLUMNS, "--url", server.url, "--json")
    assert counted(result)["accepted"] == 3
    assert len(server.requests) == 3
    assert "trying again" in result.stderr
    assert "answers again" in result.stderr


def test_retry_after_is_obeyed(server: Server, tmp_path: Path) -> None:
    server.steps = [says(429, Retry_After="1")]
    assert counted(run(write_csv(tmp_path, 3), "--columns", COLUMNS, "--url", server.url, "--json"))["accepted"] == 3
    assert server.requests[1][0] - server.requests[0][0] >= 1


def test_replay_waits_for_a_server_that_is_not_there_yet(tmp_path: Path) -> None:
    reserved = Server()
    port = reserved.server_address[1]
    reserved.server_close()
    late: list[Server] = []

    def start() -> None:
        late.append(Server(port))
        late[0].run()

    timer = threading.Timer(0.6, start)
    timer.start()
    try:
        result = run(write_csv(tmp_path, 3), "--columns", COLUMNS, "--url", f"http://127.0.0.1:{port}", "--json")
    finally:
        timer.join()
        late[0].shutdown()
        late[0].server_close()
    assert counted(result)["accepted"] == 3
    assert "does not answer" in result.stderr


def test_one_row_that_spoils_a_chunk_is_found_and_the_others_are_taken(server: Server, tmp_path: Path) -> None:
    def refuses_seven(handler: Handler, body: bytes) -> bool:
        if any(report["external_id"] == "7" for report in json.loads(body)):
            handler.answer(422, {"detail": "the body is hostile"})
            return True
        return False

    server.steps = [refuses_seven] * 50
    answer = counted(run(write_csv(tmp_path, 20), "--columns", COLUMNS, "--url", server.url, "--json"))
    assert (answer["accepted"], answer["rejections"]) == (19, [{"line": 8, "reason": "the body is hostile"}])


def test_no_permission_stops_and_says_what_to_do(server: Server, tmp_path: Path) -> None:
    server.steps = [says(403)]
    result = run(write_csv(tmp_path, 3), "--columns", COLUMNS, "--url", server.url, "--json")
    assert result.exit_code == 1
    assert counted(result)["read"] == 0
    assert "--token" in result.stderr.splitlines()[-1]


def test_on_loopback_a_short_token_is_signed_with_the_local_key(server: Server, tmp_path: Path) -> None:
    run(write_csv(tmp_path, 1), "--columns", COLUMNS, "--url", server.url)
    scheme, token = server.requests[0][2]["Authorization"].split(" ")
    assert scheme == "Bearer"
    assert auth.actor_of(token, Settings()).role == "operator"


def test_a_token_that_is_given_is_the_one_that_is_sent(server: Server, tmp_path: Path) -> None:
    run(write_csv(tmp_path, 1), "--columns", COLUMNS, "--url", server.url, "--token", "abc")
    assert server.requests[0][2]["Authorization"] == "Bearer abc"


def test_source_and_operation_are_sent_with_every_row(server: Server, tmp_path: Path) -> None:
    words = ("--columns", COLUMNS, "--source", "/partners/pmi", "--operation", "jakarta-flood-2026")
    run(write_csv(tmp_path, 1), *words, "--url", server.url)
    (report,) = json.loads(server.requests[0][3])
    assert (report["source"], report["operation"]) == ("/partners/pmi", "jakarta-flood-2026")


def test_rate_is_kept_evenly(server: Server, tmp_path: Path) -> None:
    answer = counted(
        run(write_csv(tmp_path, 40), "--columns", COLUMNS, "--url", server.url, "--rate", "40", "--json")
    )  # fmt: skip
    assert answer["accepted"] == 40
    assert len(server.requests) == 4
    # Never faster than asked; a busy machine may send one late, and the next then follows closer.
    assert server.requests[-1][0] - server.requests[0][0] > 0.3
    assert answer["seconds"] > 0.7


def test_speed_follows_the_times_of_the_file_in_their_order(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "reports.csv"
    path.write_text("no,isi,t\n3,c,2020-01-01T09:00\n1,a,2020-01-01T07:00\n2,b,2020-01-01T07:00\n")
    words = ("--columns", "id=no,text=isi,time=t", "--timezone", "Asia/Jakarta", "--speed", "7200")
    answer = counted(run(path, *words, "--url", server.url, "--json"))
    assert answer["accepted"] == 3
    assert [[report["text"] for report in json.loads(body)] for _, _, _, body in server.requests] == [["a", "b"], ["c"]]
    assert server.requests[1][0] - server.requests[0][0] > 0.5


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--columns", "idd=no"), "no field 'idd'"),
        (("--columns", "id=nomor,text=isi"), "no column nomor"),
        (("--columns", "id=no,text=isi", "--timezone", "Jakarta"), "no time zone Jakarta"),
        (("--columns", "id=no,text=isi", "--rate", "1", "--speed", "1"), "exclude each other"),
        (("--columns", "id=no,text=isi", "--rate", "0"), "--rate"),
        (("--url", "127.0.0.1:8000"), "no address"),
    ],
)
def test_wrong_usage_exits_2_and_sends_nothing(
    server: Server, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    more = () if "--url" in words else ("--url", server.url)
    result = run(write_csv(tmp_path, 3), *words, *more)
    assert result.exit_code == 2
    assert said in result.stderr
    assert server.requests == []


def test_ctrl_c_says_how_far_it_got(tmp_path: Path) -> None:
    server = Server()
    server.run()
    path = write_csv(tmp_path, 600)
    words = ["replay", str(path), "--columns", COLUMNS, "--url", server.url, "--rate", "100", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gotong", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 20
    while len(server.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    server.shutdown()
    server.server_close()
    answer = json.loads(out.splitlines()[-1])
    assert process.returncode == 1
    assert 25 <= answer["accepted"] < 600
    assert f"{answer['accepted']} rows are in" in err


CAP = """<?xml version="1.0"?><alert xmlns="urn:oasis:names:tc:emergency:cap:1.2"><identifier>a</identifier></alert>"""


def test_a_cap_message_is_posted_byte_for_byte(server: Server, tmp_path: Path) -> None:
    def takes(handler: Handler, body: bytes) -> bool:
        handler.answer(202, {"warning_id": "x"})
        return True

    server.steps = [takes]
    path = tmp_path / "warning.xml"
    path.write_text(CAP)
    answer = counted(run(path, "--url", server.url, "--json"))
    assert (answer["read"], answer["accepted"]) == (1, 1)
    assert server.requests[0][1] == "/v1/warnings"
    assert server.requests[0][3] == CAP.encode()


def test_each_alert_of_a_feed_is_posted_and_a_refused_one_stops_nothing(server: Server, tmp_path: Path) -> None:
    def takes(handler: Handler, body: bytes) -> bool:
        handler.answer(202, {})
        return True

    server.steps = [says(422), takes]
    alert = CAP.partition("?>")[2]
    path = tmp_path / "feed.xml"
    path.write_text(f'<feed xmlns="http://www.w3.org/2005/Atom"><entry>{alert}</entry><entry>{alert}</entry></feed>')
    answer = counted(run(path, "--url", server.url, "--json"))
    assert (answer["read"], answer["accepted"], answer["rejections"][0]["line"]) == (2, 1, 1)
    assert server.requests[1][3].count(b"<alert") == 1


def test_a_server_without_warnings_is_named_plainly(server: Server, tmp_path: Path) -> None:
    server.steps = [says(404)]
    path = tmp_path / "warning.xml"
    path.write_text(CAP)
    result = run(path, "--url", server.url)
    assert result.exit_code == 1
    assert "takes no CAP warnings yet" in result.stderr


def test_a_document_type_is_refused_before_its_entities_can_grow(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "warning.xml"
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    path.write_text(f'<!DOCTYPE alert [<!ENTITY e0 "x">{entities}]><alert>&e9;</alert>')
    result = run(path, "--url", server.url)
    assert result.exit_code == 2
    assert "document type" in result.stderr
    assert server.requests == []
