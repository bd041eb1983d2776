"""Every event that sitrep reads goes into its log; the read models follow in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.sitreps import SitrepPublished
from schemas.topics import read_by
from services.runtime.cloudevents import Envelope
from services.runtime.consumer import Consumer
from services.runtime.db import Tx
from services.sitrep import log

consumer = Consumer("sitrep")


@consumer.on_records(*(topic.name for topic in read_by("sitrep")))
async def on_records(envelopes: Sequence[Envelope], tx: Tx) -> None:
    """Append them to the log; a repeat of what stands there changes nothing.

    Reports that were published count nothing and stand in the archive, so they stay out.
    """
    await log.append(tx, [each for each in envelopes if each.meta.type != SitrepPublished.type])
