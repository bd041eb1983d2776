"""Offers: asking, taking back, and a no. Their needs are held by whoever calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from schemas.offers import OfferState
from services.matching import domain
from services.matching.actions import Held, NeedMet, OfferOver, hold_one, offer_event, put_back
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Row, Tx, to_json
from services.runtime.ids import uuid7
from services.runtime.problems import Conflict, DomainError, NotFound


@dataclass(frozen=True, slots=True)
class Ask:
    """An offer to be made: exactly one of `responder_id` and `lot_id`. `start`, `end`: when a yes takes a person up."""

    need_id: UUID
    responder_id: UUID | None
    lot_id: UUID | None
    organisation: str | None
    quantity: int
    start: datetime
    end: datetime
    distance_km: float | None = None
    cost: int | None = None
    parts: dict[str, int] | None = None
    arrives_at: datetime | None = None
    extra: bool = False
    why: dict[str, Any] | None = None


async def make_offers(
    tx: Tx, held: dict[UUID, Held], asks: Sequence[Ask], *, by: str, reason: str | None, settings: MatchingSettings
) -> list[UUID]:
    """Ask all of these, whose needs are held and responders and lots locked; returns the offers' ids."""
    now = clock.now()
    rows: list[dict[str, Any]] = []
    for ask in asks:
        need = held[ask.need_id].row
        rows.append(
            {
                "offer_id": uuid7(),
                "need_id": ask.need_id,
                "operation": need["operation"],
                "exercise": need["exercise"],
                "responder_id": ask.responder_id,
                "lot_id": ask.lot_id,
                "organisation": ask.organisation,
                "quantity": ask.quantity,
                "window_start": need["window_start"],
                "window_end": need["window_end"],
                "lower": ask.start,
                "upper": ask.end,
                "made_at": now,
                "expires_at": domain.offer_expires_at(
                    now, need["severity"], need["window_end"], settings.offer_minutes
                ),
                "distance_km": ask.distance_km,
                "cost": ask.cost,
                "parts": ask.parts,
                "arrives_at": ask.arrives_at,
                "extra": ask.extra,
                "why": ask.why,
                "by": by,
                "reason": reason,
            }
        )
    await tx.execute(
        """
        INSERT INTO offer (offer_id, need_id, operation, exercise, responder_id, lot_id, organisation, quantity, state,
                           window_start, window_end, period, made_at, expires_at, distance_km, cost, parts, arrives_at,
                           extra, why, by, reason)
        SELECT offer_id, need_id, operation, exercise, responder_id, lot_id, organisation, quantity, 'made',
               window_start, window_end, tstzrange(lower, upper), made_at, expires_at, distance_km, cost, parts,
               arrives_at, extra, why, by, reason
        FROM jsonb_to_recordset($1::jsonb) AS t(
            offer_id uuid, need_id uuid, operation text, exercise boolean, responder_id uuid, lot_id uuid,
            organisation text, quantity integer, window_start timestamptz, window_end timestamptz, lower timestamptz,
            upper timestamptz, made_at timestamptz, expires_at timestamptz, distance_km double precision, cost integer,
            parts jsonb, arrives_at timestamptz, extra boolean, why jsonb, by text, reason text)
        """,
        to_json(rows),
    )
    asked: dict[UUID, int] = {}
    for row in rows:
        about = held[row["need_id"]]
        about.events.append(offer_event(row, about.row, state="made", by=by, reason=reason))
        asked[about.need_id] = asked.get(about.need_id, 0) + row["quantity"]
    for need_id, quantity in asked.items():
        held[need_id].move("offer made", asked=quantity)
    return [row["offer_id"] for row in rows]


async def close_offers(
    tx: Tx,
    held: dict[UUID, Held],
    offers: Sequence[Row],
    state: Literal["declined", "expired", "withdrawn"],
    *,
    by: str,
    reason: str | None = None,
    **more: Any,
) -> None:
    """End these open offers, whose needs are held, without a yes; `more`: what only that event has."""
    if not offers:
        return
    await tx.execute(
        "UPDATE offer SET state = $2, by = $3, reason = $4 WHERE offer_id = ANY($1)",
        [offer["offer_id"] for offer in offers],
        state,
        by,
        reason,
    )
    if state != "withdrawn":
        await _count_noes(tx, [offer["responder_id"] for offer in offers if offer["responder_id"]])
    asked: dict[UUID, int] = {}
    for offer in offers:
        need = held[offer["need_id"]]
        need.touched.append((offer["responder_id"] or offer["lot_id"], 0))
        need.events.append(offer_event(offer, need.row, state=state, by=by, reason=reason, **more))
        asked[need.need_id] = asked.get(need.need_id, 0) + offer["quantity"]
    for need_id, quantity in asked.items():
        held[need_id].move(f"offer {state}", asked=-quantity)


async def _count_noes(tx: Tx, responder_ids: Sequence[UUID]) -> None:
    """Note for the chance of their yes that these said no, or nothing."""
    await tx.execute(
        "UPDATE responder AS r SET said_no = r.said_no + t.times FROM ("
        "SELECT l.responder_id, count(*) AS times FROM unnest($1::uuid[]) AS a(responder_id) JOIN ("
        "SELECT responder_id FROM responder WHERE responder_id = ANY($1) ORDER BY responder_id FOR NO KEY UPDATE"
        ") AS l USING (responder_id) GROUP BY 1) AS t WHERE r.responder_id = t.responder_id",
        responder_ids,
    )


async def open_offers(tx: Tx, need_ids: Iterable[UUID]) -> list[Row]:
    """The open offers of these needs, oldest first."""
    return await tx.fetch(
        "SELECT * FROM offer WHERE need_id = ANY($1) AND state = 'made' ORDER BY offer_id", list(need_ids)
    )


async def withdraw_if_met(tx: Tx, need: Held, by: str) -> None:
    """A met need asks nobody any more."""
    if need.ledger.left == 0 and need.ledger.asked:
        rest = await open_offers(tx, [need.need_id])
        await close_offers(tx, {need.need_id: need}, rest, "withdrawn", by=by, reason="the need is met")


async def remember_refusal(
    tx: Tx, need_id: UUID, source_ids: Sequence[UUID], cause: str, settings: MatchingSettings
) -> None:
    """Do not ask them again about this need for a while."""
    await tx.execute(
        """
        INSERT INTO refusal AS r (need_id, source_id, cause, until)
        SELECT $1, source_id, $3, $4 FROM unnest($2::uuid[]) AS t(source_id)
        ON CONFLICT (need_id, source_id) DO UPDATE SET cause = excluded.cause, until = greatest(r.until, excluded.until)
        """,
        need_id,
        sorted(set(source_ids)),
        cause,
        clock.now() + timedelta(hours=settings.cooldown_hours(cause)),
    )


async def offer_with_need(tx: Tx, offer_id: UUID) -> tuple[Row, Held]:
    """The offer, read after its need was locked."""
    need_id = await tx.fetchval("SELECT need_id FROM offer WHERE offer_id = $1", offer_id)
    if need_id is None:
        raise NotFound(f"the offer {offer_id} is not known here")
    need = await hold_one(tx, need_id)
    offer = await tx.fetchrow("SELECT * FROM offer WHERE offer_id = $1", offer_id)
    assert offer is not None
    return offer, need


def not_open(offer: Row, need: Held) -> DomainError:
    """What to answer when an offer is closed already."""
    if offer["state"] == "withdrawn" and need.ledger.left == 0:
        return NeedMet("the need is met or withdrawn", left=0)
    said = {
        "declined": "the offer was declined",
        "expired": "the offer was not answered in time",
        "withdrawn": f"the offer was withdrawn: {offer['reason'] or 'it is planned otherwise'}",
    }
    return OfferOver(said[offer["state"]])


async def assignment_with_need(tx: Tx, offer_id: UUID) -> tuple[Row, Held]:
    offer, need = await offer_with_need(tx, offer_id)
    row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", offer_id)
    if row is None:
        raise Conflict(f"the offer was not accepted; it is {offer['state']}")
    return row, need


async def decline(tx: Tx, offer_id: UUID, reason: str | None, *, by: str, settings: MatchingSettings) -> OfferState:
    """Take a no; the same no again changes nothing.

    Raises
    ------
    NotFound, NeedMet, OfferOver
        It is unknown or was closed otherwise.
    Conflict
        It was accepted.
    """
    offer, need = await offer_with_need(tx, offer_id)
    if offer["state"] == "declined":
        return offer_event(offer, need.row, state="declined", by=offer["by"], reason=offer["reason"])
    if offer["state"] == "accepted":
        raise Conflict("the offer was accepted; abandon the assignment instead")
    if offer["state"] != "made":
        raise not_open(offer, need)
    await close_offers(tx, {need.need_id: need}, [offer], "declined", by=by, reason=reason)
    source = offer["responder_id"] or offer["lot_id"]
    await remember_refusal(tx, need.need_id, [source], "declined", settings)
    await put_back(tx, [need])
    return offer_event(offer, need.row, state="declined", by=by, reason=reason)
