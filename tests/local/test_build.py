"""The files around the code agree with each other: locks, compose, the Makefile's promises."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gotong.local.broker import POM, kafka_version
from gotong.local.up import WORKERS

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-zA-Z0-9._-]+(?:\[[a-z,]+\])?==\S+)", re.MULTILINE)


def pins(name: str) -> set[str]:
    return set(PIN.findall((ROOT / "requirements" / name).read_text()))


@pytest.mark.parametrize("name", ["run.txt", "test.txt"])
def test_a_lock_has_a_hash_for_everything_and_names_no_host(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    blocks = [block for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE) if PIN.match(block)]
    assert len(blocks) > 50
    assert [block for block in blocks if "--hash=sha256:" not in block] == []
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text
    assert re.search(r"^setuptools==", text, re.MULTILINE), "the project is built without isolation"


def test_the_lock_of_the_tests_holds_all_that_runs() -> None:
    assert pins("run.txt") <= pins("test.txt")


def test_every_dependency_of_the_project_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    locked = {re.split(r"[\[=]", pin)[0].lower() for pin in pins("test.txt")}
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    names = {re.split(r"[\[<>=!;\s]", line)[0].lower() for line in wanted}
    assert names <= locked


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"])


def test_compose_runs_the_same_processes_as_gotong_up() -> None:
    services = compose()
    assert set(services) == {"postgres", "kafka", "prepare", "web", *WORKERS}
    for name in WORKERS:
        assert services[name]["command"] == ["python", "-m", f"services.{name}", "worker"]
    for name, service in services.items():
        assert "healthcheck" in service or name == "prepare"


def test_compose_runs_the_kafka_that_the_tests_run() -> None:
    assert compose()["kafka"]["image"] == f"apache/kafka:{kafka_version()}"


def test_every_version_in_the_pom_is_pinned() -> None:
    versions = re.findall(r"<(?:[a-z.]*version)>(.*?)</", POM.read_text())
    assert versions
    assert all(re.fullmatch(r"\d[\w.]*|\$\{[a-z0-9.]+\}", version) for version in versions)


def test_what_a_machine_lacks_is_named_in_one_sentence(tmp_path: Path) -> None:
    place = tmp_path / "clone"
    (place / "requirements").mkdir(parents=True)
    script = place / "requirements" / "install"
    script.write_bytes((ROOT / "requirements" / "install").read_bytes())
    script.chmod(0o755)
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "dirname").symlink_to("/usr/bin/dirname")

    def lines() -> list[str]:
        done = subprocess.run(
            ["/bin/sh", script, "run"], env={"PATH": str(bare)}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        return done.stderr.splitlines()

    assert lines() == ["gotong: Python 3.11 or newer is missing; install it, or name it: make PYTHON=/path/to/python3"]
    # A Python as Debian has it without python3-venv.
    (bare / "python3").write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n')
    (bare / "python3").chmod(0o755)
    assert lines() == [
        "gotong: the venv module of python3 is missing; install it (Debian and Ubuntu: apt-get install python3-venv)"
    ]
