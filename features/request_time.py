"""What depends on the instant of a request? On-demand Feast views, made from a feature view's declaration.

They work with Feast's own clients: ``get_historical_features`` takes the instant from the entity rows'
``event_timestamp``, ``get_online_features`` from a value of that name beside the entity's key.

Feast keeps an on-demand view's function in its registry twice, as pickled bytes (dill) and as source text, and runs the
text when it reads the view back; the bytes are its last resort. Here the text alone is kept: a call of this module's
function, with the declared names. Nothing in the registry is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import FunctionType
from typing import cast

from feast import FeatureView, Field, OnDemandFeatureView
from feast.data_source import RequestSource
from feast.protos.feast.core.Transformation_pb2 import UserDefinedFunctionV2
from feast.transformation.python_transformation import PythonTransformation
from feast.types import Float64, UnixTimestamp

from features.feature_view import Declaration
from lakehouse.contracts.table import Contract

#: The instant of the request: a column of the entity rows, and a value of an online request.
INSTANT = "event_timestamp"

_DAY_US = 86_400_000_000


def request_view_name(table: str) -> str:
    """What a view's on-demand companion is called."""
    return f"{table}_at_request"


def request_view(contract: Contract, declaration: Declaration, view: FeatureView) -> OnDemandFeatureView | None:
    """The on-demand view of all that a declaration says of the request's instant; None where it says nothing."""
    if not declaration.at_request:
        return None
    name = request_view_name(contract.table)
    columns = {feature: since.column for feature, since in declaration.at_request.items()}
    return OnDemandFeatureView(
        name=name,
        description=" ".join(f"{feature}: {since.description}" for feature, since in declaration.at_request.items()),
        mode="python",
        sources=[
            view[list(dict.fromkeys(columns.values()))],
            RequestSource(name=f"{name}_instant", schema=[Field(name=INSTANT, dtype=UnixTimestamp)]),
        ],
        # Without descriptions: Feast compares these with what it infers, and takes a description for a difference.
        schema=[Field(name=feature, dtype=Float64) for feature in declaration.at_request],
        feature_transformation=_SourceOnly(_function(name, columns), _source(name, columns)),
    )


def days_since(stored: Sequence[int | None], instants: Sequence[datetime | int | None]) -> list[float | None]:
    """Days from each stored instant to the one asked about, with fractions, never below 0; null where either is.

    Args:
        stored: microseconds since 1970-01-01 UTC.
        instants: datetimes with a time zone, or whole seconds since 1970-01-01 UTC. Fractions of a second are left
            out, as Feast leaves them out of an online request: both paths see the same instant.
    """
    return [
        None if then is None or now is None else max(0, _seconds(now) * 1_000_000 - then) / _DAY_US
        for then, now in zip(stored, instants, strict=True)
    ]


def _seconds(instant: datetime | int) -> int:
    if isinstance(instant, int):
        return instant
    return int((instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant).timestamp() // 1)


class _SourceOnly(PythonTransformation):
    """A transformation that goes into the registry as source text, without pickled bytes."""

    def to_proto(self) -> UserDefinedFunctionV2:
        return UserDefinedFunctionV2(name=self.udf.__name__, body_text=self.udf_string, mode="python")

    def __deepcopy__(self, memo: dict[int, object] | None = None) -> _SourceOnly:
        return _SourceOnly(cast(FunctionType, self.udf), self.udf_string)


def _function(name: str, columns: Mapping[str, str]) -> FunctionType:
    """What the text below says, for the process that registers the view."""

    def function(inputs: Mapping[str, Sequence[int | None]]) -> dict[str, list[float | None]]:
        return {feature: days_since(inputs[column], inputs[INSTANT]) for feature, column in columns.items()}

    function.__name__ = name
    return cast(FunctionType, function)


def _source(name: str, columns: Mapping[str, str]) -> str:
    """The function's text, as Feast runs it when it reads the view back; names are those of checked identifiers."""
    lines = [
        f"        {feature!r}: days_since(inputs[{column!r}], inputs[{INSTANT!r}]),"
        for feature, column in columns.items()
    ]
    return "\n".join(
        [
            f"def {name}(inputs):",
            f"    from {__name__} import days_since",
            "",
            "    return {",
            *lines,
            "    }",
            "",
        ]
    )
