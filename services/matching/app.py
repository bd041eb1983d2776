"""Matching as a service: what is promised, by whom, and why."""

from services.matching import planner, timers
from services.matching.api import router
from services.matching.handlers import consumer
from services.runtime.service import Service

service = Service("matching", router=router, consumer=consumer, loops=[planner.run, timers.run])
