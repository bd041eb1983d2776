"""What a partner may publish: pure rules over one event."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.event import Meta
from schemas.partners import ReportSubmitted
from services.runtime import masking

OURS = "/gotong/"
AHEAD = timedelta(days=3653)
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)
TEXT_BYTES = 16 * 1024
"""As much of a report's text as an event carries."""
_OPERATION = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_IDENTIFYING = frozenset({"phone", "email", "nik"})

Refusal = tuple[str, str]
"""Why, and the JSON pointer to where."""


def refusal(event: ReportSubmitted, meta: Meta, now: datetime) -> Refusal | None:
    """Why this report is not let pass although it keeps its contract; None when it is.

    A clock that is some days ahead is common and intake's to judge; years ahead the field means something else.
    """
    if meta.source.startswith(OURS) or meta.source.strip("/") == "gotong":
        return "a source under /gotong/ is this installation's own; send your organisation's", "/source"
    if event.operation is None and meta.operation is not None and not _OPERATION.fullmatch(meta.operation):
        return "operation is not an operation's id (lower-case letters, digits, hyphens)", "/operation"
    if event.observed_at is not None:
        if event.observed_at > now + AHEAD:
            return "observed_at lies more than ten years ahead", "/data/observed_at"
        if event.observed_at < EARLIEST:
            return "observed_at lies before 1900", "/data/observed_at"
    if event.reporter_ref is not None and names_somebody(event.reporter_ref):
        return "reporter_ref is a telephone number, address or NIK; send an opaque reference", "/data/reporter_ref"
    return None


def names_somebody(reference: str) -> bool:
    """Whether a reference as a whole is a way to reach or identify a person."""
    text = reference.strip()
    found = [entry for entry in masking.find(text) if entry.kind in _IDENTIFYING]
    return bool(found) and found[0].start == 0 and found[-1].end == len(text)


def as_judged(event: ReportSubmitted) -> dict[str, Any]:
    """The report as it is passed on: without what identifies a person in its free text, and cut to what an event
    carries (`text_cut` says so)."""
    body: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    for name in ("title", "text"):
        if name in body:
            body[name] = masking.mask(body[name])
    if body.get("location", {}).get("place"):
        body["location"]["place"] = masking.mask(body["location"]["place"])
    if "text" in body:
        encoded = body["text"].encode()
        if len(encoded) > TEXT_BYTES:
            body["text"] = encoded[:TEXT_BYTES].decode("utf-8", "ignore")
            body["text_cut"] = True
    return body


def belongs(origin: str, organisation: str, granted: Collection[str]) -> bool:
    """Whether an organisation may speak under this origin: its own, anything below it, or one that was granted."""
    own = f"/partners/{organisation}"
    return origin == own or origin.startswith(f"{own}/") or origin in granted
