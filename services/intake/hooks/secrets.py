"""Who may call a hook: whoever holds the secret that the settings share with it. Without one a hook is closed."""

from __future__ import annotations

import base64
import binascii
import hmac

from fastapi import Request
from pydantic import SecretStr

from services.runtime.problems import Forbidden, NotFound, Unauthenticated

HEADER = "gotong-secret"


def opened(secret: SecretStr, setting: str) -> str:
    """The secret of a hook.

    Raises
    ------
    NotFound
        None is set, so the hook is closed to everybody.
    """
    value = secret.get_secret_value()
    if not value:
        raise NotFound(f"this hook is closed until {setting} is set")
    return value


def require_shared(request: Request, secret: SecretStr, setting: str) -> None:
    """Admit a sender that shows the shared secret: as the password of HTTP Basic (whatever the user), as a token
    (`Authorization: Token …` or `Bearer …`), or in the header `Gotong-Secret`.

    Raises
    ------
    NotFound, Unauthenticated, Forbidden
        The hook is closed; nothing was shown; something else was.
    """
    wanted = opened(secret, setting)
    shown = _shown(request)
    if shown is None:
        raise _Challenge("this hook needs its secret: as a Basic password, a token, or the header Gotong-Secret")
    if not same(shown, wanted):
        raise Forbidden("the secret is not the one that this hook knows")


def same(shown: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing."""
    return hmac.compare_digest(shown.encode("utf-8", "surrogatepass"), wanted.encode("utf-8", "surrogatepass"))


class _Challenge(Unauthenticated):
    """Asks for HTTP Basic: ODK Collect shows its credentials only when asked."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.headers = {"WWW-Authenticate": 'Basic realm="gotong", charset="UTF-8"'}


def _shown(request: Request) -> str | None:
    header = request.headers.get(HEADER)
    if header is not None:
        return header.strip()
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("token", "bearer"):
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return None
