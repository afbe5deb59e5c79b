"""What does ``feast apply`` register? Each view, pinned to the latest published version of its table.

Feast collects the entities and feature views that it finds among this module's names.
"""

from __future__ import annotations

from features.views import VIEW_TABLES, entity, feature_view, join_keys, on_demand_view
from lakehouse.errors import NotPublishedError
from lakehouse.lake import Lakehouse
from lakehouse.settings import Settings

_lake = Lakehouse.open()
(Settings().state / "features").mkdir(parents=True, exist_ok=True)  # where Feast keeps its registry
for _row in VIEW_TABLES:
    try:
        _snapshot = _lake.latest(_row)
    except NotPublishedError:
        continue  # nothing to pin it to; the others are registered all the same
    _view = globals()[_row.contract.table] = feature_view(_snapshot)
    _on_demand = on_demand_view(_snapshot, _view)
    if _on_demand is not None:
        globals()[_on_demand.name] = _on_demand
    globals().update({key: entity(_row.contract, key) for key in join_keys(_row.contract)})
