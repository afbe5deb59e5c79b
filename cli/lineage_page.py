"""How does a lineage look? One HTML page that needs no script, no network and no second file."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lakehouse.tracing.lineage import Graph, Node
    from tasks.report.model import NodeKind


def lineage_page(graph: Graph) -> str:
    """The page: a drawing from left to right, and the same as a table. The same graph gives the same bytes."""
    from tasks.report.lineage import lineage_plot
    from tasks.report.model import Lineage, LineageNode

    drawn = Lineage(
        nodes=tuple(LineageNode(id=n.id, label=n.label, detail=n.detail, kind=_drawn_as(n)) for n in graph.nodes),
        edges=tuple((edge.source, edge.target) for edge in graph.edges),
    )
    digest = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    title = f"Lineage of {graph.node(graph.focus).label}"
    rows = "\n".join(_row(graph, node) for node in graph.nodes)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_CSS}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="scroll">{lineage_plot(drawn)}</div>
<table>
<thead><tr><th>thing</th><th>kind</th><th>made of</th><th>says the ledger</th><th>at (UTC)</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def _drawn_as(node: Node) -> NodeKind:
    """The report's word for a kind of node: it has a colour."""
    words: dict[str, NodeKind] = {
        "table": "table",
        "batch": "view",
        "training_set": "training_set",
        "model": "model",
        "artifact": "llm",
    }
    return words.get(node.kind, "registry")


def _row(graph: Graph, node: Node) -> str:
    made_of = ", ".join(graph.node(edge.source).label for edge in graph.sources(node.id))
    at = node.at.strftime("%Y-%m-%d %H:%M") if node.at else ""
    cells = [node.label, node.kind.replace("_", " "), made_of, node.detail, at]
    focus = ' class="focus"' if node.id == graph.focus else ""
    return f"<tr{focus}>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


_CSS = """
:root {
  --page: #f4f6f8; --card: #ffffff; --ink: #17202a; --soft: #56636f; --rule: #dde3e9; --bar: #7793a9;
  --table: #0b6a99; --batch: #6c4fb0; --set: #a04a7c; --model: #1b7a4b; --other: #56626d; --llm: #8f5a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0f1419; --card: #171e25; --ink: #e7ecf1; --soft: #a0adb9; --rule: #2b3640; --bar: #647f93;
    --table: #4fb0e0; --batch: #a78bea; --set: #dd86b8; --model: #4cc486; --other: #a0adb9; --llm: #e6ad55;
  }
}
body {
  margin: 0 auto; max-width: 1440px; padding: 28px 20px 48px; background: var(--page); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, "DejaVu Sans", sans-serif;
}
h1 { font-size: 22px; margin: 0 0 16px; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 18px; }
table { border-collapse: collapse; width: 100%; margin-top: 20px; font-size: 13px; }
th, td { text-align: left; vertical-align: top; padding: 5px 12px 5px 0; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-size: 12px; }
td { overflow-wrap: anywhere; }
tr.focus td { font-weight: 650; }
svg text { fill: var(--ink); font-size: 11px; }
svg .axis { fill: var(--soft); font-size: 10.5px; }
svg .strong { font-weight: 600; }
svg .edge { fill: none; stroke: var(--bar); stroke-width: 1.5; }
svg .node { fill: var(--card); stroke: var(--rule); }
svg .stripe { fill: var(--other); stroke: none; }
svg .stripe.table { fill: var(--table); }
svg .stripe.view { fill: var(--batch); }
svg .stripe.training_set { fill: var(--set); }
svg .stripe.model { fill: var(--model); }
svg .stripe.llm { fill: var(--llm); }
"""
