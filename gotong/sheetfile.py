"""Reads the first sheet of an XLSX workbook as rows of text. A workbook is a zip of XML; nothing in it is run."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from lxml import etree

from gotong.reportfile import FileFault

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_MOST_BYTES = 200 * 1024 * 1024
_EPOCH = datetime(1899, 12, 30)
_DATES = {14, 15, 16, 17, 22}
"""Built-in number formats that are dates; own formats count as dates when they name a year or a day."""


def xlsx_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, Mapping[str, str], str | None]]]:
    """As `csv_rows` of a CSV file: the columns, and the rows below them.

    Raises
    ------
    FileFault
        It is no workbook, is empty, or unpacks to more than 200 MB.
    """
    try:
        with zipfile.ZipFile(path) as book:
            if sum(entry.file_size for entry in book.infolist()) > _MOST_BYTES:
                raise FileFault(f"{path} unpacks to more than 200 MB; save the sheet as CSV.")
            sheets = sorted(
                (name for name in book.namelist() if re.fullmatch(r"xl/worksheets/sheet\d+\.xml", name)),
                key=lambda name: int(re.sub(r"\D", "", name)),
            )
            if not sheets:
                raise FileFault(f"{path} holds no sheet; save it as XLSX or CSV again.")
            shared = _shared(book)
            dates = _date_styles(book)
            table = list(_cells(_parse(book.read(sheets[0])), shared, dates))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, etree.XMLSyntaxError) as error:
        raise FileFault(f"{path} cannot be read as a workbook ({error}); save it as XLSX or CSV again.") from None
    table = [(line, cells) for line, cells in table if any(cells)]
    if not table:
        raise FileFault(f"{path} is empty; name a file with a line of column names and rows below it.")
    header = [cell.strip() for cell in table[0][1]]

    def rows() -> Iterator[tuple[int, Mapping[str, str], str | None]]:
        for line, cells in table[1:]:
            fault = None
            if any(cells[len(header) :]):
                fault = f"the row has {len(cells)} cells and the file {len(header)} columns"
            yield line, {name: cell for name, cell in zip(header, cells, strict=False) if name}, fault

    return header, rows()


def _parse(content: bytes) -> etree._Element:
    # No entities and no network: a workbook from outside must not read files of ours.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    return etree.fromstring(content, parser)


def _shared(book: zipfile.ZipFile) -> list[str]:
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(entry) for entry in _parse(book.read("xl/sharedStrings.xml")).iter(f"{_MAIN}si")]


def _text(entry: etree._Element) -> str:
    return "".join(part.text or "" for part in entry.iter(f"{_MAIN}t"))


def _date_styles(book: zipfile.ZipFile) -> set[int]:
    """The numbers of the cell styles that show a date."""
    if "xl/styles.xml" not in book.namelist():
        return set()
    styles = _parse(book.read("xl/styles.xml"))
    own = {
        int(entry.get("numFmtId", "0"))
        for entry in styles.iter(f"{_MAIN}numFmt")
        if re.search(r"[yd]", re.sub(r'"[^"]*"|\[[^\]]*\]', "", entry.get("formatCode", "").lower()))
    }
    formats = styles.find(f"{_MAIN}cellXfs")
    entries = [] if formats is None else list(formats)
    return {n for n, entry in enumerate(entries) if int(entry.get("numFmtId", "0")) in _DATES | own}


def _cells(sheet: etree._Element, shared: list[str], dates: set[int]) -> Iterator[tuple[int, list[str]]]:
    for number, row in enumerate(sheet.iter(f"{_MAIN}row"), start=1):
        cells: list[str] = []
        for cell in row.iter(f"{_MAIN}c"):
            column = _column(cell.get("r")) if cell.get("r") else len(cells)
            cells += [""] * (column - len(cells))
            cells.append(_value(cell, shared, dates))
        yield int(row.get("r") or number), cells


def _column(reference: str) -> int:
    letters = re.match(r"[A-Z]{1,3}", reference)
    if letters is None:
        raise ValueError(f"a cell is at {reference}")
    number = 0
    for letter in letters.group():
        number = number * 26 + ord(letter) - 64
    return number - 1


def _value(cell: etree._Element, shared: list[str], dates: set[int]) -> str:
    kind = cell.get("t", "n")
    if kind == "inlineStr":
        return _text(cell).strip()
    found = cell.find(f"{_MAIN}v")
    text = (found.text or "") if found is not None else ""
    if kind == "s":
        return shared[int(text)].strip() if text else ""
    if kind == "n" and text:
        if int(cell.get("s", "0")) in dates:
            return (_EPOCH + timedelta(days=float(text))).isoformat(timespec="seconds")
        number = float(text)
        # Telephone numbers are often stored as numbers: 6281234567890, not 6.28123456789e+12.
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else text
    return text.strip()
