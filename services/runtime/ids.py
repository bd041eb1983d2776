"""Ids: UUIDv7 for what is new, UUIDv5 for what must come out the same twice."""

from __future__ import annotations

import os
from uuid import UUID, uuid5

from services.runtime import clock

_NAMESPACE = UUID("6f1c2f0e-6d0a-5b57-9a39-3a4d9c1b7f10")


def uuid7() -> UUID:
    """A new time-ordered id (RFC 9562, version 7)."""
    milliseconds = int(clock.now().timestamp() * 1000)
    value = (milliseconds << 80) | int.from_bytes(os.urandom(10), "big")
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return UUID(int=value)


def derived(*parts: str) -> UUID:
    """The id that these words always give; the words cannot run into one another."""
    return uuid5(_NAMESPACE, "\x1f".join(f"{len(part)}:{part}" for part in parts))
