"""What every hook of messages does with one: claim its id, note its media, have it taken, keep what is said back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import Request

from services.channels.settings import ChannelSettings
from services.intake.conversations import take_inbound
from services.intake.inbound import Inbound, Reply
from services.intake.media_writes import Wanted, want
from services.intake.rates import rates_of
from services.runtime import vault
from services.runtime.auth import Actor
from services.runtime.db import Database, from_json, to_json
from services.runtime.http import WRITE_TIMEOUT_S

MOST_TEXT = 10_000


def address_of(number: str) -> str:
    """A sender's number in E.164 form; a short code or a name stays as the provider gives it."""
    try:
        return vault.normal_number(number)
    except vault.NotANumber:
        return number[:50]


def text_of(text: object) -> str | None:
    """What was written, as it can be stored; None where nothing was."""
    if not isinstance(text, str):
        return None
    plain = text.replace("\x00", "").encode("utf-8", "replace").decode().strip()
    return plain[:MOST_TEXT] or None


def base_url(request: Request) -> str:
    """How the world reaches us, without a slash at the end; as the request says it where no setting does."""
    return (ChannelSettings().public_url or str(request.base_url)).rstrip("/")


def over_rate(request: Request, address: str) -> bool:
    """Count a message for its sender; whether that is more than a person writes in a minute."""
    return rates_of(request).bulk(Actor("public", "channel"), vault.contact_id(address))


async def deliver(db: Database, inbound: Inbound, wanted: Sequence[Wanted] = ()) -> tuple[list[Reply], bool]:
    """Have a message taken once, with all that comes of it, in one transaction; what to say back, and whether the
    message is new. One that is known changes nothing and is told again what it was told."""
    async with asyncio.timeout(WRITE_TIMEOUT_S), db.tx() as tx:
        mine = await tx.fetchval(
            "INSERT INTO hook_message (provider, provider_id, received_at) VALUES ($1, $2, $3) "
            "ON CONFLICT DO NOTHING RETURNING true",
            inbound.provider, inbound.provider_id, inbound.received_at,
        )  # fmt: skip
        if not mine:
            said = await tx.fetchval(
                "SELECT answer FROM hook_message WHERE provider = $1 AND provider_id = $2",
                inbound.provider, inbound.provider_id,
            )  # fmt: skip
            return [Reply(text) for text in from_json(said) or ()], False
        await want(tx, wanted)
        replies = await take_inbound(tx, inbound)
        await tx.execute(
            "UPDATE hook_message SET answer = $3::jsonb WHERE provider = $1 AND provider_id = $2",
            inbound.provider, inbound.provider_id, to_json([reply.text for reply in replies]),
        )  # fmt: skip
    return replies, True


def point_of(lon: object, lat: object) -> tuple[float, float] | None:
    """A shared position as (lon, lat); None where it is none on this earth."""
    try:
        east, north = float(lon), float(lat)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return (east, north) if -180 <= east <= 180 and -90 <= north <= 90 else None
