"""What the routes ask in common: scope, instant, box; and an answer with its tag."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import jwt
from fastapi import Depends, Query, Request
from fastapi.responses import Response

from schemas.values import STANDING
from schemas.vocabulary import split
from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import Fault, Invalid, NotFound
from services.sitrep import log
from services.sitrep.document import instant as instant_text
from services.sitrep.domain import Scope

EXACT_FOR = ("operator", "partner", "auditor", "admin")
"""Who is told exact figures; everybody else gets the public form."""

Operation = Annotated[str | None, Query(max_length=64, description="Without it: all live operations")]
AreaWanted = Annotated[str | None, Query(alias="area", max_length=60, description="`scheme:code`, and all within it")]
AsOf = Annotated[str | None, Query(max_length=40, description="RFC 3339 with a zone; without it: now")]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a report or table is asked for: of which operation and area, as of when."""

    operation: str | None
    area: str | None
    as_of: str | None

    def scope(self, actor: Actor) -> Scope:
        """What may be counted for this caller; raises as `scope_of` does."""
        return scope_of(actor, self.operation, self.area)

    async def position(self, tx: Tx) -> int:
        """The position of the log that is asked for; raises as `position_of` does."""
        return await position_of(tx, self.as_of, self.operation)


def _wanted(operation: Operation = None, area: AreaWanted = None, as_of: AsOf = None) -> Wanted:
    return Wanted(operation, area, as_of)


AsWanted = Annotated[Wanted, Depends(_wanted)]
"""The query parameters that reports and tables share."""


def stamp() -> str | None:
    """Now, as answers write it."""
    return instant_text(clock.now())


def expires_at(request: Request) -> datetime | None:
    """When the token of this request, which was found good, runs out; None without a token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    claims = jwt.decode(token.strip(), options={"verify_signature": False})
    return datetime.fromtimestamp(float(claims["exp"]), UTC)


async def position_of(tx: Tx, as_of: str | None, operation: str | None) -> int:
    """The position of the log that is asked for.

    Raises
    ------
    Invalid
        `as_of` is no instant that has passed.
    NotFound
        Nothing in the log has spoken of the operation.
    """
    instant = _instant(as_of)
    if instant is None:
        position = await log.head(tx)
    else:
        await log.settle(tx)
        position = await log.position_at(tx, instant)
    if operation is not None:
        await _must_exist(tx, operation)
    return position


def tagged(
    request: Request,
    content: bytes,
    media_type: str,
    *,
    of: bytes | None = None,
    lang: str | None = None,
    filename: str | None = None,
) -> Response:
    """The answer with an ETag of its content, or of `of` where the bytes differ each time; 304 to who has it."""
    tag = f'"{hashlib.sha256(content if of is None else of).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Vary": "Accept, Authorization", "Cache-Control": "no-cache"}
    if lang is not None:
        headers["Content-Language"] = lang
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if filename is not None:
        headers["Content-Disposition"] = f'inline; filename="{filename}"'
    return Response(content, media_type=media_type, headers=headers)


def scope_of(actor: Actor, operation: str | None, area: str | None) -> Scope:
    """What may be counted for this caller.

    Raises
    ------
    Forbidden
        The token does not cover the operation.
    Invalid
        The area has no scheme.
    """
    if area is not None:
        try:
            scheme, code = split(area)
        except ValueError as error:
            raise Invalid(str(error), [Fault("query/area", str(error))]) from None
        area = f"{scheme}:{code}"
    if actor.role not in EXACT_FOR:
        return Scope(operation, area)
    if operation is not None:
        actor.require_operation(operation)
    return Scope(operation, area, tuple(sorted(actor.operations)) or None)


def _instant(text: str | None) -> datetime | None:
    """`as_of` as an instant.

    Raises
    ------
    Invalid
        It is not RFC 3339 with a zone, or lies in the future: what it would count is not settled.
    """
    if text is None:
        return None
    try:
        # A plus sign that was not escaped arrives as a space.
        instant = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    except ValueError:
        raise Invalid(
            "as_of is not RFC 3339", [Fault("query/as_of", "an instant such as 2026-11-24T09:00:00+07:00")]
        ) from None
    if instant.tzinfo is None:
        raise Invalid("as_of has no zone", [Fault("query/as_of", "add Z or an offset such as +07:00")])
    if instant > clock.now():
        raise Invalid("as_of lies in the future", [Fault("query/as_of", "an instant that has passed")])
    return instant


async def _must_exist(tx: Tx, operation: str) -> None:
    """Refuse an operation that nothing in the log has spoken of.

    Raises
    ------
    NotFound
        There is none; it may be on its way.
    """
    known = operation == STANDING or await tx.fetchval(
        "SELECT EXISTS (SELECT 1 FROM operation WHERE operation_id = $1) "
        "OR EXISTS (SELECT 1 FROM log WHERE operation = $1)",
        operation,
    )
    if not known:
        raise NotFound(f"there is no operation {operation}")


def bbox_of(text: str | None) -> tuple[float, float, float, float] | None:
    """west, south, east, north.

    Raises
    ------
    Invalid
        Not four numbers within the world, south below north. West above east crosses the antimeridian.
    """
    if text is None:
        return None
    try:
        west, south, east, north = (float(part) for part in text.split(","))
    except ValueError:
        raise Invalid("bbox is west,south,east,north", [Fault("query/bbox", "four numbers")]) from None
    if not (-180 <= west <= 180 and -180 <= east <= 180 and -90 <= south <= north <= 90):
        raise Invalid("bbox lies outside the world", [Fault("query/bbox", "west,south,east,north in degrees")])
    return west, south, east, north
