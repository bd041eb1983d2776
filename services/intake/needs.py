"""Rules of needs: how much is wanted, and whether that is declared at once or waits for an operator.

Pure functions over plain data. A need is for exactly one item or one skill; there is one live need for each
(incident, item or skill, window), and its quantity is the largest that one linked report asks for, or an operator's
figure once that is set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal
from uuid import UUID

from schemas import vocabulary

WINDOW = timedelta(hours=12)
"""A need without a window runs from now for so long."""
SMALL_A_DAY = 3
"""So many small needs of one anonymous contact are declared within 24 hours; what comes after them is a draft."""
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")

Status = Literal["draft", "declared", "withdrawn"]


@dataclass(frozen=True, slots=True)
class Ask:
    """What one linked report asks for of one need. `proven`: it came from field staff, an operator, or a partner who
    proved who it is; `counts`: it was found good enough for a declared need before."""

    report_id: UUID
    quantity: int
    severity: int
    proven: bool = False
    contact: str | None = None
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a need is, by rule. `small_contact`: whose allowance of small needs it uses up; `counting`: the reports
    whose figures count for a declared need."""

    status: Status
    quantity: int
    severity: int
    small_contact: str | None
    counting: frozenset[UUID]


def judge(
    asks: Sequence[Ask],
    *,
    status: Status,
    figure: int | None,
    corroborated: bool,
    placed: bool,
    small: int,
    allowance: Mapping[str, int],
    fallback: tuple[int, int],
) -> Verdict:
    """What a need comes to by what its reports ask, in the order of their receipt.

    `status` is how it stands ('draft' for a new one), `figure` an operator's quantity, `small` the item's limit,
    `allowance` how many small needs each contact may still have declared today, `fallback` quantity and severity
    where no report asks (an operator's or partner's own need).

    What nobody vouches for cannot grow behind a small need: a figure counts towards a declared need only if it came
    from somebody proven, its incident is corroborated, or it is small itself.
    """
    if not asks and figure is None:
        return Verdict("withdrawn", *fallback, None, frozenset())
    counting = []
    small_contact: str | None = None
    for ask in asks:
        if ask.counts or ask.proven or corroborated:
            counting.append(ask)
        elif ask.quantity <= small and ask.contact is not None:
            if status == "declared":
                counting.append(ask)
            elif allowance.get(ask.contact, 0) > 0:
                counting.append(ask)
                small_contact = small_contact or ask.contact
    declared = status == "declared" or (placed and bool(counting))
    if any(ask.proven or corroborated for ask in counting):
        small_contact = None
    severity = max((ask.severity for ask in asks), default=fallback[1])
    counted = counting if declared and counting else asks
    quantity = figure if figure is not None else max(ask.quantity for ask in counted)
    return Verdict(
        "declared" if declared else "draft",
        quantity,
        severity,
        small_contact if declared and status != "declared" else None,
        frozenset(ask.report_id for ask in counting) if declared else frozenset(),
    )


def item_code(word: str) -> str:
    """The code for an item named by code or everyday word; a word that nobody knows stays, if it has a code's form.

    Raises
    ------
    ValueError
        It is neither.
    """
    return _code(vocabulary.item_of(word), word, "item")


def skill_code(word: str) -> str:
    """As `item_code`, for a skill."""
    return _code(vocabulary.skill_of(word), word, "skill")


def _code(known: str | None, word: str, kind: str) -> str:
    if known is not None:
        return known
    if _CODE.fullmatch(word):
        return word
    raise ValueError(f"this {kind} is not known; name one of the vocabulary, or a word of a-z, 0-9 and _")


def unit_of(item: str | None, skill: str | None) -> str:
    """The unit in which an item or skill is counted; `unit` or `person` for a word that nobody knows."""
    if item is not None:
        return vocabulary.unit(item) or "unit"
    return (vocabulary.unit(skill) if skill else None) or "person"


def open_ledger(quantity: int, status: Status) -> dict[str, int]:
    """The ledger row of a need of which matching has not told anything yet."""
    withdrawn = status == "withdrawn"
    return {
        "needed": quantity,
        "open": 0 if withdrawn else quantity,
        "offered": 0,
        "committed": 0,
        "in_transit": 0,
        "delivered": 0,
        "confirmed": 0,
        "cancelled": quantity if withdrawn else 0,
        "asked": 0,
    }


def confirmation(received: Literal["yes", "no", "partly"], delivered: int, quantity: int | None) -> tuple[int, int]:
    """How much of what was delivered is confirmed, and how much disputed.

    `quantity`: yes and partly, how much came; no, how much did not. Without it yes and no speak of all of it.

    Raises
    ------
    ValueError
        More than was delivered, or "partly" without saying how much.
    """
    if quantity is not None and quantity > delivered:
        raise ValueError(f"only {delivered} were delivered")
    if received == "no":
        return 0, quantity if quantity is not None else delivered
    if received == "yes":
        return (quantity if quantity is not None else delivered), 0
    if quantity is None:
        raise ValueError("say with quantity how much was received")
    return quantity, delivered - quantity
