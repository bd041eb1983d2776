"""Kobo's REST service: KoboToolbox posts each new submission as JSON, and tries again after 60, 600 and 6,000 s.

Keys are questions with their groups before them (`lokasi/desa`), repeats are arrays, `_geolocation` is `[lat, lon]`.
Source: KoboToolbox, "REST Services". Edits are not sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from schemas.values import OperationId
from services.intake.hooks.forms import Answer, Form, instant, missing, take_form
from services.intake.hooks.messages import base_url, point_of
from services.intake.hooks.secrets import require_shared
from services.intake.settings import IntakeSettings
from services.runtime import clock
from services.runtime.db import to_json
from services.runtime.http import WRITE_TIMEOUT_S, body_of, database, json_answer, parse_any
from services.runtime.problems import Conflict, Fault, Invalid, NotFound, TooLarge, responses

router = APIRouter()

_DEEPEST = 8
_MOST_ANSWERS = 5000
_MOST_FILES = 20
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "object", "description": "a submission of KoboToolbox"}}},
    }
}
_TAKEN: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "taken, or known before",
        "content": {
            "application/json": {"schema": {"type": "object", "properties": {"report_id": {"type": "string"}}}}
        },
    }
}


@router.post(
    "/v1/hooks/kobo",
    status_code=201,
    responses={**responses(NotFound, TooLarge, Conflict), **_TAKEN},
    openapi_extra=_BODY,
)
async def post_kobo(request: Request, operation: OperationId | None = None) -> Response:
    """Take a submission from KoboToolbox's REST service, which shows the shared secret. One that is known by its
    instance id changes nothing."""
    require_shared(request, IntakeSettings().kobo_secret, "GOTONG_INTAKE_KOBO_SECRET")
    raw = await body_of(request)
    body = parse_any(raw)
    if not isinstance(body, dict):
        raise Invalid("the body is no JSON object", [Fault("", "expected a JSON object")])
    form = read(body)
    async with asyncio.timeout(WRITE_TIMEOUT_S), database(request, "intake").tx() as tx:
        taken = await take_form(tx, form, raw, base_url(request), operation)
    return json_answer(201, to_json(taken.answer()).encode())


def read(body: dict[str, Any]) -> Form:
    """The filled form in a submission.

    Raises
    ------
    Invalid
        It has no instance id, or far too many answers.
    """
    instance_id = next(
        (str(body[name]) for name in ("meta/instanceID", "_uuid", "_id") if isinstance(body.get(name), str | int)), ""
    )
    if not 0 < len(instance_id) <= 200:
        raise missing("meta/instanceID of 1 to 200 characters", "/meta~1instanceID")
    answers = tuple(_answers(body, (), 0))
    if len(answers) > _MOST_ANSWERS:
        raise Invalid("the form has too many answers", [Fault("", f"at most {_MOST_ANSWERS}")])
    attachments = body.get("_attachments")
    files: dict[str, str | None] = {}
    for one in attachments[:_MOST_FILES] if isinstance(attachments, list) else []:
        url, name = (one.get("download_url"), one.get("filename")) if isinstance(one, dict) else (None, None)
        if isinstance(url, str) and isinstance(name, str) and url.startswith(("https://", "http://")):
            files[name.rsplit("/", 1)[-1][:200]] = url[:2000]
    located = body.get("_geolocation")
    point = point_of(located[1], located[0]) if isinstance(located, list) and len(located) == 2 else None
    submitted = body.get("_submission_time")
    if isinstance(submitted, str) and instant(submitted) is None:
        submitted += "Z"  # Kobo writes UTC without saying so
    at = instant(submitted)
    return Form(
        "kobo",
        instance_id,
        str(body.get("_xform_id_string") or "form"),
        answers,
        tuple(files.items()),
        point,
        min(at, clock.now()) if at else None,
    )


def _answers(value: Any, path: tuple[str, ...], depth: int, repeated: bool = False) -> list[Answer]:
    """Every answer, from however deep; Kobo's own fields, which begin with `_`, are none."""
    if depth > _DEEPEST:
        return []
    if isinstance(value, dict):
        found: list[Answer] = []
        for name, inner in value.items():
            steps = tuple(step for step in name.split("/") if step)
            if depth == 0 and (name.startswith("_") or name in ("formhub/uuid", "__version__")):
                continue
            found += _answers(inner, steps[-_DEEPEST:] or path, depth + 1, repeated)
        return found
    if isinstance(value, list):
        return [answer for inner in value for answer in _answers(inner, path, depth + 1, True)]
    if not path or value is None or value == "":
        return []
    return [Answer(path, value if isinstance(value, str) else str(value), repeated)]
