"""How do feature columns become tensors? A typed specification, and an encoder learned from the training set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import BaseModel, ConfigDict, model_validator

from models.errors import FeatureColumnError, FeatureValueError
from models.interactions import Float32s, Int64s


class NumericFeature(BaseModel):
    """A number column; null is allowed and becomes the mean, with a flag that says so."""

    model_config = ConfigDict(frozen=True)

    column: str
    scale: Literal["linear", "log"] = "linear"
    """"log" reads log(1 + x), for counts and waiting times."""


class FeatureSpec(BaseModel):
    """The feature columns one tower reads, by kind: what is not named here is not read."""

    model_config = ConfigDict(frozen=True)

    numeric: tuple[NumericFeature, ...] = ()
    categorical: tuple[str, ...] = ()
    """String columns; null and values not met in training share one meaning, "unknown"."""
    lists: tuple[str, ...] = ()
    """Columns of lists of strings; a row's values are averaged."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = self.columns()
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"feature column(s) named twice: {', '.join(twice)}")
        return self

    def columns(self) -> list[str]:
        """All column names, in the order of the encoding."""
        return [*(feature.column for feature in self.numeric), *self.texts()]

    def texts(self) -> list[str]:
        """The columns of strings and of lists of strings, in the order of the encoding."""
        return [*self.categorical, *self.lists]


class Encoder(BaseModel):
    """A specification with what the training set taught: means, spreads, vocabularies. Encodes rows as numbers.

    The encoding of a row is [0 (1 where there is no row), standardised numbers, null flags, one block a categorical or
    list column], a block being one-hot over the vocabulary (a list: the mean of its values' one-hots); all zero is
    "unknown".
    """

    model_config = ConfigDict(frozen=True)

    spec: FeatureSpec
    where: str
    """The name of the table in messages: users or items."""
    means: tuple[float, ...]
    spreads: tuple[float, ...]
    vocabularies: dict[str, tuple[str, ...]]

    @classmethod
    def learn(cls, spec: FeatureSpec, table: pa.Table, where: str) -> Encoder:
        """Means, spreads and vocabularies of the table's rows. Raises FeatureColumnError, FeatureValueError."""
        numbers = [_numbers(table, feature, where) for feature in spec.numeric]
        # Sorted, so that the order of the rows does not show in the last bit of a mean.
        known = [np.sort(column[~np.isnan(column)]) for column in numbers]
        texts = {name: _texts(table, name, where) for name in spec.texts()}
        return cls(
            spec=spec,
            where=where,
            means=tuple(float(column.mean()) if len(column) else 0.0 for column in known),
            spreads=tuple(float(column.std()) or 1.0 if len(column) else 1.0 for column in known),
            vocabularies={name: tuple(sorted(set(values.tolist()))) for name, (_, values) in texts.items()},
        )

    def names(self) -> list[str]:
        """What each place of the encoding means, such as users__age or users__gender=F."""
        numeric = [feature.column for feature in self.spec.numeric]
        values = [f"{name}={value}" for name in self.spec.texts() for value in self.vocabularies[name]]
        return [f"not among {self.where}", *numeric, *(f"{name} is null" for name in numeric), *values]

    def sources(self) -> list[str]:
        """The column that each place of the encoding comes from; of the first, what it says."""
        numeric = [feature.column for feature in self.spec.numeric]
        values = [name for name in self.spec.texts() for _ in self.vocabularies[name]]
        return [f"among {self.where}", *numeric, *numeric, *values]

    def encode(self, table: pa.Table) -> Float32s:
        """float32 [rows, len(names())], finite. Raises FeatureColumnError, FeatureValueError."""
        columns = [_numbers(table, feature, self.where) for feature in self.spec.numeric]
        scaled = [
            (column - mean) / spread for column, mean, spread in zip(columns, self.means, self.spreads, strict=True)
        ]
        # Five spreads are enough to say "extreme"; beyond, one odd row would drown its neighbours.
        blocks = [np.zeros((table.num_rows, 1))]
        blocks += [np.clip(np.nan_to_num(column, nan=0.0), -5.0, 5.0)[:, None] for column in scaled]
        blocks += [np.isnan(column)[:, None].astype(np.float64) for column in columns]
        for name in self.spec.texts():
            words = self.vocabularies[name]
            rows, values = _texts(table, name, self.where)
            block = np.zeros((table.num_rows, len(words)))
            place = {word: index for index, word in enumerate(words)}
            where = np.array([place.get(value, -1) for value in values.tolist()], dtype=np.int64)
            np.add.at(block, (rows[where >= 0], where[where >= 0]), 1.0)
            blocks.append(block / np.maximum(block.sum(axis=1, keepdims=True), 1.0))
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def encode_values(self, values: Mapping[str, object]) -> Float32s:
        """One row from plain values (None: null), as `encode` gives it, without a table: float32 [len(names())].

        Raises FeatureColumnError, FeatureValueError.
        """
        row = np.zeros(len(self.names()), dtype=np.float32)
        numbers = len(self.spec.numeric)
        for place, (feature, mean, spread) in enumerate(
            zip(self.spec.numeric, self.means, self.spreads, strict=True), start=1
        ):
            value = self._value(values, feature.column)
            if value is None:
                row[place + numbers] = 1.0
                continue
            if not isinstance(value, (int, float)):
                raise FeatureColumnError.wrong_type(self.where, feature.column, "a number", type(value).__name__)
            number = float(value)
            if not math.isfinite(number):
                raise FeatureValueError.not_finite(self.where, feature.column, 1, ["this row"])
            scaled = (math.log1p(max(number, 0.0)) if feature.scale == "log" else number) - mean
            row[place] = min(max(scaled / spread, -5.0), 5.0)
        start = 1 + 2 * numbers
        for name in self.spec.texts():
            words = self.vocabularies[name]
            value = self._value(values, name)
            met = [words.index(word) for word in ([value] if isinstance(value, str) else value or []) if word in words]  # type: ignore[attr-defined]
            for word in met:
                row[start + word] += 1.0 / len(met)
            start += len(words)
        return row

    def _value(self, values: Mapping[str, object], name: str) -> object:
        if name not in values:
            raise FeatureColumnError.missing(self.where, [name], list(values))
        return values[name]

    def unknown(self) -> Float32s:
        """The encoding of a user or item that the table has no row for: float32 [len(names())]."""
        numbers = len(self.spec.numeric)
        row = np.zeros(len(self.names()), dtype=np.float32)
        row[0] = row[1 + numbers : 1 + 2 * numbers] = 1.0
        return row


def transfer(names: Sequence[str], previous: Sequence[str], weights: torch.Tensor, fresh: torch.Tensor) -> torch.Tensor:
    """`fresh` weights [out, names] with the columns that an earlier encoder also had taken from `weights`."""
    place = {name: index for index, name in enumerate(previous)}
    kept = [(new, place[name]) for new, name in enumerate(names) if name in place]
    out = fresh.clone()
    if kept:
        new, old = (torch.tensor(side) for side in zip(*kept, strict=True))
        out[:, new] = weights[:, old]
    return out


def _numbers(table: pa.Table, feature: NumericFeature, where: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The column as float64 on its scale, NaN where null."""
    column = _column(table, feature.column, where)
    kind = column.type
    readable = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(fits(kind) for fits in readable):
        raise FeatureColumnError.wrong_type(where, feature.column, "a number", str(kind))
    values = column.cast(pa.float64())
    wrong = np.flatnonzero(pc.invert(pc.is_finite(values)).fill_null(False).to_numpy())
    if len(wrong):
        key = "user_id" if where == "users" else "item_id"
        at = [f"{key} {table.column(key)[int(row)]}" if key in table.column_names else f"row {row}" for row in wrong]
        raise FeatureValueError.not_finite(where, feature.column, len(wrong), at)
    numbers = np.asarray(values.to_numpy(), dtype=np.float64)
    return np.log1p(np.maximum(numbers, 0.0)) if feature.scale == "log" else numbers


def _texts(table: pa.Table, name: str, where: str) -> tuple[Int64s, np.ndarray[tuple[int], np.dtype[np.object_]]]:
    """(row, value) of every string in a column of strings or of lists of strings, nulls left out."""
    column = _column(table, name, where)
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
        raise FeatureColumnError.wrong_type(where, name, "text or a list of texts", str(kind))
    flat = column.combine_chunks()
    if inner is kind:
        rows, values = np.arange(len(flat), dtype=np.int64), flat
    else:
        rows, values = pc.list_parent_indices(flat).to_numpy(), pc.list_flatten(flat)
    kept = values.is_valid().to_numpy(zero_copy_only=False)
    return rows[kept].astype(np.int64), np.asarray(values.to_numpy(zero_copy_only=False), dtype=np.object_)[kept]


def _column(table: pa.Table, name: str, where: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise FeatureColumnError.missing(where, [name], table.column_names)
    return table.column(name)
