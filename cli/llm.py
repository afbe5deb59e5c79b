"""How is the language model served and judged? ``millrace llm``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import Record, console, format_option, printable, record_table, show_json

if TYPE_CHECKING:
    from models.llm.evaluation import Evaluation


@click.group()
def llm() -> None:
    """Serve the language model's components, and judge prompts and models."""


model_option = click.option(
    "--model", default="", metavar="FOLDER", help="A Hugging Face model.  [default: the small model of the set-up]"
)


@llm.command()
@model_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8100, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--max-waiting", default=64, show_default=True, type=click.IntRange(min=1), help="Questions at once.")
@click.option("--timeout", default=30.0, show_default=True, type=click.FloatRange(min=0.1), help="Seconds a request.")
def serve(model: str, host: str, port: int, max_waiting: int, timeout: float) -> None:
    """Serve the components over HTTP, with vLLM's server behind them, until interrupted."""
    from models.llm.weights import named_model
    from serving.components.server import ServerConfig
    from serving.components.service import serve as run

    lake = open_lake()
    weights = named_model(model)
    click.echo(f"starting vLLM with {weights.name}", err=True)
    run(
        lake,
        weights,
        host=host,
        port=port,
        max_waiting=max_waiting,
        timeout=timeout,
        config=ServerConfig(),
        announce=lambda url: click.echo(f"serving on {url}", err=True),
    )


@llm.command()
@model_option
@click.option(
    "--component",
    "name",
    type=click.Choice(["movie_card", "explain"]),
    default="movie_card",
    show_default=True,
)
@click.option(
    "--prompt", type=click.Path(exists=True, dir_okay=False), help="A template to try in the place of its own."
)
@click.option(
    "--accept", is_flag=True, help="Make it the champion, and its prompt the component's, unless it is worse."
)
@format_option("text", "json")
def evaluate(model: str, name: str, prompt: str | None, accept: bool, output_format: str) -> None:
    """Have a prompt and a model answer the golden questions, and hold them to the champion.

    Exit status 1 if they are refused. Questions that the lake's stored answers have are not asked again.
    """
    from models.llm.errors import ConfigurationRefusedError
    from models.llm.weights import named_model
    from tasks.llm_gate import accept as make_champion
    from tasks.llm_gate import evaluate as run
    from tasks.llm_gate import write_down

    lake = open_lake()
    evaluation = run(lake, name, named_model(model), Path(prompt) if prompt else None)
    write_down(lake, evaluation)
    if output_format == "json":
        show_json(evaluation.model_dump(mode="json"))
    else:
        _print(evaluation)
    if evaluation.verdict.outcome == "refused":
        raise ConfigurationRefusedError.judged(name, evaluation.model, evaluation.verdict.reason)
    if accept:
        make_champion(evaluation, Path(prompt) if prompt else None)


@llm.command()
@model_option
@click.option("--batches", default=1, show_default=True, type=click.IntRange(min=1), help="Batches to ask again.")
@format_option("text", "json")
def replay(model: str, batches: int, output_format: str) -> None:
    """Ask batches of movie cards again, each as it was asked, and compare the texts with those on record.

    Exit status 1 if one differs. Answers that were given online were asked alone and are not replayed.
    """
    from lakehouse.tables import Movie
    from models.llm.engine import Engine
    from models.llm.movie_card import MOVIE_CARD, MovieCardInput
    from models.llm.replay import replay as run
    from models.llm.weights import named_model
    from tasks.llm_gate import answer_store

    lake, weights = open_lake(), named_model(model)
    rows = [
        MovieCardInput(item_id=m.item_id, title=m.title, year=m.year, genres=m.genres)
        for m in lake.latest(Movie).rows()
    ]
    engine = partial(Engine, weights)
    done = run(MOVIE_CARD, rows, model=weights, store=answer_store(lake), engine=engine, batches=batches)
    if output_format == "json":
        show_json(done.model_dump(mode="json"))
    else:
        click.echo(f"{done.batches} batch(es), {done.answers} answer(s) of class {done.determinism} asked again")
        click.echo(f"{done.skipped} batch(es) can't be asked again as they were")
        for asked, before, now in done.different[:5]:
            click.echo(printable(f"{asked}: {before} on record, {now} now"))
        click.echo("equal" if not done.different else f"{len(done.different)} answer(s) differ")
    if done.different:
        click.get_current_context().exit(1)


def _print(evaluation: Evaluation) -> None:
    out = console()
    minus = {one.metric: one for one in evaluation.verdict.compared}
    records: list[Record] = [
        {
            "metric": m.metric,
            "mean": f"{m.mean:.3f}",
            "95 %": f"{m.low:.3f} to {m.high:.3f}",
            "cases": m.cases,
            "minus the champion": f"{c.mean:+.3f} ({c.low:+.3f} to {c.high:+.3f})"
            if (c := minus.get(m.metric))
            else "-",
        }
        for m in evaluation.metrics
    ]
    title = f"{evaluation.component} by {evaluation.model}, configuration {evaluation.configuration[:12]}"
    out.print(record_table(list(records[0]), records, title=title))
    for name, value in evaluation.described.items():
        click.echo(f"{name}: {value:.2f}")
    click.echo(f"{evaluation.verdict.outcome}: {evaluation.verdict.reason}")
