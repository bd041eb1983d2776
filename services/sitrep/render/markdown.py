"""The report as Markdown. Numbers of the exact form are links, whose targets stand at the end."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from schemas.vocabulary import Language
from services.sitrep.render.outline import (
    MAX_ROWS,
    Block,
    Bullets,
    Cell,
    Change,
    Facts,
    Figure,
    Line,
    Note,
    Outline,
    Table,
    outline,
    sentence,
)
from services.sitrep.render.words import number, signed

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~])")


def render(report: dict[str, Any], lang: Language, most: int = MAX_ROWS) -> bytes:
    """The document as Markdown in this language, with at most so many rows in a table."""
    return _Markdown(outline(report, lang, most)).text().encode()


def safe(text: object) -> str:
    """Text from outside on one line, so that it cannot become a heading, a cell or a tag."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


class _Markdown:
    def __init__(self, told: Outline) -> None:
        self.told = told
        self.links: dict[str, None] = {}

    def text(self) -> str:
        told = self.told
        lines = [f"# {safe(told.title)}", ""]
        for note in told.notes:
            lines += [f"*{safe(note)}*", ""]
        lines += self.block(told.facts)
        for section in told.sections:
            lines += [f"## {section.title}", ""]
            for block in section.blocks:
                lines += self.block(block)
        for note in told.foot:
            lines += [f"*{safe(note)}*", ""]
        if told.sources is not None:
            lines += [f"[{key}]: <{told.sources}&figure={key}>" for key in self.links]
        return "\n".join(lines).rstrip() + "\n"

    def cell(self, cell: Cell | Line) -> str:
        if isinstance(cell, tuple):
            return sentence(cell, self.cell)
        if isinstance(cell, Change):
            return signed(cell.by, self.told.lang)
        if isinstance(cell, Figure):
            text = number(cell.count, self.told.lang)
            if cell.key is None or self.told.sources is None or cell.count == 0:
                return text
            key = cell.key.replace(" ", "_")
            self.links[key] = None
            return f"[{text}][{key}]"
        return safe(cell)

    def block(self, block: Block) -> Iterable[str]:
        if isinstance(block, Facts):
            told = [
                f"- **{label}{':' if line else ''}** {sentence(line, self.cell)}".rstrip()
                for label, line in block.items
            ]
            return [*told, ""]
        if isinstance(block, Bullets):
            return [*(f"- {sentence(line, self.cell)}" for line in block.lines), ""]
        if isinstance(block, Note):
            return [sentence(block.text, self.cell), ""]
        if isinstance(block, Table):
            return self.table(block)
        return []  # charts and maps show what the tables beside them say

    def table(self, table: Table) -> list[str]:
        rule = ["---" if at < table.numbers_from else "---:" for at in range(len(table.head))]
        rows = [[self.cell(cell) for cell in row] for row in table.rows]
        lines = [f"### {safe(table.title)}", ""] if table.title else []
        lines += ["| " + " | ".join(cells) + " |" for cells in (map(safe, table.head), rule, *rows)]
        return [*lines, f"… +{table.left_out}", ""] if table.left_out else [*lines, ""]
