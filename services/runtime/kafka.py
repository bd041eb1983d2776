"""How every client here connects to Kafka."""

from __future__ import annotations

import ssl
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from services.runtime.settings import Settings, SettingsMissing


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


async def cluster_id(settings: Settings) -> str:
    """The broker's cluster id; it changes when the broker has lost its log."""
    admin = AIOKafkaAdminClient(**connection(settings), request_timeout_ms=5_000)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()
