"""A situation report from its parts: what stands at a position of the log, the document, the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from schemas.sitreps import SilenceNoticed
from services.runtime.db import Tx
from services.sitrep import checkpoints, domain, log, tally
from services.sitrep.checkpoints import view_of, views_at
from services.sitrep.document import Found, find, report, top_of
from services.sitrep.domain import IncidentView, OperationView, Scope, SilenceView, SiteView
from services.sitrep.render import csvdoc, html, jsondoc, markdown

Format = Literal["md", "html", "json", "csv"]
Lang = Literal["id", "en"]
MEDIA_TYPES: dict[Format, str] = {
    "md": "text/markdown; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}
_RENDER: dict[Format, Callable[[dict[str, Any], Lang], bytes]] = {
    "md": markdown.render,
    "html": html.render,
    "json": jsondoc.render,
    "csv": csvdoc.render,
}


async def document(
    tx: Tx, position: int, scope: Scope, *, exact: bool, veiled: bool = False, since: int | None = None
) -> dict[str, Any]:
    """The report at this position as a document. `since`: the position it is compared with; None: that of a day
    before."""
    return report(await found_at(tx, position, scope, since), scope, exact=exact, veiled=veiled)


async def found_at(tx: Tx, position: int, scope: Scope, since: int | None = None) -> Found:
    """What a report at this position says."""
    await checkpoints.hold_still(tx)
    received_at = await _received(tx, position)
    day = 0 if received_at is None else await _before(tx, received_at)
    since = day if since is None else min(since, position)
    counted = await checkpoints.tally_at(tx, position)
    then = {at: await checkpoints.tally_at(tx, at) for at in {day, since}}
    wanted = top_of(counted, scope)
    return find(
        scope,
        position=position,
        received_at=received_at,
        redacted=await tx.fetchval("SELECT count(*) FROM log WHERE data IS NULL AND position <= $1", position),
        operations=await operations_at(tx, position),
        counted=counted,
        incidents=await views_at(tx, "incident", IncidentView, wanted, position),
        sites=await sites_at(tx, position),
        silences=await silences_at(tx, position, day),
        day=(day, await _received(tx, day), then[day]),
        since=(since, await _received(tx, since), then[since]),
    )


async def _received(tx: Tx, position: int) -> datetime | None:
    found: datetime | None = await tx.fetchval("SELECT received_at FROM log WHERE position = $1", position)
    return found


async def _before(tx: Tx, instant: datetime) -> int:
    """The last position a day before this instant."""
    found = await tx.fetchval(
        "SELECT position FROM log WHERE received_at <= $1 ORDER BY received_at DESC, position DESC LIMIT 1",
        instant - domain.RECENT,
    )
    return int(found or 0)


async def operations_at(tx: Tx, position: int) -> list[OperationView]:
    """The operations as they stood at this position; each is looked up, however many versions it has."""
    columns = ", ".join(field.name for field in fields(OperationView))
    rows = await tx.fetch(
        f"""
        WITH RECURSIVE named AS (
            (SELECT operation_id FROM operation ORDER BY operation_id LIMIT 1)
            UNION ALL
            SELECT (SELECT o.operation_id FROM operation AS o WHERE o.operation_id > named.operation_id
                    ORDER BY o.operation_id LIMIT 1)
            FROM named WHERE named.operation_id IS NOT NULL
        )
        SELECT v.* FROM named, LATERAL (
            SELECT {columns} FROM operation WHERE operation_id = named.operation_id AND from_position <= $1
            ORDER BY from_position DESC LIMIT 1) AS v
        """,
        position,
    )
    return [view_of(OperationView, row) for row in rows]


async def sites_at(tx: Tx, position: int) -> list[SiteView]:
    """The open sites as they stood at this position."""
    columns = ", ".join(field.name for field in fields(SiteView))
    rows = await tx.fetch(
        f"SELECT {columns} FROM site WHERE status = 'open' AND from_position <= $1 AND until_position > $1", position
    )
    return [view_of(SiteView, row) for row in rows]


async def silences_at(tx: Tx, position: int, after: int) -> list[SilenceView]:
    """What was noticed between these positions, oldest first."""
    found = []
    for entry in await log.told_by(tx, SilenceNoticed.topic, after, position):
        if isinstance(entry.event, SilenceNoticed):
            found.append(SilenceView.of(entry, entry.event))
    return found


def found_in(
    state: domain.State,
    scope: Scope,
    day: domain.State,
    since: domain.State | None = None,
) -> Found:
    """The same by the definition: from the folds of the log up to here, a day before, and the report before."""
    counted = tally.whole(state)
    incidents: dict[UUID, IncidentView] = {key: state.incidents[key] for key in top_of(counted, scope)}
    since = since or day
    return find(
        scope,
        position=state.position,
        received_at=state.received_at,
        redacted=state.redacted,
        operations=state.operations.values(),
        counted=counted,
        incidents=incidents,
        sites=state.sites.values(),
        silences=state.silences,
        day=(day.position, day.received_at, tally.whole(day)),
        since=(since.position, since.received_at, tally.whole(since)),
    )


def rendered(report: dict[str, Any], form: Format, lang: Lang) -> bytes:
    """The document in one of the formats: the same document gives the same bytes."""
    return _RENDER[form](report, lang)
