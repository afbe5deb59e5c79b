"""`bisect` names the table version that broke a metric, with one training a step, and says so where it can't."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import write_deltalake

from cli.main import main
from features.tables import ItemStats, UserStats
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import arrow_schema, to_arrow
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.table import Table
from lakehouse.ledger import Publication, Run
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie, MovieCard, Rating, User
from lakehouse.upkeep.fates import Fates, write_fates
from tasks.bisection import Broken, Point, bisect, find_metric, search, steps_between
from tasks.cache import environment_digest, project_digest
from tasks.errors import BisectError

AT = datetime(2026, 1, 1, tzinfo=UTC)
DAY = date(1998, 4, 20)
NDCG = "challenger NDCG@10"
METRICS = {NDCG: 0.5, "challenger MRR@10": 0.4, "popularity NDCG@10": 0.2}


def publication(number: int, table: str, version: int, *, day: date = DAY, published: bool = True) -> Publication:
    counts = dict.fromkeys(("rows_in", "rows_published", "rows_quarantined", "rows_duplicate", "rows_total"), 0)
    return Publication(
        publication_id=f"{table}/batch-{number}@{version}",
        table_name=table,
        batch_id=f"batch-{number}",
        day=day,
        version=version,
        published=published,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=AT + timedelta(minutes=number),
        **counts,
    )


def run(
    name: str,
    inputs: Mapping[str, int],
    value: float,
    *,
    day: date = DAY,
    artifacts: Mapping[str, str] | None = None,
    parameters: Mapping[str, str] | None = None,
    **changed: object,
) -> Run:
    given = {"day": str(day), "holdout_days": "14", "seed": "0", **(parameters or {})}
    return Run(
        **{
            "run_id": name,
            "execution": name,
            "workflow": "nightly",
            "day": day,
            "parameters": json.dumps(given),
            "seed": 0,
            "code_digest": project_digest(),
            "commit": "",
            "lock_digest": environment_digest(),
            "inputs": [f"{table}@{version}" for table, version in inputs.items()],
            "outputs": [],
            "artifacts": json.dumps({"model": "m"} if artifacts is None else artifacts),
            "metrics": json.dumps({**METRICS, NDCG: value}),
            "verdict": "promoted: all gates passed",
            "report": "",
            "seconds": 1.0,
            "finished_at": AT,
            **changed,
        }
    )


@pytest.fixture
def nights(lake: Lakehouse) -> Lakehouse:
    """Three nights: ratings 1, 2, 3 and movies 1, 2; version 2 of the movies was refused before it came as 3."""
    days = [DAY + timedelta(days=n) for n in range(3)]
    lake.ledger.append(
        [
            publication(0, "movies", 1, day=days[0]),
            publication(1, "ratings", 1, day=days[0]),
            publication(2, "movies", 2, day=days[1], published=False),
            publication(3, "ratings", 2, day=days[1]),
            publication(4, "movies", 3, day=days[2]),
            publication(5, "ratings", 3, day=days[2]),
        ]
    )
    return lake


GOOD = {"ratings": 1, "movies": 1}
BAD = {"ratings": 3, "movies": 3}


def found(lake: Lakehouse, bad_from: int, asked: list[tuple[Mapping[str, int], date]]) -> Broken:
    """What is found where the first of so many steps is bad."""
    order = [{"ratings": 2}, {"movies": 3}, {"ratings": 3}]

    def measure(tables: Mapping[str, int], day: date) -> Mapping[str, float]:
        asked.append((tables, day))
        at = GOOD
        states = [at, *(at := {**at, **step} for step in order)]
        return {NDCG: 0.5 if states.index(dict(tables)) < bad_from else 0.1}

    bad = run("bad", BAD, 0.1, day=DAY + timedelta(days=2))
    return search(lake, "ndcg", run("good", GOOD, 0.5), bad, measure, lambda point: None)


@pytest.mark.parametrize(
    ("bad_from", "broke", "before"),
    [(1, "ratings@2", "ratings@1"), (2, "movies@3", "movies@1"), (3, "ratings@3", "ratings@2")],
)
def test_the_first_bad_version_is_named_wherever_it_lies(
    nights: Lakehouse, bad_from: int, broke: str, before: str
) -> None:
    asked: list[tuple[Mapping[str, int], date]] = []
    answer = found(nights, bad_from, asked)
    assert (answer.broke.reference, answer.before, answer.steps) == (broke, before, 3)
    assert len(answer.tried) == len(asked) <= 2
    # A version is trained on as the night of its day would have been.
    assert asked[0] == ({"ratings": 2, "movies": 1}, DAY + timedelta(days=1))


def test_a_refused_version_is_no_step_and_a_vacuumed_one_is_left_out_and_told(nights: Lakehouse) -> None:
    create_table(nights, Rating.contract)
    write_fates(nights.uri("ratings"), Fates(removed=((2, 2),)))
    steps, note = steps_between(nights, run("good", GOOD, 0.5), run("bad", BAD, 0.1))
    assert [step.reference for step in steps] == ["movies@3", "ratings@3"]
    assert note.startswith("Vacuum removed ratings@2;")


@pytest.mark.parametrize("name", ["ndcg", "NDCG@10", "challenger ndcg", "challenger NDCG@10"])
def test_a_metric_may_be_named_in_short(name: str) -> None:
    assert find_metric(name, run("a", GOOD, 0.5), run("b", BAD, 0.1)) == NDCG
    assert find_metric("Popularity NDCG", run("a", GOOD, 0.5), run("b", BAD, 0.1)) == "popularity NDCG@10"


def test_what_can_not_be_bisected_is_one_sentence_before_anything_is_trained(nights: Lakehouse) -> None:
    good, bad = run("good", GOOD, 0.5), run("bad", BAD, 0.1)
    cases: Sequence[tuple[str, Run, Run, str]] = [
        ("ndgc", good, bad, "No metric that both runs have is called 'ndgc'"),
        ("ndcg", good, run("bad", BAD, 0.5), "0.5000 in run good and 0.5000 in run bad: the first is not better"),
        ("ndcg", good, run("bad", BAD, 0.1, code_digest="other"), "differ in more than their data: code"),
        ("ndcg", good, run("bad", BAD, 0.1, lock_digest="other"), "environment lock"),
        ("ndcg", good, run("bad", BAD, 0.1, seed=1), r"seed \(0 and 1\)"),
        ("ndcg", good, run("bad", BAD, 0.1, parameters={"holdout_days": "3"}), r"holdout_days \(14 and 3\)"),
        ("ndcg", good, run("bad", {"ratings": 3}, 0.1), "table movies, which only one reads"),
        ("ndcg", good, run("bad", GOOD, 0.1), "same version of every table"),
        ("ndcg", run("good", BAD, 0.5), run("bad", GOOD, 0.1), "older version"),
        ("ndcg", good, run("bad", BAD, 0.1, artifacts={}), "trained nothing"),
    ]

    def never(tables: Mapping[str, int], day: date) -> Mapping[str, float]:
        raise AssertionError("nothing is trained")

    for metric, first, second, told in cases:
        with pytest.raises(BisectError, match=told) as caught:
            search(nights, metric, first, second, never, lambda point: None)
        assert caught.value.fix
    for misspelt in ("challenger ndgc@10", "ndgc"):
        with pytest.raises(BisectError) as caught:
            find_metric(misspelt, good, bad)
        assert caught.value.fix == f"Did you mean {NDCG!r}?"


def test_data_that_is_not_to_blame_is_not_blamed(nights: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad run began with another champion, and on its data the good one's does as well as before."""
    monkeypatch.setattr("tasks.bisection.champion_of", lambda lake, run: {"digest": run.run_id})
    with pytest.raises(BisectError, match="not data broke it"):
        found(nights, 4, [])
    assert found(nights, 3, []).broke.reference == "ratings@3"


CLUSTERS, USERS, ITEMS = 4, 60, 40


def tastes(rng: np.random.Generator, *, broken: bool) -> pa.Table:
    """Ratings of 70 days: users rate what is of their own kind; in a broken version the items are any."""
    rows = []
    for user in range(1, USERS + 1):
        own = [item for item in range(1, ITEMS + 1) if item % CLUSTERS == user % CLUSTERS]
        items = rng.permutation(range(1, ITEMS + 1))[: len(own)] if broken else rng.permutation(own)
        for item in items:
            at = datetime(1998, 2, 10, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 70 * 1440)))
            rows.append(Rating(user_id=user, item_id=int(item), rating=4.0, rated_at=at))
    return to_arrow(Rating, rows)


def test_a_planted_version_is_found_by_real_trainings_and_again_from_the_cache(
    lake: Lakehouse, capfd: pytest.CaptureFixture[str]
) -> None:
    long_ago = datetime(1998, 2, 1, tzinfo=UTC)
    rng = np.random.default_rng(7)
    number = 0

    def put(row: type[Table], rows: pa.Table) -> int:
        nonlocal number
        number += 1
        name = row.contract.table
        create_table(lake, row.contract)
        write_deltalake(lake.uri(name), rows.cast(arrow_schema(row.contract)), mode="overwrite")
        version = open_delta(lake.uri(name)).version()
        lake.ledger.append([publication(number, name, version)])
        return version

    users = [
        User(user_id=n, age=30, gender="FM"[n % 2], occupation="artist", zip_code="1", joined_at=long_ago)
        for n in range(1, USERS + 1)
    ]
    movies = [
        Movie(item_id=n, title=f"Movie {n}", year=1990, genres=["Drama"], added_at=long_ago)
        for n in range(1, ITEMS + 1)
    ]
    cards = [MovieCard(item_id=1, mood="serious", audience="adults", answer_key="a" * 64, added_at=long_ago)]
    first = tastes(rng, broken=False)
    tables: dict[type[Table], pa.Table] = {
        Rating: first,
        User: to_arrow(User, users),
        Movie: to_arrow(Movie, movies),
        UserStats: UserStats.compute(first),
        ItemStats: ItemStats.compute(first),
        MovieCard: to_arrow(MovieCard, cards),
    }
    good = {row.contract.table: put(row, rows) for row, rows in tables.items()}
    put(Rating, tastes(rng, broken=False))
    put(User, tables[User])
    planted = put(Rating, tastes(rng, broken=True))
    put(Movie, tables[Movie])
    bad = {**good, "ratings": put(Rating, tastes(rng, broken=True)), "users": good["users"] + 1}
    bad["movies"] = good["movies"] + 1
    lake.ledger.append([run("aaaa", good, 0.5), run("bbbb", bad, 0.1, finished_at=AT + timedelta(hours=1))])

    done = CliRunner().invoke(main, ["bisect", "--metric", "ndcg", "--good", "aaaa", "--bad", "bbbb"])
    assert done.exit_code == 0, done.output
    assert f"ratings@{planted} broke it (batch batch-9, day 1998-04-20); with ratings@{planted - 1} it was good." in (
        done.output
    )
    trained = capfd.readouterr().err
    assert trained.count("train  ") == 2, "five versions, the last of which the bad run stands for"

    points: list[Point] = []
    (one, other) = lake.ledger.read(Run)
    again = bisect(lake, "ndcg", one, other, points.append)
    assert again.broke.reference == f"ratings@{planted}"
    assert again.tried == points
    assert [point.good for point in points] == [True, False]
    assert "train  " not in capfd.readouterr().err, "answered from the cache"
    assert not list(Path(lake.root).glob("_ledger/costs")), "nothing is written into the lake"


def test_a_training_that_fails_is_told_with_its_versions(lake: Lakehouse) -> None:
    names = ("ratings", "users", "movies", "user_stats", "item_stats", "movie_cards")
    lake.ledger.append([publication(0, "ratings", 2), publication(1, "ratings", 3)])
    good = run("good", dict.fromkeys(names, 1), 0.5)
    bad = run("bad", {**dict.fromkeys(names, 1), "ratings": 3}, 0.1)
    with pytest.raises(BisectError, match=r"on ratings@2, users@1, .* failed: ") as caught:
        bisect(lake, "ndcg", good, bad)
    assert "not" in caught.value.message
