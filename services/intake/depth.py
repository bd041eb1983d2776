"""Depth of water as people write it: `50-60 cm`, `1,5 meter`, `setengah meter`, `sepinggang orang dewasa`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from statistics import mean

from services.intake.phrases import Phrases, Span, Token, data, tokens

_LONGEST_METRES = 4.0  # a longer length in metres is a distance


@dataclass(frozen=True, slots=True)
class Depth:
    """How deep the water is said to stand, in centimetres, and the words that say it."""

    cm: float
    words: Span
    measured: bool  # told in centimetres or metres, not by a part of the body


@cache
def _rules() -> tuple[Phrases, dict[str, float], dict[str, float], frozenset[str], frozenset[str], float]:
    rules = data("depth.yaml")
    groups: dict[str, list[str]] = {}
    before = "|".join(word for word in rules["before"] if " " not in word)
    wordy = [word for word in rules["before"] if " " in word]
    after = "|".join(word for word in rules["after"] if " " not in word)
    for cm, parts in rules["parts"].items():
        phrases = groups.setdefault(str(cm), [])
        for part in parts:
            phrases += [f"{joint}{part}" for joint in rules["joined"]]
            phrases += [f"{before} ~1 {part}", *(f"{lead} ~1 {part}" for lead in wordy)]
            phrases += [f"{part} {after}", f"{part} orang dewasa"]
    return (
        Phrases(groups),
        {str(word): float(size) for word, size in rules["units"].items()},
        {str(word): float(size) for word, size in rules["words"].items()},
        frozenset(rules["not_before"]),
        frozenset(rules["not_after"]),
        float(rules["deepest"]),
    )


def known_words() -> set[str]:
    """Every word that a depth may be told by, so that no speller takes one for another word."""
    phrases, units, spelled, _, _, _ = _rules()
    return phrases.words | set(units) | set(spelled)


def depth(text: str) -> Depth | None:
    """The depth that a text names; None where it names none. Of several the deepest, and a measure before a part of
    the body."""
    return depth_in(tokens(text))


def depth_in(words: Sequence[Token]) -> Depth | None:
    """As `depth`, of a text that is in tokens already."""
    deepest = _rules()[5]
    found = _measures(words) or _parts(words)
    if not found:
        return None
    best = max(found, key=lambda d: (d.cm, -d.words.start))
    return Depth(min(best.cm, deepest), best.words, best.measured)


def _measures(words: Sequence[Token]) -> list[Depth]:
    _, units, spelled, not_before, not_after, _ = _rules()
    found: list[Depth] = []
    i = 0
    while i < len(words):
        first = i
        value = words[i].number if words[i].number is not None else spelled.get(words[i].word)
        if value is None:
            i += 1
            continue
        if words[i].word == "semeter":
            found.append(Depth(100.0, Span(words[i].start, words[i].end), True))
            i += 1
            continue
        values = [value]
        j = i + 1
        unit: str | None = None
        # `50-60 cm`, `50 cm - 1 meter`, `30 sampai 50 cm`
        while j < len(words) and len(values) < 3:
            token = words[j]
            if token.word in units and unit is None:
                unit = token.word
                values = [v * units[token.word] for v in values]
                j += 1
            elif (
                token.word in ("-", "sampai", "hingga", "sd", "atau", "to")
                and j + 1 < len(words)
                and words[j + 1].number is not None
            ):
                following = words[j + 2].word if j + 2 < len(words) else ""
                number = words[j + 1].number or 0.0
                if unit is not None and following not in units:
                    break
                values.append(number * units[following] if unit is not None else number)
                j += 3 if unit is not None else 2
            else:
                break
        i = max(j, i + 1)
        if unit is None:
            continue
        if any(token.word in not_before or token.base in not_before for token in words[max(0, first - 3) : first]):
            continue
        if j < len(words) and words[j].word in not_after:
            continue
        cm = mean(values[-2:])
        if 1 <= cm <= _LONGEST_METRES * 100:
            found.append(Depth(cm, Span(words[first].start, words[j - 1].end), True))
    return found


def _parts(words: Sequence[Token]) -> list[Depth]:
    phrases = _rules()[0]
    hits = phrases.find(words)
    # `pangkal paha` is not `paha`: what ends at one word is one thing, told by the longest phrase.
    by_end: dict[int, tuple[int, Depth]] = {}
    for hit in hits:
        span = Span(words[hit.first].start, words[hit.last].end)
        length = len([part for part in hit.phrase.split() if not part.startswith("~")])
        known = by_end.get(hit.last)
        if known is None or length > known[0]:
            by_end[hit.last] = (length, Depth(float(hit.name), span, False))
    return [d for _, d in chain(by_end.values())]
