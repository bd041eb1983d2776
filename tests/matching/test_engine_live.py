"""The event path: after every event the plan is proved optimal on its duals, and equals a full solve when no tax is on."""

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from services.matching.engine import Arrays, Settings
from services.matching.engine.candidates import Arcs
from services.matching.engine.incremental import Live
from services.matching.engine.model import FOREVER
from services.matching.engine.solve import solve_arrays

POLICY = Settings(ladder="policy", age_weight=0, vulnerability_weight=0)


class World:
    """The truth beside the plan under test: what there is, as plain dictionaries."""

    def __init__(self, r: Random, needs: int, sources: int, big: bool) -> None:
        self.r, self.big = r, big
        self.quantity = {i: self.units() for i in range(needs)}
        self.weight = {i: 20_000 * r.randint(1, 8) for i in range(needs)}
        self.capacity = {s: self.units() for s in range(sources)}
        self.cost = {(i, s): self.price() for i in range(needs) for s in range(sources) if r.random() < 0.5}

    def units(self) -> int:
        return self.r.randint(1, 400) if self.big else self.r.choice((1, 1, 2, 4))

    def price(self) -> int:
        # Few distinct costs make ties, which is where paths go astray.
        return self.r.choice((0, 100, 100, 900, 2_500, self.r.randint(0, 10_000)))

    def live(self, tax: int) -> Live:
        a = arrays(self)
        keys = np.array(sorted(self.cost), np.int32).reshape(-1, 2)
        costs = np.array([self.cost[tuple(key)] for key in keys.tolist()], np.int32)
        arcs = Arcs(keys[:, 0].copy(), keys[:, 1].copy(), costs, np.zeros(len(keys), np.float32))
        solution = solve_arrays(a, POLICY, arcs=arcs)
        return Live(a, POLICY, solution, tax=tax)

    def least(self) -> int:
        """The least objective, by a linear program: its corners are whole numbers."""
        pairs = [(i, s) for i, s in sorted(self.cost) if i in self.quantity and s in self.capacity]
        fixed = sum(self.weight[i] * q for i, q in self.quantity.items())
        if not pairs:
            return fixed
        needs, sources = sorted(self.quantity), sorted(self.capacity)
        rows = np.zeros((len(needs) + len(sources), len(pairs)))
        for k, (i, s) in enumerate(pairs):
            rows[needs.index(i), k] = rows[len(needs) + sources.index(s), k] = 1
        limits = [self.quantity[i] for i in needs] + [self.capacity[s] for s in sources]
        result = linprog([self.cost[p] - self.weight[p[0]] for p in pairs], A_ub=rows, b_ub=limits, method="highs")
        assert result.status == 0
        return fixed + round(result.fun)

    def event(self, live: Live, kind: str = "") -> None:
        """One thing that happens, to the plan and to the truth alike."""
        r = self.r
        kind = kind or r.choice(
            ("need", "need", "drop need", "more", "less", "source", "gone", "grow", "shrink", "decline", "accept")
        )
        i = r.choice(sorted(self.quantity)) if self.quantity else None
        s = r.choice(sorted(self.capacity)) if self.capacity else None
        if kind == "need":
            few = np.array([s for s in sorted(self.capacity) if r.random() < 0.5], np.int32)
            costs = np.array([self.price() for _ in few], np.int32)
            quantity, weight = self.units(), 20_000 * r.randint(1, 8)
            new = live.add_need(quantity, weight, few, costs)
            self.quantity[new], self.weight[new] = quantity, weight
            self.cost.update({(new, int(s)): int(c) for s, c in zip(few, costs, strict=True)})
        elif kind == "source":
            few = np.array([i for i in sorted(self.quantity) if r.random() < 0.5], np.int32)
            costs = np.array([self.price() for _ in few], np.int32)
            capacity = self.units()
            new = live.add_source(capacity, few, costs)
            self.capacity[new] = capacity
            self.cost.update({(int(i), new): int(c) for i, c in zip(few, costs, strict=True)})
        elif kind == "drop need" and i is not None:
            live.drop_need(i)
            del self.quantity[i]
        elif kind == "more" and i is not None:
            more = self.units()
            live.raise_quantity(i, more)
            self.quantity[i] += more
        elif kind == "less" and i is not None:
            less = r.randint(0, self.quantity[i])
            live.lower_quantity(i, less)
            self.quantity[i] -= less
        elif kind == "gone" and s is not None:
            live.drop_source(s)
            del self.capacity[s]
        elif kind == "grow" and s is not None:
            more = self.units()
            live.raise_capacity(s, more)
            self.capacity[s] += more
        elif kind == "shrink" and s is not None:
            less = r.randint(0, self.capacity[s])
            live.lower_capacity(s, less)
            self.capacity[s] -= less
        elif kind == "decline":
            there = [p for p in sorted(self.cost) if p[0] in self.quantity and p[1] in self.capacity]
            if there:
                pair = r.choice(there)
                live.exclude(*pair)
                del self.cost[pair]
        elif kind == "accept":
            placed = [(i, s, units) for i, s, units, _ in live.pairs()]
            if placed:
                i, s, units = r.choice(placed)
                n = r.randint(1, units)
                live.accept(i, s, n)
                self.quantity[i] -= n
                self.capacity[s] -= n

    def unsound(self, live: Live) -> list[str]:
        wrong = []
        given = dict.fromkeys(self.quantity, 0)
        taken = dict.fromkeys(self.capacity, 0)
        for i, s, units, cost in live.pairs():
            if self.cost.get((i, s)) != cost or i not in given or s not in taken:
                wrong.append(f"{i}, {s} should not be")
                continue
            given[i] += units
            taken[s] += units
        wrong += [f"need {i}" for i, n in given.items() if n + int(live.short[i]) != self.quantity[i]]
        wrong += [f"source {s}" for s, n in taken.items() if n > self.capacity[s]]
        return wrong


def arrays(w: World) -> Arrays:
    """As little of a problem as the solver looks at when the pairs are given."""
    n, m = len(w.quantity), len(w.capacity)
    zero, zeros = np.zeros(n, np.int64), np.zeros(m, np.int64)
    none, nothing = np.full(n, -1, np.int32), np.full((m, 1), FOREVER, np.int64)
    return Arrays(
        now=0,
        need_code=np.zeros(n, np.int32),
        need_level=np.zeros(n, np.int8),
        need_xyz=np.zeros((n, 3)),
        need_start=zero,
        need_end=zero + 1,
        need_duration=zero,
        need_quantity=np.array(list(w.quantity.values()), np.int64),
        need_severity=zero + 1,
        # Any weight at all: the ladder's first step, and the rest as an extra.
        need_extra=np.array(list(w.weight.values()), np.int64) - 20_000,
        need_certificates=np.zeros(n, np.int32),
        need_languages=np.zeros(n, np.int32),
        need_organisation=none,
        need_item=zero > 0,
        need_open=zero == 0,
        need_where=zero.astype(np.int32),
        need_hash=zero.astype(np.uint64),
        source_xyz=np.zeros((m, 3)),
        source_capacity=np.array(list(w.capacity.values()), np.int64),
        source_minimum=zeros + 1,
        source_limit_km=zeros + 1.0,
        source_ready=zeros,
        source_hours=zeros + 0.0,
        source_accept=zeros + 0.0,
        source_expires=zeros + FOREVER,
        source_organisation=np.full(m, -1, np.int32),
        source_max_hours=zeros + 12.0,
        source_avoids=zeros.astype(np.int32),
        source_crewed=zeros == 0,
        source_lot=zeros > 0,
        source_whole=zeros > 0,
        source_rarity=zeros + 0.0,
        source_hash=zeros.astype(np.uint64),
        window_start=nothing,
        window_end=nothing,
        window_count=zeros,
        busy_start=nothing,
        busy_end=nothing,
        busy_count=zeros,
        busy_rest=np.zeros((m, 1), np.int64),
        holder_code=np.zeros(0, np.int32),
        holder_source=np.zeros(0, np.int32),
        holder_level=np.zeros(0, np.int8),
        certificate_until=np.zeros((1, m), np.int64),
        language_ok=np.ones((1, m), np.bool_),
        barred=np.zeros((1, 1), np.bool_),
        excluded=np.zeros(0, np.int64),
        bundle=none,
        group=none,
    )


worlds = st.builds(World, st.integers(0, 2**32 - 1).map(Random), st.integers(0, 9), st.integers(0, 9), st.booleans())


@settings(max_examples=120, deadline=None)
@given(worlds)
def test_after_every_event_the_objective_is_that_of_a_full_solve(world: World) -> None:
    live = world.live(tax=0)
    for _ in range(12):
        world.event(live)
        assert live.faults() == []
        assert world.unsound(live) == []
        assert live.objective() == world.least()


@settings(max_examples=80, deadline=None)
@given(worlds, st.sampled_from((200, 1_500)))
def test_a_switch_tax_keeps_the_proof_and_costs_at_most_its_worth(world: World, tax: int) -> None:
    live = world.live(tax)
    for _ in range(12):
        world.event(live)
        assert live.faults() == []
        assert world.unsound(live) == []
        placed = sum(units for _, _, units, _ in live.pairs())
        assert 0 <= live.objective() - world.least() <= tax * placed


@settings(max_examples=60, deadline=None)
@given(worlds)
def test_changes_add_up_to_the_plan(world: World) -> None:
    live = world.live(tax=500)
    for _ in range(12):
        before = {(i, s): units for i, s, units, _ in live.pairs()}
        world.event(live)
        changed = live.take_changes()
        now = {(i, s): units for i, s, units, _ in live.pairs()}
        for pair in set(before) | set(now):
            # An acceptance takes units out of the plan without moving them.
            if changed.get(pair, 0) != now.get(pair, 0) - before.get(pair, 0):
                assert pair not in changed
                assert now.get(pair, 0) < before[pair]


def test_an_event_without_tax_moves_whom_it_must_and_a_tax_holds_them() -> None:
    r = Random(0)
    world = World(r, 1, 2, big=False)
    world.quantity, world.weight, world.capacity = {0: 1}, {0: 80_000}, {0: 1, 1: 1}
    world.cost = {(0, 0): 100, (0, 1): 400}
    few, costs = np.array([0, 1], np.int32), np.array([100, 700], np.int32)
    for tax, moved in ((0, True), (500, False)):
        live = world.live(tax)
        # The newcomer would save 600 with source 0, and whoever is there loses 300 by leaving it.
        live.add_need(1, 80_000, few, costs)
        assert ((0, 0) not in {(i, s) for i, s, _, _ in live.pairs()}) == moved


@settings(max_examples=10, deadline=None)
@given(worlds)
def test_many_new_needs_stay_within_reach_of_freed_sources(world: World) -> None:
    live = world.live(tax=0)
    for k in range(90):
        # Enough for the needs that joined to be gathered in chunks.
        world.event(live, "need" if k % 2 else "")
    assert live.faults() == []
    assert live.objective() == world.least()


def test_a_plan_that_is_no_pure_flow_is_refused() -> None:
    world = World(Random(1), 2, 2, big=False)
    a = arrays(world)
    solution = solve_arrays(a, POLICY, arcs=Arcs(*(np.zeros(0, t) for t in (np.int32, np.int32, np.int32, np.float32))))
    solution.method = "integer program"
    with pytest.raises(ValueError, match="duals"):
        Live(a, POLICY, solution)
