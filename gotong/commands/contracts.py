"""`gotong contracts`: writes the event contracts to a folder, and judges a partner's events offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import orjson
from pydantic import BaseModel

from gotong.client import CommandFailed
from schemas import documents
from schemas.event import event_types
from schemas.partners import ReportSubmitted
from services.exchange import actions as exchange
from services.runtime import clock, cloudevents
from services.runtime.cloudevents import STRUCTURED, Malformed
from services.runtime.quarantine import Unprocessable

MAX_EVENT_BYTES = cloudevents.MAX_VALUE_BYTES


@click.group(epilog="Example: gotong contracts check events.jsonl")
def contracts() -> None:
    """The contracts of all events, and whether an event keeps them."""


@contracts.command(epilog="Example: gotong contracts export contracts/")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
def export(folder: Path) -> None:
    """Write a JSON Schema for each event type, and AsyncAPI for all topics, into DIR."""
    try:
        written = documents.write_all(folder)
    except OSError as error:
        raise CommandFailed(f"{folder} cannot be written ({error.strerror}); name another folder.") from None
    click.echo(f"{len(written)} files are in {folder}")


@contracts.command(epilog="Example: gotong contracts check events.jsonl")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--type",
    "event_type",
    default=ReportSubmitted.type,
    show_default=True,
    help="What a JSON object is that is no CloudEvent but the data of one.",
)
@click.option("--any-type", is_flag=True, help="Take every event of ours, not only what partners may send.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(file: Path, event_type: str, any_type: bool, as_json: bool) -> None:
    """Judge the events in FILE as the door for partners would: one CloudEvent, a JSON array, or one a line.

    Nothing is sent. Exits 1 when one of them would be refused. Whether a partner may speak of an area or an operation,
    only the server knows.
    """
    if event_type not in event_types():
        raise click.UsageError(f"There is no event type {event_type}; gotong contracts export writes them all.")
    verdicts = [judge(place, text, event_type, any_type=any_type) for place, text in _events(file)]
    refused = [verdict for verdict in verdicts if verdict.reason is not None]
    if as_json:
        click.echo(
            json.dumps(
                {
                    "events": len(verdicts),
                    "refused": len(refused),
                    "results": [verdict.to_dict() for verdict in verdicts],
                },
                ensure_ascii=False,
            )
        )
    else:
        for verdict in verdicts:
            click.echo(verdict.sentence())
    if not verdicts:
        raise CommandFailed(f"{file} holds no event; put one CloudEvent into it, an array of them, or one a line.")
    if refused:
        raise CommandFailed(
            f"{len(refused)} of {len(verdicts)} events would be refused; correct the fields that are named."
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What would become of one event. `place` is its line, or its number in an array.

    `reason` None: it would be taken. `unknown`: fields that nobody reads, which are likely misspelt.
    """

    place: str
    event_type: str
    event_id: str | None
    reason: str | None = None
    pointer: str | None = None
    unknown: tuple[str, ...] = ()

    def sentence(self) -> str:
        name = f"{self.place}: {self.event_type or 'no type'}{f' {self.event_id}' if self.event_id else ''}"
        if self.reason is not None:
            where = f"{self.pointer}: " if self.pointer and not self.reason.startswith(self.pointer[5:]) else ""
            return f"{name}: refused: {where}{self.reason}"
        return f"{name}: ok" + (f" (nobody reads {', '.join(self.unknown)})" if self.unknown else "")

    def to_dict(self) -> dict[str, Any]:
        return {
            "place": self.place,
            "type": self.event_type,
            "id": self.event_id,
            "ok": self.reason is None,
            **({"reason": self.reason, "pointer": self.pointer} if self.reason is not None else {}),
            **({"unknown": list(self.unknown)} if self.unknown else {}),
        }


def _events(file: Path) -> Iterator[tuple[str, bytes]]:
    """Each event's JSON with its place."""
    content = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        whole = orjson.loads(content)
    except orjson.JSONDecodeError:
        for number, line in enumerate(content.splitlines(), start=1):
            if text := line.strip(b"\x1e \t"):
                yield f"line {number}", text
        return
    if isinstance(whole, list):
        for number, event in enumerate(whole, start=1):
            yield f"event {number}", orjson.dumps(event)
    else:
        yield "event 1", content


def judge(place: str, text: bytes, data_type: str, *, any_type: bool = False) -> Verdict:
    """What the door for partners would say to one event, given as JSON: a CloudEvent, or only its data."""
    named, identity = "", None
    try:
        if len(text) > MAX_EVENT_BYTES:
            raise Malformed(f"it has {len(text)} bytes; at most {MAX_EVENT_BYTES} are taken")
        document = cloudevents.parse_json(text)
        if not isinstance(document, dict):
            raise Malformed("an event is one JSON object")
        if "specversion" not in document:
            named = data_type
            document = {"specversion": "1.0", "id": "-", "source": "urn:-", "type": data_type, "data": document}
        else:
            named, identity = str(document.get("type") or ""), str(document.get("id") or "") or None
        envelope = cloudevents.decode(
            orjson.dumps(document), [("content-type", STRUCTURED.encode())], received_at=clock.now()
        )
        model = event_types().get(envelope.meta.type)
        if model is None:
            raise Malformed(f"there is no event type {envelope.meta.type}", "/type")
        if model is not ReportSubmitted and not any_type:
            raise Malformed(f"partners send {ReportSubmitted.type}, not {envelope.meta.type}", "/type")
        data = orjson.loads(envelope.data)
        if data is None:
            raise Malformed("the event has no data", "/data")
        event = cloudevents.read(envelope, model)
        if isinstance(event, ReportSubmitted):
            exchange.judge(event, clock.now())
    except (Malformed, Unprocessable) as fault:
        return Verdict(place, named, identity, fault.reason, fault.pointer)
    return Verdict(place, named, identity, unknown=tuple(unread(model, data)))


def unread(model: type[BaseModel], data: Any, at: str = "") -> Iterator[str]:
    """The fields in this data that the contract does not know, as JSON pointers: a reader ignores them."""
    if not isinstance(data, dict):
        return
    for name, value in data.items():
        field = model.model_fields.get(name)
        if field is None:
            yield f"{at}/{name}"
            continue
        inner = _model_in(field.annotation)
        if inner is None:
            continue
        for index, part in enumerate(value if isinstance(value, list) else [value]):
            yield from unread(inner, part, f"{at}/{name}/{index}" if isinstance(value, list) else f"{at}/{name}")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model of a field that is one, may be one, or holds several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
