"""Writes of warnings: a CAP message taken in, its chain put together anew, what changed told, readiness drafted.

All of it happens under one lock: warnings are few, and a message may join chains that others are just changing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from shapely.geometry import Polygon

from schemas.event import Event
from schemas.warnings import WarningCancelled, WarningExpired, WarningIssued, WarningState, WarningUpdated
from services.intake import cap, warnings
from services.intake.actions import operations
from services.intake.cap import Alert, Info, Irregularity, Point
from services.intake.cap_signature import Signature
from services.intake.domain import json_cut
from services.intake.need_writes import draft_readiness, prolong_readiness, withdraw_readiness
from services.intake.warnings import Chain, Key, Message, Shape
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.ids import derived

BY = "rule:warnings"
_TEXTS = 4
_KEPT_STATUS = {"System": "a message of a network to itself", "Draft": "a draft, which is not to be acted on"}
_KEPT_TYPE = {"Ack": "an acknowledgement", "Error": "a report of an error"}


@dataclass(frozen=True, slots=True)
class Sender:
    """Who brought a message. `trusted`: a feed that was chosen, or an operator, who may also speak for others."""

    origin: str
    trusted: bool
    by: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a message. `warning_id` None: it was kept but is no warning, `kept_for` says why."""

    message_id: UUID
    warning_id: UUID | None
    state: str | None
    repeated: bool
    kept_for: str | None
    irregularities: tuple[Irregularity, ...]
    signature: str
    signed_by: str | None
    trusted: bool


def id_of(key: Key) -> UUID:
    """The id of a message, and of the warning that begins with it."""
    return derived("warning", *key)


async def lock(tx: Tx) -> None:
    """Hold the lock of warnings until the transaction ends."""
    await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.warnings'))")


def kept_for(alert: Alert) -> str | None:
    """Why a message is no warning to be passed on; None where it is one."""
    if alert.scope != "Public":
        return f"its scope is {alert.scope}: it is kept and not passed on"
    return _KEPT_STATUS.get(alert.status) or _KEPT_TYPE.get(alert.msg_type)


async def take(
    tx: Tx, reading: cap.Reading, signature: Signature, sender: Sender, *, operation: str | None = None
) -> Taken:
    """Take a message in, once; what is known already changes nothing, unless now somebody trusted brings it."""
    await lock(tx)
    alert = reading.alert
    key = warnings.key_of(alert.sender, alert.identifier, alert.sent)
    message_id = id_of(key)
    digest = hashlib.sha256(reading.raw).digest()
    known = await tx.fetchrow("SELECT * FROM warning_message WHERE message_id = $1", message_id)
    if known is not None and (known["trusted"] or not sender.trusted):
        state = await tx.fetchval("SELECT state FROM warning WHERE warning_id = $1", known["warning_id"])
        noted = tuple(Irregularity(**entry) for entry in from_json(known["irregularities"]))
        if known["digest"] != digest:
            noted += (Irregularity("repeated", "/alert", "known with another text or form; the first one counts"),)
        return Taken(
            message_id, known["warning_id"], state, True, known["kept_for"], noted, known["signature"],
            known["signed_by"], known["signature_trusted"],
        )  # fmt: skip
    kept = kept_for(alert)
    await tx.execute(
        """
        INSERT INTO warning_message (message_id, sender, identifier, sent, sent_at, type, status, scope, origin,
            trusted, by, operation, received_at, raw, digest, signature, signature_detail, signed_by, signature_trusted,
            irregularities, kept_for)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)
        ON CONFLICT (message_id) DO UPDATE SET type = excluded.type, status = excluded.status, scope = excluded.scope,
            origin = excluded.origin, trusted = excluded.trusted, by = excluded.by, raw = excluded.raw,
            digest = excluded.digest, signature = excluded.signature, signature_detail = excluded.signature_detail,
            signed_by = excluded.signed_by, signature_trusted = excluded.signature_trusted,
            irregularities = excluded.irregularities, kept_for = excluded.kept_for
        """,
        message_id, *key, alert.sent, alert.msg_type.lower(), alert.status.lower(), alert.scope.lower(), sender.origin,
        sender.trusted, sender.by, operation, clock.now(), reading.raw, digest, signature.result,
        signature.detail[:500], signature.by, signature.trusted,
        to_json([{"code": i.code, "at": i.at, "detail": i.detail} for i in reading.irregularities]), kept,
    )  # fmt: skip
    await tx.execute("DELETE FROM warning_reference WHERE message_id = $1", message_id)
    references = [warnings.reference_key(reference) for reference in alert.references]
    await tx.executemany(
        "INSERT INTO warning_reference (message_id, nth, sender, identifier, sent) VALUES ($1, $2, $3, $4, $5)",
        [(message_id, nth, *reference) for nth, reference in enumerate(references)],
    )
    warning_id = await _rechain(tx, message_id, by=sender.by) if kept is None else None
    state = await tx.fetchval("SELECT state FROM warning WHERE warning_id = $1", warning_id)
    return Taken(
        message_id, warning_id, state, False, kept, reading.irregularities, signature.result, signature.by,
        signature.trusted,
    )  # fmt: skip


_NEAR = """
    WITH mine AS (
        SELECT identifier, sent FROM warning_message WHERE message_id = $1
    ), named AS (
        SELECT identifier, sent FROM warning_reference WHERE message_id = $1
    )
    SELECT warning_id FROM warning_message WHERE (identifier, sent) IN (SELECT * FROM mine UNION SELECT * FROM named)
        AND warning_id IS NOT NULL
    UNION
    SELECT m.warning_id FROM warning_message m JOIN warning_reference r USING (message_id)
    WHERE (r.identifier, r.sent) IN (SELECT * FROM mine UNION SELECT * FROM named) AND m.warning_id IS NOT NULL
"""


async def _rechain(tx: Tx, message_id: UUID, *, by: str) -> UUID:
    """Put the chains anew together that a message may touch, and tell of each that changed; the message's warning."""
    near = [row["warning_id"] for row in await tx.fetch(_NEAR, message_id)]
    rows = await tx.fetch(
        "SELECT * FROM warning_message WHERE kept_for IS NULL AND (warning_id = ANY($1) OR message_id = $2)",
        near,
        message_id,
    )
    by_key = {(row["sender"], row["identifier"], row["sent"]): row for row in rows}
    references: dict[UUID, list[Key]] = {}
    for row in await tx.fetch(
        "SELECT * FROM warning_reference WHERE message_id = ANY($1) ORDER BY message_id, nth",
        [row["message_id"] for row in rows],
    ):
        references.setdefault(row["message_id"], []).append((row["sender"], row["identifier"], row["sent"]))
    chains = warnings.resolve(
        Message(key, row["type"], tuple(references.get(row["message_id"], ())), row["origin"], row["trusted"])
        for key, row in by_key.items()
    )
    mine = message_id
    holds: dict[UUID, UUID] = {}
    for chain in chains:
        warning_id = id_of(chain.first)
        ids = [by_key[m.key]["message_id"] for m in chain.messages]
        ignored = [by_key[m.key]["message_id"] for m in chain.ignored]
        if message_id in ids or message_id in ignored:
            mine = warning_id
        for row in by_key.values():
            if row["message_id"] in ids and row["warning_id"] is not None:
                holds[row["warning_id"]] = warning_id
        await tx.execute(
            "UPDATE warning_message SET warning_id = $1, ignored = (message_id = ANY($3)) WHERE message_id = ANY($2)",
            warning_id,
            ids + ignored,
            ignored,
        )
        await _tell(tx, warning_id, chain, [by_key[m.key] for m in chain.messages], by=by)
    there = {id_of(chain.first) for chain in chains}
    for gone in near:
        if gone not in there and gone in holds:
            await _merge(tx, gone, holds[gone], by=by)
    return mine


async def _tell(tx: Tx, warning_id: UUID, chain: Chain, rows: Sequence[Row], *, by: str) -> None:
    """Write a warning as its chain now stands, tell of it where that is news, and draft or withdraw readiness."""
    now = clock.now()
    before = await tx.fetchrow("SELECT * FROM warning WHERE warning_id = $1", warning_id)
    current = rows[-1]
    alerts = {row["message_id"]: cap.read(row["raw"]).alert for row in rows[-1:]}
    content = current
    if not alerts[current["message_id"]].infos:
        for row in reversed(rows[:-1]):
            alerts[row["message_id"]] = cap.read(row["raw"]).alert
            if alerts[row["message_id"]].infos:
                content = row
                break
    alert, said = alerts[current["message_id"]], alerts[content["message_id"]]
    state = warnings.state_of(chain.current, warnings.expiry(said), now)
    if (
        before is not None
        and before["message_id"] == current["message_id"]
        and before["content_id"] == content["message_id"]
        and before["messages"] == len(rows)
        and from_json(before["body"])["origin"] == current["origin"]
        and before["state"] in (state, "active" if state == "expired" else state)
    ):
        return
    operation = next((row["operation"] for row in reversed(rows) if row["operation"] is not None), None)
    body = _body(warning_id, alert, said, current, rows, operation, by)
    # What runs out as it comes in is told of first: nobody should learn of it only that it is over.
    first: type[WarningState] = WarningIssued if before is None else WarningUpdated
    if state == "cancelled":
        events: list[Event] = [WarningCancelled(**body, state="cancelled", reason=_late(current, rows))]
    else:
        events = [first(**body, state="active", reason=_late(current, rows))]
        if state == "expired":
            events.append(WarningExpired(**body, state="expired"))
    await _write(tx, warning_id, state, body, events[-1], current, content, len(rows), now)
    await outbox.append(tx, events)
    await ready(tx, warning_id)


def _late(current: Row, rows: Sequence[Row]) -> str | None:
    newest = max(rows, key=lambda row: row["seq"])
    return None if newest["seq"] == current["seq"] else "an earlier message of the chain has come in"


async def _write(
    tx: Tx, warning_id: UUID, state: str, body: dict[str, Any], event: Event, current: Row, content: Row, messages: int,
    now: datetime,
) -> None:  # fmt: skip
    await tx.execute(
        """
        INSERT INTO warning (warning_id, state, status, operation, exercise, message_id, content_id, messages, hazard,
            severity, bbox, expires_at, issued_at, updated_at, body)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $14)
        ON CONFLICT (warning_id) DO UPDATE SET state = excluded.state, status = excluded.status,
            operation = excluded.operation, exercise = excluded.exercise, message_id = excluded.message_id,
            content_id = excluded.content_id, messages = excluded.messages, hazard = excluded.hazard,
            severity = excluded.severity, bbox = excluded.bbox, expires_at = excluded.expires_at,
            updated_at = excluded.updated_at, merged_into = NULL, body = excluded.body
        """,
        warning_id, state, body["status"], body["operation"], body["exercise"], current["message_id"],
        content["message_id"], messages, body["hazard"], body["severity"],
        list(body["area"]["bbox"]) if body["area"]["bbox"] else None, body["expires_at"], now,
        event.to_bytes().decode(),
    )  # fmt: skip


def _body(
    warning_id: UUID, alert: Alert, said: Alert, current: Row, rows: Sequence[Row], operation: str | None, by: str
) -> dict[str, Any]:
    infos = said.infos
    first = infos[0] if infos else None
    starts = [info.effective for info in infos if info.effective is not None]
    onsets = [info.onset for info in infos if info.onset is not None]
    noted = [f"{i['code']} {i['at']}: {i['detail']}"[:160] for i in from_json(current["irregularities"])]
    return {
        "warning_id": warning_id,
        "operation": operation,
        "exercise": current["status"] in ("exercise", "test"),
        "message": {
            "identifier": alert.identifier,
            "sender": alert.sender,
            "sent_at": alert.sent,
            "type": current["type"],
        },
        "status": current["status"],
        "hazard": warnings.hazard(infos),
        "categories": tuple(dict.fromkeys(category for info in infos for category in info.categories)),
        "severity": warnings.severity(infos),
        "urgency": warnings.grade(infos, "urgency"),
        "certainty": warnings.grade(infos, "certainty"),
        "responses": tuple(dict.fromkeys(response.lower() for info in infos for response in info.responses)),
        "texts": _texts(infos),
        "sender_name": _cut(first.sender_name if first else None, 300),
        "web": _cut(first.web if first else None, 500),
        "contact": _cut(first.contact if first else None, 300),
        "effective_at": min(starts) if starts else said.sent,
        "onset_at": min(onsets, default=None),
        "expires_at": warnings.expiry(said),
        "area": _area(infos),
        "origin": current["origin"],
        "signature": current["signature"],
        "signed_by": _cut(current["signed_by"], 300),
        "trusted": current["signature_trusted"],
        "irregularities": tuple(noted[:20]),
        "messages": len(rows),
        "by": by,
    }


def _texts(infos: Sequence[Info]) -> tuple[dict[str, Any], ...]:
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for info in infos:
        text = {
            "language": _cut(info.language, 40) or "en-US",
            "event": _cut(info.event, 200),
            "headline": _cut(info.headline, 300),
            "description": _cut(info.description, 2000),
            "instruction": _cut(info.instruction, 1200),
        }
        found.setdefault(tuple(text.values()), text)
    return tuple(list(found.values())[:_TEXTS])


def _cut(text: str | None, limit: int) -> str | None:
    if text is None:
        return None
    short, cut = json_cut(cap.plain_text(text), limit)
    return short + "…" if cut else short


def _area(infos: Sequence[Info]) -> dict[str, Any]:
    shape = warnings.shape_of(infos)
    rings, simplified = warnings.published(shape)
    names = dict.fromkeys(area.description for info in infos for area in info.areas if area.description)
    return {
        "description": _cut("; ".join(names) or None, 800),
        "polygons": rings,
        "points": [{"lon": lon, "lat": lat} for lon, lat in shape.points[:20]],
        "bbox": shape.bbox(),
        "codes": warnings.area_codes(infos),
        "simplified": simplified,
    }


async def _merge(tx: Tx, gone: UUID, into: UUID, *, by: str) -> None:
    """A warning whose first message turned out not to be the first goes on under another id, and its needs with it."""
    row = await tx.fetchrow("SELECT * FROM warning WHERE warning_id = $1 FOR UPDATE", gone)
    if row is None or row["state"] == "merged":
        return
    body = from_json(row["body"]) | {
        "state": "merged", "merged_into": str(into), "by": by, "reason": "an earlier message of the chain has come in",
    }  # fmt: skip
    event = WarningUpdated.model_validate(body)
    await tx.execute(
        "UPDATE warning SET state = 'merged', merged_into = $2, updated_at = $3, body = $4 WHERE warning_id = $1",
        gone, into, clock.now(), event.to_bytes().decode(),
    )  # fmt: skip
    await outbox.append(tx, [event])
    await tx.execute(
        "INSERT INTO warning_need SELECT $2, operation, code, need_id FROM warning_need WHERE warning_id = $1 "
        "ON CONFLICT DO NOTHING",
        gone, into,
    )  # fmt: skip
    left = await tx.fetch(
        "SELECT need_id FROM warning_need WHERE warning_id = $1 AND need_id NOT IN "
        "(SELECT need_id FROM warning_need WHERE warning_id = $2)",
        gone, into,
    )  # fmt: skip
    for need in left:
        await withdraw_readiness(tx, need["need_id"], drafts_only=True, by=BY, reason=f"the warning is now {into}")
    await tx.execute("DELETE FROM warning_need WHERE warning_id = $1", gone)
    await ready(tx, into)


# Readiness


async def ready(tx: Tx, warning_id: UUID) -> None:
    """Bring the readiness needs of a warning in line with it: drafted where it lies over an operation's area, withdrawn
    when it is cancelled or lies there no more; what an operator has declared outlives an expiry, not a Cancel."""
    row = await tx.fetchrow("SELECT * FROM warning WHERE warning_id = $1", warning_id)
    if row is None or row["state"] == "merged":
        return
    event = WarningState.model_validate(from_json(row["body"]))
    now = clock.now()
    wanted: dict[tuple[str, str], tuple[warnings.Readiness, Point | None]] = {}
    if row["state"] == "active" and row["expires_at"] > now and event.urgency != "past":
        shape = Shape(
            tuple(Polygon(ring) for ring in event.area.polygons), tuple((p.lon, p.lat) for p in event.area.points)
        )
        known = await operations(tx)
        for operation, point in warnings.concerned(known.values(), row["exercise"], shape, event.area.codes):
            if row["operation"] in (None, operation.operation):
                for entry in warnings.readiness(row["hazard"], row["severity"]):
                    wanted[operation.operation, entry.code] = (entry, point)
    there = {
        (need["operation"], need["code"]): need["need_id"]
        for need in await tx.fetch(
            "SELECT * FROM warning_need WHERE warning_id = $1 ORDER BY operation, code", warning_id
        )
    }
    title = event.texts[0].headline or event.texts[0].event if event.texts else "peringatan"
    cancelled = row["state"] == "cancelled"
    why = {"cancelled": "the warning was cancelled", "expired": "the warning has expired"}.get(
        row["state"], "the warning does not lie over the operation any more"
    )
    for place, need_id in there.items():
        if place in wanted:
            await prolong_readiness(
                tx, need_id, row["expires_at"], by=BY, reason=f"warning {warning_id}: {title}"[:500]
            )
        else:
            await withdraw_readiness(tx, need_id, drafts_only=not cancelled, by=BY, reason=f"{why}: {title}"[:500])
            await tx.execute(
                "DELETE FROM warning_need WHERE warning_id = $1 AND operation = $2 AND code = $3", warning_id, *place
            )
    for (name, code), (entry, point) in wanted.items():
        if (name, code) in there or await _stands_ready(tx, name, code, now):
            continue
        start = max(now, event.onset_at or event.effective_at)
        if start >= row["expires_at"]:
            continue
        need_id = await draft_readiness(
            tx, item=entry.item, skill=entry.skill, quantity=entry.quantity, severity=min(3, row["severity"]),
            operation=name, exercise=row["exercise"], point=point, place=event.area.description,
            window=(start, row["expires_at"]), by=BY, reason=f"warning {warning_id}: {title}"[:500],
        )  # fmt: skip
        await tx.execute("INSERT INTO warning_need VALUES ($1, $2, $3, $4)", warning_id, name, code, need_id)


async def _stands_ready(tx: Tx, operation: str, code: str, now: datetime) -> bool:
    """Whether another warning has called for the same at the same place: two storms need no two sets of boats."""
    return bool(
        await tx.fetchval(
            "SELECT EXISTS (SELECT FROM warning_need w JOIN need n USING (need_id) WHERE w.operation = $1 "
            "AND w.code = $2 AND n.status <> 'withdrawn' AND n.window_end > $3)",
            operation,
            code,
            now,
        )
    )


async def expire_due(tx: Tx) -> int:
    """Tell of the warnings whose time has run out; returns how many."""
    await lock(tx)
    now = clock.now()
    rows = await tx.fetch(
        "SELECT * FROM warning WHERE state = 'active' AND expires_at <= $1 ORDER BY expires_at LIMIT 200", now
    )
    for row in rows:
        event = WarningExpired.model_validate(from_json(row["body"]) | {"state": "expired", "by": BY, "reason": None})
        await tx.execute(
            "UPDATE warning SET state = 'expired', updated_at = $2, body = $3 WHERE warning_id = $1",
            row["warning_id"], now, event.to_bytes().decode(),
        )  # fmt: skip
        await outbox.append(tx, [event])
        await ready(tx, row["warning_id"])
    return len(rows)


async def ready_all(tx: Tx, warning_ids: Iterable[UUID]) -> None:
    """As `ready`, for operations that opened, grew or closed while these warnings run."""
    await lock(tx)
    for warning_id in warning_ids:
        await ready(tx, warning_id)
