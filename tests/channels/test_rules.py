"""When messages may go out, what receipts change, and what is said in two languages."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.channels import rules, templates

JAKARTA = ZoneInfo("Asia/Jakarta")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "hours", "until"),
    [
        ("2026-11-24T22:30:00+07:00", (21, 5), "2026-11-25T05:00:00+07:00"),
        ("2026-11-24T04:59:00+07:00", (21, 5), "2026-11-24T05:00:00+07:00"),
        ("2026-11-24T05:00:00+07:00", (21, 5), None),
        ("2026-11-24T20:59:59+07:00", (21, 5), None),
        ("2026-11-24T21:00:00+07:00", (21, 5), "2026-11-25T05:00:00+07:00"),
        ("2026-11-24T15:30:00+00:00", (21, 5), "2026-11-25T05:00:00+07:00"),
        ("2026-11-24T13:30:00+07:00", (13, 15), "2026-11-24T15:00:00+07:00"),
        ("2026-11-24T15:00:00+07:00", (13, 15), None),
        ("2026-11-24T23:00:00+07:00", (0, 0), None),
    ],
)
def test_the_night_is_where_the_person_is(now, hours, until):
    assert rules.quiet_until(at(now), JAKARTA, *hours) == (at(until) if until else None)


@given(
    st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC)),
    st.integers(0, 23),
    st.integers(0, 23),
)
def test_after_the_night_it_is_day(now, begins, ends):
    until = rules.quiet_until(now, JAKARTA, begins, ends)
    if until is not None:
        assert now < until <= now + timedelta(days=1)
        assert rules.quiet_until(until, JAKARTA, begins, ends) is None


def test_each_pause_is_as_long_as_the_one_before_or_longer():
    pauses = [rules.pause(n) for n in range(1, 20)]
    assert pauses == sorted(pauses) and pauses[0] >= timedelta(seconds=1) and pauses[-1] <= timedelta(hours=1)


@pytest.mark.parametrize("said", list(itertools.product(("sent", "delivered", "failed"), repeat=3)))
def test_receipts_lead_to_one_state_in_whatever_order_and_however_often(said):
    ends = set()
    for order in itertools.permutations(said):
        state = "attempting"
        for word in (*order, *order):
            state = rules.after_receipt(state, word) or state
        ends.add(state)
    assert len(ends) == 1
    assert ends == {"delivered"} or "delivered" not in said


def test_what_was_dropped_stays_so():
    assert {rules.after_receipt("dropped", said) for said in ("sent", "delivered", "failed")} == {None}


@pytest.mark.parametrize("name", templates.names())
def test_both_languages_need_the_same_values_and_fit_into_two_text_messages(name):
    assert templates.values_of(name, "id") == templates.values_of(name, "en")
    values = dict.fromkeys(templates.values_of(name, "id"), "x" * 14)
    for language in ("id", "en"):
        text = templates.render(name, language, values)
        assert text.isascii() and 0 < len(text) <= 306 and "{" not in text


def test_a_drill_and_a_possible_double_say_so_first():
    text = templates.render("placed", "id", {"ticket": "A"}, exercise=True, doubled=True)
    assert text.startswith("LATIHAN. (Mungkin terkirim dua kali) Terima kasih")
    assert templates.render("placed", "en-GB", {"ticket": "A"}, exercise=True).startswith("LATIHAN (drill). Thank")


@pytest.mark.parametrize("language", [None, "", "id", "jv", "su-Latn"])
def test_who_does_not_ask_for_english_reads_indonesian(language):
    assert templates.language_of(language) == "id"


def test_both_services_send_from_the_same_table():
    root = Path(__file__).resolve().parents[2] / "services"
    intake = (root / "intake/migrations/0006_outbound.sql").read_text("utf-8").split("CREATE TABLE", 1)[1]
    registry = (root / "registry/migrations/0002_outbound.sql").read_text("utf-8").split("CREATE TABLE", 1)[1]
    assert intake == registry
