"""A small finished night to serve: part of MovieLens in a lake, features materialized, two models in a real registry.

Made without Spark and without a language model, once a session. What a test writes goes into a state of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import uvicorn
from deltalake import write_deltalake

from features.store import FeatureStore, end_of
from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.table import Table
from lakehouse.ledger import Promotion, Publication
from lakehouse.movielens import movielens
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie, MovieCard, Rating, User
from models.movielens import ITEM_FEATURES, USER_FEATURES
from models.recommender import Recommender, RecommenderConfig, fit
from models.registry import REGISTERED_MODEL, quiet_mlflow
from serving.app import create_app
from serving.client import Client
from serving.server import listen, server_config
from serving.service import Service
from serving.settings import ServingSettings
from tasks.simulation.release import damaged

DAY = date(1998, 4, 20)
USERS = 150
API_KEY, ADMIN_KEY = "a-key-for-the-tests-only", "another-key-for-the-tests"
ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.prefix) / "bin"


@dataclass(frozen=True)
class Night:
    """What the tests serve from.

    Attributes:
        folder: holds lake/, features/ and mlflow.db.
        users: user ids with a history.
        broken: registry version of a model that can't answer about users with a known age.
    """

    folder: Path
    users: list[int]
    broken: int

    @property
    def lake(self) -> Lakehouse:
        return Lakehouse.open(self.folder / "lake")

    @property
    def tracking(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def environment(self, state: Path) -> Mapping[str, str]:
        """Of a command that serves this night with a state of its own."""
        state.mkdir(parents=True, exist_ok=True)
        if not (state / "features").exists():
            (state / "features").symlink_to(self.folder / "features")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_"))}
        return {
            **kept,
            "MILLRACE_STATE": str(state),
            "LAKEHOUSE_ROOT": str(self.folder / "lake"),
            "MLFLOW_TRACKING_URI": self.tracking,
            "MILLRACE_API_KEY": API_KEY,
            "MILLRACE_ADMIN_KEY": ADMIN_KEY,
            "PYTHONPATH": str(ROOT),
        }


@pytest.fixture(scope="session")
def night(tmp_path_factory: pytest.TempPathFactory) -> Night:
    folder = tmp_path_factory.mktemp("served")
    lake = Lakehouse.open(folder / "lake", create=True)
    archive, until = movielens(), end_of(DAY)
    ratings = archive.ratings.filter(
        pc.and_(pc.less(archive.ratings["rated_at"], until), pc.less_equal(archive.ratings["user_id"], USERS))
    )
    movies = archive.movies.filter(pc.is_in(archive.movies["item_id"], pc.unique(ratings["item_id"])))
    users = archive.users.filter(pc.less_equal(archive.users["user_id"], USERS))
    cards = pa.table(
        {
            "item_id": movies["item_id"],
            "mood": ["funny" if "Comedy" in genres else "serious" for genres in movies["genres"].to_pylist()],
            "audience": ["adults"] * movies.num_rows,
            "answer_key": ["k"] * movies.num_rows,
            "added_at": movies["added_at"],
        }
    )
    tables: dict[type[Table], pa.Table] = {
        User: users,
        Movie: movies,
        MovieCard: cards,
        Rating: ratings,
        UserStats: UserStats.compute(ratings),
        ItemStats: ItemStats.compute(ratings),
    }
    for row, rows in tables.items():
        publish_without_spark(lake, row, rows)
    store = FeatureStore(folder / "features")
    store.apply([lake.latest(row) for row in (User, Movie, MovieCard, UserStats, ItemStats)])
    store.materialize(DAY)
    training = ratings.append_column("event_timestamp", ratings["rated_at"])
    views = ["users", "movies", "movie_cards", "user_stats", "item_stats"]
    training = store.training_set(training, views)
    config = RecommenderConfig(
        user_features=USER_FEATURES, item_features=ITEM_FEATURES, epochs=3, anchors=2, ridge=50.0, seed=1
    )
    model = fit(ratings, training, config=config)
    other = fit(ratings, training, config=config.model_copy(update={"ridge": 120.0, "epochs": 2}))
    broken = damaged(other)
    tracking = f"sqlite:///{folder / 'mlflow.db'}"
    digest, _ = register(folder, tracking, model, "champion"), register(folder, tracking, other, "challenger")
    number = register(folder, tracking, broken, "broken")[1]
    lake.ledger.append(
        [
            Promotion(
                promotion_id="seed",
                day=DAY,
                model_digest=digest[0],
                model_path="",
                registry_version=1,
                trained_until=model.summary.until,
                promoted_at=datetime.now(UTC),
            )
        ]
    )
    return Night(folder, sorted(set(ratings["user_id"].to_pylist())), number)


def publish_without_spark(lake: Lakehouse, row: type[Table], rows: pa.Table) -> None:
    contract = row.contract
    create_table(lake, contract)
    write_deltalake(lake.uri(contract.table), rows.select(contract.names).cast(arrow_schema(contract)), mode="append")
    lake.ledger.append(
        [
            Publication(
                publication_id=f"{contract.table}/seed",
                table_name=contract.table,
                batch_id=DAY.isoformat(),
                day=DAY,
                version=open_delta(lake.uri(contract.table)).version(),
                published=True,
                rows_in=rows.num_rows,
                rows_published=rows.num_rows,
                rows_quarantined=0,
                rows_duplicate=0,
                rows_total=rows.num_rows,
                failed_checks=[],
                broken_rules="{}",
                fingerprint=contract.fingerprint,
                published_at=datetime.now(UTC),
            )
        ]
    )


def register(folder: Path, tracking: str, model: Recommender, alias: str) -> tuple[str, int]:
    """Put a model into the registry under an alias; its digest and version."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    with quiet_mlflow():
        client = MlflowClient(tracking_uri=tracking)
        try:
            client.create_registered_model(REGISTERED_MODEL)
            client.create_experiment("nightly", artifact_location=(folder / "artifacts").as_uri())
        except MlflowException as error:
            assert error.error_code == "RESOURCE_ALREADY_EXISTS"
        experiment = client.get_experiment_by_name("nightly")
        run = client.create_run(experiment.experiment_id)
        digest = model.save(folder / "made" / alias)
        client.log_artifacts(run.info.run_id, str(folder / "made" / alias), "model")
        version = client.create_model_version(
            REGISTERED_MODEL,
            source=f"{run.info.artifact_uri}/model",
            run_id=run.info.run_id,
            tags={"day": DAY.isoformat(), "model_digest": digest},
        )
        client.set_registered_model_alias(REGISTERED_MODEL, alias, version.version)
    return digest, int(version.version)


@dataclass
class Running:
    """A service that listens, in a thread of the test's own process.

    Attributes:
        url: where.
        service: itself.
        client: with both keys.
    """

    url: str
    service: Service
    client: Client

    def http(self, **headers: str) -> httpx.Client:
        """A bare connection, with the API key unless another header is given."""
        return httpx.Client(
            base_url=self.url, headers=headers or {"authorization": f"Bearer {API_KEY}"}, trust_env=False, timeout=60
        )


Serve = Callable[..., AbstractContextManager[Running]]


@pytest.fixture
def serve(night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve the night; options are those of ServingSettings, and of the app."""
    settle(monkeypatch, night, tmp_path / "state")
    return partial(serving, night, tmp_path / "state")


def settle(patch: pytest.MonkeyPatch, night: Night, state: Path) -> None:
    """Set the environment of a process that serves the night."""
    for name, value in night.environment(state).items():
        if name.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_")):
            patch.setenv(name, value)


@contextmanager
def serving(
    night: Night, state: Path, *, open_access: bool = False, store: FeatureStore | None = None, **options: object
) -> Iterator[Running]:
    """A service in a thread of this process."""
    settings = ServingSettings(**{"rate_per_second": 1e6, "rate_burst": 10**6, "slo_latency_ms": 1e5, **options})
    features = store or FeatureStore(night.folder / "features")
    service = Service.open(night.lake, features, state, settings, replay=True)
    app = create_app(service, api_key=API_KEY, admin_key=ADMIN_KEY, open_access=open_access)
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(server_config(app))
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the service did not start"
        with Client(url, api_key=API_KEY, admin_key=ADMIN_KEY) as client:
            yield Running(url, service, client)
    finally:
        server.should_exit = True
        thread.join(60)
        listening.close()


@pytest.fixture
def running(serve: Serve) -> Iterator[Running]:
    with serve() as found:
        yield found


def wait_for(done: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait on a condition; the test fails if it does not come true in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, "it did not come true in time"
        pause.wait(0.01)


@contextmanager
def command(night: Night, state: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`millrace serve` as a process of its own, and its URL."""
    words = (sys.executable, "-m", "cli.main", "serve", "--port", "0", "--clock", "lake", *words)
    process = subprocess.Popen(
        words,
        env={**night.environment(state), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert "answers at" in line, line + process.stderr.read()
        yield process, line.split()[-1].rstrip("/")
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def own_lake(night: Night, tmp_path: Path) -> Lakehouse:
    """A copy of the lake, to be written to."""
    shutil.copytree(night.folder / "lake", tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")
