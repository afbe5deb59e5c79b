"""How did table versions become the model? A layered drawing of the lineage (after Sugiyama, Tagawa and Toda, 1981)."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from statistics import fmean

from tasks.report.model import Lineage, LineageNode
from tasks.report.svg import Canvas, Drawing, clip, number

WIDTH, HEIGHT, GAP_X, GAP_Y = 152.0, 44.0, 42.0, 14.0
BEND = 10.0  # height kept free where an edge passes a layer
SWEEPS = 8


def lineage_plot(lineage: Lineage) -> Drawing:
    """Sources on the left, what is derived from them to the right; every edge goes one way."""
    layers, chains = _layers(lineage)
    _untangle(layers, chains)
    nodes = {node.id: node for node in lineage.nodes}
    heights = [sum(_height(key, nodes) + GAP_Y for key in layer) - GAP_Y for layer in layers]
    tall = max(heights)
    middle: dict[str, tuple[float, float]] = {}
    for place, layer in enumerate(layers):
        x = place * (WIDTH + GAP_X) + 1
        y = (tall - heights[place]) / 2 + 1
        for key in layer:
            high = _height(key, nodes)
            middle[key] = (x, y + high / 2)
            y += high + GAP_Y
    width = len(layers) * (WIDTH + GAP_X) - GAP_X + 2
    canvas = Canvas(width, tall + 2, _said(lineage))
    for chain in chains:
        canvas.path(_steps(chain, middle, nodes), "edge")
    for key, node in nodes.items():
        _draw(canvas, node, *middle[key])
    return canvas.drawing()


def _layers(lineage: Lineage) -> tuple[list[list[str]], list[list[str]]]:
    """Each node one layer after its last source; each edge as a chain with a bend in every layer that it passes."""
    sources: dict[str, list[str]] = defaultdict(list)
    for source, derived in lineage.edges:
        sources[derived].append(source)
    level: dict[str, int] = {}
    for key in lineage.order():
        level[key] = max((level[source] + 1 for source in sources[key]), default=0)
    layers: list[list[str]] = [[] for _ in range(max(level.values()) + 1)]
    for node in lineage.nodes:
        layers[level[node.id]].append(node.id)
    chains = []
    for source, derived in dict.fromkeys(lineage.edges):
        bends = [f"{source}\0{derived}\0{place}" for place in range(level[source] + 1, level[derived])]
        for place, bend in enumerate(bends, start=level[source] + 1):
            layers[place].append(bend)
        chains.append([source, *bends, derived])
    return layers, chains


def _untangle(layers: list[list[str]], chains: list[list[str]]) -> None:
    """Sort every layer by the mean place of its neighbours, forth and back, so that few edges cross."""
    before: dict[str, list[str]] = defaultdict(list)
    after: dict[str, list[str]] = defaultdict(list)
    for chain in chains:
        for left, right in pairwise(chain):
            before[right].append(left)
            after[left].append(right)
    for sweep in range(SWEEPS):
        forward = sweep % 2 == 0
        neighbours = before if forward else after
        for layer in layers if forward else reversed(layers):
            place = {key: rank / len(row) for row in layers for rank, key in enumerate(row)}
            pull = {key: fmean([place[k] for k in neighbours[key]] or [place[key]]) for key in layer}
            layer.sort(key=pull.__getitem__)


def _height(key: str, nodes: dict[str, LineageNode]) -> float:
    return HEIGHT if key in nodes else BEND


def _steps(chain: list[str], middle: dict[str, tuple[float, float]], nodes: dict[str, LineageNode]) -> str:
    """An edge as a path: level through each layer, a smooth curve between two."""
    x, y = middle[chain[0]]
    steps = [f"M{number(x + WIDTH)},{number(y)}"]
    for left, right in pairwise(chain):
        (x1, y1), (x2, y2) = middle[left], middle[right]
        half = number((x1 + WIDTH + x2) / 2)
        steps.append(f"C{half},{number(y1)} {half},{number(y2)} {number(x2)},{number(y2)}")
        if right not in nodes:
            steps.append(f"H{number(x2 + WIDTH)}")
    return "".join(steps)


def _draw(canvas: Canvas, node: LineageNode, x: float, y: float) -> None:
    top = y - HEIGHT / 2
    canvas.rect(x, top, WIDTH, HEIGHT, f"node {node.kind}", tip=f"{node.label} {node.detail}".strip(), radius=5)
    canvas.rect(x, top + 6, 3, HEIGHT - 12, f"stripe {node.kind}")
    canvas.text(x + 12, y - 3 if node.detail else y + 4, clip(node.label, 20), "strong")
    if node.detail:
        canvas.text(x + 12, y + 13, clip(node.detail, 23), "axis")


def _said(lineage: Lineage) -> str:
    label = {node.id: node.label for node in lineage.nodes}
    edges = "; ".join(f"{label[source]} to {label[derived]}" for source, derived in lineage.edges)
    return f"Lineage of {len(lineage.nodes)} nodes: {edges or 'no edges'}."
