"""What a night tells of its recommendations: shares of a score that add up, by title and by name."""

from __future__ import annotations

import numpy as np
import pytest

from models.explain import Explanation
from tasks.explain import NAMED, worked

NAMES = ["item_to_item", "popularity", "transitions", *(f"column{number}" for number in range(9))]


def explained() -> Explanation:
    """The first two inputs that come from the history are told by its items instead."""
    inputs = np.array([[0.5, 0.25, 0.3, *(0.01 * (number + 1) for number in range(9))], [9.0] * 12])
    history = np.array([[0.7, -0.2, 0.3], [9.0] * 3])
    return Explanation(7, np.array([50, 51]), inputs.sum(axis=1), inputs, np.array([1, 2, 3]), history)


def test_named_contributions_and_the_rest_add_up_to_the_margin_of_the_first() -> None:
    titles = {1: "One", 2: "Two", 3: "Three", 50: "Fargo (1996)", 51: "Heat (1995)"}
    told = worked(explained(), NAMES, titles)
    assert (told.user_id, told.title) == (7, "Fargo (1996)")
    assert len(told.contributions) == NAMED
    assert sum(part.value for part in told.contributions) + told.rest == pytest.approx(told.margin)
    assert [(part.what, part.history) for part in told.contributions[:4]] == [
        ("One", True),
        ("Three", True),
        ("popularity", False),
        ("Two", True),
    ]
    assert not {part.what for part in told.contributions} & {"item_to_item", "transitions"}
