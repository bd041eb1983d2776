"""Sending again what was answered 503, as providers and telephones do: a busy machine may be slow, and nothing is done
twice for it."""

from __future__ import annotations

import time

import httpx

_PATIENCE_S = 120


class _Patient(httpx.AsyncBaseTransport):
    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()  # a body that comes in chunks has to be there for the next try
        until = time.monotonic() + _PATIENCE_S
        while True:
            answer = await self._inner.handle_async_request(request)
            if answer.status_code != 503 or time.monotonic() > until:
                return answer
            await answer.aclose()

    async def aclose(self) -> None:
        await self._inner.aclose()


def patient(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """The client, which now sends again for two minutes what the database had no time for."""
    client._transport = _Patient(client._transport)
    return client
