"""One message that came in over a channel, however its provider spells it, and what is said back.

The hooks (`services/intake/hooks/`) read each provider's own form and make an `Inbound` of it; what it means and what
to answer is decided in `conversations.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from schemas.values import Media
from services.intake.actions import Draft, Sender, draft_of
from services.intake.bodies import PlaceIn, ReporterIn, ReportIn

Channel = Literal["sms", "whatsapp"]
"""How a person is reached: RapidPro carries either."""
Provider = Literal["twilio", "whatsapp", "rapidpro"]


@dataclass(frozen=True, slots=True)
class Inbound:
    """One message of one person.

    Whoever holds one has been told by the database that (`provider`, `provider_id`) is new: the hook claims it in the
    same transaction, so what is done with it is done once. `provider_id` holds no number, so it may stand in an event
    as a report's `external_id` (a wamid contains the sender's number: its keyed hash stands here). `address` is the
    sender's number in E.164 form, for the vault alone: it is not shown when this is printed, and goes into no event,
    log line or answer. `text` is as written, up to 10,000 characters; None where there is none (a photograph, a voice
    note, a shared position). `button` is the payload of a button that was pressed; its label is then the text. `lon`,
    `lat` are a position that the sender shared (WGS 84), `place` the name that came with it. `media` has addresses of
    our own (`/v1/media/ID`); their content may still have to be fetched. `sent_at`: when the provider had it, as far
    as it says so. `language`: what the channel knows of the contact's language. `bulk`: over the contact's rate; a
    report made of it is linked last.
    """

    channel: Channel
    provider: Provider
    provider_id: str
    address: str = field(repr=False)
    received_at: datetime
    text: str | None = field(default=None, repr=False)
    button: str | None = None
    lon: float | None = None
    lat: float | None = None
    place: str | None = None
    media: tuple[Media, ...] = ()
    sent_at: datetime | None = None
    language: str | None = None
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said back to the sender, on the channel that was used, in the order given.

    Twilio and RapidPro carry replies in the answer to their own request. WhatsApp Cloud carries none: for it
    `take_inbound` writes them down to be sent (`services.channels.outbound`), and gives none back.
    """

    text: str


def draft_of_message(inbound: Inbound) -> Draft | None:
    """The report that a message is, when it is one; None: it holds nothing that a report could be made of.

    Its id follows from the provider's, so the media that came with it know their report.
    """
    if not inbound.text and not inbound.media:
        return None
    placed = inbound.lon is not None or inbound.place
    report = ReportIn(
        text=inbound.text,
        location=PlaceIn(lon=inbound.lon, lat=inbound.lat, place=inbound.place) if placed else None,
        reporter=ReporterIn(phone=inbound.address, language=inbound.language),
        media=inbound.media,
        external_id=inbound.provider_id,
    )
    draft = draft_of(report, Sender(f"/{inbound.provider}", (), False), heard_at=inbound.sent_at)
    return replace(draft, bulk=inbound.bulk)
