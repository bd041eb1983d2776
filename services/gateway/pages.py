"""The pages for people: the board, the field page, the public page, the paper forms. Built from web/ by `make web`."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.runtime.problems import NotFound

STATIC = Path(__file__).parent / "static"
"""Where `make web` puts what it builds; not in git, but in the wheel and in the image."""

_ROOT_FILES = ("icon.svg", "field-sw.js", "field.webmanifest")
_MAX_AGE_S = 365 * 24 * 3600
_TEXT = ("text/", "application/json", "application/manifest+json", "image/svg+xml")


class PageSettings(BaseSettings):
    """What the pages are told of their surroundings. Nothing here is secret: every browser gets it."""

    model_config = SettingsConfigDict(env_prefix="GOTONG_", extra="ignore", env_ignore_empty=True)

    tiles: str = ""
    """Address of a tile server, `https://host/{z}/{x}/{y}.png`. Empty: the offline base map alone."""
    tiles_attribution: str = ""
    emergency: str = "112,115,119"
    """Emergency numbers in the order in which they are shown, each `NUMBER` or `NUMBER=NAME`, parted by commas."""

    def numbers(self) -> list[dict[str, str | None]]:
        """Each number with its name; None: a number that the pages know by themselves."""
        found = (part.strip().partition("=") for part in self.emergency.split(",") if part.strip())
        return [{"number": number.strip(), "name": name.strip() or None} for number, _, name in found]


def page_settings() -> PageSettings:
    return PageSettings()


@dataclass(frozen=True, slots=True)
class _File:
    """One built file as it is sent."""

    content: bytes
    zipped: bytes | None
    media_type: str
    etag: str


class _Built:
    """The files of one build, read once; looked for again when the pages were built anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._of: int | None = None
        self._files: dict[str, _File] = {}
        self._reading = threading.Lock()

    def get(self, name: str) -> _File | None:
        try:
            built = (self.folder / "index.html").stat().st_mtime_ns
        except OSError:
            return None
        with self._reading:
            if built != self._of:
                self._files, self._of = {}, built
            found = self._files.get(name)
            if found is None:
                found = self._read(name)
                if found is not None:
                    self._files[name] = found
        return found

    def _read(self, name: str) -> _File | None:
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.is_file():
            return None
        content = path.read_bytes()
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix == ".js":
            media_type = "text/javascript"  # whatever the machine's own table says
        elif path.suffix == ".webmanifest":
            media_type = "application/manifest+json"
        zipped = gzip.compress(content, 9, mtime=0) if media_type.startswith(_TEXT) else None
        return _File(content, zipped, media_type, hashlib.sha256(content).hexdigest()[:20])


def policy(tiles: str = "") -> str:
    """The Content-Security-Policy of every page: our own files only, nothing inline, no other site but the tile server
    that the settings name. (An identity provider is asked by our server, see `login`.)"""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            f"img-src 'self' data: blob: {_origin(tiles) if tiles else ''}".rstrip(),
            "connect-src 'self'",
            "font-src 'self'",
            "worker-src 'self'",
            "manifest-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        )
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".replace("{s}", "*")


router = APIRouter()
_built = _Built(STATIC)


@router.get("/v1/page-settings", tags=["pages"], summary="What the pages are told of their surroundings")
def get_page_settings(request: Request) -> Response:
    """Tile server and emergency numbers. Nothing of it is secret."""
    settings = page_settings()
    content = orjson.dumps(
        {
            "tiles": {"url": settings.tiles, "attribution": settings.tiles_attribution} if settings.tiles else None,
            "emergency": settings.numbers(),
        }
    )
    return _answer(request, _File(content, None, "application/json", hashlib.sha256(content).hexdigest()[:20]), False)


@router.get("/", include_in_schema=False)
def board(request: Request) -> Response:
    """The operations board."""
    return _page(request, "index.html")


@router.get("/field", include_in_schema=False)
def field_page(request: Request) -> Response:
    """The field page: reports, own tickets, a volunteer's offers."""
    return _page(request, "field.html")


@router.get("/public", include_in_schema=False)
def public_page(request: Request) -> Response:
    """What everybody may see."""
    return _page(request, "public.html")


@router.get("/paper", include_in_schema=False)
def paper(request: Request) -> Response:
    """Forms to print."""
    return _page(request, "paper.html")


@router.get("/login", include_in_schema=False)
def login_page(request: Request) -> Response:
    """Where one logs in, and where an OpenID provider sends the browser back to."""
    return _page(request, "login.html")


@router.get("/assets/{name}", include_in_schema=False)
def asset(request: Request, name: str) -> Response:
    """A built file; its name holds a hash of its content, so it is kept for ever."""
    found = _built.get(f"assets/{name}")
    if found is None:
        raise NotFound(f"there is no file {name}; load the page again")
    return _answer(request, found, True)


def _root_file(request: Request) -> Response:
    found = _built.get(request.url.path.lstrip("/"))
    if found is None:
        raise NotFound("there is no such file; the pages are built by: make web")
    return _answer(request, found, False)


for _name in _ROOT_FILES:
    router.add_api_route(f"/{_name}", _root_file, include_in_schema=False)


def _page(request: Request, name: str) -> Response:
    found = _built.get(name)
    if found is None:
        return HTMLResponse(_UNBUILT, 200, headers=_headers() | {"Cache-Control": "no-store"})
    return _answer(request, found, False)


_UNBUILT = (
    "<!doctype html><html lang=id><meta charset=utf-8><meta name=viewport content='width=device-width'>"
    "<title>Gotong</title><h1>Gotong</h1>"
    "<p>Halaman ini belum dibangun: jalankan <code>make web</code> (perlu Node.js 20.19 atau lebih baru), lalu muat "
    "ulang; semua yang lain berjalan."
    "<p lang=en>The pages are not built yet: run <code>make web</code> (it needs Node.js 20.19 or newer) and load "
    "again; everything else works.<ul>"
    "<li><a href=/v1/sitreps?format=html&amp;lang=id>Laporan situasi</a> · "
    "<a href=/v1/sitreps?format=html&amp;lang=en lang=en>Situation report</a></li>"
    "<li><a href=/v1/health>/v1/health</a></li><li><a href=/docs>/docs (OpenAPI)</a></li>"
    "<li><a href=/asyncapi.json>/asyncapi.json</a></li></ul></html>"
)


def _answer(request: Request, file: _File, kept: bool) -> Response:
    headers = _headers()
    headers["ETag"] = f'"{file.etag}"'
    headers["Cache-Control"] = f"public, max-age={_MAX_AGE_S}, immutable" if kept else "no-cache"
    headers["Vary"] = "Accept-Encoding"
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if file.zipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.zipped, headers=headers, media_type=file.media_type)
    return Response(file.content, headers=headers, media_type=file.media_type)


def _headers() -> dict[str, str]:
    return {
        "Content-Security-Policy": policy(page_settings().tiles),
        "X-Content-Type-Options": "nosniff",
        # Addresses hold tokens and tickets behind the `#` only, but the path of a page is nobody's business either.
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "geolocation=(self), camera=(self), microphone=()",
        "Cross-Origin-Opener-Policy": "same-origin",
    }
