"""Which tables are there, and which versions? ``millrace tables`` and ``millrace history``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@format_option("table", "json", "csv")
def tables(output_format: str) -> None:
    """List the tables with versions and rows."""
    from lakehouse.lake import TableInfo

    records = [record_of(info) for info in open_lake().tables()]
    show_records(list(TableInfo.model_fields), records, output_format, table_columns=_TABLE, total=len(records))


@click.command()
@click.argument("table")
@format_option("table", "json", "csv")
def history(table: str, output_format: str) -> None:
    """List the versions of TABLE, newest first."""
    from lakehouse.lake import TableVersion

    records = [record_of(version) for version in open_lake().history(table)]
    show_records(list(TableVersion.model_fields), records, output_format, total=len(records))


_TABLE = ("name", "published", "version", "rows", "day", "description")
