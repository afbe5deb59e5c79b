"""What does a table promise, in words? Its contract as Markdown, for readers of ``millrace describe`` and of docs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lakehouse.contracts.contract import Column, ColumnType, Contract, Rule, nested


def markdown(contract: Contract) -> str:
    """One page: description, layout, a table of the columns, what holds for the whole."""
    parts = [f"# {contract.table}"]
    if contract.description:
        parts.append(_text(contract.description))
    whole = list(_whole(contract))
    if whole:
        parts.append("\n".join(f"- {line}" for line in whole))
    rows = [row for column in contract.columns for row in _rows(column)]
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
    if contract.change_feed:
        yield "keeps a change data feed"
    if contract.fresh_within is not None:
        yield f"newest {contract.event_time} no older than {contract.fresh_within} at the end of the day"


def _rows(column: Column) -> Iterator[tuple[str, ...]]:
    """The column's line, and one for each field of the models nested in it."""
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
    yield column.name, _type(column.type), ", ".join(roles), _rules(column.rules, column.name), column.description
    for path, member in nested(column.name, column.type):
        role = "" if member.nullable else "required"
        yield path, _type(member.type), role, _rules(column.rules, path), member.description


def _type(column_type: ColumnType) -> str:
    """A nested model is an object: its fields have lines of their own."""
    if column_type.item is not None:
        return f"list[{_type(column_type.item)}]"
    return "object" if column_type.kind == "struct" else str(column_type)


def _rules(rules: Iterable[Rule], path: str) -> str:
    """The rules at a path that type and ``required`` don't already say; the path itself is left out."""
    return ", ".join(
        rule.name.removeprefix(f"{path} ")
        for rule in rules
        if rule.column == path and rule.kind not in ("type", "required")
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
