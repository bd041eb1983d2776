"""The number at which an organisation is asked about its stock: who may set it, and what is sent to it."""

from __future__ import annotations

from collections.abc import Sequence

from schemas.offers import OfferState
from services.channels import outbound, templates
from services.channels.outbound import Message
from services.channels.settings import ChannelSettings
from services.registry import answers, notices
from services.registry.actions import Sender, not_yours
from services.registry.bodies import DutyOrder
from services.runtime import clock, vault
from services.runtime.auth import Actor
from services.runtime.db import Tx
from services.runtime.problems import NotFound


async def put(tx: Tx, actor: Actor, organisation: str, order: DutyOrder) -> None:
    """Set the number, or take it away: an operator, or the organisation itself.

    Raises
    ------
    NotFound, Forbidden
    """
    if actor.role == "partner" and Sender.of(actor).organisation != organisation:
        raise not_yours("/organisation")
    if not await tx.fetchval("SELECT true FROM organisation WHERE id = $1 FOR UPDATE", organisation):
        raise NotFound(f"there is no organisation {organisation}")
    if order.phone is None:
        await tx.execute("DELETE FROM duty WHERE organisation = $1", organisation)
        return
    contact = vault.contact_id(order.phone)
    await tx.execute(
        "INSERT INTO duty (organisation, contact, sealed, channel, language, updated_at) "
        "VALUES ($1, $2, $3, $4, $5, $6) "
        "ON CONFLICT (organisation) DO UPDATE SET contact = excluded.contact, sealed = excluded.sealed, "
        "channel = excluded.channel, language = excluded.language, updated_at = excluded.updated_at",
        organisation,
        contact,
        await vault.seal(tx, contact, order.phone.encode()),
        order.channel,
        templates.language_of(order.language),
        clock.now(),
    )


async def tell(tx: Tx, events: Sequence[OfferState]) -> None:
    """Write to the holders of the lots that these offers ask for, once each; and that it is over, to whom it reached.

    They answer on the board or by their own system: a yes for a stock is not taken from a text.
    """
    last = {event.offer_id: event for event in events}
    rows = await tx.fetch(
        "SELECT * FROM duty WHERE organisation = ANY($1)",
        sorted({event.organisation for event in last.values() if event.organisation}),
    )
    opened = await vault.unseal_all(tx, [(row["contact"], row["sealed"]) for row in rows])
    known = {row["organisation"]: (row, value) for row, value in zip(rows, opened, strict=True) if value is not None}
    over = [f"lot-offer:{one.offer_id}:offer_lot" for one in last.values() if one.state in ("withdrawn", "expired")]
    reached = await outbound.withdraw(tx, over) if over else set()
    zones = await notices.zones_of(tx, {event.operation for event in last.values()})
    messages: list[Message] = []
    for offer_id, event in sorted(last.items()):
        if event.organisation not in known:
            continue
        row, number = known[event.organisation]
        asked = f"lot-offer:{offer_id}:offer_lot"
        if event.state == "made":
            template = "offer_lot"
        elif asked in reached:
            template = "offer_lot_over"
        else:
            continue
        zone = zones.get(event.operation or "", ChannelSettings().zone)
        values = answers.words_of(
            code=answers.code_of(offer_id),
            item=event.item,
            skill=None,
            quantity=event.quantity,
            start=event.window.start,
            end=event.window.end,
            until=event.expires_at,
            distance_km=None,
            zone=zone,
            language=row["language"],
        )
        messages.append(
            Message(
                about=f"lot-offer:{offer_id}:{template}",
                contact=row["contact"],
                to=number.decode(),
                template=template,
                values=values,
                channel=row["channel"],
                language=row["language"],
                urgent=event.severity == 4,
                expires_at=event.expires_at if event.state == "made" else event.window.end,
                operation=event.operation,
                exercise=event.exercise,
                zone=zone,
            )
        )
    await outbound.enqueue(tx, messages)
