"""`python -m schemas`: write the contracts into `schemas/json/`."""

from schemas.documents import write_all

if __name__ == "__main__":
    print(f"{len(write_all())} files written")
