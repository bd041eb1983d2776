"""Matching as a service: what is promised, by whom, and why."""

import asyncio

from fastapi import APIRouter

from services.matching import timers
from services.matching.handlers import consumer
from services.runtime.db import Database
from services.runtime.service import Service


async def plan(db: Database, stopping: asyncio.Event) -> None:
    """The planner, loaded by the worker that runs it: OR-Tools and SciPy are a second and 100 MB that the web process,
    which mounts the same service, need not spend."""
    from services.matching import planner

    await planner.run(db, stopping)


def routes() -> APIRouter:
    from services.matching import api, api_zones

    router = APIRouter()
    router.include_router(api.router)
    router.include_router(api_zones.router)
    return router


service = Service("matching", routes=routes, consumer=consumer, loops=[plan, timers.run])
