"""The ledger: for each need, how much of it is where on the way from open to confirmed."""

from __future__ import annotations

from typing import ClassVar, Self
from uuid import UUID

from pydantic import model_validator

from schemas.event import Event
from schemas.values import AreaCode, Code, Count, Sensitivity, Severity


class LedgerChanged(Event):
    """The whole row after the change. Producer: matching.

    Always in balance: needed = open + offered + committed + in_transit + delivered + confirmed + cancelled.
    `offered` is what is under question, at most what is left; `asked` (how much was asked for) stands outside.
    """

    type: ClassVar = "gotong.ledger.changed.v1"
    topic: ClassVar = "gotong.ledger.v1"
    key: ClassVar = "need_id"
    subject: ClassVar = "need_id"

    need_id: UUID
    incident_id: UUID | None = None
    item: Code | None = None
    skill: Code | None = None
    unit: str
    severity: Severity
    admin: AreaCode | None = None
    needed: Count
    open: Count
    offered: Count
    committed: Count
    in_transit: Count
    delivered: Count
    confirmed: Count
    cancelled: Count
    asked: Count
    sensitivity: Sensitivity | None = None
    cause: str

    @model_validator(mode="after")
    def _balanced(self) -> Self:
        parts = self.open + self.offered + self.committed + self.in_transit
        if self.needed != parts + self.delivered + self.confirmed + self.cancelled:
            raise ValueError("the ledger is out of balance")
        return self
