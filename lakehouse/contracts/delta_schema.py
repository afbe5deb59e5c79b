"""What is a contract in Delta? An empty table with comments, partitioning and the rules that Delta itself enforces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakehouse.contracts.contract import Contract
from lakehouse.contracts.stored_schema import stored_schema
from lakehouse.errors import StorageError, first_line

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse


def create_table(lake: Lakehouse, contract: Contract) -> None:
    """Make the empty Delta table of a contract in a lake, unless it is there."""
    create(lake.uri(contract.table), contract)


#: Spark would delete the commits of versions older than a month, which pins and readers by day still need; `vacuum`
#: decides what goes.
_PROPERTIES = {"delta.enableExpiredLogCleanup": "false"}

#: Under which Delta records the rows that a commit changed, where that is not told by the files that it added.
CHANGE_FEED = "delta.enableChangeDataFeed"

#: How often making a table is tried when other processes make it at the same time.
_ATTEMPTS = 5


def create(uri: str, contract: Contract) -> None:
    """Make the empty Delta table of a contract, with comments and CHECK constraints, unless it is there.

    Raises:
        StorageError: the table can't be written.
    """
    from deltalake.exceptions import CommitFailedError, DeltaError

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _create(uri, contract)
            return
        except (DeltaError, OSError) as error:
            if isinstance(error, CommitFailedError) and attempt < _ATTEMPTS:
                continue  # another process makes it at the same time: see how far it got
            raise StorageError(
                f"Table {contract.table!r} can't be created: {first_line(error)}.",
                fix="Check that the disk has room and the lake's folder can be written.",
            ) from error


def _create(uri: str, contract: Contract) -> None:
    from deltalake import DeltaTable

    table = DeltaTable.create(
        uri,
        stored_schema(contract),
        mode="ignore",
        name=contract.table,
        description=contract.description,
        partition_by=list(contract.partition_by) or None,
        configuration=_PROPERTIES | ({CHANGE_FEED: "true"} if contract.change_feed else {}),
    )
    constraints = check_constraints(contract)
    if constraints and table.version() == 0:  # later ones are for lakehouse/contracts/evolution.py
        table.alter.add_constraint(constraints)


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def check_constraints(contract: Contract) -> dict[str, str]:
    """What Delta itself enforces on every writer, by constraint name: the bounds of int and float.

    Only what Spark and delta-rs read as the same: delta-rs keeps a constraint in words of its own, in which decimals
    and lengths are wrong or unknown to Spark, and numbers beyond 38 digits can't be read by it. The gate checks every
    rule, these too.
    """
    found: dict[str, list[str]] = {}
    for column in contract.columns:
        for rule in column.rules:
            if rule.kind in _SIGNS and column.type.kind in ("int", "float") and _is_short(rule.value):
                bound = f"{column.name} {_SIGNS[rule.kind]} {rule.value}"
                either = f"({column.name} IS NULL OR {bound})" if column.nullable else bound
                found.setdefault(column.name, []).append(either)
    return {f"{name}_range": " AND ".join(bounds) for name, bounds in found.items()}


def _is_short(value: object) -> bool:
    """Whether a bound has few enough digits to be written out in full."""
    return isinstance(value, (int, float)) and (value == 0 or 1e-15 <= abs(value) <= 1e18)
