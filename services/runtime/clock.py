"""The one door to the clock. Rules never come here: they are handed the instants that they need."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

_shift: timedelta = timedelta()


def now() -> datetime:
    """The present instant, aware, in UTC."""
    return datetime.now(UTC) + _shift


def shift(by: timedelta) -> None:
    """Move this process's clock by so much from where it stands; tests and drills only."""
    global _shift
    _shift += by


def reset() -> None:
    """Back to the machine's clock."""
    global _shift
    _shift = timedelta()


def set_from(text: str) -> None:
    """Set the clock as GOTONG_CLOCK says: an instant (RFC 3339) from which time runs, or `+3600` / `-60` seconds.

    Raises
    ------
    ValueError
        The text is neither.
    """
    reset()
    if not text:
        return
    if text[0] in "+-":
        shift(timedelta(seconds=float(text)))
        return
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("GOTONG_CLOCK needs a zone, for example 2026-11-24T09:00:00+07:00")
    shift(instant - datetime.now(UTC))


if os.environ.get("GOTONG_CLOCK"):
    set_from(os.environ["GOTONG_CLOCK"])
