"""The registry on its own database and data folder, and matching as it is fed by it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from services.registry.app import service
from services.runtime.db import Database
from tests.registry.people import Matching, patient


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def client(make_client, data) -> httpx.AsyncClient:
    return patient(make_client([service]))


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


@pytest.fixture
def plan(make_db, db) -> Matching:
    return Matching(make_db("matching"), db)
