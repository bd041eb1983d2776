"""`python -m services.intake [api|worker]`."""

from services.intake.app import service
from services.runtime.service import main

if __name__ == "__main__":
    main(service)
