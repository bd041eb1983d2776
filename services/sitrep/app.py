"""The sitrep service put together."""

from services.runtime.service import Service
from services.sitrep import checkpoints, publish
from services.sitrep.api import router
from services.sitrep.handlers import consumer

service = Service("sitrep", router=router, consumer=consumer, loops=[publish.run, checkpoints.run])
