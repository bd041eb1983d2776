"""A plan over plain data that follows events: `LivePlan`, what a planner keeps in memory between two full plans."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from services.matching.engine import candidates, flow, rules
from services.matching.engine.incremental import FAR, Live
from services.matching.engine.model import (
    PARTS,
    UNREACHED,
    Assignment,
    Id,
    Kept,
    Lot,
    NeedLine,
    Responder,
    Settings,
    encode,
    km_of,
    seconds,
    source_id,
    with_need,
    with_source,
)
from services.matching.engine.solve import instant, kept_pairs, plan_of, solve_arrays


class LivePlan:
    """The full plan for one instant, then one event at a time.

    `plan` is the full plan as it was made. Every event returns what it moved: {(need, source): units won or lost}.
    The ladder's step and what makes a skill rare stay as they were at the full plan, and so does what was judged by its
    `now`; make a new one on a timer, from the tables, and tell it by `kept` what is in force. Lines of bundles, teams
    that may not be split, and teams with a minimum are decided by full plans only: here they and their units stay as
    they are.
    """

    def __init__(
        self,
        needs: Sequence[NeedLine],
        responders: Sequence[Responder],
        lots: Sequence[Lot],
        settings: Settings,
        kept: Sequence[Kept] = (),
        *,
        now: datetime,
    ) -> None:
        a, index = encode(needs, responders, lots, settings, now)
        arcs = candidates.candidates(a, settings)
        solution = solve_arrays(a, settings, kept_pairs(kept, index, settings), arcs)
        self._settings, self._index = settings, index
        self.plan = plan_of(a, index, settings, solution)
        # A ladder whose every step is the same, so that a need that comes later is weighed like one that was there.
        self._step = flow.strict_step(a.needs, a.sources, settings)
        lumpy = a.source_whole | (a.source_minimum > 1)
        self.fixed: list[tuple[Id, Id, int]] = []
        if lumpy.any() or (a.bundle >= 0).any():
            arcs = solution.arcs
            out = (a.bundle >= 0)[arcs.need] | lumpy[arcs.source]
            fixed = np.where(out, solution.units, 0)
            self.fixed = [
                (index.needs[int(arcs.need[e])].need_id, source_id(index.sources[int(arcs.source[e])]), int(fixed[e]))
                for e in np.flatnonzero(fixed)
            ]
            given = np.bincount(arcs.need, fixed, a.needs).astype(np.int64)
            taken = np.bincount(arcs.source, fixed, a.sources).astype(np.int64)
            a = replace(
                a,
                need_quantity=np.where(a.bundle >= 0, 0, a.need_quantity - given),
                source_capacity=np.where(lumpy, 0, a.source_capacity - taken),
                bundle=np.full(a.needs, -1, np.int32),
            )
            stay = ~out
            arcs, units = arcs.keep(stay), solution.units[stay]
            tax = settings.switch_tax["proposed"]
            held = {
                (int(arcs.need[e]), int(arcs.source[e])): (int(units[e]), tax)
                for e in np.flatnonzero((units > 0) & ~flow.allowed(a, arcs)).tolist()
            }
            held |= {
                pair: (held[pair][0], max(tax, was))
                for pair, (_, was) in kept_pairs(kept, index, settings).items()
                if pair in held
            }
            solution = solve_arrays(a, settings, held, arcs)
        self._live = Live(a, settings, solution)
        self._a = replace(a, source_capacity=a.source_capacity.copy(), need_quantity=a.need_quantity.copy())
        self._finder = candidates.Finder(a, settings)
        self._need = {str(n.need_id): k for k, n in enumerate(index.needs)}
        self._alive = np.ones(a.needs, np.bool_)

    # ------------------------------------------------------------------------------------------------------- reading
    def assignments(self) -> list[tuple[Id, Id, int]]:
        """(need, source, units) of the plan as it stands, fixed ones first."""
        free = self._live.free
        return self.fixed + [(*self._ids(i, s), units) for i, s, units, _ in self._live.pairs() if s not in free]

    def line(self, need_id: Id, source: Id) -> Assignment | None:
        """The units planned for a pair as an assignment, with its reasons as of now; None: nothing is planned for it
        (or it is fixed, and stands in `plan`)."""
        i, s = self._need.get(str(need_id)), self._index.numbers.get(str(source))
        held = None if i is None or s is None else self._live.at_need.get(i, {}).get(s)
        if held is None or i is None or s is None:
            return None
        a, settings, one, line = self._a, self._settings, self._index.sources[s], self._index.needs[i]
        level = 0 if isinstance(one, Lot) else one.skills[line.code]
        km = km_of(np.linalg.norm(a.source_xyz[[s]] - a.need_xyz[[i]], axis=1))
        pair = rules.Pairs(np.array([i], np.int32), np.array([s], np.int32), km, np.array([level], np.int8))
        split = rules.parts(a, pair, settings)[:, 0]
        _, begin, finish = rules.times(a, pair, settings)
        first, last = rules.taken_up(a, pair, begin, finish, settings)
        sources, costs = self._live.arc_source[i], self._live.arc_cost[i]
        there = self._live.price[sources] < FAR
        sources, costs = sources[there], costs[there]
        total = costs + self._live.price[sources]
        others = np.where(sources == s, UNREACHED, total)
        best = int(np.argmin(others))
        weight = int(self._live.weight[i])
        unmet = np.isin(sources, list(self._live.free))
        other = int(others[best]) < weight and not unmet[best]
        price = min(int(others[best]), weight) - (held[1] + int(self._live.price[s]))
        return Assignment(
            need_id=line.need_id,
            source_id=source_id(one),
            quantity=held[0],
            cost=held[1],
            parts={name: int(value) for name, value in zip(PARTS, split, strict=True) if value},
            km=round(float(km[0]), 3),
            arrives_at=instant(begin[0]),
            starts_at=instant(first[0]),
            ends_at=instant(last[0]),
            rank=1 + int((costs < held[1]).sum()),
            feasible=int((~unmet).sum()),
            other=source_id(self._index.sources[int(sources[best])]) if other else None,
            other_price=max(price, 0),
        )

    def of_needs(self, needs: Collection[Id]) -> list[tuple[Id, Id, int]]:
        """(need, source, units) of some needs, without fixed ones."""
        numbers = [self._need[str(one)] for one in needs if str(one) in self._need]
        free = self._live.free
        return [
            (*self._ids(i, s), held[0])
            for i in numbers
            for s, held in self._live.at_need.get(i, {}).items()
            if s not in free
        ]

    def newly_excluded(self, line: NeedLine) -> list[Id]:
        """Who may not serve this need now and could before."""
        i = self._need.get(str(line.need_id))
        known = set() if i is None else {str(one) for one in self._index.needs[i].exclude}
        return [] if i is None else [one for one in line.exclude if str(one) not in known]

    def unmet(self) -> dict[Id, int]:
        short = self._live.short[: self._a.needs].copy()
        for s in self._live.free:
            for i, (units, _, _) in self._live.at_source.get(s, {}).items():
                short[i] += units
        return {self._index.needs[int(i)].need_id: int(short[i]) for i in np.flatnonzero(short > 0)}

    def objective(self) -> int:
        """Costs and weights of what is planned here (without fixed units and bundles)."""
        return self._live.objective()

    def faults(self) -> list[str]:
        """See `Live.faults`: empty where the plan is proved."""
        return self._live.faults()

    @property
    def outgrown(self) -> bool:
        """More needs than the ladder's step was made for: time for a full plan."""
        return flow.strict_step(int(self._alive.sum()), self._a.sources, self._settings) > self._step

    # -------------------------------------------------------------------------------------------------------- events
    def advance(self, now: datetime) -> None:
        """Judge what comes from now on as of then: nobody sets out earlier. What is planned stays as it was judged."""
        at = seconds(now)
        if at > self._a.now:
            self._a = replace(self._a, now=at, source_ready=np.maximum(self._a.source_ready, at))

    def put_need(self, line: NeedLine) -> dict[tuple[Id, Id], int]:
        """A need as it is now: new, or changed. Where only its quantity changed, nobody who can stay moves."""
        known = self._need.get(str(line.need_id))
        if line.bundle_id is not None:
            return {}
        if known is not None and self._alive[known]:
            old = self._index.needs[known]
            same = {str(x) for x in old.exclude} == {str(x) for x in line.exclude}
            # A line of nothing has no pairs to grow on.
            some = min(old.quantity, line.quantity) > 0
            if same and some and replace(old, quantity=line.quantity, exclude=line.exclude) == line:
                more = line.quantity - old.quantity
                if more > 0:
                    self._live.raise_quantity(known, more)
                else:
                    self._live.lower_quantity(known, min(-more, int(self._live.quantity[known])))
                self._index.needs[known] = line
                return self._changes()
            self.drop_need(line.need_id)
        self._a, i = with_need(self._a, self._index, line, self._settings)
        sources, costs = self._finder.of_need(self._a, i)
        # Teams that only full plans may send are out of reach.
        free = ~self._a.source_whole[sources] & (self._a.source_minimum[sources] <= 1)
        severity = int(self._a.need_severity[i])
        weight = (
            self._settings.policy_weights[severity - 1] if self._settings.ladder == "policy" else self._step * severity
        ) + int(self._a.need_extra[i])
        sources, costs = sources[free], costs[free]
        if self._a.group[i] >= 0:
            own = self._a.allowance[self._a.allowance[:, 1] == self._a.group[i]]
            order = np.argsort(joined := np.concatenate((sources, own[:, 0].astype(np.int32))))
            sources, costs = joined[order], np.concatenate((costs, weight - own[:, 2]))[order]
        number = self._live.add_need(line.quantity, weight, sources, costs)
        assert number == i
        self._need[str(line.need_id)] = i
        self._alive = np.append(self._alive, True)
        return self._changes()

    def drop_need(self, need_id: Id) -> dict[tuple[Id, Id], int]:
        i = self._need.pop(str(need_id), None)
        if i is not None:
            self._live.drop_need(i)
            self._alive[i] = False
        return self._changes()

    def put_source(self, source: Responder | Lot) -> dict[tuple[Id, Id], int]:
        """A responder or lot as it is now: new, or changed. Where only capacity or stock changed, nobody who can stay
        moves; otherwise what it had is planned anew."""
        key = str(source_id(source))
        known = self._index.numbers.get(key)
        if known is not None:
            old = self._index.sources[known]
            more = _units(source) - _units(old)
            if more == 0 and old == source:
                return {}
            if _same_but_units(old, source) and min(_units(old), _units(source)) > 0:
                if more > 0:
                    self._live.raise_capacity(known, more)
                else:
                    self._live.lower_capacity(known, min(-more, int(self._live.capacity[known])))
                self._a.source_capacity[known] = self._live.capacity[known]
                self._index.sources[known] = source
                return self._changes()
            self._drop(known)
        self._a, s = with_source(self._a, self._index, source, self._settings)
        codes = (
            {("item", source.item): 0}
            if isinstance(source, Lot)
            else {("skill", code): level for code, level in source.skills.items()}
        )
        levels = {self._index.codes.setdefault(code, len(self._index.codes)): level for code, level in codes.items()}
        self._finder.add(s, levels)
        if self._a.source_whole[s] or self._a.source_minimum[s] > 1:
            needs, costs = np.zeros(0, np.int32), np.zeros(0, np.int32)
        else:
            needs, costs = candidates.feasible_needs(self._a, self._settings, s, levels, self._alive)
            # Who was excluded by id stays so under a new number.
            lines = (self._index.needs[i] for i in needs.tolist())
            free = np.array([all(str(x) != key for x in line.exclude) for line in lines], np.bool_)
            needs, costs = needs[free], costs[free]
        number = self._live.add_source(_units(source), needs, costs)
        assert number == s
        return self._changes()

    def drop_source(self, source: Id) -> dict[tuple[Id, Id], int]:
        known = self._index.numbers.pop(str(source), None)
        if known is not None:
            self._drop(known)
        return self._changes()

    def exclude(self, need_id: Id, source: Id) -> dict[tuple[Id, Id], int]:
        """A decline, or the beginning of a cool-down."""
        i, s = self._need.get(str(need_id)), self._index.numbers.get(str(source))
        if i is not None:
            line = self._index.needs[i]
            self._index.needs[i] = replace(line, exclude=(*line.exclude, source))
        if i is not None and s is not None:
            self._live.exclude(i, s)
        return self._changes()

    def accept(self, need_id: Id, source: Id, units: int) -> None:
        """Units of the plan became a promise: they leave it together with the source's capacity for them."""
        i, s = self._need[str(need_id)], self._index.numbers[str(source)]
        self._live.accept(i, s, units)
        self._a.source_capacity[s] = self._live.capacity[s]
        self._index.needs[i] = replace(self._index.needs[i], quantity=int(self._live.quantity[i]))
        one = self._index.sources[s]
        if isinstance(one, Lot):
            # What is said of the lot next has these units off already.
            crewed = None if one.crewed is None else one.crewed - units
            self._index.sources[s] = replace(one, quantity=one.quantity - units, crewed=crewed)

    def offered(self, need_id: Id, source: Id) -> None:
        """An offer is out for these units: moving them costs its tax from now on."""
        i, s = self._need.get(str(need_id)), self._index.numbers.get(str(source))
        if i is not None and s is not None:
            self._live.hold(i, s, self._settings.switch_tax["offered"])

    def _drop(self, s: int) -> None:
        self._live.drop_source(s)
        self._a.source_capacity[s] = 0

    def _ids(self, i: int, s: int) -> tuple[Id, Id]:
        return self._index.needs[i].need_id, source_id(self._index.sources[s])

    def _changes(self) -> dict[tuple[Id, Id], int]:
        moved: dict[tuple[Id, Id], int] = {}
        for (i, s), units in self._live.take_changes().items():
            if s in self._live.free:
                continue
            pair = self._ids(i, s)
            # A source that was registered again has two numbers and one id.
            moved[pair] = moved.get(pair, 0) + units
        return {pair: units for pair, units in moved.items() if units}


def _units(source: Responder | Lot) -> int:
    return source.units if isinstance(source, Lot) else source.capacity


def _same_but_units(old: Responder | Lot, new: Responder | Lot) -> bool:
    if isinstance(old, Lot) and isinstance(new, Lot):
        return replace(old, quantity=new.quantity, crewed=new.crewed) == new
    if isinstance(old, Responder) and isinstance(new, Responder):
        # One person who becomes a team may fall under other rules.
        return replace(old, capacity=new.capacity) == new and (old.capacity > 1) == (new.capacity > 1)
    return False
