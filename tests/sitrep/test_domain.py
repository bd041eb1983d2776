"""The rules of counting: bands, areas, words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.sitrep import document, domain
from services.sitrep.bands import band
from services.sitrep.domain import Scope
from services.sitrep.publish import EVERY, FIRST, due
from services.sitrep.render.markdown import safe
from services.sitrep.render.words import WORDS, local, number


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0"),
        (1, "1-4"),
        (4, "1-4"),
        (5, "5-9"),
        (9, "5-9"),
        (10, "10-19"),
        (19, "10-19"),
        (20, "20-49"),
        (49, "20-49"),
        (50, "50-99"),
        (99, "50-99"),
        (100, "100-199"),
        (200, "200-499"),
        (999, "500-999"),
        (1000, "1000-1999"),
        (2_500_000, "2000000-4999999"),
    ],
)
def test_bands_are_fixed(count, expected):
    assert band(count) == expected


@given(st.integers(1, 10**12))
def test_a_count_lies_in_its_band_and_the_band_is_the_same_for_both_ends(count):
    low, high = (int(part) for part in band(count).split("-"))
    assert low <= count <= high
    assert band(low) == band(high) == band(count)
    assert band(high + 1) != band(high)
    assert high - low >= 3


@pytest.mark.parametrize(
    ("area", "admin", "holds"),
    [
        (None, None, True),
        ("kemendagri:32.04", None, False),
        ("kemendagri:32.04", "kemendagri:32.04.05.2001", True),
        ("kemendagri:32.04", "kemendagri:32.040", False),
        ("kemendagri:31.74", "bps:3174", False),  # Jakarta Selatan is 31.74 there and 3171 here
        ("kemendagri:31.74", "bps:3171", True),
        ("bps:32", "bps:3204050", True),
        ("bps:32", "kemendagri:32.04", True),
        ("bps:32", "bps:33", False),
        ("glide:X", "glide:X", True),
    ],
)
def test_an_area_holds_its_own_code_and_those_within(area, admin, holds):
    assert Scope(area=area).holds(admin) is holds


def test_no_operation_means_all_live_ones_and_a_token_narrows_them():
    assert Scope().covers("a", False)
    assert Scope().covers(None, False)
    assert not Scope().covers("a", True)
    assert Scope("a").covers("a", True)
    assert not Scope("a").covers("b", False)
    assert Scope(allowed=("a",)).covers("a", False)
    assert not Scope(allowed=("a",)).covers("b", False)


@given(st.text())
def test_text_from_outside_cannot_leave_its_cell(text):
    told = safe(text)
    assert "\n" not in told
    unescaped = told.replace("\\\\", "").replace("\\|", "").replace("\\<", "")
    assert "|" not in unescaped
    assert "<" not in unescaped


def test_instants_carry_the_zone_of_the_operation():
    assert local("2026-11-24T02:10:05Z", "Asia/Jakarta", "id") == "24 November 2026 09.10.05 WIB"
    assert local("2026-11-24T02:10:05Z", "Asia/Makassar", "en") == "24 November 2026 10:10:05 WITA"
    assert local("2026-08-24T16:10:05Z", "Asia/Jayapura", "id") == "25 Agustus 2026 01.10.05 WIT"
    assert local("2026-08-24T16:10:05Z", "No/Such", "en") == "24 August 2026 16:10:05 UTC"


def test_numbers_are_parted_as_the_language_does():
    assert number(20694, "id") == "20.694"
    assert number(20694, "en") == "20,694"
    assert number("20-49", "id") == "20-49"


def test_every_figure_has_a_word_in_both_languages():
    names = [*domain.PEOPLE, *domain.DAMAGE, *domain.EVIDENCE, *document.SEVERITIES]
    names += [f"offer_{state}" for state in document.OFFER_STATES]
    names += [f"assignment_{state}" for state in document.ASSIGNMENT_STATES]
    assert [name for name in names if name not in WORDS] == []
    assert all(all(pair) for pair in WORDS.values())


def test_a_report_is_due_soon_at_first_then_at_most_once_in_its_time_and_never_without_a_change():
    from datetime import UTC, datetime

    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert not due(None, None, now)
    assert not due(now - EVERY * 2, None, now)
    assert not due(None, now - FIRST / 2, now)
    assert due(None, now - FIRST, now)
    assert not due(now - EVERY / 2, now - EVERY / 3, now)
    assert due(now - EVERY, now - EVERY / 3, now)
