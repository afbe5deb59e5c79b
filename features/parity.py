"""Do the online and the offline path agree? The same entities at the same instant, value by value.

Asked of the online store as it stands, after each materialization, and of what was served from it, by a sample of the
serving log. A recommender may be promoted only if nothing differs.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from datetime import datetime
from random import Random

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict

from features.errors import UnknownViewError
from features.point_in_time import Lookup, join_as_of
from features.serving_log import check_log
from features.store import EVENT_TIMESTAMP, FeatureStore
from features.views import event_time, feature_columns, full_name, join_keys
from lakehouse.contracts.arrow import arrow_type
from lakehouse.contracts.table import Table
from lakehouse.errors import MAX_EXAMPLES, UnknownVersionError
from lakehouse.snapshot import Snapshot


class ParityReport(BaseModel):
    """What comparing one view's online and offline values came to.

    Attributes:
        view: name of the view.
        reference: the version that the offline path read, as table@version.
        at: the instant that was compared: the one the online rows stand for (UTC).
        compared: values compared, that is entities times features.
        different: values that differ; null equals null, and NaN equals NaN.
        examples: at most five of the differences, one sentence each.
        unknown: entities of a serving log that can't be compared, because the version was vacuumed or redacted since.
    """

    model_config = ConfigDict(frozen=True)

    view: str
    reference: str
    at: datetime
    compared: int
    different: int
    examples: tuple[str, ...]
    unknown: int = 0


def check_parity(store: FeatureStore, view: str, entities: pa.Table) -> ParityReport:
    """Read the entities through both paths and compare every feature of the view.

    Args:
        store: where the view is registered and materialized.
        view: its name.
        entities: the view's key columns; others are ignored.

    Raises:
        UnknownViewError, NotMaterializedError, EntityColumnsError, OnlineStoreError.
    """
    at = store.materialized_at(view)
    pin = store.pins()[view]
    keys = join_keys(pin.row.contract)
    online = store.online(entities, [view])
    instants = pa.array([at] * entities.num_rows, pa.timestamp("us", tz="UTC"))
    offline = store.training_set(entities.select(keys).append_column(EVENT_TIMESTAMP, instants), [view])
    return _compare(pin, at, online, offline, "online")


def check_served(store: FeatureStore, log: pa.Table, *, sample: int = 1000, seed: int = 0) -> list[ParityReport]:
    """Compare a sample of what was served with the offline path: the version and the instant that it was served from.

    Args:
        store: where the views are registered; their tables and row models count, not their pins of now.
        log: rows of ``features.serving_log.SERVED``.
        sample: at most so many rows, drawn at random.
        seed: of the draw.

    Returns:
        One report for each view, version and instant, in this order.

    Raises:
        ServingLogError: the table is no serving log.
        UnknownViewError: a view of the log is not registered.
    """
    check_log(log)
    if log.num_rows > sample:
        log = log.take(pa.array(sorted(Random(seed).sample(range(log.num_rows), sample)), pa.int64()))  # noqa: S311
    pins = store.pins()
    reports = []
    groups = log.group_by(["view", "table_id", "version", "known_at"]).aggregate([]).to_pylist()
    for group in sorted(groups, key=lambda one: (one["view"], one["version"], one["known_at"])):
        view, at = group["view"], group["known_at"]
        if view not in pins:
            raise UnknownViewError.named(view, pins)
        of_group = [pc.equal(log[name], pa.scalar(value, log.schema.field(name).type)) for name, value in group.items()]
        rows = log.filter(pc.and_(pc.and_(of_group[0], of_group[1]), pc.and_(of_group[2], of_group[3])))
        pin = Snapshot(pins[view].uri, group["version"], pins[view].row)
        served = _served(pin, rows)
        try:
            known = pin.table_id == group["table_id"] and not pin.redacted
        except UnknownVersionError:
            known = False
        if known:
            reports.append(_compare(pin, at, served, _offline(store, view, pin, at, served), "as served"))
        else:
            reports.append(
                ParityReport(
                    view=view,
                    reference=pin.reference,
                    at=at,
                    compared=0,
                    different=0,
                    examples=(),
                    unknown=rows.num_rows,
                )
            )
    return reports


def _served(pin: Snapshot[Table], rows: pa.Table) -> pa.Table:
    """The log's keys and values as columns of the declared types."""
    contract = pin.row.contract
    entities, values = ([json.loads(text) for text in rows[name].to_pylist()] for name in ("entity", "values"))
    columns: dict[str, pa.Array] = {}
    for key in join_keys(contract):
        columns[key] = pa.array([entity[key] for entity in entities], arrow_type(contract.column(key).type))
    for feature in feature_columns(contract):
        if any(feature in served for served in values):
            kind = arrow_type(contract.column(feature).type)
            columns[full_name(pin.name, feature)] = pa.array([served.get(feature) for served in values], kind)
    return pa.table(columns)


def _offline(store: FeatureStore, view: str, pin: Snapshot[Table], at: datetime, served: pa.Table) -> pa.Table:
    """What the version says of the entities at that instant."""
    contract = pin.row.contract
    keys = join_keys(contract)
    lookup = Lookup(
        snapshot=pin,
        keys=tuple((key, key) for key in keys),
        features=tuple((full_name(view, name), name) for name in feature_columns(contract)),
        known_at=event_time(contract),
        ttl=store.ttl(view),
    )
    instants = pa.array([at] * served.num_rows, pa.timestamp("us", tz="UTC"))
    return join_as_of(served.select(keys).append_column(EVENT_TIMESTAMP, instants), EVENT_TIMESTAMP, [lookup])


def _compare(pin: Snapshot[Table], at: datetime, online: pa.Table, offline: pa.Table, how: str) -> ParityReport:
    """Value by value, for every feature that the online side has."""
    contract = pin.row.contract
    keys: Sequence[str] = join_keys(contract)
    differences: list[str] = []
    compared = different = 0
    for feature in feature_columns(contract):
        name = full_name(contract.table, feature)
        if name not in online.column_names:
            continue
        pairs = list(zip(online[name].to_pylist(), offline[name].to_pylist(), strict=True))
        rows = [row for row, (left, right) in enumerate(pairs) if not _equal(left, right)]
        compared += len(pairs)
        different += len(rows)
        for row in rows[: MAX_EXAMPLES - len(differences)]:
            who = ", ".join(f"{key} {online[key][row].as_py()}" for key in keys)
            left, right = pairs[row]
            differences.append(f"{who}: {feature} is {left!r} {how} but {right!r} offline")
    return ParityReport(
        view=contract.table,
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
