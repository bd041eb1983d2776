"""Talking with people who write to us: what a text is for, what it changes, and what is said back.

Only what a text says without doubt changes anything; the rest asks back. A report is always taken, with or without a
place, and its sender's next messages are read for where it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import yaml

from schemas.messages import MessageReceived, MessageReplied
from services.channels import outbound, templates
from services.channels.outbound import Message
from services.intake import domain
from services.intake.actions import as_dict, mask, take_reports
from services.intake.bodies import PlaceIn
from services.intake.inbound import Inbound, Reply, draft_of_message
from services.intake.intents import IntentReading, intent_of
from services.intake.media_writes import name_report
from services.intake.need_writes import Delivered, confirm
from services.intake.needs_text import NeedsReading, reader
from services.intake.phrases import Phrases, data, tokens
from services.intake.places import Found, find_area
from services.intake.placing import place_report
from services.intake.settings import IntakeSettings
from services.intake.tickets import by_ticket, ticket_told, to_confirm
from services.intake.triage import facts_of, triage
from services.runtime import clock, ids, outbox, vault
from services.runtime.db import Row, Tx
from services.runtime.problems import Conflict, NotFound

ANSWERS_WITHIN = timedelta(hours=2)
"""So long the next message may say where a report is, and a position sent first waits for its report."""
_OWN_REPORTS = timedelta(days=30)
_MOST_TICKETS = 3
_MOST_UNCLEAR = 3
"""So often in an hour somebody is asked what they mean; a machine that answers machines would go on for ever."""
_FEW_WORDS = 4
_SHORT = 12
"""A longer text is no place name."""
_START = frozenset({"mulai", "start", "unstop", "lanjut", "aktifkan"})
_SAID_WHERE = re.compile(r"\b(?:di|in|at|daerah|lokasi|wilayah|near|dekat)\s+([^,;!?\n]{3,80})", re.IGNORECASE)
_ENGLISH = frozenset(
    {"the", "is", "are", "we", "need", "my", "please", "help", "water", "yes", "no", "have", "has", "our", "you", "not"}
    | {"received", "i", "am", "can", "will", "there", "and", "with", "where", "people", "house", "boat"}
    | {"for", "looking", "last", "seen", "in", "was", "this", "to", "from", "on", "of", "at", "he", "she", "they", "it"}
)


# Rules: the same text, the same reading


def in_danger(reading: NeedsReading) -> bool:
    """Whether somebody's life is at risk now by these words: they get the emergency numbers at once."""
    return triage(facts_of(reading)).severity == 4


@cache
def _family() -> Phrases:
    words = data("family_words.yaml")
    return Phrases({"asks": words["asks"], "rescue": words["rescue"]}, {"kin": words["kin"]})


def asks_for_family(text: str) -> bool:
    """Whether a text asks for a missing relative, and is no call for rescue."""
    found = {hit.name for hit in _family().find(tokens(text))}
    return "asks" in found and "rescue" not in found


def language_of(text: str | None, known: str | None) -> str:
    """The language in which somebody is answered: what the channel knows, else that of most words that tell it."""
    if known:
        return templates.language_of(known)
    words = re.findall(r"[a-z']+", (text or "").lower())
    return "en" if words and sum(word in _ENGLISH for word in words) * 3 >= len(words) else "id"


def place_said(text: str) -> Found | None:
    """The regency or city that a report names after `di` or `in`, spelt as it is; None: it has to be asked for."""
    for found in _SAID_WHERE.finditer(text[:2000]):
        words = found[1].split()
        for length in range(min(len(words), 6), 0, -1):
            area = find_area(" ".join(words[:length]))
            if area is not None and area.exact and area.level >= 2:
                return area
    return None


@cache
def _numbers(path: Path | None) -> Mapping[str, tuple[str, ...]]:
    said = data("emergency.yaml") if path is None else yaml.safe_load(path.read_text("utf-8"))
    return {str(area): tuple(str(number) for number in numbers) for area, numbers in said.items()}


def emergency_numbers(admin: str | None) -> str:
    """Whom to call in this area, as it is said: `112, 115, 119`."""
    known = _numbers(IntakeSettings().emergency_file)
    fits = [area for area in known if admin and (admin == area or admin.startswith(area + "."))]
    return ", ".join(known[max(fits, key=len) if fits else "default"])


# What comes of one message


@dataclass(slots=True)
class _Turn:
    """One message in hand, with what is to be said back."""

    inbound: Inbound
    contact: str
    message_id: UUID
    language: str
    read: IntentReading
    reading: NeedsReading
    said: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    report_id: UUID | None = None
    resumed: bool = False

    def say(self, template: str, **values: Any) -> None:
        self.said.append((template, values))

    @property
    def text(self) -> str:
        return self.inbound.text or ""

    @property
    def at(self) -> datetime:
        return self.inbound.sent_at or self.inbound.received_at


async def take_inbound(tx: Tx, inbound: Inbound) -> list[Reply]:
    """Do what a message asks for, once; whoever calls has claimed its id in this transaction.

    Returns what its provider's own answer is to carry. WhatsApp's carries nothing: its replies are written down here.
    """
    contact = vault.contact_id(inbound.address)
    message_id = ids.derived("message", inbound.provider, inbound.provider_id)
    talk = await _conversation(tx, inbound, contact)
    reading = reader().read(inbound.text or "")
    read = intent_of(inbound.text or "", reading)
    # Two words tell no language: `STOP` is answered in the one that was spoken before.
    spoken = talk["language"] if len((inbound.text or "").split()) < _FEW_WORDS else None
    language = language_of(inbound.text, inbound.language or spoken)
    turn = _Turn(inbound, contact, message_id, language, read, reading)
    await _answer(tx, turn, talk)
    await tx.execute("UPDATE conversation SET language = $2 WHERE contact = $1", contact, language)
    await tx.execute(
        "INSERT INTO inbound_message (message_id, contact, channel, intent, report_id, templates, received_at) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7)",
        message_id,
        contact,
        inbound.channel,
        read.intent,
        turn.report_id,
        [template for template, _ in turn.said],
        inbound.received_at,
    )
    told: list[MessageReceived | MessageReplied] = [
        MessageReceived(
            contact_id=contact,
            message_id=message_id,
            channel=inbound.channel,
            intent=read.intent,
            quantity=read.quantity,
            codes=read.codes[:5],
            language=language,
            resumed=turn.resumed,
            received_at=inbound.received_at,
            sent_at=inbound.sent_at,
        )
    ]
    if turn.said:
        told.append(
            MessageReplied(
                contact_id=contact,
                message_id=message_id,
                channel=inbound.channel,
                templates=tuple(template for template, _ in turn.said),
            )
        )
    await outbox.append(tx, told)
    if inbound.provider != "whatsapp":
        return [Reply(templates.render(template, language, values)) for template, values in turn.said]
    await outbound.enqueue(
        tx,
        [
            Message(
                about=f"reply:{message_id}:{n}",
                contact=contact,
                to=inbound.address,
                template=template,
                values=values,
                channel=inbound.channel,
                language=language,
                kind="reply",
                reply_to=message_id,
            )
            for n, (template, values) in enumerate(turn.said)
        ],
    )
    return []


async def _conversation(tx: Tx, inbound: Inbound, contact: str) -> Row:
    """The contact's row, locked: two messages of one person are taken one after the other."""
    row = await tx.fetchrow(
        """
        INSERT INTO conversation AS c (contact, channel, language, sealed, written_at) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (contact) DO UPDATE SET channel = excluded.channel, sealed = excluded.sealed,
            written_at = greatest(c.written_at, excluded.written_at)
        RETURNING *
        """,
        contact,
        inbound.channel,
        inbound.language,
        await vault.seal(tx, contact, inbound.address.encode()),
        inbound.received_at,
    )
    assert row is not None
    return row


async def _answer(tx: Tx, turn: _Turn, talk: Row) -> None:
    inbound, intent = turn.inbound, turn.read.intent
    if intent == "stop":
        await outbound.stop(tx, turn.contact)
        turn.say("stopped")
        return
    if turn.text.strip().lower().strip(".!") in _START:
        await outbound.resume(tx, turn.contact)
        turn.resumed = True
        turn.say("started")
        return
    danger = in_danger(turn.reading)
    if turn.text and not inbound.media and asks_for_family(turn.text):
        await _family_link(tx, turn)
        return
    if not turn.text and not inbound.media:
        await _pin(tx, turn)
        return
    asked = await _asked(tx, turn)
    if asked and intent in ("unsure", "report"):
        filled = await _fill(tx, turn, asked)
        if filled and intent == "unsure" and not danger and not inbound.media:
            return
    if danger or inbound.media or intent == "report" or (inbound.lon is not None and turn.text):
        await _report(tx, turn, talk, danger)
    elif intent == "status":
        await _status(tx, turn)
    elif intent in ("received", "not_received"):
        await _receipt(tx, turn)
    elif intent == "unsure" and asked and _maybe_place(turn.text):
        turn.say("ask_place_again")
        await _keep_words(tx, turn, asked)
    elif intent == "unsure":
        await _unclear(tx, turn, talk)
    # A yes or a no is the registry's: it knows what was asked, and answers, or says that it cannot.


# Reports and where they are


async def _report(tx: Tx, turn: _Turn, talk: Row, danger: bool) -> None:
    draft = draft_of_message(turn.inbound)
    assert draft is not None
    where = draft.report.location or PlaceIn()
    if not where.placed:
        area = (find_area(where.place) if where.place else None) or place_said(turn.text)
        if area is not None:
            where = where.model_copy(update={"admin": area.code})
        elif _fresh(talk["pin_at"], turn.at):
            where = where.model_copy(
                update={"lon": talk["pin_lon"], "lat": talk["pin_lat"], "place": where.place or talk["pin_place"]}
            )
            await tx.execute("UPDATE conversation SET pin_at = NULL WHERE contact = $1", turn.contact)
        if where.placed:
            draft = replace(draft, report=draft.report.model_copy(update={"location": where}))
    (taken,) = await take_reports(tx, [draft])
    point = await name_report(tx, turn.inbound.media, taken.report_id)
    if point is not None and taken.needs_place:
        await place_report(
            tx, taken.report_id, lon=point[0], lat=point[1], by="system:intake", reason="position in the photograph"
        )
    ask = taken.needs_place and point is None
    turn.report_id = taken.report_id
    await tx.execute(
        "INSERT INTO followed (report_id, contact, asked_at, checked_at) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT DO NOTHING",
        taken.report_id,
        turn.contact,
        turn.at if ask else None,
        clock.now(),
    )
    if danger:
        turn.say("emergency", numbers=emergency_numbers(where.admin))
    if not turn.text:
        turn.say("media_taken", ticket=taken.ticket)
    else:
        turn.say("taken_ask_place" if ask else "taken", ticket=taken.ticket)


def _fresh(at: datetime | None, now: datetime) -> bool:
    return at is not None and abs(now - at) <= ANSWERS_WITHIN


async def _asked(tx: Tx, turn: _Turn) -> list[Row]:
    """The contact's reports of which the place was asked within two hours, newest first."""
    return await tx.fetch(
        "SELECT f.report_id, r.ticket FROM followed f JOIN report r USING (report_id) "
        "WHERE f.contact = $1 AND f.asked_at BETWEEN $2 AND $3 AND r.lon IS NULL AND r.admin IS NULL "
        "ORDER BY f.asked_at DESC, r.seq DESC LIMIT 10",
        turn.contact,
        turn.at - ANSWERS_WITHIN,
        turn.at + ANSWERS_WITHIN,  # their provider's clock, and messages that overtake one another
    )


async def _fill(tx: Tx, turn: _Turn, asked: Sequence[Row]) -> bool:
    """Give the reports that were asked about the place that this message says; whether it says one."""
    inbound = turn.inbound
    where: dict[str, Any] = {}
    if inbound.lon is not None:
        where = {"lon": inbound.lon, "lat": inbound.lat}
    else:
        text = inbound.place or turn.text
        area = find_area(text) if _maybe_place(text) else place_said(text)
        if area is None or area.level < 2:
            return False
        where = {"admin": area.code}
    words = inbound.place or (turn.text if _maybe_place(turn.text) else None)
    place = mask(words[:500], None)[0] if words else None
    for row in asked:
        await place_report(
            tx, row["report_id"], **where, place=place, by="system:intake", reason="said by its sender when asked"
        )
    await tx.execute(
        "UPDATE followed SET asked_at = NULL WHERE report_id = ANY($1)", [row["report_id"] for row in asked]
    )
    turn.report_id = asked[0]["report_id"]
    turn.say("placed", ticket=asked[0]["ticket"])
    return True


def _maybe_place(text: str) -> bool:
    return 0 < len(text.split()) <= _SHORT and "?" not in text


async def _keep_words(tx: Tx, turn: _Turn, asked: Sequence[Row]) -> None:
    """Keep a place name that the gazetteer does not know with the report, for the operator who places it by hand."""
    await place_report(
        tx,
        asked[0]["report_id"],
        place=mask(turn.text[:500], None)[0],
        by="system:intake",
        reason="said by its sender when asked; not found in the gazetteer",
    )


async def _pin(tx: Tx, turn: _Turn) -> None:
    """A position by itself: where a report is that was asked about, or is still to come."""
    if turn.inbound.lon is None:
        return  # neither words, media nor a position: a reaction, a sticker
    asked = await _asked(tx, turn)
    if asked:
        await _fill(tx, turn, asked)
        return
    place = turn.inbound.place
    await tx.execute(
        "UPDATE conversation SET pin_lon = $2, pin_lat = $3, pin_place = $4, pin_at = $5 WHERE contact = $1",
        turn.contact,
        turn.inbound.lon,
        turn.inbound.lat,
        mask(place, None)[0] if place else None,
        turn.at,
    )
    turn.say("ask_what")


# Tickets


async def _own(tx: Tx, turn: _Turn) -> list[dict[str, Any]]:
    """The reports that a message speaks of: those whose tickets it names, else the sender's own, newest first."""
    named = [ticket for code in turn.read.codes if (ticket := domain.read_ticket(code))]
    found = []
    for ticket in dict.fromkeys(named):
        try:
            found.append(await by_ticket(tx, ticket))
        except NotFound:
            continue
    if named:
        return found
    rows = await tx.fetch(
        "SELECT r.* FROM followed f JOIN report r USING (report_id) "
        "WHERE f.contact = $1 AND r.received_at > $2 ORDER BY r.seq DESC LIMIT 20",
        turn.contact,
        clock.now() - _OWN_REPORTS,
    )
    return [as_dict(row) for row in rows]


async def _status(tx: Tx, turn: _Turn) -> None:
    reports = await _own(tx, turn)
    if not reports:
        turn.say("no_ticket")
    for report in reports[:_MOST_TICKETS]:
        told = await ticket_told(tx, report, turn.language)
        turn.say("status", ticket=report["ticket"], status=told["history"][-1]["text"])


async def _receipt(tx: Tx, turn: _Turn) -> None:
    """Take a "received" or "not received" where it can be about one delivery only."""
    reports = await _own(tx, turn)
    if not reports:
        turn.say("no_ticket")
        return
    deliveries: dict[tuple[UUID, ...], tuple[dict[str, Any], Sequence[Delivered]]] = {}
    for report in reports:
        try:
            found = await to_confirm(tx, report, None)
        except (NotFound, Conflict):
            continue
        # Two reports of one incident speak of the same delivery.
        deliveries.setdefault(tuple(one.need_id for one in found), (report, found))
    if not deliveries:
        turn.say("nothing_delivered", ticket=reports[0]["ticket"])
        return
    if len(deliveries) > 1:
        turn.say("which_ticket", tickets=", ".join(report["ticket"] for report, _ in deliveries.values()))
        return
    ((report, found),) = deliveries.values()
    came = turn.read.intent == "received"
    try:
        await confirm(
            tx,
            found,
            received="yes" if came else "no",
            quantity=turn.read.quantity if came else None,
            by=f"ticket:{report['report_id']}",
            reason="by message",
        )
    except Conflict:  # more than was delivered, or a number that could be of several needs: nothing is taken
        turn.say("not_understood")
        return
    turn.say("receipt_yes" if came else "receipt_no", ticket=report["ticket"])


async def _unclear(tx: Tx, turn: _Turn, talk: Row) -> None:
    recent = talk["unclear_at"] is not None and turn.inbound.received_at - talk["unclear_at"] < timedelta(hours=1)
    times = talk["unclear"] if recent else 0
    if times < _MOST_UNCLEAR:
        turn.say("not_understood")
    await tx.execute(
        "UPDATE conversation SET unclear = $2, unclear_at = $3 WHERE contact = $1",
        turn.contact,
        times + 1,
        talk["unclear_at"] if recent else turn.inbound.received_at,
    )


# Family links


async def _family_link(tx: Tx, turn: _Turn) -> None:
    link_id = ids.derived("family link", str(turn.message_id))
    code = domain.ticket_of(link_id.bytes[:8])
    private = {"text": turn.text, "address": turn.inbound.address, "channel": turn.inbound.channel}
    await tx.execute(
        "INSERT INTO family_link (link_id, code, contact, sealed, made_at) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT DO NOTHING",
        link_id,
        code,
        turn.contact,
        await vault.seal(tx, turn.contact, orjson.dumps(private)),
        turn.inbound.received_at,
    )
    turn.say("family", ticket=code)
