"""The list of the public interface, loaded by its path: other packages install a folder that is called `docs` too."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="session")
def api() -> ModuleType:
    """docs/api.py."""
    spec = importlib.util.spec_from_file_location("docs_api", DOCS / "api.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
