"""`python -m services.registry [api|worker]`."""

from __future__ import annotations

from services.registry.app import service
from services.runtime.service import main

if __name__ == "__main__":
    main(service)
