"""Reads a file of reports (CSV, JSON Lines, GeoJSON) row by row into bodies for `POST /v1/reports:batch`.

A row that cannot be read is a row with a reason, never a stop. CSV and JSON Lines are read as a stream.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo

import orjson

from schemas.vocabulary import hazard_of

Format = Literal["csv", "jsonl", "geojson", "cap"]

PEOPLE = ("affected", "displaced", "injured", "dead", "missing")
DAMAGE = ("houses_damaged", "public_facilities_damaged")
FIELDS = (
    *("id", "time", "text", "title", "hazard", "severity", "kind", "lat", "lon", "place", "admin", "admin_scheme"),
    *PEOPLE,
    *DAMAGE,
    "external_url",
)
"""What a column can be read as."""

_LOOKED_AHEAD = 200
"""Rows that are looked at before the first is sent: a wrong option shows in them."""

_SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".csv", ".tsv", ".txt"), "csv"),
    **dict.fromkeys((".jsonl", ".ndjson", ".geojsonl", ".geojsons"), "jsonl"),
    ".geojson": "geojson",
    **dict.fromkeys((".xml", ".cap"), "cap"),
}
_SEVERITY = {
    **dict.fromkeys(("1", "minor", "low", "ringan", "rendah"), 1),
    **dict.fromkeys(("2", "moderate", "medium", "sedang"), 2),
    **dict.fromkeys(("3", "severe", "serious", "high", "berat", "tinggi", "parah"), 3),
    **dict.fromkeys(("4", "extreme", "critical", "kritis", "darurat", "ekstrem"), 4),
}
_KINDS = {
    **dict.fromkeys(("citizen", "warga", "masyarakat", "public"), "citizen"),
    **dict.fromkeys(("volunteer", "relawan"), "volunteer"),
    **dict.fromkeys(("official", "petugas", "resmi", "government"), "official"),
}
_NOTHING = frozenset({"", "-", "–", "—", "n/a", "na", "nan", "null", "none", "unknown"})
_SCHEMES = frozenset({"bps", "kemendagri", "pcode"})
_AXES = ("latitude", "longitude")
_REPORT_KEYS = frozenset({"location", "people", "damage", "observed_at", "external_id", "needs", "media", "reporter"})
_DELIMITERS = (",", ";", "\t", "|")
_THOUSANDS = re.compile(r"\d{1,3}([.,]\d{3})+")
_WHOLE = re.compile(r"\d+([.,]0+)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_EPOCH = re.compile(r"\d{10}(\.\d+)?|\d{13}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,39}")
_AREA = re.compile(r"[a-z][a-z0-9-]{1,19}:[A-Za-z0-9.]{1,20}")


class FileFault(Exception):
    """The file, or the way in which it should be read, is wrong as a whole: nothing was sent."""


class _Unreadable(Exception):
    """This one row cannot be read; the text says why."""


class _NoZone(_Unreadable):
    """A time without a zone, and none was given."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `line` is where it begins, counted from 1 (in GeoJSON the number of its feature).

    Either `body` is set, a report for the HTTP interface, or `reason` says why there is none. `at`: its own time.
    """

    line: int
    body: dict[str, Any] | None
    reason: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """How the rows are to be read.

    `columns`: FIELD to the column's name; `constants`: FIELD to one value for all rows. Both empty: columns are
    called as the fields are, and a JSON line that is a report already stays as it is.
    """

    source: str
    columns: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    zone: ZoneInfo | None = None
    operation: str | None = None

    @property
    def by_name(self) -> bool:
        return not self.columns and not self.constants


@dataclass(slots=True)
class Notes:
    """What was read by a rule that the sender should know of, counted."""

    dates_only: int = 0
    times_twice: int = 0
    times_missing: int = 0
    hints: list[str] = field(default_factory=list)

    def sentences(self) -> list[str]:
        said = list(self.hints)
        if self.dates_only:
            said.append(f"{self.dates_only} times are a date only and were read as midnight.")
        if self.times_twice:
            said.append(f"{self.times_twice} times come twice (clocks went back) and were read as the earlier.")
        if self.times_missing:
            said.append(f"{self.times_missing} times are ones that clocks skip (they went forward) and were moved on.")
        return said


def parse_columns(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """`id=no,time="date, local",hazard='flood'` as columns and constants by field.

    A value in single quotes is a constant, one in double quotes a column's name; commas within quotes belong to it,
    and a doubled quote stands for itself.

    Raises
    ------
    FileFault
        It is not of this form, or names a field that there is not.
    """
    columns: dict[str, str] = {}
    constants: dict[str, str] = {}
    item = re.compile(r"""\s*([A-Za-z_]+)\s*=\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)"|([^,'"]*))\s*(?:,|$)""")
    position = 0
    while position < len(text):
        found = item.match(text, position)
        if found is None:
            raise FileFault(
                f"--columns cannot be read from {text[position:][:40]!r} on; write FIELD=COLUMN or FIELD='value', "
                "with commas between."
            )
        name, constant, quoted, bare = found.groups()
        if name not in FIELDS:
            raise FileFault(f"--columns knows no field {name!r}; the fields are {', '.join(FIELDS)}.")
        if name in columns or name in constants:
            raise FileFault(f"--columns names the field {name} twice.")
        if constant is not None:
            constants[name] = constant.replace("''", "'")
        else:
            column = quoted.replace('""', '"') if quoted is not None else bare.strip()
            if not column:
                raise FileFault(f"--columns gives no column for {name}; write {name}=COLUMN or {name}='value'.")
            columns[name] = column
        position = found.end()
    return columns, constants


def format_of(path: Path, wanted: str = "auto") -> Format:
    """The format asked for, else what the file's name or its first bytes tell.

    Raises
    ------
    FileFault
        The file cannot be opened, or it is not plain what it is.
    """
    if wanted != "auto":
        return wanted  # type: ignore[return-value]  # one of Format, as the option's choices are
    if path.suffix.lower() in _SUFFIXES:
        return _SUFFIXES[path.suffix.lower()]
    with _opened(path) as file:
        start = file.read(65536).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"<"):
        return "cap"
    if start.startswith((b"{", b"[")):
        first_line = start.split(b"\n", 1)[0]
        try:
            whole = isinstance(orjson.loads(first_line), dict) and b'"FeatureCollection"' not in first_line
        except orjson.JSONDecodeError:
            whole = False
        return "jsonl" if whole else "geojson"
    return "csv"


def read_rows(path: Path, format: Format, reading: Reading, notes: Notes) -> Iterator[Row]:
    """The rows of a file, in its order.

    Raises
    ------
    FileFault
        Before the first row, when the first rows show that the file or the reading is wrong as a whole.
    """
    columns: frozenset[str] | None = None
    if format == "csv":
        header, raw = _csv(path)
        columns = frozenset(header)
    elif format == "jsonl":
        raw = _jsonl(path)
    else:
        raw = _geojson(path)
    first = list(islice(raw, _LOOKED_AHEAD))
    reading = _settled(reading, first, columns, path, format, notes)
    ahead = [_row(record, reading, notes, strict=True) for record in first]
    return chain(ahead, (_row(record, reading, notes, strict=False) for record in raw))


# Records: what stands in the file, before it is understood


@dataclass(frozen=True, slots=True)
class _Record:
    line: int
    values: Mapping[str, Any]
    point: tuple[float, float] | None = None
    geometry: str | None = None
    """The kind of a geometry that is no point."""
    fault: str | None = None


def _opened(path: Path) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        raise FileFault(f"{path} cannot be read ({error.strerror}); name another file.") from None


def _encoding(path: Path) -> str:
    with _opened(path) as file:
        start = file.read(4)
    return "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _csv(path: Path) -> tuple[list[str], Iterator[_Record]]:
    encoding = _encoding(path)
    # Bytes that are no UTF-8 pass as surrogates and are read as Windows-1252 in the row where they stand.
    file = path.open(encoding=encoding, errors="surrogateescape", newline="")
    head = file.readline()
    while head and not head.strip():
        head = file.readline()
    unquoted = re.sub(r'"[^"]*"', "", head)
    delimiter = max(_DELIMITERS, key=unquoted.count)
    file.seek(0)
    reader = csv.reader(file, delimiter=delimiter)
    header: list[str] = []
    for header in reader:
        if any(name.strip() for name in header):
            break
    header = [_legacy(name).strip() for name in header]
    if not any(header):
        file.close()
        raise FileFault(f"{path} is empty; name a file with a line of column names and rows below it.")

    def records() -> Iterator[_Record]:
        with file:
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _Record(line, {}, fault=f"this is no row of CSV: {error}")
                    continue
                if not any(cells):
                    continue
                if any(cells[len(header) :]):
                    yield _Record(
                        line, {}, fault=f"the row has {len(cells)} cells and the file {len(header)} columns"
                    )  # fmt: skip
                    continue
                yield _Record(line, {name: _legacy(cell) for name, cell in zip(header, cells, strict=False)})

    return header, records()


def csv_rows(path: Path) -> tuple[list[str], Iterator[tuple[int, Mapping[str, str], str | None]]]:
    """The columns of a CSV file of any kind, and its rows: line, cells by column, and what is wrong with the row.

    Raises
    ------
    FileFault
        It cannot be read, or is empty.
    """
    _opened(path).close()
    header, records = _csv(path)
    return header, ((record.line, record.values, record.fault) for record in records)


def _legacy(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _jsonl(path: Path) -> Iterator[_Record]:
    with _opened(path) as file:
        for line, raw in enumerate(file, start=1):
            # RFC 8142 puts a record separator before each text.
            text = raw.removeprefix(b"\xef\xbb\xbf").strip(b"\x1e \t\r\n")
            if not text:
                continue
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield _Record(line, {}, fault=f"this is no JSON: {error}")
                continue
            if not isinstance(value, dict):
                yield _Record(line, {}, fault="a line holds one JSON object")
            elif value.get("type") == "Feature":
                yield _feature(line, value)
            else:
                yield _Record(line, value)


def _geojson(path: Path) -> Iterator[_Record]:
    with _opened(path) as file:
        try:
            document = orjson.loads(file.read().removeprefix(b"\xef\xbb\xbf"))
        except orjson.JSONDecodeError as error:
            raise FileFault(f"{path} is no JSON ({error}); give its kind with --format.") from None
    if isinstance(document, dict) and document.get("type") == "Feature":
        features: Any = [document]
    else:
        features = document.get("features") if isinstance(document, dict) else document
    if not isinstance(features, list):
        raise FileFault(f"{path} is no GeoJSON FeatureCollection; give its kind with --format.")
    return (_feature(number, feature) for number, feature in enumerate(features, start=1))


def _feature(line: int, feature: Any) -> _Record:
    if not isinstance(feature, dict):
        return _Record(line, {}, fault="this is no GeoJSON Feature")
    properties = feature.get("properties")
    values = dict(properties) if isinstance(properties, dict) else {}
    if "id" in feature:
        values.setdefault("id", feature["id"])
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict):
        return _Record(line, values)
    if geometry.get("type") != "Point":
        return _Record(line, values, geometry=str(geometry.get("type"))[:40])
    match geometry.get("coordinates"):
        case [int() | float() as lon, int() | float() as lat, *_]:
            return _Record(line, values, point=(lon, lat))
        case [] | None:
            return _Record(line, values)
    return _Record(line, {}, fault="the coordinates of the point are not two numbers")


def _found(values: Mapping[str, Any], column: str) -> Any:
    """A column's value; dots lead into nested objects where no column has the whole name."""
    if column in values:
        return values[column]
    here: Any = values
    for step in column.split("."):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif isinstance(here, list) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            return None
    return here


def _has(values: Mapping[str, Any], column: str) -> bool:
    if column in values:
        return True
    here: Any = values
    for step in column.split("."):
        if isinstance(here, dict) and step in here:
            here = here[step]
        elif here is None:  # an object that this row leaves out
            return True
        else:
            return isinstance(here, list)
    return True


def _settled(
    reading: Reading,
    first: list[_Record],
    columns: frozenset[str] | None,
    path: Path,
    format: Format,
    notes: Notes,
) -> Reading:
    """The reading with its columns looked up in the file.

    Raises
    ------
    FileFault
        A column is not there, or none says what a report needs.
    """
    readable = [record for record in first if record.fault is None]
    there = columns if columns is not None else frozenset(name for record in readable for name in record.values)
    if reading.by_name:
        if format == "jsonl" and any(_REPORT_KEYS & set(r.values) for r in readable):
            return reading
        named = {name: name for name in FIELDS if name in there}
        if not {"text", "title", "hazard"} & set(named) and (readable or columns is not None):
            raise FileFault(
                f"No column of {path.name} is called text, title or hazard; say with --columns which is which, "
                f"for example --columns text={next(iter(sorted(there)), 'COLUMN')}."
            )
        return Reading(reading.source, named, {}, reading.zone, reading.operation)
    kept, constants = dict(reading.columns), dict(reading.constants)
    for name, column in reading.columns.items():
        if columns is not None and column in columns:
            continue
        if columns is None and (not readable or any(_has(record.values, column) for record in readable)):
            continue
        if _is_word_of(name, column):
            # A shell takes the quotes off hazard='flood'; such words cannot be a misspelt column.
            del kept[name]
            constants[name] = column
            notes.hints.append(f"There is no column {column}, so {name} is '{column}' for every row.")
        elif format == "jsonl":
            notes.hints.append(f"None of the first {len(readable)} rows has {column} for {name}.")
        else:
            raise FileFault(
                f"{path.name} has no column {column} for {name}; its columns are {', '.join(sorted(there))[:600]}."
            )
    if "admin" in kept and "admin_scheme" not in kept | constants:
        example = next((str(v) for r in readable if (v := _text(_found(r.values, kept["admin"])))), None)
        if example and ":" not in example:
            raise FileFault(
                f"The area code {example} needs its scheme, for equal digits name different places; "
                "add admin_scheme='bps' or admin_scheme='kemendagri' to --columns."
            )
    return Reading(reading.source, kept, constants, reading.zone, reading.operation)


def _is_word_of(name: str, word: str) -> bool:
    known: dict[str, Callable[[str], object]] = {
        "hazard": hazard_of,
        "kind": lambda text: text.casefold() in _KINDS,
        "severity": lambda text: text.casefold() in _SEVERITY,
        "admin_scheme": lambda text: text.casefold() in _SCHEMES,
    }
    return name in known and bool(known[name](word))


# Understanding a record


def _row(record: _Record, reading: Reading, notes: Notes, *, strict: bool) -> Row:
    if record.fault is not None:
        return Row(record.line, None, record.fault)
    try:
        body = _as_it_is(record) if reading.by_name else _body(record, reading, notes)
    except _NoZone as error:
        if strict:
            raise FileFault(
                f"Line {record.line} has {error}; say where its clocks stand with --timezone, "
                "for example --timezone Asia/Jakarta."
            ) from None
        return Row(record.line, None, str(error))
    except _Unreadable as error:
        return Row(record.line, None, str(error))
    body.setdefault("source", reading.source)
    if reading.operation:
        body["operation"] = reading.operation
    if not body.get("external_id"):
        body["external_id"] = f"{record.line}-{_digest(record)}"
    if b"\\u0000" in orjson.dumps(body):
        return Row(record.line, None, "it holds a NUL character")
    at = body.get("observed_at")
    return Row(record.line, body, None, _instant(at) if isinstance(at, str) else None)


def _instant(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.tzinfo else None


def _digest(record: _Record) -> str:
    content = orjson.dumps([record.values, record.point], option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.sha256(content).hexdigest()[:16]


def _as_it_is(record: _Record) -> dict[str, Any]:
    """A JSON line that is a report of the HTTP interface already."""
    body = dict(record.values)
    if "id" in body and "external_id" not in body:
        body["external_id"] = _text(body.pop("id"))
    if record.point and "location" not in body:
        body["location"] = {"lon": record.point[0], "lat": record.point[1]}
    return body


def _body(record: _Record, reading: Reading, notes: Notes) -> dict[str, Any]:
    columns, constants = reading.columns, reading.constants

    def said(name: str) -> str:
        if name in constants:
            return constants[name]
        return _text(_found(record.values, columns[name])) if name in columns else ""

    body: dict[str, Any] = {}
    if said("id"):
        body["external_id"] = said("id")
    for name in ("title", "text", "external_url"):
        if said(name):
            body[name] = said(name)
    if hazard := said("hazard"):
        body["hazard"] = _hazard(hazard)
    severity = said("severity").casefold()
    if severity not in _NOTHING:
        body["severity"] = _SEVERITY.get(severity.removesuffix(".0"))
        if body["severity"] is None:
            raise _Unreadable(f"the severity {severity[:40]!r} is neither 1 to 4 nor a word for one of them")
    kind = said("kind").casefold()
    if kind not in _NOTHING:
        if kind not in _KINDS:
            raise _Unreadable(f"the reporter's kind {kind[:40]!r} is none of citizen, volunteer, official")
        body["reporter"] = {"kind": _KINDS[kind]}
    if time := said("time"):
        body["observed_at"] = observed_at(time, reading.zone, notes).isoformat()
    by_column = bool({"lat", "lon"} & (columns.keys() | constants.keys()))
    if location := _location(said, record, by_column):
        body["location"] = location
    for group, names in (("people", PEOPLE), ("damage", DAMAGE)):
        counts = {name: count for name in names if (count := _count(name, said(name))) is not None}
        if counts:
            body[group] = counts
    if not {"text", "title", "hazard"} & set(body):
        raise _Unreadable("it has neither a text, a title nor a hazard")
    return body


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return orjson.dumps(value).decode()


def _hazard(word: str) -> str:
    code = hazard_of(word)
    if code is None:
        code = re.sub(r"[^a-z0-9]+", "_", word.casefold()).strip("_")[:40]
    if not _CODE.fullmatch(code):
        raise _Unreadable(f"the hazard {word[:40]!r} is no word")
    return code


def _location(said: Callable[[str], str], record: _Record, by_column: bool) -> dict[str, Any]:
    location: dict[str, Any] = {}
    lat_said, lon_said = said("lat"), said("lon")
    if by_column:
        blank = [text.casefold() in _NOTHING for text in (lat_said, lon_said)]
        if blank[0] != blank[1]:
            raise _Unreadable("it has a {} without a {}".format(*_AXES[:: -1 if blank[0] else 1]))
        if not blank[0]:
            location["lon"], location["lat"] = _degrees("longitude", lon_said, 180), _degrees("latitude", lat_said, 90)
    elif record.point:
        location["lon"] = _degrees("longitude", repr(record.point[0]), 180)
        location["lat"] = _degrees("latitude", repr(record.point[1]), 90)
    elif record.geometry:
        raise _Unreadable(f"its geometry is a {record.geometry}, not a point; give columns for lat and lon")
    if place := said("place"):
        location["place"] = place
    admin = said("admin")
    if admin.casefold() not in _NOTHING:
        location["admin"] = _area(admin, said("admin_scheme"))
    return location


def _degrees(what: str, text: str, limit: int) -> float:
    plain = text.replace("−", "-").replace(" ", "")
    if plain.count(",") == 1 and "." not in plain:
        plain = plain.replace(",", ".")
    if not _NUMBER.fullmatch(plain):
        raise _Unreadable(f"the {what} {text[:40]!r} is no number")
    degrees = float(plain)
    if not math.isfinite(degrees) or abs(degrees) > limit:
        raise _Unreadable(f"the {what} {text[:40]} is not between -{limit} and {limit}")
    return degrees


def _area(code: str, scheme: str) -> str:
    if ":" not in code:
        if not scheme:
            raise _Unreadable(f"the area code {code[:40]} has no scheme")
        scheme = scheme.casefold()
        if scheme == "bps":
            code = code.removesuffix(".0")  # as a spreadsheet writes a number
        code = f"{scheme}:{code}"
    if not _AREA.fullmatch(code):
        raise _Unreadable(f"the area {code[:40]!r} is not of the form scheme:code")
    return code


def _count(name: str, text: str) -> int | None:
    if text.casefold() in _NOTHING:
        return None
    if _THOUSANDS.fullmatch(text):
        return int(re.sub(r"[.,]", "", text))
    if not _WHOLE.fullmatch(text):
        raise _Unreadable(f"the count {name} {text[:40]!r} is no whole number")
    return int(re.split(r"[.,]", text)[0])


def observed_at(text: str, zone: ZoneInfo | None, notes: Notes) -> datetime:
    """The instant that a time means, in UTC or with the zone that stands in it.

    Understood: ISO 8601 with or without a zone, a date (midnight of its day), seconds or milliseconds since 1970,
    and the dates of e-mail. What comes twice when clocks go back is the earlier; what they leave out when they go
    forward is as long after the change as it was meant to be after its hour.
    """
    if _EPOCH.fullmatch(text):
        seconds = float(text) / (1000 if len(text) == 13 else 1)
        return datetime.fromtimestamp(seconds, UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        try:
            time = parsedate_to_datetime(text)
        except ValueError:
            raise _Unreadable(f"the time {text[:40]!r} is not of the form 2020-01-31T09:10:00+07:00") from None
    if time.tzinfo is None:
        if zone is None:
            raise _NoZone(f"a time without a zone ({text[:40]})")
        time = _in_zone(time, zone, notes)
        if _DATE.fullmatch(text):
            notes.dates_only += 1
    try:
        time.astimezone(UTC)
    except OverflowError:
        raise _Unreadable(f"the time {text[:40]!r} is out of range") from None
    return time


def _in_zone(time: datetime, zone: ZoneInfo, notes: Notes) -> datetime:
    local = time.replace(tzinfo=zone, fold=0)
    if local.utcoffset() == local.replace(fold=1).utcoffset():
        return local
    there = local.astimezone(UTC).astimezone(zone)
    if there.replace(tzinfo=None) == time:
        notes.times_twice += 1
        return local
    notes.times_missing += 1
    return there
