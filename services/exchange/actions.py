"""Letting a partner's message pass: the same by Kafka and by HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from schemas.partners import ReportSubmitted, SubmissionAccepted
from services.exchange.domain import as_judged, refusal
from services.runtime import ids, outbox
from services.runtime.db import Tx
from services.runtime.quarantine import Unprocessable

BODY_BYTES = 30 * 1024
"""What of an event's 32 KiB a body may fill, beside the other fields."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A message that may pass."""

    submission_id: UUID
    origin: str
    origin_id: str
    external_id: str | None
    operation: str | None
    exercise: bool
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of it. `repeated`: it had passed before, under the id that is given."""

    submission_id: UUID
    repeated: bool


def judge(event: ReportSubmitted, now: datetime) -> Judged:
    """Judge one report by the rules.

    Raises
    ------
    Unprocessable
        It is not let pass; the pointer names the field.
    """
    meta = event.meta
    found = refusal(event, meta, now)
    if found is not None:
        raise Unprocessable(*found)
    operation = event.operation or meta.operation
    body = as_judged(event) | ({"operation": operation} if operation else {})
    size = len(orjson.dumps(body))
    if size > BODY_BYTES:
        raise Unprocessable(f"the report has {size} bytes; at most {BODY_BYTES} can be passed on", "/data")
    return Judged(
        submission_id=ids.derived("submission", meta.source, meta.id),
        origin=meta.source,
        origin_id=meta.id,
        external_id=event.external_id,
        operation=operation,
        exercise=event.exercise or meta.exercise,
        body=body,
    )


async def pass_on(
    tx: Tx, messages: Sequence[Judged], *, known: bool, organisation: str | None, now: datetime
) -> list[Passed]:
    """Pass each message on once: one with a (source, id) or (source, external_id) that passed before is counted as
    its repeat. `known`: the partner proved who it is."""
    rows = await tx.fetch(
        """
        INSERT INTO submission (submission_id, origin, origin_id, external_id, organisation, known, received_at)
        SELECT submission_id, origin, origin_id, external_id, $5, $6, $7
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY
            AS t(submission_id, origin, origin_id, external_id, nth)
        ORDER BY origin, external_id, nth
        ON CONFLICT DO NOTHING RETURNING submission_id
        """,
        [message.submission_id for message in messages],
        [message.origin for message in messages],
        [message.origin_id for message in messages],
        [message.external_id for message in messages],
        organisation,
        known,
        now,
    )
    fresh = {row["submission_id"] for row in rows}
    passed: list[Passed | None] = [None] * len(messages)
    events = []
    for index, message in enumerate(messages):
        if message.submission_id not in fresh:
            continue
        fresh.discard(message.submission_id)  # the same message again in this very list is a repeat
        passed[index] = Passed(message.submission_id, repeated=False)
        events.append(
            SubmissionAccepted(
                submission_id=message.submission_id,
                kind="report",
                origin=message.origin,
                origin_id=message.origin_id,
                external_id=message.external_id,
                organisation=organisation,
                known=known,
                received_at=now,
                body=message.body,
                operation=message.operation,
                exercise=message.exercise,
            )
        )
    repeats = [index for index, entry in enumerate(passed) if entry is None]
    if repeats:
        firsts = await _count_repeats(tx, [messages[index] for index in repeats])
        for index, first in zip(repeats, firsts, strict=True):
            passed[index] = Passed(first, repeated=True)
    await outbox.append(tx, events)
    return [entry for entry in passed if entry is not None]


async def _count_repeats(tx: Tx, messages: Sequence[Judged]) -> list[UUID]:
    """Count these with the messages that they repeat, and say which those are."""
    rows = await tx.fetch(
        """
        WITH again AS (
            SELECT t.nth, first.submission_id
            FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS t(origin, origin_id, external_id, nth)
            CROSS JOIN LATERAL (
                SELECT s.submission_id FROM submission s
                WHERE s.origin = t.origin AND (s.origin_id = t.origin_id OR s.external_id = t.external_id)
                ORDER BY s.origin_id = t.origin_id DESC LIMIT 1
            ) AS first
        ), counted AS (
            UPDATE submission SET repeats = repeats + n
            FROM (SELECT submission_id, count(*) AS n FROM again GROUP BY submission_id) AS c
            WHERE submission.submission_id = c.submission_id
        )
        SELECT submission_id FROM again ORDER BY nth
        """,
        [message.origin for message in messages],
        [message.origin_id for message in messages],
        [message.external_id for message in messages],
    )
    return [row["submission_id"] for row in rows]
