"""`python -m services.exchange [api|worker]`."""

from __future__ import annotations

from services.exchange.app import service
from services.runtime.service import main

if __name__ == "__main__":
    main(service)
