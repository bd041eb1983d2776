"""What was handled already: the newest sequence of a subject (state streams), every id (fact streams)."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.topics import topic
from services.runtime import clock
from services.runtime.cloudevents import Envelope
from services.runtime.db import Tx


async def claim(tx: Tx, envelopes: Sequence[Envelope]) -> list[bool]:
    """Which of these are to be applied now, in their order; the claim stands or falls with the transaction.

    A fact is new if its (source, id) was never claimed. A state is new if its sequence is above every one that was
    claimed for its subject; within the batch each step upwards counts, so no change is skipped that came in order.
    """
    facts = [e for e in envelopes if topic(e.topic).kind == "fact"]
    states = [e for e in envelopes if topic(e.topic).kind == "state"]
    fresh_facts = await _claim_facts(tx, facts)
    newest = await _claim_states(tx, states)
    answer = []
    for envelope in envelopes:
        if topic(envelope.topic).kind == "fact":
            identity = (envelope.meta.source, envelope.meta.id)
            answer.append(identity in fresh_facts)
            fresh_facts.discard(identity)
        else:
            subject = (envelope.topic, envelope.meta.subject)
            answer.append(envelope.meta.sequence > newest[subject])
            newest[subject] = max(newest[subject], envelope.meta.sequence)
    return answer


async def _claim_facts(tx: Tx, envelopes: Sequence[Envelope]) -> set[tuple[str, str]]:
    if not envelopes:
        return set()
    # Sorted, so that two workers with the same records in hand wait for one another instead of dead-locking.
    identities = sorted({(e.meta.source, e.meta.id) for e in envelopes})
    rows = await tx.fetch(
        """
        INSERT INTO inbox_fact (source, id, applied_at)
        SELECT source, id, $3 FROM unnest($1::text[], $2::text[]) AS t(source, id)
        ON CONFLICT DO NOTHING RETURNING source, id
        """,
        [source for source, _ in identities],
        [event_id for _, event_id in identities],
        clock.now(),
    )
    return {(row["source"], row["id"]) for row in rows}


async def _claim_states(tx: Tx, envelopes: Sequence[Envelope]) -> dict[tuple[str, str], int]:
    """The sequence that stood for each subject before this claim."""
    if not envelopes:
        return {}
    newest: dict[tuple[str, str], int] = {}
    for envelope in envelopes:
        subject = (envelope.topic, envelope.meta.subject)
        newest[subject] = max(newest.get(subject, 0), envelope.meta.sequence)
    ordered = sorted(newest)
    rows = await tx.fetch(
        """
        INSERT INTO inbox_state AS s (topic, subject, sequence)
        SELECT topic, subject, sequence FROM unnest($1::text[], $2::text[], $3::bigint[]) AS t(topic, subject, sequence)
        ON CONFLICT (topic, subject) DO UPDATE
            SET previous = s.sequence, sequence = greatest(s.sequence, excluded.sequence)
        RETURNING topic, subject, previous
        """,
        [subject[0] for subject in ordered],
        [subject[1] for subject in ordered],
        [newest[subject] for subject in ordered],
    )
    return {(row["topic"], row["subject"]): row["previous"] for row in rows}
