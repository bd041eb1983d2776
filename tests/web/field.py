"""What the tests of the field page share: a line that can fail, pictures, and the desk on the other side."""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal
from uuid import uuid4

import httpx
from playwright.async_api import Page

from tests.e2e.system import System, until

HAMLET = {"lon": 106.866, "lat": -6.222}
"""Kampung Melayu, where the reports and volunteers of these tests are."""


class Line:
    """The line between a phone and the server, as the browser's origin.

    `open`; `cut`: nobody answers; `mute`: what is sent arrives, and its answer is lost.
    """

    def __init__(self, port: int) -> None:
        self.state: Literal["open", "cut", "mute"] = "open"
        self.url = ""
        self._port = port
        self._pairs: set[asyncio.StreamWriter] = set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.state == "cut":
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._port)
        pair = {writer, there_writer}
        self._pairs |= pair
        try:
            await asyncio.gather(self._pipe(reader, there_writer, "up"), self._pipe(there_reader, writer, "down"))
        finally:
            self._pairs -= pair
            for one in pair:
                one.close()

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: str) -> None:
        try:
            while data := await reader.read(65536):
                if self.state == "cut":
                    break
                if way == "down" and self.state == "mute":
                    break
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def cut(self) -> None:
        """Nobody answers any more, and what is under way ends."""
        self.state = "cut"
        for writer in list(self._pairs):
            writer.close()


@asynccontextmanager
async def line_to(system: System) -> AsyncIterator[Line]:
    line = Line(system.port)
    server = await asyncio.start_server(line._carry, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        line.cut()
        server.close()


async def go(page: Page, url: str = "", query: str = "", hash: str = "") -> Page:
    """Open the field page and wait until it is ready to be used without a line."""
    await page.goto(f"{url}/field{query}{hash}")
    await page.wait_for_selector("html[data-ready=offline]")
    return page


async def said(system: System, text: str) -> list[dict[str, Any]]:
    """The reports that the server has with these words."""
    rows = await system.rows(
        "SELECT report_id, ticket, lon, lat, place, admin, hazard, severity, people, media, operation, observed_at, "
        "received_at FROM intake.report WHERE text = $1",
        text,
    )
    return [dict(row) for row in rows]


def png(width: int, height: int) -> bytes:
    """A picture with as much in it as a photograph: patches of eight pixels, each of another colour."""
    rng = random.Random(1)
    rows = b""
    for _ in range(0, height, 8):
        row = b"\0" + b"".join(rng.randbytes(3) * 8 for _ in range(width // 8)) + bytes(width % 8 * 3)
        rows += row * 8
    rows = rows[: height * (width * 3 + 1)]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


async def make_responder(admin: httpx.AsyncClient, skill: str, location: dict[str, float] = HAMLET) -> str:
    """A confirmed volunteer at Kampung Melayu."""
    body = {
        "kind": "person", "name": "Relawan Uji", "phone": f"+62840{random.randrange(10**7, 10**8)}", "location": location,
        "skills": [{"skill": skill, "level": 2}], "travel_limit_km": 40,
    }  # fmt: skip
    answer = await admin.post("/v1/responders", json=body)
    assert answer.status_code == 201, answer.text
    responder_id: str = answer.json()["responder_id"]
    return responder_id


async def make_need(admin: httpx.AsyncClient, operation: str, skill: str, **changes: Any) -> str:
    body = {"skill": skill, "quantity": 1, "severity": 3, "operation": operation} | (changes or {"location": HAMLET})

    async def once() -> str | None:
        answer = await admin.post("/v1/needs", json=body)
        if answer.status_code == 404 and "retry-after" in answer.headers:
            return None
        assert answer.status_code == 201, answer.text
        need_id: str = answer.json()["need_id"]
        return need_id

    found: str = await until(once, 60)
    return found


async def offered(admin: httpx.AsyncClient, responder_id: str, need_id: str) -> dict[str, Any]:
    """The offer of a need to a responder, as soon as there is one."""

    async def once() -> dict[str, Any] | None:
        answer = await admin.get("/v1/offers", params={"responder": responder_id, "need": need_id, "state": "made"})
        found: list[dict[str, Any]] = answer.json()["offers"]
        return found[0] if found else None

    offer: dict[str, Any] = await until(once, 90)
    return offer


def unique(text: str) -> str:
    return f"{text} {uuid4().hex[:10]}"


def own_skill() -> str:
    """A skill that nobody else in this system has, so that nobody else is asked."""
    return f"uji_{uuid4().hex[:10]}"
