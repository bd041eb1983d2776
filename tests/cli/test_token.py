"""A token from the command line is one that the services take."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gotong.__main__ import main
from services.runtime import auth, vault
from services.runtime.settings import Settings


def token(*words: str) -> Result:
    return CliRunner().invoke(main, ["token", *words], catch_exceptions=False)


def test_all_that_is_asked_for_stands_in_the_token() -> None:
    words = ("--role", "partner", "--org", "pmi", "--subject", "desk-1", "--operation", "a", "--operation", "b")
    actor = auth.actor_of(token(*words).stdout.strip(), Settings())
    assert (actor.role, actor.organisation, actor.subject, actor.operations) == ("partner", "pmi", "desk-1", ("a", "b"))


def test_the_key_in_the_data_folder_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secret: None) -> None:
    monkeypatch.delenv("GOTONG_SECRET_KEY")
    (tmp_path / "secret.key").write_text("a secret of another installation\n")
    signed = token("--role", "operator", "--data", str(tmp_path)).stdout.strip()
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    vault.forget_secret()
    assert auth.actor_of(signed, Settings()).role == "operator"


def test_without_a_key_it_says_where_one_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOTONG_SECRET_KEY")
    result = token("--role", "operator", "--data", str(tmp_path))
    assert result.exit_code == 1
    assert "gotong up" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("words", [(), ("--role", "public"), ("--role", "king"), ("--role", "admin", "--hours", "0")])
def test_wrong_usage_exits_2(words: tuple[str, ...]) -> None:
    assert token(*words).exit_code == 2


def test_a_link_carries_the_token_where_no_server_sees_it(tmp_path: Path) -> None:
    link = token("--role", "operator", "--link", "--data", str(tmp_path)).stdout.strip()
    address, _, fragment = link.partition("#")
    assert address == "http://127.0.0.1:8000/"
    assert auth.actor_of(fragment.removeprefix("token="), Settings()).role == "operator"
