"""Intake put together."""

from services.intake import following, linker, media_fetch, triage_timer, warning_feeds, warning_timer
from services.intake.api import router
from services.intake.handlers import consumer
from services.runtime.erasures import keep_list
from services.runtime.service import Service

service = Service(
    "intake",
    router=router,
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
