"""How does a document reach a reader? As text, JSON, or one HTML page; the same document gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from tasks.card.facts import Document, Value


def as_json(document: Document) -> str:
    """The document as it is, sources included."""
    return document.model_dump_json(indent=2)


def as_text(document: Document) -> str:
    """For a terminal: a fact a line, its source behind it."""
    lines = [f"{document.title}: {document.kind}"]
    for section in document.sections:
        lines += ["", section.heading.upper(), *(f"  {text}" for text in section.text)]
        wide = max((len(fact.label) for fact in section.facts), default=0)
        lines += [f"  {fact.label:<{wide}}  {shown(fact.value)}   [{fact.source}]" for fact in section.facts]
    return "\n".join(lines) + "\n"


def as_html(document: Document) -> str:
    """One page; it runs and loads nothing."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shown"] = shown
    css = environment.get_template("card.css.j2").render()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return environment.get_template("card.html.j2").render(
        document=document,
        css=Markup(css),  # noqa: S704 - our own file, no value in it
        css_hash=f"sha256-{digest}",
    )


def shown(value: Value) -> str:
    """A value for a reader: four significant decimals; the JSON has all of them."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value == int(value) else f"{value:.4g}"
    return str(value)
