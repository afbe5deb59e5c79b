"""What did it cost, and what will the next run cost? ``millrace cost``."""

from __future__ import annotations

from typing import cast

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@click.option(
    "--by", type=click.Choice(("run", "task", "day")), default="run", show_default=True, help="What is added up."
)
@click.option(
    "--budget",
    type=click.FloatRange(min=0),
    metavar="CPU_SECONDS",
    help="Say what the next night will take, and end with status 1 if it is more than this.",
)
@format_option("table", "json", "csv")
def cost(by: str, budget: float | None, output_format: str) -> None:
    """Add up what tasks took: time, CPU, GPU, memory, bytes, tokens. An answer from the cache costs nothing."""
    from lakehouse.tracing.costs import By, Estimate, Spent, estimate, require_budget, spent

    lake = open_lake()
    if budget is None:
        records = [record_of(row) for row in spent(lake, cast(By, by))]
        show_records(list(Spent.model_fields), records, output_format, table_columns=_TABLE, total=len(records))
    else:
        expected = estimate(lake)
        show_records(list(Estimate.model_fields), [record_of(expected)], output_format, total=1)
        require_budget(expected, budget)


_TABLE = ("name", "executions", "seconds", "cpu_seconds", "gpu_seconds", "peak_mib", "tokens_in", "tokens_out")
