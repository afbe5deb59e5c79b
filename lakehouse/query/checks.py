"""Does a version keep what its row model declares? Asked of the rows as they are stored, without Spark."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.table import Contract, Table
from lakehouse.errors import ContractMismatchError, NotPublishedError, UndeclaredError, examples
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Publication
from lakehouse.query import pointer
from lakehouse.query.damage import damaged_log
from lakehouse.snapshot import Snapshot, quote_name


class Check(BaseModel):
    """One thing that should hold for a version.

    Attributes:
        name: such as ``rating ge 0.5``.
        passed: whether it holds.
        detail: what was found.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    passed: bool
    detail: str


def check(lake: Lakehouse, reference: str) -> list[Check]:
    """Hold a version against its row model: log, columns, rules, key, freshness, and what the gate said of it.

    Each rule is asked of one column at a time; ``known_by`` is left out, as the batches' own days are gone.

    Raises:
        UndeclaredError: no row model of that name is known.
        StorageError: a file of the version can't be read.
    """
    snapshot = lake.resolve(reference)
    if snapshot.row is Table:
        raise UndeclaredError.table(snapshot.name)
    contract = snapshot.row.contract
    publication = next((p for p in reversed(lake.publications(snapshot.name)) if p.version == snapshot.version), None)
    fault = damaged_log(snapshot.uri, snapshot.version)
    log = Check(name="log", passed=fault is None, detail=fault or "every commit is there")
    try:
        absent = snapshot.absent()
    except ContractMismatchError as error:
        return [log, Check(name="columns", passed=False, detail=error.message), _gate(lake, snapshot, publication)]
    left_out = f", without the optional {', '.join(absent)}" if absent else ""
    return [
        log,
        Check(name="columns", passed=True, detail=f"{len(contract.columns)} as declared{left_out}"),
        *_rules(lake, snapshot, absent),
        *_key(snapshot, contract),
        *_freshness(snapshot, contract, publication),
        _gate(lake, snapshot, publication),
    ]


def _rules(lake: Lakehouse, snapshot: Snapshot[Table], absent: list[str]) -> Iterator[Check]:
    from lakehouse.contracts.stored_rules import broken_rule

    table = snapshot.delta()
    for rule in snapshot.row.contract.rules:
        if rule.kind in ("known_by", "type") or rule.column in absent:
            continue  # a stored value has its column's type
        try:
            with snapshot.reading():
                count, keys = broken_rule(lake, table, snapshot.row, rule)
        except NotPublishedError as error:  # the table that it refers to
            yield Check(name=rule.name, passed=False, detail=error.message)
            continue
        detail = f"{count} row(s) break it, such as {examples(keys)}" if count else ""
        yield Check(name=rule.name, passed=not count, detail=detail)


def _key(snapshot: Snapshot[Table], contract: Contract) -> Iterator[Check]:
    import duckdb

    if not contract.key:
        return
    names = ", ".join(quote_name(name) for name in contract.key)
    with duckdb.connect(":memory:") as connection:
        rows = snapshot.duckdb(connection, contract.key)
        repeated = rows.aggregate(f"{names}, count(*) AS n", names).filter("n > 1").aggregate("count(*)").fetchall()
    count = int(repeated[0][0])
    detail = f"{count} key(s) have more than one row" if count else ""
    yield Check(name=f"key {', '.join(contract.key)}", passed=not count, detail=detail)


def _freshness(snapshot: Snapshot[Table], contract: Contract, publication: Publication | None) -> Iterator[Check]:
    clock, limit = contract.event_time, contract.fresh_within
    if clock is None or limit is None:
        return
    import pyarrow.compute as pc

    day = publication.day if publication else datetime.now(UTC).date()
    end = datetime.combine(day + timedelta(days=1), time.min, UTC)
    newest: datetime | None = pc.max(snapshot.arrow([clock])[clock]).as_py()
    age = end - newest if newest else None
    passed = age is not None and age <= limit
    detail = f"the newest {clock} is {newest or 'missing'}, the day ended {end}, {limit} is allowed"
    yield Check(name=f"fresh within {limit}", passed=passed, detail=detail)


def _gate(lake: Lakehouse, snapshot: Snapshot[Table], publication: Publication | None) -> Check:
    if publication is None:
        return Check(name="published", passed=False, detail="no publication tells of this version")
    if not publication.published:
        return Check(name="published", passed=False, detail=f"refused: {examples(publication.failed_checks)}")
    standing = {p.publication_id for p in pointer.standing(lake.publications(snapshot.name))}
    if publication.publication_id not in standing:
        return Check(name="published", passed=False, detail="withdrawn by a later restore")
    refused = publication.rows_quarantined
    quarantined = f", {refused} row(s) of it in quarantine" if refused else ""
    return Check(name="published", passed=True, detail=f"{publication.kind} {publication.batch_id}{quarantined}")
