"""`GET /v1/sitreps` over HTTP."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from bench.sitrep_story import Story
from services.runtime import clock
from services.sitrep import log
from services.sitrep.app import service
from services.sitrep.handlers import consumer
from tests.conftest import Wire, bearer

OPERATOR = bearer("operator")


async def tell(make_db, seed: int = 21, count: int = 250) -> None:
    db = make_db("sitrep")
    told = list(Story(seed).events(count))
    async with db.tx() as tx:
        await log.append(tx, [each.envelope() for each in told])


async def test_an_empty_log_gives_a_report_with_nothing_in_it(make_client):
    client = make_client([service])
    answer = await client.get("/v1/sitreps", headers=OPERATOR)
    assert answer.status_code == 200
    report = answer.json()
    assert (report["position"], report["as_of"], report["totals"]["reports"]) == (0, None, 0)
    assert (await client.get("/v1/sitreps?format=md", headers=OPERATOR)).status_code == 200


async def test_the_report_has_the_fields_of_the_contract(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    answer = await client.get("/v1/sitreps?operation=banjir-jakarta", headers=OPERATOR)
    report = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert report["operation"] == "banjir-jakarta"
    assert {"operation", "area", "as_of", "position", "totals", "needs"} <= report.keys()
    totals = report["totals"]
    assert {"reports", "incidents", "incidents_open", "people", "damage"} <= totals.keys()
    assert set(totals["people"]) == {"affected", "displaced", "injured", "dead", "missing"}
    assert totals["reports"] > 0
    assert report["needs"]
    for need in report["needs"]:
        assert ("item" in need) != ("skill" in need)
        assert need["needed"] == need["committed"] + need["coming"] + need["delivered"] + need["gap"]


async def test_the_as_of_of_a_report_gives_its_bytes_again_after_more_has_come(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    for query in ("format=md", "format=md&lang=en", "format=json", "operation=latihan-citarum&format=md"):
        first = await client.get(f"/v1/sitreps?{query}", headers=OPERATOR)
        as_of = (await client.get("/v1/sitreps", headers=OPERATOR)).json()["as_of"]
        wire = Wire(consumer, make_db("sitrep"))
        await wire.deliver(Story(len(query)).incident())
        again = await client.get(f"/v1/sitreps?{query}&as_of={as_of}", headers=OPERATOR)
        assert again.content == first.content
        assert again.headers["etag"] == first.headers["etag"]
        later = await client.get(f"/v1/sitreps?{query}", headers=OPERATOR)
        assert later.content != first.content
    unchanged = await client.get("/v1/sitreps?format=json", headers=OPERATOR | {"If-None-Match": first.headers["etag"]})
    assert unchanged.status_code == 200
    tag = unchanged.headers["etag"]
    assert (await client.get("/v1/sitreps", headers=OPERATOR | {"If-None-Match": tag})).status_code == 304


async def test_any_spelling_of_one_instant_gives_one_report(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    instant = clock.now()
    answers = {
        (await client.get(f"/v1/sitreps?as_of={text}", headers=OPERATOR)).content
        for text in (
            instant.isoformat().replace("+00:00", "Z"),
            instant.isoformat(),  # the plus sign arrives as a space
            (instant + timedelta(hours=7)).isoformat().replace("+00:00", "%2B07:00"),
        )
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ("as_of=yesterday", 422, "query/as_of"),
        ("as_of=2026-11-24T09:00:00", 422, "query/as_of"),
        ("as_of=2126-11-24T09:00:00Z", 422, "query/as_of"),
        ("area=3204", 422, "query/area"),
        ("lang=jv", 422, "query/lang"),
        ("format=docx", 406, "query/format"),
    ],
)
async def test_a_wrong_question_is_told_which_field_and_why(make_client, query, status, pointer):
    answer = await make_client([service]).get(f"/v1/sitreps?{query}", headers=OPERATOR)
    assert answer.status_code == status
    assert answer.json()["errors"][0]["pointer"] == pointer


async def test_an_operation_that_nothing_spoke_of_is_not_found(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    assert (await client.get("/v1/sitreps?operation=nowhere", headers=OPERATOR)).status_code == 404
    assert (await client.get("/v1/sitreps?operation=standing", headers=OPERATOR)).status_code == 200


async def test_the_format_follows_accept(make_client):
    client = make_client([service])
    for accept, expected in (
        ("text/markdown", "text/markdown; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html,application/xhtml+xml", "text/html; charset=utf-8"),
        ("text/csv", "text/csv; charset=utf-8"),
    ):
        answer = await client.get("/v1/sitreps", headers=OPERATOR | {"Accept": accept})
        assert answer.headers["content-type"] == expected
    assert (await client.get("/v1/sitreps", headers=OPERATOR | {"Accept": "image/png"})).status_code == 406


async def test_a_token_for_one_operation_sees_that_one_alone(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    mine = bearer("operator", operations=("gempa-palu",))
    assert (await client.get("/v1/sitreps?operation=banjir-jakarta", headers=mine)).status_code == 403
    own = (await client.get("/v1/sitreps?operation=gempa-palu", headers=mine)).json()
    everything = (await client.get("/v1/sitreps", headers=mine)).json()
    assert everything["totals"] == own["totals"]


BAND = re.compile(r"0|[1-9]\d*-[1-9]\d*")


def numbers_in(value: object, path: str = "") -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [found for name, item in value.items() for found in numbers_in(item, f"{path}/{name}")]
    if isinstance(value, list):
        return [found for at, item in enumerate(value) for found in numbers_in(item, f"{path}/{at}")]
    return [(path, value)] if isinstance(value, int | float) and not isinstance(value, bool) else []


@pytest.mark.parametrize("who", [{}, bearer("responder"), bearer("field")])
async def test_the_public_is_told_bands_and_no_place_and_no_single_incident(make_db, make_client, who):
    await tell(make_db, count=120)
    client = make_client([service])
    report = (await client.get("/v1/sitreps?operation=banjir-jakarta", headers=who)).json()
    assert report["form"] == "public"
    no_count = ("/position", "/severity", "/oldest_h", "/within_h")
    exact = [(path, value) for path, value in numbers_in(report) if not path.endswith(no_count)]
    assert exact == []
    for counts in (report["totals"]["people"], report["totals"]["damage"], report["open_by_severity"]):
        assert all(BAND.fullmatch(count) for count in counts.values())
    assert "incidents" not in report
    assert "organisations" not in report
    text = (await client.get("/v1/sitreps?operation=banjir-jakarta&format=md", headers=who)).text
    assert "Kampung" not in text  # incident titles are not the public's
    body = re.sub(r"^- \*\*.*$", "", text, flags=re.M)  # the head: decree, instant, position
    body = re.sub(r"[a-z]+:[\d.]+", "", body)  # area codes
    counts = re.findall(
        r"(?<![\d.-])\d+(?:-\d+)?(?![\d.])", re.sub(r"(?<![-\d])\d (ringan|sedang|berat|mengancam)|24 jam", "", body)
    )
    assert counts
    assert [count for count in counts if not BAND.fullmatch(count)] == []


async def test_partners_and_auditors_are_told_exact_figures(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    answers = [
        (await client.get("/v1/sitreps", headers=bearer(role))).json()
        for role in ("operator", "partner", "auditor", "admin")
    ]
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["form"] == "exact"


async def test_the_markdown_has_the_headings_of_a_situation_report_in_both_languages(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    indonesian = (await client.get("/v1/sitreps?operation=latihan-citarum&format=md", headers=OPERATOR)).text
    english = (await client.get("/v1/sitreps?operation=latihan-citarum&format=md&lang=en", headers=OPERATOR)).text
    assert indonesian.startswith("# Laporan situasi: LATIHAN: Operasi")
    assert re.findall("^## (.*)$", indonesian, re.M) == [
        "Sorotan",
        "Ikhtisar operasi",
        "Dampak kemanusiaan",
        "Respons per klaster",
        "Kesenjangan dan kendala",
        "Koordinasi",
    ]
    assert re.findall("^## (.*)$", english, re.M) == [
        "Highlights",
        "Overview of operations",
        "Humanitarian impact",
        "Response by cluster",
        "Gaps and constraints",
        "Coordination",
    ]
    assert re.search(r"\*\*Per:\*\* \d+ \w+ \d{4} \d\d\.\d\d\.\d\d (WIB|WITA|WIT) \(posisi log \d+\)", indonesian)
    assert "\\<" in indonesian  # titles come from outside and are escaped
    rows = [line for line in indonesian.splitlines() if line.startswith("| Banjir")]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {7}
