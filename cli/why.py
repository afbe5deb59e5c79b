"""Why did a task run again? ``millrace why``: the part of its cache key that changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import console, format_option, plain, record_table, show_json

if TYPE_CHECKING:
    from tasks.why import Why


@click.command()
@click.argument("task")
@click.option(
    "--run", help="The run to explain: an id, the start of one, or `last`.  [default: TASK's newest execution]"
)
@click.option("--against", help="The run to compare it with.  [default: the execution before]")
@format_option("table", "json")
def why(task: str, run: str | None, against: str | None, output_format: str) -> None:
    """Name what changed in TASK's cache key since it last ran.

    That is code, contract, input version, parameter, environment lock or engine version. TASK is a name such as train
    or tasks.train.train. What differs in this checkout is named too: it would make TASK run again."""
    from cli.runs import find_run
    from tasks.why import why as ask

    lake = open_lake()
    found = ask(lake, task, find_run(lake, run) if run else None, find_run(lake, against) if against else None)
    if output_format == "json":
        show_json(plain(found.model_dump(exclude={"execution": {"key"}, "against": {"key"}})))
    else:
        _print(found)


def _print(found: Why) -> None:
    this, other = found.execution, found.against
    name = f"{this.task} in {this.execution} ({this.started_at:%Y-%m-%d %H:%M:%S} UTC)"
    if other is None:
        click.echo(f"{name} is the first execution that is recorded.")
    elif found.changes:
        click.echo(f"{name} against {other.execution} ({other.started_at:%Y-%m-%d %H:%M:%S} UTC):")
        console().print(record_table(_COLUMNS, [change.model_dump() for change in found.changes]))
    else:
        click.echo(f"{name} has the same key as {other.execution}.")
    if found.gone:
        click.echo(f"Its cached answer could not be given: {found.gone}.")
    elif other is not None and not found.changes:
        click.echo("It ran all the same: it is never cached, or the cache was another one, emptied, or overwritten.")
    if found.pending:
        click.echo("It would run again here:")
        console().print(record_table(_COLUMNS, [change.model_dump() for change in found.pending]))


_COLUMNS = ("part", "name", "before", "after")
