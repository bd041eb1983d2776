"""A browser for the tests: which one, how it is started, and what it is never allowed to do."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import BrowserContext, Page

STATIC = Path(__file__).resolve().parents[2] / "services" / "gateway" / "static"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # as root there is none
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WALL = {"width": 1920, "height": 1080}
LAPTOP = {"width": 1280, "height": 720}
PHONE = {"width": 390, "height": 844}


@lru_cache(maxsize=1)
def browser_path() -> str | None:
    """The Chromium of this machine; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def lacking(pages: bool = True) -> str:
    """Why the pages cannot be tested here, in one sentence; empty when they can. `pages`: whether ours must be built."""
    if browser_path() is None:
        return f"there is no browser on the PATH ({', '.join(NAMES)}); Debian: apt-get install chromium"
    if pages and not (STATIC / "index.html").exists():
        return "the pages are not built; build them with: make web"
    return ""


def said() -> str:
    """One line for the head of the run."""
    why = lacking()
    return f"browser: none, because {why}; left out: tests/web" if why else f"browser: {browser_path()}"


def insist(pages: bool = True) -> None:
    """Skip a test that needs a browser where it cannot run; fail where GOTONG_REQUIRE has chromium."""
    if why := lacking(pages):
        required = {word.strip() for word in os.environ.get("GOTONG_REQUIRE", "").split(",")}
        if "chromium" in required:
            pytest.fail(f"GOTONG_REQUIRE asks for chromium, but {why}")
        pytest.skip(why)


@dataclass
class Watch:
    """What the pages of a context asked for and complained of. Every test's contexts are judged by it at the end."""

    origin: str
    allowed: tuple[str, ...] = ()
    """Origins that a test means its pages to go to: the provider's, at a login."""
    line_cut: bool = False
    """Whether the test takes the line away: what matters then is what the page shows of it, which the test looks at."""
    foreign: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def over(self, context: BrowserContext) -> None:
        """Listen to all that happens in a context from now on, also in its service worker."""
        context.on("request", lambda request: self._asked(request.url))
        context.on("weberror", lambda error: self._failed(str(error.error)))
        context.on("page", self._page)
        context.on("console", lambda message: self._said(message.type, message.text))
        for page in context.pages:
            self._page(page)

    def _page(self, page: Page) -> None:
        async def dismiss(dialog) -> None:
            self.dialogs.append(dialog.message)
            await dialog.dismiss()

        page.on("dialog", dismiss)

    def _asked(self, url: str) -> None:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme in ("http", "https", "ws", "wss") and origin not in (self.origin, *self.allowed):
            self.foreign.append(url)

    def _said(self, kind: str, text: str) -> None:
        if "Content Security Policy" in text or "Content-Security-Policy" in text:
            self.refused.append(text)

    def _failed(self, error: str) -> None:
        if not (self.line_cut and "Failed to fetch" in error):
            self.errors.append(error)

    def judge(self) -> None:
        """No request to a third party, nothing that the policy had to refuse, no error, no dialog of a hostile text."""
        assert not self.foreign, f"asked a third party: {self.foreign[:5]}"
        assert not self.refused, f"against the content security policy: {self.refused[:5]}"
        assert not self.errors, f"errors in the page: {self.errors[:5]}"
        assert not self.dialogs, f"a dialog was opened: {self.dialogs[:5]}"
