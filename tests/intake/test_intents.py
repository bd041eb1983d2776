"""What inbound texts want; above all: nothing doubtful is ever taken for a yes or a receipt."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import reading as bench
from services.intake.intents import intent_of

COMMITTING = ("yes", "received")


@pytest.mark.parametrize("part", ["open", "shut"])
def test_nineteen_of_twenty_inbound_texts_are_understood_and_no_acceptance_is_wrong(part: str) -> None:
    # Figures alone: rules were written from the open part, and the shut one is not for reading.
    figures = bench.intent_figures(part)
    assert figures["texts"] >= 250
    assert figures["wrong_acceptances"] == 0 and figures["wrong_quantities"] == 0
    assert figures["accuracy"] >= 0.95


@pytest.mark.parametrize(
    "text",
    [
        "bisakah anda datang", "ya sudah", "ya nanti", "ya kalau bisa", "bisa kalau malam", "bisa, tapi motor mogok",
        "bisa datang ke rumah saya", "bisa dijemput", "bisa kirim 2 perahu", "bisa bantu saya", "siap siaga", "siap2",
        "siapa", "siapkan 2 perahu", "siap mengungsi", "iya pak banjir", "iya disini juga", "iya betul", "ok tunggu",
        "ok paham", "siap menunggu", "siap, ditunggu", "yes please", "yes we need it", "yes it is flooded",
        "my brother can", "suami saya bisa", "ada yang bisa", "bisa siapa", "bisa gak", "bisanya apa", "mau makan 2",
        "mau 2 perahu", "gas 3 kg", "gas bocor", "ok google", "kurang bisa", "are you sure", "we can wait",
        "can you help", "can i get food", "is boat available", "dont accept", "ya 2 atau 3", "1 ya 2 tidak", "ya/tdk",
        "y/n", "ini latihan ya", "iya deh nanti", "boleh minta", "ya pak mau tanya lokasi", "ya maaf salah",
        "siap komandan tapi tidak bisa", "otw ngungsi", "berangkat besok", "sanggup ga", "ya?", "y\u0430", "ok makasih",
        "ya kami 3 orang terjebak", "ya tolong", "ok jadi air sudah sepaha",
        "sudah terima sms nya", "pesan diterima", "tetangga sudah dapat", "katanya sudah sampai", "sudah diterima?",
        "sudah sampai kah", "sudah terima sebagian", "sudah tapi kurang", "terima kasih bantuannya",
        "kapan terima bantuan", "got no food", "got your message", "the water came", "the water has arrived",
        "air sudah datang", "sudah masuk rumah", "sudah sampai lutut", "kami sudah sampai lokasi", "we have arrived",
        "sudah sampai di posko", "baru terima setengah", "belum diterima", "not received", "ya belum",
        "sudah terima makanan, tapi air masih kurang",
    ],
)  # fmt: skip
def test_what_only_looks_like_an_acceptance_is_none(text: str) -> None:
    assert intent_of(text).intent not in COMMITTING


@pytest.mark.parametrize(
    ("text", "quantity", "codes"),
    [
        ("ya", None, ()),
        ("YAAA siap pak", None, ()),
        ("ok 2 perahu karet", 2, ()),
        ("siap tiga relawan, berangkat sekarang", 3, ()),
        ("YA K7QM 4", 4, ("K7QM",)),
        ("YTQJ-WCHE-PHVV ya", None, ("YTQJ-WCHE-PHVV",)),
        ("k7qm-3xwd-9t2f ya 10 selimut", 10, ("K7QM-3XWD-9T2F",)),
        ("yes, 5 people", 5, ()),
        ("bisa 3org", 3, ()),
    ],
)
def test_a_yes_tells_how_many_and_for_which_offer(text: str, quantity: int | None, codes: tuple[str, ...]) -> None:
    found = intent_of(text)
    assert (found.intent, found.quantity, found.codes) == ("yes", quantity, codes)


def test_a_receipt_tells_how_much_came() -> None:
    found = intent_of("sudah terima 20 nasi bungkus, terima kasih pak")
    assert (found.intent, found.quantity) == ("received", 20)
    text = "Alhamdulillah sudah kami terima"
    found = intent_of(text)
    assert found.intent == "received" and "terima" in "".join(text[s.start : s.end] for s in found.words)


@pytest.mark.parametrize("text", ["", "   ", "👍", "🙏🙏", "...", "?!", "\u202e", "7"])
def test_a_text_without_words_is_asked_back(text: str) -> None:
    assert intent_of(text).intent == "unsure"


@given(
    st.sampled_from(["ya", "siap", "ok 2", "bisa pak", "yes", "otw", "sudah diterima", "received", "sudah sampai"]),
    st.text("bcdfghjklmnpqrstvwxz", min_size=4, max_size=9),
    st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_one_strange_word_takes_an_acceptance_back(said: str, strange: str, first: bool) -> None:
    text = f"{strange} {said}" if first else f"{said} {strange}"
    assert intent_of(said).intent in COMMITTING
    assert intent_of(text).intent not in COMMITTING


@given(
    st.sampled_from(["ya", "siap pak", "bisa", "yes", "ok 2 perahu", "sudah diterima", "received"]),
    st.sampled_from(["tidak", "ga", "belum", "kalau", "nanti", "tapi", "?", "mungkin", "kapan", "tolong", "not", "if"]),
    st.booleans(),
)
@settings(deadline=None)
def test_a_denial_a_doubt_or_a_question_takes_an_acceptance_back(said: str, doubt: str, first: bool) -> None:
    text = f"{doubt} {said}" if first else f"{said} {doubt}"
    assert intent_of(text).intent not in COMMITTING


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_has_an_intent_and_words_in_it(text: str) -> None:
    found = intent_of(text)
    assert all(0 <= s.start < s.end <= len(text) for s in found.words)
    assert found == intent_of(text)


@pytest.mark.parametrize("piece", ["ya ", "tidak ", "k7qm ", "a1b2-", "sudah ", "kapan bantuan ", "?", "y"])
def test_time_is_linear_in_a_hostile_text(piece: str) -> None:
    def seconds(size: int) -> float:
        text = (piece * size)[:size]
        took = []
        for _ in range(3):
            began = time.process_time()
            intent_of(text)
            took.append(time.process_time() - began)
        return min(took)

    intent_of("warm up")
    short, long = seconds(2_500), seconds(10_000)
    assert long < 1.0
    assert long < 9 * short + 0.02
