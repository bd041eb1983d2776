"""Answers by message: the same two actions as over HTTP, for somebody who waits for no status code."""

from __future__ import annotations

from uuid import UUID

from schemas.answers import AnswerGiven
from services.matching import actions, assignment_writes, offer_writes
from services.matching.actions import Busy, NeedMet, OfferOver
from services.matching.settings import MatchingSettings
from services.runtime.db import Tx
from services.runtime.problems import Conflict, NotFound
from services.runtime.quarantine import Unprocessable


async def take_answer(tx: Tx, event: AnswerGiven, settings: MatchingSettings) -> None:
    """Accept or decline the offer. A yes that cannot be kept takes the offer back, and whoever sends messages tells
    them by that: over HTTP they would have had a 409 and could try another quantity.

    Raises
    ------
    Unprocessable
        There is no such offer, or it asks somebody else.
    """
    asked = await tx.fetchrow("SELECT responder_id, need_id FROM offer WHERE offer_id = $1", event.offer_id)
    if asked is None or asked["responder_id"] != event.responder_id:
        raise Unprocessable("this responder was not asked by such an offer", "/data/offer_id")
    by = f"responder:{event.responder_id}"
    try:
        # What a refused yes has counted by then is undone with it.
        async with tx.savepoint():
            if event.accepted:
                await assignment_writes.accept(tx, event.offer_id, event.quantity, by=by)
            else:
                await offer_writes.decline(tx, event.offer_id, None, by=by, settings=settings)
    except (OfferOver, Conflict):
        return  # it ended before the answer came, or was answered over HTTP: the events about that say what stands
    except (NeedMet, Busy) as refused:
        await _take_back(tx, event.offer_id, asked["need_id"], refused.detail)
    except NotFound as error:
        raise Unprocessable(str(error), "/data/offer_id") from None


async def _take_back(tx: Tx, offer_id: UUID, need_id: UUID, reason: str) -> None:
    need = await actions.hold_one(tx, need_id)
    offers = await tx.fetch("SELECT * FROM offer WHERE offer_id = $1 AND state = 'made'", offer_id)
    await offer_writes.close_offers(
        tx, {need_id: need}, offers, "withdrawn", by="system:answers", reason=f"answered yes, but {reason}"
    )
    await actions.put_back(tx, [need])
