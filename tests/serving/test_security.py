"""Who gets in, what is refused, and what never shows."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.errors import ServingConfigError
from serving.server import is_loopback, keys, listen
from serving.settings import ServingSettings
from tests.serving.conftest import ADMIN_KEY, API_KEY, Night, Running, Serve, command, serving, settle

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lakehouse", "features", "models", "serving", "tasks", "workflows", "cli")


@pytest.fixture(scope="module")
def running(night: Night, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One service for all tests here that change nothing."""
    state = tmp_path_factory.mktemp("steady")
    with pytest.MonkeyPatch.context() as patch:
        settle(patch, night, state)
        with serving(night, state) as found:
            yield found


def test_each_door_has_its_own_key(running: Running) -> None:
    with httpx.Client(base_url=running.url, trust_env=False) as http:
        for given in ("Bearer", "Bearer wrong", f"Bearer {ADMIN_KEY}", f"Bearer {API_KEY[:-1]}"):
            answer = http.post("/recommend", json={}, headers={"authorization": given})
            assert answer.status_code == 401 and answer.json()["code"] == "MR-REQUEST"
        assert http.post("/recommend", json={}, headers={"authorization": f"Basic {API_KEY}"}).status_code == 401
        assert http.get("/admin/status", headers={"authorization": f"Bearer {API_KEY}"}).status_code == 401
        assert http.get("/openapi.json").status_code == 401
        for path in ("/", "/health", "/ready"):
            assert http.get(path).status_code == 200


def test_open_access_still_asks_for_the_admin_key(serve: Serve) -> None:
    with serve(open_access=True) as running, httpx.Client(base_url=running.url, trust_env=False) as http:
        assert http.post("/recommend", json={}).status_code == 200
        assert http.get("/admin/status").status_code == 401
        assert http.post("/recommend", json={}, headers={"host": "evil.example"}).status_code == 421
        assert http.get("/admin/status", headers={"authorization": f"Bearer {ADMIN_KEY}"}).status_code == 200


def test_who_asks_too_often_is_told_when_to_come_back(serve: Serve) -> None:
    with serve(rate_per_second=0.001, rate_burst=3) as running, running.http() as http:
        statuses = [http.post("/recommend", json={}).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        assert http.post("/recommend", json={}).headers["retry-after"] == "1000"
        assert http.get("/health").status_code == 200


def test_a_body_over_the_limit_is_refused_whether_it_says_so_or_not(serve: Serve) -> None:
    with serve(max_body_bytes=2048) as running, running.http() as http:
        assert http.post("/feedback", content=b"[" * 5000).status_code == 413
        chunks = (b"[" * 1000 for _ in range(10))
        assert http.post("/feedback", content=chunks).status_code == 413
        assert http.post("/recommend", json={}).status_code == 200


def test_every_answer_closes_what_a_browser_could_open(running: Running) -> None:
    with running.http() as http:
        for answer in (http.get("/"), http.get("/health"), http.post("/recommend", content=b"{"), http.get("/nowhere")):
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert "default-src 'none'" in answer.headers["content-security-policy"]
            assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
        asked = http.options(
            "/recommend", headers={"origin": "https://elsewhere", "access-control-request-method": "POST"}
        )
        assert asked.status_code == 405 and "access-control-allow-origin" not in asked.headers


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/recommend", {"k": 0}, 422, "k: Input should be greater than or equal to 1"),
        ("/recommend", {"k": 10**9}, 422, "k: Input should be less than or equal to 1000"),
        ("/recommend", {"k": 2.5}, 422, "k: Input should be a valid integer"),
        ("/recommend", {"user_id": "1 or 1=1"}, 422, "user_id"),
        ("/recommend", {"user_id": -1}, 422, "user_id"),
        ("/recommend", {"user_id": 2**63}, 422, "user_id"),
        ("/recommend", {"usr_id": 1}, 422, "usr_id: Extra inputs are not permitted"),
        ("/recommend", {"history": [{"item_id": 1}] * 1001}, 422, "history"),
        ("/recommend", {"history": [{"item_id": 1, "at": "2024-01-01T00:00:00"}]}, 422, "timezone"),
        ("/recommend", [], 422, "valid dictionary"),
        ("/similar", {"item_id": 10**9}, 404, "no item 1000000000"),
        ("/feedback", {"events": []}, 422, "events"),
        ("/feedback", {"events": [{"event_id": "../x", "kind": "click", "item_id": 1}]}, 422, "event_id"),
        ("/feedback", {"events": [{"event_id": "a", "kind": "rating", "user_id": 1, "item_id": 1}]}, 422, "rating"),
        ("/feedback", {"events": [{"event_id": "a", "kind": "impression"}]}, 422, "request_id or shown"),
        ("/nowhere", {}, 404, "not answered here"),
    ],
)
def test_bad_input_is_one_sentence_with_a_code(
    running: Running, path: str, body: object, status: int, says: str
) -> None:
    with running.http() as http:
        answer = http.post(path, json=body)
    assert answer.status_code == status
    problem = answer.json()
    assert set(problem) == {"code", "message", "fix"} and says in problem["message"]
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b'{"k": NaN}', b'{"k": 1e999}', b"\xff\xfe", b"[" * 3000, b"null"])
def test_what_is_no_document_is_refused(running: Running, body: bytes) -> None:
    with running.http() as http:
        answer = http.post("/recommend", content=body, headers={"content-type": "application/json"})
        assert answer.status_code in (400, 422) and set(answer.json()) == {"code", "message", "fix"}
        rating = b'{"events": [{"event_id": "n", "kind": "rating", "user_id": 1, "item_id": 1, "rating": NaN}]}'
        assert http.post("/feedback", content=rating, headers={"content-type": "application/json"}).status_code == 422


def test_a_model_name_can_not_leave_the_registry(running: Running) -> None:
    with running.http(authorization=f"Bearer {ADMIN_KEY}") as http:
        for name in ("../../etc/passwd", "models:/x/1", "a" * 65, "", "file:///tmp"):
            assert http.post("/admin/stage", json={"model": name}).status_code == 422
        assert http.post("/admin/stage", json={"model": "nobody"}).status_code == 404
        assert http.post("/admin/stage", json={"model": "99"}).status_code == 404


def test_no_key_reaches_a_log_or_an_answer(running: Running, night: Night, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), running.http() as http:
        text = http.post("/recommend", json={"user_id": night.users[0]}).text
        text += http.post("/recommend", content=b"{").text + http.get("/metrics").text + http.get("/admin/status").text
    assert API_KEY not in text + caplog.text and ADMIN_KEY not in text + caplog.text
    assert API_KEY not in repr(ServingSettings())


def test_the_command_prints_no_key_and_refuses_to_stand_open(night: Night, tmp_path: Path) -> None:
    with command(night, tmp_path / "state") as (process, url):
        assert httpx.get(f"{url}/health", trust_env=False, timeout=60).status_code == 200
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert process.returncode in (0, -15)
    assert API_KEY not in out + err and ADMIN_KEY not in out + err and "Traceback" not in err


def test_keys_that_leave_a_door_open_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "API_KEY_FILE", "ADMIN_KEY", "ADMIN_KEY_FILE"):
        monkeypatch.delenv(f"MILLRACE_{name}", raising=False)
    with pytest.raises(ServingConfigError, match="No API key"):
        keys(ServingSettings(), "127.0.0.1", no_auth=False)
    assert keys(ServingSettings(), "127.0.0.1", no_auth=True) == (None, None)
    with pytest.raises(ServingConfigError, match="open to others"):
        keys(ServingSettings(), "0.0.0.0", no_auth=True)
    with pytest.raises(ServingConfigError, match="shorter than 16"):
        keys(ServingSettings(api_key="short"), "127.0.0.1", no_auth=False)
    with pytest.raises(ServingConfigError, match="the same"):
        keys(ServingSettings(api_key=API_KEY, admin_key=API_KEY), "127.0.0.1", no_auth=False)
    secret = tmp_path / "key"
    secret.write_text(API_KEY + "\n")
    assert keys(ServingSettings(api_key_file=secret), "0.0.0.0", no_auth=False) == (API_KEY, None)
    with pytest.raises(ServingConfigError, match="can't be read"):
        keys(ServingSettings(api_key_file=tmp_path / "none"), "127.0.0.1", no_auth=False)
    assert is_loopback("::1") and is_loopback("127.8.8.8") and not is_loopback("10.0.0.1")
    with listen("127.0.0.1", 0) as taken, pytest.raises(ServingConfigError, match="can't listen"):
        listen("127.0.0.1", taken.getsockname()[1])


def test_nothing_is_ever_unpickled_or_evaluated() -> None:
    forbidden = re.compile(
        r"\b(?:pickle|cloudpickle|dill|marshal|shelve|joblib)\.|torch\.load\(|(?<![\w.])(?:eval|exec)\("
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if forbidden.search(line.partition("#")[0])
    ]
    assert found == []
