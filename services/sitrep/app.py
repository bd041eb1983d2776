"""The sitrep service put together."""

from fastapi import APIRouter

from services.runtime.service import Service
from services.sitrep import checkpoints, publish, silence_timer
from services.sitrep.handlers import consumer


def routes() -> APIRouter:
    from services.sitrep.api import router

    return router


service = Service("sitrep", routes=routes, consumer=consumer, loops=[publish.run, checkpoints.run, silence_timer.run])
