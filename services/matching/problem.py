"""What a plan is made from: needs, people and stock as the tables have them, and the rules they are judged by."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from services.matching import domain, engine
from services.matching.settings import MatchingSettings
from services.runtime import clock
from services.runtime.db import Row, Tx, from_json

_FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Scope:
    """What one plan covers: all of life, or all drills."""

    exercise: bool


@dataclass(slots=True)
class Problem:
    """What a plan is made from, as the tables had it. `asked`: open offers by pair of need and source, oldest first;
    those of needs that are not planned for any more among them."""

    now: datetime
    needs: list[engine.NeedLine]
    responders: list[engine.Responder]
    lots: list[engine.Lot]
    asked: dict[tuple[UUID, UUID], list[Row]]
    version: dict[UUID, int]
    rules: engine.Settings

    @property
    def size(self) -> int:
        return len(self.needs) + len(self.responders) + len(self.lots)

    @property
    def kept(self) -> list[engine.Kept]:
        planned = set(self.version)
        return [
            engine.Kept(need_id, source_id, sum(offer["quantity"] for offer in offers), "offered")
            for (need_id, source_id), offers in self.asked.items()
            if need_id in planned and not any(offer["extra"] for offer in offers)
        ]


async def load(tx: Tx, scope: Scope, now: datetime, settings: MatchingSettings | None = None) -> Problem:
    """Needs still open or under question, whoever is confirmed, and stock that is not promised."""
    settings = settings or MatchingSettings()
    asked = await asked_of(tx, scope, None)
    rows, needs = await needs_of(tx, scope, now, None)
    items = sorted({row["item"] for row in rows if row["item"]})
    return Problem(
        now=now,
        needs=needs,
        # All of them, or none where no skill is asked for: how rare a skill is counts in the plan.
        responders=await responders_of(tx, scope, now, None, settings) if any(row["skill"] for row in rows) else [],
        lots=await lots_of(tx, scope, items, None) if items else [],
        asked=asked,
        version={row["need_id"]: row["version"] for row in rows},
        rules=rules_of(settings, await zones_of(tx, scope, now)),
    )


async def asked_of(tx: Tx, scope: Scope, some: Sequence[UUID] | None) -> dict[tuple[UUID, UUID], list[Row]]:
    """Open offers of some needs (None: all) by pair, oldest first."""
    asked: dict[tuple[UUID, UUID], list[Row]] = {}
    for offer in await tx.fetch(
        "SELECT * FROM offer WHERE state = 'made' AND exercise = $1 AND ($2::uuid[] IS NULL OR need_id = ANY($2)) "
        "ORDER BY offer_id",
        scope.exercise,
        some,
    ):
        asked.setdefault((offer["need_id"], offer["responder_id"] or offer["lot_id"]), []).append(offer)
    return asked


async def needs_of(
    tx: Tx, scope: Scope, now: datetime, some: Sequence[UUID] | None
) -> tuple[list[Row], list[engine.NeedLine]]:
    """Those of some needs (None: of all) that are to be planned."""
    if some is not None and not some:
        return [], []
    rows = await tx.fetch(
        """
        SELECT n.*, o.hazards AS operation_hazards,
               ARRAY(SELECT r.source_id FROM refusal AS r WHERE r.need_id = n.need_id AND r.until > $4) AS refused
        FROM need AS n LEFT JOIN operation AS o USING (operation)
        WHERE n.exercise = $1 AND n.status = 'declared' AND n.open + n.offered > 0 AND n.lon IS NOT NULL
          AND n.window_end > $2 AND o.closed_at IS NULL AND ($3::uuid[] IS NULL OR n.need_id = ANY($3))
        ORDER BY n.need_id
        """,
        scope.exercise,
        now + timedelta(seconds=2),  # the engine counts whole seconds
        some,
        now,
    )
    return rows, [need_line(row, row["refused"]) for row in rows]


def need_line(row: Row, refused: Sequence[UUID]) -> engine.NeedLine:
    return engine.NeedLine(
        need_id=row["need_id"],
        kind="item" if row["item"] else "skill",
        code=row["item"] or row["skill"],
        lon=row["lon"],
        lat=row["lat"],
        start=row["window_start"],
        end=max(row["window_end"], row["window_start"] + timedelta(seconds=1)),
        quantity=row["open"] + row["offered"],
        severity=row["severity"],
        level=row["level"],
        certificates=frozenset(row["certificates"]),
        languages=frozenset(row["languages"]),
        declared_at=row["declared_at"],
        area=row["admin"],
        bundle_id=row["bundle_id"],
        exclude=refused,
        vulnerability=domain.vulnerability(row["vulnerable"]),
        hazards=frozenset([row["hazard"]] if row["hazard"] else row.get("operation_hazards") or ()),
    )


async def responders_of(
    tx: Tx, scope: Scope, now: datetime, some: Sequence[UUID] | None, settings: MatchingSettings
) -> list[engine.Responder]:
    """Some responders (None: all) who may be asked, with what they are promised to and how long they worked."""
    if some is not None and not some:
        return []
    busy: dict[UUID, list[tuple[datetime, datetime]]] = {}
    worked: dict[UUID, float] = {}
    day_ago = now - timedelta(hours=24)
    for row in await tx.fetch(
        "SELECT responder_id, period FROM assignment "
        "WHERE responder_id IS NOT NULL AND exercise = $1 "
        "AND (state <> 'abandoned' OR started_at IS NOT NULL) AND upper(period) > $2 "
        "AND ($3::uuid[] IS NULL OR responder_id = ANY($3))",
        scope.exercise,
        now - domain.LONGEST_REST,
        some,
    ):
        who, start, end = row["responder_id"], row["period"].lower, row["period"].upper
        # What is over counts as well: rest follows it.
        busy.setdefault(who, []).append((start, end))
        hours = (min(end, now) - max(start, day_ago)) / timedelta(hours=1)
        worked[who] = worked.get(who, 0.0) + max(0.0, hours)
    weary = await tx.fetch(
        """
        SELECT responder_id FROM offer
        WHERE made_at > $1 AND exercise = $2 AND responder_id IS NOT NULL
          AND ($3::uuid[] IS NULL OR responder_id = ANY($3))
        GROUP BY responder_id HAVING count(*) >= $4 AND NOT bool_or(state = 'made')
        """,
        day_ago,
        scope.exercise,
        some,
        settings.asked_a_day,
    )
    # A drill may ask anybody; life asks nobody who exists only for drills.
    rows = await tx.fetch(
        "SELECT * FROM responder WHERE status = 'confirmed' AND lon IS NOT NULL AND (NOT exercise OR $1) "
        "AND ($2::uuid[] IS NULL OR responder_id = ANY($2)) AND responder_id <> ALL($3)",
        scope.exercise,
        some,
        [row["responder_id"] for row in weary],
    )
    # A hundred thousand of them take a second or two to make: not on the loop that handles events.
    return await asyncio.to_thread(_made_responders, rows, busy, worked)


def _made_responders(
    rows: Sequence[Row], busy: Mapping[UUID, Sequence[tuple[datetime, datetime]]], worked: Mapping[UUID, float]
) -> list[engine.Responder]:
    return [
        engine.Responder(
            responder_id=row["responder_id"],
            lon=row["lon"],
            lat=row["lat"],
            skills=from_json(row["skills"]),
            certificates={
                code: datetime.fromisoformat(until) if until else _FOREVER
                for code, until in from_json(row["certificates"]).items()
            },
            languages=tuple(row["languages"]),
            travel_limit_km=row["travel_limit_km"],
            capacity=row["capacity"],
            minimum_team=min(row["minimum_team"], row["capacity"]),
            available=[
                (datetime.fromisoformat(start), datetime.fromisoformat(end))
                for start, end in from_json(row["availability"])
            ],
            busy=busy.get(row["responder_id"], ()),
            hours_worked=worked.get(row["responder_id"], 0.0),
            organisation=row["organisation"],
            p_accept=domain.chance_of_yes(row["said_yes"], row["said_no"]),
            rest_s=None if row["rest_h"] is None else round(row["rest_h"] * 3600),
            max_hours=row["max_hours_day"],
            avoids=frozenset(row["avoids"]),
        )
        for row in rows
    ]


async def lots_of(tx: Tx, scope: Scope, items: Sequence[str] | None, some: Sequence[UUID] | None) -> list[engine.Lot]:
    """What is free of some lots, or of all (None), that hold one of these items (None: any). What is only pledged is
    not there yet."""
    if some is not None and not some:
        return []
    rows = await tx.fetch(
        "SELECT *, quantity - reserved - given AS free, crew <> '[]' AS with_crew FROM lot "
        "WHERE exercise = $1 AND ($2::text[] IS NULL OR item = ANY($2)) AND status = 'available' AND lon IS NOT NULL "
        "AND kind <> 'pledge' "
        "AND quantity > reserved + given AND ($3::uuid[] IS NULL OR lot_id = ANY($3))",
        scope.exercise,
        items,
        some,
    )
    crewed = await _crewed(tx, scope, [row for row in rows if row["with_crew"]])
    return [
        engine.Lot(
            lot_id=row["lot_id"],
            item=row["item"],
            lon=row["lon"],
            lat=row["lat"],
            quantity=row["free"],
            delivery_limit_km=row["delivery_limit_km"],
            expires_at=row["expires_at"],
            organisation=row["organisation"],
            crewed=crewed.get(row["lot_id"]),
        )
        for row in rows
    ]


async def with_crews(tx: Tx, scope: Scope) -> list[UUID]:
    """The lots that go with a crew only."""
    rows = await tx.fetch("SELECT lot_id FROM lot WHERE exercise = $1 AND crew <> '[]' ORDER BY lot_id", scope.exercise)
    return [row["lot_id"] for row in rows]


async def _crewed(tx: Tx, scope: Scope, lots: Sequence[Row]) -> dict[UUID, int]:
    """For how many units of these lots, beyond those promised, there is a crew now.

    A crew is of people who are confirmed, promised to nothing now, of the holder (of nobody, for what nobody holds),
    and whose home is no farther from the lot than they travel. One lot after the other takes its own from them.
    """
    if not lots:
        return {}
    needed = {lot["lot_id"]: [domain.Crew(**part) for part in from_json(lot["crew"])] for lot in lots}
    rows = await tx.fetch(
        """
        SELECT r.responder_id, r.organisation, r.skills, r.capacity, r.lon, r.lat, r.travel_limit_km FROM responder AS r
        WHERE r.status = 'confirmed' AND r.lon IS NOT NULL AND (NOT r.exercise OR $1) AND r.skills ?| $2
          AND (r.organisation IS NULL OR r.organisation = ANY($3))
          AND NOT EXISTS (SELECT FROM assignment AS a WHERE a.responder_id = r.responder_id AND a.exercise = $1
                          AND a.state = ANY($4) AND a.period @> $5::timestamptz)
        ORDER BY r.responder_id
        """,
        scope.exercise,
        sorted({part.skill for crew in needed.values() for part in crew}),
        sorted({lot["organisation"] for lot in lots if lot["organisation"]}),
        list(domain.ACTIVE),
        clock.now(),
    )
    left = {row["responder_id"]: row for row in rows}
    found: dict[UUID, int] = {}
    for lot in sorted(lots, key=lambda lot: str(lot["lot_id"])):
        hands = [
            domain.Hand(who, from_json(row["skills"]), row["capacity"])
            for who, row in left.items()
            if row["organisation"] == lot["organisation"]
            and engine.distance_km(row["lon"], row["lat"], lot["lon"], lot["lat"]) <= row["travel_limit_km"]
        ]
        promised = lot["reserved"] + lot["given"]
        count, taken = domain.manned(lot["quantity"], needed[lot["lot_id"]], hands)
        # Whoever is on what is promised already is not promised anything themselves: their seats come off first.
        found[lot["lot_id"]] = max(0, count - promised)
        for who in taken:
            del left[who]
    return found


async def zones_of(tx: Tx, scope: Scope, now: datetime) -> tuple[engine.HazardZone, ...]:
    """Areas that nobody is sent into, now or later."""
    rows = await tx.fetch(
        "SELECT zone_id, polygon, upper(period) AS upper, lower(period) AS lower FROM hazard_zone "
        "WHERE exercise = $1 AND lifted_at IS NULL AND upper(period) > $2 ORDER BY zone_id",
        scope.exercise,
        now,
    )
    return tuple(
        engine.HazardZone(row["zone_id"], [(x, y) for x, y in from_json(row["polygon"])], row["lower"], row["upper"])
        for row in rows
    )


def rules_of(settings: MatchingSettings, zones: Sequence[engine.HazardZone] = ()) -> engine.Settings:
    """The engine's rules as this installation has them. A promise binds a whole team for its time, so none is split."""
    return engine.Settings(
        ladder=settings.ladder,
        policy_weights=settings.policy_weights,
        lift_after_s=round(settings.lift_after_hours * 3600) or None,
        switch_tax={"proposed": 500, "offered": settings.offer_tax},
        split_teams=False,
        zones=zones,
    )


def solved(problem: Problem) -> engine.Plan:
    """The best plan, worked out here and now."""
    return engine.solve(problem.needs, problem.responders, problem.lots, problem.rules, problem.kept, now=problem.now)
