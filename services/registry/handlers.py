"""What the registry does with others' events: it writes to those whom matching asks, and takes their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from schemas.answers import AnswerGiven
from schemas.assignments import AssignmentConfirmed
from schemas.erasures import ContactForgotten
from schemas.messages import ContactTold, MessageReceived, ReceiptNoted
from schemas.offers import OfferAccepted, OfferDeclined, OfferExpired, OfferMade, OfferState, OfferWithdrawn
from services.channels import outbound
from services.channels.outbound import Message
from services.registry import answers, duty, erasure, growth, notices
from services.runtime import outbox
from services.runtime.consumer import Consumer
from services.runtime.db import Tx

consumer = Consumer("registry")

_KEPT_ANSWERS = 20
"""So many of somebody's newest offers are looked at when they answer."""


# Offers


@consumer.on_batch(OfferMade, OfferAccepted, OfferDeclined, OfferExpired, OfferWithdrawn)
async def on_offers(events: Sequence[OfferState], tx: Tx) -> None:
    """Keep the offers to responders, and write to those whom they ask; and to the holders of stock, who answer on the
    board or read their own topic."""
    if lots := [event for event in events if event.lot_id is not None]:
        await duty.tell(tx, lots)
    steps: dict[UUID, list[OfferState]] = {}
    for event in events:
        if event.responder_id is not None:
            steps.setdefault(event.offer_id, []).append(event)
    if not steps:
        return
    rows = {
        row["offer_id"]: dict(row)
        for row in await tx.fetch(
            "SELECT * FROM offer WHERE offer_id = ANY($1) ORDER BY offer_id FOR UPDATE", sorted(steps)
        )
    }
    known = set(rows)
    people = await notices.addressees(tx, {seen[0].responder_id for seen in steps.values() if seen[0].responder_id})
    taken = await _open_codes(tx, [person.contact for person in people.values()])
    for offer_id, seen in sorted(steps.items()):
        last = seen[-1]
        if offer_id not in rows:
            person = people.get(last.responder_id) if last.responder_id else None
            rows[offer_id] = _row(last, person.contact if person else None, taken)
        rows[offer_id] |= {"state": last.state, "quantity": last.quantity, "changed_at": last.meta.time}
    await _store(tx, [rows[offer_id] for offer_id in sorted(steps)])
    over = [offer_id for offer_id in sorted(steps) if rows[offer_id]["state"] != "made"]
    asked = await outbound.withdraw(tx, [f"offer:{offer_id}:offer" for offer_id in over])
    zones = await notices.zones_of(tx, {event.operation for event in events})
    messages: list[Message] = []
    for offer_id, seen in sorted(steps.items()):
        row, last = rows[offer_id], seen[-1]
        person = people.get(row["responder_id"])
        # Who was erased, or has another number since, is not written to about what was asked before.
        if person is None or row["contact"] != person.contact:
            continue
        if row["state"] == "made":
            template = None if offer_id in known else "offer"
        else:
            template = _said_of(row, last, f"offer:{offer_id}:offer" in asked)
        if template is not None:
            messages.append(notices.about_offer(row, person, template, zones, distance_km=last.distance_km))
    await outbound.enqueue(tx, messages)


def _said_of(offer: dict[str, Any], event: OfferState, asked: bool) -> str | None:
    """What somebody is told of the end of their offer; None: they know, or were never asked."""
    own = f"responder:{offer['responder_id']}"
    if offer["state"] == "accepted":
        # By message they wait for our word; by the app they had it; what a dispatcher decided they hear from us.
        return "offer_accepted" if offer["answered"] or event.by != own else None
    if offer["state"] == "declined":
        return "offer_declined" if offer["answered"] is False else None
    if offer["state"] == "withdrawn":
        return "offer_over" if offer["answered"] or (asked and offer["answered"] is None) else None
    if offer["state"] == "expired":
        return "offer_over" if offer["answered"] else None
    return None


def _row(event: OfferState, contact: str | None, taken: set[tuple[str, str]]) -> dict[str, Any]:
    attempt = 0
    while contact is not None and (contact, answers.code_of(event.offer_id, attempt)) in taken:
        attempt += 1
    code = answers.code_of(event.offer_id, attempt)
    if contact is not None:
        taken.add((contact, code))
    return {
        "offer_id": event.offer_id,
        "need_id": event.need_id,
        "responder_id": event.responder_id,
        "contact": contact,
        "code": code,
        "state": event.state,
        "item": event.item,
        "skill": event.skill,
        "quantity": event.quantity,
        "severity": event.severity,
        "window_start": event.window.start,
        "window_end": event.window.end,
        "expires_at": event.expires_at,
        "operation": event.operation,
        "exercise": event.exercise,
        "answered": None,
        "answered_at": None,
        "answered_by": None,
        "changed_at": event.meta.time,
    }


async def _open_codes(tx: Tx, contacts: Sequence[str]) -> set[tuple[str, str]]:
    rows = await tx.fetch("SELECT contact, code FROM offer WHERE contact = ANY($1) AND state = 'made'", contacts)
    return {(row["contact"], row["code"]) for row in rows}


async def _store(tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
    await tx.executemany(
        """
        INSERT INTO offer (offer_id, need_id, responder_id, contact, code, state, item, skill, quantity, severity,
                           window_start, window_end, expires_at, operation, exercise, changed_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        ON CONFLICT (offer_id) DO UPDATE SET state = excluded.state, quantity = excluded.quantity,
            expires_at = excluded.expires_at, changed_at = excluded.changed_at
        """,
        [
            (
                row["offer_id"], row["need_id"], row["responder_id"], row["contact"], row["code"], row["state"],
                row["item"], row["skill"], row["quantity"], row["severity"], row["window_start"], row["window_end"],
                row["expires_at"], row["operation"], row["exercise"], row["changed_at"],
            )
            for row in rows
        ],
    )  # fmt: skip


# Messages


@consumer.on(MessageReceived)
async def on_message_received(event: MessageReceived, tx: Tx) -> None:
    """Turn a clear yes or no into an answer to the one offer that it can mean; else ask back. STOP is kept."""
    if event.intent == "stop":
        await outbound.stop(tx, event.contact_id)
        return
    if event.resumed:
        await outbound.resume(tx, event.contact_id)
        return
    if event.intent not in ("yes", "no"):
        return
    accepted = event.intent == "yes"
    said_at = event.sent_at or event.received_at
    rows = await tx.fetch(
        "SELECT * FROM offer WHERE contact = $1 ORDER BY changed_at DESC, offer_id LIMIT $2 FOR UPDATE",
        event.contact_id,
        _KEPT_ANSWERS,
    )
    verdict = answers.judge(
        [answers.Asked(**{name: row[name] for name in answers.Asked.__dataclass_fields__}) for row in rows],
        accepted=accepted,
        quantity=event.quantity,
        codes=event.codes,
        said_at=said_at,
    )
    chosen = next((row for row in rows if verdict.offer and row["offer_id"] == verdict.offer.offer_id), None)
    if verdict.what == "ask":
        assert verdict.template is not None
        await _ask_back(tx, event, verdict, chosen)
    elif verdict.what == "answer":
        assert chosen is not None
        await tx.execute(
            "UPDATE offer SET answered = $2, answered_at = $3, answered_by = $4 WHERE offer_id = $1",
            chosen["offer_id"],
            accepted,
            said_at,
            event.message_id,
        )
        given = AnswerGiven(
            operation=chosen["operation"],
            exercise=chosen["exercise"],
            offer_id=chosen["offer_id"],
            need_id=chosen["need_id"],
            responder_id=chosen["responder_id"],
            accepted=accepted,
            quantity=event.quantity if accepted else None,
            channel=event.channel,
            message_id=event.message_id,
        )
        await outbox.append(tx, [given])


async def _ask_back(tx: Tx, event: MessageReceived, verdict: answers.Verdict, offer: Any) -> None:
    assert verdict.template is not None
    values: dict[str, Any] = {"codes": ", ".join(verdict.codes)}
    if offer is not None:
        zones = await notices.zones_of(tx, [offer["operation"]])
        people = await notices.addressees(tx, [offer["responder_id"]])
        person = people.get(offer["responder_id"])
        if person is not None:
            values |= notices.about_offer(offer, person, "offer", zones).values
    await notices.reply(tx, event, verdict.template, values, offer)


@consumer.on(ReceiptNoted)
async def on_receipt_noted(event: ReceiptNoted, tx: Tx) -> None:
    """Note what a provider said of a message of ours."""
    await notices.note_receipt(tx, event)


@consumer.on(ContactTold)
async def on_contact_told(event: ContactTold, tx: Tx) -> None:
    """Count intake's notices to a person with ours."""
    await outbound.note_elsewhere(tx, event.notice_id, event.contact_id, event.meta.time, urgent=event.urgent)


@consumer.on(ContactForgotten)
async def on_contact_forgotten(event: ContactForgotten, tx: Tx) -> None:
    """Let the last hash of an erased person's number go from the journal."""
    await erasure.forgotten(tx, event.erasure_id, event.meta.source.rpartition("/")[0] + "/registry")


# Work


@consumer.on_batch(AssignmentConfirmed)
async def on_assignments_confirmed(events: Sequence[AssignmentConfirmed], tx: Tx) -> None:
    """Let skills grow by work that was confirmed."""
    await growth.take_work(tx, events)
