"""The nightly job for two days, as a user runs it: real Spark, Deequ, Feast, PyTorch, vLLM, MLflow and Flyte."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytestmark = [pytest.mark.nightly, pytest.mark.engine]


def query(place, statement: str) -> list[dict[str, object]]:
    done = place.run("millrace", "sql", "--format", "json", statement)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_first_night_publishes_trains_promotes_and_reports(first_night) -> None:
    place, done = first_night
    (run,) = query(place, "select * from runs")
    assert str(run["verdict"]).startswith("promoted: ")
    assert str(run["run_id"]) in done.stdout
    page = Path(str(run["report"])).read_text()
    assert "challenger" in page and "Lineage" in page and "ratings@2" in page

    for publication in query(place, "select * from publications"):
        accounted = ("rows_published", "rows_quarantined", "rows_duplicate")
        assert publication["rows_in"] == sum(int(str(publication[name])) for name in accounted)
        assert publication["published"] is True
        assert publication["rows_quarantined"] == 0
    assert query(place, "select count(*) as n from ratings") == [{"n": 99344}]
    assert query(place, "select count(*) as n from llm_responses where output is not null")[0]["n"] > 1600

    metrics = json.loads(str(run["metrics"]))
    assert metrics["challenger NDCG@10"] > metrics["popularity NDCG@10"]
    assert metrics["challenger NDCG@10"] > metrics["item-kNN NDCG@10"]


def test_the_same_night_again_is_answered_from_the_cache(first_night) -> None:
    place, done = first_night
    costs = query(place, "select count(*) as n from costs")
    again = place.nightly("--day", "1998-04-20")
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    # Each task that runs writes a row; a JVM or an engine could only have been started by one.
    assert query(place, "select count(*) as n from costs") == costs


def test_the_next_night_reads_one_day_and_starts_from_the_champion(first_night) -> None:
    place, _ = first_night
    counts = "select (select count(*) from movies) as movies, (select count(*) from llm_responses) as answers"
    (before,) = query(place, counts)
    done = place.nightly("--day", "1998-04-21")
    assert done.returncode == 0, done.stdout + done.stderr
    batches = query(place, "select * from publications where table_name = 'ratings' order by published_at")
    assert [batch["rows_in"] for batch in batches] == [99344, 120]
    runs = query(place, "select * from runs order by day")
    assert [str(run["day"])[:10] for run in runs] == ["1998-04-20", "1998-04-21"]
    metrics = json.loads(str(runs[1]["metrics"]))
    assert "champion NDCG@10" in metrics and "challenger NDCG@10" in metrics
    assert "retrain" in str(query(place, "select gate from decisions where passed"))
    # A movie that was answered once is not asked again.
    (after,) = query(place, counts)
    assert int(str(after["answers"])) - int(str(before["answers"])) <= int(str(after["movies"])) - int(
        str(before["movies"])
    )
    answers = query(place, "select count(*) as n, count(distinct answer_key) as keys from llm_responses")[0]
    assert answers["n"] == answers["keys"]
    history = place.run("millrace", "history", "ratings", "--format", "json")
    assert [version["published"] for version in json.loads(history.stdout)][:2] == [True, True]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ["--day", "1990-01-01"],
            r"error: The source has no data for 1990-01-01\.\n  fix: Choose a day from 1997-09-20",
        ),
        (["--day", "1998-04-01"], r"error: The lake already stands at the end of 1998-04-2\d"),
        (["--day", "1998-04-20", "--model", "/nowhere"], r"error: .*nowhere"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_the_way_out(first_night, options: list[str], expected: str) -> None:
    place, _ = first_night
    done = place.nightly(*options)
    assert done.returncode == 1
    assert re.search(expected, done.stderr)
    assert "Traceback" not in done.stderr + done.stdout


def test_every_input_is_described_and_has_a_default(first_night) -> None:
    place, _ = first_night
    done = place.nightly("--help")
    text = " ".join(done.stdout.split())
    for option in ("--day", "--holdout_days", "--retrain_after_ratings", "--retrain_after_days", "--model", "--seed"):
        assert option in text
    assert "required" not in text
