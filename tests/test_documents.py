"""The documents stay true to the code: what a partner copies out of the readme keeps the contract."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas import vocabulary
from schemas.partners import ReportSubmitted
from schemas.topics import TOPICS
from services.runtime import clock, cloudevents

ROOT = Path(__file__).parents[1]
READMES = ["README.md", "README.id.md"]
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "schemas").rglob("*.md"))
)


def snippet(readme: str, name: str) -> str:
    text = (ROOT / readme).read_text(encoding="utf-8")
    (found,) = re.findall(rf"<!-- snippet: {name} -->\n```python\n(.*?)```", text, re.DOTALL)
    return str(found)


def constants(source: str) -> dict[str, Any]:
    """The literal values that a snippet assigns at its top; a call within them (a random id) counts as a text."""
    names: dict[str, Any] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _CallsAsText().visit(node.value)
            names[node.targets[0].id] = ast.literal_eval(value)
    return names


class _CallsAsText(ast.NodeTransformer):
    def visit_Call(self, node: ast.Call) -> ast.Constant:
        return ast.Constant(ast.unparse(node))


@pytest.mark.parametrize("readme", READMES)
def test_the_report_that_the_readme_sends_keeps_the_contract(readme: str) -> None:
    names = constants(snippet(readme, "send"))
    assert snippet(readme, "send").count(f'"{ReportSubmitted.topic}"') == 1
    envelope = cloudevents.decode(
        json.dumps(names["report"]).encode(),
        [(name, value.encode()) for name, value in names["headers"].items()],
        received_at=clock.now(),
    )
    assert envelope.meta.type == ReportSubmitted.type
    assert set(names["report"]) <= set(ReportSubmitted.model_fields)
    report = cloudevents.read(envelope, ReportSubmitted)
    assert report.hazard in vocabulary.known_hazards()
    assert {need.item for need in report.needs} <= set(vocabulary.known_items())


@pytest.mark.parametrize("readme", READMES)
def test_the_readme_reads_only_topics_that_are_open(readme: str) -> None:
    topics = re.findall(r'"(gotong\.[a-z.]+\.v1)"', snippet(readme, "read"))
    assert len(topics) == 2
    assert {TOPICS[topic].cls for topic in topics} == {"open"}


@pytest.mark.parametrize("readme", READMES)
def test_every_topic_in_the_readme_exists(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    named = set(re.findall(r"gotong\.[a-z.]+\.v\d", text)) - {ReportSubmitted.type}
    assert named and named <= set(TOPICS)


def test_both_readmes_send_and_read_by_the_same_code() -> None:
    def code(readme: str, name: str) -> str:
        """Without comments, and without texts, which are translated."""
        tree = ast.parse(snippet(readme, name))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value = ""
        return ast.unparse(tree)

    for name in ("read", "send"):
        assert code("README.md", name) == code("README.id.md", name)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), f"{document} links to {target}"


def test_every_decision_is_in_the_list() -> None:
    listed = (ROOT / "docs/adr/README.md").read_text(encoding="utf-8")
    decisions = [path.name for path in (ROOT / "docs/adr").glob("[0-9]*.md")]
    assert decisions and [name for name in decisions if f"({name})" not in listed] == []
