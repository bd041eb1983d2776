"""An independent proof of a plan: every rule said a second time, one pair at a time, in plain Python.

Shares no code with `rules` or `flow` on purpose; slow. Tests and soaks run it on every plan.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from math import asin, ceil, cos, radians, sin, sqrt

from services.matching.engine.model import Id, Lot, NeedLine, Plan, Responder, Settings


def distance_km(lon: float, lat: float, lon2: float, lat2: float) -> float:
    """Great-circle distance by the haversine formula."""
    a, b = radians(lat), radians(lat2)
    h = sin((b - a) / 2) ** 2 + cos(a) * cos(b) * sin(radians(lon2 - lon) / 2) ** 2
    return 2 * 6371.0088 * asin(min(1.0, sqrt(h)))


def failed_rule(need: NeedLine, source: Responder | Lot, settings: Settings, now: datetime) -> str | None:
    """The first hard rule, by its name in FILTERS, that keeps the source from the need; None where it may serve."""
    if isinstance(source, Lot):
        return _failed_by_lot(need, source, settings, now)
    if need.kind != "skill" or need.code not in source.skills:
        return "code"
    if source.skills[need.code] < need.level:
        return "level"
    for name in need.certificates:
        if name not in source.certificates or source.certificates[name] < _window(need, settings, now)[1]:
            return "certificate"
    if any(language not in source.languages for language in need.languages):
        return "language"
    if any(str(x) == str(source.responder_id) for x in need.exclude):
        return "excluded"
    for word in source.avoids:
        inside = need.area is not None and need.area.split(".")[: len(word.split("."))] == word.split(".")
        if word in need.hazards or inside:
            return "conditions"
    km = distance_km(need.lon, need.lat, source.lon, source.lat)
    if km > source.travel_limit_km:
        return "travel"
    if _window(need, settings, now)[0] >= _window(need, settings, now)[1] and settings.zones:
        return "zone"
    windows = source.available or [(now - timedelta(days=3650), now + timedelta(days=3650))]
    for opens, closes in sorted(windows):
        work = _work(need, max(opens, _free_from(source, settings, now)), closes, km, settings, now)
        if work:
            break
    else:
        return "window"
    begin, finish = work
    if _clashes(need, source, settings, now, begin, finish, km):
        return "busy"
    length = need.duration_s if need.duration_s is not None else (finish - begin).total_seconds()
    most = settings.max_hours if source.max_hours is None else source.max_hours
    if source.hours_worked * 3600 + length + _promised(source, now, begin, finish) > most * 3600:
        return "hours"
    if source.capacity < max(source.minimum_team, 1) or source.minimum_team > need.quantity:
        return "team"
    return None


def _failed_by_lot(need: NeedLine, lot: Lot, settings: Settings, now: datetime) -> str | None:
    if need.kind != "item" or need.code != lot.item:
        return "code"
    if any(str(x) == str(lot.lot_id) for x in need.exclude):
        return "excluded"
    km = distance_km(need.lon, need.lat, lot.lon, lot.lat)
    if km > lot.delivery_limit_km:
        return "travel"
    start, end = _window(need, settings, now)
    if start >= end and settings.zones:
        return "zone"
    if not _work(need, _free_from(lot, settings, now), now + timedelta(days=36500), km, settings, now):
        return "window"
    if lot.crewed is not None and lot.crewed <= 0:
        return "crew"
    if lot.quantity <= 0:
        return "stock"
    if lot.expires_at is not None and lot.expires_at < end:
        return "expiry"
    return None


def _window(need: NeedLine, settings: Settings, now: datetime) -> tuple[datetime, datetime]:
    """What zones leave of the window; empty (start >= end) where nothing is left."""
    start, end = max(need.start, now), need.end
    for zone in settings.zones:
        if _inside(need.lon, need.lat, zone.polygon) and start < zone.end and end > zone.start:
            if min(end, zone.start) - start >= end - max(start, zone.end):
                end = min(end, zone.start)
            else:
                start = max(start, zone.end)
    return start, end


def _free_from(source: Responder | Lot, settings: Settings, now: datetime) -> datetime:
    """Now, or when the last zone that holds the source opens."""
    held = [z.end for z in settings.zones if z.start <= now < z.end and _inside(source.lon, source.lat, z.polygon)]
    return max([now, *held])


def _inside(lon: float, lat: float, ring: Sequence[tuple[float, float]]) -> bool:
    """Even-odd rule; undefined on the very edge."""
    odd = False
    for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (y1 > lat) != (y2 > lat) and lon < (x2 - x1) * (lat - y1) / (y2 - y1) + x1:
            odd = not odd
    return odd


def _work(
    need: NeedLine, opens: datetime, closes: datetime, km: float, settings: Settings, now: datetime
) -> tuple[datetime, datetime] | None:
    start, end = _window(need, settings, now)
    way = timedelta(seconds=ceil(km * settings.detour * 3600 / settings.speed_kmh))
    begin = max(start, opens + way)
    if need.duration_s is not None:
        finish = begin + timedelta(seconds=need.duration_s)
        if finish > end:
            return None
    else:
        finish = min(end, begin + timedelta(seconds=settings.shift_s))
        stay = min(settings.minimum_stay_s, (end - start) // timedelta(seconds=2))
        if begin >= end or begin + timedelta(seconds=stay) > end:
            return None
    return (begin, finish) if finish <= closes else None


def _clashes(
    need: NeedLine, who: Responder, settings: Settings, now: datetime, begin: datetime, finish: datetime, km: float
) -> bool:
    start, end = _window(need, settings, now)
    way = timedelta(seconds=ceil(km * settings.detour * 3600 / settings.speed_kmh))
    first = max(now, min(start, begin - way))
    last = end if need.duration_s is None else finish
    for a, b in who.busy:
        long_shift = (b - a).total_seconds() >= settings.long_shift_s
        rest = timedelta(seconds=who.rest_s if who.rest_s is not None else settings.rest_s if long_shift else 0)
        if a < b and a - rest < last and first < b + rest:
            return True
    return False


def _promised(who: Responder, now: datetime, begin: datetime, finish: datetime) -> float:
    """Seconds promised, from now on, in the day that ends with this work or in the one that begins with it."""
    day = timedelta(days=1)
    found = []
    for first, last in ((finish - day, finish), (begin, begin + day)):
        parts = [(min(b, last) - max(a, first, now)).total_seconds() for a, b in who.busy if b > a]
        found.append(sum(part for part in parts if part > 0))
    return max(found)


def check_plan(
    needs: Sequence[NeedLine],
    sources: Sequence[Responder | Lot],
    settings: Settings,
    plan: Plan,
    now: datetime,
) -> list[str]:
    """Everything that is wrong with a plan, in words; empty for a sound one."""
    need = {str(n.need_id): n for n in needs}
    source: dict[str, Responder | Lot] = {str(_id(s)): s for s in sources}
    wrong: list[str] = []
    given: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for one in plan.assignments:
        n, s = need[str(one.need_id)], source[str(one.source_id)]
        rule = failed_rule(n, s, settings, now)
        if rule:
            wrong.append(f"{one.source_id} may not serve {one.need_id}: {rule}")
        if one.quantity <= 0 or sum(one.parts.values()) != one.cost:
            wrong.append(f"{one.source_id} for {one.need_id}: quantity or cost parts are wrong")
        if isinstance(s, Responder) and one.quantity < s.minimum_team:
            wrong.append(f"{one.source_id} goes to {one.need_id} with fewer than its minimum")
        given[str(one.need_id)] += one.quantity
        taken[str(one.source_id)] += one.quantity
    for s in sources:
        places = sum(str(one.source_id) == str(_id(s)) for one in plan.assignments)
        if isinstance(s, Responder) and s.capacity > 1 and places > 1 and not settings.split_teams:
            wrong.append(f"team {s.responder_id} goes to {places} places")
    for key, amount in taken.items():
        s = source[key]
        most = s.capacity if isinstance(s, Responder) else s.quantity if s.crewed is None else min(s.quantity, s.crewed)
        if amount > most:
            wrong.append(f"{key} gives more than it has: {amount}")
    unmet = {str(k): v for k, v in plan.unmet.items()}
    for key, n in need.items():
        if given[key] + unmet.get(key, 0) != n.quantity:
            wrong.append(f"{key}: {given[key]} given and {unmet.get(key, 0)} unmet are not {n.quantity}")
    for bundle in {str(n.bundle_id) for n in needs if n.bundle_id is not None}:
        lines = [n for n in needs if str(n.bundle_id) == bundle]
        full = [given[str(n.need_id)] == n.quantity for n in lines]
        if any(given[str(n.need_id)] for n in lines) and not all(full):
            wrong.append(f"bundle {bundle} is served in part")
    by_severity = Counter({4: 0, 3: 0, 2: 0, 1: 0})
    for key, amount in unmet.items():
        by_severity[need[key].severity] += amount
    if dict(by_severity) != dict(plan.unmet_by_severity):
        wrong.append("unmet by severity does not add up")
    weights = {str(k): v for k, v in plan.weights.items()}
    value = sum(one.cost * one.quantity for one in plan.assignments) + plan.switch_tax_paid
    value += sum(weights[key] * amount for key, amount in unmet.items())
    value -= _equity_discount(needs, unmet, plan, settings)
    if value != plan.objective or plan.gap != plan.objective - plan.bound or plan.gap < 0:
        wrong.append(f"objective {plan.objective} is not {value}, or it lies below its bound {plan.bound}")
    return wrong


def _equity_discount(needs: Sequence[NeedLine], unmet: Mapping[str, int], plan: Plan, settings: Settings) -> int:
    """What unmet units cost less than their weight: all of the equity weight for those up to a quarter of what one area
    wants of one severity, three fifths for those up to a half."""
    lifted = {str(k): v for k, v in plan.lifted.items()}
    wanted: Counter[tuple[str, int]] = Counter()
    lacks: Counter[tuple[str, int]] = Counter()
    for n in needs:
        if n.area is not None and n.bundle_id is None:
            group = n.area, lifted.get(str(n.need_id), n.severity)
            wanted[group] += n.quantity
            lacks[group] += unmet.get(str(n.need_id), 0)
    total, dearer = 0, settings.equity_weight - settings.equity_weight * 2 // 5
    for group, amount in lacks.items():
        quarter, half = wanted[group] // 4, wanted[group] // 2
        total += settings.equity_weight * min(amount, quarter) + dearer * min(max(amount - quarter, 0), half - quarter)
    return total


def _id(source: Responder | Lot) -> Id:
    return source.lot_id if isinstance(source, Lot) else source.responder_id
