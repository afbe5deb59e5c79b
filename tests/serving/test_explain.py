"""Reasons in words come from the component's endpoint, and are passed on only if they cite what the user has met."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from lakehouse.tables import Rating
from serving.errors import ServiceUnreachableError
from serving.schemas import ExplainRequest, Met
from tests.serving.conftest import Night, Serve


class Component(BaseHTTPRequestHandler):
    """Answers as `millrace llm serve` declares it, with what the test puts there; the last question is kept."""

    reply: ClassVar[tuple[int, object]] = (200, {})
    asked: ClassVar[dict[str, Any]] = {}

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        type(self).asked = {"path": self.path, **json.loads(body)}
        status, answer = self.reply
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def component() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Component)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_reason_cites_the_history_or_is_refused(serve: Serve, component: str) -> None:
    ask = ExplainRequest(item_id=50, history=[Met(item_id=181), Met(item_id=172)])
    with serve(llm_url=component) as running:
        Component.reply = (200, {"reason": "Another chapter of the same saga.", "cites": [181]})
        answer = running.client.explain(ask)
        assert (answer.reason, answer.cites) == ("Another chapter of the same saga.", [181])
        assert Component.asked["path"] == "/components/explain"
        assert Component.asked["item"] == {"item_id": 50, "title": "Star Wars", "year": 1977} | {
            "genres": Component.asked["item"]["genres"]
        }
        assert {met["item_id"] for met in Component.asked["history"]} == {181, 172}
        for reply, says in (
            ((200, {"reason": "Because.", "cites": [1]}), "cites 1 item"),
            ((200, {"reason": ""}), "declared form"),
            ((429, {}), "answered 429"),
        ):
            Component.reply = reply
            with pytest.raises(ServiceUnreachableError, match=says):
                running.client.explain(ask)
        assert 'millrace_dependency_up{dependency="llm"} 0.0' in running.client.metrics()


def test_what_a_user_gave_is_told_and_nothing_to_cite_is_said(serve: Serve, night: Night, component: str) -> None:
    user = night.users[0]
    with serve(llm_url=component) as running:
        Component.reply = (200, {"reason": "So it is.", "cites": []})
        running.client.explain(ExplainRequest(item_id=50, user_id=user))
        told = {met["item_id"]: met["rating"] for met in Component.asked["history"]}
        given = {row.item_id: row.rating for row in night.lake.latest(Rating).rows() if row.user_id == user}
        assert told and all(given[item] == stars for item, stars in told.items())
        with pytest.raises(ServiceUnreachableError, match="Nothing is known"):
            running.client.explain(ExplainRequest(item_id=50))


def test_a_language_model_that_is_away_is_one_sentence(serve: Serve) -> None:
    with serve(llm_url="http://127.0.0.1:9") as running, pytest.raises(ServiceUnreachableError, match="no connection"):
        running.client.explain(ExplainRequest(item_id=50, history=[Met(item_id=181)]))
