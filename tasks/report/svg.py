"""How is a plot drawn? A small canvas that writes inline SVG: text escaped, colours left to the page's CSS."""

from __future__ import annotations

import math
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, tostring

Anchor = Literal["start", "middle", "end"]


class Drawing(str):
    """An svg element as text; templates put it into the page as it is, since its text is escaped already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class Canvas:
    """One drawing in user units.

    Args:
        width, height: size in pixels at full scale; the drawing shrinks with the page.
        label: one sentence that tells a screen reader what the drawing shows.
    """

    def __init__(self, width: float, height: float, label: str) -> None:
        self._root = Element(
            "svg",
            {
                "viewBox": f"0 0 {number(width)} {number(height)}",
                "width": number(width),
                "height": number(height),
                "role": "img",
                "aria-label": label,
            },
        )

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, *, tip: str = "", radius: float = 0
    ) -> None:
        box = {"x": x, "y": y, "width": max(width, 0), "height": max(height, 0)}
        self._add("rect", box | ({"rx": radius} if radius else {}), kind, tip)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str, *, tip: str = "") -> None:
        self._add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2}, kind, tip)

    def circle(self, x: float, y: float, radius: float, kind: str, *, tip: str = "") -> None:
        self._add("circle", {"cx": x, "cy": y, "r": radius}, kind, tip)

    def path(self, steps: str, kind: str, *, tip: str = "") -> None:
        self._add("path", {}, kind, tip).set("d", steps)

    def text(self, x: float, y: float, words: str, kind: str = "", *, anchor: Anchor = "start", tip: str = "") -> None:
        node = self._add("text", {"x": x, "y": y}, kind, tip)
        if anchor != "start":
            node.set("text-anchor", anchor)
        if len(node):
            node[-1].tail = words
        else:
            node.text = words

    def drawing(self) -> Drawing:
        return Drawing(tostring(self._root, encoding="unicode"))

    def _add(self, tag: str, numbers: dict[str, float], kind: str, tip: str) -> Element:
        node = SubElement(self._root, tag, {name: number(value) for name, value in numbers.items()})
        if kind:
            node.set("class", kind)
        if tip:
            SubElement(node, "title").text = tip
        return node


def number(value: float) -> str:
    """At most one decimal, so that the page stays small and its bytes don't depend on rounding noise."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def clip(words: str, length: int) -> str:
    """The words, cut with an ellipsis where they are longer than `length` characters."""
    return words if len(words) <= length else words[: length - 1].rstrip() + "…"


def ticks(top: float, wanted: int = 4) -> list[float]:
    """Round numbers from 0 to at least `top`, about `wanted` steps of 1, 2, 2.5 or 5 times a power of ten."""
    if top <= 0:
        return [0.0, 1.0]
    raw = top / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * 0.999)
    return [step * n for n in range(math.ceil(top / step - 1e-9) + 1)]
