"""Does the stored table keep what is declared? ``millrace plan``: every difference, and what it touches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, printable, show_json

if TYPE_CHECKING:
    from lakehouse.contracts.evolution import Plan
    from lakehouse.contracts.table import Table


@click.command()
@click.argument("table", required=False)
@click.option("--apply", "applying", is_flag=True, help="Make the additive and widening changes.")
@format_option("text", "json")
def plan(table: str | None, applying: bool, output_format: str) -> None:
    """Compare declared tables with stored ones.

    Of all tables, or of TABLE alone. Exit status 1 if a change is breaking."""
    from cli.touched import with_dependents
    from lakehouse.contracts.evolution import apply
    from lakehouse.contracts.evolution import plan as planned

    lake = open_lake()
    plans = with_dependents([planned(lake, row_model) for row_model in _chosen(table)])
    if output_format == "json":
        show_json([{**each.model_dump(mode="json"), "verdict": each.verdict} for each in plans])
    else:
        click.echo("\n".join(line for each in plans for line in _lines(each)))
    if any(each.breaking for each in plans):
        # What can be applied is left as it is too: a half-made plan is harder to read than a refused one.
        click.get_current_context().exit(1)
    for each in plans if applying else ():
        version = apply(lake, each)
        if version is not None:
            click.echo(f"{each.table} is brought up to its declaration at version {version}.", err=True)


def _chosen(table: str | None) -> list[type[Table]]:
    """The row models to compare; the ledger's own tables only by name."""
    import features.tables  # noqa: F401  (declares the feature tables)
    from lakehouse.contracts.table import declared_tables
    from lakehouse.errors import UnknownTableError
    from lakehouse.ledger import SYSTEM_TABLES

    known = declared_tables()
    if table is None:
        return [row_model for name, row_model in known.items() if name not in SYSTEM_TABLES]
    if table not in known:
        raise UnknownTableError.named(table, known)
    return [known[table]]


def _lines(plan: Plan) -> list[str]:
    at = "" if plan.version is None else f"@{plan.version}"
    said = {
        "new": "not there yet; its first batch makes it",
        "equal": "as declared",
        "additive": "additive",
        "widening": "widening: rows are written anew",
        "breaking": "breaking",
    }
    lines = [f"{plan.table}{at}: {said[plan.verdict]}"]
    lines += [f"  {change.kind:<9} {printable(change.text)}" for change in plan.changes]
    for what, names in plan.touches if plan.changes else ():
        if names:
            lines.append(f"  touches {what.replace('_', ' ')}: {', '.join(names)}")
    if plan.breaking:
        lines.append(
            "  way out: declare the breaking ones as they are stored, or declare the new form under a new table name"
        )
    return lines
