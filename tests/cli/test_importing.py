"""Files of volunteers and stock: each row once, bad ones in a file that is mended and sent again."""

from __future__ import annotations

import asyncio
import csv
import stat
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from services.registry.app import service
from services.runtime.db import Database
from tests.conftest import bearer


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


async def run(*words: str | Path, url: str) -> Result:
    token = bearer("operator", "posko")["Authorization"].removeprefix("Bearer ")

    def invoke() -> Result:
        return CliRunner().invoke(main, ["import", *map(str, words), "--url", url, "--token", token])

    return await asyncio.to_thread(invoke)


async def count(db: Database, sql: str) -> int:
    async with db.tx() as tx:
        return int(await tx.fetchval(sql))


def workbook(path: Path, rows: list[list[str | float]]) -> None:
    """A small XLSX as spreadsheets write it: shared strings, numbers as numbers."""
    strings: list[str] = []
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for column, value in enumerate(row):
            place = f"{chr(65 + column)}{number}"
            if isinstance(value, str):
                strings.append(value)
                cells.append(f'<c r="{place}" t="s"><v>{len(strings) - 1}</v></c>')
            else:
                cells.append(f'<c r="{place}"><v>{value!r}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    name = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/sharedStrings.xml", f"<sst {name}>{''.join(f'<si><t>{s}</t></si>' for s in strings)}</sst>")
        book.writestr(
            "xl/worksheets/sheet1.xml", f"<worksheet {name}><sheetData>{''.join(lines)}</sheetData></worksheet>"
        )


async def test_volunteers_come_in_once_and_bad_rows_are_mended_and_sent_again(serve, db, tmp_path):
    url = serve([service])
    file = tmp_path / "relawan.csv"
    file.write_text(
        "Nama;No HP;Keahlian;Lintang;Bujur;Nomor Anggota\n"
        "Siti;0813-9876-5432;juru masak|perawat;-6,99;107,63;A-1\n"
        "Budi;tidak punya;pengemudi;-6.98;107.6;A-2\n"
        "Sari;081311112222;pengemudi;-6.98;;A-3\n",
        encoding="utf-8",
    )
    result = await run("volunteers", file, url=url)
    assert result.exit_code == 1
    assert "1 taken, 0 were there already, 2 refused" in result.output
    errors = tmp_path / "relawan.csv.errors.csv"
    assert stat.S_IMODE(errors.stat().st_mode) == 0o600
    rows = list(csv.DictReader(errors.read_text("utf-8-sig").splitlines()))
    assert [(row["gotong_line"], row["Nama"]) for row in rows] == [("3", "Budi"), ("4", "Sari")]
    assert "phone" in rows[0]["gotong_error"]
    assert "go together" in rows[1]["gotong_error"]
    mended = (
        errors.read_text("utf-8-sig").replace("tidak punya", "081322223333").replace("-6.98,,A-3", "-6.98,107.6,A-3")
    )
    errors.write_text(mended, encoding="utf-8-sig")
    result = await run("volunteers", errors, url=url)
    assert (result.exit_code, "2 taken" in result.output) == (0, True), result.output
    for again in (file, errors):
        await run("volunteers", again, url=url)
    assert await count(db, "SELECT count(*) FROM responder WHERE status = 'confirmed'") == 3


async def test_stock_comes_from_a_workbook_and_a_second_import_adds_nothing(serve, db, tmp_path):
    url = serve([service])
    file = tmp_path / "stok.xlsx"
    workbook(
        file,
        [
            ["Barang", "Jumlah", "Satuan", "Lat", "Lon", "Gudang"],
            ["beras", 2.0, "tonne", -7.03, 107.52, "Gudang Soreang"],
            ["selimut", 120.0, "", -7.03, 107.52, "Gudang Soreang"],
            ["selimut", 0.5, "", -7.03, 107.52, "Gudang Soreang"],
        ],
    )
    for taken, there in ((2, 0), (0, 2)):
        result = await run("stock", file, url=url)
        assert f"{taken} taken, {there} were there already, 1 refused" in result.output
    assert await count(db, "SELECT quantity FROM lot WHERE item = 'rice'") == 2000
    assert await count(db, "SELECT count(*) FROM lot") == 2


async def test_a_file_without_the_columns_that_are_needed_is_wrong_usage(serve, tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    url = serve([service])
    result = await run("volunteers", file, url=url)
    assert (result.exit_code, "--columns phone=" in result.output) == (2, True)
    broken = tmp_path / "x.xlsx"
    broken.write_bytes(b"PK no workbook")
    assert (await run("stock", broken, url=url)).exit_code == 2
