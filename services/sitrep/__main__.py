"""`python -m services.sitrep [api|worker]`."""

from services.runtime.service import main
from services.sitrep.app import service

if __name__ == "__main__":
    main(service)
