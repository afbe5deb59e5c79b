"""The index is right by hand, quiet data raises no alarm, and a real shift does."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import chi2_contingency, ks_2samp

from features.drift import MIN_ROWS, drift
from features.errors import DriftColumnError


def only(reference: pa.Table, current: pa.Table) -> float:
    (found,) = drift(reference, current, ["x"])
    assert found.psi is not None
    return found.psi


def test_the_index_agrees_with_the_formula_by_hand() -> None:
    reference = pa.table({"x": ["a"] * 600 + ["b"] * 400})
    current = pa.table({"x": ["a"] * 300 + ["b"] * 600 + ["new"] * 100})
    # Shares with half a count added to each of the three bins that are used.
    r = [600.5 / 1001.5, 400.5 / 1001.5, 0.5 / 1001.5]
    c = [300.5 / 1001.5, 600.5 / 1001.5, 100.5 / 1001.5]
    assert only(reference, current) == pytest.approx(
        sum((b - a) * math.log(b / a) for a, b in zip(r, c, strict=True)), rel=1e-12
    )


def test_equal_tables_have_an_index_of_zero() -> None:
    x = np.random.default_rng(1).normal(size=500)
    for column in (x, x.astype(int), x > 0, [["a", "b"], [], None] * 200):
        table = pa.table({"x": column})
        assert only(table, table) == 0


def test_two_samples_of_one_distribution_raise_no_alarm_at_the_smallest_size() -> None:
    """The count is stated in the module's docstring; the seed is fixed, so it is exact."""
    rng = np.random.default_rng(7)
    words = np.array(list("abcdefghijklmnopqrst"))

    def sample() -> pa.Table:
        return pa.table(
            {
                "normal": rng.normal(size=MIN_ROWS),
                "count": rng.geometric(0.1, MIN_ROWS),
                "word": words[np.minimum(rng.geometric(0.2, MIN_ROWS), 20) - 1],
            }
        )

    found = [one for _ in range(400) for one in drift(sample(), sample(), ["normal", "count", "word"])]
    assert len(found) == 1200 and sum(one.drifted for one in found) == 0


def test_a_shift_of_three_quarters_of_a_standard_deviation_alarms_at_the_smallest_size() -> None:
    rng = np.random.default_rng(7)
    n = MIN_ROWS
    pairs = [(pa.table({"x": rng.normal(0, 1, n)}), pa.table({"x": rng.normal(0.75, 1, n)})) for _ in range(200)]
    assert sum(drift(before, after, ["x"])[0].drifted for before, after in pairs) >= 198


def test_too_few_rows_raise_no_alarm_whatever_the_index() -> None:
    few = pa.table({"x": np.arange(MIN_ROWS - 1.0)})
    (found,) = drift(few, pa.table({"x": np.arange(5000.0) + 5000}), ["x"])
    assert found.psi is not None and found.psi > 1 and not found.drifted
    assert (found.reference_rows, found.current_rows) == (MIN_ROWS - 1, 5000)


def test_what_appears_only_as_null_or_constant_counts_too() -> None:
    whole = pa.table({"x": np.arange(1000.0)})
    holed = pa.table({"x": pa.array([None if i % 2 else float(i) for i in range(1000)])})
    assert drift(whole, holed, ["x"])[0].drifted
    assert drift(pa.table({"x": [1.0] * 500}), pa.table({"x": [0.0] * 500}), ["x"])[0].drifted
    assert drift(pa.table({"x": [["a"], ["b"]] * 300}), pa.table({"x": [["a", "a"]] * 600}), ["x"])[0].drifted


def test_the_distance_is_zero_for_equal_shares_and_nears_one_for_disjoint_ones() -> None:
    one, other = pa.table({"x": ["a"] * 5000}), pa.table({"x": ["b"] * 5000})
    assert drift(one, one, ["x"])[0].jensen_shannon == 0
    distance = drift(one, other, ["x"])[0].jensen_shannon
    assert distance is not None and 0.99 < distance <= 1
    # By hand: shares (1/2, 1/2) and (1/4, 3/4) with half a count added to 1,000 of each.
    r, c = (500.5 / 1001, 500.5 / 1001), (250.5 / 1001, 750.5 / 1001)
    divergence = sum(side * math.log2(side / ((a + b) / 2)) / 2 for a, b in zip(r, c, strict=True) for side in (a, b))
    (found,) = drift(pa.table({"x": ["a", "b"] * 500}), pa.table({"x": ["a"] * 250 + ["b"] * 750}), ["x"])
    assert found.jensen_shannon == pytest.approx(math.sqrt(divergence), rel=1e-12)


def test_p_values_are_those_of_the_textbook_tests() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=400), rng.normal(0.1, 1, size=500)
    (number,) = drift(pa.table({"x": x}), pa.table({"x": y}), ["x"])
    assert (number.kind, number.test) == ("number", "kolmogorov-smirnov")
    assert number.p_value == number.adjusted_p_value == pytest.approx(ks_2samp(x, y).pvalue)
    (word,) = drift(pa.table({"x": ["a", "b"] * 200}), pa.table({"x": ["a"] * 230 + ["b"] * 170}), ["x"])
    assert (word.kind, word.test) == ("category", "chi-square")
    assert word.p_value == pytest.approx(chi2_contingency([[200, 200], [230, 170]], correction=False).pvalue)


def test_quiet_features_make_each_other_no_more_likely_to_alarm() -> None:
    """Adjusted by rank times number of features (Benjamini-Hochberg): never below the p-value itself."""
    rng = np.random.default_rng(5)
    names = [f"x{n}" for n in range(20)]
    before, after = (pa.table({name: rng.normal(size=400) for name in names}) for _ in range(2))
    found = drift(before, after, names)
    ranked = sorted(found, key=lambda one: one.p_value)
    expected = [min(later.p_value * 20 / (j + 1) for j, later in enumerate(ranked) if j >= i) for i in range(20)]
    assert [one.adjusted_p_value for one in ranked] == pytest.approx(expected)


def test_a_difference_that_is_certain_but_small_is_no_drift() -> None:
    rng = np.random.default_rng(9)
    (found,) = drift(pa.table({"x": rng.normal(size=50_000)}), pa.table({"x": rng.normal(0.1, 1, 50_000)}), ["x"])
    assert found.adjusted_p_value < 1e-6 and found.psi is not None and found.psi < 0.05 and not found.drifted


def test_a_large_index_that_chance_explains_is_no_drift() -> None:
    """Enough rows, but few of them hold a value: the index is high, the test knows how little it rests on."""
    empty: list[list[str]] = [[]] * 300
    before = pa.table({"x": [*empty, [*"abcdefghij" * 2]]})
    (found,) = drift(before, pa.table({"x": [*empty, [*"aaabbbccddddeeeefghi"]]}), ["x"])
    assert found.psi is not None and found.psi > 0.2 and found.p_value > 0.01 and not found.drifted


def test_a_side_without_values_has_no_index() -> None:
    (found,) = drift(pa.table({"x": pa.array([], pa.float64())}), pa.table({"x": [1.0]}), ["x"])
    assert found.psi is None and not found.drifted


def test_columns_that_cannot_be_compared_are_refused() -> None:
    table = pa.table({"ratings_count": [1], "at": pa.array([0], pa.timestamp("us", tz="UTC"))})
    with pytest.raises(DriftColumnError, match="current table has no column 'ratings_count'"):
        drift(table, table.drop_columns(["ratings_count"]), ["ratings_count"])
    with pytest.raises(DriftColumnError, match="Did you mean 'ratings_count'"):
        drift(table, table, ["rating_count"])
    with pytest.raises(DriftColumnError, match="'at' is timestamp"):
        drift(table, table, ["at"])
