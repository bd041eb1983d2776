"""Nothing lost, nothing twice, each key in order, whichever process dies or hangs under load, and whenever."""

from __future__ import annotations

import os

import pytest

from tests.e2e.conftest import broker_kind
from tests.faults.harness import running, under_fire

SEED = int(os.environ.get("GOTONG_FAULTS_SEED", "20261124"))
"""Another seed is another schedule of blows and another load."""
RATE = float(os.environ.get("GOTONG_FAULTS_RATE", "310"))
"""Reports a second that the long forms offer."""
LIGHT = 120.0
"""The short forms share their machine with the rest of the suite, and Apache Kafka is away for long on a busy one."""


def needs_kafka() -> None:
    if broker_kind() != "kafka":
        pytest.skip("Apache Kafka needs Java and Maven")


@pytest.mark.timeout(240)
async def test_twelve_kills_on_apache_kafka_lose_and_double_nothing():
    needs_kafka()
    with running("kafka") as field:
        await under_fire(field, seed=SEED, rate=LIGHT, kills=12, pause_s=(0.5, 2.5), drain_within_s=30)


@pytest.mark.timeout(240)
async def test_five_kills_on_the_embedded_broker_lose_and_double_nothing():
    with running("embedded") as field:
        await under_fire(field, seed=SEED, rate=LIGHT, kills=5, pause_s=(0.5, 2.5), drain_within_s=60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
async def test_two_hundred_kills_on_apache_kafka_lose_and_double_nothing():
    needs_kafka()
    with running("kafka") as field:
        figures = await under_fire(
            field, seed=SEED, rate=RATE, kills=200, pause_s=(0.5, 3.5), drain_within_s=30, least_accepted=0.7
        )
    assert figures["blows"]["kill"] + figures["blows"]["send"] == 200


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_sixty_kills_on_the_embedded_broker_lose_and_double_nothing():
    with running("embedded") as field:
        figures = await under_fire(
            field, seed=SEED, rate=RATE, kills=60, pause_s=(1, 5), drain_within_s=90, least_accepted=0.7
        )
    assert figures["blows"]["kill"] == 60
