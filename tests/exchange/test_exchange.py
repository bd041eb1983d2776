"""What partners send, by Kafka and by HTTP: what passes, what is refused and why, what counts as a repeat."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Meta
from schemas.partners import ReportSubmitted, SubmissionAccepted, contact_fields
from schemas.quarantine import RecordRefused, RecordReleased
from services.exchange.app import service
from services.exchange.domain import as_judged, belongs, names_somebody, refusal
from services.exchange.handlers import consumer
from services.runtime.db import Database
from services.runtime.ids import derived
from services.runtime.quarantine import Raw
from tests.conftest import Wire, bearer, emitted

TOPIC = ReportSubmitted.topic
NOW = datetime(2026, 11, 24, 2, 10, tzinfo=UTC)
PMI = bearer("partner", "pmi-system", org="pmi")
REPORT: dict[str, Any] = {
    "text": "Banjir 1 meter di Kampung Melayu, 30 orang butuh perahu",
    "location": {"lon": 106.866, "lat": -6.222, "place": "Kampung Melayu", "admin": "kemendagri:31.75.03"},
    "hazard": "flood",
    "severity": 3,
    "observed_at": "2026-11-24T09:10:00+07:00",
    "people": {"affected": 30},
    "needs": [{"item": "boat", "quantity": 2}],
    "reporter_ref": "r-17",
}


def cloudevent(number: int, data: Any = None, **attributes: Any) -> dict[str, Any]:
    """A structured CloudEvent, as a partner writes it."""
    event = {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "/partners/pmi",
        "type": ReportSubmitted.type,
        "datacontenttype": "application/json",
        "data": REPORT | {"external_id": f"x-{number}"} if data is None else data,
    }
    return {name: value for name, value in (event | attributes).items() if value is not None}


def structured(event: Any, offset: int) -> Raw:
    value = event if isinstance(event, bytes) else orjson.dumps(event)
    return Raw(TOPIC, 0, offset, None, (("content-type", b"application/cloudevents+json; charset=UTF-8"),), value)


def binary(event: dict[str, Any], offset: int) -> Raw:
    headers = tuple(
        (f"ce_{name}", str(value).encode())
        for name, value in event.items()
        if name not in ("data", "datacontenttype") and value is not None
    )
    return Raw(TOPIC, 0, offset, b"any", (*headers, ("content-type", b"application/json")), orjson.dumps(event["data"]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("exchange")


@pytest.fixture
def wire(db) -> Wire:
    return Wire(consumer, db)


@pytest.fixture
def client(make_client) -> httpx.AsyncClient:
    return make_client([service])


async def sent(client: httpx.AsyncClient, method: str, path: str, **request: Any) -> httpx.Response:
    """As a client does it: what is answered 503 (nothing was stored) is sent again, for half a minute."""
    deadline = time.monotonic() + 30
    while True:
        answer = await client.request(method, path, **request)
        if answer.status_code != 503 or time.monotonic() > deadline:
            return answer


async def publish(client: httpx.AsyncClient, events: Any, headers: dict[str, str] = PMI, **more: str) -> httpx.Response:
    kind = "application/cloudevents-batch+json" if isinstance(events, list) else "application/cloudevents+json"
    content = orjson.dumps(events)
    headers = headers | {"Content-Type": kind} | more
    return await sent(client, "POST", "/v1/partner/events", content=content, headers=headers)


# Kafka


async def test_a_report_passes_in_binary_and_in_structured_mode_with_its_origin_kept(wire, db):
    await wire.deliver_raw([binary(cloudevent(1), 0), structured(cloudevent(2), 1)])
    first, second = await emitted(db, SubmissionAccepted)
    assert (first.origin, first.origin_id, first.external_id) == ("/partners/pmi", "e-1", "x-1")
    assert (second.origin, second.origin_id, second.external_id) == ("/partners/pmi", "e-2", "x-2")
    assert (first.kind, first.known, first.organisation) == ("report", False, None)
    assert first.key_value == "/partners/pmi"
    assert first.submission_id == derived("submission", "/partners/pmi", "e-1")
    assert ReportSubmitted.model_validate(first.body) == ReportSubmitted.model_validate(REPORT | {"external_id": "x-1"})
    assert await emitted(db, RecordRefused) == []


WRONG: list[tuple[str, Any, str]] = [
    ("no text, hazard or media", cloudevent(990, {"location": REPORT["location"]}), "/data"),
    ("area code without scheme", cloudevent(991, REPORT | {"location": {"admin": "3174"}}), "/data/location/admin"),
    ("severity out of range", cloudevent(992, REPORT | {"severity": 9}), "/data/severity"),
    ("contact data", cloudevent(993, REPORT | {"reporter": {"phone": "0812"}}), "/data/reporter"),
    (
        "hidden contact data",
        cloudevent(994, REPORT | {"meta": [{"Phone-Number": "0812"}]}),
        "/data/meta/0/Phone-Number",
    ),
    ("our own source", cloudevent(995, source="/gotong/abc/intake"), "/source"),
    ("unknown type", cloudevent(996, type="org.example.report"), "/type"),
    ("no id", cloudevent(997, id=None), "/id"),
    ("not a CloudEvent", {"text": "Banjir"}, "/specversion"),
    ("not JSON", b"\xff\xfe{", ""),
    ("data is a list", cloudevent(998, [1, 2]), "/data"),
    ("far future", cloudevent(999, REPORT | {"observed_at": "2226-01-01T00:00:00Z"}), "/data/observed_at"),
    ("time without zone", cloudevent(9100, REPORT | {"observed_at": "2026-11-24T09:10:00"}), "/data/observed_at"),
    ("a number as reference", cloudevent(9101, REPORT | {"reporter_ref": "+62 812-3456-7890"}), "/data/reporter_ref"),
]


@pytest.mark.parametrize(("event", "pointer"), [case[1:] for case in WRONG], ids=[case[0] for case in WRONG])
async def test_a_wrong_record_is_refused_with_field_and_reason_and_its_neighbours_pass(wire, db, event, pointer):
    await wire.deliver_raw([structured(cloudevent(1), 0), structured(event, 1), structured(cloudevent(2), 2)])
    assert [event.origin_id for event in await emitted(db, SubmissionAccepted)] == ["e-1", "e-2"]
    (refused,) = await emitted(db, RecordRefused)
    assert refused.pointer == pointer
    assert (refused.partition, refused.offset, refused.from_topic) == (0, 1, TOPIC)
    assert len(refused.reason) > 10
    assert "0812" not in refused.reason


async def test_a_batch_with_one_wrong_record_in_twenty_loses_none_and_passes_each_good_one_once(wire, db):
    raws = []
    for number in range(200):
        wrong = number % 20 == 7
        event = WRONG[number // 20 % 5][1] if wrong else cloudevent(number)
        raws.append(structured(event, number))
    await wire.deliver_raw(raws)
    await wire.deliver_raw(raws)  # the offsets were lost: all of it comes again
    assert [event.origin_id for event in await emitted(db, SubmissionAccepted)] == [
        f"e-{number}" for number in range(200) if number % 20 != 7
    ]
    assert len(await emitted(db, RecordRefused)) == 10


async def test_the_same_id_or_the_same_external_id_of_one_source_is_a_repeat(wire, db):
    first = cloudevent(1)
    await wire.deliver_raw([structured(first, 0)])
    await wire.deliver_raw([structured(first, 1)])
    await wire.deliver_raw([structured(first | {"id": "another"}, 2), structured(first | {"id": "a third"}, 3)])
    assert len(await emitted(db, SubmissionAccepted)) == 1
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT repeats FROM submission") == 2
    await wire.deliver_raw([structured(first | {"source": "/partners/other"}, 4)])
    assert len(await emitted(db, SubmissionAccepted)) == 2


async def test_two_deliveries_in_any_order_end_alike(wire, db):
    events = [structured(cloudevent(number % 7, id=f"i-{number}"), number) for number in range(21)]
    for raw in reversed(events):
        await wire.deliver_raw([raw])
    await wire.deliver_raw(events)
    accepted = await emitted(db, SubmissionAccepted)
    assert sorted(str(event.external_id) for event in accepted) == [f"x-{number}" for number in range(7)]
    assert {event.origin_id for event in accepted} == {f"i-{number}" for number in range(14, 21)}


async def test_what_identifies_a_person_in_free_text_is_masked_before_it_is_passed_on(wire, db):
    text = "Hubungi Pak RT 0812-3456-7890 atau rt@example.org, NIK 3175034411900001, banjir 1,5 meter"
    data = REPORT | {"text": text, "title": "Telp 081234567890", "location": {"place": "Rumah, wa 081234567890"}}
    await wire.deliver_raw([structured(cloudevent(1, data), 0)])
    (accepted,) = await emitted(db, SubmissionAccepted)
    told = accepted.to_bytes()
    for secret in (b"7890", b"rt@example.org", b"3175034411900001"):
        assert secret not in told
    assert "banjir 1,5 meter" in accepted.body["text"]


async def test_a_long_text_is_cut_to_what_an_event_carries(wire, db):
    data = REPORT | {"text": "雨" * 10_000}
    await wire.deliver_raw([structured(cloudevent(1, data), 0)])
    (accepted,) = await emitted(db, SubmissionAccepted)
    assert accepted.body["text_cut"] is True
    assert accepted.body["text"] == "雨" * (16 * 1024 // 3)


async def test_a_report_that_no_event_can_carry_is_refused_and_not_taken_for_our_bug(wire, db):
    media = [{"url": "https://example.org/" + "a" * 1900} for _ in range(20)]
    await wire.deliver_raw([structured(cloudevent(1, REPORT | {"media": media}), 0)])
    (refused,) = await emitted(db, RecordRefused)
    assert refused.pointer == "/data"
    assert "bytes" in refused.reason


async def test_the_operation_may_stand_in_the_attribute(wire, db):
    await wire.deliver_raw([structured(cloudevent(1, operation="banjir-2026"), 0)])
    await wire.deliver_raw([structured(cloudevent(2, operation="Banjir 2026!"), 1)])
    (accepted,) = await emitted(db, SubmissionAccepted)
    assert (accepted.operation, accepted.body["operation"]) == ("banjir-2026", "banjir-2026")
    assert [event.pointer for event in await emitted(db, RecordRefused)] == ["/operation"]


async def test_a_mended_record_is_let_in_once_however_often_it_is_released(wire, db, client):
    wrong = cloudevent(1, REPORT | {"severity": 9, "external_id": "x-1"})
    await wire.deliver_raw([structured(wrong, 0)])
    operator = bearer("operator", "posko")
    (entry,) = (await client.get("/v1/quarantine", headers=operator)).json()["quarantine"]
    assert (entry["pointer"], entry["source"], entry["event_id"]) == ("/data/severity", "/partners/pmi", "e-1")
    url = f"/v1/quarantine/{entry['id']}"
    assert (await client.get(url, headers=operator)).json()["value"]
    assert (await client.get(url, headers=PMI)).status_code == 403

    order = {"value": wrong["data"] | {"severity": 4}, "reason": "salah ketik"}
    answers = await asyncio.gather(
        *(sent(client, "POST", f"{url}/release", json=order, headers=operator) for _ in range(3))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409]
    await wire.runner.release_all()
    await wire.runner.release_all()
    (accepted,) = await emitted(db, SubmissionAccepted)
    assert (accepted.body["severity"], accepted.origin_id) == (4, "e-1")
    (released,) = await emitted(db, RecordReleased)
    assert (released.mended, released.by) == (True, "operator:posko")
    assert (await client.post(f"{url}/release", json=order, headers=operator)).status_code == 409
    # The partner mends it on its side too and sends it again: it is known.
    await wire.deliver_raw([structured(wrong | {"id": "e-1b", "data": order["value"]}, 1)])
    assert len(await emitted(db, SubmissionAccepted)) == 1


async def test_a_record_released_as_it_was_fails_again_and_stays(wire, db, client):
    await wire.deliver_raw([structured(cloudevent(1, REPORT | {"severity": 9}), 0)])
    operator = bearer("operator")
    (entry,) = (await client.get("/v1/quarantine", headers=operator)).json()["quarantine"]
    await client.post(f"/v1/quarantine/{entry['id']}/release", json={"reason": "noch einmal"}, headers=operator)
    await wire.runner.release_all()
    assert await emitted(db, SubmissionAccepted) == []
    (again,) = (await client.get("/v1/quarantine", headers=operator)).json()["quarantine"]
    assert (again["state"], again["pointer"]) == ("refused", "/data/severity")


# HTTP


async def test_one_event_over_http_is_known_by_its_token(client, db):
    answer = await publish(client, cloudevent(1))
    assert answer.status_code == 202
    (accepted,) = await emitted(db, SubmissionAccepted)
    assert (accepted.known, accepted.organisation) == (True, "pmi")
    assert answer.json()["results"] == [
        {"index": 0, "id": "e-1", "submission_id": str(accepted.submission_id), "status": "accepted"}
    ]
    again = await publish(client, cloudevent(1, id="other-id"))
    assert (again.status_code, again.json()["repeated"]) == (200, 1)
    assert again.json()["results"][0]["submission_id"] == str(accepted.submission_id)
    assert len(await emitted(db, SubmissionAccepted)) == 1


async def test_kafka_and_http_know_each_others_messages(client, wire, db):
    await publish(client, cloudevent(1))
    await wire.deliver_raw([structured(cloudevent(1), 0), structured(cloudevent(2), 1)])
    assert (await publish(client, cloudevent(2))).json()["repeated"] == 1
    assert [event.origin_id for event in await emitted(db, SubmissionAccepted)] == ["e-1", "e-2"]


async def test_each_event_of_a_batch_is_answered_for_itself(client, db):
    events = [
        cloudevent(1),
        *(event for _, event, _ in WRONG[:5]),
        cloudevent(1),
        cloudevent(2, source="/partners/other"),
        cloudevent(3, source="/partners/pmi/cabang-bandung"),
        17,
    ]
    answer = await publish(client, events)
    assert answer.status_code == 207
    body = answer.json()
    assert (body["accepted"], body["rejected"], body["repeated"]) == (2, 7, 1)
    assert [(result["index"], result["status"], result.get("pointer")) for result in body["results"]] == [
        (0, "accepted", None),
        *((1 + n, "rejected", pointer) for n, (_, _, pointer) in enumerate(WRONG[:5])),
        (6, "repeated", None),
        (7, "rejected", "/source"),
        (8, "accepted", None),
        (9, "rejected", ""),
    ]
    assert all(result["reason"] for result in body["results"] if result["status"] == "rejected")
    assert [event.origin_id for event in await emitted(db, SubmissionAccepted)] == ["e-1", "e-3"]


@pytest.mark.parametrize(("event", "pointer"), [case[1:] for case in WRONG if isinstance(case[1], dict)])
async def test_one_wrong_event_is_answered_with_a_problem_that_names_the_field(client, db, event, pointer):
    answer = await publish(client, event)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert await emitted(db) == []


async def test_only_partners_publish_and_only_under_their_own_sources(client, db):
    assert (await publish(client, cloudevent(1), headers={})).status_code == 401
    for role in ("operator", "responder", "field", "auditor"):
        assert (await publish(client, cloudevent(1), headers=bearer(role))).status_code == 403
    assert (await publish(client, cloudevent(1), headers=bearer("partner"))).status_code == 403
    foreign = await publish(client, cloudevent(1, source="https://pmi.or.id/lapor"))
    assert (foreign.status_code, foreign.json()["errors"][0]["pointer"]) == (403, "/source")
    assert (await publish(client, cloudevent(1, source="/partners/pmi-palsu"))).status_code == 403
    assert await emitted(db) == []

    grant = {"origin": "https://pmi.or.id/lapor", "organisation": "pmi"}
    assert (await client.post("/v1/partner/origins", json=grant, headers=PMI)).status_code == 403
    assert (await client.post("/v1/partner/origins", json=grant, headers=bearer("operator"))).status_code == 201
    assert (await publish(client, cloudevent(1, source="https://pmi.or.id/lapor"))).status_code == 202
    taken = await client.post("/v1/partner/origins", json=grant | {"organisation": "other"}, headers=bearer("operator"))
    assert taken.status_code == 409
    stolen = {"origin": "/partners/other", "organisation": "pmi"}
    assert (await client.post("/v1/partner/origins", json=stolen, headers=bearer("operator"))).status_code == 422
    listed = (await client.get("/v1/partner/origins", headers=bearer("auditor"))).json()["origins"]
    assert [(entry["origin"], entry["organisation"]) for entry in listed] == [("https://pmi.or.id/lapor", "pmi")]


async def test_three_equal_posts_at_once_answer_alike_and_pass_once(client, db):
    batch = [cloudevent(number) for number in range(5)]
    answers = await asyncio.gather(*(publish(client, batch, **{"Idempotency-Key": "k-1"}) for _ in range(3)))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert answers[0].json()["accepted"] == 5
    assert len(await emitted(db, SubmissionAccepted)) == 5


async def test_the_same_batches_at_once_without_a_key_pass_each_event_once(client, db):
    batch = [cloudevent(number) for number in range(40)]
    answers = await asyncio.gather(*(publish(client, part) for part in (batch, batch[::-1], batch[10:], batch[:30])))
    assert [answer.status_code for answer in answers] == [207] * 4
    assert sum(answer.json()["accepted"] for answer in answers) == 40
    assert len(await emitted(db, SubmissionAccepted)) == 40


async def test_a_body_of_the_wrong_kind_is_refused_with_what_to_send(client):
    headers = PMI | {"Content-Type": "application/cloudevents+json"}
    answer = await client.post("/v1/partner/events", content=b"[]", headers=headers)
    assert answer.status_code == 422
    assert "cloudevents-batch" in answer.json()["detail"]
    assert (await client.post("/v1/partner/events", content=b"{", headers=headers)).status_code == 422
    many = b"[" + b"1," * 5000 + b"1]"
    batch = PMI | {"Content-Type": "application/cloudevents-batch+json"}
    assert (await client.post("/v1/partner/events", content=many, headers=batch)).status_code == 413


# Rules


def make_meta(**changes: Any) -> Meta:
    values = {"id": "1", "source": "/partners/pmi", "type": ReportSubmitted.type, "subject": "", "time": NOW}
    return Meta(**(values | {"sequence": 0} | changes))


@pytest.mark.parametrize(
    ("source", "pointer"),
    [("/gotong/x/intake", "/source"), ("/gotong", "/source"), ("gotong/", "/source"), ("/gotongroyong/x", None)],
)
def test_our_own_sources_are_nobody_elses(source, pointer):
    found = refusal(ReportSubmitted(text="x"), make_meta(source=source), NOW)
    assert (found[1] if found else None) == pointer


@pytest.mark.parametrize(
    ("observed_at", "refused"),
    [
        (NOW + timedelta(days=3), False),
        (NOW + timedelta(days=3650), False),
        (NOW + timedelta(days=3660), True),
        (datetime(1, 1, 1, tzinfo=UTC), True),
        (datetime(1907, 1, 4, tzinfo=UTC), False),
    ],
)
def test_a_clock_may_be_ahead_by_days_but_not_by_decades(observed_at, refused):
    found = refusal(ReportSubmitted(text="x", observed_at=observed_at), make_meta(), NOW)
    assert (found is not None) == refused


@pytest.mark.parametrize(
    ("reference", "somebody"),
    [
        ("0812-3456-7890", True),
        ("rt@example.org", True),
        ("3175034411900001", True),
        ("r-17", False),
        ("u:84a1", False),
    ],
)
def test_a_reference_is_opaque_or_it_is_none(reference, somebody):
    assert names_somebody(reference) == somebody


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"reporter_ref": "r", "place": "x"}, []),
        ({"reporter": None, "phone": ""}, []),
        ({"a": [{"e_mail": 1}, {"E-Mail": "x"}]}, [("a", 0, "e_mail"), ("a", 1, "E-Mail")]),
        ({"location": {"name": "Budi"}, "No HP": 1}, [("location", "name"), ("No HP",)]),
        ("phone", []),
    ],
)
def test_contact_data_is_found_by_its_field_wherever_it_stands(data, found):
    assert contact_fields(data) == found


@pytest.mark.parametrize(
    ("origin", "ours"),
    [
        ("/partners/pmi", True),
        ("/partners/pmi/bandung", True),
        ("/partners/pmi-palsu", False),
        ("/partners/other", False),
        ("https://x", True),
    ],
)
def test_an_organisation_speaks_under_its_own_origins(origin, ours):
    assert belongs(origin, "pmi", {"https://x"}) == ours


@given(st.text(min_size=1, max_size=10_000).filter(lambda text: bool(text.strip())))
def test_whatever_the_text_what_is_passed_on_is_a_report_that_an_event_can_carry(text):
    body = as_judged(ReportSubmitted(text=text, hazard="flood"))
    assert len(body["text"].encode()) <= 16 * 1024
    assert ReportSubmitted.model_validate(body).hazard == "flood"
