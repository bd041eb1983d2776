"""The W3C trace context of what is being handled: from the request or event into the events that it causes."""

from __future__ import annotations

import os
import re
from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

current: ContextVar[str | None] = ContextVar("traceparent", default=None)

_FORM = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def start(given: str | None) -> str:
    """Go on with the caller's trace, or begin one."""
    if given and _FORM.fullmatch(given):
        value = given
    else:
        digits = os.urandom(24).hex()
        value = f"00-{digits[:32]}-{digits[32:]}-01"
    current.set(value)
    return value


class Traced:
    """Begins or goes on with a trace for each request. Plain ASGI: the framework's own kind of middleware keeps a
    task and two streams for every open answer, which long-lived streams would pay for in memory."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = next((value for name, value in scope["headers"] if name == b"traceparent"), b"")
            start(given.decode("latin-1"))
        await self.app(scope, receive, send)
