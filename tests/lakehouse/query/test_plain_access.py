"""What this wrote is read by others' tools in processes that know nothing of this project."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.delta_schema import create_table
from lakehouse.ledger import Decision
from lakehouse.spark import java_home, library_jars
from lakehouse.tables import Rating

BLOCK = "import sys; sys.modules['lakehouse'] = None\n"
# By scan and not by to_pyarrow_table, whose threads call Python also when the interpreter is ending already.
DELTA_RS = """
import pyarrow
from deltalake import DeltaTable
table = DeltaTable(sys.argv[1], version=int(sys.argv[2]))
rows = pyarrow.RecordBatchReader.from_stream(table.scan(columns=["user_id"])).read_all()
print(sorted(rows["user_id"].to_pylist()), table.metadata().name)
"""
POLARS = """
import polars
frame = polars.scan_delta(sys.argv[1], version=int(sys.argv[2]))
print(sorted(frame.select("user_id").collect()["user_id"]), "ratings")
"""
DUCKDB = """
import duckdb
from deltalake import DeltaTable
ratings = DeltaTable(sys.argv[1], version=int(sys.argv[2])).scan()
print([row[0] for row in duckdb.sql("SELECT user_id FROM ratings ORDER BY ALL").fetchall()], "ratings")
"""
SPARK = """
from pyspark.sql import SparkSession
builder = SparkSession.builder.master("local[1]").config("spark.jars", sys.argv[3]).config("spark.ui.enabled", "false")
builder = builder.config("spark.sql.extensions", "io.delta.sql.DeltaSparkSessionExtension")
builder = builder.config("spark.sql.catalog.spark_catalog", "org.apache.spark.sql.delta.catalog.DeltaCatalog")
spark = builder.config("spark.databricks.delta.snapshotPartitions", "1").getOrCreate()
rows = spark.sql(f"SELECT user_id FROM delta.`{sys.argv[1]}` VERSION AS OF {sys.argv[2]} ORDER BY 1").collect()
frame = spark.read.format("delta").load(sys.argv[1])
assert frame.count() == 3, frame.count()
print([row[0] for row in rows], spark.sql(f"DESCRIBE DETAIL delta.`{sys.argv[1]}`").collect()[0]["name"] or "ratings")
"""


@pytest.fixture
def table(lake: Lakehouse) -> tuple[str, int]:
    """Place of a declared table with comments and constraints, and its version with users 1 and 2."""
    from deltalake import DeltaTable, write_deltalake

    create_table(lake, Rating.contract)
    uri = lake.uri("ratings")
    for users in ([1, 2], [3]):
        moment = datetime(1998, 3, 1, 12, tzinfo=UTC)
        rows = [Rating(user_id=user, item_id=7, rating=4.0, rated_at=moment) for user in users]
        write_deltalake(uri, to_arrow(Rating, rows), mode="append")
    return uri, DeltaTable(uri).version() - 1


@pytest.mark.parametrize("program", [DELTA_RS, POLARS, DUCKDB, SPARK], ids=["delta-rs", "polars", "duckdb", "spark"])
def test_a_plain_engine_reads_a_version_without_this_project(
    table: tuple[str, int], tmp_path: Path, program: str
) -> None:
    jars = ",".join(str(jar) for jar in library_jars() if "delta" in jar.name)
    environment = {**os.environ, "JAVA_HOME": str(java_home()), "SPARK_LOCAL_IP": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BLOCK + program, table[0], str(table[1]), jars],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[1, 2] ratings"


def test_the_ledger_is_read_by_plain_delta_rs(lake: Lakehouse) -> None:
    from deltalake import DeltaTable

    moment = datetime(2026, 1, 1, tzinfo=UTC)
    decision = {"gate": "kpi", "passed": True, "reason": "", "inputs": "{}", "decided_at": moment}
    for number in range(12):
        lake.ledger.append([Decision(decision_id=f"{number}/kpi", run_id=str(number), **decision)])
    table = DeltaTable(lake.uri("decisions"))
    assert len(table.to_pyarrow_table()) == 12
    assert date(2026, 1, 1) == table.to_pyarrow_table()["decided_at"][0].as_py().date()
    checkpoints = list((Path(lake.uri("decisions")) / "_delta_log").glob("*.checkpoint.parquet"))
    assert checkpoints  # else opening it would cost more with every row
