"""How far an incident and each of its facts is believed. Pure.

A fact is a hazard, a count of people or damage, or the depth of the water. Its degrees are those of the incident:
`reported` by somebody, `corroborated` by independent voices that agree, `field_checked` by our own people on the
ground, `official` by an authority that proved who it is. What contradicts it stays beside it, with its source and
time. A word like `confirmed` in somebody's file is no evidence at all: nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from schemas.values import Evidence
from services.intake.domain import DEPTH_CM, Summary, Told, hazard_fits

DEGREES: tuple[Evidence, ...] = ("reported", "corroborated", "field_checked", "official")
AGREE_WITHIN = 0.25
"""Two counts agree when they differ by no more than this share of the larger one."""
DEPTH_AGREES_CM = 30.0
DEPTH_HOLDS = timedelta(hours=3)
"""So long a depth of the water counts beside a newer one: water rises and falls."""
MOST_CLAIMS = 50
_TOLD_AGAIN_WORDS = 4  # shorter texts are written alike by people who know nothing of one another


def stronger(first: Evidence, second: Evidence | None) -> Evidence:
    """The higher of two degrees of evidence; None counts for nothing."""
    return max(first, second or "reported", key=DEGREES.index)


def voices(told: Iterable[Told]) -> dict[UUID, str | None]:
    """Whose word each report is, None where it is nobody's own: a copy, a forward, words that an earlier report of the
    incident has too, or a sender that cannot be told from others."""
    said: set[str] = set()
    found: dict[UUID, str | None] = {}
    for t in told:
        words, forwarded = t.words
        again = words.count(" ") + 1 >= _TOLD_AGAIN_WORDS and words in said
        said.add(words)
        found[t.report_id] = None if t.copy or again or forwarded else t.voice
    return found


def evidence_of(told: Sequence[Told]) -> Evidence:
    """How far an incident is believed: an authority said it, two independent voices did, or somebody did.

    A voice is a contact or an organisation.
    """
    if any(t.official for t in told):
        return "official"
    own = {voice for voice in voices(told).values() if voice}
    return "corroborated" if len(own) >= 2 else "reported"


# Facts


@dataclass(frozen=True, slots=True)
class Vouched:
    """What somebody vouched for of one fact. `value`: what it was then, None where nobody had said anything of it."""

    value: Any
    evidence: Evidence
    by: str
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Claim:
    """What one report says of a fact. `voice` None: it adds no evidence (see `voices`)."""

    value: Any
    report_id: UUID
    source: str
    voice: str | None
    official: bool
    observed_at: datetime
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact as it counts, how far it is believed, who contradicts it, and all that was said of it, oldest first."""

    value: Any
    evidence: Evidence
    disputed: bool
    claims: tuple[Claim, ...] = field(default=())
    vouched: Vouched | None = None


def depth_of(told: Sequence[Told]) -> float | None:
    """How deep the water stands, by the texts: the deepest of the newest that says so and of those shortly before."""
    said = [(t.observed_at, float(t.reading["depth_cm"])) for t in told if t.reading.get("depth_cm") and not t.copy]
    if not said:
        return None
    newest = max(at for at, _ in said)
    return max(cm for at, cm in said if at >= newest - DEPTH_HOLDS)


def facts(said: Summary, told: Sequence[Told], vouched: Mapping[str, Vouched]) -> dict[str, Fact]:
    """Each fact of an incident whose reports say what `told` holds, in the order of receipt; `said` is settled."""
    own = voices(told)
    claims: dict[str, list[Claim]] = {}
    for t in told:
        for name, value in t.claims:
            claims.setdefault(name, []).append(
                Claim(value, t.report_id, t.origin, own[t.report_id], t.official, t.observed_at, t.received_at)
            )
    values = {"hazard": said.hazard, DEPTH_CM: said.water_depth_cm}
    values |= {f"people.{name}": value for name, value in said.people.items()}
    values |= {f"damage.{name}": value for name, value in said.damage.items()}
    return {
        name: _fact(name, values.get(name), claims.get(name, []), vouched.get(name))
        for name in sorted({*claims, *vouched})
    }


def _fact(name: str, value: Any, claims: list[Claim], vouched: Vouched | None) -> Fact:
    """A claim disputes the fact where another voice says something else after whoever said what counts, for a count
    grows as people learn more; of a hazard any other one does."""
    official = [claim for claim in claims if claim.official]
    agrees = {said: _agree(name, said, value) for said in {claim.value for claim in claims}}
    agreeing = [claim for claim in claims if agrees[claim.value]]
    evidence: Evidence = "reported"
    if official:
        evidence = "official"
    elif len({claim.voice for claim in agreeing if claim.voice}) >= 2:
        evidence = "corroborated"
    if vouched is not None and (vouched.value is None or _agree(name, vouched.value, value)):
        evidence = stronger(evidence, vouched.evidence)
    since: datetime | None = None
    if official:
        since = max(claim.observed_at for claim in official)
    elif vouched is not None and _agree(name, vouched.value, value):
        since = vouched.at
    elif agreeing:
        since = min(claim.observed_at for claim in agreeing)
    against = [
        claim for claim in claims
        if claim.voice and not claim.official and not agrees[claim.value]
        and (name == "hazard" or since is None or claim.observed_at >= since)
    ]  # fmt: skip
    contradicted = vouched is not None and vouched.value is not None and not _agree(name, vouched.value, value)
    return Fact(value, evidence, bool(against) or contradicted, tuple(claims[-MOST_CLAIMS:]), vouched)


def _agree(name: str, one: Any, other: Any) -> bool:
    if one is None or other is None:
        return False
    if name == "hazard":
        return hazard_fits([str(one)], str(other))
    if name == DEPTH_CM:
        return abs(float(one) - float(other)) <= DEPTH_AGREES_CM
    try:
        return bool(abs(one - other) <= AGREE_WITHIN * max(one, other))
    except TypeError:
        return bool(one == other)
