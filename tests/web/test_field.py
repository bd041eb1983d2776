"""The field page on a bad line: what is written on it is kept, arrives, and arrives once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page

from tests.e2e.system import System, until
from tests.web.browser import PHONE, Watch
from tests.web.field import go, line_to, png, said, unique

OpenPage = Callable[..., Awaitable[Page]]
OpenProfile = Callable[..., Awaitable[BrowserContext]]


async def waiting(page: Page, number: int) -> None:
    """Wait until the page says how many things wait."""
    await page.wait_for_function(
        "n => { const badge = document.getElementById('waiting');"
        " return badge.hidden ? n === 0 : badge.textContent === String(n) }",
        arg=number,
    )


async def send(page: Page, text: str) -> None:
    await page.click("#views a[href='#report']")
    await page.fill("#text", text)
    await page.click("#form button.big")
    await page.wait_for_selector(f"#mine .card .words:text-is({json.dumps(text)})")


@pytest.mark.parametrize("lang", ["id", "en"])
async def test_a_report_typed_without_a_line_outlives_the_browser_and_arrives_once(
    system: System, open_profile: OpenProfile, watch: Watch, lang: str
) -> None:
    text = unique("Air naik cepat, 12 orang di atap")
    async with line_to(system) as line:
        watch.allowed = (line.url,)
        phone = await open_profile(f"offline-{lang}", size=PHONE, lang=lang)
        page = await go(phone.pages[0], line.url)
        line.cut()
        await phone.set_offline(True)
        await send(page, text)
        await waiting(page, 1)
        safe = {"id": "aman di HP ini", "en": "safe on this phone"}[lang]
        assert safe in (await page.text_content("#line") or "")
        await phone.close()

        phone = await open_profile(f"offline-{lang}", size=PHONE, lang=lang, offline=True)
        page = phone.pages[0]
        await page.goto(f"{line.url}/field#mine")
        await page.wait_for_selector(".card.waiting")
        assert text in (await page.text_content(".card.waiting .words") or "")
        await waiting(page, 1)
        assert await said(system, text) == []

        line.state = "open"
        await phone.set_offline(False)
        await page.wait_for_selector(".card.sent .ticket")
        await waiting(page, 0)
        assert len(await said(system, text)) == 1
        ticket = await page.text_content(".ticket")
        await page.reload()
        await page.wait_for_selector("html[data-ready=offline]")
        assert await page.text_content(".ticket") == ticket
        assert len(await said(system, text)) == 1


async def test_the_worker_sends_what_a_closed_page_left_behind(
    system: System, open_page: OpenPage, watch: Watch
) -> None:
    text = unique("Halaman ditutup sebelum ada sinyal")
    async with line_to(system) as line:
        watch.allowed = (line.url,)
        page = await go(await open_page(f"{line.url}/field", size=PHONE), line.url)
        line.cut()
        await send(page, text)
        await page.wait_for_function(
            "() => navigator.serviceWorker.ready.then(worker => worker.sync.getTags())"
            ".then(tags => tags.includes('outbox'))"
        )
        line.state = "open"
        # No page of ours is open any more; the browser chooses the moment, which is now.
        await page.goto(f"{line.url}/v1/health")
        browser = await page.context.new_cdp_session(page)
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def registered(event: dict[str, Any]) -> None:
            for one in event["registrations"]:
                if one["scopeURL"] == f"{line.url}/field" and not found.done():
                    found.set_result(one["registrationId"])

        browser.on("ServiceWorker.workerRegistrationUpdated", registered)
        await browser.send("ServiceWorker.enable")
        what = {"origin": line.url, "registrationId": await asyncio.wait_for(found, 30), "tag": "outbox"}
        await browser.send("ServiceWorker.dispatchSyncEvent", what | {"lastChance": False})

        async def there() -> bool:
            return len(await said(system, text)) == 1

        await until(there, 60)
        await go(page, line.url, hash="#mine")
        await page.wait_for_selector(".card.sent .ticket")
        assert len(await said(system, text)) == 1


async def test_what_is_written_while_the_server_is_away_arrives_once_each_and_the_writer_sees_it(
    system: System, open_page: OpenPage, watch: Watch
) -> None:
    async with line_to(system) as line:
        watch.allowed = (line.url,)
        page = await open_page(f"{line.url}/field", size=PHONE)
        await go(page, line.url)
        texts = [unique(f"Laporan {n} saat server jauh") for n in range(4)]
        # The first arrives, and nobody hears that it has: the worst that a line can do.
        line.state = "mute"
        await send(page, texts[0])

        async def there() -> bool:
            return len(await said(system, texts[0])) == 1

        await until(there, 60)
        await page.wait_for_selector("#line.off")
        line.cut()
        for text in texts[1:]:
            await send(page, text)
        await waiting(page, 4)
        await page.wait_for_selector("#line:has-text('belum terjangkau')")
        assert await page.locator(".card.waiting").count() == 4
        # Also after the page was closed and opened without a line.
        await page.goto(f"{line.url}/field#mine")
        await page.wait_for_selector(".card.waiting")
        await waiting(page, 4)
        line.state = "open"
        await page.click("#line button")
        await waiting(page, 0)
        await page.wait_for_function("() => document.querySelectorAll('.card.sent .ticket').length === 4")
        for text in texts:
            assert len(await said(system, text)) == 1, text


async def test_a_page_of_a_hotspot_is_not_taken_for_an_answer(system: System, open_page: OpenPage) -> None:
    page = await go(await open_page("/field", size=PHONE))
    login = "<title>Selamat datang di WiFi gratis</title>"
    await page.context.route(
        "**/v1/reports", lambda route: route.fulfill(status=200, body=login, content_type="text/html")
    )
    text = unique("Lewat hotspot")
    await send(page, text)
    await page.wait_for_selector("#line.off")
    await waiting(page, 1)
    await page.context.unroute("**/v1/reports")
    await page.click("#line button")
    await waiting(page, 0)
    assert len(await said(system, text)) == 1


async def test_a_report_carries_all_that_was_said(system: System, open_page: OpenPage, operation: str) -> None:
    here = {"longitude": 106.8661, "latitude": -6.2221, "accuracy": 14}
    page = await open_page("/field", size=PHONE, geolocation=here, permissions=["geolocation"])
    await go(page, query=f"?operation={operation}")
    text = unique("Banjir, perahu diperlukan")
    await page.fill("#text", text)
    await page.click(".hazard-flood")
    await page.click(".urgency-4")
    await page.click("#gps")
    await page.wait_for_selector("#there:has-text('14')")
    await page.fill("#place", "Kampung Melayu, jakarta t")
    await page.click("#found button:has-text('Jakarta Timur')")
    await page.click("summary:has-text('Jumlah orang')")
    await page.fill("#people-displaced", "17")
    await page.set_input_files("#photo", {"name": "foto.png", "mimeType": "image/png", "buffer": png(3000, 2000)})
    await page.wait_for_selector("#shrunk:has-text('1 foto')")
    await page.click("#form button.big")
    await page.wait_for_selector(".card.sent .ticket")
    [report] = await said(system, text)
    assert (report["lon"], report["lat"]) == (106.8661, -6.2221)
    assert report["place"].startswith("Kampung Melayu, Kota Jakarta Timur")
    assert (report["hazard"], report["severity"], report["operation"]) == ("flood", 4, operation)
    assert json.loads(report["people"])["displaced"] == 17
    [media] = json.loads(report["media"])
    async with system.client("operator") as desk:
        answer = await desk.get(f"/v1/media/{media['url'].rsplit('/', 1)[1]}")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/webp"
    assert 1_000 < len(answer.content) <= 60_000


async def test_a_photograph_that_cannot_pass_can_be_left_behind(system: System, open_page: OpenPage) -> None:
    page = await go(await open_page("/field", size=PHONE))
    await page.context.route("**/v1/media", lambda route: route.abort())
    text = unique("Dengan foto di jalur buruk")
    await page.fill("#text", text)
    await page.set_input_files("#photo", {"name": "foto.png", "mimeType": "image/png", "buffer": png(300, 200)})
    await page.wait_for_selector("#shrunk:has-text('1 foto')")
    await page.click("#form button.big")
    await page.wait_for_selector("#line.off")
    assert await said(system, text) == []
    await page.click("button:has-text('Kirim tanpa foto')")
    await page.wait_for_selector(".card.sent .ticket")
    [report] = await said(system, text)
    assert report["media"] is None


async def test_a_place_can_be_tapped_on_a_map_that_is_loaded_only_then(system: System, open_page: OpenPage) -> None:
    page = await open_page("/field", size=PHONE)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await go(page)
    assert not [url for url in asked if "-map-" in url or "gazetteer" in url]
    await page.click("#map-open")
    await page.wait_for_selector("#map canvas")
    assert [url for url in asked if "-map-" in url]
    # Zoomed to the middle of the country: Sulawesi's west coast.
    await page.click("#map button:has-text('+')")
    canvas = page.locator("#map canvas")
    await canvas.click(position={"x": 100, "y": 150})
    await page.wait_for_selector("#there:has-text('Titik di peta dipilih')")
    text = unique("Ditunjuk di peta")
    await page.fill("#text", text)
    await page.click("#form button.big")
    await page.wait_for_selector(".card.sent .ticket")
    [report] = await said(system, text)
    assert 94 < report["lon"] < 118 and -3 < report["lat"] < -1.5


async def test_a_draft_is_there_again_after_the_browser_was_closed(open_profile: OpenProfile) -> None:
    phone = await open_profile("draft", size=PHONE)
    page = await go(phone.pages[0])
    await page.fill("#text", "Belum selesai menulis")
    await page.click(".hazard-landslide")
    await page.fill("#place", "Desa Sirnaresmi")
    read = "async () => (await indexedDB.databases()).length && await new Promise(done => {"
    read += "const o = indexedDB.open('gotong-field'); o.onsuccess = () => { const r = o.result.transaction('values')"
    read += ".objectStore('values').get('draft'); r.onsuccess = () => done(r.result?.location?.place) } })"

    async def kept() -> bool:
        return bool(await page.evaluate(read) == "Desa Sirnaresmi")

    await until(kept, 30)
    await phone.close()
    phone = await open_profile("draft", size=PHONE, offline=True)
    page = phone.pages[0]
    await page.goto("/field")
    await page.wait_for_function("() => document.getElementById('text').value === 'Belum selesai menulis'")
    assert await page.is_checked("[value=landslide]")
    assert await page.input_value("#place") == "Desa Sirnaresmi"


async def test_what_the_server_refuses_can_be_mended_and_sent_again(system: System, open_page: OpenPage) -> None:
    page = await go(await open_page("/field", size=PHONE))
    problem: dict[str, Any] = {
        "status": 422, "code": "invalid", "detail": "text: no", "errors": [{"pointer": "/text", "detail": "no"}],
    }  # fmt: skip
    body = json.dumps(problem)
    await page.context.route(
        "**/v1/reports", lambda route: route.fulfill(status=422, body=body, content_type="application/problem+json")
    )
    text = unique("Ditolak dulu")
    await send(page, text)
    await page.wait_for_selector(".card.refused:has-text('/text no')")
    await page.context.unroute("**/v1/reports")
    await page.click(".card.refused button:has-text('Perbaiki')")
    await page.wait_for_function("text => document.getElementById('text').value === text", arg=text)
    await page.click("#form button.big")
    await page.wait_for_selector(".card.sent .ticket")
    assert len(await said(system, text)) == 1


async def test_emergency_numbers_stand_in_sight_and_are_the_regions_own(open_page: OpenPage) -> None:
    page = await open_page("/field", size=PHONE)
    assert await page.locator("#numbers a").evaluate_all("all => all.map(a => a.getAttribute('href'))") == [
        "tel:112", "tel:115", "tel:119",
    ]  # fmt: skip
    await page.wait_for_selector("html[data-ready=offline]")
    await page.context.route(
        "**/v1/page-settings",
        lambda route: route.fulfill(
            json={
                "tiles": None,
                "emergency": [{"number": "112", "name": None}, {"number": "0361 251177", "name": "BPBD"}],
            }
        ),
    )
    await page.reload()
    await page.wait_for_selector("#numbers a:has-text('BPBD')")
    assert await page.get_attribute("#numbers a:nth-child(2)", "href") == "tel:0361251177"
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    box = await page.locator("#numbers").bounding_box()
    assert box is not None and box["y"] == 0


async def test_an_exercise_is_unmistakable(system: System, open_page: OpenPage) -> None:
    from tests.web.conftest import make_operation

    drill = await make_operation(system, exercise=True)
    page = await go(await open_page("/field", size=PHONE), query=f"?operation={drill}")
    await page.wait_for_selector("#exercise.exercise:has-text('LATIHAN')")
    await page.goto("/field")
    await page.wait_for_selector("#exercise.exercise:has-text('LATIHAN')")
    await page.click("#exercise a")
    await page.wait_for_selector("html[data-ready=offline]")
    assert await page.is_hidden("#exercise")
