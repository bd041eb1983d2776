"""When somebody may be sent, as a pure rule."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, time, timedelta

from hypothesis import given
from hypothesis import strategies as st

from schemas.values import Period
from services.registry.schedule import HORIZON, MOST_WINDOWS, NEVER, DoNotSend, Schedule, Weekly, windows

NOW = datetime(2026, 11, 24, 2, 30, tzinfo=UTC)


def span(start_h: float, hours: float) -> Period:
    start = NOW + timedelta(hours=start_h)
    return Period(start=start, end=start + timedelta(hours=hours))


def test_nothing_said_is_any_time_and_plain_windows_stay_as_they_are():
    assert windows((), Schedule(), NOW) == ((), None)
    assert windows((span(-50, 3), span(2, 3)), Schedule(), NOW) == ((span(-50, 3), span(2, 3)), None)


def test_hours_over_midnight_belong_to_the_day_on_which_they_begin():
    rule = Weekly(days=(2,), start=time(22), end=time(2))
    found, holds = windows((), Schedule(weekly=(rule,)), NOW)
    # Tuesday 22:00 in Jakarta is 15:00 UTC.
    assert found[0] == Period(start=NOW.replace(hour=15, minute=0), end=NOW.replace(hour=19, minute=0))
    assert len(found) == 2
    assert holds == NOW.replace(minute=0) + HORIZON


def test_hours_that_began_yesterday_still_run():
    found, _ = windows((), Schedule(weekly=(Weekly(days=(1,), start=time(20), end=time(12)),)), NOW)
    assert found[0].start < NOW < found[0].end


def test_whoever_is_away_all_the_time_is_never_sent():
    away = DoNotSend(away=(span(-1, 24 * 40),))
    assert windows((), Schedule(do_not_send=away), NOW)[0] == NEVER
    assert windows((span(1, 2),), Schedule(do_not_send=DoNotSend(until=NOW + timedelta(days=90))), NOW)[0] == NEVER


def test_what_is_over_keeps_nobody():
    over = DoNotSend(away=(span(-9, 3),), until=NOW - timedelta(days=1))
    assert windows((), Schedule(do_not_send=over), NOW) == ((), None)


def test_no_nights_leaves_the_days():
    found, _ = windows((), Schedule(do_not_send=DoNotSend(nights=True)), NOW)
    assert all(window.start.hour in (2, 23) and window.end.hour in (11, 2) for window in found)
    assert len(found) == 15


periods = st.builds(span, st.floats(-100, 400), st.floats(0.1, 100))
rules = st.builds(
    Weekly,
    days=st.lists(st.integers(1, 7), min_size=1, max_size=7).map(tuple),
    start=st.times().map(lambda t: t.replace(microsecond=0)),
    end=st.times().map(lambda t: t.replace(microsecond=0)),
)


@given(st.lists(periods, max_size=6), st.lists(periods, max_size=6), st.lists(rules, max_size=4), st.booleans())
def test_windows_are_in_order_apart_and_never_where_somebody_is_away(explicit, away, weekly, nights):
    schedule = Schedule(weekly=tuple(weekly), do_not_send=DoNotSend(away=tuple(away), nights=nights))
    found, _ = windows(explicit, schedule, NOW)
    if not (weekly or nights or [period for period in away if period.end > NOW]):
        assert found == tuple(explicit)
        return
    assert found
    assert len(found) <= MOST_WINDOWS
    assert all(one.end < other.start for one, other in itertools.pairwise(found))
    if found != NEVER:
        assert all(window.end > NOW for window in found)
        gone = [period for period in away if period.end > NOW]
        assert all(window.end <= period.start or window.start >= period.end for window in found for period in gone)
