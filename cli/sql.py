"""What do the rows say? ``millrace sql``: one reading statement over the lake's tables."""

from __future__ import annotations

from pathlib import Path

import click

from cli.lake import open_lake
from cli.output import format_option, show_records


@click.command()
@click.argument("statement")
@format_option("table", "json", "csv", "parquet")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="File for --format parquet.",
)
def sql(statement: str, output_format: str, output: Path | None) -> None:
    """Run one SQL STATEMENT that reads.

    Tables answer to a name (ratings: the latest published version), a version (ratings@12), a day
    (ratings@1998-03-01), quarantine.ratings, and the ledger's runs, publications, metrics, decisions and costs.
    """
    if (output_format == "parquet") != (output is not None):
        raise click.UsageError("--format parquet and --output FILE go together; the other formats go to stdout.")
    from lakehouse.contracts.arrow import records
    from lakehouse.query.sql import query

    result = query(open_lake(), statement)
    if output is not None:
        import pyarrow.parquet as pq

        pq.write_table(result, output)
    else:
        show_records(result.column_names, records(result), output_format, total=result.num_rows)
