"""How much people need by the standards of the field: numbers as data, with edition and page, national ones first.

They are guidance in context: a gap table shows them beside what was asked for and never instead of it.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Phase = Literal["initial", "stabilised"]


@dataclass(frozen=True, slots=True)
class Standard:
    """`quantity` of the item, in its unit, for each `people` people; `period` day, month or once.

    `country`: ISO 3166 alpha-3 where it is a national rule, which goes before the international one.
    `read_again`: whether edition and page were checked against the book itself.
    """

    item: str
    phase: Phase
    people: int
    quantity: Fraction
    period: str
    country: str | None
    edition: str
    standard: str
    page: str | None
    read_again: bool
    note: str

    def needed(self, people: int) -> int:
        """For so many people, for one period; parts are rounded up."""
        return math.ceil(people * self.quantity / self.people)

    @property
    def source(self) -> str:
        """Where the number stands."""
        return f"{self.edition}, {self.standard}" + (f", p. {self.page}" if self.page else "")


@cache
def standards(country: str | None = "IDN", phase: Phase = "initial") -> Mapping[str, Standard]:
    """The number that holds for each item."""
    with (Path(__file__).parent / "data" / "standards.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, Standard] = {}
    for row in sorted(rows, key=lambda row: row["country"] != ""):  # a national row replaces the one before
        if row["phase"] == phase and row["country"] in ("", country):
            found[row["item"]] = Standard(
                item=row["item"],
                phase=phase,
                people=int(row["people"]),
                quantity=Fraction(row["quantity"]),
                period=row["period"],
                country=row["country"] or None,
                edition=row["edition"],
                standard=row["standard"],
                page=row["page"] or None,
                read_again=row["read_again"] == "yes",
                note=row["note"],
            )
    return MappingProxyType(found)
