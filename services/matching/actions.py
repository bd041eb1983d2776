"""The writes that HTTP, events, the planner and the timers cause.

Lock order everywhere: need rows by id, then responder rows, then lots. A need's row guards its ledger, its offers and
its assignments; a responder's guards against two promises at once, a lot's against promising it twice. Whoever wants
a need it does not hold yet after it holds a responder or a lot starts over (`_holding`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import asyncpg

from schemas.assignments import (
    AssignmentAbandoned,
    AssignmentArrived,
    AssignmentConfirmed,
    AssignmentDelivered,
    AssignmentMade,
    AssignmentReleaseRequested,
    AssignmentStarted,
    AssignmentState,
)
from schemas.event import Event
from schemas.ledger import LedgerChanged
from schemas.offers import OfferAccepted, OfferDeclined, OfferExpired, OfferMade, OfferState, OfferWithdrawn
from schemas.values import Period
from services.matching import domain
from services.matching.domain import ACTIVE, Ledger
from services.matching.settings import MatchingSettings
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, to_json
from services.runtime.ids import uuid7
from services.runtime.problems import Conflict, DomainError, Fault, Invalid, NotFound, NotKnownYet

PLANNER_CHANNEL = "matching_plan"
"""Notified, after the commit, by every change that may change the plan."""

_OFFERS: dict[str, type[OfferState]] = {
    "made": OfferMade,
    "accepted": OfferAccepted,
    "declined": OfferDeclined,
    "expired": OfferExpired,
    "withdrawn": OfferWithdrawn,
}
_ASSIGNMENTS: dict[str, type[AssignmentState]] = {
    "made": AssignmentMade,
    "started": AssignmentStarted,
    "arrived": AssignmentArrived,
    "delivered": AssignmentDelivered,
    "confirmed": AssignmentConfirmed,
    "abandoned": AssignmentAbandoned,
}
LEDGER = ("needed", "open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled", "asked")


class NeedMet(DomainError):
    """So much is not needed any more."""

    code, status, title = "need-met", 409, "The need is met"


class OfferOver(DomainError):
    """The offer was not answered in time, or is not made any more."""

    code, status, title = "offer-expired", 409, "The offer has ended"


class Busy(DomainError):
    """They are promised elsewhere at that time, or the stock is."""

    code, status, title = "busy", 409, "Already promised elsewhere"


# ------------------------------------------------------------------------------------------------------ needs in hand
@dataclass(slots=True)
class Held:
    """A need whose row this transaction has locked: as it was read, its ledger as it stands by now, and the events
    about it so far.

    `touched`: responders and lots whose time or stock changed with it, with the units of theirs that became a promise
    (0: none); for the planner's memory.
    """

    row: Row
    ledger: Ledger
    ahead: int
    events: list[Event] = field(default_factory=list)
    told: bool = False
    touched: list[tuple[UUID, int]] = field(default_factory=list)

    @classmethod
    def of(cls, row: Row) -> Held:
        ledger = Ledger(*(row[name] for name in LEDGER))
        return cls(row, ledger, row["ahead"])

    @property
    def need_id(self) -> UUID:
        need_id: UUID = self.row["need_id"]
        return need_id

    @property
    def declared(self) -> bool:
        """Whether it ever was."""
        return self.row["declared_at"] is not None

    def move(self, cause: str, **deltas: int) -> None:
        """Move so much in the ledger, settle it, and note the change for the ledger's topic."""
        row = domain.moved(self.ledger, **deltas) if deltas else self.ledger
        self.ledger = domain.settled(row, self.row["wanted"], self.row["status"], declared=self.declared)
        self.tell(cause)

    def tell(self, cause: str) -> None:
        """Say how the ledger stands now, on its topic."""
        self.told = True
        self.events.append(
            LedgerChanged(
                operation=self.row["operation"],
                exercise=self.row["exercise"],
                need_id=self.need_id,
                incident_id=self.row["incident_id"],
                item=self.row["item"],
                skill=self.row["skill"],
                unit=self.row["unit"],
                severity=self.row["severity"],
                admin=self.row["admin"],
                **{name: getattr(self.ledger, name) for name in LEDGER},
                sensitivity=self.row["sensitivity"],
                cause=cause,
            )
        )


async def hold(tx: Tx, need_ids: Iterable[UUID]) -> dict[UUID, Held]:
    """Lock these needs, in the order of their ids. What is not known is not in the answer."""
    rows = await tx.fetch(
        "SELECT * FROM need WHERE need_id = ANY($1) ORDER BY need_id FOR NO KEY UPDATE", sorted(set(need_ids))
    )
    return {row["need_id"]: Held.of(row) for row in rows}


async def hold_one(tx: Tx, need_id: UUID) -> Held:
    """Lock one need.

    Raises
    ------
    NotKnownYet
        It is not known here, or not yet.
    """
    held = (await hold(tx, [need_id])).get(need_id)
    if held is None:
        raise NotKnownYet(f"the need {need_id} is not known here")
    return held


async def put_back(tx: Tx, needs: Iterable[Held], *, replan: bool = True) -> None:
    """Write the ledgers of needs that moved, send what is to be said about them, and wake the planner.

    `replan` False: the planner itself made the change.
    """
    changed = [held for held in needs if held.told or held.events or held.ahead != held.row["ahead"]]
    if not changed:
        return
    columns = [[getattr(held.ledger, name) for held in changed] for name in LEDGER]
    await tx.execute(
        """
        UPDATE need SET needed = t.needed, open = t.open, offered = t.offered, committed = t.committed,
                        in_transit = t.in_transit, delivered = t.delivered, confirmed = t.confirmed,
                        cancelled = t.cancelled, asked = t.asked, ahead = t.ahead, version = need.version + 1
        FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::integer[],
                    $7::integer[], $8::integer[], $9::integer[], $10::bigint[], $11::integer[])
            AS t(need_id, needed, open, offered, committed, in_transit, delivered, confirmed, cancelled, asked, ahead)
        WHERE need.need_id = t.need_id
        """,
        [held.need_id for held in changed],
        *columns,
        [held.ahead for held in changed],
    )
    await say(tx, changed, replan=replan)


async def say(tx: Tx, needs: Iterable[Held], *, replan: bool = True) -> None:
    """Send what is to be said about needs whose rows are written, and wake the planner, as `put_back` does."""
    changed = list(needs)
    if not changed:
        return
    await outbox.append(tx, [event for held in changed for event in held.events])
    for held in changed:
        held.events = []
    if replan:
        await mark(
            tx,
            [
                change
                for held in changed
                for change in (
                    Change(held.row["exercise"], held.need_id),
                    *(Change(held.row["exercise"], held.need_id, *one) for one in held.touched),
                )
            ],
        )


@dataclass(frozen=True, slots=True)
class Change:
    """What the planner must look at again, in life or in drills. Neither need nor source: everything.

    `accepted`: so many of the source's units became a promise to the need.
    """

    exercise: bool
    need_id: UUID | None = None
    source_id: UUID | None = None
    accepted: int = 0


async def mark(tx: Tx, changes: Sequence[Change]) -> None:
    """Note changes for the planner, and wake it."""
    await tx.execute(
        "WITH added AS (INSERT INTO change (exercise, need_id, source_id, accepted) "
        "SELECT * FROM unnest($1::boolean[], $2::uuid[], $3::uuid[], $4::integer[])) SELECT pg_notify($5, '')",
        [change.exercise for change in changes],
        [change.need_id for change in changes],
        [change.source_id for change in changes],
        [change.accepted or None for change in changes],
        PLANNER_CHANNEL,
    )


# ------------------------------------------------------------------------------------------------------------- events
def offer_event(
    offer: Row | dict[str, Any], need: Row, *, state: str, by: str, reason: str | None, **more: Any
) -> OfferState:
    """The event that tells this offer's new state; `more`: what only that event has."""
    return _OFFERS[state](
        operation=offer["operation"],
        exercise=offer["exercise"],
        offer_id=offer["offer_id"],
        need_id=offer["need_id"],
        responder_id=offer["responder_id"],
        lot_id=offer["lot_id"],
        organisation=offer["organisation"],
        item=need["item"],
        skill=need["skill"],
        severity=need["severity"],
        quantity=offer["quantity"],
        state=state,
        window=Period(start=offer["window_start"], end=offer["window_end"]),
        expires_at=offer["expires_at"],
        distance_km=offer["distance_km"],
        cost=offer["cost"],
        sensitivity=need["sensitivity"],
        by=by,
        reason=reason,
        **more,
    )


def assignment_event(
    row: Row,
    need: Row,
    *,
    state: str | None = None,
    quantity: int | None = None,
    period: tuple[datetime, datetime] | None = None,
    by: str | None = None,
    reason: str | None = None,
) -> AssignmentState:
    """The event that tells how an assignment stands; what is not given is as the row has it."""
    state = state or row["state"]
    start, end = period or (row["period"].lower, row["period"].upper)
    return _ASSIGNMENTS[state](
        operation=row["operation"],
        exercise=row["exercise"],
        assignment_id=row["assignment_id"],
        need_id=row["need_id"],
        incident_id=need["incident_id"],
        responder_id=row["responder_id"],
        lot_id=row["lot_id"],
        organisation=row["organisation"],
        item=need["item"],
        skill=need["skill"],
        quantity=quantity or row["quantity"],
        state=state,
        period=Period(start=start, end=end),
        sensitivity=need["sensitivity"],
        by=by or row["by"],
        reason=reason or row["reason"],
    )


# ------------------------------------------------------------------------------------------------------------- offers
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


async def _withdraw_if_met(tx: Tx, need: Held, by: str) -> None:
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


async def _offer_with_need(tx: Tx, offer_id: UUID) -> tuple[Row, Held]:
    """The offer, read after its need was locked."""
    need_id = await tx.fetchval("SELECT need_id FROM offer WHERE offer_id = $1", offer_id)
    if need_id is None:
        raise NotFound(f"the offer {offer_id} is not known here")
    need = await hold_one(tx, need_id)
    offer = await tx.fetchrow("SELECT * FROM offer WHERE offer_id = $1", offer_id)
    assert offer is not None
    return offer, need


def _not_open(offer: Row, need: Held) -> DomainError:
    """What to answer when an offer is closed already."""
    if offer["state"] == "withdrawn" and need.ledger.left == 0:
        return NeedMet("the need is met or withdrawn", left=0)
    said = {
        "declined": "the offer was declined",
        "expired": "the offer was not answered in time",
        "withdrawn": f"the offer was withdrawn: {offer['reason'] or 'it is planned otherwise'}",
    }
    return OfferOver(said[offer["state"]])


# -------------------------------------------------------------------------------------------------------- assignments
async def accept(tx: Tx, offer_id: UUID, quantity: int | None, *, by: str) -> AssignmentState:
    """Turn a yes into an assignment of `quantity` (None: all that was asked). The same yes again changes nothing.

    Raises
    ------
    NotFound, NeedMet, OfferOver, Busy
        It is unknown; more than is left or was asked; closed; promised elsewhere.
    Conflict
        It was accepted before, for another quantity.
    """
    offer, need = await _offer_with_need(tx, offer_id)
    if offer["state"] == "accepted":
        row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", offer_id)
        assert row is not None
        if quantity is not None and quantity != offer["quantity"]:
            raise Conflict(f"the offer was accepted before, for {offer['quantity']}")
        return assignment_event(row, need.row)
    if offer["state"] != "made":
        raise _not_open(offer, need)
    now = clock.now()
    if offer["expires_at"] <= now:
        raise OfferOver("the offer was not answered in time")
    wanted = offer["quantity"] if quantity is None else quantity
    if wanted > offer["quantity"]:
        raise NeedMet(
            f"{offer['quantity']} were asked for, not {wanted}", left=min(offer["quantity"], need.ledger.left)
        )
    if not domain.assignable(need.ledger, wanted):
        raise NeedMet(f"{need.ledger.left} are still needed, not {wanted}", left=need.ledger.left)
    period = domain.taken_up(offer["period"].lower, offer["period"].upper, now)
    if period is None:
        raise OfferOver("the time for which it was asked is over")
    event = await _assign(tx, need, offer, wanted, period, by=by, reason=None, now=now)
    await _withdraw_if_met(tx, need, by)
    await put_back(tx, [need])
    return event


async def _assign(
    tx: Tx,
    need: Held,
    offer: Row,
    quantity: int,
    period: tuple[datetime, datetime],
    *,
    by: str,
    reason: str | None,
    now: datetime,
) -> AssignmentState:
    """Write the promise; the constraints decide whether it can be kept.

    Raises
    ------
    Busy
        The responder is promised elsewhere in that time, or the stock is.
    """
    if offer["responder_id"] is not None:
        # Two promises of one person queue here; without it each would wait for the other inside the constraint.
        # A dispatcher's own yes says nothing of theirs.
        await tx.execute(
            "UPDATE responder SET said_yes = said_yes + $2 WHERE responder_id = $1",
            offer["responder_id"],
            int(not reason),
        )
    else:
        await _reserve(tx, offer["lot_id"], offer["exercise"], quantity)
    try:
        async with tx.savepoint():
            row = await tx.fetchrow(
                """
                INSERT INTO assignment (assignment_id, need_id, operation, exercise, responder_id, lot_id, organisation,
                                        quantity, state, period, made_at, by, reason, heard_at, check_at)
                SELECT offer_id, need_id, operation, exercise, responder_id, lot_id, organisation,
                       $2, 'made', tstzrange($3, $4), $5, $6, $7, $5, $8
                FROM offer WHERE offer_id = $1 RETURNING *
                """,
                offer["offer_id"],
                quantity,
                *period,
                now,
                by,
                reason,
                _word_due(need, "made", now, period),
            )
    except asyncpg.ExclusionViolationError:
        raise Busy("the responder is in another assignment at that time") from None
    assert row is not None
    # The offer keeps what was accepted of it, so that the same yes can be told from another one.
    await tx.execute(
        "UPDATE offer SET state = 'accepted', quantity = $2, by = $3, reason = $4 WHERE offer_id = $1",
        offer["offer_id"],
        quantity,
        by,
        reason,
    )
    told = offer_event({**dict(offer), "quantity": quantity}, need.row, state="accepted", by=by, reason=reason)
    event = assignment_event(row, need.row)
    need.events += [told, event]
    need.touched.append((offer["responder_id"] or offer["lot_id"], quantity))
    need.move("assignment made", committed=quantity, asked=-offer["quantity"])
    return event


async def _reserve(tx: Tx, lot_id: UUID, exercise: bool, quantity: int) -> None:
    free = await tx.fetchval(
        """
        UPDATE lot SET reserved = reserved + $3
        WHERE lot_id = $1 AND exercise = $2 AND status = 'available' AND reserved::bigint + given + $3 <= quantity
        RETURNING true
        """,
        lot_id,
        exercise,
        quantity,
    )
    if not free:
        raise Busy("so much of this stock is not there, or is promised elsewhere")


async def decline(tx: Tx, offer_id: UUID, reason: str | None, *, by: str, settings: MatchingSettings) -> OfferState:
    """Take a no; the same no again changes nothing.

    Raises
    ------
    NotFound, NeedMet, OfferOver
        It is unknown or was closed otherwise.
    Conflict
        It was accepted.
    """
    offer, need = await _offer_with_need(tx, offer_id)
    if offer["state"] == "declined":
        return offer_event(offer, need.row, state="declined", by=offer["by"], reason=offer["reason"])
    if offer["state"] == "accepted":
        raise Conflict("the offer was accepted; abandon the assignment instead")
    if offer["state"] != "made":
        raise _not_open(offer, need)
    await close_offers(tx, {need.need_id: need}, [offer], "declined", by=by, reason=reason)
    source = offer["responder_id"] or offer["lot_id"]
    await remember_refusal(tx, need.need_id, [source], "declined", settings)
    await put_back(tx, [need])
    return offer_event(offer, need.row, state="declined", by=by, reason=reason)


async def assign_by_hand(
    tx: Tx,
    need_id: UUID,
    responder_id: UUID | None,
    lot_id: UUID | None,
    quantity: int,
    reason: str,
    *,
    by: str,
    settings: MatchingSettings,
) -> AssignmentState:
    """An offer made and accepted by the dispatcher, in one. The dispatcher may overrule skill, level and distance, but
    neither the need's quantity, nor overlap, nor stock.

    Raises
    ------
    NotKnownYet
        Need, responder or lot is not known here, or not yet.
    NeedMet, Busy
        So much is not needed; they are promised elsewhere, or not to be had.
    Invalid
        A responder cannot bring an item, nor a lot a skill.
    """
    need = await hold_one(tx, need_id)
    now = clock.now()
    if responder_id is not None:
        source = await tx.fetchrow(
            "SELECT * FROM responder WHERE responder_id = $1 FOR NO KEY UPDATE", responder_id
        )  # fmt: skip
    else:
        source = await tx.fetchrow(
            "SELECT * FROM lot WHERE lot_id = $1 AND exercise = $2 FOR NO KEY UPDATE", lot_id, need.row["exercise"]
        )
    if source is None:
        raise NotKnownYet(f"the {'responder' if responder_id else 'lot'} {responder_id or lot_id} is not known here")
    if responder_id is not None and need.row["skill"] is None:
        raise Invalid("the need asks for an item", [Fault("/responder", "name a lot: the need asks for an item")])
    if lot_id is not None and need.row["item"] != source["item"]:
        raise Invalid("the lot holds something else", [Fault("/lot", f"the lot holds {source['item']}")])
    if not domain.assignable(need.ledger, quantity):
        said = {"draft": "the need is not declared", "withdrawn": "the need is withdrawn"}
        left = need.ledger.left
        raise NeedMet(said.get(need.row["status"], f"{left} are still needed, not {quantity}"), left=left)
    if responder_id is not None:
        if source["status"] != "confirmed" or (source["exercise"] and not need.row["exercise"]):
            raise Busy("the responder is not to be had: unconfirmed, withdrawn, or of a drill only")
        if quantity > source["capacity"]:
            raise Busy(f"the responder counts {source['capacity']}, not {quantity}")
    period = domain.taken_up(need.row["window_start"], need.row["window_end"], now)
    if period is None:
        raise NeedMet("the need's window is over", left=0)
    held = {need_id: need}
    twice = [
        offer
        for offer in await open_offers(tx, [need_id])
        if responder_id is not None and offer["responder_id"] == responder_id
    ]
    await close_offers(tx, held, twice, "withdrawn", by=by, reason="assigned by hand")
    ask = Ask(need_id, responder_id, lot_id, source["organisation"], quantity, *period)
    (offer_id,) = await make_offers(tx, held, [ask], by=by, reason=reason, settings=settings)
    offer = await tx.fetchrow("SELECT * FROM offer WHERE offer_id = $1", offer_id)
    assert offer is not None
    event = await _assign(tx, need, offer, quantity, period, by=by, reason=reason, now=now)
    await _withdraw_if_met(tx, need, by)
    await put_back(tx, [need])
    return event


async def advance(
    tx: Tx, offer_id: UUID, target: Literal["started", "arrived", "delivered"], *, by: str
) -> AssignmentState:
    """Take an assignment on to this state, through those before it. One that is there or past stays as it is.

    Raises
    ------
    NotFound, Conflict
        It is unknown; it was not accepted, or was abandoned.
    """
    row, need = await _assignment_with_need(tx, offer_id)
    path = domain.steps(row["state"], target)
    if path is None:
        raise Conflict("the assignment was abandoned")
    for state in path:
        row = await _step(tx, need, row, state, by)
    if path:
        await put_back(tx, [need])
    return assignment_event(row, need.row)


async def _assignment_with_need(tx: Tx, offer_id: UUID) -> tuple[Row, Held]:
    offer, need = await _offer_with_need(tx, offer_id)
    row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", offer_id)
    if row is None:
        raise Conflict(f"the offer was not accepted; it is {offer['state']}")
    return row, need


async def _step(tx: Tx, need: Held, row: Row, state: str, by: str) -> Row:
    now = clock.now()
    quantity = row["quantity"]
    period = row["period"].lower, row["period"].upper
    if state == "delivered":
        period = domain.ended(*period, now)
    new = await tx.fetchrow(
        """
        UPDATE assignment SET state = $2, by = $3, reason = NULL, period = tstzrange($4, $5),
            release_asked_at = NULL, release_reason = NULL, heard_at = $6, check_at = $7, overdue = 0,
            started_at = CASE WHEN $2 = 'started' THEN $6 ELSE started_at END,
            delivered_at = CASE WHEN $2 = 'delivered' THEN $6 ELSE delivered_at END
        WHERE assignment_id = $1 RETURNING *
        """,
        row["assignment_id"],
        state,
        by,
        *period,
        now,
        _word_due(need, state, now, period),
    )
    assert new is not None
    need.events.append(assignment_event(new, need.row))
    need.touched.append((row["responder_id"] or row["lot_id"], 0))
    if state == "started":
        if row["lot_id"] is not None:
            await tx.execute(
                "UPDATE lot SET reserved = reserved - $3, given = given + $3 WHERE lot_id = $1 AND exercise = $2",
                row["lot_id"],
                row["exercise"],
                quantity,
            )
        need.move("assignment started", committed=-quantity, in_transit=quantity)
    elif state == "delivered":
        need.move("assignment delivered", in_transit=-quantity, delivered=quantity)
        if need.ahead:
            early, need.ahead = min(need.ahead, quantity), max(0, need.ahead - quantity)
            await _confirm(tx, need, [(new, early)], by="system:confirmed-before", reason=None)
            new = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", row["assignment_id"])
            assert new is not None
    return new


async def abandon(
    tx: Tx, offer_id: UUID, reason: str | None, *, by: str, settings: MatchingSettings
) -> AssignmentState:
    """Give an assignment up; the need is open again by as much. Again changes nothing.

    Raises
    ------
    NotFound, Conflict
        It is unknown; it was not accepted, or is delivered.
    """
    row, need = await _assignment_with_need(tx, offer_id)
    if row["state"] == "abandoned":
        return assignment_event(row, need.row)
    if row["state"] not in ACTIVE:
        raise Conflict("it is delivered; say that it did not arrive instead")
    event = await _give_up(tx, need, row, by=by, reason=reason or row["release_reason"])
    if row["release_asked_at"] is None:
        # Who gave it up because we asked may be asked again.
        source = row["responder_id"] or row["lot_id"]
        await remember_refusal(tx, need.need_id, [source], "abandoned", settings)
    await balance_releases(tx, need, by=by)
    await put_back(tx, [need])
    return event


async def _give_up(tx: Tx, need: Held, row: Row, *, by: str, reason: str | None) -> AssignmentState:
    """End an active assignment whose need is held; its stock goes back unless it was counted since it left."""
    now = clock.now()
    period = domain.ended(row["period"].lower, row["period"].upper, now)
    new = await tx.fetchrow(
        "UPDATE assignment SET state = 'abandoned', by = $2, reason = $3, period = tstzrange($4, $5) "
        "WHERE assignment_id = $1 RETURNING *",
        row["assignment_id"],
        by,
        reason,
        *period,
    )
    assert new is not None
    if row["lot_id"] is not None:
        await tx.execute(
            """
            UPDATE lot SET reserved = reserved - CASE WHEN $4::timestamptz IS NULL THEN $3 ELSE 0 END,
                           given = given - CASE WHEN $4 >= counted_at THEN $3 ELSE 0 END
            WHERE lot_id = $1 AND exercise = $2
            """,
            row["lot_id"],
            row["exercise"],
            row["quantity"],
            row["started_at"],
        )
    event = assignment_event(new, need.row)
    need.events.append(event)
    need.touched.append((row["responder_id"] or row["lot_id"], 0))
    part = "committed" if row["state"] == "made" else "in_transit"
    need.move("assignment abandoned", **{part: -row["quantity"]})
    need.ahead = min(need.ahead, need.ledger.in_transit)
    return event


def _word_due(need: Held, state: str, now: datetime, period: tuple[datetime, datetime]) -> datetime | None:
    return domain.word_due_at(state, now, period, need.row["severity"], MatchingSettings().check_minutes)


async def check_in(tx: Tx, offer_id: UUID, *, by: str) -> AssignmentState:
    """Whoever holds it is still at it: the clock of silence starts anew, and nobody asks.

    Raises
    ------
    NotFound, Conflict
        It is unknown; it was not accepted, or is over.
    """
    row, need = await _assignment_with_need(tx, offer_id)
    if row["state"] not in ACTIVE:
        raise Conflict(f"the assignment is {row['state']}")
    now = clock.now()
    await tx.execute(
        "UPDATE assignment SET heard_at = $2, check_at = $3, overdue = 0 WHERE assignment_id = $1",
        offer_id,
        now,
        _word_due(need, row["state"], now, (row["period"].lower, row["period"].upper)),
    )
    return assignment_event(row, need.row)


async def ask_release(tx: Tx, assignment_id: UUID, reason: str, *, by: str) -> AssignmentState:
    """Ask whoever holds it to give it up: graver need elsewhere. Only a request; the promise stands until they do.

    Raises
    ------
    NotFound, Conflict
        It is unknown; it is on scene or over already.
    """
    row, need = await _assignment_with_need(tx, assignment_id)
    if row["state"] not in ("made", "started"):
        raise Conflict(f"the assignment is {row['state']}; only what is not on scene yet can be asked back")
    if row["release_asked_at"] is None:
        await request_release(tx, need, [row], by=by, reason=reason)
        await outbox.append(tx, need.events)
        need.events = []
    return release_event(row, need.row, by=by, reason=row["release_reason"] or reason)


def release_event(row: Row, need: Row, *, by: str, reason: str) -> AssignmentReleaseRequested:
    """The event that asks for an assignment back."""
    said = assignment_event(row, need, by=by, reason=reason)
    return AssignmentReleaseRequested(**said.model_dump(exclude={"meta"}))


async def request_release(
    tx: Tx, need: Held, rows: Sequence[Row], *, by: str, reason: str, for_need: UUID | None = None
) -> None:
    """Note and say that these assignments of a held need are asked back, `for_need` where that is a graver one."""
    await tx.execute(
        "UPDATE assignment SET release_asked_at = $2, release_reason = $3, release_for = $4 "
        "WHERE assignment_id = ANY($1)",
        [row["assignment_id"] for row in rows],
        clock.now(),
        reason,
        for_need,
    )
    need.events += [release_event(row, need.row, by=by, reason=reason) for row in rows]


LESS = "less is needed than is promised"
GONE = "the need is withdrawn"


async def balance_releases(tx: Tx, need: Held, *, by: str) -> None:
    """Ask back what is promised (and not on its way) beyond what is wanted by now, the youngest first; take back
    requests for what is wanted again. Requests of dispatchers stay."""
    wanted = need.row["wanted"] if need.row["status"] == "declared" else 0
    if not need.ledger.committed and need.ledger.promised <= wanted:
        return
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE need_id = $1 AND state = 'made' ORDER BY made_at DESC, assignment_id DESC",
        need.need_id,
    )
    ours = [row for row in rows if row["release_asked_at"] is None or row["release_reason"] in (LESS, GONE)]
    over = need.ledger.promised - wanted - sum(row["quantity"] for row in rows if row not in ours)
    doomed = set(domain.to_release([(row["assignment_id"], row["quantity"]) for row in ours], over))
    reason = LESS if need.row["status"] == "declared" else GONE
    fresh = [row for row in ours if row["assignment_id"] in doomed and row["release_asked_at"] is None]
    if fresh:
        await request_release(tx, need, fresh, by=by, reason=reason)
    again = [row for row in ours if row["assignment_id"] not in doomed and row["release_asked_at"] is not None]
    if again:
        await tx.execute(
            "UPDATE assignment SET release_asked_at = NULL, release_reason = NULL WHERE assignment_id = ANY($1)",
            [row["assignment_id"] for row in again],
        )
        need.events += [assignment_event(row, need.row, by=by, reason="it is needed again") for row in again]


async def hand_over(
    tx: Tx, assignment_id: UUID, responder_id: UUID, reason: str, *, by: str, settings: MatchingSettings
) -> AssignmentState:
    """Somebody else takes a person's place from now to the end of the window: the end of one shift, the start of the
    next. Both in one: either the other takes over, or nothing changes.

    Raises
    ------
    NotFound, NotKnownYet, Conflict, NeedMet, Busy
        As `assign_by_hand`; it is stock, or over already.
    """
    row, need = await _assignment_with_need(tx, assignment_id)
    if row["responder_id"] is None or row["state"] not in ACTIVE:
        raise Conflict("only a person's or team's assignment that is under way is handed over")
    if row["responder_id"] == responder_id:
        raise Conflict("they hold it already")
    await _give_up(tx, need, row, by=by, reason=f"handed over: {reason}")
    await put_back(tx, [need])
    return await assign_by_hand(tx, need.need_id, responder_id, None, row["quantity"], reason, by=by, settings=settings)


# ------------------------------------------------------------------------------------------------------ confirmations
async def confirm(tx: Tx, need_id: UUID, quantity: int | None, *, by: str, reason: str | None) -> None:
    """It arrived: the oldest delivered assignments are confirmed first.

    What is on its way counts as seen when it comes, so that a person who confirms before the driver does is heard.
    """
    need = (await hold(tx, [need_id])).get(need_id)
    if need is None:
        return
    shares = domain.shared_out(quantity, await _delivered(tx, need_id))
    sure = sum(take for _, take in shares)
    await _confirm(tx, need, shares, by=by, reason=reason)
    if quantity is not None:
        need.ahead = min(need.ahead + quantity - sure, need.ledger.in_transit)
    elif not sure:
        need.ahead = need.ledger.in_transit
    await put_back(tx, [need])


async def dispute(tx: Tx, need_id: UUID, quantity: int | None, *, by: str, reason: str | None) -> None:
    """It did not arrive: what was counted as delivered is open again, from the oldest assignment on."""
    need = (await hold(tx, [need_id])).get(need_id)
    if need is None:
        return
    reason = reason or "not received"
    for row, take in domain.shared_out(quantity, await _delivered(tx, need_id)):
        left = row["quantity"] - take
        state = "delivered" if left > row["confirmed"] else "confirmed" if left else "abandoned"
        new = await tx.fetchrow(
            "UPDATE assignment SET state = $2, quantity = $3, by = $4, reason = $5 "
            "WHERE assignment_id = $1 RETURNING *",
            row["assignment_id"],
            state,
            left or row["quantity"],
            by,
            reason,
        )
        assert new is not None
        need.events.append(assignment_event(new, need.row))
        need.move("not received", delivered=-take)
    await put_back(tx, [need])


async def _delivered(tx: Tx, need_id: UUID) -> list[tuple[Row, int]]:
    """Delivered assignments, oldest first, each with what is not confirmed of it."""
    rows = await tx.fetch(
        "SELECT * FROM assignment WHERE need_id = $1 AND state = 'delivered' ORDER BY delivered_at, assignment_id",
        need_id,
    )
    return [(row, row["quantity"] - row["confirmed"]) for row in rows]


async def _confirm(tx: Tx, need: Held, shares: Sequence[tuple[Row, int]], *, by: str, reason: str | None) -> None:
    for row, take in shares:
        whole = row["confirmed"] + take == row["quantity"]
        new = await tx.fetchrow(
            "UPDATE assignment SET confirmed = confirmed + $2, state = $3, by = $4, reason = $5 "
            "WHERE assignment_id = $1 RETURNING *",
            row["assignment_id"],
            take,
            "confirmed" if whole else "delivered",
            by,
            reason or (None if whole else f"{row['confirmed'] + take} of {row['quantity']} confirmed"),
        )
        assert new is not None
        need.events.append(assignment_event(new, need.row))
        need.move("delivery confirmed", delivered=-take, confirmed=take)


# ------------------------------------------------------------------------------------------- when sources fall away
class _More(Exception):
    """More needs are touched than are held; they have to be locked before anything else."""


async def _holding(
    tx: Tx,
    find: Callable[[], Awaitable[set[UUID]]],
    work: Callable[[dict[UUID, Held]], Awaitable[None]],
    lock: Callable[[], Awaitable[None]],
) -> None:
    """Do `work` with the needs that `find` names held, and what `lock` locks locked after them.

    Between looking and locking somebody may promise the same source to another need. Then all is let go again (a
    savepoint gives its locks back) and taken in order with that need too, so that nobody waits in a circle.
    """
    wanted = await find()
    while True:
        try:
            async with tx.savepoint():
                held = await hold(tx, wanted)
                await lock()
                found = await find()
                if not found <= wanted:
                    wanted |= found
                    raise _More
                await work(held)
            return
        except _More:
            continue


async def release_responders(tx: Tx, responder_ids: Sequence[UUID], lock: Callable[[], Awaitable[None]]) -> None:
    """They may not be asked any more: their open offers go, and what they promised but did not begin breaks.

    `lock` writes the responders' rows; who set out already is followed to the end by an operator.
    """

    async def find() -> set[UUID]:
        rows = await tx.fetch(
            "SELECT need_id FROM offer WHERE responder_id = ANY($1) AND state = 'made' "
            "UNION SELECT need_id FROM assignment WHERE responder_id = ANY($1) AND state = 'made'",
            responder_ids,
        )
        return {row["need_id"] for row in rows}

    async def work(held: dict[UUID, Held]) -> None:
        reason = "the responder withdrew"
        by = "system:registry"
        offers = await tx.fetch(
            "SELECT * FROM offer WHERE responder_id = ANY($1) AND state = 'made' ORDER BY offer_id", responder_ids
        )
        await close_offers(tx, held, offers, "withdrawn", by=by, reason=reason)
        rows = await tx.fetch(
            "SELECT * FROM assignment WHERE responder_id = ANY($1) AND state = 'made' ORDER BY assignment_id",
            responder_ids,
        )
        for row in rows:
            await _give_up(tx, held[row["need_id"]], row, by=by, reason=reason)
        await put_back(tx, held.values())

    await _holding(tx, find, work, lock)


@dataclass(frozen=True, slots=True)
class Count:
    """What a holder says of a lot: whether it may still be given, how much is there, and when that was said."""

    lot_id: UUID
    available: bool
    quantity: int
    at: datetime


async def recount_lots(
    tx: Tx, counts: Sequence[Count], write: Callable[[dict[tuple[UUID, bool], tuple[int, int]]], Awaitable[None]]
) -> None:
    """Take new counts of lots; where less is there than is promised, the youngest commitments break.

    `write` writes the lots' rows, given what is then reserved and given of each (lot, exercise) that is known already.
    """
    told = {count.lot_id: count for count in counts}
    after: dict[tuple[UUID, bool], tuple[int, int]] = {}
    breaking: list[tuple[UUID, str]] = []

    async def lock() -> None:
        """Lock the lots that are known, and work out what breaks."""
        after.clear()
        breaking.clear()
        lots = await tx.fetch(
            "SELECT * FROM lot WHERE lot_id = ANY($1) ORDER BY lot_id, exercise FOR NO KEY UPDATE", sorted(told)
        )
        for lot in lots:
            count = told[lot["lot_id"]]
            given = lot["given"]
            if count.quantity != lot["quantity"]:
                # A new figure was counted after all that had left by then; the old one repeated says nothing new.
                since = await tx.fetchval(
                    "SELECT coalesce(sum(o.quantity), 0) FROM assignment AS a "
                    "JOIN offer AS o ON o.offer_id = a.assignment_id "
                    "WHERE a.lot_id = $1 AND a.exercise = $2 AND a.started_at >= $3 "
                    "AND (a.state <> 'abandoned' OR a.delivered_at IS NOT NULL)",
                    lot["lot_id"],
                    lot["exercise"],
                    count.at,
                )
                given = min(int(since), count.quantity)
            over = lot["reserved"] if not count.available else lot["reserved"] + given - count.quantity
            reason = "the stock was withdrawn" if not count.available else f"the stock fell to {count.quantity}"
            reserved = lot["reserved"]
            if over > 0:
                promises = await tx.fetch(
                    "SELECT assignment_id, quantity FROM assignment WHERE lot_id = $1 AND exercise = $2 "
                    "AND state = 'made' ORDER BY made_at DESC, assignment_id DESC",
                    lot["lot_id"],
                    lot["exercise"],
                )
                size = {row["assignment_id"]: row["quantity"] for row in promises}
                gone = domain.broken(size.items(), over)
                breaking.extend((assignment_id, reason) for assignment_id in gone)
                reserved -= sum(size[assignment_id] for assignment_id in gone)
            after[lot["lot_id"], lot["exercise"]] = (reserved, given)

    async def find() -> set[UUID]:
        rows = await tx.fetch(
            "SELECT need_id FROM assignment WHERE assignment_id = ANY($1) "
            "UNION SELECT need_id FROM offer WHERE lot_id = ANY($2) AND state = 'made'",
            [assignment_id for assignment_id, _ in breaking],
            [count.lot_id for count in counts if not count.available],
        )
        return {row["need_id"] for row in rows}

    async def work(held: dict[UUID, Held]) -> None:
        offers = await tx.fetch(
            "SELECT * FROM offer WHERE lot_id = ANY($1) AND state = 'made' ORDER BY offer_id",
            [count.lot_id for count in counts if not count.available],
        )
        by = "system:registry"
        await close_offers(tx, held, offers, "withdrawn", by=by, reason="the stock was withdrawn")
        for assignment_id, reason in breaking:
            row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", assignment_id)
            assert row is not None
            await _give_up(tx, held[row["need_id"]], row, by=by, reason=reason)
        await write(after)
        await put_back(tx, held.values())

    await _holding(tx, find, work, lock)
