"""Fetching what stands at somebody else's address: from hosts that are allowed only, never too much, never for long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx

_REDIRECTS = 3


class NotFetched(Exception):
    """An address did not give what was asked for; the text says why. `final`: nor will it later."""

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.final = final


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an address gave; `body` None: nothing new since the last time."""

    body: bytes | None
    etag: str | None = None
    modified: str | None = None


async def fetch(
    http: httpx.AsyncClient,
    url: str,
    may_open: Callable[[str], None],
    *,
    limit: int,
    timeout_s: float,
    told: str | None = None,
    headers: Mapping[str, str] | None = None,
    secret: Mapping[str, str] | None = None,
) -> Fetched:
    """What stands at an address, or where it leads to. `may_open` raises for an address that must not be opened: what
    strangers send must not lead us into our own network. `told`: what is said in place of the address. `secret` are
    headers for the first host alone.

    Raises
    ------
    NotFetched
        It does not answer in time, with something else than 200 or 304, or with more than `limit` bytes.
    """
    try:
        first = urlsplit(url)[:2]
        async with asyncio.timeout(timeout_s):
            for _ in range(_REDIRECTS + 1):
                may_open(url)
                sent = {**(headers or {}), **((secret or {}) if urlsplit(url)[:2] == first else {})}
                async with http.stream("GET", url, headers=sent, follow_redirects=False) as answer:
                    if answer.is_redirect and answer.headers.get("location"):
                        url = urljoin(url, answer.headers["location"])
                        continue
                    if answer.status_code == 304:
                        return Fetched(None)
                    if answer.status_code != 200:
                        gone = answer.status_code in (404, 410)
                        raise NotFetched(f"{told or url} answers {answer.status_code}", final=gone)
                    body = bytearray()
                    async for chunk in answer.aiter_bytes():
                        body += chunk
                        if len(body) > limit:
                            raise NotFetched(f"{told or url} gives more than {limit} bytes", final=True)
                    return Fetched(bytes(body), answer.headers.get("etag"), answer.headers.get("last-modified"))
            raise NotFetched(f"{told or url} leads on and on")
    except TimeoutError:
        raise NotFetched(f"{told or url} does not answer within {timeout_s:.0f} s") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        why = type(error).__name__ if told else repr(error)
        final = not isinstance(error, httpx.HTTPError)  # this is no address
        raise NotFetched(f"{told or url} cannot be fetched: {why}", final=final) from None
