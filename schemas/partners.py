"""What partners send, and what the exchange made of it."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from schemas.event import Event
from schemas.values import (
    Code,
    Damage,
    Location,
    Media,
    OperationId,
    PeopleCount,
    Severity,
    StatedNeed,
)

CONTACT_WORDS = frozenset(
    {"reporter", "contact", "contacts", "kontak", "name", "fullname", "firstname", "lastname", "nama", "namalengkap"}
    | {"phone", "phonenumber", "mobile", "mobilephone", "msisdn", "telephone", "telepon", "telp", "hp", "nohp"}
    | {"email", "emailaddress", "mail", "whatsapp", "wa", "nowa", "sms", "telegram", "nik", "ktp", "noktp"}
)
"""Field names under which systems keep whoever reported; compared in lower case, without `_`, `-`, `.` and spaces."""
_NOT_LETTERS = str.maketrans("", "", "_-. ")
_DEEPEST = 32


def contact_fields(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where in this JSON a field holds contact data, by its name; one that is null or empty holds none."""
    if len(path) > _DEEPEST:
        return []
    found: list[tuple[str | int, ...]] = []
    if isinstance(data, dict):
        for name, value in data.items():
            if str(name).lower().translate(_NOT_LETTERS) in CONTACT_WORDS and value not in (None, "", [], {}):
                found.append((*path, name))
            else:
                found += contact_fields(value, (*path, name))
    elif isinstance(data, list):
        for index, value in enumerate(data):
            found += contact_fields(value, (*path, index))
    return found


class ReportSubmitted(Event):
    """A partner's report: the report of the HTTP interface, with an opaque `reporter_ref` in place of the reporter.

    Producer: partners; the CloudEvents `source` is the partner's own URI. Contact data is refused.
    """

    type: ClassVar = "gotong.report.submitted.v1"
    topic: ClassVar = "gotong.partners.inbound.v1"
    key: ClassVar = "external_id"
    subject: ClassVar = "external_id"

    operation: OperationId | None = None
    title: Annotated[str, StringConstraints(max_length=300)] | None = None
    text: Annotated[str, StringConstraints(max_length=10_000)] | None = None
    location: Location | None = None
    hazard: Code | None = None
    severity: Severity | None = None
    observed_at: AwareDatetime | None = None
    people: PeopleCount | None = None
    damage: Damage | None = None
    needs: Annotated[tuple[StatedNeed, ...], Field(max_length=50)] = ()
    media: Annotated[tuple[Media, ...], Field(max_length=20)] = ()
    external_id: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    external_url: Annotated[str, StringConstraints(max_length=2000, pattern=r"^https?://")] | None = None
    reporter_ref: Annotated[str, StringConstraints(max_length=200)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _names_nobody(cls, data: Any) -> Any:
        """Refuse contact data wherever it stands: an unknown field would be ignored, and the partner never told."""
        found = contact_fields(data)
        if found:
            reason = PydanticCustomError(
                "contact_data", "contact data is not taken; send an opaque reporter_ref instead"
            )
            faults = [InitErrorDetails(type=reason, loc=path, input=None) for path in found[:20]]
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return data

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not ((self.text or "").strip() or (self.title or "").strip() or self.hazard or self.media):
            raise ValueError("a report needs a text or title, a hazard, or media")
        return self


class SubmissionAccepted(Event):
    """The exchange let a partner's message pass. `body` is as judged, `origin` and `origin_id` are the partner's.

    `known`: the partner proved who it is, by token or by a topic of its own; else it ranks as anonymous.
    Producer: exchange.
    """

    type: ClassVar = "gotong.submission.accepted.v1"
    topic: ClassVar = "gotong.submissions.v1"
    key: ClassVar = "origin"
    subject: ClassVar = "submission_id"

    submission_id: UUID
    kind: Literal["report"]
    origin: str
    origin_id: str
    external_id: str | None = None
    organisation: str | None = None
    known: bool = False
    received_at: AwareDatetime
    body: dict[str, Any]
