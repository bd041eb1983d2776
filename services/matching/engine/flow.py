"""The minimum-cost flow: exact by OR-Tools, and proved so by duals of our own.

need --cost, 0..quantity--> source --0, 0..capacity--> sink
need --weight, 0..quantity--> sink                       (units left unmet)

The certificate does not rest on the solver: `duals` finds prices on the residual graph, `bound` turns any prices into a
lower bound by weak duality, and the two meet exactly when the flow is optimal.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from ortools.graph.python import min_cost_flow

from services.matching.engine.candidates import Arcs
from services.matching.engine.model import COST_MAX, UNREACHED, Arrays, Bools, Ints, Settings


@dataclass(slots=True)
class KeptArcs:
    """Units of the plan in force: arc number, units, tax per unit; sorted by arc."""

    arc: Ints
    units: Ints
    tax: Ints

    @staticmethod
    def none() -> "KeptArcs":
        return KeptArcs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64))


def unmet_weights(a: Arrays, settings: Settings) -> Ints:
    """Weight of one unmet unit of each need line."""
    if settings.ladder == "policy":
        return np.array([0, *settings.policy_weights], np.int64)[a.need_severity] + a.need_extra
    return strict_step(a.needs, a.sources, settings) * a.need_severity + a.need_extra


def with_allowance_arcs(a: Arrays, arcs: Arcs) -> Arcs:
    """All pairs, and an arc from each need to each allowance of its group; `priced` says what they cost."""
    if not len(a.allowance):
        return arcs
    order = np.argsort(a.allowance[:, 1], kind="stable")
    by_group = a.allowance[order]
    able = np.flatnonzero((a.group >= 0) & (a.need_quantity > 0))
    first, last = (np.searchsorted(by_group[:, 1], a.group[able], side) for side in ("left", "right"))
    count = last - first
    need = np.repeat(able, count)
    at = np.arange(len(need)) - np.repeat(np.cumsum(count) - count - first, count)
    key = np.concatenate((arcs.need.astype(np.int64) * a.sources + arcs.source, need * a.sources + by_group[at, 0]))
    zero = np.zeros(len(need))
    _, place = np.unique(key, return_index=True)
    return Arcs(
        np.concatenate((arcs.need, need.astype(np.int32)))[place],
        np.concatenate((arcs.source, by_group[at, 0].astype(np.int32)))[place],
        np.concatenate((arcs.cost, zero.astype(np.int32)))[place],
        np.concatenate((arcs.km, zero.astype(np.float32)))[place],
    )


def priced(a: Arrays, arcs: Arcs, weight: Ints) -> Arcs:
    """The same arcs, with what allowances cost under these weights: the weight of an unmet unit less the discount."""
    if not len(a.allowance):
        return arcs
    discount = np.full(a.sources, -1, np.int64)
    discount[a.allowance[:, 0]] = a.allowance[:, 2]
    on = np.flatnonzero(discount[arcs.source] >= 0)
    cost = arcs.cost.astype(np.int64)
    cost[on] = weight[arcs.need[on]] - discount[arcs.source[on]]
    return Arcs(arcs.need, arcs.source, cost, arcs.km)


def allowed(a: Arrays, arcs: Arcs) -> Bools:
    """Which arcs lead to allowances: their units are unmet."""
    is_one = np.zeros(a.sources, np.bool_)
    is_one[a.allowance[:, 0]] = True
    on: Bools = is_one[arcs.source]
    return on


def strict_step(needs: int, sources: int, settings: Settings) -> int:
    """One step of the strict ladder.

    A linear ladder suffices: the difference of two flows falls apart into simple cycles, and each changes at most one
    unit of one severity for one unit of another while it meets every need at most once. So one step must only outweigh
    the costs along a single cycle (COST_MAX and a switch tax per need on it; through an allowance, one unit of a
    severity for another of the same, which differ by in-level extras) and the in-level extras. Rounded up to a power
    of two, so that a few more needs later change no weight.
    """
    along = 1 << (max(min(needs, sources), 30) + 2).bit_length()
    tax = max(settings.switch_tax.values(), default=0)
    swap = settings.age_weight + settings.vulnerability_weight if settings.equity_weight else 0
    step = along * (COST_MAX + tax + swap) + settings.in_level + 1
    # Cost scaling multiplies costs by the number of nodes.
    if 4 * step * (needs + sources + 3) >= 2**62:
        raise OverflowError("too many needs for whole-number weights; plan the operation in parts")
    return step


def solve_flow(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs) -> Ints:
    """Units on each arc of a flow of least cost. Raises RuntimeError if the solver does not prove it optimal."""
    count = a.needs
    used, node = np.unique(arcs.source, return_inverse=True)
    sink = count + len(used)
    wanted = np.minimum(a.source_capacity[arcs.source], a.need_quantity[arcs.need])
    tail = np.concatenate((arcs.need, np.arange(count), count + np.arange(len(used)), arcs.need[kept.arc]))
    head = np.concatenate((count + node, np.full(count, sink), np.full(len(used), sink), count + node[kept.arc]))
    capacity = np.concatenate((wanted, a.need_quantity, a.source_capacity[used], kept.units))
    cost = np.concatenate((arcs.cost, weight, np.zeros(len(used), np.int64), arcs.cost[kept.arc] - kept.tax))
    supply = np.zeros(sink + 1, np.int64)
    supply[:count], supply[sink] = a.need_quantity, -a.need_quantity.sum()

    solver = min_cost_flow.SimpleMinCostFlow()
    solver.add_arcs_with_capacity_and_unit_cost(
        tail.astype(np.int32), head.astype(np.int32), capacity.astype(np.int64), cost.astype(np.int64)
    )
    del tail, head, capacity, cost
    solver.set_nodes_supplies(np.arange(sink + 1, dtype=np.int32), supply)
    status = solver.solve()
    if status != solver.OPTIMAL:
        raise RuntimeError(f"min-cost flow ended with {status}")
    units = np.asarray(solver.flows(np.arange(len(arcs), dtype=np.int32)), np.int64)
    if len(kept.arc):
        first = len(arcs) + count + len(used)
        again = np.asarray(solver.flows(np.arange(first, first + len(kept.arc), dtype=np.int32)), np.int64)
        np.add.at(units, kept.arc, again)
    return units


def solve_proved(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, settings: Settings) -> "tuple[Ints, Duals]":
    """An optimal flow and its duals. Raises RuntimeError where optimality cannot be proved.

    Cost scaling is twice as fast on small weights, and steps far below the strict ladder nearly always give a flow that
    is optimal for the strict ladder too. Whether it is, the duals under the strict weights tell; only otherwise is the
    ladder itself solved.
    """
    tax = int(kept.tax.max(initial=0))
    step = 5 * (COST_MAX + tax) + settings.in_level
    gentle = step * a.need_severity + a.need_extra
    if settings.ladder == "strict" and int(gentle.max(initial=0)) < int(weight.max(initial=0)):
        units = solve_flow(a, priced(a, arcs, gentle), gentle, kept)
        found = duals(a, arcs, weight, kept, units, rounds=1000)
        if found is not None:
            return units, found
    units = solve_flow(a, arcs, weight, kept)
    found = duals(a, arcs, weight, kept, units, rounds=a.needs + a.sources + 2)
    if found is None:
        raise RuntimeError("the solver called a flow optimal that can be made better")
    return units, found


@dataclass(slots=True)
class Duals:
    """`value[i]`: what one more unit of need i would cost; `price[s]`: what one more unit of source s would save."""

    value: Ints
    price: Ints


def duals(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, units: Ints, rounds: int) -> Duals | None:
    """Prices of an optimal flow: the shortest way from every node to the sink in the residual graph.

    None where the flow is not proved optimal: a price falls below zero, labels still fall after so many rounds, or the
    bound does not reach the objective.

    Label-correcting, from a source with room (price 0) and the unmet arcs outward; after the first round only the
    arcs of sources whose price fell are looked at again.
    """
    load = np.bincount(arcs.source, units, a.sources).astype(np.int64)
    full = load >= a.source_capacity
    price = np.where(full, UNREACHED, 0)
    used = np.flatnonzero(units)
    ui, us = arcs.need[used], arcs.source[used]
    # A kept unit goes back for its tax more; kept arcs with room count as an arc that is cheaper by the tax.
    back = -arcs.cost[used].astype(np.int64)
    cheaper = arcs.cost[kept.arc] - kept.tax
    moved = np.maximum(kept.units - units[kept.arc], 0)
    room = np.flatnonzero(moved)
    ki, ks, kc = arcs.need[kept.arc[room]], arcs.source[kept.arc[room]], cheaper[room]
    place = np.searchsorted(used, kept.arc)
    place[place >= len(used)] = 0
    # The dear part of an arc is given back first; only an arc all of whose units are kept gives back kept ones.
    only = np.flatnonzero((units[kept.arc] > 0) & (units[kept.arc] <= kept.units)) if len(used) else np.zeros(0, int)
    back[place[only]] += kept.tax[only]

    value = weight.copy()
    first = np.searchsorted(arcs.need, np.arange(a.needs + 1))
    some = np.flatnonzero(first[1:] > first[:-1])
    if len(some):
        # In slices, to hold no second copy of all arcs.
        for piece in np.array_split(some, max(1, len(arcs) // 400_000)):
            lo, hi = first[piece[0]], first[piece[-1] + 1]
            through = price[arcs.source[lo:hi]] + arcs.cost[lo:hi]
            value[piece] = np.minimum(value[piece], np.minimum.reduceat(through, first[piece] - lo))
    by_source = Incidence(arcs, a.sources, np.flatnonzero(full))
    for _ in range(rounds):
        np.minimum.at(value, ki, price[ks] + kc)
        before = price.copy()
        np.minimum.at(price, us, value[ui] + back)
        fell = np.flatnonzero(price < before)
        if not len(fell):
            # The sink's own label stays 0, so a better way through the sink shows only here, as a gap.
            found = Duals(value, price)
            best = bound(a, arcs, weight, kept, found)
            return found if best == objective(a, arcs, weight, kept, units)[0] else None
        if price[fell].min() < 0:
            return None
        at, who = by_source.of(fell)
        np.minimum.at(value, arcs.need[at], price[who] + arcs.cost[at])
    return None


class Incidence:
    """The arcs of each source, where `arcs` itself is sorted by need."""

    def __init__(self, arcs: Arcs, sources: int, some: npt.NDArray[np.int64]) -> None:
        wanted = np.zeros(sources, np.bool_)
        wanted[some] = True
        at = np.flatnonzero(wanted[arcs.source]).astype(np.int32)
        self.arc = at[np.argsort(arcs.source[at], kind="stable")]
        self.first = np.zeros(sources + 1, np.int64)
        np.cumsum(np.bincount(arcs.source[at], minlength=sources), out=self.first[1:])

    def of(self, sources: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """All arcs of some sources, and beside each its source."""
        count = self.first[sources + 1] - self.first[sources]
        who = np.repeat(sources, count)
        within = np.arange(len(who)) - np.repeat(np.cumsum(count) - count, count)
        return self.arc[self.first[who] + within], who


def objective(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, units: Ints) -> tuple[int, int]:
    """Costs, unmet weights and switch tax of a flow, and the tax within it."""
    got = np.bincount(arcs.need, units, a.needs).astype(np.int64)
    moved = np.maximum(kept.units - units[kept.arc], 0)
    tax = int((moved * kept.tax).sum())
    return int((arcs.cost * units).sum() + (weight * (a.need_quantity - got)).sum()) + tax, tax


def bound(a: Arrays, arcs: Arcs, weight: Ints, kept: KeptArcs, found: Duals) -> int:
    """A lower bound on every feasible flow's objective, from any duals with prices >= 0 (weak duality).

    All constraints are applied anew over all arcs, whatever found the duals: values too high are cut, not believed.
    """
    price = found.price
    assert not len(price) or price.min() >= 0
    value = np.minimum(weight, found.value)
    first = np.searchsorted(arcs.need, np.arange(a.needs + 1))
    some = np.flatnonzero(first[1:] > first[:-1])
    if len(some):
        for piece in np.array_split(some, max(1, len(arcs) // 400_000)):
            lo, hi = first[piece[0]], first[piece[-1] + 1]
            through = price[arcs.source[lo:hi]] + arcs.cost[lo:hi]
            value[piece] = np.minimum(value[piece], np.minimum.reduceat(through, first[piece] - lo))
    kept_gain = value[arcs.need[kept.arc]] - price[arcs.source[kept.arc]] - (arcs.cost[kept.arc] - kept.tax)
    total = (a.need_quantity * value).sum() - (a.source_capacity * price).sum()
    total -= (kept.units * np.maximum(kept_gain, 0)).sum()
    # `objective` charges the tax of units moved away instead of paying it back for units kept.
    return int(total + (kept.units * kept.tax).sum())
