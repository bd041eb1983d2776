"""The situation report comes out as the service gives it, and a refusal is one sentence."""

from __future__ import annotations

import asyncio
import json

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from services.sitrep.app import service
from tests.cli.conftest import Serve


async def sitrep(*words: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(main, ["sitrep", *words], catch_exceptions=False))


async def test_the_report_is_printed_in_the_language_and_format_asked_for(serve: Serve) -> None:
    url = serve([service])
    indonesian = await sitrep("--url", url)
    english = await sitrep("--url", url, "--lang", "en", "--operation", "standing")
    assert indonesian.exit_code == english.exit_code == 0
    assert indonesian.stdout.startswith("# ")
    assert indonesian.stdout != english.stdout
    document = json.loads((await sitrep("--url", url, "--format", "json")).stdout)
    assert {"operation", "area", "as_of", "position", "totals", "needs"} <= set(document)


async def test_an_operation_that_there_is_not_is_told_in_one_sentence(serve: Serve) -> None:
    result = await sitrep("--url", serve([service]), "--operation", "no-such-operation")
    assert (result.exit_code, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "no-such-operation" in result.stderr


async def test_a_server_that_is_not_there_is_told_in_one_sentence() -> None:
    result = await sitrep("--url", "http://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "gotong up" in result.stderr


@pytest.mark.parametrize("time", ["yesterday", "2026-11-24T18:00:00"])
async def test_a_time_without_a_zone_is_wrong_usage(time: str) -> None:
    assert (await sitrep("--as-of", time)).exit_code == 2
