"""Logging in on the pages: which ways there are, and a provider's code turned into a token.

The page speaks to our origin alone, so the code is exchanged here: no other site is in its Content-Security-Policy,
and the provider need not allow ours. The page keeps the secret that binds the code to it (PKCE); nothing is kept here.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import httpx
import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime import auth, oidc
from services.runtime.http import body_of, parse
from services.runtime.openapi import takes
from services.runtime.problems import DomainError, NotFound, Unauthenticated, responses
from services.runtime.settings import Settings

router = APIRouter(tags=["pages"])

_TIMEOUT_S = 8.0
_NO_STORE = {"Cache-Control": "no-store"}
Secret = Annotated[str, Field(min_length=1, max_length=4096)]


class LoginSettings(BaseSettings):
    """How this installation is known at its OpenID provider. Without `client_id` the pages offer no such login."""

    model_config = SettingsConfigDict(env_prefix="GOTONG_OIDC_", extra="ignore", env_ignore_empty=True)

    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    """Only for a provider that asks for one beside PKCE."""
    scope: str = "openid"


class ProviderDown(DomainError):
    """The OpenID provider does not answer."""

    code, status, title = "provider-unreachable", 503, "The login service does not answer"


class TokenOrder(BaseModel):
    """What the page has in its hands: a code that the provider sent it back with, or an older token to renew."""

    grant: Literal["code", "refresh"]
    code: Secret | None = None
    verifier: Annotated[str, Field(min_length=43, max_length=128, pattern=r"^[A-Za-z0-9._~-]+$")] | None = None
    redirect_uri: Annotated[str, Field(max_length=500)] | None = None
    refresh_token: Secret | None = None

    def form(self) -> dict[str, str]:
        """The fields of the token request. Source: RFC 6749 sections 4.1.3 and 6, RFC 7636 section 4.5."""
        if self.grant == "refresh":
            return {"grant_type": "refresh_token", "refresh_token": self.refresh_token or ""}
        return {
            "grant_type": "authorization_code",
            "code": self.code or "",
            "code_verifier": self.verifier or "",
            "redirect_uri": self.redirect_uri or "",
        }


@router.get("/v1/login", summary="The ways to log in on the pages", responses=responses(ProviderDown))
async def get_login(request: Request) -> Response:
    """Tokens by link always; an OpenID provider where the settings name one and say who we are there."""
    settings: Settings = request.app.state.settings
    own = LoginSettings()
    provider: dict[str, Any] | None = None
    if settings.oidc_issuer and own.client_id:
        metadata = await _metadata(settings.oidc_issuer)
        provider = {
            "issuer": settings.oidc_issuer,
            "client_id": own.client_id,
            "scope": own.scope,
            "authorization_endpoint": metadata.get("authorization_endpoint"),
            "audience": settings.oidc_audience or None,
        }
    return Response(orjson.dumps({"oidc": provider}), media_type="application/json", headers=_NO_STORE)


@router.post(
    "/v1/login/token",
    summary="A token for a code of the OpenID provider",
    responses=responses(NotFound, ProviderDown),
    openapi_extra=takes(TokenOrder),
)
async def post_token(request: Request) -> Response:
    """Exchange the code, or renew, at the provider; the token is judged as any other before it is handed on.

    The answer is `{token, refresh_token?, expires_in?}`. `token` is the access token where that is one for us, else
    the identity token.
    """
    settings: Settings = request.app.state.settings
    own = LoginSettings()
    order = parse(await body_of(request, 20_000), TokenOrder)
    if not (settings.oidc_issuer and own.client_id):
        raise NotFound("no OpenID provider is set here: GOTONG_OIDC_ISSUER and GOTONG_OIDC_CLIENT_ID name one")
    metadata = await _metadata(settings.oidc_issuer)
    form = order.form() | {"client_id": own.client_id}
    if secret := own.client_secret.get_secret_value():
        form["client_secret"] = secret
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as client:
            answer = await client.post(
                str(metadata.get("token_endpoint")), data=form, headers={"Accept": "application/json"}
            )
        said = answer.json() if answer.status_code < 500 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        said = None
    if not isinstance(said, dict):
        raise ProviderDown("the login service does not answer; please try again", headers={"Retry-After": "3"})
    if answer.status_code != 200:
        raise Unauthenticated(f"the login service refused it: {str(said.get('error'))[:60]}; please log in again")
    found = {"token": await _ours(said, settings)}
    for name in ("refresh_token", "expires_in"):
        if said.get(name):
            found[name] = said[name]
    return Response(orjson.dumps(found), media_type="application/json", headers=_NO_STORE)


async def _ours(said: dict[str, Any], settings: Settings) -> str:
    """The token of an answer that our services take."""
    refused: Unauthenticated | None = None
    for name in ("access_token", "id_token"):
        token = said.get(name)
        if not isinstance(token, str):
            continue
        try:
            await asyncio.to_thread(auth.actor_of, token, settings)
        except Unauthenticated as error:
            refused = refused or error
        else:
            return token
    raise refused or Unauthenticated("the login service gave no token")


async def _metadata(issuer: str) -> dict[str, Any]:
    try:
        return await asyncio.to_thread(oidc.discover, issuer)
    except oidc.ProviderAway:
        raise ProviderDown(
            "the login service does not answer; please try again", headers={"Retry-After": "3"}
        ) from None
