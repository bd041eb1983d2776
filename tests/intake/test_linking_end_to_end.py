"""The labelled pairs through the running parts: reports by HTTP in the order of their times, linked by the worker's
linker on PostgreSQL; two reports are said to be one when they are in one incident."""

from __future__ import annotations

import csv
import json
from collections import Counter
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from bench.dedup import interval, scores
from services.intake.app import service
from services.intake.linker import Indexes, link_waiting
from tests.conftest import bearer, shared_file

SETS = {
    # name: file, zone, fields of text and time, F1 at least
    "haiti-2010": ("haiti-2010/reports.csv", "America/Port-au-Prince", "description", "reported_at", 0.87),
    "petabencana": ("petabencana/reports_2020_2021.csv", "Asia/Jakarta", "text", "created_at_local", 0.90),
}
MOST_REPORTS = 20


def reports_of(name: str) -> list[dict[str, Any]]:
    file, zone, text, at, _ = SETS[name]
    with shared_file(file).open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    reports = [
        {
            "external_id": row["id"],
            "source": f"/files/{name}",
            "observed_at": datetime.fromisoformat(row[at]).replace(tzinfo=ZoneInfo(zone)).isoformat(),
            "title": row["title"] or None,
            "text": row[text] or None,
            "hazard": row.get("disaster_type") or None,
            "location": {"lon": float(row["lon"]), "lat": float(row["lat"])},
        }
        for row in rows
    ]
    return sorted(reports, key=lambda report: datetime.fromisoformat(report["observed_at"]))


def pairs_of(name: str) -> list[tuple[str, str, bool]]:
    with shared_file("duplicate-pairs/pairs.csv").open(encoding="utf-8", newline="") as lines:
        return [
            (row["id_a"], row["id_b"], row["duplicate"] == "yes")
            for row in csv.DictReader(lines)
            if row["set"] == name and row["duplicate"] != "unsure"
        ]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SETS)
async def test_labelled_reports_end_in_the_right_incident(name, make_db, make_client):
    reports, pairs = reports_of(name), pairs_of(name)
    db, client = make_db("intake"), make_client([service])
    for start in range(0, len(reports), 500):
        body = "\n".join(json.dumps(report) for report in reports[start : start + 500])
        headers = bearer("operator") | {"Content-Type": "application/x-ndjson"}
        answer = await client.post("/v1/reports:batch", content=body.encode(), headers=headers)
        assert answer.status_code == 207 and answer.json()["rejected"] == 0, answer.text[:300]
    indexes = Indexes()
    while await link_waiting(db, indexes):
        pass
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT external_id, incident_id FROM report")
        biggest = await tx.fetchval("SELECT max(reports) FROM incident")
    incident: dict[str, UUID] = {row["external_id"]: row["incident_id"] for row in rows}
    assert len(incident) == len(reports)
    said = np.array([incident[a] == incident[b] for a, b, _ in pairs])
    truth = np.array([float(same) for _, _, same in pairs])
    precision, recall, f1 = scores(said, truth)
    print(
        f"{name}: {len(reports)} reports, {len(set(incident.values()))} incidents, the biggest of {biggest}; "
        f"{len(pairs)} pairs: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f} {interval(said, truth, 2)}"
    )
    assert f1 >= SETS[name][4]
    assert biggest == max(Counter(incident.values()).values()) <= MOST_REPORTS
