"""What changed between two versions? ``millrace diff``: columns, and rows added, removed and changed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import MAX_ROWS, Record, format_option, show_records

if TYPE_CHECKING:
    from lakehouse.query.diff import Diff, RowChange


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--key", multiple=True, help="Column that tells rows apart; repeat it.  [default: the row model's key]")
@click.option("--counts", "counts_only", is_flag=True, help="Only say how many rows changed.")
@format_option("table", "json", "csv")
def diff(before: str, after: str, key: tuple[str, ...], counts_only: bool, output_format: str) -> None:
    """Show what changed from BEFORE to AFTER (ratings@1 ratings@2).

    Both name versions of one table. A changed row is shown with its key and the columns that differ."""
    from lakehouse.query.diff import Diff

    lake = open_lake()
    found = Diff(lake.resolve(before), lake.resolve(after), key or None)
    if counts_only:
        show_records(("added", "removed", "changed"), [vars(found.counts())], output_format)
        return
    limit = MAX_ROWS if output_format == "table" else None
    rows = (_row(found, change) for change in found.rows(limit))
    total = len(found.columns) + found.counts().total if limit else None
    show_records(("change", "columns", "before", "after"), chain(_columns(found), rows), output_format, total=total)


def _columns(found: Diff) -> Iterator[Record]:
    words = {(True, False): "column removed", (False, True): "column added", (True, True): "column retyped"}
    for change in found.columns:
        kind = words[change.before is not None, change.after is not None]
        yield {"change": kind, "columns": [change.column], "before": change.before, "after": change.after}


def _row(found: Diff, change: RowChange) -> Record:
    """An added or removed row whole, a changed one by what it takes to see the change."""
    shown = [*found.key, *change.columns] if change.kind == "changed" else None
    sides = [
        side if side is None or shown is None else {name: side[name] for name in dict.fromkeys(shown)}
        for side in (change.before, change.after)
    ]
    return {"change": change.kind, "columns": list(change.columns), "before": sides[0], "after": sides[1]}
