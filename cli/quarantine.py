"""Which rows were refused, and why? ``millrace quarantine list``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.group()
def quarantine() -> None:
    """Rows that broke a rule, as they came."""


@quarantine.command("list")
@click.argument("table")
@format_option("table", "json", "csv")
def list_rows(table: str, output_format: str) -> None:
    """List the refused rows of TABLE with every rule they broke, newest first."""
    from lakehouse.errors import UnknownTableError
    from lakehouse.quarantine import Quarantined, quarantined
    from lakehouse.table import declared_tables

    lake = open_lake()
    known = {*lake.names(), *declared_tables()}
    if table not in known:
        raise UnknownTableError.named(table, known)
    snapshot = quarantined(lake, table)
    rows = [Quarantined.model_validate(row) for row in snapshot.arrow().to_pylist()] if snapshot else []
    rows.sort(key=lambda row: (row.quarantined_at, -row.row_number), reverse=True)
    show_records(
        list(Quarantined.model_fields),
        (record_of(row) for row in rows),
        output_format,
        table_columns=_TABLE,
        total=len(rows),
    )


_TABLE = ("batch_id", "row_number", "rules", "row", "quarantined_at")
