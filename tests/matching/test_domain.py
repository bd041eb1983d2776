"""The rules of what is promised, without a database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.matching import domain
from services.matching.domain import Asked, Ledger

NOW = datetime(2026, 11, 24, 9, tzinfo=UTC)
COUNT = st.integers(0, 1_000)
STATUS = st.sampled_from(["draft", "declared", "withdrawn"])
LEDGERS = st.builds(
    Ledger, committed=COUNT, in_transit=COUNT, delivered=COUNT, confirmed=COUNT, asked=COUNT, needed=COUNT, open=COUNT
)


@given(LEDGERS, COUNT, STATUS, st.booleans())
def test_a_settled_ledger_is_in_balance_and_takes_back_no_promise(row, wanted, status, declared):
    after = domain.settled(row, wanted, status, declared=declared)
    assert after.balanced
    assert after.promised == row.promised
    assert after.asked == row.asked
    assert after.needed >= row.promised
    assert domain.settled(after, wanted, status, declared=declared) == after


@given(LEDGERS, COUNT, COUNT)
def test_needs_amended_up_and_down_again_end_where_they_began(row, wanted, other):
    once = domain.settled(row, wanted, "declared", declared=True)
    between = domain.settled(once, other, "declared", declared=True)
    assert domain.settled(between, wanted, "declared", declared=True) == once


@pytest.mark.parametrize(
    ("before", "wanted", "status", "after"),
    [
        # Amended up: needed and open grow.
        (Ledger(needed=4, open=4), 7, "declared", Ledger(needed=7, open=7)),
        # Amended down: from open first,
        (Ledger(needed=9, open=3, offered=2, committed=4, asked=2), 7, "declared",
         Ledger(needed=7, open=1, offered=2, committed=4, asked=2)),
        # then from offered,
        (Ledger(needed=9, open=3, offered=2, committed=4, asked=2), 5, "declared",
         Ledger(needed=5, open=0, offered=1, committed=4, asked=2)),
        # and never from what is promised.
        (Ledger(needed=9, open=3, offered=2, committed=4, asked=2), 1, "declared",
         Ledger(needed=4, open=0, offered=0, committed=4, asked=2)),
        # Withdrawn: open and offered are cancelled.
        (Ledger(needed=9, open=3, offered=2, committed=4, asked=2), 9, "withdrawn",
         Ledger(needed=9, committed=4, cancelled=5, asked=2)),
        # Declared again: what was cancelled is open again.
        (Ledger(needed=9, committed=4, cancelled=5), 9, "declared", Ledger(needed=9, open=5, committed=4)),
    ],
)  # fmt: skip
def test_the_ledger_moves_as_the_table_says(before, wanted, status, after):
    assert domain.settled(before, wanted, status, declared=True) == after


def test_nothing_is_needed_by_a_draft():
    assert domain.settled(Ledger(), 5, "draft", declared=False) == Ledger()
    assert domain.settled(Ledger(), 5, "withdrawn", declared=False) == Ledger()


@given(st.integers(0, 50), st.lists(st.integers(1, 10), max_size=8))
def test_offered_is_what_is_asked_at_most_what_is_left(wanted, asks):
    row = domain.settled(Ledger(), wanted, "declared", declared=True)
    for quantity in asks:
        row = domain.settled(domain.moved(row, asked=quantity), wanted, "declared", declared=True)
        assert row.offered == min(row.asked, wanted)
    for quantity in asks:
        row = domain.settled(domain.moved(row, asked=-quantity), wanted, "declared", declared=True)
    assert row == Ledger(needed=wanted, open=wanted)


def test_more_than_is_left_is_refused_not_trimmed():
    row = Ledger(needed=5, open=1, offered=1, committed=3, asked=4)
    assert [q for q in range(6) if domain.assignable(row, q)] == [1, 2]


def test_the_youngest_offers_go_until_no_more_is_asked_than_is_left():
    old, mid, young = (uuid4() for _ in range(3))
    offers = [(old, 3), (mid, 2), (young, 2)]
    assert domain.too_much_asked(offers, 7) == []
    assert domain.too_much_asked(offers, 5) == [young]
    assert domain.too_much_asked(offers, 4) == [young, mid]
    assert domain.too_much_asked(offers, 0) == [young, mid, old]


@pytest.mark.parametrize(
    ("state", "target", "path"),
    [
        ("made", "started", ("started",)),
        ("made", "arrived", ("started", "arrived")),
        ("made", "delivered", ("started", "delivered")),
        ("started", "delivered", ("delivered",)),
        ("arrived", "delivered", ("delivered",)),
        ("arrived", "started", ()),
        ("delivered", "delivered", ()),
        ("confirmed", "started", ()),
        ("abandoned", "started", None),
    ],
)
def test_an_assignment_goes_forward_only_and_has_set_out_before_it_is_done(state, target, path):
    assert domain.steps(state, target) == path


@given(st.none() | st.integers(0, 60), st.lists(st.integers(0, 10), max_size=8))
def test_what_is_shared_out_is_used_up_from_the_first_on(quantity, sizes):
    shares = domain.shared_out(quantity, list(enumerate(sizes)))
    assert sum(take for _, take in shares) == (sum(sizes) if quantity is None else min(quantity, sum(sizes)))
    touched = [sizes[k] for k, _ in shares]
    assert [take for _, take in shares][:-1] == touched[:-1]


def test_the_youngest_promises_break_and_no_more_than_it_takes():
    promises = [("young", 3), ("mid", 4), ("old", 5)]
    assert domain.broken(promises, 0) == []
    assert domain.broken(promises, 2) == ["young"]
    assert domain.broken(promises, 4) == ["young", "mid"]
    assert domain.broken(promises, 99) == ["young", "mid", "old"]


def test_offers_end_sooner_the_more_serious_the_need_and_never_after_it():
    minutes = (120, 60, 30, 15)
    ends = [domain.offer_expires_at(NOW, s, NOW + timedelta(hours=9), minutes) - NOW for s in (1, 2, 3, 4)]
    assert ends == [timedelta(minutes=m) for m in minutes]
    assert domain.offer_expires_at(NOW, 1, NOW + timedelta(minutes=5), minutes) == NOW + timedelta(minutes=5)


def test_a_late_yes_takes_up_only_what_is_left_of_the_time():
    start, end = NOW, NOW + timedelta(hours=2)
    hour = NOW + timedelta(hours=1)
    assert domain.taken_up(start, end, NOW - timedelta(hours=1)) == (start, end)
    assert domain.taken_up(start, end, hour) == (hour, end)
    assert domain.taken_up(start, end, end) is None


def test_a_period_that_ends_keeps_its_order():
    start, end = NOW, NOW + timedelta(hours=2)
    assert domain.ended(start, end, NOW + timedelta(hours=1)) == (start, NOW + timedelta(hours=1))
    assert domain.ended(start, end, NOW + timedelta(hours=9)) == (start, end)
    first, last = domain.ended(start, end, NOW - timedelta(hours=1))
    assert first == start < last


def test_open_offers_stay_as_far_as_the_plan_still_wants_them():
    old, young = Asked(uuid4(), 20), Asked(uuid4(), 10)
    assert domain.reconciled([old, young], 30, one=False) == ([], 0)
    assert domain.reconciled([old, young], 45, one=False) == ([], 15)
    assert domain.reconciled([old, young], 25, one=False) == ([young.offer_id], 5)
    assert domain.reconciled([old, young], 12, one=False) == ([old.offer_id], 2)
    assert domain.reconciled([old], 0, one=False) == ([old.offer_id], 0)
    assert domain.reconciled([], 3, one=True) == ([], 3)


@given(st.lists(st.integers(1, 9), max_size=3), st.integers(0, 9))
def test_one_person_is_asked_one_thing_for_exactly_what_is_planned(asked, planned):
    offers = [Asked(uuid4(), quantity) for quantity in asked]
    gone, more = domain.reconciled(offers, planned, one=True)
    kept = [offer for offer in offers if offer.offer_id not in gone]
    assert len(kept) + (more > 0) <= 1
    assert sum(offer.quantity for offer in kept) + more == planned


def test_why_a_unit_is_unmet_is_told_by_the_rule_that_left_nobody():
    filters = {"code": 12, "level": 9, "certificate": 9, "travel": 3, "busy": 0}
    assert domain.why_unmet(filters) == "3 would come so far; of those none are free"
    assert domain.why_unmet({"code": 0}) == "none have it"
    assert "used up" in domain.why_unmet({"code": 4, "stock": 2})
    assert "not looked into" in domain.why_unmet({})


def test_out_of_balance_shows():
    good = domain.settled(Ledger(asked=2), 5, "declared", declared=True)
    assert good.balanced
    assert not replace(good, open=good.open + 1).balanced
    assert not replace(good, asked=1).balanced


# ------------------------------------------------------------------------------------------------- conditions, crews
@pytest.mark.parametrize(
    ("avoids", "where", "barred"),
    [
        ((), ("flood", "kemendagri:33.21"), False),
        (("flood",), ("flood",), True),
        (("volcano",), ("flood", "kemendagri:33.21"), False),
        (("kemendagri:33",), ("kemendagri:33.21.01",), True),
        (("kemendagri:33.21",), ("kemendagri:33.21",), True),
        (("kemendagri:33.2",), ("kemendagri:33.21",), False),
        (("bps:33",), ("kemendagri:33.21",), False),
        (("flo",), ("flood",), False),
    ],
)
def test_nobody_is_sent_into_what_they_must_not_be_sent_into(avoids, where, barred):
    assert domain.avoided(avoids, where) is barred


@pytest.mark.parametrize(
    ("duty_h", "own_h", "rest_h"), [(7.9, None, 0), (8, None, 8), (12, None, 8), (1, 4, 4), (12, 4, 4), (12, 0, 0)]
)
def test_who_says_what_rest_they_need_gets_it_after_every_duty_others_after_long_ones(duty_h, own_h, rest_h):
    own_s = None if own_h is None else own_h * 3600
    assert domain.rest_of(round(duty_h * 3600), own_s, 8 * 3600, 8 * 3600) == rest_h * 3600


def hand(heads: int = 1, **skills: int) -> domain.Hand:
    return domain.Hand(uuid4(), skills, heads)


HELM, DECK = domain.Crew("boat_operator", 1, 2), domain.Crew("first_aid", 2, 1)


@pytest.mark.parametrize(
    ("units", "hands", "sent"),
    [
        (3, [], 0),
        (3, [hand(boat_operator=2), hand(first_aid=1), hand(first_aid=3)], 1),
        (3, [hand(boat_operator=1), hand(first_aid=1), hand(first_aid=3)], 0),  # not good enough at the helm
        (3, [hand(boat_operator=2, first_aid=2), hand(first_aid=1)], 0),  # nobody sits in two seats
        (3, [hand(boat_operator=3), hand(boat_operator=2), hand(4, first_aid=1)], 2),  # a team of four in two boats
        (1, [hand(boat_operator=3), hand(boat_operator=2), hand(4, first_aid=1)], 1),
        # Whoever can do both steers only when nobody else does.
        (1, [hand(boat_operator=2, first_aid=1), hand(boat_operator=2), hand(first_aid=1)], 1),
    ],
)
def test_a_boat_goes_only_with_all_of_its_crew(units, hands, sent):
    count, taken = domain.manned(units, [HELM, DECK], hands)
    assert count == sent
    assert bool(taken) is bool(sent)
    assert taken <= {one.responder_id for one in hands}


def test_what_needs_no_crew_goes_by_itself():
    assert domain.manned(5, [], []) == (5, set())
