"""The registry put together."""

from __future__ import annotations

from services.registry.api import router
from services.registry.confirming import renew_windows
from services.registry.operation_writes import keep_standing_open
from services.runtime.service import Service

service = Service("registry", router=router, loops=[keep_standing_open, renew_windows])
