"""The contracts as documents: JSON Schema for each event, AsyncAPI for all topics; and what may change in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schemas.event import Event, event_types
from schemas.topics import TOPICS

SCHEMA_FOLDER = Path(__file__).parent / "json"


def json_schema(model: type[Event]) -> dict[str, Any]:
    """The data of one event type as JSON Schema 2020-12."""
    schema = model.model_json_schema(mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:gotong:schema:{model.type}",
        "x-topic": model.topic,
        "x-key": model.key,
        "x-subject": model.subject,
        **schema,
    }


def asyncapi() -> dict[str, Any]:
    """All topics and events as an AsyncAPI 3.0 document."""
    models = event_types()
    channels: dict[str, Any] = {}
    shared: dict[str, Any] = {}
    for name, topic in TOPICS.items():
        channels[name] = {
            "address": name,
            "description": (
                f"{topic.kind} stream, keyed by {topic.key}; producer: {topic.producer}; class: {topic.cls}; "
                f"kept {topic.retention_ms // 3_600_000} hours"
            ),
            "messages": {
                event_type: {"$ref": f"#/components/messages/{event_type}"}
                for event_type, model in models.items()
                if model.topic == name
            },
            "bindings": {"kafka": {"topic": name, "partitions": topic.partitions}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Gotong events",
            "version": "1",
            "description": "CloudEvents 1.0 in Kafka binary mode: attributes are `ce_` headers, the value is the data.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {
            f"receive.{name}": {"action": "receive", "channel": {"$ref": f"#/channels/{_escaped(name)}"}}
            for name in TOPICS
        },
        "components": {
            "messages": {
                event_type: {
                    "name": event_type,
                    "summary": (model.__doc__ or "").strip().split("\n")[0],
                    "contentType": "application/json",
                    "headers": _HEADERS,
                    "payload": _payload(model, shared),
                }
                for event_type, model in models.items()
            },
            "schemas": shared,
        },
    }


_HEADERS = {
    "type": "object",
    "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
    "properties": {
        "ce_specversion": {"const": "1.0"},
        **{
            f"ce_{name}": {"type": "string"}
            for name in (
                "id",
                "source",
                "type",
                "subject",
                "time",
                "sequence",
                "partitionkey",
                "operation",
                "exercise",
                "traceparent",
            )
        },
        "content-type": {"const": "application/json"},
    },
}


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _payload(model: type[Event], shared: dict[str, Any]) -> dict[str, Any]:
    """An event's data, with the values that it shares with other events moved to the document's components."""
    schema = model.model_json_schema(mode="validation", ref_template="#/components/schemas/{model}")
    shared.update(schema.pop("$defs", {}))
    return schema


def write_all(folder: Path = SCHEMA_FOLDER) -> list[Path]:
    """Write one JSON Schema file for each event type and the AsyncAPI document; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    documents: dict[str, Any] = {f"{name}.json": json_schema(model) for name, model in event_types().items()}
    documents["asyncapi.json"] = asyncapi()
    written = []
    for name, document in documents.items():
        path = folder / name
        path.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def breaking_changes(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What would break a reader of `old` that is handed what `new` allows, or a writer of `old` read by `new`.

    Both directions count: events in the journal stay readable, and partners that know the old contract go on reading.
    Removed and renamed fields, changed types, narrowed bounds and lengths, words taken out of a closed list, and fields
    that became required are breaking; new optional fields and wider bounds are not.
    """
    return list(_compare(old, new, old.get("$defs", {}), new.get("$defs", {}), "", set()))


_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems")


def _compare(
    old: dict[str, Any],
    new: dict[str, Any],
    old_defs: dict[str, Any],
    new_defs: dict[str, Any],
    at: str,
    seen: set[tuple[str, str]],
) -> Iterator[str]:
    old_ref, new_ref = old.get("$ref", ""), new.get("$ref", "")
    if old_ref or new_ref:
        if (old_ref, new_ref) in seen:
            return
        seen = seen | {(old_ref, new_ref)}
    old, new = _resolved(old, old_defs), _resolved(new, new_defs)
    where = at or "/"
    for name, part in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            yield f"{at}/{name} was removed"
        else:
            yield from _compare(part, new["properties"][name], old_defs, new_defs, f"{at}/{name}", seen)
    for name in sorted(set(new.get("required", [])) - set(old.get("required", []))):
        yield f"{at}/{name} became required"
    if _types(old) != _types(new):
        yield f"{where} changed its type from {_types(old)} to {_types(new)}"
    for bound in _UPPER:
        if bound in new and new[bound] < old.get(bound, float("inf")):
            yield f"{where} narrowed {bound} to {new[bound]}"
    for bound in _LOWER:
        if bound in new and new[bound] > old.get(bound, float("-inf")):
            yield f"{where} narrowed {bound} to {new[bound]}"
    if new.get("pattern") != old.get("pattern") and "pattern" in new:
        yield f"{where} changed its pattern"
    if "enum" in new:
        gone = [word for word in old.get("enum", []) if word not in new["enum"]]
        if gone or "enum" not in old:
            yield f"{where} no longer allows {gone or 'other words'}"
    if "const" in new and new.get("const") != old.get("const"):
        yield f"{where} changed its constant"
    if "items" in old and "items" in new:
        yield from _compare(old["items"], new["items"], old_defs, new_defs, f"{at}/[]", seen)
    old_options, new_options = _options(old), _options(new)
    if old_options and new_options:
        for kind, option in old_options.items():
            if kind not in new_options:
                yield f"{where} no longer allows {kind}"
            else:
                yield from _compare(option, new_options[kind], old_defs, new_defs, at, seen)


def _resolved(schema: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return defs.get(name, schema) if name else schema


def _types(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return "one of several"
    return str(schema.get("type", "any"))


def _options(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {option.get("$ref") or _types(option): option for option in schema.get("anyOf", [])}
