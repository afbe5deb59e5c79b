"""How do data, model and service stand? ``millrace monitor``: the same rules as the alerts, without Prometheus."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli.lake import open_lake
from cli.output import console, format_option, record_of, record_table, show_json


@click.command()
@click.option("--at", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="As at this instant (UTC).")
@format_option("table", "json")
def monitor(at: datetime | None, output_format: str) -> None:
    """Check freshness, refused batches, drift, decay and promotions in the lake, and ask the service if it runs.

    Exit status 1 if a rule has fired."""
    from lakehouse.errors import MillraceError
    from serving.client import Client
    from serving.monitor import Finding, check

    instant = at.replace(tzinfo=UTC) if at is not None else datetime.now(UTC)
    verdict = check(open_lake(), instant, note=False)
    try:
        with Client(timeout=5) as client:
            service: dict[str, object] = client.health().model_dump(mode="json")
    except MillraceError as error:
        service = {"status": "no answer", "why": error.message}
    if output_format == "json":
        show_json({**verdict.model_dump(mode="json"), "service": service})
    else:
        console().print(record_table(list(Finding.model_fields), [record_of(one) for one in verdict.findings]))
        click.echo(verdict.reason)
        click.echo(f"Service: {service['status']}" + "".join(f"\n  {text}" for text in _remarks(service)))
    if any(one.fired for one in verdict.findings):
        click.get_current_context().exit(1)


def _remarks(service: dict[str, object]) -> list[str]:
    """What does not answer, one sentence each."""
    if "why" in service:
        return [str(service["why"])]
    degraded = service["degraded"]
    return [str(one) for one in degraded] if isinstance(degraded, list) else []
