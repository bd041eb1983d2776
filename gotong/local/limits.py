"""What the embedded broker can hold, and how near it is; it keeps every record in memory until it is restarted."""

from aiokafka import AIOKafkaConsumer, TopicPartition

# The largest load it was measured with; it takes about 1.5 kB a record, and fetches slow down as it fills.
RECORDS_MAX = 100_000
WARN_FROM = 0.7
PREFIX = "gotong."


async def records(bootstrap: str, deadline_s: float = 5) -> int:
    """How many records the topics of ours hold.

    By fetching: the broker's answer about end offsets counts a batch as one record; only the high-water mark that
    comes with a fetch is right.
    """
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, max_partition_fetch_bytes=1024, fetch_max_wait_ms=50)
    await consumer.start()
    try:
        topics = [topic for topic in await consumer.topics() if topic.startswith(PREFIX)]
        waiting = {
            TopicPartition(topic, partition)
            for topic in topics
            for partition in consumer.partitions_for_topic(topic) or ()
        }
        consumer.assign(list(waiting))
        for partition in waiting:
            consumer.seek(partition, 0)
        found: dict[TopicPartition, int] = {}
        rounds = max(1, int(deadline_s / 0.25))
        for _ in range(rounds):
            await consumer.getmany(timeout_ms=250, max_records=1)
            for partition in list(waiting):
                if (mark := consumer.highwater(partition)) is not None:
                    found[partition] = mark
                    waiting.discard(partition)
                    consumer.pause(partition)
            if not waiting:
                break
        return sum(found.values())
    finally:
        await consumer.stop()


def warning(held: int) -> str:
    """What to do when it gets full; empty while there is room."""
    if held < RECORDS_MAX * WARN_FROM:
        return ""
    return (
        f"the embedded broker holds {held:,} of about {RECORDS_MAX:,} records that it was tested with; "
        "restart with gotong down and gotong up, or use --broker kafka"
    )
