"""How does feedback get into the lake? ``millrace feedback land`` and ``millrace feedback status``."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, record_of, show_records


@click.group()
def feedback() -> None:
    """What users did with recommendations: from the service's log into the lake."""


@feedback.command()
@format_option("table", "json", "csv")
def land(output_format: str) -> None:
    """Publish the logged events through the gate, each once; ratings also become rows of `ratings`."""
    from lakehouse.settings import Settings
    from serving.landing import Landed
    from serving.landing import land as land_feedback

    landed = land_feedback(open_lake(), Settings().state / "serving" / "feedback")
    show_records(list(Landed.model_fields), [record_of(landed)], output_format)


@feedback.command()
@format_option("table", "json", "csv")
def status(output_format: str) -> None:
    """Say how much of the log waits, and what the lake has."""
    from lakehouse.errors import NotPublishedError, UnknownTableError
    from lakehouse.settings import Settings
    from lakehouse.tables import Feedback
    from serving.journal import segments
    from serving.landing import unlanded_bytes

    lake = open_lake()
    folder = Settings().state / "serving" / "feedback"
    try:
        snapshot = lake.latest(Feedback)
        landed = {"feedback": snapshot.reference, "events": snapshot.count()}
    except (UnknownTableError, NotPublishedError):
        landed = {"feedback": "", "events": 0}
    record = {"segments": len(segments(folder)), "unlanded_bytes": unlanded_bytes(lake, folder), **landed}
    show_records(list(record), [record], output_format)
