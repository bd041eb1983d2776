"""The report as CSV: one figure in each row, with the name under which the events behind it are found."""

from __future__ import annotations

import csv
import io
from typing import Any

from schemas.vocabulary import Language
from services.sitrep.render.outline import Bullets, Change, Facts, Figure, Line, Note, Table, outline, sentence


def render(report: dict[str, Any], lang: Language) -> bytes:
    """Rows of section, table, what, column, value and figure; the head of the report comes first.

    Numbers are written plainly (1234), bands as text (`5-9`); UTF-8 with a mark, so that spreadsheets read it as such.
    """
    told = outline(report, lang)
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow(["section", "table", "what", "column", "value", "figure"])
    rows.writerow(["", "", "title", "", plain(told.title), ""])
    for key in ("operation", "area", "as_of", "position", "form"):
        rows.writerow(["", "", key, "", plain(report[key]), ""])
    for section in told.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                for row in block.rows:
                    what = " | ".join(_text(cell) for cell in row[: block.numbers_from])
                    for at, cell in enumerate(row):
                        if at >= block.numbers_from:
                            of = cell.key if isinstance(cell, Figure) else None
                            rows.writerow(
                                [section.title, block.title or "", plain(what), block.head[at], _text(cell), of or ""]
                            )
                    if block.numbers_from >= len(row):
                        rows.writerow([section.title, block.title or "", plain(what), "", "", ""])
            elif isinstance(block, Bullets):
                for line in block.lines:
                    keys = " ".join(cell.key for cell in line if isinstance(cell, Figure) and cell.key)
                    rows.writerow([section.title, "", plain(_text(line)), "", "", keys])
            elif isinstance(block, Note | Facts):
                continue
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def plain(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else " ".join(str(value).split())
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def _text(cell: Figure | Change | str | Line) -> str:
    if isinstance(cell, Figure):
        return str(cell.count)
    if isinstance(cell, Change):
        return str(cell.by)
    if isinstance(cell, tuple):
        return sentence(cell, _text)
    return plain(cell)
