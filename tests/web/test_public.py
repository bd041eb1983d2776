"""The public page and the paper forms: for everybody, coarse on purpose, small, and fit to print."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.e2e.system import System, until
from tests.web.browser import LAPTOP, PHONE
from tests.web.conftest import make_operation

TEXT = "Air naik di gang Rajawali nomor empat belas, 37 orang mengungsi"


async def post_report(system: System, operation: str, **changes: object) -> None:
    async with system.client("operator") as client:
        report = {"text": TEXT, "hazard": "flood", "severity": 4, "operation": operation,
                  "location": {"lon": 106.8664, "lat": -6.2221, "admin": "kemendagri:31.75"},
                  "people": {"displaced": 37}, "needs": [{"item": "boat", "quantity": 2}]}  # fmt: skip
        answer = await client.post("/v1/reports", json=report | changes)
        assert answer.status_code == 202, answer.text


async def counted(system: System, operation: str) -> None:
    """Wait until the public situation report has the report's figures."""

    async def there() -> bool:
        async with system.client() as client:
            answer = await client.get("/v1/sitreps", params={"operation": operation, "format": "json"})
        return answer.status_code == 200 and answer.json()["totals"]["people"]["displaced"] == "20-49"

    await until(there, 60, system.tail)


@pytest.mark.parametrize(
    ("lang", "title", "hazard", "help_word"),
    [("id", "Informasi untuk umum", "Banjir", "Cara membantu"), ("en", "Public information", "Flood", "How to help")],
)
async def test_everybody_sees_bands_and_areas_and_nothing_finer(
    system: System, operation: str, open_page, lang: str, title: str, hazard: str, help_word: str
) -> None:
    await post_report(system, operation)
    await counted(system, operation)
    # Also an officer's browser asks as the public does.
    page = await open_page(f"/public?operation={operation}&lang={lang}", role="operator", lang=lang, size=PHONE)
    await expect(page.get_by_role("heading", level=1)).to_have_text(title)
    card = page.locator("#incidents + ul li")
    await expect(card).to_have_count(1)
    await expect(card).to_contain_text(hazard)
    await expect(card).to_contain_text("Kota Administrasi Jakarta Timur")
    await expect(card).to_contain_text("20–49")
    await expect(page.get_by_role("heading", name=help_word)).to_be_visible()
    shown = await page.locator("body").inner_text()
    assert "37" not in re.sub(r"\d\d[.:]\d\d|web-[0-9a-f]+", "", shown)
    assert "Rajawali" not in shown
    assert "106" not in shown
    assert await page.evaluate("document.documentElement.lang") == lang
    await overflows_nowhere(page)


async def test_the_page_renews_itself_and_says_when_its_data_are_old(system: System, operation: str, open_page) -> None:
    page = await open_page(f"/public?operation={operation}", size=LAPTOP)
    await expect(page.get_by_role("status")).to_contain_text("diperbarui sendiri")
    await page.clock.install()
    await page.reload()
    await expect(page.get_by_text("Tidak ada kejadian terbuka")).to_be_visible()
    await page.context.set_offline(True)
    await page.clock.run_for(90_000)
    await expect(page.get_by_role("status")).to_contain_text("Sambungan terputus")
    await page.context.set_offline(False)
    await post_report(system, operation)
    await counted(system, operation)

    async def renewed() -> bool:
        await page.clock.run_for(15_000)
        return await page.locator("#incidents + ul li").count() == 1

    await until(renewed, 60)
    await expect(page.get_by_role("status")).to_contain_text("diperbarui sendiri")


async def test_an_exercise_is_taken_for_nothing_else(system: System, open_page) -> None:
    drill = await make_operation(system, title="LATIHAN banjir", exercise=True)
    for lang, word in (("id", "LATIHAN"), ("en", "EXERCISE")):
        page = await open_page(f"/public?operation={drill}&lang={lang}", lang=lang)
        await expect(page.locator(".exercise")).to_contain_text(word)
    page = await open_page("/public?lang=id")
    await expect(page.get_by_role("status")).to_contain_text("diperbarui sendiri")
    await expect(page.locator(".exercise")).to_be_hidden()
    await page.get_by_label("Operasi").select_option(drill)
    await expect(page.locator(".exercise")).to_contain_text("LATIHAN")


async def test_the_situation_report_is_one_key_away_and_in_the_same_language(
    system: System, operation: str, open_page
) -> None:
    page = await open_page(f"/public?operation={operation}&lang=en", lang="en")
    await page.get_by_role("link", name="Read or print all of it").press("Enter")
    await page.wait_for_url(re.compile("sitreps"))
    await expect(page.get_by_role("heading", level=1)).to_be_visible()
    assert await page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("lang", ["id", "en"])
async def test_the_paper_forms_are_two_sheets_of_a4(open_page, lang: str) -> None:
    page = await open_page(f"/paper?lang={lang}", lang=lang)
    await expect(page.get_by_role("heading", level=2)).to_have_count(2)
    pdf = await page.pdf(prefer_css_page_size=True)
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) == 2
    await page.emulate_media(media="print")
    assert not await page.get_by_role("button").first.is_visible()
    await page.emulate_media(media="screen")
    await page.set_viewport_size(PHONE)
    await overflows_nowhere(page)


async def overflows_nowhere(page: Page) -> None:
    """Nothing is wider than the screen."""
    widths = await page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert widths[0] <= widths[1], widths
