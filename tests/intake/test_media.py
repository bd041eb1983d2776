"""Photographs and recordings: judged by content, cleaned, kept sealed, fetched from providers, shown to operators."""

from __future__ import annotations

import base64
import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.operations import OperationOpened
from schemas.reports import ReportPlaced, ReportTranscribed
from services.channels.settings import ChannelSettings
from services.intake import media_fetch
from services.intake.app import service
from services.intake.handlers import consumer
from services.intake.linker import Indexes, link_waiting
from services.intake.media import Clean, Refused, clean, read_exif
from services.intake.media_fetch import Fetcher, fetch_wanted
from services.intake.media_writes import Wanted, forget_media, forget_unnamed, sweep, want
from services.intake.redaction import forget
from services.intake.settings import IntakeSettings
from services.runtime import clock, vault
from services.runtime.db import Database
from services.runtime.service import Service
from tests.conftest import Wire, bearer, emitted
from tests.intake.patience import patient

MakeClient = Callable[[Sequence[Service]], httpx.AsyncClient]
OPERATOR = bearer("operator")

# One grey pixel, as any camera's library writes it.
PIXEL = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgy"
    "PC4zNDL/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
)
OGG = b"OggS\x00\x02" + bytes(22) + b"OpusHead" + bytes(60)
CIANJUR = (107.141389, -6.8175)


def exif(lon: float | None = None, lat: float | None = None, *, orientation: int = 1, order: str = ">") -> bytes:
    """A block of EXIF as telephones write it: the maker, the orientation, and a position."""
    entries: list[tuple[int, int, int, bytes]] = [(0x0112, 3, 1, struct.pack(order + "HH", orientation, 0))]
    maker = b"Telepon Ibu Contoh\x00"
    count = 2 + (lon is not None)
    start = 8 + 2 + 12 * count + 4
    extra = maker
    entries.append((0x010F, 2, len(maker), struct.pack(order + "I", start)))
    if lon is not None and lat is not None:
        gps = start + len(extra)
        entries.append((0x8825, 4, 1, struct.pack(order + "I", gps)))
        values = gps + 2 + 12 * 4 + 4

        def parts(value: float) -> bytes:
            seconds = round(abs(value) * 3600 * 1000)
            return struct.pack(order + "6I", seconds // 3_600_000, 1, seconds // 60_000 % 60, 1, seconds % 60_000, 1000)

        def entry(tag: int, kind: int, number: int, value: bytes) -> bytes:
            return struct.pack(order + "HHI", tag, kind, number) + value

        extra += struct.pack(order + "H", 4)
        extra += entry(1, 2, 2, (b"S" if lat < 0 else b"N") + bytes(3)) + entry(
            2, 5, 3, struct.pack(order + "I", values)
        )
        extra += entry(3, 2, 2, (b"W" if lon < 0 else b"E") + bytes(3)) + entry(
            4, 5, 3, struct.pack(order + "I", values + 24)
        )
        extra += bytes(4) + parts(lat) + parts(lon)
    head = (b"MM\x00*" if order == ">" else b"II*\x00") + struct.pack(order + "I", 8)
    table = struct.pack(order + "H", len(entries))
    for tag, kind, number, value in entries:
        table += struct.pack(order + "HHI", tag, kind, number) + value
    return head + table + bytes(4) + extra


def segment(marker: int, payload: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg(*segments: bytes, after: bytes = b"") -> bytes:
    return PIXEL[:2] + b"".join(segments) + PIXEL[2:] + after


def photo(lon: float | None = CIANJUR[0], lat: float | None = CIANJUR[1], **more: Any) -> bytes:
    return jpeg(segment(0xE1, b"Exif\x00\x00" + exif(lon, lat, **more)))


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(chunks)
        + chunk(b"IDAT", zlib.compress(b"\x00\x00"))
        + chunk(b"IEND", b"")
    )


def riff(kind: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    body = kind + b"".join(n + struct.pack("<I", len(b)) + b + bytes(len(b) & 1) for n, b in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def mp4(*extra: bytes, brand: bytes = b"isom", handler: bytes = b"vide") -> bytes:
    track = box(b"trak", box(b"mdia", box(b"hdlr", bytes(8) + handler + bytes(12))))
    return box(b"ftyp", brand + bytes(4)) + box(b"moov", track + b"".join(extra)) + box(b"mdat", b"sound and pictures")


# What is kept, by content


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (PIXEL, "image/jpeg"),
        (png(), "image/png"),
        (riff(b"WEBP", (b"VP8L", b"/\x00\x00\x00\x00x")), "image/webp"),
        (OGG, "audio/ogg"),
        (b"#!AMR\n" + bytes(40), "audio/amr"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x05hello\xff\xfb\x90\x00" + bytes(200), "audio/mpeg"),
        (b"\xff\xf1\x50\x80" + bytes(40), "audio/aac"),
        (riff(b"WAVE", (b"fmt ", bytes(16)), (b"data", b"1234")), "audio/wav"),
        (mp4(), "video/mp4"),
        (mp4(handler=b"soun", brand=b"M4A "), "audio/mp4"),
        (mp4(handler=b"soun", brand=b"3gp4"), "audio/mp4"),
    ],
)
def test_what_is_kept_is_known_by_its_content(raw, kind):
    found = clean(raw)
    assert (found.type, found.point) == (kind, None)
    assert clean(found.data) == found  # what is clean stays as it is


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"x", b"GIF89a" + bytes(40), b"%PDF-1.7", b"<svg onload='alert(1)'/>", b"<html>", b"PK\x03\x04" + bytes(40), b"MZ" + bytes(60),
        PIXEL[:40], b"\xff\xd8\xff\xe0", b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\xe0\xff\xff" + bytes(20), png()[:50], png()[:-8],
        png().replace(b"IDAT", b"IDOT"), mp4()[:60], mp4(handler=b"text"), mp4(brand=b"heic"), mp4(brand=b"avif"),
        riff(b"WEBP"), riff(b"WAVE", (b"fmt ", bytes(16))), b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff", b"OggS\x00" + bytes(90), b"#!AMR\n",
        b"ID3" + bytes(40),
    ],
)  # fmt: skip
def test_what_is_no_photograph_or_recording_is_refused_in_a_sentence(raw):
    with pytest.raises(Refused) as refused:
        clean(raw)
    assert " " in str(refused.value)


@given(
    st.binary(max_size=400),
    st.sampled_from([PIXEL, photo(), png(), mp4(), riff(b"WEBP", (b"VP8 ", b"1234"))]),
    st.integers(0, 400),
)
def test_no_bytes_make_it_fail(noise, raw, at):
    for spoilt in (noise, raw[:at] + noise, raw[:at] + noise + raw[at + len(noise) :]):
        with suppress(Refused):
            assert isinstance(clean(spoilt), Clean)


@given(st.binary(max_size=300))
def test_no_block_of_exif_makes_it_fail(noise):
    for order in (b"II*\x00", b"MM\x00*"):
        read_exif(order + struct.pack("<I", 8) + noise)
        read_exif(order + noise)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("where", [CIANJUR, (-70.648, -33.456), (179.9, 60.25), (-0.1275, 51.507222)])
def test_the_position_of_a_photograph_is_read_and_then_gone(order, where):
    raw = jpeg(
        segment(0xE1, b"Exif\x00\x00" + exif(*where, order=order)),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\x00<x:xmpmeta>Ibu Contoh</x:xmpmeta>"),
        segment(0xED, b"Photoshop 3.0\x00Ibu Contoh"), segment(0xFE, b"Ibu Contoh"), segment(0xE2, b"MPF\x00Ibu Contoh"),
        after=b"\x00\x00\x00\x18ftypmp42 Ibu Contoh" + photo(),
    )  # fmt: skip
    found = clean(raw)
    assert found.point == pytest.approx(where, abs=1e-5)
    assert b"Contoh" not in found.data
    assert b"Exif" not in found.data
    assert found.data == PIXEL
    assert clean(found.data).point is None


def test_a_picture_on_its_side_stays_the_right_way_up():
    found = clean(photo(orientation=6))
    assert b"Contoh" not in found.data
    at = found.data.index(b"Exif\x00\x00") + 6
    assert read_exif(found.data[at:]).orientation == 6
    assert read_exif(found.data[at:]).point is None


def test_a_camera_without_a_fix_gives_no_position():
    assert clean(photo(0.0, 0.0)).point is None
    assert clean(photo(None, None)).point is None
    assert clean(photo(200.0, 95.0)).point is None


def test_other_formats_lose_their_position_too():
    shot = exif(*CIANJUR)
    for raw in (
        png(
            chunk(b"eXIf", shot),
            chunk(b"tEXt", b"Author\x00Ibu Contoh"),
            chunk(b"iTXt", b"XML:com.adobe.xmp\x00Ibu Contoh"),
        ),
        riff(b"WEBP", (b"VP8X", b"\x0c" + bytes(9)), (b"VP8 ", b"1234"), (b"EXIF", shot), (b"XMP ", b"Ibu Contoh")),
    ):
        found = clean(raw)
        assert found.point == pytest.approx(CIANJUR, abs=1e-5)
        assert b"Contoh" not in found.data
        assert clean(found.data) == Clean(found.type, found.data)
    place = box(b"\xa9xyz", b"\x00\x12\x15\xc7-6.8175+107.1414/")
    raw = mp4(box(b"udta", place + box(b"auth", b"Ibu Contoh")), box(b"meta", b"Ibu Contoh"))
    film = clean(raw)
    assert film.point == (107.1414, -6.8175)
    assert b"Contoh" not in film.data
    assert b"107.1414" not in film.data
    assert len(film.data) == len(raw)  # the offsets in it still hold


# Upload, and who may see


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("GOTONG_INTAKE_MEDIA_FOLDER", str(tmp_path / "media"))
    return tmp_path / "media"


@pytest.fixture
def client(make_client: MakeClient, folder: Path) -> httpx.AsyncClient:
    return patient(make_client([service]))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def upload(client: httpx.AsyncClient, raw: bytes, **more: Any) -> httpx.Response:
    return await client.post("/v1/media", content=raw, headers={"content-type": "image/jpeg"}, **more)


async def test_an_upload_is_kept_clean_and_sealed_and_shown_to_operators_alone(client, db, folder):
    answer = await upload(client, photo())
    assert answer.status_code == 201
    told = answer.json()
    assert (told["type"], told["size"], told["located"]) == ("image/jpeg", len(PIXEL), True)
    assert told["sha256"] == hashlib.sha256(PIXEL).hexdigest()
    (file,) = files(folder)
    assert file.name == told["sha256"]
    assert file.stat().st_mode & 0o077 == 0
    assert PIXEL[20:] not in file.read_bytes()
    shown = await client.get(f"/v1/media/{told['media_id']}", headers=OPERATOR)
    assert (shown.status_code, shown.content, shown.headers["content-type"]) == (200, PIXEL, "image/jpeg")
    assert shown.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in shown.headers["content-security-policy"]
    assert (await client.get(f"/v1/media/{told['media_id']}")).status_code == 401
    for role in ("field", "partner", "responder", "auditor"):
        refused = await client.get(f"/v1/media/{told['media_id']}", headers=bearer(role, org="pmi"))
        assert refused.status_code == 403
    assert (await client.get(f"/v1/media/{uuid4()}", headers=OPERATOR)).status_code == 404


async def test_the_same_upload_twice_is_kept_once_and_a_form_may_carry_it(client, db, folder):
    first = await upload(client, photo())
    second = await client.post("/v1/media", files={"file": ("a.html", photo(), "text/html")})
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
    assert len(files(folder)) == 1
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM media") == 1


async def test_what_a_header_says_it_is_counts_for_nothing(client, folder):
    answer = await upload(client, b"<html><script>alert(1)</script></html>")
    assert answer.status_code == 422
    assert "no photograph" in answer.json()["detail"]
    two = [("file", ("a.jpg", PIXEL)), ("file", ("b.jpg", PIXEL))]
    assert (await client.post("/v1/media", files=two)).status_code == 422
    assert files(folder) == []


async def test_a_file_over_the_limit_is_413(client, monkeypatch, folder):
    monkeypatch.setenv("GOTONG_INTAKE_MEDIA_MB", "1")
    assert (await upload(client, PIXEL + bytes(2**20))).status_code == 413
    assert (await upload(client, PIXEL + bytes(2**21))).status_code == 413
    assert files(folder) == []


async def test_an_uploaded_photograph_places_a_report_that_says_no_place(client, db):
    told = (await upload(client, photo())).json()
    media = [{"url": told["url"], "sha256": told["sha256"]}]
    answer = await client.post("/v1/reports", json={"text": "Rumah roboh", "media": media})
    assert answer.status_code == 202
    assert answer.json()["needs_place"] is False
    own = {"lon": 106.8, "lat": -6.2}
    assert (
        await client.post("/v1/reports", json={"text": "Di sini", "media": media, "location": own})
    ).status_code == 202
    named = {"place": "Kampung Melayu"}
    assert (
        await client.post("/v1/reports", json={"text": "Banjir", "media": media, "location": named})
    ).status_code == 202
    async with db.tx() as tx:
        found = await tx.fetch("SELECT lon, lat, place FROM report ORDER BY seq")
        belongs = await tx.fetchval("SELECT report_id FROM media")
    assert [(row["lon"], row["lat"]) for row in found] == [
        pytest.approx(CIANJUR, abs=1e-5),
        (106.8, -6.2),
        pytest.approx(CIANJUR, abs=1e-5),
    ]
    assert found[2]["place"] == "Kampung Melayu"
    assert str(belongs) == answer.json()["report_id"]


async def test_a_batch_of_reports_with_photographs_is_placed_too(client, db):
    told = (await upload(client, photo())).json()
    rows = [
        {"text": "Rumah roboh", "media": [{"url": told["url"]}]},
        {"text": "Lain", "media": [{"url": "https://x.example/v1/media/1"}]},
    ]
    answer = await client.post("/v1/reports:batch", json=rows, headers=bearer("field"))
    assert [row["needs_place"] for row in answer.json()["results"]] == [False, True]


async def test_media_are_for_the_operators_of_their_reports_operation(client, db):
    told = (await upload(client, PIXEL)).json()
    report = {"text": "Banjir", "media": [{"url": told["url"]}], "operation": "standing"}
    assert (await client.post("/v1/reports", json=report)).status_code == 202
    elsewhere = await client.get(
        f"/v1/media/{told['media_id']}", headers=bearer("operator", operations=("demak-2026",))
    )
    assert elsewhere.status_code == 403
    here = await client.get(f"/v1/media/{told['media_id']}", headers=bearer("operator", operations=("standing",)))
    assert here.status_code == 200


# Queues


async def test_a_photograph_alone_waits_to_be_put_into_words(client, db):
    told = (await upload(client, PIXEL)).json()
    alone = {"media": [{"url": told["url"]}], "location": {"lon": 106.8, "lat": -6.2}}
    answer = await client.post("/v1/reports", json=alone)
    assert answer.status_code == 202
    await client.post("/v1/reports", json={"text": "Dengan kata", "media": [{"url": told["url"]}]})
    await client.post("/v1/reports", json={"text": "Tanpa foto"})
    waiting = await client.get("/v1/reports?untranscribed", headers=OPERATOR)
    assert [row["report_id"] for row in waiting.json()["reports"]] == [answer.json()["report_id"]]
    assert len((await client.get("/v1/reports?untranscribed=false", headers=OPERATOR)).json()["reports"]) == 3
    assert (await client.get("/v1/reports?untranscribed")).status_code == 401


async def test_a_report_without_words_and_without_media_is_refused(client):
    assert (await client.post("/v1/reports", json={"location": {"lon": 106.8, "lat": -6.2}})).status_code == 422


async def test_what_an_operator_hears_becomes_the_reports_words(client, db):
    told = (await upload(client, OGG)).json()
    answer = await client.post(
        "/v1/reports", json={"media": [{"url": told["url"]}], "location": {"lon": 106.8, "lat": -6.2}}
    )
    report = f"/v1/reports/{answer.json()['report_id']}"
    said = {"transcript": "Banjir sedada, butuh perahu, hub 081234567890", "reason": "didengar"}
    assert (await client.patch(report, json=said, headers=bearer("field"))).status_code == 403
    done = await client.patch(report, json=said, headers=OPERATOR)
    assert done.status_code == 200
    assert done.json()["text"] == "Banjir sedada, butuh perahu, hub [nomor]"
    assert (await client.get("/v1/reports?untranscribed", headers=OPERATOR)).json()["reports"] == []
    (event,) = await emitted(db, ReportTranscribed)
    assert (event.text, event.by) == ("Banjir sedada, butuh perahu, hub [nomor]", "operator:tester")
    assert (await client.patch(report, json=said, headers=OPERATOR)).status_code == 409
    async with db.tx() as tx:
        row = await tx.fetchrow("SELECT sealed, sealed_for FROM report")
        assert b"081234567890" in (await vault.unseal(tx, row["sealed_for"], row["sealed"]) or b"")


async def test_what_is_heard_later_brings_its_incident_its_needs(client, db):
    told = (await upload(client, OGG)).json()
    answer = await client.post(
        "/v1/reports", json={"media": [{"url": told["url"]}], "location": {"lon": 106.8, "lat": -6.2}}
    )
    assert await link_waiting(db, Indexes()) == 1
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM need") == 0
    words = {"transcript": "Butuh 2 perahu karet", "reason": "didengar"}
    assert (
        await client.patch(f"/v1/reports/{answer.json()['report_id']}", json=words, headers=OPERATOR)
    ).status_code == 200
    async with db.tx() as tx:
        assert tuple(await tx.fetchrow("SELECT item, quantity FROM need")) == ("rubber_boat", 2)


async def test_words_are_for_photographs_and_recordings_alone(client):
    answer = await client.post("/v1/reports", json={"hazard": "flood"})
    words = {"transcript": "Banjir", "reason": "x"}
    assert (
        await client.patch(f"/v1/reports/{answer.json()['report_id']}", json=words, headers=OPERATOR)
    ).status_code == 409


# Fetching


class Provider:
    """A provider's side: what stands at which address, and which requests came."""

    def __init__(self) -> None:
        self.answers: dict[str, httpx.Response] = {}
        self.asked: list[httpx.Request] = []

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        found = self.answers.get(str(request.url), httpx.Response(404))
        return httpx.Response(found.status_code, headers=found.headers, content=found.content)

    def fetcher(self, **intake: Any) -> Fetcher:
        channels = ChannelSettings(twilio_account="AC1", twilio_token="twilio", whatsapp_token="meta")  # type: ignore[arg-type]
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        return Fetcher(http, channels, IntakeSettings(**({"kobo_token": "kobo"} | intake)))


TWILIO = "https://api.twilio.com/2010-04-01/Accounts/AC1/Messages/MM1/Media/ME1"


async def wanted(db: Database, source: str, reference: str, **report: Any) -> Any:
    """A row of media to be fetched, for a report that says nothing of where it is unless told."""
    one = Wanted.of(source, uuid4().hex, reference)
    report_id = uuid4()
    async with db.tx() as tx:
        await tx.execute(
            "INSERT INTO report (report_id, ticket, state, operation, origin, reporter_kind, observed_at, received_at, lon, lat) "
            "VALUES ($1, $2, $5, 'standing', '/twilio', 'citizen', $6, $6, $3, $4)",
            report_id, uuid4().hex, report.get("lon"), report.get("lat"), "waiting" if report else "unplaced", clock.now(),
        )  # fmt: skip
        await want(tx, [one], report_id)
    return one.media_id


async def row(db: Database, media_id: Any) -> Any:
    async with db.tx() as tx:
        return await tx.fetchrow("SELECT * FROM media WHERE media_id = $1", media_id)


async def test_a_picture_by_sms_is_fetched_once_and_places_its_report(db, folder, make_client):
    wire = Wire(consumer, db)
    bbox = (107.0, -7.0, 107.3, -6.6)
    await wire.deliver(
        OperationOpened(operation="cianjur", title="Cianjur", opened_at=clock.now(), by="admin:t", bbox=bbox)
    )
    provider = Provider()
    elsewhere = "https://mms.twiliocdn.com/AC1/x.jpg"
    provider.answers[TWILIO] = httpx.Response(307, headers={"location": elsewhere})
    provider.answers[elsewhere] = httpx.Response(200, content=photo())
    media_id = await wanted(db, "twilio", TWILIO)
    async with db.tx() as tx:
        assert b"twilio.com" not in bytes((await tx.fetchrow("SELECT reference FROM media"))["reference"])
    assert await fetch_wanted(db, provider.fetcher()) == 1
    assert await fetch_wanted(db, provider.fetcher()) == 0
    kept = await row(db, media_id)
    assert (kept["state"], kept["type"], kept["reference"]) == ("kept", "image/jpeg", None)
    assert len(files(folder)) == 1
    # The account's credentials go to the provider's own address and not with the redirect.
    assert [("authorization" in request.headers) for request in provider.asked] == [True, False]
    (placed,) = await emitted(db, ReportPlaced)
    assert placed.location is not None
    assert (placed.location.lon, placed.location.lat) == pytest.approx(CIANJUR, abs=1e-5)
    assert (placed.operation, placed.by) == ("cianjur", "rule:photo")
    shown = await patient(make_client([service])).get(f"/v1/media/{media_id}", headers=OPERATOR)
    assert shown.content == PIXEL


async def test_a_report_that_says_where_it_is_stays_there(db, folder):
    provider = Provider()
    provider.answers[TWILIO] = httpx.Response(200, content=photo())
    await wanted(db, "twilio", TWILIO, lon=110.0, lat=-7.0)
    await fetch_wanted(db, provider.fetcher())
    async with db.tx() as tx:
        assert tuple(await tx.fetchrow("SELECT lon, lat, state FROM report")) == (110.0, -7.0, "waiting")
    assert await emitted(db, ReportPlaced) == []


async def test_whatsapp_is_asked_for_the_address_first(db, folder):
    provider = Provider()
    told = {"url": "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1", "mime_type": "audio/ogg"}
    provider.answers["https://graph.facebook.com/v21.0/12345"] = httpx.Response(200, json=told)
    provider.answers[told["url"]] = httpx.Response(200, content=OGG)
    media_id = await wanted(db, "whatsapp", "12345")
    await fetch_wanted(db, provider.fetcher())
    assert (await row(db, media_id))["type"] == "audio/ogg"
    assert [request.headers["authorization"] for request in provider.asked] == ["Bearer meta"] * 2


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:5432/", "http://169.254.169.254/latest/meta-data", "https://evil.example/a.jpg", "https://twilio.com.evil.example/a",
        "http://api.twilio.com/a", "file:///etc/hostname", "https://eviltwilio.com/a", "https://api.twilio.com@evil.example/", "https://[::1", "https:///x",
    ],
)  # fmt: skip
async def test_no_address_but_the_providers_own_is_opened(db, folder, url):
    provider = Provider()
    provider.answers[url] = httpx.Response(200, content=PIXEL)
    media_id = await wanted(db, "twilio", url)
    await fetch_wanted(db, provider.fetcher())
    refused = await row(db, media_id)
    assert refused["state"] == "refused"
    assert provider.asked == []
    # Nor one that the provider's own leads to.
    provider.answers[TWILIO] = httpx.Response(302, headers={"location": url})
    media_id = await wanted(db, "twilio", TWILIO)
    await fetch_wanted(db, provider.fetcher())
    assert {request.url.host for request in provider.asked} == {"api.twilio.com"}
    assert {request.url.scheme for request in provider.asked} == {"https"}
    assert (await row(db, media_id))["state"] != "kept"


async def test_a_host_that_the_settings_name_is_opened(db, folder):
    provider = Provider()
    provider.answers["https://files.rapidpro.example/a.jpg"] = httpx.Response(200, content=PIXEL)
    media_id = await wanted(db, "rapidpro", "https://files.rapidpro.example/a.jpg")
    await fetch_wanted(db, provider.fetcher(media_hosts="x.example files.rapidpro.example"))
    assert (await row(db, media_id))["state"] == "kept"


async def test_what_cannot_be_had_is_tried_later_and_later_and_then_given_up(db, folder):
    provider = Provider()
    provider.answers[TWILIO] = httpx.Response(503)
    media_id = await wanted(db, "twilio", TWILIO)
    pauses = []
    for n in range(media_fetch.TRIES):
        assert await fetch_wanted(db, provider.fetcher()) == 1
        now = await row(db, media_id)
        if n < media_fetch.TRIES - 1:
            assert (now["state"], now["reason"]) == ("wanted", "the provider answers 503")
            assert await fetch_wanted(db, provider.fetcher()) == 0
            pauses.append(now["next_try_at"] - clock.now())
            async with db.tx() as tx:
                await tx.execute("UPDATE media SET next_try_at = $1", clock.now() - timedelta(seconds=1))
    assert all(later > earlier for earlier, later in pairwise(pauses))
    ended = await row(db, media_id)
    assert ended["state"] == "refused"
    assert TWILIO not in ended["reason"]
    assert len(provider.asked) == media_fetch.TRIES


@pytest.mark.parametrize("content", [b"<html>", bytes(2 * 2**20), b""])
async def test_what_is_no_picture_or_too_large_is_given_up_at_once(db, folder, content):
    provider = Provider()
    provider.answers[TWILIO] = httpx.Response(200, content=content)
    media_id = await wanted(db, "twilio", TWILIO)
    await fetch_wanted(db, provider.fetcher(media_mb=1))
    assert (await row(db, media_id))["state"] == "refused"
    assert files(folder) == []


async def test_a_picture_that_has_not_come_yet_says_so(db, folder, make_client):
    media_id = await wanted(db, "twilio", TWILIO)
    answer = await patient(make_client([service])).get(f"/v1/media/{media_id}", headers=OPERATOR)
    assert (answer.status_code, answer.headers["retry-after"]) == (404, "1")


# Forgetting


async def test_a_redacted_report_takes_its_pictures_with_it(client, db, folder):
    told = (await upload(client, photo())).json()
    await client.post("/v1/reports", json={"text": "Rumah roboh", "media": [{"url": told["url"]}]})
    async with db.tx() as tx:
        report_id = await tx.fetchval("SELECT report_id FROM report")
        await forget_media(tx, [report_id])
    assert (await client.get(f"/v1/media/{told['media_id']}", headers=OPERATOR)).status_code == 404
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM vault_key WHERE owner LIKE 'media:%'") == 0
    async with db.tx() as tx:
        assert await sweep(tx) == 1
    assert files(folder) == []


async def test_redacting_a_reports_event_takes_its_pictures_with_it(client, db, folder):
    told = (await upload(client, PIXEL)).json()
    await client.post("/v1/reports", json={"text": "Rumah roboh", "media": [{"url": told["url"]}]})
    async with db.tx() as tx:
        report_id = await tx.fetchval("SELECT report_id FROM report")
        await tx.execute("INSERT INTO submission_report (event_id, report_id) VALUES ('e-1', $1)", report_id)
        await forget(tx, ["e-1"], by="operator:tester")
    assert (await client.get(f"/v1/media/{told['media_id']}", headers=OPERATOR)).status_code == 404


async def test_an_upload_that_no_report_names_within_a_day_is_forgotten(client, db, folder):
    told = (await upload(client, PIXEL)).json()
    named = (await upload(client, photo(orientation=3))).json()
    await client.post("/v1/reports", json={"text": "Banjir", "media": [{"url": named["url"]}]})
    async with db.tx() as tx:
        assert await forget_unnamed(tx) == 0
        await tx.execute("UPDATE media SET made_at = made_at - interval '25 hours'")
        assert await forget_unnamed(tx) == 1
    again = await upload(client, PIXEL)  # it comes in again before the file is swept away
    async with db.tx() as tx:
        await sweep(tx)
    assert (await client.get(f"/v1/media/{again.json()['media_id']}", headers=OPERATOR)).content == PIXEL
    assert again.json() == told
    assert len(files(folder)) == 2
