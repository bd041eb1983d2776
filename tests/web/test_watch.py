"""The watch over what pages do notices what it is there for."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser

from tests.web.browser import Watch, insist, lacking


@pytest.mark.parametrize(
    ("html", "noticed"),
    [
        ("<img src='http://third.example/pixel.png'>", "third party"),
        ("<script>alert('run')</script>", "dialog"),
        ("<script>throw new Error('broken')</script>", "errors in the page"),
        (
            "<meta http-equiv='Content-Security-Policy' content=\"script-src 'none'\"><script>1</script>",
            "security policy",
        ),
    ],
)
async def test_what_a_page_may_not_do_is_noticed(browser: Browser, html: str, noticed: str) -> None:
    watch = Watch("http://own.example")
    context = await browser.new_context()
    watch.over(context)
    await context.route("http://**", lambda route: route.fulfill(body=html, content_type="text/html"))
    page = await context.new_page()
    await page.goto("http://own.example/", wait_until="networkidle")
    await context.close()
    with pytest.raises(AssertionError, match=noticed):
        watch.judge()


async def test_a_page_that_does_nothing_of_it_passes(browser: Browser) -> None:
    watch = Watch("http://own.example")
    context = await browser.new_context()
    watch.over(context)
    html = "<p>teks<script>document.title = 'x'</script><img src=/own.png>"
    await context.route("http://**", lambda route: route.fulfill(body=html, content_type="text/html"))
    page = await context.new_page()
    await page.goto("http://own.example/", wait_until="networkidle")
    await context.close()
    watch.judge()


def test_a_browser_that_is_required_may_not_be_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.web.browser.browser_path", lambda: None)
    assert "apt-get install chromium" in lacking()
    monkeypatch.setenv("GOTONG_REQUIRE", "kafka")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        insist()
    monkeypatch.setenv("GOTONG_REQUIRE", "kafka, chromium")
    with pytest.raises(pytest.fail.Exception, match="no browser"):
        insist()
