"""What intake does with other services' events: delivered twice, out of order, and with bodies that cannot be taken."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from schemas.assignments import AssignmentArrived, AssignmentMade, AssignmentState
from schemas.ledger import LedgerChanged
from schemas.operations import OperationClosed, OperationOpened, OperationUpdated
from schemas.partners import SubmissionAccepted
from schemas.reports import ReportReceived
from services.intake import tables
from services.intake.app import service
from services.intake.handlers import consumer
from services.intake.linker import Indexes, link_waiting
from services.runtime import clock
from services.runtime.db import Database
from tests.conftest import Wire, bearer, emitted

AT = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
BODY = {"text": "Jembatan putus, hubungi 0812 3456 7890", "location": {"lon": 107.6, "lat": -7.0}, "hazard": "flood"}


@pytest.fixture
def wire(db: Database) -> Wire:
    return Wire(consumer, db)


async def test_the_classes_of_tables_have_the_columns_of_the_migration(db):
    async with db.tx() as tx:
        found = await tx.fetch(
            "SELECT table_name, column_name, is_nullable = 'YES' AS nullable FROM information_schema.columns "
            "WHERE table_schema = 'intake'"
        )
    own = [model for model in vars(tables).values() if isinstance(model, type) and hasattr(model, "__table__")]
    told = {(m.__tablename__, c.name, c.nullable) for m in own for c in m.__table__.columns}
    names = {name for name, _, _ in told}
    assert len(names) == 9
    assert told == {tuple(row) for row in found if row["table_name"] in names}


def submission(**values: Any) -> SubmissionAccepted:
    settings: dict[str, Any] = {
        "submission_id": uuid4(), "kind": "report", "origin": "/partners/pmi", "origin_id": uuid4().hex,
        "received_at": clock.now(), "body": BODY,
    } | values  # fmt: skip
    return SubmissionAccepted(**settings)


def operation(kind: type = OperationOpened, **values: Any) -> Any:
    return kind(**({"operation": "jakarta", "title": "Jakarta", "opened_at": AT, "by": "admin:tester"} | values))


async def rows(db: Database, table: str) -> list[dict[str, Any]]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch(f"SELECT * FROM {table} ORDER BY 1")]


async def test_a_submission_delivered_twice_is_one_report(db, wire):
    event = submission()
    await wire.deliver(event, id="one")
    await wire.deliver(event, id="one")
    await wire.deliver(event, id="two")  # the exchange said it again under another id
    [report] = await rows(db, "report")
    [told] = await emitted(db, ReportReceived)
    assert report["origin"] == told.origin == "/partners/pmi" and told.text == "Jembatan putus, hubungi [nomor]"
    assert report["proven"] is False and told.external_id == event.origin_id


async def test_a_partners_own_number_tells_a_repeat_whatever_the_way_it_came(db, wire, make_client):
    await wire.deliver(submission(external_id="17", known=True, organisation="pmi"))
    await wire.deliver(submission(external_id="17"))
    client: httpx.AsyncClient = make_client([service])
    row = BODY | {"external_id": "17", "source": "/partners/pmi"}
    answer = await client.post("/v1/reports", json=row, headers=bearer("partner", org="pmi"))
    assert answer.json()["repeated"] is True
    assert len(await emitted(db, ReportReceived)) == 1


async def test_a_batch_of_submissions_is_taken_together_and_bad_ones_are_refused_alone(db, wire):
    bad = submission(body={"text": "x", "location": {"lon": 999, "lat": 0}})
    events = [submission(), submission(), bad, submission()]
    await wire.deliver_raw([wire.raw(event) for event in events])
    assert len(await rows(db, "report")) == 3
    [refused] = await rows(db, "quarantine")
    assert refused["pointer"] == "/data/body/location/lon" and "180" in refused["reason"]


async def test_a_known_partner_has_declared_rights_and_an_unproven_one_has_not(db, wire):
    body = BODY | {"needs": [{"item": "boat", "quantity": 9}]}
    await wire.deliver(submission(body=body, known=True, organisation="pmi"))
    await wire.deliver(submission(body=body | {"location": {"lon": 110.0, "lat": -7.0}}, origin="/somebody"))
    while await link_waiting(db, Indexes()):
        pass
    by_lon = {need["lon"]: need["status"] for need in await rows(db, "need")}
    assert by_lon == {107.6: "declared", 110.0: "draft"}


async def test_a_submission_is_observed_when_the_exchange_received_it(db, wire):
    await wire.deliver(submission(received_at=AT))
    [told] = await emitted(db, ReportReceived)
    assert told.observed_at == AT and not told.clock_ahead


async def test_operations_are_kept_twice_and_out_of_order(db, wire):
    closed = operation(OperationClosed, closed_at=AT + timedelta(days=1))
    await wire.deliver(closed, sequence=3)
    await wire.deliver(operation(OperationUpdated, title="Older"), sequence=2)  # superseded
    await wire.deliver(operation(), sequence=1)
    await wire.deliver(closed, sequence=3)
    [kept] = await rows(db, "operation")
    assert kept["closed_at"] is not None and kept["title"] == "Jakarta"


async def test_an_operation_may_come_after_the_reports_that_name_it(db, wire):
    await wire.deliver(submission(body=BODY | {"operation": "jakarta"}))
    [report] = await rows(db, "report")
    assert report["state"] == "held"
    await wire.deliver(operation(exercise=True))
    await link_waiting(db, Indexes())
    [report] = await rows(db, "report")
    assert (report["state"], report["operation"], report["exercise"]) == ("linked", "jakarta", True)


def ledger(need_id: UUID, opened: int, delivered: int) -> LedgerChanged:
    zeros = dict.fromkeys(("offered", "committed", "in_transit", "confirmed", "cancelled", "asked"), 0)
    return LedgerChanged(
        need_id=need_id, unit="unit", severity=2, needed=opened + delivered, open=opened, delivered=delivered,
        cause="test", **zeros,
    )  # fmt: skip


async def test_the_newest_ledger_row_wins_in_any_order_and_before_its_need(db, wire):
    need_id = uuid4()
    await wire.deliver(ledger(need_id, 0, 5), sequence=9)
    await wire.deliver(ledger(need_id, 5, 0), sequence=8)
    await wire.deliver(ledger(need_id, 0, 5), sequence=9)
    [row] = await rows(db, "ledger")
    assert (row["open"], row["delivered"]) == (0, 5)
    other = uuid4()
    raws = [wire.raw(ledger(other, 5 - n, n), sequence=n + 1) for n in range(4)]
    await wire.deliver_raw([*raws, raws[1]])
    assert {r["need_id"]: r["delivered"] for r in await rows(db, "ledger")}[other] == 3


def assignment(kind: type[AssignmentState], assignment_id: UUID, state: str) -> AssignmentState:
    return kind(
        assignment_id=assignment_id, need_id=uuid4(), item="boat", quantity=1, by="x", state=state,
        period={"start": AT, "end": AT + timedelta(hours=1)},
    )  # fmt: skip


async def test_assignments_keep_the_newest_step_and_the_first_time(db, wire):
    made, one = uuid4(), uuid4()
    first = wire.raw(assignment(AssignmentMade, made, "made"), sequence=1, time=AT)
    second = wire.raw(assignment(AssignmentArrived, made, "arrived"), sequence=3, time=AT + timedelta(minutes=9))
    await wire.deliver_raw([first, second, first])
    late = wire.raw(assignment(AssignmentArrived, one, "arrived"), sequence=3, time=AT + timedelta(minutes=9))
    early = wire.raw(assignment(AssignmentMade, one, "made"), sequence=1, time=AT)
    await wire.deliver_raw([late])
    await wire.deliver_raw([early])  # older than what is known: superseded
    found = {row["assignment_id"]: row for row in await rows(db, "assignment")}
    assert found[made]["state"] == "arrived" and found[made]["first_at"] == AT
    assert found[one]["state"] == "arrived"
