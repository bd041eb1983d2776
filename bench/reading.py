"""What reading of free text reaches: needs, urgency, depth, English needs, intents.

    python -m bench.reading [--json] [--open]     # --open: leaves the shut parts unread

The labelled sets lie outside the repository, in the folder named by GOTONG_SHARED (else `../shared` beside the
repository). The labelled Indonesian texts and our own inbound texts are split by a fixed hash: rules were written from
the open part alone; of the shut part nothing but figures is ever printed.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from services.intake.depth import depth
from services.intake.intents import intent_of
from services.intake.needs_text import reader

SEED = 20261124
ROOT = Path(__file__).resolve().parent.parent
OPEN = 100
"""So many of the labelled Indonesian texts may be read; the others are shut."""
_SALT = "gotong needs 2026:"
LABELS = (
    "help_unspecified", "infrastructure", "pump", "evacuation", "access", "electricity", "shelter", "water", "food",
    "medical",
)  # fmt: skip
"""The labels of the Indonesian set; it calls rescue evacuation too."""
ENGLISH = {
    "water": {"water"},
    "food": {"food"},
    "shelter": {"shelter"},
    "medical": {"medical_help", "medical_products"},
    "search_and_rescue": {"search_and_rescue"},
}
"""Our topics and the labels of the English set that mean them."""
_SLIDER_DEFAULT = "44"
_SLIDER_END = 200.0


@dataclass(frozen=True, slots=True)
class Labelled:
    """One labelled Indonesian text."""

    text: str
    needs: frozenset[str]
    urgency: str
    vulnerable: bool
    shut: bool


def shared_data() -> Path | None:
    """The folder of labelled and real sets; None where there is none."""
    folder = Path(os.environ.get("GOTONG_SHARED", ROOT.parent / "shared")) / "data"
    return folder if (folder / "petabencana" / "need_labels.csv").exists() else None


def plain(text: str) -> str:
    """A text without what does not tell it from another: case, spacing, punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def indonesian(data: Path) -> list[Labelled]:
    """The labelled texts. The hash is of the text alone, so that copies fall into one part."""
    texts = _petabencana_texts(data)
    with (data / "petabencana" / "need_labels.csv").open(encoding="utf-8") as file:
        labels = list(csv.DictReader(file))
    ranked = sorted(
        labels, key=lambda row: hashlib.sha256((_SALT + plain(texts[row["set"], row["id"]])).encode()).hexdigest()
    )
    return [
        Labelled(
            texts[row["set"], row["id"]], frozenset(row["needs"].split()) - {"none"}, row["urgency"],
            row["vulnerable"] == "1", place >= OPEN,
        )
        for place, row in enumerate(ranked)
    ]  # fmt: skip


def _petabencana_texts(data: Path) -> dict[tuple[str, str], str]:
    texts: dict[tuple[str, str], str] = {}
    with (data / "petabencana" / "reports_2020_2021.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            texts["reports_2020_2021", row["id"]] = "\n".join(part for part in (row["title"], row["text"]) if part)
    name = "reports_2017_02_jabodetabek"
    for feature in json.loads((data / "petabencana" / f"{name}.geojson").read_text(encoding="utf-8"))["features"]:
        found: dict[str, Any] = feature["properties"]
        texts[name, str(found["report_id"])] = "\n".join(
            part for part in (found.get("title"), found.get("text")) if part
        )
    return texts


# ---- figures -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Score:
    """Right, wrongly found and missed."""

    right: int
    wrong: int
    missed: int

    def figures(self) -> dict[str, float]:
        found, wanted = self.right + self.wrong, self.right + self.missed
        return {
            "precision": round(self.right / found, 3) if found else 0.0,
            "recall": round(self.right / wanted, 3) if wanted else 0.0,
            "f1": round(f1(self), 3),
            "n": wanted,
        }


def f1(score: Score) -> float:
    total = 2 * score.right + score.wrong + score.missed
    return 2 * score.right / total if total else 0.0


def score(pairs: Sequence[tuple[frozenset[str], frozenset[str]]]) -> Score:
    """Of pairs (found, wanted) all labels together."""
    return Score(
        sum(len(found & wanted) for found, wanted in pairs),
        sum(len(found - wanted) for found, wanted in pairs),
        sum(len(wanted - found) for found, wanted in pairs),
    )


def interval(size: int, figure: Callable[[Sequence[int]], float], draws: int = 2000) -> list[float]:
    """The 95 % bootstrap interval of a figure of a sample, given the places of its rows."""
    luck = random.Random(SEED)
    found = sorted(figure([luck.randrange(size) for _ in range(size)]) for _ in range(draws))
    return [round(found[int(draws * share)], 3) for share in (0.025, 0.975)]


def needs_figures(rows: Sequence[Labelled]) -> dict[str, Any]:
    """How the reader does on labelled Indonesian texts."""
    pairs = []
    urgent = []
    vulnerable = Counter[tuple[bool, bool]]()
    for row in rows:
        reading = reader().read(row.text)
        found = {"evacuation" if n.label == "search_and_rescue" else n.label for n in reading.needs}
        pairs.append((frozenset(found & set(LABELS)), row.needs))
        urgent.append(reading.urgency == row.urgency)
        vulnerable[bool(set(reading.vulnerable) - {"children"}), row.vulnerable] += 1
    majority = Counter(row.urgency for row in rows).most_common(1)[0][1] / len(rows)
    return {
        "texts": len(rows),
        "micro_f1": round(f1(score(pairs)), 3),
        "micro_f1_95": interval(len(rows), lambda places: f1(score([pairs[i] for i in places]))),
        "labels": {
            name: score([(found & {name}, wanted & {name}) for found, wanted in pairs]).figures() for name in LABELS
        },
        "urgency_accuracy": round(sum(urgent) / len(rows), 3),
        "urgency_95": interval(len(rows), lambda places: sum(urgent[i] for i in places) / len(places)),
        "urgency_majority": round(majority, 3),
        "vulnerable": {"found": vulnerable[True, True], "missed": vulnerable[False, True],
                       "wrongly": vulnerable[True, False]},
    }  # fmt: skip


def depth_figures(data: Path) -> dict[str, Any]:
    """How far the depth read from a text is from the reporter's slider, over rows where the slider was moved."""
    pairs: list[tuple[float, float, bool]] = []
    rows = 0
    with (data / "petabencana" / "reports_2020_2021.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["flood_depth_cm"] in ("", _SLIDER_DEFAULT):
                continue
            rows += 1
            found = depth("\n".join(part for part in (row["title"], row["text"]) if part))
            if found is not None:
                pairs.append((found.cm, min(float(row["flood_depth_cm"]), _SLIDER_END), found.measured))

    def over(chosen: list[tuple[float, float, bool]]) -> dict[str, float]:
        return {
            "rows": len(chosen),
            **{f"within_{cm}_cm": round(sum(abs(a - b) <= cm for a, b, _ in chosen) / len(chosen), 3)
               for cm in (10, 20, 30)},
            "rank_correlation": round(float(spearmanr([a for a, _, _ in chosen], [b for _, b, _ in chosen])[0]), 3),
        }  # fmt: skip

    return {
        "rows_with_slider": rows,
        "all": over(pairs),
        "measured": over([p for p in pairs if p[2]]),
        "parts_of_the_body": over([p for p in pairs if not p[2]]),
    }


def english_figures(data: Path) -> dict[str, Any]:
    """Topics against the labels of the English set. Its labels say what a message speaks of, not what it asks for."""
    pairs: list[tuple[frozenset[str], frozenset[str]]] = []
    began = time.perf_counter()
    with (data / "disaster-messages" / "messages.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["related"] not in ("0", "1"):
                continue
            labels = set(row["labels"].split())
            pairs.append(
                (reader().read(row["message"]).topics, frozenset(ours for ours, theirs in ENGLISH.items()
                                                                 if theirs & labels))
            )  # fmt: skip
    each = {name: score([(found & {name}, wanted & {name}) for found, wanted in pairs]).figures() for name in ENGLISH}
    return {
        "messages": len(pairs),
        "macro_f1": round(sum(figures["f1"] for figures in each.values()) / len(each), 4),
        "labels": each,
        "messages_a_second": round(len(pairs) / (time.perf_counter() - began)),
    }


def inbound(part: str) -> list[tuple[str, str, int | None]]:
    """Our own inbound texts of one part: text, intent, quantity."""
    with (ROOT / "tests" / "intake" / "data_intents.csv").open(encoding="utf-8") as file:
        return [
            (row["text"], row["intent"], int(row["quantity"]) if row["quantity"] else None)
            for row in csv.DictReader(file)
            if row["part"] == part
        ]


def intent_figures(part: str) -> dict[str, Any]:
    """How intents do. A wrong acceptance: a yes or a receipt that was none, or one with another quantity."""
    rows = inbound(part)
    right = 0
    wrong_yes = wrong_receipt = wrong_quantity = asked_back = 0
    missed = Counter[str]()
    for text, intent, quantity in rows:
        found = intent_of(text)
        right += found.intent == intent
        wrong_yes += found.intent == "yes" and intent != "yes"
        wrong_receipt += found.intent == "received" and intent != "received"
        wrong_quantity += found.intent == intent == "yes" and found.quantity != quantity
        asked_back += found.intent == "unsure" and intent != "unsure"
        if found.intent != intent:
            missed[f"{intent} taken for {found.intent}"] += 1
    return {
        "texts": len(rows),
        "accuracy": round(right / len(rows), 4),
        "wrong_acceptances": wrong_yes + wrong_receipt,
        "wrong_quantities": wrong_quantity,
        "asked_back_needlessly": asked_back,
        "mistakes": dict(missed.most_common()),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.reading", description="What reading of free text reaches.")
    parser.add_argument("--json", action="store_true", help="print one object")
    parser.add_argument("--open", action="store_true", help="leave the shut parts unread")
    chosen = parser.parse_args(argv)
    parts = ("open",) if chosen.open else ("open", "shut")
    figures: dict[str, Any] = {"seed": SEED, "machine": f"{platform.machine()}, Python {platform.python_version()}"}
    data = shared_data()
    if data is not None:
        rows = indonesian(data)
        figures["needs"] = {part: needs_figures([r for r in rows if r.shut == (part == "shut")]) for part in parts}
        figures["depth"] = depth_figures(data)
        figures["english"] = english_figures(data)
    figures["intents"] = {part: intent_figures(part) for part in parts}
    if chosen.json:
        print(json.dumps(figures))
        return 0
    if data is None:
        print("The labelled sets are not here (GOTONG_SHARED, else ../shared): own inbound texts alone.")
    _print(figures)
    return 0


def _print(figures: dict[str, Any], indent: str = "") -> None:
    for name, value in figures.items():
        if isinstance(value, dict) and any(isinstance(v, dict) for v in value.values()):
            print(f"{indent}{name}")
            _print(value, indent + "  ")
        elif isinstance(value, dict):
            print(f"{indent}{name:26} " + "  ".join(f"{k} {v}" for k, v in value.items()))
        else:
            print(f"{indent}{name:26} {value}")


if __name__ == "__main__":
    raise SystemExit(main())
