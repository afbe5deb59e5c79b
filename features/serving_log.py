"""What was served, to whom, from which version? One row for each entity and view of an answer.

Keys and values are JSON texts, so that one log holds every view. Numbers come back exactly as they were served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime

import pyarrow as pa

from features.encoding import KeyValue
from features.errors import ServingLogError
from features.online import OnlineAnswer
from features.views import full_name

#: When the answer was given; the view; its table's id and version and the instant that its rows stood for, as the
#: store's own record had them; the entity's keys; the features by name, as served. Times are instants (UTC).
SERVED = pa.schema(
    [
        pa.field("served_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("view", pa.string(), nullable=False),
        pa.field("table_id", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("known_at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("entity", pa.string(), nullable=False),
        pa.field("values", pa.string(), nullable=False),
    ]
)


def served(
    answer: OnlineAnswer,
    entities: Mapping[str, Sequence[KeyValue]],
    keys: Mapping[str, Sequence[str]],
    served_at: datetime,
) -> pa.Table:
    """An answer as rows of the log.

    Args:
        answer: what the reader gave.
        entities: what it was asked for.
        keys: each view's key columns.
        served_at: when the answer was given (with a time zone).
    """
    rows = []
    for view, state in answer.states.items():
        prefix = full_name(view, "")
        columns = {name.removeprefix(prefix): found for name, found in answer.values.items() if name.startswith(prefix)}
        for place in range(len(entities[keys[view][0]])):
            rows.append(
                {
                    "served_at": served_at,
                    "view": view,
                    "table_id": state.table_id,
                    "version": state.version,
                    "known_at": state.interval.end,
                    "entity": json.dumps({key: entities[key][place] for key in keys[view]}),
                    "values": json.dumps({name: found[place] for name, found in columns.items()}),
                }
            )
    return pa.Table.from_pylist(rows, SERVED)


def check_log(log: pa.Table) -> None:
    """Raises ServingLogError where a table is no serving log."""
    missing = [name for name in SERVED.names if name not in log.column_names]
    if missing:
        raise ServingLogError.missing(missing)
    for field in SERVED:
        if log.schema.field(field.name).type != field.type:
            raise ServingLogError.wrong_type(field.name, str(field.type), str(log.schema.field(field.name).type))
