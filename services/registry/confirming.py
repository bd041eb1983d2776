"""How somebody is confirmed, and how what they say of themselves is checked or taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from schemas.responders import Certificate, ResponderConfirmed, ResponderState, ResponderUpdated, Skill
from services.registry import cards, codes, proof
from services.registry.actions import Outcome, masked
from services.registry.bodies import CardSeen, CheckOrder
from services.registry.codes import Addressee
from services.registry.responder_rows import Entry, entry_of, lock_responders, responder_row, save
from services.registry.responder_writes import checked, limits_of, refuse_readers, send_codes
from services.runtime import auth, clock, vault
from services.runtime.auth import Actor
from services.runtime.db import Database, Tx
from services.runtime.problems import Fault, Invalid, NotFound

TOKEN_DAYS = 90
MOST_REVOKED = 20
"""Revoked certificates that a responder's event still names, the newest."""


async def confirm_by_code(tx: Tx, responder_id: UUID, code: str) -> str | None:
    """A token for whoever has the code of this responder's number, who is confirmed by it; None: it is not the code.

    The caller commits in either case: a wrong guess counts. Nothing is told of whether the responder exists.
    """
    contact = await tx.fetchval("SELECT contact_id FROM responder WHERE responder_id = $1", responder_id)
    return await _redeemed(tx, responder_id, contact, code) if contact else None


async def confirm_by_number(tx: Tx, phone: str, code: str) -> tuple[UUID, str] | None:
    """As `confirm_by_code`, for whoever knows their number and not their id."""
    contact = vault.contact_id(phone)
    responder_id = await tx.fetchval("SELECT responder_id FROM known_as WHERE key = $1", contact)
    token = await _redeemed(tx, responder_id, contact, code) if responder_id else None
    return (responder_id, token) if responder_id and token else None


async def _redeemed(tx: Tx, responder_id: UUID, contact: str, code: str) -> str | None:
    rows = await lock_responders(tx, {responder_id})
    if not rows or rows[0]["contact_id"] != contact or not await codes.redeem(tx, contact, code):
        return None
    by = f"responder:{responder_id}"
    await confirm(tx, [entry_of(rows[0], by)], by, "code by message")
    return auth.sign("responder", str(responder_id), hours=TOKEN_DAYS * 24)


async def confirm(tx: Tx, entries: Sequence[Entry], by: str, reason: str) -> None:
    """Say that these are who they say they are. What they claim of themselves stays claimed; those who are confirmed
    already, or have withdrawn, stay as they are."""
    await save(
        tx,
        [
            replace(entry, state=_as(ResponderConfirmed, entry.state, by, reason, status="confirmed"))
            for entry in entries
            if entry.state.status == "unconfirmed"
        ],
    )


def _as(
    model: type[ResponderState], state: ResponderState, by: str, reason: str | None, **changes: object
) -> ResponderState:
    fields = {name: getattr(state, name) for name in ResponderState.model_fields}
    return model(**fields | changes | {"by": by, "reason": reason})


async def send_session_code(tx: Tx, phone: str) -> None:
    """Send a code to a number that is somebody's; for any other nothing happens, and nobody can tell which it was."""
    contact = vault.contact_id(phone)
    row = await tx.fetchrow(
        "SELECT r.responder_id, r.profile ->> 'language' AS language FROM known_as AS k "
        "JOIN responder AS r USING (responder_id) WHERE k.key = $1",
        contact,
    )
    if row is not None:
        await send_codes(tx, [(Addressee(row["responder_id"], contact, row["language"] or "id"), phone)])


async def confirm_cards(tx: Tx, actor: Actor, seen: Sequence[CardSeen]) -> list[Outcome]:
    """Confirm those whose cards a desk has seen, perhaps offline hours ago. Sent again, a card changes nothing."""
    now = clock.now()
    found: list[UUID | Invalid] = []
    for one in seen:
        try:
            # A desk's clock that is ahead must not make a card good for longer.
            found.append(cards.responder_of(one.card, min(one.seen_at or now, now)))
        except cards.BadCard as error:
            found.append(Invalid(str(error), [Fault("/card", str(error))]))
    rows = await lock_responders(tx, {one for one in found if isinstance(one, UUID)})
    entries = {row["responder_id"]: entry_of(row, actor.name) for row in rows if row["erased_at"] is None}
    outcomes: list[Outcome] = []
    fresh: dict[UUID, Entry] = {}
    for who in found:
        if isinstance(who, Invalid):
            outcomes.append(Outcome("refused", error=who))
        elif who not in entries:
            outcomes.append(Outcome("refused", error=NotFound("this responder is not known any more")))
        elif who in fresh or entries[who].state.status != "unconfirmed":
            status = "confirmed" if who in fresh else entries[who].state.status
            outcomes.append(Outcome("repeated", who, status))
        else:
            fresh[who] = entries[who]
            outcomes.append(Outcome("updated", who, "confirmed"))
    await confirm(tx, list(fresh.values()), actor.name, "card seen at a desk")
    return outcomes


async def check_responder(tx: Tx, actor: Actor, responder_id: UUID, order: CheckOrder) -> ResponderState:
    """Say that an organisation has checked what somebody claims: from then on it counts.

    Raises
    ------
    NotFound, Forbidden
    Invalid
        Something that is named is not for this organisation to check.
    """
    await responder_row(tx, responder_id, actor, or_nobodys=True)
    row = (await lock_responders(tx, {responder_id}))[0]
    there = entry_of(row, by=actor.name)
    before = there.state
    limits = await limits_of(tx, actor.organisation) if actor.role == "partner" else None
    for name, words in (
        ("skills", [one.skill for one in order.skills or ()]),
        ("certificates", [one.code for one in order.certificates or ()]),
    ):
        for index, word in enumerate(words):
            if not proof.may_check(word, limits):
                reason = f"{word} is not for {actor.organisation} to check"
                raise Invalid(reason, [Fault(f"/{name}/{index}", reason)])
    fields = {name: getattr(before, name) for name in ResponderState.model_fields}
    every = checked(fields, actor.name, limits)
    changes: dict[str, object] = {}
    if order.skills is None:
        changes |= {name: every[name] for name in ("skills", "claimed_skills")}
    else:
        chosen = [Skill(skill=one.skill, level=one.level) for one in order.skills]
        skills, claimed = proof.check(before.skills, before.claimed_skills, chosen, actor.name, limits)
        changes |= {"skills": skills, "claimed_skills": claimed}
    if order.certificates is None:
        changes |= {name: every[name] for name in ("certificates", "claimed_certificates")}
    else:
        seen = [
            Certificate(**one.model_dump(exclude={"issuer"}), issuer=masked(one.issuer), verified_by=actor.name)
            for one in order.certificates
        ]
        held = {one.code: one for one in before.certificates} | {one.code: one for one in seen}
        changes["certificates"] = tuple(held.values())
        changes["claimed_certificates"] = tuple(
            one for one in before.claimed_certificates if one.code not in {paper.code for paper in seen}
        )
    after = _as(ResponderUpdated, before, actor.name, masked(order.reason) or "checked", **changes)
    if any(getattr(before, name) != value for name, value in changes.items()):
        await save(tx, [replace(there, state=after)])
    return after


async def revoke_certificate(tx: Tx, actor: Actor, responder_id: UUID, code: str, reason: str) -> ResponderState:
    """Take a certificate back: with this one event nobody plans with it any more.

    Raises
    ------
    NotFound, Forbidden
    """
    refuse_readers(actor)
    await responder_row(tx, responder_id, actor, or_nobodys=True)
    row = (await lock_responders(tx, {responder_id}))[0]
    there = entry_of(row, by=actor.name)
    before = there.state
    gone = [one for one in (*before.certificates, *before.claimed_certificates) if one.code == code]
    if not gone:
        raise NotFound(f"this responder has no certificate {code}")
    now = clock.now()
    revoked = tuple(one.model_copy(update={"revoked_at": now}) for one in gone)
    after = _as(
        ResponderUpdated,
        before,
        actor.name,
        masked(reason),
        certificates=tuple(one for one in before.certificates if one.code != code),
        claimed_certificates=tuple(one for one in before.claimed_certificates if one.code != code),
        revoked_certificates=(*before.revoked_certificates, *revoked)[-MOST_REVOKED:],
    )
    await save(tx, [replace(there, state=after)])
    return after


async def renew_windows(db: Database, stopping: asyncio.Event) -> None:
    """Work out recurring hours and the like anew in good time, until told to stop."""
    while not stopping.is_set():
        async with db.tx() as tx:
            renewed = await renew(tx)
        if not renewed:
            try:
                async with asyncio.timeout(60):
                    await stopping.wait()
            except TimeoutError:
                continue


async def renew(tx: Tx, most: int = 500) -> int:
    """Tell anew of those whose windows are to be worked out again; returns how many."""
    rows = await tx.fetch(
        "SELECT * FROM responder WHERE renew_at <= $1 AND erased_at IS NULL ORDER BY renew_at LIMIT $2 "
        "FOR UPDATE SKIP LOCKED",
        clock.now() + timedelta(seconds=1),
        most,
    )
    by = "system:registry"
    entries = [entry_of(row, by) for row in rows]
    await save(tx, [replace(entry, state=_as(ResponderUpdated, entry.state, by, "hours ahead")) for entry in entries])
    return len(rows)
