"""The real files that are replayed, and what has to be true of them afterwards."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any

from tests.conftest import shared_file
from tests.e2e.system import System


@dataclass(frozen=True)
class Replayed:
    """A file of the real data and how its columns are named."""

    name: str
    rows: int
    columns: str
    timezone: str

    @property
    def path(self) -> Path:
        return shared_file(self.name)

    @property
    def source(self) -> str:
        return f"/files/{Path(self.name).name}"


PETABENCANA = Replayed(
    "petabencana/reports_2020_2021.csv",
    3004,
    "id=id,time=created_at_local,text=text,title=title,hazard=disaster_type,lat=lat,lon=lon",
    "Asia/Jakarta",
)
HAITI = Replayed(
    "haiti-2010/reports.csv",
    2281,
    "id=id,time=reported_at,title=title,text=description,lat=lat,lon=lon",
    "America/Port-au-Prince",
)
FEBRUARY_2017 = Replayed(
    "petabencana/reports_2017_02_jabodetabek.geojson",
    870,
    "id=report_id,time=created_at,text=text,title=title,hazard='flood'",
    "Asia/Jakarta",
)
BNPB = Replayed(
    "bnpb-floods-2020-2021/events.csv",
    1975,
    "id=no,time=event_date,text=location_text,hazard='flood',admin=regency_code_bps,admin_scheme='bps',"
    "dead=dead,missing=missing,injured=injured,houses_damaged=houses_damaged",
    "Asia/Jakarta",
)


def command(system: System, file: Replayed, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "gotong", "replay", str(file.path), "--columns", file.columns, "--timezone", file.timezone,
        "--url", system.url, "--token", system.token("admin", "replay", hours=5), "--json", *more,
    ]  # fmt: skip


async def replay(system: System, file: Replayed, *more: str) -> dict[str, Any]:
    """Run `gotong replay` to its end and return its last line."""
    process = await asyncio.create_subprocess_exec(
        *command(system, file, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=system.data
    )
    try:
        out, err = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        raise
    assert process.returncode == 0, err.decode()[-2000:]
    found: dict[str, Any] = json.loads(out.decode().strip().splitlines()[-1])
    return found


def km(lon1: float, lat1: float, lon2: float, lat2: float) -> float:
    """Great-circle distance."""
    a = sin(radians(lat2 - lat1) / 2) ** 2
    a += cos(radians(lat1)) * cos(radians(lat2)) * sin(radians(lon2 - lon1) / 2) ** 2
    return 2 * 6371.0088 * asin(sqrt(min(1.0, a)))


async def linked_as_required(system: System, file: Replayed) -> dict[str, float]:
    """Check what must hold of one file's incidents; returns the figures seen."""
    rows = await system.rows(
        "SELECT report_id, incident_id, lon, lat, admin, observed_at FROM intake.report WHERE origin = $1", file.source
    )
    assert len(rows) == file.rows
    placed = [row for row in rows if row["lon"] is not None or row["admin"] is not None]
    assert all(row["incident_id"] for row in placed), "a placed report has no incident"
    incidents: dict[Any, list[Any]] = {}
    for row in placed:
        incidents.setdefault(row["incident_id"], []).append(row)
    widest = longest = 0.0
    for members in incidents.values():
        located = [row for row in members if row["lon"] is not None]
        for n, one in enumerate(located):
            for other in located[n + 1 :]:
                widest = max(widest, km(one["lon"], one["lat"], other["lon"], other["lat"]))
        if located:
            times = [row["observed_at"] for row in located]
            longest = max(longest, (max(times) - min(times)).total_seconds() / 86_400)
    return {
        "reports": len(rows),
        "incidents": len(incidents),
        "biggest": max(len(members) for members in incidents.values()),
        "widest_km": round(widest, 2),
        "longest_days": round(longest, 2),
    }
