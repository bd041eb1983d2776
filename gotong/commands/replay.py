"""`gotong replay`: feeds a file of reports or warnings through the public HTTP API, and never gives up on a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import click
import httpx
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from gotong import capfile, reportfile
from gotong.client import CommandFailed, Target, connect, problem, refusal, retry_after_s, target_options
from gotong.reportfile import FileFault, Notes, Reading, Row

CHUNK_ROWS = 250
CHUNK_BYTES = 512 * 1024
TICK_S = 0.25
"""With --rate or --speed, what is due within one tick goes out together."""
LONGEST_PAUSE_S = 15.0
_SAID_EVERY_S = 10.0


@click.command(
    epilog="Example: gotong replay reports.csv "
    "--columns \"id=id,time=created_at,text=text,hazard='flood',lat=lat,lon=lon\" --timezone Asia/Jakarta"
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--columns",
    metavar="FIELD=COL,…",
    help="Which column is which, or one value for all rows in single quotes: hazard='flood'. "
    f"FIELD is one of {', '.join(reportfile.FIELDS)}. Without it, columns are called as the fields are.",
)
@click.option(
    "--timezone",
    metavar="ZONE",
    help="Where the clocks of the file stand, for times that do not say it: Asia/Jakarta. A date alone is midnight "
    "there; an hour that comes twice is the first; one that clocks skip is moved on.",
)
@click.option(
    "--format",
    "wanted",
    type=click.Choice(["auto", "csv", "jsonl", "geojson", "cap"]),
    default="auto",
    show_default=True,
    help="GeoJSON properties are columns too, nested ones by dots.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Rows a second, evenly.")
@click.option(
    "--speed",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="So many times the pace of the file's own times. Reads the whole file first, to send it in their order.",
)
@click.option("--operation", metavar="ID", help="The operation that the reports belong to.")
@click.option("--source", metavar="URI", help="Who says so. Default: /files/<file name>.")
@target_options
@click.option("--json", "as_json", is_flag=True, help="The last line is one JSON object.")
def replay(
    file: Path,
    columns: str | None,
    timezone: str | None,
    wanted: str,
    rate: float | None,
    speed: float | None,
    operation: str | None,
    source: str | None,
    target: Target,
    as_json: bool,
) -> None:
    """Feed FILE, a file of reports or of CAP messages, through the public HTTP API.

    A row that cannot be taken is listed with its line and its reason and stops nothing. While the server is away,
    replay waits and sends the same rows again. Rows keep their ids, so running it again makes no second report.
    """
    if rate and speed:
        raise click.UsageError("--rate and --speed exclude each other; give one.")
    try:
        format = reportfile.format_of(file, wanted)
        named, constants = reportfile.parse_columns(columns) if columns else ({}, {})
        reading = Reading(source or f"/files/{file.name}", named, constants, _zone(timezone), operation)
        notes = Notes()
        rows = capfile.read_rows(file) if format == "cap" else reportfile.read_rows(file, format, reading, notes)
    except FileFault as fault:
        raise click.UsageError(str(fault)) from None
    for hint in notes.hints:
        click.echo(hint, err=True)
    notes.hints.clear()
    if speed:
        rows = iter(sorted(rows, key=lambda row: row.at.timestamp() if row.at else float("-inf")))
    tally = Tally()
    with ExitStack() as stack:
        http = stack.enter_context(connect(target))
        display = stack.enter_context(Display(file, format))
        sender = Sender(http, tally, display.say)
        try:
            if format == "cap":
                _send_warnings(rows, sender, operation, rate)
            else:
                for chunk in paced(rows, rate, speed, sender):
                    sender.send(chunk)
                    display.show(tally)
        except (CommandFailed, KeyboardInterrupt) as error:
            display.close()
            _report(tally, notes, as_json)
            reason = error.message if isinstance(error, CommandFailed) else "Stopped by Ctrl-C."
            raise CommandFailed(
                f"{reason} {tally.taken} rows are in, up to line {sender.last_line}; run the same command again to go "
                "on: what is in is not taken twice."
            ) from None
    _report(tally, notes, as_json)
    if tally.rejections and not tally.taken:
        raise CommandFailed("Not one row was taken; the first reason stands above.")


def _zone(name: str | None) -> ZoneInfo | None:
    try:
        return ZoneInfo(name) if name else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise click.UsageError(f"There is no time zone {name}; give one such as Asia/Jakarta.") from None


@dataclass(slots=True)
class Tally:
    """What became of the rows so far. `repeated`: the same source and id had been taken before this sending."""

    started_at: float = field(default_factory=time.monotonic)
    accepted: int = 0
    repeated: int = 0
    rejections: list[tuple[int, str]] = field(default_factory=list)

    @property
    def taken(self) -> int:
        return self.accepted + self.repeated

    @property
    def read(self) -> int:
        return self.taken + len(self.rejections)

    def reject(self, line: int, reason: str) -> None:
        self.rejections.append((line, reason))

    def to_dict(self) -> dict[str, Any]:
        return {
            "read": self.read,
            "accepted": self.accepted,
            "rejected": len(self.rejections),
            "repeated": self.repeated,
            "seconds": round(time.monotonic() - self.started_at, 3),
            "rejections": [{"line": line, "reason": reason} for line, reason in sorted(self.rejections)],
        }


def _report(tally: Tally, notes: Notes, as_json: bool) -> None:
    for sentence in notes.sentences():
        click.echo(sentence, err=True)
    answer = tally.to_dict()
    if as_json:
        click.echo(json.dumps(answer, ensure_ascii=False))
        return
    for rejection in answer["rejections"][:10]:
        click.echo(f"line {rejection['line']}: {rejection['reason']}", err=True)
    if len(tally.rejections) > 10:
        click.echo(f"… and {len(tally.rejections) - 10} more; --json lists them all.", err=True)
    click.echo(
        f"{answer['read']} read, {answer['accepted']} accepted, {answer['rejected']} rejected, "
        f"{answer['repeated']} repeated in {answer['seconds']:.1f} s"
    )


# Pace


def paced(rows: Iterator[Row], rate: float | None, speed: float | None, sender: Sender) -> Iterator[list[Row]]:
    """Rows in chunks, each when it is due. What cannot be read goes to the tally at once.

    Time that was lost to a slow or absent server is not made up for: the pace goes on from where it stands.
    """
    most = min(CHUNK_ROWS, max(1, int(rate * TICK_S))) if rate else CHUNK_ROWS
    chunk: list[Row] = []
    size = 0
    due = time.monotonic()
    begun: tuple[float, datetime] | None = None
    for row in rows:
        if row.body is None:
            sender.tally.reject(row.line, row.reason or "it cannot be read")
            continue
        length = len(orjson.dumps(row.body))
        if speed and row.at:
            if begun is None:
                begun = (due, row.at)
            at = begun[0] + (row.at - begun[1]).total_seconds() / speed
            if at > due + TICK_S:
                if chunk:
                    yield chunk
                    chunk, size = [], 0
                sender.wait_until(at)
                late = time.monotonic() - at
                if late > 1:
                    begun = (begun[0] + late, begun[1])
                due = time.monotonic()
        if chunk and (len(chunk) >= most or size + length > CHUNK_BYTES):
            yield chunk
            if rate:
                due = max(due + len(chunk) / rate, time.monotonic() - 1)
                sender.wait_until(due)
            chunk, size = [], 0
        chunk.append(row)
        size += length
    if chunk:
        yield chunk


# Sending


class Sender:
    """Sends chunks until they are answered. `say` tells people what it waits for; None that the wait is over."""

    def __init__(self, http: httpx.Client, tally: Tally, say: Callable[[str | None], None]) -> None:
        self.http = http
        self.tally = tally
        self.say = say
        self.last_line = 0
        self._run = uuid4().hex
        self._sent = 0

    def wait_until(self, due: float) -> None:
        remaining = due - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)

    def send(self, rows: list[Row]) -> None:
        """Send these rows and count what became of each.

        Raises
        ------
        CommandFailed
            The server does not want any of it: no permission, or it is no Gotong.
        """
        answer = self.post(
            "/v1/reports:batch", orjson.dumps([row.body for row in rows]), {"Content-Type": "application/json"}
        )
        if answer.status_code in (400, 413, 422):
            # One row spoils it for all, or it is too much at once: halves find the row.
            if len(rows) > 1:
                middle = len(rows) // 2
                self.send(rows[:middle])
                self.send(rows[middle:])
            else:
                self.tally.reject(rows[0].line, problem(answer))
                self.last_line = max(self.last_line, rows[0].line)
            return
        if not answer.is_success:
            raise CommandFailed(_no(answer))
        for row, result in zip(rows, _results(answer, len(rows)), strict=True):
            if result.get("error"):
                self.tally.reject(row.line, _said(result["error"]))
            elif result.get("repeated"):
                self.tally.repeated += 1
            else:
                self.tally.accepted += 1
        self.last_line = max(self.last_line, *(row.line for row in rows))

    def post(self, path: str, content: bytes, headers: dict[str, str], **more: Any) -> httpx.Response:
        """Send one request, again and again until it is answered.

        Its Idempotency-Key stays the same: when only the answer was lost, the first one comes again, so that rows
        which this sending took are not told as repeats.
        """
        self._sent += 1
        headers = headers | {"Idempotency-Key": f'"replay-{self._run}-{self._sent}"'}
        pause_s = 0.25
        while True:
            wait_s: float | None = None
            try:
                answer = self.http.post(path, content=content, headers=headers, **more)
            except httpx.TransportError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    raise CommandFailed(
                        f"The certificate of {self.http.base_url} cannot be trusted ({error}); correct --url."
                    ) from None
                reason = "does not answer"
            else:
                wait_s = retry_after_s(answer)
                # 409 to a key that nobody else has: the server is still at work on our first sending.
                busy = answer.status_code in (409, 425) or (answer.status_code == 404 and wait_s is not None)
                if answer.status_code == 429:
                    reason = "asks to go slower"
                elif answer.status_code >= 500:
                    reason = f"is not well ({answer.status_code} {problem(answer)[:100]})"
                elif busy:
                    reason = f"asks to try again ({problem(answer)[:100]})"
                else:
                    self.say(None)
                    return answer
            wait_s = pause_s if wait_s is None else max(wait_s, 0.1)
            self.say(f"{str(self.http.base_url).rstrip('/')} {reason}; trying again in {wait_s:.1f} s")
            time.sleep(wait_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _results(answer: httpx.Response, rows: int) -> list[dict[str, Any]]:
    """One result for each row, in order, whatever order the answer has them in."""
    try:
        found = {int(result["index"]): result for result in answer.json()["results"]}
        return [found[index] for index in range(rows)]
    except (ValueError, KeyError, TypeError):
        raise CommandFailed(
            f"{answer.request.url} does not answer as Gotong does; name another server with --url."
        ) from None


def _said(error: Any) -> str:
    """A row's fault in words; it comes as text, as a problem document, or as one of its errors."""
    if not isinstance(error, dict):
        return str(error)
    detail = str(error.get("detail") or error.get("title") or error.get("reason") or error)
    pointer = error.get("pointer")
    return f"{pointer}: {detail}" if pointer and not detail.startswith(str(pointer)) else detail


def _no(answer: httpx.Response) -> str:
    if answer.status_code in (404, 405):
        return f"There is no {answer.request.url} ({answer.status_code}); name another server with --url."
    return refusal(answer)


def _send_warnings(rows: Iterator[Row], sender: Sender, operation: str | None, rate: float | None) -> None:
    """Each CAP message by itself: a warning has no batch."""
    due = time.monotonic()
    for row in rows:
        if row.body is None:
            sender.tally.reject(row.line, row.reason or "it cannot be read")
            continue
        if rate:
            sender.wait_until(due)
            due = max(due, time.monotonic() - 1) + 1 / rate
        answer = sender.post(
            "/v1/warnings",
            row.body["cap"],
            {"Content-Type": "application/cap+xml"},
            params={"operation": operation} if operation else None,
        )
        if answer.status_code in (404, 405):
            raise CommandFailed(f"The server at {sender.http.base_url} takes no CAP warnings yet.")
        if answer.status_code in (400, 413, 422):
            sender.tally.reject(row.line, problem(answer))
        elif not answer.is_success:
            raise CommandFailed(refusal(answer))
        elif _is_repeat(answer):
            sender.tally.repeated += 1
        else:
            sender.tally.accepted += 1
        sender.last_line = row.line


def _is_repeat(answer: httpx.Response) -> bool:
    try:
        said = answer.json()
    except ValueError:
        return False
    return isinstance(said, dict) and bool(said.get("repeated"))


# Showing


class Display:
    """How far it is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, file: Path, format: str) -> None:
        self.total = _rows_roughly(file) if format in ("csv", "jsonl") else None
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._said_at = time.monotonic()
        self._waiting: str | None = None
        if sys.stderr.isatty():
            self._progress = Progress(
                TextColumn(file.name, markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )

    def __enter__(self) -> Display:
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task("", total=self.total)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def show(self, tally: Tally) -> None:
        if self._progress and self._task is not None:
            # Lines were counted, not rows: a text over several lines makes the guess too high, never too low.
            self._progress.update(self._task, completed=tally.read)
        elif time.monotonic() - self._said_at > _SAID_EVERY_S:
            self._said_at = time.monotonic()
            click.echo(f"{tally.read} rows sent", err=True)

    def say(self, text: str | None) -> None:
        if self._progress and self._task is not None:
            self._progress.update(self._task, description=text or "")
        elif text and (self._waiting is None or time.monotonic() - self._said_at > _SAID_EVERY_S):
            self._said_at = time.monotonic()
            click.echo(text, err=True)
        elif text is None and self._waiting:
            click.echo("The server answers again.", err=True)
        self._waiting = text


def _rows_roughly(file: Path) -> int:
    lines = 0
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            lines += block.count(b"\n")
    return max(lines, 1)
