"""Putting a photograph or voice note into words: what an operator saw or heard, added to a report that has none."""

from __future__ import annotations

from uuid import UUID

import orjson

from schemas.reports import ReportTranscribed
from services.intake import domain
from services.intake.actions import LINKER_CHANNEL, TEXT_BYTES, mask
from services.intake.incidents import refresh
from services.intake.linker import read_text
from services.intake.sensitivity import sensitivity_of, strongest
from services.runtime import outbox, vault
from services.runtime.db import Tx, to_json
from services.runtime.problems import Conflict


async def transcribe(tx: Tx, report_id: UUID, words: str, *, by: str, reason: str) -> None:
    """Give a report that came without words the words of what it shows or says; the caller holds its row's lock.

    They are read as its own from then on: for linking, where it is not linked yet, and for its incident's needs.

    Raises
    ------
    Conflict
        It has words of its own, which nobody changes, or shows nothing.
    """
    row = await tx.fetchrow("SELECT * FROM report WHERE report_id = $1", report_id)
    assert row is not None
    if row["text"] is not None or row["title"] is not None:
        raise Conflict("the report has words of its own; they stay as they came")
    if row["media"] is None:
        raise Conflict("the report holds no photograph or recording")
    shown, hashed = mask(words, None)
    sealed, owner = row["sealed"], row["sealed_for"]
    if shown != words:
        owner = owner or f"report:{report_id}"
        kept = await vault.unseal(tx, owner, sealed) if sealed else None
        secret = (orjson.loads(kept) if kept else {}) | {"text": words}
        sealed = await vault.seal(tx, owner, to_json(secret).encode())
    needs, reading = read_text(None, shown, stated=row["needs"] is not None)
    linked = row["incident_id"] is not None
    sensitivity = strongest((row["sensitivity"], sensitivity_of(words)))
    await tx.execute(
        "UPDATE report SET text = $2, link_text = $3, sealed = $4, sealed_for = $5, read_needs = $6::jsonb, "
        "reading = $7::jsonb, sensitivity = $8 WHERE report_id = $1",
        report_id, shown, hashed if hashed != shown else None, sealed, owner,
        needs if linked else None, reading if linked else None, sensitivity,
    )  # fmt: skip
    text, cut = domain.json_cut(shown, TEXT_BYTES)
    event = ReportTranscribed(
        report_id=report_id, operation=row["operation"], exercise=row["exercise"], text=text, text_cut=cut,
        sensitivity=sensitivity, by=by, reason=reason,
    )  # fmt: skip
    await outbox.append(tx, [event])
    if linked:
        await tx.execute(
            "INSERT INTO link_change (operation, kind, report_id, incident_id) VALUES ($1, 'add', $2, $3)",
            row["operation"], report_id, row["incident_id"],
        )  # fmt: skip
        await refresh(tx, [row["incident_id"]], by=by, reason=reason)
    await tx.notify(LINKER_CHANNEL)
