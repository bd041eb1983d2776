"""What an OpenID provider says of itself: where its keys are, where one logs in, where a code becomes a token."""

from __future__ import annotations

import threading
import time
from typing import Any

import httpx

_TIMEOUT_S = 3.0
_KEPT_S = 3600.0
_FAILED_KEPT_S = 5.0


class ProviderAway(Exception):
    """The provider does not answer, or not with what OpenID Connect Discovery asks for."""


def discover(issuer: str) -> dict[str, Any]:
    """The provider's metadata, fetched at most once an hour. Waits for the network: call it off the event loop.

    Source: OpenID Connect Discovery 1.0, section 4.

    Raises
    ------
    ProviderAway
        It cannot be had; asked again within five seconds, the answer is the same without asking.
    """
    with _LOCK:
        found = _KNOWN.get(issuer)
        if found is None or found[0] < time.monotonic():
            found = _KNOWN[issuer] = _fetched(issuer)
    if isinstance(found[1], ProviderAway):
        raise found[1]
    return found[1]


def keys_url(issuer: str) -> str:
    """Where the provider's public keys are: what its metadata says, else the customary place."""
    try:
        named = discover(issuer).get("jwks_uri")
    except ProviderAway:
        named = None
    return named if isinstance(named, str) else f"{issuer.rstrip('/')}/.well-known/jwks.json"


def _fetched(issuer: str) -> tuple[float, dict[str, Any] | ProviderAway]:
    try:
        answer = httpx.get(f"{issuer.rstrip('/')}/.well-known/openid-configuration", timeout=_TIMEOUT_S)
        answer.raise_for_status()
        metadata = answer.json()
        if not isinstance(metadata, dict) or metadata.get("issuer") != issuer:
            raise ProviderAway(f"{issuer} calls itself {str(metadata)[:80]!r}")
    except (httpx.HTTPError, ValueError) as error:
        return time.monotonic() + _FAILED_KEPT_S, ProviderAway(f"{issuer} does not answer: {error!r}")
    except ProviderAway as error:
        return time.monotonic() + _FAILED_KEPT_S, error
    return time.monotonic() + _KEPT_S, metadata


_LOCK = threading.Lock()
_KNOWN: dict[str, tuple[float, dict[str, Any] | ProviderAway]] = {}
