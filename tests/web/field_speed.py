"""How soon the field page can be used on a bad line: `python -m tests.web.field_speed URL` prints it for a server that
runs, by Chromium's own throttling, on a phone four times slower than this machine and with nothing kept from before.

Not a test: what it measures is this machine's as well.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

from playwright.async_api import Browser, async_playwright

from tests.web.browser import ARGUMENTS, PHONE, browser_path

LINES = {"GPRS 50 kbit/s, 500 ms": (50, 500), "2G 250 kbit/s, 300 ms": (250, 300)}
RUNS = 5
SLOWER = 4


async def opened(browser: Browser, url: str, kbit_s: int, latency_ms: int) -> dict[str, float]:
    """Seconds from asking for the page until it shows its form, can be written in, and has all else ready."""
    context = await browser.new_context(viewport=PHONE, locale="id-ID")
    page = await context.new_page()
    cdp = await context.new_cdp_session(page)
    await cdp.send("Network.enable")
    throttled = {
        "offline": False,
        "latency": latency_ms,
        "downloadThroughput": kbit_s * 125,
        "uploadThroughput": kbit_s * 125,
    }
    await cdp.send("Network.emulateNetworkConditions", throttled)
    await cdp.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    begun = time.monotonic()
    found: dict[str, float] = {}
    await page.goto(f"{url}/field", wait_until="commit")
    for name, selector in (
        ("form shown", "#form button.big"),
        ("usable", "html[data-ready=form], html[data-ready=all], html[data-ready=offline]"),
        ("all ready", "html[data-ready=all], html[data-ready=offline]"),
    ):
        await page.wait_for_selector(selector, timeout=120_000, state="attached")
        found[name] = time.monotonic() - begun
    await context.close()
    return found


async def main(url: str) -> None:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
        for name, (kbit_s, latency_ms) in LINES.items():
            runs = [await opened(browser, url, kbit_s, latency_ms) for _ in range(RUNS)]
            for what in runs[0]:
                seconds = sorted(run[what] for run in runs)
                print(
                    f"{name}: {what} {statistics.median(seconds):.1f} s (of {RUNS}: {seconds[0]:.1f} to {seconds[-1]:.1f})"
                )
        await browser.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.web.field_speed URL, for example http://127.0.0.1:8000")
    asyncio.run(main(sys.argv[1]))
