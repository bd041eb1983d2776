"""Words of a text with their places in it, and phrases from data files found in them.

Everything keeps the offsets of the text as it was given, so that whatever is concluded can point to the words that
it came from. Time is linear in the text: a phrase has at most a few words and bounded gaps, and only those phrases
are tried at a word that can begin with it.

A phrase is words with a space between: `kirim ~3 perahu|boat`. `a|b`: either; `word*`: anything that begins so;
`?word`: may be missing; `~3`: up to three other words of the same sentence; `<name>`: any word of a class; `#`: a
number.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any, NamedTuple

import yaml

from services.intake import text as text_rules

MOST_CHARACTERS = 10_000
_LONGEST_WORD = 24
_MOST_KEPT = 20_000  # words whose mending or phrases are remembered; a flood of new ones starts over

_TOKEN = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)?|\d+(?:[.,]\d+)*|[.!?;\n]+|,|[-\u2013/]")
_BLANKED = re.compile(
    r"https?://\S{1,300}|<[a-zA-Z/!][^<>]{0,200}>|@user_\w{1,16}|\[(?:name|phone|email)_\w{1,16}\]"
    r"|\[(?:nomor|NIK|email|nama)\]|&[a-z]{2,6};|\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?"
)
_REPEATED = re.compile(r"([a-z])\1{2,}")
_ENDINGS = ("nya", "kah", "lah", "pun", "ku", "mu")


def data(name: str) -> Any:
    """A data file of intake, read. Every value is a string: `yes`, `no` and `on` are words here."""
    text = (resources.files("services.intake") / "data" / name).read_text(encoding="utf-8")
    return yaml.load(text, Loader=yaml.BaseLoader)


_WORDS = data("reading_words.yaml")
EVERYDAY = frozenset(str(word) for word in _WORDS["everyday"])
_SPELLING = {form: common for common, forms in _WORDS["spelling"].items() for form in forms.split()}


def spelling(word: str) -> str:
    """The common spelling of a lower-case word."""
    return _SPELLING.get(word) or text_rules.common_spelling(word)


class Token(NamedTuple):
    """One word, number or sign. `word` is its common spelling; `base` the word without what may hang on its end
    (`bantuannya`); `break_`: a sentence ends here; `sentence` counts them."""

    start: int
    end: int
    word: str
    base: str
    sentence: int
    break_: bool = False
    number: float | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the text: `text[start:end]`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A phrase found: the tokens `first` to `last` (included), and the name it is filed under."""

    name: str
    first: int
    last: int
    phrase: str


class Speller:
    """Mends a word that is one letter off a known word; short words and words of everyday language stay."""

    def __init__(self, known: Iterable[str], everyday: Iterable[str], shortest: int = 5) -> None:
        self._shortest = shortest
        self._known = {word for word in known if word.isalpha()}
        self._left_alone = self._known | set(everyday)
        self._by_shorter: dict[str, str] = {}
        self._mended: dict[str, str] = {}
        for word in sorted(self._known):
            if len(word) >= shortest:
                for shorter in (word, *_one_less(word)):
                    self._by_shorter.setdefault(shorter, word)

    def mend(self, word: str) -> str:
        if not self._shortest <= len(word) <= _LONGEST_WORD or word in self._left_alone:
            return word
        mended = self._mended.get(word)
        if mended is None:
            if len(self._mended) >= _MOST_KEPT:
                self._mended.clear()
            mended = self._mended[word] = self._mend(word)
        return mended

    def _mend(self, word: str) -> str:
        found = self._by_shorter.get(word)
        if found is None:
            found = next(
                (
                    known for shorter in _one_less(word)
                    if (known := self._by_shorter.get(shorter)) is not None and abs(len(known) - len(word)) <= 1
                ),
                None,
            )  # fmt: skip
        # The first letter is seldom wrong, and two words that differ in it alone are seldom one (`bunuh`, `butuh`).
        return found if found is not None and found[0] == word[0] else word


def _one_less(word: str) -> list[str]:
    return [word[:i] + word[i + 1 :] for i in range(len(word))]


def tokens(text: str, speller: Speller | None = None) -> list[Token]:
    """The words, numbers and sentence ends of a text, in order, at most of its first 10,000 characters."""
    text = text[:MOST_CHARACTERS]
    if "http" in text or "<" in text or "[" in text or "@" in text or "&" in text or "-" in text:
        text = _BLANKED.sub(lambda found: " " * len(found.group()), text)
    out: list[Token] = []
    sentence = 0
    for found in _TOKEN.finditer(text):
        raw = found.group()
        start, end = found.span()
        if raw == "2" and out and out[-1].end == start and end - out[-1].start > 3 and out[-1].word.isalpha():
            out.append(Token(start, end, out[-1].word, out[-1].base, sentence))  # `ibu2` is `ibu ibu`
        elif raw[0].isdigit():
            out.append(Token(start, end, raw, "#", sentence, number=_number(raw)))
        elif raw[0] in ".!?;\n":
            out.append(Token(start, end, raw[0], raw[0], sentence, break_=True))
            sentence += 1
        elif raw in ",-/\u2013":
            out.append(Token(start, end, "," if raw == "," else "-", raw, sentence))
        else:
            word = _word(raw)
            if speller is not None:
                word = speller.mend(word)
            out.append(Token(start, end, word, _base(word), sentence))
    return out


def _number(raw: str) -> float | None:
    """A number as Indonesians and others write it: `1,5`, `1.5`, `1.000`; None where it is a date or a time."""
    parts = re.split(r"[.,]", raw)
    if len(raw) > 12 or not raw.isascii():
        return None
    if len(parts) == 1:
        return float(raw)
    if all(len(part) == 3 for part in parts[1:]) and len(parts[0]) <= 3 and parts[0] != "0":
        return float("".join(parts))
    if len(parts) == 2:
        return float(".".join(parts))
    return None


@lru_cache(maxsize=_MOST_KEPT)
def _word(raw: str) -> str:
    word = raw.lower()
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFKD", word) if not unicodedata.combining(c))
        word = word.replace("\u2019", "'")
    word = _REPEATED.sub(r"\1", word[:_LONGEST_WORD])
    return spelling(word)


@lru_cache(maxsize=_MOST_KEPT)
def _base(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return spelling(word[: -len(ending)])
    return word


# Phrases


@dataclass(frozen=True, slots=True)
class _Element:
    words: frozenset[str]
    beginnings: tuple[str, ...]
    optional: bool = False
    gap: int = 0
    number: bool = False

    def takes(self, token: Token) -> bool:
        if token.break_:
            return False
        if token.number is not None:
            return self.number
        return (
            token.word in self.words
            or token.base in self.words
            or (bool(self.beginnings) and token.word.startswith(self.beginnings))
        )


class _Entry(NamedTuple):
    """A phrase under its first word. `wants`: one of these words has to be in the text for it; None: no such word."""

    name: str
    phrase: str
    elements: tuple[_Element, ...]
    wants: frozenset[str] | None


class Phrases:
    """Named groups of phrases, found together in one walk over the tokens."""

    def __init__(self, groups: Mapping[str, Iterable[str]], classes: Mapping[str, Sequence[str]] | None = None) -> None:
        self._by_word: dict[str, list[_Entry]] = defaultdict(list)
        self._by_beginning: dict[str, list[_Entry]] = defaultdict(list)
        self._numbers: list[_Entry] = []
        self.words: set[str] = set()
        for name, phrases in groups.items():
            for phrase in phrases:
                self._add(name, str(phrase), classes or {})
        self._sizes = sorted({len(beginning) for beginning in self._by_beginning})
        self._begin_at: dict[tuple[str, str], list[_Entry]] = {}

    def _add(self, name: str, phrase: str, classes: Mapping[str, Sequence[str]]) -> None:
        elements = tuple(_element(part, classes) for part in phrase.split())
        first = elements[0]
        if first.gap or first.optional:
            raise ValueError(f"a phrase begins with a word: {phrase!r}")
        for element in elements:
            self.words |= element.words
        later = [e for e in elements[1:] if not (e.gap or e.optional or e.number or e.beginnings)]
        entry = _Entry(name, phrase, elements, later[-1].words if later else None)
        for word in first.words:
            self._by_word[word].append(entry)
        for beginning in first.beginnings:
            self._by_beginning[beginning].append(entry)
        if first.number:
            self._numbers.append(entry)

    def find(self, words: Sequence[Token]) -> list[Hit]:
        """Every phrase in the text, by place; of one phrase at one place the shortest reading."""
        hits: list[Hit] = []
        there = {token.word for token in words}
        there.update(token.base for token in words)
        for i, token in enumerate(words):
            if token.break_:
                continue
            entries = self._numbers if token.number is not None else self._beginning_at(token.word, token.base)
            for name, phrase, elements, wants in entries:
                if wants is not None and wants.isdisjoint(there):
                    continue
                last = _match(words, i, elements, 0)
                if last is not None:
                    hits.append(Hit(name, i, last, phrase))
        return hits

    def _beginning_at(self, word: str, base: str) -> list[_Entry]:
        """The phrases that may begin with this word."""
        known = self._begin_at.get((word, base))
        if known is None:
            known = list(self._by_word.get(word, ()))
            if base != word:
                known += self._by_word.get(base, ())
            for size in self._sizes:
                if size <= len(word):
                    known += self._by_beginning.get(word[:size], ())
            if len(self._begin_at) >= _MOST_KEPT:
                self._begin_at.clear()
            self._begin_at[word, base] = known
        return known


def _element(part: str, classes: Mapping[str, Sequence[str]]) -> _Element:
    if part.startswith("~"):
        return _Element(frozenset(), (), gap=int(part[1:]))
    optional = part.startswith("?")
    words: list[str] = []
    number = False
    for word in part.removeprefix("?").split("|"):
        if word == "#":
            number = True
        elif word.startswith("<"):
            words += [str(w) for w in classes[word.strip("<>")]]
        else:
            words.append(word)
    plain = [spelling(word) for word in words if not word.endswith("*")]
    begun = tuple(word[:-1] for word in words if word.endswith("*"))
    return _Element(frozenset(plain), begun, optional, number=number)


def _match(words: Sequence[Token], at: int, elements: tuple[_Element, ...], part: int) -> int | None:
    """The last token of the phrase's rest when it stands at token `at`; None where it does not."""
    if part == len(elements):
        return at - 1
    element = elements[part]
    if element.gap:
        for skipped in range(element.gap + 1):
            if at + skipped >= len(words):
                return None
            found = _match(words, at + skipped, elements, part + 1)
            if found is not None:
                return found
            if words[at + skipped].break_:
                return None
        return None
    if at < len(words) and element.takes(words[at]):
        found = _match(words, at + 1, elements, part + 1)
        if found is not None:
            return found
    return _match(words, at, elements, part + 1) if element.optional else None
