"""Forgetting whoever wrote to us: their address, their words, and by what they would be known again.

What they reported stays as a report without a sender: somebody may be on the way to it. It is found again in an older
backup by the ids of their reports and messages, which name nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID, uuid4

from services.channels import outbound
from services.intake import masking
from services.intake.actions import token_of
from services.runtime import clock, erasures, vault
from services.runtime.db import Tx

_NOBODY = "erased:"


async def forget(tx: Tx, contact: str, by: str) -> int:
    """Destroy a contact's key and all that was sealed with it; conversation, messages, family links, and the contact id
    in what stays. Returns how many things of theirs there were; none: they never wrote."""
    # Whoever writes at this moment waits here, and is somebody new afterwards.
    await tx.execute("SELECT 1 FROM conversation WHERE contact = $1 FOR UPDATE", contact)
    told = await tx.fetch(
        "SELECT report_id AS id FROM report WHERE contact = $1 UNION ALL "
        "SELECT message_id FROM inbound_message WHERE contact = $1 UNION ALL "
        "SELECT link_id FROM family_link WHERE contact = $1",
        contact,
    )
    reports = [
        row["report_id"]
        for row in await tx.fetch(
            "SELECT report_id FROM report WHERE contact = $1 OR sealed_for = $1 ORDER BY report_id FOR UPDATE", contact
        )
    ]
    await vault.erase(tx, contact)
    await outbound.forget(tx, contact)
    await tx.execute("DELETE FROM followed WHERE contact = $1", contact)
    await tx.execute("DELETE FROM inbound_message WHERE contact = $1", contact)
    await tx.execute("DELETE FROM conversation WHERE contact = $1", contact)
    # Who read a family link, and why, is no data of theirs; it stays, with a link that says nothing any more.
    nobody = f"{_NOBODY}{uuid4()}"
    await tx.execute(
        "UPDATE family_link SET contact = $2, sealed = '', closed_at = coalesce(closed_at, $3), "
        "closed_by = coalesce(closed_by, $4), outcome = 'erased' WHERE contact = $1",
        contact,
        nobody,
        clock.now(),
        by,
    )
    # One voice stays one voice: whether a report is corroborated must not change because somebody is forgotten.
    await tx.execute(
        "UPDATE report SET contact = $2, voice = CASE WHEN voice = $1 THEN $2 ELSE voice END, "
        "sealed = CASE WHEN sealed_for = $1 THEN NULL ELSE sealed END, "
        "sealed_for = CASE WHEN sealed_for = $1 THEN NULL ELSE sealed_for END WHERE report_id = ANY($3)",
        contact,
        nobody,
        reports,
    )
    # Their number stands as a keyed hash in whatever text named it.
    for kind in ("phone", "email"):
        await tx.execute(
            "UPDATE report SET link_text = replace(link_text, $1, $2) WHERE strpos(link_text, $1) > 0",
            token_of(kind, contact),
            masking.PLACEHOLDER[kind],
        )
    await tx.execute("UPDATE need SET small_contact = $2 WHERE small_contact = $1", contact, nobody)
    await tx.execute(
        "UPDATE hook_message SET sealed = NULL, sealed_for = NULL WHERE sealed_for = $1 OR report_id = ANY($2)",
        contact,
        reports,
    )
    await tx.execute(
        "INSERT INTO erasure (id, erased_at, by) SELECT id, $2::timestamptz, $3::text FROM unnest($1::uuid[]) AS id "
        "ON CONFLICT DO NOTHING",
        [row["id"] for row in told],
        clock.now(),
        by,
    )
    if told:
        await tx.notify(erasures.CHANNEL)
    return len(told)


async def replay(tx: Tx, contacts: Collection[str], erased: Collection[UUID], by: str) -> set[str]:
    """Erase again, in a backup that was brought back, these contacts and whoever reported or wrote what is listed in
    `erased`; returns the contacts that were."""
    rows = await tx.fetch(
        "SELECT contact FROM report WHERE report_id = ANY($1) AND contact IS NOT NULL UNION "
        "SELECT contact FROM inbound_message WHERE message_id = ANY($1) UNION "
        "SELECT contact FROM family_link WHERE link_id = ANY($1)",
        list(erased),
    )
    # What was forgotten before the backup was made has a contact that is nobody's any more.
    found = {*contacts, *(row["contact"] for row in rows if not row["contact"].startswith(_NOBODY))}
    for contact in sorted(found):
        await forget(tx, contact, by)
    return found
