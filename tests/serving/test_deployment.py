"""Switching and going back: nobody's request fails, and a model that fails is taken back by itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lakehouse.ledger import Deployment
from serving.errors import ServiceUnreachableError
from serving.schemas import RecommendRequest
from serving.watch import Bounds, Watch
from tests.serving.conftest import Night, Running, Serve, wait_for


@contextmanager
def load(running: Running, users: list[int]) -> Iterator[list[tuple[int, int]]]:
    """Requests without a pause from two threads; (status, model version) of each answer."""
    answers: list[tuple[int, int]] = []
    stop = threading.Event()

    def ask() -> None:
        with running.http() as http:
            number = 0
            while not stop.is_set():
                answer = http.post("/recommend", json={"user_id": users[number % len(users)]})
                version = answer.json()["model"]["version"] if answer.status_code == 200 else 0
                answers.append((answer.status_code, version))
                number += 1

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)


def acts(night: Night, since: int) -> list[Deployment]:
    """What was done, but for starts."""
    return [row for row in night.lake.ledger.read(Deployment) if row.act != "start"][since:]


def count(night: Night) -> int:
    return len(acts(night, 0))


def test_a_switch_and_a_roll_back_under_load_fail_no_request(running: Running, night: Night) -> None:
    before, client = count(night), running.client
    with load(running, night.users) as answers:
        wait_for(lambda: len(answers) > 20)
        staged = client.stage("challenger")
        assert staged.active.model.version == 1 and staged.staged is not None and staged.staged.model.version == 2
        assert staged.shadow is not None and 0 < staged.shadow.overlap <= 1 and staged.shadow.failures == 0
        assert {"F", "M"} >= set(staged.shadow.overlap_by_group) != set()
        assert client.switch().active.model.version == 2
        at = len(answers)
        wait_for(lambda: len(answers) > at + 30)
        assert client.rollback("a test").active.model.version == 1
        at = len(answers)
        wait_for(lambda: len(answers) > at + 30)
    assert {status for status, _ in answers} == {200}
    versions = [version for _, version in answers]
    assert set(versions) == {1, 2} and versions[-1] == 1
    assert [(act.act, act.model_version) for act in acts(night, before)] == [
        ("stage", 2),
        ("switch", 2),
        ("rollback", 1),
    ]
    assert acts(night, before)[-1].reason == "Rolled back: a test"


def test_a_canary_answers_its_share_and_the_same_people_each_time(running: Running, night: Night) -> None:
    client = running.client
    client.stage("challenger")
    client.switch(canary=0.3)
    first, second = ({u: client.recommend(RecommendRequest(user_id=u)).model for u in night.users} for _ in range(2))
    assert first == second
    share = sum(model.canary for model in first.values()) / len(first)
    assert 0.15 < share < 0.45
    assert all(model.version == (2 if model.canary else 1) for model in first.values())
    with pytest.raises(ServiceUnreachableError, match="under way"):
        client.stage("challenger")
    assert client.switch().active.model.version == 2


def test_a_model_that_fails_is_refused_and_if_forced_taken_back_without_a_failed_request(
    serve: Serve, night: Night
) -> None:
    with serve(slo_window=50) as running:
        before, client = count(night), running.client
        for user in night.users[:20]:
            client.recommend(RecommendRequest(user_id=user))
        shadow = client.stage("broken").shadow
        assert shadow is not None and shadow.failures == 20
        with pytest.raises(ServiceUnreachableError, match="could not answer 20 of the last 20"):
            client.switch()
        client.switch(force=True)
        with load(running, night.users) as answers:
            wait_for(lambda: client.status().active.model.version == 1)
            at = len(answers)
            wait_for(lambda: len(answers) > at + 10)
        assert {status for status, _ in answers} == {200}
        assert 'millrace_deployment_acts_total{act="automatic rollback"} 1.0' in client.metrics()
        wait_for(lambda: count(night) == before + 3)
        taken = acts(night, before)[-1]
        assert taken.act == "automatic rollback" and taken.model_version == 1 and taken.replaced == night.broken
        assert "answers failed" in taken.reason and json.loads(taken.inputs)["error_share"] == 1.0
        with pytest.raises(ServiceUnreachableError, match="Nothing is staged"):
            client.switch()


def test_a_model_that_is_slow_is_taken_back(serve: Serve, night: Night) -> None:
    with serve(slo_window=50, slo_latency_ms=1e-6) as running:
        client = running.client
        client.stage("challenger")
        client.switch(force=True)
        for user in [*night.users, *night.users][:60]:
            client.recommend(RecommendRequest(user_id=user))
        assert client.status().active.model.version == 1
        assert "ms are allowed" in client.status().last_act


def test_what_answered_goes_on_after_a_restart(serve: Serve) -> None:
    with serve() as running:
        running.client.stage("challenger")
        running.client.switch()
    with serve() as running:
        status = running.client.status()
        assert (status.active.model.version, status.active.slot) == (2, "green")
        wait_for(lambda: "millrace_champion_behind 1.0" in running.client.metrics())
        assert running.client.status().registry_champion == 1


def test_verbs_that_can_not_be_done_say_so(running: Running) -> None:
    with pytest.raises(ServiceUnreachableError, match="Nothing is staged"):
        running.client.switch()
    with pytest.raises(ServiceUnreachableError, match="no earlier model"):
        running.client.rollback("x")


def test_a_watch_says_what_broke_with_the_numbers() -> None:
    watch = Watch(Bounds(error_share=0.05, latency_ms=20.0, window=100))
    assert all(watch.note(True, 5.0) is None for _ in range(100))
    burns = [burn for _ in range(30) if (burn := watch.note(False, 5.0))]
    assert burns[0].reason.startswith("10.0% of the last 100 answers failed")
    watch = Watch(Bounds(error_share=0.05, latency_ms=20.0, window=100))
    burns = [burn for n in range(100) if (burn := watch.note(True, 50.0 if n % 10 == 9 else 5.0))]
    assert burns[0].reason.startswith("The 99th percentile of the last 50 answers is 50.0 ms")
