"""The matching engine: from needs, responders and stock to the provably best plan, and why. Pure.

`solve` makes a full plan, `LivePlan` keeps one up to date event by event, `explain` puts it into words. Inside:
`model` plain data and arrays, `rules` hard rules and costs of pairs, `candidates` all feasible pairs, `flow` the
optimum and its proof, `bundles` what a flow cannot say, `incremental` the event path, `check` a proof of its own for
tests.
"""

from services.matching.engine.check import distance_km
from services.matching.engine.explain import assignment_sentences, move_sentences, unmet_sentences
from services.matching.engine.live import LivePlan
from services.matching.engine.model import (
    Arrays,
    Assignment,
    HazardZone,
    Kept,
    Lot,
    NeedLine,
    Plan,
    Responder,
    Settings,
    lifted_to,
)
from services.matching.engine.solve import Solution, solve, solve_arrays

__all__ = [
    "Arrays",
    "Assignment",
    "HazardZone",
    "Kept",
    "LivePlan",
    "Lot",
    "NeedLine",
    "Plan",
    "Responder",
    "Settings",
    "Solution",
    "assignment_sentences",
    "distance_km",
    "lifted_to",
    "move_sentences",
    "solve",
    "solve_arrays",
    "unmet_sentences",
]
