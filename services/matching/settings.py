"""What an installation may decide about offers; read from `GOTONG_MATCHING_<NAME>`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class MatchingSettings(BaseSettings):
    """`offer_minutes`: how long an offer waits for an answer, by severity 1 to 4. `*_hours`: how long somebody is not
    asked again about a need that they declined, left unanswered or gave up."""

    model_config = SettingsConfigDict(env_prefix="GOTONG_MATCHING_", extra="ignore", env_ignore_empty=True)

    offer_minutes: tuple[int, int, int, int] = (120, 60, 30, 15)
    declined_hours: float = Field(default=24, ge=0)
    expired_hours: float = Field(default=2, ge=0)
    abandoned_hours: float = Field(default=24, ge=0)
    offer_tax: int = Field(default=10_000, ge=0, le=100_000)
    """What it costs a plan to take an open question back, in the planner's own units (a person 25 km away costs 6,000).
    At this height people are asked and then not only where that meets more, or more serious, need; never to save
    travel."""
    ladder: Literal["strict", "policy"] = "strict"
    """strict: no number of lesser needs outweighs one unit of a graver one; policy: as many do as the weights say."""
    policy_weights: tuple[int, int, int, int] = (20_000, 40_000, 80_000, 160_000)
    """What a unit left unmet weighs by severity 1 to 4, in the planner's own units."""
    lift_after_hours: float = Field(default=24, ge=0)
    """A need that has waited so long counts one severity higher, and its explanation says so; 0: never."""
    gather_s: float = Field(default=0.06, ge=0)
    """How soon the planner begins again at the earliest, so that a burst gives few plans."""
    replan_s: float = Field(default=30, gt=0)
    """How often needs that are still open are planned again though nothing changed: windows open, cool-downs end."""

    widen_minutes: tuple[int, int, int, int] = (40, 20, 8, 3)
    """How long the first who were asked have the question to themselves, by severity 1 to 4; then as many more are
    asked as make the wanted number of yeses likely."""
    widen_s: float = Field(default=5, gt=0)
    """How often it is looked whether more are to be asked."""
    ask_back: bool = True
    """Whether people who promised to serve a minor or moderate need, and are not on scene, are asked to give it up
    where life is at risk elsewhere and nobody else can go."""
    most_asked: float = Field(default=3, ge=1)
    """At most so many people are asked for each one that is wanted."""
    silent_of_one: int = Field(default=3, ge=1)
    """From so many unanswered questions about one need on, the rest of that organisation is passed over for it where
    others could come."""
    silent_in_all: int = Field(default=6, ge=1)
    """From so many unanswered questions about one need on, the dispatcher is told to decide."""
    asked_a_day: int = Field(default=12, ge=1)
    """How often one person is asked in 24 hours, at most; who is asked too often stops answering."""
    check_minutes: tuple[int, int, int, int] = (240, 120, 60, 30)
    """How long an assignment may go without a word, by severity 1 to 4, before somebody is asked."""
    apart_from: int = Field(default=3_000, ge=0)
    """From how many needs, responders and lots together a plan is kept in a process of its own."""

    def cooldown_hours(self, cause: str) -> float:
        hours = {"declined": self.declined_hours, "expired": self.expired_hours, "abandoned": self.abandoned_hours}
        return hours[cause]
