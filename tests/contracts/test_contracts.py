"""A contract, once released, stays: old events stay readable, and the schemas only ever grow."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from schemas.documents import SCHEMA_FOLDER, asyncapi, breaking_changes, json_schema
from schemas.event import event_types
from schemas.topics import TOPICS, read_by

HERE = Path(__file__).parent
RELEASED = HERE / "released"
GOLDEN = HERE / "golden"
TYPES = sorted(event_types())
EITHER = ({"item", "skill"}, {"responder_id", "lot_id"})
"""Of these an event names one, so no golden file can fill both."""


@pytest.mark.parametrize("event_type", TYPES)
def test_golden_file_reads_and_writes_back_the_same(event_type):
    path = GOLDEN / f"{event_type}.json"
    assert path.exists(), f"{event_type} has no golden file; write one by hand with every field filled"
    text = json.loads(path.read_text("utf-8"))
    model = event_types()[event_type]
    event = model.model_validate_json(path.read_bytes())
    assert json.loads(event.to_bytes()) == text
    unfilled = set(model.model_fields) - set(text)
    for pair in EITHER:
        if pair <= set(model.model_fields):
            assert len(pair & set(text)) == 1, f"the golden file names not exactly one of {pair}"
            unfilled -= pair
    assert not unfilled, f"the golden file leaves out {unfilled}"


@pytest.mark.parametrize("event_type", [name for name in TYPES if name.startswith("gotong.need.")])
@pytest.mark.parametrize("words", [{}, {"item": "boat", "skill": "medic"}], ids=["neither", "both"])
def test_a_need_is_of_exactly_one_item_or_skill(event_type, words):
    text = json.loads((GOLDEN / f"{event_type}.json").read_text("utf-8"))
    del text["item"]
    with pytest.raises(ValidationError, match="exactly one of item and skill"):
        event_types()[event_type].model_validate(text | words)
    event_types()[event_type].model_validate(text | {"skill": "medic"})


@pytest.mark.parametrize("event_type", TYPES)
def test_unknown_fields_are_ignored_when_read(event_type):
    text = json.loads((GOLDEN / f"{event_type}.json").read_text("utf-8"))
    model = event_types()[event_type]
    assert model.model_validate(text | {"added_next_year": 1}) == model.model_validate(text)


@pytest.mark.parametrize("event_type", TYPES)
def test_committed_schema_is_what_the_model_says(event_type):
    committed = json.loads((SCHEMA_FOLDER / f"{event_type}.json").read_text("utf-8"))
    assert committed == json.loads(json.dumps(json_schema(event_types()[event_type]))), "run `make contracts`"


def test_committed_asyncapi_is_what_the_models_say():
    committed = json.loads((SCHEMA_FOLDER / "asyncapi.json").read_text("utf-8"))
    assert committed == json.loads(json.dumps(asyncapi())), "run `make contracts`"


@pytest.mark.parametrize("path", sorted(RELEASED.glob("*.json")), ids=lambda path: path.stem)
def test_nothing_that_was_released_is_broken(path):
    model = event_types().get(path.stem)
    assert model is not None, f"{path.stem} was released and is gone"
    assert breaking_changes(json.loads(path.read_text("utf-8")), json_schema(model)) == []


def test_every_event_type_was_released():
    assert {path.stem for path in RELEASED.glob("*.json")} == set(TYPES)


def planted(change) -> list[str]:
    old = json_schema(event_types()["gotong.need.declared.v1"])
    new = copy.deepcopy(old)
    change(new)
    return breaking_changes(old, new)


def rename_quantity(schema):
    schema["properties"]["amount"] = schema["properties"].pop("quantity")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda s: s["properties"].pop("severity"), "/severity was removed"),
        (rename_quantity, "/quantity was removed"),
        (lambda s: s["properties"]["unit"].update(type="integer"), "/unit changed its type"),
        (lambda s: s["properties"]["quantity"].update(maximum=10), "/quantity narrowed maximum"),
        (lambda s: s["properties"]["status"].update(enum=["draft"]), "/status no longer allows"),
        (lambda s: s["required"].append("place"), "/place became required"),
        (lambda s: s["$defs"]["Point"]["properties"].pop("lat"), "/lat was removed"),
    ],
)
def test_a_planted_breaking_change_is_refused(change, named):
    found = planted(change)
    assert any(named in line for line in found), found


def test_a_new_optional_field_is_no_breaking_change():
    assert planted(lambda s: s["properties"].update(shade={"type": "string"})) == []


def test_every_event_has_a_topic_and_its_key_and_subject_are_fields():
    for event_type, model in event_types().items():
        assert model.topic in TOPICS, event_type
        assert model.key in model.model_fields, event_type
        assert model.subject in model.model_fields, event_type


def test_the_topics_are_those_of_the_design():
    assert len(TOPICS) == 20  # the design's 19, and `erasures`
    assert all(
        topic.partitions == (1 if topic.stream in ("quarantine", "sitreps", "operations") else 12)
        for topic in TOPICS.values()
    )
    assert TOPICS["gotong.partners.inbound.v1"].retention_ms == 24 * 3_600_000
    assert {topic.stream for topic in read_by("exchange")} == {"partners.inbound"}
