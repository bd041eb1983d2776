"""The catalogues of texts: the same keys in both languages, none missing, none that no page says."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest

WEB = Path(__file__).resolve().parents[2] / "web"
LOCALES = WEB / "locales"
NAMES = sorted({path.name.split(".")[0] for path in LOCALES.glob("*.json")})
# A string that stands whole, and one with parts filled in: "severity.1" is said by `severity.${level}`.
LITERAL = re.compile(r"""["'`]([\w.:-]+)["'`]""")
TEMPLATE = re.compile(r"`([^`]*\$\{[^`]*)`")
HOLE = re.compile(r"\$\{(?:[^{}]|\{[^{}]*\})*\}")


@lru_cache(maxsize=1)
def sources() -> str:
    return "\n".join(
        path.read_text() for path in [*WEB.glob("src/**/*.ts"), *WEB.glob("*.html")] if not path.name.endswith(".d.ts")
    )


def catalogue(name: str, lang: str) -> dict[str, str]:
    texts: dict[str, str] = json.loads((LOCALES / f"{name}.{lang}.json").read_text())
    return texts


@pytest.mark.parametrize("name", NAMES)
def test_both_languages_have_the_same_keys_and_the_same_places_to_fill_in(name: str) -> None:
    indonesian, english = catalogue(name, "id"), catalogue(name, "en")
    assert set(indonesian) == set(english)
    for key, text in indonesian.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", english[key])), key
    assert all(text.strip() for text in (indonesian | english).values())


@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_said_somewhere(name: str) -> None:
    said = set(LITERAL.findall(sources()))
    patterns = [
        re.compile("".join(".+" if n % 2 else re.escape(part) for n, part in enumerate(apart(template))))
        for template in TEMPLATE.findall(sources())
    ]
    unused = [
        key
        for key in catalogue(name, "id")
        if key not in said and not any(pattern.fullmatch(key) for pattern in patterns if pattern.pattern not in (".+",))
    ]
    assert unused == []


def apart(template: str) -> list[str]:
    """A template taken apart: text, hole, text, …"""
    parts: list[str] = []
    at = 0
    for hole in HOLE.finditer(template):
        parts += [template[at : hole.start()], hole.group()]
        at = hole.end()
    return [*parts, template[at:]]


def test_every_key_that_is_asked_for_is_in_a_catalogue() -> None:
    known = {key for name in NAMES for key in catalogue(name, "id")}
    asked = set(re.findall(r"""\bt\(\s*["']([\w.:-]+)["']""", sources()))
    asked |= set(re.findall(r"""data-t(?:-\w+)?=["']([\w.:-]+)["']""", sources()))
    assert asked - known == set()
    assert len(asked) > 100
