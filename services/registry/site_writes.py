"""Writes of sites and their headcounts. The site's row is locked before its events are appended."""

from __future__ import annotations

import secrets
from typing import Any
from uuid import UUID

from schemas.sites import Headcount, SiteClosed, SiteCounted, SiteOpened, SiteState, SiteUpdated
from services.registry import headcounts
from services.registry.actions import exercises, masked, not_yours, unknown_operation
from services.registry.bodies import HeadcountOrder, SiteChange, SiteOrder
from services.runtime import clock, ids, outbox
from services.runtime.auth import Actor
from services.runtime.db import Row, Tx, from_json
from services.runtime.problems import Conflict, Fault, Forbidden, NotFound

_LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # none that is taken for another when it is written by hand
_SITE = "SELECT s.*, h.count AS stands FROM site AS s LEFT JOIN headcount AS h ON h.count_id = s.standing"


async def open_site(tx: Tx, actor: Actor, order: SiteOrder) -> Row:
    """Open a site.

    Raises
    ------
    NotFound, Forbidden
        No such operation or manager; not for this token.
    """
    drills = await exercises(tx, {order.operation})
    if order.operation not in drills:
        raise unknown_operation(order.operation)
    actor.require_operation(order.operation)
    organisation = _organisation(actor, order.organisation)
    await _known_manager(tx, order.manager)
    site_id, now = ids.uuid7(), clock.now()
    while not await tx.fetchval(
        """
        INSERT INTO site (site_id, code, kind, name, status, lon, lat, place, admin, organisation, operation, exercise,
                          capacity, facilities, manager, opened_at, updated_at)
        VALUES ($1, $2, $3, $4, 'open', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)
        ON CONFLICT (code) DO NOTHING RETURNING true
        """,
        site_id,
        "POS-" + "".join(secrets.choice(_LETTERS) for _ in range(4)),
        order.kind,
        masked(order.name),
        order.location.lon if order.location else None,
        order.location.lat if order.location else None,
        masked(order.location.place if order.location else None),
        order.admin,
        organisation,
        order.operation,
        drills[order.operation],
        order.capacity,
        list(order.facilities),
        order.manager,
        now,
    ):
        pass  # that code was given out before
    row = await site_row(tx, site_id)
    await outbox.append(tx, [SiteOpened(**site_fields(row), by=actor.name)])
    return row


def _organisation(actor: Actor, named: str | None) -> str | None:
    if actor.role != "partner":
        return named
    if actor.organisation is None or named not in (None, actor.organisation):
        raise not_yours("/organisation")
    return actor.organisation


async def _known_manager(tx: Tx, manager: UUID | None) -> None:
    known = "SELECT true FROM responder WHERE responder_id = $1 AND erased_at IS NULL"
    if manager is not None and not await tx.fetchval(known, manager):
        raise NotFound("manager: there is no such responder", [Fault("/manager", "there is no such responder")])


async def site_row(tx: Tx, site_id: UUID, *, lock: bool = False) -> Row:
    """A site with the headcount that stands.

    Raises
    ------
    NotFound
    """
    if lock:
        # A statement of its own: one that waits for the lock would look for the headcount as it was before.
        await tx.execute("SELECT 1 FROM site WHERE site_id = $1 FOR UPDATE", site_id)
    row = await tx.fetchrow(f"{_SITE} WHERE s.site_id = $1", site_id)
    if row is None:
        raise NotFound(f"there is no site {site_id}")
    return row


def require_writer(actor: Actor, row: Row, *, counting: bool = False) -> None:
    """Admit a desk for the site's operation and a partner for its own site; `counting`: also who manages it.

    Raises
    ------
    Unauthenticated, Forbidden
    """
    if counting and actor.role == "responder" and row["manager"] is not None and actor.subject == str(row["manager"]):
        return
    if counting:
        actor.require("field", "operator", "partner")
    else:
        actor.require("operator", "partner")
    if actor.role == "partner" and row["organisation"] != actor.organisation:
        raise Forbidden("this site is not of the token's organisation")
    actor.require_operation(row["operation"])


async def change_site(tx: Tx, actor: Actor, site_id: UUID, change: SiteChange) -> Row:
    """Change a site, move it to another operation or area, or close it.

    Raises
    ------
    NotFound, Forbidden
    Conflict
        It is closed; or it would go from life into a drill, or the reverse.
    """
    row = await site_row(tx, site_id, lock=True)
    require_writer(actor, row)
    changes = change.changes()
    closing = changes.pop("closed", False)
    location = changes.pop("location", None)
    if location is not None:
        changes |= {"lon": location.lon, "lat": location.lat, "place": masked(location.place)}
    if "name" in changes:
        changes["name"] = masked(changes["name"])
    if "facilities" in changes:
        changes["facilities"] = list(changes["facilities"])
    if actor.role == "partner" and changes.get("organisation", actor.organisation) != actor.organisation:
        raise not_yours("/organisation")
    if "manager" in changes:
        await _known_manager(tx, changes["manager"])
    if "operation" in changes:
        drills = await exercises(tx, {changes["operation"]})
        if changes["operation"] not in drills:
            raise unknown_operation(changes["operation"])
        actor.require_operation(changes["operation"])
        if drills[changes["operation"]] != row["exercise"]:
            reason = "a site of a drill stays in drills, and one of life in life"
            raise Conflict(reason, [Fault("/operation", reason)])
    if changes.get("moved_to") is not None:
        await _successor(tx, row, changes["moved_to"], closing=closing)
    changed = {name: value for name, value in changes.items() if row[name] != value}
    if row["closed_at"] is not None and (changed or closing):
        raise Conflict("this site is closed; open a new one", [Fault("", "closed sites stay as they are")])
    if not changed and not closing:
        return row
    after = dict(row) | changed
    now = clock.now()
    await tx.execute(
        """
        UPDATE site SET kind = $2, name = $3, lon = $4, lat = $5, place = $6, admin = $7, organisation = $8,
               operation = $9, capacity = $10, facilities = $11, manager = $12, moved_to = $13, closed_at = $14,
               status = CASE WHEN $14::timestamptz IS NULL THEN 'open' ELSE 'closed' END, updated_at = $15
        WHERE site_id = $1
        """,
        site_id,
        *(
            after[name]
            for name in (
                "kind", "name", "lon", "lat", "place", "admin", "organisation", "operation", "capacity", "facilities",
                "manager", "moved_to",
            )
        ),
        now if closing else None,
        now,
    )  # fmt: skip
    row = await site_row(tx, site_id)
    model = SiteClosed if closing else SiteUpdated
    await outbox.append(tx, [model(**site_fields(row), by=actor.name, reason=masked(change.reason))])
    return row


async def _successor(tx: Tx, row: Row, moved_to: UUID, *, closing: bool) -> None:
    """The people of a site that closes went to another open one of the same kind of operation."""
    if not closing:
        raise Conflict("only a site that closes hands its people on", [Fault("/moved_to", "close the site as well")])
    other = await tx.fetchrow("SELECT * FROM site WHERE site_id = $1", moved_to)
    if other is None or moved_to == row["site_id"]:
        raise NotFound("moved_to: there is no such other site", [Fault("/moved_to", "there is no such other site")])
    if other["closed_at"] is not None or other["exercise"] != row["exercise"]:
        reason = "that site is closed, or is not of the same life or drill"
        raise Conflict(reason, [Fault("/moved_to", reason)])


async def count_people(tx: Tx, actor: Actor, site_id: UUID, order: HeadcountOrder) -> tuple[Row, Headcount, bool]:
    """Take a headcount; the site after it, the count, and whether it stands. One that was taken earlier than the one
    that stands is kept beside it.

    Raises
    ------
    NotFound, Forbidden
    Conflict
        The site is closed.
    """
    row = await site_row(tx, site_id, lock=True)
    require_writer(actor, row, counting=True)
    if row["closed_at"] is not None:
        raise Conflict("this site is closed; nobody is counted there", [Fault("", "the site is closed")])
    now = clock.now()
    count = order.counted(ids.uuid7(), min(order.counted_at or now, now), actor.name)
    standing = headcounts.stands(count, _standing(row))
    await tx.execute(
        "INSERT INTO headcount (count_id, site_id, counted_at, count, taken_at) VALUES ($1, $2, $3, $4, $5)",
        count.count_id,
        site_id,
        count.counted_at,
        count.model_dump_json(),
        now,
    )
    await tx.execute(
        "UPDATE site SET counts = counts + 1, standing = CASE WHEN $2 THEN $3 ELSE standing END, updated_at = $4 "
        "WHERE site_id = $1",
        site_id,
        standing,
        count.count_id,
        now,
    )
    row = await site_row(tx, site_id)
    await outbox.append(tx, [SiteCounted(**site_fields(row), counted=count, by=actor.name)])
    return row, count, standing


def _standing(row: Row) -> Headcount | None:
    return Headcount(**from_json(row["stands"])) if row["stands"] is not None else None


def site_fields(row: Row) -> dict[str, Any]:
    """A row as the fields of its event."""
    names = (
        "site_id", "code", "kind", "name", "status", "place", "admin", "organisation", "operation", "exercise",
        "capacity", "facilities", "counts", "moved_to", "opened_at", "closed_at",
    )  # fmt: skip
    headcount = _standing(row)
    return {name: row[name] for name in names} | {
        "point": {"lon": row["lon"], "lat": row["lat"]} if row["lon"] is not None else None,
        "headcount": headcount,
        # Nobody is at a closed site, whatever was counted there last.
        "alarm": headcounts.alarm(headcount.people if headcount else None, row["capacity"])
        if row["closed_at"] is None
        else "none",
    }


def shown_site(row: Row, *, manager: bool = False) -> dict[str, Any]:
    """A site as routes show it; `manager`: with the id of who manages it."""
    state = SiteState(**site_fields(row), by="").model_dump(mode="json", exclude={"by", "reason", "counted", "point"})
    location = {"lon": row["lon"], "lat": row["lat"], "place": row["place"]}
    return state | {"location": location} | ({"manager": row["manager"]} if manager else {})
