from __future__ import annotations

import base64
import json
import struct
import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

import lakehouse.tables  # noqa: F401  (declares ratings, users and movies)
from lakehouse import Lakehouse
from lakehouse.errors import (
    MillraceError,
    NotPublishedError,
    QueryError,
    StorageError,
    UnknownTableError,
    UnknownVersionError,
    UnreadableFeatureError,
)
from lakehouse.ledger import Publication
from lakehouse.query.sql import query

FIRST_DAY = date(1998, 3, 1)


def ratings(count: int) -> pa.Table:
    """``count`` ratings, each by a user of its own."""
    return pa.table(
        {
            "user_id": pa.array(range(1, count + 1), pa.int64()),
            "item_id": pa.array([7] * count, pa.int64()),
            "rating": pa.array([float(number % 5 + 1) for number in range(count)]),
            "rated_at": pa.array([datetime(1998, 3, 1, 22, tzinfo=UTC)] * count, pa.timestamp("us", "UTC")),
        }
    )


def publication(version: int, *, published: bool = True) -> Publication:
    day = FIRST_DAY + timedelta(days=version)
    return Publication(
        publication_id=f"ratings/{day}",
        table_name="ratings",
        batch_id=str(day),
        day=day,
        version=version,
        published=published,
        rows_in=3,
        rows_published=2,
        rows_quarantined=1,
        rows_duplicate=0,
        rows_total=2 * version + 2,
        failed_checks=[] if published else ["Size of the table"],
        broken_rules='{"rating le 5": 1}',
        fingerprint="f" * 64,
        published_at=datetime(2026, 1, 1, 0, version, tzinfo=UTC),
    )


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    """Ratings with 2, 4 and 6 rows at versions 0, 1 and 2; 1 is the latest published, 2 failed its check."""
    lake = Lakehouse.open(tmp_path / "lake", create=True)
    for _ in range(3):
        write_deltalake(lake.uri("ratings"), ratings(2), mode="append")
    write_deltalake(lake.quarantine_uri("ratings"), pa.table({"row": ['{"rating": 9}'], "rules": [["rating le 5"]]}))
    lake.ledger.append([publication(0), publication(1), publication(2, published=False)])
    return lake


def count(lake: Lakehouse, source: str) -> object:
    return query(lake, f"SELECT count(*) AS n FROM {source}")["n"][0].as_py()


# References


@pytest.mark.parametrize(
    ("source", "rows"),
    [
        ("ratings", 4),
        ("ratings@0", 2),
        ("ratings@2", 6),
        ("ratings@1998-03-01", 2),
        ("ratings@1998-03-31", 4),
        ("Ratings@1", 4),
        ('"ratings@1"', 4),
        ("ratings@1--comment", 4),
        ("ratings@1/*ratings@2*/", 4),
        ("ratings@0, ratings@1", 8),
        ("ratings@1 AS a JOIN ratings@1 AS b USING (user_id)", 8),
        ("(SELECT * FROM ratings@2 WHERE user_id = 1)", 3),
        ("publications", 3),
        ("publications@1", 3),
        ("quarantine.ratings", 1),
        ("quarantine.ratings@0", 1),
    ],
)
def test_a_reference_reads_the_version_it_names(lake: Lakehouse, source: str, rows: int) -> None:
    assert count(lake, source) == rows


@pytest.mark.parametrize("table", ["runs", "metrics", "decisions", "costs"])
def test_a_system_table_that_nobody_wrote_to_is_empty_and_has_its_columns(lake: Lakehouse, table: str) -> None:
    assert query(lake, f"SELECT * FROM {table}").num_rows == 0
    assert f"{table.removesuffix('s')}_id" in query(lake, f"FROM {table}").column_names


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("'ratings@99'", "ratings@99"),
        ("'it''s ratings@99'", "it's ratings@99"),
        ("$$ratings@99$$", "ratings@99"),
        ("$tag$ratings@99$tag$", "ratings@99"),
        (r"E'\' ratings@99'", "' ratings@99"),
        ("'é… ' || 'ratings@99'", "é… ratings@99"),
        ("1 /* ratings@99 */", 1),
        ("1 -- ratings@99", 1),
        ("/* ' */ 2 -- ratings@99 '", 2),
    ],
)
def test_what_looks_like_a_reference_in_strings_and_comments_stays_as_it_is(
    lake: Lakehouse, expression: str, value: object
) -> None:
    assert query(lake, f"SELECT {expression}").column(0)[0].as_py() == value


def test_a_reference_after_text_that_is_not_ascii_is_found(lake: Lakehouse) -> None:
    statement = "SELECT count(*) AS \"größe…\", 'é' FROM ratings@2"
    assert query(lake, statement).to_pylist() == [{"größe…": 6, "'é'": "é"}]


def test_a_quarantine_that_nothing_was_refused_into_is_empty_and_has_its_columns(lake: Lakehouse) -> None:
    assert query(lake, "SELECT row, rules, batch_id FROM quarantine.movies").num_rows == 0


def test_a_name_of_the_statements_own_wins_over_the_table(lake: Lakehouse) -> None:
    assert query(lake, "WITH ratings AS (SELECT 1 AS x) SELECT * FROM ratings").to_pylist() == [{"x": 1}]
    assert query(lake, "SELECT 1 AS movies, 2 AS runs").to_pylist() == [{"movies": 1, "runs": 2}]


def test_only_the_named_tables_are_opened(lake: Lakehouse) -> None:
    log = Path(lake.uri("publications")) / "_delta_log" / "00000000000000000000.json"
    log.write_text("damaged")
    assert count(lake, "ratings@2") == 6


@pytest.mark.parametrize(
    ("source", "error", "words"),
    [
        ("ratingz", UnknownTableError, "Did you mean 'ratings'?"),
        ("ratingz@1", UnknownTableError, "Did you mean 'ratings'?"),
        ("publication", UnknownTableError, "Did you mean 'publications'?"),
        ("quarantine.ratingz", UnknownTableError, "Did you mean 'ratings'?"),
        ("ratings@3", UnknownVersionError, "versions are 0 to 2"),
        ("ratings@99999999999999999999999", UnknownVersionError, "versions are 0 to 2"),
        ("ratings@1998-02-28", NotPublishedError, "first published day is 1998-03-01"),
        ("movies", NotPublishedError, "no published version yet"),
        ("quarantine.ratings@1998-03-01", QueryError, "not published by day"),
    ],
)
def test_a_table_or_version_that_is_not_there_is_named_with_the_way_out(
    lake: Lakehouse, source: str, error: type[MillraceError], words: str
) -> None:
    with pytest.raises(error) as caught:
        query(lake, f"SELECT * FROM {source}")
    assert words in str(caught.value)


@pytest.mark.parametrize("source", ["ratings@", "ratings@1x", "ratings@1998-03-01x", "ratings@-1", "@1", "ratings @1"])
def test_half_a_reference_is_a_query_error_and_never_another_version(lake: Lakehouse, source: str) -> None:
    with pytest.raises(QueryError):
        query(lake, f"SELECT * FROM {source}")


# Reads only


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1",
        "FROM ratings",
        "VALUES (1), (2)",
        "WITH a AS (SELECT * FROM ratings) SELECT * FROM a",
        "DESCRIBE ratings",
        "DESCRIBE SELECT * FROM ratings@1",
        "SUMMARIZE ratings",
        "EXPLAIN SELECT * FROM ratings",
        "SELECT 1;",
        "PIVOT ratings ON rating IN (1, 2) USING count(*)",
    ],
)
def test_every_kind_of_read_gives_rows(lake: Lakehouse, statement: str) -> None:
    assert query(lake, statement).num_rows > 0


def test_show_tables_lists_the_lakes_tables(lake: Lakehouse) -> None:
    assert {"ratings", "publications"} <= set(query(lake, "SHOW TABLES")["name"].to_pylist())


@pytest.mark.parametrize(
    "statement",
    [
        "",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE ratings",
        "DROP VIEW ratings",
        "CREATE TABLE mine AS SELECT * FROM ratings",
        "INSERT INTO ratings VALUES (1, 2, 3.0, now())",
        "UPDATE ratings SET rating = 5",
        "DELETE FROM ratings",
        "SET threads = 1",
        "SET enable_external_access = true",
        "RESET lock_configuration",
        "PRAGMA enable_profiling",
        "CALL enable_logging(storage = 'file')",
        "INSTALL httpfs",
        "LOAD json",
        "USE memory",
        "CHECKPOINT",
        "PIVOT ratings ON rating USING count(*)",
        "SELECT \0 1",
        "SELECT '\udcff'",
    ],
)
def test_anything_but_one_read_is_refused(lake: Lakehouse, statement: str) -> None:
    with pytest.raises(QueryError):
        query(lake, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('{file}')",
        "SELECT * FROM read_text('{file}')",
        "SELECT * FROM read_blob('{file}')",
        "SELECT * FROM read_parquet('{file}')",
        "SELECT * FROM '{file}'",
        'SELECT * FROM "{file}"',
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM sniff_csv('{file}')",
        "SELECT * FROM query('FROM read_text(''{file}'')')",
        "FROM enable_logging(storage = 'file', storage_path = '{folder}/log')",
        "FROM read_text('http://127.0.0.1:9/x')",
        "FROM 'http://127.0.0.1:9/x.csv'",
        "COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
        "EXPORT DATABASE '{folder}/out'",
        "IMPORT DATABASE '{folder}'",
        "ATTACH '{folder}/other.db'",
        "FROM duckdb_secrets()",
    ],
)
def test_no_statement_reaches_files_or_the_network(lake: Lakehouse, tmp_path: Path, statement: str) -> None:
    secret = tmp_path / "files" / "secret.csv"
    secret.parent.mkdir()
    secret.write_text("word\nopensesame\n")
    with pytest.raises((QueryError, UnknownTableError)) as caught:
        query(lake, statement.format(file=secret, folder=secret.parent))
    assert "opensesame" not in str(caught.value)
    assert [path.name for path in secret.parent.iterdir()] == ["secret.csv"]


def test_a_python_variable_can_not_be_read_as_a_table(lake: Lakehouse) -> None:
    hidden = pa.table({"a": [1]})
    assert hidden.num_rows == 1
    with pytest.raises(UnknownTableError):
        query(lake, "SELECT * FROM hidden")


@pytest.mark.parametrize(
    "name", ['x" AS SELECT 1; DROP SCHEMA quarantine; --', "x'; DROP TABLE ratings; --", "../../etc/passwd", "a\nb@1"]
)
def test_a_hostile_name_is_a_table_that_is_not_there(lake: Lakehouse, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    for source in (quoted, f"quarantine.{quoted}"):
        with pytest.raises(MillraceError):
            query(lake, f"SELECT * FROM {source}")
    assert count(lake, "ratings@2") == 6


def test_a_read_leaves_every_file_of_the_lake_as_it_is(lake: Lakehouse) -> None:
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in Path(lake.root).rglob("*")}

    before = files()
    query(lake, "SELECT * FROM ratings@1 JOIN publications ON version = 1 ORDER BY rating")
    assert files() == before


# What comes back


def test_the_rows_keep_their_types_and_times_are_utc(lake: Lakehouse) -> None:
    result = query(lake, "SELECT * FROM ratings@0 ORDER BY user_id")
    assert result.equals(ratings(2))
    assert query(lake, "SELECT CAST(rated_at AS DATE) AS day FROM ratings")["day"][0].as_py() == FIRST_DAY


def test_columns_with_one_name_are_told_apart(lake: Lakehouse) -> None:
    assert query(lake, "SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a").column_names == ["a", "a_2", "a_2_2", "a_3"]


def test_a_mistake_in_the_statement_is_one_sentence_with_a_hint(lake: Lakehouse) -> None:
    with pytest.raises(QueryError) as caught:
        query(lake, "SELECT ratin FROM ratings")
    assert 'column "ratin" not found' in caught.value.message
    assert "rating" in caught.value.fix
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("small", [0, 10**9])
def test_a_version_whose_file_is_gone_is_a_storage_error_that_names_it(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch, small: int
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", small)
    next(Path(lake.uri("ratings")).glob("*.parquet")).unlink()
    with pytest.raises(StorageError, match=r"ratings@2 can't be read"):
        query(lake, "SELECT avg(rating) FROM ratings@2")


def test_rows_behind_a_deletion_vector_are_not_returned(lake: Lakehouse) -> None:
    vector = deletion_vector(1, 3)
    write_log(
        Path(lake.uri("marked")),
        pa.table({"a": pa.array([10, 11, 12, 13, 14], pa.int64())}),
        schema_fields=[{"name": "a", "type": "long", "nullable": True, "metadata": {}}],
        protocol={"readerFeatures": ["deletionVectors"], "writerFeatures": ["deletionVectors"]},
        configuration={"delta.enableDeletionVectors": "true"},
        deletion_vector=vector,
    )
    assert query(lake, "SELECT a FROM marked@0 ORDER BY a")["a"].to_pylist() == [10, 12, 14]
    assert count(lake, "marked@0 WHERE a > 10") == 2


def test_a_table_with_renamed_columns_gives_their_values(lake: Lakehouse) -> None:
    metadata = {"delta.columnMapping.id": 1, "delta.columnMapping.physicalName": "col-1"}
    write_log(
        Path(lake.uri("renamed")),
        pa.table({"col-1": pa.array([10, 11], pa.int64())}),
        schema_fields=[{"name": "a", "type": "long", "nullable": True, "metadata": metadata}],
        protocol={"readerFeatures": ["columnMapping"], "writerFeatures": ["columnMapping"]},
        configuration={"delta.columnMapping.mode": "name", "delta.columnMapping.maxColumnId": "1"},
    )
    assert query(lake, "SELECT a FROM renamed@0 ORDER BY a")["a"].to_pylist() == [10, 11]


def write_log(
    folder: Path,
    rows: pa.Table,
    *,
    schema_fields: list[dict[str, object]],
    protocol: dict[str, object],
    configuration: dict[str, str],
    deletion_vector: dict[str, object] | None = None,
) -> None:
    """A Delta table of one commit, written by hand for what delta-rs reads and can't write."""
    (folder / "_delta_log").mkdir(parents=True)
    pq.write_table(rows, folder / "part.parquet")
    add: dict[str, object] = {
        "path": "part.parquet",
        "partitionValues": {},
        "size": (folder / "part.parquet").stat().st_size,
        "modificationTime": 0,
        "dataChange": True,
        "stats": json.dumps({"numRecords": rows.num_rows, "tightBounds": False}),
    }
    if deletion_vector:
        add["deletionVector"] = deletion_vector
    actions: list[dict[str, object]] = [
        {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, **protocol}},
        {
            "metaData": {
                "id": str(uuid.UUID(int=1)),
                "format": {"provider": "parquet", "options": {}},
                "schemaString": json.dumps({"type": "struct", "fields": schema_fields}),
                "partitionColumns": [],
                "configuration": configuration,
                "createdTime": 0,
            }
        },
        {"add": add},
    ]
    commit = folder / "_delta_log" / f"{0:020}.json"
    commit.write_text("\n".join(json.dumps(action) for action in actions))


def deletion_vector(*rows: int) -> dict[str, object]:
    """An inline deletion vector: a RoaringBitmapArray with one array container, in Z85 (Delta protocol)."""
    array = struct.pack("<IIHHI", 12346, 1, 0, len(rows) - 1, 16) + struct.pack(f"<{len(rows)}H", *rows)
    data = struct.pack("<IQI", 1681511377, 1, 0) + array
    assert len(data) % 4 == 0
    rfc1924 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = base64.b85encode(data).translate(bytes.maketrans(rfc1924, z85)).decode()
    return {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(data), "cardinality": len(rows)}


# More than the eye sees


@pytest.mark.parametrize(
    "path",
    [
        "_lake.json",
        "_ledger/_published.json",
        "_staging/ratings/secret.parquet",
        "ratings/_delta_log/00000000000000000000.json",
        "ratings/*.parquet",
        "ratings",
    ],
)
def test_no_statement_reaches_the_lakes_own_files(lake: Lakehouse, path: str) -> None:
    staged = Path(lake.root) / "_staging/ratings/secret.parquet"
    staged.parent.mkdir(parents=True)
    pq.write_table(pa.table({"word": ["opensesame"]}), staged)
    for reader in ("read_text", "read_blob", "read_parquet", "read_json", "glob", "parquet_metadata", "delta_scan"):
        with pytest.raises((QueryError, UnknownTableError)) as caught:
            query(lake, f"SELECT * FROM {reader}('{lake.root}/{path}'), ratings@1")
        assert lake.id not in str(caught.value) and "opensesame" not in str(caught.value)


def test_only_the_columns_and_rows_that_a_statement_needs_are_asked_for(
    lake: Lakehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakehouse.query.reading.SMALL", 0)
    (plan,) = query(lake, "EXPLAIN SELECT rating FROM ratings@2 WHERE user_id = 2")["explain_value"].to_pylist()
    assert 'Filters: "user_id" = 2' in plan and "Projections: rating" in plan


def test_a_statement_over_an_unreadable_feature_says_so(lake: Lakehouse) -> None:
    write_log(
        Path(lake.uri("strange")),
        pa.table({"a": pa.array([1], pa.int64())}),
        schema_fields=[{"name": "a", "type": "long", "nullable": True, "metadata": {}}],
        protocol={"readerFeatures": ["typeWidening"], "writerFeatures": ["typeWidening"]},
        configuration={},
    )
    with pytest.raises(UnreadableFeatureError, match="'strange' at version 0"):
        query(lake, "SELECT * FROM strange@0")
