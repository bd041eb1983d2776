"""When somebody may be sent: windows, shifts and recurring hours, less all times at which they must not be sent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BeforeValidator, Field

from schemas import vocabulary
from schemas.event import Value
from schemas.values import AreaCode, Code, Period

HORIZON = timedelta(days=14)
"""How far ahead recurring hours are worked out; they are renewed long before that."""
RENEWED_BEFORE = timedelta(days=7)
MOST_WINDOWS = 100
NIGHT = (time(18), time(6))
"""Dark all over Indonesia, whatever the season."""
NEVER = (Period(start=datetime(2000, 1, 1, tzinfo=UTC), end=datetime(2000, 1, 1, 0, 0, 1, tzinfo=UTC)),)
"""No windows at all would mean at any time; this one is over for good."""

Span = tuple[datetime, datetime]


class Weekly(Value):
    """Hours that come again each week, in the schedule's timezone. `days`: 1 Monday to 7 Sunday; an `end` that is not
    after `start` is on the next day. `until`: the last day."""

    days: Annotated[tuple[Annotated[int, Field(ge=1, le=7)], ...], Field(min_length=1, max_length=7)]
    start: time
    end: time
    until: date | None = None


def hazard_word(word: Any) -> Any:
    """The code of a hazard that is named by code or everyday word."""
    return vocabulary.hazard_of(word) or word if isinstance(word, str) else word


class DoNotSend(Value):
    """When, for what and into what somebody must not be sent. Why is not asked. An area stands for all within it."""

    away: Annotated[tuple[Period, ...], Field(max_length=50)] = ()
    nights: bool = False
    until: AwareDatetime | None = None
    skills: Annotated[tuple[Code, ...], Field(max_length=50)] = ()
    hazards: Annotated[tuple[Annotated[Code, BeforeValidator(hazard_word)], ...], Field(max_length=30)] = ()
    areas: Annotated[tuple[AreaCode, ...], Field(max_length=50)] = ()


class Schedule(Value):
    """What is known of somebody's time beside their plain windows."""

    timezone: str = "Asia/Jakarta"
    shifts: Annotated[tuple[Period, ...], Field(max_length=100)] = ()
    weekly: Annotated[tuple[Weekly, ...], Field(max_length=20)] = ()
    do_not_send: DoNotSend = DoNotSend()


def windows(
    explicit: Sequence[Period], schedule: Schedule, now: datetime
) -> tuple[tuple[Period, ...], datetime | None]:
    """The windows in which somebody may be sent, from `now` on, and until when this answer holds; None: for good.

    `explicit` empty, with neither shifts nor recurring hours: at any time. Empty windows mean the same.
    """
    barred = schedule.do_not_send
    away = [(period.start, period.end) for period in barred.away if period.end > now]
    if barred.until is not None and barred.until > now:
        away.append((datetime.min.replace(tzinfo=UTC), barred.until))
    if not (schedule.weekly or schedule.shifts or away or barred.nights):
        return tuple(explicit), None
    zone = ZoneInfo(schedule.timezone)
    # The hour, not the second: an unrelated change must not move every window.
    begin = now.replace(minute=0, second=0, microsecond=0)
    horizon = begin + HORIZON
    told = [(period.start, period.end) for period in (*explicit, *schedule.shifts)]
    renewed = bool(schedule.weekly) or barred.nights
    if told or schedule.weekly:
        for rule in schedule.weekly:
            told += _repeated(rule, zone, begin, horizon)
    else:
        told, renewed = [(begin, horizon)], True
    if barred.nights:
        every_night = Weekly(days=(1, 2, 3, 4, 5, 6, 7), start=NIGHT[0], end=NIGHT[1])
        away += _repeated(every_night, zone, begin - timedelta(days=1), horizon)
        told = [(start, min(end, horizon)) for start, end in told if start < horizon]
    left = [(start, end) for start, end in _without(_merged(told), _merged(away)) if end > now]
    holds = horizon if renewed else None
    if len(left) > MOST_WINDOWS:
        left = left[:MOST_WINDOWS]
        holds = min(left[-1][1], holds or left[-1][1])
    return tuple(Period(start=start, end=end) for start, end in left) or NEVER, holds


def _repeated(rule: Weekly, zone: ZoneInfo, begin: datetime, horizon: datetime) -> list[Span]:
    found = []
    # From the day before: hours that began yesterday may still run.
    day = begin.astimezone(zone).date() - timedelta(days=1)
    while day <= horizon.astimezone(zone).date():
        if day.isoweekday() in rule.days and (rule.until is None or day <= rule.until):
            last = day if rule.end > rule.start else day + timedelta(days=1)
            start = datetime.combine(day, rule.start, zone).astimezone(UTC)
            end = datetime.combine(last, rule.end, zone).astimezone(UTC)
            if end > begin and start < horizon:
                found.append((start, min(end, horizon)))
        day += timedelta(days=1)
    return found


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def _without(spans: Sequence[Span], away: Sequence[Span]) -> list[Span]:
    left = []
    for start, end in spans:
        at = start
        for gone, back in away:
            if back <= at or gone >= end:
                continue
            if gone > at:
                left.append((at, gone))
            at = max(at, back)
        if at < end:
            left.append((at, end))
    return left
