"""The ways out: one class for each provider. Each says whether it took a message, never will, cannot now, or nobody
knows; the difference decides whether somebody is written to twice."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import smtplib
import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Protocol
from uuid import UUID

import httpx
import orjson

from services.channels.settings import AdapterName, ChannelSettings
from services.runtime import clock
from services.runtime.settings import Settings

_NOT_TAKEN = frozenset({408, 425, 429, 503})
"""Answers that say that the request was not taken and may come again."""


class Refused(Exception):
    """The provider will not take this message, now or later."""


class NotNow(Exception):
    """It was surely not taken, and may be tried again. `after_s`: when the provider asks for it."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Unclear(Exception):
    """It may have been taken: the connection ended, or the provider failed, after the message had left."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One message as it leaves. `key`: the same at every try, for providers that know a repeat by it. `to` is not
    shown when this is printed. `first`: it is no answer to what they just wrote; `parts`: see `templates.parts`."""

    key: UUID
    channel: str
    to: str = field(repr=False)
    text: str = field(repr=False)
    contact: str
    template: str
    language: str
    first: bool = False
    parts: tuple[str, ...] = field(default=(), repr=False)


class Adapter(Protocol):
    """`send` returns the provider's own id of the message. Raises `Refused`, `NotNow` or `Unclear`, and nothing else
    that trying again may mend."""

    async def send(self, letter: Letter) -> str: ...


class Log:
    """Writes what would have been sent to `<data>/messages/<service>.jsonl`, readable by its owner alone, without the
    address: for trying it, for drills and for tests."""

    def __init__(self, service: str, settings: Settings) -> None:
        self.path = Path(settings.data) / "messages" / f"{service}.jsonl"

    async def send(self, letter: Letter) -> str:
        line = orjson.dumps(
            {
                "at": clock.now(), "key": str(letter.key), "contact": letter.contact, "channel": letter.channel,
                "template": letter.template, "text": letter.text,
            }
        )  # fmt: skip
        try:
            await asyncio.to_thread(self._append, line + b"\n")
        except OSError as error:
            raise NotNow(f"{self.path} cannot be written: {error.strerror}") from None
        return f"log-{letter.key}"

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, line)
        finally:
            os.close(handle)


async def _post(client: httpx.AsyncClient, url: str, **arguments: object) -> httpx.Response:
    """An answer that says that the message was taken.

    Errors name the kind of failure and never the address or the body.
    """
    try:
        answer = await client.post(url, **arguments)  # type: ignore[arg-type]  # httpx's own keyword arguments
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise NotNow(f"no connection: {type(error).__name__}") from None
    except httpx.HTTPError as error:
        raise Unclear(f"no answer: {type(error).__name__}") from None
    if answer.is_success:
        return answer
    if answer.status_code in _NOT_TAKEN:
        raise NotNow(f"status {answer.status_code}", _retry_after(answer))
    if answer.status_code >= 500:
        raise Unclear(f"status {answer.status_code}")
    raise Refused(f"status {answer.status_code}{_code_of(answer)}")


def _retry_after(answer: httpx.Response) -> float | None:
    said = answer.headers.get("retry-after", "")
    return float(said) if said.isdigit() else None


def _code_of(answer: httpx.Response) -> str:
    """The provider's own number of the error (Twilio's `code`, the Cloud API's `error.code`); its words may quote the
    address."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    code = body.get("code") if isinstance(body, dict) else None
    if code is None and isinstance(body, dict) and isinstance(body.get("error"), dict):
        code = body["error"].get("code")
    return f", code {code}" if isinstance(code, int) else ""


def _id_in(answer: httpx.Response, *path: str | int) -> str:
    """The provider's id of the message in its answer. A message that was taken under no id we can read was taken."""
    try:
        found = answer.json()
        for step in path:
            found = found[step]
    except (ValueError, KeyError, IndexError, TypeError):
        return ""
    return str(found)


class Twilio:
    """SMS, and WhatsApp by Twilio. Its Messages resource knows no idempotency key: ours comes back with each receipt,
    in the address that they are sent to."""

    def __init__(self, client: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._client = client
        self._settings = settings

    async def send(self, letter: Letter) -> str:
        s = self._settings
        prefix = "whatsapp:" if letter.channel == "whatsapp" else ""
        form = {"To": prefix + letter.to, "Body": letter.text}
        if s.twilio_from.startswith("MG"):
            form["MessagingServiceSid"] = s.twilio_from
        else:
            form["From"] = prefix + s.twilio_from
        if s.public_url:
            form["StatusCallback"] = f"{s.public_url.rstrip('/')}/v1/hooks/twilio/status?message={letter.key}"
        answer = await _post(
            self._client,
            f"{s.twilio_url.rstrip('/')}/2010-04-01/Accounts/{s.twilio_account}/Messages.json",
            data=form,
            auth=(s.twilio_account, s.twilio_token.get_secret_value()),
        )
        return _id_in(answer, "sid")


class WhatsApp:
    """The Cloud API. Our key comes back in each status as `biz_opaque_callback_data`. Outside the 24 hours after the
    person's own last message it refuses free text (code 131047), so what we say first goes by a template that the
    provider has approved, where the settings name one: inside the 24 hours that is allowed as well."""

    def __init__(self, client: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._client = client
        self._settings = settings

    async def send(self, letter: Letter) -> str:
        s = self._settings
        said: dict[str, object] = {"type": "text", "text": {"preview_url": False, "body": letter.text}}
        named = s.whatsapp_templates.get(letter.template)
        if letter.first and named is not None:
            words = [{"type": "text", "text": part} for part in letter.parts]
            said = {
                "type": "template",
                "template": {
                    "name": named,
                    "language": {"code": letter.language},
                    "components": [{"type": "body", "parameters": words}],
                },
            }
        answer = await _post(
            self._client,
            f"{s.whatsapp_url.rstrip('/')}/{s.whatsapp_phone_id}/messages",
            json={
                "messaging_product": "whatsapp",
                "recipient_type": "individual",
                "to": letter.to.lstrip("+"),
                **said,
                "biz_opaque_callback_data": str(letter.key),
            },
            headers={"Authorization": f"Bearer {s.whatsapp_token.get_secret_value()}"},
        )
        return _id_in(answer, "messages", 0, "id")


class RapidPro:
    """RapidPro, TextIt: a broadcast to one address."""

    def __init__(self, client: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._client = client
        self._settings = settings

    async def send(self, letter: Letter) -> str:
        s = self._settings
        urn = f"whatsapp:{letter.to.lstrip('+')}" if letter.channel == "whatsapp" else f"tel:{letter.to}"
        answer = await _post(
            self._client,
            f"{s.rapidpro_url.rstrip('/')}/api/v2/broadcasts.json",
            json={"urns": [urn], "text": letter.text},
            headers={
                "Authorization": f"Token {s.rapidpro_token.get_secret_value()}",
                "Idempotency-Key": str(letter.key),
            },
        )
        return _id_in(answer, "uuid") or _id_in(answer, "id")


class Webhook:
    """A gateway of one's own: JSON, signed as `Gotong-Signature: sha256=<HMAC of the body>`, with `Idempotency-Key`."""

    def __init__(self, client: httpx.AsyncClient, settings: ChannelSettings) -> None:
        self._client = client
        self._settings = settings

    async def send(self, letter: Letter) -> str:
        s = self._settings
        body = orjson.dumps(
            {
                "key": str(letter.key), "channel": letter.channel, "to": letter.to, "text": letter.text,
                "template": letter.template, "language": letter.language,
            }
        )  # fmt: skip
        answer = await _post(
            self._client,
            s.webhook_url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "Idempotency-Key": str(letter.key),
                "Gotong-Signature": signature(s.webhook_secret.get_secret_value(), body),
            },
        )
        return _id_in(answer, "id")


def signature(secret: str, body: bytes) -> str:
    """What a webhook, and a receipt from its gateway, is signed with."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class Smtp:
    """Mail. Its Message-ID is made of our key, so that a mail server that has seen it can tell."""

    def __init__(self, settings: ChannelSettings) -> None:
        self._settings = settings

    async def send(self, letter: Letter) -> str:
        return await asyncio.to_thread(self._send, letter)

    def _send(self, letter: Letter) -> str:
        s = self._settings
        mail = EmailMessage()
        mail["From"] = s.smtp_from
        mail["To"] = letter.to
        mail["Subject"] = letter.text.splitlines()[0][:70]
        mail["Message-ID"] = f"<{letter.key}@{s.smtp_from.partition('@')[2] or 'gotong.invalid'}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(letter.text)
        handed_over = False
        try:
            with smtplib.SMTP(s.smtp_host, s.smtp_port, timeout=s.timeout_seconds) as server:
                if s.smtp_starttls:
                    server.starttls(context=ssl.create_default_context())
                if s.smtp_user:
                    server.login(s.smtp_user, s.smtp_password.get_secret_value())
                handed_over = True
                server.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            codes = sorted(code for code, _ in error.recipients.values())
            kind = Refused if all(code >= 500 for code in codes) else NotNow
            raise kind(f"recipient refused with {codes}") from None
        except smtplib.SMTPResponseException as error:
            kind = Refused if error.smtp_code >= 500 else NotNow
            raise kind(f"mail server said {error.smtp_code}") from None
        except (smtplib.SMTPException, OSError) as error:
            if handed_over:
                raise Unclear(f"mail server: {type(error).__name__}") from None
            raise NotNow(f"mail server: {type(error).__name__}") from None
        return str(mail["Message-ID"])


def adapter_for(name: AdapterName, service: str, client: httpx.AsyncClient, settings: ChannelSettings) -> Adapter:
    """The adapter of this name."""
    if name == "log":
        return Log(service, Settings.of(service))
    if name == "smtp":
        return Smtp(settings)
    if name == "twilio":
        return Twilio(client, settings)
    if name == "whatsapp":
        return WhatsApp(client, settings)
    if name == "rapidpro":
        return RapidPro(client, settings)
    return Webhook(client, settings)
