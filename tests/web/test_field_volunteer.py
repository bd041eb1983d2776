"""A volunteer on the field page: joins with a code, and answers an offer without a line."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from playwright.async_api import Page

from services.runtime import clock
from tests.e2e.system import System, until
from tests.registry.people import messages
from tests.web.browser import PHONE, Watch
from tests.web.field import go, line_to, make_need, make_responder, offered, own_skill, unique
from tests.web.test_field import waiting

OpenPage = Callable[..., Awaitable[Page]]


async def signed_in(page: Page, system: System, responder_id: str, url: str = "") -> Page:
    """Open the volunteer's part on a phone that has been given this volunteer's token."""
    await go(page, url)
    session = {
        "responder_id": responder_id,
        "token": system.token("responder", responder_id),
        "expires_at": (clock.now() + timedelta(days=90)).isoformat(),
    }
    await page.evaluate(
        "session => new Promise(done => { const o = indexedDB.open('gotong-field'); o.onsuccess = () => {"
        " const w = o.result.transaction('values', 'readwrite'); w.objectStore('values').put(session, 'session');"
        " w.oncomplete = () => { o.result.close(); done() } } })",
        session,
    )
    await go(page, url, hash="#help")
    await page.wait_for_selector("#work")
    return page


async def shown(page: Page, offer_id: str, state: str) -> None:
    """Wait until an offer's card is there in this state, with nothing of it left to send."""
    await page.wait_for_selector(f"[data-card='{offer_id}'][data-state={state}]")


async def press(page: Page, offer_id: str, word: str) -> None:
    await page.click(f"[data-focus='{word}:{offer_id}']")


async def assignment(system: System, offer_id: str) -> str | None:
    rows = await system.rows("SELECT state FROM matching.assignment WHERE assignment_id = $1", offer_id)
    return rows[0]["state"] if rows else None


async def test_a_volunteer_joins_with_the_code_of_a_message_and_says_when_they_are_free(
    system: System, open_page: OpenPage
) -> None:
    number = f"0840{random.randrange(10**7, 10**8)}"
    page = await open_page(
        "/field", size=PHONE, geolocation={"longitude": 106.86, "latitude": -6.22}, permissions=["geolocation"]
    )
    await go(page, hash="#help")
    name = unique("Sari Uji")
    await page.fill("#my-name", name)
    await page.fill("#my-phone", number)
    await page.click("#join .row button")
    await page.wait_for_selector("#join .row [role=status]:has-text('±')")
    await page.click("#join .choice:has-text('Pertolongan pertama')")
    await page.click("#join button.big")
    await page.wait_for_selector("#join .fault:has-text('Centang')")
    await page.check("#agreed")
    await page.click("#join button.big")
    await page.wait_for_selector("#confirm")

    def code() -> str | None:
        found = [re.search(r"\b\d{6}\b", message["text"]) for message in messages(system.data / "data")]
        return found[-1].group() if found and found[-1] else None

    sent = await until(code, 60)
    await page.fill("#my-code", "000000" if sent != "000000" else "111111")
    await page.click("#confirm button.big")
    await page.wait_for_selector("#alerts .alert:has-text('Kode salah')")
    await page.click("#alerts button")
    await page.fill("#my-code", sent)
    await page.click("#confirm button.big")
    await page.wait_for_selector("#free:has-text('Siap dihubungi')")

    await page.click("[data-focus='free:12']")
    await page.wait_for_selector("#free .resting:has-text('Istirahat sampai')")
    await waiting(page, 0)
    rows = await system.rows(
        "SELECT responder_id, status, schedule FROM registry.responder WHERE status = 'confirmed' ORDER BY made_at DESC LIMIT 1"
    )
    assert json.loads(rows[0]["schedule"])["do_not_send"]["until"]
    await page.click("[data-focus='free:0']")
    await page.wait_for_selector("#free:has-text('Siap dihubungi')")
    await waiting(page, 0)


@pytest.mark.parametrize("lang", ["id", "en"])
async def test_an_offer_accepted_without_a_line_is_an_assignment_when_the_line_is_back(
    system: System, open_page: OpenPage, watch: Watch, operation: str, lang: str
) -> None:
    async with system.client("admin") as admin, line_to(system) as line:
        watch.allowed = (line.url,)
        who = await make_responder(admin, skill := own_skill())
        need = await make_need(admin, operation, skill)
        offer = (await offered(admin, who, need))["offer_id"]
        page = await signed_in(await open_page(f"{line.url}/field", size=PHONE, lang=lang), system, who, line.url)
        await shown(page, offer, "offered")
        line.cut()
        await press(page, offer, "accept")
        await shown(page, offer, "made")
        await page.wait_for_selector(f"[data-card='{offer}'] .alert")  # not certain yet: do not set out
        await waiting(page, 1)
        await page.goto(f"{line.url}/field#help")
        await shown(page, offer, "made")
        assert await assignment(system, offer) is None
        line.state = "open"
        await page.click("#line button")
        await waiting(page, 0)
        assert await assignment(system, offer) == "made"
        await page.wait_for_selector(f"[data-card='{offer}'] .alert", state="detached")
