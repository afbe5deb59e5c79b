"""How is a table declared? As a pydantic row model, from which everything else is derived."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from lakehouse.contracts.contract import Column, ColumnType, Contract, EventTime, Key, References, Rule, Subject
from lakehouse.contracts.declaring import NAME, read_contract
from lakehouse.contracts.expectations import Expectation
from lakehouse.errors import ContractError, suggestion

__all__ = [
    "Column",
    "ColumnType",
    "Contract",
    "EventTime",
    "Key",
    "References",
    "Rule",
    "Subject",
    "Table",
    "declared_tables",
    "read_contract",
]

_ARGUMENTS = ("name", "partition_by", "cluster_by", "change_feed", "fresh_within", "expectations")


class Table(BaseModel):
    """Base of all row models: ``class Rating(Table, name="ratings")``.

    The class docstring describes the table, the markers (``Key``, ``EventTime``, ``References``, ``Subject``) and
    pydantic's field constraints say what every row must satisfy. A type or constraint that can't be enforced in
    Delta and Deequ is a ContractError when the class is made. The class's arguments say what holds for the whole::

        class Rating(
            Table,
            name="ratings",
            partition_by=("day",),  # a folder for each value
            cluster_by=("user_id",),  # rows with near values in the same files
            change_feed=True,  # changed rows are recorded beside the table: quick to compare, written twice
            fresh_within=timedelta(days=2),  # age of the newest event at the end of the day
            expectations=(Expectation("Mean", ("rating",), ge=2.5, le=4.5),),
        ): ...
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contract: ClassVar[Contract]
    _registry: ClassVar[dict[str, type[Table]]] = {}

    def __init_subclass__(cls, **kwargs: object) -> None:  # pydantic hands them on, see below
        super().__init_subclass__()

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        name: str | None = None,
        abstract: bool = False,
        partition_by: Sequence[str] = (),
        cluster_by: Sequence[str] = (),
        change_feed: bool = False,
        fresh_within: timedelta | None = None,
        expectations: Sequence[Expectation] = (),
        **unknown: object,
    ) -> None:
        if unknown:
            raise ContractError(
                f"Row model {cls.__name__} has the unknown argument {min(unknown)!r}.",
                fix=suggestion(min(unknown), _ARGUMENTS, what="Arguments"),
            )
        if abstract:  # a base of row models, not one itself
            return
        if name is None:
            raise ContractError(
                f"Row model {cls.__name__} names no table.", fix=f'Write class {cls.__name__}(Table, name="…").'
            )
        if not NAME.fullmatch(name):
            raise ContractError(
                f"{name!r} is not a table name.", fix="Use lower-case letters, digits and underscores, a letter first."
            )
        cls.contract = read_contract(
            cls,
            name,
            partition_by=partition_by,
            cluster_by=cluster_by,
            change_feed=change_feed,
            fresh_within=fresh_within,
            expectations=expectations,
        )
        Table._registry[name] = cls


def declared_tables() -> Mapping[str, type[Table]]:
    """Every row model that has been imported, by table name."""
    return dict(Table._registry)
