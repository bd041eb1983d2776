"""One running system and one browser for all tests of the pages.

They live on the session's event loop, and so do the tests of this folder: a browser cannot change its loop.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright

from gotong.local.folders import scratch_folder
from tests.e2e.system import System, until
from tests.web.browser import ARGUMENTS, LAPTOP, Watch, browser_path, insist
from tests.web.provider import AUDIENCE, CLIENT, Provider, running_provider

HERE = Path(__file__).parent
HOOK_SECRET = "web-tests"
OpenPage = Callable[..., Awaitable[Page]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def provider() -> Iterator[Provider]:
    """The OpenID provider that the running system takes tokens of."""
    with running_provider() as running:
        yield running


@pytest.fixture(scope="session")
def system(provider: Provider) -> Iterator[System]:
    """A running system for all pages. The broker is the embedded one: what is tested here is what a person sees."""
    insist()
    named = {"ISSUER": provider.issuer, "AUDIENCE": AUDIENCE, "CLIENT_ID": CLIENT}
    env = {f"GOTONG_OIDC_{name}": value for name, value in named.items()}
    running = System("embedded", env=env | {"GOTONG_INTAKE_RAPIDPRO_SECRET": HOOK_SECRET})
    try:
        running.start()
        yield running
    finally:
        running.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def playwright() -> AsyncIterator[Playwright]:
    insist(pages=False)
    async with async_playwright() as running:
        yield running


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(playwright: Playwright) -> AsyncIterator[Browser]:
    """The one Chromium of the session; contexts keep its tests apart."""
    running = await playwright.chromium.launch(executable_path=browser_path(), args=ARGUMENTS)
    yield running
    await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def watch(system: System) -> AsyncIterator[Watch]:
    """Judges at the end of the test what its pages did (no third party, no error, nothing against the policy)."""
    watch = Watch(system.url)
    yield watch
    watch.judge()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(system: System, browser: Browser, watch: Watch) -> AsyncIterator[OpenPage]:
    """`await open_page("/", role="operator", size=PHONE, lang="en", theme="light")`: a page in a context of its own.

    With a role it is signed in by the token link, as `gotong up` prints it.
    """
    made: list[BrowserContext] = []

    async def open_one(
        path: str,
        *,
        role: str | None = None,
        token: str | None = None,
        size: dict[str, int] = LAPTOP,
        lang: str = "id",
        theme: str = "dark",
        wait_until: str = "load",
        **more: Any,
    ) -> Page:
        context = await browser.new_context(
            base_url=system.url,
            viewport=size,
            locale={"id": "id-ID", "en": "en-GB"}[lang],
            timezone_id="Asia/Jakarta",
            color_scheme=theme,
            **more,
        )
        made.append(context)
        context.set_default_timeout(30_000)
        watch.over(context)
        page = await context.new_page()
        token = token or (system.token(role) if role else None)
        await page.goto(path + (f"#token={token}" if token else ""), wait_until=wait_until)
        return page

    yield open_one
    for context in made:
        await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_profile(
    system: System, playwright: Playwright, watch: Watch
) -> AsyncIterator[Callable[..., Awaitable[BrowserContext]]]:
    """`await open_profile()`: a whole browser with a profile on disk, which closing and opening again keeps.

    `await context.close()` closes the browser; calling it again with the same `name` opens it on what it had.
    """
    folder = scratch_folder("gotong-web-")
    made: list[BrowserContext] = []

    async def open_one(name: str = "phone", *, size: dict[str, int] = LAPTOP, lang: str = "id", **more: Any):
        context = await playwright.chromium.launch_persistent_context(
            folder / name,
            executable_path=browser_path(),
            args=ARGUMENTS,
            base_url=system.url,
            viewport=size,
            locale={"id": "id-ID", "en": "en-GB"}[lang],
            timezone_id="Asia/Jakarta",
            **more,
        )
        made.append(context)
        context.set_default_timeout(30_000)
        watch.over(context)
        return context

    yield open_one
    for context in made:
        await context.close()
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="session")
async def operation(system: System) -> str:
    """A live operation of this test's own, in Jakarta and in tanggap darurat; known to every service."""
    return await make_operation(system)


async def make_operation(system: System, **changes: Any) -> str:
    """Make an operation and wait until the services that need it have heard of it."""
    name = f"web-{uuid4().hex[:8]}"
    body = {
        "id": name,
        "title": f"Banjir {name}",
        "hazards": ["flood"],
        "areas": ["kemendagri:31"],
        "timezone": "Asia/Jakarta",
        "status": {"declared": "tanggap_darurat", "level": "provinsi"},
    } | changes
    async with system.client("admin") as admin:
        answer = await admin.post("/v1/operations", json=body)
        assert answer.status_code in (200, 201), answer.text

        async def known() -> bool:
            found = await system.rows("SELECT 1 FROM intake.operation WHERE operation = $1", name)
            report = await admin.get("/v1/sitreps", params={"operation": name, "format": "json"})
            return bool(found) and report.status_code == 200

        await until(known, 60, system.tail)
    return name
