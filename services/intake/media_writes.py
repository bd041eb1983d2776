"""Writes to `media`: what is still to be had, what was had, and what became of its position."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

from schemas.values import Media
from services.intake.actions import Draft
from services.intake.bodies import PlaceIn, ReportIn
from services.intake.media import Clean
from services.intake.media_store import store
from services.intake.placing import place_report
from services.runtime import clock, vault
from services.runtime.db import Database, Row, Tx
from services.runtime.http import WRITE_TIMEOUT_S
from services.runtime.ids import derived

PHOTO_ACCURACY_M = 50.0
"""So exact is the position in a photograph: a telephone's, out of doors."""
_OURS = re.compile(r"/v1/media/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A photograph or recording that a provider keeps for us. `reference` is its address, or the provider's id of it;
    None: it comes to us by itself, with a later part of the same form."""

    media_id: UUID
    source: str
    reference: str | None = field(repr=False)

    @classmethod
    def of(cls, source: str, key: str, reference: str | None) -> Wanted:
        """`key` tells it from all others of its source, and is the same when it is sent again."""
        return cls(derived("media", source, key), source, reference)

    def media(self, base_url: str) -> Media:
        """How a report names it."""
        return Media(url=media_url(base_url, self.media_id))


def media_url(base_url: str, media_id: UUID) -> str:
    return f"{base_url}/v1/media/{media_id}"


def media_ids(media: Sequence[Media]) -> list[UUID]:
    """Which of these are kept by us."""
    return [UUID(match[1]) for one in media if (match := _OURS.search(one.url))]


async def want(tx: Tx, wanted: Sequence[Wanted], report_id: UUID | None = None) -> None:
    """Note what is to be had; what is known already stays as it is."""
    now = clock.now()
    for one in wanted:
        fetched = one.reference is not None
        sealed = await vault.seal(tx, f"media:{one.media_id}", one.reference.encode()) if one.reference else None
        await tx.execute(
            "INSERT INTO media (media_id, state, report_id, source, reference, next_try_at, made_at) "
            "VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
            one.media_id, "wanted" if fetched else "expected", report_id, one.source, sealed,
            now if fetched else None, now,
        )  # fmt: skip


async def name_report(tx: Tx, media: Sequence[Media], report_id: UUID) -> tuple[float, float] | None:
    """Say which report these media belong to, where none was said before; a position that one of them gave."""
    mine = media_ids(media)
    if not mine:
        return None
    await tx.execute("UPDATE media SET report_id = $2 WHERE media_id = ANY($1) AND report_id IS NULL", mine, report_id)
    row = await tx.fetchrow(
        "SELECT lon, lat FROM media WHERE media_id = ANY($1) AND lon IS NOT NULL ORDER BY made_at, media_id LIMIT 1",
        mine,
    )
    return (row["lon"], row["lat"]) if row else None


async def with_photos(db: Database, drafts: list[Draft], said: Sequence[ReportIn]) -> list[Draft]:
    """Reports that are about to be taken, with the media that they name said to be theirs; one that says neither point
    nor code (in `said`, as it came) is where its photograph was taken.

    Ahead of the reports' own transaction, which is shared with others': a report that then is not taken leaves only a
    word of whose its media would have been.
    """
    named = [n for n, report in enumerate(said) if media_ids(report.media)]
    if not named:
        return drafts
    found = list(drafts)
    async with asyncio.timeout(WRITE_TIMEOUT_S), db.tx() as tx:
        for n in named:
            point = await name_report(tx, said[n].media, drafts[n].report_id)
            where = said[n].location
            if point is not None and (where is None or not where.placed):
                placed = {"lon": point[0], "lat": point[1], "accuracy_m": PHOTO_ACCURACY_M}
                location = (drafts[n].report.location or PlaceIn()).model_copy(update=placed)
                found[n] = replace(drafts[n], report=drafts[n].report.model_copy(update={"location": location}))
    return found


async def add_upload(tx: Tx, content: Clean) -> tuple[UUID, str]:
    """Keep what was uploaded; the same content is kept once. Its id and its hash."""
    sha256 = hashlib.sha256(content.data).hexdigest()
    media_id = derived("media", "upload", sha256)
    await tx.execute(
        "INSERT INTO media (media_id, state, source, made_at) VALUES ($1, 'expected', 'upload', $2) "
        "ON CONFLICT DO NOTHING",
        media_id, clock.now(),
    )  # fmt: skip
    await keep(tx, media_id, content)
    return media_id, sha256


async def keep(tx: Tx, media_id: UUID, content: Clean) -> None:
    """Keep a content. Its report is placed where the picture was taken, if nothing else says where.

    The file is written before the row is committed: one too many harms nobody, one too few would.
    """
    sha256 = hashlib.sha256(content.data).hexdigest()
    await tx.execute(_LOCK, sha256)
    sealed = await vault.seal(tx, _owner(sha256), content.data)
    await asyncio.to_thread(store().put, sha256, sealed)
    lon, lat = content.point or (None, None)
    report_id = await tx.fetchval(
        "UPDATE media SET state = 'kept', sha256 = $2, type = $3, size = $4, lon = $5, lat = $6, reference = NULL, "
        "next_try_at = NULL, reason = NULL WHERE media_id = $1 RETURNING report_id",
        media_id, sha256, content.type, len(content.data), lon, lat,
    )  # fmt: skip
    await vault.erase(tx, f"media:{media_id}")
    if report_id is not None and lon is not None:
        await place_report(
            tx, report_id, lon=lon, lat=lat, accuracy_m=PHOTO_ACCURACY_M, by="rule:photo",
            reason="the photograph says where it was taken",
        )  # fmt: skip


async def refuse(tx: Tx, media_id: UUID, reason: str) -> None:
    """Give up on a content, and say why."""
    await tx.execute(
        "UPDATE media SET state = 'refused', reason = $2, reference = NULL, next_try_at = NULL WHERE media_id = $1",
        media_id, reason[:500],
    )  # fmt: skip
    await vault.erase(tx, f"media:{media_id}")


async def content_of(tx: Tx, row: Row) -> bytes | None:
    """What is kept for this row; None if it was taken away."""
    sealed = await asyncio.to_thread(store().get, row["sha256"])
    return await vault.unseal(tx, _owner(row["sha256"]), sealed) if sealed is not None else None


async def forget_media(tx: Tx, report_ids: Collection[UUID]) -> None:
    """Take away what these reports showed: the keys go, so that what is left of the files says nothing."""
    rows = await tx.fetch(
        "DELETE FROM media WHERE report_id = ANY($1) RETURNING media_id, sha256", list(report_ids)
    )  # fmt: skip
    await _drop(tx, rows)


async def forget_unnamed(tx: Tx) -> int:
    """Take away uploads that no report named within a day; returns how many."""
    rows = await tx.fetch(
        "DELETE FROM media WHERE report_id IS NULL AND source = 'upload' AND made_at < $1 RETURNING media_id, sha256",
        clock.now() - timedelta(days=1),
    )
    await _drop(tx, rows)
    return len(rows)


async def _drop(tx: Tx, rows: Sequence[Row]) -> None:
    """Destroy the keys of what nothing names any more. The files go after that is committed: see `sweep`."""
    for row in rows:
        await vault.erase(tx, f"media:{row['media_id']}")
    gone = await tx.fetch(
        "INSERT INTO media_gone SELECT DISTINCT sha256 FROM unnest($1::text[]) AS t(sha256) "
        "WHERE NOT EXISTS (SELECT FROM media m WHERE m.sha256 = t.sha256) ON CONFLICT DO NOTHING RETURNING sha256",
        sorted({row["sha256"] for row in rows if row["sha256"]}),
    )
    for row in gone:
        await vault.erase(tx, _owner(row["sha256"]))


async def sweep(tx: Tx) -> int:
    """Take away the files of contents whose keys are gone; returns how many. One that came in again stays."""
    rows = await tx.fetch("SELECT sha256 FROM media_gone ORDER BY sha256 LIMIT 100")
    for row in rows:
        await tx.execute(_LOCK, row["sha256"])
        if not await tx.fetchval("SELECT EXISTS (SELECT FROM media WHERE sha256 = $1)", row["sha256"]):
            await asyncio.to_thread(store().drop, row["sha256"])
        await tx.execute("DELETE FROM media_gone WHERE sha256 = $1", row["sha256"])
    return len(rows)


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('gotong.media ' || $1, 0))"
"""Keeping and sweeping the same content go one after the other."""


def _owner(sha256: str) -> str:
    return f"media:{sha256}"
