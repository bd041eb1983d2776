"""What a flow cannot say: bundles ("6 people and 2 boats or nothing") and teams that go with at least so many people.

The plain flow is solved first. Where it splits nothing that may not be split, it is the optimum. Otherwise:
drop and restore, a heuristic on flows whose gap to the flow's bound is reported, never hidden.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from services.matching.engine.candidates import Arcs
from services.matching.engine.model import Arrays, Bools, Ints

SolveFlow = Callable[[Bools, Bools], Ints]
"""(arcs allowed, needs served) -> units on each arc."""


@dataclass(slots=True)
class Broken:
    """What a flow splits that may not be split: bundles by number, arcs below their team's minimum."""

    bundles: Ints
    arcs: Ints

    def __bool__(self) -> bool:
        return bool(len(self.bundles) or len(self.arcs))


def broken(a: Arrays, arcs: Arcs, units: Ints) -> Broken:
    """Bundles that are neither complete nor empty, and teams sent with fewer than their minimum."""
    few = (units > 0) & (units < a.source_minimum[arcs.source])
    got = np.bincount(arcs.need, units, a.needs).astype(np.int64)
    return Broken(np.flatnonzero(_started(a, got) & ~_complete(a, got)), np.flatnonzero(few))


def _count(a: Arrays) -> int:
    return int(a.bundle.max(initial=-1)) + 1


def _complete(a: Arrays, got: Ints) -> Bools:
    joined = a.bundle >= 0
    done: Bools = np.bincount(a.bundle[joined], (a.need_quantity - got)[joined], _count(a)) == 0
    return done


def _started(a: Arrays, got: Ints) -> Bools:
    joined = a.bundle >= 0
    begun: Bools = np.bincount(a.bundle[joined], got[joined], _count(a)) > 0
    return begun


def incomplete(a: Arrays, arcs: Arcs, units: Ints) -> Ints:
    """Numbers of the bundles that are not served."""
    return np.flatnonzero(~_complete(a, np.bincount(arcs.need, units, a.needs).astype(np.int64)))


def drop_and_restore(a: Arrays, arcs: Arcs, weight: Ints, run: SolveFlow, tries: int = 40) -> Ints:
    """Give up the least grave incomplete bundles, a quarter at a time, until none is left in pieces; then take back
    in what fits after all, by halving. Teams below their minimum are kept from those needs.
    """
    count = _count(a)
    on = np.ones(count, np.bool_)
    allowed = np.ones(len(arcs), np.bool_)
    joined = a.bundle >= 0
    worth = np.bincount(a.bundle[joined], (weight * a.need_quantity)[joined].astype(np.float64), count)

    def served(bundles: Bools) -> Bools:
        return np.where(joined, bundles[a.bundle], True) if count else np.ones(a.needs, np.bool_)

    while True:
        units = run(allowed, served(on))
        bad = broken(a, arcs, units)
        if not bad:
            break
        if len(bad.arcs):
            allowed[bad.arcs] = False
        else:
            order = bad.bundles[np.argsort(worth[bad.bundles], kind="stable")]
            on[order[: max(1, len(order) // 4)]] = False
    off = np.flatnonzero(~on)
    queue = [off[np.argsort(-worth[off], kind="stable")]] if len(off) else []
    while queue and tries:
        some, tries = queue.pop(0), tries - 1
        more = on.copy()
        more[some] = True
        again = run(allowed, served(more))
        if not broken(a, arcs, again) and not len(np.setdiff1d(incomplete(a, arcs, again), np.flatnonzero(~more))):
            units, on = again, more
        elif len(some) > 1:
            queue[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
    return units
