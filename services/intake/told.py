"""What reports say of their incidents, read from their rows; kept where the same ones are read again and again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from uuid import UUID

from services.intake.domain import Told
from services.runtime.db import Row, Tx, from_json

_MOST_KEPT = 20_000  # 50 MB, by 2.6 KB for a report of one sentence
_COLUMNS = (
    "report_id, origin, received_at, observed_at, title, text, hazard, severity, lon, lat, place, admin, people, "
    "damage, voice, official, copy_of, reading, needs, sensitivity, bulk"
)

Version = tuple[int, tuple[int, int]]
"""Which state of a row: the transaction that wrote it and where it lies. No two states of one table's rows, written
within two thousand million transactions of each other, have both in common."""


class Kept:
    """What was read before, by report, each good for one version of its row. For one database, whoever changes it."""

    def __init__(self) -> None:
        self._told: dict[UUID, tuple[Version, Told]] = {}

    def get(self, report_id: UUID, version: Version) -> Told | None:
        found = self._told.get(report_id)
        return found[1] if found is not None and found[0] == version else None

    def put(self, report_id: UUID, version: Version, told: Told) -> None:
        self._told[report_id] = version, told

    def trim(self) -> None:
        """Forget the older half when there are too many: a dict keeps the order in which its keys came."""
        if len(self._told) > _MOST_KEPT:
            for report_id in list(self._told)[: len(self._told) // 2]:
                del self._told[report_id]


async def told_by(tx: Tx, incident_ids: Sequence[UUID], there: Collection[UUID], kept: Kept) -> dict[UUID, list[Told]]:
    """What the reports of these incidents say, in the order of receipt; `there` are those that have any report.

    An exact copy within its incident says nothing new, so a burst of one text does not make each later report dearer.
    """
    query = "SELECT incident_id, report_id, xmin, ctid FROM report WHERE incident_id = ANY($1) {} ORDER BY seq"
    rows = await tx.fetch(query.format("AND NOT exact_copy"), incident_ids)
    bare = set(there) - {row["incident_id"] for row in rows}
    if bare:  # the report that the rest repeats was taken out
        rows += await tx.fetch(query.format(""), list(bare))
    known = {row["report_id"]: kept.get(row["report_id"], version_of(row)) for row in rows}
    missing = [report_id for report_id, told in known.items() if told is None]
    if missing:
        for row in await tx.fetch(f"SELECT {_COLUMNS}, xmin, ctid FROM report WHERE report_id = ANY($1)", missing):
            known[row["report_id"]] = told = _told(row)
            kept.put(row["report_id"], version_of(row), told)
    found: dict[UUID, list[Told]] = defaultdict(list)
    for row in rows:
        said = known[row["report_id"]]
        if said is not None:  # else it was deleted between the two statements
            found[row["incident_id"]].append(said)
    kept.trim()
    return found


def version_of(row: Row) -> Version:
    """The version of a row that was read with its `xmin` and `ctid`."""
    return row["xmin"], row["ctid"]


def _told(row: Row) -> Told:
    return Told(
        report_id=row["report_id"], origin=row["origin"], received_at=row["received_at"],
        observed_at=row["observed_at"], title=row["title"], text=row["text"], hazard=row["hazard"],
        severity=row["severity"], lon=row["lon"], lat=row["lat"], place=row["place"], admin=row["admin"],
        people=from_json(row["people"]) or {}, damage=from_json(row["damage"]) or {}, voice=row["voice"],
        official=row["official"], copy=row["copy_of"] is not None, reading=from_json(row["reading"]) or {},
        asked=tuple(need.get("item") or need["skill"] for need in from_json(row["needs"]) or ()),
        sensitivity=row["sensitivity"], bulk=row["bulk"],
    )  # fmt: skip
