"""What every event has in common: its type, its topic, its key, and how it is read and written."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, NamedTuple, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, PrivateAttr

REGISTRY: dict[str, type[Event]] = {}
"""Every event model by its CloudEvents type; filled as the modules of this package are imported."""


class Value(BaseModel):
    """A part of an event: frozen; fields that this release does not know are ignored when read."""

    model_config = ConfigDict(
        defer_build=True, frozen=True, extra="ignore", ser_json_inf_nan="null", allow_inf_nan=False
    )


class Meta(NamedTuple):
    """The CloudEvents attributes with which an event travelled. (A tuple: one is made for every record.)"""

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    sequence: int
    operation: str | None = None
    exercise: bool = False
    traceparent: str | None = None


class Event(Value):
    """A fact in the past tense. Subclasses name their `type`, `topic`, and the fields that are subject and key.

    `operation` and `exercise` are CloudEvents attributes as well, so that a reader can filter without parsing.
    """

    type: ClassVar[str] = ""
    topic: ClassVar[str] = ""
    key: ClassVar[str] = ""
    subject: ClassVar[str] = ""

    operation: str | None = None
    exercise: bool = False

    _meta: Meta | None = PrivateAttr(default=None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if cls.type:
            known = REGISTRY.setdefault(cls.type, cls)
            if known.__qualname__ != cls.__qualname__:
                raise TypeError(f"{cls.type} has two models: {known.__qualname__} and {cls.__qualname__}")

    @property
    def meta(self) -> Meta:
        """The attributes with which this event arrived.

        Raises
        ------
        LookupError
            This event was made here and has not travelled yet.
        """
        if self._meta is None:
            raise LookupError(f"{self.type} has not travelled, so it has no attributes yet")
        return self._meta

    @property
    def key_value(self) -> str:
        return str(getattr(self, self.key))

    @property
    def subject_value(self) -> str:
        return str(getattr(self, self.subject))

    def arrived_as(self, meta: Meta) -> Self:
        """Remember the attributes with which this event arrived; the runtime calls this once after decoding."""
        self._meta = meta
        return self

    def to_bytes(self) -> bytes:
        """The event's data as JSON, without fields that are None: what stands in the Kafka value."""
        return self.model_dump_json(exclude_none=True).encode()


def event_types() -> dict[str, type[Event]]:
    """Every event model by type, with all modules of this package loaded."""
    from schemas import all_events  # noqa: F401  (imported for what it registers)

    return dict(sorted(REGISTRY.items()))


__all__ = ["REGISTRY", "UUID", "Event", "Meta", "Value", "event_types"]
