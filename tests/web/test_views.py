"""What holds on every view: nobody is shut out, nothing is cut off, severity is told three ways, and files are small."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.gateway.pages import policy
from tests.e2e.system import System, until
from tests.web.browser import LAPTOP, PHONE, STATIC, WALL, insist
from tests.web.conftest import OpenPage, make_operation
from tests.web.views import VIEWS, View, show

AXE = Path(__file__).resolve().parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
RUN = """() => axe.run(document, {resultTypes: ['violations']}).then(found => found.violations
    .filter(each => ['serious', 'critical'].includes(each.impact))
    .map(each => [each.id, each.nodes.length, each.nodes[0].html.slice(0, 160), each.nodes[0].failureSummary.slice(0, 300)]))"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def busy(system: System) -> str:
    """An operation with something in each list: incidents of every severity, needs, a draft, a report without a place."""
    operation = await make_operation(system)
    async with system.client("operator") as client:
        reports: list[dict[str, Any]] = [
            {"text": f"Banjir setinggi {severity} meter di gang {severity}", "hazard": "flood", "severity": severity,
             "location": {"lon": 106.75 + severity / 20, "lat": -6.2, "admin": "kemendagri:31.75"}, "operation": operation,
             "people": {"displaced": 7 * severity}, "needs": [{"item": "boat", "quantity": severity}]}
            for severity in (1, 2, 3, 4)
        ]  # fmt: skip
        reports.append({"text": "Air masuk rumah kami, tolong", "hazard": "flood", "operation": operation})
        for report in reports:
            answer = await client.post("/v1/reports", json=report)
            assert answer.status_code == 202, answer.text

    async def linked() -> bool:
        rows = await system.rows("SELECT count(*) AS n FROM intake.incident WHERE operation = $1", operation)
        return bool(rows[0]["n"] == 4)

    await until(linked, 120, system.tail)
    return operation


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
async def test_nobody_is_shut_out_and_nothing_is_cut_off(open_page: OpenPage, busy: str, view: View) -> None:
    """axe-core finds nothing serious or critical, dark and light; nothing is wider than the screen at any size."""
    if not AXE.exists():
        insist()
        pytest.skip("axe-core was not fetched: make web")
    page = await open_page(view.path.format(operation=busy), role=view.role, size=LAPTOP, theme="dark")
    await show(page, view)
    assert await page.evaluate("[document.documentElement.lang, document.documentElement.dir]") == ["id", "ltr"]
    await page.evaluate(AXE.read_text())
    for theme in ("dark", "light"):
        await page.emulate_media(color_scheme=theme)
        assert await page.evaluate(RUN) == [], f"{view.name}, {theme}"
    for size in (WALL, LAPTOP, PHONE):
        await page.set_viewport_size(size)
        wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"{view.name} at {size['width']}: {wide} px too wide"
    await page.evaluate("document.documentElement.dir = 'rtl'")
    wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{view.name} from right to left: {wide} px too wide"


async def test_severity_is_told_by_shape_and_word_beside_its_colour(open_page: OpenPage, busy: str) -> None:
    page = await open_page(f"/?operation={busy}", role="operator", size=WALL)
    rows = page.locator("#list-incidents .row")
    await rows.nth(3).wait_for()
    shapes = await rows.locator("svg path").evaluate_all("paths => paths.map(path => path.getAttribute('d'))")
    assert len(set(shapes)) == 4
    shown = await page.locator("#list-incidents").inner_text()
    for word in ("ringan", "sedang", "berat", "nyawa terancam"):
        assert word in shown


def bytes_of(page: str) -> int:
    """The bytes on the line, in gzip, of a page with all that it may load, by the build's manifest."""
    manifest = json.loads((STATIC / "manifest.json").read_text())
    seen: set[str] = set()
    wanted = [page]
    while wanted:
        entry = manifest[wanted.pop()]
        if entry["file"] in seen:
            continue
        seen |= {entry["file"], *entry.get("css", [])}
        wanted += [*entry.get("imports", []), *entry.get("dynamicImports", [])]
    return sum(len(gzip.compress((STATIC / name).read_bytes(), 9)) for name in seen)


def test_pages_for_everybody_are_small_enough_for_the_lines_they_are_read_on() -> None:
    insist()
    for page in ("public.html", "paper.html", "login.html"):
        assert bytes_of(page) <= 20_000, page


def test_the_policy_lets_nothing_inline_run() -> None:
    assert "unsafe" not in policy()
    assert "http" not in policy()
    assert "*" not in policy()


async def test_every_page_is_sent_under_the_policy(system: System) -> None:
    async with system.client() as client:
        for path in ("/", "/field", "/public", "/paper", "/login", "/field-sw.js"):
            answer = await client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-security-policy"] == policy()
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["x-content-type-options"] == "nosniff"
