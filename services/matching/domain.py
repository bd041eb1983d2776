"""Rules of what is promised: the ledger's moves, an assignment's steps, who breaks when stock falls, and why.

Pure: no clock, no I/O. An emergency manager could dispute any line here.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeVar
from uuid import UUID

T = TypeVar("T")
Status = Literal["draft", "declared", "withdrawn"]

ACTIVE = ("made", "started", "arrived")
"""States of an assignment that take its responder up and count on its stock."""
_ORDER = ("made", "started", "arrived", "delivered", "confirmed")


@dataclass(frozen=True, slots=True)
class Ledger:
    """How much of a need is where, in the need's unit. `asked` (what stands in open offers) is outside the balance."""

    needed: int = 0
    open: int = 0
    offered: int = 0
    committed: int = 0
    in_transit: int = 0
    delivered: int = 0
    confirmed: int = 0
    cancelled: int = 0
    asked: int = 0

    @property
    def left(self) -> int:
        """What nobody has promised yet, asked for or not."""
        return self.open + self.offered

    @property
    def promised(self) -> int:
        """What somebody has promised, brought or seen arrive; never taken back by a change of the need."""
        return self.committed + self.in_transit + self.delivered + self.confirmed

    @property
    def balanced(self) -> bool:
        parts = (self.open, self.offered, self.promised, self.cancelled)
        return self.needed == sum(parts) and min(*parts, self.asked) >= 0 and self.offered == min(self.asked, self.left)


def settled(row: Ledger, wanted: int, status: Status, *, declared: bool) -> Ledger:
    """The ledger in balance again after its promises, the need's quantity or its status changed.

    `declared`: whether the need ever was; before that nothing is needed. What is needed follows what is wanted, but
    never below what is promised: a smaller need takes from open, then from offered, and then stops.
    What a withdrawn need has not promised is cancelled. Offered is what is asked for, at most what is left.
    """
    needed = max(wanted, row.promised) if declared and status != "draft" else row.promised
    rest = needed - row.promised
    left = rest if status == "declared" else 0
    offered = min(row.asked, left)
    return replace(row, needed=needed, open=left - offered, offered=offered, cancelled=rest - left)


def moved(
    row: Ledger,
    *,
    committed: int = 0,
    in_transit: int = 0,
    delivered: int = 0,
    confirmed: int = 0,
    asked: int = 0,
) -> Ledger:
    """The ledger with so much more (or less) of each; out of balance until `settled`."""
    return replace(
        row,
        committed=row.committed + committed,
        in_transit=row.in_transit + in_transit,
        delivered=row.delivered + delivered,
        confirmed=row.confirmed + confirmed,
        asked=row.asked + asked,
    )


def assignable(row: Ledger, quantity: int) -> bool:
    """Whether so much still fits the need; it is never trimmed silently."""
    return 0 < quantity <= row.left


def vulnerability(groups: Collection[str]) -> float:
    """How far a need goes before others of its severity, 0 to 1: a quarter for each group among its people that needs
    more care (infants, the old, pregnant women, people with disabilities, the sick)."""
    return min(1.0, len(set(groups)) / 4)


def avoided(avoids: Collection[str], where: Collection[str]) -> bool:
    """Whether somebody who must not be sent into these hazards and areas is not sent to a need of those. An area
    (`kemendagri:33.21`) stands for all within it."""
    return any(one == word or (":" in word and one.startswith(word + ".")) for word in avoids for one in where)


LONGEST_REST = timedelta(hours=72)
"""What somebody may say that they need at most; for so long a duty that is over still matters."""


def rest_of(duty_s: int, own_s: int | None, usual_s: int, long_s: int) -> int:
    """The rest before and after a duty of so many seconds: what the person needs after any, where they said; else the
    usual one after a long duty."""
    if own_s is not None:
        return own_s
    return usual_s if duty_s >= long_s else 0


@dataclass(frozen=True, slots=True)
class Crew:
    """So many people with a skill at this level, for each unit of a vehicle or boat."""

    skill: str
    people: int
    level: int


@dataclass(frozen=True, slots=True)
class Hand:
    """Somebody who could be of a crew. `heads`: people of a team."""

    responder_id: UUID
    skills: Mapping[str, int]
    heads: int = 1


def manned(units: int, crew: Sequence[Crew], hands: Sequence[Hand]) -> tuple[int, set[UUID]]:
    """How many units can be manned, at most `units`, and by whom. Whoever can do least else takes a seat first, and
    nobody sits in two."""
    left = {hand.responder_id: hand.heads for hand in hands}
    order = sorted(hands, key=lambda hand: (len(hand.skills), str(hand.responder_id)))
    taken: set[UUID] = set()
    for unit in range(units):
        seats: dict[UUID, int] = {}
        for part in crew:
            missing = part.people
            for hand in order:
                if hand.skills.get(part.skill, 0) >= part.level and missing:
                    take = min(missing, left[hand.responder_id] - seats.get(hand.responder_id, 0))
                    if take > 0:
                        seats[hand.responder_id] = seats.get(hand.responder_id, 0) + take
                        missing -= take
            if missing:
                return unit, taken
        for responder_id, heads in seats.items():
            left[responder_id] -= heads
        taken |= set(seats)
    return units, taken


def too_much_asked(offers: Sequence[tuple[UUID, int]], left: int) -> list[UUID]:
    """Which of these open offers (oldest first, with their quantities) go when only `left` is still wanted.

    The youngest go, until no more is asked for than is left.
    """
    asked = sum(quantity for _, quantity in offers)
    gone = []
    for offer_id, quantity in reversed(offers):
        if asked <= left:
            break
        gone.append(offer_id)
        asked -= quantity
    return gone


def steps(state: str, target: str) -> tuple[str, ...] | None:
    """The states through which an assignment goes to reach `target`; none when it is there or past; None: impossible.

    Whoever arrives or completes without having said that they set out did set out.
    """
    if state not in _ORDER:
        return None
    at, to = _ORDER.index(state), _ORDER.index(target)
    return tuple(step for step in _ORDER[at + 1 : to + 1] if step in ("started", target))


def shared_out(quantity: int | None, pieces: Iterable[tuple[T, int]]) -> list[tuple[T, int]]:
    """How much falls to each piece, in the given order, until `quantity` is used up (None: everything)."""
    shares = []
    for piece, size in pieces:
        take = size if quantity is None else min(size, quantity)
        if take <= 0:
            continue
        shares.append((piece, take))
        if quantity is not None:
            quantity -= take
    return shares


def broken(promises: Iterable[tuple[T, int]], over: int) -> list[T]:
    """Which promises (youngest first, with their quantities) break to set `over` units free: whole ones, no more than
    that takes."""
    gone = []
    for promise, quantity in promises:
        if over <= 0:
            break
        gone.append(promise)
        over -= quantity
    return gone


def to_release(promises: Iterable[tuple[T, int]], over: int) -> list[T]:
    """Which promises (youngest first, with their quantities) may go when `over` units are too many: whole ones, and
    never so many that too little would be left."""
    gone = []
    for promise, quantity in promises:
        if quantity <= over:
            gone.append(promise)
            over -= quantity
    return gone


def word_due_at(
    state: str, now: datetime, period: tuple[datetime, datetime], severity: int, minutes: Sequence[int]
) -> datetime | None:
    """When the next word of an assignment is due (`minutes` by severity 1 to 4): of one that has not begun, so long
    after it should have; of one under way, so long after the last. None: nobody waits for any."""
    if state not in ACTIVE:
        return None
    return max(now, period[0] if state == "made" else now) + timedelta(minutes=minutes[severity - 1])


def chance_of_yes(yes: int, no: int) -> float:
    """How likely somebody says yes who so far said it so often, and so often no (or nothing): half without a past."""
    return (yes + 1) / (yes + no + 2)


def more_to_ask(left: int, asked: int, expected: float, most: float) -> int:
    """How many more to ask when `left` are wanted and the `asked` open questions make `expected` yeses likely: at even
    chances, and never beyond `most` for each one wanted."""
    missing = left - expected
    return max(0, min(math.ceil(2 * missing), math.floor(most * left) - asked)) if missing > 0 else 0


def next_to_ask(
    silent: int, of_one: int, *, others: bool, most_of_one: int, most_in_all: int
) -> Literal["person", "organisation", "dispatcher"]:
    """Who is next when a question about a need was not answered: the next person; another organisation, once so many
    of this one (`of_one`) were silent and `others` could come; the dispatcher, once so many were silent in all.

    `silent` and `of_one` count unanswered questions since somebody last said yes.
    """
    if silent >= most_in_all:
        return "dispatcher"
    return "organisation" if others and of_one >= most_of_one else "person"


def offer_expires_at(now: datetime, severity: int, window_end: datetime, minutes: Sequence[int]) -> datetime:
    """When an unanswered offer ends: sooner the more serious the need (`minutes` by severity 1 to 4), and with it."""
    return min(now + timedelta(minutes=minutes[severity - 1]), window_end)


def taken_up(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime] | None:
    """The time for which a yes given now takes a person up; None when it is over."""
    return (max(start, now), end) if max(start, now) < end else None


def ended(start: datetime, end: datetime, now: datetime) -> tuple[datetime, datetime]:
    """The period of an assignment that ends now; one that had not begun keeps an instant of it."""
    return start, max(min(end, now), start + timedelta(microseconds=1))


@dataclass(frozen=True, slots=True)
class Asked:
    """An open offer of one pair of need and responder or lot."""

    offer_id: UUID
    quantity: int


def reconciled(asked: Sequence[Asked], planned: int, *, one: bool) -> tuple[list[UUID], int]:
    """What a plan changes for one pair: the offers to withdraw, and how much more to ask for.

    `asked` oldest first. `one`: only one offer at a time makes sense (a person cannot say yes twice), so it is asked
    anew when the plan wants more or less of them; of a lot the difference is asked.
    """
    kept = 0
    gone = []
    for offer in asked:
        fits = offer.quantity == planned if one else kept + offer.quantity <= planned
        if fits and not (one and kept):
            kept += offer.quantity
        else:
            gone.append(offer.offer_id)
    return gone, planned - kept


_LEFT_BY = {
    "code": "have it",
    "level": "have the level",
    "certificate": "hold the certificates for the whole window",
    "language": "speak the languages",
    "excluded": "have not said no, nor left it unanswered or given it up",
    "conditions": "may be sent into such a hazard and area",
    "travel": "would come so far",
    "zone": "may enter",
    "window": "can be there in the window",
    "busy": "are free",
    "hours": "have hours left",
    "team": "are a team that fits",
    "crew": "have a crew",
    "stock": "have any left",
    "expiry": "keep until the end",
}


def why_unmet(filters: Mapping[str, int]) -> str:
    """In words why nobody was left, from the counts after each rule in order: the rule that left none, or, where some
    could serve, that all of them serve needs that go before."""
    last = None
    for name, left in filters.items():
        said = _LEFT_BY.get(name, name)
        if left == 0:
            return f"none {said}" if last is None else f"{last}; of those none {said}"
        last = f"{left} {said}"
    if last is None:
        return "not looked into: needs of higher severity were explained first"
    return f"{last}, and all of them are planned for needs that go before or are used up"
