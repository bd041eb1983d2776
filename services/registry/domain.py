"""The registry's rules: who may change whose entry, what a responder must be like to be of use."""

from __future__ import annotations

from typing import Literal

from services.registry import proof

Standing = Literal["desk", "partner", "public"]
"""Who registers somebody: an authority's desk, an organisation for its own people, or anybody."""
Taken = Literal["update", "keep", "refuse"]


def misfit(kind: str, capacity: int, minimum_team: int) -> tuple[str, str] | None:
    """The field that does not go with the others, and why; None when all is well."""
    if kind == "person" and capacity != 1:
        return "capacity", "one person counts as one; register a team"
    if minimum_team > capacity:
        return "minimum_team", "a team cannot come with more people than it has"
    return None


def taken(
    sender: Standing,
    organisation: str | None,
    kind: str,
    *,
    known_kind: str,
    known_status: str,
    known_organisation: str | None,
) -> Taken:
    """What becomes of a registration whose number belongs to a responder that is known already.

    Anybody can type anybody's number, so without a token nothing of a confirmed responder changes (`keep`: and
    nothing is said of it either). An organisation may take in whoever is its own, or nobody's and unconfirmed.
    A number that answers for a confirmed team does not become a person's by a line in a list, nor the reverse.
    """
    if sender == "public":
        return "keep" if known_status == "confirmed" else "update"
    if sender == "partner":
        theirs = known_organisation == organisation or (known_organisation is None and known_status != "confirmed")
        if not theirs:
            return "refuse"
    if known_status == "confirmed" and known_kind != kind:
        return "refuse"
    return "update"


def source_of(sender: Standing, organisation: str | None, name: str, claimed: str | None) -> str:
    """In whose numbering an `external_id` counts: the source that was named where the sender may use it, else its own.

    `name` is how decisions name the sender.
    """
    if sender == "desk":
        return claimed or f"/desks/{name}"
    own = f"/partners/{organisation}"
    if claimed is not None and (claimed == own or claimed.startswith(own + "/")):
        return claimed
    return own


def earned_level(skill: str, level: int, confirmed: int) -> int:
    """The level after so many confirmed assignments: three for each further level up to 3, of low-risk skills only.
    What is risky grows by checks alone, and nothing ever shrinks by working."""
    if not proof.low_risk(skill):
        return level
    return max(level, min(3, 1 + confirmed // 3))


def vouchable(skill: str, level: int) -> bool:
    """Whether a community leader's word is enough for it."""
    return proof.low_risk(skill) and level <= 2
