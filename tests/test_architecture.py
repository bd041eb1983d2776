"""What the code promises of itself: who may import whom, how every subscriber is made, who writes which topic."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

import schemas
from schemas.event import event_types
from schemas.topics import TOPICS, read_by, topic
from services.runtime.consumer import Consumer, Runner
from services.runtime.db import Database
from services.runtime.migrations import migrations_of
from services.runtime.settings import SERVICES, Settings

ROOT = Path(__file__).resolve().parents[1]


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def test_import_rules_hold():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def app_of(service: str):
    return importlib.import_module(f"services.{service}.app").service


@pytest.mark.parametrize("service", SERVICES)
def test_every_subscriber_is_made_so_that_nothing_is_lost(service):
    consumer = app_of(service).consumer
    if consumer is None:
        pytest.skip(f"{service} reads nothing")
    broker = KafkaBroker("127.0.0.1:1")
    runner = Runner(consumer, Database("postgresql://x@127.0.0.1:1/x", service), Settings(kafka="127.0.0.1:1"))
    runner.subscribe(broker)
    (subscriber,) = broker.subscribers
    faults = subscriber_faults(subscriber)
    assert faults == []
    assert subscriber.group_id == f"gotong.{service}"
    assert set(subscriber.topic_names) == set(consumer.topics)


def subscriber_faults(subscriber) -> list[str]:
    """What a subscriber leaves at a FastStream default that loses data."""
    faults = []
    if subscriber.ack_policy is not AckPolicy.NACK_ON_ERROR:
        faults.append("ack_policy")
    if subscriber._connection_args.get("auto_offset_reset") != "earliest":
        faults.append("auto_offset_reset")
    if subscriber._connection_args.get("enable_auto_commit", False):
        faults.append("enable_auto_commit")
    if not subscriber.group_id:
        faults.append("group_id")
    return faults


def test_a_subscriber_with_the_frameworks_defaults_is_found_out():
    broker = KafkaBroker("127.0.0.1:1")

    @broker.subscriber("gotong.reports.v1")
    async def handle(message):
        raise NotImplementedError

    (subscriber,) = broker.subscribers
    assert set(subscriber_faults(subscriber)) >= {"ack_policy", "auto_offset_reset", "group_id"}


def test_nobody_makes_a_subscriber_beside_the_helper():
    made = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources("services")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("subscriber", "publisher")
    ]
    assert [place.split(":")[0] for place in made] == ["services/runtime/consumer.py"]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_reads_what_the_table_says(service):
    consumer: Consumer | None = app_of(service).consumer
    reads = set(consumer.topics) if consumer else set()
    allowed = {entry.name for entry in read_by(service)}
    assert reads <= allowed
    # A topic whose events no released service sends yet may still be unread.
    sent = {model.topic for model in event_types().values()}
    assert allowed & sent <= reads


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_sends_only_its_own_events(service):
    """Event classes that a service's modules construct belong to topics whose producer it is."""
    foreign = []
    by_name = {model.__name__: model for model in event_types().values()}
    for path in sources(f"services/{service}"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in by_name:
                producer = topic(by_name[node.func.id].topic).producer
                if producer not in (service, "each service"):
                    foreign.append(f"{path.name}:{node.lineno} {node.func.id} ({producer})")
    assert foreign == []


def test_nobody_reads_the_clock_beside_the_door():
    found = []
    for path in sources("services"):
        if path.name == "clock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Attribute) and (
                (
                    node.attr in ("now", "utcnow", "today")
                    and isinstance(node.value, ast.Name)
                    and node.value.id in ("datetime", "date")
                )
                or (node.attr == "time" and isinstance(node.value, ast.Name) and node.value.id == "time")
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


RULES = ("domain.py", "linking.py", "needs.py", "text.py")


def test_rules_are_pure():
    """Rule modules import no database, no network, no clock and no randomness."""
    banned = {"asyncio", "random", "time", "os", "socket", "httpx", "asyncpg", "sqlalchemy", "sqlmodel", "aiokafka"}
    found = []
    paths = [p for p in sources("services") if p.name in RULES and "runtime" not in p.parts]
    paths += list(sources("services/matching/engine"))
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
                if node.module in ("services.runtime", "services.runtime.clock") and any(
                    a.name == "clock" for a in node.names
                ):
                    names.append("time")
            found += [f"{path.relative_to(ROOT)}:{node.lineno} {name}" for name in names if name in banned]
    assert found == []


def test_every_topic_has_a_producer_and_state_or_fact():
    for name, entry in TOPICS.items():
        assert entry.kind in ("state", "fact"), name
        assert entry.producer in (*SERVICES, "partners", "each service"), name


@pytest.mark.parametrize("service", SERVICES)
async def test_tables_are_what_the_migrations_make(service, dsn):
    """Every SQLModel class of a service has the columns of its table, with the same nullability."""
    import asyncpg
    from sqlmodel import SQLModel

    assert migrations_of(service)
    try:
        module = importlib.import_module(f"services.{service}.tables")
    except ModuleNotFoundError:
        pytest.skip(f"{service} has no tables of its own")
    models = [
        value for _, value in inspect.getmembers(module, inspect.isclass)
        if issubclass(value, SQLModel) and getattr(value, "__table__", None) is not None
    ]  # fmt: skip
    connection = await asyncpg.connect(dsn)
    try:
        for model in models:
            table = model.__table__
            rows = await connection.fetch(
                "SELECT column_name, is_nullable FROM information_schema.columns "
                "WHERE table_schema = $1 AND table_name = $2",
                service,
                table.name,
            )
            real = {row["column_name"]: row["is_nullable"] == "YES" for row in rows}
            said = {column.name: bool(column.nullable) for column in table.columns}
            assert said == real, f"{service}.{table.name}"
    finally:
        await connection.close()


def test_every_module_says_what_it_is_for():
    silent = []
    for package in (schemas, importlib.import_module("services"), importlib.import_module("gotong")):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            path = Path(importlib.util.find_spec(info.name).origin)  # type: ignore[union-attr,arg-type]
            if path.name != "__init__.py" and not ast.get_docstring(ast.parse(path.read_text("utf-8"))):
                silent.append(info.name)
    assert silent == []
