"""The benchmark of the engine, small: its figures must agree with each other."""

import json

import pytest

from bench import matching, matching_nepal


def test_small_figures_are_proved_and_no_worse_than_the_rivals(capsys: pytest.CaptureFixture[str]) -> None:
    sections = ["cold", "events_tax_0", "events_tax_500", "equity"]
    matching.main(["--json", "--size", "s", *(word for name in sections for word in ("--only", name))])
    figures = json.loads(capsys.readouterr().out)
    cold = figures["cold"]
    assert cold["gap"] == 0
    assert cold["unmet"][0] == cold["critical_unmet_minimum"]
    assert cold["unmet"] <= min(cold["unmet_nearest_first"], cold["unmet_priority_greedy"])
    assert figures["events_tax_0"]["objective"] == figures["events_tax_0"]["objective_full_solve"]
    assert figures["events_tax_500"]["unmet"] == figures["events_tax_500"]["unmet_full_solve"]
    without, mild = figures["equity"]["weight_0"], figures["equity"]["weight_6000"]
    assert without["unmet"] == mild["unmet"]
    assert mild["worst_district"] >= without["worst_district"]
    assert mild["gini_of_districts"] < without["gini_of_districts"]


def test_things_and_quantities_are_read_from_words_and_not_from_links_and_handles() -> None:
    text = "RT @water_help: 25,000 packets of food and #tents sent to Kathmandu http://t.co/blood"
    assert matching_nepal.things(text) == {"food", "shelter"}
    assert matching_nepal.states_quantity(text)
    assert not matching_nepal.states_quantity("Food and tents at once @user_5c8a0a")
