"""What HTTP routes share: their service's database, idempotent writes, bodies within limits, pages with cursors."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import asyncpg
import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError

from services.runtime import clock, vault
from services.runtime.auth import Actor
from services.runtime.cloudevents import parse_json
from services.runtime.db import Database, Tx, to_json
from services.runtime.problems import Conflict, Fault, Invalid, TooLarge, invalid

M = TypeVar("M", bound=BaseModel)

MAX_BODY_BYTES = 1024 * 1024
KEY_KEPT = timedelta(days=30)


def database(request: Request, service: str) -> Database:
    """The pool of this service in this process."""
    found: Database = request.app.state.databases[service]
    return found


async def body_of(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The whole body.

    Raises
    ------
    TooLarge
        It has more than `limit` bytes; the rest is not read.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise TooLarge(
            f"the body has {declared} bytes; at most {limit} are taken", [Fault("", f"more than {limit} bytes")]
        )
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"the body has more than {limit} bytes", [Fault("", f"more than {limit} bytes")])
        chunks.append(chunk)
    return b"".join(chunks)


def parse(body: bytes, model: type[M]) -> M:
    """The body as this model, validated once from its bytes.

    Raises
    ------
    Invalid
        The faults name each field.
    """
    refuse_hostile(body)
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise invalid(error) from None


# NUL, the two overrides of writing direction (U+202D, U+202E) and halves of surrogate pairs, as bytes or escaped. Most
# escaped halves are parts of a whole pair, so what is found is looked at again.
_SUSPECT = re.compile(rb"\x00|\xe2\x80[\xad\xae]|\\u(?:0000|202[dDeE]|[dD][89a-fA-F])")
_HOSTILE = re.compile("([\x00])|([\u202d\u202e])|([\ud800-\udfff])")
_WHY = (
    "NUL characters are not taken",
    "characters that turn the direction of writing around are not taken: what people read is not what it says",
    "half of a surrogate pair is no character",
)


def refuse_hostile(body: bytes, *, overrides: bool = True) -> None:
    """Refuse what is JSON but cannot be stored, or reads other than it is, and name the field.

    `overrides` False lets the overrides of writing direction through: what a person wrote on a channel is not sent
    back to be written again.

    Raises
    ------
    Invalid
        There is such a character.
    """
    if _SUSPECT.search(body) is None:
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        if b"\x00" in body or b"\\u0000" in body:
            raise Invalid("the body holds a NUL character", [Fault("", _WHY[0])]) from None
        return  # no JSON at all: whoever reads it says so
    fault = hostile_place(value, overrides=overrides)
    if fault is not None:
        raise Invalid(f"{fault.pointer or 'body'}: {fault.detail}", [fault])


def hostile_place(value: Any, *, overrides: bool = True) -> Fault | None:
    """Where in a JSON value the first character stands that `refuse_hostile` refuses; None where there is none."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        pointer, item = waiting.pop()
        if isinstance(item, str):
            for found in _HOSTILE.finditer(item):
                if overrides or found.lastindex != 2:
                    return Fault(pointer, _WHY[(found.lastindex or 1) - 1])
        elif isinstance(item, list):
            waiting += [(f"{pointer}/{n}", part) for n, part in enumerate(item)][::-1]
        elif isinstance(item, dict):
            for name in item:
                if _HOSTILE.search(name):
                    return Fault(pointer, "the name of a field holds a character that is not taken")
            waiting += [(f"{pointer}/{name}", part) for name, part in item.items()][::-1]
    return None


def parse_any(body: bytes) -> Any:
    """The body as plain JSON.

    Raises
    ------
    Invalid
        Not JSON, or nested too deep (`Malformed` says so and becomes a problem document).
    """
    refuse_hostile(body, overrides=False)
    return parse_json(body)


def idempotency_key(request: Request, actor: Actor) -> str | None:
    """The caller's Idempotency-Key, without its quotes.

    Raises
    ------
    Invalid
        It is empty, longer than 200 characters, or too short to stand for an anonymous sender.
    """
    header = request.headers.get("idempotency-key")
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key or len(key) > 200:
        raise Invalid(
            "Idempotency-Key has 1 to 200 characters", [Fault("header/Idempotency-Key", "1 to 200 characters")]
        )
    if actor.anonymous and len(key) < 16:
        raise Invalid(
            "an Idempotency-Key without a token has at least 16 characters",
            [Fault("header/Idempotency-Key", "at least 16 characters without a token")],
        )
    return key


Answer = tuple[int, Any]
"""Status and body (anything that JSON can hold) of an answer."""


WRITE_TIMEOUT_S = 1.9
"""A write that the database does not answer in this time is answered 503: the caller sends it again."""


async def write_once(
    db: Database,
    actor: Actor,
    key: str | None,
    body: bytes,
    what: str,
    work: Callable[[Tx], Awaitable[Answer]],
    *,
    timeout_s: float = WRITE_TIMEOUT_S,
) -> Response:
    """Do a write in one transaction; with an Idempotency-Key, do it once and give a repeat the first answer again.

    `what` names the route, so that a key cannot be taken for another call's. Repeats that arrive together wait for
    the first one, less than two seconds.

    Raises
    ------
    Conflict
        The first one takes longer than that.
    Invalid
        The key was used with another body.
    TimeoutError
        The database takes longer than `timeout_s`; the runtime answers 503.
    """
    if key is None:
        async with asyncio.timeout(timeout_s), db.tx() as tx:
            status, answer = await work(tx)
        return json_answer(status, to_json(answer).encode())
    claim = KeyClaim.of(actor, key, body, what)
    owner, digest = claim.owner, claim.digest
    try:
        async with asyncio.timeout(timeout_s), db.tx() as tx:
            await tx.execute("SET LOCAL lock_timeout = '1500ms'")
            mine = await tx.fetchval(
                "INSERT INTO idempotency (actor, key, digest, made_at) VALUES ($1, $2, $3, $4) "
                "ON CONFLICT DO NOTHING RETURNING true",
                owner,
                key,
                digest,
                clock.now(),
            )
            await tx.execute("SET LOCAL lock_timeout = 0")
            if not mine:
                return await _again(tx, owner, key, digest)
            status, answer = await work(tx)
            content = to_json(answer).encode()
            await tx.execute(
                "UPDATE idempotency SET status = $3, answer = $4 WHERE actor = $1 AND key = $2",
                owner,
                key,
                status,
                content,
            )
    except asyncpg.LockNotAvailableError:
        raise Conflict("the same request is still being worked on; send it again in a moment") from None
    return json_answer(status, content)


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """An Idempotency-Key, whose it is, and a digest of what was sent with it."""

    owner: str
    key: str
    digest: bytes

    @classmethod
    def of(cls, actor: Actor, key: str, body: bytes, what: str) -> KeyClaim:
        """`what` names the route, so that a key cannot be taken for another call's."""
        # Keyed: a body may hold a telephone number, and a plain digest of one can be tried out.
        digest = hmac.new(vault.contact_key(), what.encode() + b"\x00" + body, hashlib.sha256).digest()
        # An anonymous key stands for its sender: a phone that changes its network is still the same sender.
        return cls("public" if actor.anonymous else actor.name, key, digest)

    @property
    def name(self) -> tuple[str, str]:
        return self.owner, self.key


async def claim_keys(tx: Tx, claims: Sequence[KeyClaim]) -> set[tuple[str, str]]:
    """Claim the keys of writes that share a transaction; returns those that nobody used before.

    Raises
    ------
    asyncpg.LockNotAvailableError
        One of them is being worked on elsewhere and is not free within 200 ms: the others must not wait for it.
    """
    if not claims:
        return set()
    # Sorted, so that two groups with the same keys in hand wait for one another instead of dead-locking.
    first = {claim.name: claim for claim in reversed(claims)}
    ordered = [first[name] for name in sorted(first)]
    await tx.execute("SET LOCAL lock_timeout = '200ms'")
    rows = await tx.fetch(
        "INSERT INTO idempotency (actor, key, digest, made_at) "
        "SELECT actor, key, digest, $4 FROM unnest($1::text[], $2::text[], $3::bytea[]) AS t(actor, key, digest) "
        "ON CONFLICT DO NOTHING RETURNING actor, key",
        [claim.owner for claim in ordered],
        [claim.key for claim in ordered],
        [claim.digest for claim in ordered],
        clock.now(),
    )
    await tx.execute("SET LOCAL lock_timeout = 0")
    return {(row["actor"], row["key"]) for row in rows}


async def keep_answers(tx: Tx, answers: Sequence[tuple[KeyClaim, int, Any]]) -> None:
    """Keep what claimed keys were answered, for their repeats: status and body."""
    if not answers:
        return
    await tx.execute(
        "UPDATE idempotency AS i SET status = t.status, answer = t.answer "
        "FROM unnest($1::text[], $2::text[], $3::integer[], $4::bytea[]) AS t(actor, key, status, answer) "
        "WHERE i.actor = t.actor AND i.key = t.key",
        [claim.owner for claim, _, _ in answers],
        [claim.key for claim, _, _ in answers],
        [status for _, status, _ in answers],
        [to_json(answer).encode() for _, _, answer in answers],
    )


async def _again(tx: Tx, owner: str, key: str, digest: bytes) -> Response:
    row = await tx.fetchrow("SELECT digest, status, answer FROM idempotency WHERE actor = $1 AND key = $2", owner, key)
    if row is None or row["status"] is None:
        raise Conflict("the same request is still being worked on; send it again in a moment")
    if row["digest"] != digest:
        raise Invalid(
            "this Idempotency-Key was used with another request",
            [Fault("header/Idempotency-Key", "used before with another body")],
        )
    return json_answer(row["status"], row["answer"])


async def forget_old_keys(tx: Tx) -> None:
    """Drop idempotency keys older than thirty days."""
    await tx.execute("DELETE FROM idempotency WHERE made_at < $1", clock.now() - KEY_KEPT)


def json_answer(status: int, content: bytes) -> Response:
    return Response(content, status, media_type="application/json")


def cursor_of(values: list[Any]) -> str:
    """An opaque cursor that says where the next page begins."""
    return base64.urlsafe_b64encode(to_json(values).encode()).decode().rstrip("=")


def from_cursor(cursor: str | None, length: int) -> list[Any] | None:
    """The values in a cursor that `cursor_of` made.

    Raises
    ------
    Invalid
        It is none of ours.
    """
    if not cursor:
        return None
    try:
        values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except ValueError:
        values = None
    if not isinstance(values, list) or len(values) != length:
        raise Invalid("the cursor is not one that was given out", [Fault("query/cursor", "unknown cursor")])
    return values


def next_link(request: Request, cursor: str | None) -> list[dict[str, str]]:
    """The `links` of a page: `rel: next` while there is more."""
    if cursor is None:
        return []
    return [{"rel": "next", "href": str(request.url.include_query_params(cursor=cursor))}]
