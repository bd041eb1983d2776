"""What a report says, in its order and in one language, before it takes a form: Markdown, HTML and CSV are made of it.

The headings are those of OCHA's situation reports.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas import vocabulary
from schemas.vocabulary import Language
from services.sitrep.render.words import local, number, word

MAX_ROWS = 40
"""Rows of a table that are told; how many more there are is said below it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A count or band, with the name under which the events behind it are found."""

    count: int | str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """By how much a figure changed."""

    by: int


Cell = str | Figure | Change
"""Text may come from outside: each form escapes it."""
Line = tuple[Cell, ...]
"""Parts of one sentence; they are joined by a space unless a part begins with a comma, a colon or a semicolon."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What stands at the top: a label and what it is."""

    items: tuple[tuple[str, Line], ...]


@dataclass(frozen=True, slots=True)
class Bullets:
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Note:
    text: Line


@dataclass(frozen=True, slots=True)
class Table:
    """`numbers_from`: the first column of numbers. `left_out`: how many rows more there are."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell | Line, ...], ...]
    numbers_from: int
    title: str | None = None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars laid one on another. Only of exact figures: bands have no length."""

    name: str
    title: str
    labels: tuple[str, ...]
    series: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Map:
    """Open incidents by H3 cell with the highest severity of each, and how much of what is needed there is met."""

    title: str
    cells: tuple[Mapping[str, Any], ...]


Block = Facts | Bullets | Note | Table | Chart | Map


@dataclass(frozen=True, slots=True)
class Section:
    """`key`: the heading's name in `words`."""

    key: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """`sources`: where the events behind a figure are found: `&figure=` and its name are put behind it."""

    title: str
    lang: Language
    exercise: bool
    notes: tuple[str, ...]
    facts: Facts
    sections: tuple[Section, ...]
    sources: str | None = None
    foot: tuple[str, ...] = field(default=())


def outline(report: dict[str, Any], lang: Language, most: int = MAX_ROWS) -> Outline:
    """The report in this language, with at most so many rows in a table."""
    return _Writer(report, lang, most).outline()


class _Writer:
    def __init__(self, report: dict[str, Any], lang: Language, most: int) -> None:
        self.report, self.lang, self.most = report, lang, most
        self.exact = report["form"] == "exact"

    def w(self, key: str) -> str:
        return word(key, self.lang)

    def fact(self, count: int | str, *key: str) -> Figure:
        return Figure(count, ".".join(key) if key else None)

    def outline(self) -> Outline:
        report, w = self.report, self.w
        title = report["title"] or w("all_operations")
        drill = f"{w('drill')}: " if report["exercise"] and not title.startswith("LATIHAN") else ""
        notes = []
        if not self.exact:
            notes.append(w("public"))
        if report["redacted"] not in (0, "0"):
            notes.append(f"{w('redacted')}: {number(report['redacted'], self.lang)}")
        sections = (
            self.section("highlights", self.highlights()),
            self.section("overview", self.overview()),
            self.section("impact", self.impact()),
            self.section("response", self.response()),
            self.section("gaps", self.gaps()),
            self.section("coordination", self.coordination()),
        )
        return Outline(
            title=f"{w('title')}: {drill}{title}",
            lang=self.lang,
            exercise=report["exercise"],
            notes=tuple(notes),
            facts=Facts(tuple(self.head())),
            sections=sections,
            sources=report.get("sources"),
            foot=(w("counted"),),
        )

    def section(self, key: str, blocks: Iterable[Block]) -> Section:
        return Section(key, self.w(key), tuple(blocks))

    def when(self, moment: str | None) -> str:
        return local(moment, self.report["timezone"], self.lang) if moment else self.w("empty")

    def head(self) -> Iterable[tuple[str, Line]]:
        report, w = self.report, self.w
        if report["area"]:
            yield w("area"), (self.area(report["area"]),)
        if report["operation"]:
            yield w("status"), (self.status(report["status"]),)
            yield w("lead"), (report["lead"] or w("unnamed"),)
            if report["glide"]:
                yield w("glide"), (report["glide"],)
            if report["hazards"]:
                yield w("hazards"), (", ".join(self.hazard(each) for each in report["hazards"]),)
            if report["phase"]:
                yield w("phase"), (report["phase"],)
            if report["closed"]:
                yield w("closed"), ()
        yield w("as_of"), (f"{self.when(report['as_of'])} ({w('position')} {report['position']})",)

    def status(self, status: Mapping[str, Any] | None) -> str:
        if status is None:
            return self.w("no_status")
        parts = [self.w(status["declared"])]
        parts += [str(status[key]) for key in ("level", "decree") if status[key]]
        if status["until"]:
            parts.append(f"{self.w('until')} {self.when(status['until'])}")
        return ", ".join(parts)

    def hazard(self, code: str) -> str:
        return self.w(code) if code == "other" else vocabulary.label(code, self.lang)

    def area(self, code: str | None) -> str:
        """An area's name with its code; a village or sub-district bears the regency's name before its code."""
        if code is None:
            return self.w("no_area")
        area = vocabulary.area(*vocabulary.split(code))
        if area is None:
            return code
        name = area.name
        while name is None and area.parent is not None:
            parent = area.parent.partition(":")[2] or area.parent
            above = vocabulary.area(area.scheme, parent)
            if above is None:
                break
            area, name = above, above.name
        return f"{name} ({code})" if name else code

    def label(self, need: Mapping[str, Any]) -> str:
        return vocabulary.label(str(need.get("item") or need.get("skill") or ""), self.lang)

    def unit(self, need: Mapping[str, Any]) -> str:
        return vocabulary.unit_label(need["unit"], self.lang)

    def need_key(self, need: Mapping[str, Any], amount: str) -> str:
        kind = "item" if need.get("item") is not None else "skill"
        return f"need.{kind}.{need[kind]}.*.{amount}"

    # Highlights

    def highlights(self) -> Iterable[Block]:
        w, totals, recent = self.w, self.report["totals"], self.report["last_24h"]
        fact = self.fact
        lines: list[Line] = [
            (
                fact(totals["reports"], "reports"),
                w("reports_taken"),
                ",",
                fact(totals["reports_unlinked"], "reports_unlinked"),
                f"{w('reports_unlinked')}; {w('besides')}",
                fact(totals["reports_retracted"], "reports_retracted"),
                w("reports_retracted"),
            ),
            (
                fact(totals["incidents"]),
                f"{w('incidents_counted')}:",
                fact(totals["incidents_open"], "status", "open"),
                f"{w('open')},",
                fact(totals["incidents_closed"], "status", "closed"),
                f"{w('closed_ones')};",
                fact(totals["incidents_merged"], "status", "merged"),
                w("merged"),
            ),
            (
                f"{w('last_24h')}:",
                fact(recent["reports"]),
                f"{w('reports_taken')},",
                fact(recent["incidents"]),
                w("incidents_counted"),
            ),
        ]
        worst = next((need for need in self.report["needs"] if need["gap"] not in (0, "0")), None)
        if worst is not None:
            lines.append((f"{w('largest_gap')}:", *self.gap(worst)))
        late = [line for line in self.report["targets"] if line["breached"] not in (0, "0")]
        for line in late:
            lines.append(
                (
                    f"{w('breached')}:",
                    fact(line["breached"]),
                    self.target(line),
                )
            )
        yield Bullets(tuple(lines))
        if self.report.get("incidents"):
            yield Table(
                (w("incident"), w("hazard"), w("severity"), w("evidence"), w("reports"), w("people")),
                tuple(
                    (
                        line["title"] or w("protected"),
                        self.hazard(line["hazard"] or "other") if line["title"] else "–",
                        w(str(line["severity"])),
                        w(line["evidence"]),
                        number(line["reports"], self.lang) if line["reports"] is not None else "–",
                        ", ".join(
                            f"{number(count, self.lang)} {w(name)}" for name, count in line["people"].items() if count
                        )
                        or "–",
                    )
                    for line in self.report["incidents"]
                ),
                numbers_from=6,
            )

    def target(self, line: Mapping[str, Any]) -> str:
        what = self.w(f"target_{line['what']}")
        if line["severity"] is not None:
            what = f"{what}, {self.w(str(line['severity']))}"
        # For the public there are only bands, and hours would look like one of them.
        return f"{what} ({self.w('within')} {line['within_h']} {self.w('hours')})" if self.exact else what

    # Overview

    def overview(self) -> Iterable[Block]:
        report, w = self.report, self.w
        if not report["operation"] and report["operations"]:
            yield Table(
                (w("operation"), w("status"), w("lead")),
                tuple(
                    (line["title"], self.status(line["status"]), line["lead"] or w("unnamed"))
                    for line in report["operations"][: self.most]
                ),
                numbers_from=3,
            )
        since = report["since"]
        rows: list[tuple[Cell | Line, ...]] = []
        for name, figure in since["figures"].items():
            now = self.now(name)
            if self.exact and (figure["change"] or now):
                rows.append((w(f"figure_{name}"), Figure(figure["before"]), Figure(now), Change(figure["change"])))
            elif not self.exact and figure["before"] != now:
                rows.append((w(f"figure_{name}"), Figure(figure["before"]), Figure(now)))
        if rows and since["as_of"]:
            head = (w("figure"), w("before"), w("now"), *((w("change"),) if self.exact else ()))
            yield Table(head, tuple(rows), 1, title=f"{w('changed_since')} {self.when(since['as_of'])}")
        else:
            yield Note((w("nothing_changed") if since["as_of"] else w("first_report"),))
        for key, figure in (("open_by_hazard", "hazard"), ("open_by_severity", "severity"), ("by_evidence", "ev")):
            told: list[Cell] = [f"{w(key)}:"]
            for name, count in report[key].items():
                if count not in (0, "0"):
                    label = self.hazard(name) if key == "open_by_hazard" else w(name)
                    told += ([";"] if len(told) > 1 else []) + [f"{label}:", Figure(count, f"{figure}.{name}")]
            yield Bullets(((*told, "–") if len(told) == 1 else tuple(told),))
        if report.get("cells"):
            yield Map(w("map"), tuple(report["cells"]))

    def now(self, name: str) -> int | str:
        totals = self.report["totals"]
        found: int | str = totals["people"][name] if name in totals["people"] else totals[name]
        return found

    # Humanitarian impact

    def impact(self) -> Iterable[Block]:
        report, w = self.report, self.w
        levels = ("official", "field_checked", "corroborated", "reported")
        rows: list[tuple[Cell | Line, ...]] = []
        for kind in ("people", "damage"):
            for name, count in report["totals"][kind].items():
                told = report["evidence"][kind][name]
                rows.append(
                    (
                        w(name),
                        Figure(count, f"{kind}.{name}"),
                        *(
                            Figure(told.get(level, 0 if self.exact else "0"), f"{kind}.{name}.{level}")
                            for level in levels
                        ),
                    )
                )
        yield Table((w("figure"), w("total"), *(w(level) for level in levels)), tuple(rows), 1)
        if report.get("said"):
            yield Table(
                (w("figure"), w("said_official"), w("said_organisation"), w("said_public")),
                tuple(
                    (w(name), *(Figure(counts[by], f"said.{name}.{by}") for by in counts))
                    for name, counts in report["said"].items()
                ),
                1,
                title=w("side_by_side"),
            )
        if self.exact:
            people = report["totals"]["people"]
            shown = [name for name in people if report["evidence"]["people"][name]]
            if shown:
                yield Chart(
                    "people",
                    w("people_by_evidence"),
                    tuple(w(name) for name in shown),
                    tuple(
                        (w(level), tuple(report["evidence"]["people"][name].get(level, 0) for name in shown))
                        for level in levels
                    ),
                )
        yield from self.posts()

    def posts(self) -> Iterable[Block]:
        sites, w = self.report["sites"], self.w
        if sites["open"] in (0, "0") and sites["closed"] in (0, "0"):
            return
        heads = sites["heads"]
        line: list[Cell] = [f"{w('posts')}:", self.fact(sites["open"], "site", "open"), f"{w('posts_open')},"]
        line += [self.fact(heads.get("people", 0 if self.exact else "0"), "heads", "people"), w("posts_people")]
        if sites["uncounted"] not in (0, "0"):
            line += [";", self.fact(sites["uncounted"], "sites_uncounted"), w("posts_uncounted")]
        lines = [tuple(line)]
        if self.exact:
            known: list[Cell] = []
            for part, count in heads.items():
                if part not in ("people",):
                    name = f"{w('age')} {part[4:]}" if part.startswith("age ") else w(f"heads_{part}")
                    known += ([";"] if known else []) + [f"{name}:", Figure(count, f"heads.{part}")]
            if known:
                lines.append((f"{w('of_them')}:", *known))
        yield Bullets(tuple(lines))
        posts = self.report.get("posts") or []
        if posts:
            yield Table(
                (w("post"), w("area"), w("organisation"), w("people"), w("capacity"), w("counted_at")),
                tuple(
                    (
                        f"{post['name']} ({post['code']})",
                        self.area(post["admin"]),
                        post["organisation"] or "–",
                        Figure(post["heads"]["people"]) if "people" in post["heads"] else "–",
                        Figure(post["capacity"]) if post["capacity"] is not None else "–",
                        self.when(post["counted_at"]) if post["counted_at"] else w("not_counted"),
                    )
                    for post in posts
                ),
                3,
                title=w("posts"),
            )

    # Response by cluster

    def response(self) -> Iterable[Block]:
        w, needs = self.w, self.report["needs"]
        if not needs:
            yield Note((w("no_needs"),))
            return
        columns = ("needed", "committed", "coming", "delivered", "gap")
        by_cluster: dict[str, list[Mapping[str, Any]]] = {}
        for need in needs:
            by_cluster.setdefault(need["cluster"] or "OTH", []).append(need)
        if self.exact:
            shown = [need for need in needs if need["needed"]][:12]
            yield Chart(
                "needs",
                w("needs_chart"),
                tuple(f"{self.label(need)} ({self.unit(need)})" for need in shown),
                tuple(
                    (w(name), tuple(_percent(need, name) for need in shown))
                    for name in ("delivered", "coming", "committed", "gap")
                ),
            )
        for cluster in sorted(by_cluster, key=lambda code: (code == "OTH", code)):
            lines = by_cluster[cluster]
            yield Table(
                (w("need"), w("unit"), *(w(name) for name in columns), w("evidence")),
                tuple(
                    (
                        self.label(need),
                        self.unit(need),
                        *(Figure(need[name], self.need_key(need, name)) for name in columns),
                        self.evidence(need),
                    )
                    for need in lines[: self.most]
                ),
                2,
                title=w(f"cluster_{cluster}"),
                left_out=max(0, len(lines) - self.most),
            )

    def evidence(self, need: Mapping[str, Any]) -> str:
        return ", ".join(
            f"{self.w(level)} {number(count, self.lang)}" for level, count in need["evidence"].items()
        ) or "–"  # fmt: skip

    def gap(self, need: Mapping[str, Any]) -> Line:
        return (
            f"{self.label(need)}: {self.w('missing_units')}",
            Figure(need["gap"], self.need_key(need, "gap")),
            f"{self.unit(need)} {self.w('of')}",
            Figure(need["needed"], self.need_key(need, "needed")),
            f"({self.w(str(need['severity']))})",
        )

    # Gaps and constraints

    def gaps(self) -> Iterable[Block]:
        report, w = self.report, self.w
        short = [need for need in report["needs"] if need["gap"] not in (0, "0")]
        lines: list[Line] = [self.gap(need) for need in short[: self.most]]
        if report["needs"] and not short:
            lines.append((w("no_gaps"),))
        lines.append((f"{w('drafts')}:", Figure(report["needs_drafted"], "drafts")))
        for kind in ("reports", "drafts"):
            waits = report["waiting"][kind]
            if waits["count"] not in (0, "0"):
                line: list[Cell] = [f"{w(f'waiting_{kind}')}:", Figure(waits["count"])]
                if self.exact:
                    line.append(f"({w('oldest')} {waits['oldest_h']} {w('hours')})")
                lines.append(tuple(line))
        yield Bullets(tuple(lines))
        targets = [line for line in report["targets"] if line["waiting"] not in (0, "0")]
        if targets:
            yield Table(
                (w("target"), w("waiting"), w("breached")),
                tuple((self.target(line), Figure(line["waiting"]), Figure(line["breached"])) for line in targets),
                1,
                title=w("targets"),
            )
        areas = [line for line in report["gaps_by_area"] if line["gap"] not in (0, "0")]
        if areas:
            yield Table(
                (w("area"), w("need"), w("unit"), w("needed"), w("gap")),
                tuple(
                    (
                        self.area(line["area"]),
                        self.label(line),
                        self.unit(line),
                        Figure(line["needed"]),
                        Figure(line["gap"]),
                    )
                    for line in areas[: self.most]
                ),
                3,
                title=w("gaps_by_area"),
                left_out=max(0, len(areas) - self.most),
            )

    # Coordination

    def coordination(self) -> Iterable[Block]:
        report, w = self.report, self.w
        responders = report["responders"]
        lines: list[Line] = [
            (
                f"{w('responders')}:",
                Figure(responders["confirmed"], "responders"),
                "(",
                Figure(responders["people"], "responder_people"),
                f"{w('responder_people')}),",
                Figure(responders["on_assignment"], "busy"),
                w("on_assignment"),
            )
        ]
        for key, prefix in (("offers", "offer"), ("assignments", "assignment")):
            told: list[Cell] = [f"{w(key)}:"]
            for name, count in report[key].items():
                told += ([","] if len(told) > 1 else []) + [Figure(count, f"{prefix}.{name}"), w(f"{prefix}_{name}")]
            lines.append(tuple(told))
        yield Bullets(tuple(lines))
        silent: list[Line] = []
        for level, count in report["overdue"].items():
            if count not in (0, "0"):
                silent.append((Figure(count, f"overdue.{level}"), w(f"overdue_{level}")))
        for line in report.get("organisations", []):
            if line["overdue"]:
                silent.append((line["organisation"] or w("volunteers"), ":", Figure(line["overdue"]), w("overdue_of")))
        yield Note((f"{w('not_heard')}:", *(() if silent else (w("all_heard"),))))
        if silent:
            yield Bullets(tuple(silent))
        if report["silent_areas"]:
            yield Table(
                (w("area"), w("hazard"), w("severity"), w("since"), w("expected_reports"), w("received_reports")),
                tuple(
                    (
                        self.area(line["area"]),
                        self.hazard(line["hazard"] or "other"),
                        w(str(line["severity"])),
                        self.when(line["since"]),
                        Figure(line["expected"]),
                        Figure(line["received"]),
                    )
                    for line in report["silent_areas"][: self.most]
                ),
                4,
                title=w("silent_areas"),
                left_out=max(0, len(report["silent_areas"]) - self.most),
            )
        coverage = [line for line in report["coverage"] if line["needs"] not in (0, "0")]
        if coverage:
            yield Table(
                (w("area"), w("incidents_open"), w("needs"), w("needs_met"), w("posts_people")),
                tuple(
                    (
                        self.area(line["area"]),
                        Figure(line["incidents_open"]),
                        Figure(line["needs"]),
                        Figure(line["needs_met"]),
                        Figure(line["heads"]),
                    )
                    for line in coverage[: self.most]
                ),
                1,
                title=w("coverage"),
                left_out=max(0, len(coverage) - self.most),
            )
        organisations: Sequence[Mapping[str, Any]] = report.get("organisations") or []
        if organisations:
            yield Table(
                (w("organisation"), w("committed"), w("under_way"), w("done")),
                tuple(
                    (
                        line["organisation"] or w("volunteers"),
                        Figure(line["committed"]),
                        Figure(line["under_way"]),
                        Figure(line["done"]),
                    )
                    for line in organisations[: self.most]
                ),
                1,
                left_out=max(0, len(organisations) - self.most),
            )


def _percent(need: Mapping[str, Any], name: str) -> int:
    return round(100 * int(need[name]) / int(need["needed"]))


def sentence(line: Line, say: Any) -> str:
    """The parts of a line put together; `say` turns each into the form's text."""
    out = ""
    for cell in line:
        text = say(cell)
        if out and not text.startswith((",", ";", ":")) and not out.endswith("("):
            out += " "
        out += text
    return out
