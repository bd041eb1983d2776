"""`gotong republish`: sends a service's journal to its topics again, from the database itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import click
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from gotong.client import CommandFailed, data_option, own_database
from gotong.local.folders import data_folder
from gotong.local.state import running
from services.runtime import journal, kafka, outbox
from services.runtime.db import Database
from services.runtime.settings import SERVICES, Settings
from services.runtime.topics import ensure_topics

BATCH = 500


@click.command(epilog="Example: gotong republish --service intake")
@click.option("--all", "everything", is_flag=True, help="Every service.")
@click.option("--service", type=click.Choice(SERVICES), help="Only this one.")
@click.option("--broker", metavar="HOST:PORT", help="Default: GOTONG_KAFKA, else the broker that runs on --data.")
@data_option
def republish(everything: bool, service: str | None, broker: str | None, data: Path | None) -> None:
    """Send the journal to Kafka again: every event that ever left, in its order, with its own id.

    For a broker that has lost its log. Readers know what they have handled and skip it. What was redacted is not sent
    again. Services may run or not.
    """
    if everything == (service is not None):
        raise click.UsageError("Give either --all or --service NAME.")
    folder = data_folder(data)
    with own_database(folder) as dsn:
        settings = _broker(folder, broker)
        asyncio.run(_republish(dsn, settings, (service,) if service else SERVICES))


def _broker(folder: Path, named: str | None) -> Settings:
    """Settings that name the broker: the one given, else the environment's, else the one that runs on this folder.

    Raises
    ------
    CommandFailed
        There is none.
    """
    settings = Settings(data=folder)
    state = running(folder)
    address = named or settings.kafka
    if address in ("", "embedded", "kafka"):  # the two words of `gotong up` are no addresses
        if state is None:
            raise CommandFailed(
                f"No broker runs on {folder}; start one by gotong up, or name one with --broker HOST:PORT."
            )
        address = state.kafka
    embedded = settings.kafka_embedded or (state is not None and state.kafka == address and state.broker == "embedded")
    return settings.model_copy(update={"kafka": address, "kafka_embedded": embedded})


async def _republish(dsn: str, settings: Settings, services: tuple[str, ...]) -> None:
    producer: AIOKafkaProducer | None = None
    try:
        await ensure_topics(settings.kafka, embedded=settings.kafka_embedded)
        producer = kafka.producer(settings)
        await producer.start()
        for service in services:
            db = Database(dsn, service, pool_size=1)
            try:
                sent, redacted = await resend(db, producer)
            finally:
                await db.close()
            left_out = f", {redacted} redacted left out" if redacted else ""
            click.echo(f"{service}: {sent} events sent again{left_out}")
    except KafkaError as error:
        raise CommandFailed(
            f"The broker {settings.kafka} does not take events ({error}); see that it runs, then start this again."
        ) from None
    except asyncpg.UndefinedTableError:
        raise CommandFailed("This database has no journals; is it Gotong's? `gotong up` makes its tables.") from None
    except (OSError, asyncpg.PostgresError) as error:
        raise CommandFailed(
            f"The database cannot be reached ({error}); start it, or correct GOTONG_DATABASE."
        ) from None
    finally:
        if producer is not None:
            await producer.stop()


async def resend(db: Database, producer: AIOKafkaProducer) -> tuple[int, int]:
    """Send one service's journal again and note where each record stands now; how many were sent, and left out.

    What is journalled meanwhile was sent by the relay, so the walk ends where the journal ended at its start.
    """
    async with db.tx() as tx:
        end = await tx.fetchval("SELECT coalesce(max(position), 0) FROM journal")
    at = sent = redacted = 0
    while at < end:
        async with db.tx() as tx:
            # The relay's lock: it does not send while we do, so that one batch stands whole on the topic.
            await tx.execute("SELECT pg_advisory_xact_lock(hashtext('gotong.relay'), hashtext(current_schema()))")
            rows = await tx.fetch(
                "SELECT * FROM journal WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
                at,
                end,
                BATCH,
            )
            if not rows:
                break
            entries = outbox.entries_of(rows)
            await journal.place(tx, rows, await outbox.send(producer, entries))
        at = rows[-1]["position"]
        sent += len(entries)
        redacted += len(rows) - len(entries)
        if at % (20 * BATCH) == 0:
            click.echo(f"{db.schema}: {at} of {end} rows", err=True)
    return sent, redacted
