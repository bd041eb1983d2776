"""Hooks of messages: Twilio, WhatsApp Cloud and RapidPro, each with its own signature and its own ids."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import httpx
import pytest

from schemas.reports import ReportReceived
from services.intake.app import service
from services.intake.hooks import rapidpro, twilio, whatsapp
from services.runtime import vault
from services.runtime.db import Database
from services.runtime.service import Service
from tests.conftest import emitted, shared_file
from tests.intake.patience import patient

MakeClient = Callable[[Sequence[Service]], httpx.AsyncClient]
TOKEN = "12345"
APP_SECRET = "an app secret of ours"
NUMBER = "+6281234567890"
FORM = "application/x-www-form-urlencoded"

# Twilio's own published vector ("Validating requests"; twilio-python, tests/unit/test_request_validator.py, MIT).
PUBLISHED = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
    ("Caller", "+14158675309"),
]


@pytest.fixture
def client(make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> httpx.AsyncClient:
    monkeypatch.setenv("GOTONG_CHANNELS_TWILIO_TOKEN", TOKEN)
    monkeypatch.setenv("GOTONG_INTAKE_WHATSAPP_APP_SECRET", APP_SECRET)
    monkeypatch.setenv("GOTONG_INTAKE_WHATSAPP_VERIFY_TOKEN", "a verify token")
    monkeypatch.setenv("GOTONG_INTAKE_RAPIDPRO_SECRET", "a shared secret")
    monkeypatch.setenv("GOTONG_INTAKE_MEDIA_FOLDER", str(tmp_path))
    return patient(make_client([service]))


async def reports(db: Database) -> list[dict[str, Any]]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch("SELECT * FROM report ORDER BY seq")]


async def counted(db: Database) -> tuple[int, ...]:
    """Everything that a message can leave behind, counted."""
    tables = ("report", "outbox", "journal", "media", "hook_message", "vault_key")
    async with db.tx() as tx:
        return tuple([await tx.fetchval(f"SELECT count(*) FROM {table}") for table in tables])


# Twilio: signatures


def test_twilios_published_signature_is_right_with_and_without_the_port():
    for url, signature in (
        ("https://mycompany.com/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("https://mycompany.com:1234/myapp.php?foo=1&bar=2", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("http://mycompany.com:1234/myapp.php?foo=1&bar=2", "Zmvh+3yNM1Phv2jhDCwEM3q5ebU="),
        ("https://mycompany.com/myapp.php?foo=1&bar=2", "kvajT1Ptam85bY51eRf/AJRuM3w="),  # made with port 443
    ):
        assert twilio.signed(TOKEN, url, PUBLISHED, signature), url
        assert not twilio.signed("another", url, PUBLISHED, signature)
        assert not twilio.signed(TOKEN, url, [*PUBLISHED, ("New", "1")], signature)
        assert not twilio.signed(TOKEN, url, PUBLISHED[1:], signature)


def test_every_signature_vector_of_the_shared_data_passes_and_none_with_a_changed_value():
    vectors = json.loads(shared_file("intake-webhooks/twilio_signature_vectors.json").read_text("utf-8"))
    assert len(vectors) >= 5
    for vector in vectors:
        form = [(name, value) for name, value in vector["params"]]
        assert twilio.signed(vector["auth_token"], vector["url"], form, vector["expected"]), vector["name"]
        (name, value), *rest = form
        assert not twilio.signed(vector["auth_token"], vector["url"], [(name, value + "x"), *rest], vector["expected"])
        assert not twilio.signed(vector["auth_token"], vector["url"] + "&more=1", form, vector["expected"])


def sms(sid: str = "SM0001", **fields: str) -> dict[str, str]:
    return {"MessageSid": sid, "From": NUMBER, "To": "+6221555000", "NumMedia": "0", **fields}


async def send_twilio(
    client: httpx.AsyncClient,
    fields: dict[str, str],
    *,
    token: str = TOKEN,
    url: str = "http://gotong.test/v1/hooks/twilio",
) -> httpx.Response:
    signed = url + "".join(name + fields[name] for name in sorted(fields))
    signature = base64.b64encode(hmac.new(token.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    headers = {"content-type": FORM, "x-twilio-signature": signature}
    return await client.post("/v1/hooks/twilio", content=urlencode(fields), headers=headers)


async def test_an_sms_becomes_a_report_whose_sender_is_sealed(client, db, caplog):
    caplog.set_level(logging.DEBUG)
    answer = await send_twilio(client, sms(Body="Banjir sedada di Kampung Melayu, hub 081298765432"))
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/xml")
    assert ElementTree.fromstring(answer.text).tag == "Response"
    (report,) = await reports(db)
    assert report["text"] == "Banjir sedada di Kampung Melayu, hub [nomor]"
    assert report["contact"] == vault.contact_id(NUMBER)
    assert (report["origin"], report["external_id"], report["proven"]) == ("/twilio", "SM0001", False)
    (event,) = await emitted(db, ReportReceived)
    for said in (event.to_bytes().decode(), answer.text, caplog.text):
        assert "81234567890" not in said
        assert "81298765432" not in said


async def test_a_forged_signature_is_403_and_leaves_nothing(client, db):
    before = await counted(db)
    for answer in (
        await send_twilio(client, sms(Body="palsu"), token="guessed"),
        await send_twilio(client, sms(Body="palsu"), url="http://gotong.test/v1/hooks/twilio?to=elsewhere"),
        await client.post("/v1/hooks/twilio", content=urlencode(sms(Body="x")), headers={"content-type": FORM}),
    ):
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"
    assert await counted(db) == before


async def test_a_signature_of_another_message_does_not_fit(client, db):
    fields = sms(Body="Banjir")
    signed = "http://gotong.test/v1/hooks/twilio" + "".join(name + fields[name] for name in sorted(fields))
    signature = base64.b64encode(hmac.new(TOKEN.encode(), signed.encode(), hashlib.sha1).digest()).decode()
    forged = urlencode(fields | {"Body": "Banjir besar"})
    answer = await client.post("/v1/hooks/twilio", content=forged, headers={"x-twilio-signature": signature})
    assert answer.status_code == 403
    assert await reports(db) == []


async def test_a_repeated_message_sid_changes_nothing_and_is_answered_as_before(client, db):
    first = await send_twilio(
        client, sms(Body="Longsor di Cugenang", NumMedia="1", MediaUrl0="https://api.twilio.com/m")
    )
    before = await counted(db)
    again = await send_twilio(
        client, sms(Body="Longsor di Cugenang", NumMedia="1", MediaUrl0="https://api.twilio.com/m")
    )
    other = await send_twilio(client, sms(Body="Longsor di Cugenang, sungguh"))
    assert await counted(db) == before
    assert (first.status_code, first.text) == (again.status_code, again.text) == (other.status_code, other.text)
    assert len(await reports(db)) == 1
    await send_twilio(client, sms("SM0002", Body="Longsor di Cugenang"))
    assert len(await reports(db)) == 2


async def test_the_public_address_of_the_settings_is_what_twilio_signs(client, db, monkeypatch):
    monkeypatch.setenv("GOTONG_CHANNELS_PUBLIC_URL", "https://gotong.example.id/")
    answer = await send_twilio(client, sms(Body="Banjir"), url="https://gotong.example.id/v1/hooks/twilio")
    assert answer.status_code == 200
    refused = await send_twilio(client, sms("SM0002", Body="Banjir"))
    assert refused.status_code == 403
    assert len(await reports(db)) == 1


async def test_whatsapp_by_twilio_brings_positions_and_pictures(client, db):
    fields = sms(
        From=f"whatsapp:{NUMBER}", Body="", Latitude="-6.222", Longitude="106.866", Label="Posko", NumMedia="1",
        MediaUrl0="https://api.twilio.com/2010-04-01/Accounts/AC1/Messages/MM1/Media/ME1", MediaContentType0="image/jpeg",
    )  # fmt: skip
    assert (await send_twilio(client, fields)).status_code == 200
    (report,) = await reports(db)
    assert (report["lon"], report["lat"], report["place"], report["text"]) == (106.866, -6.222, "Posko", None)
    (event,) = await emitted(db, ReportReceived)
    assert event.media[0].url.startswith("http://gotong.test/v1/media/")
    assert "twilio.com" not in event.to_bytes().decode()
    async with db.tx() as tx:
        media = await tx.fetchrow("SELECT * FROM media")
    assert (media["state"], media["report_id"]) == ("wanted", report["report_id"])


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"From": NUMBER, "Body": "tanpa nomor pesan"}, 422),
        ({"MessageSid": "SM1", "Body": "tanpa pengirim"}, 422),
        ({"MessageSid": "SM1", "MessageStatus": "delivered", "To": NUMBER}, 200),
        ({"MessageSid": "SM1", "From": "3636", "Body": "NUL \x00 dan \u202e"}, 200),
        ({"MessageSid": "SM1", "From": NUMBER, "NumMedia": "9" * 400, "Body": ""}, 200),
        ({"MessageSid": "SM1", "From": NUMBER, "Latitude": "nan", "Longitude": "200", "Body": "banjir"}, 200),
    ],
)
async def test_odd_messages_are_refused_or_taken_but_never_fail(client, fields, status):
    assert (await send_twilio(client, fields)).status_code == status


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("twilio", "GOTONG_CHANNELS_TWILIO_TOKEN"),
        ("whatsapp", "GOTONG_INTAKE_WHATSAPP_APP_SECRET"),
        ("rapidpro", "GOTONG_INTAKE_RAPIDPRO_SECRET"),
    ],
)
async def test_a_hook_without_its_secret_is_closed_and_says_which_setting_opens_it(
    client, db, monkeypatch, path, secret
):
    monkeypatch.delenv(secret)
    answer = await client.post(f"/v1/hooks/{path}", content=b"{}")
    assert answer.status_code == 404
    assert secret in answer.json()["detail"]
    # An empty secret is none: what is signed with it is not let in either.
    monkeypatch.setenv(secret, "")
    assert (await send_twilio(client, sms(Body="x"), token="")).status_code == (404 if path == "twilio" else 403)
    assert await reports(db) == []


# WhatsApp Cloud


def batch(*messages: dict[str, Any]) -> bytes:
    contacts = [{"profile": {"name": "Ibu Contoh"}, "wa_id": NUMBER[1:]}]
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"phone_number_id": "1"},
        "contacts": contacts,
        "messages": messages,
    }
    change = {"field": "messages", "value": value}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}).encode()


def wamid(text: str) -> str:
    """As Meta makes them: the sender's number stands in it in base64."""
    return "wamid." + base64.b64encode(f"\x1d\x0d{NUMBER[1:]}\x15\x02\x12{text}".encode()).decode()


def message(kind: str, content: dict[str, Any], mid: str = "A1") -> dict[str, Any]:
    return {"from": NUMBER[1:], "id": wamid(mid), "timestamp": "1795500000", "type": kind, kind: content}


async def send_whatsapp(client: httpx.AsyncClient, body: bytes, *, secret: str = APP_SECRET) -> httpx.Response:
    signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return await client.post("/v1/hooks/whatsapp", content=body, headers={"x-hub-signature-256": signature})


def test_metas_signature_is_hmac_of_the_raw_body():
    # RFC 4231, test case 2.
    digest = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert whatsapp.signed("Jefe", b"what do ya want for nothing?", f"sha256={digest}")
    assert not whatsapp.signed("Jefe", b"what do ya want for nothing!", f"sha256={digest}")
    assert not whatsapp.signed("Jefe", b"what do ya want for nothing?", digest)
    assert not whatsapp.signed("Jefe", b"what do ya want for nothing?", "")


async def test_the_handshake_gives_the_challenge_to_who_knows_the_token(client):
    asked = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": "a verify token"}
    right = await client.get("/v1/hooks/whatsapp", params=asked)
    assert (right.status_code, right.text) == (200, "1158201444")
    assert right.headers["content-type"].startswith("text/plain")
    for wrong in ({"hub.verify_token": "guessed"}, {"hub.mode": "unsubscribe"}, {"hub.verify_token": ""}):
        assert (await client.get("/v1/hooks/whatsapp", params=asked | wrong)).status_code == 403
    assert (await client.get("/v1/hooks/whatsapp")).status_code == 403


async def test_a_closed_handshake_says_so(client, monkeypatch):
    monkeypatch.delenv("GOTONG_INTAKE_WHATSAPP_VERIFY_TOKEN")
    answer = await client.get("/v1/hooks/whatsapp", params={"hub.mode": "subscribe", "hub.verify_token": ""})
    assert answer.status_code == 404


async def test_a_batch_of_text_picture_voice_and_button_is_taken(client, db):
    body = batch(
        message("text", {"body": "Gempa, rumah roboh di Cianjur"}, "A1"),
        message("image", {"id": "111", "mime_type": "image/jpeg", "sha256": "x", "caption": "retak"}, "A2"),
        message("audio", {"id": "222", "mime_type": "audio/ogg; codecs=opus", "voice": True}, "A3"),
        message("button", {"payload": "YES-1", "text": "Ya, banjir"}, "A4"),
        message("interactive", {"type": "button_reply", "button_reply": {"id": "b1", "title": "Longsor"}}, "A5"),
        message("reaction", {"message_id": "x", "emoji": "👍"}, "A6"),
    )
    answer = await send_whatsapp(client, body)
    assert (answer.status_code, answer.json()) == (200, {"taken": 5, "repeated": 0, "ignored": 1})
    found = await reports(db)
    assert [report["text"] for report in found] == [
        "Gempa, rumah roboh di Cianjur",
        "retak",
        None,
        "Ya, banjir",
        "Longsor",
    ]
    assert {report["contact"] for report in found} == {vault.contact_id(NUMBER)}
    async with db.tx() as tx:
        media = await tx.fetch("SELECT * FROM media ORDER BY made_at, media_id")
    assert {row["report_id"] for row in media} == {found[1]["report_id"], found[2]["report_id"]}
    assert {row["state"] for row in media} == {"wanted"}


async def test_a_shared_position_reaches_the_message_as_lon_and_lat(client):
    shared = message("location", {"latitude": -6.222, "longitude": 106.866, "name": "Masjid Raya", "address": "Jl. X"})
    request = httpx.Request("POST", "http://gotong.test/v1/hooks/whatsapp")
    found = whatsapp.read(shared, as_request(request))
    assert found is not None
    assert (found[0].lon, found[0].lat, found[0].place, found[0].text) == (106.866, -6.222, "Masjid Raya", None)


def as_request(request: httpx.Request) -> Any:
    from fastapi import FastAPI, Request

    scope = {
        "type": "http", "method": request.method, "path": request.url.path, "query_string": b"", "headers": [],
        "scheme": "http", "server": ("gotong.test", 80), "app": FastAPI(),
    }  # fmt: skip
    return Request(scope)


async def test_a_repeated_wamid_changes_nothing_alone_or_in_a_longer_batch(client, db):
    await send_whatsapp(client, batch(message("text", {"body": "Banjir"}, "A1")))
    before = await counted(db)
    again = await send_whatsapp(client, batch(message("text", {"body": "Banjir"}, "A1")))
    assert again.json() == {"taken": 0, "repeated": 1, "ignored": 0}
    assert await counted(db) == before
    both = batch(message("text", {"body": "Banjir"}, "A1"), message("text", {"body": "Longsor"}, "A2"))
    assert (await send_whatsapp(client, both)).json() == {"taken": 1, "repeated": 1, "ignored": 0}
    assert [report["text"] for report in await reports(db)] == ["Banjir", "Longsor"]


async def test_the_number_in_a_wamid_goes_nowhere(client, db):
    await send_whatsapp(client, batch(message("text", {"body": "Banjir"}, "A1")))
    (event,) = await emitted(db, ReportReceived)
    assert event.external_id
    assert wamid("A1") not in event.to_bytes().decode()
    async with db.tx() as tx:
        kept = await tx.fetchval("SELECT string_agg(h::text, ' ') FROM hook_message h")
        reported = await tx.fetchval("SELECT string_agg(r::text, ' ') FROM report r")
    for said in (kept, reported):
        assert wamid("A1") not in said
        assert NUMBER[1:] not in said


async def test_a_forged_batch_is_403_and_leaves_nothing(client, db):
    body = batch(message("text", {"body": "palsu"}))
    assert (await send_whatsapp(client, body, secret="guessed")).status_code == 403
    assert (await client.post("/v1/hooks/whatsapp", content=body)).status_code == 403
    assert await reports(db) == []


@pytest.mark.parametrize(
    "body",
    [
        {}, [], "x", {"entry": 1}, {"entry": [1]}, {"entry": [{"changes": [{"value": []}]}]},
        {"entry": [{"changes": [{"value": {"messages": [1, {}, {"id": 1}, {"id": "a", "from": "b", "type": 5}]}}]}]},
        {"entry": [{"changes": [{"field": "messages", "value": {"statuses": [{"id": "wamid.x", "status": "read"}]}}]}]},
    ],
)  # fmt: skip
async def test_what_holds_no_message_is_answered_and_leaves_nothing(client, db, body):
    answer = await send_whatsapp(client, json.dumps(body).encode())
    assert answer.status_code == 200
    assert answer.json()["taken"] == 0
    assert await reports(db) == []


@pytest.mark.parametrize("body", [b"", b"{", b'{"a": "\\u0000"}', b"[" * 100_000, b'{"a": NaN}'])
async def test_a_signed_body_that_is_no_json_is_refused(client, body):
    assert (await send_whatsapp(client, body)).status_code == 422


# RapidPro


def flow(uuid: str = "f47ac10b", text: str = "Banjir di Demak", **more: Any) -> dict[str, Any]:
    return {
        "contact": {"uuid": "c1", "name": "Ibu Contoh", "urn": f"tel:{NUMBER}", "language": "ind"},
        "flow": {"name": "Lapor", "uuid": "f1"},
        "input": {"uuid": uuid, "type": "msg", "text": text, "urn": f"tel:{NUMBER}", "created_on": "2026-11-24T02:00:00Z", **more},
    }  # fmt: skip


async def send_rapidpro(client: httpx.AsyncClient, body: Any, secret: str | None = "a shared secret") -> httpx.Response:
    headers = {"authorization": f"Token {secret}"} if secret is not None else {}
    return await client.post("/v1/hooks/rapidpro", json=body, headers=headers)


async def test_a_flow_brings_a_message_once(client, db):
    answer = await send_rapidpro(client, flow())
    assert answer.status_code == 200
    assert answer.json()["repeated"] is False
    (report,) = await reports(db)
    assert (report["text"], report["contact"], report["language"]) == (
        "Banjir di Demak",
        vault.contact_id(NUMBER),
        "ind",
    )
    before = await counted(db)
    again = await send_rapidpro(client, flow())
    assert again.json() == answer.json() | {"repeated": True}
    assert await counted(db) == before


async def test_a_flows_attachments_are_a_position_and_media(client, db):
    attached = ["geo:-6.222,106.866", "image/jpeg:https://rapidpro.example/a.jpg", "nonsense", "geo:x,y"]
    assert (await send_rapidpro(client, flow(attachments=attached))).status_code == 200
    (report,) = await reports(db)
    assert (report["lon"], report["lat"]) == (106.866, -6.222)
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT count(*) FROM media WHERE report_id = $1", report["report_id"]) == 1


async def test_a_flow_without_the_secret_is_turned_away(client, db):
    assert (await send_rapidpro(client, flow(), secret=None)).status_code == 401
    assert (await send_rapidpro(client, flow(), secret="guessed")).status_code == 403
    assert (
        await client.post("/v1/hooks/rapidpro", json=flow(), headers={"gotong-secret": "a shared secret"})
    ).status_code == 200
    assert len(await reports(db)) == 1


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"input": {"uuid": "x"}},
        {"input": {"text": "x", "urn": "tel:+6281"}},
        {"input": {"uuid": True, "urn": "tel:1"}},
    ],
)
async def test_a_flow_that_names_no_message_or_no_sender_is_told_so(client, body):
    answer = await send_rapidpro(client, body)
    assert answer.status_code == 422
    assert answer.json()["errors"]


async def test_a_sender_who_writes_more_than_ten_a_minute_is_linked_last(client, db):
    for n in range(12):
        assert (await send_rapidpro(client, flow(uuid=f"m{n}", text=f"Banjir {n}"))).status_code == 200
    assert [report["bulk"] for report in await reports(db)] == [False] * 10 + [True] * 2


def test_rapidpros_whatsapp_numbers_have_no_plus(monkeypatch):
    body = flow() | {"contact": {"urn": f"whatsapp:{NUMBER[1:]}"}}
    body["input"].pop("urn")
    found, _ = rapidpro.read(body, as_request(httpx.Request("POST", "http://gotong.test/")))
    assert (found.channel, found.address) == ("whatsapp", NUMBER)
    assert NUMBER not in repr(found)
