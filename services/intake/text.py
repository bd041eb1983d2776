"""Read free text for comparison: Indonesian, English and Creole, as people write it in a disaster.

What comes out is what two reports of one thing tend to share (words in one spelling, numbers with the word before
them, contacts) and what only looks shared (form lines, translators' markers, clock times, depths) is left out.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from html import unescape
from importlib import resources

from services.intake import masking

MOST_WORDS = 200  # distinct words kept of one text; a longer one is told by its beginning
MOST_NUMBERS = 40
MOST_CHARACTERS = 6000

# Each pattern begins with a literal or a small set, so that the search skips through the text; one big alternation
# of the same cost five times as much.
_STAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?")
_CATEGORY = re.compile(r"category\s{0,3}:\s{0,3}(?:\d{1,2}[a-z]?\.[^\n\[~]{0,40})?(?:\[\d{1,6}\])?")
_SERIAL = re.compile(r"\[\d{3,6}\]")
_HASHTAG = re.compile(r"#[a-z]\w{0,40}")  # they say what kind of thing it is, never which one
_LINK = re.compile(r"https?://\S{1,300}")
_TAG = re.compile(r"<[a-z/!][^<>]{0,200}>")
_TRANSLATOR = re.compile(r"\([^()]{0,60}translat[^()]{0,60}\)")
_PLACEHOLDER = re.compile(r"\[?(phone|email)_([0-9a-z]{4,12})\]?")
_OWN_PLACEHOLDER = re.compile(r"\[(?:nomor|email|nik|nama)\]")
_ACCENT = re.compile("[\u0300-\u036f]+")
_LOST_ACCENT = re.compile(r"[?*](?<=[a-z0-9].)[?*]{0,2}(?=[a-z])")  # exports that wrote `p?di` or `p*di`
_REPEATED = re.compile(r"([a-z])\1\1+")
_TWICE = re.compile(r"2(?<=[a-z][a-z][a-z].)(?![a-z0-9])")  # `ibu2` is `ibu ibu`
_TOKEN = re.compile(r"[a-z]+(?:_[a-z0-9]+)?|\d+(?:[.,:/\-]\d+)*")
_SEVEN_DIGITS = re.compile(r"\d(?:[^\da-zA-Z]{0,3}\d){6}")

_LISTS = json.loads(resources.files("services.intake").joinpath("text_words.json").read_text(encoding="utf-8"))
_MEASURE = frozenset(_LISTS["measures"].split())  # after a number: it is a depth, a distance or a duration
_NOT_COUNTS = _MEASURE | {"st", "nd", "rd", "th"}  # a day of the month is no number of a house either
_CLOCK = frozenset(_LISTS["clock"].split())  # before a number: it is a time
_FORM = frozenset(_LISTS["form"].split())  # labels of forms and of translators
_SKIPPED = frozenset(_LISTS["skipped"].split())  # `no 49`: the word before them is what the number belongs to
# Informal spelling to the common one. Only what people really mix; stems and synonyms are not our business.
_SPELLING: dict[str, str] = {
    informal: common for common, forms in _LISTS["spelling"].items() for informal in forms.split()
}
STOP_WORDS = frozenset(word for words in _LISTS["stop"].values() for word in words.split())


@dataclass(frozen=True, slots=True)
class Reading:
    """One text as linking sees it."""

    words: tuple[str, ...]  # distinct, in order of first use, at most MOST_WORDS; no numbers
    length: int  # words with repeats
    numbered: tuple[tuple[str, int], ...]  # a number below 100,000 with the word before it: house, site, RT/RW,
    # families; not depths, clock times, dates or decimals
    contacts: tuple[str, ...]  # telephone numbers and addresses named in the text, canonical
    key: int  # equal for equal texts: case, spacing, punctuation and markup do not count; 0 = no words at all


def normalise(text: str) -> str:
    """Lower case, no accents, no markup, no category line, no letter three times in a row."""
    for _ in range(3):  # seen escaped twice in real exports (`&amp;amp;`)
        if "&" not in text:
            break
        plain = unescape(text)
        if plain == text:
            break
        text = plain
    if not text.isascii():
        text = _ACCENT.sub("", unicodedata.normalize("NFKD", text))
    text = text.lower()
    if "\\" in text:
        text = text.replace("\\", "")
    if "category" in text:
        text = _CATEGORY.sub(" ", text)
    if "[" in text:
        text = _SERIAL.sub(" ", text)
    if "#" in text:
        text = _HASHTAG.sub(" ", text)
    if "http" in text:
        text = _LINK.sub(" ", text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if "translat" in text:
        text = _TRANSLATOR.sub(" ", text)
    if "?" in text or "*" in text:
        text = _LOST_ACCENT.sub("", text)
    return _REPEATED.sub(r"\1", text)


def read(text: str) -> Reading:
    """Everything that linking compares of a text."""
    text = text[:MOST_CHARACTERS]
    if ":" in text and "-" in text:
        text = _STAMP.sub(" ", text)
    contacts: list[str] = []
    if _has_contact(text):
        parts: list[str] = []
        at = 0
        for found in masking.find(text):
            contacts.append(f"{found.kind}:{found.value}")
            parts.append(text[at : found.start])
            at = found.end
        parts.append(text[at:])
        text = " ".join(parts)
    text = normalise(text)
    if "_" in text:
        contacts.extend(f"{kind}:{value}" for kind, value in _PLACEHOLDER.findall(text))
        text = _PLACEHOLDER.sub(" ", text)
    if "[" in text:
        text = _OWN_PLACEHOLDER.sub(" ", text)
    if "2" in text:
        text = _TWICE.sub("", text)

    tokens = _TOKEN.findall(text)
    spelt = [_SPELLING.get(t, t) for t in tokens if t > ":"]  # digits sort before the colon
    spelt = [w for w in spelt if w not in _FORM]
    numbered: dict[tuple[str, int], None] = {}
    for i in [i for i, t in enumerate(tokens) if t < ":" and len(t) <= 11]:
        before = _word_before(tokens, i)
        after = tokens[i + 1] if i + 1 < len(tokens) else ""
        if before and before not in _CLOCK and after not in _NOT_COUNTS and len(numbered) < MOST_NUMBERS:
            for number in _whole_numbers(tokens[i]):
                numbered[before, number] = None
    key = 0
    if tokens:
        key = int.from_bytes(blake2b(" ".join(tokens).encode(), digest_size=8).digest())
    return Reading(
        tuple(dict.fromkeys(spelt))[:MOST_WORDS], len(spelt), tuple(numbered), tuple(dict.fromkeys(contacts)), key
    )


def common_spelling(word: str) -> str:
    """The common spelling of a lower-case word that people write in several ways; any other word as it is."""
    return _SPELLING.get(word, word)


def _word_before(tokens: list[str], i: int) -> str:
    """The word that a number belongs to: the nearest one before it, over `no`, `nomor` and two more numbers."""
    for token in tokens[i - 1 : i - 5 if i > 4 else None : -1] if i else ():
        if token > ":":
            word = _SPELLING.get(token, token)
            if word not in _SKIPPED:
                return word
    return ""


def _whole_numbers(token: str) -> list[int]:
    """The numbers of a token that are neither a decimal nor a time nor a date: `12`, `005/012`, `122-178`."""
    parts = token.replace("/", "-").split("-")
    if len(parts) > 2 or not all(p.isdigit() and len(p) <= 5 for p in parts):
        return []
    return [int(p) for p in parts]


def _has_contact(text: str) -> bool:
    """Cheap look before the careful one: an `@`, or digits enough for a telephone number."""
    return "@" in text or _SEVEN_DIGITS.search(text) is not None
