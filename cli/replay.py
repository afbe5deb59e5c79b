"""Does a run, done again, give the same? ``millrace replay``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, plain, show_json


@click.command()
@click.argument("run")
@click.option("--step", default="", metavar="TASK", help="Only this task, such as train.")
@format_option("text", "json")
@click.pass_context
def replay(ctx: click.Context, run: str, step: str, output_format: str) -> None:
    """Do RUN again and compare: the same code, versions and seed, in a scratch state that is removed.

    Prints `equal`, or the first thing that differs: prompt, table@version, training set, model or metric; then the exit
    status is 3. The language model's answers are taken from the ledger."""
    from cli.runs import find_run
    from tasks.replay import replay as again

    lake = open_lake()
    verdict = again(lake, find_run(lake, run), step)
    if output_format == "json":
        show_json(plain(verdict.model_dump()))
    else:
        click.echo("equal" if verdict.equal else verdict.difference)
        if verdict.note:
            click.echo(verdict.note, err=True)
    ctx.exit(0 if verdict.equal else 3)
