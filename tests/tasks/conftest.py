"""A task that is called writes what it cost into the lake that the settings name: here, the test's own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def in_own_state(own_state: None) -> None:
    """Every test in this folder has a lake and a state of its own."""
