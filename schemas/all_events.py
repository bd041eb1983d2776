"""Loads every module that defines events, so that the registry is whole."""

from schemas import (
    assignments,
    confirmations,
    incidents,
    ledger,
    needs,
    offers,
    operations,
    partners,
    quarantine,
    reports,
    resources,
    responders,
    sites,
    sitreps,
    warnings,
)

__all__ = [
    "assignments",
    "confirmations",
    "incidents",
    "ledger",
    "needs",
    "offers",
    "operations",
    "partners",
    "quarantine",
    "reports",
    "resources",
    "responders",
    "sites",
    "sitreps",
    "warnings",
]
