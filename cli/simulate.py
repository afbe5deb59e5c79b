"""What would another schedule have brought? ``millrace simulate``: the past again, under a clock of its own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from cli.output import console, format_option, record_table, show_json


@click.command()
@click.option("--from", "first", type=click.DateTime(["%Y-%m-%d"]), default="1998-02-24", show_default=True)
@click.option("--to", "last", type=click.DateTime(["%Y-%m-%d"]), default="1998-04-20", show_default=True)
@click.option(
    "--holdout-days", type=click.IntRange(1), default=14, show_default=True, help="Newest days, kept for the gates."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seeds everything random.")
@click.option("--incidents/--no-incidents", default=True, show_default=True, help="Whether things go wrong.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the page goes.  [default: reports/ in MILLRACE_STATE]",
)
@format_option("table", "json")
def simulate(
    first: datetime,
    last: datetime,
    holdout_days: int,
    seed: int,
    incidents: bool,
    report: Path | None,
    output_format: str,
) -> None:
    """Serve MovieLens' own days by four policies: retrained never, weekly, nightly, on drift.

    Trainings, gates, drift and the rule to retrain are those of the nightly job. A corrupt feed, a shift of tastes, a
    bad challenger and a bad release are planted; the page shows when each was noticed, and what every policy won and
    cost. No lake is read or written but one that is thrown away."""
    import os
    from tempfile import TemporaryDirectory

    # Flyte would warn of types that it can't show in a console; here it is not asked to.
    os.environ.setdefault("FLYTE_SDK_LOGGING_LEVEL", "40")

    from lakehouse.movielens import movielens
    from lakehouse.settings import Settings
    from models.movielens import movielens_config
    from tasks.progress import announced, bar
    from tasks.simulation.model import Script
    from tasks.simulation.page import render
    from tasks.simulation.play import require
    from tasks.simulation.play import simulate as play
    from tasks.simulation.trainings import lighter

    script = Script(first=first.date(), last=last.date(), holdout_days=holdout_days, seed=seed, incidents=incidents)
    archive = movielens()
    require(script, archive)
    state = Settings().state
    page = report or state / "reports" / f"simulation-{script.first}-{script.last}-{seed}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    state.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="simulation-", dir=state) as folder, announced("simulate"):
        found = play(script, archive, lighter(movielens_config(seed)), Path(folder), bar("days"))
    page.write_text(render(found), encoding="utf-8")
    if output_format == "json":
        show_json(found.model_dump(mode="json"))
    else:
        policies = [
            {
                "policy": one.policy,
                "NDCG@10": round(one.ndcg.value, 4),
                "over never": "" if one.policy == "never" else f"{one.gain.value:+.4f}",
                "95 % interval": "" if one.policy == "never" else f"{one.gain.low:+.4f} to {one.gain.high:+.4f}",
                "lists with a hit": f"{one.hit_share:.1%}",
                "trainings": one.trainings,
                "refused": one.refused,
                "CPU seconds": round(one.cpu_seconds, 1),
            }
            for one in found.policies
        ]
        incident = ("kind", "day", "noticed_on", "noticed_by")
        if policies:
            console().print(record_table(list(policies[0]), policies))
        if found.incidents:
            console().print(record_table(incident, [one.model_dump() for one in found.incidents]))
    click.echo(f"Page: {page}", err=True)
