"""The whole system, once for each module that asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import broker_choice
from tests.e2e.system import System


def broker_kind() -> str:
    """Apache Kafka where this machine can run it, else the embedded broker."""
    return "kafka" if broker_choice().kind == "kafka" else "embedded"


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    """A running system of its own for one module."""
    running = System(broker_kind())
    try:
        running.start()
        yield running
    finally:
        running.close()
