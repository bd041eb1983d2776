"""`gotong bench matching [--json] [--size s|m|l|xl] [--quick]`: the matching engine beside its rivals, in one run.

The region is synthetic (clustered incidents, 12 skills of 3 levels, certificates, languages, windows, own travel
limits, hours already worked, 2 % teams); seed and size decide everything. Rivals: nearest-first, priority-greedy,
bare OR-Tools on the same arcs and weights, and the proven minimum of critical units unmet (a maximum flow of its
own).
"""

import argparse
import csv
import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ortools.graph.python import max_flow, min_cost_flow

from bench import matching_nepal
from services.matching.engine.bundles import Columns, Model, integer
from services.matching.engine.candidates import Arcs, Finder, candidates
from services.matching.engine.flow import allowed
from services.matching.engine.incremental import Live
from services.matching.engine.model import FOREVER, Arrays, Ints, Settings, unit_sphere, with_allowances
from services.matching.engine.solve import Solution, solve_arrays

SIZES = {
    "xs": (300, 3_000, 25.0),
    "s": (100, 1_000, 20.0),
    "m": (1_000, 10_000, 40.0),
    "l": (5_000, 50_000, 70.0),
    "xl": (10_000, 100_000, 100.0),
}
P_SKILL = np.array([0.60, 0.40, 0.25, 0.15, 0.10, 0.08, 0.06, 0.06, 0.05, 0.04, 0.03, 0.015])
P_NEED = np.array([0.24, 0.10, 0.11, 0.07, 0.08, 0.05, 0.05, 0.10, 0.05, 0.07, 0.03, 0.05])
SKILLS = len(P_SKILL)
SETTINGS = Settings(detour=1.0, age_weight=0, vulnerability_weight=0, equity_weight=0)
HOUR = 3600
KM_PER_DEGREE = 111.195


def region(size: str, seed: int = 7) -> Arrays:
    """Needs and volunteers of a made-up disaster region beside the equator, where a plane in km is nearly exact."""
    count, people, side = SIZES[size]
    g = np.random.default_rng(seed)
    hubs = g.uniform(0.05 * side, 0.95 * side, (max(8, int(side / 3)), 2))
    w = g.pareto(1.2, len(hubs)) + 0.2
    v = hubs[g.choice(len(hubs), people, p=w / w.sum())] + g.normal(0, 0.035 * side, (people, 2))
    u = g.random(people) < 0.35
    v[u] = g.uniform(0, side, (u.sum(), 2))
    vxy = np.clip(v, 0, side)
    spots = g.uniform(0.1 * side, 0.9 * side, (max(4, int(side / 12)), 2))
    n = spots[g.integers(0, len(spots), count)] + g.normal(0, 0.03 * side, (count, 2))
    u = g.random(count) < 0.25
    n[u] = g.uniform(0, side, (u.sum(), 2))
    nxy = np.clip(n, 0, side)
    level = (g.random((people, SKILLS)) < P_SKILL) * g.choice([1, 2, 3], (people, SKILLS), p=[0.5, 0.35, 0.15])
    level[level.sum(1) == 0, 0] = 1
    certificates = g.integers(0, 256, people) & g.integers(0, 256, people)
    languages = 1 | (g.integers(0, 16, people) & g.integers(0, 16, people) & g.integers(0, 16, people)) << 1
    limit = np.clip(g.lognormal(2.1, 0.5, people), 2, 25)
    capacity = np.where(g.random(people) < 0.02, g.integers(2, 7, people), 1)
    available = g.random(people) < 0.55
    first = g.uniform(0, 6, people)
    worked = np.where(g.random(people) < 0.3, g.uniform(0, 12, people), 0.0)
    accept = g.beta(4, 3, people)
    last = first + g.uniform(3, 12, people)
    severity = g.choice([1, 2, 3, 4], count, p=[0.35, 0.35, 0.20, 0.10])
    skill = g.choice(SKILLS, count, p=P_NEED / P_NEED.sum())
    asked = g.choice([1, 2, 3], count, p=[0.7, 0.25, 0.05])
    quantity = np.minimum(g.geometric(0.4, count), 10)
    need_certificate = np.where(g.random(count) < 0.15, 1 + g.integers(0, 8, count), 0)
    need_language = np.where(g.random(count) < 0.1, g.integers(1, 5, count), 0)
    start = g.uniform(0, 6, count)
    duration = g.uniform(1, 4, count)

    who, what = np.nonzero(level * available[:, None])
    order = np.lexsort((who, what))
    who, what = who[order], what[order]
    until = np.full((9, people), FOREVER, np.int64)
    for k in range(8):
        until[k + 1] = np.where(certificates >> k & 1, FOREVER, -1)
    speaks = np.ones((5, people), np.bool_)
    for k in range(1, 5):
        speaks[k] = (languages >> k & 1).astype(np.bool_)
    every, everyone = np.arange(people, dtype=np.uint64), np.arange(count, dtype=np.uint64)
    mix = np.uint64(0x9E3779B97F4A7C15)

    def degrees(xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return unit_sphere(xy[:, 0] / KM_PER_DEGREE, (xy[:, 1] - side / 2) / KM_PER_DEGREE)

    def clock(hour: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.round(hour * HOUR).astype(np.int64)

    whole = clock(start) + clock(duration) + 24 * HOUR
    return Arrays(
        now=0,
        need_code=skill.astype(np.int32),
        need_level=asked.astype(np.int8),
        need_xyz=degrees(nxy),
        need_start=clock(start),
        need_end=whole,
        need_duration=clock(duration),
        need_quantity=quantity.astype(np.int64),
        need_severity=severity.astype(np.int64),
        need_extra=np.zeros(count, np.int64),
        need_certificates=need_certificate.astype(np.int32),
        need_languages=need_language.astype(np.int32),
        need_organisation=np.full(count, -1, np.int32),
        need_item=np.zeros(count, np.bool_),
        need_open=np.ones(count, np.bool_),
        need_where=np.zeros(count, np.int32),
        need_hash=everyone * mix >> np.uint64(32),
        source_xyz=degrees(vxy),
        source_capacity=np.where(available, capacity, 0).astype(np.int64),
        source_minimum=np.ones(people, np.int64),
        source_limit_km=limit,
        source_ready=np.zeros(people, np.int64),
        source_hours=worked,
        source_max_hours=np.full(people, Settings().max_hours),
        source_avoids=np.zeros(people, np.int32),
        source_crewed=np.ones(people, np.bool_),
        source_accept=accept,
        source_expires=np.full(people, FOREVER, np.int64),
        source_organisation=np.full(people, -1, np.int32),
        source_lot=np.zeros(people, np.bool_),
        source_whole=np.zeros(people, np.bool_),
        source_rarity=np.minimum((level > 0) @ (1 / P_SKILL) / 60, 3),
        source_hash=every * mix >> np.uint64(32),
        window_start=clock(first)[:, None],
        window_end=clock(last)[:, None],
        window_count=np.ones(people, np.int64),
        busy_start=np.full((people, 1), FOREVER, np.int64),
        busy_end=np.full((people, 1), -FOREVER, np.int64),
        busy_count=np.zeros(people, np.int64),
        busy_rest=np.zeros((people, 1), np.int64),
        holder_code=what.astype(np.int32),
        holder_source=who.astype(np.int32),
        holder_level=level[who, what].astype(np.int8),
        certificate_until=until,
        language_ok=speaks,
        barred=np.zeros((1, 1), np.bool_),
        excluded=np.zeros(0, np.int64),
        bundle=np.full(count, -1, np.int32),
        group=(nxy[:, 0] // (side / 8) * 8 + nxy[:, 1] // (side / 8)).astype(np.int32),
    )


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(act: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    result = act()
    return result, time.perf_counter() - begin


# --------------------------------------------------------------------------------------------------------------- rivals
def bare_ortools(a: Arrays, arcs: Arcs, weight: Ints) -> Ints:
    """What one writes with OR-Tools alone: the same arcs and weights, no proof, no explanation."""
    used, node = np.unique(arcs.source, return_inverse=True)
    n, sink = a.needs, a.needs + len(used)
    tail = np.concatenate((arcs.need, np.arange(n), n + np.arange(len(used)))).astype(np.int32)
    head = np.concatenate((n + node, np.full(n + len(used), sink))).astype(np.int32)
    most = np.minimum(a.source_capacity[arcs.source], a.need_quantity[arcs.need])
    capacity = np.concatenate((most, a.need_quantity, a.source_capacity[used]))
    cost = np.concatenate((arcs.cost, weight, np.zeros(len(used), np.int64)))
    supply = np.zeros(sink + 1, np.int64)
    supply[:n], supply[sink] = a.need_quantity, -a.need_quantity.sum()
    solver = min_cost_flow.SimpleMinCostFlow()
    solver.add_arcs_with_capacity_and_unit_cost(tail, head, capacity, cost)
    solver.set_nodes_supplies(np.arange(sink + 1, dtype=np.int32), supply)
    assert solver.solve() == solver.OPTIMAL
    return np.asarray(solver.flows(np.arange(len(arcs), dtype=np.int32)), np.int64)


def greedy(a: Arrays, arcs: Arcs, needs: npt.NDArray[np.int64], by: npt.NDArray[Any]) -> Ints:
    """Needs one after the other, each taking what is left in order of `by` (km or cost)."""
    first = np.searchsorted(arcs.need, np.arange(a.needs + 1))
    left = a.source_capacity.tolist()
    units = np.zeros(len(arcs), np.int64)
    for i in needs.tolist():
        lo, hi = first[i], first[i + 1]
        short = int(a.need_quantity[i])
        for e in (lo + np.argsort(by[lo:hi], kind="stable")).tolist():
            if not short:
                break
            s = int(arcs.source[e])
            take = min(short, left[s])
            units[e] = take
            left[s] -= take
            short -= take
    return units


def unmet(a: Arrays, arcs: Arcs, units: Ints) -> list[int]:
    """Units unmet of severity 4, 3, 2, 1."""
    left = a.need_quantity - np.bincount(arcs.need, units, a.needs).astype(np.int64)
    return [int(left[a.need_severity == s].sum()) for s in (4, 3, 2, 1)]


def least_critical_unmet(a: Arrays, arcs: Arcs) -> int:
    """The fewest critical units any plan can leave unmet: a maximum flow over critical needs alone."""
    n, sink = a.needs + a.sources, a.needs + a.sources + 1
    critical = np.flatnonzero(a.need_severity == 4)
    on = a.need_severity[arcs.need] == 4
    used = np.unique(arcs.source[on])
    solver = max_flow.SimpleMaxFlow()
    solver.add_arcs_with_capacity(
        np.concatenate((np.full(len(critical), n), arcs.need[on], a.needs + used)).astype(np.int32),
        np.concatenate((critical, a.needs + arcs.source[on], np.full(len(used), sink))).astype(np.int32),
        np.concatenate((a.need_quantity[critical], a.need_quantity[arcs.need[on]], a.source_capacity[used])),
    )
    assert solver.solve(n, sink) == solver.OPTIMAL
    return int(a.need_quantity[critical].sum()) - int(solver.optimal_flow())


def beside(a: Arrays, arcs: Arcs, ours: Ints) -> dict[str, Any]:
    """Unmet units (severity 4, 3, 2, 1) of our plan and of the rivals that need no solver."""
    arrival = np.random.default_rng(1).permutation(a.needs)
    graver = arrival[np.argsort(-a.need_severity[arrival], kind="stable")]
    return {
        "unmet": unmet(a, arcs, ours),
        "unmet_nearest_first": unmet(a, arcs, greedy(a, arcs, arrival, arcs.km)),
        "unmet_priority_greedy": unmet(a, arcs, greedy(a, arcs, graver, arcs.cost)),
        "critical_unmet_minimum": least_critical_unmet(a, arcs),
    }


# -------------------------------------------------------------------------------------------------------------- figures
def cold(size: str, seed: int) -> tuple[dict[str, Any], Arrays, Solution]:
    a = region(size, seed)
    begin = time.perf_counter()
    arcs, candidate_seconds = timed(lambda: candidates(a, SETTINGS))
    plan = solve_arrays(a, SETTINGS, arcs=arcs)
    seconds = time.perf_counter() - begin
    peak = peak_mb()
    bare, bare_seconds = timed(lambda: bare_ortools(a, arcs, plan.weight))
    assert unmet(a, arcs, bare) == unmet(a, arcs, plan.units)
    figures = {
        "needs": a.needs,
        "units": int(a.need_quantity.sum()),
        "responders": a.sources,
        "pairs": len(arcs),
        "cold_seconds": round(seconds, 3),
        "candidate_seconds": round(candidate_seconds, 3),
        "bare_ortools_seconds": round(bare_seconds, 3),
        "ratio": round(seconds / bare_seconds, 3),
        "peak_mb": round(peak),
        "objective": plan.objective,
        "bound": plan.bound,
        "gap": plan.objective - plan.bound,
        **beside(a, arcs, plan.units),
    }
    return figures, a, plan


def robust(seeds: range) -> dict[str, Any]:
    """Critical units unmet at 1,000 x 10,000 over several seeds."""
    rows = {}
    for seed in seeds:
        a = region("m", seed)
        plan = solve_arrays(a, SETTINGS)
        assert plan.objective == plan.bound
        rows[seed] = beside(a, plan.arcs, plan.units)
    return {
        "seeds": list(rows),
        "critical_unmet": [r["unmet"][0] for r in rows.values()],
        "critical_unmet_minimum": [r["critical_unmet_minimum"] for r in rows.values()],
        "critical_unmet_nearest_first": [r["unmet_nearest_first"][0] for r in rows.values()],
        "critical_unmet_priority_greedy": [r["unmet_priority_greedy"][0] for r in rows.values()],
    }


def events(a: Arrays, tax: int) -> dict[str, Any]:
    """1 % of needs are new and 1 % of the responders drop out, one event after the other on kept duals; then the same
    by a full solve. Times are of single events, candidates of new needs included."""
    g = np.random.default_rng(3)
    new = np.sort(g.choice(a.needs, a.needs // 100, replace=False))
    there = np.flatnonzero(a.source_capacity)
    gone = np.sort(g.choice(there, len(there) // 100, replace=False))
    before = replace(a, need_quantity=a.need_quantity.copy())
    before.need_quantity[new] = 0
    after = replace(a, source_capacity=a.source_capacity.copy())
    after.source_capacity[gone] = 0
    start = solve_arrays(before, SETTINGS)
    finder = Finder(a, SETTINGS)
    live = Live(before, SETTINGS, start, tax)
    was = {(i, s): units for i, s, units, _ in live.pairs()}
    number = {}
    need_seconds: list[float] = []
    gone_seconds: list[float] = []
    cpu_seconds: list[float] = []
    for i in new.tolist():
        begin, processor = time.perf_counter(), time.process_time()
        sources, costs = finder.of_need(a, i)
        number[live.add_need(int(a.need_quantity[i]), int(start.weight[i]), sources, costs)] = i
        need_seconds.append(time.perf_counter() - begin)
        cpu_seconds.append(time.process_time() - processor)
    for s in gone.tolist():
        begin = time.perf_counter()
        live.drop_source(s)
        gone_seconds.append(time.perf_counter() - begin)
    assert live.faults() == []
    alive = set(np.setdiff1d(np.arange(a.sources), gone).tolist())
    now = {(number.get(i, i), s): units for i, s, units, _ in live.pairs()}
    stayed = sum(units for (_, s), units in was.items() if s in alive)
    moved = sum(max(units - now.get(pair, 0), 0) for pair, units in was.items() if pair[1] in alive)
    full = solve_arrays(after, SETTINGS)
    every, one, out = (1000 * np.array(x) for x in (need_seconds + gone_seconds, need_seconds, gone_seconds))

    def at(times: npt.NDArray[np.float64], share: float) -> float:
        return round(float(np.quantile(times, share)), 3)

    left = a.need_quantity - np.bincount([i for i, _ in now], list(now.values()), a.needs).astype(np.int64)
    # The ladder's weights would drown every cost: plans are compared by costs and policy weights.
    policy = np.array([0, *SETTINGS.policy_weights])[a.need_severity]
    ours = live.objective() - int((live.weight * live.short).sum()) + int((policy * left).sum())
    given = np.bincount(full.arcs.need, full.units, a.needs).astype(np.int64)
    theirs = int((full.arcs.cost * full.units).sum() + (policy * (a.need_quantity - given)).sum())
    return {
        "switch_tax": tax,
        "events": len(every),
        "need_ms_p50": at(one, 0.5),
        "need_ms_p99": at(one, 0.99),
        "need_cpu_ms_p50": at(1000 * np.array(cpu_seconds), 0.5),
        "need_cpu_ms_p99": at(1000 * np.array(cpu_seconds), 0.99),
        "dropout_ms_p50": at(out, 0.5),
        "dropout_ms_p99": at(out, 0.99),
        "event_ms_p50": at(every, 0.5),
        "event_ms_p99": at(every, 0.99),
        "event_ms_max": at(every, 1.0),
        "all_seconds": round(sum(need_seconds + gone_seconds), 3),
        "moved_share": round(moved / stayed, 5),
        "unmet": [int(left[a.need_severity == s].sum()) for s in (4, 3, 2, 1)],
        "unmet_full_solve": unmet(after, full.arcs, full.units),
        "objective": live.objective(),
        "objective_full_solve": full.objective,
        "above_full_solve": round(ours / theirs - 1, 6),
    }


def equity_figures(seed: int) -> dict[str, Any]:
    """The same region with and without equity between its 64 districts: by severity nothing may change."""
    a = region("m", seed)
    found = {}
    for weight in (0, 6_000, 12_000):
        settings = replace(SETTINGS, equity_weight=weight)
        b = with_allowances(a, settings)
        begin = time.perf_counter()
        plan = solve_arrays(b, settings)
        seconds = time.perf_counter() - begin
        assert plan.objective == plan.bound
        real = np.where(allowed(b, plan.arcs), 0, plan.units)
        wanted = np.bincount(a.group, a.need_quantity)
        served = np.bincount(a.group[plan.arcs.need], real, len(wanted))[wanted >= 20] / wanted[wanted >= 20]
        spread = np.abs(served[:, None] - served[None]).mean() / (2 * served.mean())
        found[f"weight_{weight}"] = {
            "unmet": unmet(a, plan.arcs, real),
            "worst_district": round(float(served.min()), 4),
            "gini_of_districts": round(float(spread), 4),
            "mean_km": round(float((plan.arcs.km * real).sum() / real.sum()), 3),
            "seconds": round(seconds, 2),
        }
    return {"size": "m", **found}


def bundled(size: str, seed: int) -> Arrays:
    """The region with need lines joined to incidents of 1 to 4 or so at one place, to be served whole or not at all."""
    a = region(size, seed)
    number = np.cumsum(np.random.default_rng(5).random(a.needs) < 0.55).astype(np.int64)
    number -= number[0]
    first = np.flatnonzero(np.concatenate(([True], number[1:] != number[:-1])))[number]
    return replace(
        a,
        need_xyz=a.need_xyz[first],
        need_severity=a.need_severity[first],
        need_quantity=np.minimum(a.need_quantity, 6),
        bundle=number.astype(np.int32),
    )


def bundle_figures(prove: bool) -> dict[str, Any]:
    """About 1,000 lines in bundles, weighed by policy weights: against the optimum HiGHS proves over all pairs (which
    takes it half a minute or more), or where that is not asked for, against the bound."""
    a = bundled("m", 7)
    settings = replace(SETTINGS, ladder="policy")
    plan, seconds = timed(lambda: solve_arrays(a, settings))
    figures = {
        "lines": a.needs,
        "bundles": int(a.bundle.max()) + 1,
        "seconds": round(seconds, 2),
        "method": plan.method,
        "objective": plan.objective,
        "bound": plan.bound,
        "bundles_unserved": len(plan.incomplete),
    }
    if prove:
        arcs = plan.arcs
        most = np.minimum(a.need_quantity[arcs.need], a.source_capacity[arcs.source])
        one = np.ones(len(arcs), np.int64)
        gain = arcs.cost - plan.weight[arcs.need]
        columns = Columns(arcs.need, arcs.source, gain, most, one, one, a.source_whole[arcs.source])
        found = integer(Model(a.need_quantity, a.source_capacity, a.bundle), columns, 300.0)
        assert found is not None
        # Where time ran out, what HiGHS knows is a bound only.
        least = int((plan.weight * a.need_quantity).sum() + np.ceil(found[1] - 0.5))
        figures["optimum_proved"], figures["optimum"] = found[2], least
        figures["above_optimum"] = round((plan.objective - least) / least, 5)
    figures["above_bound"] = round((plan.objective - plan.bound) / plan.bound, 5)
    return figures


def shared() -> Path:
    return Path(os.environ.get("GOTONG_SHARED", Path(__file__).resolve().parents[2] / "shared"))


def gap_orlib() -> dict[str, Any]:
    """OR-Library's 60 generalised assignment problems through the integer program of the bundles: jobs are lines of
    one bundle, agents are sources, and a unit uses as much of an agent as the job says. Published optima: maxima."""
    folder = shared() / "data" / "gap-orlib"
    with (folder / "optima.csv").open() as file:
        optima = {(row["file"], int(row["problem"])): int(row["optimum_max"]) for row in csv.DictReader(file)}
    begin, equal, wrong = time.perf_counter(), 0, []
    for name in sorted({file for file, _ in optima}):
        numbers = np.array((folder / name).read_text().split(), np.int64)
        at = 1
        for problem in range(1, int(numbers[0]) + 1):
            agents, jobs = numbers[at : at + 2].tolist()
            pairs, at = agents * jobs, at + 2
            profit, uses, capacity = np.split(numbers[at : at + 2 * pairs + agents], [pairs, 2 * pairs])
            at += 2 * pairs + agents
            agent, job = np.divmod(np.arange(pairs, dtype=np.int32), np.int32(jobs))
            order = np.lexsort((agent, job))
            one = np.ones(pairs, np.int64)
            columns = Columns(job[order], agent[order], -profit[order], one, uses[order], one, one < 0)
            model = Model(np.ones(jobs, np.int64), capacity, np.zeros(jobs, np.int32))
            found = integer(model, columns, 30.0, whole_units=True)
            best = None if found is None else int((profit[order] * found[0]).sum())
            if best == optima[name, problem] and found is not None and found[2]:
                equal += 1
            else:
                wrong.append((name, problem, best))
    return {"optima": f"{equal}/{len(optima)}", "seconds": round(time.perf_counter() - begin, 1), "not_equal": wrong}


def of_nepal() -> dict[str, Any]:
    folder = shared() / "data" / "nepal-2015-needs"
    return matching_nepal.figures(folder) if folder.exists() else {"left_out": f"no folder {folder.name}"}


def of_gap_orlib() -> dict[str, Any]:
    folder = shared() / "data" / "gap-orlib"
    return gap_orlib() if folder.exists() else {"left_out": f"no folder {folder.name}"}


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    # The first one is the cold plan: its peak of memory is that of the whole process until then.
    "cold": lambda o: cold(o.size, o.seed)[0],
    "events_tax_500": lambda o: events(region(o.size, o.seed), 500),
    "events_tax_0": lambda o: events(region(o.size, o.seed), 0),
    "robust": lambda o: robust(range(1, 8)),
    "equity": lambda o: equity_figures(o.seed),
    "bundles": lambda o: bundle_figures(prove=not o.quick),
    "gap_orlib": lambda o: {"left_out": "--quick"} if o.quick else of_gap_orlib(),
    "nepal": lambda o: of_nepal(),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser("bench.matching", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--size", choices=list(SIZES), default="xl")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--quick", action="store_true", help="leave out what takes long: the proven optimum of bundles, OR-Library"
    )
    parser.add_argument("--nepal", action="store_true", help="only the tweets of Nepal: free text, read and matched")
    parser.add_argument("--only", choices=list(SECTIONS), action="append", help="only this section; may be repeated")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {
        "name": "matching",
        "size": options.size,
        "seed": options.seed,
        "machine": f"{platform.machine()}, {os.cpu_count()} cpu, Python {platform.python_version()}",
    }
    begin = time.perf_counter()
    for name in ["nepal"] if options.nepal else options.only or SECTIONS:
        figures[name] = SECTIONS[name](options)
    figures["seconds"] = round(time.perf_counter() - begin, 1)
    if options.json:
        print(json.dumps(figures))
        return
    for section, values in figures.items():
        if not isinstance(values, dict):
            print(f"{section:34} {values}")
            continue
        print(f"\n{section}")
        for name, value in values.items():
            print(f"  {name:32} {value:,}" if isinstance(value, int) else f"  {name:32} {value}")


if __name__ == "__main__":
    main()
