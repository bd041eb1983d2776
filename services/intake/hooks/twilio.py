"""Twilio: SMS, and WhatsApp by way of Twilio. A message comes as a form, signed; the answer is TwiML."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from xml.sax.saxutils import escape

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.channels.settings import ChannelSettings
from services.intake.hooks.messages import address_of, base_url, deliver, over_rate, point_of, text_of
from services.intake.hooks.secrets import opened, same
from services.intake.inbound import Inbound, Reply
from services.intake.media_writes import Wanted
from services.runtime import clock
from services.runtime.http import body_of, database
from services.runtime.problems import Fault, Forbidden, Invalid, NotFound, TooLarge, responses

router = APIRouter()

SIGNATURE = "x-twilio-signature"
_MOST_FIELDS = 500
_MOST_MEDIA = 10
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-www-form-urlencoded": {
                "schema": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string"}
                        for name in (
                            "MessageSid",
                            "From",
                            "To",
                            "Body",
                            "NumMedia",
                            "MediaUrl0",
                            "Latitude",
                            "Longitude",
                        )
                    },
                }
            }
        },
    }
}
_TWIML: dict[int | str, dict[str, Any]] = {
    200: {"description": "TwiML: what is said back", "content": {"text/xml": {"schema": {"type": "string"}}}}
}


@router.post(
    "/v1/hooks/twilio",
    responses={**responses(NotFound, TooLarge), **_TWIML},
    openapi_extra=_FORM,
    response_class=Response,
)
async def post_twilio(request: Request) -> Response:
    """Take an SMS or WhatsApp message from Twilio, signed with the account's auth token. A `MessageSid` that is known
    changes nothing and is answered as before."""
    token = opened(ChannelSettings().twilio_token, "GOTONG_CHANNELS_TWILIO_TOKEN")
    form = form_of(await body_of(request))
    if not signed(token, requested_address(request), form, request.headers.get(SIGNATURE, "")):
        raise Forbidden("the signature in X-Twilio-Signature is not this account's")
    fields = {name: value.replace("\x00", "") for name, value in form}
    sid = fields.get("MessageSid") or fields.get("SmsSid")
    if "MessageStatus" in fields and "Body" not in fields and "NumMedia" not in fields:
        return _twiml([])  # what became of a message of ours, sent to the wrong address
    if not sid or not fields.get("From"):
        missing = "MessageSid" if not sid else "From"
        raise Invalid(f"the message has no {missing}", [Fault(f"/{missing}", "needed")])
    inbound, wanted = read(fields, sid[:100], request)
    replies, _ = await deliver(database(request, "intake"), inbound, wanted)
    return _twiml(replies)


def read(fields: dict[str, str], sid: str, request: Request) -> tuple[Inbound, list[Wanted]]:
    """The message that these fields are, and the media that come with it."""
    sender = fields["From"]
    by_whatsapp = sender.startswith("whatsapp:")
    address = address_of(sender.removeprefix("whatsapp:"))
    count = int(fields["NumMedia"]) if fields.get("NumMedia", "").isdecimal() else 0
    wanted = [
        Wanted.of("twilio", f"{sid} {n}", url)
        for n in range(min(count, _MOST_MEDIA))
        if (url := fields.get(f"MediaUrl{n}"))
    ]
    point = point_of(fields.get("Longitude"), fields.get("Latitude"))
    place = text_of(fields.get("Label") or fields.get("Address")) if point else None
    now = clock.now()
    base = base_url(request)
    inbound = Inbound(
        channel="whatsapp" if by_whatsapp else "sms",
        provider="twilio",
        provider_id=sid,
        address=address,
        received_at=now,
        text=text_of(fields.get("Body")) or text_of(fields.get("ButtonText")),
        button=text_of(fields.get("ButtonPayload")),
        lon=point[0] if point else None,
        lat=point[1] if point else None,
        place=place[:500] if place else None,
        media=tuple(one.media(base) for one in wanted),
        bulk=over_rate(request, address),
    )
    return inbound, wanted


def signed(token: str, url: str, form: Sequence[tuple[str, str]], signature: str) -> bool:
    """Whether Twilio's signature covers this request, which came to this address.

    Source: Twilio, "Validating requests": base64 of HMAC-SHA1 under the auth token of the full address and of every
    parameter's name and value, sorted by name; the values of a repeated one sorted, each once. With and without the
    port, because Twilio is of two minds about it.
    """
    by_name: dict[str, set[str]] = {}
    for name, value in form:
        by_name.setdefault(name, set()).add(value)
    parameters = "".join(name + value for name in sorted(by_name) for value in sorted(by_name[name]))
    found = False
    for spelt in _ports(url):
        digest = hmac.new(token.encode(), (spelt + parameters).encode("utf-8", "replace"), hashlib.sha1).digest()
        found |= same(signature, base64.b64encode(digest).decode())
    return found


def _ports(url: str) -> tuple[str, str, str]:
    """The address as it is, with its port, and without."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return (url, url, url)
    host = parts.netloc if port is None else parts.netloc.rsplit(":", 1)[0]
    standard = port or (443 if parts.scheme == "https" else 80)
    return url, urlunsplit(parts._replace(netloc=f"{host}:{standard}")), urlunsplit(parts._replace(netloc=host))


def requested_address(request: Request) -> str:
    """By which address Twilio called: behind a proxy only the settings know it."""
    return base_url(request) + request.url.path + (f"?{request.url.query}" if request.url.query else "")


def form_of(body: bytes) -> list[tuple[str, str]]:
    try:
        text = body.decode("ascii")
        return parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError as error:
        raise Invalid(
            "the body is no form", [Fault("", f"expected application/x-www-form-urlencoded: {error}"[:200])]
        ) from None


def _twiml(replies: Sequence[Reply]) -> Response:
    said = "".join(f"<Message>{escape(reply.text)}</Message>" for reply in replies)
    return Response(f'<?xml version="1.0" encoding="UTF-8"?><Response>{said}</Response>', media_type="text/xml")
