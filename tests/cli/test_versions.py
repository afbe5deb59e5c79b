"""Verbs that compare, name and check versions."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake

from cli.main import main
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.contracts.table import Table
from lakehouse.ledger import Publication
from lakehouse.tables import Movie, Rating, User

Millrace = Callable[..., Result]
MOMENT = datetime(1998, 3, 1, 12, tzinfo=UTC)


def publication(table: str, version: int, restored_from: int | None = None) -> Publication:
    return Publication(
        publication_id=f"{table}/{version}@{version}",
        table_name=table,
        batch_id=str(version),
        kind="batch" if restored_from is None else "restore",
        restored_from=restored_from,
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=version),
    )


def rating(user: int, value: float) -> Rating:
    return Rating.model_construct(user_id=user, item_id=1, rating=value, rated_at=MOMENT)


@pytest.fixture
def lake(lake: Lakehouse) -> Lakehouse:
    """Ratings at versions 0 to 2: three rows; one changed, one gone, one new; a bad row, a second row of a key."""
    user = {"age": 30, "gender": "F", "occupation": "artist", "zip_code": "02139", "joined_at": MOMENT}
    users = [User(user_id=number, **user) for number in range(1, 5)]
    movie = Movie(item_id=1, title="Toy Story", year=1995, genres=["Comedy"], added_at=MOMENT)
    ones: list[list[Table]] = [list(users), [movie]]
    for rows in ones:
        write_deltalake(lake.uri(type(rows[0]).contract.table), to_arrow(type(rows[0]), rows))
    versions = [
        [rating(1, 4.0), rating(2, 4.0), rating(3, 4.0)],
        [rating(1, 4.0), rating(2, 5.0), rating(4, 1.0)],
        [rating(1, 9.0), rating(1, 4.0), rating(77, 4.0)],
    ]
    for rows_of_it in versions:
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, rows_of_it), mode="overwrite")
    lake.ledger.append([publication("users", 0), publication("movies", 0)])
    lake.ledger.append([publication("ratings", 0), publication("ratings", 1)])
    return lake


@pytest.fixture
def millrace(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> Millrace:
    """Runs the command on the lake, in this process."""
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(main, list(arguments), prog_name="millrace")


def test_diff_tells_what_became_of_each_row(millrace: Millrace) -> None:
    result = millrace("diff", "ratings@0", "ratings@1", "--format", "json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert [(row["change"], row["columns"]) for row in rows] == [
        ("changed", ["rating"]),
        ("removed", []),
        ("added", []),
    ]
    assert rows[0]["before"] == {"user_id": 2, "item_id": 1, "rating": 4.0}
    assert (rows[0]["after"]["rating"], rows[1]["before"]["user_id"], rows[2]["after"]["user_id"]) == (5.0, 3, 4)
    counts = json.loads(millrace("diff", "ratings@0", "ratings", "--counts", "--format", "json").stdout)
    assert counts == [{"added": 1, "removed": 1, "changed": 1}]
    assert "changed" in millrace("diff", "ratings@0", "ratings@1").stdout
    assert json.loads(millrace("diff", "ratings@1", "ratings@1", "--format", "json").stdout) == []


def test_diff_of_two_tables_is_explained(millrace: Millrace) -> None:
    result = millrace("diff", "ratings@0", "movies@0")
    assert result.exit_code == 1 and "MR-DIFF" in result.stderr


def test_tag_sets_lists_and_removes(millrace: Millrace) -> None:
    assert millrace("tag", "ratings@0", "golden").stdout == "ratings@golden is ratings@0.\n"
    listed = json.loads(millrace("tag", "ratings", "--format", "json").stdout)
    assert [(row["table_name"], row["tag"], row["version"]) for row in listed] == [("ratings", "golden", 0)]
    assert json.loads(millrace("tag", "movies", "--format", "json").stdout) == []
    assert json.loads(millrace("diff", "ratings@golden", "ratings@0", "--format", "json").stdout) == []
    assert millrace("tag", "ratings", "golden", "--delete").exit_code == 0
    assert json.loads(millrace("tag", "--format", "json").stdout) == []
    assert "MR-TAG" in millrace("tag", "ratings", "golden", "--delete").stderr
    assert millrace("tag", "ratings", "--delete").exit_code == 2


def test_check_passes_what_is_as_declared(millrace: Millrace) -> None:
    result = millrace("check", "ratings", "--format", "json")
    assert result.exit_code == 0, result.output
    found = {one["name"]: one["passed"] for one in json.loads(result.stdout)}
    assert {"log", "columns", "rating ge 0.5", "user_id references users.user_id", "published"} <= found.keys()
    assert "key user_id, item_id" in found


def test_check_fails_with_the_rule_the_count_and_the_key(millrace: Millrace) -> None:
    result = millrace("check", "ratings@2", "--format", "json")
    assert result.exit_code == 1
    failed = {one["name"]: one["detail"] for one in json.loads(result.stdout) if not one["passed"]}
    assert set(failed) == {
        "rating le 5",
        "user_id references users.user_id",
        "key user_id, item_id",
        "fresh within 2 days, 0:00:00",
        "published",
    }
    assert "1 row(s)" in failed["rating le 5"] and "user_id 77" in failed["user_id references users.user_id"]


def test_history_shows_kinds_withdrawals_and_tags(millrace: Millrace, lake: Lakehouse) -> None:
    lake.ledger.append([publication("ratings", 2, restored_from=0)])
    millrace("tag", "ratings@1", "golden")
    lines = json.loads(millrace("history", "ratings", "--format", "json").stdout)
    shown = [(line["version"], line["kind"], line["published"], line["withdrawn"], line["tags"]) for line in lines]
    assert shown == [
        (2, "restore", True, False, []),
        (1, "batch", True, True, ["golden"]),
        (0, "batch", True, False, []),
    ]
    assert "golden" in millrace("history", "ratings").stdout
