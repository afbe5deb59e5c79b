"""``millrace plan``: what it prints, what it touches, its exit status."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Annotated

import pytest
from click.testing import CliRunner, Result
from pydantic import Field

import lakehouse.tables
from cli.main import main
from cli.touched import with_dependents
from lakehouse import EventTime, Key, Lakehouse, Table
from lakehouse.contracts.delta_schema import create_table
from lakehouse.contracts.evolution import Change, Plan, Touched
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Movie


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Row models that a test declares are forgotten after it."""
    monkeypatch.setattr(Table, "_registry", dict(Table._registry))


def millrace(*words: str) -> Result:
    return CliRunner().invoke(main, words, catch_exceptions=False)


@pytest.fixture
def movies(lake: Lakehouse, registry: None) -> Lakehouse:
    """The table of movies as it is declared by the project, empty and published."""
    create_table(lake, Movie.contract)
    version = open_delta(lake.uri("movies")).version()
    row = {
        "publication_id": f"movies/b@{version}",
        "table_name": "movies",
        "batch_id": "b",
        "day": date(1998, 3, 1),
        "version": version,
        "published": True,
        "failed_checks": [],
        "broken_rules": "{}",
        "fingerprint": Movie.contract.fingerprint,
        "published_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    counts = dict.fromkeys(("rows_in", "rows_published", "rows_quarantined", "rows_duplicate", "rows_total"), 0)
    lake.ledger.append([Publication.model_validate(row | counts)])
    return lake


def more_movies() -> None:
    class Movie(lakehouse.tables.Movie, name="movies"):
        """One movie that can be rated and recommended."""

        minutes: Annotated[int | None, Field(ge=1, description="Length.")] = None


def other_movies() -> None:
    class Movie(Table, name="movies"):
        """One movie that can be rated and recommended."""

        item_id: Annotated[int, Key(), Field(ge=1, description="Number of the movie.")]
        title: Annotated[str, Field(min_length=1, max_length=200, description="Title without its year.")]
        released: Annotated[int | None, Field(ge=1880, le=2100, description="Year of release.")]
        genres: Annotated[list[str], Field(description="Genres, in MovieLens's own words.")]
        added_at: Annotated[datetime, EventTime(), Field(description="When the movie entered the catalogue (UTC).")]


def test_tables_as_declared_are_said_to_be_so_and_others_to_be_new(movies: Lakehouse) -> None:
    done = millrace("plan")
    assert done.exit_code == 0
    assert "movies@1: as declared" in done.output
    assert "user_stats: not there yet" in done.output
    assert "publications" not in done.output


def test_an_additive_change_exits_with_0_and_names_what_it_touches(movies: Lakehouse) -> None:
    more_movies()
    done = millrace("plan", "movies")
    assert done.exit_code == 0
    assert "movies@1: additive" in done.output
    assert "column minutes (int64) is new, optional" in done.output
    (tables,) = [line for line in done.output.splitlines() if "touches tables: " in line]
    assert {"movie_cards", "ratings"} <= set(tables.partition(": ")[2].split(", "))  # and what other tests declare
    assert "tasks.enrich.enrich" in done.output
    assert "touches feature views: movies" in done.output
    assert "touches prompts: movie_card" in done.output
    assert open_delta(movies.uri("movies")).version() == 1


def test_apply_makes_the_changes_and_publishes_them(movies: Lakehouse) -> None:
    more_movies()
    done = millrace("plan", "movies", "--apply", "--format", "json")
    assert done.exit_code == 0
    assert movies.resolve("movies").version == open_delta(movies.uri("movies")).version() > 1
    again = millrace("plan", "movies", "--apply")
    assert "as declared" in again.output


def test_a_breaking_change_exits_with_1_and_nothing_is_applied(movies: Lakehouse) -> None:
    other_movies()
    done = millrace("plan", "--apply")
    assert done.exit_code == 1
    assert "column year (int64) is stored and no longer declared" in done.output
    assert "way out" in done.output
    assert open_delta(movies.uri("movies")).version() == 1


def test_json_holds_every_change_with_its_kind(movies: Lakehouse) -> None:
    more_movies()
    (found,) = json.loads(millrace("plan", "movies", "--format", "json").stdout)
    assert found["verdict"] == "additive"
    assert found["changes"][0] == {
        "column": "minutes",
        "kind": "additive",
        "action": "add column",
        "text": "column minutes (int64) is new, optional",
        "breaks": None,
        "examples": [],
    }
    assert "tasks.features.build_training_set" in found["touches"]["tasks"]


def test_an_unknown_table_is_refused_with_the_nearest_name(movies: Lakehouse) -> None:
    done = CliRunner().invoke(main, ["plan", "movie"])
    assert done.exit_code == 1
    assert "Did you mean 'movies'?" in done.output


def test_a_task_depends_on_the_tables_in_its_signature_and_no_others() -> None:
    change = Change(column="x", kind="additive", action="add column", text="x is new")
    plans = [Plan(table=name, version=1, changes=(change,), touches=Touched()) for name in ("ratings", "movie_cards")]
    ratings, cards = with_dependents(plans)
    assert "tasks.features.compute_features" in ratings.touches.tasks
    assert "tasks.features.compute_features" not in cards.touches.tasks
    assert (ratings.touches.feature_views, cards.touches.feature_views) == ((), ("movie_cards",))
    assert ratings.touches.prompts == ()
