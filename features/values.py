"""How do feature values pass through Feast's online store? Arrow to protobuf and back, null and type kept.

Feast's own conversion goes through NumPy, where a null integer becomes a float and a null float NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from feast.protos.feast.types import Value_pb2
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value

from lakehouse.table import ColumnType, Contract

#: What Feast's online stores take: entity key, values by feature, event time, created time.
OnlineRow = tuple[EntityKey, dict[str, Value], datetime, datetime | None]

_SCALARS = {"int": "int64_val", "float": "double_val", "bool": "bool_val", "str": "string_val"}
_LISTS = {
    "int": ("int64_list_val", Value_pb2.Int64List),
    "float": ("double_list_val", Value_pb2.DoubleList),
    "bool": ("bool_list_val", Value_pb2.BoolList),
    "str": ("string_list_val", Value_pb2.StringList),
}


def online_rows(rows: pa.Table, contract: Contract, keys: Sequence[str], features: Sequence[str]) -> list[OnlineRow]:
    """Rows with keys, features and event time, as Feast's online stores take them."""
    key_values = [to_values(rows[key], contract.column(key).type) for key in keys]
    feature_values = [to_values(rows[name], contract.column(name).type) for name in features]
    times: list[datetime] = rows[contract.event_time].to_pylist()
    return [
        (
            EntityKey(join_keys=list(keys), entity_values=[column[row] for column in key_values]),
            {name: column[row] for name, column in zip(features, feature_values, strict=True)},
            time,
            None,
        )
        for row, time in enumerate(times)
    ]


def to_values(column: pa.ChunkedArray, column_type: ColumnType) -> list[Value]:
    """One protobuf value a row; null is a value that is not set."""
    if column_type.kind == "list":
        assert column_type.item is not None
        field, wrapper = _LISTS[column_type.item.kind]
        return [Value() if item is None else Value(**{field: wrapper(val=item)}) for item in column.to_pylist()]
    field = _SCALARS[column_type.kind]
    return [Value() if item is None else Value(**{field: item}) for item in column.to_pylist()]


def null_rows(keys_gone: pa.Table, contract: Contract, features: Sequence[str], at: datetime) -> list[OnlineRow]:
    """Rows without a value for keys that are gone: read back, they are as if they had never been written."""
    keys = keys_gone.column_names
    columns = [to_values(keys_gone[key], contract.column(key).type) for key in keys]
    return [
        (
            EntityKey(join_keys=keys, entity_values=[column[row] for column in columns]),
            {name: Value() for name in features},
            at,
            None,
        )
        for row in range(keys_gone.num_rows)
    ]
