"""Which columns name a person? Those marked as subject, and every column that refers to one or that one refers to."""

from __future__ import annotations

from lakehouse.contracts.table import Contract, declared_tables
from lakehouse.errors import ErasureError
from lakehouse.ledger import SYSTEM_TABLES


def columns_of_subject(subject: str) -> dict[str, tuple[str, ...]]:
    """The columns that hold a subject's values, by declared table; tables that refer to others come first.

    Args:
        subject: name of a column that is marked ``Subject()``, such as ``user_id`` or ``users.user_id``.

    Raises:
        ErasureError: no declared column of that name is marked so.
    """
    contracts = {name: row.contract for name, row in declared_tables().items() if name not in SYSTEM_TABLES}
    marked = [(table, c.name) for table, contract in contracts.items() for c in contract.columns if c.subject]
    found = {(table, column) for table, column in marked if subject in (column, f"{table}.{column}")}
    if not found:
        raise ErasureError.no_subject(subject, sorted({column for _, column in marked}))
    grown = True
    while grown:
        before = len(found)
        for table, contract in contracts.items():
            for column in contract.columns:
                if column.references is None:
                    continue
                target = (column.references.table, column.references.column)
                if target in found:
                    found.add((table, column.name))
                elif (table, column.name) in found and target[0] in contracts:
                    found.add(target)
        grown = len(found) > before
    tables: dict[str, list[str]] = {}
    for table, name in sorted(found):
        tables.setdefault(table, []).append(name)
    return {table: tuple(tables[table]) for table in sorted(tables, key=lambda t: (_depth(t, contracts), t))}


def names_of_column(contract: Contract, column: str) -> set[str]:
    """A column as ``table.column``, and what it refers to: one of these stands in a tombstone that concerns it."""
    references = contract.column(column).references
    return {f"{contract.table}.{column}", *([references.target] if references else [])}


def _depth(table: str, contracts: dict[str, Contract], above: frozenset[str] = frozenset()) -> int:
    """0 for a table that nobody refers to; a referenced one lies deeper than each that refers to it, circles aside."""
    above |= {table}
    referring = {
        name
        for name, contract in contracts.items()
        if name not in above and any(c.references and c.references.table == table for c in contract.columns)
    }
    return 1 + max(_depth(name, contracts, above) for name in referring) if referring else 0
