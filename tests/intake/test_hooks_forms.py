"""Hooks of form servers: OpenROSA as ODK Collect speaks it, and Kobo's REST service."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from schemas.operations import OperationOpened
from schemas.reports import ReportReceived
from services.intake.app import service
from services.intake.handlers import consumer
from services.intake.hooks import forms, kobo, openrosa
from services.intake.hooks.multipart import parts
from services.runtime import clock, vault
from services.runtime.db import Database
from services.runtime.problems import Invalid
from services.runtime.service import Service
from tests.conftest import Wire, bearer, emitted, shared_file
from tests.intake.patience import patient

MakeClient = Callable[[Sequence[Service]], httpx.AsyncClient]
SECRET = "a shared secret"
SUBMIT = "/v1/hooks/openrosa/submission"
NAMESPACE = "{http://openrosa.org/http/response}"
OGG = b"OggS\x00\x02" + bytes(22) + b"OpusHead" + bytes(60)
HOUSEHOLD = """<?xml version="1.0"?>
<data xmlns:orx="http://openrosa.org/xforms" id="banjir-2026" version="3">
  <orx:meta><orx:instanceID>uuid:5f2c0b2e-0001</orx:instanceID></orx:meta>
  <start>2026-11-24T08:00:00+07:00</start>
  <Jenis_Bencana>banjir</Jenis_Bencana>
  <lokasi>-6.222 106.866 12.0 8.5</lokasi>
  <wilayah><desa>Bidara Cina</desa><kecamatan>Jatinegara</kecamatan></wilayah>
  <korban><luka>2</luka><pengungsi>40</pengungsi><meninggal>tidak ada</meninggal></korban>
  <keterangan>Air sedada, butuh perahu</keterangan>
  <sumber_air>sumur tercemar</sumber_air>
  <pelapor><nama>Ibu Contoh</nama><no_hp>0812-3456-7890</no_hp></pelapor>
  <anak><rinci><nama>Anak Rahasia</nama><umur>4</umur></rinci></anak>
  <foto>depan.jpg</foto>
</data>"""


@pytest.fixture
def client(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> httpx.AsyncClient:
    monkeypatch.setenv("GOTONG_INTAKE_OPENROSA_SECRET", SECRET)
    monkeypatch.setenv("GOTONG_INTAKE_KOBO_SECRET", SECRET)
    monkeypatch.setenv("GOTONG_INTAKE_MEDIA_FOLDER", str(tmp_path))
    return patient(make_client([service]))


def basic(password: str = SECRET, user: str = "relawan") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


async def submit(
    client: httpx.AsyncClient,
    form: str | bytes,
    files: dict[str, bytes] | None = None,
    *,
    headers: Any = None,
    query: str = "",
) -> httpx.Response:
    content = form.encode() if isinstance(form, str) else form
    posted = [("xml_submission_file", ("form.xml", content, "text/xml"))]
    posted += [(name, (name, data, "application/octet-stream")) for name, data in (files or {}).items()]
    return await client.post(SUBMIT + query, files=posted, headers=basic() if headers is None else headers)


async def reports(db: Database) -> list[dict[str, Any]]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch("SELECT * FROM report ORDER BY seq")]


async def counted(db: Database) -> tuple[int, ...]:
    tables = ("report", "outbox", "journal", "media", "hook_message", "vault_key")
    async with db.tx() as tx:
        return tuple([await tx.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


# OpenROSA


async def test_head_tells_how_much_is_taken_to_who_shows_the_secret(client):
    answer = await client.head(SUBMIT, headers=basic())
    assert answer.status_code == 204
    assert answer.headers["x-openrosa-version"] == "1.0"
    assert int(answer.headers["x-openrosa-accept-content-length"]) > 1_000_000
    asked = await client.head(SUBMIT)
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert (await client.head(SUBMIT, headers=basic("guessed"))).status_code == 403


async def test_a_filled_form_is_a_report_with_what_its_questions_say(client, db):
    answer = await submit(client, HOUSEHOLD)
    assert answer.status_code == 201
    assert answer.headers["x-openrosa-version"] == "1.0"
    root = ElementTree.fromstring(answer.content)
    assert root.tag == f"{NAMESPACE}OpenRosaResponse"
    assert root.find(f"{NAMESPACE}message") is not None
    (report,) = await reports(db)
    assert (report["lon"], report["lat"], report["accuracy_m"]) == (106.866, -6.222, 8.5)
    assert report["place"] == "Bidara Cina, Jatinegara"
    assert report["hazard"] == "flood"
    assert (report["origin"], report["external_id"]) == ("/openrosa/banjir-2026", "uuid:5f2c0b2e-0001")
    assert report["contact"] == vault.contact_id("+6281234567890")
    (event,) = await emitted(db, ReportReceived)
    assert event.people is not None
    assert (event.people.displaced, event.people.injured, event.people.dead) == (40, 2, None)
    assert event.text == "Air sedada, butuh perahu\nmeninggal: tidak ada\nsumber air: sumur tercemar\numur: 4"
    said = event.to_bytes().decode() + answer.text
    assert "Contoh" not in said
    assert "Rahasia" not in said
    assert "3456" not in said
    async with db.tx() as tx:
        row = await tx.fetchrow("SELECT sealed, sealed_for FROM hook_message")
        assert b"Rahasia" in (await vault.unseal(tx, row["sealed_for"], row["sealed"]) or b"")  # kept, for us alone


async def test_the_same_instance_in_several_posts_is_one_report_with_all_its_attachments(client, db):
    first = await submit(client, HOUSEHOLD)
    assert first.status_code == 201
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT state FROM media") == "expected"
    second = await submit(client, HOUSEHOLD, {"suara.ogg": OGG})
    third = await submit(client, HOUSEHOLD, {"depan.jpg": b"this is no picture"})
    assert (second.status_code, third.status_code) == (201, 201)
    assert "depan.jpg" in third.text
    assert len(await reports(db)) == 1
    assert len(await emitted(db, ReportReceived)) == 1
    async with db.tx() as tx:
        states = await tx.fetch("SELECT state, type, report_id FROM media ORDER BY state")
    assert [(row["state"], row["type"]) for row in states] == [("kept", "audio/ogg"), ("refused", None)]
    assert {row["report_id"] for row in states} == {(await reports(db))[0]["report_id"]}


async def test_a_repeated_instance_id_changes_nothing(client, db):
    await submit(client, HOUSEHOLD, {"suara.ogg": OGG})
    before = await counted(db)
    again = await submit(client, HOUSEHOLD, {"suara.ogg": OGG})
    assert again.status_code == 201
    assert await counted(db) == before


async def test_another_form_under_a_known_instance_id_is_409_and_changes_nothing(client, db):
    await submit(client, HOUSEHOLD)
    before = await counted(db)
    assert (await submit(client, HOUSEHOLD.replace("sedada", "surut"))).status_code == 409
    assert await counted(db) == before


async def test_a_body_in_chunks_without_a_length_is_taken(client, db):
    request = httpx.Request(
        "POST", "http://gotong.test/", files=[("xml_submission_file", ("f.xml", HOUSEHOLD.encode()))]
    )
    body = request.read()

    async def chunks() -> Any:
        for at in range(0, len(body), 100):
            yield body[at : at + 100]

    headers = basic() | {"content-type": request.headers["content-type"]}
    answer = await client.post(SUBMIT, content=chunks(), headers=headers)
    assert answer.status_code == 201
    assert len(await reports(db)) == 1


@pytest.mark.parametrize(
    ("name", "instance", "text"),
    [
        ("simple_one", "one", "age: 30"),
        ("withrepeat_two", "two", "age: 34\nage: 4\nage: 6"),
        ("binarytype_both", "both", None),
    ],
)
async def test_every_sound_sample_goes_in_once(client, db, name, instance, text):
    raw = shared_file(f"intake-webhooks/openrosa_{name}.xml").read_bytes()
    assert (await submit(client, raw)).status_code == 201
    assert (await submit(client, raw)).status_code == 201
    (report,) = await reports(db)
    assert (report["external_id"], report["text"]) == (instance, text)
    if name == "binarytype_both":
        async with db.tx() as tx:
            assert await tx.fetchval("SELECT count(*) FROM media WHERE state = 'expected'") == 2


async def test_the_sample_with_an_unbound_prefix_is_refused_without_a_crash(client, db):
    raw = shared_file("intake-webhooks/openrosa_unbound_prefix.xml").read_bytes()
    answer = await submit(client, raw)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert await reports(db) == []


@pytest.mark.parametrize(
    "form",
    [
        b"", b"{}", b"<data>", b"<data/>", b"<a:data id='x'><a:meta/></a:data>",
        b"<!DOCTYPE d [<!ENTITY e SYSTEM 'file:///etc/hostname'>]><data id='x'><meta><instanceID>&e;</instanceID></meta></data>",
        b"<!DOCTYPE d [<!ENTITY a '1'><!ENTITY b '&a;&a;'>]><data id='x'><meta><instanceID>i</instanceID></meta>&b;</data>",
        b"<data id='x'>" + b"<a>" * 5000 + b"</a>" * 5000 + b"</data>",
        b"<data id='x'><meta><instanceID>" + b"9" * 201 + b"</instanceID></meta></data>",
    ],
)  # fmt: skip
async def test_what_is_no_form_is_refused_and_leaves_nothing(client, db, form):
    answer = await submit(client, form)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert await counted(db) == (0,) * 6


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/xml", b"<data/>"),
        ("multipart/form-data", b"--x\r\n\r\n--x--"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\ncut"),
        ("multipart/form-data; boundary=x", b"--x\r\nno head\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Type: text/xml\r\n\r\n<data/>\r\n--x--"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=other\r\n\r\na\r\n--x--\r\n"),
    ],
)
async def test_a_body_that_is_no_multipart_with_a_form_is_refused(client, content_type, body):
    answer = await client.post(SUBMIT, content=body, headers=basic() | {"content-type": content_type})
    assert answer.status_code == 422


def test_a_part_holds_its_bytes_as_they_are():
    inner = b"\r\n--x2\r\n\x00\xff--x\r\n"
    body = (
        b'--x\r\nContent-Disposition: form-data; name="a"; filename="b \\"c\\".jpg"\r\n\r\n' + inner + b"\r\n--x--\r\n"
    )
    (part,) = parts(body, 'multipart/form-data; boundary="x"')
    assert (part.name, part.filename, part.content) == ("a", 'b "c".jpg', inner)


def test_a_hundred_parts_are_taken_and_no_more():
    part = b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n1\r\n"
    assert len(parts(part * 100 + b"--x--", "multipart/form-data; boundary=x")) == 100
    with pytest.raises(Invalid):
        parts(part * 101 + b"--x--", "multipart/form-data; boundary=x")


async def test_the_form_servers_hooks_are_closed_without_their_secrets(client, db, monkeypatch):
    monkeypatch.delenv("GOTONG_INTAKE_OPENROSA_SECRET")
    monkeypatch.setenv("GOTONG_INTAKE_KOBO_SECRET", "")
    assert (await client.head(SUBMIT, headers=basic(""))).status_code == 404
    assert (await submit(client, HOUSEHOLD, headers=basic(""))).status_code == 404
    answer = await client.post("/v1/hooks/kobo", json=submission(), headers=basic(""))
    assert answer.status_code == 404
    assert "GOTONG_INTAKE_KOBO_SECRET" in answer.json()["detail"]
    assert await reports(db) == []


async def test_a_form_goes_to_the_operation_that_its_address_or_itself_names(client, db):
    wire = Wire(consumer, db)
    for name in ("latihan-1", "demak-2026"):
        opened = OperationOpened(
            operation=name, title=name, opened_at=clock.now(), by="admin:tester", exercise=name == "latihan-1"
        )
        await wire.deliver(opened)
    await submit(client, HOUSEHOLD, query="?operation=latihan-1")
    own = HOUSEHOLD.replace("0001", "0002").replace("<foto>", "<operasi>demak-2026</operasi><foto>")
    await submit(client, own, query="?operation=latihan-1")
    assert [(r["operation"], r["exercise"]) for r in await reports(db)] == [("latihan-1", True), ("demak-2026", False)]
    assert (await submit(client, HOUSEHOLD, query="?operation=NOT%20ONE")).status_code == 422


def test_a_code_without_a_scheme_stays_in_the_text_because_its_digits_are_doubtful():
    form = openrosa.read(
        b"<d id='x'><instanceID>1</instanceID><kode_wilayah>3174</kode_wilayah><teks>banjir</teks></d>", []
    )
    report = forms.report_of(form, ())
    assert report.location is None
    assert report.text == "banjir\nkode wilayah: 3174"
    with_scheme = openrosa.read(b"<d id='x'><instanceID>1</instanceID><kode_wilayah>bps:3174</kode_wilayah></d>", [])
    location = forms.report_of(with_scheme, ()).location
    assert location is not None
    assert location.admin == "bps:3174"


@pytest.mark.parametrize(
    ("said", "point"),
    [
        ("-6.2 106.8", (106.8, -6.2)),
        ("-6.2 106.8 0 0", (106.8, -6.2)),
        ("95.0 106.8 0 0", None),  # no latitude of this earth
        ("30 12", None),  # two counts, not a position
        ("30", None),
    ],
)
def test_a_geopoint_is_latitude_first(said, point):
    form = openrosa.read(f"<d id='x'><instanceID>1</instanceID><titik>{said}</titik></d>".encode(), [])
    location = forms.report_of(form, ()).location
    assert ((location.lon, location.lat) if location else None) == point


# Kobo


def submission(**more: Any) -> dict[str, Any]:
    return {
        "_id": 4711,
        "_uuid": "1c0c3e0a",
        "meta/instanceID": "uuid:1c0c3e0a",
        "_xform_id_string": "aKbM5nXw",
        "formhub/uuid": "f0",
        "__version__": "v1",
        "_submission_time": "2026-11-24T02:00:00",
        "start": "2026-11-24T08:55:00.000+07:00",
        "_geolocation": [-7.09, 110.91],
        "laporan/keterangan": "Tanggul jebol, 120 orang mengungsi",
        "laporan/bencana": "banjir",
        "laporan/pengungsi": "120",
        "pelapor/nama": "Bapak Contoh",
        "pelapor/no_hp": "081234567890",
        "anak": [{"anak/nama": "Anak Rahasia", "anak/umur": "4"}],
        "_attachments": [
            {
                "download_url": "https://kf.kobotoolbox.org/media/1.jpg",
                "mimetype": "image/jpeg",
                "filename": "u/att/1.jpg",
            }
        ],
        "foto": "1.jpg",
        "_submitted_by": "petugas",
        "_tags": [],
        "_notes": [],
    } | more


async def send(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/v1/hooks/kobo", json=body, headers=basic())


async def test_a_kobo_submission_is_a_report_once(client, db):
    answer = await send(client, submission())
    assert answer.status_code == 201
    (report,) = await reports(db)
    assert (report["lon"], report["lat"], report["hazard"]) == (110.91, -7.09, "flood")
    assert report["text"] == "Tanggul jebol, 120 orang mengungsi\numur: 4"
    assert report["contact"] == vault.contact_id("+6281234567890")
    assert report["observed_at"].isoformat() == "2026-11-24T02:00:00+00:00"
    (event,) = await emitted(db, ReportReceived)
    assert "Rahasia" not in event.to_bytes().decode()
    before = await counted(db)
    again = await send(client, submission())  # it did not hear our answer, and tries again after a minute
    assert again.status_code == 201
    assert again.json() == answer.json() | {"repeated": True}
    assert await counted(db) == before
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT state FROM media") == "wanted"


async def test_kobo_is_told_what_is_wrong(client, db):
    for body in ([], "x", {}, {"_uuid": ""}, {"_uuid": "x" * 201}, {"meta/instanceID": ["x"]}):
        assert (await send(client, body)).status_code == 422
    assert (await client.post("/v1/hooks/kobo", json=submission())).status_code == 401
    assert (await client.post("/v1/hooks/kobo", json=submission(), headers=bearer("operator"))).status_code == 403
    assert await reports(db) == []


@pytest.mark.parametrize(
    "odd",
    [
        {"_geolocation": [None, None]}, {"_geolocation": ["x", {}]}, {"_geolocation": [95, 190]}, {"_attachments": [1, {}]},
        {"_submission_time": "nonsense"}, {"_submission_time": "9999-12-31T23:59:59"}, {"laporan/pengungsi": "banyak"},
        {"laporan/bencana": "sesuatu"}, {"deep": {"a": {"b": {"c": [[[["x"]]]]}}}}, {"n": 1.5}, {"t": True}, {"x": "\u202e"},
    ],
)  # fmt: skip
async def test_odd_answers_never_cost_the_submission(client, db, odd):
    assert (await send(client, submission(**odd))).status_code == 201
    assert len(await reports(db)) == 1


def test_an_own_field_of_kobos_is_no_answer():
    form = kobo.read(submission())
    assert not [answer for answer in form.answers if answer.path[-1].startswith("_")]
