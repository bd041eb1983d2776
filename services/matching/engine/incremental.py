"""The event path: a solved plan, kept optimal through single events on its duals, in milliseconds.

Need lines and sources are nodes with a potential each: `value[i]`, what one more unit of need i would cost, and
`price[s]`, what one more unit of source s would save. Between events the following holds (`faults` proves it), and is
exactly what makes the plan optimal:

    cost + price - value >= 0 for every pair,                   <= tax where units are placed
    price = 0 for sources with room,                            value = weight for needs with unmet units

Every placed unit carries the switch tax: taking it away costs that much more. With tax 0 the objective equals that of a
full solve after each event; with a tax, the plan is the best one given that moving a unit costs the tax.
Rejected: scanning the neighbourhood of an event (70 % of the problem is within two hops), and freezing the plan (leaves
a third more critical units unmet).
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from services.matching.engine.flow import Incidence
from services.matching.engine.model import Arrays, Ints, Settings
from services.matching.engine.solve import Solution

FAR = 2**60
"""Potential of what is gone: no path leads there."""

Pair = tuple[int, int]
Sources = npt.NDArray[np.int32]


class Live:
    """A plan under events. Needs and sources go by their numbers in the arrays; `changes` gathers what events moved.

    Lines of bundles and teams with a minimum are left to the full plan: what it placed there stays out of reach here.
    """

    def __init__(self, a: Arrays, settings: Settings, solution: Solution, tax: int | None = None) -> None:
        if solution.method != "flow":
            raise ValueError("a plan with bundles in it has no duals to go on from; see `LivePlan`")
        arcs, units = solution.arcs, solution.units
        self.tax = settings.switch_tax["proposed"] if tax is None else tax
        self.weight = solution.weight.copy()
        self.value = solution.duals.value.copy()
        self.price = solution.duals.price.copy()
        self.quantity = a.need_quantity.copy()
        self.capacity = a.source_capacity.copy()
        self.room = self.capacity - np.bincount(arcs.source, units, a.sources).astype(np.int64)
        self.short = self.quantity - np.bincount(arcs.need, units, a.needs).astype(np.int64)
        first = np.searchsorted(arcs.need, np.arange(a.needs + 1)).tolist()
        self.arc_source: list[Sources] = [arcs.source[first[i] : first[i + 1]] for i in range(a.needs)]
        self.arc_cost: list[npt.NDArray[np.integer[Any]]] = [arcs.cost[first[i] : first[i + 1]] for i in range(a.needs)]
        by_source = Incidence(arcs, a.sources, np.arange(a.sources))
        self._back_first = by_source.first
        self._back_need = arcs.need[by_source.arc]
        self._back_cost = arcs.cost[by_source.arc].astype(np.int64)
        # Needs that joined since, 32 to a chunk: one by one they would cost each new need a millisecond.
        self._joined: list[tuple[int, Sources, npt.NDArray[np.integer[Any]]]] = []
        self._chunks: list[_Chunk] = []
        self._back_new: dict[int, tuple[Sources, Ints]] = {}
        # Units of a pair with cost and tax of each, by source and by need.
        self.at_source: dict[int, dict[int, list[int]]] = {}
        self.at_need: dict[int, dict[int, list[int]]] = {}
        self.changes: dict[Pair, int] = {}
        self.hops = 0
        # Units left unmet at a discount stand there: nobody minds if they move.
        self.free = set(a.allowance[:, 0].tolist())
        for arc in np.flatnonzero(units).tolist():
            self._place(int(arcs.need[arc]), int(arcs.source[arc]), int(units[arc]), int(arcs.cost[arc]))
        held = solution.kept
        for arc, tax_held in zip(held.arc.tolist(), held.tax.tolist(), strict=True):
            self.hold(int(arcs.need[arc]), int(arcs.source[arc]), tax_held)
        self.changes.clear()

    # ------------------------------------------------------------------------------------------------------- reading
    def pairs(self) -> Iterator[tuple[int, int, int, int]]:
        """(need, source, units, cost of a unit) of all placed units, in order."""
        for i in sorted(self.at_need):
            for s in sorted(self.at_need[i]):
                units, cost, _ = self.at_need[i][s]
                yield i, s, units, cost

    def objective(self) -> int:
        """Costs of placed units and weights of unmet ones; no taxes."""
        costs = sum(units * cost for _, _, units, cost in self.pairs())
        return costs + int((self.weight * self.short).sum())

    def take_changes(self) -> dict[Pair, int]:
        """Units won or lost by each pair since the last call, without those that came back."""
        taken, self.changes = {k: v for k, v in self.changes.items() if v}, {}
        return taken

    def faults(self, needs: Iterable[int] | None = None) -> list[str]:
        """Where the plan is unsound or not optimal, in words; empty for a plan that is proved.

        Looks at every pair, or only at those of some needs (with whomever they have), which is quick.
        """
        wrong = []
        every = needs is None
        some = range(len(self.arc_source)) if needs is None else list(needs)
        for i in some:
            source, cost = self.arc_source[i], self.arc_cost[i]
            if self.value[i] <= -FAR:
                continue
            if len(source) and (cost + self.price[source]).min() < self.value[i]:
                wrong.append(f"need {i}: a pair is cheaper than its value")
            if self.value[i] > self.weight[i] or (self.short[i] > 0 and self.value[i] != self.weight[i]):
                wrong.append(f"need {i}: value {self.value[i]}, weight {self.weight[i]}, unmet {self.short[i]}")
            given = sum(units for units, _, _ in self.at_need.get(i, {}).values())
            if self.short[i] < 0 or given + self.short[i] != self.quantity[i]:
                wrong.append(f"need {i}: {given} given and {self.short[i]} unmet are not {self.quantity[i]}")
        for s in np.flatnonzero((self.room > 0) & (self.price != 0) | (self.room < 0) | (self.price < 0)).tolist():
            wrong.append(f"source {s}: room {self.room[s]}, price {self.price[s]}")
        load = np.zeros_like(self.room)
        for s in self.at_source if every else {s for i in some for s in self.at_need.get(i, {})}:
            for i, (units, price, tax) in self.at_source[s].items():
                load[s] += units
                if (
                    units <= 0
                    or price + self.price[s] - self.value[i] > tax
                    or self.at_need[i][s] is not self.at_source[s][i]
                ):
                    wrong.append(f"pair {i}, {s}: units {units} should not be there")
            if load[s] + self.room[s] != self.capacity[s]:
                wrong.append(f"source {s}: load {load[s]} and room {self.room[s]} are not {self.capacity[s]}")
        if every and (load + self.room != self.capacity).any():
            wrong.append("loads and room do not add up to capacity")
        return wrong

    # -------------------------------------------------------------------------------------------------------- events
    def add_need(self, quantity: int, weight: int, sources: Sources, costs: npt.NDArray[np.integer[Any]]) -> int:
        """A new line with its feasible sources (sorted) and their costs; gives its number."""
        i = len(self.arc_source)
        self.arc_source.append(sources)
        self.arc_cost.append(costs)
        if i == len(self.value):
            grow = max(64, i // 4)
            self.weight, self.value = (np.concatenate((x, np.zeros(grow, np.int64))) for x in (self.weight, self.value))
            self.quantity, self.short = (
                np.concatenate((x, np.zeros(grow, np.int64))) for x in (self.quantity, self.short)
            )
        self.weight[i], self.quantity[i], self.short[i] = weight, 0, 0
        # Not above what its cheapest source asks, else the first invariant breaks and paths come out wrong.
        cheapest = int((costs + self.price[sources]).min()) if len(sources) else weight
        self.value[i] = min(weight, cheapest)
        self._joined.append((i, sources, costs))
        if len(self._joined) == 32:
            self._chunks.append(_Chunk(self._joined))
            self._joined = []
        self.raise_quantity(i, quantity)
        return i

    def raise_quantity(self, i: int, more: int) -> None:
        self.quantity[i] += more
        self._serve(i, more)

    def lower_quantity(self, i: int, less: int) -> None:
        """Unmet units go first, then those that cost the plan most."""
        unmet = min(less, int(self.short[i]))
        self.short[i] -= unmet
        self.quantity[i] -= less
        less -= unmet
        while less:
            _, s = max((cost + int(self.price[s]), s) for s, (_, cost, _) in self.at_need[i].items())
            n = min(less, self.at_need[i][s][0])
            self._remove(i, s, n)
            self.room[s] += n
            less -= n
            self._refill(s)

    def drop_need(self, i: int) -> None:
        self.lower_quantity(i, int(self.quantity[i]))
        self.value[i] = -FAR

    def add_source(self, capacity: int, needs: Sources, costs: npt.NDArray[np.int32]) -> int:
        """A new source with the lines it may serve (living ones) and their costs; gives its number."""
        s = len(self.capacity)
        zero = np.zeros(1, np.int64)
        self.capacity, self.price, self.room = (
            np.concatenate((x, zero)) for x in (self.capacity, self.price, self.room)
        )
        self._back_new[s] = (needs, costs.astype(np.int64))
        one = np.array([s], np.int32)
        for i, cost in zip(needs.tolist(), costs, strict=True):
            self.arc_source[i] = np.concatenate((self.arc_source[i], one))
            self.arc_cost[i] = np.concatenate((self.arc_cost[i], cost[None]))
        self.price[s] = max(0, int((self.value[needs] - costs).max())) if len(needs) else 0
        self.raise_capacity(s, capacity)
        return s

    def raise_capacity(self, s: int, more: int) -> None:
        self.capacity[s] += more
        self.room[s] += more
        self._refill(s)

    def lower_capacity(self, s: int, less: int) -> None:
        """Idle units go first; what is placed beyond the new capacity moves, or stays unmet, whichever is least."""
        idle = min(less, int(self.room[s]))
        self.room[s] -= idle
        self.capacity[s] -= less
        if less > idle:
            self._push(~s, less - idle)

    def drop_source(self, s: int) -> None:
        """Gone for good: all of its units move elsewhere at once, without tax, since none can stay."""
        held = {i: pair[0] for i, pair in self.at_source.get(s, {}).items()}
        for i, units in held.items():
            self._remove(i, s, units)
        self.capacity[s] = self.room[s] = 0
        self.price[s] = FAR
        for i in sorted(held, key=lambda i: (-int(self.weight[i]), i)):
            self._serve(i, held[i])

    def exclude(self, i: int, s: int) -> None:
        """The pair may not be (any more): declined, cool-down. What was placed on it moves."""
        held = self.at_need.get(i, {}).get(s)
        units = held[0] if held else 0
        if units:
            self._remove(i, s, units)
        stay = self.arc_source[i] != s
        self.arc_source[i], self.arc_cost[i] = self.arc_source[i][stay], self.arc_cost[i][stay]
        self._forget(i, s)
        if units:
            self.room[s] += units
            # Its units are out of the plan until the source is settled, so that each step starts from an optimum.
            self.quantity[i] -= units
            self._refill(s)
            self.raise_quantity(i, units)

    def accept(self, i: int, s: int, units: int) -> None:
        """Placed units become promised work: they leave the plan together with the source's capacity for them."""
        self._remove(i, s, units)
        self.changes.pop((i, s), None)
        self.quantity[i] -= units
        self.capacity[s] -= units

    def hold(self, i: int, s: int, tax: int) -> None:
        """From now on it costs at least this much to move the units of a pair (an offer is out for them)."""
        held = self.at_need.get(i, {}).get(s)
        if held:
            held[2] = max(held[2], tax)

    # -------------------------------------------------------------------------------------------------------- search
    def _place(self, i: int, s: int, units: int, cost: int) -> None:
        held = self.at_source.setdefault(s, {}).get(i)
        if held is None:
            self.at_source[s][i] = self.at_need.setdefault(i, {})[s] = [
                units,
                cost,
                0 if s in self.free else self.tax,
            ]
        else:
            held[0] += units
        self.changes[i, s] = self.changes.get((i, s), 0) + units

    def _remove(self, i: int, s: int, units: int) -> None:
        held = self.at_source[s][i]
        held[0] -= units
        if not held[0]:
            del self.at_source[s][i], self.at_need[i][s]
        self.changes[i, s] = self.changes.get((i, s), 0) - units

    def _serve(self, i: int, units: int) -> None:
        """Units of a need that are not in the plan yet; what cannot be placed becomes unmet."""
        self._push(i, units)

    def _push(self, start: int, units: int) -> None:
        """Send units from a node on their shortest ways to the sink. Needs are i, sources ~s.

        Dijkstra on reduced costs, which are never negative; it stops at the first way out, and only the potentials of
        nodes nearer than that change. Units go in one step as far as the way has room.
        """
        value, price, room, weight = self.value, self.price, self.room, self.weight
        while units:
            dist, back, done = {start: 0}, dict[int, tuple[int, int]](), dict[int, int]()
            heap, best, out = [(0, start)], FAR, start
            while heap:
                d, u = heappop(heap)
                if d >= best:
                    break
                if u in done:
                    continue
                done[u] = d
                if u >= 0:
                    through = d + int(weight[u]) - int(value[u])
                    if through < best:
                        best, out = through, u
                    sources = self.arc_source[u]
                    reduced = self.arc_cost[u] + price[sources]
                    near = np.flatnonzero(reduced < best - d + value[u])
                    if not len(near):
                        continue
                    reach, cost = sources[near], reduced[near] + (d - value[u])
                    free = np.flatnonzero(room[reach] > 0)
                    if len(free):
                        k = free[np.argmin(cost[free])]
                        if cost[k] < best:
                            best, out = int(cost[k]), ~int(reach[k])
                            back[out] = (u, int(self.arc_cost[u][near[k]]))
                            dist[out] = best
                        less = cost < best
                        near, reach, cost = near[less], reach[less], cost[less]
                    price_of = self.arc_cost[u][near].tolist()
                    for s, c, one in zip(reach.tolist(), cost.tolist(), price_of, strict=True):
                        if c < dist.get(~s, FAR):
                            dist[~s] = c
                            back[~s] = (u, one)
                            heappush(heap, (c, ~s))
                else:
                    base = d - int(price[~u])
                    for i, (_, cost, tax) in self.at_source.get(~u, {}).items():
                        c = base - cost + tax + int(value[i])
                        if c < best and c < dist.get(i, FAR):
                            dist[i] = c
                            back[i] = (u, 0)
                            heappush(heap, (c, i))
            for u, d in done.items():
                if d < best:
                    if u >= 0:
                        value[u] += best - d
                    else:
                        price[~u] += best - d
            way = [out]
            while way[-1] != start:
                way.append(back[way[-1]][0])
            way.reverse()
            n = units if out >= 0 else min(units, int(room[~out]))
            for u, v in pairwise(way):
                if v >= 0:
                    n = min(n, self.at_source[~u][v][0])
            for u, v in pairwise(way):
                if v >= 0:
                    self._remove(v, ~u, n)
                else:
                    self._place(u, ~v, n, back[v][1])
            self.hops = max(self.hops, len(way))
            if out >= 0:
                self.short[out] += n
            else:
                room[~out] -= n
            units -= n

    def _refill(self, t: int) -> None:
        """Give a source with room to whom it saves most, until that is nothing (then its price is 0) or it is full.

        The mirror of `_push`: shortest ways from the sink to the source, searched backwards.
        """
        value, price, room = self.value, self.price, self.room
        while room[t] > 0 and price[t] > 0:
            dist, onward, done = {~t: 0}, dict[int, tuple[int, int]](), dict[int, int]()
            heap, best, entry = [(0, ~t)], int(price[t]), ~t
            while heap:
                d, u = heappop(heap)
                if d >= best:
                    break
                if u in done:
                    continue
                done[u] = d
                if u < 0:
                    s = ~u
                    if s != t and self.at_source.get(s) and d + int(price[s]) < best:
                        best, entry = d + int(price[s]), u
                    needs, costs = self._could(s)
                    reduced = costs + (int(price[s]) + d) - value[needs]
                    near = np.flatnonzero(reduced < best)
                    if not len(near):
                        continue
                    reach, far, one = needs[near], reduced[near], costs[near]
                    wants = np.flatnonzero(self.short[reach] > 0)
                    if len(wants):
                        k = wants[np.argmin(far[wants])]
                        if far[k] < best:
                            best, entry = int(far[k]), int(reach[k])
                            onward[entry] = (u, int(one[k]))
                    for i, c, price_of in zip(reach.tolist(), far.tolist(), one.tolist(), strict=True):
                        if c < best and c < dist.get(i, FAR):
                            dist[i] = c
                            onward[i] = (u, price_of)
                            heappush(heap, (c, i))
                else:
                    base = d + int(value[u])
                    for s, (_, cost, tax) in self.at_need.get(u, {}).items():
                        c = base - cost + tax - int(price[s])
                        if c < best and c < dist.get(~s, FAR):
                            dist[~s] = c
                            onward[~s] = (u, 0)
                            heappush(heap, (c, ~s))
            for u, d in done.items():
                if d < best:
                    if u >= 0:
                        value[u] -= best - d
                    else:
                        price[~u] -= best - d
            if entry == ~t:
                return
            way = [entry]
            while way[-1] != ~t:
                way.append(onward[way[-1]][0])
            n = int(room[t])
            if entry >= 0:
                n = min(n, int(self.short[entry]))
            for u, v in pairwise(way):
                if v >= 0:
                    n = min(n, self.at_source[~u][v][0])
            for u, v in pairwise(way):
                if v >= 0:
                    self._remove(v, ~u, n)
                else:
                    self._place(u, ~v, n, onward[u][1])
            self.hops = max(self.hops, len(way))
            if entry >= 0:
                self.short[entry] -= n
            else:
                room[~entry] += n
            room[t] -= n

    def _could(self, s: int) -> tuple[Sources, Ints]:
        """Needs that source s may serve, and the costs; needs that are gone are among them, with no value."""
        old = self._slice(s)
        parts = [(self._back_need[old], self._back_cost[old])]
        if s in self._back_new:
            parts.append(self._back_new[s])
        parts += [part for chunk in self._chunks if (part := chunk.of(s))]
        for i, sources, costs in self._joined:
            at = int(np.searchsorted(sources, s))
            if at < len(sources) and sources[at] == s:
                parts.append((np.array([i], np.int32), costs[at : at + 1].astype(np.int64)))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([needs for needs, _ in parts]), np.concatenate([costs for _, costs in parts])

    def _forget(self, i: int, s: int) -> None:
        for needs, costs in [
            (self._back_need[self._slice(s)], self._back_cost[self._slice(s)]),
            *([self._back_new[s]] if s in self._back_new else []),
            *[part for chunk in self._chunks if (part := chunk.of(s))],
        ]:
            costs[needs == i] = FAR
        for k, (j, sources, prices) in enumerate(self._joined):
            if j == i:
                stay = sources != s
                self._joined[k] = (j, sources[stay], prices[stay])

    def _slice(self, s: int) -> slice:
        return slice(*self._back_first[s : s + 2]) if s + 1 < len(self._back_first) else slice(0, 0)


class _Chunk:
    """The pairs of some needs, by source."""

    def __init__(self, joined: list[tuple[int, Sources, npt.NDArray[np.integer[Any]]]]) -> None:
        source = np.concatenate([sources for _, sources, _ in joined])
        order = np.argsort(source, kind="stable")
        self._source = source[order]
        self._need = np.repeat([i for i, _, _ in joined], [len(s) for _, s, _ in joined]).astype(np.int32)[order]
        self._cost = np.concatenate([costs for _, _, costs in joined]).astype(np.int64)[order]

    def of(self, s: int) -> tuple[Sources, Ints] | None:
        """Views, so that costs can be changed in place."""
        lo, hi = np.searchsorted(self._source, (s, s + 1))
        return (self._need[lo:hi], self._cost[lo:hi]) if hi > lo else None
