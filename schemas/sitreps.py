"""Situation reports and silence noticed, as published to everybody: people in bands, no positions."""

from __future__ import annotations

from typing import Any, ClassVar
from uuid import UUID

from pydantic import AwareDatetime

from schemas.event import Event
from schemas.values import AreaCode, Code, Count, Severity


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


class SilenceNoticed(Event):
    """Far fewer reports than expected came from an area that a warning lies over. Producer: sitrep.

    `area` is a regency or city. `expected` and `received` are bands, counted from `since`, when the warning took
    effect; `severity` is the warning's. Told once for each warning and area.
    """

    type: ClassVar = "gotong.silence.noticed.v1"
    topic: ClassVar = "gotong.sitreps.v1"
    key: ClassVar = "area"
    subject: ClassVar = "area"

    area: AreaCode
    name: str
    warning_id: UUID
    hazard: Code | None = None
    severity: Severity
    since: AwareDatetime
    expected: str
    received: str
