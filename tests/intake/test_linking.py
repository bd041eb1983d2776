"""The rule that joins reports to incidents: what it must join, what it must never join, and that it is a pure rule."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from typing import Any
from uuid import UUID, uuid5

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.intake.linking import DEFAULT, Link, Linker, LinkReport, LinkSettings, haversine_km

SPACE = UUID(int=7)
START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


def make_report(number: int | str, text: str = "", hours: float = 0.0, **values: Any) -> LinkReport:
    """A located flood report; `hours` after the start."""
    fields: dict[str, Any] = {
        "report_id": uuid5(SPACE, str(number)),
        "text": text,
        "lon": 106.866,
        "lat": -6.222,
        "admin": None,
        "observed_at": START + timedelta(hours=hours),
        "hazard": "flood",
        "contact": None,
    }
    return LinkReport(**{**fields, **values})


def place(linker: Linker, report: LinkReport) -> Link:
    """Decide and index, as intake does: what is not linked opens an incident of its own."""
    link = linker.decide(report)
    linker.add(report, link.incident_id or report.report_id)
    return link


def run(reports: list[LinkReport], linker: Linker | None = None) -> tuple[Linker, dict[UUID, UUID]]:
    linker = linker or Linker()
    return linker, {r.report_id: place(linker, r).incident_id or r.report_id for r in reports}


STREETS = ["melati", "mawar", "kenanga", "anggrek", "dahlia", "cempaka", "teratai", "flamboyan", "kamboja"]


def background(count: int = 300, seed: int = 3) -> list[LinkReport]:
    """Other reports of the same days all over the town, so that the word statistics are those of a real stream."""
    rng = random.Random(seed)
    return [
        make_report(
            f"b{n}",
            f"Banjir {rng.randint(20, 150)} cm di jalan {rng.choice(STREETS)} {rng.randint(1, 400)} kelurahan "
            f"{''.join(rng.choice('bdgklmnprst') + rng.choice('aiueo') for _ in range(4))}, mohon bantuan",
            hours=-rng.uniform(0, 60),
            lon=106.6 + rng.random() * 0.4,
            lat=-6.4 + rng.random() * 0.3,
        )
        for n in range(count)
    ]


def town() -> Linker:
    return run(sorted(background(), key=lambda r: r.observed_at))[0]


# ---- what must be joined -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "shift", "hours"),
    [
        pytest.param("Banjir sepinggang di Kampung Arus, 30 orang butuh perahu", "Banjir sepinggang di Kampung Arus, "
                     "30 orang butuh perahu!!", 0.0, 0.5, id="the same message again"),
        pytest.param("Banjir sepinggang di Kampung Arus Cawang, 30 orang butuh perahu karet",
                     "tlg perahu karet utk kp arus cawang, bnjr sepinggang", 0.0003, 2, id="told in other words"),
        pytest.param("Tanggul Latuharhary jebol di dekat stasiun Sudirman", "Tanggul Latuharhary jebol dekat stasiun "
                     "sudirman air masuk jalan", 0.002, 1, id="a named place two hundred metres away"),
    ],
)  # fmt: skip
def test_reports_of_one_thing_are_joined(first: str, second: str, shift: float, hours: float) -> None:
    linker = town()
    a = make_report("a", first)
    place(linker, a)
    link = linker.decide(make_report("z", second, hours=hours, lon=106.866 + shift))
    assert (link.outcome, link.incident_id) == ("linked", linker.incident_of(a.report_id))


def test_a_burst_of_twenty_thousand_equal_reports_is_one_incident() -> None:
    linker = town()
    reports = [make_report(n, "Banjir di Kampung Arus, tolong perahu", hours=n / 1000) for n in range(20_000)]
    _, incidents = run(reports, linker)
    assert len(set(incidents.values())) == 1
    assert linker.decide(make_report("next", reports[0].text, hours=20)).copy_of in incidents


def test_a_burst_does_not_hide_other_reports_from_their_own_incident() -> None:
    linker = town()
    here = make_report("here", "Pohon tumbang menimpa rumah Ibu Surti di gang Cemara 7 Kampung Arus", lon=106.8661)
    place(linker, here)
    run([make_report(n, "Banjir di Kampung Arus, tolong perahu", hours=n / 1000) for n in range(2_000)], linker)
    link = linker.decide(replace(here, report_id=uuid5(SPACE, "again"), text=here.text + " mohon ditangani"))
    assert link.incident_id == linker.incident_of(here.report_id)


# ---- what must not be joined ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "second",
    [
        pytest.param({"hazard": "fire"}, id="another hazard"),
        pytest.param({"lat": -6.35}, id="fourteen kilometres away"),
        pytest.param({"hours": 169.0}, id="eight days later"),
    ],
)
def test_even_an_equal_text_is_not_joined_across_a_limit(second: dict[str, Any]) -> None:
    linker = town()
    text = "Banjir sepinggang di Kampung Arus Cawang RT 05 RW 03, 30 orang butuh perahu karet dan obat"
    place(linker, make_report("a", text))
    values = {"hours": 1.0, **second}
    link = linker.decide(make_report("z", text, **values))
    assert link.outcome != "linked"


def test_a_copy_beyond_the_limits_names_the_report_that_it_repeats() -> None:
    linker = town()
    first = make_report("a", "Banjir sepinggang di Kampung Arus Cawang RT 05 RW 03, 30 orang butuh perahu karet")
    place(linker, first)
    link = linker.decide(replace(first, report_id=uuid5(SPACE, "z"), observed_at=first.observed_at + timedelta(days=8)))
    assert (link.outcome == "linked", link.copy_of) == (False, first.report_id)


def test_the_same_leaflet_about_another_site_is_not_joined() -> None:
    linker = town()
    leaflet = (
        "Posko pengungsian nomor {n} di GOR Cendrawasih menampung {f} keluarga, butuh tenda, selimut dan air bersih"
    )
    place(linker, make_report("a", leaflet.format(n=5, f=150)))
    link = linker.decide(make_report("z", leaflet.format(n=15, f=234), hours=1, lon=106.905))
    assert link.outcome != "linked"


def test_empty_fields_are_not_equal_fields() -> None:
    linker = Linker()
    place(linker, make_report("a", "", lon=None, lat=None, hazard=None))
    link = linker.decide(make_report("z", "", lon=None, lat=None, hazard=None))
    assert (link.outcome, link.copy_of) == ("new", None)


def test_hazards_of_one_documented_group_may_be_one_incident() -> None:
    linker = town()
    text = "Banjir bandang menghanyutkan jembatan Kampung Arus Cawang"
    place(linker, make_report("a", text, hazard="flash_flood"))
    assert linker.decide(make_report("z", text + " tadi malam", hours=1, hazard="flood")).outcome == "linked"
    assert linker.decide(make_report("y", text + " tadi malam", hours=1, hazard=None)).outcome == "linked"


# ---- official statements and areas ---------------------------------------------------------------------------------


def test_official_rows_are_one_incident_for_each_area_and_day() -> None:
    linker = Linker()
    rows = [
        make_report(f"{area}-{day}-{n}", f"Kec. Pematang Ds. {n}", hours=24 * day, lon=None, lat=None, admin=area,
                    official=True)
        for day in range(3) for area in ("bps:1213", "bps:1221") for n in range(3)
    ]  # fmt: skip
    _, incidents = run(rows, linker)
    groups: dict[UUID, set[tuple[str | None, object]]] = {}
    for row in rows:
        groups.setdefault(incidents[row.report_id], set()).add((row.admin, row.observed_at.date()))
    assert len(groups) == 6
    assert all(len(kinds) == 1 for kinds in groups.values())


def test_the_day_of_an_official_row_is_cut_in_the_zone_of_the_operation() -> None:
    linker = Linker()
    midnight = datetime(2026, 11, 23, 17, 0, tzinfo=UTC)  # 00:00 WIB on the 24th
    kind: dict[str, Any] = {"lon": None, "lat": None, "admin": "bps:1213", "official": True}
    a = make_report("a", "Kec. Gebang", **kind, observed_at=midnight)
    place(linker, a)
    assert (
        linker.decide(make_report("b", "Kec. Babalan", **kind, observed_at=midnight + timedelta(hours=23))).outcome
        == "linked"
    )
    assert (
        linker.decide(make_report("c", "Kec. Babalan", **kind, observed_at=midnight - timedelta(hours=1))).outcome
        == "new"
    )


def test_other_reports_of_an_area_join_by_area_time_and_text() -> None:
    linker = town()
    kind: dict[str, Any] = {"lon": None, "lat": None, "admin": "kemendagri:31.75.03"}
    first = make_report("a", "Jembatan gantung Cikeruh putus diterjang arus, warga dusun Sukahurip terisolasi", **kind)
    place(linker, first)
    again = make_report("b", "warga dusun Sukahurip terisolasi krn jembatan gantung Cikeruh putus", 3, **kind)
    assert linker.decide(again).incident_id == linker.incident_of(first.report_id)
    assert linker.decide(make_report("c", "Tiang listrik roboh di pasar Wado", 3, **kind)).outcome != "linked"
    elsewhere = replace(again, report_id=uuid5(SPACE, "d"), text=first.text)
    assert linker.decide(replace(elsewhere, admin="kemendagri:32.01.01")).outcome != "linked"
    assert linker.decide(replace(elsewhere, admin="kemendagri:31.75")).outcome == "linked"


# ---- limits hold for any stream ------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    ["banjir", "tanggul", "jebol", "rumah", "sakit", "kampung", "arus", "perahu", "pohon", "tumbang", "gang", "tujuh"]
)
TEXTS = st.lists(WORDS, max_size=5).map(" ".join)
REPORTS = st.lists(
    st.tuples(
        TEXTS,
        st.one_of(st.floats(0, 300), st.floats(0, 2000)),
        st.one_of(st.none(), st.tuples(st.floats(106.80, 106.95), st.floats(-6.3, -6.15))),
        st.sampled_from(["flood", "flash_flood", "fire", None]),
        st.sampled_from([None, "bps:3174", "bps:3175"]),
        st.sampled_from([None, "c1", "c2"]),
        st.booleans(),
    ),
    max_size=60,
)
# Links nearly everything, so that the limits and not the score have to hold.
EAGER = replace(DEFAULT, constant=9.0, episode_hours=1e9, far_cos=0.0, far_words=0, weak_km=1e9)


def stream(rows: list[Any]) -> list[LinkReport]:
    return [
        make_report(n, text, hours, lon=point[0] if point else None, lat=point[1] if point else None, hazard=hazard,
                    admin=admin, contact=contact, official=official and point is None and admin is not None)
        for n, (text, hours, point, hazard, admin, contact, official) in enumerate(rows)
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(REPORTS, st.booleans())
def test_no_incident_passes_the_limits_in_any_order_of_arrival(rows: list[Any], eager: bool) -> None:
    reports = stream(rows)
    _, incidents = run(reports, Linker(EAGER if eager else DEFAULT))
    assert set(incidents) == {r.report_id for r in reports}
    groups: dict[UUID, list[LinkReport]] = {}
    for r in reports:
        groups.setdefault(incidents[r.report_id], []).append(r)
    for members in groups.values():
        assert len(members) <= 60
        times = [r.observed_at for r in members]
        # Where a report names a hazard that comes and goes; what names none may be a need that lasts.
        days = 7 if any(r.hazard for r in members) else 45
        assert max(times) - min(times) <= timedelta(days=days)
        points = [(r.lon, r.lat) for r in members if r.lon is not None and r.lat is not None]
        assert all(haversine_km(*a, *b) <= 10 for a in points for b in points)
        assert len({r.hazard for r in members} & {"flood", "fire"}) < 2


def test_an_eager_score_still_stops_at_sixty_reports() -> None:
    rng = random.Random(5)
    reports = [make_report(n, f"banjir kata{rng.randint(0, 9)} nomor {n}", n / 100) for n in range(200)]
    _, incidents = run(reports, Linker(EAGER))
    sizes = sorted(list(incidents.values()).count(i) for i in set(incidents.values()))
    assert sizes[-1] == 60


@settings(max_examples=40, deadline=None)
@given(REPORTS)
def test_deciding_changes_nothing_and_is_repeatable(rows: list[Any]) -> None:
    linker = Linker()
    for report in stream(rows):
        before = linker.snapshot()
        first = linker.decide(report)
        assert linker.decide(replace(report)) == first
        assert linker.snapshot() == before
        linker.add(report, first.incident_id or report.report_id)


# ---- rebuilding and corrections ------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    REPORTS,
    st.lists(
        st.tuples(st.sampled_from(["move", "remove", "merge", "close"]), st.integers(0, 59), st.integers(0, 59)),
        max_size=8,
    ),
)
def test_an_index_rebuilt_from_the_tables_equals_the_live_one(
    rows: list[Any], changes: list[tuple[str, int, int]]
) -> None:
    reports = stream(rows)
    live, table = run(reports)
    table_now: dict[UUID, UUID | None] = dict(table)
    closed: set[UUID] = set()
    for change, a, b in changes:
        if max(a, b) >= len(reports):
            continue
        one, two = reports[a].report_id, reports[b].report_id
        if change == "move":
            target = table_now[two] or two
            live.move(one, target)
            table_now[one] = target
        elif change == "remove":
            live.remove(one)
            table_now[one] = None
        elif (into := table_now[one]) and (other := table_now[two]):
            if change == "close":
                live.close(into)
                closed.add(into)
            elif into != other and other not in closed:
                live.merge(into, other)
                table_now = {r: into if i == other else i for r, i in table_now.items()}
    rebuilt = Linker()
    for report in reports:
        rebuilt.add(report, table_now[report.report_id])
    for incident in closed:
        rebuilt.close(incident)
    mine, theirs = live.snapshot(), rebuilt.snapshot()
    # An official day that an operator moved keeps where the day's next row goes; all else must be equal.
    assert {k: v for k, v in mine.items() if k != "statements"} == {
        k: v for k, v in theirs.items() if k != "statements"
    }
    for n, report in enumerate(reports[:10]):
        probe = replace(report, report_id=uuid5(SPACE, f"probe{n}"), official=False)
        assert live.decide(probe) == rebuilt.decide(probe)


def test_corrections_by_an_operator_are_followed() -> None:
    linker = town()
    text = "Tanggul Latuharhary jebol dekat stasiun Sudirman"
    a, b = make_report("a", text), make_report("b", text + " lagi", 1)
    place(linker, a)
    place(linker, b)
    first = linker.incident_of(a.report_id)
    assert first is not None
    assert linker.incident_of(b.report_id) == first

    later = make_report("c", text + " parah", 2)
    other = UUID(int=99)
    linker.merge(other, first)
    assert linker.decide(later).incident_id == other
    linker.add(later, first)  # the caller still names the merged one
    assert linker.incident_of(later.report_id) == other

    linker.close(other)
    link = linker.decide(make_report("d", text + " sekali", 3))
    assert (link.outcome, link.suggested) == ("suggested", other)
    linker.reopen(other)
    for report in (a, b, later):
        linker.remove(report.report_id)
    assert linker.decide(make_report("d", text + " sekali", 3)).outcome == "new"


def test_every_link_explains_itself() -> None:
    linker = town()
    place(linker, make_report("a", "Tanggul Latuharhary jebol dekat stasiun Sudirman"))
    link = linker.decide(make_report("b", "Tanggul Latuharhary jebol, stasiun Sudirman tergenang", 1))
    assert link.outcome == "linked"
    assert DEFAULT.automatic <= link.score <= 1
    assert {"near_time", "rare", "cos"} <= set(link.parts)
    assert link.parts["near_time"] > 0


# ---- settings ------------------------------------------------------------------------------------------------------


def values() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(resources.files("services.intake").joinpath("linking_weights.json").read_text())
    return loaded


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda v: v.pop("automatic"), id="a missing name"),
        pytest.param(lambda v: v.update(automatik=0.8), id="a misspelt name"),
        pytest.param(lambda v: v["weights"].update(near_time=-1.0), id="a reward for distance"),
        pytest.param(lambda v: v["weights"].pop("rare"), id="a missing weight"),
    ],
)
def test_a_faulty_settings_file_is_refused(change: Any) -> None:
    faulty = values()
    change(faulty)
    with pytest.raises(ValueError, match="linking settings"):
        LinkSettings.of(faulty)


def test_the_shipped_settings_are_accepted_and_name_known_hazards() -> None:
    assert LinkSettings.of(values()) == DEFAULT
    with resources.files("schemas").joinpath("vocabulary", "hazards.csv").open(encoding="utf-8") as file:
        known = {row["code"] for row in csv.DictReader(file)}
    grouped = [hazard for group in DEFAULT.compatible_hazards for hazard in group]
    assert known >= {*grouped, *DEFAULT.lasting_hazards, *DEFAULT.unnamed_hazards}
    assert len(grouped) == len(set(grouped)), "a hazard in two groups would join what neither group joins"


def test_a_hazard_called_other_is_no_hazard() -> None:
    linker = town()
    text = "Pohon tumbang menutup jalan Cemara dekat pasar Rumput"
    place(linker, make_report("a", text, hazard="other"))
    assert linker.decide(make_report("z", text + " macet", hours=1, hazard="wind")).outcome == "linked"


def test_a_default_pin_does_not_join_unlike_texts() -> None:
    linker = town()
    texts = [
        "Tanjung Duren utara tergenang",
        "Taruma Kencana sepinggang",
        "Pondok Karya macet",
        "Ciledug Indah mengungsi",
    ]
    for n, text in enumerate(texts):
        place(linker, make_report(n, text, n * 30))
    link = linker.decide(make_report("z", "Pluit beberapa titik", 91))
    assert link.outcome != "linked"


def test_a_hashtag_joins_nothing() -> None:
    linker = town()
    place(linker, make_report("a", "#KaliMeluap #BanjirKiriman tolong di atasi"))
    assert linker.decide(make_report("z", "#KaliMeluap #BanjirKiriman cepat", 1, lon=106.874)).outcome != "linked"
