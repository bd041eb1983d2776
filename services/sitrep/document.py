"""The report as one document: what is found at a position of the log, said in the order in which it is read."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

from schemas import vocabulary
from schemas.values import STANDING
from services.sitrep import tally
from services.sitrep.areas import canonical, coarse
from services.sitrep.bands import band
from services.sitrep.domain import (
    DAMAGE,
    EVIDENCE,
    PEOPLE,
    RECENT,
    IncidentView,
    OperationView,
    Scope,
    SilenceView,
    SiteView,
)
from services.sitrep.tally import Sums, Tally, name, parts

TOP_INCIDENTS = tally.TOP_SURE
TOP_POSTS = 40
STATUSES = ("open", "closed", "merged")
OFFER_STATES = ("made", "accepted", "declined", "expired", "withdrawn")
ASSIGNMENT_STATES = ("made", "started", "arrived", "delivered", "confirmed", "abandoned")
SEVERITIES = ("1", "2", "3", "4")
AMOUNTS = ("needed", "committed", "coming", "delivered", "gap", "cancelled")
MAIN = ("reports", "incidents", "incidents_open", *PEOPLE)
"""Whose change since the last report is told."""

Told = int | str
"""A count, or the band that it lies in."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The sums at an earlier position, within the same scope."""

    position: int
    received_at: datetime | None
    sums: Sums


@dataclass(frozen=True, slots=True)
class Found:
    """Everything that a report says, as exact figures. `areas`: the sums of each area code (None: no code).

    `since`: the report before, or a day before; `day`: 24 hours before. `silences`: of these 24 hours, the newest of
    each area.
    """

    position: int
    received_at: datetime | None
    redacted: int
    operations: tuple[OperationView, ...]
    areas: Mapping[str | None, Sums]
    register: Sums
    top: tuple[IncidentView, ...]
    posts: tuple[SiteView, ...]
    silences: tuple[SilenceView, ...]
    since: Earlier
    day: Earlier
    sums: Sums = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NeedLine:
    """All needs for one item or skill, in one unit. `severity`: the highest among them."""

    kind: str
    code: str
    unit: str
    severity: int
    needs: int
    amounts: Mapping[str, int]
    evidence: Mapping[str, int]


def find(
    scope: Scope,
    *,
    position: int,
    received_at: datetime | None,
    redacted: int,
    operations: Iterable[OperationView],
    counted: Tally,
    incidents: Mapping[UUID, IncidentView],
    sites: Iterable[SiteView],
    silences: Iterable[SilenceView],
    day: tuple[int, datetime | None, Tally],
    since: tuple[int, datetime | None, Tally],
) -> Found:
    """What a report in this scope says. `incidents` holds at least those that `top_of` names, `sites` all there are,
    `silences` those of the last day, oldest first."""
    areas: dict[str | None, list[Sums]] = {}
    for (_, _, admin), sums in counted.within(scope):
        areas.setdefault(admin, []).append(sums)
    merged = {admin: added(several) for admin, several in areas.items()}
    covered = tuple(
        line
        for line in sorted(operations, key=lambda line: line.operation_id)
        if scope.covers(line.operation_id, line.exercise)
    )
    drill = scope.operation is not None and any(line.exercise for line in covered)
    posts = [
        site
        for site in sites
        if site.status == "open" and scope.covers(site.operation, site.exercise) and scope.holds(site.admin)
    ]
    posts.sort(key=lambda site: (-site.heads.get("people", 0), str(site.site_id)))
    quiet = {
        each.area: each
        for each in silences
        if received_at is not None
        and each.noticed_at > received_at - RECENT
        and scope.covers(each.operation, each.exercise)
        and scope.holds(each.area)
    }
    return Found(
        position=position,
        received_at=received_at,
        redacted=redacted,
        operations=covered,
        areas=merged,
        register=added(counted.sums.get(place, {}) for place in (tally.REGISTER if drill else tally.REGISTER[:1])),
        top=tuple(incidents[key] for key in top_of(counted, scope)),
        posts=tuple(posts[:TOP_POSTS]),
        silences=tuple(quiet[area] for area in sorted(quiet)),
        since=_earlier(since, scope),
        day=_earlier(day, scope),
        sums=added(merged.values()),
    )


def top_of(counted: Tally, scope: Scope) -> list[UUID]:
    """The incidents that the report names."""
    return tally.first(counted, scope, TOP_INCIDENTS)


def _earlier(then: tuple[int, datetime | None, Tally], scope: Scope) -> Earlier:
    position, received_at, counted = then
    return Earlier(position, received_at, added(sums for _, sums in counted.within(scope)))


def added(several: Iterable[Sums]) -> Sums:
    """The sums of several places."""
    total: Sums = {}
    for sums in several:
        for key, count in sums.items():
            total[key] = total.get(key, 0) + count
    return total


def need_lines(sums: Sums) -> list[NeedLine]:
    """The needs in these sums, the most severe first, then the largest gap."""
    found: dict[tuple[str, str, str], dict[str, int]] = {}
    for key, count in sums.items():
        words = parts(key)
        if words[0] == "need":
            found.setdefault((words[1], words[2], words[3]), {})[words[4]] = count
    lines = [
        NeedLine(
            kind,
            code,
            unit,
            max((at for at in range(1, 5) if counts.get(f"severity{at}")), default=1),
            counts.get("needs", 0),
            {amount: counts.get(amount, 0) for amount in AMOUNTS},
            {level: counts[f"by_{level}"] for level in (*EVIDENCE, "stated") if counts.get(f"by_{level}")},
        )
        for (kind, code, unit), counts in found.items()
    ]
    return sorted(lines, key=lambda line: (-line.severity, -line.amounts["gap"], line.kind, line.code, line.unit))


def _total(sums: Sums, kind: str, figure: str) -> int:
    return sum(sums.get(name(kind, figure, level), 0) for level in EVIDENCE)


def main_figures(sums: Sums) -> dict[str, int]:
    """The figures whose change is told."""
    opened, closed = sums.get(name("status", "open"), 0), sums.get(name("status", "closed"), 0)
    return {
        "reports": sums.get("reports", 0),
        "incidents": opened + closed,
        "incidents_open": opened,
        **{figure: _total(sums, "people", figure) for figure in PEOPLE},
    }


@cache
def targets() -> tuple[Mapping[str, str], ...]:
    """How long each thing may wait, from data/targets.csv."""
    with (Path(__file__).parent / "data" / "targets.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def waiting(sums: Sums, kind: str, now: datetime | None) -> dict[str | int, int]:
    """How many of a kind wait, by whole hours of age; `old`: longer than is told apart."""
    found: dict[str | int, int] = {}
    if now is not None:
        for key, count in sums.items():
            words = parts(key)
            if words[0] == "wait" and words[1] == kind:
                age = tally.OLD if words[2] == tally.OLD else max(0, tally.hour_of(now) - int(words[2]))
                found[age] = found.get(age, 0) + count
    return found


def _oldest(ages: Mapping[str | int, int]) -> int | None:
    """Hours that the oldest has waited, at least; None: nothing waits."""
    if not ages:
        return None
    return max(tally.OLD_H if age == tally.OLD else int(age) for age in ages)


def report(found: Found, scope: Scope, *, exact: bool, veiled: bool = False) -> dict[str, Any]:
    """The report as a document that JSON can hold; every rendering is made from it and from nothing else.

    `exact` False is the public form: bands for every count, no incident, post or organisation by itself, areas no
    finer than a regency. `veiled`: of what is protected nothing is said but that it is there.
    """

    def n(count: int) -> Told:
        return count if exact else band(count)

    def each(counts: Mapping[str, int]) -> dict[str, Told]:
        return {key: n(count) for key, count in counts.items()}

    sums = found.sums
    named = found.operations[0] if scope.operation is not None and found.operations else None
    figures = main_figures(sums)
    document: dict[str, Any] = {
        "operation": scope.operation,
        "area": scope.area,
        "as_of": instant(found.received_at),
        "position": found.position,
        "form": "exact" if exact else "public",
        "redacted": n(found.redacted),
        "exercise": named.exercise if named else False,
        "title": named.title if named else scope.operation,
        "glide": named.glide if named else None,
        "hazards": list(named.hazards) if named else [],
        "timezone": named.timezone if named else "Asia/Jakarta",
        "lead": named.lead if named else None,
        "status": _status(named),
        "phase": named.phase if named else None,
        "closed": named.closed_at is not None if named else False,
        "operations": [
            {"operation": line.operation_id, "title": line.title, "lead": line.lead, "status": _status(line)}
            for line in found.operations
            if line.closed_at is None and line.operation_id != STANDING
        ],
        "totals": {
            "reports": n(figures["reports"]),
            "reports_unlinked": n(sums.get("reports_unlinked", 0)),
            "reports_retracted": n(sums.get("reports_retracted", 0)),
            "incidents": n(figures["incidents"]),
            "incidents_open": n(figures["incidents_open"]),
            "incidents_closed": n(sums.get(name("status", "closed"), 0)),
            "incidents_merged": n(sums.get(name("status", "merged"), 0)),
            "people": {figure: n(_total(sums, "people", figure)) for figure in PEOPLE},
            "damage": {figure: n(_total(sums, "damage", figure)) for figure in DAMAGE},
        },
        "evidence": {
            kind: {
                figure: {
                    level: n(sums[name(kind, figure, level)])
                    for level in reversed(EVIDENCE)
                    if name(kind, figure, level) in sums
                }
                for figure in names
            }
            for kind, names in (("people", PEOPLE), ("damage", DAMAGE))
        },
        "last_24h": {
            "reports": n(_more(sums, found.day.sums, "reports_received")),
            "incidents": n(_more(sums, found.day.sums, "incidents_opened")),
        },
        "since": _since(figures, found.since, n, exact=exact),
        "open_by_hazard": each(_counted(sums, "hazard")),
        "open_by_severity": {level: n(sums.get(name("severity", level), 0)) for level in SEVERITIES},
        "by_evidence": {level: n(sums.get(name("ev", level), 0)) for level in EVIDENCE},
        "needs": [_need(line, n) for line in need_lines(sums)],
        "needs_drafted": n(sums.get("drafts", 0)),
        "gaps_by_area": _gaps_by_area(found, n, exact=exact),
        "waiting": _waiting(sums, found.received_at, n),
        "targets": _targets(sums, found.received_at, n),
        "overdue": {level: n(sums.get(name("overdue", level), 0)) for level in ("1", "2", "3")},
        "sites": {
            "open": n(sums.get(name("site", "open"), 0)),
            "closed": n(sums.get(name("site", "closed"), 0)),
            "uncounted": n(sums.get("sites_uncounted", 0)),
            "heads": each(_counted(sums, "heads")),
        },
        "offers": {state: n(sums.get(name("offer", state), 0)) for state in OFFER_STATES},
        "assignments": {state: n(sums.get(name("assignment", state), 0)) for state in ASSIGNMENT_STATES},
        "responders": {
            "confirmed": n(found.register.get("responders", 0)),
            "people": n(found.register.get("responder_people", 0)),
            "on_assignment": n(sums.get("busy", 0)),
        },
        "silent_areas": [_silence(each) for each in found.silences],
        "coverage": _coverage(found, n, exact=exact),
    }
    if exact:
        document |= _inner(found, veiled=veiled)
        document["sources"] = "/v1/sitreps/sources?" + "&".join(
            f"{key}={value}"
            for key, value in (
                ("operation", scope.operation),
                ("area", scope.area),
                ("as_of", instant(found.received_at)),
            )
            if value is not None
        )
    return document


def _more(now: Sums, before: Sums, key: str) -> int:
    """How many came since; what was moved away is no negative arrival."""
    return max(0, now.get(key, 0) - before.get(key, 0))


def _since(figures: Mapping[str, int], since: Earlier, n: Callable[[int], Told], *, exact: bool) -> dict[str, Any]:
    """What the main figures were, and by how much they changed: of the public form only the bands."""
    before = main_figures(since.sums)
    changed = {
        key: {"before": n(before[key]), **({"change": figures[key] - before[key]} if exact else {})} for key in MAIN
    }
    return {"as_of": instant(since.received_at), "position": since.position, "figures": changed}


def _counted(sums: Sums, kind: str) -> dict[str, int]:
    """The sums `kind/word` by word, in the order of the words."""
    found: dict[str, int] = {}
    for key, count in sums.items():
        words = parts(key)
        if words[0] == kind:
            found[words[1]] = found.get(words[1], 0) + count
    return dict(sorted(found.items()))


def _need(line: NeedLine, n: Callable[[int], Told]) -> dict[str, Any]:
    return {
        line.kind: line.code,
        "unit": line.unit,
        "cluster": vocabulary.sector(line.code),
        "severity": line.severity,
        "needs": n(line.needs),
        **{amount: n(line.amounts[amount]) for amount in AMOUNTS},
        "evidence": {level: n(count) for level, count in line.evidence.items()},
    }


def by_area(found: Found, *, exact: bool) -> dict[str | None, Sums]:
    """The sums of each area; of regencies for the public."""
    grouped: dict[str | None, list[Sums]] = {}
    for admin, sums in found.areas.items():
        grouped.setdefault(canonical(admin) if exact else coarse(admin), []).append(sums)
    return {area: added(several) for area, several in sorted(grouped.items(), key=lambda each: each[0] or "")}


def _gaps_by_area(found: Found, n: Callable[[int], Told], *, exact: bool) -> list[dict[str, Any]]:
    return [
        {"area": area, **_need(line, n)}
        for area, sums in by_area(found, exact=exact).items()
        for line in need_lines(sums)
    ]


def _waiting(sums: Sums, now: datetime | None, n: Callable[[int], Told]) -> dict[str, Any]:
    """The backlog: what waits for a hand, and how long the oldest has waited."""
    document = {}
    for kind in ("report", "draft"):
        ages = waiting(sums, kind, now)
        document[f"{kind}s"] = {"count": n(sum(ages.values())), "oldest_h": _oldest(ages)}
    return document


def _targets(sums: Sums, now: datetime | None, n: Callable[[int], Told]) -> list[dict[str, Any]]:
    lines = []
    for target in targets():
        ages = waiting(sums, f"{target['what']}{target['severity']}", now)
        limit = int(target["hours"])
        late = sum(count for age, count in ages.items() if age == tally.OLD or int(age) > limit)
        lines.append(
            {
                "what": target["what"],
                "severity": int(target["severity"]) if target["severity"] else None,
                "within_h": limit,
                "waiting": n(sum(ages.values())),
                "breached": n(late),
            }
        )
    return lines


def _coverage(found: Found, n: Callable[[int], Told], *, exact: bool) -> list[dict[str, Any]]:
    """Of each area: open incidents, and how much of what is needed there is promised or done."""
    lines = []
    for area, sums in by_area(found, exact=exact).items():
        needs = need_lines(sums)
        opened = sums.get(name("status", "open"), 0)
        if not opened and not needs:
            continue
        lines.append(
            {
                "area": area,
                "incidents_open": n(opened),
                "needs": n(sum(line.needs for line in needs)),
                "needs_met": n(
                    sum(line.needs for line in needs if not line.amounts["gap"])
                ),
                "heads": n(sums.get(name("heads", "people"), 0)),
            }
        )  # fmt: skip
    return lines


def _silence(each: SilenceView) -> dict[str, Any]:
    return {
        "area": each.area,
        "hazard": each.hazard,
        "severity": each.severity,
        "since": instant(each.since),
        "noticed_at": instant(each.noticed_at),
        "expected": each.expected,
        "received": each.received,
    }


def _inner(found: Found, *, veiled: bool) -> dict[str, Any]:
    """What only those who work with it are told: single incidents, posts, organisations, who says what, the map."""
    sums = found.sums
    who: dict[tuple[str, str], dict[str, int]] = {}
    cells: dict[str, dict[str, int]] = {}
    cover: dict[str, dict[str, int]] = {}
    said: dict[str, dict[str, int]] = {}
    for key, count in sums.items():
        words = parts(key)
        if words[0] == "who":
            who.setdefault((words[1], words[2]), {})[words[3]] = count
        elif words[0] == "cell":
            cells.setdefault(words[1], {})[words[2]] = count
        elif words[0] == "cover":
            cover.setdefault(words[1], {})[words[2]] = count
        elif words[0] == "said":
            said.setdefault(words[1], {})[words[2]] = count
    return {
        "organisations": [
            {
                "organisation": organisation if kind == "organisation" else None,
                "committed": counts.get("committed", 0),
                "under_way": counts.get("under_way", 0),
                "done": counts.get("done", 0),
                "overdue": counts.get("overdue", 0),
            }
            for (kind, organisation), counts in sorted(who.items())
        ],
        "said": {
            figure: {by: said[figure].get(by, 0) for by in tally.SAID_BY}
            for figure in PEOPLE
            if len(set(said.get(figure, {}).values())) > 1 or len(said.get(figure, {})) > 1
        },
        "incidents": [_incident(line, veiled=veiled) for line in found.top],
        "posts": [
            {
                "id": str(post.site_id),
                "name": post.name,
                "code": post.code,
                "admin": post.admin,
                "place": post.place,
                "organisation": post.organisation,
                "capacity": post.capacity,
                "alarm": post.alarm,
                "heads": dict(sorted(post.heads.items())),
                "counted_at": instant(post.counted_at),
            }
            for post in found.posts
        ],
        "cells": [
            {
                "cell": cell,
                "incidents_open": sum(counts.values()),
                "severity": max(int(level) for level in counts),
                "met": _share(cover.get(cell, {})),
            }
            for cell, counts in sorted(cells.items())
        ],
    }


def _share(counts: Mapping[str, int]) -> int | None:
    """How many in a hundred of the needs there are promised in full; None: there are none."""
    met, short = counts.get("met", 0), counts.get("short", 0)
    return met * 100 // (met + short) if met + short else None


def _incident(line: IncidentView, *, veiled: bool) -> dict[str, Any]:
    # Which class it is, a count or a hazard could be the harm itself.
    hidden = veiled and line.sensitivity is not None
    return {
        "id": str(line.incident_id),
        "title": None if hidden else line.title,
        "hazard": None if hidden else line.hazard,
        "severity": line.severity,
        "evidence": line.evidence,
        "admin": coarse(line.admin) if line.sensitivity is not None else line.admin,
        "place": None if line.sensitivity is not None else line.place,
        "operation": line.operation,
        "reports": None if hidden else line.reports,
        "people": {figure: None if hidden else getattr(line, figure) for figure in PEOPLE},
        "protected": line.sensitivity is not None,
        "updated_at": instant(line.updated_at),
    }


def _status(line: OperationView | None) -> dict[str, Any] | None:
    if line is None or line.declared is None:
        return None
    return {"declared": line.declared, "level": line.level, "decree": line.decree, "until": instant(line.until)}


def instant(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC with microseconds, so that it can be given back as `as_of` and means the same."""
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
