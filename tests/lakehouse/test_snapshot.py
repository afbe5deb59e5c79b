from __future__ import annotations

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from math import inf
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Lakehouse, Snapshot
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import (
    ContractMismatchError,
    NotPublishedError,
    ReferenceSyntaxError,
    StorageError,
    UnknownTableError,
    UnknownVersionError,
)
from lakehouse.ledger import Publication
from lakehouse.snapshot import Condition
from lakehouse.tables import Movie, Rating

FIRST_DAY = date(1998, 3, 1)


def publication(version: int, day: date, *, published: bool = True, minute: int | None = None) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}",
        table_name="ratings",
        batch_id=str(version),
        day=day,
        version=version,
        published=published,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=version + 1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(2026, 1, 1, 0, version if minute is None else minute, tzinfo=UTC),
    )


def rating(user: int) -> Rating:
    return Rating(user_id=user, item_id=7, rating=4.0, rated_at=datetime(1998, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def ratings(lake: Lakehouse) -> Lakehouse:
    """Versions 0 to 3 with 1 to 4 rows; 0 and 2 are published, for March 1 and 5, and 3 was refused."""
    for user in range(1, 5):
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating(user)]), mode="append")
    fifth = FIRST_DAY + timedelta(days=4)
    lake.ledger.append([publication(0, FIRST_DAY), publication(2, fifth), publication(3, fifth, published=False)])
    return lake


# References


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("ratings", 2),
        (" ratings ", 2),
        ("ratings@0", 0),
        ("ratings@1", 1),
        ("ratings@3", 3),
        ("ratings@0001", 1),
        ("ratings@1998-03-01", 0),
        ("ratings@1998-03-04", 0),
        ("ratings@1998-03-05", 2),
        ("ratings@2020-01-01", 2),
    ],
)
def test_a_reference_names_a_version_a_day_or_the_latest_published(
    ratings: Lakehouse, reference: str, version: int
) -> None:
    snapshot = ratings.resolve(reference)
    assert (snapshot.version, snapshot.row, snapshot.count()) == (version, Rating, version + 1)
    assert str(snapshot) == snapshot.reference == f"ratings@{version}"


def test_the_latest_is_the_newest_version_even_if_an_older_one_was_published_after_it(ratings: Lakehouse) -> None:
    ratings.ledger.append([publication(1, FIRST_DAY, minute=59)])
    assert ratings.latest(Rating).version == 2
    assert ratings.resolve("ratings@1998-03-01").version == 1
    assert {info.name: info.published for info in ratings.tables()}["ratings"] == 2


def test_a_system_table_is_always_read_at_its_newest_version(ratings: Lakehouse) -> None:
    ratings.ledger.append([publication(1, FIRST_DAY)])
    assert ratings.resolve("publications").count() == 4
    assert ratings.resolve("publications@1").count() == 3


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "@1",
        "ratings@",
        "ratings@-1",
        "ratings@1.5",
        "ratings@1998-3-1",
        "ratings@1998-02-30",
        "ratings@1998-13-01",
        "ratings@latest",
        "ratings@1@2",
        "../ratings",
        "ratings; DROP TABLE ratings",
        "ratings@٣",
        "ratings@" + "9" * 5000,
    ],
)
def test_what_is_not_a_reference_is_refused_as_such(ratings: Lakehouse, reference: str) -> None:
    with pytest.raises(ReferenceSyntaxError):
        ratings.resolve(reference)


def test_an_unknown_table_is_refused_with_the_nearest_name(ratings: Lakehouse) -> None:
    with pytest.raises(UnknownTableError, match=r"no table 'rating'.*Did you mean 'ratings'\?"):
        ratings.resolve("rating@1")
    with pytest.raises(UnknownTableError, match=r"Tables: publications, ratings\."):
        ratings.resolve("zzz")


@pytest.mark.parametrize("version", [4, 10**9, 10**12, 2**63 - 1, 2**63, 10**30])
def test_an_unknown_version_is_refused_with_the_versions_there_are(ratings: Lakehouse, version: int) -> None:
    with pytest.raises(UnknownVersionError, match=rf"no version {version}\..*0 to 3"):
        ratings.resolve(f"ratings@{version}")


def test_a_day_before_the_first_published_one_names_that_day(ratings: Lakehouse) -> None:
    with pytest.raises(NotPublishedError, match=r"by the end of 1998-02-28.*first published day is 1998-03-01"):
        ratings.resolve("ratings@1998-02-28")


def test_a_declared_table_without_a_published_version_says_so(lake: Lakehouse) -> None:
    with pytest.raises(NotPublishedError):
        lake.latest(Movie)
    write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating(1)]))
    lake.ledger.append([publication(0, FIRST_DAY, published=False)])
    with pytest.raises(NotPublishedError, match="no published version yet"):
        lake.resolve("ratings")
    assert lake.resolve("ratings@0").count() == 1


def test_there_is_no_lake_where_none_was_made(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no lake at"):
        Lakehouse.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_lake_keeps_its_id_and_a_new_one_has_another(tmp_path: Path) -> None:
    one = Lakehouse.open(tmp_path / "one", create=True)
    assert Lakehouse.open(tmp_path / "one", create=True).id == Lakehouse.open(tmp_path / "one").id == one.id
    assert Lakehouse.open(tmp_path / "two", create=True).id != one.id


def test_history_lists_every_version_with_its_verdict_newest_first(ratings: Lakehouse) -> None:
    history = ratings.history("ratings")
    assert [(line.version, line.published) for line in history] == [(3, False), (2, True), (1, False), (0, True)]
    with pytest.raises(UnknownTableError):
        ratings.history("rating")


# Reading


OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda value, values: value in values,
}
HOSTILE = ["'", "''", "' OR '1'='1", "\\", "\\'", "a\nb", "%", "_", "--", "/*", '"', "é", "\u202e", "𝄞", "$1", "?", ""]
INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 2),
    "share": st.floats(allow_nan=False) | st.sampled_from([0.0, 0.5, 1.0, inf, -inf]),
    "text": st.text(st.characters(exclude_categories=["Cs"]), max_size=5) | st.sampled_from(HOSTILE),
    "flag": st.booleans(),
    "day": st.dates(date(1900, 1, 1), date(2200, 1, 1)),
    "at": INSTANTS | INSTANTS.map(lambda at: at.astimezone(timezone(timedelta(hours=5, minutes=30)))),
}
SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "share": pa.float64(),
        "text": pa.string(),
        "flag": pa.bool_(),
        "day": pa.date32(),
        "at": pa.timestamp("us", "UTC"),
    }
)
ROWS = st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()})


@st.composite
def conditions(draw: st.DrawFn, rows: list[dict[str, Any]]) -> Condition:
    """A condition whose value is in the data as often as not."""
    column = draw(st.sampled_from(list(VALUES)))
    present = [row[column] for row in rows if row[column] is not None]
    value = VALUES[column] | st.sampled_from(present) if present else VALUES[column]
    sign = draw(st.sampled_from(list(OPERATORS)))
    return cast(Condition, (column, sign, draw(st.lists(value, max_size=3) if sign == "in" else value)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_conditions_pick_the_rows_that_python_would_pick(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = data.draw(st.lists(ROWS, min_size=1, max_size=6))
    where = data.draw(st.lists(conditions(rows), min_size=1, max_size=2))
    folder = tmp_path_factory.mktemp("samples")
    numbered = [{**row, "place": place} for place, row in enumerate(rows)]
    write_deltalake(folder, pa.Table.from_pylist(numbered, schema=SCHEMA.append(pa.field("place", pa.int64()))))
    expected = [
        row["place"]
        for row in numbered
        # As in SQL, nothing is known of a null.
        if all(row[name] is not None and OPERATORS[sign](row[name], value) for name, sign, value in where)
    ]
    assert sorted(Snapshot(str(folder), 0).arrow(["place"], where)["place"].to_pylist()) == expected


def test_columns_are_read_in_the_order_asked_for(ratings: Lakehouse) -> None:
    snapshot = ratings.resolve("ratings@3")
    assert snapshot.arrow(["rated_at", "user_id"]).column_names == ["rated_at", "user_id"]
    assert snapshot.polars(["user_id"], [("user_id", ">", 2)])["user_id"].sort().to_list() == [3, 4]
    rows = sorted(cast("Snapshot[Rating]", snapshot).rows(), key=lambda row: row.user_id)
    assert rows == [rating(user) for user in range(1, 5)]


def test_a_table_that_differs_from_its_row_model_is_refused_column_by_column(lake: Lakehouse) -> None:
    table = to_arrow(Rating, [rating(1)]).drop(["rated_at"])
    table = table.set_column(0, "user_id", table["user_id"].cast(pa.string()))
    write_deltalake(lake.uri("ratings"), table)
    with pytest.raises(ContractMismatchError) as caught:
        lake.resolve("ratings@0").arrow()
    assert "column user_id is declared int64 but stored as string" in caught.value.message
    assert "column rated_at is declared timestamp[us, tz=UTC] but missing" in caught.value.message


def test_a_data_file_that_is_gone_is_a_storage_error_that_names_the_version(ratings: Lakehouse) -> None:
    snapshot = ratings.resolve("ratings@3")
    next(Path(ratings.uri("ratings")).glob("*.parquet")).unlink()
    with pytest.raises(StorageError, match=r"ratings@3 can't be read") as caught:
        snapshot.arrow()
    assert "\n" not in str(caught.value)


def test_a_log_that_is_gone_is_a_typed_error(ratings: Lakehouse) -> None:
    for commit in (Path(ratings.uri("ratings")) / "_delta_log").iterdir():
        commit.unlink()
    with pytest.raises(StorageError, match="'ratings' can't be opened"):
        ratings.resolve("ratings@1")


def test_two_snapshots_are_equal_if_place_and_version_are(ratings: Lakehouse) -> None:
    assert ratings.resolve("ratings") == ratings.resolve("ratings@2") == Snapshot(ratings.uri("ratings"), 2)
    assert ratings.resolve("ratings@1") != ratings.resolve("ratings@2")
    assert ratings.resolve("ratings@1").table_id == ratings.resolve("ratings@2").table_id
