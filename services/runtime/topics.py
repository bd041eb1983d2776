"""Topics on the broker, as `schemas/topics.py` has them."""

from __future__ import annotations

import asyncio
import logging

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    TopicAlreadyExistsError,
    TopicAuthorizationFailedError,
    for_code,
)

from schemas.topics import TOPICS
from services.runtime.kafka import connection
from services.runtime.settings import Settings

log = logging.getLogger(__name__)


async def mend_topics(settings: Settings) -> None:
    """As `ensure_topics`, on a broker that came back empty: whichever process notices first. Where this one may not
    make topics, somebody else has to, and it goes on."""
    try:
        await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
    except (TopicAuthorizationFailedError, ClusterAuthorizationFailedError) as error:
        log.warning("topics are missing, and to make them is not allowed to us: %r", error)


async def ensure_topics(bootstrap: str = "", *, embedded: bool = False) -> list[str]:
    """Create the topics of `schemas/topics.py` that are missing; the partitions of one that is there never change.

    `bootstrap` empty: the broker that the settings name. Returns the names of those that were made.
    """
    settings = Settings()
    if bootstrap:
        settings = settings.model_copy(update={"kafka": bootstrap, "kafka_embedded": embedded})
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=10_000)
    await admin.start()
    try:
        there = set(await admin.list_topics())
        missing = [entry for name, entry in TOPICS.items() if name not in there]
        if not missing:
            return []
        # aiokafka refuses -1 (the broker's own default), so: three copies where there are three brokers.
        brokers = 1 if settings.kafka_embedded else len((await admin.describe_cluster())["brokers"])
        answer = await admin.create_topics(
            [
                NewTopic(
                    entry.name,
                    num_partitions=entry.partitions,
                    replication_factor=min(3, brokers),
                    topic_configs={} if settings.kafka_embedded else {"retention.ms": str(entry.retention_ms)},
                )
                for entry in missing
            ]
        )
        for result in answer.topic_errors:
            name, code = result[0], result[1]
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:  # somebody else was quicker
                raise error(f"topic {name} could not be made")
        await _led(admin, [entry.name for entry in missing])
        return [entry.name for entry in missing]
    finally:
        await admin.close()


async def _led(admin: AIOKafkaAdminClient, names: list[str]) -> None:
    """Wait until every partition of these topics has a leader: before that each send is refused and tried again.

    Raises
    ------
    TimeoutError
        It takes longer than twenty seconds.
    """
    async with asyncio.timeout(20):
        while True:
            found = await admin.describe_topics(names)
            partitions = [partition for topic in found for partition in topic["partitions"]]
            if len(found) == len(names) and all(partition["leader"] >= 0 for partition in partitions):
                return
            await asyncio.sleep(0.1)
