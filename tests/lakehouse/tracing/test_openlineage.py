"""OpenLineage events: what the specification requires is there, they arrive, and they never stop a publication."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import OpenLineageError
from lakehouse.ledger import Metric, Publication, Run
from lakehouse.tables import Rating
from lakehouse.tracing.openlineage import announce, emit, events_of, send

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)
Document = dict[str, object]


class Endpoint(ThreadingHTTPServer):
    """A local server that keeps what is posted, and answers with a status of the test's choice."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Document]] = []
        self.status = 201
        self.authorization: str | None = None
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Content-Type"] == "application/json"
        self.server.received.append((self.path, json.loads(body)))
        self.server.authorization = self.headers["Authorization"]
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def publication(**facts: object) -> Publication:
    row = {
        "publication_id": "ratings/1998-03-01@3",
        "table_name": "ratings",
        "batch_id": "1998-03-01",
        "inputs": ["users@1"],
        "day": date(1998, 3, 1),
        "version": 3,
        "published": True,
        "rows_in": 10,
        "rows_published": 8,
        "rows_quarantined": 2,
        "rows_duplicate": 0,
        "rows_total": 100,
        "failed_checks": [],
        "broken_rules": '{"rating le 5": 2}',
        "fingerprint": Rating.contract.fingerprint,
        "published_at": AT,
    }
    return Publication.model_validate(row | facts)


def run(verdict: str = "promoted: better") -> Run:
    return Run(
        run_id="feedbeef",
        execution="e",
        workflow="nightly",
        day=date(1998, 3, 1),
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=["ratings@3"],
        outputs=["ratings@3", "movie_cards@2"],
        artifacts='{"model": "40de1", "training_set": "5e7"}',
        metrics="{}",
        verdict=verdict,
        report="r.html",
        seconds=90,
        finished_at=AT,
    )


def metric(name: str, column: str, value: float) -> Metric:
    return Metric(
        metric_id=f"ratings@3/{name}/{column}",
        table_name="ratings",
        version=3,
        metric=name,
        column=column,
        value=value,
        measured_at=AT,
    )


@pytest.fixture
def ledger(lake: Lakehouse) -> Lakehouse:
    """One publication with metrics, and one run."""
    lake.ledger.append([metric("Size", "*", 100.0), metric("Minimum", "rating", 0.5), metric("Maximum", "rating", 5.0)])
    lake.ledger.append([metric("Completeness", "rating", 0.97), metric("Mean", "rating", float("nan"))])
    lake.ledger.append([publication()])
    lake.ledger.append([run()])
    return lake


def check_required(event: Document) -> None:
    """What the specification requires of a run event, its datasets and facets (OpenLineage.json, 2-0-2)."""
    assert {"eventTime", "producer", "schemaURL", "run", "job", "eventType"} <= set(event)
    assert datetime.fromisoformat(str(event["eventTime"])).tzinfo is not None
    assert event["schemaURL"] == "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
    assert ":" in str(event["producer"])
    run, job = event["run"], event["job"]
    assert isinstance(run, dict)
    assert isinstance(job, dict)
    uuid.UUID(run["runId"])
    assert {"namespace", "name"} <= set(job)
    parts = [run, job]
    for side, own in (("inputs", "inputFacets"), ("outputs", "outputFacets")):
        datasets = event.get(side, [])
        assert isinstance(datasets, list)
        for dataset in datasets:
            assert {"namespace", "name"} <= set(dataset)
            parts += [dataset, {"facets": dataset.get(own, {})}]
    required = {
        "version": ["datasetVersion"],
        "outputStatistics": ["rowCount"],
        "dataQualityMetrics": ["columnMetrics"],
        "dataQualityAssertions": ["assertions"],
        "jobType": ["processingType", "integration"],
        "errorMessage": ["message", "programmingLanguage"],
    }
    for part in parts:
        for name, facet in part.get("facets", {}).items():
            assert {"_producer", "_schemaURL", *required.get(name, [])} <= set(facet), name


def documents(lake: Lakehouse, row: Publication | Run) -> list[Document]:
    found = [json.loads(event.model_dump_json()) for event in events_of(lake, [row])]
    for event in found:
        check_required(event)
    return found


def test_a_publication_is_a_start_and_a_complete_of_one_run_with_its_versions_rows_and_metrics(
    ledger: Lakehouse,
) -> None:
    start, complete = documents(ledger, publication())
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]  # type: ignore[index]
    assert complete["job"]["name"] == "publish.ratings"  # type: ignore[index]
    (output,) = complete["outputs"]  # type: ignore[misc]
    assert (output["namespace"], output["name"]) == ("file", f"{ledger.root}/ratings")
    assert output["facets"]["version"]["datasetVersion"] == "3"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 8
    quality = output["facets"]["dataQualityMetrics"]
    assert (quality["rowCount"], quality["columnMetrics"]) == (
        100,
        {"rating": {"min": 0.5, "max": 5.0, "nullCount": 3}},
    )
    assert [field["name"] for field in output["facets"]["schema"]["fields"]] == list(Rating.contract.names)


def test_the_batch_says_which_rules_its_rows_kept_and_which_they_broke(ledger: Lakehouse) -> None:
    _, complete = documents(ledger, publication())
    users, batch = complete["inputs"]  # type: ignore[misc]
    assert users["name"].endswith("/users")
    assert users["facets"]["version"]["datasetVersion"] == "1"
    assert batch["name"].endswith("/_staging/ratings/1998-03-01")
    said = {a["assertion"]: a for a in batch["inputFacets"]["dataQualityAssertions"]["assertions"]}
    assert said["rating le 5"] == {"assertion": "rating le 5", "success": False, "column": "rating"}
    assert said["rating ge 0.5"]["success"]


def test_a_refused_version_is_a_failed_run_that_says_why(ledger: Lakehouse) -> None:
    refused = publication(published=False, failed_checks=["Size is 0"])
    start, fail = documents(ledger, refused)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert "Size is 0" in fail["run"]["facets"]["errorMessage"]["message"]  # type: ignore[index]


def test_a_run_reads_tables_and_writes_its_model_and_what_it_did_not_read(ledger: Lakehouse) -> None:
    start, complete = documents(ledger, run())
    assert (start["eventTime"], complete["eventTime"]) == ("2026-01-01T11:58:30Z", "2026-01-01T12:00:00Z")
    assert [d["name"].rpartition("/")[2] for d in complete["inputs"]] == ["ratings"]  # type: ignore[attr-defined]
    names = [d["name"] for d in complete["outputs"]]  # type: ignore[attr-defined]
    assert names == ["model/40de1", "training_set/5e7", f"{ledger.root}/movie_cards"]


def test_a_failed_run_is_a_failed_run(ledger: Lakehouse) -> None:
    assert [event["eventType"] for event in documents(ledger, run("failed: no data"))] == ["START", "FAIL"]


def test_events_arrive_at_an_endpoint_with_the_same_ids_each_time(ledger: Lakehouse, endpoint: Endpoint) -> None:
    assert emit(ledger, endpoint.url) == 4
    assert emit(ledger, endpoint.url) == 4
    assert {path for path, _ in endpoint.received} == {"/api/v1/lineage"}
    events = [event for _, event in endpoint.received]
    assert events[:4] == events[4:]
    assert len({event["run"]["runId"] for event in events}) == 2  # type: ignore[index]
    for event in events:
        check_required(event)


def test_a_path_in_the_url_is_kept(ledger: Lakehouse, endpoint: Endpoint) -> None:
    send(f"{endpoint.url}/hooks/lineage", events_of(ledger, [publication()]))
    assert [path for path, _ in endpoint.received] == ["/hooks/lineage"] * 2


def test_name_and_password_in_the_url_are_sent_as_such(ledger: Lakehouse, endpoint: Endpoint) -> None:
    emit(ledger, endpoint.url.replace("127", "user:hunter2@127"))
    assert endpoint.authorization == "Basic dXNlcjpodW50ZXIy"


def test_events_sent_to_a_file_again_are_not_there_twice(ledger: Lakehouse, tmp_path: Path) -> None:
    target = tmp_path / "events" / "lineage.jsonl"
    assert (emit(ledger, str(target)), emit(ledger, str(target))) == (4, 0)
    lines = target.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 4
    for line in lines:
        check_required(json.loads(line))


def test_ids_differ_between_lakes(ledger: Lakehouse, tmp_path: Path) -> None:
    other = Lakehouse.open(tmp_path / "other", create=True)
    ids = {next(events_of(lake, [publication()])).run.runId for lake in (ledger, other)}
    assert len(ids) == 2


def test_an_unreachable_endpoint_is_a_warning_to_a_publication_and_an_error_to_who_asks_for_it(
    ledger: Lakehouse, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = Endpoint()
    gone.server_close()
    secret = gone.url.replace("127", "user:hunter2@127") + "/?key=hunter2"
    monkeypatch.setenv("MILLRACE_OPENLINEAGE_URL", secret)
    with caplog.at_level(logging.WARNING, logger="lakehouse.tracing.openlineage"):
        announce(ledger, publication())
    assert "millrace lineage --emit" in caplog.text
    assert "hunter2" not in caplog.text
    with pytest.raises(OpenLineageError) as caught:
        emit(ledger, secret)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("target", ["ftp://host/x", "http://[", "http://host:port/"])
def test_a_wrong_target_never_fails_a_publication(
    ledger: Lakehouse, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, target: str
) -> None:
    monkeypatch.setenv("MILLRACE_OPENLINEAGE_URL", target)
    announce(ledger, publication())
    assert len(caplog.records) == 1


def test_an_endpoint_that_refuses_is_an_error_with_its_answer(ledger: Lakehouse, endpoint: Endpoint) -> None:
    endpoint.status = 422
    with pytest.raises(OpenLineageError, match="422"):
        emit(ledger, endpoint.url)


def test_a_fresh_row_is_sent_where_the_settings_say_and_nowhere_without_them(
    ledger: Lakehouse, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(ledger, publication())
    assert endpoint.received == []
    monkeypatch.setenv("MILLRACE_OPENLINEAGE_URL", endpoint.url)
    announce(ledger, run())
    assert [event["eventType"] for _, event in endpoint.received] == ["START", "COMPLETE"]


def test_an_act_on_a_table_is_announced_like_a_batch(
    lake: Lakehouse, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    from lakehouse.upkeep.acts import Act, publish_act

    for _ in range(2):
        write_deltalake(lake.uri("ratings"), pa.table({"a": [1]}), mode="append")
    lake.ledger.append([publication(version=0)])
    monkeypatch.setenv("MILLRACE_OPENLINEAGE_URL", endpoint.url)
    publish_act(lake, "ratings", 1, Act(kind="optimize", parent=0))
    start, complete = (event for _, event in endpoint.received)
    check_required(start)
    check_required(complete)
    (source,) = complete["inputs"]  # type: ignore[misc]
    assert (source["name"].rpartition("/")[2], source["facets"]["version"]["datasetVersion"]) == ("ratings", "0")
    (output,) = complete["outputs"]  # type: ignore[misc]
    assert output["facets"]["version"]["datasetVersion"] == "1"
