"""``millrace quarantine``: refused rows are looked at, corrected and sent again, or closed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from cli.main import main
from lakehouse import Lakehouse
from lakehouse.gate.publish import publish
from lakehouse.gate.staging import stage
from lakehouse.tables import Movie, User

Millrace = Callable[..., Result]
NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)


def user(number: int, age: object, occupation: str | None = "artist") -> dict[str, object]:
    return {
        "user_id": str(number),
        "age": str(age),
        "gender": "F",
        "occupation": occupation,
        "zip_code": "02139",
        "joined_at": str(NOON),
    }


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good user and three refused ones, and a refused movie."""
    folder = tmp_path_factory.mktemp("refused") / "lake"
    lake = Lakehouse.open(folder, create=True)
    users = [user(1, 30), user(2, 300), user(3, "old", ""), user(4, 40, "\x1b[31mred[bold]" * 9)]
    movies = [
        {"item_id": n, "title": "T" * n, "year": 1996, "genres": ["Drama", None][: n + 1], "added_at": NOON}
        for n in range(2)
    ]
    for model, rows in ((User, users), (Movie, movies)):
        batch = stage(lake, model, pa.Table.from_pylist(rows), batch_id="b", day=date(1998, 3, 1))
        try:
            publish(lake, model, batch)
        except Exception as error:
            assert "MR-AUDIT" in error.explain()  # type: ignore[attr-defined]  # no movie is good
    return folder


@pytest.fixture
def lake(refused: Path, tmp_path: Path) -> Lakehouse:
    shutil.copytree(refused, tmp_path / "lake")
    return Lakehouse.open(tmp_path / "lake")


@pytest.fixture
def millrace(lake: Lakehouse) -> Millrace:
    def run(*words: str) -> Result:
        return CliRunner().invoke(main, ["--lake", lake.root, "quarantine", *words])

    return run


def open_rows(millrace: Millrace, *options: str) -> list[str]:
    return [row["quarantine_id"] for row in json.loads(millrace("list", "users", "--format", "json", *options).stdout)]


def ages(lake: Lakehouse) -> dict[int, int]:
    rows = lake.latest(User).arrow(["user_id", "age"]).to_pylist()
    return {row["user_id"]: row["age"] for row in rows}


def test_show_gives_each_rule_with_the_value_that_broke_it(millrace: Millrace) -> None:
    shown = millrace("show", "users", "b/2")
    assert shown.exit_code == 0, shown.output
    lines = shown.stdout.splitlines()
    assert lines[0].startswith("b/2, refused ") and lines[0].endswith(": open")
    assert '  age = "old"' in lines
    assert [line for line in lines if line.startswith("  breaks")] == [
        '  breaks age type int: "old"',
        '  breaks occupation min_length 1: ""',
    ]
    found = json.loads(millrace("show", "users", "b/2", "--format", "json").stdout)
    assert found["offending"] == {"age type int": "old", "occupation min_length 1": ""}
    assert (found["row"]["user_id"], found["fate"], found["rules"]) == ("3", "open", list(found["offending"]))
    assert "\x1b" not in millrace("show", "users", "b/3").stdout


def test_rows_are_corrected_and_discarded_and_the_list_shows_the_open_ones(lake: Lakehouse, millrace: Millrace) -> None:
    assert open_rows(millrace) == ["b/1", "b/2", "b/3"]
    done = millrace("requeue", "users", "b/1", "b/2", "--set", "age=33", "--set", "zip_code=12345")
    assert done.exit_code == 0, done.output
    assert "1 of 2 row(s) came in." in done.stdout
    assert ages(lake) == {1: 30, 2: 33}
    batch = lake.publications("users")[-1].batch_id
    assert f"1 broke a rule again and are open as {batch}/…" in done.stdout
    assert open_rows(millrace) == [f"{batch}/1", "b/3"]
    closed = millrace("discard", "users", "b/3", "--reason", "no such person")
    assert (closed.exit_code, closed.stdout) == (0, "1 row(s) discarded.\n")
    assert open_rows(millrace) == [f"{batch}/1"]
    every = json.loads(millrace("list", "users", "--all", "--format", "json").stdout)
    assert {row["quarantine_id"]: (row["fate"], row["reason"]) for row in every} == {
        f"{batch}/1": ("open", ""),
        "b/1": ("requeued", ""),
        "b/2": ("requeued", ""),
        "b/3": ("discarded", "no such person"),
    }
    assert f"requeued in {batch}" in millrace("show", "users", "b/1").stdout
    again = millrace("requeue", "users", f"{batch}/1", "--set", "occupation=artist", "--format", "json")
    found = json.loads(again.stdout)
    assert (found["rows_in"], found["rows_published"], found["version"]) == (1, 1, lake.latest(User).version)
    assert ages(lake) == {1: 30, 2: 33, 3: 33}


@pytest.mark.parametrize("kind", ["json", "csv", "parquet"])
def test_corrected_rows_come_from_a_file(lake: Lakehouse, millrace: Millrace, tmp_path: Path, kind: str) -> None:
    file = tmp_path / f"corrected.{kind}"
    rows = [
        {"quarantine_id": "b/1", "age": 32, "occupation": "doctor"},
        {"quarantine_id": "b/2", "age": 33, "occupation": "lawyer"},
    ]
    if kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "csv":
        file.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    else:
        pq.write_table(pa.Table.from_pylist(rows), file)
    done = millrace("requeue", "users", "--file", str(file))
    assert done.exit_code == 0, done.output
    assert ages(lake) == {1: 30, 2: 32, 3: 33}


def test_a_list_is_written_in_json_and_nothing_is_null(lake: Lakehouse, millrace: Millrace) -> None:
    wrong = millrace("requeue", "movies", "b/1", "--set", "genres=Drama")
    assert (wrong.exit_code, "is not JSON" in wrong.stderr) == (2, True)
    done = millrace("requeue", "movies", "b/1", "--set", 'genres=["War"]', "--set", "item_id=1", "--set", "year=")
    assert done.exit_code == 0, done.output
    (row,) = lake.latest(Movie).arrow().to_pylist()
    assert (row["title"], row["genres"], row["year"]) == ("T", ["War"], None)


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("show", "users", "b/9"), 1, "has no row 'b/9'"),
        (("show", "userz", "b/1"), 1, "MR-TABLE-UNKNOWN"),
        (("requeue", "users", "b/9", "--set", "age=1"), 1, "has no row 'b/9'"),
        (("requeue", "users", "b/1", "--set", "aeg=1"), 1, "Did you mean 'age'?"),
        (("requeue", "users", "b/1", "--set", "age"), 2, "is not COLUMN=VALUE"),
        (("requeue", "users"), 2, "Give rows, with --set, or a --file"),
        (("discard", "users", "b/1"), 2, "--reason"),
        (("discard", "users", "b/1", "--reason", " "), 1, "MR-QUARANTINE"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    millrace: Millrace, words: tuple[str, ...], status: int, message: str
) -> None:
    done = millrace(*words)
    assert (done.exit_code, message in done.stderr) == (status, True), done.output
    assert open_rows(millrace) == ["b/1", "b/2", "b/3"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.txt", "", "ends in neither"),
        ("x.json", "{", "MR-QUARANTINE"),
        ("x.json", "[1]", "not an array of objects"),
        ("x.json", "[]", "No row"),
        ("x.json", '[{"age": 1}]', "a row has no quarantine_id"),
        ("x.csv", "quarantine_id,age\nb/1,1\nb/1,2\n", "is there twice"),
        ("x.parquet", "PAR", "MR-QUARANTINE"),
    ],
)
def test_a_file_that_holds_no_corrections_is_one_sentence(
    millrace: Millrace, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    done = millrace("requeue", "users", "--file", str(tmp_path / name))
    assert (done.exit_code, message in done.stderr) == (1, True), done.output
