"""What reading of free text reaches: needs, urgency, depth, English needs, intents.

    python -m bench.reading [--json] [--part open|both]

The labelled sets lie outside the repository, in the folder named by GOTONG_SHARED (else `../shared` beside the
repository). The labelled Indonesian texts and our own inbound texts are split by a fixed hash: rules were written from
the open part alone; of the shut part nothing but figures is ever printed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPEN = 100
"""So many of the labelled Indonesian texts may be read; the others are shut."""
_SALT = "gotong needs 2026:"


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
