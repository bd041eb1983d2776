"""`gotong quarantine`: what was refused and why, and letting it in again, mended or as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click
import orjson

from gotong.client import Target, ask, connect, target_options


@click.group(epilog="Example: gotong quarantine list")
def quarantine() -> None:
    """What was refused, why, and letting it in again."""


@quarantine.command("list", epilog="Example: gotong quarantine list --state all --json")
@click.option(
    "--state",
    type=click.Choice(["refused", "releasing", "released", "all"]),
    default="refused",
    show_default=True,
    help="Waiting here, on its way in, let in again, or all of them.",
)
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="The newest so many.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@target_options
def list_(state: str, limit: int, as_json: bool, target: Target) -> None:
    """List what was refused, newest first, with the field and the reason."""
    with connect(target) as http:
        said = ask(http, "GET", "/v1/quarantine", params={"state": state, "limit": limit}).json()
    if as_json:
        click.echo(json.dumps(said, ensure_ascii=False))
        return
    for entry in said["quarantine"]:
        click.echo(_line(entry))
    if not said["quarantine"]:
        click.echo("Nothing is in quarantine." if state in ("refused", "all") else f"Nothing is {state}.")


@quarantine.command(epilog="Example: gotong quarantine show exchange-17")
@click.argument("id")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@target_options
def show(id: str, as_json: bool, target: Target) -> None:
    """Show one refused record: its place, its attributes, its value as it came."""
    with connect(target) as http:
        entry = ask(http, "GET", f"/v1/quarantine/{quote(id, safe='')}").json()
    if as_json:
        click.echo(json.dumps(entry, ensure_ascii=False))
        return
    click.echo(_line(entry))
    click.echo(f"{entry['topic']}, partition {entry['partition']}, offset {entry['offset']}, {entry['state']}")
    if entry.get("released_by"):
        mended = "mended" if entry["mended"] else "as it was"
        click.echo(f"Released {mended} by {entry['released_by']}: {entry['release_reason']}")
    for name, value in (entry.get("headers") or {}).items():
        click.echo(f"{name}: {value}")
    click.echo("")
    click.echo(_pretty(entry.get("value")))


@quarantine.command(
    epilog='Example: gotong quarantine release exchange-17 --file mended.json --reason "The latitude had no minus."'
)
@click.argument("id")
@click.option(
    "--file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="MENDED.json",
    help="Takes the place of the record's data. Without it the record is tried as it was.",
)
@click.option("--reason", required=True, help="Why it may come in; stands in the journal.")
@target_options
def release(id: str, file: Path | None, reason: str, target: Target) -> None:
    """Let a refused record in, mended or as it was, once. Its service takes it up within a second."""
    order: dict[str, Any] = {"reason": reason}
    if file is not None:
        try:
            order["value"] = orjson.loads(file.read_bytes())
        except orjson.JSONDecodeError as error:
            raise click.UsageError(f"{file} is no JSON ({error}); give the record's data as one JSON value.") from None
    with connect(target) as http:
        entry = ask(http, "POST", f"/v1/quarantine/{quote(id, safe='')}/release", json=order).json()
    click.echo(f"{entry['id']} is on its way in; gotong quarantine show {entry['id']} tells what became of it.")


def _line(entry: dict[str, Any]) -> str:
    where = f" at {entry['pointer']}" if entry.get("pointer") else ""
    whose = f" ({entry['source']} {entry['event_id']})" if entry.get("source") else ""
    return f"{entry['id']}  {entry['refused_at']}  {entry['reason']}{where}{whose}"


def _pretty(value: str | None) -> str:
    if value is None:
        return "(no value)"
    try:
        return json.dumps(json.loads(value), indent=2, ensure_ascii=False)
    except ValueError:
        return value
