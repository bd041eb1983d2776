"""The main job from end to end, as users and partners see it: reports, needs, offers, assignments, situation report."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from schemas.sitreps import SitrepPublished
from schemas.topics import TOPICS
from services.runtime.cloudevents import decode
from tests.e2e.system import SERVICES, System, until

HERE = Path(__file__).parent
pytestmark = pytest.mark.timeout(420)


def near(rng: random.Random) -> dict[str, float]:
    """A place within some kilometres of Kampung Melayu."""
    return {"lon": round(106.866 + rng.uniform(-0.05, 0.05), 5), "lat": round(-6.222 + rng.uniform(-0.05, 0.05), 5)}


async def make_responders(client, rng: random.Random, number: int, skill: str) -> list[str]:
    run = uuid4().hex[:8]
    rows = [
        {
            "external_id": f"{run}-{n}", "source": f"/test/{run}", "kind": "person", "name": f"Relawan {n}",
            "phone": f"+62812{rng.randrange(10**7, 10**8)}", "location": near(rng),
            "skills": [{"skill": skill, "level": 2}], "languages": ["id"], "travel_limit_km": 40,
        }
        for n in range(number)
    ]  # fmt: skip
    answer = await client.post("/v1/responders:batch", json=rows)
    assert answer.status_code == 207, answer.text
    assert answer.json()["accepted"] == number, answer.text
    return [row["responder_id"] for row in answer.json()["results"]]


async def make_operation(client) -> str:
    name = f"uji-{uuid4().hex[:8]}"
    answer = await client.post(
        "/v1/operations",
        json={"id": name, "title": "Banjir uji", "hazards": ["flood"], "areas": ["kemendagri:31"],
              "timezone": "Asia/Jakarta", "status": {"declared": "tanggap_darurat", "level": "provinsi"}},
    )  # fmt: skip
    assert answer.status_code in (200, 201), answer.text
    return name


async def post_known(client, path: str, body: dict):
    """Post what names a thing that another service has just made: 404 with Retry-After means a moment more."""

    async def once():
        answer = await client.post(path, json=body)
        return None if answer.status_code == 404 and "retry-after" in answer.headers else answer

    return await until(once, 60)


async def make_need(client, operation: str, skill: str, quantity: int, rng: random.Random, **changes) -> str:
    body = {
        "skill": skill,
        "quantity": quantity,
        "location": near(rng),
        "severity": 3,
        "operation": operation,
    } | changes
    answer = await post_known(client, "/v1/needs", body)
    assert answer.status_code == 201, answer.text
    need = answer.json()
    return need["need_id"]


async def test_needs_become_offers_assignments_and_a_report(system: System):
    rng = random.Random(7)
    async with system.client("admin") as admin, system.reading("gotong.offers.v1") as offers_topic:
        operation = await make_operation(admin)
        responders = await make_responders(admin, rng, 200, "boat_operator")
        needs = [await make_need(admin, operation, "boat_operator", rng.choice([1, 2, 3]), rng) for _ in range(50)]

        offered: dict[str, list[dict]] = defaultdict(list)

        async def all_offered() -> bool:
            for records in (await offers_topic.getmany(timeout_ms=200)).values():
                for r in records:
                    envelope = decode(r.value, r.headers, topic=r.topic, key=r.key)
                    data = json.loads(envelope.data)
                    if envelope.meta.type == "gotong.offer.made.v1" and data["need_id"] in needs:
                        assert data["responder_id"] in responders
                        offered[data["need_id"]].append(data)
            return len(offered) == len(needs)

        await until(all_offered, 90, system.tail)

        need = needs[0]
        offer = offered[need][0]
        accepted = await admin.post(f"/v1/offers/{offer['offer_id']}/accept", json={"quantity": 1})
        assert accepted.status_code == 200, accepted.text
        again = await admin.post(f"/v1/offers/{offer['offer_id']}/accept", json={"quantity": 1})
        assert (again.status_code, again.text) == (200, accepted.text)
        assert (await admin.post(f"/v1/offers/{uuid4()}/accept")).status_code == 404

        async def ledger_moved() -> dict | None:
            row = (await admin.get(f"/v1/needs/{need}")).json()["ledger"]
            parts = ("open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled")
            assert row["needed"] == sum(row[part] for part in parts)
            return row if row["committed"] == 1 else None

        await until(ledger_moved, 90, system.tail)

        too_many = await admin.post(f"/v1/offers/{offered[needs[1]][0]['offer_id']}/accept", json={"quantity": 9})
        assert too_many.status_code == 409, too_many.text

        async def in_report() -> dict | None:
            answer = await admin.get("/v1/sitreps", params={"operation": operation, "format": "json"})
            if answer.status_code != 200:  # the operation may not have reached the log yet
                return None
            rows = [row for row in answer.json()["needs"] if row.get("skill") == "boat_operator"]
            return rows[0] if rows and rows[0]["committed"] == 1 and rows[0]["needed"] else None

        await until(in_report, 90, system.tail)
        text = await admin.get("/v1/sitreps", params={"operation": operation, "format": "md", "lang": "id"})
        assert text.status_code == 200
        assert "WIB" in text.text


async def test_the_last_unit_goes_to_exactly_one(system: System):
    rng = random.Random(11)
    async with system.client("admin") as admin:
        operation = await make_operation(admin)
        responders = await make_responders(admin, rng, 20, "medic")
        need = await make_need(admin, operation, "medic", 1, rng, severity=4)

        async def open_offer() -> dict | None:
            found = (await admin.get("/v1/offers", params={"need": need, "state": "made"})).json()["offers"]
            return found[0] if found else None

        offer = await until(open_offer, 90, system.tail)
        by_hand = [
            admin.post(
                "/v1/assignments", json={"need": need, "responder": responder, "quantity": 1, "reason": "terdekat"}
            )
            for responder in responders
        ]
        answers = await asyncio.gather(
            admin.post(f"/v1/offers/{offer['offer_id']}/accept", json={"quantity": 1}), *by_hand
        )
        counts = Counter(answer.status_code for answer in answers)
        assert sum(n for code, n in counts.items() if code in (200, 201)) == 1, counts
        assert counts[409] == 20, counts
        assert {answer.json()["code"] for answer in answers if answer.status_code == 409} <= {
            "need-met", "busy", "offer-expired", "offer-withdrawn", "conflict",
        }  # fmt: skip
        rows = await system.rows("SELECT count(*) AS n FROM matching.assignment WHERE need_id = $1", _uuid(need))
        assert rows[0]["n"] == 1


def _uuid(text: str):
    from uuid import UUID

    return UUID(text)


async def test_a_delivery_runs_to_its_confirmed_end(system: System):
    rng = random.Random(13)
    async with system.client("admin") as admin:
        operation = await make_operation(admin)
        run = uuid4().hex[:8]
        lot = await admin.post(
            "/v1/resources",
            json={"external_id": run, "source": "/test", "kind": "stock", "item": "blanket", "quantity": 500,
                  "location": near(rng), "delivery_limit_km": 200},
        )  # fmt: skip
        assert lot.status_code in (200, 201), lot.text
        body = {"item": "blanket", "quantity": 120, "location": near(rng), "severity": 2, "operation": operation}
        need = (await post_known(admin, "/v1/needs", body)).json()["need_id"]

        async def open_offer() -> dict | None:
            found = (await admin.get("/v1/offers", params={"need": need, "state": "made"})).json()["offers"]
            return found[0] if found else None

        offer = await until(open_offer, 90, system.tail)
        for step in ("accept", "start", "arrive", "complete"):
            answer = await admin.post(f"/v1/offers/{offer['offer_id']}/{step}")
            assert answer.status_code == 200, (step, answer.text)

        async def delivered() -> bool:
            return (await admin.get(f"/v1/needs/{need}")).json()["ledger"]["delivered"] == 120

        await until(delivered, 90, system.tail)
        confirmed = await post_known(
            admin, f"/v1/needs/{need}/confirm", {"received": "yes", "reason": "dilihat petugas"}
        )
        assert confirmed.status_code == 200, confirmed.text

        async def at_the_end() -> bool:
            row = (await admin.get(f"/v1/needs/{need}")).json()["ledger"]
            return row["confirmed"] == 120 and row["open"] == 0

        await until(at_the_end, 90, system.tail)


async def test_a_partner_publishes_with_any_kafka_client(system: System):
    async with system.client("operator") as operator:
        before = (await operator.get("/v1/sitreps", params={"format": "json"})).json()["totals"]["reports"]
        run = uuid4().hex[:8]
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(HERE / "partner_script.py"), system.state["kafka"], run, "1000"],
            capture_output=True, text=True, check=False, cwd=system.data,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        sent = json.loads(done.stdout)
        assert sent["good"] == 950
        assert sent["wrong"] == 50

        async def counted() -> bool:
            totals = (await operator.get("/v1/sitreps", params={"format": "json"})).json()["totals"]
            return totals["reports"] - before == 950

        await until(counted, 90, system.tail)

        async def refused() -> list | None:
            found = (await operator.get("/v1/quarantine", params={"limit": 1000})).json()["quarantine"]
            mine = [entry for entry in found if (entry["source"] or "").endswith(run)]
            return mine if len(mine) == 50 else None

        mine = await until(refused, 90, system.tail)
        assert all(entry["reason"] and entry["pointer"] for entry in mine)
        assert Counter(entry["pointer"] for entry in mine) == {
            "/data/location/lat": 10, "/data/location/admin": 10, "/data/reporter": 10, "/data/observed_at": 10, "/data": 10,
        }  # fmt: skip
        await asyncio.sleep(0)
        totals = (await operator.get("/v1/sitreps", params={"format": "json"})).json()["totals"]
        assert totals["reports"] - before == 950


async def test_personal_data_stays_home(system: System):
    number, spaced, mail, nik, name = (
        "+6281298765432",
        "0812 9876 5432",
        "ibu.ani@contoh.id",
        "3174056712890001",
        "Aniwati",
    )
    text = f"Tolong, hubungi {spaced} atau {mail}. NIK {nik}, saya {name}, air sedada di RT 05/RW 03"
    async with system.client() as public, system.client("operator") as operator:
        answer = await public.post(
            "/v1/reports",
            json={"text": text, "hazard": "flood", "location": {"lon": 106.85, "lat": -6.2, "place": "Bidara Cina"},
                  "reporter": {"name": name, "phone": number, "kind": "citizen"}},
            headers={"Gotong-Device": uuid4().hex},
        )  # fmt: skip
        assert answer.status_code == 202, answer.text
        report, ticket = answer.json()["report_id"], answer.json()["ticket"]
        await system.settled()
        status = await public.get(f"/v1/tickets/{ticket}")
        assert status.json()["status"] in ("received", "linked", "verified")
        incident = status.json()["incident"]["id"]
        answers = [status.text, answer.text]
        for client in (public, operator):
            for path in (
                f"/v1/incidents/{incident}", "/v1/incidents", "/v1/sitreps?format=json", "/v1/sitreps?format=md",
                "/v1/reports", f"/v1/reports?incident={incident}", "/v1/needs",
            ):  # fmt: skip
                answers.append((await client.get(path)).text)
    secrets = (number, number[1:], "81298765432", spaced, "9876 5432", mail, nik, name)
    events = await system.everything_on(*TOPICS)
    assert any(envelope.meta.subject == report for envelope in events)
    rows = []
    for service in SERVICES:
        rows += await system.rows(f'SELECT payload FROM "{service}".journal')
    places = {
        "answers": "\n".join(answers),
        "topics": "\n".join(envelope.data.decode() + str(envelope.meta) + envelope.key for envelope in events),
        "journals": "\n".join(bytes(row["payload"]).decode() for row in rows),
        "log": system.log.read_text(errors="replace"),
    }
    found = [(where, secret) for where, content in places.items() for secret in secrets if secret in content]
    assert found == []
    assert "RT 05/RW 03" in places["topics"]


async def test_the_audit_passes_and_the_chain_is_whole(system: System):
    await system.settled()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gotong", "audit", "verify", "--data", str(system.data / "data")],
        capture_output=True, text=True, check=False, cwd=system.data,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for service in SERVICES:
        assert service in done.stdout


async def test_each_accepted_id_is_once_in_every_place_and_each_key_in_order(system: System):
    await system.settled()
    events = await system.everything_on(*(name for name in TOPICS if name != "gotong.partners.inbound.v1"))
    sequences: dict[tuple[str, str], list[int]] = defaultdict(list)
    seen: set[str] = set()
    for envelope in events:
        if envelope.meta.id not in seen:
            seen.add(envelope.meta.id)
            sequences[envelope.topic, envelope.meta.subject].append(envelope.meta.sequence)
    broken = {subject: found for subject, found in sequences.items() if found != list(range(1, len(found) + 1))}
    assert broken == {}
    log = {row["id"] for row in await system.rows("SELECT id::text FROM sitrep.log")}
    read = {name for name, entry in TOPICS.items() if "sitrep" in entry.readers}
    # Its own reports say nothing that the log does not hold already.
    assert {e.meta.id for e in events if e.topic in read and e.meta.type != SitrepPublished.type} <= log


async def test_health_and_contracts_are_served(system: System):
    async with system.client() as public:
        health = (await public.get("/v1/health")).json()
        assert set(health["services"]) == set(SERVICES)
        assert all({"status", "lag", "unpublished"} <= set(entry) for entry in health["services"].values())
        assert (await public.get("/openapi.json")).json()["openapi"].startswith("3.")
        assert (await public.get("/asyncapi.json")).json()["asyncapi"].startswith("3.")
        schema = (await public.get("/schemas/gotong.need.declared.v1.json")).json()
        assert schema["properties"]["quantity"]
        assert (await public.get("/v1/quarantine")).status_code == 401


async def test_as_of_gives_the_report_of_that_moment(system: System):
    async with system.client("operator") as operator:
        await system.settled()
        now = await operator.get("/v1/sitreps", params={"format": "json"})
        instant = datetime.now(UTC)
        await operator.post("/v1/reports", json={"text": "Air naik lagi", "hazard": "flood",
                                                 "location": {"lon": 106.9, "lat": -6.3}})  # fmt: skip
        await system.settled()
        later = await operator.get("/v1/sitreps", params={"format": "json"})
        assert later.json()["totals"]["reports"] == now.json()["totals"]["reports"] + 1
        then = await operator.get("/v1/sitreps", params={"format": "json", "as_of": instant.isoformat()})
        assert then.json()["totals"] == now.json()["totals"]
        assert then.json()["position"] == now.json()["position"]
        ahead = await operator.get(
            "/v1/sitreps", params={"format": "json", "as_of": (instant + timedelta(days=400)).isoformat()}
        )
        assert ahead.status_code in (200, 422)
