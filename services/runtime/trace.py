"""The W3C trace context of what is being handled: from the request or event into the events that it causes."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

current: ContextVar[str | None] = ContextVar("traceparent", default=None)

_FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def start(given: str | None) -> str:
    """Go on with the caller's trace, or begin one."""
    value = given if given and _FORM.fullmatch(given) else f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
    current.set(value)
    return value
