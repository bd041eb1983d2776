"""The engine's entry points: `solve` for plain data, `solve_arrays` for numpy arrays."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np

from services.matching.engine import bundles, candidates, explain, flow, rules
from services.matching.engine.candidates import Arcs
from services.matching.engine.flow import Duals, KeptArcs
from services.matching.engine.model import (
    PARTS,
    Arrays,
    Assignment,
    Bools,
    Index,
    Ints,
    Kept,
    Lot,
    NeedLine,
    Plan,
    Responder,
    Settings,
    encode,
    source_id,
)


@dataclass(slots=True)
class Solution:
    """A plan as arrays: `units[k]` on `arcs`, the weights it was judged by, and the proof."""

    arcs: Arcs
    units: Ints
    weight: Ints
    kept: KeptArcs
    duals: Duals
    objective: int
    bound: int
    tax: int
    method: str = "flow"
    incomplete: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def solve(
    needs: Sequence[NeedLine],
    responders: Sequence[Responder],
    lots: Sequence[Lot],
    settings: Settings,
    kept: Sequence[Kept] = (),
    *,
    now: datetime,
) -> Plan:
    """The plan of least cost for these needs, and the proof that there is none better.

    Pure and deterministic: equal input in any order gives equal `Plan.to_bytes()`. Safe in a worker thread or
    process: it shares nothing. OR-Tools keeps Python's lock while it solves, so a large plan belongs in a process.

    `needs` carry the units still to cover; work already accepted is not passed in: take it off `quantity`, and put it
    in the responder's `busy` (or off `capacity`, or the lot's `quantity`). `kept` are proposals and open offers,
    which may move for a tax; pairs that are no longer feasible are dropped from it. Several entries of a pair are
    added up, at their highest tax. One plan gives a person one assignment; whoever is free again later is planned for
    later.

    Raises ValueError for input out of range, RuntimeError if the solver fails to prove its flow (never seen).
    """
    a, index = encode(needs, responders, lots, settings, now)
    solution = solve_arrays(a, settings, kept_pairs(kept, index, settings))
    return plan_of(a, index, settings, solution)


def solve_arrays(
    a: Arrays,
    settings: Settings,
    kept: Mapping[tuple[int, int], tuple[int, int]] | None = None,
    arcs: Arcs | None = None,
) -> Solution:
    """The same on arrays. `kept`: (need, source) -> (units, tax). `arcs`: all feasible pairs where they are known."""
    weight = flow.unmet_weights(a, settings)
    arcs = None if arcs is None else _whole(a, arcs, weight)
    if arcs is None and candidates.near_pairs(a) > settings.most_pairs:
        arcs, held, units, found = _sifted(a, settings, weight, kept or {})
    else:
        arcs = _whole(a, candidates.candidates(a, settings), weight) if arcs is None else arcs
        held = _kept_arcs(a, arcs, kept or {})
        units, found = flow.solve_proved(a, arcs, weight, held, settings)
    least, method = flow.bound(a, arcs, weight, held, found), "flow"
    if bundles.broken(a, arcs, units):
        units, method, lumpy = _lumpy(a, arcs, weight, held, units, settings)
        least = max(least, lumpy)
    value, tax = flow.objective(a, arcs, weight, held, units)
    return Solution(arcs, units, weight, held, found, value, least, tax, method, bundles.incomplete(a, arcs, units))


def _sifted(
    a: Arrays, settings: Settings, weight: Ints, kept: Mapping[tuple[int, int], tuple[int, int]]
) -> tuple[Arcs, KeptArcs, Ints, Duals]:
    """The optimum over all pairs without ever holding all of them: solve for some, ask all others by the duals whether
    one would help, add those, until none would. The duals then prove the plan for the whole."""
    always = np.array(sorted(n * a.sources + s for n, s in kept), np.int64)
    arcs = _whole(a, candidates.candidates(a, settings, candidates.cheapest(a, settings.first_pairs, always)), weight)
    while True:
        held = _kept_arcs(a, arcs, kept)
        units, found = flow.solve_proved(a, arcs, weight, held, settings)
        missing = candidates.candidates(a, settings, candidates.underpriced(found.value, found.price))
        before, arcs = len(arcs), candidates.merged(a, arcs, missing)
        # Kept pairs may stand below their value: they are in already.
        if len(arcs) == before:
            return arcs, held, units, found


def _whole(a: Arrays, arcs: Arcs, weight: Ints) -> Arcs:
    return flow.priced(a, flow.with_allowance_arcs(a, arcs), weight)


def _lumpy(
    a: Arrays, arcs: Arcs, weight: Ints, held: KeptArcs, start: Ints, settings: Settings
) -> tuple[Ints, str, int]:
    """Where bundles and teams are weighed against each other a linear ladder is no longer exact, and one as high as
    the strict one is more than the integer program's floating numbers carry: steps of eight stand in for it."""
    steep = weight if settings.ladder == "policy" else 20_000 * 8 ** (a.need_severity - 1) + a.need_extra

    if a.needs <= bundles.LINES:
        units, method, least = _exact(a, arcs, weight, steep, held, start, settings)
        return units, method, least if settings.ladder == "policy" else 0
    units = start
    while bad := bundles.broken(a, arcs, units):
        inside = bundles.region(a, arcs, units, bad)
        on = inside[arcs.need]
        fixed = np.where(on, 0, units)
        taken = np.bincount(arcs.source, fixed, a.sources).astype(np.int64)
        part = replace(
            a,
            need_quantity=np.where(inside, a.need_quantity, 0),
            source_capacity=a.source_capacity - taken,
            bundle=np.where(inside, a.bundle, -1).astype(np.int32),
        )
        some, some_held = _part(arcs, held, on)
        found, method, _ = _exact(part, some, weight, steep, some_held, units[on], settings)
        units = fixed
        units[on] = found
    return units, f"{method}, by parts", 0


def _part(arcs: Arcs, held: KeptArcs, on: Bools) -> tuple[Arcs, KeptArcs]:
    """Some of the arcs, and what is kept among them."""
    stay = on[held.arc]
    number = np.cumsum(on) - 1
    return arcs.keep(on), KeptArcs(number[held.arc[stay]], held.units[stay], held.tax[stay])


def _exact(
    a: Arrays, arcs: Arcs, weight: Ints, steep: Ints, held: KeptArcs, start: Ints, settings: Settings
) -> tuple[Ints, str, int]:
    def run(allowed: Bools, served: Bools, settled: Ints | None) -> Ints:
        first = np.zeros(len(arcs), np.int64) if settled is None else settled
        before = weight if settled is None else weight + np.where(a.bundle >= 0, 2 * weight.max() + 2, 0)
        wanted = a.need_quantity - np.bincount(arcs.need, first, a.needs).astype(np.int64)
        left = a.source_capacity - np.bincount(arcs.source, first, a.sources).astype(np.int64)
        part = replace(a, need_quantity=np.where(served, wanted, 0), source_capacity=left)
        on = allowed & served[arcs.need]
        rest = KeptArcs(held.arc, np.maximum(held.units - first[held.arc], 0), held.tax)
        units = first.copy()
        some, some_held = _part(arcs, rest, on)
        units[on] += flow.solve_flow(part, some, before, some_held)
        return units

    return bundles.exact(a, flow.priced(a, arcs, steep), steep, held, start, run, settings.lumpy_seconds)


def kept_pairs(kept: Sequence[Kept], index: Index, settings: Settings) -> dict[tuple[int, int], tuple[int, int]]:
    need = {str(n.need_id): k for k, n in enumerate(index.needs)}
    source = {str(source_id(s)): k for k, s in enumerate(index.sources)}
    pairs: dict[tuple[int, int], tuple[int, int]] = {}
    for one in kept:
        at = need.get(str(one.need_id)), source.get(str(one.source_id))
        if at[0] is not None and at[1] is not None and one.quantity > 0:
            units, tax = pairs.get((at[0], at[1]), (0, 0))
            pairs[at[0], at[1]] = units + one.quantity, max(tax, settings.switch_tax[one.state])
    return pairs


def _kept_arcs(a: Arrays, arcs: Arcs, kept: Mapping[tuple[int, int], tuple[int, int]]) -> KeptArcs:
    if not kept or not len(arcs):
        return KeptArcs.none()
    rows = np.array([(n * a.sources + s, units, tax) for (n, s), (units, tax) in sorted(kept.items())], np.int64)
    key = arcs.need.astype(np.int64) * a.sources + arcs.source
    at = np.minimum(np.searchsorted(key, rows[:, 0]), len(key) - 1)
    there = key[at] == rows[:, 0]
    at, rows = at[there], rows[there]
    most = np.minimum(a.need_quantity[arcs.need[at]], a.source_capacity[arcs.source[at]])
    return KeptArcs(at, np.minimum(rows[:, 1], most), rows[:, 2])


def plan_of(a: Arrays, index: Index, settings: Settings, s: Solution) -> Plan:
    unmet = flow.allowed(a, s.arcs)
    used = np.flatnonzero((s.units > 0) & ~unmet)
    pairs = rules.Pairs(s.arcs.need[used], s.arcs.source[used], s.arcs.km[used].astype(np.float64), _levels(a, s, used))
    split = rules.parts(a, pairs, settings)
    _, begin, finish = rules.times(a, pairs, settings)
    first, last = rules.taken_up(a, pairs, begin, finish, settings)
    standing = explain.standings(s.arcs, s.weight, s.duals, used, unmet)
    assignments = tuple(
        Assignment(
            need_id=index.needs[int(pairs.need[k])].need_id,
            source_id=source_id(index.sources[int(pairs.source[k])]),
            quantity=int(s.units[e]),
            cost=int(s.arcs.cost[e]),
            parts={name: int(split[p, k]) for p, name in enumerate(PARTS) if split[p, k]},
            km=round(float(pairs.km[k]), 3),
            arrives_at=instant(begin[k]),
            starts_at=instant(first[k]),
            ends_at=instant(last[k]),
            rank=standing[k].rank,
            feasible=standing[k].feasible,
            other=None if (o := standing[k].other) is None else source_id(index.sources[o]),
            other_price=standing[k].price,
        )
        for k, e in enumerate(used)
    )
    got = np.bincount(s.arcs.need, np.where(unmet, 0, s.units), a.needs).astype(np.int64)
    left = a.need_quantity - got
    by_severity = dict.fromkeys((4, 3, 2, 1), 0)
    for k in np.flatnonzero(left):
        by_severity[index.needs[int(k)].severity] += int(left[k])
    short = np.flatnonzero(left)
    # Most serious first, so that a limit on explanations leaves out the least.
    told = short[np.argsort(-a.need_severity[short], kind="stable")][: settings.explain_unmet]
    people = np.ones(a.sources, np.bool_)
    people[a.allowance[:, 0]] = False
    paid = np.flatnonzero((s.duals.price > 0) & people)
    moved = np.maximum(s.kept.units - s.units[s.kept.arc], 0)
    return Plan(
        assignments=assignments,
        unmet={index.needs[int(k)].need_id: int(left[k]) for k in short},
        objective=s.objective,
        bound=s.bound,
        gap=s.objective - s.bound,
        units=int(a.need_quantity.sum()),
        met=int(got.sum()),
        unmet_by_severity=by_severity,
        switch_tax_paid=s.tax,
        moved_units=int(moved.sum()),
        lifted=index.lifted,
        weights={n.need_id: int(w) for n, w in zip(index.needs, s.weight, strict=True)},
        shadow={index.needs[int(k)].need_id: int(s.duals.value[k]) for k in short},
        prices={source_id(index.sources[int(k)]): int(s.duals.price[k]) for k in paid},
        filters={index.needs[int(k)].need_id: explain.filter_counts(a, settings, int(k)) for k in told},
        held={
            index.needs[i].need_id: tuple((source_id(index.sources[w]), index.needs[n].need_id) for w, n in pairs_held)
            for i, pairs_held in explain.holders(s.arcs, np.where(unmet, 0, s.units), told).items()
        },
        incomplete_bundles=tuple(index.bundles[int(b)] for b in s.incomplete),
        method=s.method,
    )


def _levels(a: Arrays, s: Solution, used: Ints) -> np.ndarray[tuple[int], np.dtype[np.int8]]:
    """Level held by the source of each used arc, found again among the holders."""
    key = a.holder_code.astype(np.int64) * a.sources + a.holder_source
    at = np.searchsorted(key, a.need_code[s.arcs.need[used]].astype(np.int64) * a.sources + s.arcs.source[used])
    return a.holder_level[at]


def instant(at: int) -> datetime:
    return datetime.fromtimestamp(int(at), UTC)
