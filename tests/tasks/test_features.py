"""When are features computed anew? When the view's declaration, or what computes it, has changed."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from features.tables import ItemStats, UserStats
from tasks import cache
from tasks.cache import MILLRACE_ROOT, code_digest, sources

VIEW = '''
from datetime import datetime
from typing import Annotated

from features.aggregations import Count
from features.feature_view import FeatureView
from lakehouse.contracts.table import EventTime, Key
from lakehouse.tables import Rating


class Mine(FeatureView, name="test_mine", source=Rating):
    """A user's own view."""

    user_id: Annotated[int, Key()]
    known_at: Annotated[datetime, Key(), EventTime()]
    lately: Annotated[int, Count(days=7)]
'''


def test_the_digest_of_a_view_covers_its_declaration_and_all_that_computes_it() -> None:
    behind = sources(MILLRACE_ROOT / "features" / "tables.py", (MILLRACE_ROOT,))
    assert {f"features/{name}.py" for name in ("tables", "feature_view", "aggregations", "compute")} <= set(behind)
    assert not {"features/store.py", "features/offline_store.py", "tasks/features.py"} & set(behind)
    assert code_digest(UserStats) == code_digest(ItemStats)  # of one module


def test_a_changed_declaration_is_computed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "test_mine_views.py"
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def digest(text: str) -> str:
        module.write_text(text)
        importlib.invalidate_caches()
        sys.modules.pop("test_mine_views", None)
        for one in (cache._read, cache._files, cache._digest, cache.sources):
            one.cache_clear()
        return code_digest(importlib.import_module("test_mine_views").Mine)

    first = digest(VIEW)
    assert digest(VIEW) == first != code_digest(UserStats)
    assert digest(VIEW.replace("days=7", "days=8")) != first
