"""A situation report from its parts: the picture at a position, the document, the bytes."""

from __future__ import annotations

from typing import Any, Literal

from services.runtime.db import Tx
from services.sitrep import domain, projections
from services.sitrep.domain import Scope
from services.sitrep.render import jsondoc, markdown

Format = Literal["md", "json"]
Lang = Literal["id", "en"]
MEDIA_TYPES: dict[Format, str] = {"md": "text/markdown; charset=utf-8", "json": "application/json"}


async def document(tx: Tx, position: int, scope: Scope, *, exact: bool) -> dict[str, Any]:
    """The report at this position as a document."""
    return domain.report(await projections.picture(tx, position, scope), scope, exact=exact)


def rendered(report: dict[str, Any], form: Format, lang: Lang) -> bytes:
    """The document in one of the formats: the same document gives the same bytes."""
    return markdown.render(report, lang) if form == "md" else jsondoc.render(report, lang)
