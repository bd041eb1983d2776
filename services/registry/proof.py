"""How far a skill or a certificate counts: what somebody says of themselves, what an organisation has checked.

Low-risk work needs no proof. What would endanger the person or those they help if it were not true counts only once
somebody with the right to do so has looked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from schemas import vocabulary
from schemas.responders import Certificate, Skill

UNPROVED_LEVEL = 1
"""The level at which an unchecked low-risk skill counts: a helper, who leads nobody."""


def low_risk(skill: str) -> bool:
    """Whether anybody may do it untrained; a word that the vocabulary does not know is not taken for harmless."""
    known = vocabulary.skills().get(skill)
    return known is not None and known.risk == "low"


def may_check(word: str, limits: Collection[str] | None) -> bool:
    """Whether an organisation with these limits may check this skill or certificate; None: any."""
    return limits is None or word in limits


def weigh_skills(
    told: Iterable[Skill], known: Sequence[Skill], by: str | None, limits: Collection[str] | None = None
) -> tuple[tuple[Skill, ...], tuple[Skill, ...]]:
    """The skills that count and those that are only claimed. `by`: who checked what is told; None: nobody did.

    A skill that counted before keeps the level and the basis that it had, and a higher one is claimed.
    """
    held = {skill.skill: skill for skill in known}
    counting, claimed = [], []
    for skill in told:
        before = held.get(skill.skill)
        if by is not None and may_check(skill.skill, limits):
            if before is not None and before.level == skill.level and before.basis == "checked":
                counting.append(before)
            else:
                counting.append(Skill(skill=skill.skill, level=skill.level, basis="checked", by=by))
            continue
        proved = before
        if proved is None and low_risk(skill.skill):
            proved = Skill(skill=skill.skill, level=UNPROVED_LEVEL, basis="claimed")
        if proved is not None:
            counting.append(proved)
        if proved is None or skill.level > proved.level:
            claimed.append(Skill(skill=skill.skill, level=skill.level, basis="claimed"))
    return tuple(counting), tuple(claimed)


def weigh_certificates(
    told: Iterable[Certificate], known: Sequence[Certificate], by: str | None, limits: Collection[str] | None = None
) -> tuple[tuple[Certificate, ...], tuple[Certificate, ...]]:
    """The certificates that count and those that are only claimed, as `weigh_skills`. One that counted before goes on
    counting as it was seen: a later end, or another issuer, is a new claim."""
    held = {certificate.code: certificate for certificate in known}
    counting: dict[str, Certificate] = {}
    claimed = []
    for certificate in told:
        plain = certificate.model_copy(update={"verified_by": None, "revoked_at": None})
        before = held.get(plain.code)
        same = before is not None and (before.valid_until, before.issuer) == (plain.valid_until, plain.issuer)
        if by is not None and may_check(plain.code, limits):
            counting[plain.code] = before if same and before else plain.model_copy(update={"verified_by": by})
            continue
        if before is not None:
            counting[plain.code] = before
        if not same:
            claimed.append(plain)
    return tuple(counting.values()), tuple(claimed)


def check(
    counting: Sequence[Skill],
    claimed: Sequence[Skill],
    chosen: Sequence[Skill] | None,
    by: str,
    limits: Collection[str] | None = None,
) -> tuple[tuple[Skill, ...], tuple[Skill, ...]]:
    """The skills that count and that stay claimed after a check by `by`. `chosen`: what was looked at, at the level
    that was found; None: all that is claimed. What `by` may not judge stays as it was."""
    looked = [skill for skill in (claimed if chosen is None else chosen) if may_check(skill.skill, limits)]
    found = {skill.skill: Skill(skill=skill.skill, level=skill.level, basis="checked", by=by) for skill in looked}
    kept = [found.pop(skill.skill, skill) for skill in counting]
    rest = [skill for skill in claimed if skill.skill not in {one.skill for one in looked}]
    return (*kept, *found.values()), tuple(rest)


def in_force(certificates: Iterable[Certificate], now: datetime) -> tuple[Certificate, ...]:
    """Those that are valid already; whether they last to the end of a need is judged when somebody is matched to it."""
    return tuple(one for one in certificates if one.valid_from is None or one.valid_from <= now)
