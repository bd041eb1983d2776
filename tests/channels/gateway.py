"""A small gateway on a port of this machine: takes messages as providers do, and misbehaves when told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}


@dataclass
class Gateway:
    """`plan`: what to do with the next requests, one word each: a status, `hang up` (take it, and answer nothing) or
    `hold` (take it, and answer only when `let_go` is set). Without a plan every message is taken."""

    url: str = ""
    answer: Any = field(default_factory=lambda: {"id": "m-1"})
    taken: list[Request] = field(default_factory=list)
    plan: list[Any] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    let_go: threading.Event = field(default_factory=threading.Event)
    headers: dict[str, str] = field(default_factory=dict)


@contextmanager
def running() -> Iterator[Gateway]:
    """A gateway that runs for the length of the block."""
    gateway = Gateway()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            gateway.taken.append(Request(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            gateway.arrived.set()
            what = gateway.plan.pop(0) if gateway.plan else 201
            if what == "hold":
                gateway.let_go.wait(60)
                what = 201
            if what == "hang up":
                self.close_connection = True
                return
            answer = json.dumps(gateway.answer).encode()
            self.send_response(what)
            for name, value in gateway.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # many senders at once, on a slow machine

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    gateway.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        gateway.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
