"""Which table version broke a metric? ``millrace bisect``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, plain, show_json

if TYPE_CHECKING:
    from tasks.bisection import Broken, Point


@click.command()
@click.option("--metric", required=True, help="Such as ndcg, or 'popularity NDCG@10'; a bare one is the challenger's.")
@click.option("--good", required=True, metavar="RUN", help="The run that was better.")
@click.option("--bad", required=True, metavar="RUN", help="The later one that was worse.")
@format_option("text", "json")
def bisect(metric: str, good: str, bad: str, output_format: str) -> None:
    """Name the table version between two runs that made a metric worse.

    The published versions between the runs are halved, with one training a step: the same code, seed, parameters and
    champion, so that only data differs. Trainings are cached in the state folder; nothing is written into the lake."""
    from cli.runs import find_run
    from tasks.bisection import bisect as find

    lake = open_lake()
    runs = find_run(lake, good), find_run(lake, bad)
    found = find(lake, metric, *runs, progress=_tell)
    if output_format == "json":
        show_json(plain(found.model_dump()))
    else:
        _print(found)


def _tell(point: Point) -> None:
    click.echo(f"{'good' if point.good else 'bad '}  {point.value:.4f}  with {point.after}", err=True)


def _print(found: Broken) -> None:
    click.echo(
        f"{found.broke.reference} broke it (batch {found.broke.batch_id}, day {found.broke.day}); "
        f"with {found.before} it was good."
    )
    click.echo(
        f"{found.metric}: {found.good_value:.4f} in run {found.good}, {found.bad_value:.4f} in run {found.bad}; "
        f"{found.steps} versions between, {len(found.tried)} trainings."
    )
    if found.note:
        click.echo(found.note, err=True)
