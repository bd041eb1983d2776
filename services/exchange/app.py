"""The exchange put together."""

from __future__ import annotations

from services.exchange.api import router
from services.exchange.handlers import consumer
from services.runtime.service import Service

service = Service("exchange", router=router, consumer=consumer)
