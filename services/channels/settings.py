"""How people are reached from this installation; read from `GOTONG_CHANNELS_<NAME>`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

AdapterName = Literal["log", "twilio", "whatsapp", "rapidpro", "smtp", "webhook"]


class ChannelSettings(BaseSettings):
    """`sms`, `whatsapp`, `email`, `webhook`: which adapter carries that channel; `log` writes to a file under `--data`.

    `public_url`: where providers reach us, for their delivery receipts; without it none are asked for.
    `quiet_from`, `quiet_until`: hours of the night in which only what is urgent goes out; the same hour twice: none.
    `day_cap`: notices to one person in a day; `urgent_day_cap`: those about life at risk, counted apart.
    `timeout_seconds`: how long a provider may take for each step of a call. `lease_seconds`: after so long an attempt
    of which nothing was heard is taken for crashed; a call is ended when two thirds of it are over.
    """

    model_config = SettingsConfigDict(env_prefix="GOTONG_CHANNELS_", extra="ignore", env_ignore_empty=True)

    sms: AdapterName = "log"
    whatsapp: AdapterName = "log"
    email: AdapterName = "log"
    webhook: AdapterName = "log"
    public_url: str = ""

    quiet_from: int = Field(default=21, ge=0, le=23)
    quiet_until: int = Field(default=5, ge=0, le=23)
    zone: str = "Asia/Jakarta"
    """Whose night it is where a message names no zone."""
    day_cap: int = Field(default=8, ge=1)
    urgent_day_cap: int = Field(default=16, ge=1)
    tries: int = Field(default=8, ge=1)
    timeout_seconds: float = Field(default=20, gt=0)
    lease_seconds: float = Field(default=60, gt=0)

    twilio_url: str = "https://api.twilio.com"
    twilio_account: str = ""
    twilio_token: SecretStr = SecretStr("")
    twilio_from: str = ""
    """A number, or the SID of a messaging service (`MG...`)."""
    whatsapp_url: str = "https://graph.facebook.com/v21.0"
    whatsapp_phone_id: str = ""
    whatsapp_token: SecretStr = SecretStr("")
    whatsapp_templates: dict[str, str] = Field(default_factory=dict)
    """Which approved template carries what we say first, by the name of ours, as JSON: `{"offer": "gotong_offer"}`. Its
    {{1}} is the mark (LATIHAN; `Gotong.` where there is none), the others the values in the order of our text."""
    rapidpro_url: str = ""
    rapidpro_token: SecretStr = SecretStr("")
    smtp_host: str = ""
    smtp_port: int = 587
    smtp_starttls: bool = True
    smtp_user: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_from: str = ""
    webhook_url: str = ""
    webhook_secret: SecretStr = SecretStr("")
