"""Features come from the online store; when it is away, from what it said last, and the answer says so."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from features.store import FeatureStore
from features.tables import ItemStats, UserStats
from lakehouse.tables import Movie, MovieCard, User
from serving.schemas import RecommendRequest
from tests.serving.conftest import DAY, Night, Serve, wait_for


class Redis:
    """A server of the test's own that can be stopped and started again on its port."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        import redis

        words = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--dir",
            str(self.folder),
        ]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)

        def answers() -> bool:
            try:
                return bool(redis.Redis(port=self.port).ping())
            except redis.ConnectionError:
                return False

        wait_for(answers)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = Redis(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def materialized(night: Night, folder: Path, url: str) -> FeatureStore:
    store = FeatureStore(folder, url)
    store.apply([night.lake.latest(row) for row in (User, Movie, MovieCard, UserStats, ItemStats)])
    store.materialize(DAY)
    return store


def test_redis_going_away_changes_no_list_and_is_said_and_its_return_is_noticed(
    serve: Serve, night: Night, redis_server: Redis, tmp_path: Path
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    store = materialized(night, tmp_path / "features", url)
    ask = RecommendRequest(user_id=night.users[0], k=10, details=True)
    with serve(store=store, features_deadline_ms=5000.0) as running:
        there = running.client.recommend(ask)
        assert there.features.source == "online"
        redis_server.stop()
        away = running.client.recommend(ask)
        assert away.features.source == "snapshot"
        assert [item.item_id for item in away.items] == [item.item_id for item in there.items]
        assert away.features.values == there.features.values
        health = running.client.health()
        assert health.status == "degraded" and "last snapshot" in health.degraded[0]
        assert running.client.recommend(RecommendRequest(user_id=10**9)).items
        redis_server.start()
        materialized(night, tmp_path / "features", url)
        wait_for(lambda: running.client.recommend(ask).features.source == "online")
        assert running.client.health().status == "ok"


def test_an_answer_that_comes_too_late_is_given_to_nobody_else(
    serve: Serve, night: Night, redis_server: Redis, tmp_path: Path
) -> None:
    store = materialized(night, tmp_path / "features", f"redis://127.0.0.1:{redis_server.port}/0")
    asks = [RecommendRequest(user_id=user, k=1, details=True) for user in night.users[:10]]
    with serve(store=store, features_deadline_ms=2000.0) as running:
        before = [running.client.recommend(ask) for ask in asks]
        assert {answer.features.source for answer in before} == {"online"}
        assert len({json.dumps(answer.features.values, sort_keys=True) for answer in before}) == len(asks)
        assert redis_server.process is not None
        redis_server.process.send_signal(signal.SIGSTOP)
        try:
            late = running.client.recommend(asks[0])  # the server has the question, and answers when it goes on
            assert late.features.source == "snapshot" and late.features.values == before[0].features.values
        finally:
            redis_server.process.send_signal(signal.SIGCONT)
        wait_for(lambda: running.client.recommend(asks[1]).features.source == "online")
        after = [running.client.recommend(ask) for ask in asks]
        assert [answer.features for answer in after] == [answer.features for answer in before]


def test_a_service_starts_without_its_store_from_the_pinned_versions(
    serve: Serve, night: Night, redis_server: Redis, tmp_path: Path
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    store = materialized(night, tmp_path / "features", url)
    ask = RecommendRequest(user_id=night.users[0], k=10, details=True)
    with serve(store=store, features_deadline_ms=5000.0) as running:
        there = running.client.recommend(ask)
    redis_server.stop()
    with serve(store=FeatureStore(tmp_path / "features", url)) as running:
        away = running.client.recommend(ask)
    assert away.features.source == "snapshot" and away.features.values == there.features.values
    assert [item.item_id for item in away.items] == [item.item_id for item in there.items]
