from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake

from cli.main import main
from lakehouse import Lakehouse
from lakehouse.contracts.arrow import to_arrow
from lakehouse.ledger import Publication
from lakehouse.snapshot import open_delta
from lakehouse.tables import Rating

Millrace = Callable[..., Result]
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def lake(own_state: None, tmp_path: Path) -> Lakehouse:
    """Versions 0 to 4 of ratings, one more user in each, published long enough ago; the table has a file for each."""
    lake = Lakehouse.open(tmp_path / "lake", create=True)
    for version in range(5):
        row = Rating(user_id=version + 1, item_id=1, rating=4.0, rated_at=NOON)
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [row]), mode="append")
        lake.ledger.append([publication(version)])
    return lake


def publication(version: int) -> Publication:
    return Publication(
        publication_id=f"ratings/b{version}@{version}",
        table_name="ratings",
        batch_id=f"b{version}",
        day=date(1998, 3, 1),
        version=version,
        published=True,
        rows_in=1,
        rows_published=1,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=version + 1,
        failed_checks=[],
        broken_rules="{}",
        fingerprint="f",
        published_at=NOON + timedelta(minutes=version),
    )


@pytest.fixture
def millrace(lake: Lakehouse) -> Millrace:
    def run(*words: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(main, ["--lake", lake.root, *words], input=answer)

    return run


def users(lake: Lakehouse) -> list[int]:
    return sorted(lake.resolve("ratings").arrow(["user_id"])["user_id"].to_pylist())


def test_restore_says_what_it_withdraws_and_asks(lake: Lakehouse, millrace: Millrace) -> None:
    refused = millrace("restore", "ratings@2", answer="n\n")
    assert refused.exit_code == 1
    for batch in ("b3", "b4"):
        assert f"withdraws {batch} (1 rows" in refused.stderr
    assert users(lake) == [1, 2, 3, 4, 5]
    done = millrace("restore", "ratings@2", answer="y\n")
    assert (done.exit_code, done.stdout) == (0, "ratings@5 has the rows of ratings@2 and is published.\n")
    assert users(lake) == [1, 2, 3]


def test_restore_in_json_with_yes_asks_nothing(lake: Lakehouse, millrace: Millrace) -> None:
    done = millrace("restore", "ratings@2", "--yes", "--format", "json")
    assert json.loads(done.stdout) == {
        "table": "ratings",
        "version": 5,
        "restored_from": 2,
        "rows": 3,
        "withdrawn": ["b3", "b4"],
    }


def test_pins_are_added_listed_and_released(lake: Lakehouse, millrace: Millrace) -> None:
    added = millrace("pins", "add", "ratings@1", "--holder", "paper", "--reason", "figure 2", "--until", "2999-01-01")
    assert added.stdout == "ratings@1 is pinned for paper.\n"
    for words in (("pins",), ("pins", "ratings"), ("pins", "list", "ratings")):
        (one,) = json.loads(millrace(*words, "--format", "json").stdout)
        assert (one["table"], one["version"], one["holder"], one["reason"]) == ("ratings", 1, "paper", "figure 2")
        assert one["kept_until"] == "2999-01-01T00:00:00Z"
    assert millrace("pins", "release", "ratings@1", "--holder", "paper").exit_code == 0
    assert json.loads(millrace("pins", "--format", "json").stdout) == []
    again = millrace("pins", "release", "ratings@1", "--holder", "paper")
    assert (again.exit_code, "MR-PIN" in again.stderr) == (1, True)
    assert "MR-TABLE-UNKNOWN" in millrace("pins", "ratingz").stderr


def test_optimize_says_what_it_saved(lake: Lakehouse, millrace: Millrace) -> None:
    (one,) = json.loads(millrace("optimize", "ratings", "--format", "json").stdout)
    assert (one["done"], one["files_before"], one["files_after"], one["version"]) == ("compact", 5, 1, 5)
    assert users(lake) == [1, 2, 3, 4, 5]


def test_vacuum_removes_nothing_without_yes(
    lake: Lakehouse, millrace: Millrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_RETENTION_DAYS", "0")
    millrace("optimize", "ratings")
    planned = millrace("vacuum", "ratings", "--format", "json")
    (one,) = json.loads(planned.stdout)
    assert (one["dry_run"], one["files"], one["removed"]) == (True, 5, [0, 1, 2, 3, 4])
    assert "Nothing was removed" in planned.stderr
    assert open_delta(lake.uri("ratings"), 0).count() == 1
    (done,) = json.loads(millrace("vacuum", "ratings", "--yes", "--format", "json").stdout)
    assert done == one | {"dry_run": False}
    gone = millrace("sql", 'select * from "ratings@0"')
    assert (gone.exit_code, "can no longer be read" in gone.stderr) == (1, True)
    assert users(lake) == [1, 2, 3, 4, 5]


def test_maintain_lists_every_table(lake: Lakehouse, millrace: Millrace) -> None:
    rows = json.loads(millrace("maintain", "--format", "json").stdout)
    found = {row["table_name"]: row["compacted"] for row in rows}
    assert found["ratings"] == "compact"
    assert "publications" in found


def test_erase_shows_asks_and_certifies(lake: Lakehouse, millrace: Millrace) -> None:
    planned = millrace("erase", "--subject", "user_id=5", "--dry-run")
    assert planned.stdout == "ratings: 1 row(s) now, in versions 4\n"
    refused = millrace("erase", "--subject", "user_id=5", answer="n\n")
    assert (refused.exit_code, users(lake)) == (1, [1, 2, 3, 4, 5])
    done = millrace("erase", "--subject", "user_id=5", "--yes", "--reason", "letter", "--requested-by", "desk")
    assert done.exit_code == 0, done.stderr
    for line in ("by desk", "reason    letter", "ratings@5 is published without", "versions 4 can no longer be read"):
        assert line in done.stdout
    assert users(lake) == [1, 2, 3, 4]
    document = json.loads(millrace("erase", "--subject", "user_id=5", "--yes", "--format", "json").stdout)
    assert (document["new_versions"], document["removed"]) == ({"ratings": 5}, {"ratings": [4]})


@pytest.mark.parametrize(
    ("subject", "status", "message"),
    [
        ("user_id", 2, "is not COLUMN=VALUE"),
        ("item_id=1", 1, "MR-ERASURE"),
        ("user_id=one", 1, "can't be a value of"),
    ],
)
def test_a_subject_that_can_not_be_is_refused(millrace: Millrace, subject: str, status: int, message: str) -> None:
    done = millrace("erase", "--subject", subject, "--yes")
    assert (done.exit_code, message in done.stderr) == (status, True)
