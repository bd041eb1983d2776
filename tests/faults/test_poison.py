"""What can never be taken, on every topic that is read: it is put aside with its reason, and nobody else waits."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import MessageSizeTooLargeError

from schemas.event import event_types
from services.exchange.handlers import consumer as exchange
from services.intake.handlers import consumer as intake
from services.matching.handlers import consumer as matching
from services.registry.app import service as registry
from services.sitrep.handlers import consumer as sitrep
from tests.e2e.conftest import broker_kind
from tests.e2e.system import ROOT, System, until

pytestmark = pytest.mark.timeout(300)
SOURCE = "/test/poison"
GOLDEN = ROOT / "tests" / "contracts" / "golden"
READERS = {c.service: c.topics for c in (intake, matching, exchange, sitrep, registry.consumer) if c is not None}
READ = sorted({name for topics in READERS.values() for name in topics})
SPOKEN = {model.topic for model in event_types().values()}
"""Topics of which some contract is known yet: on the others nothing is good."""
ALONE = SPOKEN - {"gotong.answers.v1"}
"""Topics with records that can be good by themselves: an answer is only to an offer that was made to the sender."""
MB = 1024 * 1024

Headers = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    running = System(broker_kind())
    try:
        running.start()
        yield running
    finally:
        running.close()


def example(name: str) -> tuple[str, dict[str, Any]]:
    """A type of this topic with a valid value, about a subject of its own."""
    # What opens something comes first in life, too: a merge or a correction would speak of what nobody knows.
    opening = ("opened", "received", "drafted", "registered", "issued", "made", "refused", "submitted", "accepted")
    kinds = sorted(kind for kind, model in event_types().items() if model.topic == name)
    for consumer in (intake, matching, registry.consumer):
        if consumer is not None and name in consumer.topics:  # what somebody does something with, where anybody does
            kinds = [kind for kind in kinds if kind in consumer._handlers]
    kind = min(kinds, key=lambda kind: next((n for n, word in enumerate(opening) if f".{word}." in kind), 99))
    value: dict[str, Any] = json.loads((GOLDEN / f"{kind}.json").read_text("utf-8"))
    model = event_types()[kind]
    own = f"racun-{uuid4().hex[:8]}" if "operation" in model.subject else str(uuid4())
    if model.subject == "area":
        own = f"bps:{uuid4().int % 10_000:04}"
    value[model.subject] = own
    return kind, value


def good(name: str) -> tuple[str, str, bytes, bytes, Headers]:
    """Id, subject, key, value and headers of a record that has to be taken."""
    kind, value = example(name)
    event = event_types()[kind].model_validate(value)
    identity = str(uuid4())
    attributes = {
        "specversion": "1.0", "id": identity, "source": SOURCE, "type": kind, "subject": event.subject_value,
        "time": datetime.now(UTC).isoformat(), "sequence": "1",
    }  # fmt: skip
    if value.get("exercise"):
        attributes["exercise"] = "true"
    if value.get("operation"):
        attributes["operation"] = str(value["operation"])
    headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
    return identity, event.subject_value, event.key_value.encode(), json.dumps(value).encode(), headers


def nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


def bad(name: str) -> dict[str, tuple[bytes | None, Headers, str]]:
    """By what is wrong: value, headers, and a word that the reason has to hold."""
    *_, value, headers = good(name if name in SPOKEN else "gotong.needs.v1")
    without = [(key, text) for key, text in headers if key not in ("ce_id", "ce_type")]
    identity, kind = ("ce_id", uuid4().hex.encode()), next(pair for pair in headers if pair[0] == "ce_type")
    every = [identity, kind, *without]
    return {
        "bad JSON": (b'{"text": "cut off', every, "json"),
        "unknown type": (value, [identity, ("ce_type", b"gotong.unheard.of.v1"), *without], "not known"),
        "no ce_id": (value, [kind, *without], "the attribute id is missing"),
        "another topic's type": (value, [identity, ("ce_type", _elsewhere(name)), *without], "does not belong"),
        "900 KB": (b'{"text": "' + b"x" * (900 * 1024) + b'"}', every, "bytes"),
        "5 MB": (b'{"text": "' + b"x" * (5 * MB) + b'"}', every, "bytes"),
        "header not UTF-8": (value, [*every, ("ce_dataschema", b"\xff\xfe")], "utf-8"),
        "no value": (None, every, "null"),
        "100 levels": (nested(100), every, ""),
    }


def _elsewhere(name: str) -> bytes:
    return next(kind for kind, model in sorted(event_types().items()) if model.topic != name).encode()


async def raise_limit(system: System) -> bool:
    """Let 5 MB through; whether the broker agreed (the embedded one has no such setting and takes them anyway)."""
    if system.broker == "embedded":
        return True
    admin = AIOKafkaAdminClient(bootstrap_servers=system.state["kafka"])
    await admin.start()
    try:
        answers = await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": str(6 * MB)}) for name in READ]
        )
        return all(code == 0 for answer in answers for code, *_ in answer.resources)
    finally:
        await admin.close()


async def test_poison_on_every_topic_is_put_aside_and_nobody_waits(system: System):
    assert await raise_limit(system)
    producer = AIOKafkaProducer(
        bootstrap_servers=system.state["kafka"], max_request_size=7 * MB,
        enable_idempotence=False,  # a record refused for its size would leave a gap in its numbers
    )  # fmt: skip
    await producer.start()
    taken: dict[str, list[tuple[str, str]]] = defaultdict(list)
    wrong: dict[tuple[str, int, int], tuple[str, str]] = {}
    try:
        for name in READ:
            for place, (what, (value, headers, word)) in enumerate(bad(name).items()):
                if place in (0, 4) and name in ALONE:  # before the first and between two
                    taken[name].append(await _send_good(producer, name))
                sent = await until(lambda n=name, v=value, h=headers: _send(producer, n, v, h), 20)  # type: ignore[misc]
                wrong[name, 0, sent.offset] = what, word if name in SPOKEN else ""
            if name in ALONE:
                taken[name].append(await _send_good(producer, name))
    finally:
        await producer.stop()

    for service, topics in READERS.items():
        lacking: set[str] = set()

        async def nothing_lacks(service: str = service, topics: tuple[str, ...] = topics) -> bool:
            nonlocal lacking
            lacking = await _lacking(system, service, topics, taken)
            return not lacking

        await until(nothing_lacks, 90, lambda s=service: f"{s} lacks {lacking}\n{system.tail()}")  # type: ignore[misc]  # noqa: B023
        rows = await until(lambda s=service, t=topics: _all_aside(system, s, t, wrong), 60, system.tail)  # type: ignore[misc]
        for row in rows:
            what, word = wrong[row["topic"], row["kafka_partition"], row["kafka_offset"]]
            assert row["reason"], (service, row["topic"], what)
            assert word in row["reason"].lower(), (service, row["topic"], what, row["reason"])
    # Each is told of once on the topic of quarantine, and seen by operators with its place.
    async with system.client("operator") as operator:
        found = (await operator.get("/v1/quarantine", params={"limit": 1000})).json()["quarantine"]
    assert len(found) == sum(name in topics for topics in READERS.values() for name, *_ in wrong)
    await system.settled(60)


async def _send(producer: AIOKafkaProducer, name: str, value: bytes | None, headers: Headers) -> Any:
    try:
        return await producer.send_and_wait(name, value, key=b"poison", headers=headers, partition=0)
    except MessageSizeTooLargeError:
        return None  # the broker has agreed to the larger limit and not put it into force yet


async def _send_good(producer: AIOKafkaProducer, name: str) -> tuple[str, str]:
    identity, subject, _, value, headers = good(name)
    await producer.send_and_wait(name, value, key=b"poison", headers=headers, partition=0)
    return identity, subject


async def _lacking(system: System, service: str, topics: tuple[str, ...], taken: dict[str, Any]) -> set[str]:
    """The topics of which this reader has not taken in every good record, by its own tables."""
    if service == "sitrep":
        rows = await system.rows("SELECT id FROM sitrep.log WHERE source = $1", SOURCE)
    else:
        rows = await system.rows(
            f"SELECT id FROM {service}.inbox_fact WHERE source = $1 UNION SELECT subject FROM {service}.inbox_state",
            SOURCE,
        )
    have = {row["id"] for row in rows}
    return {name for name in topics for identity, subject in taken[name] if not {identity, subject} & have}


async def _all_aside(
    system: System, service: str, topics: tuple[str, ...], wrong: dict[tuple[str, int, int], Any]
) -> list[Any] | None:
    rows = await system.rows(f"SELECT topic, kafka_partition, kafka_offset, reason FROM {service}.quarantine")
    places = {(row["topic"], row["kafka_partition"], row["kafka_offset"]) for row in rows}
    wanted = {place for place in wrong if place[0] in topics}
    assert places <= wanted, (
        f"{service} put aside what is good: {[dict(r) for r in rows if (r['topic'], r['kafka_partition'], r['kafka_offset']) not in wanted]}"
    )
    return rows if places == wanted else None


async def test_the_broker_refuses_what_is_over_its_own_limit(system: System):
    if system.broker == "embedded":
        pytest.skip("the embedded broker has no limit of its own")
    producer = AIOKafkaProducer(bootstrap_servers=system.state["kafka"], max_request_size=7 * MB)
    await producer.start()
    try:
        with pytest.raises(MessageSizeTooLargeError):
            await producer.send_and_wait("gotong.sitreps.v1", b"x" * (13 * MB // 2), key=b"poison")
    finally:
        await producer.stop()
