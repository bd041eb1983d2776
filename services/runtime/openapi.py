"""How a route that reads its own body tells OpenAPI what it takes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def takes(model: type[BaseModel], *, batch: bool = False, media_type: str = "application/json") -> dict[str, Any]:
    """`openapi_extra` of a route whose body is this model; `batch`: an array of them, or one JSON object a line."""
    schema = _inlined(model)
    if not batch:
        return {"requestBody": {"required": True, "content": {media_type: {"schema": schema}}}}
    content = {
        media_type: {"schema": {"type": "array", "items": schema}},
        "application/x-ndjson": {"schema": {"type": "string", "description": "one JSON object a line"}},
    }
    return {"requestBody": {"required": True, "content": content}}


def _inlined(model: type[BaseModel]) -> dict[str, Any]:
    """The model's schema without references: OpenAPI would look for them at the root of its own document."""
    schema = model.model_json_schema(ref_template="{model}")
    parts = schema.pop("$defs", {})

    def fill(node: Any) -> Any:
        if isinstance(node, list):
            return [fill(entry) for entry in node]
        if not isinstance(node, dict):
            return node
        if isinstance(node.get("$ref"), str):
            return fill({**parts[node["$ref"]], **{name: item for name, item in node.items() if name != "$ref"}})
        return {name: fill(entry) for name, entry in node.items()}

    filled: dict[str, Any] = fill(schema)
    return filled
