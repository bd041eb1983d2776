"""`gotong token`: prints a bearer token signed with the local key."""

from __future__ import annotations

from pathlib import Path

import click

from gotong.client import CommandFailed, data_option, sign_locally, target_of
from gotong.local.folders import data_folder
from gotong.local.up import login_link
from services.runtime.auth import ROLES, Role
from services.runtime.settings import SettingsMissing


@click.command(epilog="Example: gotong token --role partner --org pmi --hours 72")
@click.option("--role", required=True, type=click.Choice([role for role in ROLES if role != "public"]))
@click.option("--org", metavar="ORG", help="The organisation that the bearer speaks for.")
@click.option("--subject", metavar="ID", default="command-line", show_default=True, help="Who the bearer is.")
@click.option("--operation", "operations", metavar="ID", multiple=True, help="Only for these; may be repeated.")
@click.option("--hours", type=click.FloatRange(min=0, max=24 * 366, min_open=True), default=12, show_default=True)
@click.option("--link", is_flag=True, help="As an address that logs its reader in on the board. Show it to nobody.")
@data_option
def token(
    role: Role,
    org: str | None,
    subject: str,
    operations: tuple[str, ...],
    hours: float,
    link: bool,
    data: Path | None,
) -> None:
    """Print a bearer token, signed with the key of the installation in --data."""
    folder = data_folder(data)
    try:
        signed = sign_locally(folder, role, subject, organisation=org, operations=operations, hours=hours)
    except SettingsMissing as error:
        raise CommandFailed(f"There is no key to sign with: {error}.") from None
    click.echo(login_link(target_of(None, None, data).url, signed) if link else signed)
