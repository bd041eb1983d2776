"""How skills grow: by confirmed work, which they cite, and by a community leader's word, within limits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from schemas.assignments import AssignmentConfirmed
from schemas.responders import ResponderState, ResponderUpdated, Skill
from services.registry.actions import masked
from services.registry.bodies import VouchOrder
from services.registry.domain import earned_level, vouchable
from services.registry.responder_rows import Entry, entry_of, lock_responders, save
from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import Conflict, Fault, Forbidden, NotFound

MOST_CITED = 5
MOST_VOUCHES = 20
VOUCHES_WITHIN = timedelta(days=30)


async def take_work(tx: Tx, events: Sequence[AssignmentConfirmed]) -> None:
    """Note confirmed assignments, once each, and let the skills that they proved grow. A drill proves nothing."""
    done = {event.assignment_id: event for event in events if event.responder_id and event.skill and not event.exercise}
    people = {event.responder_id for event in done.values() if event.responder_id}
    rows = await lock_responders(tx, people)
    await tx.execute(
        "INSERT INTO work (assignment_id, responder_id, skill, operation, started_at, ended_at) "
        "SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[]) "
        "ON CONFLICT DO NOTHING",
        list(done),
        [event.responder_id for event in done.values()],
        [event.skill for event in done.values()],
        [event.operation for event in done.values()],
        [event.period.start for event in done.values()],
        [event.period.end for event in done.values()],
    )
    grown = []
    for row in rows:
        if row["erased_at"] is None:
            worked = {event.skill for event in done.values() if event.responder_id == row["responder_id"]}
            grown += await _grown(tx, entry_of(row, "system:registry"), {skill for skill in worked if skill})
    await save(tx, grown)


async def _grown(tx: Tx, entry: Entry, worked: Collection[str]) -> list[Entry]:
    skills = []
    for skill in entry.state.skills:
        if skill.skill in worked:
            rows = await tx.fetch(
                "SELECT assignment_id FROM work WHERE responder_id = $1 AND skill = $2 "
                "ORDER BY ended_at DESC, assignment_id",
                entry.state.responder_id,
                skill.skill,
            )
            level = earned_level(skill.skill, skill.level, len(rows))
            cites = tuple(row["assignment_id"] for row in rows[:MOST_CITED])
            told = {"level": level, "cites": cites} | ({"basis": "earned", "by": None} if level > skill.level else {})
            skill = skill.model_copy(update=told)
        skills.append(skill)
    if tuple(skills) == entry.state.skills:
        return []
    return [replace(entry, state=_told(entry.state, tuple(skills), "system:registry", "confirmed work"))]


def _told(state: ResponderState, skills: tuple[Skill, ...], by: str, reason: str | None) -> ResponderState:
    fields = {name: getattr(state, name) for name in ResponderState.model_fields}
    return ResponderUpdated(**fields | {"skills": skills, "by": by, "reason": reason})


async def vouch(tx: Tx, actor: Actor, responder_id: UUID, order: VouchOrder) -> None:
    """Say of a neighbour that they can do something: low-risk skills up to level 2, twenty times in thirty days.

    Raises
    ------
    Forbidden
        The actor is no community leader, or vouches for themselves, or for what only an organisation may check.
    NotFound, Conflict
    """
    leader_id = UUID(actor.subject)
    rows = {row["responder_id"]: row for row in await lock_responders(tx, {leader_id, responder_id})}
    leader, row = rows.get(leader_id), rows.get(responder_id)
    if leader is None or not leader["leader"] or leader["status"] != "confirmed":
        raise Forbidden("only a community leader whom a desk has named vouches for others")
    if leader_id == responder_id:
        raise Forbidden("nobody vouches for themselves")
    if row is None or row["erased_at"] is not None:
        raise NotFound(f"there is no responder {responder_id}")
    if not vouchable(order.skill, order.level):
        raise Forbidden("this is for an organisation to check", [Fault("/skill", "low-risk skills up to level 2 only")])
    now = clock.now()
    since = now - VOUCHES_WITHIN
    if await tx.fetchval("SELECT count(*) FROM vouch WHERE leader = $1 AND at > $2", leader_id, since) >= MOST_VOUCHES:
        raise Conflict(f"you have vouched {MOST_VOUCHES} times within {VOUCHES_WITHIN.days} days; ask a desk for more")
    await tx.execute(
        "INSERT INTO vouch (leader, responder_id, skill, at, reason) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT DO NOTHING",
        leader_id,
        responder_id,
        order.skill,
        now,
        masked(order.reason),
    )
    entry = entry_of(row, actor.name)
    held = {skill.skill: skill for skill in entry.state.skills}
    before = held.get(order.skill)
    if before is not None and before.level >= order.level and before.basis != "claimed":
        return
    level = max(order.level, before.level if before else 1)
    held[order.skill] = Skill(skill=order.skill, level=level, basis="vouched", by=actor.name)
    state = _told(entry.state, tuple(held.values()), actor.name, masked(order.reason))
    await save(tx, [replace(entry, state=state)])
