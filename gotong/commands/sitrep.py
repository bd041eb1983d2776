"""`gotong sitrep`: prints a situation report."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from gotong.client import Target, ask, connect, target_options


@click.command(epilog="Example: gotong sitrep --operation jakarta-flood-2026 --as-of 2026-11-24T18:00+07:00 --lang en")
@click.option("--operation", metavar="ID", help="Default: all live operations, and no exercise.")
@click.option("--area", metavar="SCHEME:CODE", help="Only this area: kemendagri:31.75 or bps:3174.")
@click.option("--as-of", metavar="TIME", help="As it stood then, with a zone: 2026-11-24T18:00:00+07:00.")
@click.option("--format", "form", type=click.Choice(["md", "html", "json", "csv"]), default="md", show_default=True)
@click.option("--lang", type=click.Choice(["id", "en"]), default="id", show_default=True)
@target_options
def sitrep(operation: str | None, area: str | None, as_of: str | None, form: str, lang: str, target: Target) -> None:
    """Print a situation report."""
    if as_of is not None:
        _check_time(as_of)
    asked = {"operation": operation, "area": area, "as_of": as_of, "lang": lang, "format": form}
    with connect(target) as http:
        answer = ask(http, "GET", "/v1/sitreps", params={name: value for name, value in asked.items() if value})
    # The bytes as they came: published reports are compared by them.
    sys.stdout.buffer.write(answer.content)
    if not answer.content.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def _check_time(text: str) -> None:
    try:
        zoned = datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        zoned = False
    if not zoned:
        raise click.UsageError(f"{text} is no time with a zone; write it as 2026-11-24T18:00:00+07:00.")
