"""What did each run do? ``millrace runs`` and ``millrace show``: everything the ledger knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli.lake import open_lake
from cli.output import Record, console, format_option, plain, record_of, record_table, show_json, show_records

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse
    from lakehouse.ledger import Run


@click.command()
@format_option("table", "json", "csv")
def runs(output_format: str) -> None:
    """List the runs, newest first."""
    from lakehouse.ledger import Run

    records = [record_of(run) for run in reversed(list(open_lake().ledger.read(Run)))]
    show_records(list(Run.model_fields), records, output_format, table_columns=_RUNS, total=len(records))


@click.command()
@click.argument("run")
@format_option("table", "json")
def show(run: str, output_format: str) -> None:
    """Show RUN: an id, the start of one, or `last`."""
    lake = open_lake()
    found = find_run(lake, run)
    details = _details(lake, found)
    if output_format == "json":
        show_json(plain({**record_of(found), **details}))
    else:
        _print_run(record_of(found), details)


def find_run(lake: Lakehouse, name: str) -> Run:
    """The run of that id, the one run whose id starts so, or the newest for ``last``.

    Raises:
        UnknownRunError: there is none.
        AmbiguousRunError: several ids start so.
    """
    from cli.errors import AmbiguousRunError, UnknownRunError
    from lakehouse.ledger import Run

    known = list(lake.ledger.read(Run))
    if name == "last" and known:
        return known[-1]
    found = [run for run in known if run.run_id == name] or [run for run in known if run.run_id.startswith(name)]
    if not found or not name:
        raise UnknownRunError.named(name, len(known))
    if len(found) > 1:
        raise AmbiguousRunError.prefix(name, [run.run_id for run in found])
    return found[0]


def _details(lake: Lakehouse, run: Run) -> dict[str, list[Record]]:
    """What the other system tables know about a run, by table name."""
    from lakehouse.ledger import Cost, Decision

    return {
        "publications": [
            record_of(publication)
            for publication in lake.publications()
            if f"{publication.table_name}@{publication.version}" in run.outputs
        ],
        "decisions": [record_of(decision) for decision in lake.ledger.read(Decision) if decision.run_id == run.run_id],
        "costs": [record_of(cost) for cost in lake.ledger.read(Cost) if cost.execution == run.execution],
    }


def _print_run(run: Record, details: dict[str, list[Record]]) -> None:
    out = console()
    facts = [{"field": name, "value": run[name]} for name in run if name not in _SECTIONS]
    out.print(record_table(("field", "value"), facts))
    for section in _SECTIONS:
        value = run[section]
        if isinstance(value, dict) and value:
            pairs: list[Record] = [{"name": name, "value": item} for name, item in value.items()]
            out.print(record_table(("name", "value"), pairs, title=section))
    for section, columns in _DETAILS.items():
        if details[section]:
            out.print(record_table(columns, details[section], title=section))


_RUNS = ("run_id", "workflow", "day", "verdict", "seconds", "finished_at")
#: Columns of a run that hold an object and get a table of their own.
_SECTIONS = ("parameters", "metrics", "artifacts")
#: What is shown of the other system tables' rows; JSON has all of it.
_DETAILS = {
    "publications": ("table_name", "batch_id", "version", "published", "rows_in", "rows_quarantined", "rows_duplicate"),
    "decisions": ("gate", "passed", "reason"),
    "costs": ("task", "started_at", "seconds", "cpu_seconds", "peak_mib"),
}
