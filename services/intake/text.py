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

# Lines and labels that forms and translators put into a text; they are equal in every report of that form.
_FORM = re.compile(
    r"\btime\s{0,3}:\s{0,3}\d{4}-\d\d-\d\d[ t]\d\d:\d\d(?::\d\d)?"
    r"|\b(?:idushahidi|latitude|longitude|lat|lon|long)\s{0,6}:\s{0,6}-?\d{1,7}(?:\.\d{1,12})?"
    r"|\btype\s{0,6}:\s{0,6}\w{1,20}"
    r"|\bcategory\s{0,3}:\s{0,3}(?:\d{1,2}[a-z]?\.[^\n\[~]{0,40})?(?:\[\d{1,6}\])?"
    r"|\b(?:en(?:gl|lg)ish|creole|kreyol|comments|additional notes?|no street address given)\b\s{0,3}:?"
    r"|\[\d{3,6}\]"
    r"|~{3,}"
    r"|\b\d{1,4}[/.\-]\d{1,2}[/.\-]\d{2,4}\b|\b\d{1,2}:\d\d(?::\d\d)?\b"
    r"|\b(?:jan|feb|mar|apr|may|jun)[a-z]{0,6}\.?\s\d{1,2}(?:st|nd|rd|th)?\b|\b\d{1,2}(?:st|nd|rd|th)\b"
    r"|https?://\S{1,300}"
    r"|<[a-z/!][^<>]{0,200}>"
    r"|\([^()]{0,60}translat[^()]{0,60}\)"
)
_PLACEHOLDER = re.compile(r"\[?(phone|email)_([0-9a-z]{4,12})\]?")
_OWN_PLACEHOLDER = re.compile(r"\[(?:nomor|email|nik|nama)\]")
_LOST_ACCENT = re.compile(r"(?<=[a-z0-9])[?*]{1,3}(?=[a-z])|(?<=[a-z])[?*]{1,3}")
_REPEATED = re.compile(r"([a-z])\1{2,}")
_TWICE = re.compile(r"\b([a-z]{3,})2\b")
_TOKEN = re.compile(r"[a-z]+(?:_[a-z0-9]+)?|\d+(?:[.,:]\d+)*")

_LISTS = json.loads(resources.files("services.intake").joinpath("text_words.json").read_text(encoding="utf-8"))
_MEASURE = frozenset(_LISTS["measures"].split())  # after a number: it is a depth, a distance or a duration
_CLOCK = frozenset(_LISTS["clock"].split())  # before a number: it is a time
_SKIPPED = frozenset(_LISTS["skipped"].split())  # `no 49`: the word before them is what the number belongs to
# Informal spelling to the common one. Only what people really mix; stems and synonyms are not our business.
_SPELLING = {informal: common for common, forms in _LISTS["spelling"].items() for informal in forms.split()}
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
    """Lower case, no accents, no markup, no form lines, no letter three times in a row."""
    for _ in range(3):  # seen escaped twice in real exports (`&amp;amp;`)
        if "&" not in text:
            break
        plain = unescape(text)
        if plain == text:
            break
        text = plain
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        text = "".join(c for c in text if not unicodedata.combining(c))
    text = text.lower().replace("\\", "")
    text = _FORM.sub(" ", text)
    text = _LOST_ACCENT.sub("", text)
    return _REPEATED.sub(r"\1", text)


def read(text: str) -> Reading:
    """Everything that linking compares of a text."""
    text = text[:MOST_CHARACTERS]
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
    text = _TWICE.sub(r"\1", text)

    tokens = _TOKEN.findall(text)
    words: dict[str, None] = {}
    numbered: dict[tuple[str, int], None] = {}
    length = 0
    before = ""  # the last word that is not `no`, `nomor` …
    for i, token in enumerate(tokens):
        if token[0].isalpha():
            word = _SPELLING.get(token, token)
            length += 1
            if len(words) < MOST_WORDS:
                words[word] = None
            if word not in _SKIPPED:
                before = word
        elif len(token) <= 5 and token.isdigit():
            after = tokens[i + 1] if i + 1 < len(tokens) else ""
            if after in _MEASURE or before in _CLOCK:
                continue
            if before and len(numbered) < MOST_NUMBERS:
                numbered[before, int(token)] = None
    key = 0
    if tokens:
        key = int.from_bytes(blake2b(" ".join(tokens).encode(), digest_size=8).digest())
    return Reading(tuple(words), length, tuple(numbered), tuple(dict.fromkeys(contacts)), key)


def _has_contact(text: str) -> bool:
    """Cheap look before the careful one: an `@`, or digits enough for a telephone number."""
    return "@" in text or sum(map(len, _DIGIT_RUN.findall(text))) >= 7


_DIGIT_RUN = re.compile(r"\d+")
