"""RapidPro (and TextIt, Weni): a flow calls our webhook with the message, and says our replies back itself.

The body is RapidPro's default: `contact`, `input`, `flow`, `run`. A flow that makes its own body may send
`{"id", "urn", "text", "attachments"}`. Source: RapidPro, "Webhooks" in the flow editor's help.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from services.intake.hooks.messages import address_of, base_url, deliver, over_rate, point_of, text_of
from services.intake.hooks.secrets import require_shared
from services.intake.inbound import Inbound
from services.intake.media_writes import Wanted
from services.intake.settings import IntakeSettings
from services.runtime import clock
from services.runtime.db import to_json
from services.runtime.http import body_of, database, json_answer, parse_any
from services.runtime.problems import Fault, Invalid, NotFound, TooLarge, responses

router = APIRouter()

_MOST_ATTACHMENTS = 10
_CHANNELS = {"tel": "sms", "whatsapp": "whatsapp"}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "contact": {"type": "object", "description": "`urn` (tel:+62…), `language`"},
                        "input": {"type": "object", "description": "`uuid`, `text`, `attachments`, `created_on`"},
                    },
                }
            }
        },
    }
}
_REPLIES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "What the flow should say back: each in `replies`, all together in `text`",
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "replies": {"type": "array", "items": {"type": "string"}},
                        "text": {"type": "string"},
                        "repeated": {"type": "boolean"},
                    },
                }
            }
        },
    }
}


@router.post(
    "/v1/hooks/rapidpro",
    responses={**responses(NotFound, TooLarge), **_REPLIES},
    openapi_extra=_BODY,
    response_class=Response,
)
async def post_rapidpro(request: Request) -> Response:
    """Take a message from a RapidPro flow that shows the shared secret. A message id that is known changes nothing
    and is answered as before."""
    require_shared(request, IntakeSettings().rapidpro_secret, "GOTONG_INTAKE_RAPIDPRO_SECRET")
    body = parse_any(await body_of(request))
    if not isinstance(body, dict):
        raise Invalid("the body is no JSON object", [Fault("", "expected a JSON object")])
    inbound, wanted = read(body, request)
    replies, fresh = await deliver(database(request, "intake"), inbound, wanted)
    said = [reply.text for reply in replies]
    return json_answer(200, to_json({"replies": said, "text": "\n\n".join(said), "repeated": not fresh}).encode())


def read(body: dict[str, Any], request: Request) -> tuple[Inbound, list[Wanted]]:
    """The message in a webhook's body, and the media that come with it.

    Raises
    ------
    Invalid
        It names no message id or no sender.
    """
    message = body["input"] if isinstance(body.get("input"), dict) else body
    contact = body["contact"] if isinstance(body.get("contact"), dict) else {}
    given = message.get("uuid") or message.get("id")
    provider_id = str(given)[:100] if isinstance(given, str | int) and not isinstance(given, bool) else ""
    if not provider_id:
        raise Invalid("the message has no id", [Fault("/input/uuid", "needed")])
    urn = next((one for one in (message.get("urn"), contact.get("urn")) if isinstance(one, str) and one), "")
    scheme, _, path = urn.partition(":")
    number = path.partition("?")[0].partition("#")[0].strip()
    if not number:
        raise Invalid("the message has no sender", [Fault("/contact/urn", "needed, for example tel:+6281…")])
    # A WhatsApp urn has only digits.
    address = address_of(f"+{number}" if scheme == "whatsapp" and number.isdecimal() else number)
    point, wanted = None, []
    attachments = message.get("attachments")
    for n, attachment in enumerate(attachments[:_MOST_ATTACHMENTS] if isinstance(attachments, list) else []):
        kind, _, where = str(attachment).partition(":")
        if kind == "geo":
            north, _, east = where.partition(",")
            point = point_of(east, north) or point
        elif where.startswith(("http://", "https://")):
            wanted.append(Wanted.of("rapidpro", f"{provider_id} {n}", where[:2000]))
    now = clock.now()
    language = contact.get("language")
    return Inbound(
        channel="whatsapp" if _CHANNELS.get(scheme) == "whatsapp" else "sms",
        provider="rapidpro",
        provider_id=provider_id,
        address=address,
        received_at=now,
        sent_at=_sent(message.get("created_on"), now),
        text=text_of(message.get("text")),
        lon=point[0] if point else None,
        lat=point[1] if point else None,
        media=tuple(one.media(base_url(request)) for one in wanted),
        language=language[:35] if isinstance(language, str) else None,
        bulk=over_rate(request, address),
    ), wanted


def _sent(created_on: Any, now: datetime) -> datetime | None:
    """When RapidPro had it; never later than now."""
    try:
        at = datetime.fromisoformat(created_on)
        return min(at, now) if at.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None
