"""The linker on real PostgreSQL: one incident for each report, corrections followed, real reports within the limits."""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import asyncpg
import httpx
import pytest

from schemas.reports import ReportLinked
from services.intake.linker import Indexes, link_batch, link_waiting, run
from services.intake.linking import Linker, haversine_km
from services.runtime.db import Database, is_transient
from tests.conftest import bearer, emitted, shared_file


async def link_all(db: Database, indexes: Indexes | None = None) -> Indexes:
    indexes = indexes or Indexes()
    while await link_waiting(db, indexes):
        pass
    return indexes


def petabencana() -> list[dict]:
    """The rows of the PetaBencana file as `gotong replay` sends them."""
    return [
        {
            "external_id": row["id"],
            "observed_at": stamp(row["created_at_local"], "Asia/Jakarta"),
            "text": row["text"] or None,
            "title": row["title"] or None,
            "hazard": row["disaster_type"],
            "location": {"lon": float(row["lon"]), "lat": float(row["lat"])},
        }
        for row in rows_of("petabencana/reports_2020_2021.csv")
    ]


def haiti() -> list[dict]:
    return [
        {
            "external_id": row["id"],
            "observed_at": stamp(row["reported_at"], "America/Port-au-Prince"),
            "text": row["description"],
            "title": row["title"],
            "location": {"lon": float(row["lon"]), "lat": float(row["lat"])},
        }
        for row in rows_of("haiti-2010/reports.csv")
    ]


def bnpb() -> list[dict]:
    return [
        {
            "external_id": row["no"],
            "observed_at": stamp(row["event_date"], "Asia/Jakarta"),
            "text": row["location_text"],
            "hazard": row["event_type"],
            "location": {"admin": f"bps:{row['regency_code_bps']}"},
            "people": {name: int(row[name]) for name in ("dead", "missing", "injured") if row[name]},
            "damage": {"houses_damaged": int(row["houses_damaged"])} if row["houses_damaged"] else {},
            "reporter": {"kind": "official"},
        }
        for row in rows_of("bnpb-floods-2020-2021/events.csv")
    ]


def jabodetabek() -> list[dict]:
    with shared_file("petabencana/reports_2017_02_jabodetabek.geojson").open(encoding="utf-8") as file:
        features = json.load(file)["features"]
    return [
        {
            "external_id": feature["properties"]["report_id"],
            "observed_at": stamp(feature["properties"]["created_at"], "Asia/Jakarta"),
            "text": feature["properties"]["text"],
            "title": feature["properties"]["title"],
            "hazard": "flood",
            "location": dict(zip(("lon", "lat"), feature["geometry"]["coordinates"], strict=True)),
        }
        for feature in features
    ]


def rows_of(name: str) -> list[dict[str, str]]:
    with shared_file(name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stamp(local: str, zone: str) -> str:
    return datetime.fromisoformat(local).replace(tzinfo=ZoneInfo(zone)).isoformat()


@pytest.mark.parametrize(
    ("read", "days"),
    # Haiti's rows name no hazard: needs that nothing quick explains last longer (`lasting_hours`).
    [(petabencana, 7), (haiti, 45), (jabodetabek, 7), (bnpb, 7)],
)
async def test_real_reports_end_in_one_incident_each_within_the_limits(
    client: httpx.AsyncClient, db: Database, read: Callable[[], list[dict]], days: int
) -> None:
    rows = [row | {"source": f"/files/{read.__name__}"} for row in read()]
    begun = time.perf_counter()
    answer = await client.post("/v1/reports:batch", json=rows, headers=bearer("operator"))
    taken_s = time.perf_counter() - begun
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"], body["repeated"]) == (len(rows), 0, 0)
    begun = time.perf_counter()
    await link_all(db)
    linked_s = time.perf_counter() - begun
    again = (await client.post("/v1/reports:batch", json=rows, headers=bearer("operator"))).json()
    assert (again["accepted"], again["repeated"]) == (0, len(rows))
    assert [r["ticket"] for r in again["results"]] == [r["ticket"] for r in body["results"]]
    async with db.tx() as tx:
        reports = await tx.fetch("SELECT incident_id, lon, lat, observed_at FROM report")
        known = {row["incident_id"]: row for row in await tx.fetch("SELECT * FROM incident")}
    assert len(reports) == len(rows)
    assert all(report["incident_id"] in known for report in reports)
    assert len(known) < len(rows)
    print(
        f"{read.__name__}: {len(rows)} reports taken in {taken_s:.1f} s, linked in {linked_s:.1f} s, {len(known)} incidents"
    )
    members: dict = {}
    for report in reports:
        members.setdefault(report["incident_id"], []).append(report)
    for incident_id, of_it in members.items():
        assert known[incident_id]["reports"] == len(of_it) <= 60
        pins = {(report["lon"], report["lat"]) for report in of_it if report["lon"] is not None}
        assert not pins or max(haversine_km(*a, *b) for a in pins for b in pins) <= 10
        times = [report["observed_at"] for report in of_it]
        assert (max(times) - min(times)).total_seconds() <= days * 24 * 3600


FLOOD = {
    "text": "Banjir di Kampung Melayu butuh perahu",
    "hazard": "flood",
    "location": {"lon": 106.866, "lat": -6.222},
}


async def send(client: httpx.AsyncClient, reports: list[dict], **headers: str) -> list[dict]:
    answer = await client.post("/v1/reports:batch", json=reports, headers=bearer("operator") | headers)
    assert answer.status_code == 207 and not answer.json()["rejected"]
    return answer.json()["results"]


def apart(count: int) -> list[dict]:
    """Reports that have nothing to do with one another."""
    return [
        {"text": f"kejadian {n} {uuid4().hex}", "location": {"lon": 95 + n % 40, "lat": -8 + n // 40}}
        for n in range(count)
    ]


async def incident_ids(db: Database) -> list[UUID]:
    async with db.tx() as tx:
        return [row["incident_id"] for row in await tx.fetch("SELECT incident_id FROM report ORDER BY seq")]


async def fresh_snapshot(db: Database, operation: str = "standing") -> dict:
    """The index as a worker that has just started builds it."""
    return (await followed(db, Indexes(), operation)).snapshot()


async def followed(db: Database, indexes: Indexes, operation: str = "standing") -> Linker:
    await link_batch(db, operation, indexes)
    return indexes.by_operation[operation].linker


async def test_a_live_index_equals_one_built_anew_after_every_correction(client, db):
    indexes = Indexes()
    await send(client, [FLOOD, FLOOD | {"text": "Kampung Melayu banjir, perahu dibutuhkan"}, *apart(6)])
    await link_all(db, indexes)
    flood, same, *others = await incident_ids(db)
    assert flood == same
    async with db.tx() as tx:
        reports = [row["report_id"] for row in await tx.fetch("SELECT report_id FROM report ORDER BY seq")]

    async def correct(incident: UUID, what: str, **body: str | list[str]) -> None:
        answer = await client.post(
            f"/v1/incidents/{incident}/{what}", json=body | {"reason": "test"}, headers=bearer("operator")
        )
        assert answer.status_code == 200, answer.text
        live = (await followed(db, indexes)).snapshot()
        assert live == await fresh_snapshot(db)

    await correct(flood, "split", reports=[str(reports[1])])
    await correct(others[0], "merge", into=str(others[1]))
    await correct(flood, "link", report=str(reports[4]))
    await correct(flood, "unlink", report=str(reports[4]))
    await correct(others[3], "close")
    place = {"location": {"lon": 100.0, "lat": 1.0}, "reason": "test"}
    answer = await client.patch(f"/v1/reports/{reports[0]}", json=place, headers=bearer("operator"))
    assert answer.status_code == 200
    await send(client, [FLOOD, *apart(2)])
    await link_all(db, indexes)
    live = (await followed(db, indexes)).snapshot()
    anew = await fresh_snapshot(db)
    # A report that moved was indexed first where it stood then; an index built later reads where it stands now.
    assert live["incidents"] == anew["incidents"]


async def test_a_correction_is_followed_by_the_next_decisions(client, db):
    indexes = Indexes()
    await send(client, [FLOOD])
    await link_all(db, indexes)
    [first] = await incident_ids(db)
    await client.post(f"/v1/incidents/{first}/close", json={"reason": "over"}, headers=bearer("operator"))
    await send(client, [FLOOD])
    await link_all(db, indexes)
    assert (await incident_ids(db))[1] != first


async def test_a_failed_batch_leaves_nothing_and_its_index_is_thrown_away(client, db):
    indexes = Indexes()
    await send(client, [FLOOD])
    await link_all(db, indexes)
    before = (await followed(db, indexes)).snapshot()
    await send(client, [FLOOD, *apart(3)])
    async with db.tx() as tx:  # the database refuses the batch's last write
        await tx.execute("ALTER TABLE incident ADD CONSTRAINT refuse CHECK (reports < 1) NOT VALID")
    with pytest.raises(asyncpg.CheckViolationError):
        await link_waiting(db, indexes)
    assert indexes.by_operation == {}
    assert [found is None for found in await incident_ids(db)] == [False, True, True, True, True]
    async with db.tx() as tx:
        await tx.execute("ALTER TABLE incident DROP CONSTRAINT refuse")
    await link_all(db, indexes)
    found = await incident_ids(db)
    assert found[0] == found[1] and len(set(found)) == 4
    assert (await followed(db, indexes)).snapshot() == await fresh_snapshot(db) != before


async def cut_off(db: Database, indexes: Indexes) -> None:
    """Let the linker decide on what waits, and end its connection before it has written anything."""
    async with db.tx() as tx:
        await tx.execute("LOCK TABLE incident IN ACCESS EXCLUSIVE MODE")
        linking = asyncio.create_task(link_batch(db, "standing", indexes))
        stuck = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        while not (pid := await tx.fetchval(stuck)):
            assert not linking.done(), linking.result()
            await tx.execute("SELECT pg_stat_clear_snapshot()")
            await asyncio.sleep(0.01)
        await tx.execute("SELECT pg_terminate_backend($1)", pid)
        await asyncio.wait([linking])
    failure = linking.exception()
    assert failure is not None and is_transient(failure)


async def test_a_batch_that_was_cut_off_gets_the_same_decisions_again_on_the_same_index(client, db):
    indexes = Indexes()
    await send(client, [FLOOD])
    await link_all(db, indexes)
    await send(client, [FLOOD, *apart(3)])
    await cut_off(db, indexes)
    index = indexes.by_operation["standing"]
    decided = [incident_id for *_, incident_id in index.ahead]
    assert len(decided) == 4 and (await incident_ids(db))[1:] == [None] * 4
    await send(client, apart(2))  # they come behind
    await link_all(db, indexes)
    assert (await incident_ids(db))[1:5] == decided
    assert indexes.by_operation["standing"] is index and not index.ahead
    assert index.linker.snapshot() == await fresh_snapshot(db)


@pytest.mark.parametrize("what", ["a correction", "another linker", "a place"])
async def test_decisions_that_were_cut_off_are_not_kept_where_something_came_between(client, db, what):
    indexes = Indexes()
    await send(client, [FLOOD])
    await link_all(db, indexes)
    [first] = await incident_ids(db)
    [sent, *_] = await send(client, [FLOOD, *apart(3)])
    await cut_off(db, indexes)
    if what == "a correction":
        await client.post(f"/v1/incidents/{first}/close", json={"reason": "over"}, headers=bearer("operator"))
    elif what == "another linker":
        await link_all(db, Indexes())
    else:
        place = {"location": {"lon": 100.0, "lat": 1.0}, "reason": "test"}
        await client.patch(f"/v1/reports/{sent['report_id']}", json=place, headers=bearer("operator"))
    await link_all(db, indexes)
    assert (await followed(db, indexes)).snapshot() == await fresh_snapshot(db)
    assert ((await incident_ids(db))[1] == first) == (what == "another linker")


async def test_a_batch_whose_commit_came_through_unheard_is_not_decided_again(client, db):
    indexes = Indexes()
    await send(client, [FLOOD, *apart(3)])
    await cut_off(db, indexes)
    index = indexes.by_operation["standing"]
    ahead = list(index.ahead)
    await link_all(db, indexes)
    index.followed, index.ahead = 0, ahead  # as if the answer to the commit had been lost
    await send(client, apart(2))
    await link_all(db, indexes)
    assert indexes.by_operation["standing"] is index
    assert index.linker.snapshot() == await fresh_snapshot(db)
    assert len(await emitted(db, ReportLinked)) == 6


async def test_an_index_of_the_newest_reports_holds_incidents_to_their_limits_before_and_after_a_restart(client, db):
    told = [
        {
            "text": "Banjir setinggi pinggang di gang Arus Kampung Melayu, butuh perahu karet "
            + "".join("abcdefghij"[int(digit)] for digit in f"{n:03}"),  # numbers tell places apart
            "hazard": "flood",
            "location": {"lon": 106.866 + n % 7 * 0.00005, "lat": -6.222 + n % 11 * 0.00005},
        }
        for n in range(150)
    ]
    for start in range(0, 150, 30):
        indexes = Indexes(most=60)  # the worker starts anew
        await send(client, [*apart(20), *told[start : start + 30]])
        await link_all(db, indexes)
        assert len(indexes.by_operation["standing"].linker.snapshot()["copies"]) <= 60
    sizes = Counter(await incident_ids(db))
    assert max(sizes.values()) == 60, sizes
    last = (await incident_ids(db))[-1]
    await client.post(f"/v1/incidents/{last}/close", json={"reason": "over"}, headers=bearer("operator"))
    await send(client, [told[-1] | {"text": told[-1]["text"] + "a"}])
    await link_all(db, Indexes(most=60))
    assert (await incident_ids(db))[-1] != last


async def test_what_happens_to_reports_that_are_no_longer_indexed_is_followed(client, db):
    indexes = Indexes(most=5)
    await send(client, [FLOOD, FLOOD | {"text": "Kampung Melayu banjir, perahu dibutuhkan"}, *apart(20)])
    await link_all(db, indexes)
    async with db.tx() as tx:
        reports = [row["report_id"] for row in await tx.fetch("SELECT report_id FROM report ORDER BY seq")]
    flood, same, *others = await incident_ids(db)
    assert flood == same
    for path, body in (
        (f"{flood}/split", {"reports": [str(reports[1])]}),
        (f"{others[0]}/merge", {"into": str(others[1])}),
        (f"{flood}/link", {"report": str(reports[4])}),
        (f"{flood}/unlink", {"report": str(reports[4])}),
        (f"{others[-1]}/close", {}),
    ):
        answer = await client.post(f"/v1/incidents/{path}", json=body | {"reason": "test"}, headers=bearer("operator"))
        assert answer.status_code == 200, answer.text
        await link_all(db, indexes)
    assert None not in await incident_ids(db)


async def test_two_linkers_at_once_link_each_report_once(client, db):
    await send(client, [*apart(200), *[FLOOD | {"text": f"Banjir Kampung Melayu {n}"} for n in range(100)]])
    await asyncio.gather(*(link_all(db) for _ in range(4)))
    while await link_waiting(db, Indexes()):
        pass
    linked = await emitted(db, ReportLinked)
    assert len(linked) == 300 == len({event.report_id for event in linked})
    async with db.tx() as tx:
        counted = await tx.fetchval("SELECT sum(reports) FROM incident")
        assert counted == 300
        changes = await tx.fetch("SELECT report_id FROM link_change WHERE kind = 'add'")
    assert len(changes) == 300


async def test_a_burst_of_one_text_is_one_incident_and_stays_quick(client, db):
    await send(client, [FLOOD | {"external_id": str(n)} for n in range(1500)])
    begun = time.perf_counter()
    await link_all(db)
    print(f"1500 equal reports linked in {time.perf_counter() - begun:.1f} s")
    [incident] = set(await incident_ids(db))
    async with db.tx() as tx:
        row = await tx.fetchrow("SELECT * FROM incident")
    assert row is not None and row["incident_id"] == incident
    assert row["reports"] == 1500 and row["evidence"] == "reported" and len(row["newest_reports"]) == 20


async def test_the_loop_links_what_comes_and_stops_when_asked(client, db):
    stopping = asyncio.Event()
    loop = asyncio.create_task(run(db, stopping))
    try:
        for _ in range(3):
            await send(client, apart(2))
            async with asyncio.timeout(20):
                while None in await incident_ids(db):
                    await asyncio.sleep(0.02)
    finally:
        stopping.set()
    await asyncio.wait_for(loop, 5)


async def test_corrections_while_the_linker_runs_leave_every_report_in_one_incident(client, db):
    stopping = asyncio.Event()
    loop = asyncio.create_task(run(db, stopping))
    operator = bearer("operator")
    statuses: list[int] = []

    async def arrive() -> None:
        for n in range(6):
            asks = {"needs": [{"item": "boat", "quantity": n + 1}]}
            await send(
                client,
                [*apart(10), *[FLOOD | asks | {"text": f"Banjir Kampung Melayu, perahu {n} {m}"} for m in range(5)]],
            )

    async def correct() -> None:
        for n in range(12):
            listed = (await client.get("/v1/incidents?limit=50", headers=operator)).json()["features"]
            if len(listed) < 3:
                await asyncio.sleep(0.05)
                continue
            one, other = listed[n % len(listed)]["id"], listed[(n + 1) % len(listed)]["id"]
            whole = (await client.get(f"/v1/incidents/{one}", headers=operator)).json()["properties"]
            reports = [report["report_id"] for report in whole["linked_reports"]]
            path, body = (f"{one}/merge", {"into": other}) if n % 3 else (f"{one}/split", {"reports": reports[:1]})
            answer = await client.post(f"/v1/incidents/{path}", json=body | {"reason": "test"}, headers=operator)
            statuses.append(answer.status_code)

    try:
        await asyncio.gather(arrive(), correct(), correct())
        async with asyncio.timeout(60):
            while None in await incident_ids(db):
                await asyncio.sleep(0.02)
    finally:
        stopping.set()
        await asyncio.wait_for(loop, 10)
    assert 200 in statuses and set(statuses) <= {200, 404, 409, 503}
    async with db.tx() as tx:
        wrong = await tx.fetch(
            "SELECT i.incident_id, i.status, i.reports, count(r.report_id) AS held FROM incident i "
            "FULL JOIN report r USING (incident_id) GROUP BY i.incident_id "
            "HAVING i.incident_id IS NULL OR i.reports <> count(r.report_id) "
            "OR (i.status = 'merged') <> (count(r.report_id) = 0)"
        )
        doubled = await tx.fetch(
            "SELECT incident_id, item FROM need WHERE status <> 'withdrawn' GROUP BY 1, 2 HAVING count(*) > 1"
        )
        unasked = await tx.fetch(
            "SELECT n.need_id FROM need n WHERE n.status <> 'withdrawn' AND n.quantity <> (SELECT max(a.quantity) "
            "FROM need_ask a JOIN report r USING (report_id) WHERE a.need_id = n.need_id AND r.incident_id = n.incident_id)"
        )
    assert (wrong, doubled, unasked) == ([], [], [])
    fresh = (await followed(db, Indexes())).snapshot()["incidents"]
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT incident_id, array_agg(report_id) AS reports FROM report GROUP BY incident_id")
    assert {row["incident_id"]: set(row["reports"]) for row in rows} == {
        incident: set(held[0]) for incident, held in fresh.items() if held[0]
    }
