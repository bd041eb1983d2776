"""The codec: CloudEvents 1.0 in binary and structured mode, and nothing but `Malformed` whatever the bytes."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Meta
from schemas.reports import ReportReceived
from services.runtime.cloudevents import MAX_VALUE_BYTES, Envelope, Malformed, decode, headers, read
from tests.conftest import shared_file

META = Meta(
    id="0198", source="/gotong/x/intake", type="gotong.report.received.v1", subject="s",
    time=datetime(2026, 11, 24, 2, 10, 0, 123456, tzinfo=UTC), sequence=7, operation="banjir", exercise=True,
    traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01",
)  # fmt: skip


def binary(**changes: bytes | None) -> list[tuple[str, bytes]]:
    found = dict(headers(META, "k")) | {name.replace("_", "ce_", 1): value for name, value in changes.items()}
    return [(name, value) for name, value in found.items() if value is not None]


def test_what_is_written_is_read_back():
    envelope = decode(b'{"a": 1}', headers(META, "k"), topic="t", partition=3, offset=9, key=b"k")
    assert envelope == Envelope(META, b'{"a": 1}', "t", 3, 9, "k")


def test_binary_and_structured_mode_say_the_same():
    envelope = decode(b'{"a": 1}', headers(META, "k"), key=b"k")
    again = decode(
        json.dumps(envelope.structured()).encode(), [("content-type", b"application/cloudevents+json")], key=b"k"
    )
    assert again.meta == envelope.meta
    assert json.loads(again.data) == json.loads(envelope.data)


@pytest.mark.parametrize("case", ["binary", "structured"])
def test_the_cases_of_the_conformance_suite(case):
    cases = json.loads(shared_file("cloudevents/kafka_binding_cases.json").read_text())
    for entry in (entry for entry in cases if entry["case"] == case):
        raw = [(name, value.encode()) for name, value in entry["headers"].items()]
        envelope = decode(entry["value"].encode(), raw)
        found = envelope.structured()
        expected = entry["expected_attributes"]
        assert datetime.fromisoformat(found.pop("time")) == datetime.fromisoformat(expected.pop("time"))
        assert {name: found[name] for name in expected} == expected
        assert found["data"] == entry["expected_data"]


@pytest.mark.parametrize(
    ("value", "raw", "pointer"),
    [
        (None, binary(), None),
        (b"x" * (MAX_VALUE_BYTES + 1), binary(), None),
        (b"{}", binary(_id=None), "/id"),
        (b"{}", binary(_type=None), "/type"),
        (b"{}", binary(_source=b""), "/source"),
        (b"{}", binary(_specversion=b"0.3"), "/specversion"),
        (b"{}", binary(_time=b"yesterday"), "/time"),
        (b"{}", binary(_time=b"2026-11-24T00:00:00"), "/time"),
        (b"{}", binary(_sequence=b"-1"), "/sequence"),
        (b"{}", binary(_sequence="٣".encode()), "/sequence"),
        (b"{}", binary(_id=b"\xff\xfe"), "/headers/ce_id"),
        (b"{}", binary(_id=b"a\x00b"), ""),
        (b"{}", [("content-type", b"application/cloudevents-batch+json")], "/headers/content-type"),
        (b"{}", [*binary(), ("content-type", b"text/plain")], "/headers/content-type"),
        (b"[]", [("content-type", b"application/cloudevents+json")], ""),
        (b"{", [("content-type", b"application/cloudevents+json")], ""),
        (b"[" * 100 + b"]" * 100, [("content-type", b"application/cloudevents+json")], ""),
        (b'{"specversion": "1.0", "id": ["a"]}', [("content-type", b"application/cloudevents+json")], "/id"),
    ],
)
def test_what_is_no_event_is_refused_with_its_place(value, raw, pointer):
    with pytest.raises(Malformed) as refused:
        decode(value, raw)
    assert refused.value.pointer == pointer


def test_a_broken_contract_names_the_field():
    envelope = decode(b'{"report_id": "x", "observed_at": "2026-11-24T00:00:00Z", "origin": "/t"}', binary())
    with pytest.raises(Malformed) as refused:
        read(envelope, ReportReceived)
    assert refused.value.pointer == "/data/report_id"


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 300 + b"1" + b"}" * 300, b"\xff", b"", b"nul"])
def test_hostile_data_is_refused_and_nothing_else_happens(data):
    with pytest.raises(Malformed):
        read(decode(data, binary()), ReportReceived)


@given(
    value=st.one_of(st.none(), st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
    raw=st.lists(
        st.tuples(
            st.sampled_from(["ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion", "content-type", "x"]),
            st.one_of(st.none(), st.binary(max_size=40), st.sampled_from([b"1.0", b"application/cloudevents+json"])),
        ),
        max_size=8,
    ),
    key=st.one_of(st.none(), st.binary(max_size=10)),
)
def test_any_bytes_are_read_or_refused(value, raw, key):
    try:
        envelope = decode(value, raw, key=key, received_at=META.time)
        read(envelope, ReportReceived)
    except Malformed as refused:
        assert refused.reason
