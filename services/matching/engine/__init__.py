"""The matching engine: from needs, responders and stock to the provably best plan, and why. Pure; see `solve`."""

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
)
from services.matching.engine.solve import Solution, solve, solve_arrays

__all__ = [
    "Arrays",
    "Assignment",
    "HazardZone",
    "Kept",
    "Lot",
    "NeedLine",
    "Plan",
    "Responder",
    "Settings",
    "Solution",
    "solve",
    "solve_arrays",
]
