"""Tallies of any position from the read models: the last checkpoint before it, and what changed since.

A checkpoint costs nothing when it is missing or was made by older rules: the tally is then counted from the one
before, or from nothing. A loop of the worker keeps them up to date.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from schemas.topics import TOPICS
from services.runtime.db import Database, Row, Tx, from_json
from services.sitrep import tally
from services.sitrep.domain import (
    AssignmentView,
    IncidentView,
    LedgerView,
    NeedView,
    OfferView,
    ReportView,
    ResponderView,
    SiteView,
)
from services.sitrep.tally import Added, Tally

EVERY = 2_000
"""Positions between two checkpoints: what a report reads beyond one of them, at most."""
FAR = 5
"""How many times as far the log may run ahead while much comes in."""
HOT_PER_S = 100
"""More events a second than this are much."""
LOOK_S = 2.0
BREATH_S = 0.2

V = TypeVar("V")
_STREAMS = {
    "gotong.reports.v1": "report",
    "gotong.incidents.v1": "incident",
    "gotong.needs.v1": "need",
    "gotong.ledger.v1": "need",
    "gotong.offers.v1": "offer",
    "gotong.assignments.v1": "assignment",
    "gotong.responders.v1": "responder",
    "gotong.sites.v1": "site",
}
assert set(_STREAMS) <= set(TOPICS)


async def tally_at(tx: Tx, position: int, *, above: int | None = None) -> Tally:
    """The tally at this position of the log.

    `above` makes it start from no later checkpoint than that: what a test compares, and nobody else needs.
    """
    row = await tx.fetchrow(
        "SELECT position, tally FROM checkpoint WHERE position <= $1 AND rules = $2 ORDER BY position DESC LIMIT 1",
        position if above is None else min(position, above),
        tally.RULES,
    )
    if row is None:
        return await moved(tx, Tally(), 0, position)
    return await moved(tx, tally.unpacked(row["tally"]), row["position"], position)


async def moved(tx: Tx, found: Tally, start: int, end: int) -> Tally:
    """The tally at `end` from that at `start`, which is changed: long ways in steps, so that none is large."""
    while start < end:
        step = min(end, start + FAR * EVERY)
        await _step(tx, found, start, step)
        start = step
    return found


async def _step(tx: Tx, found: Tally, start: int, end: int) -> None:
    instants = {
        row["position"]: row["received_at"]
        for row in await tx.fetch("SELECT position, received_at FROM log WHERE position = ANY($1)", [start, end])
    }
    touched: dict[str, set[UUID]] = {kind: set() for kind in _STREAMS.values()}
    rows = await tx.fetch(
        "SELECT DISTINCT topic, subject FROM log WHERE position > $1 AND position <= $2 AND topic = ANY($3)",
        start,
        end,
        list(_STREAMS),
    )
    for row in rows:
        touched[_STREAMS[row["topic"]]].add(UUID(row["subject"]))
    before = Side(tx, start, instants.get(start))
    after = Side(tx, end, instants.get(end))
    await _dependents(tx, touched, before, after)
    for side, sign in ((before, -1), (after, 1)):
        for added in await side.counted(touched):
            found.add(added, sign)
    found.tidy(after.now)
    await _new_tops(tx, found, touched["incident"], after)


async def _dependents(tx: Tx, touched: dict[str, set[UUID]], before: Side, after: Side) -> None:
    """Add to `touched` whatever counts differently because something else changed."""
    # A report tells for its incident, before and now.
    for side in (before, after):
        reports = await side.reports(touched["report"])
        touched["incident"] |= {view.incident_id for view in reports.values() if view.incident_id is not None}
    was, now = await before.incidents(touched["incident"]), await after.incidents(touched["incident"])

    def place(view: IncidentView | None) -> Any:
        return None if view is None else (*tally.place_of(view), view.evidence, view.sensitivity is None)

    turned = [key for key in touched["incident"] if place(was.get(key)) != place(now.get(key))]
    if turned:
        # Any version that ever named the incident: a few too many are counted the same before and after.
        for table, kind in (("report", "report"), ("need", "need"), ("ledger", "need")):
            rows = await tx.fetch(
                f"SELECT DISTINCT {table if table != 'ledger' else 'need'}_id AS id FROM {table} "
                "WHERE incident_id = ANY($1) AND from_position <= $2",
                turned,
                after.position,
            )
            touched[kind] |= {row["id"] for row in rows}
    was_needs, is_needs = await before.needs(touched["need"]), await after.needs(touched["need"])

    def given(parts: tuple[Any, Any, Any] | None) -> Any:
        if parts is None:
            return None
        need, ledger, incident = parts
        thing = need or ledger
        return thing.item, thing.skill, thing.unit, tally.need_admin(need, ledger, incident)

    moved_needs = [key for key in touched["need"] if given(was_needs.get(key)) != given(is_needs.get(key))]
    if moved_needs:
        for table in ("offer", "assignment"):
            rows = await tx.fetch(
                f"SELECT DISTINCT {table}_id AS id FROM {table} WHERE need_id = ANY($1) AND from_position <= $2",
                moved_needs,
                after.position,
            )
            touched[table] |= {row["id"] for row in rows}


class Side:
    """The subjects as they stood at one position, each read once."""

    def __init__(self, tx: Tx, position: int, now: datetime | None) -> None:
        self.tx, self.position, self.now = tx, position, now
        self._incidents: dict[UUID, IncidentView | None] = {}

    async def incidents(self, ids: Iterable[UUID]) -> dict[UUID, IncidentView]:
        missing = [key for key in ids if key not in self._incidents]
        if missing:
            found = await views_at(self.tx, "incident", IncidentView, missing, self.position)
            self._incidents |= {key: found.get(key) for key in missing}
        return {key: view for key in ids if (view := self._incidents[key]) is not None}

    async def reports(self, ids: Iterable[UUID]) -> dict[UUID, ReportView]:
        return await views_at(self.tx, "report", ReportView, list(ids), self.position)

    async def needs(
        self, ids: Iterable[UUID]
    ) -> dict[UUID, tuple[NeedView | None, LedgerView | None, IncidentView | None]]:
        """Each with its ledger and its incident."""
        wanted = list(ids)
        needs = await views_at(self.tx, "need", NeedView, wanted, self.position)
        ledgers = await views_at(self.tx, "ledger", LedgerView, wanted, self.position, key="need_id")
        abouts = {key: tally.incident_of(needs.get(key), ledgers.get(key)) for key in needs.keys() | ledgers.keys()}
        incidents = await self.incidents({about for about in abouts.values() if about is not None})
        return {
            key: (needs.get(key), ledgers.get(key), incidents.get(about) if about is not None else None)
            for key, about in abouts.items()
        }

    async def counted(self, touched: Mapping[str, set[UUID]]) -> list[Added]:
        """What the touched subjects add to the figures at this position."""
        return [added for _, added in await self.counted_each(touched)]

    async def counted_each(self, touched: Mapping[str, set[UUID]]) -> list[tuple[UUID, Added]]:
        """The same, with the subject that adds it."""
        if self.position == 0:
            return []
        found: list[tuple[UUID, Added | None]] = []
        reports = await self.reports(touched.get("report", ()))
        changed = touched.get("incident", set())
        abouts = {view.incident_id for view in reports.values() if view.incident_id is not None}
        incidents = await self.incidents(abouts | changed)
        for key, report in reports.items():
            about = incidents.get(report.incident_id) if report.incident_id else None
            found.append((key, tally.of_report(report, about, self.now)))
        standing = [key for key in changed if key in incidents]
        linked = await self._linked(standing)
        found += [(key, tally.of_incident(incidents[key], linked.get(key, ()))) for key in standing]
        offers = await views_at(self.tx, "offer", OfferView, list(touched.get("offer", ())), self.position)
        assignments = await views_at(
            self.tx, "assignment", AssignmentView, list(touched.get("assignment", ())), self.position
        )
        asked = {view.need_id for view in offers.values()} | {view.need_id for view in assignments.values()}
        needs = await self.needs(touched.get("need", set()) | asked)
        found += [(key, tally.of_need(*needs[key], self.now)) for key in touched.get("need", ()) if key in needs]
        admins = {key: tally.need_admin(*parts) for key, parts in needs.items()}
        found += [(key, tally.of_offer(offer, admins.get(offer.need_id))) for key, offer in offers.items()]
        for key, assignment in assignments.items():
            need, ledger, _ = needs.get(assignment.need_id, (None, None, None))
            found.append((key, tally.of_assignment(assignment, need or ledger, admins.get(assignment.need_id))))
        responders = await views_at(
            self.tx, "responder", ResponderView, list(touched.get("responder", ())), self.position
        )
        found += [(key, tally.of_responder(view)) for key, view in responders.items()]
        sites = await views_at(self.tx, "site", SiteView, list(touched.get("site", ())), self.position)
        found += [(key, tally.of_site(view)) for key, view in sites.items()]
        return [(key, added) for key, added in found if added is not None]

    async def _linked(self, incidents: Sequence[UUID]) -> dict[UUID, list[ReportView]]:
        """The reports of each incident that name figures of people."""
        if not incidents:
            return {}
        rows = await self.tx.fetch(
            f"SELECT {_columns(ReportView)} FROM report "
            "WHERE incident_id = ANY($1) AND said_by IS NOT NULL AND from_position <= $2 AND until_position > $2",
            list(incidents),
            self.position,
        )
        found: dict[UUID, list[ReportView]] = {}
        for row in rows:
            view = view_of(ReportView, row)
            assert view.incident_id is not None
            found.setdefault(view.incident_id, []).append(view)
        return found


def _columns(view: Any) -> str:
    return ", ".join(field.name for field in fields(view))


def view_of(kind: type[V], row: Row) -> V:
    """A row of a read table as the fold would have it."""
    values = {field.name: row[field.name] for field in fields(kind)}  # type: ignore[arg-type]
    for column in ("heads", "area"):
        if isinstance(values.get(column), str):
            values[column] = from_json(values[column])
    for column in ("hazards", "areas", "bbox"):
        if isinstance(values.get(column), list):
            values[column] = tuple(values[column])
    return kind(**values)


async def views_at(
    tx: Tx, table: str, kind: type[V], ids: Sequence[UUID], position: int, key: str | None = None
) -> dict[UUID, V]:
    """These subjects as they stood at the position; those not known then are left out."""
    if not ids or position == 0:
        return {}
    key = key or f"{table}_id"
    rows = await tx.fetch(
        f"""
        SELECT v.* FROM unnest($1::uuid[]) AS t(id), LATERAL (
            SELECT {_columns(kind)} FROM {table} WHERE {key} = t.id AND from_position <= $2
            ORDER BY from_position DESC LIMIT 1) AS v
        """,
        ids,
        position,
    )
    return {row[key]: view_of(kind, row) for row in rows}


async def _new_tops(tx: Tx, found: Tally, touched: set[UUID], after: Side) -> None:
    """Bring the first incidents of each place up to date.

    A list that was cut and lost incidents may lack the next one: it is then read anew, for its place alone.
    """
    ids = {str(key) for key in touched}
    opened = [view for view in (await after.incidents(touched)).values() if view.status == "open"]
    arrived: dict[tally.Place, list[tally.Rank]] = {}
    for view in opened:
        arrived.setdefault(tally.place_of(view), []).append(tally.rank(view))
    for place in list(found.tops.keys() | arrived.keys()):
        old = found.tops.get(place, tally.Top(()))
        kept = [rank for rank in old.ranks if rank[4] not in ids]
        top = tally.Top.of(kept + arrived.get(place, []), old.known_to)
        if top.known_to is not None and len(top.ranks) < tally.TOP_SURE:
            top = tally.Top.of(await _ranks_of(tx, place, after.position))
        if top.ranks or top.known_to is not None:
            found.tops[place] = top
        else:
            found.tops.pop(place, None)


async def _ranks_of(tx: Tx, place: tally.Place, position: int) -> list[tally.Rank]:
    """The first open incidents of a place, one more than are kept."""
    rows = await tx.fetch(
        f"SELECT {_columns(IncidentView)} FROM incident WHERE operation IS NOT DISTINCT FROM $1 AND exercise = $2 "
        "AND admin IS NOT DISTINCT FROM $3 AND status = 'open' AND from_position <= $4 AND until_position > $4 "
        "ORDER BY severity DESC, coalesce(dead, 0) + coalesce(missing, 0) + coalesce(injured, 0) DESC, "
        f"coalesce(affected, 0) DESC, reports DESC, incident_id LIMIT {tally.TOP_KEPT + 1}",
        *place,
        position,
    )
    return [tally.rank(view_of(IncidentView, row)) for row in rows]


# Keeping them


async def hold_still(tx: Tx) -> None:
    """Until the end of this transaction nothing that stands in the log or in the read models is redacted."""
    await tx.execute("SELECT pg_advisory_xact_lock_shared(hashtext('gotong.sitrep.redaction'))")


async def redacting(tx: Tx, position: int) -> None:
    """Wait for those who read, and drop the checkpoints that counted this position, because it is changed."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.sitrep.redaction'))")
    await tx.execute("DELETE FROM checkpoint WHERE position >= $1", position)


def due(last: int, head: int, *, hot: bool) -> int:
    """The position of the next checkpoint after the `last`; 0: none is due.

    While much comes in, a checkpoint waits, and then spans more at once: it costs by the subjects that changed, and a
    report of the meantime reads a few thousand rows more. What is left out is made when it is calm (`_gap`).
    """
    behind = head - last
    if hot:
        return last + FAR * EVERY if behind >= FAR * EVERY else 0
    return last + EVERY if behind >= EVERY else 0


async def keep_up(db: Database, *, hot: bool = False) -> int:
    """Make the next checkpoint if the log is that far, else one that was left out; returns its position, 0 when there
    is nothing to make."""
    async with db.tx() as tx:
        stand = await tx.fetchrow(
            "SELECT (SELECT coalesce(max(position), 0) FROM log) AS head, "
            "(SELECT coalesce(max(position), 0) FROM checkpoint WHERE rules = $1) AS last",
            tally.RULES,
        )
        assert stand is not None
        position = due(stand["last"], stand["head"], hot=hot) or (0 if hot else await _gap(tx))
        if not position:
            return 0
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('gotong.sitrep.checkpoint'))"):
            return 0
        await hold_still(tx)
        found = await tally_at(tx, position)
        await tx.execute(
            "INSERT INTO checkpoint (position, rules, tally) VALUES ($1, $2, $3) "
            "ON CONFLICT (position) DO UPDATE SET rules = excluded.rules, tally = excluded.tally",
            position,
            tally.RULES,
            tally.packed(found),
        )
    return position


async def _gap(tx: Tx) -> int:
    """The newest position where a checkpoint was left out; 0: none was."""
    found = await tx.fetchval(
        "SELECT before + $2 FROM (SELECT position, lag(position, 1, 0::bigint) OVER (ORDER BY position) AS before "
        "FROM checkpoint WHERE rules = $1) AS c WHERE position > before + $2 ORDER BY position DESC LIMIT 1",
        tally.RULES,
        EVERY,
    )
    return int(found or 0)


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Keep the checkpoints up with the log until `stopping`."""
    head, looked_at, more, hot = await _head(db), time.monotonic(), True, False
    while not stopping.is_set():
        # When there is more to make and little comes in, the next one follows after a breath.
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), BREATH_S if more and not hot else LOOK_S)
        before, head = head, await _head(db)
        passed_s, looked_at = time.monotonic() - looked_at, time.monotonic()
        hot = head - before > HOT_PER_S * passed_s
        if more or head != before:
            more = bool(await keep_up(db, hot=hot))
            more = more or hot  # what was left out meanwhile is made once it is calm


async def _head(db: Database) -> int:
    async with db.tx() as tx:
        return int(await tx.fetchval("SELECT coalesce(max(position), 0) FROM log"))
