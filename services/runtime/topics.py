"""Topics on the broker, as `schemas/topics.py` has them."""

from __future__ import annotations

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from schemas.topics import TOPICS
from services.runtime.kafka import connection
from services.runtime.settings import Settings


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
        answer = await admin.create_topics(
            [
                NewTopic(
                    entry.name,
                    num_partitions=entry.partitions,
                    replication_factor=1 if settings.kafka_embedded else -1,
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
        return [entry.name for entry in missing]
    finally:
        await admin.close()
