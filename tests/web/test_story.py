"""From a report that somebody types without a line to help that is on its way, as three people see it on their screens.

In Indonesian with a mouse and a finger, in English with the keys alone.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, expect

from tests.e2e.system import System, until
from tests.web.browser import PHONE, WALL, Watch
from tests.web.conftest import OpenPage
from tests.web.field import go, line_to, make_responder, said
from tests.web.hands import hands
from tests.web.test_field import waiting

SAYS: dict[str, dict[str, Any]] = {
    "id": {
        "report": "Air naik cepat di gang, butuh 2 tim evakuasi",
        "place": {"longitude": 106.866, "latitude": -6.222},
        "safe": "aman di HP ini",
        "verify": "Verifikasi", "checked": "diperiksa di lapangan", "reason": "Dilihat petugas di lapangan",
        "declare": "Tetapkan: Evakuasi warga", "declare_now": "Tetapkan", "declare_reason": "Sudah dicek", "declared": "Ditetapkan",
        "why": "Mengapa?", "assigned": "Penugasan", "committed": "1 dijanjikan",
        "sitrep": "Laporan situasi", "skill": "Evakuasi warga", "live": "langsung",
    },
    "en": {
        "report": "Water is rising fast in the alley. Need 2 evacuation helpers",
        "place": {"longitude": 107.62, "latitude": -6.95},
        "safe": "safe on this phone",
        "verify": "Verify", "checked": "field checked", "reason": "Seen by staff on the ground",
        "declare": "Declare: Evacuation helper", "declare_now": "Declare", "declare_reason": "Checked", "declared": "Declared",
        "why": "Why?", "assigned": "Assignments", "committed": "1 promised",
        "sitrep": "Situation report", "skill": "Evacuation helper", "live": "live",
    },
}  # fmt: skip
# Notes on the page itself when a row with these words was drawn: what a test sees, it sees later.
NOTE = """words => {
    const look = () => {
        if (window.drawnAt === undefined && document.querySelector('#list-incidents .rows')?.innerText.includes(words)) window.drawnAt = Date.now();
    };
    new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true});
    look();
}"""
OpenProfile = Callable[..., Awaitable[BrowserContext]]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("lang", ["id", "en"])
async def test_a_report_without_a_line_becomes_help_that_is_on_its_way(
    system: System, open_page: OpenPage, open_profile: OpenProfile, watch: Watch, operation: str, lang: str,
    record_property: Callable[[str, object], None],
) -> None:  # fmt: skip
    says = SAYS[lang]
    # A word of letters only: a figure in it would be read as a quantity.
    word = "".join(random.choices("bcdfghjk", k=12))
    text = f"{says['report']} {word}"
    board = await open_page(f"/?operation={operation}&lang={lang}", role="operator", size=WALL, lang=lang)
    await expect(board.locator(".live")).to_contain_text(says["live"])
    await board.evaluate(NOTE, word)

    # A report, typed where there is no line; the browser is closed and opened again before it comes back.
    async with line_to(system) as line:
        watch.allowed = (line.url,)
        phone = {"size": PHONE, "lang": lang, "geolocation": says["place"], "permissions": ["geolocation"]}
        context = await open_profile(f"story-{lang}", **phone)
        page = await go(context.pages[0], line.url, query=f"?operation={operation}")
        line.cut()
        await context.set_offline(True)
        hand = hands(page, lang)
        await hand.write(page.locator("#text"), text)
        await hand.press(page.locator("#hazards input[value=flood]") if lang == "en" else page.locator(".hazard-flood"))
        await hand.press(page.locator("#gps"))
        await page.wait_for_selector("#there button")
        await hand.press(page.locator("#form button.big"))
        await waiting(page, 1)
        await expect(page.locator("#line")).to_contain_text(says["safe"])
        await context.close()

        context = await open_profile(f"story-{lang}", offline=True, **phone)
        page = context.pages[0]
        await page.goto(f"{line.url}/field#mine")
        await waiting(page, 1)
        assert await said(system, text) == []
        line.state = "open"
        await context.set_offline(False)
        await waiting(page, 0)
        await page.wait_for_selector(".card.sent .ticket")
    assert len(await said(system, text)) == 1

    # It is on the board, once.
    row = board.locator("#list-incidents .row")
    await expect(row).to_have_count(1, timeout=60_000)
    await board.wait_for_function("() => window.drawnAt !== undefined", timeout=60_000)
    arrived = (await said(system, text))[0]["received_at"].timestamp()
    record_property("seconds to the board", round(await board.evaluate("window.drawnAt") / 1000 - arrived, 2))

    # The operator looks, declares the need that was read from the words, and verifies what is said.
    desk = hands(board, lang)
    if lang == "en":
        await board.keyboard.press("1")
        await board.keyboard.press("j")
        await board.keyboard.press("Enter")
    else:
        await row.click()
    detail = board.locator(".detail")
    await expect(detail).to_contain_text(text)
    await expect(detail.locator(".need-draft")).to_have_count(1, timeout=60_000)
    await desk.press(detail.get_by_role("button", name=says["declare"]))
    await answer(board, desk, says["declare_reason"])
    await expect(board.locator(".done")).to_contain_text(says["declared"])
    await expect(detail.locator(".need-declared")).to_have_count(1)
    await desk.press(detail.get_by_role("button", name=says["verify"], exact=True))
    await answer(board, desk, says["reason"])
    await expect(detail.locator(".part-facts .evidence").first).to_have_text(says["checked"])

    # A volunteer close by is asked, and accepts on the phone.
    async with system.client("admin") as admin:
        needs = (await admin.get("/v1/needs", params={"operation": operation})).json()["needs"]
        assert [(need["skill"], need["status"]) for need in needs] == [("evacuation", "declared")]
        place = {"lon": says["place"]["longitude"], "lat": says["place"]["latitude"]}
        await make_responder(admin, "evacuation", location=place)

        async def asked() -> dict[str, Any] | None:
            answer = await admin.get("/v1/offers", params={"need": needs[0]["need_id"], "state": "made"})
            found = [each for each in answer.json()["offers"] if each.get("responder_id")]
            return found[0] if found else None

        asking = await until(asked, 120, system.tail)
        volunteer, offer = asking["responder_id"], asking["offer_id"]
    helper = await with_token(await open_page("/field", size=PHONE, lang=lang), system, volunteer)
    card = helper.locator(f"[data-card='{offer}']")
    await expect(card).to_have_attribute("data-state", "offered", timeout=60_000)
    await hands(helper, lang).press(helper.locator(f"[data-focus='accept:{offer}']"))
    await expect(card).to_have_attribute("data-state", "made", timeout=60_000)

    # The board shows who comes, the ledger has moved, and the situation report counts it.
    await expect(detail.locator(".ledger-words")).to_contain_text(says["committed"], timeout=60_000)
    await desk.press(detail.get_by_role("button", name=says["why"]))
    await expect(detail.locator(".explained")).to_contain_text(says["assigned"])

    async def counted() -> bool:
        async with system.client("operator") as client:
            report = await client.get("/v1/sitreps", params={"operation": operation, "format": "json"})
        return bool(
            [need for need in report.json()["needs"] if need["skill"] == "evacuation" and need["committed"] == 1]
        )

    await until(counted, 60, system.tail)
    await desk.press(board.get_by_role("button", name=says["sitrep"]))
    await expect(board.locator("dialog.sitrep")).to_contain_text(says["skill"])
    await expect(board.locator("dialog.sitrep tr", has_text=says["skill"]).first).to_contain_text("1")
    await board.keyboard.press("Escape")
    await expect(row).to_have_count(1)
    assert len(await said(system, text)) == 1


async def with_token(page: Page, system: System, responder_id: str) -> Page:
    """The volunteer's part on a phone that has been given this volunteer's token."""
    await go(page)
    await page.evaluate(
        "session => new Promise(done => { const o = indexedDB.open('gotong-field'); o.onsuccess = () => {"
        " const w = o.result.transaction('values', 'readwrite'); w.objectStore('values').put(session, 'session');"
        " w.oncomplete = () => { o.result.close(); done() } } })",
        {
            "responder_id": responder_id,
            "token": system.token("responder", responder_id),
            "expires_at": "2099-01-01T00:00:00Z",
        },
    )
    return await go(page, hash="#help")


async def answer(board: Page, desk: Any, reason: str) -> None:
    """Give the reason that a dialog asks for, and send it."""
    dialog = board.locator("dialog.edit")
    await desk.press(dialog.get_by_role("button", name=reason))
    await desk.press(dialog.locator("button[type=submit]"))
    await expect(dialog).to_have_count(0, timeout=30_000)
