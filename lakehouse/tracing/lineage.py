"""From what was a version, a model or a run made, and what was made of it? A graph of pinned things, from the ledger.

| ledger row | gives |
| --- | --- |
| publication | batch → table@version; table@version before → table@version; its ``inputs`` → table@version |
| run | inputs → training set → model → run → report; other artifacts → run |
| promotion | what is said of a model: champion since when |

Every edge goes from what was there before to what was made of it, and there is no way round in a circle.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import LineageError, MillraceError
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Promotion, Publication, Run
from lakehouse.upkeep.restore import withdrawn

NodeKind = Literal["batch", "table", "artifact", "training_set", "model", "run", "report"]
EdgeKind = Literal["batch", "previous", "input", "artifact", "output"]
Direction = Literal["up", "down", "both"]

#: Digits of a digest or run id that are enough to name it.
MIN_PREFIX = 4


class Node(BaseModel):
    """One pinned thing.

    Attributes:
        id: kind and name, such as ``table:ratings@12`` or ``model:<digest>``.
        kind: what it is.
        label: what people call it.
        detail: what the ledger says of it, in a few words.
        at: when it was made (UTC); None where the ledger doesn't say.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: NodeKind
    label: str
    detail: str = ""
    at: datetime | None = None

    @property
    def name(self) -> str:
        """Its id without the kind: the reference, the whole digest, the path."""
        return self.id.partition(":")[2]


class Edge(BaseModel):
    """One step: ``target`` was made of ``source``."""

    model_config = ConfigDict(frozen=True)

    source: str
    target: str
    kind: EdgeKind


class Graph(BaseModel):
    """Pinned things and how each came from others; a directed acyclic graph.

    Attributes:
        focus: id of the node that was asked about.
        nodes: every source before what was made of it.
        edges: among these nodes.
    """

    model_config = ConfigDict(frozen=True)

    focus: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def node(self, node_id: str) -> Node:
        """The node of that id; KeyError where there is none."""
        found = next((node for node in self.nodes if node.id == node_id), None)
        if found is None:
            raise KeyError(node_id)
        return found

    def sources(self, node_id: str) -> list[Edge]:
        """Edges from what a node was made of."""
        return [edge for edge in self.edges if edge.target == node_id]

    def derived(self, node_id: str) -> list[Edge]:
        """Edges to what was made of a node."""
        return [edge for edge in self.edges if edge.source == node_id]

    def folded(self) -> Graph:
        """The same graph for people: three or more versions in a row that only batches led to become one node."""
        return _folded(self)


def lineage(lake: Lakehouse, what: str, direction: Direction = "both") -> Graph:
    """The lineage of one thing.

    Args:
        lake: whose ledger is read.
        what: a table reference (``ratings@12``, ``ratings``), a batch (``ratings/1998-04-20``), a run's id, a model's
            or training set's digest or its first digits (four at least), ``last`` for the newest run.
        direction: ``up`` for what it was made of, ``down`` for what was made of it.

    Raises:
        LineageError: the ledger knows no such thing, or several begin so.
    """
    whole = _whole(lake)
    focus = _focus(lake, whole, what.strip())
    kept = {focus}
    if direction != "down":
        kept |= _reachable(focus, _by(whole.edges, "target"))
    if direction != "up":
        kept |= _reachable(focus, _by(whole.edges, "source"))
    return Graph(
        focus=focus,
        nodes=tuple(node for node in whole.nodes if node.id in kept),
        edges=tuple(edge for edge in whole.edges if edge.source in kept and edge.target in kept),
    )


class _Builder:
    """Nodes and edges as the ledger's rows give them; of a node that comes twice, the fuller word counts."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.edges: dict[tuple[str, str], Edge] = {}

    def add(self, kind: NodeKind, name: str, *, label: str = "", detail: str = "", at: datetime | None = None) -> str:
        node_id = f"{kind}:{name}"
        known = self.nodes.get(node_id)
        if known is None or (detail and not known.detail):
            self.nodes[node_id] = Node(id=node_id, kind=kind, label=label or name, detail=detail, at=at)
        return node_id

    def link(self, source: str, target: str, kind: EdgeKind) -> None:
        if source != target:
            self.edges.setdefault((source, target), Edge(source=source, target=target, kind=kind))

    def leads_to(self, source: str, target: str) -> bool:
        return target in _reachable(source, _by(self.edges.values(), "source"))


def _whole(lake: Lakehouse) -> Graph:
    """Everything that the ledger knows, every source before what was made of it."""
    builder = _Builder()
    publications = lake.publications()
    gone = withdrawn(publications)
    by_table: dict[str, list[Publication]] = defaultdict(list)
    for publication in sorted(publications, key=lambda p: (p.version, p.published_at)):
        by_table[publication.table_name].append(publication)
    for own in by_table.values():
        previous: str | None = None
        for publication in own:
            node = _version(builder, publication, withdrawn=publication.publication_id in gone)
            before = previous
            if publication.restored_from is not None:
                before = f"table:{publication.table_name}@{publication.restored_from}"
            if before is not None and before in builder.nodes:
                builder.link(before, node, "previous")
            if publication.published:
                previous = node
    promoted: dict[str, list[Promotion]] = defaultdict(list)
    for promotion in lake.ledger.read(Promotion):
        promoted[promotion.model_digest].append(promotion)
    for run in lake.ledger.read(Run):
        _run(builder, run, promoted)
    for digest, rows in promoted.items():  # of a run that was not recorded
        builder.add("model", digest, label=f"model {digest[:12]}", detail=_champion(rows), at=rows[0].promoted_at)
    return Graph(focus="", nodes=tuple(_ordered(builder)), edges=tuple(builder.edges.values()))


def _version(builder: _Builder, publication: Publication, *, withdrawn: bool) -> str:
    reference = f"{publication.table_name}@{publication.version}"
    words = [f"{publication.rows_total} rows"]
    words += [publication.kind] if publication.kind != "batch" else []
    words += ["withdrawn"] if withdrawn else [] if publication.published else ["refused"]
    node = builder.add("table", reference, detail=", ".join(words), at=publication.published_at)
    if publication.kind in ("batch", "requeue"):
        name = f"{publication.table_name}/{publication.batch_id}"
        counts = f"{publication.rows_in} rows in, {publication.rows_quarantined} quarantined"
        batch = builder.add("batch", name, label=f"batch {name}", detail=counts, at=publication.published_at)
        builder.link(batch, node, "batch")
    for made_from in publication.inputs:
        if publication.restored_from is None:
            source = builder.add("table", made_from)
            own = made_from.rpartition("@")[0] == publication.table_name
            builder.link(source, node, "previous" if own else "input")
    return node


def _run(builder: _Builder, run: Run, promoted: dict[str, list[Promotion]]) -> None:
    artifacts: dict[str, str] = json.loads(run.artifacts)
    verdict = run.verdict.partition(":")[0]
    detail = f"{run.workflow} of {run.day}, {verdict}"
    node = builder.add("run", run.run_id, label=f"run {run.run_id}", detail=detail, at=run.finished_at)
    made = node
    if model := artifacts.pop("model", None):
        champion = _champion(promoted.get(model, []))
        made = builder.add("model", model, label=f"model {model[:12]}", detail=champion, at=run.finished_at)
        builder.link(made, node, "artifact")
    if rows := artifacts.pop("training_set", None):
        training_set = builder.add("training_set", rows, label=f"training set {rows[:12]}")
        builder.link(training_set, made, "artifact")
        made = training_set
    for reference in run.inputs:
        builder.link(builder.add("table", reference), made, "input")
    for name, digest in sorted(artifacts.items()):
        artifact = builder.add("artifact", f"{name}/{digest}", label=f"{name} {digest[:12]}")
        builder.link(artifact, node, "artifact")
    for reference in run.outputs:
        output = builder.add("table", reference)
        # What a run wrote before it trained is behind its own training set already.
        if not builder.leads_to(output, node):
            builder.link(node, output, "output")
    if run.report:
        report = builder.add("report", run.report, label=run.report.rpartition("/")[2], at=run.finished_at)
        builder.link(node, report, "output")


def _champion(promotions: list[Promotion]) -> str:
    return f"champion of {', '.join(sorted({str(p.day) for p in promotions}))}" if promotions else ""


def _ordered(builder: _Builder) -> Iterator[Node]:
    """Every source before what was made of it; otherwise as they were found."""
    from graphlib import TopologicalSorter

    sorter: TopologicalSorter[str] = TopologicalSorter({node: [] for node in builder.nodes})
    for source, target in builder.edges:
        sorter.add(target, source)
    for node in sorter.static_order():
        yield builder.nodes[node]


def _focus(lake: Lakehouse, whole: Graph, what: str) -> str:
    ids = {node.id for node in whole.nodes}
    names = {node.name: node.id for node in whole.nodes if node.kind != "artifact"}
    runs = [node.id for node in whole.nodes if node.kind == "run"]
    if what == "last" and runs:
        newest = max((node for node in whole.nodes if node.kind == "run"), key=lambda node: str(node.at))
        return newest.id
    if what in ids:
        return what
    if what in names:
        return names[what]
    if len(what) >= MIN_PREFIX:
        found = [node for node in whole.nodes if node.kind in ("run", "model", "training_set", "artifact")]
        starts = [node.id for node in found if node.name.rpartition("/")[2].startswith(what)]
        if len(starts) > 1:
            raise LineageError.ambiguous(what, sorted(starts))
        if starts:
            return starts[0]
    try:
        reference = lake.resolve(what).reference
    except MillraceError as error:
        near = difflib.get_close_matches(what, [*names, *_tables(whole)], n=3, cutoff=0.5)
        raise LineageError.unknown(what, near) from error
    if f"table:{reference}" not in ids:
        raise LineageError.unpublished(reference)
    return f"table:{reference}"


def _tables(whole: Graph) -> set[str]:
    return {node.name.rpartition("@")[0] for node in whole.nodes if node.kind == "table"}


def _by(edges: Iterable[Edge], end: Literal["source", "target"]) -> dict[str, list[str]]:
    """The neighbours of each node: what it leads to, or (by target) what leads to it."""
    found: dict[str, list[str]] = defaultdict(list)
    for edge in edges:
        here, there = (edge.source, edge.target) if end == "source" else (edge.target, edge.source)
        found[here].append(there)
    return found


def _reachable(start: str, neighbours: dict[str, list[str]]) -> set[str]:
    seen, todo = {start}, [start]
    while todo:
        fresh = [node for node in neighbours.get(todo.pop(), ()) if node not in seen]
        seen.update(fresh)
        todo += fresh
    return seen


def _folded(graph: Graph) -> Graph:
    into, out = _by(graph.edges, "target"), _by(graph.edges, "source")
    kinds = {(edge.source, edge.target): edge.kind for edge in graph.edges}
    nodes = {node.id: node for node in graph.nodes}

    def plain(node: Node) -> bool:
        """A version between two others of its table, with nothing but its own batches beside."""
        if node.kind != "table" or node.id == graph.focus:
            return False
        before = [kinds[(source, node.id)] for source in into.get(node.id, ())]
        after = [kinds[(node.id, target)] for target in out.get(node.id, ())]
        return set(before) <= {"previous", "batch"} and after == ["previous"] and before.count("previous") <= 1

    def only(batch: str) -> bool:
        return batch != graph.focus and len(out.get(batch, ())) == 1 and not into.get(batch)

    stands_for: dict[str, str] = {}
    made: dict[str, Node] = {}
    for node in graph.nodes:
        if node.id in stands_for or not plain(node):
            continue
        chain = [node]
        while plain(follower := nodes[out[chain[-1].id][0]]):
            chain.append(follower)
        if len(chain) < 3:
            continue
        first, last = chain[0].name, chain[-1].name
        batches = [b for n in chain for b in into.get(n.id, ()) if kinds[(b, n.id)] == "batch" and only(b)]
        folded = Node(
            id=f"table:{first}…{last}",
            kind="table",
            label=f"{first} … {last.rpartition('@')[2]}",
            detail=f"{len(chain)} versions, {len(batches)} batches",
            at=chain[-1].at,
        )
        made[folded.id] = folded
        stands_for |= dict.fromkeys([*(n.id for n in chain), *batches], folded.id)
    edges: dict[tuple[str, str], Edge] = {}
    for edge in graph.edges:
        source, target = stands_for.get(edge.source, edge.source), stands_for.get(edge.target, edge.target)
        if source != target:
            edges.setdefault((source, target), Edge(source=source, target=target, kind=edge.kind))
    kept = dict.fromkeys(stands_for.get(node.id, node.id) for node in graph.nodes)
    return Graph(focus=graph.focus, nodes=tuple(made.get(n) or nodes[n] for n in kept), edges=tuple(edges.values()))
