"""The registry put together."""

from __future__ import annotations

from fastapi import APIRouter

from services.registry.confirming import renew_windows
from services.registry.handlers import consumer
from services.registry.notices import run as send_notices
from services.registry.operation_writes import keep_standing_open
from services.runtime.erasures import keep_list
from services.runtime.service import Service


def routes() -> APIRouter:
    from services.registry.api import router

    return router


service = Service(
    "registry", routes=routes, consumer=consumer, loops=[keep_standing_open, renew_windows, keep_list, send_notices]
)
