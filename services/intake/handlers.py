"""What intake does with other services' events."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from schemas.assignments import (
    AssignmentAbandoned,
    AssignmentArrived,
    AssignmentConfirmed,
    AssignmentDelivered,
    AssignmentMade,
    AssignmentStarted,
    AssignmentState,
)
from schemas.erasures import ContactErased, ContactForgotten
from schemas.ledger import LedgerChanged
from schemas.notices import NoticeFailed, NoticeSent
from schemas.operations import OperationClosed, OperationOpened, OperationState, OperationUpdated
from schemas.partners import SubmissionAccepted
from schemas.quarantine import RecordRedacted
from schemas.sitreps import SilenceNoticed
from schemas.values import STANDING
from services.intake import domain, erasure, tables
from services.intake.actions import LINKER_CHANNEL, Draft, Sender, draft_of, take_reports
from services.intake.bodies import ReportIn
from services.intake.following import answer_instead, count_notices
from services.intake.need_writes import draft_readiness
from services.intake.redaction import forget
from services.runtime import clock, outbox
from services.runtime.consumer import Consumer
from services.runtime.db import Tx
from services.runtime.problems import faults_of
from services.runtime.quarantine import Unprocessable

consumer = Consumer("intake")


@consumer.on_batch(SubmissionAccepted)
async def on_submissions_accepted(events: Sequence[SubmissionAccepted], tx: Tx) -> None:
    """Take partners' reports as reports over HTTP are taken; what one partner sends twice is one report."""
    # Topics come in any order: one whose content was taken away before it came here must not bring it back.
    rows = await tx.fetch(
        "SELECT event_id FROM submission_report WHERE event_id = ANY($1) AND report_id IS NULL",
        [event.meta.id for event in events],
    )
    blank = {row["event_id"] for row in rows}
    events = [event for event in events if event.meta.id not in blank]
    taken = await take_reports(tx, [_draft(event) for event in events])
    await tx.execute(
        "INSERT INTO submission_report (event_id, report_id) SELECT * FROM unnest($1::text[], $2::uuid[]) "
        "ON CONFLICT DO NOTHING",
        [event.meta.id for event in events],
        [report.report_id for report in taken],
    )


def _draft(event: SubmissionAccepted) -> Draft:
    try:
        report = ReportIn.model_validate(event.body | {"external_id": event.external_id or event.origin_id})
    except ValidationError as error:
        fault = faults_of(error)[0]
        raise Unprocessable(f"the report cannot be taken: {fault.detail}", f"/data/body{fault.pointer}") from None
    known = event.known
    voice = f"org:{event.origin}" if known else None
    sender = Sender(event.origin, (), known, event.organisation if known else None, voice, foreign=True)
    return draft_of(report, sender, heard_at=event.received_at)


@consumer.on(OperationOpened, OperationUpdated, OperationClosed)
async def on_operation_changed(event: OperationState, tx: Tx) -> None:
    """Keep the registry's operations; reports that wait for this one go on."""
    row = tables.Operation(
        operation=event.operation,
        title=event.title,
        exercise=event.exercise,
        hazards=list(event.hazards),
        areas=list(event.areas),
        bbox=list(event.bbox) if event.bbox else None,
        timezone=event.timezone,
        opened_at=event.opened_at,
        closed_at=event.closed_at,
    )
    await tx.session.merge(row)
    await tx.flush()  # before the linker is woken, and before a later event of the batch reads it
    await tx.notify(LINKER_CHANNEL)


@consumer.on_batch(LedgerChanged)
async def on_ledger_changed(events: Sequence[LedgerChanged], tx: Tx) -> None:
    """Keep matching's ledger, the newest row of each need."""
    newest = {event.need_id: event for event in events}
    rows = list(newest.values())
    await tx.execute(
        """
        INSERT INTO ledger (need_id, needed, open, offered, committed, in_transit, delivered, confirmed, cancelled,
                            asked, at)
        SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[],
                             $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::timestamptz[])
        ON CONFLICT (need_id) DO UPDATE SET
            needed = excluded.needed, open = excluded.open, offered = excluded.offered,
            committed = excluded.committed, in_transit = excluded.in_transit, delivered = excluded.delivered,
            confirmed = excluded.confirmed, cancelled = excluded.cancelled, asked = excluded.asked, at = excluded.at
        """,
        [event.need_id for event in rows],
        *(
            [getattr(event, name) for event in rows]
            for name in (
                "needed", "open", "offered", "committed", "in_transit", "delivered", "confirmed", "cancelled", "asked",
            )
        ),
        [event.meta.time for event in rows],
    )  # fmt: skip


@consumer.on_batch(
    AssignmentMade, AssignmentStarted, AssignmentArrived, AssignmentDelivered, AssignmentConfirmed, AssignmentAbandoned
)
async def on_assignments_changed(events: Sequence[AssignmentState], tx: Tx) -> None:
    """Keep matching's assignments, for tickets. `first_at` is the earliest step heard of, in whatever order."""
    newest = {event.assignment_id: event for event in events}
    earliest = {event.assignment_id: event.meta.time for event in reversed(events)}
    rows = list(newest.values())
    await tx.execute(
        """
        INSERT INTO assignment AS a (assignment_id, need_id, state, quantity, organisation, first_at, at)
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::text[], $6::timestamptz[],
                             $7::timestamptz[])
        ON CONFLICT (assignment_id) DO UPDATE SET
            state = excluded.state, quantity = excluded.quantity, organisation = excluded.organisation,
            first_at = least(a.first_at, excluded.first_at), at = excluded.at
        """,
        [event.assignment_id for event in rows],
        [event.need_id for event in rows],
        [event.state for event in rows],
        [event.quantity for event in rows],
        [event.organisation for event in rows],
        [earliest[event.assignment_id] for event in rows],
        [event.meta.time for event in rows],
    )
    # Whoever is sent has looked at it: the incident waits for nobody any more.
    await tx.execute(
        """
        UPDATE incident i SET attended_at = t.at, attend_by = NULL, triage_at = NULL
        FROM (SELECT n.incident_id, min(a.first_at) AS at FROM assignment a JOIN need n USING (need_id)
              WHERE a.need_id = ANY($1) GROUP BY n.incident_id) t
        WHERE i.incident_id = t.incident_id AND i.attended_at IS NULL
        """,
        list({event.need_id for event in rows}),
    )


@consumer.on_batch(RecordRedacted)
async def on_records_redacted(events: Sequence[RecordRedacted], tx: Tx) -> None:
    """Blank what intake keeps of events whose content was taken away, its own and partners' submissions."""
    await forget(tx, [event.event_id for event in events], by=events[-1].by)


@consumer.on(NoticeFailed)
async def on_notice_failed(event: NoticeFailed, tx: Tx) -> None:
    """Answer for the registry where it does not know the number that wrote."""
    await answer_instead(tx, event)


@consumer.on(SilenceNoticed)
async def on_silence_noticed(event: SilenceNoticed, tx: Tx) -> None:
    """Draft somebody to go and look, where too little was heard; an operator declares it with a place to go to."""
    now = clock.now()
    await draft_readiness(
        tx,
        item=None,
        skill="assessment",
        quantity=domain.ASSESSORS,
        severity=min(3, event.severity),  # nobody has asked for help: what is known goes first
        operation=event.operation or STANDING,
        exercise=event.exercise,
        point=None,
        place=event.name,
        admin=event.area,
        window=(now, now + domain.ASSESS_WITHIN),
        by="intake:silence",
        reason=f"{event.name}: {event.received} reports since {event.since:%Y-%m-%d %H:%M}Z, where {event.expected} "
        f"were to be expected under a warning of severity {event.severity}",
    )


@consumer.on_batch(NoticeSent)
async def on_notices_sent(events: Sequence[NoticeSent], tx: Tx) -> None:
    """Count the registry's notices to a person with ours."""
    await count_notices(tx, events)


@consumer.on(ContactErased)
async def on_contact_erased(event: ContactErased, tx: Tx) -> None:
    """Forget what somebody wrote who was erased at the registry, and say that it is done."""
    await erasure.forget(tx, event.contact_id, event.by)
    await outbox.append(tx, [ContactForgotten(erasure_id=event.erasure_id)])
