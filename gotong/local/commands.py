"""`gotong up`, `down`, `status`, and `prepare` for where the services run elsewhere."""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from gotong.local import up as local
from gotong.local.folders import SYSTEM_FOLDER, data_folder
from gotong.local.postgres import say_on_stderr
from gotong.local.state import State, running

Command = TypeVar("Command", bound=Callable[..., Any])

data_option = click.option(
    "--data",
    envvar="GOTONG_DATA",
    show_envvar=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Where everything is kept. Default: .gotong in the current folder "
    f"(as root where others cannot enter it: {SYSTEM_FOLDER}).",
)


def _option(name: str, variable: str, **more: Any) -> Callable[[Command], Command]:
    return click.option(name, envvar=variable, show_envvar=True, **more)


@click.command(epilog="Example: gotong up --demo --data /srv/gotong --broker kafka --port 8080")
@click.option("--demo", is_flag=True, help="Load a small exercise operation once all is ready.")
@data_option
@_option(
    "--broker",
    "GOTONG_KAFKA",
    default="embedded",
    show_default=True,
    metavar="embedded|kafka|HOST:PORT",
    help="In memory; Apache Kafka on this machine (needs Java 17 and Maven); or one that runs already.",
)
@_option(
    "--database",
    "GOTONG_DATABASE",
    default="embedded",
    show_default=True,
    metavar="embedded|URL",
    help="PostgreSQL on this machine, kept in --data; or postgresql://USER:PASSWORD@HOST:PORT/NAME.",
)
@_option("--port", "GOTONG_PORT", type=click.IntRange(1, 65535), default=8000, show_default=True, help="HTTP.")
@click.option("--detach", is_flag=True, help="Return when ready and go on in the background; stop it by gotong down.")
@_option("--kafka-security", "GOTONG_KAFKA_SECURITY", type=click.Choice(["plaintext", "ssl", "sasl_ssl"]))
@_option("--kafka-user", "GOTONG_KAFKA_USER", help="For sasl_ssl.")
@_option("--kafka-password", "GOTONG_KAFKA_PASSWORD", help="For sasl_ssl; the variable keeps it out of sight.")
@_option("--kafka-ca", "GOTONG_KAFKA_CA", metavar="FILE", help="The authority that signed the broker's certificate.")
@_option("--oidc-issuer", "GOTONG_OIDC_ISSUER", metavar="URL", help="Whose tokens are taken beside our own.")
@_option("--oidc-audience", "GOTONG_OIDC_AUDIENCE", help="Whom those tokens must be made for.")
@_option("--oidc-client-id", "GOTONG_OIDC_CLIENT_ID", help="Who we are there; with it the pages offer that login.")
@_option("--oidc-client-secret", "GOTONG_OIDC_CLIENT_SECRET", help="Where one is asked for; better as a variable.")
@_option("--secret-key", "GOTONG_SECRET_KEY", help="Default: the file secret.key in --data, made at the first start.")
@_option("--log", "GOTONG_LOG", type=click.Choice(["text", "json"]), default="text", show_default=True)
@_option("--otlp", "GOTONG_OTLP", metavar="URL", help="Where OpenTelemetry traces go.")
@_option("--require", "GOTONG_REQUIRE", metavar="kafka,…", help="What may not be left out; as a flag here: Kafka.")
@_option("--clock", "GOTONG_CLOCK", metavar="TIME|+SECONDS", help="Tests and drills only: another time than now.")
@_option("--pg-bin", "GOTONG_PG_BIN", metavar="DIR", help="PostgreSQL's programs.")
@click.pass_context
def up(ctx: click.Context, /, demo: bool, data: Path | None, detach: bool, **given: Any) -> None:
    """Run everything on this machine: database, broker and all services.

    Prints `ready URL` when every service is healthy, and runs until Ctrl-C or SIGTERM. What was already running on
    the same data is left as it is.
    """
    # The variable is meant for tests and says nothing of what is started here; the flag does.
    asked = ctx.get_parameter_source("require") is ParameterSource.COMMANDLINE
    if asked and "kafka" in given["require"].split(",") and given["broker"] == "embedded":
        raise click.UsageError("--require kafka refuses the embedded broker; give --broker kafka or HOST:PORT.")
    folder = data_folder(data)
    if data is None and folder == SYSTEM_FOLDER:
        say_on_stderr(f"Others cannot enter this folder and PostgreSQL may not run as root: data is in {folder}.")
    variables = {
        "kafka_security": "GOTONG_KAFKA_SECURITY",
        "kafka_user": "GOTONG_KAFKA_USER",
        "kafka_password": "GOTONG_KAFKA_PASSWORD",
        "kafka_ca": "GOTONG_KAFKA_CA",
        "oidc_issuer": "GOTONG_OIDC_ISSUER",
        "oidc_audience": "GOTONG_OIDC_AUDIENCE",
        "oidc_client_id": "GOTONG_OIDC_CLIENT_ID",
        "oidc_client_secret": "GOTONG_OIDC_CLIENT_SECRET",
        "secret_key": "GOTONG_SECRET_KEY",
        "otlp": "GOTONG_OTLP",
        "require": "GOTONG_REQUIRE",
        "clock": "GOTONG_CLOCK",
        "pg_bin": "GOTONG_PG_BIN",
    }
    env = {variable: str(given[name]) for name, variable in variables.items() if given[name]}
    options = local.Options(
        data=folder,
        broker=given["broker"],
        database=given["database"],
        port=given["port"],
        demo=demo,
        log=given["log"],
        env=env,
    )
    if detach:
        local.detach(
            options,
            env
            | {
                "GOTONG_DATA": str(folder),
                "GOTONG_KAFKA": options.broker,
                "GOTONG_DATABASE": options.database,
                "GOTONG_PORT": str(options.port),
                "GOTONG_LOG": options.log,
            },
        )
    else:
        local.up(options)


@click.command(epilog="Example: gotong down --data /srv/gotong")
@data_option
def down(data: Path | None) -> None:
    """Stop what `gotong up` started on this data."""
    folder = data_folder(data)
    stopped = local.down(folder)
    if stopped is None:
        say_on_stderr(f"Nothing is running on {folder}.")
    else:
        say_on_stderr(f"Stopped what ran on {stopped.url}.")


@click.command(epilog="Example: GOTONG_KAFKA=kafka:9092 GOTONG_DATABASE=postgresql://… gotong prepare")
@data_option
@_option("--broker", "GOTONG_KAFKA", required=True, metavar="HOST:PORT")
@_option("--database", "GOTONG_DATABASE", required=True, metavar="URL")
def prepare(data: Path | None, broker: str, database: str) -> None:
    """Make the tables, the topics and the secret key, where `gotong up` does not run the services.

    Done again it changes nothing, and after an upgrade it brings the tables up to date.
    """
    local.prepare(data_folder(data), broker, database)


@click.command(epilog="Example: gotong status --json")
@data_option
@click.option("--url", help="A server elsewhere. Default: the one that runs on --data.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.option("--service", metavar="NAME", help="Of this service alone: say whether it is well.")
def status(data: Path | None, url: str | None, as_json: bool, service: str | None) -> None:
    """Services, consumer lag, unpublished events, quarantine, and how near the embedded limits are.

    Exits 1 when a service is not well.
    """
    state = running(data_folder(data)) if url is None else None
    address = url or (state.url if state else f"http://127.0.0.1:{os.environ.get('GOTONG_PORT') or 8000}")
    code, said = local.health(address)
    if not said:
        what = f"answers {code} on" if code else "answers on"
        raise click.ClickException(f"Nothing that is Gotong {what} {address}; start it with gotong up, or give --url.")
    if service is not None:
        found = (said.get("services") or {}).get(service)
        if found is None:
            raise click.UsageError(f"There is no service {service}; there are {', '.join(said.get('services') or {})}.")
        print(json.dumps(found, indent=2) if as_json else f"{service}: {found.get('status')}")
        sys.exit(0 if found.get("status") == "ok" else 1)
    answer = said | _of_this_machine(state)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        _print(address, answer)
    sys.exit(0 if code == 200 else 1)


def _of_this_machine(state: State | None) -> dict[str, Any]:
    """What only the machine that runs it knows: the broker's address and the limits of the embedded one."""
    if state is None:
        return {}
    answer: dict[str, Any] = {"broker": {"kind": state.broker, "address": state.kafka}}
    if state.broker == "embedded":
        from gotong.local import limits

        held = asyncio.run(limits.records(state.kafka))
        answer["embedded"] = {
            "records": held,
            "records_max": limits.RECORDS_MAX,
            "warning": limits.warning(held) or None,
        }
    return answer


def _print(address: str, answer: dict[str, Any]) -> None:
    print(f"{address}: {answer.get('status')}")
    columns = ("status", "lag", "unpublished", "backlog_age_s", "quarantined")
    services = answer.get("services") or {}
    shown = [column for column in columns if any(column in service for service in services.values())]
    rows = [("service", *(column.replace("_", " ") for column in shown))]
    rows += [(name, *(str(service.get(column, "")) for column in shown)) for name, service in services.items()]
    widths = [max(len(row[place]) for row in rows) for place in range(len(shown) + 1)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    for name, service in services.items():
        for topic, lag in (service.get("lag_by_topic") or {}).items():
            print(f"{name}: {lag:,} records behind on {topic}")
        if service.get("detail"):
            print(f"{name}: {service['detail']}")
    if broker := answer.get("broker"):
        print(f"broker: {broker['kind']} on {broker['address']}")
    if embedded := answer.get("embedded"):
        print(f"embedded broker: {embedded['records']:,} of about {embedded['records_max']:,} records")
        if embedded["warning"]:
            print(f"warning: {embedded['warning']}")
