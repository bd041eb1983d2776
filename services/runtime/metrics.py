"""`/metrics` for Prometheus: to operators, and to whoever asks from this machine."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from services.runtime import clock, health
from services.runtime.auth import Caller, is_loopback
from services.runtime.db import from_json, is_transient

router = APIRouter()

LAG = Gauge("gotong_consumer_lag_records", "Records on the topics that are not handled yet", ["service", "topic"])
UNPUBLISHED = Gauge("gotong_unpublished_rows", "Events that wait in the outbox", ["service"])
QUARANTINED = Gauge("gotong_quarantined_records", "Records that were refused and not released", ["service"])
UP = Gauge("gotong_service_up", "1 while the service is healthy", ["service"])


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, actor: Caller) -> Response:
    """Counters and gauges of this process and of every service's workers.

    Lag is what a running worker says of itself, or what the services that it reads from know by its committed offsets,
    whichever is more: one that is still joining its group, or does not run, would look well because it is silent.
    """
    if not is_loopback(actor.address):
        actor.require("operator", "auditor")
    running: dict[tuple[str, str], int] = {}
    silent: set[str] = set()
    fresh_lag: dict[tuple[str, str], int] = {}
    last_lag: dict[tuple[str, str], int] = {}
    for name, db in request.app.state.databases.items():
        try:
            state = await health.of(db)
            async with db.tx() as tx:
                marked = await tx.fetchrow("SELECT reader_lag, marked_at FROM relay")
                if name in request.app.state.gauges:
                    await request.app.state.gauges[name](tx)
        except Exception as error:
            if not is_transient(error):
                raise
            UP.labels(name).set(0)
            continue
        UP.labels(name).set(state.status == "ok")
        UNPUBLISHED.labels(name).set(state.unpublished)
        QUARANTINED.labels(name).set(state.quarantined)
        for topic, lag in state.lag_by_topic.items():
            running[name, topic] = lag
        if state.status == "down":
            silent.add(name)
        assert marked is not None
        fresh = marked["marked_at"] is not None and marked["marked_at"] > clock.now() - health.STALE
        for group, topics in from_json(marked["reader_lag"]).items():
            for topic, lag in topics.items():
                reader = (group.removeprefix("gotong."), topic)
                known = fresh_lag if fresh else last_lag
                known[reader] = known.get(reader, 0) + lag  # several services write to the quarantine topic
    lags = dict(running)
    for reader, lag in fresh_lag.items():
        lags[reader] = max(lag, lags.get(reader, 0))
    # A producer that is down itself said this before: good for readers that are down too, else they know better.
    lags |= {reader: lag + lags.get(reader, 0) for reader, lag in last_lag.items() if reader[0] in silent}
    LAG.clear()  # what was said of a worker that has gone since
    for (name, topic), lag in lags.items():
        LAG.labels(name, topic).set(lag)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
