"""The rules of reports, incidents, needs and rates, without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.intake import domain, needs
from services.intake.bodies import NeedIn, PlaceIn, ReportIn, hazard_code
from services.intake.domain import Operation, Told
from services.intake.evidence import evidence_of
from services.intake.needs import Ask
from services.intake.rates import Rates, Window
from services.intake.summary import summary
from services.runtime import clock
from services.runtime.auth import Actor
from services.runtime.problems import TooMany

NOW = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
WIB = ZoneInfo("Asia/Jakarta")


def told(**values) -> Told:
    values.setdefault("report_id", uuid4())
    values.setdefault("origin", "/public")
    values.setdefault("received_at", NOW)
    values.setdefault("observed_at", NOW)
    return Told(**values)


def operation(name: str, **values) -> Operation:
    values.setdefault("exercise", False)
    values.setdefault("hazards", ("flood",))
    values.setdefault("areas", ("kemendagri:31",))
    values.setdefault("bbox", (106.6, -6.4, 107.0, -6.0))
    values.setdefault("timezone", "Asia/Jakarta")
    values.setdefault("opened_at", NOW)
    return Operation(name, **values)


# Tickets


def test_a_ticket_is_read_back_however_it_is_typed():
    ticket = domain.ticket_of(bytes(range(1, 9)))
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{4}(-[0-9A-HJKMNP-TV-Z]{4}){2}", ticket)
    assert domain.read_ticket(ticket.lower().replace("-", "")) == ticket
    assert domain.read_ticket(ticket.replace("0", "o").replace("1", "l")) == ticket
    assert domain.read_ticket("U" * 12) is None and domain.read_ticket("short") is None


@given(st.binary(min_size=8, max_size=8))
def test_every_ticket_reads_back_as_itself(random):
    assert domain.read_ticket(domain.ticket_of(random)) == domain.ticket_of(random)


@given(st.text(max_size=30))
def test_no_typed_ticket_breaks_the_reading(said):
    found = domain.read_ticket(said)
    assert found is None or domain.read_ticket(found) == found


# Operations


@pytest.mark.parametrize(
    ("hazard", "lon", "lat", "admin", "expected"),
    [
        ("flood", 106.8, -6.2, None, "jakarta"),
        ("flash_flood", 106.8, -6.2, None, "jakarta"),  # one family
        (None, 106.8, -6.2, None, "jakarta"),  # nobody said what
        ("earthquake", 106.8, -6.2, None, "standing"),
        ("flood", 110.0, -7.0, None, "standing"),
        ("flood", None, None, "kemendagri:31.75.03", "jakarta"),
        ("flood", None, None, "bps:3174", "jakarta"),  # across schemes
        ("flood", None, None, "kemendagri:32.04", "standing"),
        ("flood", None, None, None, "standing"),  # it does not say where
    ],
)
def test_an_unnamed_report_goes_where_area_and_hazard_fit(hazard, lon, lat, admin, expected):
    known = [operation("jakarta"), operation("standing", hazards=(), areas=(), bbox=None)]
    assert domain.operation_by_rule(known, hazard, lon, lat, admin) == expected


def test_the_newest_open_operation_that_is_no_exercise_is_chosen():
    old, new = operation("old", opened_at=NOW - timedelta(days=9)), operation("new")
    drill = operation("drill", exercise=True, opened_at=NOW + timedelta(days=1))
    closed = operation("closed", opened_at=NOW + timedelta(days=2), closed_at=NOW + timedelta(days=3))
    assert domain.operation_by_rule([new, old, drill, closed], "flood", 106.8, -6.2, None) == "new"


def test_a_named_operation_is_taken_held_or_placed_by_rule():
    known = {"drill": operation("drill", exercise=True), "closed": operation("closed", closed_at=NOW)}
    assert domain.named_operation("drill", known) is True
    assert domain.named_operation("standing", {}) is True
    assert domain.named_operation("closed", known) is False
    assert domain.named_operation("unheard", known) is None
    assert domain.named_operation(None, known) is False


def test_a_box_over_the_date_line_holds_both_sides():
    taveuni = operation("fiji", areas=(), bbox=(179.0, -18.0, -179.0, -16.0))
    assert domain.area_fits(taveuni, 179.9, -17.0, None) and domain.area_fits(taveuni, -179.9, -17.0, None)
    assert not domain.area_fits(taveuni, 0.0, -17.0, None)


def test_a_clock_that_is_ahead_does_not_count():
    assert domain.when_observed(None, NOW) == (NOW, False)
    assert domain.when_observed(NOW + timedelta(hours=1), NOW) == (NOW, True)
    assert domain.when_observed(NOW + timedelta(seconds=30), NOW) == (NOW, False)
    assert domain.when_observed(NOW - timedelta(hours=1), NOW) == (NOW - timedelta(hours=1), False)


# What reports say together


def test_evidence_needs_two_independent_voices_or_an_authority():
    assert evidence_of([told(voice="a"), told(voice="a"), told()]) == "reported"
    assert evidence_of([told(), told()]) == "reported"  # nobody can tell whose words these are
    assert evidence_of([told(voice="a"), told(voice="b")]) == "corroborated"
    assert evidence_of([told(voice="a"), told(voice="b", copy=True)]) == "reported"
    assert evidence_of([told(voice="a"), told(official=True)]) == "official"


def test_the_largest_figure_of_a_field_counts():
    said = summary(
        [told(people={"dead": 1, "injured": 4}), told(people={"dead": 2}), told(damage={"houses_flooded": 7})], WIB
    )
    assert said.people == {"dead": 2, "injured": 4} and said.damage == {"houses_flooded": 7}


def test_official_statements_combine_by_the_latest_of_area_day_and_source():
    def row(hours, dead, area="bps:3174", origin="/files/bnpb"):
        return told(
            official=True, admin=area, origin=origin, observed_at=NOW + timedelta(hours=hours),
            received_at=NOW + timedelta(hours=hours), people={"dead": dead},
        )  # fmt: skip

    corrected = [row(0, 9), row(1, 4)]  # the same day: the later one counts though it is smaller
    assert summary(corrected, WIB).people == {"dead": 4}
    assert summary([*corrected, row(48, 6)], WIB).people == {"dead": 6}  # running totals of two days
    assert summary([*corrected, row(0, 5, origin="/files/other")], WIB).people == {"dead": 5}
    assert summary([*corrected, row(0, 3, area="bps:3175")], WIB).people == {"dead": 7}  # two areas add up
    assert summary([*corrected, told(people={"dead": 500})], WIB).people == {"dead": 4}  # a rumour does not


def test_a_summary_takes_highest_severity_commonest_hazard_first_place_and_the_middle():
    said = summary(
        [
            told(text="Banjir di sini", hazard="other", lon=106.0, lat=-6.0, place="Kali"),
            told(hazard="flood", severity=4, lon=106.002, lat=-6.002, admin="bps:3174"),
            told(hazard="landslide"),
            told(hazard="flood"),
        ],
        WIB,
    )
    assert (said.title, said.hazard, said.severity, said.place, said.admin) == (
        "Banjir di sini", "flood", 4, "Kali", "bps:3174",
    )  # fmt: skip
    assert (said.lon, said.lat) == (106.001, -6.001)


def test_an_unstated_severity_is_serious_where_somebody_is_hurt():
    assert domain.severity_of(None, {}) == 2
    assert domain.severity_of(None, {"injured": 1}) == 3
    assert domain.severity_of(None, {"dead": 0}) == 2
    assert domain.severity_of(1, {"dead": 1}) == 4  # a slip of the finger does not hide the dead


def test_a_title_comes_from_the_text_or_from_hazard_and_place():
    assert domain.title_of(None, "  Air  naik\n cepat ", "flood", None, None) == "Air naik cepat"
    assert domain.title_of(None, None, "flood", None, "kemendagri:32.04") == "Banjir di Kabupaten Bandung"
    assert domain.title_of(None, None, None, None, None) == "Kejadian"
    long = domain.title_of(None, "kata " * 100, None, None, None)
    assert len(long) <= 80 and long.endswith("…")


@given(st.lists(st.tuples(st.floats(-0.01, 0.01), st.floats(-1, 1)), min_size=1, max_size=20), st.floats(-180, 180))
def test_the_middle_lies_among_its_points_also_over_the_date_line(offsets, base):
    points = [(((base + east + 180) % 360) - 180, north) for east, north in offsets]
    lon, lat = domain.middle(points)
    assert lon is not None and lat is not None
    assert abs(((lon - base + 180) % 360) - 180) <= 0.0101 and -1.000001 <= lat <= 1.000001


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0"), (1, "1-4"), (4, "1-4"), (5, "5-9"), (10, "10-19"), (49, "20-49"), (50, "50-99"), (10_000, "10000+")],
)
def test_people_are_shown_to_the_public_in_bands(count, shown):
    assert domain.band(count) == shown


@given(st.integers(1, 9_999))
def test_a_band_holds_its_count(count):
    low, high = domain.band(count).split("-")
    assert int(low) <= count <= int(high)


def test_the_public_sees_a_place_only_within_its_cell():
    assert domain.coarse_point(106.8661, -6.2221) == domain.coarse_point(106.8662, -6.2222)


@given(st.text(max_size=3000), st.integers(50, 4000))
def test_a_cut_text_fits_and_is_cut_only_where_it_must_be(text, limit):
    cut, was = domain.json_cut(text, limit)
    assert text.startswith(cut) and was == (cut != text)
    assert len(orjson.dumps(cut)) - 2 <= limit


def test_a_ticket_never_shows_a_later_step_before_an_earlier_one():
    steps = domain.ticket_history(
        NOW, NOW + timedelta(hours=2), NOW + timedelta(hours=1), None, NOW + timedelta(hours=3)
    )
    assert [status for _, status in steps] == ["received", "linked", "verified", "resolved"]
    assert [at for at, _ in steps] == sorted(at for at, _ in steps)


# Needs


def judged(asks, **values):
    settings = {
        "status": "draft", "figure": None, "corroborated": False, "placed": True, "small": 2, "allowance": {"c": 3},
        "fallback": (1, 2),
    } | values  # fmt: skip
    return needs.judge(asks, **settings)


def ask(quantity, **values) -> Ask:
    return Ask(uuid4(), quantity, values.pop("severity", 2), **values)


@pytest.mark.parametrize(
    ("asks", "settings", "status", "quantity"),
    [
        ([ask(50, proven=True)], {}, "declared", 50),
        ([ask(50, proven=True)], {"placed": False}, "draft", 50),
        ([ask(50, contact="c")], {}, "draft", 50),
        ([ask(50, contact="c")], {"corroborated": True}, "declared", 50),
        ([ask(2, contact="c")], {}, "declared", 2),
        ([ask(2)], {}, "draft", 2),  # without a contact nobody can be asked back
        ([ask(2, contact="c")], {"allowance": {"c": 0}}, "draft", 2),
        ([ask(2, contact="c")], {"small": 0}, "draft", 2),
        ([ask(5, proven=True), ask(9, proven=True)], {}, "declared", 9),  # the largest, not the sum
        ([ask(5, proven=True)], {"figure": 3}, "declared", 3),  # an operator's figure goes before
        ([ask(2, counts=True), ask(500, contact="c")], {"status": "declared"}, "declared", 2),  # nobody vouches for 500
        ([ask(2, counts=True), ask(500, contact="c")], {"status": "declared", "corroborated": True}, "declared", 500),
        ([], {"status": "declared"}, "withdrawn", 1),
        ([], {"status": "declared", "figure": 7}, "declared", 7),
    ],
)
def test_a_need_is_declared_by_who_asks_and_how_much(asks, settings, status, quantity):
    verdict = judged(asks, **settings)
    assert (verdict.status, verdict.quantity) == (status, quantity)


def test_a_small_need_uses_up_its_contacts_allowance_once():
    assert judged([ask(1, contact="c")]).small_contact == "c"
    assert judged([ask(1, contact="c")], status="declared").small_contact is None
    assert judged([ask(1, contact="c"), ask(1, proven=True)]).small_contact is None


@given(
    st.lists(
        st.builds(
            Ask, st.uuids(), st.integers(1, 1000), st.integers(1, 4), st.booleans(), st.sampled_from([None, "c", "d"])
        ),
        min_size=1,
        max_size=8,
    ),
    st.booleans(),
    st.booleans(),
)
def test_a_need_never_exceeds_what_one_report_asks(asks, corroborated, placed):
    verdict = judged(asks, corroborated=corroborated, placed=placed)
    assert verdict.quantity in {a.quantity for a in asks}
    assert verdict.severity == max(a.severity for a in asks)
    if verdict.status == "declared":
        assert placed and verdict.counting
    if verdict.status == "declared" and not corroborated and not any(a.proven for a in asks):
        assert verdict.quantity <= 2


@pytest.mark.parametrize(
    ("received", "delivered", "quantity", "expected"),
    [
        ("yes", 5, None, (5, 0)),
        ("yes", 5, 3, (3, 0)),
        ("no", 5, None, (0, 5)),
        ("no", 5, 2, (0, 2)),
        ("partly", 5, 3, (3, 2)),
    ],
)
def test_a_confirmation_says_how_much_came(received, delivered, quantity, expected):
    assert needs.confirmation(received, delivered, quantity) == expected


def test_more_than_was_delivered_cannot_be_confirmed():
    with pytest.raises(ValueError, match="only 5"):
        needs.confirmation("yes", 5, 6)


def test_an_unknown_word_is_counted_in_units_or_persons():
    assert needs.unit_of("boat", None) == "unit" and needs.unit_of("water", None) == "litre"
    assert needs.unit_of("helipad", None) == "unit" and needs.unit_of(None, "diver_of_wells") == "person"
    assert needs.open_ledger(5, "declared")["open"] == 5


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": "  "},
        {"text": "x" * 10_001},
        {"text": "x", "location": {"lon": 181, "lat": 0}},
        {"text": "x", "location": {"lon": 0, "lat": -90.1}},
        {"text": "x", "location": {"lon": float("nan"), "lat": 0}},
        {"text": "x", "location": {"lon": 0, "lat": float("inf")}},
        {"text": "x", "location": {"lon": 1}},
        {"text": "x", "location": {"admin": "31.75"}},
        {"text": "x", "observed_at": "2026-11-24T09:10:00"},
        {"text": "x", "observed_at": "0001-01-01T00:00:00+14:00"},
        {"text": "x", "severity": 5},
        {"text": "x", "people": {"dead": -1}},
        {"text": "x", "needs": [{"quantity": 1}]},
        {"text": "x", "needs": [{"item": "boat", "skill": "medic", "quantity": 1}]},
        {"text": "x", "needs": [{"item": "???", "quantity": 1}]},
        {"text": "x", "operation": "No Such Form"},
        {"text": "\ud800"},
    ],
)
def test_a_report_that_would_mislead_is_refused(body):
    with pytest.raises(ValidationError):
        ReportIn.model_validate(body)


@pytest.mark.parametrize(
    "body",
    [{"text": "x"}, {"title": "x"}, {"hazard": "flood"}, {"media": [{"url": "https://x.example/1.jpg"}]},
     {"text": "x", "something": "else"}, {"text": "x", "external_id": 17}],
)  # fmt: skip
def test_a_report_needs_only_something_said(body):
    assert ReportIn.model_validate(body)


def test_an_area_code_without_its_scheme_is_refused_with_the_reason():
    with pytest.raises(ValidationError, match="needs its scheme"):
        PlaceIn.model_validate({"admin": "3174"})
    with pytest.raises(ValidationError, match="needs its scheme"):
        PlaceIn.model_validate({"admin": 3174})


def test_everyday_words_become_codes():
    report = ReportIn.model_validate({"text": "x", "needs": [{"item": "perahu karet", "quantity": 1}]})
    assert report.needs[0].item == "rubber_boat"
    assert NeedIn.model_validate({"skill": "perawat", "quantity": 1, "location": {"lon": 1, "lat": 1}}).skill == "nurse"


def test_hazard_words_become_codes_and_unknown_ones_stay_or_become_other():
    assert hazard_code("BANJIR", foreign=False) == "flood"
    assert hazard_code("meteor_shower", foreign=False) == "meteor_shower"
    assert hazard_code("Hujan Meteor!", foreign=True) == "other"
    assert hazard_code("  ", foreign=False) is None
    with pytest.raises(ValueError, match="not known"):
        hazard_code("Hujan Meteor!", foreign=False)


# Rates


def test_a_contact_is_bulk_after_ten_a_minute_and_free_again_later():
    rates, actor = Rates(), Actor("public", "x", address="198.51.100.1")
    try:
        clock.set_from("2026-11-24T09:00:00+07:00")
        assert [rates.bulk(actor, "contact") for _ in range(12)] == [False] * 10 + [True] * 2
        assert rates.bulk(actor, "another") is False
        clock.shift(timedelta(seconds=61))
        assert rates.bulk(actor, "contact") is False
    finally:
        clock.reset()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 5), st.floats(0, 40)), max_size=40))
def test_a_window_sums_the_last_minute(steps):
    window, at_s, seen = Window(), 1000.0, []
    for key, amount, pause_s in steps:
        at_s += pause_s
        seen.append((key, amount, at_s))
        total = window.add(key, amount, at_s)
        surely = sum(n for k, n, t in seen if k == key and t > at_s - 60 + 0.5)  # half a second is one entry
        at_most = sum(n for k, n, t in seen if k == key and t > at_s - 60)
        assert surely <= total <= at_most


def test_a_device_counts_like_a_contact():
    rates, actor = Rates(), Actor("public", "d", address="198.51.100.1", device="d" * 20)
    assert [rates.bulk(actor, None) for _ in range(11)][-1] is True


def test_an_address_is_bulk_after_600_and_turned_away_after_6000():
    rates, actor = Rates(), Actor("public", "x", address="198.51.100.1")
    clock.set_from("2026-11-24T09:00:00+07:00")
    try:
        assert [rates.admit(actor) for _ in range(601)][-2:] == [False, True]
        with pytest.raises(TooMany) as caught:
            for _ in range(6000):
                rates.admit(actor)
        assert caught.value.headers["Retry-After"] == "60"
        assert rates.admit(Actor("public", "y", address="198.51.100.2")) is False
        clock.shift(timedelta(seconds=61))
        assert rates.admit(actor) is False
    finally:
        clock.reset()


def test_fifty_megabytes_a_minute_are_enough():
    rates, actor = Rates(), Actor("public", "x", address="198.51.100.1")
    rates.weigh(actor, 51 * 1024 * 1024)
    with pytest.raises(TooMany):
        rates.admit(actor)


def test_a_token_has_no_rate():
    rates, actor = Rates(), Actor("field", "x", address="198.51.100.1")
    assert not any(rates.admit(actor) or rates.bulk(actor, "contact") for _ in range(700))
