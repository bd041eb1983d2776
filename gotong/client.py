"""How the commands reach an installation: where it answers, with which token, what its faults mean, its database."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

import click
import httpx

from gotong.local.folders import data_folder
from gotong.local.state import database, running
from services.runtime import auth, vault
from services.runtime.settings import Settings, SettingsMissing

F = TypeVar("F", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    envvar="GOTONG_DATA",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The installation's folder, which holds its key. Default: as for gotong up.",
)

TOKEN_HOURS = 1.0
_RENEWED_AFTER_S = 1200


class CommandFailed(click.ClickException):
    """What was asked did not work; the message is one plain sentence that says what to do. Exit code 1."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(self.format_message(), file=file, err=file is None)


@dataclass(frozen=True, slots=True)
class Target:
    """Which installation a command speaks to. `data`: its folder, when it is on this machine."""

    url: str
    token: str | None
    data: Path

    @property
    def loopback(self) -> bool:
        host = urlsplit(self.url).hostname or ""
        return host == "localhost" or auth.is_loopback(host)


def target_options(command: F) -> F:
    """Gives a command the options --url, --token and --data, and hands it a `Target` as `target`."""

    @functools.wraps(command)
    def wrapped(*args: Any, url: str | None, token: str | None, data: Path | None, **kwargs: Any) -> Any:
        return command(*args, target=target_of(url, token, data), **kwargs)

    for option in (
        data_option,
        click.option(
            "--token",
            envvar="GOTONG_TOKEN",
            show_envvar=True,
            help="Default on loopback: one signed with the key in --data.",
        ),
        click.option("--url", help="Where Gotong answers. Default: what runs on --data, else http://127.0.0.1:8000."),
    ):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[return-value]


def target_of(url: str | None, token: str | None, data: Path | None) -> Target:
    """The installation that these options name, else the one whose folder is here.

    Raises
    ------
    click.UsageError
        The URL is none.
    """
    folder = data_folder(data)
    state = running(folder) if url is None else None
    chosen = (url or (state.url if state else f"http://127.0.0.1:{Settings().port}")).rstrip("/")
    parts = urlsplit(chosen)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.UsageError(f"{chosen} is no address; give one such as http://127.0.0.1:8000 with --url.")
    return Target(chosen, token, folder)


@contextmanager
def own_database(data: Path) -> Iterator[str]:
    """The DSN of an installation's database, for what must work while its services are down.

    Raises
    ------
    CommandFailed
        No database was named, and there is none in this folder.
    """
    named = os.environ.get("GOTONG_DATABASE") or "embedded"
    if named == "embedded" and running(data) is None and not (data / "postgres").is_dir():
        raise CommandFailed(f"There is no database in {data}; give the right --data, or set GOTONG_DATABASE.")
    with database(data) as dsn:
        yield dsn.replace("postgresql+asyncpg://", "postgresql://", 1)


def sign_locally(
    data: Path,
    role: auth.Role,
    subject: str,
    *,
    organisation: str | None = None,
    operations: tuple[str, ...] = (),
    hours: float = TOKEN_HOURS,
) -> str:
    """A token signed with the key of the installation in this folder.

    Raises
    ------
    SettingsMissing
        There is no key.
    """
    key = vault.token_key(Settings(data=data).secret())
    return auth.sign(role, subject, organisation=organisation, operations=operations, hours=hours, key=key)


class _LocalToken(httpx.Auth):
    """Signs a short token by itself and a fresh one in good time, so that a command may run for days."""

    def __init__(self, data: Path, role: auth.Role) -> None:
        self.data = data
        self.role = role
        self._token: str | None = None
        self._signed_at = 0.0

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if self._token is None or time.monotonic() - self._signed_at > _RENEWED_AFTER_S:
            self._token = sign_locally(self.data, self.role, "command-line")
            self._signed_at = time.monotonic()
        request.headers["Authorization"] = f"Bearer {self._token}"
        yield request


def connect(target: Target, role: auth.Role = "operator", *, timeout_s: float = 30) -> httpx.Client:
    """An HTTP client of this installation. With no token given, one of `role` is signed where that is possible;
    elsewhere it speaks as the public does."""
    authorisation: httpx.Auth | None = None
    headers = {"User-Agent": "gotong"}
    if target.token:
        headers["Authorization"] = f"Bearer {target.token}"
    elif target.loopback and _has_key(target.data):
        authorisation = _LocalToken(target.data, role)
    # Proxies of the environment are for the world outside; on loopback they would only lead astray.
    return httpx.Client(
        base_url=target.url, headers=headers, auth=authorisation, timeout=timeout_s, trust_env=not target.loopback
    )


def _has_key(data: Path) -> bool:
    try:
        Settings(data=data).secret()
    except SettingsMissing:
        return False
    return True


def ask(http: httpx.Client, method: str, path: str, **arguments: Any) -> httpx.Response:
    """One request that must succeed.

    Raises
    ------
    CommandFailed
        Nothing answers, or the answer is no.
    """
    try:
        answer = http.request(method, path, **arguments)
    except httpx.TransportError as error:
        raise CommandFailed(unreachable(http, error)) from None
    if not answer.is_success:
        raise CommandFailed(refusal(answer))
    return answer


def unreachable(http: httpx.Client, error: httpx.TransportError) -> str:
    """One sentence for a server that does not answer."""
    where = str(http.base_url).rstrip("/")
    if isinstance(error, httpx.TimeoutException):
        return f"{where} does not answer in time; look at `gotong status`, then try again."
    return f"Nothing answers at {where}; start it with `gotong up`, or name another with --url."


def refusal(answer: httpx.Response) -> str:
    """One sentence for an answer that says no, with the reason that the server gives and what helps."""
    detail = problem(answer)
    if answer.status_code in (401, 403):
        return f"The server refused ({answer.status_code}): {detail}; give another --token, or its folder with --data."
    if answer.status_code == 503:
        return f"The server cannot do it right now: {detail}; try again in a moment."
    return f"{answer.request.method} {answer.request.url.path} was refused ({answer.status_code}): {detail}."


def problem(answer: httpx.Response) -> str:
    """What a problem document says, in words, without a full stop; the bare text of anything else."""
    try:
        document = answer.json()
    except (ValueError, httpx.ResponseNotRead):
        document = None
    if isinstance(document, dict):
        found = document.get("detail") or document.get("title")
        if found:
            return str(found).rstrip(". ")
    return (answer.text.strip()[:200] or answer.reason_phrase).rstrip(". ")


def retry_after_s(answer: httpx.Response) -> float | None:
    """The seconds that the server asks to wait; None when it does not, or says it as a date."""
    value = answer.headers.get("Retry-After", "").strip()
    return min(float(value), 120.0) if value.isdecimal() else None
