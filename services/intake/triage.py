"""How severe a situation is and how soon somebody should look at it, with the reasons. Pure; figures in `data/`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache, cached_property
from typing import Any, Literal, get_args

from schemas.values import Evidence
from services.intake.needs_text import NeedsReading, Urgency
from services.intake.phrases import data

_URGENCIES = frozenset(get_args(Urgency))


@dataclass(frozen=True)
class Facts:
    """What triage goes by. `stated`: a severity that somebody chose, 1 to 4; `people`: counts by field; `persons`:
    people spoken of in the text; `needs`: kinds of need not yet met; `waited_h`: hours since it came in."""

    stated: int | None = None
    people: Mapping[str, int] = field(default_factory=dict)
    persons: int | None = None
    vulnerable: tuple[str, ...] = ()
    urgency: Urgency = "none"
    depth_cm: float | None = None
    needs: tuple[str, ...] = ()
    evidence: Evidence = "reported"
    waited_h: float = 0.0
    bulk: bool = False
    drill: bool = False

    @cached_property
    def judged(self) -> tuple[int, tuple[Reason, ...]]:
        """The severity by itself, and what set it."""
        return _severity(self)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why: a word for the cause, what was found, and the points that it gave (0 for what set the severity)."""

    cause: str
    found: str
    points: int = 0


@dataclass(frozen=True, slots=True)
class Triage:
    """Severity 1 (minor) to 4 (life at risk now); `priority` 0 to 100, the sum of the reasons' points within it."""

    severity: int
    priority: int
    reasons: tuple[Reason, ...]


@cache
def _figures() -> dict[str, Any]:
    figures: dict[str, Any] = data("triage.yaml")
    return figures


@cache
def _levels() -> dict[str, int]:
    """How severe each cause makes a situation."""
    return {cause: int(level) for cause, level in _figures()["severity"].items()}


def facts_of(
    reading: NeedsReading,
    *,
    stated: int | None = None,
    people: Mapping[str, int] | None = None,
    evidence: Evidence = "reported",
    waited_h: float = 0.0,
    bulk: bool = False,
) -> Facts:
    """What one text and the fields beside it give triage to go by."""
    return Facts(
        stated=stated, people=people or {}, persons=reading.persons, vulnerable=reading.vulnerable,
        urgency=reading.urgency, depth_cm=reading.depth.cm if reading.depth else None,
        needs=tuple(dict.fromkeys(need.label for need in reading.needs)), evidence=evidence, waited_h=waited_h,
        bulk=bulk, drill=reading.drill is not None,
    )  # fmt: skip


def facts_from(
    reading: Mapping[str, Any] | None,
    *,
    stated: int | None = None,
    people: Mapping[str, int] | None = None,
    asked: Iterable[str] = (),
    bulk: bool = False,
) -> Facts:
    """As `facts_of`, from a reading as it is stored (`needs_text.stored`) and what the report itself `asked` for.

    A report whose words tell nothing of how urgent it is may be any: it counts as harm now, not as a trifle.
    """
    said = reading or {}
    urgency: Urgency = said["urgency"] if said.get("urgency") in _URGENCIES else "medium"
    return Facts(
        stated=stated, people=people or {}, persons=said.get("persons"), vulnerable=tuple(said.get("vulnerable", ())),
        urgency="medium" if urgency == "none" else urgency, depth_cm=said.get("depth_cm"),
        needs=tuple(dict.fromkeys((*asked, *said.get("labels", ())))), bulk=bulk, drill="drill" in said,
    )  # fmt: skip


def triage(facts: Facts) -> Triage:
    """Severity and priority of a situation. A severity that somebody stated stands, unless people are counted dead,
    injured or missing: a slip of the finger must not hide them. More of anything bad never lowers either figure."""
    severity, reasons = facts.judged
    return _with_points(facts, severity, reasons)


def together(
    each: Iterable[Facts],
    *,
    people: Mapping[str, int],
    evidence: Evidence,
    depth_cm: float | None,
    met: Iterable[str] = (),
    waited_h: float = 0.0,
) -> Triage:
    """Severity and priority of an incident: as severe as its most severe report or its figures together; points by what
    all of them say, `people` and `depth_cm` as the incident has them. `met`: needs that nobody has to meet any more."""
    reports = list(each)
    severity, reasons = max((facts.judged for facts in reports), key=lambda found: found[0])
    done = set(met)
    whole = Facts(
        stated=severity,
        people=people,
        persons=max((facts.persons or 0 for facts in reports), default=0),
        vulnerable=tuple(dict.fromkeys(group for facts in reports for group in facts.vulnerable)),
        depth_cm=depth_cm,
        needs=tuple(dict.fromkeys(need for facts in reports for need in facts.needs if need not in done)),
        evidence=evidence,
        waited_h=waited_h,
        bulk=all(facts.bulk for facts in reports),
        drill=any(facts.drill for facts in reports),
    )
    counted, causes = _severity(whole)
    if counted > severity:
        severity, reasons = counted, tuple(cause for cause in causes if cause.cause != "stated")
    return _with_points(whole, severity, reasons)


def report_severity(stated: int | None, people: Mapping[str, int], reading: Mapping[str, Any] | None) -> int:
    """How severe one report is by itself."""
    return facts_from(reading, stated=stated, people=people).judged[0]


Wait = Literal["linking", "place"]


def attend_within(severity: int) -> timedelta:
    """The time from an incident's first report within which somebody should have looked at it."""
    return timedelta(minutes=float(_figures()["attend_within_min"][str(severity)]))


def wait_at_most(what: Wait) -> timedelta:
    """How long a report may wait for this before it is told as overdue."""
    return timedelta(minutes=float(_figures()["wait_at_most_min"][what]))


def next_rise(since: datetime, now: datetime) -> datetime | None:
    """When waiting next makes something that came in at `since` more urgent; None: never again."""
    waiting = _figures()["points"]["waiting"]
    hours = math.floor((now - since) / timedelta(hours=1)) + 1
    if int(waiting["each_hour"]) * (hours - 1) >= int(waiting["most"]):
        return None
    return since + timedelta(hours=max(1, hours))


def _with_points(facts: Facts, severity: int, causes: Sequence[Reason]) -> Triage:
    points = _figures()["points"]
    reasons = [*causes, Reason("severity", str(severity), int(points["severity"][str(severity)]))]
    people = max([facts.persons or 0, *(count for count in facts.people.values() if count)], default=0)
    if people > 0:
        worth = points["people"]
        gained = min(int(worth["most"]), int(worth["each_tenfold"]) * (1 + math.floor(math.log10(people))))
        reasons.append(Reason("people", str(people), gained))
    groups = tuple(dict.fromkeys(facts.vulnerable))
    if groups:
        worth = points["vulnerable"]
        gained = min(int(worth["most"]), int(worth["each_group"]) * len(groups))
        reasons.append(Reason("vulnerable", ", ".join(groups), gained))
    if facts.depth_cm is not None and facts.depth_cm >= float(_figures()["deep_water_cm"]):
        reasons.append(Reason("deep_water", f"{facts.depth_cm:.0f} cm", int(points["deep_water"])))
    needs = tuple(dict.fromkeys(facts.needs))
    if needs:
        worth = points["unmet_need"]
        gained = min(int(worth["most"]), int(worth["each"]) * len(needs))
        reasons.append(Reason("unmet_need", ", ".join(needs), gained))
    if int(points["evidence"][facts.evidence]):
        reasons.append(Reason("evidence", facts.evidence, int(points["evidence"][facts.evidence])))
    if facts.waited_h >= 1:
        worth = points["waiting"]
        gained = min(int(worth["most"]), int(worth["each_hour"]) * math.floor(min(facts.waited_h, 1e6)))
        reasons.append(Reason("waiting", f"{facts.waited_h:.0f} h", gained))
    if facts.bulk:
        reasons.append(Reason("bulk", "one of many from one sender", int(points["bulk"])))
    if facts.drill:
        reasons.append(Reason("drill", "the text says that it is a drill", int(points["drill"])))
    priority = max(0, min(int(_figures()["most"]), sum(reason.points for reason in reasons)))
    return Triage(severity, priority, tuple(reasons))


def _severity(facts: Facts) -> tuple[int, tuple[Reason, ...]]:
    """The severity and what set it."""
    figures = _figures()
    levels = _levels()
    counted = _counted(facts, figures)
    if facts.stated is not None:
        highest = max((levels[cause] for cause in counted), default=0)
        causes = {"stated": str(facts.stated), **(counted if highest > facts.stated else {})}
        return max(facts.stated, highest), tuple(Reason(cause, found) for cause, found in causes.items())
    causes = dict(counted)
    depth = facts.depth_cm or 0.0
    if facts.urgency == "high" or depth >= float(figures["mortal_water_cm"]):
        causes["life_at_risk"] = "urgent words" if facts.urgency == "high" else f"{depth:.0f} cm"
    if depth >= float(figures["deep_water_cm"]):
        causes["deep_water"] = f"{depth:.0f} cm"
    if facts.vulnerable and facts.needs:
        causes["vulnerable_in_need"] = ", ".join(facts.vulnerable)
    if not causes:
        if facts.urgency == "medium" or (facts.needs and facts.urgency != "low"):
            causes["harm_now"] = facts.urgency
        else:
            causes["low"] = facts.urgency
    severity = max(levels[cause] for cause in causes)
    return severity, tuple(Reason(cause, found) for cause, found in causes.items() if levels[cause] == severity)


def _counted(facts: Facts, figures: Mapping[str, Any]) -> dict[str, str]:
    causes: dict[str, str] = {}
    for name in ("dead", "missing"):
        if facts.people.get(name):
            causes["dead_or_missing"] = f"{name} {facts.people[name]}"
    if facts.people.get("injured"):
        causes["injured"] = str(facts.people["injured"])
    if facts.people.get("displaced", 0) >= int(figures["many_displaced"]):
        causes["many_displaced"] = str(facts.people["displaced"])
    return causes
