"""Two people at one thing: an edit says which version it was made on, and is refused when somebody decided meanwhile.

The version is the sequence of the thing's newest event. Reports that came in by rule since then do not matter: an
incident in a flood changes every second, and nobody could ever edit it. What another person decided does.
"""

from __future__ import annotations

import re
from typing import Any

from fastapi import Request

from services.runtime.db import Tx, from_json
from services.runtime.problems import DomainError, Fault, Invalid

INCIDENTS, NEEDS = "gotong.incidents.v1", "gotong.needs.v1"
_TOLD = ("by", "reason", "changed", "evidence", "status", "quantity")
_RULES = ("rule:", "system:", "intake:", "matching:", "sitrep:")


class Stale(DomainError):
    """Somebody else decided on it since the version that the edit was made on."""

    code, status, title = "stale", 412, "Somebody changed it meanwhile"


IF_MATCH: dict[str, Any] = {
    "name": "If-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 22},
    "description": "The `version` that the edit was made on. Refused with 412 when a person decided on it since then; "
    "what rules changed since then does not count.",
}


def asked_version(request: Request) -> int | None:
    """The version in If-Match, quoted or not; None: the caller does not mind.

    Raises
    ------
    Invalid
        It is no version that we give out.
    """
    header = request.headers.get("if-match", "").strip()
    if header in ("", "*"):
        return None
    found = re.fullmatch(r'"?(\d{1,18})"?', header)
    if found is None:
        raise Invalid("If-Match is a version as the answer has it", [Fault("header/If-Match", "a whole number")])
    return int(found[1])


async def version_of(tx: Tx, topic: str, subject: str) -> int:
    """The sequence of the newest event of a subject; 0 before the first."""
    return int(
        await tx.fetchval("SELECT last FROM subject_sequence WHERE topic = $1 AND subject = $2", topic, subject) or 0
    )


async def require_version(tx: Tx, topic: str, subject: str, version: int | None) -> None:
    """Refuse an edit that was made on an older version. The subject's lock is held, so nothing comes in between.

    Raises
    ------
    Stale
        With what was decided since, by whom and why.
    """
    if version is None:
        return
    rows = await tx.fetch(
        """
        SELECT sequence, time, type, payload FROM journal WHERE topic = $1 AND subject = $2 AND sequence > $3
        UNION ALL
        SELECT sequence, time, type, payload FROM outbox WHERE topic = $1 AND subject = $2 AND sequence > $3
        ORDER BY sequence LIMIT 1000
        """,
        topic,
        subject,
        version,
    )
    decided = []
    for row in rows:
        told = from_json(row["payload"]) if row["payload"] else {}
        if str(told.get("by", "")).startswith(_RULES):
            continue
        step = {"time": row["time"].isoformat(), "what": row["type"].split(".")[2]}
        decided.append(step | {name: told[name] for name in _TOLD if name in told})
    if decided:
        by = ", ".join(dict.fromkeys(str(step.get("by", "?")) for step in decided))
        raise Stale(
            f"{by} changed it since you looked; look again and decide anew",
            [Fault("header/If-Match", f"the version is {await version_of(tx, topic, subject)} now")],
            version=await version_of(tx, topic, subject),
            changes=decided,
        )
