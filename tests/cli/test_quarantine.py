"""What was refused is listed, shown and let in again through the real routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from click.testing import CliRunner, Result

from gotong.__main__ import main
from services.exchange.app import service
from services.runtime import quarantine
from services.runtime.db import Database
from services.runtime.quarantine import Raw
from tests.cli.conftest import Serve

MakeDb = Callable[[str], Database]


async def refused(db: Database, value: bytes, reason: str) -> None:
    raw = Raw("gotong.partners.inbound.v1", 3, 17, b"k", (("ce_id", b"e-1"), ("ce_source", b"/partners/pmi")), value)
    async with db.tx() as tx:
        await quarantine.refuse(tx, "exchange", raw, reason, "/data/location/lat")


async def command(*words: str | Path) -> Result:
    words = ("quarantine", *map(str, words))
    return await asyncio.to_thread(lambda: CliRunner().invoke(main, list(words), catch_exceptions=False))


async def test_an_empty_quarantine_is_said_to_be_so(serve: Serve) -> None:
    result = await command("list", "--url", serve([service]))
    assert (result.exit_code, result.stdout) == (0, "Nothing is in quarantine.\n")


async def test_what_was_refused_is_listed_with_its_reason_and_shown_with_its_value(
    serve: Serve, make_db: MakeDb
) -> None:
    url = serve([service])
    await refused(make_db("exchange"), b'{"text": "air", "location": {"lat": 95}}', "the latitude is 95")
    listed = await command("list", "--url", url)
    (line,) = listed.stdout.splitlines()
    identity = line.split()[0]
    assert "the latitude is 95 at /data/location/lat (/partners/pmi e-1)" in line
    as_json = json.loads((await command("list", "--url", url, "--json")).stdout)
    assert as_json["quarantine"][0]["id"] == identity
    shown = await command("show", identity, "--url", url)
    assert "gotong.partners.inbound.v1, partition 3, offset 17, refused" in shown.stdout
    assert '"lat": 95' in shown.stdout


async def test_a_mended_record_is_released_once(serve: Serve, make_db: MakeDb, tmp_path: Path) -> None:
    url = serve([service])
    await refused(make_db("exchange"), b'{"text": "air", "location": {"lat": 95}}', "the latitude is 95")
    identity = (await command("list", "--url", url)).stdout.split()[0]
    mended = tmp_path / "mended.json"
    mended.write_text('{"text": "air", "location": {"lon": 106, "lat": -6}}')
    words = ("release", identity, "--file", mended, "--reason", "The sign was lost.", "--url", url)
    assert (await command(*words)).exit_code == 0
    shown = json.loads((await command("show", identity, "--url", url, "--json")).stdout)
    assert (shown["state"], shown["mended"], shown["release_reason"]) == ("releasing", True, "The sign was lost.")
    assert json.loads(shown["value"])["location"]["lat"] == -6
    again = await command(*words)
    assert again.exit_code == 1
    assert "released before" in again.stderr


async def test_an_id_that_there_is_not_and_a_file_that_is_no_json_are_told_plainly(
    serve: Serve, tmp_path: Path
) -> None:
    url = serve([service])
    missing = await command("show", "exchange-999", "--url", url)
    assert missing.exit_code == 1
    assert "exchange-999" in missing.stderr
    (tmp_path / "mended.json").write_text("{")
    wrong = await command("release", "exchange-1", "--file", tmp_path / "mended.json", "--reason", "abc", "--url", url)
    assert wrong.exit_code == 2
    assert "no JSON" in wrong.stderr
