"""From what was it made, and what was made of it? ``millrace lineage``: a tree, a page, or OpenLineage events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from cli.lake import open_lake
from cli.output import console, format_option, printable, show_json

if TYPE_CHECKING:
    from rich.tree import Tree

    from lakehouse.tracing.lineage import Edge, Graph


@click.command()
@click.argument("what", required=False)
@click.option(
    "--direction",
    type=click.Choice(("up", "down", "both")),
    default="both",
    show_default=True,
    help="What it was made of, what was made of it, or both.",
)
@click.option("--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with a drawing.")
@click.option("--emit", is_flag=True, help="Send the ledger's OpenLineage events to MILLRACE_OPENLINEAGE_URL.")
@format_option("tree", "json")
def lineage(what: str | None, direction: str, page: Path | None, emit: bool, output_format: str) -> None:
    """Show how WHAT was made: a version, batch, run or model.

    WHAT is a table reference (ratings@12), a batch (ratings/1998-04-20), `last`, or the first digits of a run's id or
    a model's digest."""
    if emit:
        if what or page:
            raise click.UsageError("--emit sends the whole ledger; it goes with no WHAT and no --html.")
        _emit()
        return
    if not what:
        raise click.UsageError("Name WHAT: a version, a batch, a run or a model, such as ratings@12.")
    from lakehouse.tracing.lineage import lineage as traced

    graph = traced(open_lake(), what, cast(Literal["up", "down", "both"], direction))
    if page is not None:
        from cli.lineage_page import lineage_page

        page.write_text(lineage_page(graph.folded()), encoding="utf-8")
        click.echo(f"Wrote {page}.")
    elif output_format == "json":
        show_json(graph.model_dump(mode="json"))
    else:
        out = console()
        for tree in _trees(graph.folded(), direction):
            out.print(tree)


def _emit() -> None:
    from lakehouse.errors import OpenLineageError
    from lakehouse.settings import Settings
    from lakehouse.tracing.openlineage import emit

    target = Settings().openlineage_url
    if not target:
        raise OpenLineageError.nowhere()
    click.echo(f"Sent {emit(open_lake(), target)} event(s).")


def _trees(graph: Graph, direction: str) -> list[Tree]:
    """What it was made of and what was made of it, each as a tree; a thing that comes again is named, not unfolded."""
    from rich.text import Text
    from rich.tree import Tree

    def grown(title: str, *, up: bool) -> Tree:
        tree = Tree(Text(f"{_words(graph, graph.focus)}  {title}", style="bold"))
        _grow(tree, graph, graph.focus, set(), up=up)
        return tree

    trees = [grown("was made of", up=True)] if direction != "down" else []
    return trees + ([grown("went into", up=False)] if direction != "up" else [])


def _grow(tree: Tree, graph: Graph, node_id: str, shown: set[str], *, up: bool) -> None:
    from rich.text import Text

    edges = graph.sources(node_id) if up else graph.derived(node_id)
    if not edges and not shown:
        tree.add(Text("nothing that the ledger knows"))
    shown.add(node_id)
    for edge in sorted(edges, key=_order):
        other = edge.source if up else edge.target
        again = other in shown and bool(graph.sources(other) if up else graph.derived(other))
        branch = tree.add(Text(f"{_words(graph, other)}{' (see above)' if again else ''}"))
        if not again:
            _grow(branch, graph, other, shown, up=up)


def _order(edge: Edge) -> int:
    """The nearest reasons first: batches and artifacts, then other tables, the table's own past last."""
    return ("batch", "artifact", "input", "output", "previous").index(edge.kind)


def _words(graph: Graph, node_id: str) -> str:
    node = graph.node(node_id)
    return printable(f"{node.label} ({node.detail})" if node.detail else node.label)
