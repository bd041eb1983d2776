"""Settings, read from the environment. `GOTONG_DATABASE` serves every service, `GOTONG_INTAKE_DATABASE` one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

SERVICES = ("registry", "intake", "matching", "sitrep", "exchange")
"""The services that own tables, in the order in which they are migrated and started."""


class SettingsMissing(Exception):
    """A setting that cannot be guessed is not there; the text says which and what to do."""


class Settings(BaseSettings):
    """What a process needs to know of its surroundings. Never holds a default that would be wrong in production."""

    model_config = SettingsConfigDict(env_prefix="GOTONG_", extra="ignore", env_ignore_empty=True)

    service: str = "runtime"
    database: SecretStr = SecretStr("")
    kafka: str = ""
    kafka_security: Literal["plaintext", "ssl", "sasl_ssl"] = "plaintext"
    kafka_user: str = ""
    kafka_password: SecretStr = SecretStr("")
    kafka_ca: Path | None = None
    kafka_embedded: bool = False
    """The broker is the embedded one: no idempotent producer, no admin calls that it lacks."""
    data: Path = Path(".gotong")
    port: int = 8000
    host: str = "127.0.0.1"
    secret_key: SecretStr = SecretStr("")
    oidc_issuer: str = ""
    oidc_audience: str = ""
    log: Literal["text", "json"] = "text"
    otlp: str = ""
    clock: str = ""
    """Tests and drills only: an instant from which time runs, or `+seconds` to add to the real one."""
    pool_size: int = Field(default=8, ge=1)
    batch_records: int = Field(default=500, ge=1)

    @classmethod
    def of(cls, service: str) -> Settings:
        """Settings of one service: `GOTONG_<SERVICE>_<NAME>` goes before `GOTONG_<NAME>`."""
        prefix = f"GOTONG_{service.upper()}_"
        own = {
            key[len(prefix) :].lower(): value
            for key, value in os.environ.items()
            if key.startswith(prefix) and key[len(prefix) :].lower() in cls.model_fields and value
        }
        return cls(service=service, **own)  # type: ignore[arg-type]  # strings, as pydantic-settings takes them

    def dsn(self) -> str:
        """The database's address as asyncpg takes it.

        Raises
        ------
        SettingsMissing
            GOTONG_DATABASE is not set.
        """
        value = self.database.get_secret_value()
        if not value:
            raise SettingsMissing("GOTONG_DATABASE is not set; give postgresql://user:password@host:port/name")
        return value.replace("postgresql+asyncpg://", "postgresql://", 1)

    def secret(self) -> bytes:
        """The installation's secret: GOTONG_SECRET_KEY, else the file that `gotong up` made.

        Raises
        ------
        SettingsMissing
            Neither is there.
        """
        value = self.secret_key.get_secret_value()
        if value:
            return value.encode()
        path = self.data / "secret.key"
        try:
            return path.read_bytes().strip()
        except OSError as error:
            raise SettingsMissing(f"set GOTONG_SECRET_KEY, or let `gotong up` make {path}: {error.strerror}") from error
