"""A configuration is refused when it is worse, with an interval that says so; energy and money add up."""

from __future__ import annotations

import pytest

from models.llm.pricing import default_prices, price
from models.llm.scores import compare, measure


def scores(*values: float) -> dict[str, dict[str, float]]:
    return {str(number): {"mood": value} for number, value in enumerate(values)}


def test_a_mean_comes_with_a_seeded_interval_that_holds_it() -> None:
    (mood,) = measure(scores(*[1.0] * 60, *[0.0] * 20))
    assert (mood.mean, mood.cases) == (0.75, 80)
    assert 0.6 < mood.low < 0.75 < mood.high < 0.9
    assert measure(scores(*[1.0] * 60, *[0.0] * 20)) == [mood]


def test_what_is_worse_is_refused_and_what_is_equal_or_better_is_not() -> None:
    good, bad = scores(*[1.0] * 70, *[0.0] * 10), scores(*[1.0] * 50, *[0.0] * 30)
    refused = compare(bad, good)
    assert refused.outcome == "refused" and "mood -0.250" in refused.reason
    assert compare(good, bad).outcome == compare(good, good).outcome == "accepted"


def test_a_small_loss_counts_only_if_chance_does_not_explain_it() -> None:
    champion = scores(*[1.0] * 40, *[0.0] * 40)
    other = {**champion, "0": {"mood": 0.0}, "1": {"mood": 0.0}, "40": {"mood": 1.0}}
    assert compare(other, champion).outcome == "accepted"


def test_only_cases_and_metrics_that_both_have_are_compared() -> None:
    verdict = compare({"a": {"mood": 1.0}, "b": {"new": 0.0}}, {"a": {"mood": 1.0}, "c": {"mood": 0.0}})
    assert [(one.metric, one.cases) for one in verdict.compared] == [("mood", 1)]


def test_energy_and_money_follow_the_formula() -> None:
    table = default_prices().model_copy(
        update={"devices": 2, "device_watts": 10.0, "pue": 1.5, "per_kwh": 0.5, "per_device_hour": 1.0}
    )
    priced = price(3600, 2048, table)
    watt_hours = (2 * 10 + 2 * 0.3725) * 1.5
    assert priced.watt_hours == pytest.approx(watt_hours)
    assert priced.money == pytest.approx(watt_hours / 1000 * 0.5 + 2.0)
    assert price(0, 2048, table).money == 0
