"""How a person works a page: with a mouse, or with the keys alone."""

from __future__ import annotations

from playwright.async_api import Locator, Page, expect


class Mouse:
    """Clicks on what it means."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def press(self, target: Locator) -> None:
        await target.click()

    async def write(self, target: Locator, text: str) -> None:
        await target.fill(text)

    async def choose(self, target: Locator, value: str) -> None:
        await target.select_option(value)


class Keys:
    """Reaches everything by Tab, as somebody without a mouse does; fails where Tab does not lead."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def reach(self, target: Locator, most: int = 250) -> None:
        """Press Tab until the target has the focus, and see that one can see it."""
        await expect(target).to_be_visible()
        for _ in range(most):
            if await target.evaluate("element => element === document.activeElement"):
                break
            await self.page.keyboard.press("Tab")
        else:
            raise AssertionError(f"{most} times Tab do not reach {target}")
        ring = await target.evaluate(
            "element => { const s = getComputedStyle(element.closest('label') ?? element);"
            " const own = getComputedStyle(element); return [s.outlineStyle, own.outlineStyle, s.boxShadow, own.boxShadow] }"
        )
        assert any(style not in ("none", "") for style in ring), f"nobody sees that {target} has the focus"

    async def press(self, target: Locator) -> None:
        await self.reach(target)
        kind = await target.evaluate("element => element.type ?? ''")
        await self.page.keyboard.press("Space" if kind in ("checkbox", "radio") else "Enter")

    async def write(self, target: Locator, text: str) -> None:
        await self.reach(target)
        await self.page.keyboard.press("Control+A")
        await self.page.keyboard.insert_text(text)

    async def choose(self, target: Locator, value: str) -> None:
        await self.reach(target)
        for _ in range(await target.locator("option").count()):
            if await target.input_value() == value:
                return
            await self.page.keyboard.press("ArrowDown")
        assert await target.input_value() == value


def hands(page: Page, lang: str) -> Mouse | Keys:
    """In Indonesian with the mouse, in English with the keys: so both ways are walked."""
    return Mouse(page) if lang == "id" else Keys(page)
