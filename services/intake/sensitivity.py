"""Protected classes: which texts speak of what must not be known too exactly. Pure; the words are in `data/`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from services.intake.phrases import Phrases, data, tokens

PUBLIC_RESOLUTION = 5
"""H3 resolution in which the public sees a protected incident: cells of about 250 km², in place of 5 km²."""


@cache
def _rules() -> tuple[Phrases, tuple[str, ...], re.Pattern[str]]:
    """The phrases by class, the classes in their order, and what any of the phrases begins with."""
    cells = data("sensitivity.yaml")
    groups = {
        name: [phrase.strip() for line in lines for phrase in str(line).split(";")] for name, lines in cells.items()
    }
    firsts = {word for phrases in groups.values() for phrase in phrases for word in phrase.split()[0].split("|")}
    beginnings = "|".join(sorted((re.escape(word.rstrip("*")) for word in firsts), key=len, reverse=True))
    return Phrases(groups), tuple(groups), re.compile(rf"\b(?:{beginnings})", re.IGNORECASE)


def sensitivity_of(*texts: str | None) -> str | None:
    """The protected class that a report's words speak of, None for none."""
    text = "\n".join(part for part in texts if part)
    phrases, _, beginnings = _rules()
    if not text or beginnings.search(text) is None:
        return None
    return strongest(hit.name for hit in phrases.find(tokens(text)))


def strongest(classes: Iterable[str | None]) -> str | None:
    """The class that counts where several are said: the first in the order of the data file, an unknown one last."""
    said = {name for name in classes if name}
    if not said:
        return None
    order = _rules()[1]
    return min(said, key=lambda name: (order.index(name) if name in order else len(order), name))
