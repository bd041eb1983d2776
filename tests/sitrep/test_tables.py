"""The events behind a figure, the gap table, 3W, and the archive of what was published."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from datetime import timedelta

import openpyxl
import pytest

from bench.sitrep_story import Story
from services.runtime import clock
from services.sitrep import log, sources, tally
from services.sitrep.app import service
from services.sitrep.publish import FIRST, publish_due
from services.sitrep.standards import standards
from tests.conftest import bearer

OPERATOR = bearer("operator")


async def tell(make_db, seed: int = 61, count: int = 600) -> None:
    db = make_db("sitrep")
    told = list(Story(seed).events(count))
    for at in range(0, len(told), 100):
        async with db.tx() as tx:
            await log.append(tx, [each.envelope() for each in told[at : at + 100]])


async def amounts(client, url: str) -> list[dict]:
    found = []
    while url:
        answer = await client.get(url, headers=OPERATOR)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        found += body["items"]
        url = next((link["href"] for link in body["links"] if link["rel"] == "next"), "")
    return found


@pytest.mark.parametrize("query", ["", "operation=banjir-jakarta", "area=kemendagri:32.04"])
async def test_every_figure_is_the_sum_of_the_events_that_its_link_leads_to(make_db, make_client, monkeypatch, query):
    monkeypatch.setattr(sources, "SCAN", 40)
    await tell(make_db)
    client = make_client([service])
    markdown = (await client.get(f"/v1/sitreps?{query}&format=md", headers=OPERATOR)).text
    links = [line for line in markdown.splitlines() if line.startswith("[") and "]: <" in line]
    assert len(links) > 40
    figures = {line[1 : line.index("]")]: line[line.index("<") + 1 : -1] for line in links}
    numbers = defaultdict(set)
    for figure in figures:
        for part in markdown.split(f"][{figure}]")[:-1]:
            numbers[figure].add(int(part[part.rindex("[") + 1 :].replace(".", "")))
    kinds = set()
    for figure, url in figures.items():
        if figure.split(".")[0] in kinds and len(figure) % 3:
            continue  # some of each kind: all of them would say the same
        kinds.add(figure.split(".")[0])
        found = await amounts(client, url + "&limit=50")
        assert {sum(item["amount"] for item in found)} == numbers[figure], figure
        assert all(item["event"]["position"] > 0 for item in found)
        if figure.startswith("people."):
            assert {item["evidence"] for item in found} <= {"official", "field_checked", "corroborated", "reported"}
    assert {"reports", "status", "people", "need", "assignment", "offer"} <= kinds
    assert {"heads", "said"} <= kinds or "area" in query


async def test_a_figure_that_is_none_is_refused_and_the_public_sees_no_sources(make_db, make_client):
    client = make_client([service])
    answer = await client.get("/v1/sitreps/sources?figure=love", headers=OPERATOR)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "query/figure")
    assert (await client.get("/v1/sitreps/sources?figure=people.dead")).status_code == 401
    assert (await client.get("/v1/sitreps/3w")).status_code == 401


async def test_the_gap_table_is_in_balance_and_adds_up_to_the_report(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    rows = (await client.get("/v1/sitreps/gaps?format=json&operation=banjir-jakarta", headers=OPERATOR)).json()["rows"]
    report = (await client.get("/v1/sitreps?operation=banjir-jakarta", headers=OPERATOR)).json()
    asked = [row for row in rows if row["needed"] is not None]
    assert asked
    for row in asked:
        assert row["needed"] == row["committed"] + row["coming"] + row["delivered"] + row["gap"]
    for need in report["needs"]:
        mine = [row for row in asked if row["item_code"] == (need.get("item") or need.get("skill"))]
        for amount in ("needed", "committed", "coming", "delivered", "gap"):
            assert sum(row[amount] for row in mine) == need[amount]
    public = (await client.get("/v1/sitreps/gaps?format=json&operation=banjir-jakarta")).json()["rows"]
    for row in public:
        assert row["area_code"] is None or row["area_code"].count(".") <= 1
        assert all(not isinstance(row[column], int) for column in ("needed", "gap", "people", "by_standard"))


def test_the_standards_name_edition_and_page_and_national_ones_go_first():
    sphere, ours = standards(None), standards("IDN")
    assert (sphere["water"].needed(1000), ours["water"].needed(1000)) == (15_000, 7_000)
    assert standards("IDN", "stabilised")["water"].needed(10) == 150
    assert sphere["portable_toilet"].needed(101) == 3
    assert ours["portable_toilet"].needed(101) == 6
    assert ours["blanket"] == sphere["blanket"]
    assert ours["rice"].needed(3) == 2
    assert sphere["water"].source == "Sphere 2018, Water supply 2.1, p. 105"


async def test_3w_has_its_tags_and_the_same_rows_as_csv_and_xlsx_and_adds_up_to_the_assignments(make_db, make_client):
    await tell(make_db)
    client = make_client([service])
    url = "/v1/sitreps/3w?operation=banjir-jakarta&lang=en"
    plain = (await client.get(f"{url}&format=csv", headers=OPERATOR)).text
    tagged = (await client.get(f"{url}&format=csv&hxl=true", headers=OPERATOR)).text
    heading, tags, *rows = list(csv.reader(io.StringIO(tagged)))
    assert list(csv.reader(io.StringIO(plain))) == [heading, *rows]
    assert all(tag.startswith("#") for tag in tags)
    assert {"#org+name+impl", "#sector+code", "#activity+name", "#activity+status", "#adm2+code"} <= set(tags)
    book = openpyxl.load_workbook(
        io.BytesIO((await client.get(f"{url}&format=xlsx&hxl=true", headers=OPERATOR)).content)
    )
    sheet = [["" if cell is None else str(cell) for cell in row] for row in book.active.iter_rows(values_only=True)]
    assert sheet == [heading, tags, *rows]
    found = [dict(zip(heading, row, strict=True)) for row in rows]
    assert {"planned", "ongoing"} <= {row["status"] for row in found} <= {"planned", "ongoing", "completed"}
    assert any(row["female"] and row["male"] and row["children"] for row in found)
    async with make_db("sitrep").tx() as tx:
        expected = await tx.fetchval(
            "SELECT sum(a.quantity) FROM assignment AS a WHERE a.operation = 'banjir-jakarta' "
            "AND a.until_position = 9223372036854775807 AND a.state <> 'abandoned' AND (EXISTS (SELECT 1 FROM need AS n "
            "WHERE n.need_id = a.need_id) OR EXISTS (SELECT 1 FROM ledger AS l WHERE l.need_id = a.need_id))"
        )
    assert sum(int(row["quantity"]) for row in found) == expected > 0


async def test_what_was_published_is_given_back_as_it_was(make_db, make_client):
    await tell(make_db, count=200)
    clock.shift(FIRST + timedelta(seconds=1))
    db = make_db("sitrep")
    assert await publish_due(db)
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT * FROM published ORDER BY position DESC, operation DESC")
    client = make_client([service])
    listed = (await client.get("/v1/sitreps/published?limit=2")).json()
    assert [item["operation"] for item in listed["items"]] == [row["operation"] for row in rows[:2]]
    rest = (await client.get(listed["links"][0]["href"])).json()
    assert [item["operation"] for item in rest["items"]] == [rows[2]["operation"]]
    for form, lang, column in (("md", "id", "text_id"), ("html", "en", "html_en"), ("csv", "id", "csv_id")):
        answer = await client.get(f"{listed['items'][0]['href']}?format={form}&lang={lang}")
        assert answer.content == rows[0][column]
    assert (await client.get("/v1/sitreps/published/banjir-jakarta/1")).status_code == 404


def test_a_figure_has_all_names_below_it():
    assert sources.matches(["people", "dead"], tally.name("people", "dead", "official"))
    assert not sources.matches(["people", "dead", "official"], tally.name("people", "dead"))
    assert sources.matches(["need", "item", "boat", "*", "gap"], tally.name("need", "item", "boat", "unit", "gap"))
    assert sources.matches(["heads", "age_0-4"], tally.name("heads", "age 0-4"))
