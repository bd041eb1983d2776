"""The linker: joins reports to incidents, one operation at a time, in the order in which they were received.

One linker works on an operation at a time, under the same lock that operators' corrections take. It decides from an
index in memory that follows `link_change`: its own decisions and operators' alike. When a transaction fails, the index
has seen decisions that may never have come to be. They are kept: either `link_change` turns out to hold them, or the
same reports still wait first and get the same decisions. In any other case the index is built anew from the tables.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import asyncpg

from schemas.reports import ReportLinked
from services.intake.actions import LINKER_CHANNEL, settle_held
from services.intake.incidents import refresh, try_lock_operation
from services.intake.linking import MOST_INDEXED, Link, Linker, LinkReport, Past
from services.intake.needs_text import needs_in, reader, stored
from services.intake.told import Kept, Version, version_of
from services.runtime import clock, outbox
from services.runtime.db import Database, Row, Tx, is_transient, to_json, wait_any
from services.runtime.ids import uuid7
from services.runtime.kafka import gather_s

log = logging.getLogger(__name__)

BY = "rule:linking"
BATCH = 300
_LARGEST = 1200
_BATCHES_IN_TURN = 10  # then another operation's turn comes
_POLL_S = 1.0
_REBUILT_AT_ONCE = 2000
_LINKABLE = "report_id, title, text, link_text, lon, lat, admin, observed_at, hazard, contact, place, official"


Decision = tuple[UUID, Version, Link, UUID]
"""A report, the version of its row that was read, what was decided, and the incident that it ends in."""


@dataclass(slots=True)
class Index:
    """One operation's linker, how far it has followed `link_change`, and what it has decided beyond that."""

    linker: Linker
    followed: int = 0
    ahead: list[Decision] = field(default_factory=list)


@dataclass(slots=True)
class Indexes:
    """The indexes of the operations that this worker has linked for."""

    by_operation: dict[str, Index] = field(default_factory=dict)
    kept: Kept = field(default_factory=Kept)
    most: int = MOST_INDEXED  # reports that each keeps

    def drop(self, operation: str) -> None:
        self.by_operation.pop(operation, None)


_INDEXES: WeakKeyDictionary[Database, Indexes] = WeakKeyDictionary()
"""What `run` has built for a database: an outage ends and starts it anew, and then the indexes still hold."""


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Link what waits, woken by NOTIFY and once a second, until the process stops."""
    wake = asyncio.Event()
    indexes = _INDEXES.setdefault(db, Indexes())
    listener: asyncpg.Connection[Row] | None = None
    try:
        while not stopping.is_set():
            if listener is None or listener.is_closed():
                listener = await db.listen([LINKER_CHANNEL], wake)
            wake.clear()
            moved = await link_waiting(db, indexes, stopping)
            if not moved:
                await wait_any(wake, stopping, timeout_s=_POLL_S)
            elif moved < BATCH and (pause_s := gather_s(moved)):
                await asyncio.sleep(pause_s)
    finally:
        if listener is not None:
            await listener.close(timeout=1)


async def link_waiting(db: Database, indexes: Indexes, stopping: asyncio.Event | None = None) -> int:
    """Settle what is held, and link a few batches of each operation that has reports waiting; returns how many
    reports moved on."""
    async with db.tx() as tx:
        moved = await settle_held(tx)
        waiting = await tx.fetch("SELECT DISTINCT operation FROM report WHERE state = 'waiting' ORDER BY operation")
    for row in waiting:
        size = BATCH
        for _ in range(_BATCHES_IN_TURN):
            if stopping is not None and stopping.is_set():
                return moved
            linked = await link_batch(db, row["operation"], indexes, size)
            moved += linked
            if linked < size:
                break
            # The more wait, the more of them join one incident, which is then worked out once for all.
            size = min(2 * size, _LARGEST)
    return moved


async def link_batch(db: Database, operation: str, indexes: Indexes, size: int = BATCH) -> int:
    """Link the oldest waiting reports of one operation in one transaction; returns how many. Bulk goes last."""
    try:
        async with db.tx() as tx:
            if not await try_lock_operation(tx, operation):
                return 0
            index = await _followed(tx, operation, indexes)
            rows = await tx.fetch(
                f"SELECT {_LINKABLE}, exercise, needs, sensitivity, xmin, ctid FROM report "
                "WHERE operation = $1 AND state = 'waiting' ORDER BY bulk, seq LIMIT $2",
                operation,
                max(size, len(index.ahead)),
            )
            if index.ahead and not _same_wait(index.ahead, rows):
                indexes.drop(operation)
                index = await _followed(tx, operation, indexes)
            if rows:
                _decide(index, rows)
                links = [(found, incident_id) for _, _, found, incident_id in index.ahead]
                followed = await _store(tx, operation, rows, links, indexes.kept)
    except BaseException as error:
        if not is_transient(error):
            indexes.drop(operation)
        raise
    if rows:
        index.followed, index.ahead = followed, []
    return len(rows)


def _same_wait(ahead: Sequence[Decision], rows: Sequence[Row]) -> bool:
    """Whether the reports that were decided on are the first that wait, each as it was read then."""
    first = [(row["report_id"], version_of(row)) for row in rows[: len(ahead)]]
    return first == [(report_id, version) for report_id, version, _, _ in ahead]


def _decide(index: Index, rows: Sequence[Row]) -> None:
    """Add the decision for each report that has none yet, and the incident that it ends in: a new one where none was
    found."""
    for row in rows[len(index.ahead) :]:
        report = link_report(row)
        found = index.linker.decide(report)
        incident_id = found.incident_id or uuid7()
        index.linker.add(report, incident_id)
        index.ahead.append((row["report_id"], version_of(row), found, incident_id))


def link_report(row: Row) -> LinkReport:
    """What linking knows of a report. Numbers in the text are keyed hashes: equal where they are equal, no more."""
    text = row["link_text"] or "\n".join(part for part in (row["title"], row["text"]) if part)
    return LinkReport(
        report_id=row["report_id"], text=text, lon=row["lon"], lat=row["lat"], admin=row["admin"],
        observed_at=row["observed_at"], hazard=row["hazard"] if row["hazard"] != "other" else None,
        contact=row["contact"], location_text=row["place"], official=row["official"],
    )  # fmt: skip


async def _store(tx: Tx, operation: str, rows: Sequence[Row], links: Sequence[tuple[Link, UUID]], kept: Kept) -> int:
    """Write a batch's decisions and tell of them; returns the newest `change_id`."""
    now: datetime = clock.now()
    readings = [read_text(row["title"], row["text"], stated=row["needs"] is not None) for row in rows]
    await tx.execute(
        """
        UPDATE report r SET state = 'linked', incident_id = t.incident_id, copy_of = t.copy_of,
               exact_copy = t.exact_copy, linked_at = $8, linked_by = $9, score = t.score, parts = t.parts::jsonb,
               suggested = t.suggested, read_needs = t.read_needs::jsonb, reading = t.reading::jsonb
        FROM unnest(
            $1::uuid[], $2::uuid[], $3::uuid[], $4::boolean[], $5::float8[], $6::text[], $7::uuid[], $10::text[],
            $11::text[]
        ) AS t(report_id, incident_id, copy_of, exact_copy, score, parts, suggested, read_needs, reading)
        WHERE r.report_id = t.report_id
        """,
        [row["report_id"] for row in rows],
        [incident_id for _, incident_id in links],
        [link.copy_of for link, _ in links],
        ["copy" in link.parts for link, _ in links],
        [link.score for link, _ in links],
        [to_json(link.parts) for link, _ in links],
        [link.suggested for link, _ in links],
        now,
        BY,
        [needs for needs, _ in readings],
        [reading for _, reading in readings],
    )
    followed = await tx.fetchval(
        """
        WITH added AS (
            INSERT INTO link_change (operation, kind, report_id, incident_id)
            SELECT $1, 'add', report_id, incident_id
            FROM unnest($2::uuid[], $3::uuid[]) WITH ORDINALITY AS t(report_id, incident_id, nth) ORDER BY nth
            RETURNING change_id
        ) SELECT max(change_id) FROM added
        """,
        operation,
        [row["report_id"] for row in rows],
        [incident_id for _, incident_id in links],
    )
    await outbox.append(
        tx,
        [
            ReportLinked(
                report_id=row["report_id"], incident_id=incident_id, operation=operation, exercise=row["exercise"],
                score=round(link.score, 4), parts={name: round(value, 4) for name, value in link.parts.items()},
                copy_of=link.copy_of, sensitivity=row["sensitivity"], by=BY,
            )
            for row, (link, incident_id) in zip(rows, links, strict=True)
        ],
    )  # fmt: skip
    await refresh(tx, {incident_id for _, incident_id in links}, by=BY, kept=kept)
    return int(followed)


def read_text(title: str | None, words: str | None, *, stated: bool) -> tuple[str | None, str | None]:
    """What a report's text speaks of, as JSON: its needs, None where the report states them itself or none is found;
    and what else it says, None for nothing."""
    text = "\n".join(part for part in (title, words) if part)
    if not text:
        return None, None
    read = reader().read(text)
    found = [] if stated else needs_in(read)
    said = stored(read)
    return to_json(found) if found else None, to_json(said) if said else None


# Following


async def _followed(tx: Tx, operation: str, indexes: Indexes) -> Index:
    """The operation's index with every change that is committed; the lock is held, so there can be no newer ones."""
    index = indexes.by_operation.get(operation) or await _begun(tx, operation, indexes)
    while True:
        changes = await tx.fetch(
            f"SELECT c.change_id, c.kind, c.report_id AS changed, c.incident_id, c.other_id, r.* "
            f"FROM link_change c LEFT JOIN (SELECT {_LINKABLE} FROM report) r ON r.report_id = c.report_id "
            "WHERE c.operation = $1 AND c.change_id > $2 ORDER BY c.change_id LIMIT $3",
            operation,
            index.followed,
            _REBUILT_AT_ONCE,
        )
        if changes and index.ahead:
            mine = [("add", report_id, incident_id) for report_id, _, _, incident_id in index.ahead]
            if mine != [(change["kind"], change["changed"], change["incident_id"]) for change in changes]:
                index = await _begun(tx, operation, indexes)
                continue
            # The commit had come through, and only its answer was lost.
            index.ahead = []
        else:
            for change in changes:
                follow(index.linker, change)
        if changes:
            index.followed = changes[-1]["change_id"]
        if len(changes) < _REBUILT_AT_ONCE:
            return index


async def _begun(tx: Tx, operation: str, indexes: Indexes) -> Index:
    """An index that begins with the newest reports that were linked, as many as it keeps."""
    index = indexes.by_operation[operation] = Index(Linker(zone=await _zone(tx, operation), most=indexes.most))
    start = await tx.fetchval(
        "SELECT change_id FROM link_change WHERE operation = $1 AND kind = 'add' "
        "ORDER BY change_id DESC OFFSET $2 LIMIT 1",
        operation,
        indexes.most - 1,
    )
    if start is None:
        return index
    index.followed = start - 1
    rows = await tx.fetch(
        """
        WITH young AS (
            SELECT DISTINCT report_id FROM link_change WHERE operation = $1 AND kind = 'add' AND change_id >= $2
        ), open AS (
            SELECT DISTINCT incident_id FROM report JOIN young USING (report_id) WHERE incident_id IS NOT NULL
        )
        SELECT incident_id, count(*) AS texts, min(observed_at) AS first_at, max(observed_at) AS last_at,
               min(lon) AS west, min(lat) AS south, max(lon) AS east, max(lat) AS north,
               (array_agg(lon ORDER BY seq) FILTER (WHERE lon IS NOT NULL))[1] AS lon,
               (array_agg(lat ORDER BY seq) FILTER (WHERE lon IS NOT NULL))[1] AS lat,
               array_agg(DISTINCT hazard) FILTER (WHERE hazard IS NOT NULL) AS hazards
        FROM report JOIN open USING (incident_id)
        WHERE NOT exact_copy AND report_id NOT IN (SELECT report_id FROM young) GROUP BY incident_id
        """,
        operation,
        start,
    )
    for row in rows:
        index.linker.recall(row["incident_id"], _past(row, index.linker.settings.unnamed_hazards))
    closed = await tx.fetch("SELECT incident_id FROM incident WHERE operation = $1 AND status = 'closed'", operation)
    for row in closed:
        index.linker.close(row["incident_id"])
    return index


def _past(row: Row, unnamed: Sequence[str]) -> Past:
    return Past(
        texts=row["texts"],
        first=(row["lon"], row["lat"]) if row["lon"] is not None else None,
        box=(row["west"], row["south"], row["east"], row["north"]) if row["lon"] is not None else None,
        first_at=row["first_at"].timestamp() / 3600,
        last_at=row["last_at"].timestamp() / 3600,
        hazards=tuple(hazard for hazard in row["hazards"] or () if hazard not in unnamed),
    )


def follow(linker: Linker, change: Row | dict[str, Any]) -> None:
    """Apply one row of `link_change` (with the report's columns) to an index."""
    kind = change["kind"]
    if kind == "add":
        linker.add(link_report(change), change["incident_id"])  # type: ignore[arg-type]
    elif kind == "move":
        if linker.knows(change["changed"]):
            linker.move(change["changed"], change["incident_id"])
        else:  # it is older than what is indexed, or was when the index began
            linker.add(link_report(change), change["incident_id"])  # type: ignore[arg-type]
    elif kind == "remove":
        linker.remove(change["changed"])
    elif kind == "merge":
        linker.merge(change["incident_id"], change["other_id"])
    elif kind == "close":
        linker.close(change["incident_id"])


async def _zone(tx: Tx, operation: str) -> ZoneInfo:
    name = await tx.fetchval("SELECT timezone FROM operation WHERE operation = $1", operation)
    if name:
        with suppress(ZoneInfoNotFoundError, ValueError):
            return ZoneInfo(name)
    return ZoneInfo("Asia/Jakarta")
