"""`/metrics` for Prometheus: to operators, and to whoever asks from this machine."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, generate_latest

from services.runtime import health
from services.runtime.auth import Caller, is_loopback
from services.runtime.db import is_transient

router = APIRouter()

LAG = Gauge("gotong_consumer_lag_records", "Records on the topics that are not handled yet", ["service", "topic"])
UNPUBLISHED = Gauge("gotong_unpublished_rows", "Events that wait in the outbox", ["service"])
QUARANTINED = Gauge("gotong_quarantined_records", "Records that were refused and not released", ["service"])
UP = Gauge("gotong_service_up", "1 while the service is healthy", ["service"])


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, actor: Caller) -> Response:
    """Counters and gauges of this process and of every service's workers."""
    if not is_loopback(actor.address):
        actor.require("operator", "auditor")
    for name, db in request.app.state.databases.items():
        try:
            state = await health.of(db)
        except Exception as error:
            if not is_transient(error):
                raise
            UP.labels(name).set(0)
            continue
        UP.labels(name).set(state.status == "ok")
        UNPUBLISHED.labels(name).set(state.unpublished)
        QUARANTINED.labels(name).set(state.quarantined)
        for topic, lag in state.lag_by_topic.items():
            LAG.labels(name, topic).set(lag)
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
