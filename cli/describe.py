"""What does a table promise? ``millrace describe``: its columns, types, rules and what they mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, printable, show_json

if TYPE_CHECKING:
    from lakehouse.contracts.table import Contract, Table

Description = dict[str, object]


@click.command()
@click.argument("table")
@format_option("markdown", "json", "json-schema")
def describe(table: str, output_format: str) -> None:
    """Describe TABLE: columns, types, rules.

    By its contract; a table that is not declared, by what is stored. ``--format json-schema`` is the JSON Schema of one
    row, for those who send rows."""
    import lakehouse.tables  # noqa: F401  (declares the project's tables)
    from lakehouse.contracts.table import declared_tables

    row_model = declared_tables().get(table)
    if output_format == "json-schema":
        _show_json_schema(table, row_model)
        return
    description, columns = _declared(row_model.contract) if row_model else _stored(table)
    if output_format == "json":
        show_json({**description, "columns": columns})
    elif row_model:
        from lakehouse.contracts.reference import markdown

        click.echo(markdown(row_model.contract))
    else:
        click.echo(_markdown(description, columns))


def _show_json_schema(table: str, row_model: type[Table] | None) -> None:
    from lakehouse.contracts.json_schema import json_schema
    from lakehouse.errors import UndeclaredError

    if row_model is None:
        raise UndeclaredError.table(table)
    show_json(json_schema(row_model.contract))


def _declared(contract: Contract) -> tuple[Description, list[Description]]:
    columns: list[Description] = [
        {
            "name": column.name,
            "type": str(column.type),
            "required": not column.nullable,
            "key": column.key,
            "event_time": column.event_time,
            "subject": column.subject,
            "references": column.references.target if column.references else None,
            "rules": [rule.name for rule in column.rules],
            "description": column.description,
        }
        for column in contract.columns
    ]
    head: Description = {
        "table": contract.table,
        "declared": True,
        "description": contract.description,
        "fingerprint": contract.fingerprint,
        "partition_by": list(contract.partition_by),
        "cluster_by": list(contract.cluster_by),
        "fresh_within_seconds": contract.fresh_within.total_seconds() if contract.fresh_within else None,
        "expectations": [expectation.name for expectation in contract.expectations],
    }
    return head, columns


def _stored(table: str) -> tuple[Description, list[Description]]:
    from lakehouse.contracts.table import declared_tables
    from lakehouse.errors import UnknownTableError
    from lakehouse.snapshot import open_delta, schema_of

    lake = open_lake()
    if table not in lake.names():
        raise UnknownTableError.named(table, {*lake.names(), *declared_tables()})
    delta = open_delta(lake.uri(table))
    columns: list[Description] = [
        {
            "name": field.name,
            "type": str(field.type),
            "required": not field.nullable,
            "description": (field.metadata or {}).get(b"comment", b"").decode(),
        }
        for field in schema_of(delta)
    ]
    return {"table": table, "declared": False, "description": delta.metadata().description or ""}, columns


def _markdown(description: Description, columns: list[Description]) -> str:
    lines = [f"# {description['table']}", ""]
    if description["description"]:
        lines += [printable(str(description["description"])), ""]
    lines += ["| column | type | is | description |", "| --- | --- | --- | --- |"]
    for column in columns:
        cells = [column["name"], column["type"], "required" if column["required"] else "", column["description"]]
        lines.append("| " + " | ".join(printable(str(cell)).replace("|", r"\|") for cell in cells) + " |")
    return "\n".join(lines)
