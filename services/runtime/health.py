"""Health by heartbeats: each worker writes one row a second; what is older than five seconds is red."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from services.runtime import clock
from services.runtime.db import Database, Tx, from_json, to_json

STALE = timedelta(seconds=5)


@dataclass(frozen=True, slots=True)
class Health:
    """One service's state: `ok`, or why not. `lag` in records, `unpublished` in outbox rows, `backlog_age_s` the age of
    the oldest of those rows in seconds."""

    status: str
    lag: int = 0
    unpublished: int = 0
    backlog_age_s: float = 0
    detail: str | None = None
    lag_by_topic: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0

    def to_dict(self) -> dict[str, Any]:
        answer: dict[str, Any] = {
            "status": self.status,
            "lag": self.lag,
            "unpublished": self.unpublished,
            "backlog_age_s": round(self.backlog_age_s, 1),
            "quarantined": self.quarantined,
        }
        if self.lag_by_topic:
            answer["lag_by_topic"] = {name: lag for name, lag in self.lag_by_topic.items() if lag}
        if self.detail:
            answer["detail"] = self.detail
        return answer


async def beat(tx: Tx, worker: str, problem: str | None, lag: dict[str, int]) -> None:
    """Write this worker's row. By the database's clock, which is one for all: a worker whose own runs ahead would stay
    green after its death, and one whose own runs behind would never be."""
    await tx.execute(
        """
        INSERT INTO heartbeat (worker, state, detail, lag, lag_by_topic, unpublished, at)
        VALUES ($1, $2, $3, $4, $5, (SELECT count(*) FROM outbox), clock_timestamp())
        ON CONFLICT (worker) DO UPDATE SET state = excluded.state, detail = excluded.detail, lag = excluded.lag,
            lag_by_topic = excluded.lag_by_topic, unpublished = excluded.unpublished, at = excluded.at
        """,
        worker,
        "ok" if problem is None else "failing",
        problem,
        sum(lag.values()),
        to_json(lag),
    )
    # A worker that is gone for good must not keep its last words for ever.
    await tx.execute("DELETE FROM heartbeat WHERE at < clock_timestamp() - interval '1 hour'")


async def of(db: Database) -> Health:
    """One service's health, as its workers' rows tell; a service without a fresh row is `down`."""
    async with db.tx() as tx:
        rows = await tx.fetch("SELECT * FROM heartbeat WHERE at > clock_timestamp() - $1::interval", STALE)
        quarantined = await tx.fetchval("SELECT count(*) FROM quarantine WHERE state = 'refused'")
        outbox = await tx.fetchrow("SELECT count(*) AS waiting, min(time) AS oldest FROM outbox")
    assert outbox is not None
    waiting = outbox["waiting"]
    age_s = max(0.0, (clock.now() - outbox["oldest"]).total_seconds()) if outbox["oldest"] else 0.0
    if not rows:
        return Health(
            "down",
            unpublished=waiting,
            backlog_age_s=age_s,
            quarantined=quarantined,
            detail="no worker has reported for 5 seconds",
        )
    topics: dict[str, int] = {}
    for row in rows:
        for name, lag in from_json(row["lag_by_topic"]).items():
            topics[name] = topics.get(name, 0) + lag
    failing = [row for row in rows if row["state"] != "ok"]
    return Health(
        status="failing" if failing else "ok",
        lag=sum(row["lag"] for row in rows),
        unpublished=waiting,
        backlog_age_s=age_s,
        detail=failing[0]["detail"] if failing else None,
        lag_by_topic=topics,
        quarantined=quarantined,
    )
