"""When a message may go out, how long to wait before the next try, and what a receipt changes. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

State = Literal["waiting", "attempting", "sent", "delivered", "failed", "dropped"]
Said = Literal["sent", "delivered", "failed"]

_PAUSES_S = (10, 30, 120, 600, 1800, 3600)
_RANK: dict[str, int] = {"waiting": 0, "attempting": 0, "sent": 1, "failed": 2, "delivered": 3, "dropped": 4}


def quiet_until(now: datetime, zone: ZoneInfo, from_hour: int, until_hour: int) -> datetime | None:
    """When the night ends in which `now` lies; None by day. The night may span midnight; equal hours: there is none."""
    local = now.astimezone(zone)
    if from_hour < until_hour:
        quiet = from_hour <= local.hour < until_hour
    else:
        quiet = from_hour != until_hour and (local.hour >= from_hour or local.hour < until_hour)
    if not quiet:
        return None
    end = local.replace(hour=until_hour, minute=0, second=0, microsecond=0)
    if end <= local:
        end = (local + timedelta(days=1)).replace(hour=until_hour, minute=0, second=0, microsecond=0)
    return end


def day_begins(now: datetime, zone: ZoneInfo) -> datetime:
    """The midnight before `now` where the person is."""
    return now.astimezone(zone).replace(hour=0, minute=0, second=0, microsecond=0)


def pause(tries: int) -> timedelta:
    """How long to wait after so many failed tries: longer each time, an hour at most."""
    return timedelta(seconds=_PAUSES_S[min(max(tries, 1), len(_PAUSES_S)) - 1])


def after_receipt(state: State, said: Said) -> State | None:
    """The state that a receipt leads to; None: it changes nothing. The same whatever the order receipts come in, and
    however often: only a stronger word counts, and that a message arrived is stronger than that it failed."""
    return said if _RANK[said] > _RANK[state] else None
