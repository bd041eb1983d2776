"""The report as JSON: the document itself, with names for people beside the codes."""

from __future__ import annotations

from typing import Any

import orjson

from schemas import vocabulary
from schemas.vocabulary import Language


def render(report: dict[str, Any], lang: Language) -> bytes:
    """The document as JSON, the keys in their fixed order; labels in this language."""
    needs = [
        {**need, "label": vocabulary.label(str(need.get("item") or need.get("skill") or ""), lang)}
        for need in report["needs"]
    ]
    return orjson.dumps({**report, "language": lang, "needs": needs})
