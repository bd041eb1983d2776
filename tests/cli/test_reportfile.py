"""Every way a file of reports can be written, and what is done about a row that cannot be read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gotong.reportfile import FileFault, Notes, Reading, Row, format_of, observed_at, parse_columns, read_rows
from schemas.partners import ReportSubmitted
from tests.conftest import shared_file

JAKARTA = ZoneInfo("Asia/Jakarta")


def rows_of(
    tmp_path: Path,
    content: str | bytes,
    columns: str = "",
    *,
    name: str = "reports.csv",
    zone: ZoneInfo | None = JAKARTA,
    notes: Notes | None = None,
) -> list[Row]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    named, constants = parse_columns(columns)
    reading = Reading(f"/files/{name}", named, constants, zone)
    return list(read_rows(path, format_of(path), reading, notes or Notes()))


def body_of(tmp_path: Path, content: str | bytes, columns: str = "", **more: Any) -> dict[str, Any]:
    (row,) = rows_of(tmp_path, content, columns, **more)
    assert row.body is not None, row.reason
    return row.body


@pytest.mark.parametrize(
    ("text", "columns", "constants"),
    [
        ("id=no,text=isi", {"id": "no", "text": "isi"}, {}),
        ("hazard='flood',title='Banjir, lagi'", {}, {"hazard": "flood", "title": "Banjir, lagi"}),
        ("title='it''s here'", {}, {"title": "it's here"}),
        ('text="Description, long",id=a.b', {"text": "Description, long", "id": "a.b"}, {}),
        (" id = no , text = isi ", {"id": "no", "text": "isi"}, {}),
    ],
)
def test_columns_and_constants_are_told_apart(text: str, columns: dict[str, str], constants: dict[str, str]) -> None:
    assert parse_columns(text) == (columns, constants)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("idd=no", "no field 'idd'"),
        ("id", "cannot be read"),
        ("id=", "no column for id"),
        ("id=a,id=b", "twice"),
        ("hazard='flood", "cannot be read"),
    ],
)
def test_a_wrong_columns_option_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(FileFault, match=said):
        parse_columns(text)


def test_all_fields_reach_their_place_in_the_report(tmp_path: Path) -> None:
    fields = (
        "id,time,text,title,hazard,severity,kind,lat,lon,place,admin,admin_scheme,affected,displaced,injured,dead,"
        "missing,houses_damaged,public_facilities_damaged,external_url"
    )
    values = (
        "a1,2020-02-25T07:30,air naik,Banjir,BANJIR,berat,relawan,-6.2,106.8,Kampung Melayu,31.75.03,kemendagri,30,12,"
        "2,0,-,,1,https://example.org/a1"
    )
    assert body_of(tmp_path, f"{fields}\n{values}\n") == {
        "external_id": "a1",
        "observed_at": "2020-02-25T07:30:00+07:00",
        "text": "air naik",
        "title": "Banjir",
        "hazard": "flood",
        "severity": 3,
        "reporter": {"kind": "volunteer"},
        "location": {"lon": 106.8, "lat": -6.2, "place": "Kampung Melayu", "admin": "kemendagri:31.75.03"},
        "people": {"affected": 30, "displaced": 12, "injured": 2, "dead": 0},
        "damage": {"public_facilities_damaged": 1},
        "external_url": "https://example.org/a1",
        "source": "/files/reports.csv",
    }


def test_a_fixed_value_counts_for_every_row(tmp_path: Path) -> None:
    columns = "id=no,hazard='flood',admin=kode,admin_scheme='bps',kind='official'"
    (first, second) = rows_of(tmp_path, "no,kode\n1,1213\n2,1221.0\n", columns)
    assert first.body
    assert second.body
    assert first.body["location"] == {"admin": "bps:1213"}
    assert second.body["location"] == {"admin": "bps:1221"}
    assert first.body["hazard"] == second.body["hazard"] == "flood"


def test_a_fixed_word_is_understood_where_the_shell_took_its_quotes(tmp_path: Path) -> None:
    notes = Notes()
    body = body_of(tmp_path, "no,isi\n1,air\n", "id=no,text=isi,hazard=flood", notes=notes)
    assert body["hazard"] == "flood"
    assert "no column flood" in notes.hints[0]


def test_a_misspelt_column_is_refused_with_the_names_there_are(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match="no column teks for text; its columns are isi, no"):
        rows_of(tmp_path, "no,isi\n1,air\n", "id=no,text=teks")


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfno,isi\r\n1,air naik\r\n",
        b"no;isi\n1;air naik\n",
        b"no\tisi\n1\tair naik\n",
        b'"no","isi"\n\n1,"air naik"\n\n',
        "no,isi\n1,air naik\n".encode("utf-16"),
        b"no,isi,\n1,air naik,\n",
    ],
)
def test_every_usual_kind_of_csv_is_read(tmp_path: Path, content: bytes) -> None:
    body = body_of(tmp_path, content, "id=no,text=isi")
    assert (body["external_id"], body["text"]) == ("1", "air naik")


def test_a_quoted_text_over_several_lines_keeps_them_and_the_next_row_its_line(tmp_path: Path) -> None:
    first, second = rows_of(tmp_path, 'no,isi\n1,"air\nnaik, ""cepat"""\n2,x\n', "id=no,text=isi")
    assert first.body
    assert first.body["text"] == 'air\nnaik, "cepat"'
    assert (first.line, second.line) == (2, 4)


def test_bytes_that_are_no_utf8_are_read_as_windows_1252(tmp_path: Path) -> None:
    content = "no,isi\n1,Léogâne\n".encode("cp1252") + "2,Léogâne\n".encode()
    first, second = rows_of(tmp_path, content, "id=no,text=isi")
    assert first.body
    assert second.body
    assert first.body["text"] == second.body["text"] == "Léogâne"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("1,x,95,106,,,", "latitude 95"),
        ("1,x,-6.2,lon,,,", "longitude 'lon'"),
        ("1,x,nan1,106,,,", "latitude 'nan1'"),
        ("1,x,-6.2,,,,", "latitude without a longitude"),
        ("1,x,,106,,,", "longitude without a latitude"),
        ("1,x,1e999,106,,,", "latitude 1e999"),
        ("1,x,,,31/12/2020 07:00,,", "time '31/12/2020 07:00'"),
        ("1,x,,,0001-01-01,,", "out of range"),
        ("1,x,,,,dua,", "count dead 'dua'"),
        ("1,x,,,,-3,", "count dead '-3'"),
        ("1,x,,,,1.5,", "count dead '1.5'"),
        ("1,x,,,,,9", "severity '9'"),
        ("1,,,,,,", "neither a text, a title nor a hazard"),
        ("1,x,,,,,,9", "8 cells"),
        ("1,a\x00b,,,,,", "NUL"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_next_one_is_read(tmp_path: Path, row: str, said: str) -> None:
    content = f"no,isi,y,x,kapan,mati,parah\n{row}\n2,baik,-6,106,2020-01-01,3,2\n"
    bad, good = rows_of(tmp_path, content, "id=no,text=isi,lat=y,lon=x,time=kapan,dead=mati,severity=parah")
    assert bad.body is None
    assert bad.line == 2
    assert bad.reason is not None
    assert said in bad.reason
    assert good.body
    assert good.body["external_id"] == "2"


@pytest.mark.parametrize(("text", "count"), [("1.234", 1234), ("1,234,567", 1234567), ("3.0", 3), ("0", 0)])
def test_counts_are_read_as_spreadsheets_write_them(tmp_path: Path, text: str, count: int) -> None:
    assert body_of(tmp_path, f'no,isi,mati\n1,x,"{text}"\n', "id=no,text=isi,dead=mati")["people"] == {"dead": count}


@pytest.mark.parametrize("text", ["", "-", "N/A", "–"])
def test_a_blank_count_is_absent_and_no_zero(tmp_path: Path, text: str) -> None:
    assert "people" not in body_of(tmp_path, f"no,isi,mati\n1,x,{text}\n", "id=no,text=isi,dead=mati")


def test_a_decimal_comma_is_understood_in_a_position(tmp_path: Path) -> None:
    body = body_of(tmp_path, "no;isi;y;x\n1;a;-6,25;106,5\n", "id=no,text=isi,lat=y,lon=x")
    assert body["location"] == {"lon": 106.5, "lat": -6.25}


def test_a_row_without_an_id_gets_the_same_one_each_time_and_never_that_of_another(tmp_path: Path) -> None:
    content = "isi\nair\nair\n"
    first = [row.body["external_id"] for row in rows_of(tmp_path, content, "text=isi") if row.body]
    again = [row.body["external_id"] for row in rows_of(tmp_path, content, "text=isi") if row.body]
    assert first == again
    assert len(set(first)) == 2


def test_an_area_code_without_its_scheme_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match="needs its scheme"):
        rows_of(tmp_path, "no,kode\n1,3174\n", "id=no,hazard='flood',admin=kode")
    assert body_of(tmp_path, "no,kode\n1,bps:3174\n", "id=no,hazard='flood',admin=kode")["location"] == {
        "admin": "bps:3174"
    }


# Times


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2020-02-25T07:30:00", "2020-02-25T07:30:00+07:00"),
        ("2020-02-25 07:30", "2020-02-25T07:30:00+07:00"),
        ("2020-02-25", "2020-02-25T00:00:00+07:00"),
        ("2020-02-25T00:30:00Z", "2020-02-25T00:30:00+00:00"),
        ("2020-02-25T07:30:00.250+09:00", "2020-02-25T07:30:00.250000+09:00"),
        ("1582590600", "2020-02-25T00:30:00+00:00"),
        ("1582590600000", "2020-02-25T00:30:00+00:00"),
        ("Tue, 25 Feb 2020 07:30:00 +0700", "2020-02-25T07:30:00+07:00"),
    ],
)
def test_times_are_read_with_their_zone_or_in_the_files(text: str, instant: str) -> None:
    assert observed_at(text, JAKARTA, Notes()).isoformat() == instant


def test_a_time_that_comes_twice_is_the_earlier_and_is_counted() -> None:
    notes = Notes()
    time = observed_at("2023-10-29T02:30", ZoneInfo("Europe/Berlin"), notes)
    assert time.isoformat() == "2023-10-29T02:30:00+02:00"
    assert (notes.times_twice, notes.times_missing) == (1, 0)


def test_a_time_that_clocks_skip_is_moved_on_and_counted() -> None:
    notes = Notes()
    time = observed_at("2023-03-26T02:30", ZoneInfo("Europe/Berlin"), notes)
    assert time.isoformat() == "2023-03-26T03:30:00+02:00"
    assert (notes.times_twice, notes.times_missing) == (0, 1)


def test_dates_alone_are_counted_so_that_it_can_be_said() -> None:
    notes = Notes()
    observed_at("2020-02-25", JAKARTA, notes)
    assert notes.sentences() == ["1 times are a date only and were read as midnight."]


def test_a_time_without_a_zone_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    with pytest.raises(FileFault, match="--timezone"):
        rows_of(tmp_path, "no,isi,t\n1,x,2020-01-01T07:00\n", "id=no,text=isi,time=t", zone=None)
    content = "no,isi,t\n" + "1,x,2020-01-01T07:00Z\n" * 300 + "2,x,2020-01-01T07:00\n"
    rows = rows_of(tmp_path, content, "id=no,text=isi,time=t", zone=None)
    assert [row.line for row in rows if row.body is None] == [302]


# Other forms


def feature(properties: dict[str, Any], geometry: dict[str, Any] | None) -> dict[str, Any]:
    return {"type": "Feature", "properties": properties, "geometry": geometry}


def test_properties_of_geojson_are_columns_and_its_point_needs_none(tmp_path: Path) -> None:
    document = {
        "type": "FeatureCollection",
        "features": [
            feature(
                {"n": 7, "tags": {"area": "bps:3174"}, "isi": "air"}, {"type": "Point", "coordinates": [106, -6, 3]}
            ),
            feature({"n": 8, "tags": None, "isi": "air"}, None),
            feature({"n": 9, "isi": "air"}, {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [1, 1], [0, 0]]]}),
            feature({"n": 10, "isi": "air"}, {"type": "Point", "coordinates": [6, 106]}),
            "no feature",
        ],
    }
    columns = "id=n,text=isi,admin=tags.area"
    rows = rows_of(tmp_path, json.dumps(document), columns, name="reports.geojson")
    assert [row.line for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].body
    assert rows[0].body["location"] == {"lon": 106.0, "lat": -6.0, "admin": "bps:3174"}
    assert rows[0].body["external_id"] == "7"
    assert rows[1].body
    assert "location" not in rows[1].body
    assert rows[2].reason
    assert "Polygon" in rows[2].reason
    assert rows[3].reason
    assert "latitude" in rows[3].reason
    assert rows[4].reason == "this is no GeoJSON Feature"


def test_a_line_of_json_has_its_fields_by_dots_and_a_broken_one_stops_nothing(tmp_path: Path) -> None:
    content = '{"a":{"b":[5]},"isi":"air"}\n{"a":\n[1]\n\n{"a":{"b":[6]},"isi":"lagi"}\n'
    rows = rows_of(tmp_path, content, "id=a.b.0,text=isi", name="reports.jsonl")
    assert [row.body["external_id"] if row.body else None for row in rows] == ["5", None, None, "6"]
    assert [row.line for row in rows] == [1, 2, 3, 5]


def test_a_line_that_is_a_report_already_stays_as_it_is(tmp_path: Path) -> None:
    report = {
        "text": "air",
        "location": {"lon": 106.0, "lat": -6.0},
        "external_id": "a",
        "needs": [{"item": "boat", "quantity": 1}],
    }
    body = body_of(tmp_path, json.dumps(report), name="reports.jsonl")
    assert body == report | {"source": "/files/reports.jsonl"}


def test_the_format_is_told_by_the_content_where_the_name_says_nothing(tmp_path: Path) -> None:
    for content, format in (
        ("a,b\n1,2\n", "csv"),
        ('{"a":1}\n{"a":2}\n', "jsonl"),
        ('{"type":"FeatureCollection","features":[]}', "geojson"),
        ('\n[\n{"type":"Feature"}]', "geojson"),
        ("<?xml version='1.0'?><alert/>", "cap"),
    ):
        path = tmp_path / "file"
        path.write_text(content)
        assert format_of(path) == format, content


@given(
    st.lists(
        st.tuples(
            st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip),
            st.floats(-90, 90),
            st.floats(-180, 180),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["isi", "lat", "lon"])
    writer.writerows(rows)
    read = rows_of(tmp_path_factory.mktemp("csv"), out.getvalue(), "text=isi,lat=lat,lon=lon")
    found = [(r.body["text"], r.body["location"]["lat"], r.body["location"]["lon"]) for r in read if r.body]
    assert found == [(text.strip(), lat, lon) for text, lat, lon in rows]


REAL = [
    (
        "petabencana/reports_2020_2021.csv",
        "id=id,time=created_at_local,text=text,title=title,hazard=disaster_type,lat=lat,lon=lon",
        "Asia/Jakarta",
        3004,
    ),
    (
        "haiti-2010/reports.csv",
        "id=id,time=reported_at,title=title,text=description,lat=lat,lon=lon",
        "America/Port-au-Prince",
        2281,
    ),
    (
        "petabencana/reports_2017_02_jabodetabek.geojson",
        "id=report_id,time=created_at,text=text,title=title,hazard='flood'",
        "Asia/Jakarta",
        870,
    ),
    (
        "bnpb-floods-2020-2021/events.csv",
        "id=no,time=event_date,text=location_text,hazard='flood',admin=regency_code_bps,admin_scheme='bps',dead=dead,"
        "missing=missing,injured=injured,houses_damaged=houses_damaged",
        "Asia/Jakarta",
        1975,
    ),
]


@pytest.mark.parametrize(("name", "columns", "zone", "count"), REAL)
def test_every_row_of_the_real_files_is_a_valid_report_with_an_id_of_its_own(
    name: str, columns: str, zone: str, count: int
) -> None:
    path = shared_file(name)
    named, constants = parse_columns(columns)
    reading = Reading(f"/files/{path.name}", named, constants, ZoneInfo(zone))
    rows = list(read_rows(path, format_of(path), reading, Notes()))
    assert [(row.line, row.reason) for row in rows if row.body is None] == []
    bodies = [row.body for row in rows if row.body]
    assert len({body["external_id"] for body in bodies}) == len(rows) == count
    for body in bodies:
        ReportSubmitted.model_validate({name: value for name, value in body.items() if name != "source"})
