"""The report as one HTML file that stands by itself: it prints on A4, reads on a phone, and loads nothing."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from typing import Any

import h3
import pygal
from pygal.style import Style

from schemas.vocabulary import Language
from services.sitrep.render.outline import (
    Block,
    Bullets,
    Cell,
    Change,
    Chart,
    Facts,
    Figure,
    Line,
    Map,
    Note,
    Table,
    outline,
    sentence,
)
from services.sitrep.render.words import number, signed, word

_STYLE = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
# Okabe and Ito's colours, which people with any colour vision tell apart.
_COLOURS = ("#009e73", "#56b4e9", "#e69f00", "#d55e00")
_SEVERITY = {1: "#f0e442", 2: "#e69f00", 3: "#d55e00", 4: "#8b1a1a"}
_COMMENT = re.compile(r"<!--.*?-->", re.S)


def render(report: dict[str, Any], lang: Language) -> bytes:
    """The document as HTML in this language."""
    told = outline(report, lang)
    html = _Html(told.sources, lang)
    parts = [
        "<!doctype html>",
        f'<html lang="{lang}"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(told.title)}</title><style>{_STYLE}</style></head>",
        f"<body{' class=drill' if told.exercise else ''}><header><h1>{escape(told.title)}</h1>",
        *(f'<p class="note">{escape(note)}</p>' for note in told.notes),
        html.block(told.facts),
        "</header><main>",
    ]
    for section in told.sections:
        blocks = "".join(html.block(block) for block in section.blocks)
        parts.append(f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{blocks}</section>')
    parts += ["</main><footer>", *(f"<p>{escape(note)}</p>" for note in told.foot), "</footer></body></html>\n"]
    return "\n".join(parts).encode()


class _Html:
    def __init__(self, sources: str | None, lang: Language) -> None:
        self.sources, self.lang = sources, lang

    def cell(self, cell: Cell | Line) -> str:
        if isinstance(cell, tuple):
            return sentence(cell, self.cell)
        if isinstance(cell, Change):
            return f'<span class="{"up" if cell.by > 0 else "down"}">{signed(cell.by, self.lang)}</span>'
        if isinstance(cell, Figure):
            text = escape(number(cell.count, self.lang))
            if cell.key is None or self.sources is None or cell.count == 0:
                return f"<b>{text}</b>" if cell.key else text
            key = cell.key.replace(" ", "_")
            title = escape(word("sources_of", self.lang))
            return f'<a href="{escape(f"{self.sources}&figure={key}")}" title="{title}">{text}</a>'
        return escape(cell)

    def block(self, block: Block) -> str:
        if isinstance(block, Facts):
            told = "".join(
                f"<dt>{escape(label)}</dt><dd>{sentence(line, self.cell)}</dd>" for label, line in block.items
            )
            return f"<dl>{told}</dl>"
        if isinstance(block, Bullets):
            return "<ul>" + "".join(f"<li>{sentence(line, self.cell)}</li>" for line in block.lines) + "</ul>"
        if isinstance(block, Note):
            return f"<p>{sentence(block.text, self.cell)}</p>"
        if isinstance(block, Table):
            return self.table(block)
        if isinstance(block, Chart):
            return self.chart(block)
        return self.map(block)

    def table(self, table: Table) -> str:
        head = "".join(
            f'<th scope="col"{" class=n" if at >= table.numbers_from else ""}>{escape(name)}</th>'
            for at, name in enumerate(table.head)
        )
        rows = ""
        for row in table.rows:
            cells = "".join(
                # Names of columns go along: on a phone a row becomes a card.
                f'<td data-name="{escape(table.head[at])}"{" class=n" if at >= table.numbers_from else ""}>'
                f"{self.cell(cell)}</td>"
                for at, cell in enumerate(row)
            )
            rows += f"<tr>{cells}</tr>"
        title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
        more = f"<p>… +{table.left_out}</p>" if table.left_out else ""
        wide = " class=wide" if len(table.head) > 4 else ""
        return f"{title}<table{wide}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{more}"

    def chart(self, chart: Chart) -> str:
        drawn = pygal.HorizontalStackedBar(
            style=Style(
                background="transparent",
                plot_background="transparent",
                colors=_COLOURS,
                font_family="inherit",
                label_font_size=13,
                legend_font_size=13,
            ),
            js=[],
            width=700,
            height=110 + 34 * len(chart.labels),
            margin=4,
            spacing=6,
            show_y_guides=False,
            legend_at_bottom=True,
            legend_at_bottom_columns=4,
            truncate_label=-1,
            truncate_legend=-1,
            disable_xml_declaration=True,
            explicit_size=False,
            formatter=lambda value: number(round(value), self.lang),
        )
        drawn.uuid = chart.name  # instead of a random one: the same report is the same bytes
        drawn.x_labels = list(reversed(chart.labels))
        for name, values in chart.series:
            drawn.add(name, list(reversed(values)))
        svg = _COMMENT.sub("", drawn.render(is_unicode=True))  # it writes the day into a comment
        title = escape(chart.title)
        return f"<figure><figcaption>{title}</figcaption>{svg}</figure>"

    def map(self, drawn: Map) -> str:
        """Hexagons in longitude and latitude, stretched so that they have their shape at this latitude."""
        rings = {cell["cell"]: h3.cell_to_boundary(cell["cell"]) for cell in drawn.cells}
        lats = [lat for ring in rings.values() for lat, _ in ring]
        lons = [lon for ring in rings.values() for _, lon in ring]
        south, north, west, east = min(lats), max(lats), min(lons), max(lons)
        pad = max(north - south, east - west, 0.2) * 0.06
        south, north, west, east = south - pad, north + pad, west - pad, east + pad
        wide, high = east - west, north - south
        scale = 700 / wide if wide >= high else 560 / high
        step = next(each for each in (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10) if max(wide, high) / each <= 8)

        def x(lon: float) -> str:
            return f"{(lon - west) * scale:.1f}"

        def y(lat: float) -> str:
            return f"{(north - lat) * scale:.1f}"

        width, height = wide * scale, high * scale
        out = [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {width:.0f} {height:.0f}" role="img">'
            f"<title>{escape(drawn.title)}</title>"
        ]
        for at in range(int(west / step) - 1, int(east / step) + 2):
            if west < at * step < east:
                out.append(
                    f'<path class="grid" d="M{x(at * step)} 0V{height:.0f}"/>'
                    f'<text class="grid" x="{x(at * step)}" y="{height - 3:.0f}">{at * step:g}°</text>'
                )
        for at in range(int(south / step) - 1, int(north / step) + 2):
            if south < at * step < north:
                out.append(
                    f'<path class="grid" d="M0 {y(at * step)}H{width:.0f}"/>'
                    f'<text class="grid" x="3" y="{y(at * step)}">{at * step:g}°</text>'
                )
        for cell in drawn.cells:
            ring = rings[cell["cell"]]
            points = " ".join(f"{x(lon)},{y(lat)}" for lat, lon in ring)
            lat, lon = h3.cell_to_latlng(cell["cell"])
            share = cell.get("met")
            met = f", {word('needs_met', self.lang)} {share} %" if share is not None else ""
            told = escape(
                f"{cell['incidents_open']} {word('incidents_open', self.lang).lower()}, "
                f"{word(str(cell['severity']), self.lang)}{met}"
            )
            ring_class = "" if share is None else ' class="met"' if share == 100 else ' class="short"'
            out.append(
                f'<polygon{ring_class} points="{points}" fill="{_SEVERITY[cell["severity"]]}"><title>{told}</title>'
                f'</polygon><text x="{x(lon)}" y="{y(lat)}">{cell["incidents_open"]}</text>'
            )
            if share is not None:
                below = y(min(lat for lat, _ in ring))
                out.append(f'<text class="share" x="{x(lon)}" y="{below}" dy="7">{share} %</text>')
        out.append("</svg>")
        key = "".join(
            f'<span><i style="background:{colour}"></i>{escape(word(str(level), self.lang))}</span>'
            for level, colour in _SEVERITY.items()
        )
        return (
            f"<figure><figcaption>{escape(drawn.title)}</figcaption>{''.join(out)}"
            f'<p class="key">{key}</p><p class="small">{escape(word("map_about", self.lang))}</p></figure>'
        )
