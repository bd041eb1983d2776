"""Intake on its own database, as nearly every test here asks for it; a file that needs another client makes its own."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest

from services.intake.app import service
from services.runtime.db import Database


@pytest.fixture
def db(make_db: Callable[[str], Database]) -> Database:
    return make_db("intake")


@pytest.fixture
def client(make_client: Callable[..., httpx.AsyncClient], db: Database) -> httpx.AsyncClient:
    return make_client([service])
