"""Two tables for coordination: who does what where (3W, with when: 4W), and the gaps by item and area.

Both come from the same sums as the report, so nobody types them. Rows carry the names of the Humanitarian Exchange
Language (HXL) with them; a row of tags is put under the heading for those who ask for it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from openpyxl import Workbook
from openpyxl.styles import Font

from schemas import vocabulary
from schemas.vocabulary import Language
from services.runtime.db import Tx
from services.sitrep.areas import at_level
from services.sitrep.bands import band
from services.sitrep.document import AMOUNTS, Found, by_area, instant, need_lines
from services.sitrep.domain import DAMAGE, PEOPLE, Scope
from services.sitrep.render.csvdoc import plain
from services.sitrep.render.words import word
from services.sitrep.standards import Phase, standards
from services.sitrep.tally import Sums, name, parts

CHILDREN = ("0-4", "5-11", "12-17", "0-17", "0-5", "6-17")
ELDERLY = ("60+", "65+")


@dataclass(frozen=True, slots=True)
class Sheet:
    """Columns as (name, HXL tag); rows in the same order."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[str | int | None, ...], ...]


WHO = (
    ("organisation", "#org+name+impl"),
    ("organisation_type", "#org+type"),
    ("cluster_code", "#sector+code"),
    ("cluster", "#sector+cluster+name"),
    ("activity_code", "#activity+code"),
    ("activity", "#activity+name"),
    ("status", "#activity+status"),
    ("country", "#country+code"),
    ("province", "#adm1+name"),
    ("province_code", "#adm1+code"),
    ("regency", "#adm2+name"),
    ("regency_code", "#adm2+code"),
    ("area_code", "#adm3+code"),
    ("unit", "#indicator+unit+name"),
    ("quantity", "#output+num"),
    ("people_at_posts", "#affected+displaced"),
    ("female", "#affected+displaced+f"),
    ("male", "#affected+displaced+m"),
    ("children", "#affected+displaced+children"),
    ("elderly", "#affected+displaced+elderly"),
    ("disability", "#affected+displaced+disability"),
    ("operation", "#meta+id"),
    ("reported", "#date+reported"),
)
_STATUS = {"committed": "planned", "under_way": "ongoing", "done": "completed"}


def who_does_what(found: Found, operation: str | None, lang: Language) -> Sheet:
    """Each organisation's promises and deliveries by item or skill, area and stage, with the people counted at the
    evacuation posts of that area: sex, age and disability as far as they were counted."""
    rows = []
    for admin, sums in by_area(found, exact=True).items():
        heads = _heads(sums)
        for key, quantity in sorted(sums.items()):
            words = parts(key)
            if words[0] != "what":
                continue
            _, kind, organisation, _, code, unit, stage = words
            cluster = vocabulary.sector(code) or "OTH"
            who = organisation if kind == "organisation" else word("volunteers", lang)
            rows.append(
                (
                    who,
                    kind,
                    cluster,
                    word(f"cluster_{cluster}", lang),
                    code,
                    vocabulary.label(code, lang),
                    _STATUS[stage],
                    "IDN",
                    *_areas(admin),
                    unit,
                    quantity,
                    *heads,
                    operation,
                    instant(found.received_at),
                )
            )
    return Sheet("3W", WHO, tuple(rows))


def _areas(admin: str | None) -> tuple[str | None, ...]:
    """Province and regency by name and code, and the code itself where it is finer."""
    at: dict[int, tuple[str | None, str]] = {}
    area = vocabulary.area(*vocabulary.split(admin)) if admin is not None else None
    finest = str(area) if area is not None and area.level > 2 else None
    while area is not None:
        at[area.level] = (area.name, str(area))
        if area.parent is None:
            break
        area = vocabulary.area(area.scheme, area.parent.partition(":")[2] or area.parent)
    return (*at.get(1, (None, None)), *at.get(2, (None, None)), finest)


def _heads(sums: Sums) -> tuple[int | None, ...]:
    """People at the posts of these sums: all, female, male, children, elderly, with a disability; None: not counted."""

    def head(*groups: str) -> int | None:
        counts = [sums[name("heads", group)] for group in groups if name("heads", group) in sums]
        return sum(counts) if counts else None

    return (
        head("people"),
        head("female"),
        head("male"),
        head(*(f"age {group}" for group in CHILDREN)),
        head(*(f"age {group}" for group in ELDERLY)),
        head("disability"),
    )


GAPS = (
    ("area_code", "#adm+code"),
    ("area", "#adm+name"),
    ("cluster_code", "#sector+code"),
    ("item_code", "#item+code"),
    ("item", "#item+name"),
    ("unit", "#indicator+unit+name"),
    ("severity", "#severity"),
    ("needed", "#inneed+num"),
    ("committed", "#committed+num"),
    ("coming", "#incoming+num"),
    ("delivered", "#reached+num"),
    ("gap", "#gap+num"),
    ("people", "#affected+displaced"),
    ("by_standard", "#targeted+num"),
    ("standard_period", "#targeted+period"),
    ("standard", "#meta+source"),
    ("operation", "#meta+id"),
    ("reported", "#date+reported"),
)


def gaps(
    found: Found,
    operation: str | None,
    lang: Language,
    *,
    exact: bool,
    country: str | None = "IDN",
    phase: Phase = "initial",
) -> Sheet:
    """Needed, committed, coming, delivered and gap of each item or skill in each area; beside it what the standard
    says for the people displaced there: those counted at evacuation posts, else those reported."""
    rows: list[tuple[str | int | None, ...]] = []
    for admin, sums in by_area(found, exact=exact).items():
        people = sums.get(name("heads", "people"), 0) or sum(
            count for key, count in sums.items() if parts(key)[:2] == ["people", PEOPLE[1]]
        )
        known = standards(country, phase)

        def n(count: int) -> str | int:
            return count if exact else band(count)

        asked = set()
        for line in need_lines(sums):
            asked.add(line.code)
            standard = known.get(line.code) if line.kind == "item" and people else None
            rows.append(
                (
                    admin,
                    _name(admin),
                    vocabulary.sector(line.code),
                    line.code,
                    vocabulary.label(line.code, lang),
                    line.unit,
                    line.severity,
                    *(n(line.amounts[amount]) for amount in AMOUNTS if amount != "cancelled"),
                    n(people),
                    n(standard.needed(people)) if standard else None,
                    standard.period if standard else None,
                    standard.source if standard else None,
                    operation,
                    instant(found.received_at),
                )
            )
        # What a standard says is needed and nobody has asked for: it is no gap, but it is worth asking about.
        for code, standard in known.items() if people else ():
            if code not in asked:
                rows.append(
                    (
                        admin,
                        _name(admin),
                        vocabulary.sector(code),
                        code,
                        vocabulary.label(code, lang),
                        vocabulary.unit(code),
                        None,
                        *(None,) * 5,
                        n(people),
                        n(standard.needed(people)),
                        standard.period,
                        standard.source,
                        operation,
                        instant(found.received_at),
                    )
                )
    return Sheet("gaps", GAPS, tuple(rows))


def _name(admin: str | None) -> str | None:
    area = vocabulary.area(*vocabulary.split(admin)) if admin is not None else None
    return area.name if area is not None else None


def as_csv(sheet: Sheet, *, hxl: bool) -> bytes:
    """UTF-8 without a mark, because HXL tools read the first cell; the row of tags stands under the heading."""
    out = io.StringIO(newline="")
    rows = csv.writer(out, lineterminator="\r\n")
    rows.writerow([column for column, _ in sheet.columns])
    if hxl:
        rows.writerow([tag for _, tag in sheet.columns])
    for row in sheet.rows:
        rows.writerow([plain(cell) if isinstance(cell, str) else cell for cell in row])
    return out.getvalue().encode()


def as_xlsx(sheet: Sheet, *, hxl: bool) -> bytes:
    """One worksheet, numbers as numbers, the heading frozen."""
    book = Workbook(write_only=False)
    page = book.active
    assert page is not None
    page.title = sheet.title
    page.append([column for column, _ in sheet.columns])
    if hxl:
        page.append([tag for _, tag in sheet.columns])
    for cell in page[1]:
        cell.font = Font(bold=True)
    for row in sheet.rows:
        page.append([plain(cell) if isinstance(cell, str) else cell for cell in row])
    page.freeze_panes = "A3" if hxl else "A2"
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def as_rows(sheet: Sheet) -> Sequence[Mapping[str, Any]]:
    """The rows by name."""
    names = [column for column, _ in sheet.columns]
    return [dict(zip(names, row, strict=True)) for row in sheet.rows]


HISTORY = (
    ("period", "#date+period"),
    ("area_code", "#adm+code"),
    ("area", "#adm+name"),
    ("statements", "#meta+statements"),
    *((figure, f"#affected+{figure}") for figure in PEOPLE),
    *((figure, f"#impact+{figure}") for figure in DAMAGE),
)


async def history(
    tx: Tx, position: int, scope: Scope, *, by: Literal["day", "month"], level: Literal[1, 2], timezone: str
) -> Sheet:
    """What authorities stated, by day or month and province or regency: of each area, day and file the latest
    statement counts, whatever incident it was joined to. Days are cut in the operation's zone."""
    codes = scope.area_codes()
    names = (*PEOPLE, *DAMAGE)
    rows = await tx.fetch(
        f"""
        SELECT to_char(day, '{"YYYY-MM-DD" if by == "day" else "YYYY-MM"}') AS period, admin,
               count(*) AS statements, {", ".join(f"sum({figure})::bigint AS {figure}" for figure in names)}
        FROM (
            SELECT DISTINCT ON (r.admin, day, r.origin) r.*, (r.observed_at AT TIME ZONE $6)::date AS day
            FROM report AS r LEFT JOIN incident AS i
                 ON i.incident_id = r.incident_id AND i.from_position <= $1 AND i.until_position > $1
            WHERE r.from_position <= $1 AND r.until_position > $1 AND r.said_by = 'official' AND NOT r.retracted
              AND CASE WHEN $2::text IS NOT NULL THEN coalesce(i.operation, r.operation) IS NOT DISTINCT FROM $2
                       ELSE NOT coalesce(i.exercise, r.exercise)
                            AND ($3::text[] IS NULL OR coalesce(i.operation, r.operation) = ANY($3)) END
              AND ($4::text[] IS NULL OR r.admin = ANY($4) OR r.admin ^@ ANY($5::text[]))
            ORDER BY r.admin, day, r.origin, r.observed_at DESC, r.received_at DESC, r.report_id
        ) AS s GROUP BY 1, 2
        """,
        position,
        scope.operation,
        None if scope.allowed is None else list(scope.allowed),
        None if codes is None else list(codes[0]),
        None if codes is None else list(codes[1]),
        timezone,
    )
    found: dict[tuple[str, str | None], list[int]] = {}
    for row in rows:
        sums = found.setdefault((row["period"], at_level(row["admin"], level)), [0] * (1 + len(names)))
        for at, figure in enumerate(("statements", *names)):
            sums[at] += row[figure] or 0
    return Sheet(
        "history",
        HISTORY,
        tuple(
            (period, admin, _name(admin), *sums)
            for (period, admin), sums in sorted(found.items(), key=lambda each: (each[0][0], each[0][1] or ""))
        ),
    )
