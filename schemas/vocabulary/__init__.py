"""The field's words: items, skills, hazards and administrative areas, as data files with a small loader.

The CSV files beside this module are the vocabulary; `SOURCES.md` says where each row comes from. Words may grow:
every field that carries one is an open string, so a function here answers None (or the word itself) for a word
it does not know and never refuses it. All answers are immutable and read once per process.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal

Language = Literal["id", "en"]

_FOLDER = Path(__file__).parent
_GLIDE_NUMBER = re.compile(r"[A-Z]{2}-\d{4}-\d{6}-[A-Z]{3}(?:-[A-Z0-9]+)?")
_NOT_WORD = re.compile(r"[\W_]+")
# Kemendagri writes dots (31, 31.75, 31.75.03, 31.75.03.1001); BPS runs the digits on (31, 3175, 3175030, 3175030001).
_KEMENDAGRI = re.compile(r"(\d{2})(?:(\.\d{2})(?:(\.\d{2})(\.\d{4})?)?)?")
_BPS = re.compile(r"(\d{2})(?:(\d{2})(?:(\d{3})(\d{3})?)?)?")


@dataclass(frozen=True, slots=True)
class Item:
    """A countable good. Quantities everywhere are whole numbers in `unit`; `sector` is an OCHA cluster code."""

    code: str
    unit: str
    label_id: str
    label_en: str
    sector: str
    words: tuple[str, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Skill:
    """Something a person can do; the unit is always the person.

    `risk` is high where a person without training would endanger themselves or those they help.
    """

    code: str
    unit: str
    label_id: str
    label_en: str
    risk: Literal["low", "high"]
    sector: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hazard:
    """A kind of hazard. `glide` is its two-letter GLIDE code, `hips` its UNDRR-ISC code (2025); None: none fits."""

    code: str
    label_id: str
    label_en: str
    glide: str | None
    hips: str | None


@dataclass(frozen=True, slots=True)
class Area:
    """An administrative area: level 1 province, 2 regency or city, 3 sub-district, 4 village.

    Levels 1 and 2 are listed; 3 and 4 are accepted by their prefix and have no name (`listed` is False).
    `edition` is the year of the list, because codes are given out anew. `point` is (lon, lat) inside a province,
    rounded to 0.01 degrees; None elsewhere.
    """

    scheme: str
    code: str
    level: int
    name: str | None
    type: str | None
    parent: str | None
    edition: str
    listed: bool
    point: tuple[float, float] | None

    def __str__(self) -> str:
        return f"{self.scheme}:{self.code}"


def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _plain(word: str) -> str:
    """Lower case, every run of other characters one space: `Banjir_Bandang ` and `BANJIR BANDANG` are one word."""
    return _NOT_WORD.sub(" ", word.casefold()).strip()


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.split("|") if word)


# Items and skills


@cache
def items() -> Mapping[str, Item]:
    """All items by code, in the order of the file."""
    return MappingProxyType(
        {
            row["code"]: Item(
                code=row["code"],
                unit=row["unit"],
                label_id=row["label_id"],
                label_en=row["label_en"],
                sector=row["sector"],
                words=_words(row["words"]),
                note=row["note"],
            )
            for row in _rows("items.csv")
        }
    )


@cache
def skills() -> Mapping[str, Skill]:
    """All skills by code, in the order of the file."""
    return MappingProxyType(
        {
            row["code"]: Skill(
                code=row["code"],
                unit=row["unit"],
                label_id=row["label_id"],
                label_en=row["label_en"],
                risk="high" if row["risk"] == "high" else "low",
                sector=row["sector"],
                words=_words(row["words"]),
            )
            for row in _rows("skills.csv")
        }
    )


@dataclass(frozen=True, slots=True)
class SkillKind:
    """What a skill is called elsewhere: INSARAG's component of a rescue team, NIMS's position. None: none fits."""

    insarag: str | None
    nims: str | None


@cache
def skill_kinds() -> Mapping[str, SkillKind]:
    """The skills that INSARAG or NIMS has a word for."""
    return MappingProxyType(
        {row["code"]: SkillKind(row["insarag"] or None, row["nims"] or None) for row in _rows("skill_kinds.csv")}
    )


@dataclass(frozen=True, slots=True)
class Sector:
    """A humanitarian sector: `ocha` scheme, or `bnpb`, Indonesia's eight national ones. `ocha` are the sectors of the
    former that it covers, wholly or in part; none: OCHA has no such sector."""

    scheme: str
    code: str
    label_id: str
    label_en: str
    ocha: tuple[str, ...]


@cache
def sectors() -> tuple[Sector, ...]:
    """All sectors of both schemes, in the order of the file."""
    return tuple(
        Sector(row["scheme"], row["code"], row["label_id"], row["label_en"], _words(row["ocha"]))
        for row in _rows("sectors.csv")
    )


@cache
def _conversions() -> Mapping[tuple[str, str], int]:
    return {(row["code"], row["unit"]): int(row["factor"]) for row in _rows("conversions.csv")}


def converted(code: str, quantity: int, unit_name: str) -> int | None:
    """So much of an item in its own unit: 2 tonnes of rice are 2000 (kg). None: no table says how, and it is not
    guessed."""
    if unit_name == unit(code):
        return quantity
    factor = _conversions().get((code, unit_name))
    return quantity * factor if factor is not None else None


def units_of(code: str) -> tuple[str, ...]:
    """The units in which an item may be told: its own first."""
    own = unit(code)
    return ((own,) if own else ()) + tuple(name for item, name in _conversions() if item == code)


@cache
def _serves() -> Mapping[str, int]:
    return {row["code"]: int(row["persons"]) for row in _rows("serves.csv")}


def serves(code: str) -> int | None:
    """How many persons one unit of an item is meant for; None where no table says."""
    return _serves().get(code)


def known_items() -> tuple[str, ...]:
    """The published item codes; other words are allowed."""
    return tuple(items())


def known_skills() -> tuple[str, ...]:
    """The published skill codes; other words are allowed."""
    return tuple(skills())


@cache
def _item_words() -> Mapping[str, str]:
    return _index(items().values())


@cache
def _skill_words() -> Mapping[str, str]:
    return _index(skills().values())


def _index(entries: Iterable[Item | Skill]) -> Mapping[str, str]:
    return {
        _plain(word): entry.code
        for entry in entries
        for word in (entry.code, entry.label_id, entry.label_en, *entry.words)
    }


def item_of(word: str) -> str | None:
    """The item code for a code, label or everyday word, Indonesian or English: `perahu karet` is `rubber_boat`."""
    return _item_words().get(_plain(word))


def skill_of(word: str) -> str | None:
    """The skill code for a code, label or everyday word, Indonesian or English: `perawat` is `nurse`."""
    return _skill_words().get(_plain(word))


def unit(code: str) -> str | None:
    """The unit in which an item or skill is counted; None for a word we do not know."""
    if code in items():
        return items()[code].unit
    return skills()[code].unit if code in skills() else None


@cache
def _unit_labels() -> Mapping[str, tuple[str, str]]:
    return {row["unit"]: (row["label_id"], row["label_en"]) for row in _rows("units.csv")}


def unit_label(unit: str, lang: Language = "id") -> str:
    """A unit as it stands after a number, `600 porsi`; the unit itself when we do not know it."""
    indonesian, english = _unit_labels().get(unit, (unit, unit))
    return english if lang == "en" else indonesian


def label(code: str, lang: Language = "id") -> str:
    """An item's, skill's or hazard's name for people; the code itself for a word we do not know."""
    entry = items().get(code) or skills().get(code) or hazards().get(code)
    if entry is None:
        return code
    return entry.label_en if lang == "en" else entry.label_id


def sector(code: str) -> str | None:
    """The OCHA cluster code (SHL, WSH, FSC, HEA ...) under which an item or skill is reported in a 3W table."""
    entry = items().get(code) or skills().get(code)
    return entry.sector if entry else None


@cache
def _small() -> Mapping[str, int]:
    return {row["code"]: int(row["limit"]) for row in _rows("small_needs.csv")}


def small_limit(code: str) -> int:
    """The largest quantity of an item or skill that may be declared on one unproven report.

    0 means such a need always waits for an operator; so does every word we do not know.
    """
    return _small().get(code, 0)


# Hazards


@cache
def hazards() -> Mapping[str, Hazard]:
    """All hazards by code, in the order of the file."""
    return MappingProxyType(
        {
            row["code"]: Hazard(
                row["code"],
                row["label_id"],
                row["label_en"],
                row["glide"] or None,
                row["hips"] or None,
            )
            for row in _rows("hazards.csv")
        }
    )


def known_hazards() -> tuple[str, ...]:
    """The published hazard codes; other words are allowed."""
    return tuple(hazards())


@cache
def _hazard_words() -> Mapping[str, str]:
    words = {
        _plain(word): hazard.code
        for hazard in hazards().values()
        for word in (hazard.label_id, hazard.label_en, hazard.code)
    }
    return words | {_plain(row["word"]): row["code"] for row in _rows("hazard_words.csv")}


@cache
def _hazard_codes() -> Mapping[str, str]:
    """GLIDE and HIPs codes to ours; of several with one GLIDE code the first in the file is the general one."""
    codes: dict[str, str] = {}
    for hazard in hazards().values():
        for code in (hazard.glide, hazard.hips):
            if code:
                codes.setdefault(code, hazard.code)
    # Finer than our own hazards, or (AC) coarser than the first that carries it.
    finer = {
        "MH0604": "flood",
        "MH0606": "flood",
        "MH0609": "flood",
        "GH0304": "landslide",
        "GH0203": "volcano",
    }
    return codes | finer | {"EC": "storm", "AC": "accident"}


def hazard_of(word: str) -> str | None:
    """The hazard code for a source's word: PetaBencana, BNPB, GDACS, a GLIDE code or number, a HIPs code, our own.

    GLIDE and HIPs codes count in capitals only, because "in" and "to" are also words. None when we do not know it.
    """
    stripped = word.strip()
    if _GLIDE_NUMBER.fullmatch(stripped):
        stripped = stripped[:2]
    return _hazard_codes().get(stripped) or _hazard_words().get(_plain(stripped))


# Administrative areas


@dataclass(frozen=True, slots=True)
class _Areas:
    listed: Mapping[tuple[str, str], Area]
    to_bps: Mapping[str, str]
    to_kemendagri: Mapping[str, str]


@cache
def _areas() -> _Areas:
    listed: dict[tuple[str, str], Area] = {}
    to_bps: dict[str, str] = {}
    for row in _rows("areas.csv"):
        point = (float(row["lon"]), float(row["lat"])) if row["lon"] else None
        listed[row["scheme"], row["code"]] = Area(
            scheme=row["scheme"],
            code=row["code"],
            level=int(row["level"]),
            name=row["name"],
            type=row["type"],
            parent=row["parent"] or None,
            edition=row["edition"],
            listed=True,
            point=point,
        )
        if row["bps"]:
            to_bps[row["code"]] = row["bps"]
    return _Areas(listed, to_bps, {bps: kemendagri for kemendagri, bps in to_bps.items()})


def _steps(scheme: str, code: str) -> list[str]:
    """The codes from the province down to this one; empty when it is not formed as its scheme says."""
    match = {"kemendagri": _KEMENDAGRI, "bps": _BPS}[scheme].fullmatch(code)
    if match is None:
        return []
    steps = [""]
    for part in match.groups():
        if part:
            steps.append(steps[-1] + part)
    return steps[1:]


def split(code: str) -> tuple[str, str]:
    """`kemendagri:32.04` as ("kemendagri", "32.04"). Raises ValueError without a scheme: a bare code is ambiguous."""
    scheme, separator, local = code.strip().partition(":")
    if not separator or not scheme or not local:
        raise ValueError(f"an area code is scheme:code, such as kemendagri:32.04; got {code!r}")
    return scheme.strip().lower(), local.strip()


@cache
def known_areas() -> tuple[Area, ...]:
    """Every listed area: provinces and regencies, in both schemes."""
    return tuple(_areas().listed.values())


def area(scheme: str, code: str) -> Area | None:
    """The area with this code, or None when we do not know the scheme or the code.

    Schemes: `kemendagri` (2025), `bps` (2020) and `pcode` (OCHA COD-AB: `ID` and the BPS digits, another spelling
    of `bps`, so that is what comes back). A sub-district or village is accepted under a regency that is listed.
    """
    if scheme == "pcode" and code[:2].upper() == "ID":
        scheme, code = "bps", code[2:]
    if scheme not in ("kemendagri", "bps"):
        return None
    found = _areas().listed.get((scheme, code))
    if found is not None:
        return found
    steps = _steps(scheme, code)
    regency = _areas().listed.get((scheme, steps[1])) if len(steps) > 2 else None
    if regency is None:
        return None
    return Area(scheme, code, len(steps), None, None, steps[-2], regency.edition, False, None)


def parents(scheme: str, code: str) -> tuple[Area, ...]:
    """The areas that hold this one, nearest first; empty for a province and for a code we do not know."""
    here = area(scheme, code)
    found: list[Area] = []
    while here is not None and here.parent is not None:
        here = area(here.scheme, here.parent)
        if here is not None:
            found.append(here)
    return tuple(found)


def to_scheme(code: str, scheme: str) -> str | None:
    """An area code (`kemendagri:32.04`) in another scheme (`bps:3204`); None when no equal area is known there.

    Only provinces and regencies translate, by the crosswalk and never by digits: `kemendagri:31.74` is Jakarta
    Selatan, `bps:3174` Jakarta Barat. The four Papuan provinces of 2022 have no BPS code of 2020; Papua and Papua
    Barat kept their names but shrank, so they translate although their extent differs.
    """
    here = area(*split(code))
    if here is None:
        return None
    if scheme == "pcode":
        return f"pcode:ID{bps[4:]}" if (bps := to_scheme(str(here), "bps")) else None
    if here.scheme == scheme:
        return str(here)
    table = {"bps": _areas().to_bps, "kemendagri": _areas().to_kemendagri}.get(scheme)
    found = table.get(here.code) if table else None
    return f"{scheme}:{found}" if found else None


def within(inner: str, outer: str) -> bool:
    """Whether one area is the other or lies in it, also across schemes: `bps:3174` lies in `kemendagri:31`.

    Across schemes the smallest part of `inner` that translates decides, and its parents there count, so a regency
    of today's Papua Selatan is not said to lie in Papua although it did in 2020. Unknown codes lie only in themselves.
    """
    if inner == outer:
        return True
    here, there = area(*split(inner)), area(*split(outer))
    if here is None or there is None:
        return False
    chain = (here, *parents(here.scheme, here.code))
    if here.scheme != there.scheme:
        first = next(
            (found for step in chain if (found := to_scheme(str(step), there.scheme))),
            None,
        )
        translated = area(*split(first)) if first else None
        chain = (translated, *parents(translated.scheme, translated.code)) if translated else ()
    return there in chain


def area_name(code: str) -> str:
    """A name for people: the area's own, `Kabupaten Bandung`, else that of the smallest listed area around it.

    The code itself when nothing is known.
    """
    here = area(*split(code))
    if here is None:
        return code
    return next(
        (step.name for step in (here, *parents(here.scheme, here.code)) if step.name),
        code,
    )


def province_point(code: str) -> tuple[float, float] | None:
    """(lon, lat) inside the province that holds this area, rounded to 0.01 degrees; None when it is not known.

    Good for a coarse view or a map's first look, not for linking or for travel.
    """
    here = area(*split(code))
    if here is None:
        return None
    # A regency whose BPS province has no point (old Papua) may still have one by its Kemendagri province.
    for start in (
        here,
        area(*split(twin)) if (twin := to_scheme(str(here), "kemendagri")) else None,
    ):
        if start is not None:
            for step in (start, *parents(start.scheme, start.code)):
                if step.point is not None:
                    return step.point
    return None
