"""Which feature views are there? One for each row model listed here, derived from its columns.

The key columns (without the event time) become entities, the event time says from when on a row is known, and all
other columns are features. No column is named twice: what a view holds is what its table declares. Features that
depend on the instant of a request are in an on-demand view beside it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from features.errors import ViewDeclarationError
from features.feature_view import FeatureView as ComputedView
from features.tables import ItemStats, UserStats
from lakehouse.contracts.table import Column, ColumnType, Contract, Table, declared_tables
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Movie, MovieCard, User

if TYPE_CHECKING:
    from feast import Entity, FeatureView, OnDemandFeatureView
    from feast.types import ComplexFeastType, PrimitiveFeastType

#: The row models with a feature view; a view is named as its table.
VIEW_TABLES: tuple[type[Table], ...] = (User, Movie, UserStats, ItemStats, MovieCard)


def join_keys(contract: Contract) -> tuple[str, ...]:
    """The columns that name a view's entity: the key without the event time. Raises ViewDeclarationError."""
    names = tuple(name for name in contract.key if name != contract.event_time)
    if not names:
        raise ViewDeclarationError.no_entity(contract.table)
    return names


def event_time(contract: Contract) -> str:
    """The column that says from when on a row is known. Raises ViewDeclarationError."""
    if contract.event_time is None:
        raise ViewDeclarationError.no_event_time(contract.table)
    return contract.event_time


def feature_columns(contract: Contract) -> tuple[str, ...]:
    """The view's features, in the order of the row model. Raises ViewDeclarationError."""
    taken = {*join_keys(contract), event_time(contract)}
    names = tuple(name for name in contract.names if name not in taken)
    if not names:
        raise ViewDeclarationError.no_features(contract.table)
    return names


def full_name(view: str, feature: str) -> str:
    """What a feature is called in training sets and online answers, such as ``user_stats__mean_rating``."""
    return f"{view}__{feature}"


def entity(contract: Contract, key: str) -> Entity:
    """The Feast entity of a key column, described by the table that owns it (the one a reference points to)."""
    from feast import Entity

    column = contract.column(key)
    owner = declared_tables().get(column.references.table) if column.references else None
    if column.references and owner:
        column = owner.contract.column(column.references.column)
    value_type = _feast_type(contract, contract.column(key)).to_value_type()
    return Entity(name=key, join_keys=[key], value_type=value_type, description=column.description)


def feature_view(snapshot: Snapshot[Table], *, ttl: timedelta | None = None) -> FeatureView:
    """The feature view of a table, pinned to one version. Raises ViewDeclarationError.

    Args:
        snapshot: a snapshot of a table whose row model is declared in this process.
        ttl: how long after its event time a row counts; by default as a computed view declares it, else no limit.
    """
    from feast import FeatureView, Field

    from features.delta_source import DeltaSource

    if snapshot.row is Table:
        raise ViewDeclarationError.undeclared(snapshot.name)
    contract = snapshot.row.contract
    keys = join_keys(contract)
    declared = snapshot.row.declaration.ttl if issubclass(snapshot.row, ComputedView) else None
    return FeatureView(
        name=contract.table,
        description=contract.description,
        entities=[entity(contract, key) for key in keys],
        schema=[
            Field(name=name, dtype=_feast_type(contract, contract.column(name)), description=column.description)
            for name in (*keys, *feature_columns(contract))
            for column in (contract.column(name),)
        ],
        source=DeltaSource(
            table=contract.table,
            uri=snapshot.uri,
            version=snapshot.version,
            timestamp_field=event_time(contract),
            description=contract.description,
        ),
        ttl=ttl or declared or timedelta(),  # Feast's word for no limit
        tags={"contract": contract.fingerprint},
    )


def on_demand_view(snapshot: Snapshot[Table], view: FeatureView) -> OnDemandFeatureView | None:
    """The on-demand companion of a table's feature view; None where nothing depends on the request's instant."""
    if not issubclass(snapshot.row, ComputedView) or not snapshot.row.declaration.at_request:
        return None
    from features.request_time import request_view

    return request_view(snapshot.row.contract, snapshot.row.declaration, view)


def _feast_type(contract: Contract, column: Column) -> PrimitiveFeastType | ComplexFeastType:
    from feast.types import Array

    where = f"{contract.table}.{column.name}"
    if column.type.kind == "list" and not column.key:
        assert column.type.item is not None
        return Array(_scalar_type(where, column.type.item, column.type))
    return _scalar_type(where, column.type, column.type)


def _scalar_type(where: str, scalar: ColumnType, whole: ColumnType) -> PrimitiveFeastType:
    from feast.types import PrimitiveFeastType

    # Datetimes are left out: Feast keeps whole seconds only. Dates and decimals: it has no type of its own for them.
    types = {
        "int": PrimitiveFeastType.INT64,
        "float": PrimitiveFeastType.FLOAT64,
        "bool": PrimitiveFeastType.BOOL,
        "str": PrimitiveFeastType.STRING,
    }
    if scalar.kind not in types:
        raise ViewDeclarationError.column_type(where, str(whole))
    return types[scalar.kind]
