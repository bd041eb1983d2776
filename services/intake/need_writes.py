"""Writes to needs: worked out from what reports ask, set by operators and partners, confirmed by those they are for.

Needs of an incident change under the lock of its operation (`incidents.lock_operations`), as the incident does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from schemas import vocabulary
from schemas.confirmations import DeliveryConfirmed, DeliveryDisputed
from schemas.event import Event
from schemas.needs import NeedAmended, NeedDeclared, NeedDrafted, NeedState, NeedWithdrawn
from services.intake import domain, needs
from services.intake.bodies import NeedChangeIn, NeedIn
from services.intake.needs import Ask
from services.runtime import clock, outbox
from services.runtime.db import Row, Tx, from_json, to_json
from services.runtime.ids import uuid7
from services.runtime.problems import Conflict, NotFound

Need = dict[str, Any]
"""A row of `need` with its JSON columns read."""

_COLUMNS = (
    "need_id", "incident_id", "operation", "exercise", "item", "skill", "unit", "quantity", "figure", "severity",
    "status", "lon", "lat", "accuracy_m", "place", "admin", "window_start", "window_end", "requires", "bundle_id",
    "people", "organisation", "small_contact", "made_at", "declared_at", "updated_at", "by", "reason", "sensitivity",
    "persons", "vulnerable", "site_id", "hazard",
)  # fmt: skip
_JSON = ("requires", "people")
_UPSERT = f"""
    INSERT INTO need ({", ".join(_COLUMNS)}) VALUES ({", ".join(f"${n}" for n in range(1, len(_COLUMNS) + 1))})
    ON CONFLICT (need_id) DO UPDATE SET {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS[1:])}
"""


def as_need(row: Row) -> Need:
    return {**dict(row), **{name: from_json(row[name]) for name in _JSON}}


async def _write(tx: Tx, rows: Iterable[Need]) -> None:
    await tx.executemany(
        _UPSERT,
        [
            [to_json(row[name]) if name in _JSON and row[name] is not None else row[name] for name in _COLUMNS]
            for row in rows
        ],
    )


def need_event(kind: type[NeedState], row: Need, asks: Sequence[Row], *, by: str, reason: str | None) -> NeedState:
    """What is told of a need as its row stands; `asks` are the rows of `need_ask`, oldest report first."""
    asks = asks[-20:]
    words = [
        {"report_id": ask["report_id"], "spans": from_json(ask["words"]), "assumed": ask["assumed"]}
        for ask in asks if ask["words"] is not None
    ]  # fmt: skip
    point = None
    if row["lon"] is not None:
        point = {"lon": row["lon"], "lat": row["lat"], "accuracy_m": row["accuracy_m"]}
    return kind(
        need_id=row["need_id"], incident_id=row["incident_id"], operation=row["operation"], exercise=row["exercise"],
        item=row["item"], skill=row["skill"], quantity=row["quantity"], unit=row["unit"], severity=row["severity"],
        status=row["status"],
        point=point,
        place=row["place"], admin=row["admin"],
        window={"start": row["window_start"], "end": row["window_end"]},
        requires=row["requires"] or {}, bundle_id=row["bundle_id"], people=row["people"],
        reports=tuple(ask["report_id"] for ask in asks), words=words, persons=row["persons"],
        vulnerable=tuple(row["vulnerable"]), sensitivity=row["sensitivity"], declared_at=row["declared_at"],
        hazard=row["hazard"], site_id=row["site_id"],
        by=by, reason=reason,
    )  # fmt: skip


# Needs of incidents, from what reports ask


async def work_out(tx: Tx, rows: Mapping[UUID, Mapping[str, Any]], *, by: str, reason: str | None = None) -> None:
    """Bring the live needs of these incidents, given by their rows as they stand, in line with what their reports ask,
    and tell of each that changed."""
    now = clock.now()
    incidents = {incident_id: row for incident_id, row in rows.items() if row["status"] == "open"}
    if not incidents:
        return
    live = {
        row["need_id"]: as_need(row)
        for row in await tx.fetch(
            "SELECT * FROM need WHERE incident_id = ANY($1) AND status <> 'withdrawn' AND window_end > $2 "
            "ORDER BY need_id FOR UPDATE",
            list(incidents),
            now,
        )
    }
    before = {need_id: dict(need) for need_id, need in live.items()}
    asking = await tx.fetch(
        # What a report states counts; only where it states nothing does what was read in its text.
        "SELECT report_id, incident_id, coalesce(needs, read_needs) AS needs, needs IS NULL AS read FROM report r "
        "WHERE incident_id = ANY($1) AND coalesce(needs, read_needs) IS NOT NULL "
        "AND NOT EXISTS (SELECT FROM need_ask a WHERE a.report_id = r.report_id) ORDER BY seq",
        list(incidents),
    )
    if not live and not asking:
        return
    asks: list[tuple[UUID, UUID, int, str | None, bool]] = []
    for report in asking:
        wanted: Counter[tuple[str | None, str | None]] = Counter()
        words: dict[tuple[str | None, str | None], list[list[int]]] = defaultdict(list)
        assumed: set[tuple[str | None, str | None]] = set()
        for stated in from_json(report["needs"]):
            code = stated.get("item"), stated.get("skill")
            wanted[code] += stated["quantity"]
            words[code] += [span for span in stated.get("words", ()) if span not in words[code]]
            if stated.get("assumed"):
                assumed.add(code)
        for (item, skill), quantity in wanted.items():
            incident = incidents[report["incident_id"]]
            need = _live_need(live.values(), incident["incident_id"], item, skill, now)
            if need is None:
                need = _new_need(incident, item, skill, now, by)
                live[need["need_id"]] = need
            spans = to_json(words[item, skill]) if report["read"] else None
            asks.append(
                (need["need_id"], report["report_id"], min(quantity, 1_000_000_000), spans, (item, skill) in assumed)
            )
    await _write(tx, [need for need_id, need in live.items() if need_id not in before])
    if asks:
        await tx.execute(
            "INSERT INTO need_ask (need_id, report_id, quantity, counts, words, assumed) "
            "SELECT need_id, report_id, quantity, false, words::jsonb, assumed "
            "FROM unnest($1::uuid[], $2::uuid[], $3::int[], $4::text[], $5::boolean[]) "
            "AS t(need_id, report_id, quantity, words, assumed)",
            *map(list, zip(*asks, strict=True)),
        )
    await _judge(tx, incidents, live, before, by=by, reason=reason)


def _live_need(
    live: Iterable[Need], incident_id: UUID, item: str | None, skill: str | None, now: Any, site_id: UUID | None = None
) -> Need | None:
    """The incident's need for this word (of this site, or of none) that is running now, else the next one."""
    found = [
        need for need in live
        if need["incident_id"] == incident_id and need["item"] == item and need["skill"] == skill
        and need["status"] != "withdrawn" and need["window_end"] > now and need["site_id"] == site_id
    ]  # fmt: skip
    return min(found, key=lambda need: need["window_start"], default=None)


def _new_need(incident: Mapping[str, Any], item: str | None, skill: str | None, now: Any, by: str) -> Need:
    return {
        "need_id": uuid7(), "incident_id": incident["incident_id"], "operation": incident["operation"],
        "exercise": incident["exercise"], "item": item, "skill": skill, "unit": needs.unit_of(item, skill),
        "quantity": 1, "figure": None, "severity": incident["severity"], "status": "draft", "lon": None, "lat": None,
        "accuracy_m": None, "place": None, "admin": None, "window_start": now, "window_end": now + needs.WINDOW,
        "requires": {}, "bundle_id": None, "people": None, "organisation": None, "small_contact": None,
        "made_at": now, "declared_at": None, "updated_at": now, "by": by, "reason": None,
        "sensitivity": incident["sensitivity"], "persons": None, "vulnerable": [], "site_id": None,
        "hazard": incident["hazard"],
    }  # fmt: skip


async def _judge(
    tx: Tx,
    incidents: Mapping[UUID, Mapping[str, Any]],
    live: Mapping[UUID, Need],
    before: Mapping[UUID, Need],
    *,
    by: str,
    reason: str | None,
) -> None:
    now = clock.now()
    rows = await tx.fetch(
        # A sender's standing vouches for what it stated, not for what a rule of ours read in its words.
        "SELECT a.need_id, a.report_id, a.quantity, a.counts, a.words, a.assumed, r.severity, r.people, r.reading, "
        "r.proven AND r.needs IS NOT NULL AS proven, r.contact, r.lon, r.lat, "
        "r.accuracy_m, r.place, r.admin FROM need_ask a JOIN report r USING (report_id) WHERE a.need_id = ANY($1) "
        "ORDER BY r.seq",
        list(live),
    )
    by_need: dict[UUID, list[Row]] = defaultdict(list)
    for row in rows:
        by_need[row["need_id"]].append(row)
    allowance = await _allowance(tx, {row["contact"] for row in rows if row["contact"] and not row["proven"]})
    events: list[Event] = []
    changed: list[Need] = []
    counting: list[tuple[UUID, UUID]] = []
    for need_id, need in live.items():
        asking = by_need[need_id]
        incident = incidents[need["incident_id"]]
        if need["lon"] is None:
            _place(need, asking, incident)
        readings = [from_json(row["reading"]) or {} for row in asking]
        need |= {
            "sensitivity": incident["sensitivity"],
            "hazard": incident["hazard"],
            "persons": max((reading.get("persons") or 0 for reading in readings), default=0) or None,
            "vulnerable": list(dict.fromkeys(group for reading in readings for group in reading.get("vulnerable", ()))),
        }
        asks = [
            Ask(
                row["report_id"], row["quantity"],
                domain.severity_of(row["severity"], from_json(row["people"]) or {}, reading),
                row["proven"], row["contact"], row["counts"],
            )
            for row, reading in zip(asking, readings, strict=True)
        ]  # fmt: skip
        verdict = needs.judge(
            asks,
            status=need["status"],
            figure=need["figure"],
            corroborated=incident["evidence"] != "reported",
            placed=need["lon"] is not None,
            small=vocabulary.small_limit(need["item"] or need["skill"]),
            allowance=allowance,
            fallback=(need["quantity"], need["severity"]),
        )
        if verdict.small_contact is not None:
            allowance[verdict.small_contact] -= 1
        counting += [(need_id, row["report_id"]) for row in asking
                     if row["report_id"] in verdict.counting and not row["counts"]]  # fmt: skip
        kind = _apply(need, verdict, before.get(need_id), now)
        if kind is not None:
            need |= {"by": by, "reason": reason, "updated_at": now}
            changed.append(need)
            events.append(need_event(kind, need, asking, by=by, reason=reason))
    if counting:
        await tx.execute(
            "UPDATE need_ask a SET counts = true FROM unnest($1::uuid[], $2::uuid[]) AS t(need_id, report_id) "
            "WHERE a.need_id = t.need_id AND a.report_id = t.report_id",
            [need_id for need_id, _ in counting],
            [report_id for _, report_id in counting],
        )
    await _write(tx, changed)
    await outbox.append(tx, events)


_AMENDABLE = (
    "quantity", "severity", "lon", "lat", "incident_id", "operation", "place", "admin", "sensitivity", "persons",
    "vulnerable", "hazard",
)  # fmt: skip


def _apply(need: Need, verdict: needs.Verdict, before: Need | None, now: Any) -> type[NeedState] | None:
    """Set the need as judged; answers which event tells of it, None where nothing changed."""
    was = need["status"]
    need |= {
        "status": verdict.status, "quantity": verdict.quantity, "severity": verdict.severity,
        "small_contact": verdict.small_contact or need["small_contact"],
    }  # fmt: skip
    if verdict.status == "withdrawn":
        return NeedWithdrawn
    if verdict.status == "declared" and was != "declared":
        need["declared_at"] = now
        return NeedDeclared
    if before is None:
        return NeedDrafted
    return NeedAmended if any(before[name] != need[name] for name in _AMENDABLE) else None


def _place(need: Need, asking: Sequence[Row], incident: Mapping[str, Any]) -> None:
    """Where the need is: where the first report that asks for it is, else in the middle of its incident."""
    where = next((row for row in asking if row["lon"] is not None), None)
    if where is None and incident["lon"] is not None:
        need |= {"lon": incident["lon"], "lat": incident["lat"], "accuracy_m": None}
    elif where is not None:
        need |= {"lon": where["lon"], "lat": where["lat"], "accuracy_m": where["accuracy_m"]}
    need["place"] = need["place"] or (where["place"] if where else None) or incident["place"]
    need["admin"] = need["admin"] or (where["admin"] if where else None) or incident["admin"]


async def _allowance(tx: Tx, contacts: set[str]) -> dict[str, int]:
    """How many small needs each of these may still have declared."""
    used = await tx.fetch(
        "SELECT small_contact, count(*) AS n FROM need WHERE small_contact = ANY($1) AND declared_at > $2 GROUP BY 1",
        list(contacts),
        clock.now() - timedelta(hours=24),
    )
    left = dict.fromkeys(contacts, needs.SMALL_A_DAY)
    for row in used:
        left[row["small_contact"]] -= row["n"]
    return left


async def detach(tx: Tx, report_ids: Sequence[UUID]) -> None:
    """Forget what these reports ask for; `work_out` of the incidents that they leave and join follows."""
    await tx.execute("DELETE FROM need_ask WHERE report_id = ANY($1)", list(report_ids))


async def merge_needs(tx: Tx, incident_id: UUID, into_id: UUID, *, by: str, reason: str) -> None:
    """Give the live needs of an incident to the one that it is merged into; those that it has too become one."""
    now = clock.now()
    rows = await tx.fetch(
        "SELECT * FROM need WHERE incident_id = ANY($1) AND status <> 'withdrawn' ORDER BY need_id FOR UPDATE",
        [incident_id, into_id],
    )
    all_needs = [as_need(row) for row in rows]
    events: list[Event] = []
    changed: list[Need] = []
    for need in [need for need in all_needs if need["incident_id"] == incident_id]:
        twin = _live_need(all_needs, into_id, need["item"], need["skill"], now, need["site_id"])
        if twin is None:
            need |= {"incident_id": into_id, "by": by, "reason": reason, "updated_at": now}
            events.append(need_event(NeedAmended, need, await _asks_of(tx, need["need_id"]), by=by, reason=reason))
        else:
            await tx.execute(
                "INSERT INTO need_ask (need_id, report_id, quantity, counts, words, assumed) "
                "SELECT $2, report_id, quantity, counts, words, assumed FROM need_ask WHERE need_id = $1 "
                "ON CONFLICT DO NOTHING",
                need["need_id"], twin["need_id"],
            )  # fmt: skip
            await tx.execute("DELETE FROM need_ask WHERE need_id = $1", need["need_id"])
            if need["figure"] is not None:
                twin["figure"] = max(need["figure"], twin["figure"] or 0)
                changed.append(twin)
            need |= {"status": "withdrawn", "by": by, "reason": reason, "updated_at": now}
            events.append(need_event(NeedWithdrawn, need, [], by=by, reason=f"merged into {twin['need_id']}: {reason}"))
        changed.append(need)
    await _write(tx, changed)
    await outbox.append(tx, events)


async def move_needs(tx: Tx, incident_id: UUID, operation: str, exercise: bool, *, by: str, reason: str) -> None:
    """The needs of an incident go with it to another operation."""
    now = clock.now()
    rows = await tx.fetch(
        "SELECT * FROM need WHERE incident_id = $1 AND status <> 'withdrawn' ORDER BY need_id FOR UPDATE", incident_id
    )
    moved = [
        as_need(row) | {"operation": operation, "exercise": exercise, "by": by, "reason": reason, "updated_at": now}
        for row in rows
    ]
    await _write(tx, moved)
    await outbox.append(
        tx,
        [need_event(NeedAmended, need, await _asks_of(tx, need["need_id"]), by=by, reason=reason) for need in moved],
    )


async def withdraw_idle(tx: Tx, incident_id: UUID, *, by: str, reason: str) -> None:
    """Withdraw a closed incident's needs for which nothing was promised; what is promised runs to its end."""
    rows = await tx.fetch(
        """
        SELECT n.* FROM need n LEFT JOIN ledger l USING (need_id)
        WHERE n.incident_id = $1 AND n.status <> 'withdrawn'
          AND coalesce(l.committed + l.in_transit + l.delivered + l.confirmed, 0) = 0
        ORDER BY n.need_id FOR UPDATE OF n
        """,
        incident_id,
    )
    for row in rows:
        await _withdraw(tx, as_need(row), by=by, reason=f"the incident is closed: {reason}")


async def _withdraw(tx: Tx, need: Need, *, by: str, reason: str | None) -> None:
    need |= {"status": "withdrawn", "by": by, "reason": reason, "updated_at": clock.now()}
    await _write(tx, [need])
    asks = await _asks_of(tx, need["need_id"])
    await outbox.append(tx, [need_event(NeedWithdrawn, need, asks, by=by, reason=reason)])


async def _asks_of(tx: Tx, need_id: UUID) -> list[Row]:
    rows = await tx.fetch(
        "SELECT report_id, words, assumed FROM need_ask JOIN report USING (report_id) WHERE need_id = $1 "
        "ORDER BY seq DESC LIMIT 20",
        need_id,
    )
    return rows[::-1]


# Needs set by operators and partners


async def post_need(
    tx: Tx, order: NeedIn, incident: Mapping[str, Any] | None, operation: str, exercise: bool, *,
    organisation: str | None, by: str,
) -> tuple[Need, bool]:  # fmt: skip
    """Set a need, and whether it is new: where the incident has a live one for the same word and window, the figure
    becomes that one's. With a point it is declared at once."""
    now = clock.now()
    if incident is not None:
        rows = await tx.fetch(
            "SELECT * FROM need WHERE incident_id = $1 AND status <> 'withdrawn' AND window_end > $2 FOR UPDATE",
            incident["incident_id"], now,
        )  # fmt: skip
        live = [
            need for need in map(as_need, rows)
            if order.window is None
            or (need["window_start"], need["window_end"]) == (order.window.start, order.window.end)
        ]  # fmt: skip
        found = _live_need(live, incident["incident_id"], order.item, order.skill, now, order.site_id)
        if found is not None:
            found["bundle_id"] = order.bundle_id or found["bundle_id"]
            change = {"figure": order.quantity, "quantity": order.quantity}
            if order.severity is not None:
                change["severity"] = order.severity
            return await _change(tx, found, change, declare=True, by=by, reason=order.reason), False
    where = order.location
    lon, lat = (where.lon, where.lat) if where and where.lon is not None else (None, None)
    if lon is None and incident is not None:
        lon, lat = incident["lon"], incident["lat"]
    window = order.window
    need: Need = {
        "need_id": uuid7(), "incident_id": incident["incident_id"] if incident else None, "operation": operation,
        "exercise": exercise, "item": order.item, "skill": order.skill,
        "unit": needs.unit_of(order.item, order.skill), "quantity": order.quantity, "figure": order.quantity,
        "severity": order.severity or (incident["severity"] if incident else domain.DEFAULT_SEVERITY),
        "status": "draft" if lon is None else "declared", "lon": lon, "lat": lat,
        "accuracy_m": where.accuracy_m if where else None,
        "place": (where.place if where else None) or (incident["place"] if incident else None),
        "admin": (where.admin if where else None) or (incident["admin"] if incident else None),
        "window_start": window.start if window else now, "window_end": window.end if window else now + needs.WINDOW,
        "requires": order.requires.model_dump(exclude_none=True), "bundle_id": order.bundle_id,
        "people": order.people.model_dump(exclude_none=True) if order.people else None,
        "organisation": organisation, "small_contact": None, "made_at": now,
        "declared_at": None if lon is None else now, "updated_at": now, "by": by, "reason": order.reason,
        "sensitivity": incident["sensitivity"] if incident else order.sensitivity, "persons": None, "vulnerable": [],
        "site_id": order.site_id, "hazard": incident["hazard"] if incident else None,
    }  # fmt: skip
    await _write(tx, [need])
    kind = NeedDrafted if lon is None else NeedDeclared
    await outbox.append(tx, [need_event(kind, need, [], by=by, reason=order.reason)])
    return need, True


async def patch_need(tx: Tx, need: Need, order: NeedChangeIn, *, place: str | None, by: str) -> Need:
    """Amend, declare or withdraw a need.

    Raises
    ------
    Conflict
        It is withdrawn, or it has no point yet and nobody could be asked to go there.
    """
    if need["status"] == "withdrawn":
        if order.status == "withdrawn":
            return need
        raise Conflict("the need is withdrawn; post a new one")
    if order.status == "withdrawn":
        await _withdraw(tx, need, by=by, reason=order.reason)
        return need
    change: dict[str, Any] = {}
    if order.quantity is not None:
        change |= {"figure": order.quantity, "quantity": order.quantity}
    if order.location is not None:
        where = order.location
        if where.lon is not None:
            change |= {"lon": where.lon, "lat": where.lat, "accuracy_m": where.accuracy_m}
        change |= {name: value for name, value in (("place", place), ("admin", where.admin)) if value is not None}
    if order.status == "declared" and need["lon"] is None and "lon" not in change:
        raise Conflict("a need without a point stays a draft; give it a location with lon and lat")
    return await _change(tx, need, change, declare=order.status == "declared", by=by, reason=order.reason)


async def _change(tx: Tx, need: Need, change: Mapping[str, Any], *, declare: bool, by: str, reason: str | None) -> Need:
    """Apply an operator's word; what reports ask for it so far is vouched for when it is declared by hand."""
    before = dict(need)
    need |= change
    now = clock.now()
    kind: type[NeedState] | None = None
    if declare and need["status"] == "draft" and need["lon"] is not None:
        need |= {"status": "declared", "declared_at": now}
        await tx.execute("UPDATE need_ask SET counts = true WHERE need_id = $1", need["need_id"])
        kind = NeedDeclared
    elif any(before[name] != need[name] for name in _AMENDABLE):
        kind = NeedAmended
    if kind is not None or before != need:
        need |= {"by": by, "reason": reason, "updated_at": now}
        await _write(tx, [need])
    if kind is not None:
        asks = await _asks_of(tx, need["need_id"])
        await outbox.append(tx, [need_event(kind, need, asks, by=by, reason=reason)])
    return need


# Readiness, from warnings


async def draft_readiness(
    tx: Tx, *, item: str | None, skill: str | None, quantity: int, severity: int, operation: str, exercise: bool,
    point: tuple[float, float] | None, place: str | None, window: tuple[datetime, datetime], by: str, reason: str,
    admin: str | None = None,
) -> UUID:  # fmt: skip
    """Draft a need of no incident, for something that is only foreseen; an operator declares it or drops it."""
    now = clock.now()
    lon, lat = point or (None, None)
    need: Need = {
        "need_id": uuid7(), "incident_id": None, "operation": operation, "exercise": exercise, "item": item,
        "skill": skill, "unit": needs.unit_of(item, skill), "quantity": quantity, "figure": quantity,
        "severity": severity, "status": "draft", "lon": lon, "lat": lat, "accuracy_m": None, "place": place,
        "admin": admin, "window_start": window[0], "window_end": window[1], "requires": {}, "bundle_id": None,
        "people": None, "organisation": None, "small_contact": None, "made_at": now, "declared_at": None,
        "updated_at": now, "by": by, "reason": reason, "sensitivity": None, "persons": None, "vulnerable": [],
        "site_id": None, "hazard": None,
    }  # fmt: skip
    await _write(tx, [need])
    await outbox.append(tx, [need_event(NeedDrafted, need, [], by=by, reason=reason)])
    return need["need_id"]  # type: ignore[no-any-return]


async def prolong_readiness(tx: Tx, need_id: UUID, until: datetime, *, by: str, reason: str) -> None:
    """Let a draft of a warning end when the warning now ends; what an operator has declared stays as declared."""
    need = await need_row(tx, need_id, lock=True)
    if need["status"] == "draft" and need["window_end"] != until and until > need["window_start"]:
        need |= {"window_end": until, "by": by, "reason": reason, "updated_at": clock.now()}
        await _write(tx, [need])
        await outbox.append(tx, [need_event(NeedAmended, need, [], by=by, reason=reason)])


async def withdraw_readiness(tx: Tx, need_id: UUID, *, drafts_only: bool, by: str, reason: str) -> bool:
    """Withdraw a need of a warning, and whether that was done; `drafts_only` leaves one that was declared."""
    need = await need_row(tx, need_id, lock=True)
    if need["status"] == "withdrawn" or (drafts_only and need["status"] == "declared"):
        return False
    await _withdraw(tx, need, by=by, reason=reason)
    return True


# Confirmations


@dataclass(frozen=True, slots=True)
class Delivered:
    """A need of which something was delivered, as the ledger says."""

    need_id: UUID
    operation: str
    exercise: bool
    delivered: int
    sensitivity: str | None = None


async def confirm(
    tx: Tx,
    delivered: Sequence[Delivered],
    *,
    received: Literal["yes", "no", "partly"],
    quantity: int | None,
    by: str,
    reason: str | None,
) -> None:
    """Tell what arrived and what did not; matching moves the ledger.

    Raises
    ------
    Conflict
        Nothing, or less than said, was delivered; or a quantity was given for several needs at once.
    """
    if quantity is not None and len(delivered) > 1:
        raise Conflict("several needs were delivered; name one with need_id to say how much of it came")
    events: list[Event] = []
    for need in delivered:
        if need.delivered <= 0:
            raise Conflict("nothing has been delivered yet")
        try:
            came, lacking = needs.confirmation(received, need.delivered, quantity)
        except ValueError as error:
            raise Conflict(str(error)) from None
        shared = {
            "need_id": need.need_id, "operation": need.operation, "exercise": need.exercise,
            "sensitivity": need.sensitivity, "by": by, "reason": reason,
        }  # fmt: skip
        if came:
            events.append(DeliveryConfirmed(quantity=came, **shared))
        if lacking:
            events.append(DeliveryDisputed(quantity=lacking, **shared))
    await outbox.append(tx, events)


async def need_row(tx: Tx, need_id: UUID, *, lock: bool = False) -> Need:
    """A need's row.

    Raises
    ------
    NotFound
        There is none with this id.
    """
    row = await tx.fetchrow(f"SELECT * FROM need WHERE need_id = $1{' FOR UPDATE' if lock else ''}", need_id)
    if row is None:
        raise NotFound("there is no such need")
    return as_need(row)
