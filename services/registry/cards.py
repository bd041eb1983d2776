"""Registration cards: a signed text, shown as a QR code, by which a desk knows a volunteer again without a network.

The text is `GTG1.` and, in base64url, the responder's id (16 bytes), the hour of its end since 1970 (4 bytes, big
endian) and an Ed25519 signature of both (64 bytes). A desk's app checks it with the published key and sends what it
has seen when it is online again.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from services.runtime import vault

PREFIX = "GTG1."
LIVES = timedelta(days=30)


class BadCard(ValueError):
    """This is no card of ours, or it is too old; the text says which."""


@lru_cache(maxsize=4)
def _key(token_key: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hmac.new(token_key, b"registration card", hashlib.sha256).digest())


def public_key() -> bytes:
    """The 32 bytes with which anybody can check a card."""
    return _key(vault.token_key()).public_key().public_bytes_raw()


def card_of(responder_id: UUID, now: datetime) -> str:
    """The card of a responder, good for thirty days."""
    hours = int((now + LIVES).timestamp() // 3600)
    told = responder_id.bytes + hours.to_bytes(4, "big")
    signed = told + _key(vault.token_key()).sign(told)
    return PREFIX + base64.urlsafe_b64encode(signed).decode().rstrip("=")


def responder_of(card: str, seen_at: datetime) -> UUID:
    """Whose card this is.

    Raises
    ------
    BadCard
    """
    text = card.strip()
    try:
        raw = base64.urlsafe_b64decode(text[len(PREFIX) :] + "=" * (-len(text[len(PREFIX) :]) % 4))
    except ValueError:
        raw = b""
    if not text.startswith(PREFIX) or len(raw) != 84:
        raise BadCard("this is no registration card")
    try:
        _key(vault.token_key()).public_key().verify(raw[20:], raw[:20])
    except InvalidSignature:
        raise BadCard("this card was not signed by this installation") from None
    if int.from_bytes(raw[16:20], "big") * 3600 <= seen_at.timestamp():
        raise BadCard("this card is too old; register again")
    return UUID(bytes=raw[:16])
