"""Assignments: a yes becomes a promise, which is followed to its delivery, given up or handed over."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from schemas.assignments import (
    AssignmentState,
)
from services.matching import domain
from services.matching.actions import (
    Busy,
    Held,
    NeedMet,
    OfferOver,
    assignment_event,
    hold_one,
    offer_event,
    put_back,
)
from services.matching.confirmation_writes import confirm_shares
from services.matching.domain import ACTIVE
from services.matching.offer_writes import (
    Ask,
    assignment_with_need,
    close_offers,
    make_offers,
    not_open,
    offer_with_need,
    open_offers,
    remember_refusal,
    withdraw_if_met,
)
from services.matching.release_writes import balance_releases
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Row, Tx
from services.runtime.problems import Conflict, Fault, Invalid, NotKnownYet


async def accept(tx: Tx, offer_id: UUID, quantity: int | None, *, by: str) -> AssignmentState:
    """Turn a yes into an assignment of `quantity` (None: all that was asked). The same yes again changes nothing.

    Raises
    ------
    NotFound, NeedMet, OfferOver, Busy
        It is unknown; more than is left or was asked; closed; promised elsewhere.
    Conflict
        It was accepted before, for another quantity.
    """
    offer, need = await offer_with_need(tx, offer_id)
    if offer["state"] == "accepted":
        row = await tx.fetchrow("SELECT * FROM assignment WHERE assignment_id = $1", offer_id)
        assert row is not None
        if quantity is not None and quantity != offer["quantity"]:
            raise Conflict(f"the offer was accepted before, for {offer['quantity']}")
        return assignment_event(row, need.row)
    if offer["state"] != "made":
        raise not_open(offer, need)
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
    await withdraw_if_met(tx, need, by)
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
    if lot_id is not None and source["kind"] == "pledge":
        raise Busy("this is a pledge and not there yet; what has come of it is a stock of its own")
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
    await withdraw_if_met(tx, need, by)
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
    row, need = await assignment_with_need(tx, offer_id)
    path = domain.steps(row["state"], target)
    if path is None:
        raise Conflict("the assignment was abandoned")
    for state in path:
        row = await _step(tx, need, row, state, by)
    if path:
        await put_back(tx, [need])
    return assignment_event(row, need.row)


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
            await confirm_shares(tx, need, [(new, early)], by="system:confirmed-before", reason=None)
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
    row, need = await assignment_with_need(tx, offer_id)
    if row["state"] == "abandoned":
        return assignment_event(row, need.row)
    if row["state"] not in ACTIVE:
        raise Conflict("it is delivered; say that it did not arrive instead")
    event = await give_up(tx, need, row, by=by, reason=reason or row["release_reason"])
    if row["release_asked_at"] is None:
        # Who gave it up because we asked may be asked again.
        source = row["responder_id"] or row["lot_id"]
        await remember_refusal(tx, need.need_id, [source], "abandoned", settings)
    await balance_releases(tx, need, by=by)
    await put_back(tx, [need])
    return event


async def give_up(tx: Tx, need: Held, row: Row, *, by: str, reason: str | None) -> AssignmentState:
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
    row, need = await assignment_with_need(tx, offer_id)
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
    row, need = await assignment_with_need(tx, assignment_id)
    if row["responder_id"] is None or row["state"] not in ACTIVE:
        raise Conflict("only a person's or team's assignment that is under way is handed over")
    if row["responder_id"] == responder_id:
        raise Conflict("they hold it already")
    await give_up(tx, need, row, by=by, reason=f"handed over: {reason}")
    await put_back(tx, [need])
    return await assign_by_hand(tx, need.need_id, responder_id, None, row["quantity"], reason, by=by, settings=settings)
