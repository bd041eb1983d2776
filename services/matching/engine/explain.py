"""Why: who was left after each hard rule, and what stands behind each choice."""

import numpy as np

from services.matching.engine import rules
from services.matching.engine.model import Arrays, Settings, km_of


def filter_counts(a: Arrays, settings: Settings, need: int) -> dict[str, int]:
    """How many responders (or lots) are left for one need after each hard rule, in the order of FILTERS.

    Rules that cannot apply to its kind are left out.
    """
    lo, hi = np.searchsorted(a.holder_code, [a.need_code[need], a.need_code[need] + 1])
    source, level = a.holder_source[lo:hi], a.holder_level[lo:hi]
    km = km_of(np.linalg.norm(a.source_xyz[source] - a.need_xyz[need], axis=1))
    p = rules.Pairs(np.full(len(source), need, np.int32), source, km, level)
    counts = {"code": len(source)}

    def count(name: str, mask: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> None:
        nonlocal p
        p = p.keep(mask)
        counts[name] = len(p.need)

    person = not a.need_item[need]
    if person:
        count("level", p.level >= a.need_level[need])
        count("certificate", rules.passes_certificate(a, p))
        count("language", rules.passes_language(a, p))
    count("excluded", rules.passes_excluded(a, p))
    count("travel", p.km <= a.source_limit_km[p.source])
    count("zone", a.need_open[p.need])
    fits, begin, finish = rules.times(a, p, settings)
    begin, finish = begin[fits], finish[fits]
    count("window", fits)
    if person:
        free = rules.passes_busy(a, p, begin, finish, settings)
        begin, finish = begin[free], finish[free]
        count("busy", free)
        count("hours", rules.passes_hours(a, p, begin, finish, settings))
        enough = (a.source_capacity[p.source] > 0) & (a.source_minimum[p.source] <= a.source_capacity[p.source])
        count("team", enough & (a.source_minimum[p.source] <= a.need_quantity[need]))
    else:
        count("stock", a.source_capacity[p.source] > 0)
        count("expiry", a.source_expires[p.source] >= a.need_end[p.need])
    return counts
