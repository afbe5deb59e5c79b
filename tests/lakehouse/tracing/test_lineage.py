"""Lineage from ledger rows: which version, model and run came of what."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta

import pytest
from deltalake import write_deltalake

from lakehouse import Lakehouse
from lakehouse.errors import LineageError
from lakehouse.ledger import Promotion, Publication, Run
from lakehouse.tracing.lineage import lineage

START = datetime(2026, 1, 1, tzinfo=UTC)
TRAINING_SET, MODEL = "5e7" + "0" * 61, "40de1" + "0" * 59


def publication(name: str, version: int, **facts: object) -> Publication:
    batch = str(facts.get("batch_id", f"day-{version}"))
    row = {
        "publication_id": f"{name}/{batch}@{version}",
        "table_name": name,
        "batch_id": batch,
        "day": date(1998, 3, 1),
        "version": version,
        "published": True,
        "rows_in": 10,
        "rows_published": 9,
        "rows_quarantined": 1,
        "rows_duplicate": 0,
        "rows_total": 9 * version,
        "failed_checks": [],
        "broken_rules": "{}",
        "fingerprint": "f",
        "published_at": START + timedelta(hours=version),
    }
    return Publication.model_validate(row | facts)


def run(run_id: str, inputs: list[str], outputs: list[str], artifacts: dict[str, str]) -> Run:
    return Run(
        run_id=run_id,
        execution="e",
        workflow="nightly",
        day=date(1998, 3, 1),
        parameters="{}",
        seed=0,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=inputs,
        outputs=outputs,
        artifacts=json.dumps(artifacts),
        metrics="{}",
        verdict="promoted: better",
        report=f"reports/{run_id}.html",
        seconds=60,
        finished_at=START + timedelta(days=1),
    )


@pytest.fixture
def night(lake: Lakehouse) -> Lakehouse:
    """Ratings at versions 1 to 6, statistics of version 5, a model trained on them, and a run that says so."""
    rows = [publication("ratings", version) for version in range(1, 7)]
    rows.append(publication("user_stats", 1, inputs=["ratings@5"]))
    lake.ledger.append(rows)
    sources = ["ratings@5", "user_stats@1"]
    outputs = [*sources, "movie_cards@2"]
    artifacts = {"training_set": TRAINING_SET, "model": MODEL, "llm": "11a" * 10}
    lake.ledger.append([run("feedbeef0001", sources, outputs, artifacts)])
    lake.ledger.append(
        [
            Promotion(
                promotion_id=f"1998-03-01/{MODEL}",
                day=date(1998, 3, 1),
                model_digest=MODEL,
                model_path="models/m",
                registry_version=1,
                trained_until=START,
                promoted_at=START,
            )
        ]
    )
    return lake


def edges(lake: Lakehouse, what: str, direction: str = "both") -> set[tuple[str, str]]:
    graph = lineage(lake, what, direction)  # type: ignore[arg-type]
    label = {node.id: node.label for node in graph.nodes}
    return {(label[edge.source], label[edge.target]) for edge in graph.edges}


def test_a_model_leads_back_to_the_versions_and_batches_that_it_was_trained_on(night: Lakehouse) -> None:
    assert edges(night, "40de1", "up") == {
        (f"training set {TRAINING_SET[:12]}", f"model {MODEL[:12]}"),
        ("ratings@5", f"training set {TRAINING_SET[:12]}"),
        ("user_stats@1", f"training set {TRAINING_SET[:12]}"),
        ("ratings@5", "user_stats@1"),
        ("batch user_stats/day-1", "user_stats@1"),
        *((f"batch ratings/day-{n}", f"ratings@{n}") for n in range(1, 6)),
        *((f"ratings@{n}", f"ratings@{n + 1}") for n in range(1, 5)),
    }


def test_a_batch_leads_on_to_every_version_model_and_report_that_has_its_rows(night: Lakehouse) -> None:
    graph = lineage(night, "ratings/day-2", "down")
    labels = {node.label for node in graph.nodes}
    assert {"ratings@2", "ratings@6", "user_stats@1", f"model {MODEL[:12]}", "feedbeef0001.html"} <= labels
    assert not {"ratings@1", "batch ratings/day-3"} & labels


def test_what_a_run_wrote_after_training_comes_of_it_and_what_it_wrote_before_does_not(night: Lakehouse) -> None:
    derived = edges(night, "feedbeef0001", "down")
    assert derived == {("run feedbeef0001", "movie_cards@2"), ("run feedbeef0001", "feedbeef0001.html")}


def test_a_champion_is_called_so(night: Lakehouse) -> None:
    graph = lineage(night, MODEL)
    assert graph.node(graph.focus).detail == "champion of 1998-03-01"


def test_every_source_stands_before_what_was_made_of_it(night: Lakehouse) -> None:
    graph = lineage(night, "last")
    place = {node.id: n for n, node in enumerate(graph.nodes)}
    assert graph.edges
    assert all(place[edge.source] < place[edge.target] for edge in graph.edges)


def test_a_restore_goes_on_from_the_version_that_came_back_and_the_batches_between_are_withdrawn(
    lake: Lakehouse,
) -> None:
    rows = [publication("ratings", version) for version in (1, 2, 3)]
    rows.append(publication("ratings", 4, kind="restore", batch_id="restore-4", restored_from=1, inputs=["ratings@1"]))
    lake.ledger.append([*rows, publication("ratings", 5)])
    assert ("ratings@1", "ratings@4") in edges(lake, "ratings@5")
    upstream = {node.label: node.detail for node in lineage(lake, "ratings@5", "up").nodes}
    assert "batch ratings/day-2" not in upstream
    assert "batch restore-4" not in " ".join(upstream)
    downstream = {node.label: node.detail for node in lineage(lake, "ratings@1", "down").nodes}
    assert downstream["ratings@3"] == "27 rows, withdrawn"


def test_a_refused_version_is_a_dead_end(lake: Lakehouse) -> None:
    refused = publication("ratings", 2, published=False, failed_checks=["Size"])
    lake.ledger.append([publication("ratings", 1), refused, publication("ratings", 4)])
    assert edges(lake, "ratings@2", "down") == set()
    assert ("ratings@1", "ratings@4") in edges(lake, "ratings@4", "up")
    graph = lineage(lake, "ratings@2")
    assert graph.node(graph.focus).detail == "18 rows, refused"


def test_an_evolved_version_comes_of_its_parent_and_of_no_batch(lake: Lakehouse) -> None:
    evolved = publication("ratings", 2, kind="evolve", batch_id="evolve-2", inputs=["ratings@1"])
    lake.ledger.append([publication("ratings", 1), evolved])
    assert edges(lake, "ratings@2", "up") == {("ratings@1", "ratings@2"), ("batch ratings/day-1", "ratings@1")}


def test_for_people_versions_in_a_row_become_one_and_nothing_that_branches_off_is_lost(night: Lakehouse) -> None:
    graph = lineage(night, "40de1", "up").folded()
    labels = {node.label: node.detail for node in graph.nodes}
    assert labels["ratings@1 … 4"] == "4 versions, 4 batches"
    assert {"ratings@5", "batch ratings/day-5", "user_stats@1"} <= set(labels)
    assert not {"ratings@2", "batch ratings/day-2"} & set(labels)
    ends = {node.id for node in graph.nodes}
    assert all({edge.source, edge.target} <= ends for edge in graph.edges)


def test_a_long_history_folds_quickly_and_the_batch_that_was_asked_about_stays(lake: Lakehouse) -> None:
    lake.ledger.append([publication("ratings", version) for version in range(1, 400)])
    graph = lineage(lake, "ratings/day-200", "down").folded()
    assert [node.label for node in graph.nodes] == ["batch ratings/day-200", "ratings@200 … 398", "ratings@399"]


@pytest.mark.parametrize(
    "what", ["ratings@5", "ratings/day-5", "feedb", "5e70", TRAINING_SET, "last", f"model:{MODEL}"]
)
def test_a_thing_goes_by_its_reference_its_digest_or_the_first_digits_of_it(night: Lakehouse, what: str) -> None:
    assert lineage(night, what).nodes


def test_a_table_without_a_version_is_its_latest_published_one(lake: Lakehouse) -> None:
    import pyarrow as pa

    write_deltalake(lake.uri("ratings"), pa.table({"a": [1]}))
    write_deltalake(lake.uri("ratings"), pa.table({"a": [2]}), mode="append")
    lake.ledger.append([publication("ratings", 1)])
    assert lineage(lake, "ratings").focus == "table:ratings@1"
    with pytest.raises(LineageError, match="ratings@0 is a step"):
        lineage(lake, "ratings@0")


@pytest.mark.parametrize(
    ("what", "hint"), [("ratingz@5", "ratings@5"), ("rating/day-5", "ratings/day-5"), ("???", "Name")]
)
def test_an_unknown_thing_is_refused_with_the_nearest_names(night: Lakehouse, what: str, hint: str) -> None:
    with pytest.raises(LineageError) as caught:
        lineage(night, what)
    assert hint in caught.value.fix


def test_a_beginning_that_fits_two_things_is_refused_with_both(night: Lakehouse) -> None:
    night.ledger.append([run("feedbeef0002", [], [], {})])
    with pytest.raises(LineageError, match=r"2 things begin with 'feedbeef'.*0001.*0002"):
        lineage(night, "feedbeef")


def test_the_version_that_was_asked_about_is_never_folded_away(lake: Lakehouse) -> None:
    lake.ledger.append([publication("ratings", version) for version in range(1, 10)])
    labels = [node.label for node in lineage(lake, "ratings@5").folded().nodes]
    assert {"ratings@1 … 4", "ratings@5", "batch ratings/day-5", "ratings@6 … 8", "ratings@9"} <= set(labels)
