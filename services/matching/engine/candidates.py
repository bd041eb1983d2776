"""All feasible pairs of need lines and sources, found by distance trees.

"The k nearest" would be wrong here: the needs of one hot spot share their neighbours (measured: 15 to 90 % above the
optimum). One tree for each code, level and travel band keeps a need from meeting people who would never come so far.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from services.matching.engine import rules
from services.matching.engine.model import EARTH_KM, Arrays, Bools, Floats, Ints, Settings, chord_of, km_of

BANDS_KM = np.array([5.0, 7.0, 9.0, 12.0, 16.0, 25.0, 50.0, 100.0, 200.0, 500.0, 1000.0])
CHUNK = 4_000_000
"""Pairs of one tree query at most, roughly: bounds the memory of a crowded hot spot."""


@dataclass(slots=True)
class Arcs:
    """Feasible pairs sorted by need, then source; `cost` is for one unit."""

    need: npt.NDArray[np.int32]
    source: npt.NDArray[np.int32]
    cost: npt.NDArray[np.integer[Any]]  # 32 bits, but for allowances, which cost as much as a need weighs
    km: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.need)

    def keep(self, mask: Bools) -> "Arcs":
        return Arcs(self.need[mask], self.source[mask], self.cost[mask], self.km[mask])


@dataclass(slots=True)
class _Holders:
    source: npt.NDArray[np.int32]
    level: npt.NDArray[np.int8]
    tree: cKDTree
    reach_km: float


def _by_code(a: Arrays, every: bool = False) -> dict[int, tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]]:
    wanted = np.unique(a.holder_code if every else a.need_code)
    first, last = (np.searchsorted(a.holder_code, wanted, side) for side in ("left", "right"))
    return {
        int(c): (a.holder_source[i:j], a.holder_level[i:j])
        for c, i, j in zip(wanted, first, last, strict=True)
        if j > i
    }


def _trees(a: Arrays, sources: npt.NDArray[np.int32], levels: npt.NDArray[np.int8]) -> list[_Holders]:
    limit = a.source_limit_km[sources]
    band = np.searchsorted(BANDS_KM, limit)
    out = []
    for b in np.unique(band):
        pick = np.flatnonzero(band == b)
        reach = float(limit[pick].max())
        out.append(_Holders(sources[pick], levels[pick], cKDTree(a.source_xyz[sources[pick]]), reach))
    return out


Pick = Callable[[rules.Pairs, npt.NDArray[np.int32]], Bools]
"""Of some feasible pairs and their costs, which to take. All pairs of a need come in a few calls, not in one."""


def candidates(a: Arrays, settings: Settings, pick: Pick | None = None) -> Arcs:
    """Every pair that passes every hard rule, or those among them that `pick` takes; not the allowances."""
    found: list[rules.Pairs] = []
    for h, group in _searches(a):
        for piece in _pieces(a, h, group):
            pairs = _query(a, settings, h, piece)
            found.append(pairs if pick is None else pairs.keep(pick(pairs, rules.costs(a, pairs, settings))))
    if not found:
        empty = np.zeros(0, np.int32)
        return Arcs(empty, empty, empty, np.zeros(0, np.float32))
    need = np.concatenate([p.need for p in found])
    source = np.concatenate([p.source for p in found])
    order = np.argsort(need.astype(np.int64) * a.sources + source)
    pairs = rules.Pairs(
        need[order],
        source[order],
        np.concatenate([p.km for p in found])[order],
        np.concatenate([p.level for p in found])[order],
    )
    del found, need, source, order
    return Arcs(pairs.need, pairs.source, rules.costs(a, pairs, settings), pairs.km.astype(np.float32))


def near_pairs(a: Arrays) -> int:
    """How many pairs lie within reach of each other, before any other rule: what a plan would have to hold at most."""
    return sum(
        int(cKDTree(a.need_xyz[group]).count_neighbors(h.tree, _radius(h.reach_km))) for h, group in _searches(a)
    )


def cheapest(a: Arrays, first: int, always: Ints) -> Pick:
    """Take the cheapest pairs of each need, `first` at least and more for larger needs, and whatever is in `always`
    (need * sources + source, sorted)."""

    def pick(p: rules.Pairs, cost: npt.NDArray[np.int32]) -> Bools:
        order = np.lexsort((p.source, cost, p.need))
        need = p.need[order]
        rank = np.empty(len(need), np.int64)
        rank[order] = np.arange(len(need)) - np.searchsorted(need, need)
        key = p.need.astype(np.int64) * a.sources + p.source
        mask: Bools = (rank < np.maximum(first, 4 * a.need_quantity[p.need])) | np.isin(key, always)
        return mask

    return pick


def underpriced(value: Ints, price: Ints, most: int = 200) -> Pick:
    """Take what the duals of a plan without these pairs say is missing from it, the worst of each need."""

    def pick(p: rules.Pairs, cost: npt.NDArray[np.int32]) -> Bools:
        reduced = cost + price[p.source] - value[p.need]
        wrong = np.flatnonzero(reduced < 0)
        wrong = wrong[np.lexsort((reduced[wrong], p.need[wrong]))]
        need = p.need[wrong]
        mask = np.zeros(len(cost), np.bool_)
        mask[wrong[np.arange(len(wrong)) - np.searchsorted(need, need) < most]] = True
        return mask

    return pick


def merged(a: Arrays, one: Arcs, two: Arcs) -> Arcs:
    """Both, each pair once, sorted."""
    key = np.concatenate([x.need.astype(np.int64) * a.sources + x.source for x in (one, two)])
    _, at = np.unique(key, return_index=True)
    return Arcs(*(np.concatenate((getattr(one, f), getattr(two, f)))[at] for f in Arcs.__slots__))


def _searches(a: Arrays) -> Iterator[tuple[_Holders, npt.NDArray[np.int32]]]:
    """The trees to search, each with the needs that look for somebody in it."""
    some = np.flatnonzero(a.need_quantity > 0).astype(np.int32)
    holders = _by_code(a)
    key = a.need_code[some].astype(np.int64) * 256 + a.need_level[some]
    # Nobody without capacity and no need closed by a zone is worth a look in a tree.
    usable = (a.source_capacity > 0) & (a.source_minimum <= a.source_capacity)
    for k in np.unique(key):
        group = some[(key == k) & a.need_open[some]]
        if int(k // 256) not in holders or not len(group):
            continue
        sources, levels = holders[int(k // 256)]
        able = (levels >= k % 256) & usable[sources]
        for h in _trees(a, sources[able], levels[able]):
            yield h, group


class Finder:
    """Standing trees, for the candidates of one new need at a time."""

    def __init__(self, a: Arrays, settings: Settings) -> None:
        self._settings = settings
        self._holders = _by_code(a, every=True)
        self._late: dict[int, list[tuple[int, int]]] = {}
        self._standing: dict[tuple[int, int], list[_Holders]] = {}
        for code in np.unique(a.need_code).tolist():
            for level in range(4):
                self._trees(a, code, level)

    def add(self, source: int, codes: Mapping[int, int]) -> None:
        """A source that came later, with its level by code; looked at one by one, until a new Finder is made."""
        for code, level in codes.items():
            self._late.setdefault(code, []).append((source, level))

    def _trees(self, a: Arrays, code: int, level: int) -> list[_Holders]:
        if (code, level) not in self._standing:
            none = np.zeros(0, np.int32), np.zeros(0, np.int8)
            sources, levels = self._holders.get(code, none)
            able = (levels >= level) & (a.source_capacity[sources] > 0)
            self._standing[code, level] = _trees(a, sources[able], levels[able])
        return self._standing[code, level]

    def of_need(self, a: Arrays, need: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        """Feasible sources of one need, sorted, and the cost of a unit from each."""
        source, level = [np.zeros(0, np.int32)], [np.zeros(0, np.int8)]
        point = a.need_xyz[need]
        for h in self._trees(a, int(a.need_code[need]), int(a.need_level[need])):
            near = h.tree.query_ball_point(point, _radius(h.reach_km))
            source.append(h.source[near])
            level.append(h.level[near])
        late = np.array(self._late.get(int(a.need_code[need]), []), np.int64).reshape(-1, 2)
        source.append(late[:, 0].astype(np.int32))
        level.append(late[:, 1].astype(np.int8))
        return feasible_sources(a, self._settings, need, np.concatenate(source), np.concatenate(level))


def feasible_sources(
    a: Arrays, settings: Settings, need: int, source: npt.NDArray[np.int32], level: npt.NDArray[np.int8]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Which of these holders of its code may serve a need, sorted, and the cost of a unit from each."""
    km = km_of(np.sqrt(((a.source_xyz[source] - a.need_xyz[need]) ** 2).sum(1)))
    near = np.flatnonzero((km <= a.source_limit_km[source]) & (level >= a.need_level[need]))
    near = near[np.argsort(source[near])]
    pairs = rules.Pairs(np.full(len(near), need, np.int32), source[near], km[near], level[near])
    pairs = rules.feasible(a, pairs, settings)
    return pairs.source, rules.costs(a, pairs, settings)


def feasible_needs(
    a: Arrays, settings: Settings, source: int, codes: Mapping[int, int], alive: Bools
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Which living needs a source with these levels by code may serve, sorted, and the cost of a unit for each."""
    held = np.full(int(a.need_code.max(initial=-1)) + 1, -1, np.int8)
    for code, level in codes.items():
        if code < len(held):
            held[code] = level
    need = np.flatnonzero(alive & (held[a.need_code] >= a.need_level)).astype(np.int32)
    km = km_of(np.sqrt(((a.need_xyz[need] - a.source_xyz[source]) ** 2).sum(1)))
    near = np.flatnonzero(km <= a.source_limit_km[source])
    pairs = rules.Pairs(need[near], np.full(len(near), source, np.int32), km[near], held[a.need_code[need[near]]])
    pairs = rules.feasible(a, pairs, settings)
    return pairs.need, rules.costs(a, pairs, settings)


def _pieces(a: Arrays, h: _Holders, group: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    if len(group) * len(h.source) <= CHUNK:
        return [group]
    tree = cKDTree(a.need_xyz[group])
    pairs = int(tree.count_neighbors(h.tree, _radius(h.reach_km)))
    return list(np.array_split(group, max(1, -(-pairs // CHUNK))))


def _radius(km: float) -> float:
    return chord_of(min(km * (1 + 1e-9), EARTH_KM * np.pi))


def _query(a: Arrays, settings: Settings, h: _Holders, group: npt.NDArray[np.int32]) -> rules.Pairs:
    near = cKDTree(a.need_xyz[group]).sparse_distance_matrix(h.tree, _radius(h.reach_km), output_type="ndarray")
    source = h.source[near["j"]]
    km: Floats = km_of(near["v"])
    ok = km <= a.source_limit_km[source]
    pairs = rules.Pairs(group[near["i"][ok]], source[ok], km[ok], h.level[near["j"][ok]])
    return rules.feasible(a, pairs, settings)
