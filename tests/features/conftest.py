"""Small Delta tables and a feature store for the feature tests: written without Spark, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from features.store import FeatureStore
from features.tables import ItemStats, UserStats
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Movie, MovieCard, Rating, User

Write = Callable[[type[Table], Sequence[Table] | pa.Table], Snapshot[Table]]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows as the next version of their table and return that version."""

    def write(row: type[Table], rows: Sequence[Table] | pa.Table) -> Snapshot[Table]:
        table = rows if isinstance(rows, pa.Table) else to_arrow(row, rows)
        path = tmp_path / "lake" / row.contract.table
        write_deltalake(path, table.cast(arrow_schema(row.contract)), mode="overwrite")
        return Snapshot(str(path), DeltaTable(path).version(), row)

    return write


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    return FeatureStore(tmp_path / "features")


@pytest.fixture
def pins(write: Write) -> list[Snapshot[Table]]:
    """All five views: three users, three movies, statistics on two days."""
    joined, added = datetime(1998, 3, 1, 9, tzinfo=UTC), datetime(1998, 1, 1, tzinfo=UTC)
    first, second = datetime(1998, 3, 2, tzinfo=UTC), datetime(1998, 3, 5, tzinfo=UTC)
    people = [(1, 30, "F", "artist"), (2, 41, "M", "doctor"), (3, 19, "F", "student")]
    films = [(10, "Fargo", 1996, ["Crime", "Drama"]), (20, "Babe", None, []), (30, "Heat", 1995, ["Action"])]
    return [
        write(
            User,
            [
                User(user_id=i, age=age, gender=gender, occupation=work, zip_code="02139", joined_at=joined)  # type: ignore[arg-type]
                for i, age, gender, work in people
            ],
        ),
        write(Movie, [Movie(item_id=i, title=t, year=y, genres=g, added_at=added) for i, t, y, g in films]),
        write(
            MovieCard,
            [MovieCard(item_id=10, mood="serious", audience="adults", answer_key="a" * 64, added_at=added)],
        ),
        write(
            UserStats,
            [
                UserStats(
                    user_id=1, computed_at=first, ratings_count=2, mean_rating=3.5, active_days=1, last_rated_us=0
                ),
                UserStats(
                    user_id=1, computed_at=second, ratings_count=3, mean_rating=3.0, active_days=2, last_rated_us=0
                ),
                UserStats(
                    user_id=2, computed_at=second, ratings_count=1, mean_rating=5.0, active_days=1, last_rated_us=0
                ),
            ],
        ),
        write(
            ItemStats,
            [
                ItemStats(item_id=10, computed_at=first, ratings_count=2, mean_rating=3.5, recent_count=2),
                ItemStats(item_id=20, computed_at=second, ratings_count=2, mean_rating=3.5, recent_count=2),
            ],
        ),
    ]


@pytest.fixture
def ratings() -> Callable[[Sequence[tuple[int, int, float, datetime]]], pa.Table]:
    """(user, item, stars, instant) as a table of ratings."""

    def table(rows: Sequence[tuple[int, int, float, datetime]]) -> pa.Table:
        return to_arrow(Rating, [Rating(user_id=u, item_id=i, rating=s, rated_at=t) for u, i, s, t in rows])

    return table


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of the tests' own, on a free port of the loopback; skipped with a message where there is none."""
    import redis

    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    folder = tmp_path_factory.mktemp("redis")
    words = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
        try:
            wait_for(lambda: redis.Redis(port=port).ping(), redis.ConnectionError, server)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """An empty Redis."""
    import redis

    redis.Redis.from_url(redis_server).flushall()
    return redis_server


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of the tests' own, as for Redis; it refuses to run as root, so then it runs as postgres."""
    psycopg = pytest.importorskip("psycopg")
    if shutil.which("initdb") is None or shutil.which("postgres") is None:
        pytest.skip("postgres is not installed")
    other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if other and (shutil.which("runuser") is None or "postgres" not in {user.pw_name for user in pwd.getpwall()}):
        pytest.skip("postgres does not run as root, and there is no other user for it")
    port = free_port()
    # Not in pytest's own folder: only its owner may look into that.
    with tempfile.TemporaryDirectory(prefix="millrace-postgres-") as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text("right")
        if other:
            user = pwd.getpwnam("postgres")
            for path in (folder, password):
                os.chown(path, user.pw_uid, user.pw_gid)
        data = folder / "data"
        made = subprocess.run(
            [*other, "initdb", "-D", data, "-U", "millrace", "-A", "scram-sha-256", "--pwfile", password, "-E", "UTF8"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert made.returncode == 0, made.stderr
        options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
        # pg_ctl finds the server by the id that it has written down: runuser would not pass a signal on.
        control = [*other, "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
        subprocess.run(
            [*control, "-o", shlex.join(options), "start"], cwd=folder, stdout=subprocess.DEVNULL, check=True
        )
        try:
            url = f"postgresql://millrace:right@127.0.0.1:{port}/postgres"
            psycopg.connect(url).close()
            yield url
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], cwd=folder, stdout=subprocess.DEVNULL, check=True)


@pytest.fixture
def postgres_url(postgres_server: str) -> str:
    """An empty PostgreSQL database."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
    return postgres_server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(answer: Callable[[], object], refusal: type[Exception], server: subprocess.Popen[bytes]) -> None:
    """Until the server answers, at most half a minute."""
    deadline = time.monotonic() + 30
    while True:
        try:
            answer()
            return
        except refusal:
            assert server.poll() is None and time.monotonic() < deadline, "the server does not start"
            time.sleep(0.02)
