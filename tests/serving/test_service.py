"""What does the service answer?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from models.registry import find
from serving.errors import ServiceUnreachableError
from serving.schemas import (
    ExplainRequest,
    FeedbackEvent,
    Met,
    RecommendRequest,
    SimilarRequest,
)
from tests.serving.conftest import ADMIN_KEY, API_KEY, DAY, Night, Running, Serve, wait_for


def rated(event_id: str, user: int, item: int, **more: object) -> FeedbackEvent:
    return FeedbackEvent(event_id=event_id, kind="rating", user_id=user, item_id=item, rating=5, **more)


def test_a_known_user_gets_what_they_have_not_met_with_model_version_and_feature_state(
    running: Running, night: Night
) -> None:
    user = night.users[0]
    answer = running.client.recommend(RecommendRequest(user_id=user, k=10, details=True))
    met = set(running.service.histories.of(user, 2**62).item_ids.tolist())
    assert len(answer.items) == 10 == len({item.item_id for item in answer.items})
    assert not met & {item.item_id for item in answer.items}
    assert [item.score for item in answer.items] == sorted((item.score for item in answer.items), reverse=True)
    assert answer.basis == "history" and answer.history_events == len(met)
    assert (answer.model.version, answer.model.slot, answer.model.digest) == (1, "blue", find("champion").digest)
    assert answer.features.source == "online" and set(answer.features.known_at) >= {"users", "user_stats", "movies"}
    assert answer.features.values["users__age"] is not None and answer.items[0].features
    assert answer.at.date() == DAY + timedelta(days=1)  # the replay's clock goes on from the end of the day


def test_what_was_rated_a_second_ago_changes_the_next_answer(running: Running, night: Night) -> None:
    user = night.users[1]
    ask = RecommendRequest(user_id=user, k=10)
    before = running.client.recommend(ask)
    chosen = before.items[0].item_id
    running.client.feedback([rated("e-1", user, chosen)])
    after = running.client.recommend(ask)
    assert chosen not in {item.item_id for item in after.items}
    assert after.history_events == before.history_events + 1
    assert [item.item_id for item in after.items] != [item.item_id for item in before.items[1:]]


def test_a_restart_remembers_what_came_in_and_what_was_shown(serve: Serve, night: Night) -> None:
    user = night.users[2]
    with serve() as first:
        answer = first.client.recommend(RecommendRequest(user_id=user))
        first.client.feedback([rated("e-1", user, answer.items[3].item_id, request_id=answer.request_id)])
        events = first.client.recommend(RecommendRequest(user_id=user)).history_events
    with serve() as second:
        assert second.client.recommend(RecommendRequest(user_id=user)).history_events == events
        again = second.client.feedback([rated("e-1", user, answer.items[3].item_id, request_id=answer.request_id)])
        assert (again.accepted, again.duplicates) == (0, 1)
        assert second.service.ring.get(answer.request_id) is not None
        assert 'millrace_online_ctr{version="1"} 1.0' in second.client.metrics()


def test_a_new_user_a_session_and_an_unknown_item_are_served(running: Running) -> None:
    nobody = running.client.recommend(RecommendRequest(k=5))
    stranger = running.client.recommend(RecommendRequest(user_id=10**12, k=5))
    assert nobody.basis == stranger.basis == "popularity"
    assert [i.item_id for i in nobody.items] == [i.item_id for i in stranger.items]
    session = [Met(item_id=nobody.items[0].item_id), Met(item_id=10**9)]
    visitor = running.client.recommend(RecommendRequest(history=session, k=5))
    assert visitor.basis == "history" and visitor.history_events == 2
    assert nobody.items[0].item_id not in {i.item_id for i in visitor.items}


def test_filters_and_exclusions_hold(running: Running, night: Night) -> None:
    ask = RecommendRequest(user_id=night.users[0], k=20, genres=["Comedy"], year_from=1990, year_to=1996)
    answer = running.client.recommend(ask)
    assert answer.items
    assert all("Comedy" in item.genres and 1990 <= (item.year or 0) <= 1996 for item in answer.items)
    first = answer.items[0].item_id
    again = running.client.recommend(ask.model_copy(update={"exclude": [first, 10**9]}))
    assert first not in {item.item_id for item in again.items}
    everything = running.client.recommend(RecommendRequest(k=1000, year_from=1997, year_to=1997))
    assert 0 < len(everything.items) < 1000
    with pytest.raises(ServiceUnreachableError, match="no item has: Comedi"):
        running.client.recommend(RecommendRequest(genres=["Comedi"]))


def test_a_reason_is_what_the_score_loses_without_the_item(running: Running, night: Night) -> None:
    user = night.users[0]
    service = running.service
    answer = running.client.recommend(RecommendRequest(user_id=user, details=True))
    slot, at = service.deployments.route.active, answer.at
    history = service.histories.of(user, 2**62)
    item = next(item for item in answer.items if item.because)
    place = slot.place(item.item_id)
    values = slot.features.last(user).values
    score = slot.scorer.scores(history, values, at)[place]
    named = item.because[0]
    drops = {}
    for event in set(history.item_ids[-20:].tolist()):
        kept = history.item_ids != event
        fewer = type(history)(history.item_ids[kept], history.rated_at[kept])
        drops[event] = float(score - slot.scorer.scores(fewer, values, at)[place])
    assert drops[named.item_id] == pytest.approx(named.change, abs=5e-3)
    assert drops[named.item_id] >= max(drops.values()) - 5e-3
    assert drops[named.item_id] > sum(drops.values()) / len(drops)


def test_similar_items_and_an_unknown_one(running: Running) -> None:
    answer = running.client.similar(SimilarRequest(item_id=50, k=5))
    assert answer.basis == "item-to-item" and len(answer.items) == 5
    assert 50 not in {item.item_id for item in answer.items}
    with pytest.raises(ServiceUnreachableError, match="no item 999999 in the catalogue"):
        running.client.similar(SimilarRequest(item_id=999_999))


def test_without_a_language_model_explain_says_so_and_recommendations_go_on(running: Running, night: Night) -> None:
    with pytest.raises(ServiceUnreachableError, match="No language model is configured") as caught:
        running.client.explain(ExplainRequest(item_id=50, user_id=night.users[0]))
    assert "MILLRACE_LLM_URL" in caught.value.fix
    assert running.client.recommend(RecommendRequest(user_id=night.users[0], k=3)).items


def test_events_keep_what_was_shown_and_a_clock_that_is_ahead_is_noted(running: Running, night: Night) -> None:
    user = night.users[3]
    answer = running.client.recommend(RecommendRequest(user_id=user))
    shown = [item.item_id for item in answer.items]
    done = running.client.feedback(
        [
            FeedbackEvent(event_id="i", kind="impression", request_id=answer.request_id),
            FeedbackEvent(event_id="c", kind="click", item_id=shown[2], request_id=answer.request_id),
            rated("r", user, shown[1], request_id=answer.request_id, occurred_at=datetime(2030, 1, 1, tzinfo=UTC)),
            rated("old", user, shown[0], occurred_at=datetime(1990, 1, 1, tzinfo=UTC)),
        ]
    )
    assert (done.accepted, done.duplicates, done.ahead) == (4, 0, 1)
    lines = [
        line for file in running.service.feedback.journal.folder.glob("*.log") for line in file.read_text().splitlines()
    ]
    records = {record["event_id"]: record for line in lines for record in [json.loads(line[9:])]}
    assert records["i"]["shown"] == shown and records["i"]["user_id"] == user
    assert (records["c"]["position"], records["r"]["position"], records["old"]["position"]) == (3, 2, None)
    assert {record["model_version"] for record in records.values()} == {1, None}
    assert records["r"]["occurred_at"] == records["r"]["received_at"] and records["r"]["skew_seconds"] > 1e8
    history = running.service.histories.of(user, 2**62)
    assert history.item_ids[0] == shown[0]  # out of order, and sorted in by its own time


def test_an_id_used_for_another_event_is_refused_and_nothing_of_the_batch_is_kept(
    running: Running, night: Night
) -> None:
    user = night.users[4]
    running.client.feedback([rated("x", user, 50)])
    with pytest.raises(ServiceUnreachableError, match="1 event id"):
        running.client.feedback([rated("new", user, 1), rated("x", user, 51)])
    with pytest.raises(ServiceUnreachableError, match="1 event id"):
        running.client.feedback([rated("y", user, 1), rated("y", user, 2)])
    assert running.client.feedback([rated("new", user, 1), rated("new", user, 1)]).accepted == 1


def test_the_registry_being_away_keeps_the_loaded_model_also_over_a_restart(
    serve: Serve, night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as running:
        assert running.client.health().status == "ok"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serve() as running:
        wait_for(lambda: running.client.health().status == "degraded")
        assert "The loaded model stays" in running.client.health().degraded[0]
        assert running.client.recommend(RecommendRequest(user_id=night.users[0])).model.version == 1


def test_the_page_and_the_document_carry_no_secret(running: Running) -> None:
    with running.http() as http:
        for path in ("/", "/openapi.json", "/metrics", "/health"):
            text = http.get(path).text
            assert API_KEY not in text and ADMIN_KEY not in text
