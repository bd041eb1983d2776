"""What a flow cannot say: bundles ("6 people and 2 boats or nothing") and teams that go with at least so many people.

The plain flow is solved first. Where it splits nothing that may not be split, it is the optimum. Otherwise `exact`
prices the linear relaxation with bundles in it, solves one small integer program on the pairs that come out cheap, and
leaves the rest to the flow again. `drop_and_restore` is what remains when time runs out. The bound holds in every case.

Pairs cheap by the duals of the plain flow would be the wrong ones: it takes every bundle as served, and so prices
people far above what they are worth once some bundles are given up (measured: 9 % above the optimum, against 0.2 %).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import Bounds, LinearConstraint, linprog, milp
from scipy.sparse import coo_matrix, csr_matrix, vstack

from services.matching.engine.candidates import Arcs
from services.matching.engine.flow import KeptArcs
from services.matching.engine.model import Arrays, Bools, Floats, Ints

SolveFlow = Callable[[Bools, Bools, Ints | None], Ints]
"""(arcs allowed, needs served, units settled beforehand on each arc) -> units on each arc. With units settled, bundled
lines come before all others, whatever they cost."""

ROUNDS = 4
"""Pricing rounds at most: a number, not a time, so that the same input gives the same plan on any machine."""

NEAR = 500
"""Pairs whose reduced cost is at most this go into the integer program."""
LINES = 1_500
"""Need lines of one integer program at most; beyond, it is solved around broken bundles, part by part."""
SMALL = 5_000
"""So many pairs go in whole."""
SHARE = 0.25
"""Of the time for a larger plan, what its integer program gets: pricing before it and the order made after it take the
rest (of 1,000 lines, 1.6 and 2.1 s of 5)."""


@dataclass(slots=True)
class Broken:
    """What a flow splits that may not be split: bundles by number, and arcs on which a team should not be."""

    bundles: Ints
    arcs: Ints

    def __bool__(self) -> bool:
        return bool(len(self.bundles) or len(self.arcs))


@dataclass(slots=True)
class Columns:
    """Variables of the integer program: `gain` is what a unit costs less what leaving it unmet costs."""

    need: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    gain: Ints
    most: Ints
    uses: Ints  # of the source's capacity, for one unit
    least: Ints  # units at least, where there are any
    whole: Bools  # the source serves one line only

    def __len__(self) -> int:
        return len(self.need)

    def keep(self, mask: Bools) -> "Columns":
        return Columns(*(getattr(self, name)[mask] for name in self.__slots__))


@dataclass(slots=True)
class Model:
    """Rows of the program: lines want `quantity`, sources have `capacity`; lines of one bundle are served together."""

    quantity: Ints
    capacity: Ints
    bundle: npt.NDArray[np.int32]

    def rows(self, c: Columns) -> tuple[csr_matrix, csr_matrix, csr_matrix, Ints]:
        """Rows of bundled lines (= 0), of free lines (<= quantity), of sources (<= capacity), and these sources.

        Behind the columns stand the bundles, 0 to 1 each.
        """
        n, b = len(c), int(self.bundle.max(initial=-1)) + 1
        at = np.arange(n)
        joined = np.flatnonzero(self.bundle >= 0)
        place = np.full(len(self.quantity), -1)
        place[joined] = np.arange(len(joined))
        bound = self.bundle[c.need] >= 0
        value = np.concatenate((np.ones(int(bound.sum())), -self.quantity[joined].astype(float)))
        row = np.concatenate((place[c.need[bound]], np.arange(len(joined))))
        whole = coo_matrix((value, (row, np.concatenate((at[bound], n + self.bundle[joined])))), (len(joined), n + b))
        alone, line = np.unique(c.need[~bound], return_inverse=True)
        free = coo_matrix((np.ones(len(line)), (line, at[~bound])), (len(alone), n + b))
        used, source = np.unique(c.source.astype(np.int64), return_inverse=True)
        have = coo_matrix((c.uses.astype(float), (source, at)), (len(used), n + b))
        return whole.tocsr(), free.tocsr(), have.tocsr(), used

    def free_lines(self, c: Columns) -> Ints:
        return self.quantity[np.unique(c.need[self.bundle[c.need] < 0])]

    @property
    def bundles(self) -> int:
        return int(self.bundle.max(initial=-1)) + 1


def relaxation(m: Model, c: Columns) -> tuple[Floats, Floats, Floats]:
    """Prices of sources, values of lines and shares of bundles in the linear relaxation over these columns."""
    whole, free, have, used = m.rows(c)
    # No upper bounds on columns: capacities imply them, and all of the duals shall lie in the prices.
    most = np.concatenate((np.full(len(c), np.inf), np.ones(m.bundles)))
    result = linprog(
        np.concatenate((c.gain, np.zeros(m.bundles))),
        A_ub=vstack((free, have), format="csr"),
        b_ub=np.concatenate((m.free_lines(c), m.capacity[used])),
        A_eq=whole if whole.shape[0] else None,
        b_eq=np.zeros(whole.shape[0]) if whole.shape[0] else None,
        bounds=np.column_stack((np.zeros(len(most)), most)),
        method="highs-ds",
    )
    if result.status != 0:
        raise RuntimeError(f"linear relaxation: {result.message}")
    price, value = np.zeros(len(m.capacity)), np.zeros(len(m.quantity))
    rows = np.asarray(result.ineqlin.marginals)
    price[used] = -rows[free.shape[0] :]
    value[np.unique(c.need[m.bundle[c.need] < 0])] = rows[: free.shape[0]]
    if whole.shape[0]:
        value[m.bundle >= 0] = result.eqlin.marginals
    return np.maximum(price, 0), value, result.x[len(c) :]


def integer(m: Model, c: Columns, seconds: float, whole_units: bool = False) -> tuple[Ints, float, bool] | None:
    """Units on each column of the best integer solution found in time, the solver's lower bound on what these columns
    can reach, and whether it ended by itself; None where none was found.

    `whole_units` asks for integers outright, for rows that are no network.
    """
    whole, free, have, used = m.rows(c)
    n, b = len(c), m.bundles
    # A team's switch stands behind the bundles: units between its minimum and its most, or none.
    teams = np.flatnonzero((c.least > 1) | c.whole)
    row, width = np.arange(len(teams)), n + b + len(teams)

    def switched(bounds: Ints) -> csr_matrix:
        value = np.concatenate((np.ones(len(teams)), -bounds[teams].astype(float)))
        return csr_matrix((value, (np.tile(row, 2), np.concatenate((teams, n + b + row)))), (len(teams), width))

    undivided = np.flatnonzero(c.whole[teams])
    _, group = np.unique(c.source[teams[undivided]], return_inverse=True)
    one_place = csr_matrix((np.ones(len(group)), (group, n + b + undivided)), (int(group.max(initial=-1)) + 1, width))
    constraints = [
        LinearConstraint(csr_matrix((rows.data, rows.indices, rows.indptr), (rows.shape[0], width)), low, high)
        for rows, low, high in (
            (whole, 0, 0),
            (free, -np.inf, m.free_lines(c)),
            (have, -np.inf, m.capacity[used]),
            (switched(c.least), 0, np.inf),
            (switched(c.most), -np.inf, 0),
            (one_place, -np.inf, 1),
        )
        if rows.shape[0]
    ]
    # Bundles and teams once decided, the rest is a flow, whose corners are whole numbers; only other rows need asking.
    result = milp(
        np.concatenate((c.gain, np.zeros(b + len(teams)))),
        integrality=np.concatenate((np.full(n, int(whole_units)), np.ones(b + len(teams)))),
        bounds=Bounds(0, np.concatenate((c.most, np.ones(b + len(teams))))),
        constraints=constraints,
        options={"time_limit": max(seconds, 0.05), "mip_rel_gap": 0.0 if len(c) <= SMALL else 1e-4},
    )
    if result.x is None:
        return None
    return np.round(result.x[:n]).astype(np.int64), float(result.mip_dual_bound), result.status == 0


def priced(m: Model, c: Columns, start: Bools) -> tuple[Bools, Floats, Floats]:
    """Solve the relaxation by pricing: from the columns in `start`, add what has negative reduced cost until next to
    nothing has. Gives the columns worth having in the integer program, prices of sources and shares of bundles."""
    on = start.copy()
    for k in range(ROUNDS):
        price, value, share = relaxation(m, c.keep(on))
        reduced = c.gain + price[c.source] * c.uses - value[c.need]
        wrong = np.flatnonzero((reduced < -0.5) & ~on)
        if len(wrong) <= len(c) // 200 or k == ROUNDS - 1:
            break
        wrong = wrong[np.lexsort((reduced[wrong], c.need[wrong]))]
        # The worst few of each line: all of them at once would be most of the graph.
        starts = np.searchsorted(c.need[wrong], np.arange(len(m.quantity)))
        on[wrong[np.arange(len(wrong)) - starts[c.need[wrong]] < 30]] = True
    return on | (reduced <= NEAR), price, share


def bound(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, price: Ints) -> int:
    """A lower bound on every plan with bundles, from any prices >= 0: at these prices each bundle (or free unit) is
    served or not for itself, whatever is least (Lagrange)."""
    each = np.full(a.needs, 2**40, np.int64)
    first = np.searchsorted(arcs.need, np.arange(a.needs + 1))
    some = np.flatnonzero(first[1:] > first[:-1])
    if len(some):
        at = price[arcs.source] + arcs.cost
        at[kept.arc] -= kept.tax
        each[some] = np.minimum.reduceat(at, first[some])
    gain = (each - weight) * a.need_quantity
    joined = a.bundle >= 0
    whole = np.zeros(_count(a), np.int64)
    np.add.at(whole, a.bundle[joined], gain[joined])
    best = np.minimum(whole, 0).sum() + np.minimum(gain[~joined], 0).sum()
    # Taxes as in `flow.bound`: paid back for units kept, charged in whole beforehand.
    whole_tax = (kept.units * kept.tax).sum()
    return int((weight * a.need_quantity).sum() + best - (price * a.source_capacity).sum() + whole_tax)


def exact(
    a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, units: Ints, run: SolveFlow, seconds: float
) -> tuple[Ints, str, int]:
    """A plan that splits nothing, starting from a flow that does; how it was found; a lower bound under these weights.

    `run` solves the flow for some arcs and some needs; with it the rest of the plan is made whole and optimal again.
    `seconds`: about how long all of it may take.
    """
    gain = arcs.cost - weight[arcs.need]
    gain[kept.arc] -= kept.tax
    most = np.minimum(a.need_quantity[arcs.need], a.source_capacity[arcs.source])
    one = np.ones(len(arcs), np.int64)
    whole = a.source_whole[arcs.source]
    columns = Columns(arcs.need, arcs.source, gain, most, one, a.source_minimum[arcs.source], whole)
    model = Model(a.need_quantity, a.source_capacity, a.bundle)
    first = np.searchsorted(arcs.need, np.arange(a.needs + 1))
    order = np.lexsort((arcs.cost, arcs.need))
    rank = np.empty(len(arcs), np.int64)
    rank[order] = np.arange(len(arcs)) - first[arcs.need]
    start = (rank < 4 * a.need_quantity[arcs.need] + 4) | (units > 0)
    near, price, share = priced(model, columns, start)
    small = len(columns) <= SMALL
    if small:
        near[:] = True
    least = bound(a, arcs, weight, kept, np.round(price).astype(np.int64))
    found = integer(model, columns.keep(near), seconds if small else seconds * SHARE)
    best: tuple[Ints, str] | None = None
    if found is not None:
        took = np.zeros(len(arcs), np.int64)
        took[near] = found[0]
        polished = _polish(a, arcs, took, run)
        if polished is not None:
            best = polished, "integer program" if found[2] else "integer program, time limit"
        if small:
            # With all pairs in, the solver's own bound holds for the plan; half a unit guards against its rounding.
            all_unmet = int((weight * a.need_quantity).sum() + (kept.units * kept.tax).sum())
            least = max(least, int(np.ceil(found[1] - 0.5)) + all_unmet)
    if best is None or best[1] != "integer program":
        other = drop_and_restore(a, arcs, share, run)
        if best is None or (gain * other).sum() < (gain * best[0]).sum():
            best = other, "drop and restore"
    return *best, least


def _polish(a: Arrays, arcs: Arcs, took: Ints, run: SolveFlow) -> Ints | None:
    """The flow over all arcs once it is decided which bundles are served and which teams go where, at their least."""
    got = np.bincount(arcs.need, took, a.needs).astype(np.int64)
    if (got > a.need_quantity).any() or (np.bincount(arcs.source, took, a.sources) > a.source_capacity).any():
        return None
    served = (a.bundle < 0) | _complete(a, got)[a.bundle] if _count(a) else np.ones(a.needs, np.bool_)
    least = a.source_minimum[arcs.source]
    bound_to = (least > 1) | a.source_whole[arcs.source]
    settled = np.where(bound_to & (took > 0) & served[arcs.need], least, 0)
    units = run(~bound_to | (settled > 0), served, settled)
    return None if broken(a, arcs, units) else units


def broken(a: Arrays, arcs: Arcs, units: Ints) -> Broken:
    """Bundles that are neither complete nor empty, and teams sent with fewer than their minimum or to many places:
    of these all places but the one that gets most, the gravest first."""
    few = (units > 0) & (units < a.source_minimum[arcs.source])
    sent = np.flatnonzero((units > 0) & a.source_whole[arcs.source])
    order = sent[np.lexsort((arcs.need[sent], -units[sent], -a.need_severity[arcs.need[sent]], arcs.source[sent]))]
    few[order[1:][arcs.source[order[1:]] == arcs.source[order[:-1]]]] = True
    got = np.bincount(arcs.need, units, a.needs).astype(np.int64)
    return Broken(np.flatnonzero(_started(a, got) & ~_complete(a, got)), np.flatnonzero(few))


def region(a: Arrays, arcs: Arcs, units: Ints, bad: Broken) -> Bools:
    """The need lines around some broken bundles and teams, gravest first: their own, and those that hold the most of
    whom these could use. Bundles come whole."""
    graver = bad.bundles[np.argsort(-_gravest(a)[bad.bundles], kind="stable")]
    size = np.bincount(a.bundle[a.bundle >= 0], minlength=_count(a))[graver]
    few = graver[: max(1, int(np.searchsorted(np.cumsum(size), LINES // 3)))]
    inside = np.isin(a.bundle, few) & (a.bundle >= 0)
    inside[arcs.need[bad.arcs[: LINES // 6]]] = True
    wanted = np.zeros(a.sources, np.bool_)
    wanted[arcs.source[inside[arcs.need]]] = True
    holding = np.bincount(arcs.need, units * wanted[arcs.source], a.needs)
    holding[inside] = 0
    most = np.argsort(-holding, kind="stable")[: max(LINES - int(inside.sum()), 0)]
    inside[most[holding[most] > 0]] = True
    if _count(a):
        whole = np.zeros(_count(a), np.bool_)
        whole[a.bundle[inside & (a.bundle >= 0)]] = True
        inside |= (a.bundle >= 0) & whole[a.bundle]
    return inside


def _gravest(a: Arrays) -> Ints:
    top = np.zeros(_count(a), np.int64)
    joined = a.bundle >= 0
    np.maximum.at(top, a.bundle[joined], a.need_severity[joined])
    return top


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


def drop_and_restore(a: Arrays, arcs: Arcs, share: Floats, run: SolveFlow, tries: int = 24) -> Ints:
    """Begin with the bundles the relaxation serves for more than half, give up a quarter of those that stay in pieces,
    the least served first, until none does; then take back in what fits after all, by halving. Teams below their
    minimum are kept from those needs.
    """
    on = share > 0.5
    allowed = np.ones(len(arcs), np.bool_)

    def served(bundles: Bools) -> Bools:
        return (a.bundle < 0) | bundles[a.bundle] if len(share) else np.ones(a.needs, np.bool_)

    while True:
        units = run(allowed, served(on), None)
        bad = broken(a, arcs, units)
        if not bad:
            break
        if len(bad.arcs):
            allowed[bad.arcs] = False
        else:
            order = bad.bundles[np.argsort(share[bad.bundles], kind="stable")]
            on[order[: max(1, len(order) // 4)]] = False
    off = np.flatnonzero(~on)
    off = off[np.argsort(-share[off], kind="stable")]
    queue = [off[k : k + 8] for k in range(0, len(off), 8)]
    while queue and tries:
        some, tries = queue.pop(0), tries - 1
        more = on.copy()
        more[some] = True
        again = run(allowed, served(more), None)
        if not broken(a, arcs, again) and more[incomplete(a, arcs, again)].sum() == 0:
            units, on = again, more
        elif len(some) > 1:
            queue[:0] = [some[: len(some) // 2], some[len(some) // 2 :]]
    return units
