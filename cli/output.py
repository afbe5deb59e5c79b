"""How does a listing reach the user? As a table in the terminal, one JSON document, or CSV."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console
    from rich.table import Table

#: Rows that the table format shows; the other formats give all.
MAX_ROWS = 200

Command = TypeVar("Command", bound=Callable[..., object])
Record = Mapping[str, object]


def format_option(*formats: str) -> Callable[[Command], Command]:
    """The ``--format`` option; the first format is the default."""
    return click.option(
        "--format", "output_format", type=click.Choice(formats), default=formats[0], show_default=True, help="Output."
    )


def show_records(
    columns: Sequence[str],
    records: Iterable[Record],
    output_format: str,
    *,
    table_columns: Sequence[str] = (),
    total: int | None = None,
) -> None:
    """Print records in one of the three formats.

    Args:
        columns: names of all the columns, in order.
        records: a mapping from column to value for each row; JSON and CSV are written row by row.
        output_format: ``table``, ``json`` (one array, an object a line) or ``csv``.
        table_columns: those that the table format shows; default all.
        total: how many records there are, where they may be more than the table format shows.
    """
    if output_format == "json":
        sys.stdout.write("[")
        for number, record in enumerate(records):
            text = json.dumps({name: plain(record[name]) for name in columns}, ensure_ascii=False, allow_nan=False)
            sys.stdout.write(f"{',' if number else ''}\n  {text}")
        sys.stdout.write("\n]\n")
    elif output_format == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([_cell(record[name], null="") for name in columns] for record in records)
    else:
        shown = list(islice(records, MAX_ROWS))
        console().print(record_table(table_columns or columns, shown))
        if (total or 0) > len(shown):
            click.echo(f"{total} rows, {len(shown)} shown; --format csv or json prints them all.", err=True)


def show_json(document: object) -> None:
    """Print one JSON document; times are ISO 8601 in UTC."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def record_of(model: BaseModel) -> dict[str, object]:
    """A ledger row as a record; columns that hold a JSON object as text give the object."""
    return {name: _parsed(value) for name, value in model.model_dump().items()}


def plain(value: object) -> object:
    """A value as JSON has it: times as ISO 8601 text, exact numbers where JSON can hold them, other things as text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Decimal):
        if value == value.to_integral_value():
            return int(value)
        return float(value) if Decimal(repr(float(value))) == value else str(value)
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.hex() if isinstance(value, bytes) else str(value)


def printable(text: str) -> str:
    """Text that can't move the cursor, colour the terminal or break a row: control characters are written out."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def console() -> Console:
    """Where tables go: as wide as the terminal, or as wide as they need where there is none."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def record_table(columns: Sequence[str], records: Sequence[Record], title: str | None = None) -> Table:
    """Records as a rich table with light borders; values are shown as they are, never as markup."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, title=title and Text(title), title_justify="left", pad_edge=False)
    for name in columns:
        values = [record[name] for record in records if record[name] is not None]
        numeric = bool(values) and all(_is_number(value) for value in values)
        table.add_column(Text(printable(name)), justify="right" if numeric else "left", overflow="fold")
    for record in records:
        table.add_row(*(Text(printable(_cell(_joined(record[name]), null="-"))) for name in columns))
    return table


def _cell(value: object, *, null: str) -> str:
    """A value in one cell of a table or CSV row."""
    value = plain(value)
    if value is None:
        return null
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _joined(value: object) -> object:
    """A list of words as a reader's list; anything else as it is."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value


def _parsed(value: object) -> object:
    if not (isinstance(value, str) and value.startswith("{")):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)
