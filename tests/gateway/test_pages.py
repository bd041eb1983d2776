"""The built pages are served as files of one build, under a policy that allows nothing from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI

from services.gateway import pages
from services.runtime.problems import install
from services.runtime.settings import Settings


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in place of the built pages."""
    monkeypatch.setattr(pages, "_built", pages._Built(tmp_path))
    return tmp_path


@pytest_asyncio.fixture
async def client(built: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.state.settings = Settings(oidc_issuer="https://login.example/realms/id")
    install(app)
    app.include_router(pages.router)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gotong.test") as client:
        yield client


def build(folder: Path, board: str = "<!doctype html>board") -> None:
    (folder / "assets").mkdir(exist_ok=True)
    (folder / "assets" / "board-1.js").write_text("let a = 1;" * 50)
    (folder / "index.html").write_text(board)


@pytest.mark.parametrize("path", ["/", "/field", "/public", "/paper", "/login"])
async def test_without_a_build_every_page_says_how_to_get_one(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.status_code == 200
    assert "make web" in answer.text


async def test_a_page_is_asked_for_again_and_a_built_file_kept_for_ever(client: httpx.AsyncClient, built: Path) -> None:
    build(built)
    page = await client.get("/")
    assert page.text == "<!doctype html>board"
    assert page.headers["cache-control"] == "no-cache"
    assert (await client.get("/", headers={"If-None-Match": page.headers["etag"]})).status_code == 304
    script = await client.get("/assets/board-1.js", headers={"Accept-Encoding": "gzip"})
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["content-encoding"] == "gzip"
    assert script.text == "let a = 1;" * 50
    assert "immutable" in script.headers["cache-control"]


async def test_a_new_build_is_served_without_a_restart(client: httpx.AsyncClient, built: Path) -> None:
    build(built)
    first = await client.get("/")
    build(built, "<!doctype html>another")
    assert (await client.get("/", headers={"If-None-Match": first.headers["etag"]})).text == "<!doctype html>another"


@pytest.mark.parametrize("path", ["/assets/../secret", "/assets/..%2fsecret", "/assets/%2e%2e%2fsecret"])
async def test_nothing_outside_the_build_is_served(client: httpx.AsyncClient, built: Path, path: str) -> None:
    build(built)
    (built / "secret").write_text("hidden")
    assert (await client.get(path)).status_code == 404


async def test_the_policy_allows_no_inline_script_and_no_other_site_but_a_tile_server(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTONG_TILES", "https://tiles.example/{z}/{x}/{y}.png")
    answer = await client.get("/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob: https://tiles.example"
    assert policy["connect-src"] == "'self'"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_the_pages_are_told_the_emergency_numbers_of_their_region(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOTONG_EMERGENCY", "112, 0361 223333=BPBD Bali")
    told = (await client.get("/v1/page-settings")).json()
    assert told["emergency"] == [{"number": "112", "name": None}, {"number": "0361 223333", "name": "BPBD Bali"}]
    assert told["tiles"] is None
