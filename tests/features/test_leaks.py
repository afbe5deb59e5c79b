"""No view knows the future: rows that become known after an instant change no training row at it."""

from __future__ import annotations

import pytest

from features.testing import assert_no_leak
from features.views import VIEW_TABLES
from lakehouse.contracts.table import Table


@pytest.mark.parametrize("view", VIEW_TABLES, ids=lambda view: view.contract.table)
def test_what_becomes_known_after_an_instant_changes_no_training_row_at_it(view: type[Table]) -> None:
    assert_no_leak(view)
