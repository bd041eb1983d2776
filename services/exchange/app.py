"""The exchange put together."""

from __future__ import annotations

from fastapi import APIRouter

from services.exchange.handlers import consumer
from services.runtime.service import Service


def routes() -> APIRouter:
    from services.exchange.api import router

    return router


service = Service("exchange", routes=routes, consumer=consumer)
