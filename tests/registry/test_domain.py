"""The registry's rules, without a database."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry.domain import misfit, source_of, taken


@pytest.mark.parametrize(
    ("sender", "organisation", "kind", "known", "verdict"),
    [
        # known: kind, status, organisation
        ("public", None, "person", ("person", "unconfirmed", None), "update"),
        ("public", None, "person", ("person", "withdrawn", "pmi"), "update"),
        ("public", None, "person", ("person", "confirmed", None), "keep"),
        ("public", None, "team", ("person", "confirmed", "pmi"), "keep"),
        ("partner", "pmi", "person", ("person", "confirmed", "pmi"), "update"),
        ("partner", "pmi", "person", ("person", "unconfirmed", None), "update"),
        ("partner", "pmi", "person", ("person", "confirmed", None), "refuse"),
        ("partner", "pmi", "person", ("person", "unconfirmed", "other"), "refuse"),
        ("partner", "pmi", "team", ("person", "confirmed", "pmi"), "refuse"),
        ("desk", None, "person", ("person", "confirmed", "pmi"), "update"),
        ("desk", None, "person", ("person", "withdrawn", "pmi"), "update"),
        ("desk", None, "person", ("team", "confirmed", None), "refuse"),
        ("desk", None, "person", ("team", "unconfirmed", None), "update"),
    ],
)
def test_what_becomes_of_a_number_that_is_known(sender, organisation, kind, known, verdict):
    found = taken(
        sender, organisation, kind, known_kind=known[0], known_status=known[1], known_organisation=known[2]
    )  # fmt: skip
    assert found == verdict


@given(
    kind=st.sampled_from(["person", "team"]),
    known_kind=st.sampled_from(["person", "team"]),
    organisation=st.sampled_from([None, "pmi", "other"]),
    status=st.sampled_from(["unconfirmed", "confirmed", "withdrawn"]),
)
def test_without_a_token_nothing_of_a_confirmed_responder_ever_changes(kind, known_kind, organisation, status):
    verdict = taken(
        "public", None, kind, known_kind=known_kind, known_status=status, known_organisation=organisation
    )  # fmt: skip
    assert (verdict == "keep") == (status == "confirmed")


@pytest.mark.parametrize(
    ("kind", "capacity", "minimum_team", "field"),
    [
        ("person", 1, 1, None),
        ("person", 2, 1, "capacity"),
        ("team", 6, 6, None),
        ("team", 6, 7, "minimum_team"),
        ("person", 1, 2, "minimum_team"),
    ],
)
def test_a_team_comes_with_no_more_people_than_it_has(kind, capacity, minimum_team, field):
    found = misfit(kind, capacity, minimum_team)
    assert (found[0] if found else None) == field


@pytest.mark.parametrize(
    ("sender", "claimed", "source"),
    [
        ("desk", "/any/list", "/any/list"),
        ("desk", None, "/desks/operator:posko"),
        ("partner", "/partners/pmi", "/partners/pmi"),
        ("partner", "/partners/pmi/simba", "/partners/pmi/simba"),
        ("partner", "/partners/pmi-palsu", "/partners/pmi"),
        ("partner", "/any/list", "/partners/pmi"),
        ("partner", None, "/partners/pmi"),
    ],
)
def test_a_source_counts_only_for_those_who_may_use_it(sender, claimed, source):
    assert source_of(sender, "pmi", "operator:posko", claimed) == source
