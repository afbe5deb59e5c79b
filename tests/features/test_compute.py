"""The statistics are right by hand, and no row knows what comes after it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
from hypothesis import given
from hypothesis import strategies as st

from features.compute import item_stats, user_stats
from features.tables import ItemStats, UserStats
from lakehouse.arrow import arrow_schema, to_arrow
from lakehouse.tables import Rating

Ratings = Callable[[Sequence[tuple[int, int, float, datetime]]], pa.Table]


def at(day: int, hour: int = 12, month: int = 3) -> datetime:
    return datetime(1998, month, day, hour, tzinfo=UTC)


def test_user_statistics_are_cumulative_and_stamped_with_the_end_of_their_day(ratings: Ratings) -> None:
    table = ratings([(1, 10, 4, at(1)), (1, 20, 3, at(1, 23)), (1, 30, 2, at(4)), (2, 10, 5, at(4, 0))])
    assert user_stats(table).to_pylist() == [
        {"user_id": 1, "computed_at": at(2, 0), "ratings_count": 2, "mean_rating": 3.5, "active_days": 1},
        {"user_id": 1, "computed_at": at(5, 0), "ratings_count": 3, "mean_rating": 3.0, "active_days": 2},
        {"user_id": 2, "computed_at": at(5, 0), "ratings_count": 1, "mean_rating": 5.0, "active_days": 1},
    ]


def test_recent_count_covers_thirty_days_and_not_the_thirty_first(ratings: Ratings) -> None:
    # Rated on 1 and 2 March; the window of the row stamped 1 April begins on 2 March at 00:00.
    table = ratings([(1, 10, 4, at(1, 23)), (2, 10, 3, at(2, 0)), (3, 10, 5, at(31, 8))])
    assert [
        (row["computed_at"], row["ratings_count"], row["recent_count"]) for row in item_stats(table).to_pylist()
    ] == [
        (at(2, 0), 1, 1),
        (at(3, 0), 2, 2),
        (at(1, 0, month=4), 3, 2),
    ]


def test_after_leaves_out_earlier_rows_and_changes_none(ratings: Ratings) -> None:
    table = ratings([(1, 10, 4, at(1)), (1, 20, 3, at(2)), (2, 10, 1, at(2)), (1, 30, 5, at(3))])
    for compute in (user_stats, item_stats):
        whole = compute(table)
        late = whole.filter(
            pc.greater(whole["computed_at"], pa.scalar(at(3, 0), whole.schema.field("computed_at").type))
        )
        assert 0 < late.num_rows < whole.num_rows
        assert compute(table, after=at(3, 0)).equals(late)


def test_results_have_the_contracts_schema_even_when_empty(ratings: Ratings) -> None:
    for row, compute in ((UserStats, user_stats), (ItemStats, item_stats)):
        assert compute(ratings([])).schema.equals(arrow_schema(row.contract))
        assert compute(ratings([(1, 10, 4, at(1))])).schema.equals(arrow_schema(row.contract))


start = datetime(1998, 1, 1, tzinfo=UTC)
rating_rows = st.lists(
    st.builds(
        Rating,
        user_id=st.integers(1, 3),
        item_id=st.integers(1, 3),
        rating=st.floats(0.5, 5),
        rated_at=st.integers(0, 60 * 24 * 60).map(lambda minutes: start + timedelta(minutes=minutes)),
    ),
    min_size=1,
    max_size=30,
)


@given(rating_rows, st.randoms())
def test_the_order_of_the_ratings_does_not_matter(rows: list[Rating], random: object) -> None:
    shuffled = rows.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for compute in (user_stats, item_stats):
        assert compute(to_arrow(Rating, rows)).equals(compute(to_arrow(Rating, shuffled)))


@given(rating_rows)
def test_statistics_agree_with_a_count_by_hand(rows: list[Rating]) -> None:
    for row in item_stats(to_arrow(Rating, rows)).to_pylist():
        seen = [r for r in rows if r.item_id == row["item_id"] and r.rated_at < row["computed_at"]]
        assert row["ratings_count"] == len(seen)
        assert abs(row["mean_rating"] - sum(r.rating for r in seen) / len(seen)) < 1e-9
        assert row["recent_count"] == sum(r.rated_at >= row["computed_at"] - timedelta(days=30) for r in seen)
    for row in user_stats(to_arrow(Rating, rows)).to_pylist():
        seen = [r for r in rows if r.user_id == row["user_id"] and r.rated_at < row["computed_at"]]
        assert row["ratings_count"] == len(seen)
        assert row["active_days"] == len({r.rated_at.date() for r in seen})


@given(rating_rows, st.integers(0, 60))
def test_ratings_given_later_change_no_row_stamped_earlier(rows: list[Rating], day: int) -> None:
    cut = start + timedelta(days=day)
    early = to_arrow(Rating, [r for r in rows if r.rated_at < cut])
    for compute in (user_stats, item_stats):
        whole = compute(to_arrow(Rating, rows))
        known = whole.filter(
            pc.less_equal(whole["computed_at"], pa.scalar(cut, whole.schema.field("computed_at").type))
        )
        assert known.equals(compute(early))
