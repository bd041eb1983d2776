"""Messages go out once; at most one double, and that one is marked. Real HTTP to a gateway on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import httpx
import pytest
import pytest_asyncio

from services.channels import outbound
from services.channels.adapters import signature
from services.channels.outbound import Change, Message, Receipt, Sender, enqueue, take_receipt
from services.channels.settings import ChannelSettings
from services.runtime import clock, vault
from services.runtime.db import Database
from tests.channels.gateway import Gateway, running

NUMBER = "+6281234567890"
CONTACT = vault.contact_id(NUMBER)
SECRET = "gateway-secret"


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    with running() as it:
        yield it


@pytest.fixture
def settings(gateway: Gateway) -> ChannelSettings:
    # No night, whatever the hour at which the tests run.
    return ChannelSettings(
        sms="webhook",
        webhook_url=f"{gateway.url}/out",
        webhook_secret=SECRET,
        quiet_from=0,
        quiet_until=0,
        lease_seconds=600,  # a slow machine must end no call by itself
    )  # type: ignore[arg-type]


class Told:
    """What a service was told of its messages."""

    def __init__(self) -> None:
        self.changes: list[Change] = []

    async def __call__(self, tx, changes) -> None:
        self.changes += changes

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def db(make_db) -> Database:
    return make_db("registry")


@pytest_asyncio.fixture
async def sender(db: Database, settings: ChannelSettings, told: Told) -> AsyncIterator[Sender]:
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        yield Sender(db, settings, client, told)


def message(about: str = "test:1", **changes) -> Message:
    values = {"about": about, "contact": CONTACT, "to": NUMBER, "template": "placed", "values": {"ticket": "K7QM"}}
    return Message(**values | changes)


async def put(db: Database, *messages: Message) -> dict[str, UUID]:
    async with db.tx() as tx:
        return await enqueue(tx, messages)


async def rows(db: Database) -> list[dict]:
    async with db.tx() as tx:
        return [dict(row) for row in await tx.fetch("SELECT * FROM outbound ORDER BY seq")]


async def receive(db: Database, told: Told, **receipt) -> UUID | None:
    async with db.tx() as tx:
        return await take_receipt(tx, Receipt(**receipt), told)


async def test_a_message_is_sent_once_signed_and_with_its_key(db, sender, gateway, told):
    made = await put(db, message())
    assert await put(db, message(), message()) == {}
    await sender.round()
    await sender.round()
    assert len(gateway.taken) == 1
    request = gateway.taken[0]
    assert request.headers["idempotency-key"] == str(made["test:1"])
    assert request.headers["gotong-signature"] == signature(SECRET, request.body)
    assert request.json["to"] == NUMBER and "K7QM" in request.json["text"]
    (row,) = await rows(db)
    assert row["state"] == "sent" and row["provider_id"] == "m-1" and not row["doubled"]
    assert told.states == ["sent"]


async def test_neither_number_nor_text_stands_readable_in_the_database(db):
    await put(db, message(values={"ticket": "K7QM-SECRETS"}))
    (row,) = await rows(db)
    shown = repr({name: value for name, value in row.items() if name != "sealed"})
    assert NUMBER not in shown and "SECRETS" not in shown
    assert b"SECRETS" not in row["sealed"] and NUMBER.encode() not in row["sealed"]
    assert NUMBER not in repr(message()) and NUMBER not in str(message())


async def test_a_text_that_lacks_a_value_fails_with_whoever_wrote_it(db):
    with pytest.raises(KeyError):
        await put(db, message(values={}))


@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_surely_not_taken_is_tried_again_later_and_is_no_double(db, sender, gateway, told, status):
    gateway.plan = [status]
    gateway.headers = {"retry-after": "90"}
    await put(db, message())
    await sender.round()
    (row,) = await rows(db)
    assert row["state"] == "waiting" and row["due_at"] - clock.now() > timedelta(seconds=80)
    assert await sender.round() == 0, "it waits as long as the gateway asked"
    clock.shift(timedelta(seconds=91))
    await sender.round()
    (row,) = await rows(db)
    assert (row["state"], row["tries"], row["doubled"]) == ("sent", 2, False)
    assert "dua kali" not in gateway.taken[1].json["text"]
    assert told.states == ["sent"]


async def test_a_gateway_that_is_away_is_tried_again_until_the_tries_are_used_up(db, sender, settings, told):
    settings.webhook_url = "http://127.0.0.1:1/out"
    await put(db, message())
    for _ in range(settings.tries):
        assert await sender.round() == 1
        clock.shift(timedelta(hours=2))
    assert await sender.round() == 0
    (row,) = await rows(db)
    assert (row["state"], row["tries"], row["doubled"]) == ("failed", settings.tries, False)
    assert told.states == ["failed"] and "127.0.0.1" not in row["reason"]


async def test_what_the_provider_refuses_is_not_tried_again(db, sender, gateway, told):
    gateway.plan = [400]
    gateway.answer = {"code": 21211, "message": f"The 'To' number {NUMBER} is not valid"}
    await put(db, message())
    await sender.round()
    (row,) = await rows(db)
    assert row["state"] == "failed" and row["reason"] == "status 400, code 21211"
    assert told.states == ["failed"]


@pytest.mark.parametrize("trouble", ["hang up", 500, 502, 504])
async def test_an_answer_that_was_lost_gives_one_marked_double_under_the_same_key(db, sender, gateway, told, trouble):
    gateway.plan = [trouble]
    await put(db, message())
    await sender.round()
    clock.shift(timedelta(minutes=1))
    await sender.round()
    assert len(gateway.taken) == 2
    first, second = (request.json for request in gateway.taken)
    assert first["key"] == second["key"]
    assert "dua kali" not in first["text"] and second["text"].startswith("(Mungkin terkirim dua kali)")
    assert told.states == ["sent"] and told.changes[0].doubled


async def test_an_answer_that_is_lost_twice_is_no_reason_to_write_a_third_time(db, sender, gateway, told):
    gateway.plan = ["hang up", 500]
    await put(db, message())
    for _ in range(5):
        await sender.round()
        clock.shift(timedelta(hours=2))
    assert len(gateway.taken) == 2
    (row,) = await rows(db)
    assert row["state"] == "failed" and row["doubled"] and told.states == ["failed"]


async def test_a_receipt_between_a_lost_answer_and_the_next_try_takes_the_double_back(db, sender, gateway, told):
    gateway.plan = ["hang up"]
    made = await put(db, message())
    await sender.round()
    assert await receive(db, told, said="delivered", key=made["test:1"]) == made["test:1"]
    clock.shift(timedelta(hours=1))
    await sender.round()
    assert len(gateway.taken) == 1 and told.states == ["delivered"]


_CHILD = """
import asyncio, sys
from services.channels.outbound import run
from services.runtime.db import Database

async def main():
    await run(Database(sys.argv[1], "registry"), asyncio.Event())

asyncio.run(main())
"""


async def sending(dsn: str, gateway: Gateway) -> asyncio.subprocess.Process:
    """A sender in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _CHILD,
        dsn,
        env={
            **os.environ,
            "GOTONG_CHANNELS_SMS": "webhook",
            "GOTONG_CHANNELS_WEBHOOK_URL": f"{gateway.url}/out",
            "GOTONG_CHANNELS_QUIET_FROM": "0",
            "GOTONG_CHANNELS_QUIET_UNTIL": "0",
        },
    )


async def killed_while_calling(dsn: str, gateway: Gateway) -> None:
    """Run a sender until the gateway holds its message, and kill it there, between attempt and answer."""
    gateway.arrived.clear()
    process = await sending(dsn, gateway)
    try:
        assert await asyncio.to_thread(gateway.arrived.wait, 120), "the gateway got no message"
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_a_crash_between_attempt_and_answer_sends_one_marked_double_and_no_more(
    dsn, db, sender, settings, gateway, told
):
    gateway.plan = ["hold", "hold"]
    await put(db, message())
    await killed_while_calling(dsn, gateway)
    (row,) = await rows(db)
    assert (row["state"], row["tries"]) == ("attempting", 1), "committed before the call"
    assert await sender.round() == 0, "it may still be under way"
    await db_shift(db, settings)
    await killed_while_calling(dsn, gateway)  # and again, in the middle of the double
    await db_shift(db, settings)
    for _ in range(3):
        await sender.round()
        clock.shift(timedelta(hours=2))
    texts = [request.json["text"] for request in gateway.taken]
    assert len(texts) == 2
    assert [text.startswith("(Mungkin terkirim dua kali)") for text in texts] == [False, True]
    assert len({request.json["key"] for request in gateway.taken}) == 1
    (row,) = await rows(db)
    assert row["state"] == "failed" and row["reason"] == "unclear twice" and told.states == ["failed"]


async def db_shift(db: Database, settings: ChannelSettings) -> None:
    """Let the lease of what is being tried run out: another process reads the machine's own clock."""
    async with db.tx() as tx:
        await tx.execute(
            "UPDATE outbound SET attempted_at = attempted_at - $1::interval WHERE state = 'attempting'",
            timedelta(seconds=settings.lease_seconds + 1),
        )


async def test_two_senders_at_once_send_each_message_once(db, settings, gateway, told):
    await put(db, *(message(f"test:{n}", contact=vault.contact_id(f"c{n}")) for n in range(60)))
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        await asyncio.gather(*(Sender(db, settings, client, told).round(20) for _ in range(4)))
        await Sender(db, settings, client, told).round()
    keys = [request.json["key"] for request in gateway.taken]
    assert len(keys) == len(set(keys)) == 60
    assert told.states == ["sent"] * 60


async def test_a_slow_answer_does_not_hold_up_what_is_known_of_the_others(db, sender, gateway):
    gateway.plan = ["hold"]
    await put(db, *(message(f"test:{n}", contact=vault.contact_id(f"c{n}")) for n in range(10)))
    going = asyncio.create_task(sender.round())
    async with asyncio.timeout(60):
        while sum(row["state"] == "sent" for row in await rows(db)) < 9:
            await asyncio.sleep(0.05)
    assert sum(row["state"] == "attempting" for row in await rows(db)) == 1
    gateway.let_go.set()
    await going
    assert {row["state"] for row in await rows(db)} == {"sent"}


# Receipts


async def test_receipts_that_come_again_or_in_another_order_change_nothing(db, sender, told):
    made = await put(db, message())
    await sender.round()
    key = made["test:1"]
    assert await receive(db, told, said="delivered", provider_id="m-1") == key
    before = await rows(db)
    for said in ("sent", "delivered", "failed", "sent"):
        assert await receive(db, told, said=said, key=key) == key
    assert await rows(db) == before
    assert told.states == ["sent", "delivered"]


async def test_a_receipt_before_the_answer_counts_and_the_answer_changes_it_no_more(db, sender, gateway, told):
    gateway.plan = ["hold"]
    made = await put(db, message())
    going = asyncio.create_task(sender.round())
    assert await asyncio.to_thread(gateway.arrived.wait, 60)
    await receive(db, told, said="delivered", key=made["test:1"])
    gateway.let_go.set()
    await going
    (row,) = await rows(db)
    assert (row["state"], row["provider_id"]) == ("delivered", "m-1") and told.states == ["delivered"]


async def test_receipts_that_never_come_leave_a_message_sent(db, sender, gateway):
    await put(db, message())
    await sender.round()
    clock.shift(timedelta(days=30))
    await sender.round()
    assert [row["state"] for row in await rows(db)] == ["sent"] and len(gateway.taken) == 1


async def test_a_failure_told_late_is_noted_with_its_reason(db, sender, told):
    made = await put(db, message())
    await sender.round()
    await receive(db, told, said="failed", key=made["test:1"], reason="30005")
    assert told.states == ["sent", "failed"] and told.changes[-1].reason == "30005"


async def test_a_receipt_of_a_message_that_is_not_ours_is_known_as_such(db, told):
    assert await receive(db, told, said="delivered", key=uuid4()) is None
    assert await receive(db, told, said="delivered", provider_id="SM1") is None
    assert await receive(db, told, said="delivered") is None
    assert told.changes == []


# Night, cap, STOP


def night() -> None:
    """Half past ten in the evening in Jakarta."""
    clock.shift(datetime(2026, 11, 24, 15, 30, tzinfo=UTC) - clock.now())


async def test_a_notice_waits_for_the_morning_but_not_where_life_is_at_risk(db, sender, settings, gateway):
    settings.quiet_from, settings.quiet_until = 21, 5
    night()
    await put(
        db,
        message("notice"),
        message("urgent", urgent=True),
        message("reply", kind="reply"),
        message("code", kind="code", template="confirm_code", values={"code": "123456"}),
        message("soon over", expires_at=clock.now() + timedelta(hours=1)),
        message("tokyo", zone="Asia/Tokyo"),
    )
    while await sender.round():
        pass
    assert {row["about"] for row in await rows(db) if row["state"] == "sent"} == {"urgent", "reply", "code"}
    clock.shift(timedelta(hours=4, minutes=31))  # five in Tokyo
    while await sender.round():
        pass
    states = {row["about"]: row["state"] for row in await rows(db)}
    assert states["tokyo"] == "sent" and states["notice"] == "waiting"
    clock.shift(timedelta(hours=2))
    while await sender.round():
        pass
    states = {row["about"]: (row["state"], row["reason"]) for row in await rows(db)}
    assert states["notice"] == ("sent", None) and states["soon over"] == ("dropped", "expired")


async def test_what_crashed_in_the_evening_is_sent_again_in_the_morning_and_marked(db, sender, settings, gateway):
    settings.quiet_from, settings.quiet_until = 21, 5
    night()
    await put(db, message())
    async with db.tx() as tx:
        await tx.execute(
            "UPDATE outbound SET state = 'attempting', tries = 1, attempted_at = $1, first_tried_at = $1",
            clock.now() - timedelta(hours=2),
        )
    assert await sender.round() == 1
    assert await sender.round() == 0, "it waits, and nobody looks at it again and again"
    clock.shift(timedelta(hours=7))
    await sender.round()
    (request,) = gateway.taken
    assert request.json["text"].startswith("(Mungkin terkirim dua kali)")


async def test_nobody_gets_more_notices_in_a_day_than_the_cap(db, sender, settings, gateway, told):
    settings.day_cap, settings.urgent_day_cap = 3, 4
    clock.shift(datetime(2026, 11, 24, 3, tzinfo=UTC) - clock.now())
    await put(db, *(message(f"n{n}") for n in range(5)), *(message(f"u{n}", urgent=True) for n in range(6)))
    await put(db, *(message(f"r{n}", kind="reply") for n in range(9)))
    other = vault.contact_id("+628111")
    await put(db, message("other", contact=other, to="+628111"))
    while await sender.round(4):
        pass
    sent = [row["about"][0] for row in await rows(db) if row["state"] == "sent"]
    assert {kind: sent.count(kind) for kind in "nuro"} == {"n": 3, "u": 4, "r": 9, "o": 1}
    assert {row["reason"] for row in await rows(db) if row["state"] == "dropped"} == {"cap of the day"}
    assert len(gateway.taken) == 17 and told.states.count("dropped") == 4
    clock.shift(timedelta(days=1))
    await put(db, message("tomorrow"))
    await sender.round()
    assert {row["about"]: row["state"] for row in await rows(db)}["tomorrow"] == "sent"


async def test_what_another_service_sent_counts_for_the_same_day(db, sender, settings, gateway):
    settings.day_cap, settings.urgent_day_cap = 3, 2
    clock.shift(datetime(2026, 11, 24, 3, tzinfo=UTC) - clock.now())
    one, hours = uuid4(), timedelta(hours=1)
    async with db.tx() as tx:
        for notice, at, urgent in (
            (one, clock.now(), False), (one, clock.now(), False), (uuid4(), clock.now() - hours, False),
            (uuid4(), clock.now() - 20 * hours, False), (uuid4(), clock.now(), True),
        ):  # fmt: skip
            await outbound.note_elsewhere(tx, notice, CONTACT, at, urgent=urgent)
    await put(db, *(message(f"n{n}") for n in range(3)), *(message(f"u{n}", urgent=True) for n in range(3)))
    await sender.round()
    sent = [row["about"][0] for row in await rows(db) if row["state"] == "sent"]
    assert sorted(sent) == ["n", "u"]
    async with db.tx() as tx:
        await outbound.note_elsewhere(tx, uuid4(), CONTACT, clock.now() + 60 * hours, urgent=False)
        assert await tx.fetchval("SELECT count(*) FROM outbound_elsewhere") == 1
        await outbound.forget(tx, CONTACT)
        assert await tx.fetchval("SELECT count(*) FROM outbound_elsewhere") == 0


async def test_stop_ends_notices_and_answers_still_come(db, sender, gateway):
    await put(db, message("before"))
    async with db.tx() as tx:
        await outbound.stop(tx, CONTACT)
        await outbound.stop(tx, CONTACT)
    assert set(await put(db, message("after"), message("answer", kind="reply"))) == {"answer"}
    await sender.round()
    assert len(gateway.taken) == 1
    async with db.tx() as tx:
        assert await outbound.resume(tx, CONTACT)
        assert not await outbound.resume(tx, CONTACT)
    assert set(await put(db, message("again"))) == {"again"}


async def test_what_was_not_tried_yet_can_be_taken_back(db, sender, gateway):
    await put(db, message("one"), message("two", contact=vault.contact_id("+628111"), to="+628111"))
    async with db.tx() as tx:
        assert await outbound.withdraw(tx, ["one", "three"]) == set()
    await sender.round()
    async with db.tx() as tx:
        assert await outbound.withdraw(tx, ["one", "two"]) == {"two"}
    assert len(gateway.taken) == 1


async def test_nothing_goes_to_somebody_who_was_erased(db, sender, gateway, told):
    await put(db, message())
    async with db.tx() as tx:
        await vault.erase(tx, CONTACT)
    await sender.round()
    assert gateway.taken == [] and told.changes[0].reason == "erased"
    async with db.tx() as tx:
        await outbound.forget(tx, CONTACT)
    assert await rows(db) == []


# Adapters, as the providers' own documents have them


async def through(db, gateway, told, channel="sms", **changes) -> None:
    settings = ChannelSettings(quiet_from=0, quiet_until=0, **changes)
    await put(db, message(channel=channel))
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        await Sender(db, settings, client, told).round()


async def test_twilio_gets_a_form_and_gives_our_key_back_with_its_receipts(db, gateway, told):
    gateway.answer = {"sid": "SM00000000000000000000000000000001"}
    await through(
        db, gateway, told, sms="twilio", twilio_url=gateway.url, twilio_account="AC1", twilio_token="t",
        twilio_from="+15005550006", public_url="https://gotong.example",
    )  # fmt: skip
    (request,) = gateway.taken
    (row,) = await rows(db)
    assert request.path == "/2010-04-01/Accounts/AC1/Messages.json"
    assert request.form["To"] == NUMBER and request.form["From"] == "+15005550006"
    assert (
        request.form["StatusCallback"] == f"https://gotong.example/v1/hooks/twilio/status?message={row['outbound_id']}"
    )
    assert request.headers["authorization"].startswith("Basic ")
    assert row["provider_id"] == gateway.answer["sid"]


async def test_whatsapp_by_twilio_names_the_channel_in_both_addresses(db, gateway, told):
    await through(
        db, gateway, told, "whatsapp", whatsapp="twilio", twilio_url=gateway.url, twilio_account="AC1",
        twilio_token="t", twilio_from="+15005550006",
    )  # fmt: skip
    form = gateway.taken[0].form
    assert (form["To"], form["From"]) == (f"whatsapp:{NUMBER}", "whatsapp:+15005550006")


async def test_the_cloud_api_gets_json_with_our_key_as_opaque_data(db, gateway, told):
    gateway.answer = {"messages": [{"id": "wamid.1"}]}
    await through(
        db, gateway, told, "whatsapp", whatsapp="whatsapp", whatsapp_url=gateway.url, whatsapp_phone_id="77",
        whatsapp_token="t",
    )  # fmt: skip
    (request,) = gateway.taken
    (row,) = await rows(db)
    assert request.path == "/77/messages" and request.headers["authorization"] == "Bearer t"
    assert request.json["to"] == NUMBER[1:] and request.json["biz_opaque_callback_data"] == str(row["outbound_id"])
    assert row["provider_id"] == "wamid.1"


async def test_rapidpro_gets_a_broadcast_to_one_address(db, gateway, told):
    gateway.answer = {"uuid": "0199-x"}
    await through(db, gateway, told, sms="rapidpro", rapidpro_url=gateway.url, rapidpro_token="t")
    (request,) = gateway.taken
    assert request.path == "/api/v2/broadcasts.json" and request.headers["authorization"] == "Token t"
    assert request.json["urns"] == [f"tel:{NUMBER}"]


async def test_the_log_is_a_file_of_its_owners_own_without_addresses(db, gateway, told, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    await through(db, gateway, told)
    path = tmp_path / "messages" / "registry.jsonl"
    (line,) = path.read_text("utf-8").splitlines()
    assert json.loads(line)["contact"] == CONTACT and "K7QM" in line and NUMBER[3:] not in line
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told.states == ["sent"]


async def test_mail_is_handed_to_a_mail_server_under_our_key(db, gateway, told):
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 test\r\n")
        body = False
        while line := await reader.readline():
            heard.append(line)
            if body:
                body = line != b".\r\n"
                if not body:
                    writer.write(b"250 taken\r\n")
                continue
            word = line[:4].upper()
            body = word == b"DATA"
            writer.write({b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 ok\r\n"))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await put(db, message(channel="email", to="relawan@example.org"))
    settings = ChannelSettings(
        email="smtp", smtp_host="127.0.0.1", smtp_port=port, smtp_starttls=False, smtp_from="posko@example.org",
        quiet_from=0, quiet_until=0,
    )  # fmt: skip
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        await Sender(db, settings, client, told).round()
    server.close()
    (row,) = await rows(db)
    assert row["state"] == "sent" and row["provider_id"] == f"<{row['outbound_id']}@example.org>"
    assert b"".join(heard).count(str(row["outbound_id"]).encode()) == 1
    assert any(line.startswith(b"rcpt TO:<relawan@example.org>") for line in heard)


async def test_a_mail_server_that_is_away_is_tried_again(db, gateway, told):
    await put(db, message(channel="email", to="relawan@example.org"))
    settings = ChannelSettings(email="smtp", smtp_host="127.0.0.1", smtp_port=1, quiet_from=0, quiet_until=0)
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        await Sender(db, settings, client, told).round()
    (row,) = await rows(db)
    assert (row["state"], row["doubled"]) == ("waiting", False)


async def test_the_loop_sends_what_is_written_down_while_it_runs_and_ends_when_told(db, told, tmp_path, monkeypatch):
    monkeypatch.setenv("GOTONG_DATA", str(tmp_path))
    monkeypatch.setenv("GOTONG_CHANNELS_QUIET_FROM", "0")
    monkeypatch.setenv("GOTONG_CHANNELS_QUIET_UNTIL", "0")
    stopping = asyncio.Event()
    going = asyncio.create_task(outbound.run(db, stopping, told))
    await put(db, message())
    async with asyncio.timeout(60):
        while told.states != ["sent"]:
            await asyncio.sleep(0.02)
    stopping.set()
    await asyncio.wait_for(going, 60)


OFFER = {
    "quantity": 2, "what": "perahu", "where": " sekitar 3 km dari Anda", "when": "24/11 09.00 - 12.00 WIB", "code": "K7QM",
    "until": "24/11 08.30 WIB",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({}, ["Gotong.", "2", "perahu", "sekitar 3 km dari Anda", OFFER["when"], "K7QM", "K7QM", OFFER["until"]]),
        ({"exercise": True, "language": "en"}, ["LATIHAN (drill).", "2", "perahu"]),
        ({"kind": "reply"}, None),  # they have just written: free text may be sent
        ({"template": "placed", "values": {"ticket": "T1"}}, None),  # no template was approved for it
    ],
)
async def test_what_we_say_first_goes_by_an_approved_template_where_one_is_named(db, gateway, told, changes, parts):
    settings = ChannelSettings(
        whatsapp="whatsapp", whatsapp_url=gateway.url, whatsapp_phone_id="77", whatsapp_token="t", quiet_from=0,
        quiet_until=0, whatsapp_templates={"offer": "gotong_offer"}, lease_seconds=600,
    )  # type: ignore[arg-type]  # fmt: skip
    async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
        await put(db, message(**{"template": "offer", "values": OFFER, "channel": "whatsapp"} | changes))
        await Sender(db, settings, client, told).round()
    sent = gateway.taken[0].json
    if parts is None:
        assert (sent["type"], "template" in sent, bool(sent["text"]["body"])) == ("text", False, True)
        return
    assert (sent["type"], sent["template"]["name"], "text" in sent) == ("template", "gotong_offer", False)
    assert sent["template"]["language"] == {"code": changes.get("language", "id")}
    (body,) = sent["template"]["components"]
    assert [word["text"] for word in body["parameters"]][: len(parts)] == parts


def test_approved_templates_are_named_by_a_variable(monkeypatch):
    monkeypatch.setenv("GOTONG_CHANNELS_WHATSAPP_TEMPLATES", '{"offer": "gotong_offer"}')
    assert ChannelSettings().whatsapp_templates == {"offer": "gotong_offer"}
