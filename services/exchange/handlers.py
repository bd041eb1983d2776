"""What partners publish on Kafka. Nobody there has proved who they are, so they rank as anonymous."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.partners import ReportSubmitted
from services.exchange.actions import judge, pass_on
from services.runtime import clock
from services.runtime.consumer import Consumer
from services.runtime.db import Tx

consumer = Consumer("exchange")


@consumer.on_batch(ReportSubmitted)
async def on_reports_submitted(events: Sequence[ReportSubmitted], tx: Tx) -> None:
    """Pass on what keeps the rules. One that does not fails the batch, and the runtime puts it in quarantine alone."""
    now = clock.now()
    messages = [judge(event, now) for event in events]
    await pass_on(tx, messages, known=False, organisation=None, now=now)
