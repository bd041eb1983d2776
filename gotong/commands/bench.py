"""`gotong bench`: one of the benchmarks in `bench/`, by name."""

from __future__ import annotations

import importlib

import click

NAMES = ("board", "dedup", "matching", "pipeline", "reading", "sitrep", "stream")


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    epilog="Example: gotong bench pipeline --json; what else a benchmark takes: gotong bench pipeline --help",
)
@click.argument("name", type=click.Choice([*NAMES, "--help"]), metavar="NAME")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(ctx: click.Context, name: str, options: tuple[str, ...]) -> None:
    """Measure something against its ceiling or rival, in one run. NAME is board, dedup, matching, pipeline, reading,
    sitrep or stream;
    with --json it prints one object."""
    if name == "--help":
        click.echo(ctx.get_help())
        return
    # Imported when called: benchmarks pull in whole services, and are not installed with a wheel.
    try:
        module = importlib.import_module(f"bench.{name}")
    except ModuleNotFoundError as error:
        if error.name not in ("bench", f"bench.{name}"):
            raise
        raise click.ClickException("Benchmarks run from the project's own folder; go there and try again.") from None
    ctx.exit(int(module.main(list(options)) or 0))
