"""Figures that others counted: the AHA Centre's table for Palu, and the floods that BNPB wrote down."""

from __future__ import annotations

import csv
from collections import defaultdict

import pytest

from services.intake.app import service as intake
from services.matching.app import service as matching
from services.registry.app import service as registry
from services.sitrep.app import service as sitrep
from tests.conftest import bearer, shared_file
from tests.sitrep.passing import Passing

OPERATOR, ADMIN = bearer("operator"), bearer("admin")
ITEMS = {"tent": "tent", "mosquito net": "mosquito_net", "blanket": "blanket"}


async def ok(answer):
    assert answer.status_code in (200, 201, 202, 207), answer.text
    return answer.json()


async def test_the_aha_centres_table_for_palu_comes_out_to_the_unit(make_db, make_client):
    rows = list(csv.DictReader(shared_file("needs-and-supply/aha_palu_2018.csv").open(encoding="utf-8", newline="")))
    services = [registry, intake, matching, sitrep]
    passing, client = Passing(make_db, services), make_client(services)
    operation = {
        "id": "gempa-palu-2018",
        "title": "Gempa dan tsunami Palu",
        "glide": "EQ-2018-000156-IDN",
        "hazards": ["earthquake"],
        "areas": ["kemendagri:72.71"],
        "timezone": "Asia/Makassar",
    }
    await ok(await client.post("/v1/operations", json=operation, headers=ADMIN))
    await passing.on()
    place = {"lon": 119.87, "lat": -0.9, "admin": "kemendagri:72.71"}
    for row in rows:
        need = await ok(
            await client.post(
                "/v1/needs",
                json={
                    "item": ITEMS[row["item"]],
                    "quantity": int(row["need"]),
                    "location": place,
                    "severity": 3,
                    "operation": "gempa-palu-2018",
                },
                headers=OPERATOR,
            )
        )
        lot = await ok(
            await client.post(
                "/v1/resources",
                json={
                    "item": ITEMS[row["item"]],
                    "quantity": int(row["in_country_or_coming"]),
                    "location": place,
                },
                headers=OPERATOR,
            )
        )
        await passing.on()
        await ok(
            await client.post(
                "/v1/assignments",
                json={
                    "need": need.get("need_id") or need["id"],
                    "lot": lot.get("lot_id") or lot["id"],
                    "quantity": int(row["in_country_or_coming"]),
                    "reason": "AHA Centre, situation updates 10 and 11",
                },
                headers=OPERATOR,
            )
        )
        await passing.on()
    report = await ok(await client.get("/v1/sitreps?operation=gempa-palu-2018", headers=OPERATOR))
    told = {need["item"]: need for need in report["needs"]}
    for row in rows:
        need = told[ITEMS[row["item"]]]
        promised = need["committed"] + need["coming"] + need["delivered"]
        assert (need["needed"], promised, need["gap"]) == (
            int(row["need"]),
            int(row["in_country_or_coming"]),
            int(row["gap"]),
        )
    gaps = (
        await ok(await client.get("/v1/sitreps/gaps?operation=gempa-palu-2018&format=json", headers=OPERATOR))
    )["rows"]  # fmt: skip
    assert {row["item_code"]: row["gap"] for row in gaps} == {"tent": 16553, "mosquito_net": 58277, "blanket": 63936}
    assert {row["area_code"] for row in gaps} == {"kemendagri:72.71"}


FIGURES = ("dead", "missing", "injured", "houses_damaged", "public_facilities_damaged")


# Names that the file of 2021 has otherwise: the regencies of four provinces of today lay in Papua and Papua Barat then.
SINCE = {
    "DAERAH KHUSUS IBUKOTA JAKARTA": "DKI JAKARTA",
    "DAERAH ISTIMEWA YOGYAKARTA": "DI YOGYAKARTA",
    "PAPUA SELATAN": "PAPUA",
    "PAPUA TENGAH": "PAPUA",
    "PAPUA PEGUNUNGAN": "PAPUA",
    "PAPUA BARAT DAYA": "PAPUA BARAT",
}


@pytest.mark.timeout(400)
async def test_what_bnpb_wrote_down_adds_up_by_province_and_month(make_db, make_client):
    path = shared_file("bnpb-floods-2020-2021/events.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    # Counted apart: of each regency and day the last row of the file stands, and all are added up.
    standing = {(row["regency_code_bps"], row["event_date"]): row for row in rows}
    expected: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(FIGURES))
    for row in standing.values():
        sums = expected[row["province"].strip().upper(), row["event_date"][:7]]
        for at, figure in enumerate(FIGURES):
            sums[at] += int(row[figure] or 0)

    services = [registry, intake, sitrep]
    passing, client = Passing(make_db, services), make_client(services)
    operation = {"id": "banjir-2020-2021", "title": "Banjir 2020-2021", "timezone": "Asia/Jakarta"}
    await ok(await client.post("/v1/operations", json=operation, headers=ADMIN))
    await passing.on()
    # A later row of the same regency and day corrects the one before: it is sent after it.
    turns: dict[int, list[dict[str, object]]] = defaultdict(list)
    seen: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        key = (row["regency_code_bps"], row["event_date"])
        turns[seen[key]].append(
            {
                "title": "Banjir",
                "hazard": "flood",
                "observed_at": f"{row['event_date']}T00:00:00+07:00",
                "location": {"admin": f"bps:{row['regency_code_bps']}"},
                "operation": "banjir-2020-2021",
                "people": {figure: int(row[figure] or 0) for figure in FIGURES[:3]},
                "damage": {figure: int(row[figure] or 0) for figure in FIGURES[3:]},
                "reporter": {"kind": "official"},
                "source": "/files/events.csv",
                "external_id": row["no"],
            }
        )
        seen[key] += 1
    taken = 0
    for _, reports in sorted(turns.items()):
        for at in range(0, len(reports), 500):
            answer = await ok(await client.post("/v1/reports:batch", json=reports[at : at + 500], headers=ADMIN))
            taken += answer["accepted"]
            await passing.on()
    assert taken == len(rows)
    history = await ok(await client.get("/v1/sitreps/history?operation=banjir-2020-2021&format=json", headers=OPERATOR))
    found: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0] * len(FIGURES))
    for row in history["rows"]:
        name = row["area"].upper()
        sums = found[SINCE.get(name, name), row["period"]]
        for at, figure in enumerate(FIGURES):
            sums[at] += row[figure]
    assert dict(found) == dict(expected)
    assert sum(row["statements"] for row in history["rows"]) == len(standing)
    report = await ok(await client.get("/v1/sitreps?operation=banjir-2020-2021", headers=OPERATOR))
    assert report["totals"]["reports"] == len(rows)
