"""The timer that looks for areas under a warning from which too little is heard, and tells of each once.

Reports are counted from the tallies of the log (checkpoints.py), by the area that they, or their incidents, name.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from dataclasses import fields
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from uuid import UUID

from schemas.sitreps import SilenceNoticed
from schemas.values import STANDING
from services.runtime import clock, outbox
from services.runtime.db import Database, Tx
from services.sitrep import checkpoints, log, reporting, silence
from services.sitrep.areas import at_level
from services.sitrep.bands import band
from services.sitrep.checkpoints import view_of
from services.sitrep.domain import WarningView
from services.sitrep.silence import Heard, Home, Watched
from services.sitrep.tally import Tally

LOOK_S = 60.0


@cache
def homes() -> dict[str, Home]:
    """The areas with their people, from the installation's own list or from ours."""
    own = os.environ.get("GOTONG_SITREP_POPULATION")
    return dict(silence.homes(Path(own) if own else Path(__file__).parent / "data" / "population.csv"))


async def run(db: Database, stopping: asyncio.Event) -> None:
    """Notice silence until `stopping`."""
    while not stopping.is_set():
        await notice(db)
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), LOOK_S)


async def notice(db: Database) -> list[SilenceNoticed]:
    """Tell of the areas that are silent and were not told of yet, under the same warning."""
    async with db.tx() as tx:
        # One at a time, whichever worker it runs in.
        if not await tx.fetchval("SELECT pg_try_advisory_xact_lock(hashtext('gotong.sitrep.silence'))"):
            return []
        found = [each for each in await watched(tx, clock.now()) if each.silent]
        if not found:
            return []
        fresh = await tx.fetch(
            "INSERT INTO silence (warning_id, area, noticed_at) SELECT *, $3 FROM unnest($1::uuid[], $2::text[]) "
            "ON CONFLICT DO NOTHING RETURNING warning_id, area",
            [each.warning.warning_id for each in found],
            [each.area for each in found],
            clock.now(),
        )
        new = {(row["warning_id"], row["area"]) for row in fresh}
        operations = await reporting.operations_at(tx, await log.head(tx))
        events = []
        for each in found:
            warning = each.warning
            operation = silence.operation_of(each.area, warning.hazard, warning.exercise, operations)
            if (warning.warning_id, each.area) not in new or (operation is None and warning.exercise):
                continue
            events.append(
                SilenceNoticed(
                    operation=operation.operation_id if operation else STANDING,
                    exercise=warning.exercise,
                    area=each.area,
                    name=silence.name_of(each.area),
                    warning_id=warning.warning_id,
                    hazard=warning.hazard,
                    severity=warning.severity,
                    since=each.since,
                    expected=band(round(each.expected)),
                    received=band(each.received),
                )
            )
        await outbox.append(tx, events)
    return events


async def watched(tx: Tx, now: datetime) -> list[Watched]:
    """The areas under a warning that is in effect, the most people first; of several warnings the one that lets us
    expect most."""
    columns = ", ".join(field.name for field in fields(WarningView))
    rows = await tx.fetch(
        f"SELECT {columns} FROM warning WHERE until_position = 9223372036854775807 AND state = 'active' "
        "AND effective_at < $1 AND expires_at > $1",
        now,
    )
    warnings = [
        warning
        for row in rows
        if silence.rates().get((warning := view_of(WarningView, row)).severity) and warning.status != "test"
    ]
    began = await tx.fetchval("SELECT received_at FROM log ORDER BY position LIMIT 1")
    if not warnings or began is None:
        return []
    await checkpoints.hold_still(tx)
    head = await log.head(tx)
    counted = await checkpoints.tally_at(tx, head)
    people = sum(home.population for home in homes().values())
    found: dict[tuple[str, bool], Watched] = {}
    for warning in warnings:
        places = await _places(tx, warning)
        under = [home for area, home in homes().items() if silence.lies_under(warning, home, places.get(area, ()))]
        if not under:
            continue
        # What was said before this log began nobody can count.
        since = max(warning.effective_at, began)
        start = await checkpoints.tally_at(tx, await log.position_at(tx, since))
        usual_from = await log.position_at(tx, since - timedelta(days=silence.USUAL_DAYS))
        before = _reports(start, False)
        for area, count in _reports(await checkpoints.tally_at(tx, usual_from), False).items():
            before[area] = before.get(area, 0) - count
        then, today = _reports(start, warning.exercise), _reports(counted, warning.exercise)
        hours = (now - since).total_seconds() / 3600
        for home in under:
            heard = Heard(
                max(0, today.get(home.area, 0) - then.get(home.area, 0)),
                before.get(home.area, 0),
                sum(before.values()),
            )
            expected = silence.expected(home, warning.severity, hours, heard, people)
            each = Watched(home.area, home.population, warning, since, expected, heard.received)
            known = found.get((home.area, warning.exercise))
            if known is None or expected > known.expected:
                found[home.area, warning.exercise] = each
    return sorted(found.values(), key=lambda each: (-each.population, each.area, each.warning.exercise))


def _reports(tally: Tally, exercise: bool) -> dict[str, int]:
    """The reports received from each regency, of life or of drills."""
    found: dict[str, int] = {}
    for (_, drill, admin), sums in tally.sums.items():
        area = at_level(admin, 2)
        if drill == exercise and area is not None and sums.get("reports_received"):
            found[area] = found.get(area, 0) + sums["reports_received"]
    return found


async def _places(tx: Tx, warning: WarningView) -> dict[str, list[tuple[float, float]]]:
    """Where open incidents and sites lie that name an area, around the warning's polygons."""
    points = [point for ring in warning.area.get("polygons", ()) for point in ring]
    if not points:
        return {}
    west, south = min(point[0] for point in points), min(point[1] for point in points)
    east, north = max(point[0] for point in points), max(point[1] for point in points)
    rows = await tx.fetch(
        " UNION ALL ".join(
            f"SELECT admin, lon, lat FROM {table} WHERE until_position = 9223372036854775807 AND status = 'open' "
            "AND admin IS NOT NULL AND lon BETWEEN $1 AND $3 AND lat BETWEEN $2 AND $4"
            for table in ("incident", "site")
        ),
        west,
        south,
        east,
        north,
    )
    found: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        area = at_level(row["admin"], 2)
        if area is not None:
            found.setdefault(area, []).append((row["lon"], row["lat"]))
    return found


async def noticed(tx: Tx) -> dict[tuple[UUID, str], datetime]:
    """When silence was told of, by warning and area."""
    rows = await tx.fetch("SELECT warning_id, area, noticed_at FROM silence")
    return {(row["warning_id"], row["area"]): row["noticed_at"] for row in rows}
