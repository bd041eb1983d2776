"""Logging in: by a token link that no server sees, and at an OpenID provider, whose code is bound to the tab."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from playwright.async_api import Page, expect

from services.runtime import auth
from tests.e2e.system import System
from tests.web.browser import Watch
from tests.web.provider import Provider

OPERATOR = {"role": "operator", "sub": "petugas-1"}


@pytest.fixture
def person(provider: Provider, watch: Watch) -> Iterator[Provider]:
    """The provider, to which these tests' pages may go, as it was at first."""
    watch.allowed = (provider.issuer,)
    provider.claims, provider.expires_in = dict(OPERATOR), 3600
    provider.refused.clear()
    yield provider
    provider.claims, provider.expires_in = dict(OPERATOR), 3600


async def kept_token(page: Page) -> str | None:
    token: str | None = await page.evaluate("sessionStorage.getItem('gotong.token')")
    return token


async def lasting(page: Page) -> str:
    kept: str = await page.evaluate("JSON.stringify(localStorage)")
    return kept


async def test_a_token_link_logs_in_and_leaves_no_trace(system: System, open_page) -> None:
    token = system.token("operator")
    asked: list[tuple[str, dict[str, str]]] = []
    page = await open_page("/login?lang=id")
    page.on("request", lambda request: asked.append((request.url, request.headers)))
    await page.goto(f"/login#token={token}")
    await page.wait_for_url(re.compile(r"/$"))
    assert await kept_token(page) == token
    assert token not in await lasting(page)
    # Only the header that is meant for it carries the token: no address, no referrer.
    for url, headers in asked:
        assert token not in url.partition("#")[0]
        assert token not in headers.get("referer", "")
    await page.go_back()
    assert "token" not in page.url
    assert token not in system.log.read_text(errors="replace")


async def test_a_pasted_link_logs_in_and_anything_else_is_told(system: System, open_page) -> None:
    page = await open_page("/login?lang=id")
    field = page.get_by_label("Tautan masuk atau token")
    for pasted, told in (
        ("bukan token", "Itu bukan token"),
        (system.token("operator", hours=-1), "sudah kedaluwarsa"),
    ):
        await field.fill(pasted)
        await field.press("Enter")
        await expect(page.get_by_role("alert")).to_contain_text(told)
    token = system.token("operator")
    await field.fill(f"{system.url}/#token={token}")
    await field.press("Enter")
    await page.wait_for_url(re.compile(r"/$"))
    assert await kept_token(page) == token


@pytest.mark.parametrize(
    "asked", ["//elsewhere.example/", "https://elsewhere.example/", "javascript:alert(1)", "\\\\elsewhere.example"]
)
async def test_after_the_login_one_is_sent_to_pages_of_ours_only(system: System, open_page, asked: str) -> None:
    page = await open_page("/login")
    await page.goto(f"/login?next={httpx.QueryParams({'n': asked})['n']}#token={system.token('operator')}")
    await page.wait_for_url(f"{system.url}/")
    page = await open_page(f"/login?next=/public#token={system.token('operator')}")
    await page.wait_for_url(f"{system.url}/public")


@pytest.mark.parametrize(("lang", "button"), [("id", "Masuk lewat localhost"), ("en", "Log in with localhost")])
async def test_an_openid_provider_logs_in_with_a_code_that_is_good_for_this_tab_alone(
    system: System, open_page, person: Provider, lang: str, button: str
) -> None:
    page = await open_page(f"/login?lang={lang}&next=/public", lang=lang)
    seen: list[str] = []
    page.on("request", lambda request: seen.append(request.url))
    await page.get_by_role("button", name=button).press("Enter")
    await page.wait_for_url(f"{system.url}/public")
    token = await kept_token(page)
    assert token is not None
    async with httpx.AsyncClient(base_url=system.url, headers={"Authorization": f"Bearer {token}"}) as client:
        assert (await client.get("/v1/needs")).status_code == 200
    asked = parse_qs(urlsplit(next(url for url in seen if url.startswith(f"{person.issuer}/authorize"))).query)
    assert asked["response_type"] == ["code"]
    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == [f"{system.url}/login"]
    # The page itself asks the provider nothing; only the browser goes there, once.
    assert len([url for url in seen if url.startswith(person.issuer)]) == 1
    # The code has gone from the address and from the way back.
    await page.go_back()
    assert "code=" not in page.url
    assert token not in await lasting(page)


async def test_what_comes_back_from_elsewhere_logs_nobody_in(system: System, open_page, person: Provider) -> None:
    """A code that another tab asked for, or that an attacker obtained, is not taken."""
    where = person.authorize(
        {"client_id": "gotong-pages", "code_challenge_method": "S256", "code_challenge": "x", "state": "strange",
         "redirect_uri": f"{system.url}/login"}
    )  # fmt: skip
    page = await open_page(where.removeprefix(system.url))
    await expect(page.get_by_role("alert")).to_contain_text("bukan dari halaman ini")
    assert await kept_token(page) is None
    assert "code=" not in page.url


async def test_a_login_that_is_cancelled_or_gives_no_role_is_told(system: System, open_page, person: Provider) -> None:
    page = await open_page("/login?lang=id")
    for claims, told in ((None, "dibatalkan"), ({"sub": "tamu"}, "names no role")):
        person.claims = claims
        await page.get_by_role("button", name="Masuk lewat").click()
        await expect(page.get_by_role("alert")).to_contain_text(told)
        assert await kept_token(page) is None


async def test_the_exchange_is_for_who_holds_the_verifier(system: System, person: Provider) -> None:
    redirect = f"{system.url}/login"
    asked = {
        "client_id": "gotong-pages",
        "code_challenge_method": "S256",
        "code_challenge": "of another",
        "state": "s",
        "redirect_uri": redirect,
    }
    code = parse_qs(urlsplit(person.authorize(asked)).query)["code"][0]
    order = {"grant": "code", "code": code, "verifier": "v" * 43, "redirect_uri": redirect}
    async with system.client() as client:
        answer = await client.post("/v1/login/token", json=order)
        assert answer.status_code == 401
        assert "log in again" in answer.json()["detail"]
        assert (await client.post("/v1/login/token", json=order | {"verifier": "short"})).status_code == 422
        offered = await client.get("/v1/login")
    assert offered.headers["cache-control"] == "no-store"
    assert offered.json()["oidc"]["client_id"] == "gotong-pages"
    assert "secret" not in offered.text


async def test_a_renewal_gives_a_new_token_once(system: System, person: Provider) -> None:
    person.refreshes.add("old")
    async with system.client() as client:
        answer = await client.post("/v1/login/token", json={"grant": "refresh", "refresh_token": "old"})
        assert answer.status_code == 200
        assert answer.json()["refresh_token"] != "old"
        again = await client.post("/v1/login/token", json={"grant": "refresh", "refresh_token": "old"})
    assert again.status_code == 401


async def test_a_token_of_the_provider_must_be_meant_for_us(system: System, person: Provider) -> None:
    async with system.client() as client:
        for claims, status in (
            ({}, 200),
            ({"aud": "another"}, 401),
            ({"iss": "https://another"}, 401),
            ({"exp": 1}, 401),
        ):
            headers = {"Authorization": f"Bearer {person.sign(**claims)}"}
            assert (await client.get("/v1/needs", headers=headers)).status_code == status, claims
    assert auth.ISSUER not in person.issuer
