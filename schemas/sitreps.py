"""Situation reports, as published to everybody: people in bands, no positions."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import Count


class SitrepPublished(Event):
    """A situation report in its public form. `position` is the row of sitrep's log up to which it counts.

    `people` and `damage` give bands as text (`5-9`), never exact figures. Producer: sitrep.
    """

    type: ClassVar = "gotong.sitrep.published.v1"
    topic: ClassVar = "gotong.sitreps.v1"
    key: ClassVar = "area"
    subject: ClassVar = "area"

    area: str
    as_of: AwareDatetime
    position: Count
    title: str
    incidents_open: str
    people: dict[str, str] = {}
    damage: dict[str, str] = {}
    needs: tuple[dict[str, Any], ...] = ()
    text_id: str
    text_en: str
