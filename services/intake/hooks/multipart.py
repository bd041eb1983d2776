"""`multipart/form-data` (RFC 7578) as form clients send it: parts with a name, and files with a name of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from services.runtime.problems import Fault, Invalid

MOST_PARTS = 100
_BOUNDARY = re.compile(r'boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)\*?=(?:"((?:[^"\\]|\\.)*)"|([^\s;]+))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Part:
    name: str
    filename: str | None
    content: bytes


def parts(body: bytes, content_type: str) -> list[Part]:
    """The parts of a body, in order.

    Raises
    ------
    Invalid
        It is not of this form, or has too many parts.
    """
    match = _BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or match is None:
        raise _fault("expected multipart/form-data with a boundary")
    mark = re.escape(b"--" + (match[1] or match[2]).encode("latin-1", "replace"))
    # Between two marks, each alone on its line, stands a part.
    pieces = re.split(rb"\r\n" + mark + rb"(?=[ \t]*\r\n|--)", b"\r\n" + body)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise _fault("the last boundary is missing: the body was cut off")
    if len(pieces) - 2 > MOST_PARTS:
        raise _fault(f"at most {MOST_PARTS} parts are taken at once")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, separator, content = piece.partition(b"\r\n\r\n")
    if not separator:
        raise _fault("a part has no head")
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, _, value = line.partition(":")
        if name.strip().lower() == "content-disposition":
            found = {
                m[1].lower(): m[3] if m[2] is None else re.sub(r"\\(.)", r"\1", m[2])
                for m in _PARAMETER.finditer(value)
            }
            return Part(found.get("name", ""), found.get("filename"), content)
    raise _fault("a part has no Content-Disposition")


def _unquoted(match: re.Match[str]) -> str:
    return match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])


def _fault(reason: str) -> Invalid:
    return Invalid(reason, [Fault("", reason)])
