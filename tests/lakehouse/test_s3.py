"""A lake in an object store: published by Spark, read by delta-rs, against a real S3 server on this machine (moto)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pyarrow.parquet as pq
import pytest

from lakehouse import Lakehouse
from lakehouse.errors import MissingPackageError, SparkStartError, StorageError
from lakehouse.ledger import Metric
from lakehouse.object_storage import ObjectStorage
from lakehouse.privacy.erasure import erase
from lakehouse.query.sql import query
from lakehouse.tables import User
from lakehouse.upkeep.maintenance import maintain
from lakehouse.upkeep.pins import pin
from lakehouse.upkeep.restore import restore

ROOT = "s3://lake/one"
#: A server in a process of its own: delta-rs holds the interpreter's lock while it asks.
SERVER = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print("port", server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
"""
BUCKET = """
import boto3, os
boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket="lake")
"""
PUBLISHER = """
from datetime import UTC, date, datetime
import pyarrow as pa
from lakehouse import Lakehouse
from lakehouse.gate.publish import publish
from lakehouse.spark import stop_spark
from lakehouse.gate.staging import stage
from lakehouse.tables import User

lake = Lakehouse.open("s3://lake/one", create=True)
for day, ages in ((1, [30, 31, 999]), (2, [40])):
    many = len(ages)
    rows = pa.table({
        "user_id": range(1, many + 1),
        "age": ages,
        "gender": ["F"] * many,
        "occupation": ["artist"] * many,
        "zip_code": ["02139"] * many,
        "joined_at": [datetime(1998, 1, day, tzinfo=UTC)] * many,
    })
    batch = stage(lake, User, rows, batch_id=f"day-{day}", day=date(1998, 1, day))
    print(publish(lake, User, batch))
    print(publish(lake, User, batch))
stop_spark()
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Mapping[str, str]]:
    """The environment variables that lead to a running server with an empty bucket."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port = next(line.split()[1] for line in process.stdout if line.startswith("port "))
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    subprocess.run([sys.executable, "-c", BUCKET], env={**os.environ, **variables}, check=True)
    yield variables
    process.stdin.close()
    process.wait(timeout=30)


@pytest.fixture(autouse=True)
def settings(server: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def published(server: Mapping[str, str]) -> list[str]:
    """The versions that a process with Spark published into the bucket."""
    done = subprocess.run(
        [sys.executable, "-c", PUBLISHER],
        env={**os.environ, **server},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_batches_go_through_the_gate_and_readers_get_them(published: list[str]) -> None:
    lake = Lakehouse.open(ROOT)
    first, first_again, second, second_again = published
    assert (first, second) == (first_again, second_again)
    assert lake.resolve("users").reference == second
    rows = query(lake, "SELECT user_id, age FROM users ORDER BY user_id; ".rstrip("; "))
    assert rows.to_pylist() == [{"user_id": 1, "age": 40}, {"user_id": 2, "age": 31}]
    assert lake.resolve("users@1998-01-01").reference == first
    assert query(lake, "SELECT row FROM quarantine.users").num_rows == 1
    assert lake.names()[:1] == ["users"]
    assert {"publications", "metrics"} <= set(lake.names())


def test_the_command_line_reads_it(published: list[str]) -> None:
    command = [sys.executable, "-m", "cli.main", "--lake", ROOT, "tables", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (users,) = [line for line in json.loads(done.stdout) if line["name"] == "users"]
    assert (users["rows"], f"users@{users['published']}") == (2, published[-1])


def test_of_two_that_make_a_lake_the_first_ones_id_stays() -> None:
    one = Lakehouse.open("s3://lake/made", create=True)
    assert Lakehouse.open("s3://lake/made/", create=True).id == one.id
    assert one.names() == []
    now = datetime(1998, 1, 1, tzinfo=UTC)
    one.ledger.append(
        [Metric(metric_id="m", table_name="t", version=0, metric="Size", column="*", value=1, measured_at=now)]
    )
    assert one.names() == ["metrics"]


def test_a_file_is_written_once_unless_it_may_be_replaced() -> None:
    storage = ObjectStorage("s3://lake/files")
    assert storage.write("_staging/a/b", b"1")
    assert not storage.write("_staging/a/b", b"2")
    assert storage.read("_staging/a/b") == b"1"
    assert storage.write("_staging/a/b", b"3", overwrite=True)
    assert storage.read("_staging/a/b") == b"3"
    assert list(storage.keys("_staging")) == ["_staging/a/b"]
    storage.delete("_staging/a/b")
    storage.delete("_staging/a/b")
    assert not storage.exists("_staging/a/b")
    with pytest.raises(FileNotFoundError):
        storage.read("_staging/a/b")


def test_upkeep_restore_and_erasure_work_there_as_in_a_folder(put: Callable[..., int]) -> None:
    lake = Lakehouse.open("s3://lake/upkeep", create=True)
    known = datetime(1998, 1, 1, tzinfo=UTC)
    versions = [
        put(lake, [User(user_id=n, age=30, gender="F", occupation="artist", zip_code="02139", joined_at=known)])
        for n in range(1, 7)
    ]
    pin(lake, f"users@{versions[1]}", holder="paper", reason="figure 2")
    restore(lake, f"users@{versions[4]}")
    (one,) = [
        row for row in maintain(lake, now=datetime.now(UTC) + timedelta(days=30)).tables if row.table_name == "users"
    ]
    assert (one.compacted, one.files_before, one.files_after) == ("compact", 5, 1)
    assert one.removed_versions == [*versions[2:], versions[5] + 1], "the first one needs no file but the pinned one's"
    certificate = erase(lake, subject="user_id", value=2, reason="", requested_by="desk")
    assert certificate.redacted == {"users": [versions[1]]}
    for reference, expected in (("users", [1, 3, 4, 5]), (f"users@{versions[1]}", [1])):
        assert sorted(lake.resolve(reference).arrow(["user_id"])["user_id"].to_pylist()) == expected
    paths = [key for key in lake.storage.keys("") if key.endswith(".parquet") and "_delta_log" not in key]
    for path in paths:
        rows = pq.read_table(io.BytesIO(lake.storage.read(path)))
        assert "user_id" not in rows.schema.names or 2 not in rows["user_id"].to_pylist()


def test_a_bucket_that_is_not_there_and_a_server_that_is_not_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no lake at s3://nobody/lake"):
        Lakehouse.open("s3://nobody/lake")
    with pytest.raises(StorageError, match="s3://nobody/lake can't be written") as caught:
        Lakehouse.open("s3://nobody/lake", create=True)
    assert "\n" not in str(caught.value)


def test_without_its_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(MissingPackageError, match=r"millrace\[s3\]"):
        Lakehouse.open(ROOT)


def test_a_spark_that_started_without_s3_says_so() -> None:
    from lakehouse.spark import spark_session

    spark_session("/a/folder")
    with pytest.raises(SparkStartError, match=f"libraries that {ROOT} needs"):
        spark_session(ROOT)
