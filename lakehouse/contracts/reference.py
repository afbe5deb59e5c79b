"""What does a table promise, in words? Its contract as Markdown, for readers of ``millrace describe`` and of docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lakehouse.contracts.contract import Column, Contract, Rule


def markdown(contract: Contract) -> str:
    """One page: description, layout, a table of the columns, what holds for the whole."""
    parts = [f"# {contract.table}"]
    if contract.description:
        parts.append(_text(contract.description))
    whole = list(_whole(contract))
    if whole:
        parts.append("\n".join(f"- {line}" for line in whole))
    rows = [_row(column) for column in contract.columns]
    parts.append(_table(("column", "type", "is", "rules", "description"), rows))
    if contract.expectations:
        expected = "\n".join(f"- {_code(expectation.name)}" for expectation in contract.expectations)
        parts.append(f"Each version as a whole:\n\n{expected}")
    return "\n\n".join(parts)


def _whole(contract: Contract) -> Iterator[str]:
    yield f"key: {', '.join(contract.key)}"
    if contract.partition_by:
        yield f"partitioned by: {', '.join(contract.partition_by)}"
    if contract.cluster_by:
        yield f"clustered by: {', '.join(contract.cluster_by)}"
    if contract.fresh_within is not None:
        yield f"newest {contract.event_time} no older than {contract.fresh_within} at the end of the day"


def _row(column: Column) -> tuple[str, ...]:
    roles = [
        word
        for word, holds in (
            ("key", column.key),
            ("event time", column.event_time),
            ("subject", column.subject),
            ("required", not column.nullable),
        )
        if holds
    ]
    return (
        column.name,
        str(column.type),
        ", ".join(roles),
        _rules(column.rules),
        column.description,
    )


def _rules(rules: Iterable[Rule]) -> str:
    """The rules that type and ``required`` don't already say; the column's own name is left out."""
    return ", ".join(
        rule.name.removeprefix(f"{rule.column} ") for rule in rules if rule.kind not in ("type", "required")
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += ["| " + " | ".join(_text(cell).replace("|", r"\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _text(value: str) -> str:
    """On one line, without control characters: a description must not write to a terminal."""
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())


def _code(value: str) -> str:
    return f"`{_text(value).replace('`', chr(39))}`"
