"""Fetches the photographs and recordings that providers keep for us, and takes away what nothing names any more.

A file is fetched once; one that cannot be had is tried again, later and later, and given up with the reason. An address
is opened only on hosts that are the provider's own or that the settings name, and a credential goes to no other.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
import orjson

from services.channels.settings import ChannelSettings
from services.intake.fetching import NotFetched, fetch
from services.intake.media import Refused, clean
from services.intake.media_writes import forget_unnamed, keep, refuse, sweep
from services.intake.settings import IntakeSettings
from services.runtime import clock, vault
from services.runtime.db import Database, Row

log = logging.getLogger(__name__)

TRIES = 8
_AT_ONCE = 4
_POLL_S = 2.0
_TIMEOUT_S = 30.0
_FIRST_PAUSE = timedelta(seconds=15)
_HOSTS = {
    "twilio": ("twilio.com", "twiliocdn.com"),
    "whatsapp": ("facebook.com", "fbsbx.com", "fbcdn.net", "whatsapp.net"),
    "kobo": ("kobotoolbox.org",),
}


@dataclass(frozen=True, slots=True)
class Fetcher:
    """How files are fetched: the settings, and a client that holds the connections."""

    http: httpx.AsyncClient
    channels: ChannelSettings
    intake: IntakeSettings

    @property
    def limit(self) -> int:
        return self.intake.media_mb * 1024 * 1024


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Fetch what is wanted and forget what is not, again and again until the process stops."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as http:
        fetcher = Fetcher(http, ChannelSettings(), IntakeSettings())
        while not stopping.is_set():
            busy = await fetch_wanted(db, fetcher)
            async with db.tx() as tx:
                await forget_unnamed(tx)
            async with db.tx() as tx:
                await sweep(tx)
            if not busy:
                with suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), _POLL_S)


async def fetch_wanted(db: Database, fetcher: Fetcher) -> int:
    """Try what is due, a few side by side; returns how many were tried.

    The next try is written down before this one is made, so that a worker that dies holds nothing up for long.
    """
    async with db.tx() as tx:
        rows = await tx.fetch(
            "SELECT * FROM media WHERE state = 'wanted' AND next_try_at <= $1 ORDER BY next_try_at LIMIT $2 "
            "FOR UPDATE SKIP LOCKED",
            clock.now(), _AT_ONCE,
        )  # fmt: skip
        await tx.executemany(
            "UPDATE media SET tries = tries + 1, next_try_at = $2 WHERE media_id = $1",
            [(row["media_id"], clock.now() + _FIRST_PAUSE * 2 ** row["tries"]) for row in rows],
        )
        owners = [f"media:{row['media_id']}" for row in rows]
        opened = [await vault.unseal(tx, owner, row["reference"]) for owner, row in zip(owners, rows, strict=True)]
    async with asyncio.TaskGroup() as group:
        for row, reference in zip(rows, opened, strict=True):
            group.create_task(_try(db, fetcher, row, reference))
    return len(rows)


async def _try(db: Database, fetcher: Fetcher, row: Row, reference: bytes | None) -> None:
    media_id = row["media_id"]
    try:
        if reference is None:
            raise Refused("its address was taken away")
        raw = await _fetched(fetcher, row["source"], reference.decode())
        content = await asyncio.to_thread(clean, raw)
    except (Refused, NotFetched) as fault:
        log.warning("media %s of %s: %s", media_id, row["source"], fault)
        final = isinstance(fault, Refused) or fault.final
        async with db.tx() as tx:
            if final or row["tries"] + 1 >= TRIES:
                await refuse(tx, media_id, str(fault) if final else f"given up after {TRIES} tries: {fault}")
            else:
                await tx.execute("UPDATE media SET reason = $2 WHERE media_id = $1", media_id, str(fault)[:500])
        return
    async with db.tx() as tx:
        # Another worker may have been faster, or its report was taken away meanwhile.
        if await tx.fetchval("SELECT state FROM media WHERE media_id = $1 FOR UPDATE", media_id) == "wanted":
            await keep(tx, media_id, content)


async def _fetched(fetcher: Fetcher, source: str, reference: str) -> bytes:
    """The file that a provider keeps.

    Raises
    ------
    NotFetched
        It cannot be had.
    """
    channels = fetcher.channels
    if source == "twilio":
        login = f"{channels.twilio_account}:{channels.twilio_token.get_secret_value()}"
        basic = {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()} if len(login) > 1 else {}
        return await _get(fetcher, reference, source, channels.twilio_url, basic)
    if source == "whatsapp":
        bearer = {"Authorization": f"Bearer {channels.whatsapp_token.get_secret_value()}"}
        base = channels.whatsapp_url.rstrip("/")
        told = await _get(fetcher, f"{base}/{reference}", source, base, bearer)
        return await _get(fetcher, _address_in(told), source, base, bearer)
    if source == "kobo":
        token = fetcher.intake.kobo_token.get_secret_value()
        return await _get(fetcher, reference, source, "", {"Authorization": f"Token {token}"} if token else {})
    return await _get(fetcher, reference, source, channels.rapidpro_url, {})


def _address_in(told: bytes) -> str:
    """Where the file is, as WhatsApp's answer about it says."""
    try:
        return str(orjson.loads(told)["url"])
    except (ValueError, KeyError, TypeError):
        raise NotFetched("the provider did not say where the file is") from None


async def _get(fetcher: Fetcher, url: str, source: str, base: str, secret: dict[str, str]) -> bytes:
    """What stands at an address of the provider's, whose own base address may be set. No text says the address: that
    of a message is its sender's."""
    hosts = fetcher.intake.media_hosts.split()

    def may_open(url: str) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        own = any(host == known or host.endswith(f".{known}") for known in _HOSTS.get(source, ()))
        at_base = bool(base) and parts[:2] == urlsplit(base)[:2]
        named = host in hosts and parts.scheme in ("http", "https")
        if not (at_base or named or (own and parts.scheme == "https")):
            raise NotFetched("its host is not the provider's; GOTONG_INTAKE_MEDIA_HOSTS allows more", final=True)

    fetched = await fetch(
        fetcher.http, url, may_open, limit=fetcher.limit, timeout_s=_TIMEOUT_S, told="the provider", secret=secret
    )
    return fetched.body or b""
