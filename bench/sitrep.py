"""Situation reports: seconds for a report as of any instant over N events, and as N grows tenfold.

The events are a random history (bench/sitrep_story.py) written straight into sitrep's log on a PostgreSQL of its own.
In the same run: the rate at which the log takes them beside a bare COPY of the same rows into the same table, and
the read models' report beside the fold of the whole log that defines it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import platform
import random
import shutil
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

from bench.sitrep_story import Story, Told
from gotong.local.folders import scratch_folder
from gotong.local.postgres import Postgres
from services.runtime.db import Database
from services.runtime.migrations import migrate_all
from services.sitrep import checkpoints, document, domain, log, reporting
from services.sitrep.domain import Scope

SEED = 20261124
BATCH = 500
SCOPES = {
    "all": Scope(),
    "operation": Scope("banjir-jakarta"),
    "area": Scope(area="kemendagri:32.04"),
}


async def write(db: Database, told: Sequence[Told], batch: int = BATCH) -> float:
    """Append in batches as the worker does; returns the seconds."""
    envelopes = [each.envelope() for each in told]
    began = time.perf_counter()
    for at in range(0, len(envelopes), batch):
        async with db.tx() as tx:
            await log.append(tx, envelopes[at : at + batch])
    return time.perf_counter() - began


async def keep_checkpoints(db: Database) -> tuple[int, float]:
    """Make the checkpoints that are due, as the worker's loop does; returns how many, and the seconds."""
    made, began = 0, time.perf_counter()
    while await checkpoints.keep_up(db):
        made += 1
    return made, time.perf_counter() - began


async def bare_copy(db: Database, count: int) -> float:
    """The ceiling: the log's newest rows copied into a table of the same columns and indexes, in the same batches."""
    async with db.tx() as tx:
        await tx.execute("CREATE TABLE bare (LIKE log INCLUDING ALL)")
        rows = await tx.fetch(
            f"SELECT {', '.join(log.COLUMNS)} FROM (SELECT * FROM log ORDER BY position DESC LIMIT $1) AS s "
            "ORDER BY position",
            count,
        )
    began = time.perf_counter()
    for at in range(0, len(rows), BATCH):
        async with db.tx() as tx:
            await tx.raw.copy_records_to_table(
                "bare", schema_name="sitrep", columns=log.COLUMNS, records=[tuple(r) for r in rows[at : at + BATCH]]
            )
    seconds = time.perf_counter() - began
    async with db.tx() as tx:
        await tx.execute("DROP TABLE bare")
    return seconds


async def report_seconds(db: Database, instants: Sequence[Any], scope: Scope) -> list[float]:
    """From the instant to the bytes, as the route does it."""
    found = []
    for instant in instants:
        began = time.perf_counter()
        async with db.tx() as tx:
            position = await log.position_at(tx, instant)
            report = await reporting.document(tx, position, scope, exact=True)
        reporting.rendered(report, "json", "id")
        found.append(time.perf_counter() - began)
    return found


async def fold_seconds(db: Database) -> float:
    """The same report by folding the whole log: what the read models save."""
    began = time.perf_counter()
    state = domain.State()
    async with db.tx() as tx:
        last, at = await log.head(tx), 0
        while at < last:
            page = await log.entries(tx, at, last)
            domain.fold(page, state)
            at = page[-1].position
    found = reporting.found_in(state, Scope(), domain.State())
    reporting.rendered(document.report(found, Scope(), exact=True), "json", "id")
    return time.perf_counter() - began


async def at_size(db: Database, random_instants: int) -> dict[str, Any]:
    chance = random.Random(SEED)
    async with db.tx() as tx:
        head = await log.head(tx)
        positions = sorted(chance.randint(1, head) for _ in range(random_instants))
        rows = await tx.fetch("SELECT received_at FROM log WHERE position = ANY($1)", positions)
        newest = await tx.fetchval("SELECT received_at + interval '1 second' FROM log WHERE position = $1", head)
    figures: dict[str, Any] = {"events": head}
    await report_seconds(db, [newest], Scope())  # the connection and its plans are warm, as in a running server
    for name, scope in SCOPES.items():
        spread = await report_seconds(db, [row["received_at"] for row in rows], scope)
        now = await report_seconds(db, [newest] * 5, scope)
        figures[name] = {
            "as_of_median_s": round(statistics.median(spread), 4),
            "as_of_max_s": round(max(spread), 4),
            "now_median_s": round(statistics.median(now), 4),
        }
    return figures


async def measure(events: int, instants: int) -> dict[str, Any]:
    folder = scratch_folder("gotong-bench-")
    server = Postgres(folder / "postgres", say=lambda _: None)
    server.start()
    try:
        dsn = server.createdb("bench")
        await migrate_all(dsn, ("sitrep",))
        db = Database(dsn, "sitrep", command_timeout_s=600)
        try:
            return await _measure(db, events, instants)
        finally:
            await db.close()
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


async def _measure(db: Database, events: int, instants: int) -> dict[str, Any]:
    # Three seconds at most between two events: two million of them are five weeks, not years.
    story = Story(SEED, pace_s=3)
    source = story.events(events * 10)
    result: dict[str, Any] = {
        "bench": "sitrep",
        "seed": SEED,
        "machine": f"{platform.machine()} {platform.system()} Python {platform.python_version()} {os.cpu_count()} CPUs",
        "size": {"events": events, "grown_to": events * 10, "instants": instants},
    }
    seconds = await write(db, list(itertools.islice(source, events)))
    copied = await bare_copy(db, min(events, 20_000))
    made, seconds_each = await keep_checkpoints(db)
    small = await at_size(db, instants)
    small["fold_s"] = round(await fold_seconds(db), 3)
    while True:  # a slice at a time: the events of the large size need not stand in memory together
        told = list(itertools.islice(source, 20_000))
        if not told:
            break
        await write(db, told, 2 * checkpoints.EVERY)
        await keep_checkpoints(db)
        print(f"{told[-1].time:%d %B}", file=sys.stderr)
    async with db.tx() as tx:
        await tx.execute("ANALYZE")
    large = await at_size(db, instants)
    rate, ceiling = events / seconds, min(events, 20_000) / copied
    result["append"] = {
        "events_per_s": round(rate),
        "bare_copy_events_per_s": round(ceiling),
        "ratio": round(rate / ceiling, 3),
    }
    result["checkpoints"] = {
        "made": made,
        "every": checkpoints.EVERY,
        "seconds_each": round(seconds_each / max(made, 1), 4),
    }
    result["report"] = {"at_n": small, "at_10n": large}
    result["growth"] = {
        name: round(large[name]["as_of_median_s"] / small[name]["as_of_median_s"], 2) for name in SCOPES
    }
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.sitrep", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--events", type=int, default=20_000, help="N; the report is measured at N and at 10 N")
    parser.add_argument("--instants", type=int, default=25, help="random instants for each figure")
    options = parser.parse_args(argv)
    result = asyncio.run(measure(options.events, options.instants))
    print(json.dumps(result) if options.json else json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
