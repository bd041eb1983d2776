"""Reading topics: batch, inbox, transaction, offsets, retry, quarantine. Effects are exactly once.

A batch is one transaction: its events are claimed in the inbox, the handlers write their state and their own events,
all is committed, and only then the offsets are. Whatever dies in between is read again and refused by the inbox.
A failure that says nothing about the record (connection, deadlock, time-out) is tried again for as long as it takes.
Records that break their contract are told before the transaction and refused within it. A batch that fails otherwise
is gone through record by record, each inside a savepoint, in order: the record that
fails is tried five times alone and then put in quarantine; what stands before and after it is not held up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.subscriber.usecase import BatchSubscriber

from schemas.event import Event, event_types
from services.runtime import clock, inbox, quarantine, trace
from services.runtime.cloudevents import Envelope, Malformed, decode, read
from services.runtime.db import Database, Tx, is_transient
from services.runtime.kafka import gather_s
from services.runtime.quarantine import Raw, Unprocessable
from services.runtime.settings import Settings

log = logging.getLogger(__name__)

KNOWN = event_types()
"""Every contract, whichever of them this process's own modules use."""

E = TypeVar("E", bound=Event)
One = Callable[[E, Tx], Awaitable[None]]
Many = Callable[[Sequence[Any], Tx], Awaitable[None]]
Records = Callable[[Sequence[Envelope], Tx], Awaitable[None]]

TRIES = 5
_POLL_MS = 250
BUGS_IN_A_ROW = 20
"""So many records in a row that crash a handler (not refused by a rule or contract) are a bug of ours: stop."""


class Stopping(Exception):
    """The process is asked to stop while a batch waits to be tried again; its offsets stay uncommitted."""


class OwnBug(Exception):
    """Too many records in a row crash the handlers: the consumer stops and health turns red."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Handler:
    run: Many
    batch: bool


class Message(NamedTuple):
    """A record that was read. `event` None: nobody here handles its type, or it is taken as it stands."""

    envelope: Envelope
    event: Event | None


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A record that can never be taken, and why."""

    raw: Raw
    reason: str
    pointer: str | None


class Consumer:
    """What one service does with the events that it reads. `group`: its consumer group on Kafka."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.group = f"gotong.{service}"
        self._handlers: dict[str, _Handler] = {}
        self._raw: dict[str, Records] = {}
        self._topics: dict[str, None] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that this service subscribes to."""
        return tuple(self._topics)

    def on(self, *models: type[E]) -> Callable[[One[E]], One[E]]:
        """Handle events of these types one by one: `async def on_answer_given(event, tx)`."""

        def register(function: One[E]) -> One[E]:
            async def one_by_one(events: Sequence[E], tx: Tx) -> None:
                for event in events:
                    trace.start(event.meta.traceparent)
                    await function(event, tx)

            self._register(models, _Handler(one_by_one, batch=False))
            return function

        return register

    def on_batch(self, *models: type[E]) -> Callable[[Callable[[Sequence[E], Tx], Awaitable[None]]], Any]:
        """Handle all events of these types in a batch at once, in their order: `async def on_needs(events, tx)`."""

        def register(function: Callable[[Sequence[E], Tx], Awaitable[None]]) -> Any:
            self._register(models, _Handler(function, batch=True))
            return function

        return register

    def on_records(self, *topics: str) -> Callable[[Records], Records]:
        """Take every event of these topics as it stands, unclaimed: for a service whose own log is its inbox."""

        def register(function: Records) -> Records:
            for name in topics:
                self._raw[name] = function
                self._topics[name] = None
            return function

        return register

    def _register(self, models: Sequence[type[Event]], handler: _Handler) -> None:
        for model in models:
            if model.type in self._handlers:
                raise TypeError(f"{self.service} handles {model.type} twice")
            self._handlers[model.type] = handler
            self._topics[model.topic] = None

    def sort(self, raws: Sequence[Raw]) -> tuple[list[Message], list[Refusal]]:
        """Read records: what keeps its contract, and what never can be taken with the reason why not.

        Needs no database, so a batch that holds bad records is still one transaction.
        """
        good, bad = [], []
        now = clock.now()
        for raw in raws:
            try:
                good.append(self._read(raw, now))
            except Malformed as error:
                bad.append(Refusal(raw, error.reason, error.pointer))
        return good, bad

    async def apply(self, messages: Sequence[Message], tx: Tx) -> None:
        """Claim and handle what was read, inside an open transaction.

        Raises
        ------
        Unprocessable, or whatever a handler raises
            The transaction has to be rolled back.
        """
        unclaimed = [message.envelope for message in messages if message.envelope.topic in self._raw]
        # By handler, not by topic: a batch holds many topics in turn, and a log takes them all in one go.
        for take, group in itertools.groupby(unclaimed, key=lambda envelope: self._raw[envelope.topic]):
            await take(list(group), tx)
        handled = [message for message in messages if message.event is not None]
        claimed = await inbox.claim(tx, [message.envelope for message in handled])
        fresh = [message for message, new in zip(handled, claimed, strict=True) if new]
        # Stable: the order of each topic stays; order between topics is promised to nobody.
        fresh.sort(key=lambda message: message.envelope.topic)
        for handler, run in itertools.groupby(fresh, key=lambda message: self._handlers[message.envelope.meta.type]):
            events = [message.event for message in run if message.event is not None]
            if handler.batch:
                trace.start(events[0].meta.traceparent)
            await handler.run(events, tx)

    def _read(self, raw: Raw, now: datetime) -> Message:
        envelope = decode(
            raw.value,
            raw.headers,
            topic=raw.topic,
            partition=raw.partition,
            offset=raw.offset,
            key=raw.key,
            received_at=now,
        )
        model = KNOWN.get(envelope.meta.type)
        if model is None:
            raise Malformed(f"the type {envelope.meta.type} is not known", "/type")
        if model.topic != raw.topic:
            raise Malformed(f"{envelope.meta.type} does not belong on {raw.topic}", "/type")
        if raw.topic in self._raw or envelope.meta.type not in self._handlers:
            return Message(envelope, None)
        return Message(envelope, read(envelope, model))


class Runner:
    """Runs one consumer in a worker: what FastStream hands over, until its effects are committed."""

    def __init__(self, consumer: Consumer, db: Database, settings: Settings) -> None:
        self.consumer = consumer
        self.db = db
        self.settings = settings
        self.stopping = asyncio.Event()
        self.problem: str | None = None
        self.failed = asyncio.Event()
        self._bugs_in_a_row = 0
        self._in_hand: dict[TopicPartition, int] = {}
        self._client: AIOKafkaConsumer | None = None

    def subscribe(self, broker: KafkaBroker) -> Any:
        """The one place where a FastStream subscriber is made: every default that would lose data is set here.

        FastStream's own are acknowledge-first, `latest`, and a decoder and header parser that raise on bad bytes.
        """
        subscriber = broker.subscriber(
            *self.consumer.topics,
            group_id=self.consumer.group,
            batch=True,
            max_records=self.settings.batch_records,
            batch_timeout_ms=20,
            # How long the broker holds a fetch that finds nothing. It answers at once when something comes; a short
            # time only costs idle workers processor time. But a partition that was read while a fetch for the others
            # is under way waits for that one to end, so it must not be long either.
            fetch_max_wait_ms=150 if not self.settings.kafka_embedded else 50,
            auto_offset_reset="earliest",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            session_timeout_ms=6000,
            heartbeat_interval_ms=2000,
            max_poll_interval_ms=3_600_000,  # an outage of the database must not cost us the partitions
            parser=_parse,
            decoder=_decode_nothing,
            no_reply=True,
            title=self.consumer.group,
        )

        @subscriber
        async def handle(message: KafkaMessage) -> None:
            self._client = message.consumer
            records = message.raw_message
            await self.handle(records if isinstance(records, tuple) else (records,))

        assert type(subscriber) is BatchSubscriber
        subscriber.__class__ = _Eager
        return subscriber

    def reads_by(self, client: AIOKafkaConsumer | None) -> None:
        """This client reads for the runner from now on; None: there is none."""
        self._client = client

    async def handle(self, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        """Apply a batch, however long it takes. Returning means: committed, the offsets may follow.

        Raises
        ------
        Stopping, OwnBug
            Nothing of what is left may count as done.
        """
        for record in reversed(records):
            self._in_hand[TopicPartition(record.topic, record.partition)] = record.offset
        try:
            await self.handle_raw([Raw.of(record) for record in records])
        finally:
            self._in_hand.clear()

    async def handle_raw(self, raws: Sequence[Raw]) -> None:
        """As `handle`, for records that came another way."""
        try:
            await self._patiently(lambda: self._whole(raws))
        except (Stopping, OwnBug):
            raise
        except Exception as error:
            log.info("a batch of %d fails (%r); going through it one by one", len(raws), error)
            await self._one_by_one(raws)

    async def _whole(self, raws: Sequence[Raw]) -> None:
        good, bad = self.consumer.sort(raws)
        async with self.db.tx() as tx:
            await self.consumer.apply(good, tx)
            for refusal in bad:
                await quarantine.refuse(tx, self.consumer.service, refusal.raw, refusal.reason, refusal.pointer)

    async def _one_by_one(self, raws: Sequence[Raw]) -> None:
        position = 0
        while position < len(raws):
            position += await self._patiently(lambda start=position: self._until_failure(raws[start:]))  # type: ignore[misc]
            if position < len(raws):
                await self._alone(raws[position])
                position += 1

    async def _until_failure(self, raws: Sequence[Raw]) -> int:
        """Apply records, each in a savepoint, up to the first that fails; returns how many are done and committed."""
        done = 0
        async with self.db.tx() as tx:
            for raw in raws:
                try:
                    good, bad = self.consumer.sort([raw])
                    async with tx.savepoint():
                        await self.consumer.apply(good, tx)
                        for refusal in bad:
                            await quarantine.refuse(tx, self.consumer.service, raw, refusal.reason, refusal.pointer)
                except Exception as error:
                    if is_transient(error):
                        raise
                    break
                done += 1
        if done:
            self._bugs_in_a_row = 0
        return done

    async def _alone(self, raw: Raw) -> None:
        """Try one record five times, then put it in quarantine."""
        for attempt in range(1, TRIES + 1):
            try:
                await self._patiently(lambda: self._whole([raw]))
                self._bugs_in_a_row = 0
                return
            except (Stopping, OwnBug):
                raise
            except Unprocessable as error:
                await self._patiently(lambda reason=error.reason, at=error.pointer: self._refuse(raw, reason, at))  # type: ignore[misc]
                self._bugs_in_a_row = 0
                return
            except Exception as error:
                log.exception("%s %d@%d fails, try %d", raw.topic, raw.partition, raw.offset, attempt)
                if attempt == TRIES:
                    self._bugs_in_a_row += 1
                    if self._bugs_in_a_row >= BUGS_IN_A_ROW:
                        self.problem = f"{self._bugs_in_a_row} records in a row fail: {error!r}"
                        self.failed.set()
                        raise OwnBug(self.problem) from error
                    reason = f"the handler fails: {type(error).__name__}"
                    await self._patiently(lambda why=reason: self._refuse(raw, why, None))  # type: ignore[misc]
                    return
                await self._pause(0.05 * 2**attempt)

    async def _refuse(self, raw: Raw, reason: str, pointer: str | None) -> None:
        async with self.db.tx() as tx:
            await quarantine.refuse(tx, self.consumer.service, raw, reason, pointer)

    async def _patiently(self, action: Callable[[], Awaitable[Any]]) -> Any:
        """Do it; on a failure that may pass, turn health red, wait, and do it again, until the process stops."""
        pause_s = 0.05
        while True:
            try:
                result = await action()
            except Exception as error:
                if not is_transient(error):
                    raise
                self.problem = f"the database does not answer: {error!r}"
                log.warning("%s; trying again in %.1f s", self.problem, pause_s)
                await self._pause(pause_s)
                pause_s = min(pause_s * 2, 5)
            else:
                self.problem = None
                return result

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self.stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Stopping

    async def release_all(self) -> None:
        """Let in what operators released from quarantine, each once; what fails again goes back with its reason."""
        while True:
            async with self.db.tx() as tx:
                row = await tx.fetchrow(
                    "SELECT * FROM quarantine WHERE state = 'releasing' ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED"
                )
                if row is None:
                    return
                try:
                    raw = await quarantine.raw_of(tx, row)
                    good, bad = self.consumer.sort([raw])
                    for refusal in bad:
                        raise Unprocessable(refusal.reason, refusal.pointer)
                    async with tx.savepoint():
                        await self.consumer.apply(good, tx)
                except Exception as error:
                    if is_transient(error):
                        raise
                    reason = error.reason if isinstance(error, Unprocessable) else f"the handler fails: {error!r}"
                    await quarantine.back(tx, row["id"], reason, getattr(error, "pointer", None))
                else:
                    await quarantine.done(tx, self.consumer.service, row)

    async def until_failed(self) -> None:
        """Return when the consumer has stopped for good, because of a bug of ours."""
        await self.failed.wait()

    def lag(self) -> dict[str, int]:
        """Records that stand on the topics and are not handled yet, by topic, as far as the client has heard: from
        where it reads next, or from the first record of the batch in hand, to the end that the last fetch told."""
        found = dict.fromkeys(self.consumer.topics, 0)
        client = self._client
        if client is None:
            return found
        for partition in client.assignment():
            end = client.highwater(partition)
            # Not client.position(): that one waits until there is a position.
            state = client._subscription.subscription.assignment.state_value(partition)
            if end is not None and state.has_valid_position:
                next_offset = min(state.position, self._in_hand.get(partition, state.position))
                found[partition.topic] = found.get(partition.topic, 0) + max(0, end - next_offset)
        return found


class _Eager(BatchSubscriber):
    """FastStream's own polls every 20 ms and then sleeps as long again. This one waits until something comes, takes
    it at once, and under load gathers a little: fewer and larger batches cost less an event."""

    came = 0

    async def get_msg(self, consumer: Any) -> tuple[ConsumerRecord[Any, Any], ...]:
        if pause_s := gather_s(self.came):
            await asyncio.sleep(pause_s)
        found = await consumer.getmany(timeout_ms=_POLL_MS, max_records=self.max_records)
        records = tuple(itertools.chain.from_iterable(found.values()))
        assert self.max_records is not None
        self.came = len(records) if len(records) < self.max_records // 2 else 0  # else more than enough wait
        return records


async def _parse(message: tuple[ConsumerRecord[Any, Any], ...], original: Any) -> Any:
    """FastStream's parser decodes headers as UTF-8 and raises on others; ours keeps the records as they came."""
    # It names the batch by its first and last record, and nobody reads what else it finds.
    ends = (message[0], message[-1])
    blank = tuple(dataclasses.replace(record, headers=(), value=b"") for record in ends)
    parsed = await original(blank)
    parsed.raw_message = message
    return parsed


async def _decode_nothing(_: Any) -> None:
    """The handler reads the raw records itself: one bad record must not fail its whole batch in the decoder."""
