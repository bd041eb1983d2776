"""Erasures: that whatever is kept of a person is to be destroyed, and that it was.

The first is the only event that leads from the registry's person to what intake keeps. Once intake has done its part,
its content is redacted, so that no hash of the number outlives the person in a journal.
"""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from schemas.event import Event


class ContactErased(Event):
    """A person was erased: whoever keeps anything of this contact destroys it. Producer: registry."""

    type: ClassVar = "gotong.contact.erased.v1"
    topic: ClassVar = "gotong.erasures.v1"
    key: ClassVar = "erasure_id"
    subject: ClassVar = "erasure_id"

    erasure_id: UUID
    contact_id: str
    by: str


class ContactForgotten(Event):
    """Nothing of that contact is kept any more. Producer: intake."""

    type: ClassVar = "gotong.contact.forgotten.v1"
    topic: ClassVar = "gotong.messages.v1"
    key: ClassVar = "erasure_id"
    subject: ClassVar = "erasure_id"

    erasure_id: UUID
