"""Every view that a person meets, with how one gets there: for what must hold on all of them."""

from __future__ import annotations

from dataclasses import dataclass

from playwright.async_api import Page, expect


@dataclass(frozen=True)
class View:
    """`path` may hold `{operation}`. `ready`: what is there when the view is drawn."""

    name: str
    path: str
    ready: str
    role: str | None = None
    opens: str | None = None
    """What is pressed after that, and `then` appears."""
    then: str | None = None


VIEWS = (
    View("board", "/?operation={operation}", "#list-incidents .row", role="operator"),
    View("incident", "/?operation={operation}", "#list-incidents .row", "operator", "#list-incidents .row", ".detail .part"),
    View("verify", "/?operation={operation}", "#list-incidents .row", "operator", "#list-incidents .row", ".detail .part"),
    View("sitrep", "/?operation={operation}", "#list-incidents .row", "operator", ".top button.first", "dialog.sitrep h1"),
    View("help", "/?operation={operation}", "#list-incidents .row", "operator", ".top button:text-is('?')", "dialog[open]"),
    View("welcome", "/", ".welcome h1"),
    View("report", "/field?operation={operation}", "html[data-ready]"),
    View("mine", "/field#mine", "#mine h1"),
    View("volunteer", "/field#help", "#help h1"),
    View("public", "/public?operation={operation}", "#incidents + ul li"),
    View("paper", "/paper", ".sheet"),
    View("login", "/login", "form"),
)  # fmt: skip


async def show(page: Page, view: View) -> None:
    """Wait until the view is there, opened where it has to be."""
    await expect(page.locator(view.ready).first).to_be_attached(timeout=60_000)
    if view.opens is not None and view.then is not None:
        await page.locator(view.opens).first.click()
        await expect(page.locator(view.then).first).to_be_visible(timeout=60_000)
    if view.name == "verify":
        await page.locator(".detail .tools .first").first.click()
        await expect(page.locator("dialog.edit")).to_be_visible()
