"""What an incident's reports say together, with what somebody checked of it: its row, but for its id. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import tzinfo

from schemas.values import Evidence
from services.intake import triage
from services.intake.domain import DAMAGE, DEPTH_CM, PEOPLE, Summary, Told, figures, middle, mode, title_of
from services.intake.evidence import Vouched, depth_of, evidence_of
from services.intake.sensitivity import strongest


def summary(told: Sequence[Told], zone: tzinfo) -> Summary:
    """What the reports of one incident say together; `told` in the order of receipt, not empty.

    Severity: the highest. Hazard and area: the most frequent, the earliest of equals; `other` only if nobody knows
    better. Point: the middle of the located reports. People and damage: see `figures`. Depth: see `depth_of`. Persons
    that the texts speak of: the most of any; groups that need more care: all of them. A protected class: the strongest.
    One text that says it is a drill is enough to suggest one.
    """
    hazards = [t.hazard for t in told if t.hazard and t.hazard != "other"]
    hazard = mode(hazards) or next((t.hazard for t in told if t.hazard), None)
    place = next((t.place for t in told if t.place), None)
    admin = mode([t.admin for t in told if t.admin])
    lon, lat = middle([(t.lon, t.lat) for t in told if t.lon is not None and t.lat is not None])
    return Summary(
        title=title_of(told[0].title, told[0].text, hazard, place, admin),
        hazard=hazard,
        severity=max(t.severity_alone for t in told),
        evidence=evidence_of(told),
        lon=lon,
        lat=lat,
        place=place,
        admin=admin,
        people=figures([(t, t.people) for t in told], PEOPLE, zone),
        damage=figures([(t, t.damage) for t in told], DAMAGE, zone),
        water_depth_cm=depth_of(told),
        persons=max((t.reading.get("persons") or 0 for t in told), default=0) or None,
        vulnerable=tuple(dict.fromkeys(group for t in told for group in t.reading.get("vulnerable", ()))),
        sensitivity=strongest(t.sensitivity for t in told),
        exercise_suggested=any("drill" in t.reading for t in told),
    )


def settled(said: Summary, told: Sequence[Told], vouched: Mapping[str, Vouched], zone: tzinfo) -> Summary:
    """The summary with what somebody checked on the ground, or knows from an authority, in place of what was told
    before that. What was seen afterwards counts again: a count goes on from there by the rule of `figures`."""
    hazard, depth = said.hazard, said.water_depth_cm
    counts = {"people": dict(said.people), "damage": dict(said.damage)}
    for name, check in vouched.items():
        if check.value is None or check.evidence not in ("field_checked", "official"):
            continue
        later = [t for t in told if t.observed_at > check.at]
        group, _, field_name = name.partition(".")
        if name == "hazard":
            hazard = str(check.value)
        elif name == DEPTH_CM:
            depth = depth_of(later) if depth_of(later) is not None else float(check.value)
        elif group in counts and field_name in PEOPLE + DAMAGE:
            after = figures([(t, getattr(t, group)) for t in later], [field_name], zone).get(field_name)
            officially = any(t.official and getattr(t, group).get(field_name) is not None for t in later)
            value = int(check.value)
            counts[group][field_name] = value if after is None else after if officially else max(value, after)
    return replace(said, hazard=hazard, people=counts["people"], damage=counts["damage"], water_depth_cm=depth)


def triage_of(
    told: Sequence[Told], said: Summary, evidence: Evidence, met: Iterable[str], waited_h: float
) -> triage.Triage:
    """Severity and priority of an incident with their reasons; `met`: needs that nobody has to meet any more."""
    return triage.together(
        [t.urgency for t in told],
        people=said.people,
        evidence=evidence,
        depth_cm=said.water_depth_cm,
        met=met,
        waited_h=waited_h,
    )
