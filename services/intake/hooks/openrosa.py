"""OpenROSA form submissions, as ODK Collect and Kobo Collect send them.

A client asks by HEAD how much is taken, then posts the filled form as multipart with its attachments, in as many posts
as it needs, each with the form again. Source: OpenROSA, "Form Submission API" 1.0 and "Metadata Schema".
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from lxml import etree

from schemas.values import OperationId
from services.intake.cap import NotCap, tree_of
from services.intake.hooks.forms import Answer, Form, is_file, missing, take_form, wanted_of
from services.intake.hooks.messages import base_url
from services.intake.hooks.multipart import Part, parts
from services.intake.hooks.secrets import require_shared
from services.intake.media import Refused, clean
from services.intake.media_writes import keep, refuse, want
from services.intake.settings import IntakeSettings
from services.runtime.http import body_of, database
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, TooLarge, responses

router = APIRouter()

MOST_BYTES = 64 * 1024 * 1024
_TIMEOUT_S = 20
_FORM_PART = "xml_submission_file"
_SETTING = "GOTONG_INTAKE_OPENROSA_SECRET"
_XML = {"text/xml": {"schema": {"type": "string"}}}
_HEADERS: dict[str, Any] = {
    "X-OpenRosa-Version": {"schema": {"type": "string"}},
    "X-OpenRosa-Accept-Content-Length": {"schema": {"type": "integer"}},
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {_FORM_PART: {"type": "string", "format": "binary"}},
                    "required": [_FORM_PART],
                }
            }
        },
    }
}


def _headers() -> dict[str, str]:
    return {"X-OpenRosa-Version": "1.0", "X-OpenRosa-Accept-Content-Length": str(MOST_BYTES)}


@router.head(
    "/v1/hooks/openrosa/submission",
    status_code=204,
    responses={**responses(NotFound), 204: {"description": "how much is taken", "headers": _HEADERS}},
)
async def head_submission(request: Request) -> Response:
    """Tell a client who may submit, where, and how much at once."""
    require_shared(request, IntakeSettings().openrosa_secret, _SETTING)
    return Response(status_code=204, headers=_headers() | {"Location": str(request.url)})


@router.post(
    "/v1/hooks/openrosa/submission",
    status_code=201,
    responses={
        **responses(NotFound, TooLarge, Conflict),
        201: {"description": "taken, or known before", "content": _XML, "headers": _HEADERS},
    },
    openapi_extra=_BODY,
)
async def post_submission(request: Request, operation: OperationId | None = None) -> Response:
    """Take a filled form and its attachments, in one post or in several: one `instanceID` is one report. An attachment
    that is no photograph or recording is left out, and said so."""
    settings = IntakeSettings()
    require_shared(request, settings.openrosa_secret, _SETTING)
    posted = parts(await body_of(request, MOST_BYTES), request.headers.get("content-type", ""))
    written = next((part for part in posted if part.name == _FORM_PART), None)
    if written is None:
        raise missing(f"part {_FORM_PART}", f"/{_FORM_PART}")
    attached = [part for part in posted if part is not written and part.filename and part.content]
    form = read(written.content, [str(part.filename) for part in attached])
    contents = await asyncio.to_thread(_contents, attached, settings.media_mb * 1024 * 1024)
    async with asyncio.timeout(_TIMEOUT_S), database(request, "intake").tx() as tx:
        taken = await take_form(tx, form, written.content, base_url(request), operation)
        by_name = dict(zip([name for name, _ in form.files], wanted_of(form), strict=True))
        for name, content in contents.items():
            one = by_name[name]
            await want(tx, [one], taken.report_id)  # a later post may bring what the form itself does not name
            state = await tx.fetchval("SELECT state FROM media WHERE media_id = $1 FOR UPDATE", one.media_id)
            if state == "kept":
                continue
            if isinstance(content, Refused):
                await refuse(tx, one.media_id, str(content))
            else:
                await keep(tx, one.media_id, content)
    said = f"Laporan diterima. Tiket {taken.ticket}. / Report received. Ticket {taken.ticket}."
    said += "".join(f" {name}: {content}." for name, content in contents.items() if isinstance(content, Refused))
    return Response(_answer(said), 201, _headers(), media_type="text/xml; charset=utf-8")


def _contents(attached: list[Part], limit: int) -> dict[str, Any]:
    """What is kept of each attachment, by its name, or why nothing is."""
    found: dict[str, Any] = {}
    for part in attached:
        try:
            if len(part.content) > limit:
                raise Refused(f"the file has more than {limit} bytes")
            found[str(part.filename)] = clean(part.content)
        except Refused as fault:
            found[str(part.filename)] = fault
    return found


def _answer(said: str) -> bytes:
    root = etree.Element("OpenRosaResponse", nsmap={None: "http://openrosa.org/http/response"})
    message = etree.SubElement(root, "message", nature="submit_success")
    message.text = "".join(letter for letter in said if letter >= " ")
    return bytes(etree.tostring(root, xml_declaration=True, encoding="UTF-8"))


def read(raw: bytes, attached: list[str]) -> Form:
    """The filled form; `attached`: the names of files that came with it, whether or not the form says so.

    Raises
    ------
    Invalid
        It is no XML, is hostile, or has no instance id.
    """
    root = _tree(raw)
    answers = tuple(_answers(root, ()))
    instance_id = next((a.value.strip() for a in answers if a.path[-1] == "instanceID" and a.value.strip()), None)
    if instance_id is None:
        instance_id = (root.get("instanceID") or "").strip()
    if not instance_id or len(instance_id) > 200:
        raise missing("meta/instanceID of 1 to 200 characters", "/meta/instanceID")
    named = [a.value.strip() for a in answers if is_file(a.value.strip())]
    files = tuple((name, None) for name in dict.fromkeys([*named, *attached]))
    form_id = root.get("id") or etree.QName(root).namespace or etree.QName(root).localname
    return Form("openrosa", instance_id, form_id, answers, files)


def _answers(node: etree._Element, path: tuple[str, ...]) -> list[Answer]:
    found: list[Answer] = []
    for child in node:
        if not isinstance(child.tag, str):
            continue
        here = (*path, etree.QName(child).localname)
        if len(child):
            found += _answers(child, here)
        elif child.text and child.text.strip():
            # Which groups repeat is said by the blank form alone; a reporter's own answers do not stand so deep.
            found.append(Answer(here, child.text.strip(), repeated=len(here) > 2))
    return found


def _tree(raw: bytes) -> etree._Element:
    """The form as a tree, read as carefully as a warning is.

    Raises
    ------
    Invalid
        It is not XML with names that are bound, has a document type, or is too long, too deep or too full.
    """
    try:
        return tree_of(raw)
    except NotCap as fault:
        raise Invalid(f"the form cannot be read: {fault.reason}", [Fault(f"/{_FORM_PART}", fault.reason)]) from None
