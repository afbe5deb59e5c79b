"""Can a table be laid out as declared? Partitioned, clustered and watched for freshness by columns that it has."""

from __future__ import annotations

from datetime import timedelta

from lakehouse.contracts.contract import Contract
from lakehouse.errors import ContractError, suggestion

#: Kinds whose values make good folder names: few, exact, and written in one way only.
_PARTITION_KINDS = ("int", "str", "bool", "date")
#: Kinds that Z-order takes and that the log keeps least and greatest values of.
_CLUSTER_KINDS = ("int", "float", "decimal", "str", "date", "datetime")


def check_layout(contract: Contract) -> None:
    """ContractError if a contract's partitioning, clustering or freshness can't be kept."""
    for argument, names in (("partition_by", contract.partition_by), ("cluster_by", contract.cluster_by)):
        for name in names:
            if name not in contract.names:
                raise ContractError(
                    f"Table {contract.table!r} has no column {name!r} to be named in {argument}.",
                    fix=suggestion(name, contract.names, what="Columns"),
                )
        if len(set(names)) < len(names):
            raise ContractError(f"Table {contract.table!r} names a column twice in {argument}.", fix="Name it once.")
    _check_partitions(contract)
    _check_clusters(contract)
    if contract.fresh_within is not None and (contract.event_time is None or contract.fresh_within <= timedelta()):
        raise ContractError(
            f"Table {contract.table!r} can't be fresh within {contract.fresh_within}.",
            fix="Freshness is a time above zero, and counts from a column marked EventTime().",
        )


def _check_partitions(contract: Contract) -> None:
    for name in contract.partition_by:
        column = contract.column(name)
        where = f"{contract.table}.{name}"
        if column.type.kind not in _PARTITION_KINDS:
            raise ContractError(
                f"{where} can't be partitioned by: it is a {column.type}.",
                fix="Partition by int, str, bool or date (for a datetime, add a column with its date).",
            )
        if column.nullable:
            raise ContractError(
                f"{where} can't be partitioned by: it is optional, and rows without it would be one more partition.",
                fix="Make it required, or name it in cluster_by.",
            )
        if column.subject:
            raise ContractError(
                f"{where} can't be partitioned by: it identifies a person, and folders would be named after people.",
                fix="Name it in cluster_by.",
            )
    if contract.partition_by and set(contract.partition_by) == set(contract.names):
        raise ContractError(
            f"Table {contract.table!r} is partitioned by all its columns: its files would be empty.",
            fix="Leave one column out of partition_by.",
        )


def _check_clusters(contract: Contract) -> None:
    for name in contract.cluster_by:
        column = contract.column(name)
        where = f"{contract.table}.{name}"
        if column.type.kind not in _CLUSTER_KINDS:
            raise ContractError(
                f"{where} can't be clustered by: it is a {column.type}.",
                fix="Cluster by int, float, Decimal, str, date or datetime.",
            )
        if name in contract.partition_by:
            raise ContractError(
                f"{where} is in partition_by and cluster_by: within a partition it has one value.",
                fix="Name it in one of them.",
            )
