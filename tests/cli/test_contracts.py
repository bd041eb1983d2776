"""The contracts are written out whole, and an event is judged offline as the exchange would judge it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from schemas.event import event_types


def command(*words: str | Path) -> Result:
    return CliRunner().invoke(main, ["contracts", *map(str, words)], catch_exceptions=False)


def event(data: Any, **attributes: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": "e-1",
        "source": "https://example.org/agency",
        "type": "gotong.report.submitted.v1",
        "data": data,
    } | attributes


def check(tmp_path: Path, content: str, *words: str) -> Result:
    path = tmp_path / "events"
    path.write_text(content)
    return command("check", path, *words)


GOOD = {"text": "air naik", "location": {"lon": 107.6, "lat": -6.9}, "external_id": "a"}


def test_every_contract_is_written_as_it_is_committed(tmp_path: Path) -> None:
    result = command("export", tmp_path / "contracts")
    assert result.exit_code == 0
    written = {path.name for path in (tmp_path / "contracts").iterdir()}
    assert written == {f"{name}.json" for name in event_types()} | {"asyncapi.json"}
    schema = json.loads((tmp_path / "contracts" / "gotong.report.submitted.v1.json").read_text())
    assert schema["$id"] == "urn:gotong:schema:gotong.report.submitted.v1"


@pytest.mark.parametrize(
    "content",
    [
        json.dumps(event(GOOD)),
        json.dumps(event(GOOD), indent=2),
        json.dumps([event(GOOD), event(GOOD)]),
        json.dumps(event(GOOD)) + "\n\n" + json.dumps(event(GOOD)) + "\n",
        json.dumps(GOOD),
    ],
)
def test_a_good_event_is_good_in_every_form_of_file(tmp_path: Path, content: str) -> None:
    result = check(tmp_path, content)
    assert result.exit_code == 0
    assert all(line.endswith(": ok") for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        (event(GOOD | {"location": {"lon": 190, "lat": 0}}), "/data/location/lon"),
        (event(GOOD | {"observed_at": "2026-11-24T09:10:00"}), "/data/observed_at"),
        (event(GOOD | {"location": {"admin": "3174"}}), "/data/location/admin"),
        (event(GOOD | {"reporter": {"phone": "+62 812 3456 7890"}}), "/data/reporter"),
        (event(GOOD | {"reporter_ref": "0812-3456-7890"}), "/data/reporter_ref"),
        (event(GOOD, source="/gotong/abc/intake"), "/source"),
        (event(GOOD, specversion="0.3"), "/specversion"),
        (event(GOOD, type="gotong.need.declared.v1"), "/type"),
        (event(GOOD, type="org.example.report"), "/type"),
        (event(None), "/data"),
    ],
)
def test_what_the_exchange_would_refuse_is_named_by_its_field(
    tmp_path: Path, bad: dict[str, Any], pointer: str
) -> None:
    result = check(tmp_path, json.dumps([event(GOOD), bad]), "--json")
    answer = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (answer["events"], answer["refused"]) == (2, 1)
    assert answer["results"][0]["ok"] is True
    assert answer["results"][1]["pointer"] == pointer
    assert answer["results"][1]["reason"]


def test_a_broken_line_costs_the_others_nothing(tmp_path: Path) -> None:
    result = check(tmp_path, json.dumps(event(GOOD)) + '\n{"specversion":\n' + json.dumps(event(GOOD)) + "\n")
    assert result.exit_code == 1
    good, bad, other = result.stdout.splitlines()
    assert good.endswith(": ok")
    assert other.startswith("line 3") and other.endswith(": ok")
    assert "not JSON" in bad


def test_a_misspelt_field_is_pointed_out(tmp_path: Path) -> None:
    needs = [{"item": "boat", "quantity": 1, "colour": "red"}]
    result = check(tmp_path, json.dumps(event(GOOD | {"locaton": {}, "needs": needs})))
    assert result.exit_code == 0
    assert "nobody reads /locaton, /needs/0/colour" in result.stdout


def test_an_empty_file_is_a_failure_and_an_unknown_type_wrong_usage(tmp_path: Path) -> None:
    assert check(tmp_path, "").exit_code == 1
    assert check(tmp_path, json.dumps(GOOD), "--type", "org.example").exit_code == 2
