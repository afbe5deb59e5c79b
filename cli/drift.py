"""Has a table's content moved? ``millrace drift``: two versions or two windows compared, column by column."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, show_records

if TYPE_CHECKING:
    import pyarrow as pa

    from lakehouse.contracts.table import Table
    from lakehouse.snapshot import Snapshot

_COLUMNS = ("feature", "drifted", "psi", "jensen_shannon", "test", "adjusted_p_value", "reference_rows", "current_rows")


@click.command()
@click.argument("reference")
@click.argument("current", required=False)
@click.option(
    "--column", "columns", multiple=True, help="Column to compare; repeat it.  [default: all but key and time]"
)
@click.option("--days", type=click.IntRange(1), default=14, show_default=True, help="Newest days of the one version.")
@click.option("--against", type=click.IntRange(1), default=56, show_default=True, help="Days before them.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Also write Evidently's HTML report.")
@format_option("table", "json", "csv")
def drift(
    reference: str,
    current: str | None,
    columns: tuple[str, ...],
    days: int,
    against: int,
    report: Path | None,
    output_format: str,
) -> None:
    """Compare REFERENCE with CURRENT (user_stats@1 user_stats@2).

    Without CURRENT the newest days of the one version are compared with the days before them. A column has drifted if
    its index is above 0.2, chance does not explain it, and both sides have at least 300 rows."""
    from features.drift import drift as compare

    lake = open_lake()
    before = lake.resolve(reference)
    chosen = list(columns) or _comparable(before)
    if current is None:
        sides = _windows(before, chosen, timedelta(days=days), timedelta(days=against))
    else:
        after = lake.resolve(current)
        sides = before.arrow(chosen), after.arrow(chosen)
    found = compare(*sides, chosen)
    show_records(_COLUMNS, [one.model_dump() for one in found], output_format)
    if report is not None:
        from features.drift_report import write_report

        write_report(report, *sides, found)
        click.echo(f"Evidently's report: {report}", err=True)


def _comparable(snapshot: Snapshot[Table]) -> list[str]:
    """The version's columns that can be compared and are neither key nor time."""
    from features.drift import comparable
    from lakehouse.contracts.table import Table
    from lakehouse.snapshot import schema_of

    taken: tuple[str | None, ...] = ()
    if snapshot.row is not Table:
        contract = snapshot.row.contract
        taken = (*contract.key, contract.event_time)
    schema = schema_of(snapshot.delta())
    return [field.name for field in schema if field.name not in taken and comparable(field.type)]


def _windows(
    snapshot: Snapshot[Table], columns: list[str], newest: timedelta, before: timedelta
) -> tuple[pa.Table, pa.Table]:
    """(the days before the newest ones, the newest ones up to the last row), by event time."""
    import pyarrow.compute as pc

    from features.entity_frame import time_of
    from lakehouse.snapshot import schema_of

    clock = time_of(schema_of(snapshot.delta()), snapshot.row)
    end = pc.max(snapshot.arrow([clock])[clock]).as_py()
    if end is None:
        empty = snapshot.arrow(columns)
        return empty, empty
    start = end - newest
    return (
        snapshot.arrow(columns, [(clock, ">", start - before), (clock, "<=", start)]),
        snapshot.arrow(columns, [(clock, ">", start)]),
    )
