"""Intake put together."""

from services.intake import linker
from services.intake.api import router
from services.intake.handlers import consumer
from services.runtime.service import Service

service = Service("intake", router=router, consumer=consumer, loops=[linker.run])
