"""The report as Markdown, under the headings that OCHA's situation reports use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from schemas import vocabulary
from schemas.vocabulary import Language
from services.sitrep.render.words import local, number, word

MAX_ROWS = 40
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render(report: dict[str, Any], lang: Language) -> bytes:
    """The document as Markdown in this language."""
    parts = [
        *_head(report, lang),
        *_highlights(report, lang),
        *_impact(report, lang),
        *_response(report, lang),
        *_gaps(report, lang),
        *_coordination(report, lang),
    ]
    return ("\n".join(parts).rstrip() + "\n").encode()


def safe(text: object) -> str:
    """Text from outside on one line, so that it cannot become a heading, a cell or a tag."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers_from: int = 1) -> list[str]:
    names = list(head)
    rule = ["---" if at < numbers_from else "---:" for at in range(len(names))]
    return ["| " + " | ".join(cells) + " |" for cells in (names, rule, *rows)] + [""]


def _head(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    title = safe(report["title"]) if report["title"] else w("all_operations")
    drill = f"{w('drill')}: " if report["exercise"] and not title.startswith("LATIHAN") else ""
    lines = [f"# {w('title')}: {drill}{title}", ""]
    if report["form"] == "public":
        lines += [f"*{w('public')}*", ""]
    if report["area"]:
        area = vocabulary.area(*vocabulary.split(report["area"]))
        name = f"{area.name} ({report['area']})" if area is not None and area.name else report["area"]
        lines.append(f"- **{w('area')}:** {safe(name)}")
    if report["operation"]:
        lines.append(f"- **{w('status')}:** {_status(report['status'], report['timezone'], lang)}")
        lines.append(f"- **{w('lead')}:** {safe(report['lead']) if report['lead'] else w('unnamed')}")
        if report["glide"]:
            lines.append(f"- **{w('glide')}:** {safe(report['glide'])}")
        if report["hazards"]:
            lines.append(f"- **{w('hazards')}:** {', '.join(safe(_hazard(h, lang)) for h in report['hazards'])}")
        if report["phase"]:
            lines.append(f"- **{w('phase')}:** {safe(report['phase'])}")
        if report["closed"]:
            lines.append(f"- **{w('closed')}**")
    when = local(report["as_of"], report["timezone"], lang) if report["as_of"] else w("empty")
    lines += [f"- **{w('as_of')}:** {when} ({w('position')} {report['position']})", ""]
    if report["redacted"] not in (0, "0"):
        lines += [f"*{w('redacted')}: {number(report['redacted'], lang)}*", ""]
    if not report["operation"] and report["operations"]:
        lines += [f"## {w('overview')}", ""]
        lines += _table(
            (w("operation"), w("status"), w("lead")),
            (
                (
                    safe(line["title"]),
                    _status(line["status"], report["timezone"], lang),
                    safe(line["lead"]) if line["lead"] else w("unnamed"),
                )
                for line in report["operations"][:MAX_ROWS]
            ),
            numbers_from=3,
        )
    return lines


def _status(status: Mapping[str, Any] | None, timezone: str, lang: Language) -> str:
    if status is None:
        return word("no_status", lang)
    parts = [word(status["declared"], lang)]
    if status["level"]:
        parts.append(safe(status["level"]))
    if status["decree"]:
        parts.append(safe(status["decree"]))
    if status["until"]:
        parts.append(f"{word('until', lang)} {local(status['until'], timezone, lang)}")
    return ", ".join(parts)


def _hazard(code: str, lang: Language) -> str:
    return word(code, lang) if code == "other" else vocabulary.label(code, lang)


def _label(need: Mapping[str, Any], lang: Language) -> str:
    return safe(vocabulary.label(str(need.get("item") or need.get("skill") or ""), lang))


def _highlights(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    def n(count: int | str) -> str:
        return number(count, lang)

    totals, recent = report["totals"], report["last_24h"]
    lines = [f"## {w('highlights')}", ""]
    lines.append(
        f"- {n(totals['reports'])} {w('reports_taken')}, {n(totals['reports_unlinked'])} {w('reports_unlinked')}; "
        f"{w('besides')} {n(totals['reports_retracted'])} {w('reports_retracted')}"
    )
    lines.append(
        f"- {n(totals['incidents'])} {w('incidents_counted')}: {n(totals['incidents_open'])} {w('open')}, "
        f"{n(totals['incidents_closed'])} {w('closed_ones')}; {n(totals['incidents_merged'])} {w('merged')}"
    )
    lines.append(
        f"- {w('last_24h')}: {n(recent['reports'])} {w('reports_taken')}, "
        f"{n(recent['incidents'])} {w('incidents_counted')}"
    )
    worst = next((need for need in report["needs"] if need["gap"] not in (0, "0")), None)
    if worst is not None:
        lines.append(f"- {w('largest_gap')}: {_gap(worst, lang)}")
    lines.append("")
    if report.get("incidents"):
        lines += _table(
            (w("incident"), w("hazard"), w("severity"), w("evidence"), w("reports"), w("people")),
            (
                (
                    safe(line["title"]),
                    safe(_hazard(line["hazard"] or "other", lang)),
                    w(str(line["severity"])),
                    w(line["evidence"]),
                    n(line["reports"]),
                    ", ".join(f"{n(count)} {w(name)}" for name, count in line["people"].items() if count) or "–",
                )
                for line in report["incidents"]
            ),
            numbers_from=6,
        )
    return lines


def _impact(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    totals = report["totals"]
    figures = {**totals["people"], **totals["damage"]}
    lines = [f"## {w('impact')}", ""]
    lines += _table((w("figure"), w("total")), ((w(name), number(count, lang)) for name, count in figures.items()))
    for key in ("open_by_hazard", "open_by_severity", "by_evidence"):
        named = (
            (safe(_hazard(name, lang)) if key == "open_by_hazard" else w(name), count)
            for name, count in report[key].items()
        )
        told = ", ".join(f"{name}: {number(count, lang)}" for name, count in named if count not in (0, "0"))
        lines.append(f"- {w(key)}: {told or '–'}")
    return [*lines, ""]


def _response(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    lines = [f"## {w('response')}", ""]
    if not report["needs"]:
        return [*lines, w("no_needs"), ""]
    columns = ("needed", "committed", "coming", "delivered", "gap")
    lines += _table(
        (w("need"), w("unit"), *(w(name) for name in columns)),
        (
            (
                _label(need, lang),
                safe(vocabulary.unit_label(need["unit"], lang)),
                *(number(need[name], lang) for name in columns),
            )
            for need in report["needs"][:MAX_ROWS]
        ),
        numbers_from=2,
    )
    return _cut(lines, len(report["needs"]))


def _cut(lines: list[str], count: int) -> list[str]:
    return [*lines[:-1], f"… +{count - MAX_ROWS}", ""] if count > MAX_ROWS else lines


def _gap(need: Mapping[str, Any], lang: Language) -> str:
    unit = safe(vocabulary.unit_label(need["unit"], lang))
    return (
        f"{_label(need, lang)}: {word('missing_units', lang)} {number(need['gap'], lang)} {unit} "
        f"{word('of', lang)} {number(need['needed'], lang)} ({word(str(need['severity']), lang)})"
    )


def _gaps(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    lines = [f"## {w('gaps')}", ""]
    short = [need for need in report["needs"] if need["gap"] not in (0, "0")]
    lines += [f"- {_gap(need, lang)}" for need in short[:MAX_ROWS]]
    if report["needs"] and not short:
        lines.append(f"- {w('no_gaps')}")
    lines.append(f"- {w('drafts')}: {number(report['needs_drafted'], lang)}")
    return [*lines, ""]


def _coordination(report: dict[str, Any], lang: Language) -> list[str]:
    def w(key: str) -> str:
        return word(key, lang)

    def n(count: int | str) -> str:
        return number(count, lang)

    responders = report["responders"]
    lines = [
        f"## {w('coordination')}",
        "",
        f"- {w('responders')}: {n(responders['confirmed'])} ({n(responders['people'])} {w('responder_people')}), "
        f"{n(responders['on_assignment'])} {w('on_assignment')}",
    ]
    for key, prefix in (("offers", "offer"), ("assignments", "assignment")):
        told = ", ".join(f"{n(count)} {w(f'{prefix}_{name}')}" for name, count in report[key].items())
        lines.append(f"- {w(key)}: {told}")
    lines.append("")
    if report.get("organisations"):
        lines += _table(
            (w("organisation"), w("committed"), w("under_way"), w("done")),
            (
                (
                    safe(line["organisation"]) if line["organisation"] else w("volunteers"),
                    n(line["committed"]),
                    n(line["under_way"]),
                    n(line["done"]),
                )
                for line in report["organisations"][:MAX_ROWS]
            ),
        )
        lines = _cut(lines, len(report["organisations"]))
    return lines
