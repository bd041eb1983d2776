"""Who is asking, for which organisation, with which role. Tokens are JWTs, signed with the installation's own key or
by the OpenID provider that the settings name."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Annotated, Literal, get_args

import jwt
from fastapi import Depends, Request
from prometheus_client import Counter

from services.runtime import clock, oidc
from services.runtime.problems import Forbidden, Unauthenticated
from services.runtime.settings import Settings
from services.runtime.vault import token_key

Role = Literal["public", "responder", "field", "operator", "partner", "auditor", "admin", "break_glass"]
ROLES: tuple[str, ...] = get_args(Role)
ISSUER = "gotong"
_REFUSED = Counter("gotong_refused_requests", "Requests that were not allowed", ["status"])


@dataclass(frozen=True, slots=True)
class Actor:
    """Whoever sent a request. `operations` empty: all. `address`: the network address it came from.

    `local`: came over loopback with a token of the installation's own key, so no rate applies.
    """

    role: Role
    subject: str
    organisation: str | None = None
    operations: tuple[str, ...] = ()
    address: str = ""
    device: str | None = None
    local: bool = False

    @property
    def name(self) -> str:
        """How decisions name them: role and subject, never a person's name."""
        return f"{self.role}:{self.subject}"

    @property
    def anonymous(self) -> bool:
        return self.role == "public"

    def require(self, *roles: Role) -> None:
        """Admit these roles and admin.

        Raises
        ------
        Unauthenticated
            No token came.
        Forbidden
            The token's role is another one.
        """
        if self.role == "admin" or self.role in roles:
            return
        wanted = ", ".join(roles) or "admin"
        if self.anonymous:
            _REFUSED.labels("401").inc()
            raise Unauthenticated(f"this needs a token of role {wanted}")
        _REFUSED.labels("403").inc()
        raise Forbidden(f"this needs the role {wanted}; the token's role is {self.role}")

    def may_see(self, operation: str | None) -> bool:
        """Whether the token covers this operation."""
        return not self.operations or operation in self.operations

    def require_operation(self, operation: str | None) -> None:
        """Refuse an operation that the token does not cover.

        Raises
        ------
        Forbidden
            The token is for other operations.
        """
        if not self.may_see(operation):
            _REFUSED.labels("403").inc()
            raise Forbidden(f"the token does not cover the operation {operation}")


def sign(
    role: Role,
    subject: str,
    *,
    organisation: str | None = None,
    operations: tuple[str, ...] = (),
    hours: float = 12,
    key: bytes | None = None,
) -> str:
    """A bearer token signed with the installation's key."""
    issued = clock.now()
    claims: dict[str, object] = {
        "iss": ISSUER,
        "sub": subject,
        "role": role,
        "iat": int(issued.timestamp()),
        "exp": int((issued + timedelta(hours=hours)).timestamp()),
    }
    if organisation:
        claims["org"] = organisation
    if operations:
        claims["operations"] = list(operations)
    return jwt.encode(claims, key or token_key(), algorithm="HS256")


def actor_of(token: str, settings: Settings) -> Actor:
    """Whom a bearer token speaks for.

    Raises
    ------
    Unauthenticated
        The token is forged, expired, or has no role that we know.
    """
    try:
        if settings.oidc_issuer and jwt.get_unverified_header(token).get("alg") != "HS256":
            key = _jwks(oidc.keys_url(settings.oidc_issuer)).get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token,
                key.key,
                algorithms=["RS256", "ES256"],
                audience=settings.oidc_audience or None,
                issuer=settings.oidc_issuer,
                options={"verify_aud": bool(settings.oidc_audience), "require": ["exp", "sub"]},
            )
        else:
            claims = jwt.decode(
                token,
                token_key(),
                algorithms=["HS256"],
                issuer=ISSUER,
                # Expiry is judged by our own clock, which tests can move.
                options={"require": ["exp", "sub"], "verify_exp": False, "verify_iat": False},
            )
            if float(claims["exp"]) <= clock.now().timestamp():
                raise jwt.ExpiredSignatureError("the token has expired")
    except jwt.PyJWTError as error:
        _REFUSED.labels("401").inc()
        raise Unauthenticated(f"the token is not valid: {error}") from None
    role = claims.get("role")
    if role not in ROLES or role == "public":
        _REFUSED.labels("401").inc()
        raise Unauthenticated("the token names no role that is known here")
    return Actor(
        role=role,
        subject=str(claims["sub"])[:200],
        organisation=str(claims["org"])[:100] if claims.get("org") else None,
        operations=tuple(str(operation) for operation in claims.get("operations") or ()),
    )


async def _known(token: str, settings: Settings) -> Actor:
    """As `actor_of`. A token that was found good is not computed anew for each request: only its expiry is."""
    by = (token_key(), settings.oidc_issuer)
    found = _GOOD.get(token)
    if found is not None and found[0] == by and clock.now().timestamp() < found[1]:
        return found[2]
    # Only a foreign issuer's keys are fetched over the network, which must not hold up everybody else.
    actor = await asyncio.to_thread(actor_of, token, settings) if settings.oidc_issuer else actor_of(token, settings)
    if len(_GOOD) >= _MOST_GOOD:
        _GOOD.clear()
    claims = jwt.decode(token, options={"verify_signature": False})
    # At most a minute, so that a key that was taken back counts soon.
    _GOOD[token] = by, min(float(claims["exp"]), clock.now().timestamp() + 60), actor
    return actor


_GOOD: dict[str, tuple[tuple[bytes, str], float, Actor]] = {}
"""Tokens that were verified: by which key or issuer, until when that holds, and whom they speak for."""
_MOST_GOOD = 2000


@lru_cache(maxsize=4)
def _jwks(url: str) -> jwt.PyJWKClient:
    return jwt.PyJWKClient(url, cache_keys=True, timeout=3)


async def caller(request: Request) -> Actor:
    """Who sent this request: the token's bearer, or an anonymous member of the public, told apart by device or address.

    Raises
    ------
    Unauthenticated
        A token came, but it is not valid.
    """
    address = request.client.host if request.client else ""
    device = request.headers.get("gotong-device", "")[:100] or None
    header = request.headers.get("authorization", "")
    if not header:
        return Actor("public", device or address, address=address, device=device)
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token:
        _REFUSED.labels("401").inc()
        raise Unauthenticated("send the token as Authorization: Bearer …")
    known = await _known(token.strip(), request.app.state.settings)
    return Actor(
        role=known.role,
        subject=known.subject,
        organisation=known.organisation,
        operations=known.operations,
        address=address,
        device=device,
        local=is_loopback(address),
    )


@lru_cache(maxsize=1024)
def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


Caller = Annotated[Actor, Depends(caller)]
"""A route's parameter: who is asking."""
