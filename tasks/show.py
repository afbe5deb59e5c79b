"""What does a person see of a task in the console? Its deck: a table of what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import flytekit


def show(name: str, records: Sequence[Mapping[str, object]]) -> None:
    """Put records into the running task's deck as a table; values are text there, never HTML."""
    if not records:
        return
    columns = list(records[0])
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(_text(record.get(column)))}</td>" for column in columns) + "</tr>"
        for record in records
    )
    flytekit.Deck(name, f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
