from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse import Snapshot
from lakehouse.contracts.table import Table
from lakehouse.errors import UnknownColumnError, UnreadableFeatureError
from lakehouse.query.conditions import expression
from lakehouse.query.reading import dataset

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEGATIVE_NAN = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000000))[0]

# Every table feature


@pytest.fixture(scope="module")
def spark() -> SparkSession:
    from lakehouse.spark import spark_session

    return spark_session()


THREE = "a BIGINT, x DOUBLE, s STRING"
TEN = "SELECT id AS a, CAST(id * 1.5 AS double) AS x, concat('t', id) AS s FROM range(10)"
#: By name: columns, properties, the rest of CREATE TABLE, rows, what follows; and who reads it.
FEATURES: dict[str, tuple[str, str, str, str, tuple[str, ...], str]] = {
    "plain": (THREE, "", "", TEN, (), "pyarrow"),
    "column mapping": (
        THREE,
        "'delta.columnMapping.mode' = 'name'",
        "",
        TEN,
        (
            "ALTER TABLE {t} RENAME COLUMN s TO words",
            "ALTER TABLE {t} DROP COLUMN x",
            "INSERT INTO {t} VALUES (20, 'n')",
        ),
        "delta-rs",
    ),
    "column mapping by id": (THREE, "'delta.columnMapping.mode' = 'id'", "", TEN, (), "delta-rs"),
    "deletion vectors": (
        THREE,
        "'delta.enableDeletionVectors' = 'true'",
        "",
        TEN,
        ("DELETE FROM {t} WHERE a = 3", "UPDATE {t} SET x = 7 WHERE a = 5"),
        "delta-rs",
    ),
    "deletion vectors that nothing uses": (THREE, "'delta.enableDeletionVectors' = 'true'", "", TEN, (), "pyarrow"),
    "change data feed": (
        THREE,
        "'delta.enableChangeDataFeed' = 'true'",
        "",
        TEN,
        ("UPDATE {t} SET x = 0 WHERE a = 3", "DELETE FROM {t} WHERE a = 4"),
        "pyarrow",
    ),
    "partitions": (
        "a BIGINT, p STRING, d DATE, b BOOLEAN, m DECIMAL(5,2)",
        "",
        "PARTITIONED BY (p, d, b, m)",
        "SELECT id, CASE WHEN id % 3 = 0 THEN NULL WHEN id % 3 = 1 THEN 'a b/ü%=' ELSE 'q' END, "
        "DATE '1969-12-31' + CAST(id % 2 AS INT), id > 5, CAST(id % 2 AS DECIMAL(5,2)) FROM range(10)",
        (),
        "pyarrow",
    ),
    "partitions by floats": (
        "a BIGINT, f DOUBLE",
        "",
        "PARTITIONED BY (f)",
        "VALUES (1, 0.5), (2, NULL)",
        (),
        "delta-rs",
    ),
    "moments far away": (
        "a BIGINT, n TIMESTAMP_NTZ, z TIMESTAMP",
        "",
        "",
        "SELECT id, TIMESTAMP_NTZ '1400-01-01 00:00:00.123456', TIMESTAMP '9999-12-31 23:59:59.999999' FROM range(3)",
        (),
        "pyarrow",
    ),
    "liquid clustering": (THREE, "", "CLUSTER BY (a)", TEN, ("OPTIMIZE {t}",), "pyarrow"),
    "v2 checkpoints": (
        THREE,
        "'delta.checkpointPolicy' = 'v2', 'delta.checkpointInterval' = '2'",
        "",
        TEN,
        ("INSERT INTO {t} VALUES (30, 1.0, 'a')",) * 3,
        "pyarrow",
    ),
    "in-commit timestamps": (THREE, "'delta.enableInCommitTimestamps' = 'true'", "", TEN, (), "pyarrow"),
    "row tracking": (THREE, "'delta.enableRowTracking' = 'true'", "", TEN, (), "pyarrow"),
    "vacuum protocol check": (THREE, "'delta.feature.vacuumProtocolCheck' = 'supported'", "", TEN, (), "pyarrow"),
    "append only": (THREE, "'delta.appendOnly' = 'true'", "", TEN, (), "pyarrow"),
    "constraints": (THREE, "", "", TEN, ("ALTER TABLE {t} ADD CONSTRAINT c CHECK (a >= 0)",), "pyarrow"),
    "defaults": (
        "a BIGINT, s STRING DEFAULT 'q'",
        "'delta.feature.allowColumnDefaults' = 'supported'",
        "",
        "(a) SELECT id FROM range(4)",
        (),
        "pyarrow",
    ),
    "nested": (
        "a BIGINT, l ARRAY<STRUCT<b: INT, c: STRING>>, m MAP<STRING, BIGINT>, t STRUCT<k: DECIMAL(10,2), n: BINARY>",
        "",
        "",
        "SELECT id, array(named_struct('b', CAST(id AS INT), 'c', 'z')), map('k', id), "
        "named_struct('k', CAST(id AS DECIMAL(10,2)), 'n', CAST('x' AS BINARY)) FROM range(5)",
        (),
        "pyarrow",
    ),
    "columns that came later": (
        THREE,
        "",
        "",
        TEN,
        ("ALTER TABLE {t} ADD COLUMNS (n INT FIRST)", "INSERT INTO {t} VALUES (5, 11, 1.0, 'z')"),
        "pyarrow",
    ),
    "narrow types": (
        "a BIGINT, b TINYINT, c SMALLINT, f FLOAT, o BOOLEAN",
        "",
        "",
        "SELECT id, CAST(id AS TINYINT), CAST(id AS SMALLINT), CAST(id AS FLOAT), id % 2 = 0 FROM range(5)",
        (),
        "pyarrow",
    ),
    "iceberg compatibility": (
        THREE,
        "'delta.enableIcebergCompatV2' = 'true', 'delta.columnMapping.mode' = 'name'",
        "",
        TEN,
        (),
        "delta-rs",
    ),
    "type widening": (THREE, "'delta.enableTypeWidening' = 'true'", "", TEN, (), "nobody"),
}


@pytest.mark.parametrize("feature", FEATURES)
def test_a_table_of_every_feature_is_read_as_spark_reads_it_or_refused(
    spark: SparkSession, tmp_path: Path, feature: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns, properties, rest, rows, later, reader = FEATURES[feature]
    uri = str(tmp_path / "made")
    table = f"delta.`{uri}`"
    spark.sql(f"CREATE TABLE {table} ({columns}) USING delta {rest} {properties and f'TBLPROPERTIES ({properties})'}")
    spark.sql(f"INSERT INTO {table} {rows}")
    for statement in later:
        spark.sql(statement.format(t=table))
    snapshot: Snapshot[Table] = Snapshot(uri, DeltaTable(uri).version())
    if reader == "nobody":
        with pytest.raises(UnreadableFeatureError, match=r"'made'.*[Ww]idening"):
            snapshot.arrow()
        return
    expected = [row.asDict(True) for row in spark.read.format("delta").load(uri).collect()]
    assert (dataset(snapshot.delta()) is not None) == (reader == "pyarrow")
    some = sorted(row["a"] for row in expected if row["a"] >= 3)
    for small in (0, 10**9):
        monkeypatch.setattr("lakehouse.query.reading.SMALL", small)
        assert comparable(snapshot.arrow().to_pylist()) == comparable(expected)
        assert sorted(snapshot.arrow(["a"], [("a", ">=", 3)])["a"].to_pylist()) == some
        with duckdb.connect() as connection:
            relation = snapshot.duckdb(connection).filter("a >= 3").select("a")
            assert sorted(row[0] for row in relation.fetchall()) == some


def comparable(rows: list[dict[str, Any]]) -> list[str]:
    return sorted(repr({name: plain(row[name]) for name in sorted(row)}) for row in rows)


def plain(value: Any) -> Any:
    """Values as both libraries have them: naive UTC times, maps and structs as sorted pairs."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, dict):
        return sorted((name, plain(item)) for name, item in value.items())
    if isinstance(value, list):
        items = [(item[0], plain(item[1])) if isinstance(item, tuple) else plain(item) for item in value]
        return sorted(items) if value and isinstance(value[0], tuple) else items
    return value


# Conditions that statistics get wrong


FLOATS = st.sampled_from([None, 0.0, -0.0, 1.5, 5.0, math.nan, NEGATIVE_NAN, math.inf, -math.inf])
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: any(a == item for item in b),
}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    files=st.lists(st.lists(FLOATS, min_size=1, max_size=4), min_size=1, max_size=3),
    sign=st.sampled_from(list(COMPARISONS)),
    value=FLOATS.filter(lambda value: value is not None),
)
def test_not_a_number_is_never_taken_for_one(
    files: list[list[float | None]], sign: str, value: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    uri = str(tmp_path_factory.mktemp("floats") / "t")
    for floats in files:
        write_deltalake(uri, pa.table({"x": pa.array(floats, pa.float64())}), mode="append")
    wanted: Any = [value, 1.5] if sign == "in" else value
    expected = sorted(repr(x) for floats in files for x in floats if x is not None and COMPARISONS[sign](x, wanted))
    where: Any = [("x", sign, wanted)]
    for small in (0, 10**9):
        with mock.patch("lakehouse.query.reading.SMALL", small):
            read = Snapshot[Table](uri, len(files) - 1).arrow(where=where)
        assert sorted(map(repr, read["x"].to_pylist())) == expected


def test_duckdb_and_the_reader_for_special_tables_keep_to_it_too(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", 0)
    uri = str(tmp_path / "t")
    feature = "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')"
    spark.sql(f"CREATE TABLE delta.`{uri}` (a BIGINT, x DOUBLE) USING delta {feature}")
    rows = "VALUES (1, 5D), (2, CAST('NaN' AS DOUBLE)), (3, NULL), (4, 5D)"
    spark.sql(f"INSERT INTO delta.`{uri}` SELECT /*+ COALESCE(1) */ * FROM {rows}")
    whole: Snapshot[Table] = Snapshot(uri, 1)
    marked: Snapshot[Table] = Snapshot(uri, 2)
    spark.sql(f"DELETE FROM delta.`{uri}` WHERE a = 4")
    assert (dataset(whole.delta()) is None, dataset(marked.delta()) is None) == (False, True)
    for sign, one in (("=", [1]), ("!=", [2]), ("<=", [1]), (">", []), (">=", [1])):
        where: Any = [("x", sign, 5.0)]
        assert marked.arrow(["a"], where)["a"].to_pylist() == one
        assert [row["a"] for row in marked.spark(spark, where=where).collect()] == one
    with duckdb.connect() as connection:  # SQL's own rule, there: NaN is greater than any number
        assert whole.duckdb(connection).filter("x != 5").select("a").fetchall() == [(2,)]
        assert sorted(whole.duckdb(connection).filter("x >= 5").select("a").fetchall()) == [(1,), (2,), (4,)]


# Pushing down


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Snapshot[Any]:
    """Four columns, two partitions, five files of ten rows in each."""
    uri = str(tmp_path_factory.mktemp("wide") / "t")
    for start in range(0, 100, 20):
        n = list(range(start, start + 20))
        day = [date(1998, 3, 1 + number % 2) for number in n]
        words = [f"{'long' * 20}{number:03}" for number in n]
        table = pa.table({"n": n, "day": day, "word": words, "x": [float(number) for number in n]})
        write_deltalake(uri, table, mode="append", partition_by=["day"])
    return Snapshot(uri, 4)


@pytest.mark.parametrize("small", [0, 10**9])
def test_long_texts_that_begin_alike_are_told_apart(
    wide: Snapshot[Any], monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", small)
    for sign, words in (("=", ["044"]), (">", ["098", "099"])):
        where: Any = [("word", sign, f"{'long' * 20}{'044' if sign == '=' else '097'}")]
        assert sorted(word[-3:] for word in wide.arrow(["word"], where)["word"].to_pylist()) == words


@pytest.mark.parametrize(
    ("where", "files"),
    [
        ([("day", "=", date(1998, 3, 1))], 5),
        ([("n", ">=", 80)], 2),
        ([("n", "in", [3, 44])], 4),
        ([("n", "<", 40), ("day", "=", date(1998, 3, 2))], 2),
        ([("x", ">", 1000.0)], 10),  # statistics of floats leave NaN out
        ([], 10),
    ],
)
def test_files_that_can_not_hold_a_matching_row_are_left_out(wide: Snapshot[Any], where: Any, files: int) -> None:
    found = dataset(wide.delta(), where)
    assert found is not None
    assert len(list(found.get_fragments(filter=expression(where, found.schema)))) == files


@pytest.mark.parametrize("small", [0, 10**9])
def test_every_engine_gets_the_same_rows_with_columns_and_conditions(
    wide: Snapshot[Any], spark: SparkSession, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", small)
    columns, where = ["x", "day"], [("n", ">", 90), ("day", "=", date(1998, 3, 2))]
    expected = [(float(n), date(1998, 3, 2)) for n in range(91, 100, 2)]
    arrow = wide.arrow(columns, where)  # type: ignore[arg-type]
    assert arrow.column_names == columns
    frames: list[Iterator[tuple[Any, ...]] | list[tuple[Any, ...]]] = [
        zip(*arrow.to_pydict().values(), strict=True),
        zip(*wide.scan(columns, where).read_all().to_pydict().values(), strict=True),  # type: ignore[arg-type]
        wide.polars(columns, where).rows(),  # type: ignore[arg-type]
        list(wide.pandas(columns, where).itertuples(index=False, name=None)),  # type: ignore[arg-type]
        [tuple(row) for row in wide.spark(spark, columns, where).collect()],  # type: ignore[arg-type]
    ]
    with duckdb.connect() as connection:
        frames.append(wide.duckdb(connection, columns, where).fetchall())  # type: ignore[arg-type]
        frames.append(wide.duckdb(connection, ["x", "n"], where[:1]).select("x").limit(0).fetchall() + expected)  # type: ignore[arg-type]
    for frame in frames:
        assert sorted(frame) == expected
    assert isinstance(wide.polars(["x"]), pl.DataFrame)


def test_a_column_that_is_not_there_is_refused_with_the_nearest_name(wide: Snapshot[Any]) -> None:
    with pytest.raises(UnknownColumnError, match=r"no column 'words'.*Did you mean 'word'\?"):
        wide.arrow(["words"])
    with pytest.raises(UnknownColumnError, match="no column 'm'"):
        wide.scan(where=[("m", "=", 1)])


def test_a_large_table_is_streamed_batch_by_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", 0)
    uri = str(tmp_path / "t")
    write_deltalake(uri, pa.table({"n": pa.array(range(400_000), pa.int64())}))
    reader = Snapshot(uri, 0).scan()
    first = reader.read_next_batch().num_rows
    assert first < 400_000 and first + sum(batch.num_rows for batch in reader) == 400_000


def test_a_folder_whose_name_needs_escaping_is_read(tmp_path: Path) -> None:
    uri = str(tmp_path / "a b ü" / "t")
    write_deltalake(uri, pa.table({"n": [1, 2], "p": ["x y", "z%"]}), partition_by=["p"])
    assert Snapshot(uri, 0).arrow(["n"], [("n", "=", 2), ("p", "=", "z%")])["n"].to_pylist() == [2]
    assert DeltaTable(uri).version() == 0
