"""How a text is read before it is compared."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.intake.text import MOST_WORDS, normalise, read


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Tlg rmh sy di Jln. Melati sdh kebanjiran", "tolong rumah sy di jalan melati sudah banjir"),
        ("BANJIRRRR!!! airrr naik", "banjir air naik"),
        ("Tom &amp;amp; Jerry &lt;b&gt;Pasar&lt;/b&gt;", "tom jerry pasar"),
        ("Hôpital à Léogâne", "hopital a leogane"),
        ("manj?, p?di", "manj pdi"),
        ("ibu2 dan anak2", "ibu dan anak"),
        ("We need water -- Category: 3a. Water shortage\nTime:2010-01-22 14:10:10 type: actionable", "we need water"),
        ("latitude: 18.51 longitude: -72.27 IDUshahidi: 4514 ~~~~~~~~ [4324] kay", "kay"),
    ],
)
def test_words_come_out_in_one_spelling_and_without_form_lines(text: str, words: str) -> None:
    assert " ".join(read(text).words) == words


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("RT 005/RW.03", {"rt#5", "rw#3"}),
        ("Rue Dupuy No. 49", {"dupuy#49"}),
        ("Delmas 75", {"delmas#75"}),
        ("tinggi air 60 cm sejak jam 7", set()),
        ("pukul 13.00, 1,5 meter", set()),
    ],
)
def test_numbers_keep_the_word_before_them_but_depths_and_times_are_no_numbers(text: str, pairs: set[str]) -> None:
    assert {f"{word}#{number}" for word, number in read(text).numbered} == pairs


@pytest.mark.parametrize(
    "text", ["hub 0812-3456-7890", "WA +62 812 3456 7890 ya", "(62)81234567890", "0062 812 3456 7890"]
)
def test_one_telephone_number_is_one_contact_however_it_is_written(text: str) -> None:
    assert read(text).contacts == ("phone:6281234567890",)


def test_placeholders_that_name_a_contact_count_and_those_that_name_nobody_do_not() -> None:
    assert read("call [phone_92143b] or [email_eed0b7]").contacts == ("phone:92143b", "email:eed0b7")
    masked = read("hubungi [nomor] atau [email]")
    assert masked.contacts == ()
    assert masked.words == ("hubungi", "atau")


def test_equal_texts_have_one_key_and_other_numbers_another() -> None:
    assert read("Banjir  di RT 05!").key == read("banjir di rt 05").key
    assert read("Banjir di RT 05").key != read("Banjir di RT 06").key
    assert read("").key == read("  !! ").key == 0


@settings(max_examples=200)
@given(st.text(max_size=400))
def test_any_text_is_read_without_fault_and_within_its_bounds(text: str) -> None:
    reading = read(text)
    assert len(reading.words) <= MOST_WORDS
    assert len(set(reading.words)) == len(reading.words)
    assert read(text) == reading
    normalise(text)


@pytest.mark.parametrize(
    "piece", ["<a", "&amp;", "(translat", "category: ", "~", "[1", "a?", "aaa", "1.1", "@", "é", "time: 2010-01-", "a2"]
)
def test_hostile_text_of_ten_thousand_characters_is_read_in_linear_time(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        best = 1e9
        for _ in range(5):
            start = time.process_time()
            normalise(text)
            best = min(best, time.process_time() - start)
        return best

    seconds(1_000)
    # Forty times the text may cost about 40 times the processor seconds; 1600 times would be quadratic.
    assert seconds(80_000) < 200 * seconds(2_000) + 0.02
    read(piece * 10_000)
