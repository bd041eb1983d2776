"""What masking must hide, and what it must leave alone."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.intake.masking import PLACEHOLDER, find, mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        # mobile numbers
        ("HP 081234567890 ya", "HP [nomor] ya"),
        ("0812-3456-7890", "[nomor]"),
        ("0812.3456.7890.", "[nomor]."),
        ("0812 34 56 78 90 tolong", "[nomor] tolong"),
        ("WA08123456789", "WA[nomor]"),
        ("0 8 1 2 3 4 5 6 7 8 9 0", "[nomor]"),
        ("0812\u200b3456\u200b7890", "[nomor]"),
        ("0812\u00a03456\u20137890", "[nomor]"),
        ("\u0660\u0668\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669\u0660", "[nomor]"),
        ("81234567890", "[nomor]"),
        ("812-3456-7890", "[nomor]"),
        ("0812-3456-7890/0813-1111-2222", "[nomor]/[nomor]"),
        ("0812 3456 7890 0813 1111 2222", "[nomor] [nomor]"),
        ("0812 345 678 30 orang", "[nomor] 30 orang"),
        # international
        ("+62 812 3456 7890", "[nomor]"),
        ("+62(0)812-3456-7890", "[nomor]"),
        ("(+62) 812-3456-7890", "[nomor]"),
        ("62 812 3456 7890", "[nomor]"),
        ("6281234567890", "[nomor]"),
        ("0062 812 3456 7890", "[nomor]"),
        ("+1-555-123-4567", "[nomor]"),
        ("+509 37 46 1234", "[nomor]"),
        ("+44 20 7946 0958", "[nomor]"),
        ("(555) 123-4567", "[nomor]"),
        # landlines
        ("(021) 555 1234", "[nomor]"),
        ("telp 021-5551234", "telp [nomor]"),
        ("0274 512345", "[nomor]"),
        ("phone 3746 1234", "phone [nomor]"),
        # identity numbers
        ("NIK 3175031201900001", "NIK [NIK]"),
        ("NIK: 3175 0312 0190 0001", "NIK: [NIK]"),
        ("317503.120190.0001", "[NIK]"),
        ("3175-0312-0190-0001", "[NIK]"),
        ("KTP 1234 5678 9012 3456", "KTP [NIK]"),
        ("3175031201900001 0812 3456 7890", "[NIK] [nomor]"),
        # addresses
        ("budi.santoso+posko@mail.example.co.id, ok", "[email], ok"),
        ("<posko@example.org>", "<[email]>"),
        ("a@b.co;c@d.id", "[email];[email]"),
        ("081234567890@example.com", "[email]"),
        # names
        ("Saya Budi Santoso, RT 05", "Saya [nama], RT 05"),
        ("hubungi pak BUDI ya", "hubungi pak [nama] ya"),
        ("budi  santoso", "[nama]"),
    ],
)
def test_what_identifies_a_person_is_masked(text: str, masked: str) -> None:
    assert mask(text, "Budi Santoso") == masked


@pytest.mark.parametrize(
    "text",
    [
        "-6.2088, 106.8456", "-6.20881234 106.84561234", "-8.65000000 115.2167000", "lat: -6.222 lon: 106.8661234567",
        "0.50710000, 101.44778000", "6°12'30.1234\"S 106°49'00\"E", "18 32 51.72N 72 17 07.62W", "106.8456123456789",
        "24-11-2026 09:10", "2026-11-24T09:10:00+07:00", "24/11/2026", "24.11.2026 13.00", "tahun 2019 2020 2021 2022",
        "banjir 30-60 cm", "1,5 meter", "tinggi 150 cm, 234 keluarga", "jam 13.00 - 15.30", "naik 50cm",
        "RT 05/RW 03", "RT.005 RW.010", "rt 005-010", "Jl. Nirbaya 3 No. 12", "Blok D10 no 112", "kode pos 13640",
        "Rp 1.500.000", "Rp 812.345.678", "1.250.000 jiwa", "km 37", "3 orang, 120 KK, 45 balita",
        "Jalan Budi 3", "kebudian", "gempa 5.6 SR 10 km", "20201124 0910",
    ],
)  # fmt: skip
def test_places_dates_depths_and_counts_are_left_alone(text: str) -> None:
    assert mask(text, "Budi Santoso") == text


def test_one_number_has_one_value_however_it_is_written() -> None:
    ways = [
        "0812-3456-7890",
        "+62 812 3456 7890",
        "6281234567890",
        "0062 812 3456 7890",
        "812 3456 7890",
        "+62(0)8123456 7890",
    ]
    assert {f.value for way in ways for f in find(way)} == {"6281234567890"}


MOBILE = st.from_regex(r"08[1-9][0-9]{7,10}", fullmatch=True)
NIK = st.from_regex(r"3[1-6][0-9]{4}(0[1-9]|[12][0-9]|4[1-9])(0[1-9]|1[0-2])[0-9]{6}", fullmatch=True)
PLAIN = st.text(alphabet="abcdefghij ,\n", max_size=20).map(lambda s: f" {s} ")
GAP = st.sampled_from(["", " ", "-", ".", " - ", "\u200b"])


def spaced(digits: str, cuts: list[int], gap: str) -> str:
    parts, at = [], 0
    for cut in cuts:
        if cut > 0 and at + cut < len(digits):
            parts.append(digits[at : at + cut])
            at += cut
    return gap.join([*parts, digits[at:]])


@settings(max_examples=300)
@given(PLAIN, MOBILE, GAP, PLAIN)
@example(" hubungi ", "08123456789", " ", " 1 ")
def test_a_mobile_number_never_survives_in_any_common_grouping(before: str, number: str, gap: str, after: str) -> None:
    masked = mask(before + spaced(number, [4, 4], gap) + after)
    assert masked.count("[nomor]") == 1
    assert not re.search(r"\d{3}", masked)


@settings(max_examples=300)
@given(
    PLAIN,
    NIK,
    st.sampled_from([[], [4, 4, 4], [6, 6], [2, 2, 2, 6], [6, 2, 2, 2]]),
    st.sampled_from([" ", "-", "."]),
    PLAIN,
)
def test_a_nik_never_survives_in_one_piece_or_in_pieces(
    before: str, nik: str, cuts: list[int], gap: str, after: str
) -> None:
    masked = mask(before + spaced(nik, cuts, gap) + after)
    assert masked == f"{before}[NIK]{after}"


@settings(max_examples=300)
@given(st.floats(-90, 90), st.floats(-180, 180), st.integers(4, 7), st.sampled_from([", ", " ", ",", "; ", "/"]))
def test_a_coordinate_pair_is_never_masked(lat: float, lon: float, digits: int, between: str) -> None:
    text = f"{lat:.{digits}f}{between}{lon:.{digits}f}"
    assert mask(text) == text


@settings(max_examples=300)
@given(st.text(max_size=300), st.one_of(st.none(), st.text(max_size=40)))
def test_masking_twice_is_masking_once_and_spans_are_in_order(text: str, name: str | None) -> None:
    found = find(text, name)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(a.end <= b.start for a, b in pairwise(found))
    once = mask(text, name)
    assert mask(once, name) == once


@settings(max_examples=200)
@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz ,.!?\n", max_size=300))
def test_text_without_digits_or_addresses_is_unchanged(text: str) -> None:
    assert mask(text) == text


@pytest.mark.parametrize(
    "piece",
    [
        "0812 ",
        "1 ",
        "@",
        "a@",
        "a.@b.",
        "0",
        "(",
        "1-",
        "+",
        "+62",
        "a@b.",
        "hp ",
        "1.12345",
        "budi ",
        "[nomor]",
        "nik ",
    ],
)
def test_hostile_text_costs_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            mask(text, "Budi Santoso")
            best = min(best, time.process_time() - start)
        return best

    seconds(1_000)
    # Forty times the text may cost about 40 times the processor seconds; 1600 times would be quadratic.
    assert seconds(80_000) < 200 * seconds(2_000) + 0.02


def test_placeholders_hold_nothing_that_masks_again() -> None:
    assert all(mask(p) == p for p in PLACEHOLDER.values())
