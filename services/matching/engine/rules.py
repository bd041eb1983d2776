"""Hard rules and costs of pairs (need line, source), for many pairs at once.

A hard rule that fails means there is no arc; everything that may be weighed is cost. A rule is added here, named in
`model.FILTERS`, and proved again, slowly, in tests/matching/test_engine_rules.py.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from services.matching.engine.model import COST_MAX, PARTS, TIE_MAX, Arrays, Bools, Floats, Ints, Settings

Index32 = npt.NDArray[np.int32]


@dataclass(slots=True)
class Pairs:
    """Pairs under examination: need, source, distance in km and level held, one entry of each array per pair."""

    need: Index32
    source: Index32
    km: Floats
    level: npt.NDArray[np.int8]

    def keep(self, mask: Bools) -> "Pairs":
        if mask.all():
            return self
        return Pairs(self.need[mask], self.source[mask], self.km[mask], self.level[mask])


def travel_s(km: Floats, settings: Settings) -> Floats:
    """Travel time: straight line times the detour factor at one speed."""
    seconds: Floats = km * (settings.detour * 3600.0 / settings.speed_kmh)
    return seconds


def times(a: Arrays, p: Pairs, settings: Settings) -> tuple[Bools, Ints, Ints]:
    """Whether a window of the source holds the work, and when it begins and ends there (first window that does).

    Work without a stated duration lasts to the end of the need's window, at most one shift; whoever comes late must
    still find `minimum_stay_s` (or half of a shorter window) left of it.
    """
    way = np.ceil(travel_s(p.km, settings)).astype(np.int64)
    start, end, duration = a.need_start[p.need], a.need_end[p.need], a.need_duration[p.need]
    ready, stated = a.source_ready[p.source], duration >= 0
    stay = np.minimum(settings.minimum_stay_s, (end - start) // 2)
    fits = np.zeros(len(way), np.bool_)
    begin, finish = start.copy(), end.copy()
    last = int(a.window_count[p.source].max(initial=0))
    for k in range(last):
        set_out = np.maximum(a.window_start[p.source, k], ready)
        b = np.maximum(start, set_out + way)
        f = np.where(stated, b + duration, np.minimum(end, b + settings.shift_s))
        ok = np.where(stated, f <= end, (b < end) & (b + stay <= end)) & (f <= a.window_end[p.source, k])
        new = ok & ~fits
        begin[new], finish[new] = b[new], f[new]
        fits |= ok
    return fits, begin, finish


def taken_up(a: Arrays, p: Pairs, begin: Ints, finish: Ints, settings: Settings) -> tuple[Ints, Ints]:
    """The time a person is taken up: from setting out, at the latest from the window's start, to the end of the work,
    or of the window where no duration is stated (the promise covers the window; a hand-over shortens it)."""
    way = np.ceil(travel_s(p.km, settings)).astype(np.int64)
    first = np.maximum(np.minimum(a.need_start[p.need], begin - way), a.now)
    last = np.where(a.need_duration[p.need] >= 0, finish, a.need_end[p.need])
    return first, last


def passes_certificate(a: Arrays, p: Pairs) -> Bools:
    ok = np.ones(len(p.need), np.bool_)
    asked = np.flatnonzero(a.need_certificates[p.need])
    if len(asked):
        n, s = p.need[asked], p.source[asked]
        ok[asked] = a.source_lot[s] | (a.certificate_until[a.need_certificates[n], s] >= a.need_end[n])
    return ok


def passes_language(a: Arrays, p: Pairs) -> Bools:
    ok = np.ones(len(p.need), np.bool_)
    asked = np.flatnonzero(a.need_languages[p.need])
    if len(asked):
        n, s = p.need[asked], p.source[asked]
        ok[asked] = a.source_lot[s] | a.language_ok[a.need_languages[n], s]
    return ok


def passes_excluded(a: Arrays, p: Pairs) -> Bools:
    if not len(a.excluded):
        return np.ones(len(p.need), np.bool_)
    key = p.need.astype(np.int64) * a.sources + p.source
    at = np.minimum(np.searchsorted(a.excluded, key), len(a.excluded) - 1)
    free: Bools = a.excluded[at] != key
    return free


def passes_conditions(a: Arrays, p: Pairs) -> Bools:
    """Nobody is sent into a hazard or an area that they said they must not be sent into."""
    ok: Bools = ~a.barred[a.need_where[p.need], a.source_avoids[p.source]]
    return ok


def passes_busy(a: Arrays, p: Pairs, begin: Ints, finish: Ints, settings: Settings) -> Bools:
    free = np.ones(len(p.need), np.bool_)
    asked = np.flatnonzero(a.busy_count[p.source])
    if len(asked):
        q = Pairs(p.need[asked], p.source[asked], p.km[asked], p.level[asked])
        first, last = taken_up(a, q, begin[asked], finish[asked], settings)
        clash = np.zeros(len(asked), np.bool_)
        for k in range(a.busy_start.shape[1]):
            clash |= (a.busy_start[q.source, k] < last) & (first < a.busy_end[q.source, k])
        free[asked] = ~clash
    return free


def passes_hours(a: Arrays, p: Pairs, begin: Ints, finish: Ints) -> Bools:
    """At most so many hours in any 24: those worked by now, those promised in the 24 that end with this work or begin
    with it, and the work itself."""
    work = np.where(a.need_duration[p.need] >= 0, a.need_duration[p.need], finish - begin)
    promised = np.zeros(len(work), np.int64)
    asked = np.flatnonzero(a.busy_count[p.source])
    if len(asked):
        s, day = p.source[asked], 24 * 3600
        before, behind = np.zeros(len(asked), np.int64), np.zeros(len(asked), np.int64)
        for k in range(a.busy_start.shape[1]):
            # What was worked by now is in the hours worked already.
            first = np.maximum(a.busy_start[s, k] + a.busy_rest[s, k], a.now)
            last = a.busy_end[s, k] - a.busy_rest[s, k]
            before += np.maximum(np.minimum(last, finish[asked]) - np.maximum(first, finish[asked] - day), 0)
            behind += np.maximum(np.minimum(last, begin[asked] + day) - np.maximum(first, begin[asked]), 0)
        promised[asked] = np.maximum(before, behind)
    hours = a.source_hours[p.source] * 3600.0 + promised + work
    ok: Bools = a.source_lot[p.source] | (hours <= a.source_max_hours[p.source] * 3600.0)
    return ok


def feasible(a: Arrays, p: Pairs, settings: Settings) -> Pairs:
    """The pairs that pass every rule; code, level and travel limit must have been looked at already."""
    ok = passes_certificate(a, p) & passes_language(a, p) & passes_excluded(a, p) & passes_conditions(a, p)
    ok &= a.need_open[p.need]
    ok &= (a.source_minimum[p.source] <= a.need_quantity[p.need]) & (a.source_capacity[p.source] > 0)
    ok &= (a.source_minimum[p.source] <= a.source_capacity[p.source]) & (
        a.source_expires[p.source] >= a.need_end[p.need]
    )
    p = p.keep(ok)
    fits, begin, finish = times(a, p, settings)
    fits &= passes_hours(a, p, begin, finish) & passes_busy(a, p, begin, finish, settings)
    return p.keep(fits)


def parts(a: Arrays, p: Pairs, settings: Settings) -> npt.NDArray[np.int64]:
    """Cost parts of the pairs in the order of PARTS (8 x n), whole numbers."""
    lot = a.source_lot[p.source]
    reference = np.where(lot, settings.delivery_reference_km, settings.travel_reference_km)
    out = np.zeros((len(PARTS), len(p.need)), np.int64)
    person = ~lot
    out[0] = settings.travel_weight * np.minimum(p.km / reference, 1.0)
    worn = a.source_hours[p.source] / np.maximum(a.source_max_hours[p.source], 0.1)
    out[1] = settings.fatigue_weight * np.minimum(worn, 1.0) * person
    out[2] = settings.decline_weight * (1.0 - a.source_accept[p.source]) * person
    above = p.level.astype(np.int64) - a.need_level[p.need]
    out[3] = settings.level_weight * np.clip(above, 0, 2)
    out[4] = settings.rarity_weight * a.source_rarity[p.source]
    want, have = a.need_organisation[p.need], a.source_organisation[p.source]
    out[5] = settings.organisation_weight * ((want >= 0) & (want != have))
    # First out what expires first: a lot good for a month more than needed pays the whole part.
    left = np.minimum((a.source_expires[p.source] - a.need_end[p.need]) / (30 * 86400.0), 1.0)
    out[6] = settings.shelf_weight * np.maximum(left, 0.0) * lot
    mixed = (a.need_hash[p.need] * np.uint64(0x9E3779B97F4A7C15)) ^ (
        a.source_hash[p.source] * np.uint64(0xC2B2AE3D27D4EB4F)
    )
    mixed *= np.uint64(0xFF51AFD7ED558CCD)
    out[7] = mixed >> np.uint64(64 - TIE_MAX.bit_length())
    return out


def costs(a: Arrays, p: Pairs, settings: Settings) -> npt.NDArray[np.int32]:
    """Cost of one unit on each pair, 0 to COST_MAX."""
    total = np.empty(len(p.need), np.int32)
    # In slices: the eight parts of millions of pairs at once would be the largest thing in memory.
    for k in range(0, len(total), 250_000):
        piece = Pairs(
            p.need[k : k + 250_000], p.source[k : k + 250_000], p.km[k : k + 250_000], p.level[k : k + 250_000]
        )
        total[k : k + 250_000] = parts(a, piece, settings).sum(0)
    assert not len(total) or (total.min() >= 0 and total.max() <= COST_MAX)
    return total
