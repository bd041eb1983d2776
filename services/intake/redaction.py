"""Blanking reports and incidents whose events were redacted."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from schemas.incidents import IncidentUpdated
from services.intake import domain
from services.intake.incidents import as_incident, incident_event
from services.intake.media_writes import forget_media
from services.runtime import clock, outbox
from services.runtime.db import Tx

REASON = "its words were redacted"


async def forget(tx: Tx, event_ids: Collection[str], *, by: str) -> None:
    """Take the words out of the reports and incidents that these events told of.

    Of a report goes whatever a person wrote or sent: title, text, place, pictures and recordings, and what was sealed.
    What it counts for stays (hazard, point, figures, needs): needs that people are on their way to must not vanish with
    a text.
    An incident that took its title from those words gets one of hazard and area, which is told as a change.
    """
    await tx.execute(
        "INSERT INTO submission_report (event_id) SELECT DISTINCT unnest($1::text[]) ON CONFLICT DO NOTHING",
        list(event_ids),
    )
    reports = await tx.fetch(
        """
        SELECT report_id, incident_id, title, text FROM report
        WHERE report_id IN (
            SELECT subject::uuid FROM journal WHERE id::text = ANY($1) AND topic = 'gotong.reports.v1'
            UNION SELECT report_id FROM submission_report WHERE event_id = ANY($1)
        ) ORDER BY report_id FOR UPDATE
        """,
        list(event_ids),
    )
    titles = {domain.title_of(row["title"], row["text"], None, None, None) for row in reports}
    incidents: set[UUID] = {row["incident_id"] for row in reports if row["incident_id"]}
    told = await tx.fetch(
        "SELECT subject::uuid AS id FROM journal WHERE id::text = ANY($1) AND topic = 'gotong.incidents.v1'",
        list(event_ids),
    )
    await tx.execute(
        """
        UPDATE report SET title = NULL, text = NULL, link_text = NULL, sealed = NULL, sealed_for = NULL, place = NULL,
                          external_url = NULL, media = NULL, read_needs = NULL,
                          reading = reading - 'depth_words' - 'drill'
        WHERE report_id = ANY($1)
        """,
        [row["report_id"] for row in reports],
    )
    await forget_media(tx, [row["report_id"] for row in reports])
    await tx.execute(
        "UPDATE hook_message SET sealed = NULL, sealed_for = NULL WHERE report_id = ANY($1)",
        [row["report_id"] for row in reports],
    )
    await _retitle(tx, incidents, titles, {row["id"] for row in told}, by=by)


async def _retitle(
    tx: Tx, incidents: Collection[UUID], titles: Collection[str], told: Collection[UUID], *, by: str
) -> None:
    """Give a plain title to those of `incidents` that have one of these, and to all that were `told` of."""
    rows = await tx.fetch(
        "SELECT * FROM incident WHERE incident_id = ANY($1) OR incident_id = ANY($2) ORDER BY incident_id FOR UPDATE",
        list(incidents),
        list(told),
    )
    for row in rows:
        plain = domain.coarse_title(row["hazard"], row["admin"])
        if row["title"] == plain or (row["title"] not in titles and row["incident_id"] not in told):
            continue
        now = clock.now()
        await tx.execute(
            "UPDATE incident SET title = $2, place = NULL, updated_at = $3 WHERE incident_id = $1",
            row["incident_id"],
            plain,
            now,
        )
        after = as_incident(row) | {"title": plain, "place": None, "updated_at": now}
        await outbox.append(
            tx, [incident_event(IncidentUpdated, after, changed=("title", "place"), by=by, reason=REASON)]
        )
