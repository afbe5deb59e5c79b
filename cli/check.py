"""Does a version keep what is declared? ``millrace check``: columns, rules, key, freshness and the gate's verdict."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@click.argument("reference")
@format_option("table", "json", "csv")
def check(reference: str, output_format: str) -> None:
    """Check REFERENCE (ratings, ratings@12) against its row model.

    Its rows are read as they are stored. Exit status 1 if anything fails."""
    from lakehouse.query.checks import Check
    from lakehouse.query.checks import check as checked

    found = checked(open_lake(), reference)
    show_records(list(Check.model_fields), [record_of(one) for one in found], output_format, total=len(found))
    if not all(one.passed for one in found):
        click.get_current_context().exit(1)
