"""A caller's fault, told as an RFC 9457 problem document that names the field and the reason."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.runtime.cloudevents import Malformed
from services.runtime.db import TRANSIENT, is_transient, to_json

log = logging.getLogger(__name__)
MEDIA_TYPE = "application/problem+json"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: `pointer` is a JSON pointer into the body, or `query/name`, `header/name`."""

    pointer: str
    detail: str


class DomainError(Exception):
    """A fault of the caller. Subclasses fix `code` and `status`."""

    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "The request was refused"

    def __init__(
        self, detail: str, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None, **extra: Any
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = faults
        self.headers = dict(headers or {})
        self.extra = extra


class Invalid(DomainError):
    """The payload is malformed; the faults name each field."""

    code, status, title = "invalid", 422, "The request has faults"


class NotFound(DomainError):
    """There is no such thing."""

    code, status, title = "not-found", 404, "Not found"


class NotKnownYet(NotFound):
    """There is no such thing here; if another service has just made it, it will be known in a moment."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Retry-After": "1"})


class Conflict(DomainError):
    """It cannot be done to the thing as it stands now."""

    code, status, title = "conflict", 409, "Not possible as things stand"


class Unauthenticated(DomainError):
    """Nobody knows who is asking."""

    code, status, title = "unauthenticated", 401, "A token is needed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"WWW-Authenticate": "Bearer"})


class Forbidden(DomainError):
    """Whoever asks may not do this."""

    code, status, title = "forbidden", 403, "Not allowed"


class TooLarge(DomainError):
    """The body is over the limit."""

    code, status, title = "too-large", 413, "The body is too large"


class TooMany(DomainError):
    """Over the rate at which requests are taken."""

    code, status, title = "too-many-requests", 429, "Too many requests"


class Unavailable(DomainError):
    """The database does not answer; nothing was stored."""

    code, status, title = "unavailable", 503, "Not available right now"

    def __init__(self, detail: str = "the database does not answer; nothing was stored, please send it again") -> None:
        super().__init__(detail, headers={"Retry-After": "2"})


class Problem(BaseModel):
    """The problem document, for the OpenAPI description."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[dict[str, str]] = []


def document(error: DomainError) -> dict[str, Any]:
    """The problem document of this error."""
    return {
        "type": f"urn:gotong:problem:{error.code}",
        "title": error.title,
        "status": error.status,
        "code": error.code,
        "detail": error.detail,
        "errors": [{"pointer": fault.pointer, "detail": fault.detail} for fault in error.faults],
        **error.extra,
    }


def answer(error: DomainError) -> Response:
    """The HTTP answer of this error."""
    return Response(to_json(document(error)), error.status, error.headers, MEDIA_TYPE)


def responses(*errors: type[DomainError]) -> dict[int | str, dict[str, Any]]:
    """What a route lists under `responses=`: these errors beside those that any route may answer with."""
    found: dict[int | str, dict[str, Any]] = {}
    common: tuple[type[DomainError], ...] = (Invalid, Unauthenticated, Forbidden, Unavailable)
    for error in (*common, *errors):
        entry = found.setdefault(error.status, {"description": error.title, "content": {MEDIA_TYPE: {"schema": _REF}}})
        if error.title not in entry["description"]:
            entry["description"] += f"; {error.title.lower()}"
    return found


_REF = {"$ref": "#/components/schemas/Problem"}


def faults_of(error: ValidationError | RequestValidationError) -> list[Fault]:
    """Every field that Pydantic found wrong, with the reason; values themselves are not repeated."""
    faults = []
    for item in error.errors():
        where = [str(part) for part in item["loc"]]
        if where and where[0] == "body":
            pointer = "/" + "/".join(where[1:]) if len(where) > 1 else ""
        elif where and where[0] in ("query", "header", "path", "cookie"):
            pointer = "/".join(where)
        else:
            pointer = "/" + "/".join(where) if where else ""
        faults.append(Fault(pointer, str(item["msg"])))
    return faults


def invalid(error: ValidationError | RequestValidationError) -> Invalid:
    """A validation error as a problem whose detail is the first fault in words."""
    faults = faults_of(error)
    first = faults[0]
    return Invalid(f"{first.pointer or 'body'}: {first.detail}", faults)


def install(app: FastAPI) -> None:
    """Turn every failure of this application into a problem document."""

    @app.exception_handler(DomainError)
    async def _domain(_: Request, error: DomainError) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def _request(_: Request, error: RequestValidationError) -> Response:
        return answer(invalid(error))

    @app.exception_handler(Malformed)
    async def _malformed(_: Request, error: Malformed) -> Response:
        return answer(Invalid(error.reason, [Fault(error.pointer or "", error.reason)]))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return answer(_plain("http", error.status_code, str(error.detail), str(error.detail), error.headers))

    @app.exception_handler(ClientDisconnect)
    async def _gone(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=400)  # nobody is there to read it

    async def other(request: Request, error: Exception) -> Response:
        if is_transient(error):
            log.warning("%s %s: the database does not answer: %r", request.method, request.url.path, error)
            return answer(Unavailable())
        log.error("%s %s failed", request.method, request.url.path, exc_info=error)

        return answer(_plain("internal", 500, "Our own fault", "this is our own fault and has been logged"))

    app.add_exception_handler(Exception, other)
    # By their own names as well: what only the handler of Exception takes is raised on to the server after it was
    # answered, which would log a hundred lines for each request while the database is away.
    for kind in (*TRANSIENT, DBAPIError):
        app.add_exception_handler(kind, other)


def _plain(code: str, status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> DomainError:
    """A problem that no class of ours stands for: what the framework answers by itself."""
    kind = type("Plain", (DomainError,), {"code": code, "status": status, "title": title})
    problem: DomainError = kind(detail, headers=headers)
    return problem
