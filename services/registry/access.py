"""The log of who looked at whose name, number or home, and why. A break-glass look is told out loud."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from prometheus_client import Counter

from services.registry.actions import masked
from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import Fault, Invalid

log = logging.getLogger(__name__)

OWN = "own profile"
SHORTEST, SHORTEST_BREAK_GLASS = 3, 20
_BROKEN = Counter("gotong_break_glass", "Contact data seen by the break-glass role")


async def note(tx: Tx, actor: Actor, people: Sequence[UUID], reason: str | None) -> None:
    """Write down that an actor sees the contact data of these people; in the transaction that reads them.

    Raises
    ------
    Invalid
        There is no reason, or one that is too short for a broken glass.
    """
    glass = actor.role == "break_glass"
    if actor.role == "responder":
        reason = OWN
    said = (reason or "").strip()
    shortest = SHORTEST_BREAK_GLASS if glass else SHORTEST
    if len(said) < shortest:
        detail = f"say in at least {shortest} characters why contact data is needed"
        raise Invalid(detail, [Fault("query/reason", detail)])
    await tx.execute(
        "INSERT INTO access (at, actor, organisation, responder_id, reason, break_glass) "
        "SELECT $1::timestamptz, $2::text, $3::text, responder_id, $4::text, $5::boolean "
        "FROM unnest($6::uuid[]) AS responder_id",
        clock.now(),
        actor.name,
        actor.organisation,
        masked(said[:500]),
        glass,
        list(people),
    )
    if glass:
        _BROKEN.inc(len(people))
        log.warning("break-glass: %s saw the contact data of %d people", actor.name, len(people))
