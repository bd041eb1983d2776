"""Files of every kind go into the real intake, and a second time make nothing new."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gotong.__main__ import main
from services.intake.app import service
from services.runtime.auth import sign
from services.runtime.db import Database
from tests.cli.conftest import Serve
from tests.conftest import shared_file


async def replay(*words: str | Path) -> dict[str, Any]:
    def invoke() -> dict[str, Any]:
        result = CliRunner().invoke(main, ["replay", *map(str, words), "--json"], catch_exceptions=False)
        answer: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
        assert result.exit_code == 0, result.stderr
        return answer

    return await asyncio.to_thread(invoke)


async def test_rows_become_reports_once(serve: Serve, make_db: Callable[[str], Database], tmp_path: Path) -> None:
    url = serve([service])
    path = tmp_path / "reports.csv"
    rows = [f"{n},2020-02-25T07:{n % 60:02d},air naik {n},{-6 - n / 1000},106.8,{n % 3}" for n in range(600)]
    path.write_text(
        "no,kapan,isi,lat,lon,mati\n" + "\n".join([*rows, "600,x,air,-6,106,0", "601,,air,-6,106,0"]) + "\n"
    )
    words = ("--columns", "id=no,time=kapan,text=isi,lat=lat,lon=lon,dead=mati,hazard='banjir',kind='official'")
    first = await replay(path, *words, "--timezone", "Asia/Jakarta", "--url", url)
    again = await replay(path, *words, "--timezone", "Asia/Jakarta", "--url", url)
    assert (first["read"], first["accepted"], first["repeated"], first["rejected"]) == (602, 601, 0, 1)
    assert (again["read"], again["accepted"], again["repeated"], again["rejected"]) == (602, 0, 601, 1)
    assert first["rejections"][0]["line"] == again["rejections"][0]["line"] == 602
    async with make_db("intake").tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM report") == 601


async def test_what_intake_refuses_comes_back_with_its_line(serve: Serve, tmp_path: Path) -> None:
    url = serve([service])
    path = tmp_path / "reports.csv"
    path.write_text(f"no,isi\n1,{'a' * 10_001}\n2,air\n3,\x0bair\n")
    answer = await replay(path, "--columns", "id=no,text=isi", "--url", url)
    assert (answer["accepted"], answer["rejected"]) == (2, 1)
    assert answer["rejections"][0]["line"] == 2
    assert "text" in answer["rejections"][0]["reason"]


async def test_warnings_of_an_envelope_are_taken_once(serve: Serve) -> None:
    path = shared_file("cap/google-cap-library/bushfire_valid.edxlde.xml")
    url = serve([service])
    first = await replay(path, "--format", "cap", "--url", url, "--token", sign("operator", "tester"))
    again = await replay(path, "--format", "cap", "--url", url, "--token", sign("operator", "tester"))
    assert (first["accepted"], first["repeated"], first["rejected"]) == (7, 0, 0)
    assert (again["accepted"], again["repeated"], again["rejected"]) == (0, 7, 0)


@pytest.mark.parametrize(
    ("name", "columns", "zone", "count"),
    [
        (
            "petabencana/reports_2017_02_jabodetabek.geojson",
            "id=report_id,time=created_at,text=text,title=title,hazard='flood'",
            "Asia/Jakarta",
            870,
        ),
        (
            "bnpb-floods-2020-2021/events.csv",
            "id=no,time=event_date,text=location_text,hazard='flood',admin=regency_code_bps,admin_scheme='bps',"
            "dead=dead,missing=missing,injured=injured,houses_damaged=houses_damaged",
            "Asia/Jakarta",
            1975,
        ),
    ],
)
async def test_real_files_are_taken_whole(serve: Serve, name: str, columns: str, zone: str, count: int) -> None:
    path = shared_file(name)
    answer = await replay(path, "--columns", columns, "--timezone", zone, "--url", serve([service]))
    assert (answer["accepted"], answer["rejections"]) == (count, [])
