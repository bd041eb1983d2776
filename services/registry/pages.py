"""What the registry's routes share: batches that are judged row by row, and pages of lists."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from services.registry.actions import Outcome
from services.runtime.auth import Actor
from services.runtime.db import Tx, to_json
from services.runtime.http import body_of, cursor_of, database, idempotency_key, json_answer, next_link, write_once
from services.runtime.problems import DomainError, Fault, Invalid, TooLarge, faults_of

MAX_ROWS = 5000
MAX_BATCH_BYTES = 16 * 1024 * 1024
BATCH_TIMEOUT_S = 60

M = TypeVar("M", bound=BaseModel)
Limit = Annotated[int, Query(ge=1, le=1000)]
Cursor = Annotated[str | None, Query(max_length=500)]


async def batch(
    request: Request,
    actor: Actor,
    model: type[M],
    id_name: str,
    what: str,
    work_out: Callable[[list[M]], list[Any]],
    store: Callable[[Tx, list[Any]], Awaitable[list[Outcome]]],
) -> Response:
    """Check each row for itself, store the good ones in one transaction, answer 207 with a line for each row."""
    body = await body_of(request, MAX_BATCH_BYTES)
    # Off the event loop: checking five thousand rows takes longer than other requests should wait.
    checked = await asyncio.to_thread(_checked, body, model)
    good = [(index, row) for index, row in enumerate(checked) if not isinstance(row, DomainError)]
    entries = await asyncio.to_thread(work_out, [row for _, row in good])

    async def work(tx: Tx) -> tuple[int, Any]:
        outcomes = await store(tx, entries)
        results: list[dict[str, Any]] = [{"index": index} for index in range(len(checked))]
        counts = {"accepted": 0, "rejected": 0, "repeated": 0}
        found: list[Outcome | DomainError] = [
            row if isinstance(row, DomainError) else Outcome("kept") for row in checked
        ]
        for (index, _), stored in zip(good, outcomes, strict=True):
            found[index] = stored
        for result, outcome in zip(results, found, strict=True):
            error = outcome if isinstance(outcome, DomainError) else outcome.error
            if error is not None:
                counts["rejected"] += 1
                result |= {"error": error.detail, "pointer": error.faults[0].pointer if error.faults else ""}
                continue
            assert isinstance(outcome, Outcome)
            result |= {id_name: outcome.id, "status": outcome.status}
            if outcome.what == "repeated":
                counts["repeated"] += 1
                result["repeated"] = True
            else:
                counts["accepted"] += 1
                result |= {"updated": True} if outcome.what == "updated" else {}
        return 207, counts | {"results": results}

    key = idempotency_key(request, actor)
    db = database(request, "registry")
    return await write_once(db, actor, key, body, what, work, timeout_s=BATCH_TIMEOUT_S)


def _checked(body: bytes, model: type[M]) -> list[M | DomainError]:
    """Each row of a JSON array or of NDJSON as the model, or its fault.

    Raises
    ------
    Invalid
        Neither form, or not a list at all.
    TooLarge
        More than 5,000 rows.
    """
    stripped = body.lstrip()
    if stripped.startswith(b"["):
        try:
            rows = orjson.loads(stripped)
        except orjson.JSONDecodeError as error:
            raise Invalid(f"the body is not JSON: {error}", [Fault("", "not JSON")]) from None
        if len(rows) > MAX_ROWS:
            raise TooLarge(f"the body has {len(rows)} rows; at most {MAX_ROWS} are taken at once")
        hostile = b"\x00" in body or b"\\u0000" in body
        return [_row(row, model, hostile=hostile) for row in rows]
    lines = [line for line in body.splitlines() if line.strip()]
    if not lines:
        raise Invalid("the body has no rows", [Fault("", "send a JSON array, or one JSON object a line")])
    if len(lines) > MAX_ROWS:
        raise TooLarge(f"the body has {len(lines)} rows; at most {MAX_ROWS} are taken at once")
    found: list[M | DomainError] = []
    for line in lines:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            found.append(Invalid(f"the line is not JSON: {error}", [Fault("", "not JSON")]))
            continue
        found.append(_row(row, model, hostile=b"\\u0000" in line))
    return found


def _row(row: Any, model: type[M], *, hostile: bool) -> M | DomainError:
    if hostile and b"\\u0000" in orjson.dumps(row):
        return Invalid("the row holds a NUL character", [Fault("", "NUL characters are not taken")])
    try:
        return model.model_validate(row)
    except ValidationError as error:
        faults = faults_of(error)
        return Invalid(f"{faults[0].pointer or 'row'}: {faults[0].detail}", faults)


def ids(values: Sequence[Any] | None, kind: Callable[[str], Any]) -> Any:
    """The one value of a cursor as what the column holds.

    Raises
    ------
    Invalid
        It is none of ours.
    """
    if values is None:
        return None
    try:
        return kind(str(values[0]))
    except ValueError:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")]) from None


def page(request: Request, name: str, shown: list[dict[str, Any]], id_name: str, limit: int) -> Response:
    """`limit` of what was found, and a link to the next page when there was one more."""
    more = len(shown) > limit
    page = shown[:limit]
    cursor = cursor_of([page[-1][id_name]]) if more else None
    return answer({name: page, "links": next_link(request, cursor)})


def answer(content: dict[str, Any]) -> Response:
    return json_answer(200, to_json(content).encode())
