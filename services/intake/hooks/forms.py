"""What a filled form says as a report. Forms are made by many hands, so questions are known by everyday names in
Indonesian and English, wherever in the form they stand; what no name is known for stays in the text, word for word."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from schemas import vocabulary
from schemas.partners import CONTACT_WORDS
from schemas.values import Media
from services.intake.actions import Draft, Sender, Taken, draft_of, take_reports
from services.intake.bodies import ReporterIn, ReportIn
from services.intake.hooks.messages import MOST_TEXT, point_of, text_of
from services.intake.media_writes import Wanted, want
from services.runtime import clock, vault
from services.runtime.db import Tx, to_json
from services.runtime.problems import Conflict, Fault, Invalid, faults_of


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer; `path` are the names of the groups around it, then its question's own. `repeated`: of one of several
    (children of a household, say)."""

    path: tuple[str, ...]
    value: str
    repeated: bool = False

    @property
    def key(self) -> str:
        return _plain(self.path[-1])


@dataclass(frozen=True, slots=True)
class Form:
    """A filled form. `instance_id` tells it from all others of its `provider`; `form_id` names the blank form.
    `files` are the names of its attachments with where each is to be had (None: it is sent here)."""

    provider: str
    instance_id: str
    form_id: str
    answers: tuple[Answer, ...]
    files: tuple[tuple[str, str | None], ...] = ()
    point: tuple[float, float] | None = None
    submitted_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Questions:
    """By which names questions are known: `field` and `place_rank` (0 is the smallest part of a place) by name."""

    field: Mapping[str, str]
    place_rank: Mapping[str, int]
    contact: frozenset[str]
    meta: frozenset[str]


@cache
def questions() -> Questions:
    """The names in `data/form_questions.yaml`."""
    text = (Path(__file__).parents[1] / "data" / "form_questions.yaml").read_text("utf-8")
    said = yaml.safe_load(text)
    return Questions(
        {name: field for field, names in said["fields"].items() for name in names},
        {name: rank for rank, names in enumerate(said["place"]) for name in names},
        CONTACT_WORDS | frozenset(said["contact"]),
        frozenset(said["meta"]),
    )


_PEOPLE = ("affected", "displaced", "injured", "dead", "missing")
_DAMAGE = ("houses_heavy", "houses_moderate", "houses_light", "houses_flooded")
_NOT_WORD = re.compile(r"[\W_]+")
_GEOPOINT = re.compile(r"(-?\d{1,3}(?:\.\d+)?) (-?\d{1,3}(?:\.\d+)?)(?: -?\d+(?:\.\d+)?(?: (\d+(?:\.\d+)?))?)?")
_FILE = re.compile(
    r"[^/\\\x00]{1,200}\.(?:jpe?g|png|webp|heic|gif|amr|m4a|mp3|aac|ogg|opus|wav|mp4|3gpp?|mov)", re.IGNORECASE
)
_FORM_ID = re.compile(r"[^A-Za-z0-9._-]+")


def _plain(name: str) -> str:
    return _NOT_WORD.sub("", name.casefold())


def is_file(value: str) -> bool:
    """Whether an answer is the name of an attached photograph or recording."""
    return _FILE.fullmatch(value) is not None


def report_of(form: Form, media: Sequence[Media]) -> ReportIn:
    """The report that a form is. Whoever reports is sealed; answers about other persons stay out of the text.

    Raises
    ------
    Invalid
        An answer is of no use and cannot be left out.
    """
    known = questions()
    found: dict[str, str] = {}
    rest: list[str] = []
    places: list[tuple[int, str]] = []
    contacts: list[str] = []
    point, accuracy_m = form.point, None
    files = {name for name, _ in form.files}
    for answer in form.answers:
        key, value = answer.key, text_of(answer.value)
        if not value or value in files or is_file(value) or key in known.meta or answer.path[-1].startswith("_"):
            continue
        match = _GEOPOINT.fullmatch(value)
        here = point_of(match[2], match[1]) if match else None  # ODK writes latitude first
        if match and here and ("." in match[1] or "." in match[2]):
            if point is None:
                point, accuracy_m = here, float(match[3]) if match[3] else None
        elif key in known.contact or "phone" in key or "telp" in key:
            if not answer.repeated:
                contacts.append(value)
        elif key in known.place_rank:
            places.append((known.place_rank[key], value))
        elif (field := known.field.get(key)) and field not in found and _fits(field, value):
            found[field] = value
        else:
            rest.append(f"{answer.path[-1].replace('_', ' ').strip()}: {value}")
    text = "\n".join([*([found["text"]] if "text" in found else []), *rest])[:MOST_TEXT]
    place = ", ".join(value for _, value in sorted(places, key=lambda one: one[0]))[:500]
    counted = {name: _count(found[name]) for name in (*_PEOPLE, *_DAMAGE) if name in found}
    fields: dict[str, Any] = {
        "title": found.get("title", "")[:300] or None,
        "text": text or (None if "title" in found or "hazard" in found or media else f"Formulir {form.form_id}"),
        "location": _location(point, accuracy_m, place, found.get("admin")),
        "hazard": vocabulary.hazard_of(found["hazard"]) if "hazard" in found else None,
        "severity": int(found["severity"]) if "severity" in found else None,
        "observed_at": found.get("observed_at") or form.submitted_at,
        "people": {name: counted[name] for name in _PEOPLE if name in counted} or None,
        "damage": {name: counted[name] for name in _DAMAGE if name in counted} or None,
        "reporter": _reporter(contacts),
        "media": tuple(media)[:20],
        "external_id": form.instance_id,
        "operation": found.get("operation"),
    }  # fmt: skip
    try:
        return ReportIn.model_validate(fields)
    except ValidationError as error:
        faults = faults_of(error)
        raise Invalid(f"{faults[0].pointer}: {faults[0].detail}", faults) from None


def _location(
    point: tuple[float, float] | None, accuracy_m: float | None, place: str, admin: str | None
) -> dict[str, Any] | None:
    lon, lat = point or (None, None)
    said = {"lon": lon, "lat": lat, "accuracy_m": accuracy_m, "place": place or None, "admin": admin}
    return said if point or place or admin else None


def _fits(field: str, value: str) -> bool:
    """Whether an answer is what its question's name promises; else it stays in the text."""
    if field in _PEOPLE or field in _DAMAGE:
        return _count(value) is not None
    if field == "severity":
        return value in ("1", "2", "3", "4")
    if field == "hazard":
        return vocabulary.hazard_of(value) is not None
    if field == "observed_at":
        return instant(value) is not None
    if field == "admin":
        return re.fullmatch(r"[a-z][a-z0-9-]{1,19}:[A-Za-z0-9.]{1,20}", value) is not None
    if field == "operation":
        return re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", value) is not None
    return True


def _count(value: str) -> int | None:
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None


def instant(value: object) -> datetime | None:
    """A time with its zone; None where it is none, or says no zone."""
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
        return at if at is not None and at.tzinfo and 1900 <= at.year < 9999 else None
    except (ValueError, OverflowError):
        return None


def _reporter(contacts: Sequence[str]) -> ReporterIn:
    phone = name = None
    for value in contacts:
        try:
            vault.normal_number(value)
            phone = phone or value[:50]
        except vault.NotANumber:
            name = name or value[:200]
    return ReporterIn(name=name, phone=phone, kind="volunteer")


def wanted_of(form: Form) -> list[Wanted]:
    """The form's attachments, each told apart by its name."""
    return [Wanted.of(form.provider, f"{form.instance_id}\x1f{name}", reference) for name, reference in form.files]


async def take_form(tx: Tx, form: Form, raw: bytes, base_url: str, operation: str | None) -> Taken:
    """Take a form once, by its instance id; one that is known changes nothing. `operation`: where it goes if it names
    none itself.

    Raises
    ------
    Conflict
        Its instance id was used by a form that says something else.
    """
    # Keyed: a form holds numbers, and a plain digest of one can be tried out.
    digest = hmac.new(vault.contact_key(), raw, hashlib.sha256).digest()
    wanted = wanted_of(form)
    draft = _draft(form, [one.media(base_url) for one in wanted], operation)
    owner = f"report:{draft.report_id}"
    mine = await tx.fetchval(
        "INSERT INTO hook_message (provider, provider_id, digest, report_id, received_at) VALUES ($1, $2, $3, $4, $5) "
        "ON CONFLICT DO NOTHING RETURNING true",
        form.provider, form.instance_id, digest, draft.report_id, clock.now(),
    )  # fmt: skip
    if not mine:
        row = await tx.fetchrow(
            "SELECT digest, report_id FROM hook_message WHERE provider = $1 AND provider_id = $2",
            form.provider, form.instance_id,
        )  # fmt: skip
        assert row is not None
        if row["digest"] != digest:
            raise Conflict("this instance id was used by a form that says something else")
    else:
        sealed = await vault.seal(tx, owner, to_json([[list(a.path), a.value] for a in form.answers]).encode())
        await tx.execute(
            "UPDATE hook_message SET sealed = $3, sealed_for = $4 WHERE provider = $1 AND provider_id = $2",
            form.provider, form.instance_id, sealed, owner,
        )  # fmt: skip
        await want(tx, wanted, draft.report_id)
    return (await take_reports(tx, [draft]))[0]


def _draft(form: Form, media: Sequence[Media], operation: str | None) -> Draft:
    report = report_of(form, media)
    if report.operation is None and operation is not None:
        report = report.model_copy(update={"operation": operation})
    origin = f"/{form.provider}/{_FORM_ID.sub('-', form.form_id)[:100] or 'form'}"
    # Whoever holds the secret was given it by the operations centre: as good as field staff, and one voice together.
    sender = Sender(origin, (), True, voice=f"org:/{form.provider}", foreign=True)
    return draft_of(report, sender, heard_at=form.submitted_at)


def missing(what: str, where: str) -> Invalid:
    return Invalid(f"the form has no {what}", [Fault(where, "needed")])
