"""How columns are read, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from models.errors import FeatureColumnError, FeatureValueError
from models.features import Encoder, FeatureSpec, NumericFeature, transfer

SPEC = FeatureSpec(
    numeric=(NumericFeature(column="age"), NumericFeature(column="count", scale="log")),
    categorical=("mood",),
    lists=("genres",),
)


def table() -> pa.Table:
    return pa.table(
        {
            "item_id": [7, 8, 9],
            "age": pa.array([10, 30, None], pa.int64()),
            "count": [0.0, None, 7.0],
            "mood": ["dark", None, "light"],
            "genres": pa.array([["Crime", "Drama"], [], None], pa.list_(pa.string())),
        }
    )


def test_numbers_are_standardised_and_null_is_the_mean_with_a_flag() -> None:
    encoder = Encoder.learn(SPEC, table(), "items")
    rows = dict(zip(encoder.names(), encoder.encode(table()).T.tolist(), strict=True))
    assert rows["age"] == [-1, 1, 0]
    assert rows["age is null"] == [0, 0, 1]
    assert rows["count"] == pytest.approx([-1, 0, 1])  # log(1) and log(8), one spread apart from their mean
    assert rows["mood=dark"] == [1, 0, 0]
    assert rows["genres=Crime"] == [0.5, 0, 0]


def test_an_encoder_encodes_the_same_after_a_trip_through_sorted_json() -> None:
    encoder = Encoder.learn(SPEC, table(), "items")
    stored = json.loads(json.dumps(encoder.model_dump(mode="json"), sort_keys=True))
    again = Encoder.model_validate(stored)
    assert again.names() == encoder.names()
    np.testing.assert_array_equal(again.encode(table()), encoder.encode(table()))


def test_a_value_not_met_in_training_reads_as_unknown() -> None:
    encoder = Encoder.learn(SPEC, table(), "items")
    odd = table().set_column(3, "mood", pa.array(["odd", "odd", None]))
    moods = [place for place, name in enumerate(encoder.names()) if name.startswith("mood=")]
    assert encoder.encode(odd)[:, moods].any() == np.False_


def test_an_all_null_column_is_read_and_says_nothing() -> None:
    empty = table().set_column(1, "age", pa.nulls(3)).set_column(3, "mood", pa.nulls(3))
    encoder = Encoder.learn(SPEC, empty, "items")
    assert np.isfinite(encoder.encode(empty)).all()
    assert np.isfinite(encoder.encode(table())).all()


def test_one_extreme_value_cannot_drown_the_rest() -> None:
    encoder = Encoder.learn(SPEC, table(), "items")
    huge = table().set_column(1, "age", pa.array([10**9, 10, 10]))
    assert encoder.encode(huge).max() <= 5.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_is_refused_with_column_count_and_item(bad: float) -> None:
    broken = table().set_column(2, "count", pa.array([1.0, bad, None]))
    with pytest.raises(FeatureValueError, match=r"'count' of the items table holds 1 .* item_id 8"):
        Encoder.learn(SPEC, broken, "items")
    with pytest.raises(FeatureValueError):
        Encoder.learn(SPEC, table(), "items").encode(broken)


def test_a_missing_column_and_a_wrong_type_are_named() -> None:
    with pytest.raises(FeatureColumnError, match=r"lacks 1 column.*mood"):
        Encoder.learn(SPEC, table().drop_columns(["mood"]), "items")
    with pytest.raises(FeatureColumnError, match=r"'age'.*string"):
        Encoder.learn(SPEC, table().set_column(1, "age", pa.array(["a", "b", "c"])), "items")
    with pytest.raises(FeatureColumnError, match=r"'mood'.*int64"):
        Encoder.learn(SPEC, table().set_column(3, "mood", pa.array([1, 2, 3])), "items")


def test_a_column_named_twice_is_refused() -> None:
    with pytest.raises(ValidationError, match="named twice: mood"):
        FeatureSpec(categorical=("mood",), lists=("mood",))


def test_transfer_matches_weights_by_name() -> None:
    fresh, old = torch.zeros(1, 3), torch.tensor([[1.0, 2.0]])
    assert transfer(["b", "c", "a"], ["a", "b"], old, fresh).tolist() == [[2.0, 0.0, 1.0]]
