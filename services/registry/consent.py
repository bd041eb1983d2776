"""Consent: to what, in which words, given and withdrawn when and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any
from uuid import UUID

import yaml

from schemas.responders import ResponderConfirmed, ResponderState, ResponderWithdrawn
from services.registry.responder_rows import entry_of, lock_responders, responder_row, save
from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import Fault, Forbidden, Invalid

DISPATCH, SHARING = "dispatch", "sharing"


@dataclass(frozen=True, slots=True)
class Text:
    """One version of what is agreed to."""

    purpose: str
    version: str
    words: Mapping[str, str]


@cache
def texts() -> tuple[Text, ...]:
    """Every version of every text, the newest of a purpose last."""
    raw = yaml.safe_load((resources.files("services.registry") / "data" / "consent.yaml").read_text("utf-8"))
    return tuple(Text(row["purpose"], row["version"], {"id": row["id"], "en": row["en"]}) for row in raw)


@cache
def newest() -> Mapping[str, Text]:
    return {text.purpose: text for text in texts()}


async def give(tx: Tx, given: Sequence[tuple[UUID, str]], by: str) -> None:
    """Note these consents (responder, purpose) to the newest texts; one that stands already stays as it is."""
    if not given:
        return
    await tx.execute(
        "INSERT INTO consent (responder_id, purpose, version, given_at, given_by) "
        "SELECT *, $4::timestamptz, $5::text FROM unnest($1::uuid[], $2::text[], $3::text[]) ON CONFLICT DO NOTHING",
        [responder_id for responder_id, _ in given],
        [purpose for _, purpose in given],
        [newest()[purpose].version for _, purpose in given],
        clock.now(),
        by,
    )


async def settle(tx: Tx, actor: Actor, responder_id: UUID, purpose: str, *, given: bool) -> None:
    """Give or withdraw a consent, one's own or at a desk.

    Whoever withdraws `dispatch` is withdrawn: with that event nobody plans with them. Giving it again brings them back
    as they were confirmed before, by their code or by a desk.

    Raises
    ------
    NotFound, Forbidden, Invalid
    """
    if purpose not in newest():
        raise Invalid(f"there is no purpose {purpose}", [Fault("/purpose", "there is no such purpose")])
    if actor.role in ("auditor", "partner", "break_glass"):
        raise Forbidden("consent is one's own to give; a desk notes what a person says")
    await responder_row(tx, responder_id, actor)
    row = (await lock_responders(tx, {responder_id}))[0]
    if given:
        await give(tx, [(responder_id, purpose)], actor.name)
    else:
        await tx.execute(
            "UPDATE consent SET withdrawn_at = $3, withdrawn_by = $4 "
            "WHERE responder_id = $1 AND purpose = $2 AND withdrawn_at IS NULL",
            responder_id,
            purpose,
            clock.now(),
            actor.name,
        )
    if purpose != DISPATCH:
        return
    entry = entry_of(row, actor.name)
    fields = {name: getattr(entry.state, name) for name in ResponderState.model_fields}
    model: type[ResponderState]
    if given and entry.state.status == "withdrawn":
        model, fields["status"], fields["reason"] = ResponderConfirmed, "confirmed", "consent given again"
    elif not given and entry.state.status != "withdrawn":
        model, fields["status"], fields["reason"] = ResponderWithdrawn, "withdrawn", "consent withdrawn"
    else:
        return
    await save(tx, [replace(entry, state=model(**fields))])


async def of(tx: Tx, responder_id: UUID) -> list[dict[str, Any]]:
    """All that somebody ever agreed to, the oldest first."""
    rows = await tx.fetch("SELECT * FROM consent WHERE responder_id = $1 ORDER BY given_at, purpose", responder_id)
    return [dict(row) for row in rows]
