"""Where the bytes of media are kept: a folder in which a file's name is the hash of what it holds.

Whoever keeps media elsewhere (an object store) gives `store()` another `Store`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from services.intake.settings import IntakeSettings
from services.runtime.settings import Settings


class Store(Protocol):
    """Sealed contents by the SHA-256 of what was sealed, in hexadecimal. Calls may block."""

    def put(self, sha256: str, sealed: bytes) -> None:
        """Keep a content whole or not at all, in place of an earlier one."""

    def get(self, sha256: str) -> bytes | None:
        """A content; None if it is not here."""

    def drop(self, sha256: str) -> None:
        """Take a content away, if it is here."""


class Folder:
    """A store in a folder of the file system, readable for this user alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, sha256: str, sealed: bytes) -> None:
        path = self._path(sha256)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Of several that write the same content at once the last one wins, with the same key.
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(sealed)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def get(self, sha256: str) -> bytes | None:
        try:
            return self._path(sha256).read_bytes()
        except FileNotFoundError:
            return None

    def drop(self, sha256: str) -> None:
        with suppress(FileNotFoundError):
            self._path(sha256).unlink()

    def _path(self, sha256: str) -> Path:
        return self._folder / sha256[:2] / sha256


def store() -> Store:
    """The store of this installation."""
    return Folder(IntakeSettings().media_folder or Settings.of("intake").data / "media")
