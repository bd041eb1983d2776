"""What each subject adds to the figures: the rules of counting, as pure functions, and the sums of them.

A tally holds, for each place (operation, exercise, area code), sums by name. Every figure of a report is such a sum,
so a tally of an earlier position and the subjects that changed since give the tally of now (checkpoints.py).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import h3
import orjson

from services.sitrep.areas import coarse
from services.sitrep.domain import (
    DAMAGE,
    PEOPLE,
    UNDER_WAY,
    AssignmentView,
    IncidentView,
    LedgerView,
    NeedView,
    OfferView,
    ReportView,
    ResponderView,
    Scope,
    SiteView,
    State,
)

RULES = 2
"""Counts up whenever a rule here changes: checkpoints made by other rules are made again."""
OLD_H = 96
"""Hours after which what waits is no longer told apart by its age; longer than the longest target."""
OLD = "old"
TOP_KEPT = 30
TOP_SURE = 10
"""How many of a place are known without looking."""
CELL_RESOLUTION = 6
"""Of the map's cells: about 36 km² each."""
SAID_BY = ("official", "organisation", "public")
REGISTER = ("", False, None), ("", True, None)
"""Where responders are counted, who serve any operation: live ones and those of drills."""

Place = tuple[str | None, bool, str | None]
"""Operation, exercise, area code."""
Sums = dict[str, int]
Added = tuple[Place, Sums]
_SEPARATOR = "\x1f"


def name(*parts: str | None) -> str:
    """The name of a sum, from words that may come from outside."""
    return _SEPARATOR.join("" if part is None else part.replace(_SEPARATOR, " ") for part in parts)


def parts(of: str) -> list[str]:
    """The words of a name."""
    return of.split(_SEPARATOR)


Rank = tuple[int, int, int, int, str]
"""Where an incident stands among the others of its place: the least comes first; its id last."""


@dataclass(frozen=True, slots=True)
class Top:
    """The first open incidents of a place, best first. `known_to`: none that ranks up to there is left out; None: none
    at all is."""

    ranks: tuple[Rank, ...]
    known_to: Rank | None = None

    @classmethod
    def of(cls, ranks: Iterable[Rank], known_to: Rank | None = None) -> Top:
        """The first `TOP_KEPT` of these, of which all up to `known_to` are there."""
        known = sorted(rank for rank in ranks if known_to is None or rank <= known_to)
        if len(known) > TOP_KEPT:
            return cls(tuple(known[:TOP_KEPT]), known[TOP_KEPT - 1])
        return cls(tuple(known), known_to)


@dataclass(slots=True)
class Tally:
    """`tops`: the first open incidents of each place."""

    sums: dict[Place, Sums] = field(default_factory=dict)
    tops: dict[Place, Top] = field(default_factory=dict)

    def add(self, added: Added, sign: int = 1) -> None:
        """Add what a subject counts, or take it away again."""
        place, more = added
        sums = self.sums.setdefault(place, {})
        for key, count in more.items():
            left = sums.get(key, 0) + sign * count
            if left:
                sums[key] = left
            else:
                sums.pop(key, None)

    def tidy(self, now: datetime | None) -> None:
        """Drop empty places, and let what has waited longest be of one age as of `now`."""
        limit = hour_of(now) - OLD_H if now is not None else None
        for place, sums in list(self.sums.items()):
            if limit is not None:
                for key in [key for key in sums if key.startswith(_WAITS)]:
                    *words, hour = parts(key)
                    if hour != OLD and int(hour) <= limit:
                        old = name(*words, OLD)
                        sums[old] = sums.get(old, 0) + sums.pop(key)
                        if not sums[old]:
                            del sums[old]
            if not sums:
                del self.sums[place]

    def within(self, scope: Scope) -> Iterator[tuple[Place, Sums]]:
        """The places that a report counts."""
        codes = scope.area_codes()
        for place, sums in self.sums.items():
            operation, exercise, admin = place
            if operation == "" or not scope.covers(operation, exercise):
                continue
            if codes is None or (admin is not None and (admin in codes[0] or admin.startswith(codes[1]))):
                yield place, sums


_WAITS = f"wait{_SEPARATOR}"


def hour_of(moment: datetime) -> int:
    """Whole hours since 1970."""
    return int(moment.timestamp()) // 3600


def _waits(kind: str, since: datetime | None, now: datetime | None) -> str:
    """The name under which something that waits is counted: by the hour since when."""
    if since is None or now is None or hour_of(since) <= hour_of(now) - OLD_H:
        return name("wait", kind, OLD)
    return name("wait", kind, str(hour_of(since)))


# One subject each; `now` is the instant of the position that is tallied


def of_report(view: ReportView, incident: IncidentView | None, now: datetime | None) -> Added | None:
    """A linked report counts where its incident stands: an incident that is moved takes its reports along."""
    if view.received_at is None:
        return None
    admin = view.admin or (incident.admin if incident is not None else None)
    admin = _area(admin, view.sensitivity or (incident.sensitivity if incident is not None else None))
    operation, exercise = (view.operation, view.exercise)
    if incident is not None:
        operation, exercise = incident.operation, incident.exercise
    sums = {"reports_received": 1}
    if view.retracted:
        sums["reports_retracted"] = 1
    else:
        sums["reports"] = 1
        if view.incident_id is None:
            sums["reports_unlinked"] = 1
            sums[_waits("report", view.received_at, now)] = 1
    return (operation, exercise, admin), sums


def rank(view: IncidentView) -> Rank:
    """Which incident a reader has to see first: severity, then people harmed, affected, and how many say so."""
    harmed = (view.dead or 0) + (view.missing or 0) + (view.injured or 0)
    return (-view.severity, -harmed, -(view.affected or 0), -view.reports, str(view.incident_id))


def place_of(view: IncidentView) -> Place:
    """Where an incident counts: a protected one in no finer area than its regency."""
    return view.operation, view.exercise, _area(view.admin, view.sensitivity)


def _area(admin: str | None, sensitivity: str | None) -> str | None:
    return admin if sensitivity is None else coarse(admin)


def of_incident(view: IncidentView, linked: Iterable[ReportView]) -> Added:
    """A merged incident counts only as such: its figures are those of the one it was merged into."""
    sums = {name("status", view.status): 1, "incidents_opened": 1}
    if view.status != "merged":
        sums[name("ev", view.evidence)] = 1
        for kind, names in (("people", PEOPLE), ("damage", DAMAGE)):
            for figure in names:
                count = getattr(view, figure)
                if count:
                    sums[name(kind, figure, level_of(view, figure))] = count
        for (by, figure), count in said(linked).items():
            sums[name("said", figure, by)] = count
    if view.status == "open":
        sums[name("hazard", view.hazard or "other")] = 1
        sums[name("severity", str(view.severity))] = 1
        if view.lon is not None and view.lat is not None and view.sensitivity is None:
            cell = h3.latlng_to_cell(view.lat, view.lon, CELL_RESOLUTION)
            sums[name("cell", cell, str(view.severity))] = 1
    return place_of(view), sums


_LEVELS = {"r": "reported", "c": "corroborated", "f": "field_checked", "o": "official"}
_AT = {figure: at for at, figure in enumerate((*PEOPLE, *DAMAGE))}


def level_of(view: IncidentView, figure: str) -> str:
    """How far this figure of the incident is believed."""
    return view.evidence if view.levels is None else _LEVELS[view.levels[_AT[figure]]]


def said(linked: Iterable[ReportView]) -> dict[tuple[str, str], int]:
    """What the authorities, organisations and people each say of one incident: (by whom, figure) -> count.

    The rule is intake's: the largest counts; of authorities the latest statement of each area, day and file, the
    largest of an area, and the areas added up.
    """
    found: dict[tuple[str, str], int] = {}
    newest: dict[tuple[str, str | None, int, str | None], tuple[datetime, str, int]] = {}
    for view in linked:
        if view.retracted or view.said_by is None or view.observed_at is None:
            continue
        for figure in PEOPLE:
            count = getattr(view, figure)
            if count is None:
                continue
            if view.said_by == "official":
                key = (figure, view.admin, _day(view.observed_at), view.origin)
                order = (view.observed_at, str(view.report_id), count)
                newest[key] = max(newest.get(key, order), order)
            else:
                at = (view.said_by, figure)
                found[at] = max(found.get(at, 0), count)
    areas: dict[tuple[str, str | None], int] = {}
    for (figure, admin, _, _), (_, _, count) in newest.items():
        areas[figure, admin] = max(areas.get((figure, admin), 0), count)
    for (figure, _), count in areas.items():
        found["official", figure] = found.get(("official", figure), 0) + count
    return {key: count for key, count in found.items() if count}


def _day(moment: datetime) -> int:
    """The day in western Indonesia, where the disaster agency counts."""
    return (int(moment.timestamp()) + 7 * 3600) // 86400


def need_admin(need: NeedView | None, ledger: LedgerView | None, incident: IncidentView | None) -> str | None:
    """The area in which a need lies: its own, else its incident's."""
    admin = (need and need.admin) or (ledger and ledger.admin) or (incident and incident.admin) or None
    return _area(admin, (need and need.sensitivity) or (incident and incident.sensitivity) or None)


def of_need(
    need: NeedView | None, ledger: LedgerView | None, incident: IncidentView | None, now: datetime | None
) -> Added | None:
    """What was declared and matching has not entered in its ledger yet is all open. `needed` leaves out what was
    cancelled, so that it is the sum of committed, coming, delivered and gap."""
    thing = need or ledger
    if thing is None:
        return None
    place = (thing.operation, thing.exercise, need_admin(need, ledger, incident))
    if ledger is not None:
        amounts = {
            "needed": ledger.needed - ledger.cancelled,
            "committed": ledger.committed,
            "coming": ledger.in_transit,
            "delivered": ledger.delivered + ledger.confirmed,
            "gap": ledger.open + ledger.offered,
            "cancelled": ledger.cancelled,
        }
    elif need is not None and need.status == "declared":
        amounts = {"needed": need.quantity, "gap": need.quantity}
    elif need is not None and need.status == "draft":
        return place, {"drafts": 1, _waits("draft", need.starts_at, now): 1}
    else:
        return None
    kind, code = ("item", thing.item) if thing.item is not None else ("skill", thing.skill or "")
    sums = {name("need", kind, code, thing.unit, key): count for key, count in amounts.items() if count}
    sums[name("need", kind, code, thing.unit, "needs")] = 1
    sums[name("need", kind, code, thing.unit, f"severity{thing.severity}")] = 1
    if amounts["needed"]:
        evidence = incident.evidence if incident is not None else "stated"
        sums[name("need", kind, code, thing.unit, f"by_{evidence}")] = amounts["needed"]
    if amounts["gap"]:
        sums[_waits(f"need{thing.severity}", need.starts_at if need else None, now)] = 1
    if amounts["needed"] and need is not None and need.lon is not None and need.lat is not None:
        hidden = need.sensitivity is not None or (incident is not None and incident.sensitivity is not None)
        if not hidden:
            cell = h3.latlng_to_cell(need.lat, need.lon, CELL_RESOLUTION)
            sums[name("cover", cell, "short" if amounts["gap"] else "met")] = 1
    return place, sums


def of_offer(view: OfferView, admin: str | None) -> Added:
    """`admin`: the area of its need."""
    return (view.operation, view.exercise, admin), {name("offer", view.state): 1}


_STAGE = {"made": "committed", "started": "under_way", "arrived": "under_way", "delivered": "done", "confirmed": "done"}


def of_assignment(view: AssignmentView, need: NeedView | LedgerView | None, admin: str | None) -> Added:
    """`need` says what is given, `admin` where: who does what where comes from here."""
    sums = {name("assignment", view.state): 1}
    if view.state in UNDER_WAY:
        if view.responder_id is not None:
            sums["busy"] = 1
        if view.overdue:
            sums[name("overdue", str(view.overdue))] = 1
    stage = _STAGE.get(view.state)
    if stage is not None:
        # What belongs to nobody is told apart from an organisation that is called "".
        who = ("volunteers", "") if view.organisation is None else ("organisation", view.organisation)
        sums[name("who", *who, stage)] = 1
        if view.overdue and view.state in UNDER_WAY:
            sums[name("who", *who, "overdue")] = 1
        if need is not None:
            kind, code = ("item", need.item) if need.item is not None else ("skill", need.skill or "")
            sums[name("what", *who, kind, code, need.unit, stage)] = view.quantity
    return (view.operation, view.exercise, admin), sums


def of_responder(view: ResponderView) -> Added | None:
    """Only the confirmed count."""
    if view.status != "confirmed":
        return None
    return REGISTER[view.exercise], {"responders": 1, "responder_people": view.capacity}


def of_site(view: SiteView) -> Added:
    """An evacuation post: while it is open its heads count."""
    sums = {name("site", view.status): 1}
    if view.status == "open":
        for group, count in view.heads.items():
            if count:
                sums[name("heads", group)] = count
        if view.counted_at is None:
            sums["sites_uncounted"] = 1
    return (view.operation, view.exercise, view.admin), sums


# All together


def whole(state: State) -> Tally:
    """The tally of everything in the state: what the read models have to give."""
    tally = Tally()
    now = state.received_at
    linked: dict[UUID, list[ReportView]] = {}
    for view in state.reports.values():
        if view.incident_id is not None:
            linked.setdefault(view.incident_id, []).append(view)
        _plus(tally, of_report(view, _of(state.incidents, view.incident_id), now))
    for incident in state.incidents.values():
        tally.add(of_incident(incident, linked.get(incident.incident_id, ())))
    admins: dict[UUID, str | None] = {}
    things: dict[UUID, NeedView | LedgerView] = {}
    for need_id in state.needs.keys() | state.ledgers.keys():
        need, ledger = state.needs.get(need_id), state.ledgers.get(need_id)
        about = _of(state.incidents, incident_of(need, ledger))
        _plus(tally, of_need(need, ledger, about, now))
        admins[need_id] = need_admin(need, ledger, about)
        things[need_id] = need or ledger  # type: ignore[assignment]
    for offer in state.offers.values():
        tally.add(of_offer(offer, admins.get(offer.need_id)))
    for assignment in state.assignments.values():
        tally.add(of_assignment(assignment, things.get(assignment.need_id), admins.get(assignment.need_id)))
    for responder in state.responders.values():
        _plus(tally, of_responder(responder))
    for site in state.sites.values():
        tally.add(of_site(site))
    tally.tidy(now)
    tally.tops = tops(incident for incident in state.incidents.values() if incident.status == "open")
    return tally


def incident_of(need: NeedView | None, ledger: LedgerView | None) -> UUID | None:
    """The incident that a need is of."""
    return (need.incident_id if need else None) or (ledger.incident_id if ledger else None)


def _of(known: Mapping[UUID, IncidentView], incident_id: UUID | None) -> IncidentView | None:
    return known.get(incident_id) if incident_id is not None else None


def _plus(tally: Tally, added: Added | None) -> None:
    if added is not None:
        tally.add(added)


def tops(opened: Iterable[IncidentView]) -> dict[Place, Top]:
    """The first of these incidents in each place."""
    found: dict[Place, list[Rank]] = {}
    for view in opened:
        found.setdefault(place_of(view), []).append(rank(view))
    return {place: Top.of(ranks) for place, ranks in found.items()}


def first(tally: Tally, scope: Scope, count: int) -> list[UUID]:
    """The first open incidents of all places in the scope; `count` at most what each place keeps for sure."""
    ranks = sorted(rank for place, _ in tally.within(scope) if place in tally.tops for rank in tally.tops[place].ranks)
    return [UUID(each[4]) for each in ranks[:count]]


# As bytes


def packed(tally: Tally) -> bytes:
    """The tally for a checkpoint."""
    return zlib.compress(
        orjson.dumps(
            [
                [[*place, sums] for place, sums in tally.sums.items()],
                [[*place, top.ranks, top.known_to] for place, top in tally.tops.items()],
            ]
        ),
        1,
    )


def unpacked(data: bytes) -> Tally:
    """The tally of a checkpoint."""
    sums, tops = orjson.loads(zlib.decompress(data))
    return Tally(
        {(operation, exercise, admin): found for operation, exercise, admin, found in sums},
        {
            (operation, exercise, admin): Top(
                tuple(tuple(each) for each in ranks), None if known_to is None else tuple(known_to)
            )
            for operation, exercise, admin, ranks, known_to in tops
        },
    )
