"""HTTP of conversations: what providers say of our messages, and the register of family links for operators."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints

from services.channels import rules
from services.channels.adapters import signature
from services.channels.outbound import Receipt
from services.channels.settings import ChannelSettings
from services.intake import erasure
from services.intake.bodies import Reason, Word
from services.intake.following import take_receipt
from services.intake.hooks.messages import address_of
from services.intake.hooks.secrets import opened, same
from services.intake.hooks.twilio import SIGNATURE, form_of, requested_address, signed
from services.runtime import clock, vault
from services.runtime.auth import Caller
from services.runtime.http import (
    Answer,
    body_of,
    cursor_of,
    database,
    from_cursor,
    idempotency_key,
    json_answer,
    next_link,
    parse,
    write_once,
)
from services.runtime.openapi import takes
from services.runtime.problems import Conflict, Forbidden, NotFound, TooLarge, responses

router = APIRouter()

_TWILIO: dict[str, rules.Said] = {
    "sent": "sent", "delivered": "delivered", "read": "delivered", "undelivered": "failed", "failed": "failed",
}  # fmt: skip


# Receipts


@router.post(
    "/v1/hooks/twilio/status",
    status_code=204,
    tags=["hooks"],
    responses=responses(NotFound, TooLarge),
    response_class=Response,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/x-www-form-urlencoded": {
                    "schema": {
                        "type": "object",
                        "properties": {
                            name: {"type": "string"} for name in ("MessageSid", "MessageStatus", "To", "ErrorCode")
                        },
                    }
                }
            },
        }
    },
)
async def post_twilio_status(
    request: Request, message: Annotated[str | None, Query(max_length=100)] = None
) -> Response:
    """Take Twilio's word on one of our messages; `message` is the key that it was sent with. Repeats, late ones and
    those of messages that nobody knows change nothing."""
    token = opened(ChannelSettings().twilio_token, "GOTONG_CHANNELS_TWILIO_TOKEN")
    form = form_of(await body_of(request))
    if not signed(token, requested_address(request), form, request.headers.get(SIGNATURE, "")):
        raise Forbidden("the signature in X-Twilio-Signature is not this account's")
    fields = {name: value.replace("\x00", "") for name, value in form}
    said = _TWILIO.get(fields.get("MessageStatus", ""))
    if said is not None:
        receipt = Receipt(said, _key(message), fields.get("MessageSid", "")[:100], fields.get("ErrorCode", "")[:20])
        contact = vault.contact_id(address_of(fields.get("To", "").removeprefix("whatsapp:")))
        async with database(request, "intake").tx() as tx:
            await take_receipt(tx, contact, receipt)
    return Response(status_code=204)


class ReceiptIn(BaseModel):
    """What a gateway of one's own says of a message: `key` as it was given with it, `to` as well."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: UUID
    to: Annotated[str, StringConstraints(max_length=320)]
    said: rules.Said
    reason: Annotated[str, StringConstraints(max_length=100)] | None = None


@router.post(
    "/v1/hooks/receipts",
    status_code=204,
    tags=["hooks"],
    responses=responses(NotFound, TooLarge),
    response_class=Response,
    openapi_extra=takes(ReceiptIn),
)
async def post_receipt(request: Request) -> Response:
    """Take the word of a gateway of one's own on one of our messages, signed as the messages to it are."""
    secret = opened(ChannelSettings().webhook_secret, "GOTONG_CHANNELS_WEBHOOK_SECRET")
    body = await body_of(request)
    if not same(request.headers.get("gotong-signature", ""), signature(secret, body)):
        raise Forbidden("the signature in Gotong-Signature is not this gateway's")
    said = parse(body, ReceiptIn)
    async with database(request, "intake").tx() as tx:
        await take_receipt(tx, vault.contact_id(address_of(said.to)), Receipt(said.said, said.key, None, said.reason))
    return Response(status_code=204)


def _key(text: str | None) -> UUID | None:
    try:
        return UUID(text or "")
    except ValueError:
        return None


# Family links


class FamilyLinkChange(BaseModel):
    """`outcome`: what became of it, in a word or two; no names."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
    reason: Reason


Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/v1/family-links", tags=["intake"], responses=responses())
async def list_family_links(
    request: Request, actor: Caller, open: bool | None = None, limit: Limit = 100, cursor: Word | None = None
) -> Response:
    """The register of people who ask for missing relatives, oldest first, without their words."""
    actor.require("operator")
    after = from_cursor(cursor, 1)
    async with database(request, "intake").tx() as tx:
        rows = await tx.fetch(
            """
            SELECT * FROM family_link WHERE ($1::boolean IS NULL OR (closed_at IS NULL) = $1)
              AND ($2::uuid IS NULL
                   OR (made_at, link_id) > (SELECT made_at, link_id FROM family_link WHERE link_id = $2))
            ORDER BY made_at, link_id LIMIT $3
            """,
            open,
            _key(str(after[0])) if after else None,
            limit + 1,
        )
    links = [_shown(row) for row in rows[:limit]]
    following = cursor_of([links[-1]["id"]]) if len(rows) > limit else None
    return json_answer(200, orjson.dumps({"family_links": links, "links": next_link(request, following)}))


@router.get("/v1/family-links/{link_id}", tags=["intake"], responses=responses(NotFound))
async def get_family_link(
    request: Request,
    actor: Caller,
    link_id: UUID,
    reason: Annotated[str, Query(min_length=3, max_length=200, pattern=r"^[^\x00]*$")],
) -> Response:
    """One of them with its words and number. Who read it and why is kept."""
    actor.require("operator")
    async with database(request, "intake").tx() as tx:
        row = await tx.fetchrow("SELECT * FROM family_link WHERE link_id = $1", link_id)
        if row is None:
            raise NotFound("there is no such family link")
        await tx.execute(
            "INSERT INTO family_link_access (link_id, by, reason, at) VALUES ($1, $2, $3, $4)",
            link_id,
            actor.name,
            reason,
            clock.now(),
        )
        private = await vault.unseal(tx, row["contact"], row["sealed"])
    shown = _shown(row) | ({} if private is None else orjson.loads(private))
    return json_answer(200, orjson.dumps(shown))


@router.patch(
    "/v1/family-links/{link_id}",
    tags=["intake"],
    responses=responses(NotFound, Conflict),
    openapi_extra=takes(FamilyLinkChange),
)
async def patch_family_link(request: Request, actor: Caller, link_id: UUID) -> Response:
    """Say what became of it, and close it."""
    actor.require("operator")
    body = await body_of(request)
    change = parse(body, FamilyLinkChange)

    async def work(tx: Any) -> Answer:
        row = await tx.fetchrow(
            "UPDATE family_link SET closed_at = coalesce(closed_at, $2), closed_by = $3, outcome = $4 "
            "WHERE link_id = $1 RETURNING *",
            link_id,
            clock.now(),
            actor.name,
            change.outcome,
        )
        if row is None:
            raise NotFound("there is no such family link")
        await tx.execute(
            "INSERT INTO family_link_access (link_id, by, reason, at) VALUES ($1, $2, $3, $4)",
            link_id,
            actor.name,
            change.reason,
            clock.now(),
        )
        return 200, _shown(row)

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, f"PATCH /v1/family-links/{link_id}", work)


def _shown(row: Any) -> dict[str, Any]:
    return {
        "id": str(row["link_id"]),
        "code": row["code"],
        "made_at": row["made_at"].isoformat(),
        "closed_at": row["closed_at"].isoformat() if row["closed_at"] else None,
        "closed_by": row["closed_by"],
        "outcome": row["outcome"],
    }


# Erasure


class ContactErasure(BaseModel):
    """Whose words and number are to be forgotten."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    phone: Annotated[str, StringConstraints(max_length=40), AfterValidator(vault.normal_number)]
    reason: Reason


@router.post("/v1/contacts:erase", tags=["intake"], responses=responses(), openapi_extra=takes(ContactErasure))
async def post_contact_erasure(request: Request, actor: Caller) -> Response:
    """Forget somebody who wrote or reported, when they ask for it: number, name, conversation, what was masked of their
    words. Their reports stay as reports of nobody. Who is registered as a responder is erased there, and then here by
    itself."""
    actor.require("operator")
    body = await body_of(request)
    order = parse(body, ContactErasure)

    async def work(tx: Any) -> Answer:
        return 200, {"erased": await erasure.forget(tx, vault.contact_id(order.phone), actor.name) > 0}

    key = idempotency_key(request, actor)
    return await write_once(database(request, "intake"), actor, key, body, "POST /v1/contacts:erase", work)
