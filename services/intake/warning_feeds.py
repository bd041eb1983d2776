"""Polls the feeds of warnings that the settings name: one message, or an RSS or Atom index whose entries link to them.

Each feed stands alone: what fails is noted in `warning_feed` and tried again at the next turn, and costs no other feed
its turn. An entry is fetched once; one that cannot be had is tried a few times, and then noted with the reason.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from urllib.parse import urljoin, urlsplit

import httpx

from services.intake import cap, cap_signature
from services.intake.fetching import Fetched, NotFetched, fetch
from services.intake.settings import IntakeSettings, trusted_certificates
from services.intake.warning_writes import Sender, take
from services.runtime import clock
from services.runtime.db import Database, Tx

log = logging.getLogger(__name__)

ENTRIES_A_POLL = 30
"""So many entries of one feed are fetched in one turn: BMKG allows 60 requests a minute."""
TRIES = 5
_TIMEOUT_S = 20.0
_USER_AGENT = "Gotong (disaster coordination; reads CAP)"


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Poll every feed again and again until the process stops."""
    settings = IntakeSettings()
    urls = settings.feed_urls()
    if not urls:
        await stopping.wait()
        return
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, headers={"User-Agent": _USER_AGENT}) as http:
        while not stopping.is_set():
            await poll_all(db, http, settings)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), settings.feed_seconds)


async def poll_all(db: Database, http: httpx.AsyncClient, settings: IntakeSettings) -> None:
    """One turn of every feed, side by side: a slow one holds up none of the others."""
    async with asyncio.TaskGroup() as group:
        for url in settings.feed_urls():
            group.create_task(poll(db, http, url, settings.feed_hosts.split()))


async def poll(db: Database, http: httpx.AsyncClient, url: str, hosts: list[str]) -> None:
    """One turn of one feed: fetch it if it changed, take its messages, fetch and take those that it links to."""
    async with db.tx() as tx:
        known = await tx.fetchrow("SELECT * FROM warning_feed WHERE url = $1", url)
    allowed = {urlsplit(url).hostname or "", *hosts}
    try:
        etag, modified = (known["etag"], known["modified"]) if known else (None, None)
        fetched = await _fetch(http, url, allowed, etag=etag, modified=modified)
        pending = 0
        if fetched.body is not None:
            document = await asyncio.to_thread(cap.read_document, fetched.body)
            for reading in document.readings:
                await _take(db, url, reading)
            pending = await _entries(db, http, url, document.entries, allowed)
    except (NotFetched, cap.NotCap) as error:
        log.warning("the feed %s gave nothing: %s", url, error)
        async with db.tx() as tx:
            await _note(tx, url, failure=str(error)[:500])
        return
    async with db.tx() as tx:
        if fetched.body is None:
            await _note(tx, url, failure=None)
        elif pending:
            # Not all of it is in: the next turn must see it again, so it may not be told that nothing changed.
            await _note(tx, url, failure=None, marks=(None, None))
        else:
            await _note(tx, url, failure=None, marks=(fetched.etag, fetched.modified))


async def _note(tx: Tx, url: str, *, failure: str | None, marks: tuple[str | None, str | None] | None = None) -> None:
    now = clock.now()
    await tx.execute(
        """
        INSERT INTO warning_feed (url, etag, modified, polled_at, succeeded_at, failure) VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (url) DO UPDATE SET polled_at = excluded.polled_at, failure = excluded.failure,
            succeeded_at = coalesce(excluded.succeeded_at, warning_feed.succeeded_at),
            etag = CASE WHEN $7 THEN excluded.etag ELSE warning_feed.etag END,
            modified = CASE WHEN $7 THEN excluded.modified ELSE warning_feed.modified END
        """,
        url, *(marks or (None, None)), now, None if failure else now, failure, marks is not None,
    )  # fmt: skip


async def _entries(
    db: Database, http: httpx.AsyncClient, url: str, entries: tuple[cap.Entry, ...], allowed: set[str]
) -> int:
    """Fetch and take what the entries link to that was not settled before; returns how many are left for later."""
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT guid, settled, tries FROM warning_feed_entry WHERE url = $1", url)
    settled = {row["guid"] for row in rows if row["settled"]}
    tries = {row["guid"]: row["tries"] for row in rows}
    waiting = [entry for entry in entries if entry.guid not in settled]
    left = max(0, len(waiting) - ENTRIES_A_POLL)
    for entry in waiting[:ENTRIES_A_POLL]:
        refused: str | None = None
        again = False
        try:
            if entry.link is None:
                refused = "the entry has no link"
            else:
                fetched = await _fetch(http, urljoin(url, entry.link), allowed)
                document = await asyncio.to_thread(cap.read_document, fetched.body or b"")
                for reading in document.readings:
                    refused = await _take(db, url, reading) or refused
                if not document.readings:
                    refused = "what the entry links to holds no message"
        except cap.NotCap as error:
            refused = error.reason
        except NotFetched as error:
            refused, again = str(error), tries.get(entry.guid, 0) + 1 < TRIES
        left += again
        async with db.tx() as tx:
            await tx.execute(
                """
                INSERT INTO warning_feed_entry (url, guid, seen_at, tries, settled, refused)
                VALUES ($1, $2, $3, 1, $4, $5)
                ON CONFLICT (url, guid) DO UPDATE SET tries = warning_feed_entry.tries + 1, settled = excluded.settled,
                    refused = excluded.refused
                """,
                url, entry.guid, clock.now(), not again, refused[:500] if refused else None,
            )  # fmt: skip
    return left


async def _take(db: Database, url: str, reading: cap.Reading | cap.Refused) -> str | None:
    """Take one message of a feed; answers why nothing could be made of it."""
    if isinstance(reading, cap.Refused):
        log.warning("a message of the feed %s was refused: %s %s", url, reading.at, reading.reason)
        return f"{reading.at}: {reading.reason}"
    signature = await asyncio.to_thread(cap_signature.check, reading.raw, reading.alert.sent, trusted_certificates())
    async with db.tx() as tx:
        await take(tx, reading, signature, Sender(url, True, f"feed:{url}"))
    return None


async def _fetch(
    http: httpx.AsyncClient, url: str, allowed: set[str], *, etag: str | None = None, modified: str | None = None
) -> Fetched:
    """What stands at an address, from the allowed hosts only; raises `NotFetched`."""
    headers = {name: value for name, value in (("If-None-Match", etag), ("If-Modified-Since", modified)) if value}

    def may_open(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or (parts.hostname or "") not in allowed:
            raise NotFetched(f"{url} is on a host that is not the feed's; GOTONG_INTAKE_FEED_HOSTS allows it")

    return await fetch(http, url, may_open, limit=cap.MAX_BYTES, timeout_s=_TIMEOUT_S, headers=headers)
