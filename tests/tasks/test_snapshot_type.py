from __future__ import annotations

import shutil
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import pytest
from click.testing import CliRunner
from deltalake import write_deltalake
from flytekit.core.context_manager import FlyteContextManager
from flytekit.core.type_engine import TypeEngine
from flytekit.models.literals import Literal
from flytekit.models.types import LiteralType, SimpleType
from pydantic import BaseModel

from lakehouse import Key, Lakehouse, Snapshot, Table
from lakehouse.contracts.arrow import to_arrow
from lakehouse.errors import NotPublishedError, UnknownVersionError, WrongTableError
from lakehouse.ledger import Publication
from lakehouse.tables import Movie, Rating
from tasks.typed import task

NOON = datetime(1998, 3, 1, 12, tzinfo=UTC)
CALLS: list[int] = []


@task()
def count_rows(ratings: Snapshot[Rating]) -> int:
    CALLS.append(ratings.version)
    return ratings.count()


@pytest.fixture
def lake(lake: Lakehouse) -> Lakehouse:
    """Ratings with 1, 2 and 3 rows at versions 0, 1 and 2, of which 1 is the latest published; movies at 0."""
    for user in (1, 2, 3):
        rating = Rating(user_id=user, item_id=1, rating=4.0, rated_at=NOON)
        write_deltalake(lake.uri("ratings"), to_arrow(Rating, [rating]), mode="append")
    movie = Movie(item_id=1, title="Heat", year=1995, genres=["Crime"], added_at=NOON)
    write_deltalake(lake.uri("movies"), to_arrow(Movie, [movie]))
    lake.ledger.append([publication(0, date(1998, 3, 1)), publication(1, date(1998, 3, 2))])
    return lake


@pytest.fixture(autouse=True)
def no_calls_yet() -> None:
    CALLS.clear()


def publication(version: int, day: date) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}",
        table_name="ratings",
        batch_id=str(version),
        day=day,
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
        published_at=datetime(2026, 1, 1, 0, version, tzinfo=UTC),
    )


def literal(value: object, row: object = Snapshot[Rating]) -> Literal:
    context = FlyteContextManager.current_context()
    return TypeEngine.to_literal(context, value, row, TypeEngine.to_literal_type(row))


def test_the_literal_type_has_the_contracts_columns() -> None:
    dataset = TypeEngine.to_literal_type(Snapshot[Movie]).structured_dataset_type
    assert [column.name for column in dataset.columns] == list(Movie.contract.names)
    kinds = {column.name: column.literal_type for column in dataset.columns}
    assert kinds["item_id"].simple == SimpleType.INTEGER
    assert kinds["added_at"].simple == SimpleType.DATETIME
    assert kinds["genres"].collection_type.simple == SimpleType.STRING


class Stop(BaseModel):
    city: str
    stars: int | None


class Journey(Table, name="journeys"):
    journey_id: Annotated[int, Key()]
    home: Stop
    stops: list[Stop]


def test_a_nested_model_is_a_struct_whose_schema_the_console_shows_and_the_cache_key_holds() -> None:
    dataset = TypeEngine.to_literal_type(Snapshot[Journey]).structured_dataset_type
    kinds = {column.name: column.literal_type for column in dataset.columns}
    assert kinds["home"].simple == kinds["stops"].collection_type.simple == SimpleType.STRUCT
    assert kinds["home"].metadata["properties"]["stars"] == {"type": ["integer", "null"], "format": "int64"}
    assert LiteralType.from_flyte_idl(TypeEngine.to_literal_type(Snapshot[Journey]).to_flyte_idl()) is not None
    assert (dataset.format, dataset.external_schema_type) == ("delta", "millrace-table")


def test_a_snapshot_becomes_a_literal_and_comes_back(lake: Lakehouse) -> None:
    snapshot = lake.resolve("ratings@1")
    made = literal(snapshot)
    assert made.scalar.structured_dataset.uri == f"{lake.uri('ratings')}@1"
    back = TypeEngine.to_python_value(FlyteContextManager.current_context(), made, Snapshot[Rating])
    assert (back, back.row) == (snapshot, Rating)


def test_a_new_table_at_the_same_place_shares_no_answer_with_the_old_one(lake: Lakehouse) -> None:
    assert count_rows(ratings=lake.resolve("ratings@0")) == 1  # type: ignore[arg-type]
    rows = lake.resolve("ratings@2").arrow()
    shutil.rmtree(lake.uri("ratings"))
    write_deltalake(lake.uri("ratings"), rows)
    assert count_rows(ratings=lake.resolve("ratings@0")) == 3  # type: ignore[arg-type]
    assert CALLS == [0, 0]


@pytest.mark.parametrize(
    ("reference", "version"),
    [("ratings", 1), ("ratings@2", 2), ("ratings@0", 0), ("ratings@1998-03-01", 0), ("ratings@1999-01-01", 1)],
)
@pytest.mark.usefixtures("lake")
def test_a_reference_in_words_is_resolved_once_and_written_down(reference: str, version: int) -> None:
    assert literal(reference).scalar.structured_dataset.uri.endswith(f"/ratings@{version}")


@pytest.mark.usefixtures("lake")
def test_a_reference_that_leads_nowhere_is_the_lakes_own_error() -> None:
    for reference, error in (
        ("movies@0", WrongTableError),
        ("ratings@9", UnknownVersionError),
        ("ratings@1990-01-01", NotPublishedError),
    ):
        with pytest.raises(error):
            literal(reference)


def test_a_snapshot_of_another_table_is_refused_when_the_task_is_called(lake: Lakehouse) -> None:
    with pytest.raises(Exception, match=r"takes a snapshot of table 'ratings' but was given one of 'movies'"):
        count_rows(ratings=lake.resolve("movies@0"))  # type: ignore[arg-type]
    assert CALLS == []


def test_the_same_version_is_answered_from_the_cache_and_a_new_one_is_not(lake: Lakehouse) -> None:
    for version in (0, 0, 1, 0, 1):
        assert count_rows(ratings=lake.resolve(f"ratings@{version}")) == version + 1  # type: ignore[arg-type]
    assert CALLS == [0, 1]


@pytest.mark.usefixtures("lake")
def test_the_command_line_takes_references_and_refuses_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flytekit.clis.sdk_in_container.pyflyte import main

    script = tmp_path / "flow.py"
    script.write_text(
        "from lakehouse import Snapshot\nfrom lakehouse.tables import Rating\n"
        "from tasks.compiled import workflow\nfrom tasks.typed import task\n\n"
        "@task()\ndef rows(ratings: Snapshot[Rating]) -> int:\n    return ratings.count()\n\n"
        "@workflow\ndef flow(ratings: Snapshot[Rating]) -> int:\n    return rows(ratings=ratings)\n"
    )
    monkeypatch.chdir(tmp_path)
    for reference, rows in (("ratings", 2), ("ratings@2", 3), ("ratings@1998-03-01", 1)):
        done = CliRunner().invoke(main, ["run", str(script), "flow", "--ratings", reference])
        assert done.exit_code == 0, done.output
        assert str(rows) in done.output.splitlines()[-1]
    refused = CliRunner().invoke(main, ["run", str(script), "flow", "--ratings", "movies@0"])
    assert refused.exit_code == 1
    assert "error: " in refused.output and "was given one of 'movies'" in refused.output
    assert "Traceback" not in refused.output
