"""What an inbound text wants: an answer to our question, a report, a question of its own.

A yes and a "received" commit somebody, so they are taken only where every word of the text is known to be harmless;
what is doubtful comes out as `unsure`, and whoever sent it is asked again. Pure: the same text, the same intent.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from services.intake.needs_text import NeedsReading, reader
from services.intake.phrases import EVERYDAY, Hit, Phrases, Span, Speller, Token, data, tokens

Intent = Literal["report", "status", "yes", "no", "unsure", "received", "not_received", "stop"]

LONGEST_ANSWER = 12
"""More words than this are no answer to a question of ours."""
_CODE = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{4}(?:-?[0-9A-HJKMNP-TV-Z]{4}){0,2}\b", re.IGNORECASE)
_QUESTIONS = frozenset(
    {"apa", "apakah", "siapa", "kenapa", "mengapa", "bagaimana", "dimana", "mana", "berapa", "kapan", "who", "what"}
    | {"where", "when", "why", "how", "which"}
)
_ASKING = frozenset(
    {"is", "are", "am", "can", "could", "do", "does", "did", "have", "has", "had", "will", "would", "should", "may"}
)
_MOTION = frozenset({"sampai", "datang", "tiba", "masuk", "arrived", "come", "came"})
_SELF_OR_PLACE = frozenset({"saya", "aku", "kami", "kita", "i", "we", "tim", "posko", "lokasi", "sini", "here"})


@dataclass(frozen=True, slots=True)
class IntentReading:
    """What a text wants. `quantity`: the number said with a yes or a receipt; `codes`: tickets or offer codes in it;
    `words`: what decided; `because`: the rule that did. An `unsure` one is to be asked back."""

    intent: Intent
    quantity: int | None
    codes: tuple[str, ...]
    words: tuple[Span, ...]
    because: str


@dataclass(frozen=True, slots=True)
class _Rules:
    phrases: Phrases
    speller: Speller
    numbers: dict[str, float]
    units: frozenset[str]
    yes_words: frozenset[str]  # words that may stand in a yes
    receipt_words: frozenset[str]  # words that may stand in a receipt
    things: frozenset[str]


@cache
def _rules() -> _Rules:
    rules = data("intents.yaml")
    grammar = data("need_grammar.yaml")
    harmless = rules["harmless"]
    groups: dict[str, list[str]] = {
        name: _phrases_of(rules[name])
        for name in ("yes", "yes_bare", "yes_weak", "yes_never", "no_never", "received", "received_never",
                     "not_received", "not_received_alone", "status", "stop", "stop_alone", "no",
                     "unsure", "partial", "but", "hazard", "want", "help_alone", "safe_water")
    } | {"thanks": _phrases_of(harmless["thanks"])}  # fmt: skip
    phrases = Phrases(groups)
    numbers = {str(word): float(n) for word, n in grammar["numbers"].items()}
    path = resources.files("services.intake") / "data" / "need_words.csv"
    things = {
        word
        for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        if row["kind"] == "thing" and (row["item"] or row["skill"])
        for phrase in row["words"].split(";")
        for word in phrase.split()
        if word.isalpha()
    }
    # `makanan siap saji` makes no thing of `siap`.
    things -= {"air", "water"}
    things -= _words_of(harmless, ("address", "self", "now", "filler", "people")) | {
        word for phrase in _phrases_of(rules["yes"]) for word in phrase.split()
    }
    counted = things | set(numbers) | {str(word) for word in grammar["counters"]}
    yes_words = counted | _words_of(harmless, ("address", "self", "now", "filler", "thanks", "people"))
    receipt_words = yes_words | _words_of(harmless, ("earlier", "aid"))
    speller = Speller(phrases.words | receipt_words, EVERYDAY, shortest=6)
    return _Rules(
        phrases, speller, numbers, frozenset(grammar["not_count_after"]) | set(grammar["counters"]),
        _as_read(yes_words), _as_read(receipt_words), _as_read(things | _words_of(harmless, ("aid",))),
    )  # fmt: skip


def _words_of(harmless: dict[str, list[str]], names: Iterable[str]) -> set[str]:
    return {word for name in names for phrase in harmless[name] for word in phrase.split()}


def _as_read(words: set[str]) -> frozenset[str]:
    """The words and their common spellings."""
    return frozenset(words | {token.word for word in words for token in tokens(word)})


def intent_of(text: str, reading: NeedsReading | None = None) -> IntentReading:
    """What a text wants. `reading` is what `needs_text` found in it, if that is known already."""
    rules = _rules()
    bare, codes = _without_codes(text, rules)
    words = tokens(bare, rules.speller)
    found: dict[str, list[Hit]] = {}
    for hit in rules.phrases.find(words):
        found.setdefault(hit.name, []).append(hit)
    said = [token for token in words if not token.break_ and token.word not in (",", "-")]
    question = "?" in bare[:10_000]

    def decided(intent: Intent, because: str, quantity: int | None = None) -> IntentReading:
        spans = tuple(Span(words[h.first].start, words[h.last].end) for h in found.get(because, []))
        return IntentReading(intent, quantity, codes, spans, because)

    def harmless(groups: tuple[str, ...], known: frozenset[str]) -> bool:
        """Whether every word is of these phrases or known to be harmless."""
        covered = _covered(found, *groups, "thanks")
        return all(
            i in covered or token.break_ or token.number is not None or token.word in (",", "-")
            or token.word in known or token.base in known
            for i, token in enumerate(words)
        )  # fmt: skip

    # `terima kasih` tells of no receipt, `no problem` denies nothing.
    for group, other in (("received", "thanks"), ("no", "no_never")):
        apart = _covered(found, other)
        kept = [hit for hit in found.get(group, ()) if hit.first not in apart]
        if group in found and not kept:
            del found[group]
    if not said:
        return IntentReading("unsure", None, codes, (), "no words")
    short = len(said) <= LONGEST_ANSWER
    if short and "stop" in found and "hazard" not in found:
        return decided("stop", "stop")
    if len(said) <= 4 and "stop_alone" in found and not question and harmless(("stop_alone",), rules.yes_words):
        return decided("stop", "stop_alone")

    if short and _settled(said, found, question):
        receipt = "received" in found and "received_never" not in found
        if (
            receipt
            and harmless(("received", "safe_water"), rules.receipt_words)
            and not _own_arrival(words, said, found, rules)
        ):
            return decided("received", "received", _quantity(words, rules))
        # `tugas diterima` is a yes: what speaks of receiving is part of it.
        agreed = _agrees(said, found, rules) and _covered(found, "received") <= _covered(found, "yes")
        if agreed and harmless(("yes", "yes_bare"), rules.yes_words):
            return decided("yes", "yes", _quantity(words, rules))

    reading = reading if reading is not None else reader().read(text)
    if "not_received" in found and "hazard" not in found and not question:
        return decided("not_received", "not_received")
    if len(said) <= 3 and "not_received_alone" in found and not question and "no" not in found and (
        "unsure" not in found and "hazard" not in found
    ):  # fmt: skip
        return decided("not_received", "not_received_alone")
    if "status" in found and "hazard" not in found:
        return decided("status", "status")
    if "hazard" in found:
        return decided("report", "hazard")
    if "help_alone" in found and len(said) <= 3:
        return decided("report", "help_alone")
    if reading.needs and "want" in found:
        return decided("report", "want")
    denied = [Span(words[h.first].start, words[h.last].end) for h in found.get("no", ())]
    if reading.depth is not None or any(
        (need.item or need.skill)
        and (not denied or any(_overlap(word, no) for word in need.words[1:] for no in denied))
        for need in reading.needs
    ):
        return IntentReading("report", None, codes, tuple(n.words[0] for n in reading.needs)[:3], "needs")
    if short and "unsure" in found and not _denies(found):
        return decided("unsure", "unsure")
    if short and "no" in found and not question:
        return decided("no", "no")
    if short and "no" in found and _denies(found):
        return decided("no", "no")
    return IntentReading("unsure", None, codes, (), "doubtful")


def _settled(said: Sequence[Token], found: dict[str, list[Hit]], question: bool) -> bool:
    """Whether nothing in the text leaves an acceptance open: no question, denial, condition, need or hazard."""
    return not (
        question
        or {"hazard", "unsure", "partial", "but", "want", "not_received", "not_received_alone", "no", "no_never",
            "yes_never"} & found.keys()
        or any(token.word in _QUESTIONS or token.word.endswith("kah") for token in said)
        or (said[0].word in _ASKING and not (len(said) > 1 and said[1].word == "do"))
    )  # fmt: skip


def _agrees(said: Sequence[Token], found: dict[str, list[Hit]], rules: _Rules) -> bool:
    """Whether harmless words say yes: with a thing they name how many, with thanks they say more than `ok`."""
    if "status" in found or not {"yes", "yes_bare"} & found.keys():
        return False
    numbers = [token for token in said if token.number is not None or token.word in rules.numbers]
    things = [token for token in said if token.word in rules.things or token.base in rules.things]
    if len(numbers) > 1 or (things and not numbers):
        return False
    weak = _covered(found, "yes_weak")
    if "yes" not in found:
        return not numbers and not things
    if "thanks" in found and all(hit.first in weak for hit in found["yes"]):
        return False
    # `bisanya`, `siapmu`: something is said of it, it is not said.
    return not any(token.word != token.base and token.word.endswith(("nya", "mu", "ku", "pun")) for token in said)


def _own_arrival(words: Sequence[Token], said: Sequence[Token], found: dict[str, list[Hit]], rules: _Rules) -> bool:
    """Whether it may be the sender who arrived (`kami sudah sampai posko`), not what was sent."""
    named = any(token.word in rules.things or token.base in rules.things for token in said)
    moved = any(
        words[i].word in _MOTION for hit in found["received"] for i in range(hit.first, hit.last + 1)
    )  # fmt: skip
    return moved and not named and any(token.word in _SELF_OR_PLACE for token in said)


def _covered(found: dict[str, list[Hit]], *names: str) -> set[int]:
    return {i for name in names for hit in found.get(name, ()) for i in range(hit.first, hit.last + 1)}


def _overlap(one: Span, other: Span) -> bool:
    return one.start < other.end and other.start < one.end


def _denies(found: dict[str, list[Hit]]) -> bool:
    """Whether it is denied in so many words (`tidak bisa`), beside whatever else is left open."""
    return any(" " in hit.phrase and hit.last > hit.first for hit in found.get("no", ()))


def _without_codes(text: str, rules: _Rules) -> tuple[str, tuple[str, ...]]:
    """The text with ticket and offer codes blanked out, and the codes as they are written here: `K7QM`."""
    codes: list[str] = []

    def blank(found: re.Match[str]) -> str:
        code = found.group()
        if not _is_code(code, rules):
            return code
        codes.append(code.upper())
        return " " * len(code)

    return _CODE.sub(blank, text[:10_000]), tuple(codes)


def _is_code(code: str, rules: _Rules) -> bool:
    """Letters and digits mixed, but no count with its unit (`50cm`, `3org`), no `rt05`; or a whole ticket in capitals,
    of which one in sixty has no digit."""
    if code.isupper() and re.fullmatch(r"\w{4}-\w{4}-\w{4}", code):
        return True
    if code.isdigit() or code.replace("-", "").isalpha() or re.fullmatch(r"[\d-]+", code):
        return False
    tail = re.fullmatch(r"\d+([a-zA-Z]+)", code)
    if tail is not None:
        word = tokens(tail[1])[0].word
        return word not in rules.units and word not in rules.receipt_words and len(tail[1]) == 3
    return re.fullmatch(r"[a-zA-Z]{2,}\d+", code) is None


def _quantity(words: Sequence[Token], rules: _Rules) -> int | None:
    for token in words:
        value = token.number if token.number is not None else rules.numbers.get(token.word)
        if value is not None and 0 < value <= 1_000_000 and value == int(value):
            return int(value)
    return None


def _phrases_of(cells: Iterable[str]) -> list[str]:
    return [phrase.strip() for cell in cells for phrase in str(cell).split(";") if phrase.strip()]
