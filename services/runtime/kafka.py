"""How every client here connects to Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import struct
from collections.abc import Coroutine, Sequence
from functools import lru_cache
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.protocol.metadata import MetadataRequest

from services.runtime.settings import Settings, SettingsMissing

log = logging.getLogger(__name__)

_FEW = 3
_EACH_S = 0.002
_LONGEST_S = 0.1


def gather_s(came: int) -> float:
    """How long to wait for more after so many came at once, in seconds.

    More than a few mean that more are on their way: waiting for them makes fewer, larger batches, of which each has its
    price in statements, commits and wake-ups. It settles by itself: two milliseconds for each that came grow to a tenth
    of a second from about 500 a second on, and die away below 300. What comes alone is never held up. Consumers, relays
    and the linker go by it.
    """
    return 0.0 if came <= _FEW else min(_LONGEST_S, _EACH_S * came)


class LogLost(KafkaError):  # type: ignore[misc]  # aiokafka has no types
    """The broker has another cluster id than the one whose log we know: what we knew of places in it is void."""


def connection(settings: Settings) -> dict[str, Any]:
    """Address and security arguments of an aiokafka client.

    Raises
    ------
    SettingsMissing
        GOTONG_KAFKA is not set.
    """
    if not settings.kafka:
        raise SettingsMissing("GOTONG_KAFKA is not set; give HOST:PORT of a Kafka broker")
    arguments: dict[str, Any] = {"bootstrap_servers": settings.kafka}
    if settings.kafka_security != "plaintext":
        arguments["security_protocol"] = settings.kafka_security.upper()
        arguments["ssl_context"] = ssl.create_default_context(cafile=settings.kafka_ca)
    if settings.kafka_security == "sasl_ssl":
        arguments |= {
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": settings.kafka_user,
            "sasl_plain_password": settings.kafka_password.get_secret_value(),
        }
    return arguments


def producer(settings: Settings) -> AIOKafkaProducer:
    """A producer that waits for all replicas. Idempotent wherever the broker can do it, so that a retry inside
    the client neither doubles nor reorders; the embedded broker refuses it (notes: InitProducerId is missing)."""
    return AIOKafkaProducer(
        **connection(settings),
        acks="all",
        enable_idempotence=not settings.kafka_embedded,
        linger_ms=0,
        max_batch_size=512 * 1024,
        max_request_size=1024 * 1024,
        request_timeout_ms=20_000,
        metadata_max_age_ms=10_000,
    )


def admin(settings: Settings) -> AIOKafkaAdminClient:
    """An admin client that gives up soon: what it is asked for here is asked again."""
    return AIOKafkaAdminClient(**connection(settings), request_timeout_ms=5_000)


async def cluster_id(settings: Settings) -> str:
    """The broker's cluster id; it changes when the broker has lost its log."""
    client = admin(settings)
    try:
        await client.start()
        return str((await client.describe_cluster())["cluster_id"])
    finally:
        await client.close()


async def ends(settings: Settings, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """Where these partitions end: the offset that the next record will get."""
    client = AIOKafkaConsumer(**connection(settings), request_timeout_ms=10_000)
    await client.start()
    try:
        return dict(await client.end_offsets(list(partitions)))
    finally:
        await client.stop()


def hold_to(client: AIOKafkaClient, known: str, lost: asyncio.Event) -> None:
    """Let this client speak only to brokers of the cluster `known`; sets `lost` at the first that is another.

    A client reconnects by itself and goes on where it was: a producer with what it had in hand, a consumer at its
    old offsets, both in a log that begins anew. So each connection is asked for the cluster id before it is used;
    one to another cluster is closed and never used, and to the client it looks as if the broker were away. A broker
    cannot lose its log and keep its connections, so this leaves no gap, which asking from time to time would.

    It takes hold of a private method of aiokafka 0.14, the one door to every connection; tests/runtime/test_lost_log.py
    fails if a later version has another.
    """
    connect = client._get_conn
    trusted: set[Any] = set()

    async def connected(node_id: Any, **options: Any) -> Any:
        while True:
            found = await connect(node_id, **options)
            if found is None or lost.is_set():
                return None
            if found in trusted and found.connected():
                return found
            try:
                answer = await found.send(MetadataRequest([]))
            except (KafkaError, OSError, TimeoutError) as error:
                log.debug("a new connection broke: %r", error)
                found.close()
                return None
            if answer.cluster_id != known:
                lost.set()
                found.close()
                return None
            trusted.intersection_update(client._conns.values())
            trusted.add(found)
            # Round again: it may have been replaced while it was asked.

    client._get_conn = connected


async def drop_producer(client: AIOKafkaProducer, within_s: float = 5) -> None:
    """Throw a producer away, and with it whatever it still had in hand, instead of waiting until that is sent."""
    if client._sender.sender_task is not None:
        client._sender.sender_task.cancel()
    await end(client.stop(), client.client, within_s)


async def end(stop: Coroutine[Any, Any, None], client: AIOKafkaClient | None, within_s: float) -> None:
    """Let a client stop, for so long, and close its connections in any case. How stopping fails makes no difference
    any more, but must not end its caller: when aiokafka 0.14 stops a consumer that cannot reach its broker, it
    cancels a fetch that pauses and then passes that CancelledError on."""
    stopping = asyncio.ensure_future(stop)
    try:
        await asyncio.wait([stopping], timeout=within_s)
    finally:
        if not stopping.done():
            stopping.cancel()
        elif not stopping.cancelled() and stopping.exception() is not None:
            log.warning("a client did not stop cleanly: %r", stopping.exception())
        if client is not None:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                await asyncio.wait_for(client.close(), 1)


@lru_cache(maxsize=10_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's own clients choose it: 32-bit murmur2, sign bit cut off, modulo."""
    mask = 0xFFFFFFFF
    h = 0x9747B28C ^ len(key)
    words = len(key) // 4
    for k in struct.unpack_from(f"<{words}I", key):
        k = k * 0x5BD1E995 & mask
        h = (h * 0x5BD1E995 & mask) ^ ((k ^ k >> 24) * 0x5BD1E995 & mask)
    rest = key[words * 4 :]
    if rest:
        h = (h ^ int.from_bytes(rest, "little")) * 0x5BD1E995 & mask
    h = (h ^ h >> 13) * 0x5BD1E995 & mask
    return ((h ^ h >> 15) & 0x7FFFFFFF) % partitions
