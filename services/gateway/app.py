"""The composition root: every service's routes in one application; beside them health, the contracts and the pages."""

from __future__ import annotations

from fastapi import FastAPI

from services.exchange.app import service as exchange
from services.gateway import login, pages
from services.gateway.api import router
from services.intake.app import service as intake
from services.matching.app import service as matching
from services.registry.app import service as registry
from services.runtime.service import Service, build_app
from services.runtime.settings import Settings
from services.sitrep.app import service as sitrep

SERVICES: tuple[Service, ...] = (intake, registry, matching, sitrep, exchange)
"""Routes are tried in this order: reports come first, for in a disaster they are nearly all that comes."""


def make_app(settings: Settings) -> FastAPI:
    """The whole HTTP interface in one application."""
    app = build_app(SERVICES, settings)
    app.state.consumers = tuple(service.consumer for service in SERVICES if service.consumer is not None)
    app.include_router(router)
    app.include_router(pages.router)
    app.include_router(login.router)
    return app
