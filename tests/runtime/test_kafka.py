"""The partition of a key is the one that Kafka's own clients choose: partners read beside us."""

from __future__ import annotations

from aiokafka.partitioner import murmur2
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.kafka import partition_of


@given(key=st.binary(max_size=80), partitions=st.integers(1, 64))
def test_a_key_stands_where_any_kafka_client_would_put_it(key: bytes, partitions: int) -> None:
    assert partition_of(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions
