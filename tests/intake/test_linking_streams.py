"""Linking on whole streams: a made-up one everywhere, and the labelled sets where their folder is present."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bench import dedup
from services.intake.linking import DEFAULT

DATA = dedup.shared_data()
needs_data = pytest.mark.skipif(DATA is None, reason="the labelled sets are not here (GOTONG_SHARED, else ../shared)")


def test_a_made_up_stream_comes_apart_into_its_floods() -> None:
    figures = dedup.stream_figures(dedup.generate(800))
    assert figures["precision"] >= 0.97
    assert figures["recall"] >= 0.80
    assert figures["biggest"][0] <= 8


def test_long_texts_of_a_made_up_stream_do_not_chain() -> None:
    figures = dedup.stream_figures(dedup.generate(400, words=60))
    assert figures["precision"] >= 0.97
    assert figures["biggest"][0] <= 8


def test_the_order_of_arrival_changes_little() -> None:
    stream = dedup.generate(600)
    shuffled = list(stream.reports)
    random.Random(1).shuffle(shuffled)
    figures = dedup.stream_figures(dedup.Stream("shuffled", shuffled, stream.pairs))
    assert figures["precision"] >= 0.97
    assert figures["recall"] >= 0.75


@needs_data
@pytest.mark.parametrize(("name", "f1", "days"), [("haiti-2010", 0.87, 45), ("petabencana", 0.90, 7)])
def test_a_real_stream_is_linked_within_its_limits(name: str, f1: float, days: int) -> None:
    assert DATA is not None
    figures = dedup.stream_figures(dedup.load(DATA, name))
    assert figures["f1"] >= f1
    assert figures["biggest"][0] <= 20
    assert figures["incidents"] < figures["reports"]
    assert figures["widest_km"] <= 10
    # Needs after an earthquake are entered again for weeks; a flood of another week is another flood.
    assert figures["longest_h"] <= days * 24


@needs_data
def test_labelled_pairs_are_told_by_a_fit_that_did_not_see_them() -> None:
    assert DATA is not None
    pairs = dedup.labelled(DATA)
    sets = np.array(pairs.sets)
    for probabilities in dedup.cross_validate(pairs, draws=3):
        for name, mark in (("haiti-2010", 0.90), ("petabencana", 0.92)):
            rows = sets == name
            f1 = np.mean([dedup.scores(p[rows] >= 0.5, pairs.truth[rows])[2] for p in probabilities])
            assert f1 >= mark, name
        said = [dedup.scores(p >= DEFAULT.automatic, pairs.truth) for p in probabilities]
        assert np.mean([s[0] for s in said]) >= 0.95
        assert np.mean([s[1] for s in said]) >= 0.80


@needs_data
def test_the_settings_file_holds_what_the_fit_gives() -> None:
    assert DATA is not None
    pairs = dedup.labelled(DATA)
    views = len(pairs.views)
    theta = dedup.fit(np.vstack(pairs.views), np.tile(pairs.truth, views), dedup.RIDGE * views)
    assert [DEFAULT.constant, *DEFAULT.weights.values()] == pytest.approx(theta, abs=0.02)
