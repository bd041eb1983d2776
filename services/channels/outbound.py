"""Messages on their way out: one row each in the `outbound` table of the service that sends, and the loop that sends.

A row is committed as `attempting` before the provider is called. What became of a call that nobody can tell (a crash,
a lost answer) is tried once more, marked as a possible double and under the same key; then no more. Receipts may be
lost, repeated or out of order: they only ever strengthen what is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import orjson

from services.channels import rules, templates
from services.channels.adapters import Adapter, Letter, NotNow, Refused, Unclear, adapter_for
from services.channels.settings import ChannelSettings
from services.runtime import clock, ids, vault
from services.runtime.db import Database, Row, Tx, wait_any

log = logging.getLogger(__name__)

Channel = Literal["sms", "whatsapp", "email", "webhook"]
Kind = Literal["notice", "reply", "code"]
"""`notice`: we write first, so night, the day's cap and STOP hold it back. `reply`: an answer to what they just wrote.
`code`: a confirmation code; the service that makes it limits how many."""

_AT_ONCE = 32
_POLL_S = 2.0
_LOCK = "SELECT pg_advisory_xact_lock(hashtext('gotong.outbound'), hashtext(current_schema()))"


@dataclass(frozen=True, slots=True)
class Message:
    """One message to be sent. `about`: what it is about; the same words again are the same message and send nothing.

    `to` (E.164, or a mail address) is sealed with the key of `contact`, its contact id. `urgent`: life is at risk, so
    neither the night nor the ordinary cap holds it back. `expires_at`: after that it is not worth sending.
    `reply_to`: the message of theirs that it answers. `zone`: where they are; None: as the settings say.
    """

    about: str
    contact: str
    to: str = field(repr=False)
    template: str
    values: Mapping[str, Any] = field(default_factory=dict)
    channel: Channel = "sms"
    language: str | None = None
    kind: Kind = "notice"
    urgent: bool = False
    expires_at: datetime | None = None
    operation: str | None = None
    exercise: bool = False
    reply_to: UUID | None = None
    zone: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a message: `sent`, `delivered`, `failed`, or `dropped` before any try. `reason`: why it failed.
    `doubled`: it may have reached them twice."""

    outbound_id: UUID
    about: str
    contact: str
    channel: Channel
    template: str
    kind: Kind
    state: Literal["sent", "delivered", "failed", "dropped"]
    doubled: bool
    reason: str | None
    operation: str | None
    exercise: bool
    reply_to: UUID | None
    urgent: bool


Tell = Callable[[Tx, Sequence[Change]], Awaitable[None]]
"""What a service does about changes, in the transaction that makes them: it appends its events."""


async def tell_nobody(tx: Tx, changes: Sequence[Change]) -> None:
    """For a service that has no event to say it with."""


async def enqueue(tx: Tx, messages: Sequence[Message]) -> dict[str, UUID]:
    """Write messages down to be sent; returns the new ones' ids by what they are about. Their texts are tried here, so
    that a missing value fails with who forgot it.

    A notice to somebody who said STOP is not written down.
    """
    fresh = {message.about: message for message in reversed(messages)}
    for message in fresh.values():
        templates.render(message.template, message.language, message.values)
    silent = await _stopped(tx, [message.contact for message in fresh.values() if message.kind == "notice"])
    rows = [m for m in reversed(fresh.values()) if not (m.kind == "notice" and m.contact in silent)]
    if not rows:
        return {}
    keys = await vault.keys(tx, [message.contact for message in rows])
    now = clock.now()
    made = await tx.fetch(
        """
        INSERT INTO outbound (outbound_id, about, contact, channel, template, kind, language, sealed, urgent, zone,
                              expires_at, operation, exercise, reply_to, state, due_at, made_at)
        SELECT outbound_id, about, contact, channel, template, kind, language, sealed, urgent, zone, expires_at,
               operation, exercise, reply_to, 'waiting', $15, $15
        FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bytea[],
                    $9::boolean[], $10::text[], $11::timestamptz[], $12::text[], $13::boolean[], $14::uuid[])
            WITH ORDINALITY AS t(outbound_id, about, contact, channel, template, kind, language, sealed, urgent, zone,
                                 expires_at, operation, exercise, reply_to, nth)
        ORDER BY nth ON CONFLICT (about) DO NOTHING RETURNING about, outbound_id
        """,
        [ids.uuid7() for _ in rows],
        [m.about for m in rows],
        [m.contact for m in rows],
        [m.channel for m in rows],
        [m.template for m in rows],
        [m.kind for m in rows],
        [templates.language_of(m.language) for m in rows],
        [vault.seal_with(keys[m.contact], m.contact, _sealed(m)) for m in rows],
        [m.urgent for m in rows],
        [m.zone for m in rows],
        [m.expires_at for m in rows],
        [m.operation for m in rows],
        [m.exercise for m in rows],
        [m.reply_to for m in rows],
        now,
    )
    if made:
        await tx.notify(await _channel(tx))
    return {row["about"]: row["outbound_id"] for row in made}


def _sealed(message: Message) -> bytes:
    values = {name: str(value) for name, value in message.values.items()}
    return orjson.dumps({"to": message.to, "values": values})


async def withdraw(tx: Tx, abouts: Sequence[str]) -> set[str]:
    """Take back what was not tried yet; returns which of these have reached their reader, for all we know."""
    await tx.execute(
        "UPDATE outbound SET state = 'dropped', reason = 'withdrawn', ended_at = $2 "
        "WHERE about = ANY($1) AND state = 'waiting' AND tries = 0",
        list(abouts),
        clock.now(),
    )
    rows = await tx.fetch(
        "SELECT about FROM outbound WHERE about = ANY($1) AND state <> 'dropped' AND (state <> 'failed' OR doubled)",
        list(abouts),
    )
    return {row["about"] for row in rows}


async def stop(tx: Tx, contact: str) -> None:
    """Write to this contact only in answer to what they write, until `resume`."""
    await tx.execute(
        "INSERT INTO outbound_stop (contact, at) VALUES ($1, $2) ON CONFLICT DO NOTHING", contact, clock.now()
    )
    await tx.execute(
        "UPDATE outbound SET state = 'dropped', reason = 'stop', ended_at = $2 "
        "WHERE contact = $1 AND kind = 'notice' AND state = 'waiting'",
        contact,
        clock.now(),
    )


async def resume(tx: Tx, contact: str) -> bool:
    """Write to this contact again; whether it had been stopped."""
    return await tx.execute("DELETE FROM outbound_stop WHERE contact = $1", contact) != "DELETE 0"


async def _stopped(tx: Tx, contacts: Sequence[str]) -> set[str]:
    if not contacts:
        return set()
    rows = await tx.fetch("SELECT contact FROM outbound_stop WHERE contact = ANY($1)", list(set(contacts)))
    return {row["contact"] for row in rows}


async def forget(tx: Tx, contact: str) -> None:
    """Take away what is kept of messages to a person who is erased. Their key goes with the vault."""
    await tx.execute("DELETE FROM outbound_elsewhere WHERE contact = $1", contact)
    await tx.execute("DELETE FROM outbound WHERE contact = $1", contact)
    await tx.execute("DELETE FROM outbound_stop WHERE contact = $1", contact)


async def note_elsewhere(tx: Tx, notice_id: UUID, contact: str, at: datetime, *, urgent: bool) -> None:
    """Count a notice that another service has sent to this contact: the day's cap is one for both."""
    await tx.execute(
        "INSERT INTO outbound_elsewhere (notice_id, contact, urgent, at) VALUES ($1, $2, $3, $4) "
        "ON CONFLICT DO NOTHING",
        notice_id,
        contact,
        urgent,
        at,
    )
    await tx.execute("DELETE FROM outbound_elsewhere WHERE contact = $1 AND at < $2", contact, at - timedelta(days=2))


# Receipts


@dataclass(frozen=True, slots=True)
class Receipt:
    """A provider's word on a message: by our `key`, where it gives that back, else by its own id."""

    said: rules.Said
    key: UUID | None = None
    provider_id: str | None = None
    reason: str | None = None


async def take_receipt(tx: Tx, receipt: Receipt, tell: Tell = tell_nobody) -> UUID | None:
    """Note a receipt; returns which message of this service it is about, None if it is about none of them."""
    row = await tx.fetchrow(
        "SELECT * FROM outbound WHERE outbound_id = $1 OR ($1::uuid IS NULL AND provider_id = $2) "
        "ORDER BY made_at DESC LIMIT 1 FOR UPDATE",
        receipt.key,
        receipt.provider_id or None,
    )
    if row is None:
        return None
    after = rules.after_receipt(row["state"], receipt.said)
    if after is not None:
        reason = receipt.reason if after == "failed" else None
        changed = await tx.fetchrow(
            "UPDATE outbound SET state = $2, reason = $3, provider_id = coalesce(provider_id, $4), "
            "sent_at = CASE WHEN $2 = 'failed' THEN sent_at ELSE coalesce(sent_at, $5::timestamptz) END, "
            "ended_at = CASE WHEN $2 = 'sent' THEN NULL ELSE $5::timestamptz END WHERE outbound_id = $1 RETURNING *",
            row["outbound_id"],
            after,
            reason,
            receipt.provider_id,
            clock.now(),
        )
        assert changed is not None
        await tell(tx, [_change(changed)])
    outbound_id: UUID = row["outbound_id"]
    return outbound_id


def _change(row: Row) -> Change:
    return Change(**{name: row[name] for name in Change.__dataclass_fields__})


# Sending


async def run(db: Database, stopping: asyncio.Event, tell: Tell = tell_nobody) -> None:
    """Send what is due until told to stop. What is in hand then is finished, as far as its time limit allows."""
    settings = ChannelSettings()
    wake = asyncio.Event()
    async with db.tx() as tx:
        channel = await _channel(tx)
    listener = await db.listen([channel], wake)
    try:
        async with httpx.AsyncClient(timeout=settings.timeout_seconds, trust_env=False) as client:
            sender = Sender(db, settings, client, tell)
            while not stopping.is_set():
                wake.clear()
                if not await sender.round():
                    await wait_any(wake, stopping, timeout_s=_POLL_S)
                if listener.is_closed():
                    raise ConnectionError("the listening connection has ended")
    finally:
        if not listener.is_closed():
            await listener.close()


async def _channel(tx: Tx) -> str:
    return f"outbound_{await tx.fetchval('SELECT current_schema()')}"


class Sender:
    """Sends what is due, a round at a time."""

    def __init__(self, db: Database, settings: ChannelSettings, client: httpx.AsyncClient, tell: Tell) -> None:
        self.db = db
        self.settings = settings
        self.tell = tell
        self._client = client
        self._adapters: dict[str, Adapter] = {}

    async def round(self, limit: int = _AT_ONCE) -> int:
        """Claim, call, note; returns how many rows were looked at. What is claimed is called at once: nothing stands
        as attempted that is not."""
        letters, seen = await self._claim(limit)

        async def called(claim: _Claim) -> tuple[_Claim, _Outcome]:
            return claim, await self._call(claim.letter)

        waiting = {asyncio.ensure_future(called(claim)) for claim in letters}
        while waiting:
            # Those that have their answer are noted at once: a slow one must not make doubles of them.
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            await self._note([task.result() for task in done])
        return seen

    async def _call(self, letter: Letter) -> _Outcome:
        try:
            # The time-outs of HTTP are for each of its steps; an attempt must end before it counts as crashed.
            async with asyncio.timeout(self.settings.lease_seconds * 2 / 3):
                return _Outcome("sent", provider_id=await self._adapter(letter.channel).send(letter))
        except Refused as error:
            return _Outcome("failed", reason=str(error))
        except NotNow as error:
            return _Outcome("again", reason=str(error), after_s=error.after_s)
        except Unclear as error:
            return _Outcome("unclear", reason=str(error))
        except TimeoutError:
            return _Outcome("unclear", reason="no answer in time")

    def _adapter(self, channel: str) -> Adapter:
        if channel not in self._adapters:
            name = getattr(self.settings, channel)
            self._adapters[channel] = adapter_for(name, self.db.schema, self._client, self.settings)
        return self._adapters[channel]

    async def _claim(self, limit: int) -> tuple[list[_Claim], int]:
        """Choose what goes out now and write down that it is tried, before it is. Returns how many rows were due."""
        now = clock.now()
        async with self.db.tx() as tx:
            await tx.execute(_LOCK)  # the day's cap is counted by one at a time
            rows = await tx.fetch(
                "SELECT * FROM outbound WHERE state = 'waiting' AND due_at <= $1 ORDER BY urgent DESC, due_at, seq "
                "LIMIT $2 FOR UPDATE SKIP LOCKED",
                now,
                limit,
            )
            rows += await tx.fetch(
                "SELECT * FROM outbound WHERE state = 'attempting' AND attempted_at <= $1 ORDER BY seq "
                "LIMIT $2 FOR UPDATE SKIP LOCKED",
                now - timedelta(seconds=self.settings.lease_seconds),
                limit,
            )
            if not rows:
                return [], 0
            counted = await self._sent_today(tx, rows, now)
            opened = await _unsealed(tx, rows)
            claims: list[_Claim] = []
            ended: list[tuple[UUID, str, str]] = []
            later: list[tuple[UUID, datetime, bool]] = []
            for row in rows:
                verdict = self._verdict(row, opened.get(row["outbound_id"]), counted, now)
                if isinstance(verdict, datetime):
                    later.append((row["outbound_id"], verdict, row["state"] == "attempting"))
                elif isinstance(verdict, str):
                    # What was never tried is dropped; what was may have arrived, so it failed for all we know.
                    ended.append((row["outbound_id"], "failed" if row["tries"] else "dropped", verdict))
                else:
                    claims.append(verdict)
            await tx.executemany(
                "UPDATE outbound SET state = 'waiting', due_at = $2, doubled = doubled OR $3 WHERE outbound_id = $1",
                later,
            )
            await self._end(tx, ended, now)
            await tx.executemany(
                "UPDATE outbound SET state = 'attempting', tries = tries + 1, attempted_at = $2, doubled = $3, "
                "first_tried_at = coalesce(first_tried_at, $2) WHERE outbound_id = $1",
                [(claim.letter.key, now, claim.doubled) for claim in claims],
            )
        return claims, len(rows)

    def _verdict(
        self, row: Row, opened: dict[str, Any] | None, counted: dict[tuple[str, bool], int], now: datetime
    ) -> _Claim | str | datetime:
        """What to do with a row that is due: send it, end it for a reason, or wait until then."""
        s = self.settings
        crashed = row["state"] == "attempting"
        if opened is None:
            return "erased"
        if crashed and row["doubled"]:
            return "unclear twice"
        if row["expires_at"] is not None and row["expires_at"] <= now:
            return "expired"
        if row["kind"] == "notice":
            zone = ZoneInfo(row["zone"] or s.zone)
            if not row["urgent"]:
                until = rules.quiet_until(now, zone, s.quiet_from, s.quiet_until)
                if until is not None:
                    return until
            person = (row["contact"], row["urgent"])
            if not row["tries"]:  # a further try of one that was counted counts once
                if counted.get(person, 0) >= (s.urgent_day_cap if row["urgent"] else s.day_cap):
                    return "cap of the day"
                counted[person] = counted.get(person, 0) + 1
        doubled = row["doubled"] or crashed
        text = templates.render(
            row["template"], row["language"], opened["values"], exercise=row["exercise"], doubled=doubled
        )
        letter = Letter(
            row["outbound_id"], row["channel"], opened["to"], text, row["contact"], row["template"], row["language"],
            first=row["kind"] != "reply",
            parts=templates.parts(
                row["template"], row["language"], opened["values"], exercise=row["exercise"], doubled=doubled
            ),
        )  # fmt: skip
        return _Claim(letter, row["tries"] + 1, doubled)

    async def _sent_today(self, tx: Tx, rows: Sequence[Row], now: datetime) -> dict[tuple[str, bool], int]:
        """How many notices each of these people were sent since their midnight, by this service or another."""
        since = {
            row["contact"]: rules.day_begins(now, ZoneInfo(row["zone"] or self.settings.zone))
            for row in rows
            if row["kind"] == "notice"
        }
        if not since:
            return {}
        counts = await tx.fetch(
            "SELECT contact, urgent, count(*) AS n FROM ("
            "SELECT contact, urgent, first_tried_at AS at FROM outbound WHERE kind = 'notice' "
            "UNION ALL SELECT contact, urgent, at FROM outbound_elsewhere) AS sent "
            "JOIN unnest($1::text[], $2::timestamptz[]) AS t(contact, since) USING (contact) WHERE at >= since "
            "GROUP BY contact, urgent",
            list(since),
            list(since.values()),
        )
        return {(row["contact"], row["urgent"]): row["n"] for row in counts}

    async def _end(self, tx: Tx, ended: Sequence[tuple[UUID, str, str]], now: datetime) -> None:
        if not ended:
            return
        rows = await tx.fetch(
            "UPDATE outbound SET state = t.state, reason = t.reason, ended_at = $4 "
            "FROM unnest($1::uuid[], $2::text[], $3::text[]) AS t(outbound_id, state, reason) "
            "WHERE outbound.outbound_id = t.outbound_id "
            f"RETURNING {', '.join(f'outbound.{name}' for name in Change.__dataclass_fields__)}",
            [outbound_id for outbound_id, _, _ in ended],
            [state for _, state, _ in ended],
            [reason for _, _, reason in ended],
            now,
        )
        await self.tell(tx, [_change(row) for row in rows])

    async def _note(self, results: Sequence[tuple[_Claim, _Outcome]]) -> None:
        """Write down what became of these calls, unless a receipt or another worker has done so meanwhile."""
        now = clock.now()
        made = {claim.letter.key: (claim, outcome) for claim, outcome in results}
        async with self.db.tx() as tx:
            rows = await tx.fetch(
                "SELECT * FROM outbound WHERE outbound_id = ANY($1) ORDER BY outbound_id FOR UPDATE", list(made)
            )
            settled: list[tuple[Any, ...]] = []
            for row in rows:
                claim, outcome = made[row["outbound_id"]]
                mine = row["state"] == "attempting" and row["tries"] == claim.tries
                known = row["state"], row["reason"], row["due_at"], row["doubled"]
                after = self._settled(row, outcome, now) if mine else known
                settled.append((row["outbound_id"], *after, outcome.provider_id or None, mine))
            changed = await tx.fetch(
                f"""
                UPDATE outbound SET state = t.state, reason = t.reason, due_at = t.due_at, doubled = t.doubled,
                       provider_id = CASE WHEN mine THEN coalesce(t.provider_id, outbound.provider_id)
                                          ELSE coalesce(outbound.provider_id, t.provider_id) END,
                       sent_at = CASE WHEN mine AND t.state = 'sent' THEN $8 ELSE sent_at END,
                       ended_at = CASE WHEN mine AND t.state = 'failed' THEN $8 ELSE ended_at END
                FROM unnest($1::uuid[], $2::text[], $3::text[], $4::timestamptz[], $5::boolean[], $6::text[],
                            $7::boolean[]) AS t(outbound_id, state, reason, due_at, doubled, provider_id, mine)
                WHERE outbound.outbound_id = t.outbound_id
                RETURNING {", ".join(f"outbound.{name}" for name in Change.__dataclass_fields__)}, mine
                """,
                *([row[n] for row in settled] for n in range(7)),
                now,
            )
            ends = [row for row in changed if row["mine"] and row["state"] in ("sent", "failed")]
            for row in ends:
                if row["state"] == "failed":
                    log.warning("message %s failed: %s", row["outbound_id"], row["reason"])
            await self.tell(tx, [_change(row) for row in ends])

    def _settled(self, row: Row, outcome: _Outcome, now: datetime) -> tuple[str, str | None, datetime, bool]:
        """State, reason, when it is due, and whether it may reach them twice, after a call."""
        if outcome.what == "sent":
            return "sent", None, now, row["doubled"]
        if outcome.what == "failed" or row["tries"] >= self.settings.tries:
            return "failed", outcome.reason, now, row["doubled"]
        if outcome.what == "unclear" and row["doubled"]:
            return "failed", f"unclear twice: {outcome.reason}", now, True
        wait = rules.pause(row["tries"])
        if outcome.after_s is not None:
            wait = max(wait, timedelta(seconds=min(outcome.after_s, 3600)))
        return "waiting", outcome.reason, now + wait, row["doubled"] or outcome.what == "unclear"


@dataclass(frozen=True, slots=True)
class _Claim:
    letter: Letter
    tries: int
    doubled: bool


@dataclass(frozen=True, slots=True)
class _Outcome:
    what: Literal["sent", "failed", "again", "unclear"]
    provider_id: str | None = None
    reason: str | None = None
    after_s: float | None = None


async def _unsealed(tx: Tx, rows: Sequence[Row]) -> dict[UUID, dict[str, Any]]:
    """Address and values of these messages; none for those whose person was erased."""
    values = await vault.unseal_all(tx, [(row["contact"], row["sealed"]) for row in rows])
    return {
        row["outbound_id"]: orjson.loads(value) for row, value in zip(rows, values, strict=True) if value is not None
    }
