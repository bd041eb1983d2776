"""`gotong import`: volunteers or stock from a CSV or XLSX file, each row once, those that cannot be taken in a file."""

from __future__ import annotations

import csv
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import orjson

from gotong.client import CommandFailed, Target, ask, connect, target_options
from gotong.reportfile import FileFault, csv_rows
from gotong.sheetfile import xlsx_rows

BATCH = 500
_NAMES: dict[str, dict[str, tuple[str, ...]]] = {
    "volunteers": {
        "external_id": ("id", "external_id", "nomor_anggota", "no_anggota", "member_id"),
        "name": ("name", "nama", "nama_lengkap", "full_name"),
        "phone": ("phone", "telepon", "telp", "hp", "no_hp", "nomor_hp", "whatsapp", "wa", "nomor_telepon"),
        "lat": ("lat", "latitude", "lintang"),
        "lon": ("lon", "lng", "longitude", "bujur"),
        "place": ("place", "alamat", "address", "tempat"),
        "skills": ("skills", "skill", "keahlian", "keterampilan"),
        "certificates": ("certificates", "sertifikat"),
        "languages": ("languages", "bahasa"),
        "organisation": ("organisation", "organization", "organisasi"),
        "travel_limit_km": ("travel_limit_km", "jarak_km"),
        "kind": ("kind", "jenis"),
        "capacity": ("capacity", "jumlah_orang", "anggota"),
    },
    "stock": {
        "external_id": ("id", "external_id", "kode", "no"),
        "item": ("item", "barang", "nama_barang"),
        "quantity": ("quantity", "jumlah", "qty", "stok"),
        "unit": ("unit", "satuan"),
        "lat": ("lat", "latitude", "lintang"),
        "lon": ("lon", "lng", "longitude", "bujur"),
        "place": ("place", "gudang", "lokasi", "alamat"),
        "organisation": ("organisation", "organization", "organisasi", "pemilik"),
        "kind": ("kind", "jenis"),
        "expires_at": ("expires_at", "kedaluwarsa", "kadaluarsa", "expiry"),
    },
}
_ROUTES = {"volunteers": "/v1/responders:batch", "stock": "/v1/resources:batch"}
_OURS = ("gotong_line", "gotong_error")
"""Columns of the file of errors that are no column of the file: it can be mended and imported as it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the file, and the body that it is sent as."""

    line: int
    cells: Mapping[str, str]
    body: dict[str, Any]


@click.command("import", epilog="Example: gotong import volunteers relawan.xlsx --errors mend.csv")
@click.argument("what", type=click.Choice(sorted(_NAMES)))
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option("--columns", metavar="FIELD=COL,…", help="Which column is which field, where its name does not say so.")
@click.option("--errors", type=click.Path(path_type=Path, dir_okay=False), help="Default: FILE.errors.csv.")
@click.option("--source", metavar="URI", help="In whose numbering ids count. Default: /files/<file name>.")
@click.option("--operation", metavar="ID", help="The operation for which they are entered.")
@click.option("--by-code", is_flag=True, help="Volunteers confirm themselves with a code by message.")
@target_options
def import_(
    what: str,
    file: Path,
    columns: str | None,
    errors: Path | None,
    source: str | None,
    operation: str | None,
    by_code: bool,
    target: Target,
) -> None:
    """Enter the rows of FILE (CSV or XLSX): WHAT is volunteers or stock.

    Rows that cannot be taken go to the file of errors as they were, with the reason in a column of its own: mend them
    there and import that file. A row is known again by its id column, else by all its cells, so nothing that is in is
    entered twice.
    """
    try:
        header, rows = xlsx_rows(file) if file.suffix.lower() == ".xlsx" else csv_rows(file)
    except FileFault as error:
        raise click.UsageError(str(error)) from None
    fields = _fields(what, header, columns)
    # A mended file of errors counts in the numbering of the file that it came from.
    original = re.sub(r"\.errors\.csv$", "", file.name)
    shared: dict[str, Any] = {"source": source or f"/files/{original}"}
    if operation:
        shared["operation"] = operation
    if by_code and what == "volunteers":
        shared["confirm_by"] = "code"
    refused: list[tuple[int, Mapping[str, str], str]] = []
    good: list[Row] = []
    for line, cells, fault in rows:
        if fault is not None:
            refused.append((line, cells, fault))
            continue
        try:
            good.append(Row(line, cells, _body(what, cells, fields) | shared))
        except ValueError as error:
            refused.append((line, cells, str(error)))
    counts = {"accepted": 0, "repeated": 0}
    with connect(target) as http, click.progressbar(length=len(good), label=file.name, file=sys.stderr) as bar:
        for chunk in _chunks(good):
            for row, result in zip(chunk, _send(http, _ROUTES[what], chunk), strict=True):
                if "error" in result:
                    refused.append((row.line, row.cells, str(result["error"])))
                else:
                    counts["repeated" if result.get("repeated") else "accepted"] += 1
            bar.update(len(chunk))
    click.echo(f"{counts['accepted']} taken, {counts['repeated']} were there already, {len(refused)} refused")
    if refused:
        path = errors or file.with_name(f"{original}.errors.csv")
        _write_errors(path, header, sorted(refused, key=lambda entry: entry[0]))
        raise CommandFailed(f"{len(refused)} rows were refused; mend them in {path} and import that file.")


def _fields(what: str, header: list[str], columns: str | None) -> dict[str, str]:
    """The column of each field: as named, else by the column's name."""
    plain = {re.sub(r"\W+", "_", name.strip().casefold()).strip("_"): name for name in header}
    known = _NAMES[what]
    found = {field: plain[word] for field, words in known.items() for word in reversed(words) if word in plain}
    for part in (columns or "").split(",") if columns else []:
        field, _, column = part.partition("=")
        if field.strip() not in known or column.strip() not in header:
            raise click.UsageError(
                f"{part} names no field or no column; fields are {', '.join(known)}, columns {', '.join(header)}."
            )
        found[field.strip()] = column.strip()
    for wanted in ("phone",) if what == "volunteers" else ("item", "quantity"):
        if wanted not in found:
            raise click.UsageError(f"No column holds {wanted}; say which with --columns {wanted}=COLUMN.")
    return found


def _body(what: str, cells: Mapping[str, str], fields: Mapping[str, str]) -> dict[str, Any]:
    """A row as the body of its batch; raises ValueError with the reason when a number is none."""
    said = {field: cells.get(column, "").strip() for field, column in fields.items()}
    said = {field: text for field, text in said.items() if text}
    own = "\x1f".join(f"{name}={cells[name].strip()}" for name in sorted(cells) if name not in _OURS)
    body: dict[str, Any] = {
        "external_id": said.pop("external_id", None) or hashlib.sha256(own.encode()).hexdigest()[:32]
    }
    lat, lon, place = said.pop("lat", None), said.pop("lon", None), said.pop("place", None)
    if (lat is None) != (lon is None):
        raise ValueError("lat and lon go together")
    if lat is not None and lon is not None:
        body["location"] = {"lat": _number("lat", lat), "lon": _number("lon", lon)} | (
            {"place": place} if place else {}
        )
    elif place and what == "stock":
        body["place"] = place
    for field in ("skills", "languages", "certificates"):
        if field in said:
            words = [word.strip() for word in re.split(r"[;,|]", said.pop(field)) if word.strip()]
            body[field] = [{"code": word} for word in words] if field == "certificates" else words
    for field in ("quantity", "capacity", "travel_limit_km"):
        if field in said:
            number = _number(field, said.pop(field))
            body[field] = int(number) if number.is_integer() else number
    return body | said


def _number(field: str, text: str) -> float:
    """A number as it is written here: a comma may part the fraction."""
    try:
        return float(text if text.count(",") != 1 or "." in text else text.replace(",", "."))
    except ValueError:
        raise ValueError(f"{field}: {text} is no number") from None


def _chunks(rows: list[Row]) -> Iterator[list[Row]]:
    for begin in range(0, len(rows), BATCH):
        yield rows[begin : begin + BATCH]


def _send(http: httpx.Client, route: str, rows: list[Row]) -> list[dict[str, Any]]:
    content = orjson.dumps([row.body for row in rows])
    answer = ask(http, "POST", route, content=content, headers={"Content-Type": "application/json"}, timeout=90)
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def _write_errors(path: Path, header: list[str], refused: list[tuple[int, Mapping[str, str], str]]) -> None:
    """The refused rows as they were, readable for this user alone: they name people."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    columns = [name for name in header if name not in _OURS]
    with path.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.writer(out)
        writer.writerow([*columns, *_OURS])
        for line, cells, reason in refused:
            writer.writerow([*(cells.get(name, "") for name in columns), line, reason])
