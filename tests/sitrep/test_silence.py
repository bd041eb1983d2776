"""Silent areas: what was to be expected of an area under a warning, what came, and whom that sends to look."""

from __future__ import annotations

import math
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.operations import OperationOpened
from schemas.reports import ReportReceived
from schemas.sitreps import SilenceNoticed
from schemas.values import Location
from schemas.warnings import WarningArea, WarningCancelled, WarningIssued, WarningMessage
from services.intake.app import service as intake
from services.runtime import clock
from services.sitrep import reporting, silence, silence_timer
from services.sitrep.app import service
from services.sitrep.domain import Entry, Scope, WarningView
from services.sitrep.silence import Heard, Home, expected, is_silent
from tests.conftest import Wire, bearer, emitted
from tests.intake.patience import patient
from tests.sitrep.passing import Passing

DEMAK, KUDUS, BOGOR = "kemendagri:33.21", "kemendagri:33.19", "kemendagri:32.01"
AROUND_DEMAK = ((110.5, -7.0), (110.8, -7.0), (110.8, -6.8), (110.5, -6.8), (110.5, -7.0))


def warning(kind=WarningIssued, *, status="actual", severity=4, codes=(), polygons=(AROUND_DEMAK,), **more):
    now = clock.now()
    return kind(
        **{
            "warning_id": uuid4(),
            "exercise": status == "exercise",
            "message": WarningMessage(identifier="x", sender="bmkg", sent_at=now, type="alert"),
            "state": "active",
            "status": status,
            "hazard": "flood",
            "severity": severity,
            "urgency": "immediate",
            "certainty": "observed",
            "effective_at": now,
            "expires_at": now + timedelta(days=2),
            "area": WarningArea(polygons=polygons, codes=codes),
            "origin": "bmkg",
            "signature": "none",
            "messages": 1,
            "by": "feed:test",
        }
        | more
    )


def report(admin: str, *, exercise: bool = False) -> ReportReceived:
    return ReportReceived(
        report_id=uuid4(),
        operation="latihan" if exercise else "banjir-demak",
        exercise=exercise,
        text="banjir",
        observed_at=clock.now(),
        origin="web",
        reporter_kind="citizen",
        location=Location(admin=admin),
    )


def opened(name: str = "banjir-demak", *, exercise: bool = False, areas=("kemendagri:33",)) -> OperationOpened:
    return OperationOpened(
        operation=name,
        exercise=exercise,
        title=name,
        hazards=("flood",),
        areas=areas,
        opened_at=clock.now(),
        by="admin:test",
    )


def test_what_is_expected_grows_with_people_severity_hours_and_with_how_much_the_area_usually_writes():
    home, none = Home(DEMAK, 1_000_000, None), Heard(0, 0, 0)
    people = 100_000_000
    assert expected(home, 4, 24, none, people) == pytest.approx(10)
    assert expected(home, 4, 12, none, people) == pytest.approx(5)
    assert expected(home, 3, 24, none, people) == pytest.approx(5)
    assert expected(home, 1, 24, none, people) == 0
    assert expected(Home(DEMAK, 500_000, None), 4, 24, none, people) == pytest.approx(5)
    # It has a hundredth of the people; a thousand reports came from everywhere.
    assert expected(home, 4, 24, Heard(0, 10, 1000), people) == pytest.approx(10)
    assert expected(home, 4, 24, Heard(0, 25, 1000), people) == pytest.approx(20)
    assert expected(home, 4, 24, Heard(0, 0, 1000), people) == pytest.approx(10 / 3)
    assert expected(home, 4, 24, Heard(0, 0, 1_000_000), people) == pytest.approx(2.5), "never nothing"
    assert expected(home, 4, 1000, none, people) == expected(home, 4, silence.LONGEST_H, none, people)


@given(st.floats(0.01, 500), st.integers(0, 400))
def test_an_area_is_silent_where_a_quarter_comes_at_most_and_so_few_by_chance_at_most_once_in_twenty_times(
    expect, received
):
    chance = math.fsum(math.exp(i * math.log(expect) - expect - math.lgamma(i + 1)) for i in range(received + 1))
    if abs(chance - silence.CHANCE) > 1e-9:
        assert is_silent(expect, received) == (chance <= silence.CHANCE and received <= expect / 4)


@given(st.floats(0, 500), st.integers(0, 400))
def test_more_reports_never_make_an_area_silent_and_fewer_never_let_it_speak(expect, received):
    if is_silent(expect, received + 1):
        assert is_silent(expect, received)
    if is_silent(expect, received):
        assert is_silent(expect * 1.1, received)


def test_a_warning_is_for_an_area_that_it_names_or_whose_point_or_places_it_holds():
    def view(**area) -> WarningView:
        event = warning(**area)
        entry = Entry(1, clock.now(), clock.now(), 1, None, event.exercise, False, event)
        return WarningView.of(entry, event)

    home = silence_timer.homes()[DEMAK]
    assert silence.lies_under(view(), home, ())
    assert not silence.lies_under(view(), silence_timer.homes()[KUDUS], ())
    assert silence.lies_under(view(), silence_timer.homes()[KUDUS], [(110.79, -6.81)]), "a place heard of in it"
    for code in (DEMAK, "kemendagri:33", "kemendagri:33.21.05", "bps:3321"):
        assert silence.lies_under(view(polygons=(), codes=(code,)), home, ()), code
    for code in ("kemendagri:33.2", "kemendagri:3", "kemendagri:32", "emma:DE33"):
        assert not silence.lies_under(view(polygons=(), codes=(code,)), home, ()), code


def test_the_shipped_list_has_every_regency_and_city_with_people_and_most_with_a_point_in_its_province():
    homes = silence_timer.homes()
    assert len(homes) == 514
    assert sum(home.population for home in homes.values()) == 284_973_643
    assert sum(home.point is None for home in homes.values()) <= 34
    for home in homes.values():
        assert home.point is None or (94 < home.point[0] < 142 and -12 < home.point[1] < 7)


def test_a_list_of_the_installation_is_refused_where_it_cannot_be_read(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("code,population,lon,lat\nbps:3321,1000,110.6,-6.9\nkemendagri:33.19,5,,\n", "utf-8")
    assert silence.homes(path) == {DEMAK: Home(DEMAK, 1000, (110.6, -6.9)), KUDUS: Home(KUDUS, 5, None)}
    for bad in ("3321,1000,,", "bps:3321,many,,", "bps:3321,5,110.6,"):
        path.write_text(f"code,population,lon,lat\n{bad}\n", "utf-8")
        with pytest.raises(ValueError, match=r"scheme|int|point"):
            silence.homes(path)


async def test_silence_is_told_of_once_when_too_little_comes_and_not_where_people_write(make_db):
    db = make_db("sitrep")
    wire = Wire(service.consumer, db)
    await wire.deliver(opened())
    # Demak is under water and says nothing; Bogor is under the same warning and writes; Kudus is not warned of.
    await wire.deliver(warning(codes=(BOGOR,)))
    assert await silence_timer.notice(db) == []
    clock.shift(timedelta(hours=12))
    for _ in range(40):
        await wire.deliver(report("kemendagri:32.01.05"))
    await wire.deliver(report("bps:3321050"))
    told = await silence_timer.notice(db)
    assert [(each.area, each.name, each.expected, each.received, each.operation) for each in told] == [
        (DEMAK, "Kabupaten Demak", "5-9", "1-4", "banjir-demak")
    ]
    assert await silence_timer.notice(db) == []
    clock.shift(timedelta(hours=12))
    assert await silence_timer.notice(db) == []
    assert [event.area for event in await emitted(db, SilenceNoticed)] == [DEMAK]


async def test_no_silence_is_told_of_under_a_warning_that_is_minor_cancelled_over_or_a_test(make_db):
    db = make_db("sitrep")
    wire = Wire(service.consumer, db)
    await wire.deliver(opened())
    await wire.deliver(warning(severity=1))
    await wire.deliver(warning(status="test"))
    await wire.deliver(warning(expires_at=clock.now() + timedelta(hours=6)))
    await wire.deliver(warning(effective_at=clock.now() + timedelta(hours=11, minutes=55)))
    chain: UUID = uuid4()
    await wire.deliver(warning(warning_id=chain), sequence=1)
    await wire.deliver(warning(WarningCancelled, warning_id=chain, state="cancelled"), sequence=2)
    clock.shift(timedelta(hours=12))
    assert await silence_timer.notice(db) == []


async def test_a_drill_warning_counts_the_drill_s_reports_and_speaks_to_the_drill_only(make_db):
    db = make_db("sitrep")
    wire = Wire(service.consumer, db)
    await wire.deliver(opened())
    await wire.deliver(warning(status="exercise"))
    clock.shift(timedelta(hours=24))
    assert await silence_timer.notice(db) == [], "there is no drill to tell"
    await wire.deliver(opened("latihan", exercise=True))
    chain = uuid4()
    await wire.deliver(warning(status="exercise", warning_id=chain))
    clock.shift(timedelta(hours=24))
    for _ in range(40):
        await wire.deliver(report(DEMAK))
    told = await silence_timer.notice(db)
    assert [(each.operation, each.exercise, each.received) for each in told] == [("latihan", True, "0")]


async def test_a_silence_comes_back_into_the_log_is_in_the_report_and_sends_intake_to_look(make_db, make_client):
    passing = Passing(make_db, [service, intake])
    db = passing.db["sitrep"]
    wire = passing.wires["sitrep"]
    await wire.deliver(opened())
    await passing.wires["intake"].deliver(opened())
    await wire.deliver(warning())
    clock.shift(timedelta(hours=24))
    await silence_timer.notice(db)
    await passing.on()
    client, operator = patient(make_client([service, intake])), bearer("operator")
    for headers in (operator, {}):
        for query in ("?operation=banjir-demak", "?area=kemendagri:33", ""):
            found = (await client.get(f"/v1/sitreps{query}", headers=headers)).json()["silent_areas"]
            assert [(each["area"], each["expected"], each["received"]) for each in found] == [(DEMAK, "10-19", "0")]
    assert (await client.get("/v1/sitreps?area=kemendagri:32", headers=operator)).json()["silent_areas"] == []
    text = (await client.get("/v1/sitreps?format=md&lang=id", headers=operator)).text
    assert "Wilayah senyap" in text and "Kabupaten Demak (kemendagri:33.21)" in text
    rows = (await client.get("/v1/sitreps/silence", headers=operator)).json()["items"]
    assert [(row["area"], row["silent"], row["noticed_at"] is None) for row in rows] == [(DEMAK, True, False)]
    assert (await client.get("/v1/sitreps/silence")).status_code in (401, 403)
    needs = (await client.get("/v1/needs?operation=banjir-demak", headers=operator)).json()
    assert [(need["skill"], need["status"], need["location"]["admin"]) for need in needs["needs"]] == [
        ("assessment", "draft", DEMAK)
    ]
    # As of the moment before it was noticed the report knows of none; a day later it is news no more.
    async with db.tx() as tx:
        at = await tx.fetchval("SELECT position FROM log WHERE type = $1", SilenceNoticed.type)
        before = await reporting.document(tx, at - 1, Scope("banjir-demak"), exact=True)
    assert before["silent_areas"] == []
    clock.shift(timedelta(hours=25))
    await wire.deliver(report(BOGOR))
    later = (await client.get("/v1/sitreps?operation=banjir-demak", headers=bearer("operator"))).json()
    assert later["silent_areas"] == []
