"""Weights for the tests that ask the real engine."""

from __future__ import annotations

import pytest

from models.llm.weights import ModelRef, named_model


@pytest.fixture(scope="session")
def weights() -> ModelRef:
    """The small default model, where the set-up puts it."""
    return named_model("")
