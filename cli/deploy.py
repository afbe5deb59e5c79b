"""Which model does the running service answer with? ``millrace deploy`` asks its /admin routes, with the admin key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.output import console, format_option, record_table, show_json

if TYPE_CHECKING:
    from serving.schemas import DeploymentStatus, SlotStatus


@click.group()
def deploy() -> None:
    """Blue and green: stage a model, switch to it, go back. MILLRACE_SERVING_URL says which service."""


@deploy.command()
@format_option("table", "json")
def status(output_format: str) -> None:
    """What answers, what waits, and how their lists compare."""
    from serving.client import Client

    with Client() as client:
        _show(client.status(), output_format)


@deploy.command()
@click.argument("model", default="champion")
@format_option("table", "json")
def stage(model: str, output_format: str) -> None:
    """Load MODEL, a registry version or alias (default: champion), beside the one that answers, and compare them."""
    from serving.client import Client

    with Client() as client:
        _show(client.stage(model), output_format)


@deploy.command()
@click.option(
    "--canary", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Only for this share of users."
)
@click.option("--force", is_flag=True, help="Also if the replay of the last requests speaks against it.")
@format_option("table", "json")
def switch(canary: float | None, force: bool, output_format: str) -> None:
    """Let the staged model answer; the one before stays loaded."""
    from serving.client import Client

    with Client() as client:
        _show(client.switch(canary=canary, force=force), output_format)


@deploy.command()
@click.option("--reason", default="asked for", show_default=True, help="Why; the ledger keeps it.")
@format_option("table", "json")
def rollback(reason: str, output_format: str) -> None:
    """Go back to the model before, or end a canary."""
    from serving.client import Client

    with Client() as client:
        _show(client.rollback(reason), output_format)


def _show(status: DeploymentStatus, output_format: str) -> None:
    if output_format == "json":
        show_json(status.model_dump(mode="json"))
        return
    slots: list[tuple[str, SlotStatus]] = [("active", status.active)]
    if status.staged is not None:
        slots.append((f"canary {status.canary:.0%}" if status.canary else "beside it", status.staged))
    rows = [
        {
            "role": role,
            "slot": slot.slot,
            "version": slot.model.version,
            "digest": slot.model.digest[:12],
            "trained_until": slot.model.trained_until.date().isoformat(),
            "answers": slot.answers,
            "failures": slot.failures,
            "p99_ms": None if slot.p99_ms is None else round(slot.p99_ms, 2),
        }
        for role, slot in slots
    ]
    out = console()
    out.print(record_table(list(rows[0]), rows))
    if status.shadow is not None:
        shadow = status.shadow
        click.echo(
            f"Of the last {shadow.requests} requests the two share {shadow.overlap:.0%} of their lists; "
            f"p99 {shadow.active_p99_ms:.1f} ms and {shadow.staged_p99_ms:.1f} ms, {shadow.failures} failure(s)."
        )
    click.echo(f"Last: {status.last_act}")
