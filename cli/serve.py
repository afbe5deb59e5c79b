"""How are recommendations served? ``millrace serve``: one process on the loopback address, with keys."""

from __future__ import annotations

import click

from cli.lake import open_lake


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--clock",
    type=click.Choice(["wall", "lake"]),
    default="wall",
    show_default=True,
    help="What time it is: now, or the end of the lake's newest day, for a lake that replays the past.",
)
@click.option("--no-auth", is_flag=True, help="Ask for no API key; on a loopback address only.")
def serve(host: str, port: int, clock: str, no_auth: bool) -> None:
    """Serve the champion: recommendations, reasons, feedback, metrics, and a page to look at them.

    Callers send the key in MILLRACE_API_KEY as a bearer token, /admin asks for MILLRACE_ADMIN_KEY.
    """
    import os
    from datetime import UTC, datetime, timedelta

    from features.store import FeatureStore
    from lakehouse.settings import Settings
    from serving.app import create_app
    from serving.server import keys, listen, run
    from serving.service import Service
    from serving.settings import ServingSettings

    # A registry that is away must not hold up what is loaded.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    settings = ServingSettings()
    api_key, admin_key = keys(settings, host, no_auth=no_auth)
    lake = open_lake()
    listening = listen(host, port)
    state = Settings().state
    service = Service.open(lake, FeatureStore.open(state), state, settings, replay=clock == "lake")
    newest = datetime.fromtimestamp(service.histories.newest / 1e6, UTC)
    if service.clock.now() - newest > timedelta(days=30):
        click.echo(f"The newest rating is of {newest.date()}: to replay that time, add --clock lake.", err=True)
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}/"
    model = service.deployments.route.active.registered
    app = create_app(service, api_key=api_key, admin_key=admin_key, open_access=no_auth)
    run(app, listening, started=lambda: click.echo(f"Model version {model.version} answers at {url}"))
