"""Weights for the tests that ask the real engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.llm.weights import ModelRef, ensure_weights


@pytest.fixture(scope="session")
def weights() -> ModelRef:
    """The small default model, from MILLRACE_WEIGHTS or converted once into the checkout."""
    default = Path(__file__).parents[3] / ".millrace" / "weights" / "smollm2"
    return ensure_weights(Path(os.environ.get("MILLRACE_WEIGHTS", default)))
