"""What the engine is given, what it gives back, and the arrays it works on.

Plain data only: no I/O, no clock (`now` is an argument), no randomness. Everything is put in order of ids before it is
numbered, so the order in which needs and responders arrive changes nothing.
"""

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal
from uuid import UUID

import numpy as np
import numpy.typing as npt

from services.matching import domain

Id = str | UUID
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

FOREVER = 2**62
"""An instant after all others, in seconds."""
EARTH_KM = 6371.0088
COST_MAX = 10_000
"""No unit served costs more than this, without the switch tax."""
UNREACHED = 2**61
"""A price no path can reach; what no one can pay."""


@dataclass(frozen=True, slots=True)
class NeedLine:
    """Units of one skill or one item still to be covered at one place.

    `start` and `end` bound the work; `duration_s` says how long it takes within them (None: all of the window, worked
    in shifts). `exclude` holds responders and lots that may not serve it (declined, cool-down). `vulnerability` (0 to
    1), `declared_at` and `area` only order needs of one severity, except `Settings.lift_after_s`; `hazards` and `area`
    are also what somebody may not be sent into.
    """

    need_id: Id
    kind: Literal["skill", "item"]
    code: str
    lon: float
    lat: float
    start: datetime
    end: datetime
    quantity: int
    severity: int
    level: int = 0
    certificates: frozenset[str] = frozenset()
    languages: frozenset[str] = frozenset()
    declared_at: datetime | None = None
    area: str | None = None
    bundle_id: Id | None = None
    exclude: Collection[Id] = ()
    duration_s: int | None = None
    vulnerability: float = 0.0
    organisation: Id | None = None
    hazards: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Responder:
    """A person (capacity 1) or a team (capacity = people still free).

    A team may be split over several needs (unless `Settings.split_teams` is off), but goes to each with at least
    `minimum_team` people. `available` without windows means always; `busy` are periods
    already promised or worked. `travel_limit_km` is straight-line. `rest_s`: their own rest before and after every duty
    (None: `Settings.rest_s` around long ones). `max_hours`: so many in any 24 (None: as the settings say);
    `hours_worked` of the last 24. `avoids`: hazards and areas into which they are not sent.
    """

    responder_id: Id
    lon: float
    lat: float
    skills: Mapping[str, int]
    certificates: Mapping[str, datetime] = field(default_factory=dict)
    languages: Collection[str] = ()
    travel_limit_km: float = 25.0
    capacity: int = 1
    minimum_team: int = 1
    available: Sequence[tuple[datetime, datetime]] = ()
    busy: Sequence[tuple[datetime, datetime]] = ()
    hours_worked: float = 0.0
    organisation: Id | None = None
    p_accept: float = 0.5
    rest_s: int | None = None
    max_hours: float | None = None
    avoids: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Lot:
    """A stock of one item at one place; `quantity` is what is not reserved yet, in the item's unit. `crewed`: for how
    many of them there is a crew (None: none is needed)."""

    lot_id: Id
    item: str
    lon: float
    lat: float
    quantity: int
    delivery_limit_km: float = 200.0
    expires_at: datetime | None = None
    organisation: Id | None = None
    crewed: int | None = None

    @property
    def units(self) -> int:
        """What may be sent."""
        return self.quantity if self.crewed is None else min(self.quantity, self.crewed)


@dataclass(frozen=True, slots=True)
class HazardZone:
    """An area nobody may enter or leave for a time; `polygon` is one ring of (lon, lat)."""

    zone_id: Id
    polygon: Sequence[tuple[float, float]]
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Kept:
    """Units of the plan in force, which it costs `Settings.switch_tax[state]` to move."""

    need_id: Id
    source_id: Id
    quantity: int
    state: str = "proposed"


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operations centre may decide about the plan.

    `ladder` strict: no number of lower needs outweighs one unit of a higher severity. `policy_weights` are used with
    ladder "policy" and wherever bundles are weighed. The weights of cost parts are for one unit and sum to at most
    10,000. Age, vulnerability and equity weigh inside one severity only: together they stay below one step. Equity: of
    all units of one area and severity, the last half costs `equity_weight` more to leave unmet than the first quarter
    (see `with_allowances`). `lift_after_s`: a need that waits longer than this counts one level higher (None: never).
    Beyond `most_pairs` near pairs (a crowded city) a plan
    begins with the `first_pairs` cheapest of each need and adds what its prices ask for, until nothing is missing:
    the same optimum in less memory and more time.
    """

    ladder: Literal["strict", "policy"] = "strict"
    policy_weights: tuple[int, int, int, int] = (20_000, 40_000, 80_000, 160_000)
    switch_tax: Mapping[str, int] = field(default_factory=lambda: {"proposed": 500, "offered": 1500})
    lift_after_s: int | None = None
    age_full_s: int = 24 * 3600
    age_weight: int = 3000
    vulnerability_weight: int = 3000
    equity_weight: int = 6000
    speed_kmh: float = 30.0
    detour: float = 1.3
    travel_reference_km: float = 25.0
    delivery_reference_km: float = 200.0
    max_hours: float = 12.0
    shift_s: int = 8 * 3600
    long_shift_s: int = 8 * 3600
    rest_s: int = 8 * 3600
    minimum_stay_s: int = 1800
    travel_weight: int = 6000
    fatigue_weight: int = 1200
    decline_weight: int = 800
    level_weight: int = 400
    rarity_weight: int = 300
    organisation_weight: int = 200
    shelf_weight: int = 600
    zones: Sequence[HazardZone] = ()
    split_teams: bool = True
    lumpy_seconds: float = 5.0
    most_pairs: int = 12_000_000
    first_pairs: int = 64
    explain_unmet: int = 200

    def __post_init__(self) -> None:
        people = (
            self.travel_weight
            + self.fatigue_weight
            + self.decline_weight
            + 2 * self.level_weight
            + 3 * self.rarity_weight
            + self.organisation_weight
            + TIE_MAX
        )
        stock = self.travel_weight + self.shelf_weight + self.organisation_weight + TIE_MAX
        if max(people, stock) > COST_MAX:
            raise ValueError(f"the weights of the cost parts sum to {max(people, stock)}, more than {COST_MAX}")
        inside, steps = self.in_level, [b - a for a, b in pairwise((0, *self.policy_weights))]
        if min(self.age_weight, self.vulnerability_weight, self.equity_weight) < 0 or inside >= min(steps):
            raise ValueError(
                f"age, vulnerability and equity weigh {inside} together, not less than a step of severity, {min(steps)}"
            )

    @property
    def in_level(self) -> int:
        """What an unmet unit can weigh more than another of its severity, at most."""
        return self.age_weight + self.vulnerability_weight + self.equity_weight


TIE_MAX = 31
"""The tie breaker of a pair, from its ids: at most this much of COST_MAX."""

PARTS = ("travel", "fatigue", "decline", "level", "rarity", "organisation", "shelf", "tie")
"""Cost parts in the order of `Assignment.parts`."""

FILTERS = (
    "code",
    "level",
    "certificate",
    "language",
    "excluded",
    "conditions",
    "travel",
    "zone",
    "window",
    "busy",
    "hours",
    "team",
    "crew",
    "stock",
    "expiry",
)
"""Hard rules in the order in which explanations count them."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Units of one need given to one responder or lot, with the price of a unit and its parts.

    `starts_at` and `ends_at` bound the time for which a person is taken up (from setting out, at the latest from the
    start of the window): what a rule against overlap has to store. `rank` is by cost among all `feasible` sources;
    taking the best `other` instead (None: leaving a unit unmet) would cost the whole plan at least `other_price` more.
    """

    need_id: Id
    source_id: Id
    quantity: int
    cost: int
    parts: Mapping[str, int]
    km: float
    arrives_at: datetime
    starts_at: datetime
    ends_at: datetime
    rank: int
    feasible: int
    other: Id | None
    other_price: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan, with the proof that it is the best one.

    `objective` = costs of served units + weights of unmet units + switch tax of units moved; `bound` comes from the
    duals alone, so `gap` = objective - bound is zero exactly when the plan is proved optimal. Bundles and minimum
    teams can leave a gap, and `method` says how they were met. `unmet_by_severity` goes by declared severity.
    `shadow` is what one more unit of capacity would save at each unmet need; `prices` what losing one unit of a
    used-up responder or lot would cost. `filters` counts for needs with unmet units who is left after each hard rule,
    in the order of FILTERS; `held` names (source, need it serves instead) of the cheapest who were feasible.
    """

    assignments: tuple[Assignment, ...]
    unmet: Mapping[Id, int]
    objective: int
    bound: int
    gap: int
    units: int
    met: int
    unmet_by_severity: Mapping[int, int]
    switch_tax_paid: int
    moved_units: int
    lifted: Mapping[Id, int]
    weights: Mapping[Id, int]
    shadow: Mapping[Id, int]
    prices: Mapping[Id, int]
    filters: Mapping[Id, Mapping[str, int]]
    held: Mapping[Id, tuple[tuple[Id, Id], ...]]
    incomplete_bundles: tuple[Id, ...] = ()
    method: str = "flow"

    def to_bytes(self) -> bytes:
        """One canonical form: equal plans give equal bytes."""
        return json.dumps(_plain(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(value: Any) -> Any:
    if isinstance(value, (Plan, Assignment)):
        return {name: _plain(getattr(value, name)) for name in value.__slots__}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value


# --------------------------------------------------------------------------------------------------------------- arrays
@dataclass(slots=True)
class Arrays:
    """The problem as numpy arrays: N need lines, S sources (responders and lots together), times in whole seconds.

    `holder_*` are the triples (code, source, level), sorted by code, then source. `certificate_until[p, s]` is the time
    until which source s holds all certificates of profile p; `language_ok[p, s]` the same for languages. Profile 0 asks
    for nothing. `barred[w, v]`: who avoids the things of profile v is not sent to needs of profile w. `allowance` holds
    triples (source, group, discount): see `with_allowances`. `window_*` and `busy_*` are
    S x K, padded with windows that hold nothing and periods that never are. `excluded` holds need * S + source, sorted.
    `need_hash` and `source_hash` break ties.
    """

    now: int
    need_code: npt.NDArray[np.int32]
    need_level: npt.NDArray[np.int8]
    need_xyz: Floats
    need_start: Ints
    need_end: Ints
    need_duration: Ints  # -1: the whole window
    need_quantity: Ints
    need_severity: Ints
    need_extra: Ints
    need_certificates: npt.NDArray[np.int32]
    need_languages: npt.NDArray[np.int32]
    need_organisation: npt.NDArray[np.int32]
    need_item: Bools
    need_open: Bools  # False: closed by a hazard zone for the whole window
    need_where: npt.NDArray[np.int32]
    need_hash: npt.NDArray[np.uint64]
    source_xyz: Floats
    source_capacity: Ints
    source_minimum: Ints
    source_limit_km: Floats
    source_ready: Ints
    source_hours: Floats
    source_max_hours: Floats
    source_avoids: npt.NDArray[np.int32]
    source_crewed: Bools
    source_accept: Floats
    source_expires: Ints
    source_organisation: npt.NDArray[np.int32]
    source_lot: Bools
    source_whole: Bools  # a team that is not split over needs
    source_rarity: Floats
    source_hash: npt.NDArray[np.uint64]
    window_start: Ints
    window_end: Ints
    window_count: Ints
    busy_start: Ints
    busy_end: Ints
    busy_count: Ints
    busy_rest: Ints  # by how much a busy period was made longer at either end
    holder_code: npt.NDArray[np.int32]
    holder_source: npt.NDArray[np.int32]
    holder_level: npt.NDArray[np.int8]
    certificate_until: Ints
    language_ok: Bools
    barred: Bools
    excluded: Ints
    bundle: npt.NDArray[np.int32]  # -1: none
    group: npt.NDArray[np.int32]  # area of the need, -1: none; with allowances: its area and severity
    allowance: Ints = field(default_factory=lambda: np.zeros((0, 3), np.int64))

    @property
    def needs(self) -> int:
        return len(self.need_code)

    @property
    def sources(self) -> int:
        return len(self.source_capacity)


NEED_FIELDS = {f for f in Arrays.__slots__ if f.startswith("need_")} | {"bundle", "group"}
SOURCE_FIELDS = {f for f in Arrays.__slots__ if f.startswith("source_")}
SPAN_FIELDS = {f for f in Arrays.__slots__ if f.startswith(("window_", "busy_"))}


@dataclass(slots=True)
class Index:
    """Which id stands behind which number of the arrays."""

    needs: list[NeedLine]
    sources: list[Responder | Lot]
    codes: dict[tuple[str, str], int]
    certificates: dict[frozenset[str], int]
    languages: dict[frozenset[str], int]
    wheres: dict[frozenset[str], int]
    avoids: dict[frozenset[str], int]
    organisations: dict[str, int]
    skill_counts: dict[str, int]
    people: int
    numbers: dict[str, int]  # source by id; the newest where one was registered again
    bundles: list[Id]
    lifted: dict[Id, int]
    groups: dict[tuple[str, int], int]  # number by area and severity, where equity is weighed


def seconds(at: datetime) -> int:
    """Whole seconds since 1970; refuses a time without a zone, which would be read in the zone of the machine."""
    if at.tzinfo is None:
        raise ValueError(f"a time without a zone: {at.isoformat()}")
    return int(at.timestamp())


def unit_sphere(lon: Floats, lat: Floats) -> Floats:
    """Points on the unit sphere (n x 3): distances along the chord have no seam at the date line and no pole."""
    a, b = np.radians(lon), np.radians(lat)
    return np.column_stack((np.cos(b) * np.cos(a), np.cos(b) * np.sin(a), np.sin(b)))


def chord_of(km: float) -> float:
    """Chord on the unit sphere of a great-circle distance."""
    return 2.0 * float(np.sin(min(km / EARTH_KM, np.pi) / 2.0))


def km_of(chord: Floats) -> Floats:
    """Great-circle distance of chords on the unit sphere."""
    km: Floats = 2.0 * EARTH_KM * np.arcsin(np.minimum(chord / 2.0, 1.0))
    return km


def hashes(ids: Sequence[Id]) -> npt.NDArray[np.uint64]:
    """A number for each id that depends on nothing else (Python's own hash differs from run to run)."""
    return np.fromiter((zlib.crc32(str(one).encode()) for one in ids), np.uint64, len(ids))


def encode(
    needs: Sequence[NeedLine],
    responders: Sequence[Responder],
    lots: Sequence[Lot],
    settings: Settings,
    now: datetime,
) -> tuple[Arrays, Index]:
    """Number everything in order of ids. Raises ValueError for repeated ids and values out of range."""
    lines = sorted(needs, key=lambda n: str(n.need_id))
    sources: list[Responder | Lot] = sorted([*responders, *lots], key=lambda s: str(source_id(s)))
    ids = [source_id(s) for s in sources]
    if len({str(i) for i in ids}) < len(ids) or len({str(n.need_id) for n in lines}) < len(lines):
        raise ValueError("ids of needs, and of responders and lots together, must differ")
    for n in lines:
        if (
            n.quantity < 0
            or not 1 <= n.severity <= 4
            or seconds(n.end) <= seconds(n.start)
            or not 0 <= n.vulnerability <= 1
        ):
            raise ValueError(f"need {n.need_id}: quantity, severity, window or vulnerability out of range")
    for s in sources:
        if (s.units if isinstance(s, Lot) else min(s.capacity, s.minimum_team)) < 0:
            raise ValueError(f"{source_id(s)}: quantity, capacity and minimum team cannot be negative")
    number = {str(one): k for k, one in enumerate(ids)}
    at = seconds(now)
    count = len(sources)

    codes: dict[tuple[str, str], int] = {}
    for n in lines:
        codes.setdefault((n.kind, n.code), len(codes))
    triples: list[tuple[int, int, int]] = []
    common: dict[str, int] = {}
    for k, s in enumerate(sources):
        if isinstance(s, Lot):
            triples.append((codes.setdefault(("item", s.item), len(codes)), k, 0))
        else:
            for code, level in s.skills.items():
                common[code] = common.get(code, 0) + 1
                triples.append((codes.setdefault(("skill", code), len(codes)), k, level))
    triples.sort()
    holders = np.array(triples, np.int64).reshape(-1, 3)
    # Rarity is judged over all skills, also those nobody asks for now: they are what a waste would cost later.
    people = max(len(responders), 1)
    rare = np.array([_rarity(s, common, people) for s in sources], np.float64)

    certificate_profiles = _profiles([n.certificates for n in lines])
    language_profiles = _profiles([n.languages for n in lines])
    until = np.full((len(certificate_profiles), count), FOREVER, np.int64)
    speaks = np.ones((len(language_profiles), count), np.bool_)
    for names, p in certificate_profiles.items():
        if names:
            until[p] = [_until(s, names) for s in sources]
    for names, p in language_profiles.items():
        if names:
            speaks[p] = [_speaks(s, names) for s in sources]

    available = [() if isinstance(s, Lot) else _sorted_periods(s.available) for s in sources]
    rests = [() if isinstance(s, Lot) else _rests(s, settings) for s in sources]
    busy = [tuple((begin - rest, end + rest) for begin, end, rest in row) for row in rests]
    wheres = _profiles([_where(n) for n in lines])
    avoids = _profiles([frozenset() if isinstance(s, Lot) else s.avoids for s in sources])
    window_start, window_end, window_count = _ragged(available, FOREVER, -FOREVER)
    always = window_count == 0
    window_start[always, 0], window_end[always, 0], window_count[always] = -FOREVER, FOREVER, 1
    busy_start, busy_end, busy_count = _ragged(busy, FOREVER, -FOREVER)
    busy_rest, _, _ = _ragged([tuple((rest, rest) for _, _, rest in row) for row in rests], 0, 0)

    organisations: dict[str, int] = {}
    for one in [*lines, *sources]:
        if one.organisation is not None:
            organisations.setdefault(str(one.organisation), len(organisations))

    severity = np.array([n.severity for n in lines], np.int64)
    lifted: dict[Id, int] = {}
    extra = np.zeros(len(lines), np.int64)
    for k, n in enumerate(lines):
        if (counts_as := lifted_to(n, now, settings)) is not None:
            severity[k] = lifted[n.need_id] = counts_as
        extra[k] = _extra(n, at, settings)

    banned = sorted({k * count + number[str(x)] for k, n in enumerate(lines) for x in n.exclude if str(x) in number})
    bundles = sorted({str(n.bundle_id): n.bundle_id for n in lines if n.bundle_id is not None}.items())
    bundle_number = {text: k for k, (text, _) in enumerate(bundles)}
    areas = {a: k for k, a in enumerate(sorted({n.area for n in lines if n.area is not None}))}
    lon, lat = (np.array([getattr(x, f) for x in lines], np.float64) for f in ("lon", "lat"))
    slon, slat = (np.array([getattr(x, f) for x in sources], np.float64) for f in ("lon", "lat"))
    if not all(np.isfinite(x).all() and (np.abs(x) <= top).all() for x, top in ((lon, 360), (lat, 90), (slon, 360))):
        raise ValueError("positions must be degrees, lon before lat")
    start = np.array([seconds(n.start) for n in lines], np.int64)
    end = np.array([seconds(n.end) for n in lines], np.int64)
    start, opened = np.maximum(start, at), np.ones(len(lines), np.bool_)
    ready = np.full(count, at, np.int64)
    start, end, opened, ready = _close_zones(settings, at, (lon, lat, slon, slat), start, end, opened, ready)

    arrays = Arrays(
        now=at,
        need_code=np.array([codes[n.kind, n.code] for n in lines], np.int32),
        need_level=np.array([n.level for n in lines], np.int8),
        need_xyz=unit_sphere(lon, lat),
        need_start=start,
        need_end=end,
        need_duration=np.array([-1 if n.duration_s is None else n.duration_s for n in lines], np.int64),
        need_quantity=np.array([n.quantity for n in lines], np.int64),
        need_severity=severity,
        need_extra=extra,
        need_certificates=np.array([certificate_profiles[n.certificates] for n in lines], np.int32),
        need_languages=np.array([language_profiles[n.languages] for n in lines], np.int32),
        need_organisation=np.array([_owner(organisations, n.organisation) for n in lines], np.int32),
        need_item=np.array([n.kind == "item" for n in lines], np.bool_),
        need_open=opened,
        need_where=np.array([wheres[_where(n)] for n in lines], np.int32),
        need_hash=hashes([n.need_id for n in lines]),
        source_xyz=unit_sphere(slon, slat),
        source_capacity=np.array([s.units if isinstance(s, Lot) else s.capacity for s in sources], np.int64),
        source_minimum=np.array([1 if isinstance(s, Lot) else max(s.minimum_team, 1) for s in sources], np.int64),
        source_limit_km=np.array(
            [s.delivery_limit_km if isinstance(s, Lot) else s.travel_limit_km for s in sources], np.float64
        ),
        source_ready=ready,
        source_hours=np.array([0.0 if isinstance(s, Lot) else s.hours_worked for s in sources], np.float64),
        source_max_hours=np.array([_max_hours(s, settings) for s in sources], np.float64),
        source_avoids=np.array([0 if isinstance(s, Lot) else avoids[s.avoids] for s in sources], np.int32),
        source_crewed=np.array([not isinstance(s, Lot) or s.crewed is None or s.crewed > 0 for s in sources], np.bool_),
        source_accept=np.array([1.0 if isinstance(s, Lot) else s.p_accept for s in sources], np.float64),
        source_expires=np.array(
            [seconds(s.expires_at) if isinstance(s, Lot) and s.expires_at else FOREVER for s in sources], np.int64
        ),
        source_organisation=np.array([_owner(organisations, s.organisation) for s in sources], np.int32),
        source_lot=np.array([isinstance(s, Lot) for s in sources], np.bool_),
        source_whole=np.array(
            [not settings.split_teams and isinstance(s, Responder) and s.capacity > 1 for s in sources], np.bool_
        ),
        source_rarity=rare,
        source_hash=hashes(ids),
        window_start=window_start,
        window_end=window_end,
        window_count=window_count,
        busy_start=busy_start,
        busy_end=busy_end,
        busy_count=busy_count,
        busy_rest=busy_rest,
        holder_code=holders[:, 0].astype(np.int32),
        holder_source=holders[:, 1].astype(np.int32),
        holder_level=holders[:, 2].astype(np.int8),
        certificate_until=until,
        language_ok=speaks,
        barred=_barred(wheres, avoids),
        excluded=np.array(banned, np.int64),
        bundle=np.array([-1 if n.bundle_id is None else bundle_number[str(n.bundle_id)] for n in lines], np.int32),
        group=np.array([-1 if n.area is None else areas[n.area] for n in lines], np.int32),
    )
    arrays = with_allowances(arrays, settings)
    # Nobody may take them for somebody: they have no id in `numbers` and no code.
    stand_ins: list[Responder | Lot] = [Lot(f"unmet {k}", "", 0.0, 0.0, 0) for k in range(len(arrays.allowance))]
    groups = {
        (str(n.area), int(level)): int(g)
        for n, level, g in zip(lines, severity, arrays.group, strict=True)
        if g >= 0 and n.bundle_id is None and settings.equity_weight
    }
    return arrays, Index(
        needs=lines,
        sources=sources + stand_ins,
        codes=codes,
        certificates=certificate_profiles,
        languages=language_profiles,
        wheres=wheres,
        avoids=avoids,
        organisations=organisations,
        skill_counts=common,
        people=people,
        numbers=number,
        bundles=[one for _, one in bundles if one is not None],
        lifted=lifted,
        groups=groups,
    )


def with_allowances(a: Arrays, settings: Settings) -> Arrays:
    """Equity between areas, as sources that stand for units left unmet at a discount.

    Of the units of one area and severity, a quarter may stay unmet at the plain weight, the next quarter for 0.4 of
    `equity_weight` more, the rest for all of it: unmet units are dear where many are. That is a convex cost per (area,
    severity), and as sources of limited capacity it is still a flow: every proof, price and event goes on as before.
    Lines without an area and lines of bundles have the plain weight. Expects areas in `group`; leaves groups there.
    """
    grouped = (a.group >= 0) & (a.bundle < 0)
    if not settings.equity_weight or not grouped.any():
        return a
    _, group = np.unique(a.group[grouped].astype(np.int64) * 8 + a.need_severity[grouped], return_inverse=True)
    units = np.bincount(group, a.need_quantity[grouped]).astype(np.int64)
    quarter, half = units // 4, units // 2
    every = np.arange(len(units))
    room = np.concatenate((quarter, half - quarter))
    discount = np.repeat([settings.equity_weight, settings.equity_weight - settings.equity_weight * 2 // 5], len(units))
    some = np.flatnonzero(room)
    count, first = len(some), a.sources
    fields: dict[str, Any] = {}
    for name in SOURCE_FIELDS | SPAN_FIELDS:
        old = getattr(a, name)
        fields[name] = np.concatenate((old, np.zeros((count, *old.shape[1:]), old.dtype)))
    fields["source_capacity"][first:], fields["source_minimum"][first:] = room[some], 1
    numbers = np.full(a.needs, -1, np.int32)
    numbers[grouped] = group
    need, old_source = np.divmod(a.excluded, max(first, 1))
    return replace(
        a,
        **fields,
        need_extra=a.need_extra + settings.equity_weight * grouped,
        certificate_until=np.pad(a.certificate_until, ((0, 0), (0, count)), constant_values=FOREVER),
        language_ok=np.pad(a.language_ok, ((0, 0), (0, count)), constant_values=True),
        excluded=need * (first + count) + old_source,
        group=numbers,
        allowance=np.column_stack((first + np.arange(count), np.tile(every, 2)[some], discount[some])),
    )


def with_need(a: Arrays, index: Index, line: NeedLine, settings: Settings) -> tuple[Arrays, int]:
    """The arrays with one more need line behind the others, and its number. New certificates, languages and codes are
    numbered too."""
    row, _ = encode([line], [], [], replace(settings, equity_weight=0), datetime.fromtimestamp(a.now, UTC))
    code = index.codes.setdefault((line.kind, line.code), len(index.codes))
    a = _with_profiles(a, index, line)
    owner = -1
    if line.organisation is not None:
        owner = index.organisations.setdefault(str(line.organisation), len(index.organisations))
    row.need_code[0], row.need_organisation[0] = code, owner
    row.need_certificates[0] = index.certificates[line.certificates]
    row.need_languages[0] = index.languages[line.languages]
    row.need_where[0] = index.wheres[_where(line)]
    group = -1 if line.area is None else index.groups.get((line.area, int(row.need_severity[0])), -1)
    row.bundle[0], row.group[0] = -1, group
    row.need_extra[0] = _extra(line, a.now, settings) + settings.equity_weight * (group >= 0)
    n = a.needs
    banned = sorted(n * a.sources + index.numbers[str(x)] for x in line.exclude if str(x) in index.numbers)
    fields: dict[str, Any] = {
        f: np.concatenate((getattr(a, f), getattr(row, f))) for f in a.__slots__ if f in NEED_FIELDS
    }
    index.needs.append(line)
    excluded = np.concatenate((a.excluded, np.array(banned, np.int64))) if banned else a.excluded
    return replace(a, **fields, excluded=excluded), n


def with_source(a: Arrays, index: Index, source: Responder | Lot, settings: Settings) -> tuple[Arrays, int]:
    """The arrays with one more source behind the others, and its number; its codes are not among the holders, which
    are sorted: a `Finder` is told of it instead."""
    people, lots = ([], [source]) if isinstance(source, Lot) else ([source], [])
    row, _ = encode([], people, lots, settings, datetime.fromtimestamp(a.now, UTC))
    s = a.sources
    if source.organisation is not None:
        owner = index.organisations.setdefault(str(source.organisation), len(index.organisations))
        row.source_organisation[0] = owner
    row.source_rarity[0] = _rarity(source, index.skill_counts, index.people)
    fields: dict[str, Any] = {
        f: np.concatenate((getattr(a, f), getattr(row, f))) for f in a.__slots__ if f in SOURCE_FIELDS
    }
    for name, empty in (("window", (FOREVER, -FOREVER)), ("busy", (FOREVER, -FOREVER))):
        fields[f"{name}_count"] = np.concatenate((getattr(a, f"{name}_count"), getattr(row, f"{name}_count")))
        for end, filler in zip(("start", "end"), empty, strict=True):
            fields[f"{name}_{end}"] = _stacked(getattr(a, f"{name}_{end}"), getattr(row, f"{name}_{end}"), filler)
    fields["busy_rest"] = _stacked(a.busy_rest, row.busy_rest, 0)
    if not isinstance(source, Lot):
        if source.avoids not in index.avoids:
            index.avoids[source.avoids] = len(index.avoids)
            fields["barred"] = _barred(index.wheres, index.avoids)
        fields["source_avoids"][-1] = index.avoids[source.avoids]
    until = np.array([_until(source, names) for names in index.certificates], np.int64)
    speaks = np.array([_speaks(source, names) for names in index.languages], np.bool_)
    index.numbers[str(source_id(source))] = s
    index.sources.append(source)
    need, old = np.divmod(a.excluded, max(s, 1))
    return (
        replace(
            a,
            **fields,
            certificate_until=np.column_stack((a.certificate_until, until)),
            language_ok=np.column_stack((a.language_ok, speaks)),
            excluded=need * (s + 1) + old,
        ),
        s,
    )


def _stacked(one: Ints, two: Ints, filler: int) -> Ints:
    """Both, one below the other, the narrower one filled up."""
    width = max(one.shape[1], two.shape[1])
    return np.vstack([np.pad(x, ((0, 0), (0, width - x.shape[1])), constant_values=filler) for x in (one, two)])


def _with_profiles(a: Arrays, index: Index, line: NeedLine) -> Arrays:
    if _where(line) not in index.wheres:
        index.wheres[_where(line)] = len(index.wheres)
        a = replace(a, barred=_barred(index.wheres, index.avoids))
    if line.certificates not in index.certificates:
        index.certificates[line.certificates] = len(index.certificates)
        until = np.array([_until(s, line.certificates) for s in index.sources], np.int64)
        a = replace(a, certificate_until=np.vstack((a.certificate_until, until[None])))
    if line.languages not in index.languages:
        index.languages[line.languages] = len(index.languages)
        speaks = np.array([_speaks(s, line.languages) for s in index.sources], np.bool_)
        a = replace(a, language_ok=np.vstack((a.language_ok, speaks[None])))
    return a


def lifted_to(line: NeedLine, now: datetime, settings: Settings) -> int | None:
    """The severity that a need counts as because it has waited so long; None: as its own."""
    waits = settings.lift_after_s is not None and _age(line, seconds(now)) >= settings.lift_after_s
    return line.severity + 1 if waits and line.severity < 4 else None


def _age(line: NeedLine, now: int) -> int:
    return 0 if line.declared_at is None else max(now - seconds(line.declared_at), 0)


def _extra(line: NeedLine, now: int, settings: Settings) -> int:
    """What age and vulnerability add to the weight of an unmet unit."""
    waited = settings.age_weight * min(_age(line, now), settings.age_full_s) // settings.age_full_s
    return waited + round(settings.vulnerability_weight * line.vulnerability)


def _until(source: Responder | Lot, names: frozenset[str]) -> int:
    """Until when a source holds all of these certificates; -1 where it lacks one."""
    if isinstance(source, Lot):
        return FOREVER
    held = source.certificates
    return min((seconds(held[name]) if name in held else -1 for name in names), default=FOREVER)


def _speaks(source: Responder | Lot, names: frozenset[str]) -> bool:
    return isinstance(source, Lot) or names.issubset(source.languages)


def _where(line: NeedLine) -> frozenset[str]:
    """What a need is about that somebody may avoid: its hazards, and its area."""
    return line.hazards | ({line.area} if line.area is not None else frozenset())


def _barred(wheres: Mapping[frozenset[str], int], avoids: Mapping[frozenset[str], int]) -> Bools:
    table = np.zeros((len(wheres), len(avoids)), np.bool_)
    for words, v in avoids.items():
        if words:
            for where, w in wheres.items():
                table[w, v] = domain.avoided(words, where)
    return table


def _max_hours(source: Responder | Lot, settings: Settings) -> float:
    own = None if isinstance(source, Lot) else source.max_hours
    return settings.max_hours if own is None else own


def source_id(source: Responder | Lot) -> Id:
    return source.lot_id if isinstance(source, Lot) else source.responder_id


def _rarity(source: Responder | Lot, counts: Mapping[str, int], people: int) -> float:
    """How rare the skills of a source are, 0 to 3: one skill that a sixtieth of all have counts 1."""
    if isinstance(source, Lot):
        return 0.0
    return min(sum(people / max(counts.get(code, 1), 1) for code in source.skills) / 60.0, 3.0)


def _owner(organisations: Mapping[str, int], one: Id | None) -> int:
    return -1 if one is None else organisations[str(one)]


def _profiles(sets: Sequence[frozenset[str]]) -> dict[frozenset[str], int]:
    """Number the distinct sets; the empty one is 0."""
    others = sorted({s for s in sets if s}, key=sorted)
    return {frozenset(): 0, **{s: k + 1 for k, s in enumerate(others)}}


def _sorted_periods(periods: Sequence[tuple[datetime, datetime]]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((seconds(a), seconds(b)) for a, b in periods if b > a))


def _rests(who: Responder, settings: Settings) -> tuple[tuple[int, int, int], ...]:
    """Each duty with the rest that it takes before and after."""
    return tuple(
        (a, b, domain.rest_of(b - a, who.rest_s, settings.rest_s, settings.long_shift_s))
        for a, b in _sorted_periods(who.busy)
    )


def _ragged(rows: Sequence[tuple[tuple[int, int], ...]], start: int, end: int) -> tuple[Ints, Ints, Ints]:
    width = max((len(row) for row in rows), default=0) or 1
    a, b = np.full((len(rows), width), start, np.int64), np.full((len(rows), width), end, np.int64)
    for k, row in enumerate(rows):
        for c, (first, last) in enumerate(row):
            a[k, c], b[k, c] = first, last
    return a, b, np.array([len(row) for row in rows], np.int64)


def _close_zones(
    settings: Settings,
    at: int,
    points: tuple[Floats, Floats, Floats, Floats],
    start: Ints,
    end: Ints,
    opened: Bools,
    ready: Ints,
) -> tuple[Ints, Ints, Bools, Ints]:
    """Cut closed times out of the windows of needs inside a zone, and hold back whoever is inside one.

    Of a window cut in two the longer piece stays; the routes between are not looked at.
    """
    if settings.zones:
        import shapely
    for zone in settings.zones:
        shape = shapely.Polygon(zone.polygon)
        lon, lat, slon, slat = points
        a, b = seconds(zone.start), seconds(zone.end)
        inside = shapely.intersects_xy(shape, lon, lat)
        before, after = np.minimum(end, a) - start, end - np.maximum(start, b)
        hit = inside & (start < b) & (end > a)
        first = hit & (before >= after)
        end = np.where(first, np.minimum(end, a), end)
        start = np.where(hit & ~first, np.maximum(start, b), start)
        opened = opened & (end > start)
        if a <= at < b:
            ready = np.where(shapely.intersects_xy(shape, slon, slat), np.maximum(ready, b), ready)
    return start, end, opened, ready
