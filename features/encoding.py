"""Which bytes does Feast keep online? Entity keys and values in its own layout, a column at a time.

Feast's writers turn each row into protobuf messages and each message into bytes. Here a column becomes the same bytes
at once: a value that comes again is encoded once, and null stays null (Feast's own conversion goes through NumPy, where
a null integer becomes a float and a null float NaN). What is read back is what the row model declares.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar

from features.views import event_time, feature_columns, join_keys
from lakehouse.contracts.table import ColumnType, Contract

if TYPE_CHECKING:
    import pyarrow as pa

#: A value of an online feature; None where there is none.
OnlineValue = int | float | bool | str | datetime | list[int] | list[float] | list[bool] | list[str] | None
KeyValue = int | str


@dataclass(frozen=True)
class Layout:
    """What a view's rows are made of in any online store.

    Attributes:
        view: name of the view.
        keys: name and type of each join key.
        features: name and type of each feature.
    """

    view: str
    keys: tuple[tuple[str, ColumnType], ...]
    features: tuple[tuple[str, ColumnType], ...]

    @classmethod
    def of(cls, contract: Contract) -> Layout:
        """The layout of a view that is derived from a row model. Raises ViewDeclarationError."""
        return cls(
            contract.table,
            tuple((name, contract.column(name).type) for name in join_keys(contract)),
            tuple((name, contract.column(name).type) for name in feature_columns(contract)),
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The features' names."""
        return tuple(name for name, _ in self.features)


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one view as online stores hold them.

    Attributes:
        keys: the entity key of each row.
        features: the values by feature; no bytes stand for null.
        texts: what SQL stores keep beside each value, by feature.
        times: the event times, in microseconds since 1970 (UTC).
    """

    keys: list[bytes]
    features: dict[str, list[bytes]]
    texts: dict[str, list[str | None]]
    times: list[int]

    def slices(self, length: int) -> Iterator[EncodedRows]:
        """The same rows, at most so many at a time."""
        for start in range(0, len(self.keys), length):
            part = slice(start, start + length)
            yield EncodedRows(
                self.keys[part],
                {name: values[part] for name, values in self.features.items()},
                {name: texts[part] for name, texts in self.texts.items()},
                self.times[part],
            )


def encode_rows(rows: pa.Table, contract: Contract) -> EncodedRows:
    """Rows with keys, features and event time, as online stores hold them, in the order of their keys' bytes.

    In that order a database's index grows at its end.
    """
    import pyarrow as pa

    layout = Layout.of(contract)
    keys = encode_keys(layout, {name: rows[name].to_pylist() for name, _ in layout.keys})
    order = sorted(range(len(keys)), key=keys.__getitem__)
    rows = rows.take(pa.array(order, pa.int64()))
    columns = {name: _values(rows[name]) for name in layout.names}
    return EncodedRows(
        [keys[row] for row in order],
        {name: _encode(columns[name], kind) for name, kind in layout.features},
        {name: _texts(columns[name], kind) for name, kind in layout.features},
        rows[event_time(contract)].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_pylist(),
    )


def encode_keys(layout: Layout, columns: Mapping[str, Sequence[KeyValue]]) -> list[bytes]:
    """The entity key of each row, as Feast's serialization 3 has it: names, then types, lengths and values."""
    types = dict(layout.keys)
    head = key_prefix(layout)
    parts = [_key_parts(types[name], columns[name]) for name in sorted(types)]
    if len(parts) == 1:
        return [head + part for part in parts[0]]
    return [head + b"".join(row) for row in zip(*parts, strict=True)]


def key_prefix(layout: Layout) -> bytes:
    """How the entity keys of a view start."""
    names = [name.encode() for name in sorted(name for name, _ in layout.keys)]
    return _U32.pack(len(names)) + b"".join(_TYPE.pack(_STRING, len(name)) + name for name in names)


def decoder(kind: ColumnType) -> Callable[[bytes | None], OnlineValue]:
    """What reads a value of that type; no bytes, or none at all, are None."""
    return _DECODERS.get(kind.kind, _decode_any)


_U32 = struct.Struct("<I")
_TYPE = struct.Struct("<II")
_INT_KEY = struct.Struct("<IIq")
_DOUBLE = struct.Struct("<cd")
# Feast's numbers for the types of keys (ValueType) …
_STRING, _INT64 = 2, 4
# … and the fields of its Value message.
_SCALARS = {"int": "int64_val", "float": "double_val", "bool": "bool_val", "str": "string_val"}
_LISTS = {"int": "Int64List", "float": "DoubleList", "bool": "BoolList", "str": "StringList"}
_TAG_STRING, _TAG_INT64, _TAG_DOUBLE, _TAG_BOOL = 0x12, 0x20, 0x29, 0x38
_ONE_BYTE = 0x80  # shorter lengths and smaller numbers are one byte in protobuf

_V = TypeVar("_V")


def _key_parts(kind: ColumnType, values: Sequence[KeyValue]) -> list[bytes]:
    if kind.kind == "int":
        pack = _INT_KEY.pack
        return [pack(_INT64, 8, value) for value in values]
    texts = (str(value).encode() for value in values)
    return [_TYPE.pack(_STRING, len(text)) + text for text in texts]


def _values(column: pa.ChunkedArray) -> list[OnlineValue]:
    """The column as Python values; much faster than to_pylist where there is no null."""
    import pyarrow as pa

    if column.null_count == 0 and (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        values: list[OnlineValue] = column.to_numpy().tolist()
        return values
    values = column.to_pylist()
    return values


def _encode(values: Sequence[OnlineValue], kind: ColumnType) -> list[bytes]:
    if kind.kind == "float":
        pack = _DOUBLE.pack
        return [b"" if value is None else pack(b"\x29", value) for value in values]
    from feast.protos.feast.types import Value_pb2

    if kind.kind == "list":
        assert kind.item is not None
        wrapper, field = getattr(Value_pb2, _LISTS[kind.item.kind]), _SCALARS[kind.item.kind].replace("_", "_list_")
        message = Value_pb2.Value
        return [
            b"" if value is None else message(**{field: wrapper(val=value)}).SerializeToString() for value in values
        ]
    encode = _Once[OnlineValue](_writer(kind))
    return [encode[value] for value in values]


def _writer(kind: ColumnType) -> Callable[[OnlineValue], bytes]:
    from feast.protos.feast.types.Value_pb2 import Value

    if kind.kind == "datetime":
        return lambda value: (
            Value(unix_timestamp_val=int(value.timestamp())).SerializeToString() if isinstance(value, datetime) else b""
        )
    field = _SCALARS[kind.kind]
    return lambda value: b"" if value is None else Value(**{field: value}).SerializeToString()  # type: ignore[arg-type]


class _Once(dict[_V, bytes], Generic[_V]):
    """Encodes each different value once."""

    def __init__(self, write: Callable[[_V], bytes]) -> None:
        super().__init__()
        self._write = write

    def __missing__(self, value: _V) -> bytes:
        self[value] = encoded = self._write(value)
        return encoded


def _texts(values: Iterable[OnlineValue], kind: ColumnType) -> list[str | None]:
    """Feast's SQL stores keep scalars a second time, as text."""
    if kind.kind not in _SCALARS:
        return [None for _ in values]
    return [None if value is None else value if isinstance(value, str) else str(value) for value in values]


def _decode_int(data: bytes | None) -> OnlineValue:
    if data and data[0] == _TAG_INT64 and len(data) == 2:
        return data[1]
    if data and data[0] == _TAG_INT64 and len(data) == 3:
        return data[1] - _ONE_BYTE + (data[2] << 7)
    return _decode_any(data)


def _decode_float(data: bytes | None) -> OnlineValue:
    if data and data[0] == _TAG_DOUBLE:
        value: float = _DOUBLE.unpack(data)[1]
        return value
    return _decode_any(data)


def _decode_bool(data: bytes | None) -> OnlineValue:
    if data and data[0] == _TAG_BOOL:
        return data[1] == 1
    return _decode_any(data)


def _decode_str(data: bytes | None) -> OnlineValue:
    if data and data[0] == _TAG_STRING and data[1] < _ONE_BYTE:
        return data[2:].decode()
    return _decode_any(data)


def _decode_any(data: bytes | None) -> OnlineValue:
    """As the message itself says, by protobuf."""
    if not data:
        return None
    from feast.protos.feast.types.Value_pb2 import Value

    message = Value.FromString(data)
    field = message.WhichOneof("val")
    if field is None:
        return None
    value = getattr(message, field)
    if field == "unix_timestamp_val":
        return datetime.fromtimestamp(value, UTC)
    if field.endswith("_list_val"):
        items: list[int] | list[float] | list[bool] | list[str] = list(value.val)
        return items
    found: int | float | bool | str = value
    return found


_DECODERS: dict[str, Callable[[bytes | None], OnlineValue]] = {
    "int": _decode_int,
    "float": _decode_float,
    "bool": _decode_bool,
    "str": _decode_str,
}
