"""What the registry's writes share: who sends something, what became of it, whether the operation is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from services.registry.domain import Standing
from services.runtime import masking
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import DomainError, Fault, Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class Sender:
    """Whoever registers something: how far they are trusted, for which organisation, under which name."""

    standing: Standing
    organisation: str | None
    by: str

    @classmethod
    def of(cls, actor: Actor) -> Sender:
        """Raises `Forbidden` for a partner's token that names no organisation."""
        if actor.role in ("field", "operator", "admin"):
            return cls("desk", actor.organisation, actor.name)
        if actor.role == "partner":
            if not actor.organisation:
                raise Forbidden("the token names no organisation, so nothing can be registered with it")
            return cls("partner", actor.organisation, actor.name)
        # An anonymous actor's name is its network address or device, which has no place in an event.
        return cls("public", None, "public" if actor.anonymous else actor.name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row: `error` names its fault, else `id` says which entry it is."""

    what: Literal["made", "updated", "repeated", "kept", "refused"]
    id: UUID | None = None
    status: str | None = None
    error: DomainError | None = None


async def exercises(tx: Tx, operations: set[str | None]) -> dict[str | None, bool]:
    """Which of these operations are known, and whether each is an exercise; none at all is known, and is life."""
    named = [operation for operation in operations if operation is not None]
    rows = await tx.fetch("SELECT id, exercise FROM operation WHERE id = ANY($1)", named) if named else []
    return {None: False} | {row["id"]: row["exercise"] for row in rows}


def unknown_operation(operation: str | None) -> NotFound:
    return NotFound(
        f"operation: there is no operation {operation}", [Fault("/operation", "there is no such operation")]
    )


def not_yours(pointer: str) -> Forbidden:
    reason = "a partner writes for its own organisation only"
    return Forbidden(reason, [Fault(pointer, reason)])


def masked(text: str | None) -> str | None:
    """Free text on its way into an event, without the numbers and addresses that people write into it."""
    return masking.mask(text) if text else text
