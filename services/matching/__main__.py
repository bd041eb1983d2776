"""`python -m services.matching [api|worker]`."""

from services.matching.app import service
from services.runtime.service import main

if __name__ == "__main__":
    main(service)
