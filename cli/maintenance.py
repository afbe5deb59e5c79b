"""How is a lake kept fast and small? ``millrace optimize``, ``millrace vacuum`` and ``millrace maintain``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@format_option("table", "json", "csv")
def optimize(tables: tuple[str, ...], output_format: str) -> None:
    """Make few large files of many small ones, clustered as declared, where that pays; the rows stay the same."""
    from lakehouse.upkeep.optimize import OptimizeReport
    from lakehouse.upkeep.optimize import optimize as optimize_table

    lake = open_lake()
    records = [record_of(optimize_table(lake, name)) for name in tables or lake.names()]
    show_records(list(OptimizeReport.model_fields), records, output_format, total=len(records))


@click.command()
@click.argument("tables", nargs=-1, metavar="[TABLE]...")
@click.option("--yes", is_flag=True, help="Remove; without it, only say what would go.")
@format_option("table", "json", "csv")
def vacuum(tables: tuple[str, ...], yes: bool, output_format: str) -> None:
    """Remove the files of versions that nobody needs: not published last, not pinned, not recent."""
    from lakehouse.upkeep.vacuum import VacuumReport
    from lakehouse.upkeep.vacuum import vacuum as vacuum_table

    lake = open_lake()
    records = [record_of(vacuum_table(lake, name, dry_run=not yes)) for name in tables or lake.names()]
    show_records(list(VacuumReport.model_fields), records, output_format, total=len(records))
    if not yes and any(record["files"] for record in records):
        click.echo("Nothing was removed; --yes removes it.", err=True)


@click.command()
@format_option("table", "json", "csv")
def maintain(output_format: str) -> None:
    """Optimize and vacuum every table, and write what was saved into the ledger."""
    from lakehouse.ledger import Maintenance
    from lakehouse.upkeep.maintenance import maintain as maintain_lake

    report = maintain_lake(open_lake())
    records = [record_of(row) for row in report.tables]
    show_records(list(Maintenance.model_fields), records, output_format, table_columns=_TABLE, total=len(records))
    for name in report.busy:
        click.echo(f"{name} was being written and is left for the next time.", err=True)


_TABLE = (
    "table_name",
    "compacted",
    "files_before",
    "files_after",
    "bytes_before",
    "bytes_after",
    "removed_files",
    "removed_bytes",
    "removed_versions",
)
