"""Two hundred hostile texts as report texts and as names: text wherever they stand, and the page stays whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest_asyncio
from playwright.async_api import Page, expect

from tests.e2e.system import System, until
from tests.web.browser import LAPTOP, PHONE, WALL
from tests.web.conftest import HOOK_SECRET, make_operation
from tests.web.field import go, unique
from tests.web.hostile import MARKUP, OVERRIDES, mark, texts

WHOLE = """() => {
    const root = document.documentElement;
    return {
        wide: root.scrollWidth - root.clientWidth,
        hit: window.hit ?? null,
        strange: document.querySelectorAll('iframe, base, object, embed, form[action], meta[http-equiv], math, script:not([src]), [onerror], [onload], [onfocus], a[href^="javascript:"]').length,
        hidden: getComputedStyle(document.body).display,
    }
}"""


async def whole(page: Page) -> None:
    """Nothing ran, nothing became an element, nothing is wider than the screen."""
    found = await page.evaluate(WHOLE)
    assert found["hit"] is None
    assert found["strange"] == 0
    assert found["hidden"] != "none"
    assert found["wide"] <= 0, f"{found['wide']} px wider than the screen"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def attacked(system: System) -> str:
    """An operation whose reports, volunteers, sites, warnings and title are hostile; returns its id."""
    rng = random.Random(9)
    operation = await make_operation(system, title=f"Banjir {MARKUP[0]}")
    async with system.client("admin") as admin:
        typed = [text for text in texts() if not any(sign in text for sign in OVERRIDES)]
        rows = [
            {"text": text, "title": text[:200], "hazard": "flood", "severity": 1 + number % 4, "operation": operation,
             "location": {"lon": 106.7 + rng.random() / 4, "lat": -6.3 + rng.random() / 5, "place": text[:200]},
             "reporter": {"name": f"orang{number:03d} {MARKUP[number % len(MARKUP)]}"[:200], "kind": "citizen"}, "external_id": f"{operation}-{number}"}
            for number, text in enumerate(typed)
        ]  # fmt: skip
        answer = await admin.post("/v1/reports:batch", json=rows)
        assert answer.status_code == 207, answer.text
        assert answer.json()["accepted"] == len(rows), answer.json()["results"]
        # What turns writing around is refused where a program sends it, and taken from a person's phone.
        turned = [text for text in texts() if any(sign in text for sign in OVERRIDES)]
        refused = await admin.post("/v1/reports", json={"text": turned[0], "hazard": "flood", "operation": operation})
        assert refused.status_code == 422
        assert len(typed) + len(turned) == 200
        for number, text in enumerate(turned):
            message = {
                "contact": {"urn": f"tel:+6281390{number:06d}", "language": "id"},
                "input": {"uuid": f"{operation}-{number}", "text": f"Banjir di Kampung Melayu {text}", "attachments": []},
            }  # fmt: skip
            hooked = await admin.post("/v1/hooks/rapidpro", json=message, headers={"Gotong-Secret": HOOK_SECRET})
            assert hooked.status_code == 200, hooked.text
        for number, text in enumerate(MARKUP):
            person = {"kind": "person", "name": text[:200], "phone": f"+62841{rng.randrange(10**7, 10**8)}",
                      "location": {"lon": 106.866, "lat": -6.222}, "skills": [{"skill": "cook", "level": 1}]}  # fmt: skip
            assert (await admin.post("/v1/responders", json=person)).status_code in (200, 201)
            site = {"name": f"{mark(number)} {text}"[:200], "kind": "evacuation", "operation": operation,
                    "location": {"lon": 106.86, "lat": -6.22}, "capacity": 10}  # fmt: skip
            await until(_posts(admin, "/v1/sites", site), 60)
        cap = WARNING.format(operation=operation, text=xml(xml(MARKUP[1])), long="W" * 600)
        warned = await admin.post(
            f"/v1/warnings?operation={operation}", content=cap, headers={"Content-Type": "application/cap+xml"}
        )
        assert warned.status_code == 201, warned.text

        async def linked() -> bool:
            found = await system.rows(
                "SELECT count(*) AS n FROM intake.report WHERE operation = $1 AND incident_id IS NOT NULL", operation
            )
            return found[0]["n"] >= len(typed)

        await until(linked, 120, system.tail)
    return operation


def _posts(client: Any, path: str, body: dict[str, Any]) -> Callable[[], Any]:
    async def once() -> bool:
        answer = await client.post(path, json=body)
        assert answer.status_code in (201, 404), answer.text
        return bool(answer.status_code == 201)

    return once


def xml(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")


WARNING = """<?xml version="1.0" encoding="UTF-8"?>
<alert xmlns="urn:oasis:names:tc:emergency:cap:1.2">
<identifier>{operation}-1</identifier><sender>uji@example.org</sender><sent>2026-11-24T09:00:00+07:00</sent>
<status>Actual</status><msgType>Alert</msgType><scope>Public</scope>
<info><language>id-ID</language><category>Met</category><event>Hujan lebat {text}</event><urgency>Immediate</urgency>
<severity>Severe</severity><certainty>Likely</certainty><expires>2099-01-01T00:00:00+07:00</expires>
<senderName>{text}</senderName><headline>peringatan uji {text} {long}</headline><description>{text}</description>
<instruction>{text}</instruction><area><areaDesc>{long}</areaDesc>
<polygon>-6.3,106.7 -6.1,106.7 -6.1,107.0 -6.3,106.7</polygon></area></info></alert>"""


async def test_the_public_page_stays_whole(open_page, attacked: str) -> None:
    page = await open_page(f"/public?operation={attacked}", size=PHONE)
    await expect(page.locator("#warnings + ul li h3")).to_contain_text("peringatan uji")
    await expect(page.locator("#incidents + ul li").nth(20)).to_be_attached()
    for size in (PHONE, LAPTOP, WALL):
        await page.set_viewport_size(size)
        await whole(page)
    option = page.locator("#operation option:checked")
    assert MARKUP[0] in (await option.text_content() or "")


KEEP = """async texts => {
    const db = await new Promise((done) => { const r = indexedDB.open('gotong-field', 1); r.onsuccess = () => done(r.result) });
    const [kept] = await new Promise((done) => { const r = db.transaction('outbox').objectStore('outbox').getAll(); r.onsuccess = () => done(r.result) });
    const all = db.transaction('outbox', 'readwrite');
    texts.forEach((text, n) => all.objectStore('outbox').put({...kept, key: `hostile-${n}`, at: kept.at + n, body: {...kept.body, text}}));
    await new Promise((done) => { all.oncomplete = done });
    db.close();
}"""


async def test_the_field_page_keeps_them_as_they_were_typed(system: System, open_page) -> None:
    page = await go(await open_page("/field", size=PHONE))
    await page.context.set_offline(True)
    run = unique("")
    typed, more = texts()[:4], texts()[4:]
    for text in typed:
        await page.fill("#text", f"{text}{run}")
        await page.locator("details").nth(1).evaluate("details => { details.open = true }")
        await page.fill("#name", text[:200])
        await page.locator("#form button.big").press("Enter")
        await page.wait_for_selector("#mine .card .words")
        await page.locator("#views a[href='#report']").press("Enter")
    # As if all had been typed: a hundred and ninety-six more in the phone's own outbox.
    await page.evaluate(KEEP, more)
    await page.goto("/field#mine")
    await expect(page.locator("#mine .card")).to_have_count(200)
    shown = await page.locator("#mine").inner_text()
    for number in range(200):
        assert mark(number) in shown
    assert MARKUP[0] in shown
    for width in (320, 390, 1280):
        await page.set_viewport_size({"width": width, "height": 720})
        await whole(page)


async def test_the_board_shows_them_as_text(open_page, attacked: str) -> None:
    page = await open_page(f"/?operation={attacked}", role="operator", size=WALL)
    rows = page.locator("#list-incidents .row")
    await expect(rows.first).to_be_visible(timeout=60_000)
    more = page.locator("#list-incidents .more")
    for _ in range(6):
        if not await more.is_visible():
            break
        await more.click()
    shown = await page.locator("#list-incidents").inner_text()
    found = [number for number in range(200) if mark(number) in shown]
    assert len(found) >= 120, "an incident is named after one of its reports, and reports that are alike are one"
    assert MARKUP[0] in shown
    # The worst of each kind, opened: markup, writing that turns around or piles up, ten thousand letters in one word.
    for number in (0, 3, 7, 12, 28, 30, 32, 34, 43, 45, 46, 48):
        row = rows.filter(has_text=mark(number))
        if await row.count() == 0:
            continue
        await row.first.click()
        await expect(page.locator(".detail")).to_contain_text(mark(number), timeout=30_000)
        await whole(page)
    for size in (PHONE, LAPTOP, WALL):
        await page.set_viewport_size(size)
        await whole(page)
    await page.locator(".top button.first").click()
    await expect(page.locator("dialog.sitrep")).to_contain_text(MARKUP[0], timeout=60_000)
    await whole(page)
