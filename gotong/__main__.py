"""The command line: `gotong`, also `python -m gotong`."""

import importlib
from typing import Any

import click

from gotong.local.process import LocalError

# Where each command lives. Modules are imported when their command is called: `gotong --help` stays quick.
COMMANDS = {
    "up": "gotong.local.commands:up",
    "down": "gotong.local.commands:down",
    "status": "gotong.local.commands:status",
    "prepare": "gotong.local.commands:prepare",
    "replay": "gotong.commands.replay:replay",
    "import": "gotong.commands.importing:import_",
    "sitrep": "gotong.commands.sitrep:sitrep",
    "watch": "gotong.commands.watch:watch",
    "token": "gotong.commands.token:token",
    "audit": "gotong.commands.audit:audit",
    "backup": "gotong.commands.backup:backup",
    "restore": "gotong.commands.backup:restore",
    "republish": "gotong.commands.republish:republish",
    "rebuild": "gotong.commands.rebuild:rebuild",
    "redact": "gotong.commands.redact:redact",
    "quarantine": "gotong.commands.quarantine:quarantine",
    "contracts": "gotong.commands.contracts:contracts",
    "bench": "gotong.commands.bench:bench",
}


class Commands(click.Group):
    """A group that imports a command when it is asked for, and tells expected failures in one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LocalError as error:
            raise click.ClickException(str(error)) from error


@click.command(cls=Commands, epilog="Example: gotong up --demo, and in a second terminal: gotong status")
@click.version_option(package_name="gotong-backend")
def main() -> None:
    """Keep agencies, NGOs and volunteers in step during a disaster."""


if __name__ == "__main__":
    main(prog_name="gotong")
