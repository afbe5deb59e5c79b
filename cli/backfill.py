"""Which nights are missing, and how are they made up for? ``millrace backfill``."""

from __future__ import annotations

from datetime import datetime

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@click.option("--from", "first", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The first day.")
@click.option("--to", "last", required=True, type=click.DateTime(["%Y-%m-%d"]), help="The last day.")
@click.option("--budget", type=click.FloatRange(min=0), help="CPU seconds that it may take.")
@click.option("--dry-run", is_flag=True, help="Only say which days are due and what they will take.")
@format_option("table", "json", "csv")
def backfill(first: datetime, last: datetime, budget: float | None, dry_run: bool, output_format: str) -> None:
    """Run the nightly job for each day that is missing or stale, in order.

    A day is stale if its newest run had other code or another environment. A night that fails ends the backfill; the
    same command goes on there. The table says how each day stood before."""
    from lakehouse.tracing.costs import estimate, require_budget
    from tasks.backfill import Night, make_up, nights

    lake = open_lake()
    found = nights(lake, first.date(), last.date())
    due = [night.day for night in found if night.due]
    expected = estimate(lake)
    show_records(list(Night.model_fields), [record_of(night) for night in found], output_format, total=len(found))
    if due and expected.runs:
        click.echo(
            f"{len(due)} nights, about {expected.seconds * len(due) / 60:.0f} min by {expected.runs} runs.", err=True
        )
    if budget is not None:
        require_budget(expected, budget, len(due))
    if not dry_run:
        make_up(lake, due, expected.seconds, lambda line: click.echo(line, err=True))
