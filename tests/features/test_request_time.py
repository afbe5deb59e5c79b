"""What depends on the instant of a request: the same through Feast's own offline and online clients."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from features.request_time import days_since
from features.store import FeatureStore
from features.tables import UserStats
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.table import Table
from lakehouse.snapshot import Snapshot
from lakehouse.tables import Rating

PROJECT = Path(__file__).parents[2]
ASKED = "user_stats_at_request:days_since_rating"


def at(day: int, hour: int = 12) -> datetime:
    return datetime(1998, 3, day, hour, tzinfo=UTC)


@pytest.fixture
def pin(write: Callable[..., Snapshot[Table]]) -> Snapshot[Table]:
    """User 1 rated on 1 and 4 March at noon, user 2 on 4 March at 01:00."""
    given = [(1, 10, at(1)), (1, 20, at(4)), (2, 20, at(4, 1))]
    rows = [Rating(user_id=user, item_id=item, rating=4, rated_at=when) for user, item, when in given]
    return write(UserStats, UserStats.compute(to_arrow(Rating, rows)))


def test_days_are_counted_from_the_last_rating_known_at_the_instant(store: FeatureStore, pin: Snapshot[Table]) -> None:
    store.apply([pin])
    instants = [at(2), at(4, 18), at(6), at(6), at(6)]
    frame = pd.DataFrame(
        {"user_id": [1, 1, 1, 2, 3], "event_timestamp": pd.Series(instants, dtype="datetime64[us, UTC]")}
    )
    for full, name in ((False, "days_since_rating"), (True, "user_stats_at_request__days_since_rating")):
        answer = store._feast.get_historical_features(frame, [ASKED], full_feature_names=full).to_arrow()
        # On 4 March at 18:00 the rating of that noon is not known yet: features are those of the day before.
        assert answer[name].to_pylist() == [1.0, 3.25, 2.0, 2 + 11 / 24, None]


def test_online_and_offline_agree_at_the_same_instant(store: FeatureStore, pin: Snapshot[Table]) -> None:
    import feast

    store.apply([pin])
    store.materialize(date(1998, 3, 5))
    client = feast.FeatureStore(config=store._config())
    for instant in (at(6), at(7, 3) + timedelta(seconds=1, microseconds=999_999)):
        frame = pd.DataFrame(
            {"user_id": [1, 2, 3], "event_timestamp": pd.Series([instant] * 3, dtype="datetime64[us, UTC]")}
        )
        asked = [ASKED, "user_stats:mean_rating"]
        offline = client.get_historical_features(frame, asked).to_arrow()
        entities = [{"user_id": user, "event_timestamp": instant} for user in (1, 2, 3)]
        online = client.get_online_features(asked, entities).to_dict()
        for name in ("days_since_rating", "mean_rating"):
            assert online[name] == offline[name].to_pylist()
        assert online["days_since_rating"][0] is not None


def test_the_registry_holds_the_function_as_text_and_no_pickled_bytes(
    store: FeatureStore, pin: Snapshot[Table]
) -> None:
    from feast.protos.feast.core.Registry_pb2 import Registry

    for _ in range(2):  # the second time Feast compares with what it read back
        store.apply([pin])
        registry = Registry.FromString((store.folder / "registry.db").read_bytes())
        (view,) = registry.on_demand_feature_views
        function = view.spec.feature_transformation.user_defined_function
        assert function.body == b""
        assert "days_since(inputs['last_rated_us'], inputs['event_timestamp'])" in function.body_text


def test_seconds_are_whole_nothing_is_before_its_rating_and_null_stays_null() -> None:
    noon = int(at(1).timestamp())
    stored = [noon * 1_000_000, noon * 1_000_000, (noon + 1) * 1_000_000, None, noon * 1_000_000]
    asked: list[datetime | int | None] = [at(2), noon + 43_200, at(1) + timedelta(microseconds=5), at(1), None]
    assert days_since(stored, asked) == [1.0, 0.5, 0.0, None, None]


def test_feasts_ui_shows_the_on_demand_view(tmp_path: Path, pin: Snapshot[Table]) -> None:
    for needed in ("grpc_health", "grpc_reflection"):
        pytest.importorskip(needed, reason="Feast's UI needs feast[grpcio]")
    FeatureStore(tmp_path / ".millrace" / "features").apply([pin])
    repo = tmp_path / "features"
    repo.mkdir()
    shutil.copy(PROJECT / "features" / "feature_store.yaml", repo)
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    command = [str(Path(sys.executable).parent / "feast"), "-c", "features", "ui", "--host", "127.0.0.1", "--port", "0"]
    with _started(command, tmp_path, environment) as address:
        with urllib.request.urlopen(f"{address}/", timeout=30) as page:
            assert page.status == 200 and b"<title>Feast" in page.read()
        views = f"{address}/api/v1/feature_views?project=millrace"
        with urllib.request.urlopen(views, timeout=30) as registry:
            assert b"user_stats_at_request" in registry.read()


@contextmanager
def _started(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """A server's address, once it says that it listens; ended at the end."""
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            address = re.search(r"running on (http://127\.0\.0\.1:\d+)", line)
            if address:
                yield address[1]
                return
        pytest.fail(f"it did not start: {''.join(said)}")
    finally:
        process.terminate()
        process.wait(timeout=30)
