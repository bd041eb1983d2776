"""Find and mask what identifies a person in free text: telephone numbers, e-mail addresses, NIK, a given name.

Numbers are read as groups of digits glued by short separators and then judged by plain code, not by one pattern:
that keeps the cost linear on hostile input, and lets a rule look at the shape of the whole run, which is what tells
`0812-3456-7890` from `-8.1234567890` and `2026-11-24`. Where the text leaves doubt the rule masks a thing that has
the shape of a telephone number, and leaves coordinates, dates, depths, house numbers and RT/RW alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Kind = Literal["phone", "nik", "email", "name"]

PLACEHOLDER: dict[Kind, str] = {"phone": "[nomor]", "nik": "[NIK]", "email": "[email]", "name": "[nama]"}

_DIGITS = re.compile(r"\d+")
# Zero-width characters count as glue too: they are a cheap way to smuggle a number past a filter.
_GLUE = frozenset(" \t.-()\u00a0\u2007\u202f\u2009\u2010\u2011\u2012\u2013\u2014\u2212\u200b\u200c\u200d\u2060\ufeff")
_INVISIBLE = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"))
_LONGEST_GLUE = 3
# The word itself, then at most "a", a colon and the like: `hp: `, `no. wa `, `telp 0812`.
_PHONE_CUE = re.compile(
    r"(?:\b(?:hp|wa|whatsapp|telp|telpon|telepon|tlp|tlpn|tel|phone|fone|hub|hubungi|call|kontak|contact|cp|sms))"
    r"[\s:.=\-]{0,4}(?:no|nomor|number|nimewo|numero|di|ke|at)?[\s:.=\-#]{0,4}\(?\+?$",
    re.IGNORECASE,
)
_NIK_CUE = re.compile(r"\b(?:nik|ktp|kk|e-?ktp)[\s:.=\-]{0,4}(?:no|nomor)?[\s:.=\-#]{0,4}$", re.IGNORECASE)
_CUE_REACH = 24

# First two digits of a NIK: the Kemendagri codes of the provinces (Kepmendagri 300.2.2-2138/2025).
_PROVINCES = frozenset({*range(11, 20), 21, *range(31, 37), *range(51, 54), *range(61, 66), *range(71, 77)}) | {
    81,
    82,
    *range(91, 97),
}

_EMAIL_LOCAL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.!#$%&'*+-/=?^_`{|}~")
_EMAIL_DOMAIN = re.compile(r"[^\W_][\w-]{0,62}(?:\.[\w-]{1,63}){0,8}\.[^\W\d_]{2,24}")
_LONGEST_LOCAL = 64

_TITLES = frozenset(
    {"pak", "bapak", "bpk", "ibu", "sdr", "sdri", "mas", "mbak", "bang", "kak", "drs", "dra", "haji", "mrs", "bin"}
    | {"binti", "the", "and", "dan"}
)
_PLACE_WORD = re.compile(
    r"\b(?:jl|jln|jalan|gg|gang|desa|ds|dusun|dsn|kampung|kp|kel|kelurahan|kec|kecamatan|kab|kabupaten|kota|blok"
    r"|komplek|kompleks|perum|perumahan|rue|ri|street|st|sungai|kali|pasar|masjid|sd|sdn|smp|sma|rs|rsud)\.?\s{1,3}$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing to mask: `text[start:end]`; `value` is its canonical form (digits in international form, lower-case
    address), the same for every way of writing it."""

    start: int
    end: int
    kind: Kind
    value: str


def mask(text: str, name: str | None = None) -> str:
    """The text with every telephone number, e-mail address and NIK, and the reporter's `name`, replaced by a
    placeholder. Masking a masked text changes nothing."""
    out: list[str] = []
    at = 0
    for found in find(text, name):
        out.append(text[at : found.start])
        out.append(PLACEHOLDER[found.kind])
        at = found.end
    out.append(text[at:])
    return "".join(out)


def find(text: str, name: str | None = None) -> list[Found]:
    """Everything that `mask` would replace, in order and without overlaps."""
    found = [*emails(text), *numbers(text)]
    if name:
        found.extend(_names(text, name))
    # An address may hold a number or a name (budi0812@…): the one that starts first and reaches furthest wins.
    found.sort(key=lambda f: (f.start, -f.end))
    kept: list[Found] = []
    for item in found:
        if not kept or item.start >= kept[-1].end:
            kept.append(item)
    return kept


def emails(text: str) -> Iterator[Found]:
    """E-mail addresses, by looking left and right of each `@`; both looks are bounded."""
    floor = 0
    at = text.find("@")
    while at >= 0:
        start = at
        while start > floor and at - start < _LONGEST_LOCAL and _local(text[start - 1]):
            start -= 1
        while start < at and text[start] in ".'=/?&":
            start += 1
        match = _EMAIL_DOMAIN.match(text, at + 1) if start < at else None
        if match:
            floor = match.end()
            yield Found(start, match.end(), "email", text[start : match.end()].lower())
        at = text.find("@", max(at + 1, floor))


def _local(char: str) -> bool:
    return char in _EMAIL_LOCAL or (char > "\x7f" and char.isalnum())


@dataclass(frozen=True, slots=True)
class _Group:
    start: int
    end: int
    digits: str
    plus: bool  # a plus sign stands right before it
    decimal: bool  # glued to the group before it by a decimal point: `106` `.` `8456`


def numbers(text: str) -> Iterator[Found]:
    """Telephone numbers and NIK."""
    run: list[_Group] = []
    for match in _DIGITS.finditer(text):
        start, end = match.span()
        plus = start > 0 and (
            text[start - 1] in "+\uff0b" or (text[start - 1] == " " and text[start - 2 : start - 1] == "+")
        )
        glued = bool(run) and not plus and _glued(text, run[-1].end, start)
        digits = match.group()
        if not digits.isascii():
            digits = "".join(str(int(d)) for d in digits)
        if not glued and run:
            yield from _judge(text, run)
            run = []
        decimal = glued and text[run[-1].end : start] == "." and _coordinate(text, run, digits)
        run.append(_Group(start, end, digits, plus, decimal))
    if run:
        yield from _judge(text, run)


def _glued(text: str, end: int, start: int) -> bool:
    if start - end > 3 * _LONGEST_GLUE:
        return False
    gap = text[end:start]
    if len(gap) > _LONGEST_GLUE:
        gap = gap.translate(_INVISIBLE)
    return len(gap) <= _LONGEST_GLUE and all(c in _GLUE for c in gap)


def _coordinate(text: str, run: list[_Group], fraction: str) -> bool:
    """Whether the last group and `fraction` read as degrees: `-6.2088`, with more decimals than a thousands group
    has digits, and no second point (`01.10.0000` is a piece of something longer)."""
    whole = run[-1]
    if whole.plus or whole.decimal or len(whole.digits) > 3 or len(fraction) < 4:
        return False
    if len(run) > 1 and text[run[-2].end : whole.start] == ".":
        return False
    return (whole.digits == "0" or whole.digits[0] != "0") and int(whole.digits) <= 180


def _judge(text: str, run: list[_Group]) -> Iterator[Found]:
    """The telephone numbers and NIK inside one run of glued groups."""
    if sum(len(g.digits) for g in run) < 6:
        return
    # `0 8 1 2 3 …`: digits spelled one by one are one number.
    if len(run) >= 9 and all(len(g.digits) == 1 for g in run):
        run = [_Group(run[0].start, run[-1].end, "".join(g.digits for g in run), run[0].plus, False)]
    i = 0
    while i < len(run):
        taken = 0
        if not (i + 1 < len(run) and run[i + 1].decimal) and not run[i].decimal:
            taken, kind, value = _nik_at(text, run, i) or _phone_at(text, run, i) or (0, "phone", "")
            if taken:
                start, end = run[i].start, run[i + taken - 1].end
                if kind == "phone":
                    start = _opening(text, start)
                yield Found(start, end, kind, value)
        i += taken or 1


def _opening(text: str, start: int) -> int:
    """Where the number really begins: its bracket and plus sign belong to it."""
    while start > 0 and text[start - 1] in "+(\uff0b":
        start -= 1
    if start > 1 and text[start - 1] == " " and text[start - 2] in "+\uff0b":
        start -= 2
    return start


def _cue(pattern: re.Pattern[str], text: str, start: int) -> bool:
    return pattern.search(text[max(0, start - _CUE_REACH) : start]) is not None


def _nik_at(text: str, run: list[_Group], i: int) -> tuple[int, Kind, str] | None:
    """A NIK that begins at group i: 16 digits in one piece, or in pieces if it is called one or reads as one
    (a province, a day, +40 for women, and a month): `2019 2020 2021 2022` does not."""
    if run[i].plus:
        return None
    digits = ""
    for j in range(i, len(run)):
        if run[j].decimal:
            return None
        digits += run[j].digits
        if len(digits) > 16:
            return None
        if len(digits) == 16:
            if j == i or _plausible_nik(digits) or _cue(_NIK_CUE, text, run[i].start):
                return j - i + 1, "nik", digits
            return None
    return None


def _plausible_nik(digits: str) -> bool:
    day = int(digits[6:8])
    return int(digits[:2]) in _PROVINCES and (1 <= day <= 31 or 41 <= day <= 71) and 1 <= int(digits[8:10]) <= 12


def _phone_at(text: str, run: list[_Group], i: int) -> tuple[int, Kind, str] | None:
    """The longest telephone number that begins at group i."""
    first = run[i]
    shape = _shape(first.digits, first.plus)
    cued = False
    if shape is None:
        if _us_shape(text, run, i):
            return 3, "phone", "".join(g.digits for g in run[i : i + 3])
        cued = _cue(_PHONE_CUE, text, first.start)
        if not cued:
            return None
        shape = (7, 15)
    least, most = shape
    digits = ""
    best = 0
    for j in range(i, len(run)):
        group = run[j]
        if j > i:
            if group.decimal:
                break
            # What follows a whole number by a space is more often a count (`0812 345 678 30 orang`) or the next
            # number than its tail; pairs (`0812 34 56 78 90`) go on as pairs.
            pairs = len(group.digits) == 2 and (len(run[j - 1].digits) == 2 or len(digits) < least)
            if best and not (len(group.digits) >= 3 or pairs):
                break
            if best and group.digits.startswith(("08", "62")):
                break
        digits += group.digits
        if len(digits) > most:
            break
        if len(digits) >= least and not (j + 1 < len(run) and run[j + 1].decimal):
            best = j - i + 1
    if not best:
        return None
    value = "".join(g.digits for g in run[i : i + best])
    if not first.plus and not first.digits.startswith("0") and _thousands(text, run[i : i + best]):
        return None
    if cued and _date(run[i : i + best]):
        return None
    return best, "phone", international(value)


def _shape(digits: str, plus: bool) -> tuple[int, int] | None:
    """Least and most digits of a number that begins with this group; None where no number begins so."""
    if plus:
        return 8, 15
    if len(digits) < 3:
        return (11, 14) if digits == "62" else None
    if digits.startswith("08"):
        return 9, 13
    if digits.startswith("00") and digits[2] != "0":
        return 11, 17
    if (digits[0] == "0" and digits[1] in "234567") or digits.startswith("09"):
        return 9, 12
    if digits.startswith("62") and digits[2] in "2345678":
        return 10, 14
    if digits[0] == "8" and digits[1] in "12356789":
        return 10, 12
    return None


def _us_shape(text: str, run: list[_Group], i: int) -> bool:
    """`(555) 123-4567` and `555-123-4567`."""
    if i + 3 > len(run) or [len(g.digits) for g in run[i : i + 3]] != [3, 3, 4]:
        return False
    gap = text[run[i + 1].end : run[i + 2].start]
    return gap in ("-", ".") and not (i + 3 < len(run) and run[i + 3].decimal)


def _thousands(text: str, run: list[_Group]) -> bool:
    """Whether the run is an amount with thousands points: `812.345.678`."""
    return len(run) > 1 and all(len(g.digits) == 3 and text[p.end : g.start] == "." for p, g in pairwise(run))


def _date(run: list[_Group]) -> bool:
    return sorted(len(g.digits) for g in run)[-3:] in ([2, 2, 4], [1, 2, 4], [1, 1, 4])


def international(digits: str) -> str:
    """Digits of a number in international form; what begins with a single 0, or with 8, is taken for Indonesian."""
    if digits.startswith("00"):
        return digits[2:]
    if digits.startswith("0"):
        return "62" + digits[1:]
    if digits.startswith("620"):
        return "62" + digits[3:]
    if digits.startswith("8") and 10 <= len(digits) <= 12:
        return "62" + digits
    return digits


def _names(text: str, name: str) -> Iterator[Found]:
    """The whole name anywhere; a part of three letters or more as a word of its own, but not as a street's or a
    village's name (`Jalan Sudirman` when Sudirman reports)."""
    parts = [p for p in re.split(r"[\s,.]+", name[:200].strip()) if p][:8]
    if not parts:
        return
    full = r"[\s,.]{1,3}".join(re.escape(p) for p in parts)
    for match in re.finditer(rf"(?<!\w){full}(?!\w)", text, re.IGNORECASE):
        if not _in_placeholder(text, match.start(), match.end()):
            yield Found(match.start(), match.end(), "name", name.casefold())
    single = [p for p in parts if len(p) >= 3 and p.casefold() not in _TITLES]
    if not single:
        return
    for match in re.finditer(rf"(?<!\w)(?:{'|'.join(map(re.escape, single))})(?!\w)", text, re.IGNORECASE):
        before = text[max(0, match.start() - _CUE_REACH) : match.start()]
        if not _PLACE_WORD.search(before) and not _in_placeholder(text, match.start(), match.end()):
            yield Found(match.start(), match.end(), "name", match.group().casefold())


def _in_placeholder(text: str, start: int, end: int) -> bool:
    return text[start - 1 : end + 1] in PLACEHOLDER.values()
