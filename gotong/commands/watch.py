"""`gotong watch`: a board in the terminal that lives on the same stream as every operations centre."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
import httpx
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gotong.client import CommandFailed, Target, connect, problem, refusal, retry_after_s, target_options, unreachable
from schemas.vocabulary import label

HEALTH_EVERY_S = 1.0
LISTS_EVERY_S = 10.0
LONGEST_PAUSE_S = 10.0
_SILENT_S = 40  # the stream says something every 15 s, if only a comment
_FIGURES = (
    "lag",
    "unpublished",
    "quarantined",
    "reports",
    "needed",
    "committed",
    "coming",
    "delivered",
    "gap",
    "quantity",
)
_WIDE = ("detail", "incident", "what", "place", "event")
_COLOURS = {4: "bold red", 3: "red", 2: "yellow", 1: "green"}


@click.command(epilog="Example: gotong watch --operation jakarta-flood-2026")
@click.option("--operation", metavar="ID", help="Default: all live operations, and no exercise.")
@click.option("--lang", type=click.Choice(["id", "en"]), default="id", show_default=True, help="Names of needs.")
@click.option("--once", is_flag=True, help="Print the board once and end; so it is also where there is no terminal.")
@target_options
def watch(operation: str | None, lang: str, once: bool, target: Target) -> None:
    """Watch incidents, needs, offers, events and the services' lag, live in the terminal. Ctrl-C ends it."""
    console = Console(highlight=False)
    board = Board(target.url, operation, lang)
    with connect(target, timeout_s=10) as http:
        if once or not console.is_terminal:
            board.read_health(http)
            board.read_lists(http)
            console.print(drawn(board, rows=40))
            if board.trouble:
                raise CommandFailed(board.trouble)
            return
        stopping = threading.Event()
        follower = threading.Thread(target=follow, args=(target, board, stopping), daemon=True)
        follower.start()
        try:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                _keep(http, board, lambda: live.update(drawn(board, rows=console.height), refresh=True))
        except KeyboardInterrupt:
            stopping.set()


@dataclass(slots=True)
class Board:
    """What was read last. `trouble` is why something could not be read just now; what was read before stays."""

    url: str
    operation: str | None
    lang: str = "id"
    health: dict[str, Any] = field(default_factory=dict)
    incidents: list[dict[str, Any]] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    offers: list[dict[str, Any]] = field(default_factory=list)
    more_offers: bool = False
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=100))
    streaming: bool = False
    trouble: str | None = None
    changed: threading.Event = field(default_factory=threading.Event)

    def read_health(self, http: httpx.Client) -> None:
        """Ask how the services are; an answer of 503 with a body says it as well."""
        self.trouble = None
        answer = self._get(http, "/v1/health", {}, also=503)
        if answer is not None:
            self.health = answer

    def read_lists(self, http: httpx.Client) -> None:
        """Read incidents, the situation report and the offers that wait for an answer."""
        scope = {"operation": self.operation} if self.operation else {}
        found = self._get(http, "/v1/incidents", {"status": "open", "limit": 200, **scope})
        if found is not None:
            incidents = [feature["properties"] for feature in found["features"]]
            self.incidents = sorted(incidents, key=lambda one: (one.get("severity") or 0, one["updated_at"]))[::-1]
        report = self._get(http, "/v1/sitreps", {"format": "json", **scope})
        if report is not None:
            self.report = report
        offers = self._get(http, "/v1/offers", {"state": "made", "limit": 200, **scope})
        if offers is not None:
            self.offers = sorted(offers["offers"], key=lambda one: str(one.get("expires_at") or ""))
            self.more_offers = any(link["rel"] == "next" for link in offers.get("links", []))

    def _get(self, http: httpx.Client, path: str, asked: dict[str, Any], also: int = 200) -> dict[str, Any] | None:
        try:
            answer = http.get(path, params=asked)
        except httpx.TransportError as error:
            self.trouble = unreachable(http, error)
            return None
        try:
            said = answer.json() if answer.is_success or answer.status_code == also else None
        except ValueError:
            said = None
        if isinstance(said, dict):
            return said
        self.trouble = refusal(answer)
        return None


def _keep(http: httpx.Client, board: Board, show: Any) -> None:
    """Read and draw until Ctrl-C: the services each second, the lists when an event came or after a while."""
    lists_at = 0.0
    while True:
        board.read_health(http)
        if board.trouble is None and (board.changed.is_set() or time.monotonic() - lists_at > LISTS_EVERY_S):
            board.changed.clear()
            board.read_lists(http)
            lists_at = time.monotonic()
        show()
        time.sleep(HEALTH_EVERY_S)


# The stream


def follow(target: Target, board: Board, stopping: threading.Event) -> None:
    """Put every event of the stream on the board, from where it broke off when it breaks off, until `stopping`."""
    last_id: str | None = None
    pause_s = 0.5
    asked = {"operation": board.operation} if board.operation else {}
    while not stopping.is_set():
        wait_s: float | None = None
        try:
            with (
                connect(target, timeout_s=_SILENT_S) as http,
                http.stream(
                    "GET", "/v1/stream", params=asked, headers={"Last-Event-ID": last_id} if last_id else {}
                ) as answer,
            ):
                if answer.is_success:
                    board.streaming = True
                    pause_s = 0.5
                    for identity, name, data in server_sent(answer.iter_lines()):
                        last_id = identity or last_id
                        if name != "reset":
                            board.events.appendleft(json.loads(data))
                        board.changed.set()
                        if stopping.is_set():
                            return
                else:
                    answer.read()
                    board.trouble = f"The stream is refused: {problem(answer)}."
                    wait_s = retry_after_s(answer)
        except (httpx.TransportError, ValueError):
            pass  # the board says that the stream is away; the loop goes on
        board.streaming = False
        stopping.wait(pause_s if wait_s is None else wait_s)
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def server_sent(lines: Iterable[str]) -> Iterator[tuple[str | None, str, str]]:
    """Server-Sent Events as (id, event, data); comments and events without data are left out. Source: WHATWG HTML."""
    identity: str | None = None
    name, data = "message", list[str]()
    for line in lines:
        if not line:
            if data:
                yield identity, name, "\n".join(data)
            name, data = "message", []
            continue
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "id":
            identity = value
        elif key == "event":
            name = value
        elif key == "data":
            data.append(value)


# Drawing


def drawn(board: Board, rows: int) -> RenderableType:
    """The board, cut to so many rows of a screen."""
    now = datetime.now().astimezone()
    head = Text.assemble(
        ("Gotong ", "bold"),
        board.url,
        f"  {board.operation or 'all live operations'}  {now:%H:%M:%S %Z}  ",
        _said(board),
    )
    free = max(rows - len(board.health.get("services", {})) - 12, 9)
    parts: list[RenderableType] = [
        head,
        Text(_totals(board)),
        _services(board),
        _incidents(board, free // 3),
        _needs(board, free // 3),
        _offers(board, min(free // 3, 5)),
    ]
    if board.events:
        parts.append(_events(board, free // 3))
    return Group(*parts)


def _said(board: Board) -> tuple[str, str]:
    if board.trouble:
        return board.trouble, "bold red"
    status = str(board.health.get("status", "unknown"))
    return f"{status}{', live' if board.streaming else ''}", "green" if status == "ok" else "bold red"


def _totals(board: Board) -> str:
    totals = board.report.get("totals") or {}
    people = {name: value for name, value in (totals.get("people") or {}).items() if value not in (None, 0)}
    counts = [f"{name} {totals[name]}" for name in ("reports", "incidents", "incidents_open") if name in totals]
    return "  ".join([*counts, *(f"{name} {value}" for name, value in people.items())]).replace("_", " ")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    for column in columns:
        table.add_column(
            column,
            justify="right" if column in _FIGURES else "left",
            ratio=1 if column in _WIDE else None,
            no_wrap=True,
            overflow="ellipsis",
        )
    return table


def _services(board: Board) -> Table:
    table = _table("Services", "service", "status", "lag", "unpublished", "quarantined", "detail")
    for name, service in (board.health.get("services") or {}).items():
        status = str(service.get("status", ""))
        table.add_row(
            name,
            Text(status, style="green" if status == "ok" else "bold red"),
            *(str(service.get(column, "")) for column in ("lag", "unpublished", "quarantined")),
            Text(str(service.get("detail") or "")),
        )
    return table


def _incidents(board: Board, most: int) -> Table:
    table = _table(f"Open incidents ({len(board.incidents)})", "severity", "incident", "evidence", "reports", "since")
    for one in board.incidents[:most]:
        severity = one.get("severity")
        table.add_row(
            Text(str(severity or "?"), style=_COLOURS.get(severity or 0, "")),
            Text(str(one.get("title") or one.get("hazard") or "")),
            str(one.get("evidence") or ""),
            str(one.get("reports") or ""),
            _clock(one.get("opened_at")),
        )
    return table


def _needs(board: Board, most: int) -> Table:
    table = _table("Needs", "what", "needed", "committed", "coming", "delivered", "gap")
    needs = [need for need in board.report.get("needs") or [] if isinstance(need, dict)]
    for need in sorted(needs, key=lambda one: -_number(one.get("gap")))[:most]:
        gap = need.get("gap")
        table.add_row(
            Text(label(str(need.get("item") or need.get("skill") or ""), "en" if board.lang == "en" else "id")),
            *(str(need.get(column, "")) for column in ("needed", "committed", "coming", "delivered")),
            Text(str(gap), style="bold red" if _number(gap) else "green"),
        )
    return table


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _offers(board: Board, most: int) -> Table:
    more = "+" if board.more_offers else ""
    table = _table(f"Offers without an answer ({len(board.offers)}{more})", "what", "quantity", "place", "expires")
    for offer in board.offers[:most]:
        table.add_row(
            Text(label(str(offer.get("item") or offer.get("skill") or ""), "en" if board.lang == "en" else "id")),
            str(offer.get("quantity") or ""),
            Text(str(offer.get("place") or "")),
            _clock(offer.get("expires_at")),
        )
    return table


def _events(board: Board, most: int) -> Table:
    table = _table("Events", "time", "event", "operation", "subject")
    for event in list(board.events)[:most]:
        drill = "LATIHAN " if event.get("exercise") else ""
        name = str(event.get("type", "")).removeprefix("gotong.").rpartition(".v")[0].replace(".", " ")
        table.add_row(
            _clock(event.get("time")),
            Text(f"{drill}{name}"),
            Text(str(event.get("operation") or "")),
            Text(str(event.get("subject") or "")),
        )
    return table


def _clock(text: Any) -> str:
    """A day and time where the terminal stands."""
    try:
        return f"{datetime.fromisoformat(str(text)).astimezone():%d.%m. %H:%M:%S}"
    except ValueError:
        return ""
