"""Severity and priority with their reasons."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.intake.needs_text import reader
from services.intake.triage import Facts, facts_of, triage


@pytest.mark.parametrize(
    ("facts", "severity", "cause"),
    [
        (Facts(), 1, "low"),
        (Facts(urgency="low"), 1, "low"),
        (Facts(urgency="medium"), 2, "harm_now"),
        (Facts(needs=("food",)), 2, "harm_now"),
        (Facts(urgency="high"), 4, "life_at_risk"),
        (Facts(depth_cm=99), 1, "low"),
        (Facts(depth_cm=100, urgency="medium"), 3, "deep_water"),
        (Facts(depth_cm=140), 4, "life_at_risk"),
        (Facts(people={"injured": 1}), 3, "injured"),
        (Facts(people={"missing": 1}, urgency="low"), 4, "dead_or_missing"),
        (Facts(people={"displaced": 100}), 3, "many_displaced"),
        (Facts(people={"displaced": 99}), 1, "low"),
        (Facts(vulnerable=("infants",), needs=("food",)), 3, "vulnerable_in_need"),
        (Facts(stated=2, urgency="high"), 2, "stated"),
        (Facts(stated=1, people={"dead": 2}), 4, "dead_or_missing"),
    ],
)
def test_severity_follows_from_what_is_known(facts: Facts, severity: int, cause: str) -> None:
    found = triage(facts)
    assert found.severity == severity
    assert cause in {reason.cause for reason in found.reasons}


def test_the_priority_is_the_sum_of_its_reasons() -> None:
    facts = Facts(
        people={"affected": 120}, vulnerable=("infants", "elderly"), urgency="medium", depth_cm=110,
        needs=("food", "water"), evidence="corroborated", waited_h=3.5,
    )  # fmt: skip
    found = triage(facts)
    points = {reason.cause: reason.points for reason in found.reasons}
    assert points == {
        "deep_water": 4, "vulnerable_in_need": 0, "severity": 35, "people": 15, "vulnerable": 6, "unmet_need": 4,
        "evidence": 4, "waiting": 3,
    }  # fmt: skip
    assert found.priority == sum(points.values()) == 71


def test_a_text_that_says_it_is_a_drill_is_marked_but_not_hidden() -> None:
    earnest = facts_of(reader().read("tolong, kami terjebak di atap"))
    drill = facts_of(reader().read("tolong, kami terjebak di atap, uji coba"))
    assert triage(drill).priority == triage(earnest).priority
    assert "drill" in {reason.cause for reason in triage(drill).reasons}


def test_life_at_risk_comes_before_everything_that_is_not() -> None:
    worst_of_the_rest = Facts(
        stated=3, people={"affected": 10_000}, vulnerable=("infants", "elderly", "pregnant"), urgency="medium",
        depth_cm=120, needs=("food", "water", "shelter"), evidence="official", waited_h=100,
    )  # fmt: skip
    alone = Facts(urgency="high")
    assert triage(alone).priority >= 60
    assert triage(replace(worst_of_the_rest, stated=2)).priority < triage(alone).priority + 10
    assert triage(Facts(stated=4)).priority > triage(Facts(stated=3, waited_h=100)).priority


def test_a_report_is_triaged_by_its_text_and_its_fields() -> None:
    reading = reader().read("banjir sepinggang, 30 orang butuh perahu, 2 lansia sakit keras")
    found = triage(facts_of(reading, people={"injured": 1}))
    assert found.severity == 4
    assert {"people", "vulnerable", "unmet_need"} <= {reason.cause for reason in found.reasons}


numbers = st.integers(0, 10_000)
facts_strategy = st.builds(
    Facts,
    stated=st.none() | st.integers(1, 4),
    people=st.dictionaries(st.sampled_from(["affected", "displaced", "injured", "dead", "missing"]), numbers),
    persons=st.none() | numbers,
    vulnerable=st.lists(st.sampled_from(["infants", "elderly", "pregnant", "disabled"]), max_size=4).map(tuple),
    urgency=st.sampled_from(["none", "low", "medium", "high"]),
    depth_cm=st.none() | st.floats(0, 200),
    needs=st.lists(st.sampled_from(["food", "water", "evacuation"]), max_size=3).map(tuple),
    evidence=st.sampled_from(["reported", "corroborated", "field_checked", "official"]),
    waited_h=st.floats(0, 1e9),
    bulk=st.booleans(),
    drill=st.booleans(),
)


@given(facts_strategy)
def test_severity_and_priority_stay_within_their_scales(facts: Facts) -> None:
    found = triage(facts)
    assert 1 <= found.severity <= 4 and 0 <= found.priority <= 100
    assert found == triage(facts)


@given(facts_strategy, st.sampled_from(["dead", "missing", "injured", "displaced", "affected"]), numbers)
def test_more_people_never_lower_it(facts: Facts, name: str, more: int) -> None:
    before = triage(facts)
    after = triage(replace(facts, people={**facts.people, name: facts.people.get(name, 0) + more}))
    assert after.severity >= before.severity and after.priority >= before.priority


@given(facts_strategy, st.floats(0, 1000))
def test_waiting_never_lowers_it(facts: Facts, hours: float) -> None:
    assert triage(replace(facts, waited_h=facts.waited_h + hours)).priority >= triage(facts).priority
