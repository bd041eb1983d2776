"""What is said to people: texts in `data/templates.yaml`, in Indonesian and English."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from string import Formatter
from typing import Any

import yaml


@cache
def _texts() -> dict[str, dict[str, str]]:
    text = (resources.files("services.channels") / "data" / "templates.yaml").read_text(encoding="utf-8")
    found: dict[str, dict[str, str]] = yaml.load(text, Loader=yaml.BaseLoader)
    return found


def names() -> tuple[str, ...]:
    """Every template there is."""
    return tuple(_texts())


def language_of(said: str | None) -> str:
    """The language in which somebody is written to: English for those who ask for it, else Indonesian."""
    return "en" if (said or "").lower().startswith("en") else "id"


def values_of(name: str, language: str) -> frozenset[str]:
    """The values that a template needs."""
    return frozenset(field for _, field, _, _ in Formatter().parse(_texts()[name][language]) if field)


def parts(
    name: str, language: str | None, values: Mapping[str, Any], *, exercise: bool = False, doubled: bool = False
) -> tuple[str, ...]:
    """The same for a provider that has the text itself: its marks (or who writes, where it has none), then its values
    in the order in which our text names them."""
    chosen = language_of(language)
    marks = [_texts()[mark][chosen] for mark, wanted in (("exercise", exercise), ("doubled", doubled)) if wanted]
    named = [field for _, field, _, _ in Formatter().parse(_texts()[name][chosen]) if field]
    return (" ".join(marks) or "Gotong.", *(str(values[field]).strip() or "-" for field in named))


def render(
    name: str,
    language: str | None,
    values: Mapping[str, Any],
    *,
    exercise: bool = False,
    doubled: bool = False,
) -> str:
    """The text as it is sent. A drill's begins with LATIHAN; one that may have been sent before says so.

    Raises
    ------
    KeyError
        There is no such template, or a value is missing.
    """
    chosen = language_of(language)
    text = _texts()[name][chosen].strip().format(**values)
    marks = [_texts()[mark][chosen] for mark, wanted in (("exercise", exercise), ("doubled", doubled)) if wanted]
    return " ".join([*marks, text])
