"""WhatsApp Cloud: Meta asks once whether the address is ours, then sends messages in signed batches."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from fastapi.responses import PlainTextResponse, Response

from services.channels import rules
from services.channels.outbound import Receipt
from services.intake.following import take_receipt
from services.intake.hooks.messages import address_of, base_url, deliver, over_rate, point_of, text_of
from services.intake.hooks.secrets import opened, same
from services.intake.inbound import Inbound
from services.intake.media_writes import Wanted
from services.intake.settings import IntakeSettings
from services.runtime import clock, vault
from services.runtime.db import to_json
from services.runtime.http import body_of, database, json_answer, parse_any
from services.runtime.problems import Forbidden, NotFound, TooLarge, responses

router = APIRouter()

SIGNATURE = "x-hub-signature-256"
_MEDIA = ("image", "audio", "video", "document")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "description": "a webhook of WhatsApp Cloud"}}},
    }
}
_COUNTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "how many messages were new, known, and of a kind that says nothing",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {name: {"type": "integer"} for name in ("taken", "repeated", "ignored")},
                }
            }
        },
    }
}


@router.get("/v1/hooks/whatsapp", responses=responses(NotFound), response_class=PlainTextResponse)
async def verify_whatsapp(
    mode: str = Query("", alias="hub.mode"),
    token: str = Query("", alias="hub.verify_token"),
    challenge: str = Query("", alias="hub.challenge", max_length=200),
) -> Response:
    """Tell Meta that the address is ours: the challenge back, for whoever knows the token that the settings share."""
    wanted = opened(IntakeSettings().whatsapp_verify_token, "GOTONG_INTAKE_WHATSAPP_VERIFY_TOKEN")
    if mode != "subscribe" or not same(token, wanted):
        raise Forbidden("hub.verify_token is not the one that this hook knows")
    return PlainTextResponse(challenge.encode("utf-8", "replace"))


@router.post(
    "/v1/hooks/whatsapp",
    responses={**responses(NotFound, TooLarge), **_COUNTS},
    openapi_extra=_BODY,
    response_class=Response,
)
async def post_whatsapp(request: Request) -> Response:
    """Take a batch of messages from WhatsApp Cloud, signed with the app's secret. Each is stored by itself; one whose
    id is known changes nothing, so a batch that was cut off may be sent again whole."""
    secret = opened(IntakeSettings().whatsapp_app_secret, "GOTONG_INTAKE_WHATSAPP_APP_SECRET")
    body = await body_of(request)
    if not signed(secret, body, request.headers.get(SIGNATURE, "")):
        raise Forbidden("the signature in X-Hub-Signature-256 is not this app's")
    counts = {"taken": 0, "repeated": 0, "ignored": 0}
    batch = parse_any(body)
    for status in _told(batch, "statuses"):
        contact, receipt = read_status(status)
        if receipt is not None:
            async with database(request, "intake").tx() as tx:
                await take_receipt(tx, contact, receipt)
    for message in _told(batch, "messages"):
        found = read(message, request)
        if found is None:
            counts["ignored"] += 1
            continue
        _, fresh = await deliver(database(request, "intake"), *found)
        counts["taken" if fresh else "repeated"] += 1
        await asyncio.sleep(0)
    return json_answer(200, to_json(counts).encode())


def signed(secret: str, body: bytes, signature: str) -> bool:
    """Whether the signature, `sha256=` and hexadecimal digits, is HMAC-SHA256 of the raw body."""
    return same(signature, "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest())


def _told(body: Any, what: str) -> Iterator[dict[str, Any]]:
    """Every message of a batch, or every word on what became of ours (`statuses`), in order."""
    for entry in _list(body, "entry"):
        for change in _list(entry, "changes"):
            if change.get("field", "messages") == "messages":
                yield from _list(_object(change, "value"), what)


_SAID: dict[str, rules.Said] = {"sent": "sent", "delivered": "delivered", "read": "delivered", "failed": "failed"}


def read_status(status: dict[str, Any]) -> tuple[str, Receipt | None]:
    """Whose message a status is about, and what it says; None: nothing that counts."""
    contact = vault.contact_id(address_of("+" + str(status.get("recipient_id", ""))[:50].lstrip("+")))
    said = _SAID.get(str(status.get("status")))
    if said is None:
        return contact, None
    try:
        key = UUID(str(status.get("biz_opaque_callback_data")))
    except ValueError:
        key = None
    codes = [str(error["code"])[:20] for error in _list(status, "errors") if isinstance(error.get("code"), int)]
    return contact, Receipt(said, key, str(status.get("id", ""))[:200], codes[0] if codes else None)


def _list(value: Any, name: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _object(value: dict[str, Any], name: str) -> dict[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def read(message: dict[str, Any], request: Request) -> tuple[Inbound, list[Wanted]] | None:
    """The message, and the media that come with it; None when it has no sender or says nothing (a reaction, say)."""
    wamid, sender = message.get("id"), message.get("from")
    if not isinstance(wamid, str) or not wamid or not isinstance(sender, str) or not sender:
        return None
    kind = str(message.get("type", ""))
    content = _object(message, kind)
    # A wamid holds the sender's number in base64.
    provider_id = vault.contact_id(f"wamid {wamid}")
    text, button = _said(kind, content)
    point = point_of(content.get("longitude"), content.get("latitude")) if kind == "location" else None
    place = text_of(content.get("name")) or text_of(content.get("address")) if point else None
    wanted = []
    if kind in _MEDIA and isinstance(content.get("id"), str) and content["id"]:
        wanted = [Wanted.of("whatsapp", provider_id, content["id"][:200])]
    if not (text or button or point or wanted):
        return None
    # Only digits come, without the plus.
    address = address_of(sender if sender.startswith("+") else f"+{sender}")
    now = clock.now()
    return Inbound(
        channel="whatsapp",
        provider="whatsapp",
        provider_id=provider_id,
        address=address,
        received_at=now,
        sent_at=_sent(message.get("timestamp"), now),
        text=text,
        button=button,
        lon=point[0] if point else None,
        lat=point[1] if point else None,
        place=place[:500] if place else None,
        media=tuple(one.media(base_url(request)) for one in wanted),
        bulk=over_rate(request, address),
    ), wanted


def _said(kind: str, content: dict[str, Any]) -> tuple[str | None, str | None]:
    """The text of a message, and the payload of the button that was pressed."""
    if kind == "text":
        return text_of(content.get("body")), None
    if kind in _MEDIA:
        return text_of(content.get("caption")), None
    if kind == "button":
        return text_of(content.get("text")), text_of(content.get("payload"))
    if kind == "interactive":
        chosen = _object(content, "button_reply") or _object(content, "list_reply")
        return text_of(chosen.get("title")), text_of(chosen.get("id"))
    return None, None


def _sent(timestamp: Any, now: datetime) -> datetime | None:
    """When Meta had it, from seconds since 1970; never later than now."""
    try:
        return min(datetime.fromtimestamp(int(timestamp), UTC), now)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
