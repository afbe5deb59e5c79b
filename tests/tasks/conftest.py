"""A task that is called leaves its answer and its cost in folders of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from flytekit.core.local_cache import LocalTaskCache


@pytest.fixture(autouse=True)
def in_own_state(own_state: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test in this folder has a lake, a state and a local Flyte cache of its own."""
    monkeypatch.setattr("flytekit.core.local_cache.CACHE_LOCATION", str(tmp_path / "cache"))
    monkeypatch.setattr(LocalTaskCache, "_initialized", False)
