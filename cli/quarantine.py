"""Which rows were refused, why, and what becomes of them? ``millrace quarantine list|show|requeue|discard``."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import format_option, plain, printable, record_of, show_json, show_records

if TYPE_CHECKING:
    from lakehouse.contracts.contract import Contract
    from lakehouse.contracts.table import Table
    from lakehouse.gate.quarantine import RefusedRow
    from lakehouse.lake import Lakehouse

_ROW = "ROW"
_TABLE = ("quarantine_id", "rules", "row", "quarantined_at", "fate")
_ID = "quarantine_id"


@click.group()
def quarantine() -> None:
    """Rows that broke a rule, as they came, and what becomes of them."""


@quarantine.command("list")
@click.argument("table")
@click.option("--all", "every", is_flag=True, help="Those as well that were requeued, discarded or judged again.")
@format_option("table", "json", "csv")
def list_rows(table: str, every: bool, output_format: str) -> None:
    """List the open rows of TABLE with every rule they broke, newest first."""
    from lakehouse.gate.quarantine import Quarantined, RefusedRow, refused_rows

    rows = [row for row in refused_rows(_lake_with(table), table) if every or row.fate == "open"]
    rows.sort(key=lambda row: (row.quarantined.quarantined_at, -row.quarantined.row_number), reverse=True)
    fields = [*Quarantined.model_fields, *list(RefusedRow.model_fields)[1:]]
    show_records(fields, (_record(row) for row in rows), output_format, table_columns=_TABLE, total=len(rows))


@quarantine.command()
@click.argument("table")
@click.argument("row", metavar=_ROW)
@format_option("text", "json")
def show(table: str, row: str, output_format: str) -> None:
    """Show one refused row, such as 1998-03-01/7: its values, each rule it broke, and what became of it."""
    from lakehouse.errors import QuarantineError
    from lakehouse.gate.quarantine import refused_rows

    found = refused_rows(_lake_with(table), table, [(_ID, "=", row)])
    if not found:
        raise QuarantineError.unknown(table, row)
    (refused,) = found
    if output_format == "json":
        offending = {rule: plain(value) for rule, value in refused.offending.items()}
        show_json({name: plain(value) for name, value in _record(refused).items()} | {"offending": offending})
    else:
        click.echo("\n".join(printable(line) for line in _described(refused)))


@quarantine.command()
@click.argument("table")
@click.argument("rows", metavar=f"[{_ROW}]...", nargs=-1)
@click.option("--set", "changes", multiple=True, metavar="COLUMN=VALUE", help="For each row; nothing after = is null.")
@click.option(
    "--file",
    "path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Corrected rows instead (.json, .csv, .parquet): quarantine_id and the columns to change.",
)
@format_option("text", "json")
def requeue(table: str, rows: Sequence[str], changes: Sequence[str], path: Path | None, output_format: str) -> None:
    """Correct open rows of TABLE and send them through the gate again, as one batch."""
    import features.tables  # noqa: F401  (declares them)
    from lakehouse.gate.quarantine import refused_rows
    from lakehouse.gate.quarantine import requeue as send_again

    if (path is None) != bool(rows) or (path is not None and changes):
        raise click.UsageError("Give rows, with --set, or a --file of corrected rows.")
    lake = _lake_with(table)
    model = _declared(table)
    contract = model.contract
    corrected = _from_file(path) if path is not None else {row: _changes(contract, changes) for row in rows}
    snapshot = send_again(lake, model, corrected)
    (sent,) = refused_rows(lake, table, [(_ID, "=", next(iter(corrected)))])
    batch = [p for p in lake.publications(table) if p.batch_id == sent.requeued_in][-1]
    if output_format == "json":
        counts = ("batch_id", "rows_in", "rows_published", "rows_quarantined", "rows_duplicate")
        record = record_of(batch)
        show_json({"table": table, "version": snapshot.version} | {name: record[name] for name in counts})
        return
    click.echo(f"{snapshot} is what readers get: {batch.rows_published} of {batch.rows_in} row(s) came in.")
    if batch.rows_quarantined:
        click.echo(f"{batch.rows_quarantined} broke a rule again and are open as {batch.batch_id}/…")
    if batch.rows_duplicate:
        click.echo(f"{batch.rows_duplicate} gave way to newer rows of the same key.")


@quarantine.command()
@click.argument("table")
@click.argument("rows", metavar=f"{_ROW}...", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why; the ledger keeps it.")
def discard(table: str, rows: Sequence[str], reason: str) -> None:
    """Close open rows of TABLE without sending them again; they stay in the quarantine."""
    from lakehouse.gate.quarantine import discard as close

    close(_lake_with(table), table, rows, reason)
    click.echo(f"{len(set(rows))} row(s) discarded.")


def _lake_with(table: str) -> Lakehouse:
    from lakehouse.contracts.table import declared_tables
    from lakehouse.errors import UnknownTableError

    lake = open_lake()
    known = {*lake.names(), *declared_tables()}
    if table not in known:
        raise UnknownTableError.named(table, known)
    return lake


def _declared(table: str) -> type[Table]:
    from lakehouse.contracts.table import declared_tables
    from lakehouse.errors import UndeclaredError

    if table not in declared_tables():
        raise UndeclaredError.table(table)
    return declared_tables()[table]


def _record(row: RefusedRow) -> dict[str, object]:
    fate = {name: value for name, value in row.model_dump().items() if name != "quarantined"}
    return record_of(row.quarantined) | fate


def _described(row: RefusedRow) -> list[str]:
    lines = [f"{row.quarantined.quarantine_id}, refused {plain(row.quarantined.quarantined_at)}: {row.fate}"]
    lines[0] += f" in {row.requeued_in}" if row.requeued_in else ""
    lines[0] += f", {row.reason}" if row.reason else ""
    lines += [f"  {name} = {_shown(value)}" for name, value in row.values.items()]
    return [*lines, *(f"  breaks {rule}: {_shown(value)}" for rule, value in row.offending.items())]


def _shown(value: object) -> str:
    return json.dumps(plain(value), ensure_ascii=False)


def _changes(contract: Contract, changes: Sequence[str]) -> dict[str, object]:
    """COLUMN=VALUE as a mapping; the value of a list or a nested model is written in JSON."""
    found: dict[str, object] = {}
    for change in changes:
        name, equals, text = change.partition("=")
        if not (name and equals):
            raise click.BadParameter(f"{change!r} is not COLUMN=VALUE, such as rating=4.5.", param_hint="--set")
        found[name] = text or None
        if text and name in contract.names and contract.column(name).type.kind in ("list", "struct"):
            try:
                found[name] = json.loads(text, parse_float=Decimal)
            except ValueError as error:
                hint = f'{text!r} is not JSON, such as ["Drama"] or {{"city": "Delft"}}.'
                raise click.BadParameter(hint, param_hint="--set") from error
    return found


def _from_file(path: Path) -> dict[str, Mapping[str, object]]:
    """Corrected rows by quarantine id; an empty cell of a CSV file is null."""
    from lakehouse.errors import QuarantineError

    try:
        rows = _read(path)
    except (OSError, ValueError, csv.Error) as error:
        raise QuarantineError.file(str(path), str(error).splitlines()[0].rstrip(".")) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise QuarantineError.file(str(path), "it is not an array of objects")
    if any(not isinstance(row.get(_ID), str) for row in rows):
        raise QuarantineError.file(str(path), f"a row has no {_ID}")
    if len({row[_ID] for row in rows}) < len(rows):
        raise QuarantineError.file(str(path), f"a {_ID} is there twice")
    return {row[_ID]: {name: value for name, value in row.items() if name != _ID} for row in rows}


def _read(path: Path) -> object:
    kind = path.suffix.lower()
    if kind == ".json":
        return json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    if kind == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: text or None for name, text in row.items()} for row in csv.DictReader(file, strict=True)]
    if kind == ".parquet":
        import pyarrow.parquet as pq

        from lakehouse.contracts.arrow import records

        return list(records(pq.read_table(path)))
    raise ValueError("its name ends in neither .json, .csv nor .parquet")
