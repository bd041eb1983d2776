"""A real server for the commands to speak to: the services' own routes on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack

import pytest
import uvicorn
from fastapi import FastAPI

from services.runtime.service import Service, build_app
from services.runtime.settings import Settings

Serve = Callable[[Sequence[Service] | FastAPI], str]


@pytest.fixture
def serve(dsn: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """`serve([service])`, or a whole application: its URL. It runs in a thread with a loop of its own, on this test's
    database."""
    monkeypatch.setenv("GOTONG_DATABASE", dsn)
    with ExitStack() as stack:

        def start(services: Sequence[Service] | FastAPI) -> str:
            app = services if isinstance(services, FastAPI) else build_app(services, Settings())
            server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None))
            thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(10)

            stack.callback(stop)
            deadline = time.monotonic() + 10
            while not server.started:
                assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            return f"http://127.0.0.1:{port}"

        yield start
