"""How a volunteer joins: a short request, a code or a card, low-risk work at once, the rest after a check."""

from __future__ import annotations

import asyncio
import base64
from datetime import timedelta
from uuid import UUID

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from schemas.responders import ResponderConfirmed, ResponderState, ResponderUpdated
from services.registry import cards
from services.registry.confirming import renew
from services.runtime import clock, vault
from tests.conftest import bearer, emitted
from tests.registry.people import DESK, FIELD, PMI, SITI, code_in, messages, send_messages


async def join(client: httpx.AsyncClient, **changes: object) -> str:
    answer = await client.post("/v1/responders", json=SITI | changes)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["responder_id"])


async def guess(client: httpx.AsyncClient, who: str, code: str) -> httpx.Response:
    return await client.post(f"/v1/responders/{who}/confirm", json={"code": code})


def other_than(code: str, nth: int) -> str:
    return f"{(int(code) + 1 + nth) % 1_000_000:06d}"


async def test_a_code_by_message_confirms_and_opens_the_own_profile(client, db, data):
    who = await join(client)
    await send_messages(db)
    (message,) = messages(data)
    assert message["contact"] == vault.contact_id("+6281398765432")
    answer = await guess(client, who, code_in(message))
    assert answer.status_code == 200, answer.text
    own = {"Authorization": f"Bearer {answer.json()['token']}"}
    shown = (await client.get(f"/v1/responders/{who}", headers=own)).json()
    assert (shown["status"], shown["name"]) == ("confirmed", "Siti Rahmawati")
    confirmed = (await emitted(db, ResponderConfirmed))[0]
    assert (confirmed.by, confirmed.reason) == (f"responder:{who}", "code by message")
    # A lost answer is asked for again; ten minutes later the code is spent.
    assert (await guess(client, who, code_in(message))).status_code == 200
    clock.shift(timedelta(minutes=11))
    assert (await guess(client, who, code_in(message))).status_code == 403
    assert len(await emitted(db, ResponderState)) == 2


async def test_a_code_is_guessed_at_most_five_times_also_at_once(client, db, data):
    who = await join(client)
    await send_messages(db)
    code = code_in(messages(data)[0])
    answers = await asyncio.gather(*(guess(client, who, other_than(code, nth)) for nth in range(5)))
    assert {answer.status_code for answer in answers} == {403}
    assert answers[0].json()["code"] == "wrong-code"
    right = await guess(client, who, code)
    assert right.status_code == 403
    assert (await client.post("/v1/sessions", json={"phone": SITI["phone"], "code": code})).status_code == 403
    async with db.tx() as tx:
        assert await tx.fetchval("SELECT tries FROM code") == 5
        assert await tx.fetchval("SELECT status FROM responder") == "unconfirmed"
    # The next day brings another code, and five guesses more.
    clock.shift(timedelta(days=1, minutes=1))
    await join(client)
    await send_messages(db)
    assert (await guess(client, who, code_in(messages(data)[-1]))).status_code == 200


async def test_registering_anothers_number_sends_at_most_one_message_a_day(client, db, data):
    confirmed = await client.post("/v1/responders", json=SITI, headers=DESK)
    spellings = ["081398765432", "+62 813 9876 5432", "62813-98765432", "0813.9876.5432"]
    for nth in range(12):
        await join(client, phone=spellings[nth % 4], name=f"Orang {nth}")
        await client.post("/v1/sessions", json={"phone": spellings[nth % 4]})
        clock.shift(timedelta(minutes=100))
    await send_messages(db)
    assert len(messages(data)) == 1
    clock.shift(timedelta(hours=5))
    await asyncio.gather(*(client.post("/v1/sessions", json={"phone": spellings[n]}) for n in range(4)))
    await send_messages(db)
    assert len(messages(data)) == 2
    # And nothing that was typed with the number changed whom it belongs to.
    shown = (await client.get(f"/v1/responders/{confirmed.json()['responder_id']}", headers=DESK)).json()
    assert (shown["status"], len(await emitted(db, ResponderState))) == ("confirmed", 1)


async def test_a_session_opens_by_number_and_code_and_tells_nobody_who_is_known(client, db, data):
    who = await join(client)
    await send_messages(db)
    clock.shift(timedelta(days=2))
    known = await client.post("/v1/sessions", json={"phone": "+62 81398765432"})
    stranger = await client.post("/v1/sessions", json={"phone": "+62 81311112222"})
    assert (known.status_code, known.content) == (stranger.status_code, stranger.content) == (202, known.content)
    await send_messages(db)
    assert len(messages(data)) == 2
    code = code_in(messages(data)[-1])
    answer = await client.post("/v1/sessions", json={"phone": "081398765432", "code": code})
    assert (answer.status_code, answer.json()["responder_id"]) == (200, who)
    wrong = await client.post("/v1/sessions", json={"phone": "+62 81311112222", "code": code})
    nobody = await guess(client, "00000000-0000-4000-8000-000000000000", code)
    assert wrong.status_code == nobody.status_code == 403
    assert wrong.json()["detail"] == nobody.json()["detail"]


async def test_nobody_unconfirmed_is_ever_in_a_plan(client, db, data, plan):
    who = await join(client)
    need = await plan.need("cook")
    await plan.feed()
    assert await plan.candidates() == set()
    assert await plan.asked(need) == set()
    await send_messages(db)
    await guess(client, who, code_in(messages(data)[0]))
    await plan.feed()
    assert await plan.asked(need) == {who}


async def test_low_risk_work_at_once_and_the_rest_after_a_check(client, db, data, plan):
    who = await join(client)
    await send_messages(db)
    await guess(client, who, code_in(messages(data)[0]))
    state = (await emitted(db, ResponderState))[-1]
    assert {(skill.skill, skill.level) for skill in state.skills} == {("cook", 1), ("first_aid", 1)}
    assert {(skill.skill, skill.level) for skill in state.claimed_skills} == {("first_aid", 3), ("nurse", 1)}
    nursing = await plan.need("nurse")
    await plan.feed()
    assert await plan.asked(nursing) == set()

    url = f"/v1/responders/{who}"
    own = bearer("responder", who)
    # Nobody proves anything of themselves, whatever they write into it.
    own_claim = {"skills": [{"skill": "nurse", "level": 5, "basis": "checked", "by": "operator:posko"}, "cook"]}
    await client.patch(url, json=own_claim, headers=own)
    assert [skill.skill for skill in (await emitted(db, ResponderState))[-1].skills] == ["cook"]
    assert (await client.post(f"{url}/check", json={}, headers=own)).status_code == 403
    assert (await client.post(f"{url}/check", json={}, headers=FIELD)).status_code == 403

    looked = {"skills": [{"skill": "nurse", "level": 2}], "reason": "STR dilihat"}
    checked = await client.post(f"{url}/check", json=looked, headers=PMI)
    assert checked.status_code == 200, checked.text
    state = (await emitted(db, ResponderUpdated))[-1]
    nurse = next(skill for skill in state.skills if skill.skill == "nurse")
    assert (nurse.level, nurse.basis, nurse.by) == (2, "checked", "partner:pmi-desk")
    assert state.claimed_skills == ()
    await plan.feed()
    assert await plan.asked(nursing) == {who}


async def test_an_organisation_checks_only_what_it_may_verify(client, db):
    order = {"id": "pmi", "name": "PMI", "may_verify": ["first_aid", "first_aid_course"]}
    assert (await client.post("/v1/organisations", json=order, headers=DESK)).status_code == 201
    who = await join(client, certificates=[{"code": "str_health"}, {"code": "first_aid_course"}])
    url = f"/v1/responders/{who}/check"
    refused = await client.post(url, json={"skills": ["nurse"]}, headers=PMI)
    assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/skills/0")
    assert (await client.post(url, json={}, headers=PMI)).status_code == 200
    state = (await emitted(db, ResponderState))[-1]
    assert {(skill.skill, skill.level, skill.basis) for skill in state.skills} == {
        ("cook", 1, "claimed"),
        ("first_aid", 3, "checked"),
    }
    assert [paper.code for paper in state.certificates] == ["first_aid_course"]
    assert [paper.code for paper in state.claimed_certificates] == ["str_health"]
    assert [skill.skill for skill in state.claimed_skills] == ["nurse"]


async def test_a_certificate_that_runs_out_in_the_window_makes_them_ineligible_for_it(client, plan):
    end = clock.now() + timedelta(hours=12)
    boat = {
        "skills": ["boat_operator"],
        "certificates": [{"code": "boat_licence", "issuer": "KSOP", "valid_until": end.isoformat()}],
    }
    who = (await client.post("/v1/responders", json=SITI | boat, headers=DESK)).json()["responder_id"]
    await plan.feed()
    over = await plan.need("boat_operator", certificates=("boat_licence",), start=end - timedelta(hours=3), hours=6)
    assert await plan.asked(over) == set()
    before = await plan.need("boat_operator", certificates=("boat_licence",), start=end - timedelta(hours=8), hours=6)
    assert await plan.asked(before) == {who}


async def test_a_certificate_that_was_revoked_counts_no_more_within_one_event(client, db, plan):
    boat = {"skills": ["boat_operator"], "certificates": [{"code": "boat_licence", "issuer": "KSOP"}]}
    who = (await client.post("/v1/responders", json=SITI | boat, headers=DESK)).json()["responder_id"]
    await plan.feed()
    url = f"/v1/responders/{who}/certificates/boat_licence/revoke"
    assert (await client.post(url, json={"reason": "palsu"}, headers=bearer("responder", who))).status_code == 403
    assert (await client.post(url, json={"reason": "palsu"}, headers=DESK)).status_code == 200
    assert await plan.feed() == 1
    need = await plan.need("boat_operator", certificates=("boat_licence",))
    assert await plan.asked(need) == set()
    state = (await emitted(db, ResponderUpdated))[-1]
    assert (state.certificates, state.reason, state.by) == ((), "palsu", "operator:posko")
    assert state.revoked_certificates[0].revoked_at is not None
    assert (await client.post(url, json={"reason": "palsu"}, headers=DESK)).status_code == 404


async def test_a_certificate_counts_from_its_first_day_by_itself(client, db):
    start = clock.now() + timedelta(days=3)
    paper = {"code": "sar_basic", "valid_from": start.isoformat()}
    await client.post("/v1/responders", json=SITI | {"certificates": [paper]}, headers=DESK)
    assert (await emitted(db, ResponderState))[-1].certificates == ()
    async with db.tx() as tx:
        assert await renew(tx) == 0
    clock.shift(timedelta(days=3, minutes=1))
    async with db.tx() as tx:
        assert await renew(tx) == 1
    assert [paper.code for paper in (await emitted(db, ResponderState))[-1].certificates] == ["sar_basic"]
    async with db.tx() as tx:
        assert await renew(tx) == 0


async def test_cards_seen_offline_confirm_once_and_a_forged_one_never(client, db):
    made = (await client.post("/v1/responders", json=SITI)).json()
    card, who = made["card"], made["responder_id"]
    # A desk's app checks it with nothing but the published key.
    told = (await client.get("/v1/responders:card-key")).json()
    raw = base64.urlsafe_b64decode(card.removeprefix(told["prefix"]) + "=" * 4)
    public = base64.urlsafe_b64decode(told["public_key"] + "=" * 4)
    Ed25519PublicKey.from_public_bytes(public).verify(raw[20:], raw[:20])
    assert UUID(bytes=raw[:16]) == UUID(who)

    swapped = raw[:3] + bytes([raw[3] ^ 1]) + raw[4:]
    forged = cards.PREFIX + base64.urlsafe_b64encode(swapped).decode().rstrip("=")
    seen_at = clock.now().isoformat()
    rows = [
        {"card": forged, "seen_at": seen_at},
        {"card": card, "seen_at": seen_at},
        {"card": "GTG1.x"},
        {"card": card},
    ]
    assert (await client.post("/v1/responders:confirm", json=rows)).status_code == 401
    assert (await client.post("/v1/responders:confirm", json=rows, headers=PMI)).status_code == 403
    clock.shift(timedelta(hours=9))
    answer = (await client.post("/v1/responders:confirm", json=rows, headers=FIELD)).json()
    assert (answer["accepted"], answer["rejected"], answer["repeated"]) == (1, 2, 1)
    again = (await client.post("/v1/responders:confirm", json=rows, headers=FIELD)).json()
    assert (again["accepted"], again["repeated"]) == (0, 2)
    (confirmed,) = await emitted(db, ResponderConfirmed)
    assert (str(confirmed.responder_id), confirmed.by) == (who, "field:lapangan")
    # The desk has seen a face and not a nurse's papers.
    assert [skill.skill for skill in confirmed.skills] == ["cook", "first_aid"]
    clock.shift(timedelta(days=31))
    late = (await client.post("/v1/responders:confirm", json=[{"card": card}], headers=FIELD)).json()
    assert late["rejected"] == 1


async def test_recurring_hours_are_told_ahead_and_renewed_in_time(client, db):
    clock.set_from("2026-11-23T02:00:00Z")
    hours = {"weekly": [{"days": [1, 3], "start": "08:00", "end": "12:00"}], "timezone": "Asia/Jakarta"}
    answer = await client.post("/v1/responders", json=SITI | hours, headers=DESK)
    assert answer.status_code == 201, answer.text
    windows = (await emitted(db, ResponderState))[-1].availability
    assert [(window.start.isoformat(), window.end.hour) for window in windows[1:3]] == [
        ("2026-11-25T01:00:00+00:00", 5),
        ("2026-11-30T01:00:00+00:00", 5),
    ]
    clock.set_from("2026-12-01T02:00:00Z")
    async with db.tx() as tx:
        assert await renew(tx) == 1
        assert await renew(tx) == 0
    state = (await emitted(db, ResponderState))[-1]
    assert (state.by, state.availability[-1].start.isoformat()) == ("system:registry", "2026-12-14T01:00:00+00:00")


async def test_hazards_and_areas_into_which_somebody_must_not_be_sent_are_told_and_the_reason_is_not(client, db):
    order = SITI | {"do_not_send": {"hazards": ["banjir", "landslide"], "areas": ["kemendagri:33.21"]}, "rest_h": 10}
    who = (await client.post("/v1/responders", json=order, headers=DESK)).json()["responder_id"]
    (state,) = await emitted(db, ResponderState)
    assert (state.avoids_hazards, state.avoids_areas, state.rest_h) == (
        ("flood", "landslide"),
        ("kemendagri:33.21",),
        10,
    )
    own = bearer("responder", who)
    bad = await client.patch(f"/v1/responders/{who}", json={"do_not_send": {"areas": ["3321"]}}, headers=own)
    assert bad.status_code == 422
    await client.patch(f"/v1/responders/{who}", json={"do_not_send": {}}, headers=own)
    assert (await emitted(db, ResponderState))[-1].avoids_hazards == ()
    shown = (await client.get(f"/v1/responders/{who}", headers=own)).json()
    assert shown["do_not_send"]["hazards"] == []
    assert "avoids_hazards" not in shown


async def test_do_not_send_takes_somebody_out_of_the_plan_for_just_that(client, db, plan):
    who = (await client.post("/v1/responders", json=SITI, headers=DESK)).json()["responder_id"]
    url = f"/v1/responders/{who}"
    own = bearer("responder", who)
    begin = clock.now() + timedelta(hours=2)
    away = [{"start": begin.isoformat(), "end": (begin + timedelta(hours=10)).isoformat()}]
    await client.patch(url, json={"do_not_send": {"away": away, "skills": ["cook"]}}, headers=own)
    await plan.feed()
    assert await plan.asked(await plan.need("cook", start=begin + timedelta(days=1))) == set()
    assert await plan.asked(await plan.need("nurse", start=begin + timedelta(hours=1))) == set()
    assert await plan.asked(await plan.need("nurse", start=begin + timedelta(hours=20))) == {who}
    # What keeps them is theirs: it stands in no event.
    state = (await emitted(db, ResponderState))[-1]
    assert "do_not_send" not in state.to_bytes().decode()
    shown = (await client.get(url, headers=own)).json()
    assert shown["do_not_send"]["skills"] == ["cook"]
    assert "cook" in {skill["skill"] for skill in shown["skills"]}
