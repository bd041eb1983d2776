"""What the writes of promises share: needs in hand with their ledgers, the planner's marks, and the events.

Lock order everywhere: need rows by id, then responder rows, then lots. A need's row guards its ledger, its offers and
its assignments; a responder's guards against two promises at once, a lot's against promising it twice. Whoever wants
a need it does not hold yet after it holds a responder or a lot starts over (`source_writes`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from schemas.assignments import (
    AssignmentAbandoned,
    AssignmentArrived,
    AssignmentConfirmed,
    AssignmentDelivered,
    AssignmentMade,
    AssignmentStarted,
    AssignmentState,
)
from schemas.event import Event
from schemas.ledger import LedgerChanged
from schemas.offers import OfferAccepted, OfferDeclined, OfferExpired, OfferMade, OfferState, OfferWithdrawn
from schemas.values import Period
from services.matching import domain
from services.matching.domain import Ledger
from services.runtime import outbox
from services.runtime.db import Row, Tx
from services.runtime.problems import DomainError, NotKnownYet

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
