"""Groups are compared as by hand; chance raises no alarm, a real gap does."""

from __future__ import annotations

import numpy as np
import pytest

from models.fairness import LIMIT, MIN_USERS, band, by_group


def test_means_and_ratio_are_those_by_hand() -> None:
    per_user = np.array([0.2, 0.4] * 10 + [0.5, 0.7] * 10)
    scores, (gap,) = by_group(per_user, {"gender": ["F"] * 20 + ["M"] * 20})
    assert [(score.group, score.users, score.judged) for score in scores] == [("F", 20, True), ("M", 20, True)]
    assert [score.value for score in scores] == pytest.approx([0.3, 0.6])
    assert (gap.worst, gap.best, gap.limit) == ("F", "M", LIMIT)
    assert gap.ratio == pytest.approx(0.5)
    assert gap.low < 0.5 < gap.high < LIMIT and not gap.fair


def test_a_small_group_is_shown_and_not_judged() -> None:
    few = MIN_USERS - 1
    scores, (gap,) = by_group(np.array([0.0] * few + [0.5] * 30), {"age": ["old"] * few + ["young"] * 30})
    assert [(score.group, score.judged) for score in scores] == [("old", False), ("young", True)]
    assert gap.fair and gap.ratio == 1


def test_users_of_an_unknown_group_are_shown_and_not_judged() -> None:
    scores, (gap,) = by_group(np.array([0.9] * 20 + [0.3] * 20), {"gender": [None] * 20 + ["M"] * 20})
    assert [(score.group, score.judged) for score in scores] == [("M", True), ("unknown", False)]
    assert gap.fair


def test_one_group_and_a_model_that_finds_nothing_are_fair() -> None:
    for values in (np.full(30, 0.4), np.zeros(30)):
        _, (gap,) = by_group(values, {"gender": ["F"] * 30})
        assert gap.fair and (gap.ratio, gap.low, gap.high) == (1, 1, 1)
    _, (gap,) = by_group(np.zeros(40), {"gender": ["F"] * 20 + ["M"] * 20})
    assert gap.fair


def nights(rng: np.random.Generator, count: int, factor: float) -> int:
    """How many of so many simulated nights are called unfair; women find `factor` of what men find.

    95 users, as in MovieLens' newest two weeks; NDCG is 0 for four in ten and spread evenly above.
    """
    alarms = 0
    for _ in range(count):
        groups = rng.choice(["F", "M"], 95, p=[0.3, 0.7])
        values = np.where(rng.random(95) < 0.4, 0.0, rng.random(95)) * np.where(groups == "F", factor, 1.0)
        _, (gap,) = by_group(values, {"gender": list(groups)})
        alarms += not gap.fair
    return alarms


def test_equal_groups_raise_no_alarm_by_chance() -> None:
    """The count stands in the module's docstring; the seed is fixed, so it is exact."""
    assert nights(np.random.default_rng(11), 200, 1.0) == 1


def test_a_group_that_gets_a_quarter_is_noticed() -> None:
    assert nights(np.random.default_rng(12), 50, 0.25) >= 45


@pytest.mark.parametrize(
    ("value", "expected"), [(None, None), (7, "<25"), (25, "25-39"), (39.5, "25-39"), (40, "40+"), (73, "40+")]
)
def test_bands_are_named_by_their_bounds(value: float | None, expected: str | None) -> None:
    assert band(value, (25, 40)) == expected
