"""The operations board: what an officer sees and does, live, by keyboard, and beside a second officer."""

from __future__ import annotations

import gzip
import re
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.e2e.system import System, until
from tests.web.browser import LAPTOP, PHONE, STATIC, WALL, Watch

EAST = {"lon": 106.8664, "lat": -6.2221, "admin": "kemendagri:31.75"}
WEST = {"lon": 106.72, "lat": -6.15, "admin": "kemendagri:31.73"}
OpenPage = Callable[..., Awaitable[Page]]


async def report(system: System, operation: str, text: str, **more: Any) -> dict[str, Any]:
    async with system.client("operator") as client:
        body = {"text": text, "hazard": "flood", "severity": 3, "operation": operation, "location": EAST} | more
        answer = await client.post("/v1/reports", json=body)
        assert answer.status_code == 202, answer.text
        taken: dict[str, Any] = answer.json()
        return taken


async def incident(system: System, operation: str, text: str, **more: Any) -> str:
    """The id of an incident of one report with these words, once it is there."""
    taken = await report(system, operation, text, **more)

    async def there() -> str | None:
        async with system.client("operator") as client:
            found = (await client.get("/v1/reports", params={"operation": operation})).json()["reports"]
        return next((each["incident_id"] for each in found if each["report_id"] == taken["report_id"]), None)

    found: str = await until(there, 60, system.tail)
    return found


async def whole(system: System, of: str) -> dict[str, Any]:
    async with system.client("operator") as client:
        answer = await client.get(f"/v1/incidents/{of}")
        properties: dict[str, Any] = answer.json()["properties"]
        return properties


def row(page: Page, words: str) -> Locator:
    return page.locator(".list-incidents .row", has_text=words)


async def act(page: Page, button: str, reason: str, *, within: str = ".detail") -> Locator:
    """Press a button and write the reason; returns the dialog, which is not sent yet."""
    await page.locator(f"{within} button", has_text=re.compile(f"^{button}$")).first.click()
    dialog = page.locator("dialog[open]")
    await dialog.locator("textarea").fill(reason)
    return dialog


async def send(dialog: Locator) -> None:
    await dialog.locator("button[type=submit]").click()


async def test_a_report_stands_on_the_board_without_a_reload(
    system: System, operation: str, open_page: OpenPage
) -> None:
    page = await open_page(f"/?operation={operation}", role="operator", size=WALL)
    await expect(page.locator(".live")).to_have_text("langsung")
    await expect(row(page, "tanggul jebol")).to_have_count(0)
    await report(system, operation, "Air masuk rumah, tanggul jebol", severity=4)
    await expect(row(page, "tanggul jebol")).to_have_count(1)
    await expect(row(page, "tanggul jebol")).to_contain_text("nyawa terancam")
    await expect(page.locator(".totals")).to_contain_text("1 kejadian terbuka")


async def test_filters_stand_in_the_address_and_a_link_shows_the_same(
    system: System, operation: str, open_page: OpenPage
) -> None:
    await incident(system, operation, "Banjir di timur setinggi dada", severity=4)
    await incident(system, operation, "Genangan di barat", severity=1, location=WEST)
    page = await open_page(f"/?operation={operation}", role="operator")
    await expect(page.locator(".list-incidents .row")).to_have_count(2)
    await page.get_by_label("Wilayah").select_option("31.75")
    await expect(page.locator(".list-incidents .row")).to_have_count(1)
    await page.get_by_label("Tingkat").select_option("3")
    await page.locator(".windows button", has_text="6 jam").click()
    await page.keyboard.press("/")
    await page.keyboard.type("dada")
    await expect(page).to_have_url(re.compile("q=dada"))
    for part in ("area=31.75", "severity=3", "hours=6"):
        assert part in page.url
    other = await open_page(page.url.replace(system.url, ""), role="operator", lang="en")
    await expect(other.locator(".list-incidents .row")).to_have_count(1)
    await expect(row(other, "setinggi dada")).to_be_visible()
    await other.get_by_role("button", name="Clear filters").click()
    await expect(other.locator(".list-incidents .row")).to_have_count(2)


@pytest.mark.parametrize(
    ("lang", "verified", "chain", "evidence"),
    [
        ("id", "Diverifikasi", "Rangkaian peristiwa", "diperiksa di lapangan"),
        ("en", "Verified", "Chain of events", "field checked"),
    ],
)
async def test_an_officer_verifies_by_keyboard_alone_with_a_reason_and_takes_it_back(
    system: System, operation: str, open_page: OpenPage, lang: str, verified: str, chain: str, evidence: str
) -> None:
    of = await incident(system, operation, "Longsor menutup jalan desa")
    page = await open_page(f"/?operation={operation}", role="operator", lang=lang)
    await expect(row(page, "Longsor")).to_be_visible()
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.locator(".detail h2")).to_have_text("Longsor menutup jalan desa")
    await tab_to(page, '[data-keep="tool-verify"]')
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog[open] select")).to_be_focused()
    await tab_to(page, "dialog textarea")
    await page.keyboard.type("dilihat dari pos Cugenang")
    await tab_to(page, "dialog button[type=submit]")
    await page.keyboard.press("Enter")
    await expect(page.locator(".done")).to_contain_text(verified)
    assert (await whole(system, of))["evidence"] == "field_checked"
    await expect(page.locator(".detail .part-facts")).to_contain_text(evidence)
    await tab_to(page, '[data-keep="part-history"]')
    await page.keyboard.press("Enter")
    await expect(page.locator(".part-history")).to_contain_text(chain)
    await expect(page.locator(".part-history .decision").first).to_contain_text("dilihat dari pos Cugenang")
    await tab_to(page, ".done .note button")
    await page.keyboard.press("Enter")
    await expect(page.locator(".done .note")).to_have_count(0)
    assert (await whole(system, of))["evidence"] == "reported"
    await page.keyboard.press("Escape")
    await expect(page.locator(".detail")).to_be_hidden()
    await expect(row(page, "Longsor")).to_be_focused()


async def tab_to(page: Page, selector: str, most: int = 80) -> None:
    """Go there by Tab alone."""
    for _ in range(most):
        await page.keyboard.press("Tab")
        if await page.evaluate("of => document.activeElement?.matches(of) ?? false", selector):
            return
    raise AssertionError(f"{selector} is not reached by {most} times Tab")


async def test_an_edit_without_a_reason_is_not_sent(system: System, operation: str, open_page: OpenPage) -> None:
    of = await incident(system, operation, "Pohon tumbang menimpa rumah")
    page = await open_page(f"/?operation={operation}&incident={of}", role="operator")
    dialog = await act(page, "Tutup kejadian", "  ")
    await send(dialog)
    await expect(dialog.get_by_role("alert")).to_have_text("Tulis alasannya dulu.")
    assert (await whole(system, of))["status"] == "open"


async def test_two_officers_see_each_others_edit_and_a_stale_one_is_refused_kindly(
    system: System, operation: str, open_page: OpenPage
) -> None:
    of = await incident(system, operation, "Gudang beras terendam")
    ani = await open_page(f"/?operation={operation}&incident={of}", token=system.token("operator", "ani"))
    budi = await open_page(f"/?operation={operation}&incident={of}", token=system.token("operator", "budi"))
    closing = await act(ani, "Tutup kejadian", "sudah surut")
    checking = await act(budi, "Verifikasi", "dilihat sendiri")
    await send(checking)
    await expect(budi.locator(".done")).to_contain_text("Diverifikasi")
    # Ani sees it while her own dialog is open,
    await expect(ani.locator(".detail .notice")).to_contain_text("petugas budi")
    # and what she decided on what she saw before is not done.
    await send(closing)
    await expect(closing).to_contain_text("Orang lain memutuskan sesuatu")
    await expect(closing).to_contain_text("petugas budi")
    await expect(closing).to_contain_text("dilihat sendiri")
    assert (await whole(system, of))["status"] == "open"
    await closing.get_by_role("button", name="Lihat yang baru").click()
    await expect(ani.locator(".detail .part-facts")).to_contain_text("diperiksa di lapangan")
    again = await act(ani, "Tutup kejadian", "sudah surut")
    await send(again)
    await expect(row(budi, "Gudang beras")).to_have_count(0)
    assert (await whole(system, of))["status"] == "closed"


async def test_merging_splitting_and_unlinking_can_be_taken_back(
    system: System, operation: str, open_page: OpenPage
) -> None:
    near = await incident(system, operation, "Sekolah dasar ambruk di Cilincing")
    far = await incident(system, operation, "Pasar kebakaran hebat", hazard="fire", location=WEST)
    page = await open_page(f"/?operation={operation}&incident={far}", role="operator")
    dialog = await act(page, "Gabung", "satu kejadian")
    await expect(dialog.locator("select option")).to_contain_text("Sekolah dasar")
    await send(dialog)
    await expect(page.locator(".detail .report")).to_have_count(2)
    assert (await whole(system, far))["merged_into"] == near
    # Taken back: the report is an incident of its own again.
    await page.locator(".done button", has_text="Pisahkan lagi").click()
    await expect(page.locator(".detail .report")).to_have_count(1)
    await expect(row(page, "Pasar kebakaran")).to_have_count(1)
    # And the other way round, by splitting.
    await row(page, "Pasar kebakaran").click()
    await expect(page.locator(".detail h2")).to_have_text("Pasar kebakaran hebat")
    await send(await act(page, "Gabung", "satu kejadian"))
    await expect(page.locator(".detail .report")).to_have_count(2)
    await page.locator(".detail .report", has_text="Pasar").locator("input[type=checkbox]").check()
    await send(await act(page, "Pisah", "tempat lain"))
    await expect(page.locator(".detail .report")).to_have_count(1)
    await page.locator(".done button", has_text="Gabung lagi").click()
    await expect(page.locator(".detail .report")).to_have_count(2)
    await send(await act(page, "Lepas dari kejadian", "salah taut", within=".detail .report"))
    await expect(page.locator(".detail .report")).to_have_count(1)
    await page.locator(".done button", has_text="Tautkan lagi").click()
    await expect(page.locator(".detail .report")).to_have_count(2)
    assert (await whole(system, near))["reports"] == 2


async def test_a_draft_is_declared_explained_and_withdrawn(system: System, operation: str, open_page: OpenPage) -> None:
    """So many blankets on one stranger's word are a draft until an officer has looked."""
    text = "Warga di atap balai desa, butuh 900 selimut"
    async with system.client() as anybody:
        body = {"text": text, "hazard": "flood", "severity": 4, "operation": operation, "location": EAST,
                "needs": [{"item": "blanket", "quantity": 900}]}  # fmt: skip
        answer = await anybody.post("/v1/reports", json=body, headers={"Gotong-Device": uuid4().hex})
        assert answer.status_code == 202, answer.text
    page = await open_page(f"/?operation={operation}", role="operator")
    drafted = page.locator(".list-drafts .row", has_text="Selimut")
    await drafted.click()
    need = page.locator(".detail .need", has_text="Selimut")
    await expect(need).to_contain_text("rancangan")
    await send(await act(page, "Tetapkan", "dicek lewat telepon", within=".detail .need"))
    await expect(drafted).to_have_count(0)
    wanted = page.locator(".list-needs .row", has_text="Selimut")
    await expect(wanted).to_contain_text("kurang 900")
    await expect(need.locator(".ledger-words")).to_contain_text("900 belum ada")
    await need.get_by_role("button", name="Mengapa?").click()
    await expect(need.locator(".explained")).to_contain_text("belum ada")
    await send(await act(page, "Tarik", "sudah tertolong", within=".detail .need"))
    await expect(wanted).to_have_count(0)
    await page.locator(".done button", has_text="Tambah lagi").click()
    await expect(wanted).to_have_count(1)


async def test_a_report_without_a_place_is_placed_by_an_areas_name(
    system: System, operation: str, open_page: OpenPage
) -> None:
    taken = await report(system, operation, "Kami terjebak di lantai dua, air naik terus", location=None)
    assert taken["needs_place"]
    page = await open_page(f"/?operation={operation}", role="operator")
    waiting = page.locator(".list-unplaced .row", has_text="lantai dua")
    await waiting.click()
    dialog = page.locator("dialog[open]")
    await dialog.get_by_label("atau wilayah").fill("Kota Administrasi Jakarta Timur")
    await dialog.locator("textarea").fill("dari telepon")
    await send(dialog)
    await expect(waiting).to_have_count(0)
    await expect(row(page, "lantai dua")).to_have_count(1)


async def test_a_point_is_taken_from_the_map_by_keyboard(system: System, operation: str, open_page: OpenPage) -> None:
    taken = await report(system, operation, "Rumah hanyut di dekat jembatan", location=None)
    page = await open_page(f"/?operation={operation}", role="operator", size=PHONE)
    await expect(page.locator(".leaflet-control-zoom")).to_be_attached()
    await page.locator("nav.tabs button").nth(3).click()
    await page.locator(".list-unplaced .row", has_text="hanyut").click()
    dialog = page.locator("dialog[open]")
    await dialog.get_by_role("button", name=re.compile("Tunjuk di peta")).click()
    await expect(page.locator(".map")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(dialog.get_by_label("Lintang")).not_to_have_value("")
    await dialog.locator("textarea").fill("ditunjuk di peta")
    await send(dialog)
    await expect(page.locator(".list-unplaced .row", has_text="hanyut")).to_have_count(0)
    placed = await system.rows("SELECT lon, lat FROM intake.report WHERE report_id = $1::uuid", taken["report_id"])
    assert placed[0]["lon"] is not None and placed[0]["lat"] is not None


async def test_the_slider_shows_what_was_known_then_and_lets_nobody_change_it(
    system: System, operation: str, open_page: OpenPage
) -> None:
    await incident(system, operation, "Kejadian pertama di pasar")
    page = await open_page(f"/?operation={operation}", role="operator")
    await expect(page.locator(".list-incidents .row")).to_have_count(1)
    # An hour ago nothing was known of it.
    await page.locator("#as-of").focus()
    for _ in range(12):
        await page.keyboard.press("ArrowLeft")
    await expect(page.locator(".past")).to_contain_text("Kejadian seperti diketahui pada")
    await expect(page.locator(".list-incidents .row")).to_have_count(0)
    assert "as_of=" in page.url
    await page.get_by_role("button", name="Kembali ke sekarang").click()
    await expect(page.locator(".list-incidents .row")).to_have_count(1)
    assert "as_of=" not in page.url
    await row(page, "pertama").click()
    await expect(page.locator('[data-keep="tool-verify"]')).to_be_visible()


async def test_the_situation_report_stands_in_the_page_and_is_what_is_printed(
    system: System, operation: str, open_page: OpenPage
) -> None:
    await incident(system, operation, "<img src=x onerror=alert(1)> banjir", severity=4)
    page = await open_page(f"/?operation={operation}", role="operator", lang="en")

    async def reported() -> bool:
        async with system.client("operator") as client:
            params = {"operation": operation, "format": "json"}
            answer = await client.get("/v1/sitreps", params=params)
        return answer.json()["totals"]["incidents"] == 1

    await until(reported, 60, system.tail)
    await page.get_by_role("button", name="Situation report").click()
    body = page.locator(".sitrep-body")
    await expect(body.get_by_role("heading", level=1)).to_contain_text("Situation report")
    await expect(body).to_contain_text("<img src=x onerror=alert(1)> banjir")
    assert await body.locator("img, script, style, a, iframe").count() == 0
    await page.emulate_media(media="print")
    await expect(body.get_by_role("heading", level=1)).to_be_visible()
    await expect(page.locator(".top")).to_be_hidden()
    await expect(page.locator(".list-incidents")).to_be_hidden()


async def test_a_stalled_board_says_how_old_it_is_and_catches_up_by_itself(
    system: System, operation: str, open_page: OpenPage, watch: Watch
) -> None:
    watch.line_cut = True
    page = await open_page(f"/?operation={operation}", role="operator")
    await expect(page.locator(".live")).to_have_text("langsung")
    await page.context.set_offline(True)
    await expect(page.locator(".stale")).to_contain_text(re.compile(r"Data berumur \d+ dtk"))
    await report(system, operation, "Datang saat papan terputus")
    await page.context.set_offline(False)
    await expect(page.locator(".live")).to_have_text("langsung")
    await expect(row(page, "papan terputus")).to_have_count(1)
    await expect(page.locator(".stale")).to_be_hidden()


async def test_a_line_that_goes_while_the_map_loads_costs_nobody_the_map(
    system: System, operation: str, open_page: OpenPage
) -> None:
    page = await open_page(f"/?operation={operation}", role="operator", size=WALL)
    await expect(page.locator(".credit")).to_be_visible(timeout=60_000)
    refused = {"map": 0, "land": 0}

    async def once(route: Route) -> None:
        name = next(name for name in refused if name in route.request.url)
        refused[name] += 1
        await (route.abort("internetdisconnected") if refused[name] == 1 else route.continue_())

    await page.route(re.compile(r"/assets/.*(map|land)[^/]*\.js$"), once)
    await page.reload()
    await expect(page.locator(".credit")).to_be_visible(timeout=60_000)

    async def again() -> bool:
        return min(refused.values()) > 1

    await until(again, 60)


async def test_a_colleague_who_may_only_look_gets_no_buttons(
    system: System, operation: str, open_page: OpenPage
) -> None:
    of = await incident(system, operation, "Tanggul retak di hilir")
    page = await open_page(f"/?operation={operation}&incident={of}", role="auditor")
    await expect(page.locator(".detail .report")).to_have_count(1)
    await expect(page.locator(".detail .tools button")).to_have_count(0)


@pytest.mark.parametrize("size", [WALL, LAPTOP, PHONE], ids=["wall", "laptop", "phone"])
async def test_nothing_lies_outside_the_page(
    system: System, operation: str, open_page: OpenPage, size: dict[str, int]
) -> None:
    long = "Rumahsakitumumdaerah" * 30
    of = await incident(system, operation, long, severity=4)
    page = await open_page(f"/?operation={operation}", role="operator", size=size)
    await expect(row(page, "Rumahsakit")).to_be_visible()
    for _ in range(2):
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        box = await page.locator(".list-incidents .row").first.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= size["width"]
        await row(page, "Rumahsakit").click()
        await expect(page.locator(".detail .report")).to_have_count(1)
        detail = await page.locator(".detail").bounding_box()
        assert detail is not None and detail["x"] >= 0 and detail["x"] + detail["width"] <= size["width"] + 1
        await page.keyboard.press("Escape")
    assert of in (await page.locator(".list-incidents .row").first.get_attribute("data-id") or "")


async def test_the_board_weighs_at_most_80_kilobytes_without_base_data(open_page: OpenPage) -> None:
    """What a browser fetches for it in one language, packed. Base data: coast lines, and names of places and areas."""
    page = await open_page("/", role="operator")
    await expect(page.locator(".leaflet-control-zoom")).to_be_visible()
    fetched = await page.evaluate("performance.getEntriesByType('resource').map(entry => new URL(entry.name).pathname)")
    files = {path.rpartition("/")[2] for path in fetched if path.startswith("/assets/")}
    base = {name for name in files if re.search(r"land|towns|area-names|area-points", name)}
    weighed = {name: len(gzip.compress((STATIC / "assets" / name).read_bytes(), 9)) for name in files - base}
    assert len(weighed) > 5
    assert sum(weighed.values()) + len(gzip.compress((STATIC / "index.html").read_bytes(), 9)) <= 80_000, weighed
