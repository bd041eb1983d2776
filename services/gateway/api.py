"""What belongs to no service: health of all, and the contracts as documents."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import Response

from schemas.documents import asyncapi, json_schema
from schemas.event import event_types
from services.runtime import health
from services.runtime.db import is_transient
from services.runtime.http import json_answer
from services.runtime.problems import NotFound

router = APIRouter()

_HEALTH_TIMEOUT_S = 1.5


@router.get("/v1/health", tags=["health"], responses={503: {"description": "At least one service is not healthy"}})
async def health_of_all(request: Request) -> Response:
    """200 while every service's worker reports in and nothing fails; 503 otherwise, with the same body."""
    databases = request.app.state.databases
    states = await asyncio.gather(*(_state(db) for db in databases.values()))
    services = dict(zip(databases, states, strict=True))
    ok = all(state.status == "ok" for state in states)
    body = {
        "status": "ok" if ok else "failing",
        "services": {name: state.to_dict() for name, state in services.items()},
    }
    return json_answer(200 if ok else 503, orjson.dumps(body))


async def _state(db: Any) -> health.Health:
    try:
        async with asyncio.timeout(_HEALTH_TIMEOUT_S):
            return await health.of(db)
    except Exception as error:
        if not is_transient(error):
            raise
        return health.Health("down", detail="the database does not answer")


@router.get("/asyncapi.json", tags=["contracts"])
async def asyncapi_document() -> Response:
    """Every topic and event as an AsyncAPI 3.0 document."""
    return json_answer(200, _asyncapi())


@lru_cache(maxsize=1)
def _asyncapi() -> bytes:
    return orjson.dumps(asyncapi())


@router.get("/schemas/{event_type}.json", tags=["contracts"], responses={404: {"description": "No such event type"}})
async def schema(event_type: str) -> Response:
    """One event's data as JSON Schema (2020-12)."""
    model = event_types().get(event_type)
    if model is None:
        raise NotFound(f"there is no event type {event_type}")
    return Response(orjson.dumps(json_schema(model)), media_type="application/schema+json")
