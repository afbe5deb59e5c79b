"""What is known of a model? ``millrace card`` writes it out of the ledger, ``millrace approve`` adds to it."""

from __future__ import annotations

import click

from cli.lake import open_lake
from cli.output import format_option, printable


@click.command()
@click.argument("version", default="champion")
@click.option("--technical-file", is_flag=True, help="The longer document, in the shape of Annex IV of the EU AI Act.")
@format_option("text", "html", "json")
def card(version: str, technical_file: bool, output_format: str) -> None:
    """Write the model card of VERSION, a number in the registry (default: the champion).

    Every value names the ledger row that it comes from; one without a source ends it with MR-UNSOURCED.
    """
    from tasks import card as documents

    lake = open_lake()
    document = documents.technical_file(lake, version) if technical_file else documents.model_card(lake, version)
    write = {"text": documents.as_text, "html": documents.as_html, "json": documents.as_json}[output_format]
    text = write(document)
    click.echo("\n".join(printable(line) for line in text.splitlines()) if output_format == "text" else text)


@click.command()
@click.argument("version")
@click.option("--by", "person", required=True, help="Who says so; a name that others know.")
@click.option("--note", default="", help="Why, or on what condition.")
@click.option("--refuse", is_flag=True, help="Disagree instead.")
def approve(version: str, person: str, note: str, refuse: bool) -> None:
    """Record that somebody agrees with the use of model VERSION, a number in the registry or `champion`.

    The ledger's `approvals` keeps it and the model card shows it. Nothing waits for it: promotion is the gates' word.
    """
    from datetime import UTC, datetime

    from lakehouse.ledger import Approval
    from tasks.card.record import identify

    lake, now = open_lake(), datetime.now(UTC)
    number, digest = identify(lake, version)
    lake.ledger.append(
        [
            Approval(
                approval_id=f"{number}/{now.isoformat()}",
                model_version=number,
                model_digest=digest,
                approved=not refuse,
                by=person,
                note=note,
                approved_at=now,
            )
        ]
    )
    click.echo(f"{person} {'refuses' if refuse else 'approves'} model version {number} ({digest[:12]}).")
