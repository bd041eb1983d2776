"""Silence, carried further: questions that nobody answers, and promises of which nothing is heard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from schemas.assignments import AssignmentOverdue
from schemas.event import Event
from services.matching import actions, domain, offer_writes
from services.matching.actions import Held
from services.matching.domain import ACTIVE
from services.matching.settings import MatchingSettings
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx

# ---------------------------------------------------------------------------------------------------------- questions
NEAREST = 500
"""So many of a silent organisation are passed over for a need, the nearest: whoever is next is then of another."""

UNANSWERED = {
    "person": "not answered in time; the next best is asked",
    "organisation": "not answered in time, as by others of this organisation; another one is asked",
    "dispatcher": "not answered in time by anybody asked so far; the dispatcher should decide",
}
"""Why an offer expired, by who is next."""


async def expire_offers(tx: Tx, *, limit: int, settings: MatchingSettings) -> int:
    """End offers whose time is over, and carry the question further: to the next person, to another organisation, to
    the dispatcher; returns how many ended."""
    now = clock.now()
    due = await tx.fetch(
        "SELECT DISTINCT need_id FROM (SELECT need_id FROM offer WHERE state = 'made' AND expires_at <= $1 "
        "ORDER BY expires_at LIMIT $2) AS t",
        now,
        limit,
    )
    if not due:
        return 0
    held = await actions.hold(tx, [row["need_id"] for row in due])
    by_need: dict[UUID, list[Row]] = {}
    for offer in await offer_writes.open_offers(tx, held):
        if offer["expires_at"] <= now:
            by_need.setdefault(offer["need_id"], []).append(offer)
    # All at once and in order, as everybody locks them.
    await tx.execute(
        "SELECT 1 FROM responder WHERE responder_id = ANY($1) ORDER BY responder_id FOR NO KEY UPDATE",
        [offer["responder_id"] for offers in by_need.values() for offer in offers if offer["responder_id"]],
    )
    for need_id, offers in by_need.items():
        await _expire(tx, held, held[need_id], offers, settings)
    await actions.put_back(tx, held.values())
    return sum(len(offers) for offers in by_need.values())


async def _expire(
    tx: Tx, held: dict[UUID, Held], need: Held, offers: Sequence[Row], settings: MatchingSettings
) -> None:
    silent = await _silent(tx, need.need_id)
    for offer in offers:
        silent[offer["organisation"]] = silent.get(offer["organisation"], 0) + 1
    by_organisation: dict[str | None, list[Row]] = {}
    for offer in offers:
        by_organisation.setdefault(offer["organisation"], []).append(offer)
    for organisation, some in by_organisation.items():
        others = organisation is not None and await _others_could(tx, need, organisation)
        level = domain.next_to_ask(
            sum(silent.values()),
            silent[organisation],
            others=others,
            most_of_one=settings.silent_of_one,
            # Those who were asked together with the last say no more than one of them would.
            most_in_all=settings.silent_in_all + len(offers) - 1,
        )
        await offer_writes.close_offers(
            tx, held, some, "expired", by="system:timer", reason=UNANSWERED[level], next_asked=level
        )
        sources = [offer["responder_id"] or offer["lot_id"] for offer in some]
        await offer_writes.remember_refusal(tx, need.need_id, sources, "expired", settings)
        if others and silent[organisation] >= settings.silent_of_one:
            assert organisation is not None
            await _pass_over(tx, need, organisation, settings)


async def _silent(tx: Tx, need_id: UUID) -> dict[str | None, int]:
    """How many questions about a need nobody answered, by organisation, since somebody last said yes to one."""
    rows = await tx.fetch(
        "SELECT organisation, count(*) AS times FROM offer WHERE need_id = $1 AND state = 'expired' AND made_at > "
        "coalesce((SELECT max(made_at) FROM assignment WHERE need_id = $1), '-infinity') GROUP BY organisation",
        need_id,
    )
    return {row["organisation"]: row["times"] for row in rows}


# Roughly who could come: the planner looks closer. $1 need, $2 skill or item, $3 level, $4 lon, $5 lat, $6 exercise.
_COULD = {
    "skill": """
        SELECT responder_id AS source_id, organisation, lon, lat FROM responder
        WHERE status = 'confirmed' AND lon IS NOT NULL AND (NOT exercise OR $6)
          AND coalesce((skills ->> $2)::integer, -1) >= $3
          AND 111.2 * sqrt((lat - $5) ^ 2 + ((lon - $4) * cos(radians($5))) ^ 2) <= travel_limit_km
    """,
    "item": """
        SELECT lot_id AS source_id, organisation, lon, lat FROM lot
        WHERE status = 'available' AND lon IS NOT NULL AND exercise = $6 AND item = $2 AND $3 >= 0
          AND quantity > reserved + given
          AND 111.2 * sqrt((lat - $5) ^ 2 + ((lon - $4) * cos(radians($5))) ^ 2) <= delivery_limit_km
    """,
}
_NOT_ASKED = """
    NOT EXISTS (SELECT 1 FROM refusal AS r WHERE r.need_id = $1 AND r.source_id = t.source_id AND r.until > $7)
    AND NOT EXISTS (SELECT 1 FROM offer AS o WHERE o.need_id = $1 AND o.state = 'made'
                    AND coalesce(o.responder_id, o.lot_id) = t.source_id)
"""


def _about(need: Held) -> tuple[UUID, str, int, float, float, bool, datetime]:
    row = need.row
    return (
        need.need_id, row["item"] or row["skill"], row["level"], row["lon"] or 0.0, row["lat"] or 0.0, row["exercise"],
        clock.now(),
    )  # fmt: skip


async def _others_could(tx: Tx, need: Held, organisation: str) -> bool:
    """Whether somebody outside this organisation could be asked instead."""
    could = _COULD["item" if need.row["item"] else "skill"]
    return bool(
        await tx.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM ({could}) AS t WHERE organisation IS DISTINCT FROM $8 AND {_NOT_ASKED})",
            *_about(need),
            organisation,
        )
    )


async def _pass_over(tx: Tx, need: Held, organisation: str, settings: MatchingSettings) -> None:
    """Do not ask others of this organisation about the need for a while, except who is under question already."""
    could = _COULD["item" if need.row["item"] else "skill"]
    await tx.execute(
        f"INSERT INTO refusal (need_id, source_id, cause, until) SELECT $1, source_id, 'expired', $9 "
        f"FROM ({could}) AS t WHERE organisation = $8 AND {_NOT_ASKED} "
        f"ORDER BY (lat - $5) ^ 2 + ((lon - $4) * cos(radians($5))) ^ 2, source_id LIMIT {NEAREST} "
        "ON CONFLICT (need_id, source_id) DO UPDATE SET cause = excluded.cause, until = excluded.until",
        *_about(need),
        organisation,
        clock.now() + timedelta(hours=settings.cooldown_hours("expired")),
    )


# ----------------------------------------------------------------------------------------------------------- promises
SILENT = ("nobody has said anything of it", "their organisation should ask", "the dispatcher should decide")


async def ask_after_silent(tx: Tx, *, limit: int) -> int:
    """Carry the silence of assignments one level further: to the holder, to their organisation, to the dispatcher;
    returns how many."""
    now = clock.now()
    due = await tx.fetch(
        "SELECT assignment_id, need_id FROM assignment WHERE state = ANY($1) AND check_at <= $2 "
        "ORDER BY check_at LIMIT $3",
        list(ACTIVE),
        now,
        limit,
    )
    if not due:
        return 0
    held = await actions.hold(tx, {row["need_id"] for row in due})
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE assignment_id = ANY($1) AND state = ANY($2) AND check_at <= $3 "
        "ORDER BY assignment_id",
        [row["assignment_id"] for row in due],
        list(ACTIVE),
        now,
    )
    events: list[Event] = []
    for row in rows:
        need = held[row["need_id"]]
        level = row["overdue"] + 1
        # Without an organisation there is nobody between the holder and the dispatcher.
        level = 3 if level == 2 and row["organisation"] is None else level
        last = level == 3
        await tx.execute(
            "UPDATE assignment SET overdue = $2, check_at = $3 WHERE assignment_id = $1",
            row["assignment_id"],
            level,
            None
            if last
            else domain.word_due_at("started", now, (now, now), need.row["severity"], MatchingSettings().check_minutes),
        )
        said = actions.assignment_event(row, need.row, by="system:timer", reason=SILENT[level - 1])
        events.append(
            AssignmentOverdue(
                **said.model_dump(exclude={"meta"}),
                level=level,
                due_at=row["check_at"],
                heard_at=row["heard_at"] or row["made_at"],
            )
        )
    await outbox.append(tx, events)
    return len(rows)
