"""How does a table go back? ``millrace restore``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, show_json


@click.command()
@click.argument("reference", metavar="TABLE@VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@format_option("text", "json")
def restore(reference: str, yes: bool, output_format: str) -> None:
    """Publish an old version's rows again; batches published since are withdrawn and may come again."""
    from lakehouse.upkeep.restore import restore as restore_version
    from lakehouse.upkeep.restore import to_withdraw

    lake = open_lake()
    target = lake.resolve(reference)
    batches = to_withdraw(lake, target)
    click.echo(f"{target} has {target.count()} rows, {lake.resolve(target.name)} is what readers get now.", err=True)
    for batch in batches:
        click.echo(f"withdraws {batch.batch_id} ({batch.rows_published} rows, version {batch.version})", err=True)
    if not yes:
        click.confirm(f"Restore {target}?", abort=True, err=True)
    snapshot = restore_version(lake, target.reference)
    if output_format == "json":
        show_json(
            {
                "table": snapshot.name,
                "version": snapshot.version,
                "restored_from": target.version,
                "rows": snapshot.count(),
                "withdrawn": [batch.batch_id for batch in batches],
            }
        )
    else:
        click.echo(f"{snapshot} has the rows of {target} and is published.")
