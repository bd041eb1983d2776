"""What a structured matcher can do with needs and offers in free text: tweets of the Nepal earthquake of 2015.

132 labelled pairs (need, offer) of the FIRE 2017 track, development part: positive labels only, five or fewer for a
need, no places, hardly any quantities. A word list turns each text into things; what the engine then decides is only
whether two texts speak of the same thing. So the list is judged as the engine's hard rule "same code", its ranking
beside a plain one by shared words, and the engine's own plan by how many of its pairs are labelled ones.

The word list was written while looking at this part: its figures are no forecast for other texts.
"""

import csv
import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from services.matching.engine import Lot, NeedLine, Settings, solve

THINGS = {
    "water": "water|rail neer|bottled|bottles|drinking",
    "food": "food|foods|meal|meals|ration|rations|biscuits|noodles|rice|packets|hungry|langar|milk|supplies",
    "shelter": "shelter|shelters|sheltering|tent|tents|tarp|"
    "tarps|tarpaulin|tarpaulins|plastic sheets|accommodation|homeless",
    "blankets": "blanket|blankets|clothes|clothing|sleeping bags|mattresses",
    "medicine": "medicine|medicines|meds|medical supplies|medical aid|"
    "first aid|drugs|medical kits|medical equipment|aid kits",
    "medic": "doctor|doctors|medic|medics|nurse|nurses|"
    "medical team|medical teams|paramedics|surgeons|hospital|hospitals",
    "blood": "blood",
    "rescue": "rescue|rescuers|ndrf|search|army|troops|"
    "personnel|soldiers|choppers|helicopters|helicopter|disaster response",
    "ambulance": "ambulance|ambulances",
    "power": "power|electricity|electric|generator|generators|batteries|grid|grids|solar|engineers|light|lights",
    "transport": "transport|flight|flights|evacuate|evacuation|aircraft|planes|plane|bus|buses|trucks|airlift|vehicles",
    "money": "donate|donation|donations|donating|donated|fund|funds|funding|money|cash|fundraiser|fundraising|crore",
    "telephone": "calls|call rates|telecom|phone|sim|network|helpline|helplines|recharge|internet|contact",
    "volunteers": "volunteer|volunteers|manpower|volunteering",
    "sanitation": "latrine|latrines|hygiene|sanitation|sanitary|toilets|diapers|napkins",
}
PATTERNS = {thing: re.compile(rf"\b(?:{words})\b") for thing, words in THINGS.items()}
QUANTITY = re.compile(r"\b(\d[\d,.]*)\s*(lakhs?|lacs?|crores?|k|tons?|tonnes?)?\s+(?:\w+\s+){0,2}?(\w+)")
NOW = datetime(2015, 4, 26, tzinfo=UTC)


def plain(text: str) -> str:
    """Lower-case words without links, handles, placeholders and the mark of a retweet."""
    return re.sub(r"\W+", " ", re.sub(r"https?://\S+|@\w+|\[\w+\]|&\w+;|\brt\b", " ", text.lower()))


def things(text: str) -> set[str]:
    words = plain(text)
    return {thing for thing, pattern in PATTERNS.items() if pattern.search(words)}


def states_quantity(text: str) -> bool:
    """Whether a number stands right before one of the things."""
    words = re.sub(r"https?://\S+|@\w+|\[\w+\]", " ", text.lower())
    return any(pattern.search(found.group(0)) for found in QUANTITY.finditer(words) for pattern in PATTERNS.values())


class SharedWords:
    """Rival: cosine of words weighed by how rare they are, over all texts labelled so."""

    def __init__(self, texts: list[str]) -> None:
        bags = [set(plain(text).split()) for text in texts]
        self.count = Counter(word for bag in bags for word in bag)
        self.texts = len(texts)

    def vector(self, text: str) -> dict[str, float]:
        weight = {w: math.log(1 + self.texts / (1 + self.count[w])) for w in plain(text).split()}
        length = math.sqrt(sum(x * x for x in weight.values())) or 1.0
        return {w: x / length for w, x in weight.items()}


def figures(folder: Path) -> dict[str, Any]:
    with (folder / "tweets.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with (folder / "matches.csv").open(encoding="utf-8") as file:
        pairs = {(row["need_id"], row["availability_id"]) for row in csv.DictReader(file)}
    text = {row["id"]: row["text"] for row in rows}
    needs = sorted(row["id"] for row in rows if row["need"] == "1")
    offers = sorted(row["id"] for row in rows if row["availability"] == "1")
    asked = sorted({need for need, _ in pairs})
    said = {one: things(text[one]) for one in {*needs, *offers, *(x for pair in pairs for x in pair)}}
    every = sorted({*offers, *(offer for _, offer in pairs)})

    # Rare things say more than common ones.
    holders = Counter(thing for one in every for thing in said[one])
    rare = {thing: math.log(1 + len(every) / (1 + holders[thing])) for thing in THINGS}
    shared = {(n, o): said[n] & said[o] for n in asked for o in every}
    feasible = {pair for pair, common in shared.items() if common}

    def by_things(need: str, offer: str) -> float:
        length = math.sqrt(sum(rare[t] for t in said[need]) * sum(rare[t] for t in said[offer])) or 1.0
        return sum(rare[t] for t in shared[need, offer]) / length

    words = SharedWords([text[one] for one in every])
    vectors = {one: words.vector(text[one]) for one in {*every, *asked}}

    def by_words(need: str, offer: str) -> float:
        return sum(weight * vectors[offer].get(word, 0.0) for word, weight in vectors[need].items())

    def among_first(score: Any, first: int = 5) -> float:
        """Share of the labelled offers among the first five of their needs; ties fall by a fixed shuffle."""
        shuffled = Random(7).sample(every, len(every))
        found = 0
        for need in asked:
            top = sorted(shuffled, key=lambda offer: -score(need, offer))[:first]
            found += sum((need, offer) in pairs for offer in top)
        return round(found / len(pairs), 3)

    plan = engine_plan(asked, every, said)
    labelled = {pair for pair in pairs if pair in feasible}
    return {
        "labelled_pairs": len(pairs),
        "needs_with_labels": len(asked),
        "offers": len(every),
        "needs_with_a_thing": round(sum(bool(said[n]) for n in needs) / len(needs), 3),
        "offers_with_a_thing": round(sum(bool(said[o]) for o in offers) / len(offers), 3),
        "needs_with_a_quantity": round(sum(states_quantity(text[n]) for n in needs) / len(needs), 3),
        "offers_with_a_quantity": round(sum(states_quantity(text[o]) for o in offers) / len(offers), 3),
        "labelled_pairs_feasible": round(len(labelled) / len(pairs), 3),
        "all_pairs_feasible": round(len(feasible) / len(shared), 3),
        "feasible_offers_for_a_need": round(len(feasible) / len(asked), 1),
        "labelled_among_first_5_by_things": among_first(by_things),
        "labelled_among_first_5_by_words": among_first(by_words),
        "labelled_among_first_5_by_both": among_first(lambda n, o: by_things(n, o) + by_words(n, o)),
        "labelled_among_first_5_by_chance": round(5 / len(every), 3),
        "plan_pairs": len(plan),
        "plan_needs_met": len({need for need, _ in plan}),
        "plan_pairs_labelled": len(plan & pairs),
    }


def engine_plan(asked: list[str], every: list[str], said: dict[str, set[str]]) -> set[tuple[str, str]]:
    """Pairs of the engine's own plan: one unit of each thing, all at one place, since the texts say no more."""
    lon, lat, end = 85.324, 27.717, NOW + timedelta(days=3)
    lines = [
        NeedLine(f"{n} {t}", "item", t, lon, lat, start=NOW, end=end, quantity=1, severity=3)
        for n in asked
        for t in sorted(said[n])
    ]
    lots = [Lot(f"{o} {t}", t, lon, lat, quantity=1) for o in every for t in sorted(said[o])]
    plan = solve(lines, [], lots, Settings(), now=NOW)
    assert plan.gap == 0
    return {(str(x.need_id).split()[0], str(x.source_id).split()[0]) for x in plan.assignments}
