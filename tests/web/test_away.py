"""The server is away while people work on the board and on the field page: nothing is lost or doubled, and they see it."""

from __future__ import annotations

import asyncio
import time

import pytest
from playwright.async_api import expect

from tests.e2e.system import System, until
from tests.web.browser import LAPTOP, PHONE, Watch
from tests.web.conftest import OpenPage
from tests.web.field import go, line_to, said, unique
from tests.web.test_field import send, waiting


@pytest.mark.timeout(1500)
@pytest.mark.slow
@pytest.mark.parametrize("away_s", [30, 600])
async def test_nothing_is_lost_or_doubled_and_everybody_could_see_it(
    system: System, open_page: OpenPage, watch: Watch, operation: str, away_s: int
) -> None:
    async with line_to(system) as line, system.client("operator") as other:
        watch.allowed, watch.line_cut = (line.url,), True

        async def report(text: str, lon: float) -> None:
            body = {"title": text, "text": text, "hazard": "flood", "severity": 3, "operation": operation,
                    "location": {"lon": lon, "lat": -6.2}}  # fmt: skip
            assert (await other.post("/v1/reports", json=body)).status_code == 202

        before, meanwhile = unique("Sebelum putus"), unique("Selama putus")
        await report(before, 106.7)
        place = {"longitude": 106.95, "latitude": -6.2}
        phone = await open_page(f"{line.url}/field", size=PHONE, geolocation=place, permissions=["geolocation"])
        await go(phone, line.url, query=f"?operation={operation}")
        board = await open_page(f"{line.url}/?operation={operation}", role="operator", size=LAPTOP)
        rows = board.locator("#list-incidents .row")
        await expect(rows).to_have_count(1, timeout=60_000)
        await expect(board.locator(".live")).to_have_text("langsung")

        line.cut()
        begun = time.monotonic()
        # On the phone two reports are written, and are safe there.
        written = [unique("Ditulis selama putus") for _ in range(2)]
        for text in written:
            await send(phone, text)
        await waiting(phone, 2)
        await expect(phone.locator("#line")).to_contain_text("aman di HP ini")
        # On the board a decision is made, is not taken, and stands as it was typed.
        await rows.first.click()
        tools = board.locator(".detail .tools .first").first
        if await tools.count() == 0:  # the incident itself cannot be had now, and the board says so
            await expect(board.locator(".detail [role=alert]")).to_contain_text("Server tidak menjawab")
            await board.keyboard.press("Escape")
        # Somebody else's report comes in all the same.
        await report(meanwhile, 106.8)
        await expect(board.locator(".stale")).to_be_visible(timeout=90_000)
        await expect(board.locator(".stale")).to_contain_text("Data berumur")
        await asyncio.sleep(max(0.0, away_s - (time.monotonic() - begun)))
        await expect(board.locator(".live")).not_to_have_text("langsung")

        line.state = "open"
        await waiting_with_patience(phone, 0)
        await expect(board.locator(".stale")).to_be_hidden(timeout=90_000)
        await expect(board.locator(".live")).to_have_text("langsung")
        for text in (before, meanwhile, *written):
            assert len(await said(system, text)) == 1

        async def linked() -> int | None:
            found = await system.rows(
                "SELECT count(*) AS open, sum(reports) AS reports FROM intake.incident WHERE operation = $1 AND status = 'open'",
                operation,
            )
            placed = await system.rows(
                "SELECT count(*) AS n FROM intake.report WHERE operation = $1 AND incident_id IS NULL AND lon IS NOT NULL",
                operation,
            )
            return int(found[0]["open"]) if placed[0]["n"] == 0 else None

        open_ones = await until(linked, 60, system.tail)
        # What passed meanwhile is on the board now, each once.
        await expect(rows).to_have_count(open_ones, timeout=60_000)
        await expect(board.locator("#list-incidents")).to_contain_text(meanwhile)
        shown = await rows.evaluate_all("rows => rows.map(row => row.dataset.id)")
        assert len(set(shown)) == len(shown)


async def waiting_with_patience(phone, number: int) -> None:
    """As `waiting`: the phone tries again by itself, a minute apart after a long time."""
    phone.set_default_timeout(120_000)
    await waiting(phone, number)


@pytest.mark.timeout(600)
async def test_a_decision_that_met_a_dead_line_is_made_once_when_it_is_sent_again(
    system: System, open_page: OpenPage, watch: Watch, operation: str
) -> None:
    async with line_to(system) as line, system.client("operator") as other:
        watch.allowed, watch.line_cut = (line.url,), True
        body = {
            "text": unique("Banjir"),
            "hazard": "flood",
            "operation": operation,
            "location": {"lon": 106.7, "lat": -6.2},
        }
        assert (await other.post("/v1/reports", json=body)).status_code == 202
        board = await open_page(f"{line.url}/?operation={operation}", role="operator", size=LAPTOP)
        await expect(board.locator("#list-incidents .row")).to_have_count(1, timeout=60_000)
        await board.locator("#list-incidents .row").click()
        await board.locator(".detail .tools .first").first.click()
        dialog = board.locator("dialog.edit")
        await dialog.locator("textarea").fill("Dilihat dari jembatan")
        # Its first sending arrives, and the answer is lost on the way.
        line.state = "mute"
        await dialog.locator("button[type=submit]").click()
        await expect(dialog.locator(".said")).to_contain_text("Server tidak menjawab", timeout=60_000)
        assert await dialog.locator("textarea").input_value() == "Dilihat dari jembatan"
        line.cut()
        line.state = "open"
        await dialog.locator("button[type=submit]").click()
        await expect(dialog).to_have_count(0, timeout=60_000)
        incident = await board.locator("#list-incidents .row").get_attribute("data-id")
        whole = (await other.get(f"/v1/incidents/{incident}")).json()["properties"]
        decided = [step for step in whole["history"] if step.get("reason") == "Dilihat dari jembatan"]
        assert len(decided) == 1
