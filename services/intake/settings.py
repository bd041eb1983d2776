"""What an installation may decide about intake; read from `GOTONG_INTAKE_<NAME>`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cryptography import x509
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.intake.cap_signature import certificates


class IntakeSettings(BaseSettings):
    """`feeds`: addresses of CAP messages or of RSS or Atom feeds of them, with blanks between. `feed_hosts`: further
    hosts from which the messages of these feeds may be fetched. `cap_certificates`: a PEM file of certificates that
    are trusted when they sign a warning, or issued whoever did.

    `emergency_file`: whom to call by area, in place of `data/emergency.yaml`.

    Hooks: one without its secret is closed; Twilio's is the auth token that `GOTONG_CHANNELS_TWILIO_TOKEN` names.
    `whatsapp_app_secret` signs what Meta sends, `whatsapp_verify_token` is asked for once. `rapidpro_secret`,
    `openrosa_secret`, `kobo_secret`: shared with the sender. `kobo_token` reads attachments.

    Media: `media_folder` is shared by all web processes and workers; without it, `media` in the data folder.
    `media_mb`: the largest photograph or recording. `media_hosts`: further hosts from which media may be fetched, with
    blanks between.
    """

    model_config = SettingsConfigDict(env_prefix="GOTONG_INTAKE_", extra="ignore", env_ignore_empty=True)

    feeds: str = ""
    feed_hosts: str = ""
    feed_seconds: float = Field(default=60, ge=1)
    cap_certificates: Path | None = None
    emergency_file: Path | None = None
    whatsapp_app_secret: SecretStr = SecretStr("")
    whatsapp_verify_token: SecretStr = SecretStr("")
    rapidpro_secret: SecretStr = SecretStr("")
    openrosa_secret: SecretStr = SecretStr("")
    kobo_secret: SecretStr = SecretStr("")
    kobo_token: SecretStr = SecretStr("")
    media_folder: Path | None = None
    media_mb: int = Field(default=16, ge=1, le=64)
    media_hosts: str = ""

    def feed_urls(self) -> list[str]:
        return list(dict.fromkeys(self.feeds.split()))


def trusted_certificates() -> list[x509.Certificate]:
    """The certificates that this installation trusts for warnings.

    Raises
    ------
    ValueError
        The file that the settings name cannot be read.
    """
    path = IntakeSettings().cap_certificates
    return _read(path) if path is not None else []


@cache
def _read(path: Path) -> list[x509.Certificate]:
    try:
        return certificates(path.read_bytes())
    except OSError as error:
        raise ValueError(f"GOTONG_INTAKE_CAP_CERTIFICATES names {path}, which cannot be read: {error}") from None
