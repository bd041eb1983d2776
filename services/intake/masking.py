"""Masking of personal data in free text; the other services share it, so it is in `services.runtime.masking`."""

from __future__ import annotations

from services.runtime.masking import PLACEHOLDER, Found, Kind, emails, find, international, mask, numbers

__all__ = ["PLACEHOLDER", "Found", "Kind", "emails", "find", "international", "mask", "numbers"]
