"""Offers and answers by message: which of their offers somebody means, and what they are told.

Only a clear yes or no to the one offer that it can mean becomes an answer. Everything else asks back. What a number is
told depends on its own offers alone: a code that was read over somebody's shoulder is as good as none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

from schemas import vocabulary

_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ"
_DIGITS = "23456789"
_ZONES = {7: "WIB", 8: "WITA", 9: "WIT"}


def code_of(offer_id: UUID, attempt: int = 0) -> str:
    """A short code for an offer: a letter, a digit, two letters (`K7QM`). Nothing in it is mistaken for another sign
    or for a count. `attempt`: the next one, where the person has an open offer of the same code."""
    digest = hashlib.sha256(offer_id.bytes + attempt.to_bytes(2, "big")).digest()
    letters = [_LETTERS[byte % len(_LETTERS)] for byte in digest[:3]]
    return f"{letters[0]}{_DIGITS[digest[3] % len(_DIGITS)]}{letters[1]}{letters[2]}"


@dataclass(frozen=True, slots=True)
class Asked:
    """One of somebody's offers, as far as the choice goes by it. `answered`: what they said of it before."""

    offer_id: UUID
    code: str
    state: str
    quantity: int
    answered: bool | None = None
    answered_at: datetime | None = None

    @property
    def open(self) -> bool:
        return self.state == "made" and self.answered is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about a yes or a no: `answer` the offer, `ask` back with a template, or `nothing`: it was said before.

    `offer`: which one it is about, where it is about one.
    """

    what: Literal["answer", "ask", "nothing"]
    template: str | None = None
    offer: Asked | None = None
    codes: tuple[str, ...] = ()


def judge(
    offers: Sequence[Asked], *, accepted: bool, quantity: int | None, codes: Collection[str], said_at: datetime
) -> Verdict:
    """Which of their own offers, newest first, a clear yes or no can mean."""
    still = [offer for offer in offers if offer.open]
    if codes:
        named = [offer for offer in offers if offer.code in codes]
        chosen = [offer for offer in named if offer.open] or named
        if len(chosen) != 1:
            return _ask(still)
        return _of_one(chosen[0], accepted, quantity, said_at)
    if len(still) == 1:
        return _of_one(still[0], accepted, quantity, said_at)
    if still:
        return _ask(still)
    # Nothing is open: it may be the same word again, sent twice on a bad network.
    before = next((offer for offer in offers if offer.answered is not None), None)
    if before is not None and before.state in ("made", "accepted", "declined"):
        return _of_one(before, accepted, quantity, said_at)
    return _ask(still)


def _ask(still: Sequence[Asked]) -> Verdict:
    if not still:
        return Verdict("ask", "no_open_offer")
    return Verdict("ask", "which_offer", codes=tuple(offer.code for offer in still))


def _of_one(offer: Asked, accepted: bool, quantity: int | None, said_at: datetime) -> Verdict:
    if offer.answered is not None:
        older = offer.answered_at is not None and said_at < offer.answered_at
        if older or offer.answered == accepted:
            return Verdict("nothing", offer=offer)
        return Verdict("ask", "answered_before", offer)
    if offer.state != "made":
        return Verdict("ask", "offer_over", offer)
    if accepted and quantity is not None and quantity > offer.quantity:
        return Verdict("ask", "how_many", offer)
    return Verdict("answer", offer=offer)


# What is said of an offer


def words_of(
    *,
    code: str,
    item: str | None,
    skill: str | None,
    quantity: int,
    start: datetime,
    end: datetime,
    until: datetime,
    distance_km: float | None,
    zone: str,
    language: str,
) -> dict[str, Any]:
    """The values of the templates about offers, in `zone`'s time and the person's language."""
    where = ""
    if distance_km is not None:
        km = max(1, round(distance_km))
        where = f" about {km} km from you" if language == "en" else f" sekitar {km} km dari Anda"
    return {
        "code": code,
        "quantity": quantity,
        "what": vocabulary.label(item or skill or "", "en" if language == "en" else "id"),
        "where": where,
        "when": f"{_at(start, zone)} - {_at(end, zone, start)} {_zone(start, zone)}",
        "until": f"{_at(until, zone, start)} {_zone(until, zone)}",
    }


def _at(instant: datetime, zone: str, beside: datetime | None = None) -> str:
    """Day and hour; the hour alone where the day stands beside it already."""
    local = instant.astimezone(ZoneInfo(zone))
    if beside is not None and local.date() == beside.astimezone(ZoneInfo(zone)).date():
        return f"{local:%H.%M}"
    return f"{local:%d/%m %H.%M}"


def _zone(instant: datetime, zone: str) -> str:
    local = instant.astimezone(ZoneInfo(zone))
    offset = local.utcoffset()
    hours = offset.total_seconds() / 3600 if offset else 0
    return _ZONES.get(int(hours), local.strftime("UTC%z")) if hours == int(hours) else local.strftime("UTC%z")
