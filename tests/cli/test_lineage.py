"""``millrace lineage``: the tree, the page, the events."""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from lakehouse import Lakehouse
from lakehouse.ledger import Publication, Run

START = datetime(2026, 1, 1, tzinfo=UTC)
EVIL = "day-5<script>\x1b[31m"


def publication(name: str, version: int, batch: str, inputs: list[str]) -> Publication:
    return Publication(
        publication_id=f"{name}/{batch}@{version}",
        table_name=name,
        batch_id=batch,
        inputs=inputs,
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=10,
        rows_published=10,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=10 * version,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=START + timedelta(hours=version),
    )


@pytest.fixture
def night(lake: Lakehouse) -> Lakehouse:
    """Five versions of ratings, statistics of the last of them, and a run that trained a model on both."""
    lake.ledger.append([publication("ratings", n, f"day-{n}" if n < 5 else EVIL, []) for n in range(1, 6)])
    lake.ledger.append([publication("user_stats", 1, "day-5", ["ratings@5"])])
    run = Run(
        run_id="feedbeef",
        execution="e",
        workflow="nightly",
        day=date(1998, 3, 1),
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=["ratings@5", "user_stats@1"],
        outputs=["ratings@5", "user_stats@1"],
        artifacts='{"model": "40de1", "training_set": "5e7a"}',
        metrics="{}",
        verdict="promoted: better",
        report="reports/feedbeef.html",
        seconds=1,
        finished_at=START + timedelta(days=1),
    )
    lake.ledger.append([run])
    return lake


def millrace(*words: str) -> Result:
    return CliRunner().invoke(main, ["lineage", *words])


def test_the_tree_leads_from_the_thing_to_its_sources_indented_by_distance(night: Lakehouse) -> None:
    done = millrace("40de1", "--direction", "up")
    assert done.exit_code == 0
    lines = [re.sub(r"[│├└─]", " ", line).rstrip() for line in done.stdout.splitlines()]
    assert lines[0] == "model 40de1  was made of"
    assert lines[1:4] == [
        "    training set 5e7a",
        "        ratings@5 (50 rows)",
        r"            batch ratings/day-5<script>\x1b[31m (10 rows in, 0 quarantined)",
    ]
    assert "            ratings@1 … 4 (4 versions, 4 batches)" in lines
    assert "            ratings@5 (50 rows) (see above)" in lines


def test_both_directions_are_two_trees(night: Lakehouse) -> None:
    done = millrace("ratings@5")
    assert "ratings@5 (50 rows)  was made of" in done.stdout
    assert "ratings@5 (50 rows)  went into" in done.stdout
    assert "feedbeef.html" in done.stdout


def test_json_gives_every_node_unfolded(night: Lakehouse) -> None:
    found = json.loads(millrace("last", "--direction", "up", "--format", "json").stdout)
    assert found["focus"] == "run:feedbeef"
    assert {f"table:ratings@{n}" for n in range(1, 6)} <= {node["id"] for node in found["nodes"]}
    assert {"source": "table:ratings@5", "target": "table:user_stats@1", "kind": "input"} in found["edges"]


def test_the_page_stands_alone_and_holds_no_markup_of_the_data(night: Lakehouse, tmp_path: Path) -> None:
    page = tmp_path / "lineage.html"
    assert millrace("last", "--html", str(page)).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "<svg" in text
    assert "default-src 'none'" in text
    assert not re.search(r"<script|<link|<img|https?://(?!www\.w3\.org/)", text)
    assert "&lt;script&gt;" in text
    for label in ("run feedbeef", "model 40de1", "user_stats@1"):
        assert label in text


def test_an_unknown_thing_exits_with_1_and_the_nearest_name(night: Lakehouse) -> None:
    done = millrace("ratingz@5")
    assert done.exit_code == 1
    assert "Did you mean 'ratings@5'" in done.output


def test_nothing_named_is_wrong_usage(night: Lakehouse) -> None:
    assert millrace().exit_code == 2
    assert millrace("ratings@5", "--emit").exit_code == 2


def test_emit_sends_the_whole_ledger_once_and_needs_a_place_to_send_it(
    night: Lakehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = millrace("--emit")
    assert nowhere.exit_code == 1
    assert "MILLRACE_OPENLINEAGE_URL" in nowhere.output
    monkeypatch.setenv("MILLRACE_OPENLINEAGE_URL", str(tmp_path / "events.jsonl"))
    assert "Sent 14 event(s)." in millrace("--emit").output
    assert "Sent 0 event(s)." in millrace("--emit").output
    assert len((tmp_path / "events.jsonl").read_text(encoding="utf-8").splitlines()) == 14
