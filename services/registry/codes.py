"""Codes by message: one for each number and day, guessed at most five times, kept as a keyed hash."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from services.runtime import clock, vault
from services.runtime.db import Tx
from services.runtime.problems import DomainError

LIVES = timedelta(days=1)
"""How long a code is good, and how long its number gets no other: whoever types it in, it rings once a day."""
MOST_TRIES = 5
USED_AGAIN = timedelta(minutes=10)
"""A right code may be sent again for so long: on a bad network the first answer is easily lost."""


class WrongCode(DomainError):
    """The code does not belong to this number, or it was tried too often, or it is too old. Which, is not told."""

    code = "wrong-code"
    status = 403
    title = "The code is not the right one"


@dataclass(frozen=True, slots=True)
class Addressee:
    """Somebody who is to get a code at the number that is sealed under their contact id."""

    responder_id: UUID
    contact_id: str
    language: str = "id"


@dataclass(frozen=True, slots=True)
class Sent:
    """A code on its way."""

    to: Addressee
    code: str


def new_code() -> str:
    return f"{secrets.randbelow(1_000_000):06d}"


def _digest(contact_id: str, code: str) -> bytes:
    return hmac.new(vault.token_key(), f"code:{contact_id}:{code}".encode(), hashlib.sha256).digest()


async def issue(tx: Tx, people: Sequence[Addressee]) -> list[Sent]:
    """A new code for each number that got none within a day; for the others the old one still stands."""
    once = {person.contact_id: person for person in people}
    if not once:
        return []
    ordered = [once[contact] for contact in sorted(once)]
    codes = {person.contact_id: new_code() for person in ordered}
    now = clock.now()
    rows = await tx.fetch(
        """
        INSERT INTO code (contact_id, responder_id, digest, sent_at)
        SELECT *, $4::timestamptz FROM unnest($1::text[], $2::uuid[], $3::bytea[])
        ON CONFLICT (contact_id) DO UPDATE
            SET responder_id = excluded.responder_id, digest = excluded.digest, tries = 0, sent_at = excluded.sent_at,
                used_at = NULL
            WHERE code.sent_at <= $5
        RETURNING contact_id
        """,
        [person.contact_id for person in ordered],
        [person.responder_id for person in ordered],
        [_digest(person.contact_id, codes[person.contact_id]) for person in ordered],
        now,
        now - LIVES,
    )
    return [Sent(once[row["contact_id"]], codes[row["contact_id"]]) for row in rows]


async def redeem(tx: Tx, contact_id: str, code: str) -> bool:
    """Whether this is the number's code. A wrong guess is counted, so the caller must let the transaction commit."""
    row = await tx.fetchrow("SELECT * FROM code WHERE contact_id = $1 FOR UPDATE", contact_id)
    now = clock.now()
    if row is None or row["sent_at"] <= now - LIVES or row["tries"] >= MOST_TRIES:
        return False
    if row["used_at"] is not None and row["used_at"] <= now - USED_AGAIN:
        return False
    if not hmac.compare_digest(row["digest"], _digest(contact_id, code)):
        await tx.execute("UPDATE code SET tries = tries + 1 WHERE contact_id = $1", contact_id)
        return False
    await tx.execute("UPDATE code SET used_at = coalesce(used_at, $2) WHERE contact_id = $1", contact_id, now)
    return True
