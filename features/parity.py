"""Do the online and the offline path agree? The same entities at the same instant, value by value."""

from __future__ import annotations

import math
from datetime import datetime

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from features.store import EVENT_TIMESTAMP, FeatureStore
from features.views import feature_columns, full_name, join_keys
from lakehouse.errors import MAX_EXAMPLES


class ParityReport(BaseModel):
    """What comparing one view's online and offline values came to.

    Attributes:
        view: name of the view.
        reference: the version that the offline path read, as table@version.
        at: the instant that was compared: the one the online rows stand for (UTC).
        compared: values compared, that is entities times features.
        different: values that differ; null equals null, and NaN equals NaN.
        examples: at most five of the differences, one sentence each.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    at: datetime
    compared: int
    different: int
    examples: tuple[str, ...]


def check_parity(store: FeatureStore, view: str, entities: pa.Table) -> ParityReport:
    """Read the entities through both paths and compare every feature of the view.

    Args:
        store: where the view is registered and materialized.
        view: its name.
        entities: the view's key columns; others are ignored.

    Raises:
        UnknownViewError, NotMaterializedError, EntityColumnsError.
    """
    at = store.materialized_at(view)
    pin = store.pins()[view]
    contract = pin.row.contract
    online = store.online(entities, [view])
    keys = join_keys(contract)
    instants = pa.array([at] * entities.num_rows, pa.timestamp("us", tz="UTC"))
    offline = store.training_set(entities.select(keys).append_column(EVENT_TIMESTAMP, instants), [view])

    differences: list[str] = []
    different = 0
    for feature in feature_columns(contract):
        name = full_name(view, feature)
        pairs = zip(online[name].to_pylist(), offline[name].to_pylist(), strict=True)
        rows = [row for row, (left, right) in enumerate(pairs) if not _equal(left, right)]
        different += len(rows)
        for row in rows[: MAX_EXAMPLES - len(differences)]:
            who = ", ".join(f"{key} {entities[key][row].as_py()}" for key in keys)
            left, right = online[name][row].as_py(), offline[name][row].as_py()
            differences.append(f"{who}: {feature} is {left!r} online but {right!r} offline")
    compared = entities.num_rows * len(feature_columns(contract))
    return ParityReport(
        view=view,
        reference=pin.reference,
        at=at,
        compared=compared,
        different=different,
        examples=tuple(differences),
    )


def _equal(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return left == right
