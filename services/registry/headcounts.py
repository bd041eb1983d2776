"""Headcounts: what stands, what is too many, what adds up, and what a short text message says. Pure rules."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from schemas.sites import Headcount

Alarm = Literal["none", "near", "full", "over"]
NEAR = 0.9


def alarm(people: int | None, capacity: int | None) -> Alarm:
    """How the people at a site compare with its capacity; none while either is not known."""
    if people is None or capacity is None:
        return "none"
    if people > capacity:
        return "over"
    if people == capacity and capacity > 0:
        return "full"
    return "near" if capacity > 0 and people >= NEAR * capacity else "none"


def stands(new: Headcount, before: Headcount | None) -> bool:
    """Whether a headcount takes the place of the one that stands: it was counted later, or at the same time and told
    later. Which post it came from does not matter."""
    return before is None or new.counted_at >= before.counted_at


@dataclass(slots=True)
class Totals:
    """People at open sites, each site once by the headcount that stands. A part counts only those sites that said it:
    `asked` is how many people were at the sites that broke their count down so."""

    sites: int = 0
    counted: int = 0
    capacity: int = 0
    people: int = 0
    parts: dict[str, int] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    ages: dict[str, int] = field(default_factory=dict)

    def add(self, headcount: Headcount | None, capacity: int | None) -> None:
        """Take in one site."""
        self.sites += 1
        self.capacity += capacity or 0
        if headcount is None:
            return
        self.counted += 1
        self.people += headcount.people
        for name in ("households", "female", "male", "disability", "pregnant"):
            value = getattr(headcount, name)
            if value is not None:
                self.parts[name] = self.parts.get(name, 0) + value
                self.asked[name] = self.asked.get(name, 0) + headcount.people
        if headcount.ages:
            self.asked["ages"] = self.asked.get("ages", 0) + headcount.people
        for age in headcount.ages:
            self.ages[age.band] = self.ages.get(age.band, 0) + age.people

    def shown(self) -> dict[str, Any]:
        parts = ("households", "female", "male", "disability", "pregnant")
        return {
            "sites": self.sites,
            "counted": self.counted,
            "capacity": self.capacity,
            "people": self.people,
            **{name: self.parts.get(name) for name in parts},
            "ages": [{"band": band, "people": people} for band, people in sorted(self.ages.items(), key=_first_year)],
            "people_asked": self.asked,
        }


def _first_year(entry: tuple[str, int]) -> int:
    return int(re.split(r"[-+]", entry[0])[0])


def total(sites: Iterable[tuple[Headcount | None, int | None]]) -> Totals:
    """The totals of these open sites: headcount that stands, capacity."""
    totals = Totals()
    for headcount, capacity in sites:
        totals.add(headcount, capacity)
    return totals


_WORDS = {
    **dict.fromkeys(("l", "lk", "laki", "pria", "m", "male", "men"), "male"),
    **dict.fromkeys(("p", "pr", "perempuan", "wanita", "f", "female", "women"), "female"),
    **dict.fromkeys(("balita", "0-4"), "0-4"),
    **dict.fromkeys(("anak", "5-17"), "5-17"),
    **dict.fromkeys(("dewasa", "18-59"), "18-59"),
    **dict.fromkeys(("lansia", "60+"), "60+"),
    **dict.fromkeys(("difabel", "disabilitas", "disability"), "disability"),
    **dict.fromkeys(("hamil", "bumil", "pregnant"), "pregnant"),
    **dict.fromkeys(("kk", "keluarga", "households"), "households"),
    **dict.fromkeys(("jiwa", "orang", "total", "people"), "people"),
}
_PART = re.compile(r"([a-z]+|0-4|5-17|18-59|60\+)\s*[:=]?\s*(\d{1,7})(?!\S)")
_CODE = re.compile(r"\bPOS-?([0-9A-Z]{4})\b", re.IGNORECASE)


class Unclear(ValueError):
    """A text is not surely a headcount; says which part is not understood."""


def read_text(text: str) -> tuple[str | None, dict[str, Any]]:
    """The site's code and the fields of a headcount from a short message, such as
    `POS-7K2M 230 L110 P120 balita 20 lansia 30 difabel 5 hamil 3 KK 60`; the first bare number is the people.

    Raises
    ------
    Unclear
        A word or number is left over, or one is said twice: nothing is taken from a text that is half understood.
    """
    found = _CODE.search(text)
    code = f"POS-{found.group(1).upper()}" if found else None
    rest = (_CODE.sub(" ", text) if found else text).casefold()
    rest = re.sub(r"[,;.\n]+", " ", rest)
    fields: dict[str, Any] = {}
    ages: dict[str, int] = {}

    def take(match: re.Match[str]) -> str:
        name, number = _WORDS.get(match.group(1)), int(match.group(2))
        if name is None:
            raise Unclear(f"“{match.group(1)}” is no word of a headcount")
        if name in fields or name in ages:
            raise Unclear(f"“{match.group(1)}” is said twice")
        if name[0].isdigit():
            ages[name] = number
        else:
            fields[name] = number
        return " "

    # The bare number comes first, before it could be read as part of a word that follows.
    bare = re.match(r"\s*(\d{1,7})\s*(?:jiwa|orang|people)?(?=\s|$)", rest)
    if bare:
        fields["people"] = int(bare.group(1))
        rest = rest[bare.end() :]
    left = _PART.sub(take, rest).strip()
    if left:
        raise Unclear(f"“{left[:60]}” is not understood")
    if "people" not in fields:
        if "male" in fields and "female" in fields:
            fields["people"] = fields["male"] + fields["female"]
        else:
            raise Unclear("it does not say how many people there are")
    if ages:
        fields["ages"] = [{"band": band, "people": number} for band, number in ages.items()]
    return code, fields
