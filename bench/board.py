"""The operations board in a browser: 5,000 incidents and 50 events a second, drawn without a graphics card.

The pages are the built ones; what they ask for is answered by a small server of this process, so that the figures are
the page's and not the system's. Every event changes an incident; nine in ten are anywhere, one in ten stands in the
rows on screen and bears the instant at which it was sent. Measured: the time between frames while events come and while
the map is moved, from sending an event to the frame that shows it, and the heap after collection as minutes pass. Needs
Chromium and the test dependencies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import statistics
import sys
import threading
import time
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse

from gotong.local.process import free_port
from services.gateway import pages
from services.runtime import auth
from services.runtime.settings import Settings

SEED = 20261124
_ON_TOP = 30
"""Incidents that stand before all others, so that what happens to them is on screen."""
INDONESIA = (95.5, -10.5, 140.5, 5.5)
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
_WATCH = """
window.frames = []; window.delays = [];
let last = performance.now();
const frame = now => { window.frames.push(now - last); last = now; requestAnimationFrame(frame); };
requestAnimationFrame(frame);
const seen = new Set();
new MutationObserver(() => {
  for (const row of document.querySelectorAll('.list-incidents .row-title')) {
    const found = /#(\\d+) (\\d+)/.exec(row.textContent);
    if (found === null || seen.has(found[1])) continue;
    seen.add(found[1]);
    requestAnimationFrame(() => window.delays.push(Date.now() - Number(found[2])));
  }
}).observe(document.querySelector('.list-incidents .rows'), {childList: true, subtree: true, characterData: true});
"""


class Story:
    """Incidents all over Indonesia, and what happens to them."""

    def __init__(self, count: int) -> None:
        self.random = random.Random(SEED)
        self.incidents = [self._incident() for _ in range(count)]
        for incident in self.incidents[:_ON_TOP]:
            incident["priority"] = 100
        self.position = 0
        self.sent = 0

    def _incident(self) -> dict[str, Any]:
        west, south, east, north = INDONESIA
        began = datetime.now(UTC) - timedelta(minutes=self.random.randrange(24 * 60))
        # Half of them around a hundred towns, as in a disaster; the rest anywhere.
        centre = random.Random(self.random.randrange(100))
        lon, lat = centre.uniform(west, east), centre.uniform(south, north)
        if self.random.random() < 0.5:
            lon, lat = self.random.uniform(west, east), self.random.uniform(south, north)
        return {
            "incident_id": str(UUID(int=self.random.getrandbits(128), version=4)),
            "title": f"Banjir RW {self.random.randrange(30)}, air {self.random.randrange(200)} cm",
            "hazard": self.random.choice(["flood", "landslide", "earthquake", "fire"]),
            "severity": self.random.choices([1, 2, 3, 4], [4, 3, 2, 1])[0],
            "status": "open",
            "evidence": self.random.choice(["reported", "corroborated", "official"]),
            "point": {"lon": lon + self.random.gauss(0, 0.1), "lat": lat + self.random.gauss(0, 0.1)},
            "admin": "kemendagri:32.04",
            "place": "Kampung Contoh",
            "reports": self.random.randrange(1, 30),
            "people": {"affected": self.random.randrange(500)},
            "opened_at": began.isoformat(),
            "updated_at": began.isoformat(),
            "priority": self.random.randrange(90),
            "by": "rule:linking",
        }

    def features(self) -> list[dict[str, Any]]:
        return [
            {"type": "Feature", "id": incident["incident_id"],
             "geometry": {"type": "Point", "coordinates": [incident["point"]["lon"], incident["point"]["lat"]]},
             "properties": incident | {"id": incident["incident_id"], "operation": "standing", "exercise": False}}
            for incident in self.incidents
        ]  # fmt: skip

    def event(self) -> bytes:
        """One change as the stream sends it."""
        self.position += 1
        timed = self.random.random() < 0.1
        incident = self.random.choice(self.incidents[:_ON_TOP] if timed else self.incidents[_ON_TOP:])
        incident["updated_at"] = datetime.now(UTC).isoformat()
        incident["reports"] += 1
        if timed:
            self.sent += 1
            incident["title"] = f"#{self.sent} {int(time.time() * 1000)} di atas"
        elif self.random.random() < 0.05:
            incident["severity"] = self.random.randint(1, 4)
        kind = "gotong.incident.updated.v1"
        event = {
            "type": kind, "subject": incident["incident_id"], "time": incident["updated_at"],
            "operation": "standing", "exercise": False, "data": incident,
        }  # fmt: skip
        return f"id: {self.position}\nevent: {kind}\ndata: {json.dumps(event)}\n\n".encode()


def application(story: Story, rate: float) -> FastAPI:
    """The built pages, and answers of the forms that the interface gives."""
    app = FastAPI()
    app.state.settings = Settings()
    app.include_router(pages.router)

    @app.get("/v1/stream")
    async def stream() -> Response:
        async def events() -> AsyncIterator[bytes]:
            yield b": still here\n\n"
            began, sent = time.monotonic(), 0
            while True:
                due = int((time.monotonic() - began) * rate)
                while sent < due:
                    yield story.event()
                    sent += 1
                await asyncio.sleep(0.01)

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/v1/incidents")
    async def incidents(request: Request) -> dict[str, Any]:
        at, limit = int(request.query_params.get("cursor", 0)), int(request.query_params["limit"])
        found = story.features()
        more = f"/v1/incidents?limit={limit}&cursor={at + limit}"
        links = [{"rel": "next", "href": more}] if at + limit < len(found) else []
        return {"type": "FeatureCollection", "features": found[at : at + limit], "links": links}

    @app.get("/v1/{name:path}")
    async def empty(name: str) -> dict[str, Any]:
        lists = ("operations", "needs", "assignments", "features", "sites", "reports")
        return {each: [] for each in lists} | {"links": []}

    return app


def measure(count: int, rate: float, seconds: float, minutes: float) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        raise SystemExit("there is no Chromium on the PATH; Debian: apt-get install chromium")
    story = Story(count)
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(application(story, rate), port=port, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    token = auth.sign("operator", "bench", hours=24, key=b"only for the page, which reads what it says")
    heap: list[float] = []
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
            page = browser.new_page(viewport={"width": 1920, "height": 1080})
            page.goto(f"http://127.0.0.1:{port}/?lang=id#token={token}")
            page.wait_for_selector(".list-incidents .row", timeout=120_000)
            page.wait_for_selector(".group", timeout=120_000)
            page.evaluate(_WATCH)
            devtools = page.context.new_cdp_session(page)

            def used_mb() -> float:
                devtools.send("HeapProfiler.collectGarbage")
                return float(devtools.send("Runtime.getHeapUsage")["usedSize"]) / 1e6

            page.wait_for_timeout(3_000)
            page.evaluate("window.frames.length = window.delays.length = 0")
            page.wait_for_timeout(seconds * 1000)
            live, delays = page.evaluate("[window.frames.splice(0), window.delays.splice(0)]")
            box = page.locator(".map").bounding_box()
            assert box is not None
            for n in range(6):
                page.mouse.move(box["x"] + 600, box["y"] + 300)
                page.mouse.down()
                page.mouse.move(box["x"] + 600 + (150 if n % 2 else -150), box["y"] + 330, steps=30)
                page.mouse.up()
            moved = page.evaluate("window.frames.splice(0)")
            heap.append(used_mb())
            for _ in range(int(minutes)):
                page.wait_for_timeout(60_000)
                page.evaluate("window.frames.length = 0")
                heap.append(used_mb())
            browser.close()
    finally:
        server.should_exit = True
        thread.join(5)
    return {
        "seed": SEED,
        "incidents": count,
        "events_per_s": rate,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_before": os.getloadavg()[0],
        "frame_ms": _spread(live),
        "frame_moving_ms": _spread(moved),
        "event_to_screen_ms": _spread(delays),
        "heap_mb": [round(value, 1) for value in heap],
    }


def _spread(values: list[float]) -> dict[str, float]:
    if len(values) < 2:
        return {"n": len(values)}
    cuts = statistics.quantiles(values, n=100)
    return {"n": len(values), "p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "max": round(max(values), 1)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.board", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--incidents", type=int, default=5000)
    parser.add_argument("--rate", type=float, default=50, help="events a second")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--minutes", type=float, default=0, help="how long to watch the heap; 30 is the aim")
    options = parser.parse_args(argv)
    result = measure(options.incidents, options.rate, options.seconds, options.minutes)
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
