"""Where a named place is: the gazetteer of Indonesian provinces, regencies and cities, searched as people write.

Pure functions. The names are those of `schemas/vocabulary/areas.csv` (Kemendagri 2025, and the spellings of BPS 2020);
how people write them is in `data/place_words.yaml`. What could be two areas, or is too far from any name, is no area:
a report in the queue of those without a place is asked about, one in the wrong regency is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

import yaml
from rapidfuzz.distance import OSA

from schemas import vocabulary
from services.intake.bodies import PlaceIn

Kind = Literal["provinsi", "kabupaten", "kota", "smaller"]

_SHORTEST = 5
"""A shorter name alone (Batu, Bone, Buru) is too often a village or an everyday word."""
_SHORTEST_MISSPELT = 6
_SHORTEST_ALONE = 9
"""A name of fewer letters that is spelt wrongly, and that nothing calls a regency, is as likely some village's."""
_SEPARATORS = re.compile(r"[,;/|()\[\]\n]+|\s[-–—]\s")
_NOT_LETTERS = re.compile(r"[^a-z]+")
_ACCENTS = re.compile("[\u0300-\u036f]+")
_MOST_CHARACTERS = 500
_MOST_PIECES = 20


@dataclass(frozen=True, slots=True)
class Found:
    """An area that a place name surely means. `exact`: no letter had to be taken for another."""

    code: str
    level: int
    exact: bool


@lru_cache(maxsize=4096)
def find_area(said: str) -> Found | None:
    """The smallest province, regency or city that this surely means or lies in: `Kab. Demak`, `Jaktim`, `Ds. Sayung,
    Demak, Jateng`; misspelt too. None: none, or one of several (`Bandung` is a regency and a city).

    The parts go from small to large, as addresses are written, and have to agree. A regency that nothing calls one has
    to come last but for the province: `Manggarai, Tebet` is a village of Jakarta, and far from Kabupaten Manggarai.
    """
    pieces = list(_pieces(said[:_MOST_CHARACTERS]))[:_MOST_PIECES]
    province: _Match | None = None
    for piece in pieces:
        match = _province(piece)
        if match is not None and province is not None and province.codes != match.codes:
            return None  # two provinces: on their border, or in neither
        province = province or match
    held_by = province.codes[0] if province else None
    regencies: list[_Match] = []
    last = False
    for piece in pieces:
        if _province(piece) is None:
            match = _regency(piece, held_by)
            last = match is not None
            regencies += [match] if match else []
    if not regencies:
        if province is None or any(_regency(piece, None) for piece in pieces if _province(piece) is None):
            return None  # a regency of another province
        return Found(f"kemendagri:{held_by}", 1, province.exact)
    told = [match for match in regencies if match.told] or (regencies[-1:] if last else [])
    if not told or len(told[0].codes) != 1 or any(match.codes != told[0].codes for match in told):
        return None
    return Found(f"kemendagri:{told[0].codes[0]}", 2, all(match.exact for match in told))


@dataclass(frozen=True, slots=True)
class _Piece:
    """One part of a place name: its words, and what kind of area it says that it is."""

    words: tuple[str, ...]
    kind: Kind | None


@dataclass(frozen=True, slots=True)
class _Match:
    """The areas of one level that a part may mean. `told`: it says itself that it is a regency or city."""

    codes: tuple[str, ...]
    level: int
    exact: bool
    told: bool


@dataclass(frozen=True, slots=True)
class _Gazetteer:
    """`names`: codes by name without blanks, of each kind (`kabupaten`, `kota`, `provinsi`). `sure`: those of our own
    list, which stand for themselves however short they are. `everyday`: words that nobody means by a misspelt name."""

    names: Mapping[str, Mapping[str, tuple[str, ...]]]
    sure: frozenset[str]
    everyday: frozenset[str]
    kind_words: Mapping[str, Kind]
    short: Mapping[str, str]


@cache
def _gazetteer() -> _Gazetteer:
    words = yaml.safe_load((Path(__file__).parent / "data" / "place_words.yaml").read_text("utf-8"))
    reading = yaml.safe_load((Path(__file__).parent / "data" / "reading_words.yaml").read_text("utf-8"))
    kind_words: dict[str, Kind] = {word: kind for kind, spelt in words["kinds"].items() for word in spelt}
    names: dict[str, dict[str, set[str]]] = {"provinsi": {}, "kabupaten": {}, "kota": {}}
    sure: set[str] = set()

    def add(kind: str, name: str, code: str) -> None:
        names[kind].setdefault(_joined(_spelt_out(_words(name), words["short"])), set()).add(code)

    for area in vocabulary.known_areas():
        code = vocabulary.to_scheme(str(area), "kemendagri")
        if code is None or area.name is None or area.type not in names:
            continue  # a BPS area of 2020 whose successor has no code there
        bare = area.name
        for prefix in ("Kabupaten ", "Kota "):
            if area.type != "provinsi" and bare.startswith(prefix):
                bare = bare.removeprefix(prefix)
                break
        add(area.type, bare, vocabulary.split(code)[1])
    for code, spelt in words["names"].items():
        known = vocabulary.area("kemendagri", code)
        assert known is not None and known.type is not None, code
        for name in spelt:
            add(known.type, name, code)
            sure.add(_joined(_words(name)))
    frozen = {kind: {name: tuple(sorted(codes)) for name, codes in by_name.items()} for kind, by_name in names.items()}
    return _Gazetteer(frozen, frozenset(sure), frozenset(reading["everyday"]), kind_words, words["short"])


def _words(text: str) -> tuple[str, ...]:
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return tuple(word for word in _NOT_LETTERS.split(plain.replace("'", "").replace("’", "")) if word)


def _spelt_out(words: Sequence[str], short: Mapping[str, str]) -> tuple[str, ...]:
    """Short forms in full; what only fills (`Kota Administrasi`) is left out."""
    return tuple(full for word in words if (full := short.get(word, word)))


def _joined(words: Sequence[str]) -> str:
    return "".join(words)


def _pieces(said: str) -> Iterator[_Piece]:
    """The parts of a place name: between its separators, and from one word that says a kind to the next."""
    gazetteer = _gazetteer()
    for segment in _SEPARATORS.split(said):
        words = _spelt_out(_words(segment), gazetteer.short)
        if not words:
            continue
        if _joined(words) in gazetteer.names["kabupaten"] or _joined(words) in gazetteer.names["kota"]:
            yield _Piece(words, None)  # `Kota Baru` is a regency, not the city of Baru
            continue
        kind: Kind | None = None
        start = at = 0
        while at < len(words):
            told = gazetteer.kind_words.get(words[at])
            if told is None:
                at += 1
                continue
            if at > start:
                yield from _without_province(_Piece(words[start:at], kind))
            kind, start = told, at + 1
            # A name may hold such a word itself: Kabupaten Lima Puluh Kota.
            at = start + _length(words[start:], told)
        if start < len(words):
            yield from _without_province(_Piece(words[start:], kind))


def _length(words: Sequence[str], kind: Kind) -> int:
    """How many of these words are an official name of this kind; 0: none begins here."""
    known = _gazetteer().names.get(kind, {})
    return next((count for count in range(min(5, len(words)), 0, -1) if _joined(words[:count]) in known), 0)


def _without_province(piece: _Piece) -> Iterator[_Piece]:
    """A part, and the province that ends it without a word between (`Demak Jateng`)."""
    gazetteer = _gazetteer()
    if piece.kind != "provinsi":
        for count in (4, 3, 2, 1):
            head, tail = piece.words[:-count], piece.words[-count:]
            name = _joined(tail)
            inner = any(_joined(piece.words) in gazetteer.names[kind] for kind in ("kabupaten", "kota", "provinsi"))
            if head and not inner and name in gazetteer.names["provinsi"] and _only_province(name):
                yield _Piece(head, piece.kind)
                yield _Piece(tail, "provinsi")
                return
    yield piece


def _only_province(name: str) -> bool:
    names = _gazetteer().names
    return name not in names["kabupaten"] and name not in names["kota"]


def _province(piece: _Piece) -> _Match | None:
    """The province that a part names. One that shares its name with a city (Jambi, Gorontalo) surely holds both."""
    if piece.kind not in (None, "provinsi"):
        return None
    name = _joined(piece.words)
    codes = _codes(name, ("provinsi",))
    exact = bool(codes)
    if not codes and len(name) >= _SHORTEST_MISSPELT - bool(piece.kind) and not _codes(name, ("kabupaten", "kota")):
        codes = _nearest(name, ("provinsi",), None, most=2 if piece.kind else 1)
    return _Match(codes, 1, exact, False) if len(codes) == 1 else None


def _regency(piece: _Piece, province: str | None) -> _Match | None:
    """The regencies and cities that a part may mean, in the province if one is known; None for a part that names
    something smaller, or nothing known."""
    if piece.kind == "provinsi":
        return None
    told = piece.kind in ("kabupaten", "kota")
    kinds = (str(piece.kind),) if told else ("kabupaten", "kota")
    name = _joined(piece.words)
    if piece.kind != "smaller":
        codes = _within(_codes(name, kinds), province)
        if codes and (told or len(name) >= _SHORTEST or province or name in _gazetteer().sure):
            return _Match(codes, 2, True, told)
        if told or (len(name) >= _SHORTEST_MISSPELT and name not in _gazetteer().everyday):
            sure = told or province is not None
            most = 1 if not sure or len(name) < 9 else 2
            if sure or len(name) >= _SHORTEST_ALONE:
                codes = _nearest(name, kinds, province, most=most)
                if codes:
                    return _Match(codes, 2, False, told)
    if not told:
        # Named at the end of a longer part. One word alone may be the village's own: Jati Padang, Teluk Lingga.
        for count in (4, 3, 2, 1) if province else (4, 3, 2):
            if len(piece.words) > count:
                tail = _joined(piece.words[-count:])
                codes = _within(_codes(tail, kinds), province)
                if codes and len(tail) >= _SHORTEST_MISSPELT:
                    return _Match(codes, 2, True, False)
    return None


def _within(codes: Sequence[str], province: str | None) -> tuple[str, ...]:
    return tuple(sorted({code for code in codes if province is None or province in _provinces_of(code)}))


@cache
def _provinces_of(code: str) -> tuple[str, ...]:
    """The province of a regency, and the one that held it in 2020: people still say Papua for Papua Tengah."""
    bps = vocabulary.to_scheme(f"kemendagri:{code}", "bps")
    before = vocabulary.to_scheme(f"bps:{vocabulary.split(bps)[1][:2]}", "kemendagri") if bps else None
    return (code[:2], vocabulary.split(before)[1]) if before else (code[:2],)


def _codes(name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    names = _gazetteer().names
    return tuple(code for kind in kinds for code in names[kind].get(name, ()))


@lru_cache(maxsize=4096)
def _nearest(name: str, kinds: tuple[str, ...], province: str | None, *, most: int) -> tuple[str, ...]:
    """The codes of the one official name that is nearest, at most so many letters away."""
    near: dict[int, set[str]] = {}
    for kind in kinds:
        for known, codes in _gazetteer().names[kind].items():
            # The first letter is hardly ever the wrong one, and short forms are not spelt wrongly.
            if known[0] != name[0] or len(known) < _SHORTEST or known in _gazetteer().sure:
                continue
            distance = OSA.distance(name, known, score_cutoff=most)
            if distance <= most and _within(codes, province):
                near.setdefault(distance, set()).add(known)
    if not near or len(near[min(near)]) != 1:
        return ()
    return _within(_codes(next(iter(near[min(near)])), kinds), province)


def with_area(location: PlaceIn | None) -> PlaceIn | None:
    """The place with its area's code where it has a name and neither point nor code, and the name surely means one."""
    if location is None or location.placed or not location.place:
        return location
    found = find_area(location.place)
    return location.model_copy(update={"admin": found.code}) if found else location
