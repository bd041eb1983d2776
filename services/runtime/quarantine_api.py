"""`/v1/quarantine`: what was refused and why, and letting it in again; one router for all services of a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from services.runtime import quarantine
from services.runtime.auth import Caller
from services.runtime.cloudevents import timestamp
from services.runtime.db import Row
from services.runtime.http import body_of, database, json_answer, parse
from services.runtime.problems import Conflict, NotFound, TooLarge, responses


class Release(BaseModel):
    """`value` takes the place of the record's data; without it the record is tried as it was."""

    value: Any = None
    reason: Annotated[str, Field(min_length=3, max_length=500)]


def router_of(services: Sequence[str]) -> APIRouter:
    """The routes, over the quarantine tables of these services."""
    router = APIRouter(prefix="/v1/quarantine", tags=["quarantine"])

    @router.get("", responses=responses())
    async def list_refused(
        request: Request,
        actor: Caller,
        state: Annotated[str, Query(pattern="^(refused|releasing|released|all)$")] = "refused",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Response:
        """What was refused, newest first, with the reason and the field; never the record itself."""
        actor.require("operator", "auditor")
        entries: list[dict[str, Any]] = []
        counts: dict[str, int] = {}
        for service in services:
            async with database(request, service).tx() as tx:
                rows = await tx.fetch(
                    "SELECT * FROM quarantine WHERE $1 = 'all' OR state = $1 ORDER BY id DESC LIMIT $2", state, limit
                )
                counts[service] = await tx.fetchval("SELECT count(*) FROM quarantine WHERE state = 'refused'")
            entries += [entry_of(service, row) for row in rows]
        entries.sort(key=lambda entry: str(entry["refused_at"]), reverse=True)
        return json_answer(200, orjson.dumps({"quarantine": entries[:limit], "refused": counts}))

    @router.get("/{quarantine_id}", responses=responses(NotFound))
    async def show(request: Request, actor: Caller, quarantine_id: str) -> Response:
        """One refused record, with its attributes and value as far as they can be shown as text."""
        actor.require("operator")
        service = _service_of(quarantine_id, services)
        async with database(request, service).tx() as tx:
            row = await tx.fetchrow(
                "SELECT * FROM quarantine WHERE id = $1", quarantine.number_of(quarantine_id, service)
            )
            if row is None:
                raise NotFound(f"there is no quarantined record {quarantine_id}")
            raw = await quarantine.raw_of(tx, row)
        entry = entry_of(service, row)
        entry["headers"] = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in raw.headers}
        entry["value"] = None if raw.value is None else raw.value[:65536].decode("utf-8", "backslashreplace")
        return json_answer(200, orjson.dumps(entry))

    @router.post("/{quarantine_id}/release", responses=responses(NotFound, Conflict, TooLarge))
    async def release(request: Request, actor: Caller, quarantine_id: str) -> Response:
        """Let a record in, mended or as it was, once. The service's worker takes it up within a second."""
        actor.require("operator")
        service = _service_of(quarantine_id, services)
        order = parse(await body_of(request), Release)
        async with database(request, service).tx() as tx:
            row = await quarantine.ask_release(
                tx, service, quarantine.number_of(quarantine_id, service), order.value, actor.name, order.reason
            )
        return json_answer(200, orjson.dumps(entry_of(service, row)))

    return router


def _service_of(quarantine_id: str, services: Sequence[str]) -> str:
    name = quarantine_id.rpartition("-")[0]
    if name not in services:
        raise NotFound(f"there is no quarantined record {quarantine_id}")
    return name


def entry_of(service: str, row: Row) -> dict[str, Any]:
    """A row as lists show it."""
    return {
        "id": f"{service}-{row['id']}",
        "service": service,
        "state": row["state"],
        "reason": row["reason"],
        "pointer": row["pointer"],
        "source": row["origin"],
        "event_id": row["origin_id"],
        "topic": row["topic"],
        "partition": row["kafka_partition"],
        "offset": row["kafka_offset"],
        "sha256": row["sha256"].hex(),
        "refused_at": timestamp(row["refused_at"]),
        "released_by": row["released_by"],
        "release_reason": row["release_reason"],
        "mended": row["mended"],
    }
