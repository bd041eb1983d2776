"""Intake put together."""

from fastapi import APIRouter

from services.intake import following, linker, media_fetch, triage_timer, warning_feeds, warning_timer
from services.intake.handlers import consumer
from services.runtime.erasures import keep_list
from services.runtime.service import Service


def routes() -> APIRouter:
    from services.intake.api import router

    return router


service = Service(
    "intake",
    routes=routes,
    consumer=consumer,
    loops=[
        linker.run,
        triage_timer.run,
        warning_timer.run,
        warning_feeds.run,
        media_fetch.run,
        following.run,
        following.follow,
        keep_list,
    ],
    gauges=triage_timer.gauges,
)
