"""Takes the pictures of the pages in docs/pictures/pages: each view in three sizes, dark and light.

Run it while `make up` runs, whose demo it shows:

    .venv/bin/python web/pictures.py [--url http://127.0.0.1:8000] [--only board]

A volunteer and a report of the pictures' own are added to the demo, which is an exercise.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from gotong.client import sign_locally  # noqa: E402
from gotong.local.folders import data_folder  # noqa: E402
from tests.web.browser import ARGUMENTS, browser_path  # noqa: E402
from tests.web.views import VIEWS, View, show  # noqa: E402

OUT = ROOT / "docs" / "pictures" / "pages"
OPERATION = "demo-banjir-citarum-2026"
SIZES = {"1920": (1920, 1080), "1280": (1280, 720), "390": (390, 844)}
SMALL_B = 80_000
TEXT = "Air masuk sampai lutut di Gang Melati, 12 orang di atap, 2 lansia sakit, butuh perahu"


async def taken(page: Page, path: Path) -> int:
    """Take a picture that is small enough; returns its bytes."""
    session = await page.context.new_cdp_session(page)
    for quality in (70, 55, 40, 25):
        answer = await session.send("Page.captureScreenshot", {"format": "webp", "quality": quality})
        content = base64.b64decode(answer["data"])
        if len(content) <= SMALL_B:
            break
    await asyncio.to_thread(path.write_bytes, content)
    await session.detach()
    return len(content)


async def opened(browser: Browser, url: str, size: str, theme: str, lang: str) -> BrowserContext:
    width, height = SIZES[size]
    context = await browser.new_context(
        base_url=url,
        viewport={"width": width, "height": height},
        color_scheme=theme,  # type: ignore[arg-type]
        locale={"id": "id-ID", "en": "en-GB"}[lang],
        timezone_id="Asia/Jakarta",
        geolocation={"longitude": 107.629, "latitude": -6.9986},
        permissions=["geolocation"],
    )
    context.set_default_timeout(60_000)
    return context


async def prepared(page: Page, view: View, volunteer: dict[str, str] | None) -> None:
    """Bring the field page into a state that has something to show."""
    if view.name == "report":
        await page.fill("#text", TEXT)
        await page.click(".hazard-flood")
        await page.evaluate("scrollTo(0, 0)")
    elif view.name == "mine":
        await page.goto(f"/field?operation={OPERATION}")
        await page.wait_for_selector("html[data-ready=all], html[data-ready=offline]")
        await page.context.set_offline(True)
        await page.fill("#text", TEXT)
        await page.click("#form button.big")
        await page.wait_for_selector("#mine .card")
    elif view.name == "volunteer" and volunteer is not None:
        await page.evaluate(
            "session => new Promise(done => { const o = indexedDB.open('gotong-field'); o.onsuccess = () => {"
            " const w = o.result.transaction('values', 'readwrite'); w.objectStore('values').put(session, 'session');"
            " w.oncomplete = () => { o.result.close(); done() } } })",
            volunteer,
        )
        await page.goto("/field#help")
        await page.reload()
        await page.wait_for_selector("#work .card")


async def a_volunteer(url: str, admin: str) -> dict[str, str] | None:
    """A responder of the demo with an open offer, as a session on a phone."""
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {admin}"}, timeout=30) as client:
        answer = await client.get("/v1/offers", params={"operation": OPERATION, "state": "made", "limit": 100})
        answer.raise_for_status()
        found: list[dict[str, Any]] = [offer for offer in answer.json()["offers"] if offer.get("responder_id")]
    if not found:
        return None
    who = str(found[0]["responder_id"])
    return {
        "responder_id": who,
        "token": sign_locally(data_folder(), "responder", who, hours=24 * 90),
        "expires_at": "2099-01-01T00:00:00Z",
    }


async def main(url: str, only: str | None, lang: str, folder: Path) -> None:
    operator = sign_locally(data_folder(), "operator", "piket-1", hours=1)
    volunteer = await a_volunteer(url, sign_locally(data_folder(), "admin", "pictures", hours=1))
    sizes: dict[str, int] = {}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        for view in VIEWS:
            if only is not None and view.name != only:
                continue
            for size in SIZES:
                for theme in ("dark", "light"):
                    context = await opened(browser, url, size, theme, lang)
                    page = await context.new_page()
                    token = f"#token={operator}" if view.role else ""
                    path = view.path.format(operation=OPERATION)
                    if theme == "light" and view.role:
                        path += "&theme=light"  # the wall is dark unless told
                    if "lang=" not in path:
                        head, mark, fragment = path.partition("#")
                        path = f"{head}{'&' if '?' in head else '?'}lang={lang}{mark}{fragment}"
                    await page.goto(path + token)
                    await show(page, view)
                    await prepared(page, view, volunteer)
                    await page.wait_for_timeout(1500)  # the map draws itself
                    name = f"{view.name}-{size}-{theme}.webp"
                    sizes[name] = await taken(page, folder / name)
                    await context.close()
        await browser.close()
    print(json.dumps(sizes, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--only", choices=[view.name for view in VIEWS])
    parser.add_argument("--lang", choices=["id", "en"], default="id")
    parser.add_argument("--out", type=Path, default=OUT)
    said = parser.parse_args()
    said.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(main(said.url, said.only, said.lang, said.out))
