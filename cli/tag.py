"""Which versions have a name? ``millrace tag``: list tags, set one, remove one."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.command()
@click.argument("reference", required=False)
@click.argument("name", required=False)
@click.option("--delete", is_flag=True, help="Remove the tag: millrace tag ratings golden --delete.")
@format_option("table", "json", "csv")
def tag(reference: str | None, name: str | None, delete: bool, output_format: str) -> None:
    """List tags, or let NAME stand for REFERENCE (ratings@12 golden).

    From then on ratings@golden reads that version, and vacuum keeps it. A tag that is set already moves. Without NAME,
    the tags are listed, of one table if REFERENCE names it."""
    from lakehouse.query import tags

    lake = open_lake()
    if delete:
        if not reference or not name or "@" in reference:
            raise click.UsageError("--delete takes a table and a tag: millrace tag ratings golden --delete.")
        click.echo(f"{reference}@{name} is removed; it stood for version {tags.untag(lake, reference, name)}.")
    elif reference and name:
        click.echo(f"{reference.partition('@')[0]}@{name} is {tags.tag(lake, reference, name)}.")
    else:
        records = [record_of(row) for row in tags.tags(lake, reference)]
        show_records(("table_name", "tag", "version", "tagged_at"), records, output_format, total=len(records))
