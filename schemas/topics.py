"""The one table of topics: what stands where, who writes it, who reads it, and how long it stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["state", "fact"]
Class = Literal["open", "partner", "internal"]

_HOUR_MS = 3_600_000
RETENTION_MS = 30 * 24 * _HOUR_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """One stream.

    `kind` state: the newest sequence of a subject wins. fact: each id is applied once and never dropped.
    `readers`: consumer groups, by service. `cls` open: any agency; partner: only through its projected topic.
    """

    stream: str
    kind: Kind
    key: str
    producer: str
    readers: tuple[str, ...]
    cls: Class
    partitions: int = 12
    retention_ms: int = RETENTION_MS

    @property
    def name(self) -> str:
        return f"gotong.{self.stream}.v1"


_ALL = (
    Topic("operations", "state", "operation", "registry", ("intake", "matching", "sitrep"), "open", partitions=1),
    Topic("partners.inbound", "fact", "report", "partners", ("exchange",), "internal", retention_ms=24 * _HOUR_MS),
    Topic("submissions", "fact", "source", "exchange", ("intake", "sitrep"), "internal"),
    Topic("reports", "fact", "report", "intake", ("sitrep",), "partner"),
    Topic("incidents", "state", "incident", "intake", ("sitrep",), "partner"),
    Topic("needs", "state", "need", "intake", ("matching", "sitrep"), "partner"),
    Topic("warnings", "state", "first message of the CAP chain", "intake", ("sitrep",), "open"),
    Topic("messages", "fact", "contact id", "intake", ("registry",), "internal"),
    Topic("confirmations", "fact", "need", "intake", ("matching", "sitrep"), "internal"),
    Topic("responders", "state", "responder", "registry", ("matching", "sitrep"), "internal"),
    Topic("resources", "state", "lot", "registry", ("matching", "sitrep"), "partner"),
    Topic("sites", "state", "site", "registry", ("sitrep",), "partner"),
    Topic("answers", "fact", "need", "registry", ("matching",), "internal"),
    Topic("notices", "fact", "contact id", "registry", ("intake", "sitrep"), "internal"),
    Topic("erasures", "fact", "erasure", "registry", ("intake",), "internal"),
    Topic("offers", "state", "need", "matching", ("registry", "sitrep"), "partner"),
    Topic("assignments", "state", "need", "matching", ("intake", "registry", "sitrep"), "partner"),
    Topic("ledger", "state", "need", "matching", ("intake", "sitrep"), "partner"),
    Topic("sitreps", "fact", "operation/area", "sitrep", ("intake", "sitrep"), "open", partitions=1),
    Topic("quarantine", "fact", "record", "each service", ("intake", "sitrep"), "internal", partitions=1),
)

TOPICS: dict[str, Topic] = {topic.name: topic for topic in _ALL}
"""Every topic by its Kafka name."""


def topic(name: str) -> Topic:
    """The topic of this Kafka name.

    Raises
    ------
    LookupError
        No such topic is in the table.
    """
    try:
        return TOPICS[name]
    except KeyError:
        raise LookupError(f"{name} is not in schemas/topics.py") from None


def read_by(service: str) -> tuple[Topic, ...]:
    """The topics that this service consumes, in the order of the table."""
    return tuple(entry for entry in _ALL if service in entry.readers)
