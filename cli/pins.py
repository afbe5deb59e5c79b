"""Which versions does vacuum keep, and for whom? ``millrace pins``, ``pins add`` and ``pins release``."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


class ListedByDefault(click.Group):
    """``millrace pins`` and ``millrace pins ratings`` list; the other verbs are named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=ListedByDefault)
def pins() -> None:
    """Versions that vacuum keeps, and why."""


@pins.command("list")
@click.argument("table", required=False)
@format_option("table", "json", "csv")
def list_pins(table: str | None, output_format: str) -> None:
    """List the pins of TABLE (default: of all): promoted models, kept runs, tags, and those set by hand."""
    from lakehouse.errors import UnknownTableError
    from lakehouse.upkeep.pins import Pin
    from lakehouse.upkeep.pins import pins as pins_of

    lake = open_lake()
    if table is not None and table not in lake.names():
        raise UnknownTableError.named(table, lake.names())
    records = [record_of(pin) for pin in pins_of(lake, table)]
    show_records(list(Pin.model_fields), records, output_format, total=len(records))


@pins.command("add")
@click.argument("reference", metavar="TABLE@VERSION")
@click.option("--holder", required=True, help="Who keeps it.")
@click.option("--reason", default="", help="What for.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help="When the pin ends by itself (UTC).")
def add(reference: str, holder: str, reason: str, until: datetime | None) -> None:
    """Keep a version until it is released."""
    from lakehouse.upkeep.pins import pin

    snapshot = pin(open_lake(), reference, holder=holder, reason=reason, kept_until=until and until.replace(tzinfo=UTC))
    click.echo(f"{snapshot} is pinned for {holder}.")


@pins.command("release")
@click.argument("reference", metavar="TABLE@VERSION")
@click.option("--holder", required=True, help="Who kept it.")
def release(reference: str, holder: str) -> None:
    """Let a version go that was pinned by hand."""
    from lakehouse.upkeep.pins import release as release_pin

    snapshot = release_pin(open_lake(), reference, holder=holder)
    click.echo(f"{snapshot} is no longer pinned for {holder}.")
