"""Needs in free text: what is asked for, how much, for whom and how urgently, each with the words that say so.

`Reader` is the one thing that others use; `reader()` gives the one in service, which goes by word lists and phrases
in `data/`. A trained model takes its place by offering the same one method.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Literal, Protocol

from schemas import vocabulary
from services.intake.depth import Depth, depth_in, known_words
from services.intake.phrases import EVERYDAY, Hit, Phrases, Span, Speller, Token, data, tokens

Urgency = Literal["high", "medium", "low", "none"]
"""high: life in danger now; medium: harm now; low: a complaint, after the fact, or no harm yet; none: no incident."""

HELP = "help_unspecified"
"""Help is asked for without saying which."""

_HARM_NOW = frozenset({"pump", "evacuation", "food", "water", "medical", "shelter", "electricity", "access"})
_VULNERABLE = ("infants", "children", "elderly", "pregnant", "disabled", "sick")
_DEEP_CM = 40.0
_SHALLOW_CM = 20.0


@dataclass(frozen=True, slots=True)
class TextNeed:
    """One thing that is asked for. `label` is what kind of need it is; `item` or `skill` what it means in the
    vocabulary, neither for what no stock or skill meets (a broken dike). `quantity` is in that word's own unit, None
    where the text says none; `assumed`: worked out from the people named, not said. `words`: where it was read, the
    thing itself first."""

    label: str
    item: str | None
    skill: str | None
    quantity: int | None
    words: tuple[Span, ...]
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class People:
    """People named in the text: how many of which group, None where it is not said. `households` counts families."""

    group: str
    count: int | None
    words: Span
    households: bool = False


@dataclass(frozen=True, slots=True)
class NeedsReading:
    """What a text says of needs. `topics`: every kind of need that is spoken of, asked for or not."""

    needs: tuple[TextNeed, ...]
    topics: frozenset[str]
    people: tuple[People, ...]
    urgency: Urgency
    urgent_words: tuple[Span, ...]
    depth: Depth | None
    drill: Span | None

    @property
    def vulnerable(self) -> tuple[str, ...]:
        """The groups named that need more care."""
        return tuple(dict.fromkeys(p.group for p in self.people if p.group != "person"))

    @property
    def persons(self) -> int | None:
        """How many people the text speaks of, families counted by the size of the mean household; None if unsaid."""
        counts = [p.count * (_size_of_household() if p.households else 1) for p in self.people if p.count]
        return max(counts, default=None)


class Reader(Protocol):
    """Whatever reads needs from a text: rules, or a trained model."""

    def read(self, text: str) -> NeedsReading:
        """What the text, Indonesian or English, says of needs."""


@dataclass(frozen=True, slots=True)
class _Thing:
    """A row of need_words.csv."""

    label: str
    kind: str
    item: str | None
    skill: str | None


@dataclass(frozen=True, slots=True)
class _Mention:
    thing: _Thing
    hit: Hit
    asked_by: tuple[Hit, ...] | None  # the phrases that make it a request; None: only spoken of


@cache
def reader() -> Reader:
    """The reader in service."""
    return LexiconReader()


@cache
def _size_of_household() -> int:
    return int(data("need_grammar.yaml")["persons_in_household"])


class LexiconReader:
    """Reads needs by the word list `need_words.csv` and the phrases of `need_grammar.yaml`."""

    def __init__(self) -> None:
        grammar = data("need_grammar.yaml")
        self._things: list[_Thing] = []
        words: dict[str, list[str]] = {}
        path = resources.files("services.intake") / "data" / "need_words.csv"
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
            words[f"thing {len(self._things)}"] = [row["words"]]
            self._things.append(_Thing(row["label"], row["kind"], row["item"] or None, row["skill"] or None))
        groups: dict[str, Iterable[str]] = {
            **words,
            **{
                name: grammar[name]
                for name in ("want", "lacking", "given", "failing", "working", "help", "works_asked", "works_alone",
                             "help_besides", "not_besides", "drill", "not_drill")
            },
            **{f"never {label}": phrases for label, phrases in grammar["never"].items()},
            **{f"urgency {name}": phrases for name, phrases in grammar["urgency"].items()},
            **{f"group {name}": phrases for name, phrases in grammar["vulnerable"].items()},
            **{f"people {name}": phrases for name, phrases in grammar["people"].items()},
        }  # fmt: skip
        self._phrases = Phrases({name: _phrases_of(cells) for name, cells in groups.items()})
        self._speller = Speller(self._phrases.words | known_words(), EVERYDAY, shortest=6)
        self._reach = int(grammar["reach"])
        self._numbers: dict[str, float] = {str(word): float(n) for word, n in grammar["numbers"].items()}
        self._scales: dict[str, float] = {str(word): float(n) for word, n in grammar["scales"].items()}
        self._counters = frozenset(grammar["counters"])
        self._packets = {
            item: {word: float(size) for word, size in sizes.items()} for item, sizes in grammar["packets"].items()
        }
        self._per_person = {code: float(share) for code, share in grammar["per_person"].items()}
        self._not_count_before = frozenset(str(word) for word in grammar["not_count_before"])
        self._not_count_after = frozenset(str(word) for word in grammar["not_count_after"])

    def read(self, text: str) -> NeedsReading:
        """What the text, Indonesian or English, says of needs."""
        words = tokens(text, self._speller)
        found: dict[str, list[Hit]] = {}
        for hit in self._phrases.find(words):
            found.setdefault(hit.name, []).append(hit)
        mentions = self._mentions(words, found)
        people = self._people(words, found)
        needs = self._needs(words, found, mentions, people)
        deep = depth_in(words)
        labels = frozenset(need.label for need in needs)
        urgency, urgent = self._urgency(words, found, people, labels, deep)
        return NeedsReading(
            needs=needs,
            topics=frozenset(m.thing.label for m in mentions) | {need.label for need in needs},
            people=people,
            urgency=urgency,
            urgent_words=urgent,
            depth=deep,
            drill=_drill(words, found),
        )

    # Needs

    def _mentions(self, words: Sequence[Token], found: dict[str, list[Hit]]) -> list[_Mention]:
        hits = [hit for name, group in found.items() if name.startswith("thing ") for hit in group]
        never = {
            name.removeprefix("never "): _covered(group) for name, group in found.items() if name.startswith("never ")
        }
        # A longer phrase holds the shorter one: `perahu karet` is no `perahu`.
        hits.sort(key=lambda h: (h.first - h.last, h.first, h.name))
        taken: set[int] = set()
        kept: list[tuple[_Thing, Hit]] = []
        for hit in hits:
            thing = self._things[int(hit.name.split()[1])]
            covered = range(hit.first, hit.last + 1)
            if any(i in taken for i in covered) or any(i in never.get(thing.label, ()) for i in covered):
                continue
            taken.update(covered)
            kept.append((thing, hit))
        kept.sort(key=lambda pair: pair[1].first)
        near = _Near(words, found)
        return [_Mention(thing, hit, self._asked(near, thing, hit)) for thing, hit in kept]

    def _asked(self, near: _Near, thing: _Thing, hit: Hit) -> tuple[Hit, ...] | None:
        """The phrases that make a mention a request, () for what asks by itself, None for a mere mention."""
        if thing.kind == "state":
            return None if near.before("given", hit, 2) else ()
        if thing.kind == "works":
            asked = near.around("works_asked", hit, 7) or near.before("want", hit, self._reach)
            return (asked,) if asked else None
        if thing.kind == "utility":
            failing = near.after("failing", hit, 5) or near.before("failing", hit, 1)
            return (failing,) if failing and not near.around("working", hit, 5) else None
        if thing.kind == "topic":
            return None
        wanted = near.before("want", hit, 4 if thing.kind == "english" else self._reach) or near.after(
            "lacking", hit, 3
        )
        given = near.around("given", hit, 5)
        # `memberikan bantuan selimut`: the help is given, and with it what follows.
        if wanted is not None and near.before("given", wanted, 2) is not None:
            return None
        if wanted is None or (given is not None and near.distance(given, hit) < near.distance(wanted, hit)):
            return None
        return (wanted,)

    def _needs(
        self,
        words: Sequence[Token],
        found: dict[str, list[Hit]],
        mentions: Sequence[_Mention],
        people: Sequence[People],
    ) -> tuple[TextNeed, ...]:
        needs: list[TextNeed] = []
        for mention in mentions:
            if mention.asked_by is None:
                continue
            thing = mention.thing
            quantity, number = self._quantity(words, mention.hit, thing)
            spans = [_span(words, mention.hit), *(_span(words, hit) for hit in mention.asked_by)]
            if number is not None:
                spans.append(number)
            needs.append(
                TextNeed(
                    "infrastructure" if thing.kind == "works" else thing.label,
                    thing.item, thing.skill, quantity, tuple(spans),
                )
            )  # fmt: skip
        for hit in found.get("works_alone", []):
            needs.append(TextNeed("infrastructure", None, None, None, (_span(words, hit),)))
        works = any(need.label in ("infrastructure", "pump") for need in needs)
        said = found.get("help_besides" if works else "help", [])
        if works:
            elsewhere = _covered(found.get("not_besides", []))
            said = [hit for hit in said if hit.last not in elsewhere]
        # `butuh bantuan makanan` asks for food alone; `butuh bantuan, butuh perahu` for both.
        specific = {m.hit.first: m.hit for m in mentions if m.asked_by is not None}
        wants = {hit.first for hit in found.get("want", [])}
        for hit in said:
            if not self._goes_on(words, hit, specific, wants):
                needs.append(TextNeed(HELP, None, None, None, (_span(words, hit),)))
        return tuple(self._assumed(need, people) for need in _joined(needs))

    def _goes_on(self, words: Sequence[Token], hit: Hit, specific: dict[int, Hit], wants: set[int]) -> bool:
        """Whether a call for help goes on to say which: a thing follows, before the sentence or another wish. In
        `tolong kirim perahu` the second wish is no other one; a comma parts two."""
        parted = False
        for i in range(hit.first, min(len(words), hit.last + self._reach + 1)):
            if i in specific and specific[i].last > hit.first:
                return True
            parted = parted or (i > hit.last and words[i].word == ",")
            if words[i].break_ or (parted and i in wants):
                return False
        return False

    def _quantity(self, words: Sequence[Token], hit: Hit, thing: _Thing) -> tuple[int | None, Span | None]:
        """The number that belongs to a thing: right before it, or right after it, with a counter between or behind."""
        if thing.kind in ("state", "works", "utility", "topic"):
            return None, None
        counter = ""
        i = hit.first - 1
        while i >= 0 and hit.first - i <= 3 and words[i].word in self._counters and words[i].word not in self._numbers:
            counter = words[i].word if words[i].word not in ("lagi", "of", "more") else counter
            i -= 1
        value, first, last = self._number_ending(words, i)
        if value is None:
            i = hit.last + 1
            while i < len(words) and i - hit.last <= 2 and words[i].word in ("sebanyak", "sejumlah", "-", "total", "x"):
                i += 1
            value, first, last = self._number_starting(words, i)
            if value is not None:
                following = words[last + 1].word if last + 1 < len(words) else ""
                counter = following if following in self._counters else ""
        if value is None:
            return None, None
        factor = self._packets.get(thing.item or "", {}).get(counter, 1.0)
        quantity = math.ceil(value * factor - 1e-9)
        if not 0 < quantity <= 1_000_000_000:
            return None, None
        return quantity, Span(words[first].start, words[last].end)

    def _number_ending(self, words: Sequence[Token], i: int) -> tuple[float | None, int, int]:
        """The number whose last word is token `i`."""
        scale = 1.0
        j = i
        if j > 0 and words[j].word in self._scales and words[j].number is None:
            before = words[j - 1]
            if before.number is not None or before.word in self._numbers:
                scale = self._scales[words[j].word]
                j -= 1
        if j < 0:
            return None, i, i
        value = words[j].number if words[j].number is not None else self._numbers.get(words[j].word)
        if value is None or (j > 0 and words[j - 1].word in self._not_count_before):
            return None, i, i
        # `05/12` and `RT-5` name a place; `20-30 orang` counts.
        joined = j > 0 and words[j - 1].word == "-" and words[j].number is not None
        if joined and (words[j - 1].base == "/" or j < 2 or words[j - 2].number is None):
            return None, i, i
        return (value + 10 if scale < 0 else value * scale), j, i

    def _number_starting(self, words: Sequence[Token], i: int) -> tuple[float | None, int, int]:
        """The number whose first word is token `i`."""
        if i >= len(words):
            return None, i, i
        value = words[i].number if words[i].number is not None else self._numbers.get(words[i].word)
        if value is None:
            return None, i, i
        last = i
        if i + 1 < len(words) and words[i + 1].word in self._scales:
            scale = self._scales[words[i + 1].word]
            value = value + 10 if scale < 0 else value * scale
            last = i + 1
        following = words[last + 1].word if last + 1 < len(words) else ""
        if following in self._not_count_after or following == "-":
            return None, i, i
        # `air bersih 50 orang`: a count of people, from which the amount is worked out.
        if following in ("orang", "jiwa", "kk", "keluarga", "people", "persons", "families", "warga", "pengungsi",
                         "anak", "bayi", "lansia"):  # fmt: skip
            return None, i, i
        return value, i, last

    def _assumed(self, need: TextNeed, people: Sequence[People]) -> TextNeed:
        code = need.item or need.skill
        if need.quantity is not None or code not in self._per_person:
            return need
        counts = [p.count * (_size_of_household() if p.households else 1) for p in people if p.count]
        if not counts:
            return need
        return replace(need, quantity=max(1, math.ceil(max(counts) * self._per_person[code])), assumed=True)

    # People

    def _people(self, words: Sequence[Token], found: dict[str, list[Hit]]) -> tuple[People, ...]:
        out: list[People] = []
        counted: set[int] = set()
        for name, group in found.items():
            kind, _, which = name.partition(" ")
            if kind not in ("group", "people"):
                continue
            for hit in group:
                i = hit.first - 1
                while i >= 0 and hit.first - i <= 2 and words[i].word in self._counters:
                    i -= 1
                value, first, _ = self._number_ending(words, i)
                if value is None and kind == "group":
                    after, _, last = self._number_starting_people(words, hit.last + 1)
                    if after is not None:
                        out.append(People(which, int(after), Span(words[hit.first].start, words[last].end)))
                        counted.update(range(hit.first, last + 1))
                        continue
                if value is not None and value >= 1 and words[hit.last].word not in self._not_count_after:
                    span = Span(words[first].start, words[hit.last].end)
                    households = which == "household"
                    count = min(int(value), 1_000_000_000)
                    out.append(People(which if kind == "group" else "person", count, span, households))
                    counted.update(range(first, hit.last + 1))
                elif kind == "group":
                    out.append(People(which, None, _span(words, hit)))
        out.sort(key=lambda p: (p.words.start, -p.words.end))
        return tuple(_widest(out))

    def _number_starting_people(self, words: Sequence[Token], i: int) -> tuple[float | None, int, int]:
        """`lansia 2 orang`"""
        if i >= len(words) or (words[i].number is None and words[i].word not in self._numbers):
            return None, i, i
        value = words[i].number if words[i].number is not None else self._numbers[words[i].word]
        if i + 1 < len(words) and words[i + 1].word in ("orang", "jiwa", "people") and value:
            return value, i, i + 1
        return None, i, i

    # Urgency

    def _urgency(
        self,
        words: Sequence[Token],
        found: dict[str, list[Hit]],
        people: Sequence[People],
        labels: frozenset[str],
        depth: Depth | None,
    ) -> tuple[Urgency, tuple[Span, ...]]:
        calm = _covered(found.get("urgency never_high", []))

        def spans(name: str) -> tuple[Span, ...]:
            return tuple(
                _span(words, hit)
                for hit in found.get(f"urgency {name}", [])
                if not _denied(words, hit) and not (name.startswith("high") and hit.last in calm)
            )

        high = spans("high")
        if any(p.group in _VULNERABLE for p in people):
            high += spans("high_with_vulnerable")
        if high:
            return "high", high
        surely, low, now, nothing = spans("now_surely"), spans("low"), spans("now"), spans("none")
        over = spans("low_surely")
        if now and labels & _HARM_NOW:
            surely += now
        if surely:
            return "medium", surely
        if over:
            return "low", over
        # A call for help in a flood is harm now; a call to mend a drain is not.
        if now and HELP in labels:
            return "medium", now
        if depth is not None and depth.cm >= _DEEP_CM:
            return "medium", (depth.words,)
        if depth is not None and depth.cm <= _SHALLOW_CM:
            low += (depth.words,)
        if low:
            return "low", low
        if now:
            return "medium", now
        if nothing and not labels:
            return "none", nothing
        return ("medium" if words else "none"), ()


class _Near:
    """Which phrase of a group stands nearest before, after or around another within the same sentence."""

    def __init__(self, words: Sequence[Token], found: dict[str, list[Hit]]) -> None:
        self._words = words
        self._starts: dict[str, dict[int, Hit]] = {}
        self._ends: dict[str, dict[int, Hit]] = {}
        for name in ("want", "lacking", "given", "failing", "working", "works_asked"):
            self._starts[name] = {hit.first: hit for hit in found.get(name, [])}
            self._ends[name] = {hit.last: hit for hit in found.get(name, [])}

    def before(self, name: str, hit: Hit, reach: int) -> Hit | None:
        for i in range(hit.first - 1, max(-1, hit.first - 2 - reach), -1):
            if self._words[i].break_:
                return None
            if i in self._ends[name]:
                return self._ends[name][i]
        return None

    def after(self, name: str, hit: Hit, reach: int) -> Hit | None:
        for i in range(hit.last + 1, min(len(self._words), hit.last + 2 + reach)):
            if self._words[i].break_:
                return None
            if i in self._starts[name]:
                return self._starts[name][i]
        return None

    def around(self, name: str, hit: Hit, reach: int) -> Hit | None:
        first, second = self.before(name, hit, reach), self.after(name, hit, reach)
        if first is None or second is None:
            return first or second
        return min((first, second), key=lambda other: self.distance(other, hit))

    @staticmethod
    def distance(one: Hit, other: Hit) -> int:
        return other.first - one.last if one.last < other.first else one.first - other.last


def _denied(words: Sequence[Token], hit: Hit) -> bool:
    """Whether a phrase is denied by the word before it: `tidak ada korban jiwa`, `no injured`."""
    return any(token.word in ("tidak", "tanpa", "nihil", "no", "not", "bukan", "nobody")
               for token in words[max(0, hit.first - 2) : hit.first])  # fmt: skip


def _drill(words: Sequence[Token], found: dict[str, list[Hit]]) -> Span | None:
    real = _covered(found.get("not_drill", []))
    return next((_span(words, hit) for hit in found.get("drill", []) if hit.first not in real), None)


def _covered(hits: Iterable[Hit]) -> set[int]:
    return {i for hit in hits for i in range(hit.first, hit.last + 1)}


def _span(words: Sequence[Token], hit: Hit) -> Span:
    return Span(words[hit.first].start, words[hit.last].end)


def _phrases_of(cells: Iterable[str]) -> list[str]:
    return [phrase.strip() for cell in cells for phrase in str(cell).split(";") if phrase.strip()]


def _joined(needs: Sequence[TextNeed]) -> list[TextNeed]:
    """One need for each thing asked for: the largest quantity, the words of all."""
    joined: dict[tuple[str, str | None, str | None], TextNeed] = {}
    for need in needs:
        key = (need.label, need.item, need.skill)
        known = joined.get(key)
        if known is None:
            joined[key] = need
            continue
        quantity = max((q for q in (known.quantity, need.quantity) if q is not None), default=None)
        words = tuple(dict.fromkeys((*known.words, *need.words)))[:12]
        joined[key] = replace(known, quantity=quantity, words=words)
    return list(joined.values())


def _widest(people: Sequence[People]) -> list[People]:
    """Without those that lie in another (`2 ibu hamil` holds `hamil`)."""
    kept: list[People] = []
    end = -1
    for person in people:
        if person.words.start >= end or (kept and person.group != kept[-1].group and person.words.end > end):
            kept.append(person)
            end = max(end, person.words.end)
    return kept


def stored(reading: NeedsReading) -> dict[str, Any]:
    """What a text says beside its needs, as JSON; what it does not say is left out. `drill` and `depth_words` are
    places in the text; `labels` the kinds of need that it asks for."""
    found: dict[str, Any] = {
        "urgency": None if reading.urgency == "none" else reading.urgency,
        "depth_cm": reading.depth.cm if reading.depth else None,
        "depth_words": [reading.depth.words.start, reading.depth.words.end] if reading.depth else None,
        "persons": reading.persons,
        "vulnerable": list(reading.vulnerable),
        "labels": list(dict.fromkeys(need.label for need in reading.needs)),
        "drill": [reading.drill.start, reading.drill.end] if reading.drill else None,
    }
    return {name: value for name, value in found.items() if value}


def read_needs(text: str) -> list[dict[str, Any]]:
    """`needs_in` of what the reader in service finds in a text."""
    return needs_in(reader().read(text))


def needs_in(reading: NeedsReading) -> list[dict[str, Any]]:
    """The needs of a text in the form in which a report states its own: item or skill and quantity, with the label,
    the places of the words, and `assumed` where the text gives no number (then it is worked out from the people
    named, else one). What no stock and no skill meets is left out, and so is all of a text that says it is a drill.
    """
    if reading.drill is not None:
        return []
    found: list[dict[str, Any]] = []
    for need in reading.needs:
        code = need.item or need.skill
        if code is not None and vocabulary.unit(code) is not None:
            found.append(
                {
                    "item" if need.item else "skill": code,
                    "quantity": need.quantity or 1,
                    "label": need.label,
                    "assumed": need.assumed or need.quantity is None,
                    "words": [[span.start, span.end] for span in need.words],
                }
            )
    return found
